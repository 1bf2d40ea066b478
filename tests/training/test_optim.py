from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from golden import A, B, C

from jaxcl.errors import UserError
from jaxcl.training import LARC, LARS, SGD, Adam, AdamW


def walk(optim, params, grads, rates):
    """Parameters after one update per gradient, at the given learning rates."""
    schedule = lambda step: jnp.array(rates)[step]
    transform = optim.transform(schedule, len(rates))
    state = transform.init(params)
    for g in grads:
        updates, state = transform.update(g, state, params)
        params = optax.apply_updates(params, updates)
    return params


def test_lars_golden_row():  # google-research/simclr's class run on the same numbers
    optim = LARS(weight_decay=1e-4, momentum=0.9, trust=0.001)
    w = walk(optim, jnp.array(A[:2]), [jnp.array(B[:2]), jnp.array(C[:2])], [4.8, 4.8])
    np.testing.assert_allclose([w[0, 0], w[1, 1]], [-0.008742, 0.861386], atol=1e-6)


@pytest.mark.parametrize("inside", [True, False])
def test_lars_by_hand_while_the_rate_changes(inside):
    w, v, rates = A[:2].copy(), np.zeros((2, 5)), [0.5, 2.0, 1.0]
    for g, rate in zip([B[:2], C[:2], A[:2]], rates, strict=True):
        g = g + 0.01 * w
        step = 0.001 * np.linalg.norm(w) / np.linalg.norm(g) * g
        v = 0.9 * v + (rate * step if inside else step)
        w = w - (v if inside else rate * v)
    optim = LARS(weight_decay=0.01, lr_inside=inside)
    grads = [jnp.array(g) for g in (B[:2], C[:2], A[:2])]
    np.testing.assert_allclose(walk(optim, jnp.array(A[:2]), grads, rates), w, rtol=1e-5)


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("trust_of", ["gradient", "momentum"])
def test_lars_with_nesterov_and_without_classic_momentum(trust_of, nesterov):
    """google-research/simclr 383d414, tf2/lars_optimizer.py, lines 96 to 132, line by line."""
    w, v, rates = A[:2].copy(), np.zeros((2, 5)), [0.5, 2.0, 1.0]
    for g, rate in zip([B[:2], C[:2], A[:2]], rates, strict=True):
        g = g + 0.01 * w
        if trust_of == "gradient":
            step = rate * 0.001 * np.linalg.norm(w) / np.linalg.norm(g) * g
            v = 0.9 * v + step
            w = w - (0.9 * v + step if nesterov else v)
        else:
            v = 0.9 * v + g
            update = 0.9 * v + g if nesterov else v
            w = w - rate * 0.001 * np.linalg.norm(w) / np.linalg.norm(update) * update
    optim = LARS(weight_decay=0.01, trust_of=trust_of, nesterov=nesterov)
    grads = [jnp.array(g) for g in (B[:2], C[:2], A[:2])]
    np.testing.assert_allclose(walk(optim, jnp.array(A[:2]), grads, rates), w, rtol=1e-5)


def test_lars_leaves_biases_alone():
    """A vector takes a plain momentum step: no decay, no adaptation."""
    bias, gradient = jnp.array([1.0, -2.0]), jnp.array([0.3, 0.4])
    moved = walk(LARS(weight_decay=0.5), {"bias": bias}, [{"bias": gradient}], [0.1])
    np.testing.assert_allclose(moved["bias"], bias - 0.1 * gradient, rtol=1e-6)


@pytest.mark.parametrize("adapt_all", [False, True])
def test_a_plain_part_takes_decayed_momentum_steps(adapt_all):
    """As SimCLR's code has it for the classifier, whose kernel is decayed by a term of the loss
    (tf2/model.py, lines 52 to 58); the other parts are as without it."""
    params = {"encoder": {"kernel": jnp.array(A[:2])}, "logits": {"kernel": jnp.array(B[:2])}}
    grads = {"encoder": {"kernel": jnp.array(C[:2])}, "logits": {"kernel": jnp.array(A[:2])}}
    optim = LARS(weight_decay=0.5, adapt_all=adapt_all)
    moved = walk(replace(optim, plain=("logits",)), params, [grads], [0.1])
    expected = B[:2] - 0.1 * (A[:2] + 0.5 * B[:2])
    np.testing.assert_allclose(moved["logits"]["kernel"], expected, rtol=1e-6)
    np.testing.assert_array_equal(
        moved["encoder"]["kernel"], walk(optim, params, [grads], [0.1])["encoder"]["kernel"]
    )


