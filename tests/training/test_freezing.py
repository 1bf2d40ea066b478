"""A part that stands still: no update, no decay, and moments that begin when it begins to move."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny

from jaxcl import UserError
from jaxcl.training import LARC, LARS, SGD, AdamW
from jaxcl.training.freezing import hold_moments, hold_parts
from jaxcl.training.step import Trainer

PARAMS = {
    "encoder": {"kernel": jnp.array([[1.0, -2.0], [0.5, 3.0]]), "bias": jnp.array([0.5, -0.5])},
    "last": {"kernel": jnp.array([[2.0, 1.0], [-1.0, 0.5]])},
}
GRADS = [jax.tree.map(lambda p, i=i: jnp.cos(p + i), PARAMS) for i in range(6)]
RATES = jnp.array([0.1, 0.2, 0.3, 0.25, 0.2, 0.1])


def walk(optim, params, grads, rates, still_for=0):
    transform = optim.transform(lambda step: rates[step], len(rates), ("last",))
    state, path = transform.init(params), []
    for step, g in enumerate(grads):
        still = {"last": jnp.array(step < still_for)}
        updates, moved = transform.update(g, state, params)
        state = hold_moments(state, moved, still)
        params = hold_parts(params, optax.apply_updates(params, updates), still)
        path.append(params)
    return path


@pytest.mark.parametrize(
    "optim", [SGD(), AdamW(), LARS(), LARC(), SGD(clip_each=0.5)], ids=lambda o: type(o).__name__
)
def test_frozen_then_free_is_starting_later(optim):
    """Three frozen steps, then the steps of an optimiser that begins there, at the rates of now."""
    path = walk(optim, PARAMS, GRADS, RATES, still_for=3)
    for params in path[:3]:
        assert (params["last"]["kernel"] == PARAMS["last"]["kernel"]).all()
    late = walk(
        optim, {"last": PARAMS["last"]}, [{"last": g["last"]} for g in GRADS[3:]], RATES[3:]
    )
    np.testing.assert_allclose(path[-1]["last"]["kernel"], late[-1]["last"]["kernel"], rtol=1e-5)
    free = walk(optim, PARAMS, GRADS, RATES)
    same = lambda one, two: np.testing.assert_array_equal(one, two)
    jax.tree.map(same, path[-1]["encoder"], free[-1]["encoder"])


def test_a_state_apart_changes_nothing_while_all_moves():
    optim = AdamW(clip=0.5)
    together = optim.transform(lambda step: RATES[step], len(RATES))
    state, params = together.init(PARAMS), PARAMS
    for g in GRADS:
        updates, state = together.update(g, state, params)
        params = optax.apply_updates(params, updates)
    free = walk(optim, PARAMS, GRADS, RATES)[-1]
    jax.tree.map(lambda one, two: np.testing.assert_allclose(one, two, rtol=1e-6), params, free)


def test_a_steady_part_keeps_the_peak_rate():
    """As an optimiser of its own at a constant rate; the others follow the schedule."""
    optim = SGD(lr=0.4, scaling="none", epochs=3, warmup_epochs=1, steady=("last",))
    schedule = optim.schedule(256, 2)

    def moved(optim, schedule, names):
        params = {name: PARAMS[name] for name in names}
        transform = optim.transform(schedule, len(GRADS))
        state = transform.init(params)
        for grads in GRADS:
            grads = {name: grads[name] for name in names}
            updates, state = transform.update(grads, state, params)
            params = optax.apply_updates(params, updates)
        return params

    both, plain = moved(optim, schedule, PARAMS), replace(optim, steady=())
    same = lambda one, two: np.testing.assert_allclose(one, two, rtol=1e-6)
    jax.tree.map(same, both["last"], moved(plain, lambda step: 0.4, ["last"])["last"])
    jax.tree.map(same, both["encoder"], moved(plain, schedule, ["encoder"])["encoder"])


def test_a_steady_part_that_is_none_is_told():
    optim = replace(tiny.experiment.optim, steady=("predictor",))
    trainer = Trainer(tiny.experiment.method, optim, tiny.experiment.probe, 32, 5, 10)
    image = np.zeros((32, 8, 8, 1), np.uint8)
    batch = {"image": image, "label": np.zeros(32, np.int32), "index": np.arange(32)}
    with pytest.raises(UserError, match=r"optim.steady names predictor, .* encoder, projector"):
        jax.eval_shape(lambda: trainer.init(0, batch))
