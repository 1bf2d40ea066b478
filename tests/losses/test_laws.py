"""What must hold between losses, at closed forms, and for input that has no meaning."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden import A, B, C, a, b, matrix, unit
from jitted import losses

import jaxcl.losses
from jaxcl.losses.rows import as_rows

QUEUE = unit(matrix(3.1, 6))
LABELS = jnp.array([0, 0, 1, 1])
X, Y = np.random.default_rng(0).normal(size=(2, 8, 5)).astype(np.float32)


def close(value, expected, rtol=1e-5, atol=1e-6):
    np.testing.assert_allclose(value, expected, rtol=rtol, atol=atol)


def moco(q, k, queue, t=0.07):
    return losses.info_nce(q, k, queue, temperature=t, in_batch=False)


def test_layouts_agree():
    halves, twins = np.concatenate([X, Y]), np.stack([X, Y], axis=1).reshape(16, 5)
    for z, layout in ((halves, "halves"), (twins, "interleaved")):
        value = losses.nt_xent_rows(z, temperature=0.2, layout=layout)
        close(value, losses.nt_xent(X, Y, temperature=0.2))


def test_equal_embeddings_give_the_logarithm_of_the_choices():
    same = jnp.ones((4, 5))
    close(losses.info_nce(same, same, temperature=0.1), np.log(4))
    close(losses.clip_loss(same, same, scale=10.0), np.log(4))
    close(losses.decoupled(same, same, temperature=0.1), np.log(6) - 10 + 10)
    close(losses.siglip(X, Y, scale=0.0, bias=0.0), 8 * np.log(2))
    opposite = jnp.array([[1.0, 0.0], [-1.0, 0.0]])
    close(losses.uniformity(opposite, t=3), -12)


def test_shared_negatives_are_each_ones_own_too():
    own = np.broadcast_to(QUEUE, (4, *QUEUE.shape))
    close(moco(A, B, own), moco(A, B, QUEUE))
    close(moco(A, B, QUEUE[::-1]), moco(A, B, QUEUE))
    together = losses.info_nce(A, B, QUEUE, temperature=0.1)
    everyone = np.concatenate([b, QUEUE])
    logits = a @ everyone.T / 0.1
    close(together, np.mean(np.log(np.exp(logits).sum(1)) - np.diag(logits)))


def test_info_nce_bounds_the_mutual_information():
    """Of correlated Gaussians, with the density ratio itself as the score."""
    rng, rho = np.random.default_rng(0), 0.8
    x = rng.normal(size=(2000, 1))
    y = rho * x + np.sqrt(1 - rho**2) * rng.normal(size=x.shape)
    # log p(y|x) - log p(y) up to terms of the query alone, as a dot product of three numbers.
    scale = 1 / (1 - rho**2)
    ones = np.ones_like(x)
    q = np.concatenate([rho * scale * x, ones], axis=1)
    k = np.concatenate([y, -(rho**2) * scale / 2 * y**2], axis=1)
    loss = losses.info_nce(jnp.float32(q), jnp.float32(k), temperature=1.0, normalize=False)
    information = -np.log(1 - rho**2) / 2
    bound = np.log(2000) - loss
    assert information - 0.05 < bound < information + 0.05


def test_sup_con_with_unique_labels_is_nt_xent():
    z, labels = np.concatenate([X, Y]), jnp.tile(jnp.arange(8), 2)
    for form in ("out", "in"):
        value = losses.sup_con(z, labels, temperature=0.2, form=form)
        close(value, losses.nt_xent(X, Y, temperature=0.2))


def test_sup_con_out_is_the_larger_and_bounded_for_one_class():
    z, labels = np.concatenate([A, B]), jnp.tile(LABELS, 2)
    out, inside = (losses.sup_con(z, labels, temperature=0.1, form=f) for f in ("out", "in"))
    assert out >= inside
    assert losses.sup_con(z, jnp.zeros(8, jnp.int32), temperature=0.1) >= np.log(7)
    close(losses.sup_con(jnp.ones((8, 3)), jnp.zeros(8, jnp.int32), temperature=0.1), np.log(7))


def test_unlabelled_rows_are_negatives_without_positives():
    z, labels = np.concatenate([A, B]), jnp.array([0, 0, -1, 1, 0, -1, -1, 1])
    unique = jnp.array([0, 0, 7, 1, 0, 8, 9, 1])
    for form in ("out", "in"):
        value = losses.sup_con(z, labels, temperature=0.1, form=form)
        close(value, losses.sup_con(z, unique, temperature=0.1, form=form))
    assert losses.sup_con(z, jnp.full(8, -1), temperature=0.1) == 0


def test_a_decoupled_positive_is_pulled_alike_however_near_it_is():
    """Views that turn towards each other within planes of their own: only their cosine changes."""

    def twins(angle):
        return np.cos(angle) * np.eye(4, 8) + np.sin(angle) * np.eye(4, 8, 4)

    def loss(angle):
        return losses.decoupled(np.eye(4, 8), twins(angle), temperature=0.1, both_ways=False)

    for far, near in ((1.5, 1.0), (1.0, 0.5), (0.2, 0.1)):
        close(loss(far) - loss(near), (np.cos(near) - np.cos(far)) / 0.1, atol=2e-6)


def test_hard_negatives_reduce_to_nt_xent_and_grow_with_beta():
    def loss(beta, tau_plus=0.0, **options):
        return losses.hard_negatives(X, Y, temperature=0.5, beta=beta, tau_plus=tau_plus, **options)

    close(loss(0.0), losses.nt_xent(X, Y, temperature=0.5))
    values = [float(loss(beta)) for beta in (0.0, 0.5, 1.0, 4.0, 50.0)]
    assert values == sorted(values)
    close(loss(0.0, 0.2), losses.debiased(X, Y, temperature=0.5, tau_plus=0.2))
    close(loss(1.0, 0.1, stop_weights=True), loss(1.0, 0.1))


def test_stopped_weights_of_hard_negatives_carry_no_gradient():
    x, y = jnp.float32(A), jnp.float32(B)

    def by_hand(x):
        z = jnp.stack([as_rows(v, True) for v in (x, y)], axis=1).reshape(8, 5)
        logits = z @ z.T / 0.5
        example = jnp.arange(8) // 2
        others = example[:, None] != example
        e = jnp.where(others, jnp.exp(logits), 0)
        w = jax.lax.stop_gradient(jnp.where(others, jnp.exp(logits), 0))
        r = 6 * jnp.sum(w * e, 1) / jnp.sum(w, 1)
        own = jnp.exp(jnp.sum(z * z.reshape(4, 2, 5)[:, ::-1].reshape(8, 5), 1) / 0.5)
        return jnp.mean(jnp.log1p((r - 0.6 * own) / 0.9 / own))

    loss = lambda x: losses.hard_negatives(x, y, temperature=0.5, stop_weights=True)
    close(jax.grad(loss)(x), jax.grad(by_hand)(x), atol=1e-6)


def test_k_positive_lies_between_moco_and_sup_con():
    labels, queue_labels = jnp.array([0, 1, 2, 0]), jnp.array([0, 1, 0, 5, 0, 2])

    def loss(positives, **options):
        return losses.k_positive(
            A, B, QUEUE, labels, queue_labels, positives=positives, temperature=0.07, **options
        )

    close(loss(0), moco(A, B, QUEUE))
    keys = np.concatenate([b[:, None], np.broadcast_to(QUEUE, (4, 6, 5))], axis=1)
    logits = np.einsum("nd,nkd->nk", a, keys) / 0.07
    mask = np.concatenate([np.ones((4, 1)), labels[:, None] == queue_labels], axis=1)
    picked = np.log(np.exp(logits).sum(1)) - (mask * logits).sum(1) / mask.sum(1)
    close(loss(6), picked.mean())
    # The youngest of the class are those with the smallest age.
    reversed_ages = losses.k_positive(
        A, B, QUEUE[::-1], labels, queue_labels[::-1], positives=1, temperature=0.07,
        age=jnp.arange(6)[::-1],
    )  # fmt: skip
    close(loss(1), reversed_ages)
    unknown = jnp.full(4, -1)
    nothing = losses.k_positive(
        A, B, QUEUE, unknown, jnp.full(6, -1), positives=3, temperature=0.07
    )
    close(nothing, moco(A, B, QUEUE))


def test_prototypes_of_single_images_are_instance_discrimination():
    centres, phi = np.concatenate([b, QUEUE]), np.full(10, 0.1)
    value = losses.prototype_nce(A, centres, jnp.arange(4), phi)
    close(value, losses.info_nce(A, B, QUEUE, temperature=0.1))
    assert losses.proto_nce_sum(A, []) == 0
    order = np.random.default_rng(0).permutation(10)
    shuffled = losses.prototype_nce(A, centres[order], jnp.argsort(order)[:4], phi)
    close(shuffled, value)
    slope = jax.grad(lambda c: losses.prototype_nce(A, c, jnp.arange(4), phi))(jnp.float32(centres))
    np.testing.assert_array_equal(slope, 0)


def test_options_reach_what_they_are_options_of():
    z, labels = np.concatenate([A, B]), jnp.tile(LABELS, 2)
    plain = losses.sup_con(z, labels, temperature=0.1)
    close(losses.sup_con(z, labels, temperature=0.1, scale=3.0), 3 * plain)
    threes = np.stack([A, B, C], axis=1).reshape(12, 5)
    value = losses.simcse_triples(threes, temperature=0.1, hard_weight=0.4)
    close(value, losses.simcse(A, B, C, temperature=0.1, hard_weight=0.4))
    close(losses.simcse(A, B, temperature=0.2), losses.info_nce(A, B, temperature=0.2))
    together = losses.alignment_and_uniformity(A, B, alpha=3, t=1, weight=0.5)
    even = (losses.uniformity(A, t=1) + losses.uniformity(B, t=1)) / 2
    close(together, losses.alignment(A, B, alpha=3) + 0.5 * even)
    close(losses.alignment(A, B, alpha=3), np.mean(np.linalg.norm(a - b, axis=1) ** 3))
    clusterings = [(B, jnp.arange(4), np.full(4, 0.1)), (QUEUE, LABELS, np.full(6, 0.2))]
    both = [losses.prototype_nce(A, *one) for one in clusterings]
    close(losses.proto_nce_sum(A, clusterings), np.mean(both))
    raw = losses.info_nce(A, B, 3 * QUEUE, temperature=1.0, normalize=False, in_batch=False)
    logits = np.concatenate([np.sum(A * B, 1)[:, None], 3 * A @ QUEUE.T], axis=1)
    close(raw, np.mean(np.log(np.exp(logits).sum(1)) - logits[:, 0]))
    terms = losses.vicreg_terms(A, B)
    close(losses.vicreg(A, B, covariance=2.0), losses.vicreg(A, B) + terms.covariance)


def test_stopped_weights_and_keys_carry_no_gradient():
    x, y = jnp.float32(A), jnp.float32(B)
    cosines = np.sum(a * b, axis=1)
    weights = 2 - 4 * np.exp(cosines / 0.5) / np.exp(cosines / 0.5).sum()

    def weighed(x):
        plain = losses.decoupled(x, y, temperature=0.1)
        return plain + jnp.mean((1 - weights) * jnp.sum(as_rows(x, True) * b, 1)) / 0.1

    close(jax.grad(lambda x: losses.decoupled(x, y, temperature=0.1, sigma=0.5))(x),
          jax.grad(weighed)(x), atol=1e-5)  # fmt: skip

    def spread(x, keys):
        z, all_keys = (jnp.concatenate([as_rows(v, True), b]) for v in (x, keys))
        logits = jnp.where(np.eye(8, dtype=bool), -jnp.inf, z @ all_keys.T / 0.1)
        p = jax.nn.softmax(logits, axis=1)
        own = np.roll(np.eye(8, dtype=bool), 4, axis=1)
        return -jnp.mean(jnp.sum(jnp.where(own, jnp.log(jnp.where(own, p, 1)), jnp.log1p(-p)), 1))

    slope = jax.grad(lambda x: losses.invariant_spread(x, y))(x)
    close(slope, jax.grad(lambda x: spread(x, A))(x), atol=1e-5)


def test_ties_are_no_hits():
    same = jnp.ones((4, 5))
    assert losses.nt_xent_with_accuracy(same, same, temperature=0.5).accuracy == 0


def test_teachers_and_running_means_carry_no_gradient():
    x, y = jnp.float32(A), jnp.float32(B)
    centre = jnp.zeros(5)
    for loss in (
        lambda t: losses.dino([x, y], [t, y], centre),
        lambda t: losses.distillation(x, t),
        lambda t: losses.next_centre(centre, [t]).sum(),
        lambda c: losses.dino([x, y], [x, y], c.mean(0)),
        lambda s: losses.log_normaliser(s, 10),
    ):
        np.testing.assert_array_equal(jax.grad(loss)(x), 0)


def test_class_conditional_at_its_ends():
    alone = losses.class_conditional(A, B, jnp.arange(4), temperature=0.5)
    logits = a @ a.T / 0.5
    np.fill_diagonal(logits, np.sum(a * b, axis=1) / 0.5)
    close(alone, np.mean(np.log(np.exp(logits).sum(1)) - np.diag(logits)))
    close(losses.class_conditional(A, B, jnp.zeros(4, jnp.int32)), 0)
    assert losses.class_conditional(A, B, LABELS) >= 0
    proxy = losses.class_conditional(A, B, LABELS, temperature=0.5, data_to_data=False)
    close(proxy, alone)
    unlabelled = losses.class_conditional(A, B, jnp.full(4, -1), temperature=0.5)
    close(unlabelled, alone)


def test_mixed_negatives():
    key, q = jax.random.key(0), jnp.float32(A)
    made = losses.mixed_negatives(key, q, QUEUE, hardest=3, pairs=4, with_query=2)
    assert made.shape == (4, 6, 5)
    close(np.linalg.norm(made, axis=2), 1)
    hardest = losses.mixed_negatives(key, q, QUEUE, hardest=1, pairs=2, with_query=3)
    nearest = QUEUE[np.argmax(a @ QUEUE.T, axis=1)]
    close(hardest[:, :2], np.repeat(nearest[:, None], 2, axis=1), atol=1e-5)
    towards = np.einsum("nd,nsd->ns", a, hardest[:, 2:])
    assert (towards >= np.sum(a * nearest, axis=1)[:, None] - 1e-6).all()
    back = np.einsum("nd,nsd->ns", nearest, hardest[:, 2:])
    assert (back >= towards - 1e-6).all()  # the negative's share is the larger one
    slope = jax.grad(
        lambda q: losses.mixed_negatives(key, q, QUEUE, hardest=2, pairs=1, with_query=2).sum()
    )(q)
    np.testing.assert_array_equal(slope, 0)
    with pytest.raises(ValueError, match="count=7 of 6 keys"):
        losses.mixed_negatives(key, q, QUEUE, hardest=7, pairs=1, with_query=1)


def test_i_mix_of_nothing_is_the_base():
    partner, ones = jnp.array([1, 2, 3, 0]), jnp.ones(4)
    expected = losses.info_nce(A, B, temperature=0.2)
    close(losses.i_mix(A, B, partner, ones, temperature=0.2), expected)
    shares = jnp.array([0.5, 0.7, 0.9, 0.6])
    close(losses.i_mix(A, B, jnp.arange(4), shares, temperature=0.2), expected)
    close(losses.i_mix_byol(A, B, partner, ones), losses.byol(A, B))
    same = np.broadcast_to(B[:1], B.shape)
    close(losses.i_mix_byol(A, same, partner, shares), losses.byol(A, same))


def test_distillation_of_itself_has_no_gradient():
    logits = jnp.float32(A)
    for t in (0.1, 1.0, 4.0):
        slope = jax.grad(lambda s, t=t: losses.distillation(s, logits, temperature=t))(logits)
        close(slope, 0, atol=1e-6)
    plain = losses.distillation(logits, B, temperature=2.0, rescale=False)
    close(losses.distillation(logits, B, temperature=2.0), 4 * plain)


def test_sinkhorn_balances():
    scores = jnp.float32(a @ unit(matrix(2.2, 3)).T)
    codes = losses.sinkhorn(scores, epsilon=0.5, iterations=100)
    close(codes.sum(1), 1)
    close(codes.mean(0), 1 / 3, atol=1e-3)
    even = losses.sinkhorn(jnp.ones((4, 3)))
    close(even, 1 / 3)
    close(losses.swapped_prediction([jnp.ones((4, 3))] * 2, [even]), np.log(3))
    assert np.isfinite(losses.sinkhorn(jnp.float32(100 * scores), epsilon=0.01)).all()
    assert not np.any(jax.grad(lambda s: (losses.sinkhorn(s) ** 2).sum())(scores))


def test_multi_crop_pairs_are_counted():
    scores = [jnp.float32(matrix(s, 4, 3)) for s in range(4)]
    codes = [losses.sinkhorn(s, epsilon=0.5) for s in scores[:2]]
    logs = [jax.nn.log_softmax(s / 0.1) for s in scores]
    terms = [
        np.mean([-np.mean(np.sum(codes[i] * logs[v], 1)) for v in range(4) if v != i])
        for i in range(2)
    ]
    close(losses.swapped_prediction(scores, codes), np.mean(terms))
    outputs = [jnp.zeros((4, 3))] * 5
    close(losses.dino(outputs, outputs[:2], jnp.zeros(3)), np.log(3))
    logs = [jax.nn.log_softmax(x / 0.1) for x in scores]
    sharp = [jax.nn.softmax(x / 0.04) for x in scores[:2]]
    terms = [-np.mean(np.sum(sharp[i] * logs[v], 1)) for i in range(2) for v in range(4) if v != i]
    close(losses.dino(scores, scores[:2], jnp.zeros(3)), np.mean(terms))


def test_redundancy_at_its_ends():
    z = jnp.float32(np.linalg.qr(np.random.default_rng(0).normal(size=(16, 5)))[0])
    z = z - z.mean(0)
    white = jnp.linalg.qr(z)[0] * 4
    close(losses.barlow_twins(white, white), 0, atol=1e-4)
    moved = losses.barlow_twins(3 * X + 1, Y * jnp.arange(1.0, 6))
    close(moved, losses.barlow_twins(X, Y), rtol=1e-3)
    constant = losses.vicreg_terms(jnp.ones((4, 3)), jnp.ones((4, 3)))
    close(constant.variance, 0.99, rtol=1e-4)


def test_a_learned_normaliser_finds_the_true_one():
    """Of a distribution over five states, told from uniform noise."""
    score = np.array([0.3, -1.0, 1.2, 0.0, 2.0])
    rng = np.random.default_rng(0)
    p = np.exp(score) / np.exp(score).sum()
    data, noise = rng.choice(5, p=p, size=4000), rng.integers(0, 5, (4000, 50))
    scores = jnp.float32(score[np.concatenate([data[:, None], noise], axis=1)])
    slope = jax.jit(jax.grad(lambda c: losses.nce(scores, log_z=c, noise=0.2)))
    c = jnp.float32(0.0)
    for _ in range(60):
        c = c - 1.0 * slope(c)
    close(c, np.log(np.exp(score).sum()), rtol=0.02)
    estimate = losses.log_normaliser(scores[:, 1:], 5)
    close(estimate, np.log(np.exp(score).sum()), rtol=0.02)


def test_proximal_is_the_mean_squared_move():
    close(losses.proximal(A, B), np.mean(np.sum((A - B) ** 2, axis=1)))
    slope = jax.grad(lambda old: losses.proximal(jnp.float32(A), old))(jnp.float32(B))
    np.testing.assert_array_equal(slope, 0)


@pytest.mark.parametrize("mining", ["all", "semi-hard", "hard"])
def test_triplets_of_one_class_or_none(mining):
    for labels in (jnp.zeros(4, jnp.int32), jnp.arange(4), jnp.full(4, -1)):
        value, slope = jax.value_and_grad(
            lambda z, labels=labels: losses.batch_triplet(z, labels, mining=mining)
        )(jnp.float32(A))
        assert value == 0
        np.testing.assert_array_equal(slope, 0)


def test_only_active_triplets_count():
    z, labels = jnp.float32(np.concatenate([A, B])), jnp.tile(LABELS, 2)
    for mining in ("all", "semi-hard", "hard"):
        every = losses.batch_triplet(z, labels, mining=mining, margin=2.0)
        active = losses.batch_triplet(z, labels, mining=mining, margin=2.0, only_active=True)
        assert active >= every > 0


@pytest.mark.parametrize("mining", ["all", "semi-hard", "hard"])
def test_unlabelled_rows_are_negatives_of_triplets_alone(mining):
    z, labels = np.concatenate([A, B]), np.array([0, 0, -1, 1, 0, -1, -1, 1])
    d = np.sum((z[:, None] - z) ** 2, axis=2)
    gaps = []
    for i in np.flatnonzero(labels >= 0):
        positives = np.flatnonzero((labels == labels[i]) & (np.arange(8) != i))
        far = d[i, labels != labels[i]]
        if mining == "hard":
            gaps.append(d[i, positives].max() - far.min())
            continue
        for near in d[i, positives]:
            beyond = far[far > near]
            semi = [beyond.min() if len(beyond) else far.max()]
            gaps += [near - x for x in (far if mining == "all" else semi)]
    every = np.maximum(np.array(gaps) + 0.2, 0)
    for only_active, expected in ((False, every.mean()), (True, every[every > 0].mean())):
        value = losses.batch_triplet(
            jnp.float32(z), jnp.array(labels), mining=mining, only_active=only_active
        )
        close(value, expected)


def test_one_example():
    """A choice of one is no choice; where there are no negatives at all it is said."""
    x, y = A[:1], B[:1]
    assert losses.info_nce(x, y, temperature=0.1) == 0
    assert losses.nt_xent(x, y, temperature=0.1) == 0
    assert losses.clip_loss(x, y, scale=10.0) == 0
    assert losses.simcse(x, y) == 0
    for call, words in (
        (lambda: losses.decoupled(x, y, temperature=0.1), "no negatives"),
        (lambda: losses.hard_negatives(x, y, temperature=0.1), "no negatives"),
        (lambda: losses.uniformity(x), "at least two rows"),
        (lambda: losses.vicreg(x, y), "no variance"),
    ):
        with pytest.raises(ValueError, match=words):
            call()


SHARP = {
    "info_nce": lambda x, y: losses.info_nce(x, y, temperature=0.01),
    "nt_xent": lambda x, y: losses.nt_xent(x, y, temperature=0.01),
    "sup_con": lambda x, y: losses.sup_con(
        jnp.concatenate([x, y]), jnp.tile(LABELS, 2), temperature=0.01, form="in"
    ),
    "decoupled": lambda x, y: losses.decoupled(x, y, temperature=0.01, sigma=0.01),
    "hard_negatives": lambda x, y: losses.hard_negatives(x, y, temperature=0.01, beta=2.0),
    "debiased": lambda x, y: losses.debiased(x, y, temperature=0.01, tau_plus=0.5),
    "invariant_spread": lambda x, y: losses.invariant_spread(x, y, temperature=0.01),
    "class_conditional": lambda x, y: losses.class_conditional(x, y, LABELS, temperature=0.01),
    "siglip": lambda x, y: losses.siglip(x, y, scale=100.0, bias=-10.0),
}


@pytest.mark.parametrize("name", SHARP)
def test_sharp_temperatures_stay_finite(name):
    run = jax.jit(jax.value_and_grad(SHARP[name], argnums=(0, 1)))
    for x, y in ((A, B), (A, -A), (A, A), (np.ones_like(A), np.ones_like(A))):
        for leaf in jax.tree.leaves(run(jnp.float32(x), jnp.float32(y))):
            assert np.isfinite(leaf).all()


def test_rows_without_label_are_told_from_all_others():
    """Rows that are all sqrt(2) apart."""
    z = np.eye(3, 5)
    value = losses.batch_contrastive(z, np.array([0, 1, -1]), negative_margin=2.0)
    close(value, 2 - np.sqrt(2))
    close(losses.batch_contrastive(z, np.array([-1, -1, -1]), negative_margin=2.0), value)
    same = losses.batch_contrastive(z, np.array([4, 4, 4]), positive_margin=0.5)
    close(same, np.sqrt(2) - 0.5)


def test_the_contrastive_losss_memory_grows_with_the_rows():
    """Read from the compiler: under a tenth of the matrix of 32,768 rows, gradient and all."""
    z, labels = jax.ShapeDtypeStruct((32_768, 8), jnp.float32), np.arange(32_768) // 2
    slope = jax.jit(jax.grad(lambda z: jaxcl.losses.batch_contrastive(z, labels)))
    assert slope.lower(z).compile().memory_analysis().temp_size_in_bytes < 4 * 32_768**2 / 10


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: losses.info_nce(A, B[:3], temperature=0.1), r"\(4, 5\) and \(3, 5\)"),
        (lambda: losses.info_nce(A, B, temperature=0.1, in_batch=False), "leaves no negatives"),
        (lambda: moco(A, B, QUEUE[None, None]), r"negatives must be \[m, d\] or \[4, m, d\]"),
        (lambda: losses.nt_xent_rows(A[:3], temperature=1, layout="halves"), r"\[2n, d\].*\(3, 5"),
        (lambda: losses.simcse_pairs(A[:3]), "two rows for each"),
        (lambda: losses.simcse_triples(A), r"\[3n, d\].*\(4, 5\)"),
        (lambda: losses.simcse(A, B, C[:2]), r"\(4, 5\) and \(2, 5\)"),
        (lambda: losses.sup_con(A, LABELS[:3], temperature=1), r"\(4, 5\) and \(3,\)"),
        (lambda: losses.sup_con(A, LABELS, temperature=1, anchors=5), "anchors=5 of 4 rows"),
        (lambda: losses.batch_contrastive(A, LABELS[:3]), r"\(4, 5\) and \(3,\)"),
        (lambda: losses.batch_triplet(A, LABELS[:3]), r"\(4, 5\) and \(3,\)"),
        (lambda: losses.triplet(A, B, C[:2]), r"must all be \[n, d\]"),
        (lambda: losses.hard_negatives(A, B, temperature=1, tau_plus=1.0), "tau_plus=1.0"),
        (lambda: losses.class_conditional(A, B, LABELS[:1]), r"labels \[n\]"),
        (lambda: losses.nce(A[:, :1], log_z=0.0, noise=0.1), r"\[n, 1 \+ k\]"),
        (lambda: losses.distillation(A, B[:2]), r"\(4, 5\) and \(2, 5\)"),
        (lambda: losses.smooth_l1(A, B[:2]), r"\(4, 5\) and \(2, 5\)"),
        (lambda: losses.swapped_prediction([A], [A]), "1 assignments for 1 views"),
        (lambda: losses.dino([A], [A], jnp.zeros(5)), "make no pair"),
        (
            lambda: losses.k_positive(
                A, B, QUEUE, LABELS, jnp.zeros(6), positives=-1, temperature=1
            ),
            "positives=-1",
        ),
    ],
)
def test_wrong_arguments(call, words):
    with pytest.raises(ValueError, match=words):
        call()