def test_lars_ignores_the_scale_of_the_gradient_and_stays_finite_at_zero():
    w, g = jnp.array(A[:2]), jnp.array(B[:2])
    optim = LARS(weight_decay=0.0)
    np.testing.assert_allclose(
        walk(optim, w, [10 * g], [1.0]), walk(optim, w, [g], [1.0]), rtol=1e-5
    )
    np.testing.assert_allclose(walk(optim, 0 * w, [g], [1.0]), -g, rtol=1e-6)
    np.testing.assert_array_equal(walk(optim, w, [0 * g], [1.0]), w)


def test_larc_by_hand():
    """The adapted rate never exceeds the learning rate, which scales the momentum."""
    w, v = A[:2].copy(), np.zeros((2, 5))
    rates, grads = [0.4, 0.001, 0.4], [B[:2], 0.01 * C[:2], A[:2]]
    for g, rate in zip(grads, rates, strict=True):
        norm = np.linalg.norm(w)
        ratio = 0.02 * norm / (np.linalg.norm(g) + 1e-3 * norm + 1e-8)
        v = 0.9 * v + (g + 1e-3 * w) * min(ratio / rate, 1.0)
        w = w - rate * v
    moved = walk(LARC(weight_decay=1e-3), jnp.array(A[:2]), [jnp.array(g) for g in grads], rates)
    np.testing.assert_allclose(moved, w, rtol=1e-5)


def test_larc_without_clipping_is_apexs():
    """NVIDIA/apex 0bfb830, apex/parallel/LARC.py, lines 89 to 102, around torch's SGD: all tensors
    are adapted, one without gradient is not decayed, and its momentum goes on."""
    w = {"kernel": A[:2].copy(), "bias": B[0].copy()}
    v = dict.fromkeys(w, 0.0)
    rates, zero = [0.4, 4.8, 0.4], np.zeros(5)
    grads = [
        {"kernel": g, "bias": h}
        for g, h in zip([B[:2], C[:2], A[:2]], [A[0], zero, C[0]], strict=True)
    ]
    for grad, rate in zip(grads, rates, strict=True):
        for name, g in grad.items():
            norm = np.linalg.norm(w[name])
            if np.linalg.norm(g):
                ratio = 0.001 * norm / (np.linalg.norm(g) + norm * 0.1 + 1e-8)
                g = (g + 0.1 * w[name]) * ratio
            v[name] = 0.9 * v[name] + g
            w[name] = w[name] - rate * v[name]
    start = {"kernel": jnp.array(A[:2]), "bias": jnp.array(B[0])}
    optim = LARC(trust=0.001, weight_decay=0.1, adapt_all=True, clip_rate=False)
    moved = walk(optim, start, [jax.tree.map(jnp.array, g) for g in grads], rates)
    for name, value in w.items():
        np.testing.assert_allclose(moved[name], value, rtol=1e-5)


def test_sgd_couples_decay_and_adamw_does_not():
    w, g = jnp.array(A[:2]), jnp.array(B[:2])
    moved = walk(SGD(weight_decay=0.1, momentum=0.5), w, [g, g], [0.2, 0.2])
    by_hand, v = np.array(w), 0
    for _ in range(2):
        v = 0.5 * v + g + 0.1 * by_hand
        by_hand = by_hand - 0.2 * v
    np.testing.assert_allclose(moved, by_hand, rtol=1e-5)
    adam = walk(AdamW(weight_decay=0.1, eps=0.0), w, [g], [0.2])
    np.testing.assert_allclose(adam, w - 0.2 * (np.sign(g) + 0.1 * w), rtol=1e-5)


def test_adam_decays_within_the_gradient():
    """Decay goes through both means; after one step only its sign would be left."""
    w, m, v = A[:2].copy(), 0.0, 0.0
    for number, g in enumerate([B[:2], C[:2]], 1):
        g = g + 0.5 * w
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        w = w - 0.2 * (m / (1 - 0.9**number)) / (np.sqrt(v / (1 - 0.999**number)) + 1e-8)
    grads = [jnp.array(B[:2]), jnp.array(C[:2])]
    moved = walk(Adam(weight_decay=0.5), jnp.array(A[:2]), grads, [0.2, 0.2])
    np.testing.assert_allclose(moved, w, rtol=1e-4)


