"""SimSiam on rows instead of images, where every number can be worked out, and the contract."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contract import RECIPE, Contract, experiment
from golden import A, B, matrix, unit

from jaxcl import UserError
from jaxcl.augment import dino
from jaxcl.encoders import MLP, ConvNet
from jaxcl.methods import Progress, SimSiam
from jaxcl.methods.method import Statistics
from jaxcl.training import SGD

LINEAR = MLP((), 5)
METHOD = SimSiam(augment=RECIPE, encoder=LINEAR, projector=LINEAR, predictor=LINEAR)
NAMES = ("encoder", "projector", "predictor")
PAIR = (jnp.array(A, jnp.float32), jnp.array(B, jnp.float32))
MIXED = np.array([matrix(start, 5) for start in (0.3, 0.8, 1.9)])


def value_of(method, kernels, stats=None):
    params = {
        name: {"linear_out": {"kernel": jnp.asarray(kernel, jnp.float32)}}
        for name, kernel in zip(NAMES, kernels, strict=True)
    }
    memory = Statistics({name: {} for name in NAMES} | (stats or {}))
    loss = lambda params: method.loss(params, memory, PAIR, jax.random.key(0), Progress(0, 10, 5))
    return jax.jit(jax.value_and_grad(loss, has_aux=True))(params)


def by_hand(kernels, fixed):
    """Both directions, row by row; targets come from the kernels `fixed`."""
    total = 0.0
    for x, y in ((A, B), (B, A)):
        p, z = unit(x @ kernels[0] @ kernels[1] @ kernels[2]), unit(y @ fixed[0] @ fixed[1])
        total -= np.mean([row @ target for row, target in zip(p, z, strict=True)]) / 2
    return total


def test_golden_row():
    """The mean of both directions, which are equal for such networks."""
    (value, _), _ = value_of(METHOD, [np.eye(5)] * 3)
    np.testing.assert_allclose(value, -0.882073, rtol=1e-5)


def test_targets_count_as_constants():
    """Differences of the equation whose targets stay as they were."""
    (value, aux), grads = value_of(METHOD, MIXED)
    np.testing.assert_allclose(value, by_hand(MIXED, MIXED), rtol=1e-5)
    np.testing.assert_allclose(aux.features[:, 1], B @ MIXED[0], rtol=1e-4, atol=1e-5)
    for place, name in enumerate(NAMES):
        change = np.zeros((5, 5))
        for at in np.ndindex(5, 5):
            bump = np.zeros_like(MIXED)
            bump[(place, *at)] = 1e-6
            change[at] = (by_hand(MIXED + bump, MIXED) - by_hand(MIXED - bump, MIXED)) / 2e-6
        np.testing.assert_allclose(grads[name]["linear_out"]["kernel"], change, atol=1e-4)


def test_each_view_moves_the_statistics_once():
    method = replace(METHOD, encoder=MLP((), 5, final_norm="plain"))
    fresh = {"norm_out": {"mean": jnp.zeros(5), "var": jnp.ones(5)}}
    (_, aux), _ = value_of(method, [np.eye(5)] * 3, {"encoder": fresh})
    mean = aux.memory.stats["encoder"]["norm_out"]["mean"]
    np.testing.assert_allclose(mean, 0.09 * A.mean(0) + 0.1 * B.mean(0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(aux.features.mean(0), 0, atol=1e-5)


def test_wrong_values_are_answered_before_anything_compiles():
    METHOD.check(16)
    words = r"method.predictor.out=6 cannot match targets of method.projector.out=5; give both"
    with pytest.raises(UserError, match=words):
        replace(METHOD, predictor=MLP((), 6)).check(16)
    with pytest.raises(UserError, match=r"makes views of 16, 16, 8 pixels, and SimSiam takes two"):
        replace(METHOD, augment=dino(16, local_size=8, local=1)).check(16)


@pytest.mark.extended
class TestContract(Contract):
    """With the predictor at a rate of its own."""

    experiment = experiment(
        SimSiam(
            augment=RECIPE,
            encoder=ConvNet(1, 8, "mean"),
            projector=MLP((16,), 8, final_norm="plain"),
            predictor=MLP((4,), 8, out_bias=True),
        ),
        SGD(lr=0.02, scaling="none", warmup_epochs=0, steady=("predictor",)),
    )
    absolute = 1e-6  # its mean of cosines passes through zero