@pytest.mark.parametrize("optim", [SGD(), Adam(), AdamW(), LARS()])
def test_decay_leaves_vectors_out_unless_asked(optim):
    from dataclasses import replace

    optim = replace(optim, weight_decay=0.5)
    vector, still = {"scale": jnp.ones(3)}, {"scale": jnp.zeros(3)}
    np.testing.assert_array_equal(walk(optim, vector, [still], [0.1])["scale"], 1.0)
    assert (walk(replace(optim, decay_all=True), vector, [still], [0.1])["scale"] < 1).all()


def test_clip_bounds_the_global_norm():
    grads = {"a": jnp.full(4, 3.0), "b": jnp.full((2, 2), 4.0)}  # norm 10
    params = jax.tree.map(jnp.zeros_like, grads)
    moved = walk(SGD(weight_decay=0.0, clip=1.0), params, [grads], [1.0])
    np.testing.assert_allclose(optax.tree.norm(moved), 1.0, rtol=1e-5)
    np.testing.assert_allclose(moved["a"], -0.3, rtol=1e-5)


def test_schedule_warms_up_from_zero_and_ends_at_its_floor():
    optim = LARS(lr=0.3, epochs=10, warmup_epochs=2, final=0.1)
    rate = optim.schedule(batch_size=512, steps_per_epoch=5)
    peak = 0.6
    np.testing.assert_allclose([rate(0), rate(5), rate(10)], [0.0, peak / 2, peak], rtol=1e-6)
    middle = peak * (0.1 + 0.9 * 0.5)
    np.testing.assert_allclose([rate(30), rate(50)], [middle, 0.1 * peak], rtol=1e-5)


def test_a_warmup_that_ends_at_its_last_step():
    """facebookresearch/dino 7c446df, utils.py, lines 191 to 196."""
    optim = LARS(lr=0.5, epochs=10, warmup_epochs=2, warmup_end="last", warmup_from=0.1, final=0.2)
    rates = [float(optim.schedule(256, 5)(step)) for step in range(50)]
    up = np.linspace(0.05, 0.5, 10)
    down = 0.1 + 0.5 * (0.5 - 0.1) * (1 + np.cos(np.pi * np.arange(40) / 40))
    np.testing.assert_allclose(rates, [*up, *down], rtol=1e-6)


def test_a_fall_that_is_counted_from_the_first_step():
    """HobbitLong/SupContrast 66a8fe5, util.py, line 56 and main_supcon.py, line 113."""
    optim = SGD(lr=0.5, epochs=10, warmup_epochs=2, warmup_from=0.1, final=0.2, fall_from="start")
    rates = [float(optim.schedule(256, 5)(step)) for step in range(50)]
    cosine = 0.1 + 0.4 * (1 + np.cos(np.pi * np.arange(50) / 50)) / 2
    up = 0.05 + (cosine[10] - 0.05) * np.arange(10) / 10
    np.testing.assert_allclose(rates, [*up, *cosine[10:]], rtol=1e-6)


def test_a_rate_that_changes_once_an_epoch():
    """The schedule of whole epochs, each value for as many steps as an epoch has."""
    optim = SGD(lr=0.5, epochs=6, warmup_epochs=2, changes="epoch", warmup_end="last")
    rates = [float(optim.schedule(256, 3)(step)) for step in range(18)]
    np.testing.assert_allclose(rates, np.repeat([optim.schedule(256, 1)(e) for e in range(6)], 3))
    np.testing.assert_allclose(rates[::3][:3], [0.0, 0.5, 0.5])
    steps = SGD(lr=0.03, epochs=200, warmup_epochs=0, decay="steps", changes="epoch")
    assert float(steps.schedule(256, 7)(7 * 120)) == pytest.approx(0.003)


def test_steady_parts_have_the_peak_where_the_rate_changes_once_an_epoch():
    optim = SGD(lr=0.5, momentum=0.0, weight_decay=0.0, epochs=6, warmup_epochs=2, changes="epoch",
                warmup_end="last", steady=("predictor",))  # fmt: skip
    transform = optim.transform(optim.schedule(256, 3), 18)
    w = {"predictor": jnp.ones(1), "encoder": jnp.ones(1)}
    updates, _ = transform.update(w, transform.init(w), w)
    np.testing.assert_allclose([updates["predictor"][0], updates["encoder"][0]], [-0.5, 0.0])


def test_half_an_epoch_of_warmup_is_refused_where_the_rate_changes_once_an_epoch():
    with pytest.raises(UserError, match=r"optim.warmup_epochs=2.5, .* use 2, or .*changes step"):
        SGD(epochs=5, warmup_epochs=2.5, changes="epoch").schedule(256, 10)
    one_step_an_epoch = SGD(epochs=5, warmup_epochs=2.5).schedule(256, 1)
    assert float(one_step_an_epoch(1)) == pytest.approx(0.15)


@pytest.mark.parametrize(("scaling", "lr"), [("linear", 0.3), ("sqrt", 0.075)])
def test_both_scalings_give_the_same_peak_at_4096(scaling, lr):  # 4.8, core recipe of SimCLR
    assert LARS(lr=lr, scaling=scaling).peak(4096) == pytest.approx(4.8)


def test_warmup_longer_than_the_run_is_refused():
    with pytest.raises(UserError, match=r"optim.warmup_epochs=10 .* optim.epochs=5"):
        LARS(epochs=5).schedule(256, 10)


def test_each_gradient_is_cut_by_itself():
    optim = SGD(momentum=0.0, weight_decay=0.0, clip_each=1.0)
    w = {"long": jnp.zeros(2), "short": jnp.zeros(2)}
    g = {"long": jnp.array([3.0, 4.0]), "short": jnp.array([0.3, 0.4])}
    moved = walk(optim, w, [g], [1.0])
    np.testing.assert_allclose(moved["long"], [-0.6, -0.8], rtol=1e-5)
    np.testing.assert_array_equal(moved["short"], -g["short"])


def test_weight_decay_along_a_cosine():
    """No gradient, so that only the decay is seen: 0.04 at the start, 0.22 half way."""
    optim = AdamW(weight_decay=0.04, final_weight_decay=0.4)
    w, zero = jnp.ones((1, 1)), jnp.zeros((1, 1))
    moved = walk(optim, w, [zero] * 3, [1.0, 1.0, 1.0, 1.0])
    shares = [1 - d for d in (0.04, 0.4 - 0.18 * (1 + np.cos(np.pi / 4)), 0.22)]
    np.testing.assert_allclose(moved[0, 0], np.prod(shares), rtol=1e-5)


@pytest.mark.parametrize("decay", ["linear", "constant"])
def test_other_schedules(decay):
    optim = SGD(lr=1.0, scaling="none", epochs=5, warmup_epochs=1, warmup_from=0.5, decay=decay,
                final=0.1)  # fmt: skip
    rates = [float(optim.schedule(256, 2)(step)) for step in range(11)]
    down = np.linspace(1.0, 0.1, 9) if decay == "linear" else np.ones(9)
    np.testing.assert_allclose(rates, [0.5, 0.75, *down], rtol=1e-6)


def test_steps_fall_at_epochs_120_and_160_of_200():
    rate = SGD(lr=0.03, epochs=200, warmup_epochs=0, decay="steps").schedule(256, 7)
    epochs = (0, 119, 120, 159, 160, 199)
    rates = [rate(7 * epoch + (6 if epoch % 10 else 0)) for epoch in epochs]
    np.testing.assert_allclose(rates, [0.03, 0.03, 0.003, 0.003, 0.0003, 0.0003], rtol=1e-6)


def test_biases_are_adapted_too_if_asked():
    bias, gradient = jnp.array([1.0, -2.0]), jnp.array([0.3, 0.4])
    optim = LARS(weight_decay=0.0, adapt_all=True)
    moved = walk(optim, bias, [gradient], [1.0])
    step = 0.001 * np.sqrt(5) / 0.5 * gradient
    np.testing.assert_allclose(moved, bias - step, rtol=1e-5)
    ratio = 0.02 * np.sqrt(5) / (0.5 + 0.1 * np.sqrt(5))
    moved = walk(LARC(weight_decay=0.1, adapt_all=True), bias, [gradient], [1.0])
    np.testing.assert_allclose(moved, bias - ratio * (gradient + 0.1 * bias), rtol=1e-5)
