"""Every loss against its loop: values, gradients, several devices, degenerate batches."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden import matrix
from loss_family import CASES, TEACHER, D, softmax
from products import IN_FULL, SHORT, products_of

from jaxcl import losses
from jaxcl.scale import data_mesh
from jaxcl.similarity import pairs

A, B = matrix(0.3, 8, D), matrix(0.9, 8, D)


def traced_anew(name):
    """Value and gradients, with the settings of the engine that are in force at the first call."""
    return jax.jit(jax.value_and_grad(CASES[name].library, argnums=(0, 1)))


library = cache(traced_anew)


def differences(function, step=1e-6):
    """Gradients with respect to both views by central differences in float64."""
    found = []
    for which in (0, 1):
        slope = np.zeros_like(A)
        for place in np.ndindex(A.shape):
            values = []
            for sign in (step, -step):
                views = [A.copy(), B.copy()]
                views[which][place] += sign
                values.append(function(*views))
            slope[place] = (values[0] - values[1]) / (2 * step)
        found.append(slope)
    return found


# Module scope groups the tests of a loss, so that its compiled program serves them all.
every_loss = pytest.mark.parametrize("name", CASES, scope="module")


@every_loss
def test_matches_the_loop(name):
    value, gradients = library(name)(jnp.float32(A), jnp.float32(B))
    assert value.dtype == jnp.float32
    np.testing.assert_allclose(value, CASES[name].by_hand(A, B), rtol=5e-6, atol=1e-6)
    for gradient, slope in zip(gradients, differences(CASES[name].by_hand), strict=True):
        largest = max(np.abs(slope).max(), 1e-3)
        np.testing.assert_allclose(gradient, slope, rtol=0, atol=3e-5 * largest)


def same(one, other, size=None):
    """To a millionth of the value, or 1, and of the largest gradient in the array.

    Float32 holds a log-sum-exp between 8 and 16, as here, to half a millionth, and nothing is far
    below that: the losses themselves are up to 7e-7 from their values in float64. `size`: of the
    terms that a gradient is the difference of, where they are much larger than itself.
    """
    if size is None:
        size = np.abs(other).max() if np.ndim(other) else max(abs(other), 1.0)
    np.testing.assert_allclose(one, other, rtol=0, atol=1e-6 * size + 1e-9)


OPPOSITE = {"invariant_spread", "k_positive"}
"""Differences of larger terms: bodies err by up to 7e-7 to opposite sides of float64."""

SIZES = {"decoupled_weighted": 2.0}
"""Of values whose terms carry weights: up to 2 on each positive logit, which lies near 10."""


@cache
def expected(name):
    """Value and gradients of the whole matrix on one device, itself compared with float64."""
    alone = library(name)(jnp.float32(A), jnp.float32(B))
    if name not in OPPOSITE:
        return alone
    by_hand = CASES[name].by_hand
    exact = by_hand(A, B), differences(by_hand)
    for one, other in zip(jax.tree.leaves(alone), jax.tree.leaves(exact), strict=True):
        same(one, other)
    return exact


PAIRWISE = [
    "info_nce", "clip", "moco", "nt_xent", "simcse_hard", "sup_con_out", "sup_con_in",
    "decoupled", "decoupled_weighted", "siglip", "sphere", "hard_negatives", "k_positive",
    "proto_nce", "class_conditional", "n_pair", "i_mix", "nt_xent_queue",
]  # fmt: skip


def spreads(name):
    """Devices and transport; every loss meets both of them, all combinations among the variants."""
    yield pytest.param(name, 1, None)
    for devices in (2, 4, 8):
        for transport in ("gather", "ring"):
            ring = (devices == 4) ^ (PAIRWISE.index(name) % 2)
            usual = transport == ("ring" if ring else "gather")
            marks = () if usual else pytest.mark.extended
            yield pytest.param(name, devices, transport, marks=marks)


@pytest.mark.parametrize(
    ("name", "devices", "transport"), [each for name in PAIRWISE for each in spreads(name)]
)
def test_tiles_and_devices_change_nothing(monkeypatch, name, devices, transport):
    """Tiles of three rows against the whole matrix."""
    whole = expected(name)
    monkeypatch.setattr(pairs, "DENSE_PAIRS", 0)
    monkeypatch.setitem(pairs.TILE, "cpu", 3)
    monkeypatch.setattr(pairs, "GATHERED_BYTES", 0 if transport == "ring" else 2**28)
    with jax.set_mesh(data_mesh(devices)):
        found = traced_anew(name)(jnp.float32(A), jnp.float32(B))
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(whole), strict=True):
        same(one, other, None if np.ndim(one) else SIZES.get(name))


@pytest.mark.parametrize("devices", [2, pytest.param(4, marks=pytest.mark.extended), 8])
def test_the_others_are_the_same_on_several_devices(devices):
    others = sorted(set(CASES) - set(PAIRWISE))
    mesh = data_mesh(devices)
    rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))

    @jax.jit
    def all_of_them(a, b):  # one program: compiling each by itself takes twice as long
        return {
            name: jax.value_and_grad(CASES[name].library, argnums=(0, 1))(a, b) for name in others
        }

    with jax.set_mesh(mesh):
        found = all_of_them(*(jax.device_put(jnp.float32(x), rows) for x in (A, B)))
    for name in others:
        # Teacher and student answer nearly alike; either answer is rounded before it goes off.
        size = 2.0 / 8 * softmax(TEACHER / 2.0).max() if name == "distillation" else None
        for one, other in zip(*map(jax.tree.leaves, (found[name], expected(name))), strict=True):
            same(one, other, size if np.ndim(one) else None)


DEGENERATE = {
    "zero rows": (A * (np.arange(8) > 3)[:, None], B * (np.arange(8) > 5)[:, None]),
    "all rows zero": (0 * A, 0 * B),
    "all rows equal": (np.ones_like(A), np.ones_like(B)),
    "views equal": (A, A),
    "long rows": (1e20 * A, 1e20 * B),
    "short rows": (1e-20 * A, 1e-20 * B),
}
# Losses of the rows as they are, whose values at such lengths are out of range by definition.
UNNORMALISED = {
    "n_pair",
    "pair_contrastive",
    "batch_contrastive_rows",
    "vicreg",
    "smooth_l1",
    "dino",
    "distillation",
}


@every_loss
def test_degenerate_batches_stay_finite(name):
    compiled = library(name)
    for kind, (a, b) in DEGENERATE.items():
        if kind == "long rows" and (name in UNNORMALISED or name.startswith("triplet")):
            continue
        for leaf in jax.tree.leaves(compiled(jnp.float32(a), jnp.float32(b))):
            assert np.isfinite(leaf).all(), kind


@every_loss
def test_half_precision_comes_out_in_float32(name):
    half = jax.ShapeDtypeStruct(A.shape, jnp.bfloat16)
    value, gradients = jax.eval_shape(library(name), half, half)
    assert value.dtype == jnp.float32
    assert gradients[0].dtype == jnp.bfloat16


OF_THE_ROWS = sorted({*PAIRWISE, "debiased"} - {"moco", "sphere", "k_positive", "proto_nce"})
"""Pairs of the rows that are given; those taken out have queues or centres, or exact lengths."""


@pytest.mark.extended
@pytest.mark.parametrize(
    ("name", "body"), [(n, "dense") for n in CASES] + [(n, "tiles") for n in PAIRWISE]
)
def test_rows_of_64_bits_are_computed_in_64_bits(monkeypatch, x64, name, body):
    """Where jax has such numbers; gradients keep the rows' type, of 32 bits as of 64."""
    if body == "tiles":
        monkeypatch.setattr(pairs, "DENSE_PAIRS", 0)
        monkeypatch.setitem(pairs.TILE, "cpu", 3)
    loss = traced_anew(name)
    value, gradients = loss(jnp.float64(A), jnp.float64(B))
    np.testing.assert_allclose(value, CASES[name].by_hand(A, B), rtol=1e-12, atol=1e-12)
    for gradient, slope in zip(gradients, differences(CASES[name].by_hand), strict=True):
        # The differences of values of up to 10 are good to 1e-9.
        np.testing.assert_allclose(gradient, slope, rtol=0, atol=1e-7 * np.abs(slope).max() + 1e-9)
    value, gradients = loss(jnp.float32(A), jnp.float32(B))
    np.testing.assert_allclose(value, CASES[name].by_hand(A, B), rtol=5e-6, atol=1e-6)
    assert {gradient.dtype for gradient in gradients} == {jnp.dtype("float32")}


@every_loss
def test_products_are_made_in_full_or_in_the_rows_own_type(monkeypatch, name):
    """Accelerators round float32 rows in products that don't say otherwise; 16 bits are fast."""
    monkeypatch.setattr(pairs, "DENSE_PAIRS", 0)

    def kinds(dtype):
        views = (jnp.asarray(x, dtype) for x in (A, B))
        return products_of(traced_anew(name), *views)

    assert kinds(jnp.float32) <= {IN_FULL}
    short = kinds(jnp.bfloat16)
    assert short <= {IN_FULL, SHORT}
    if name in OF_THE_ROWS:
        assert SHORT in short
        assert name in ("i_mix", "nt_xent_queue") or IN_FULL not in short


@pytest.mark.parametrize("name", ["info_nce", "nt_xent", "siglip", "sup_con_out"])
def test_half_precision_rows_are_summed_in_float32(name):
    value, _ = library(name)(jnp.bfloat16(A), jnp.bfloat16(B))
    rounded = (np.asarray(jnp.bfloat16(x), np.float64) for x in (A, B))
    np.testing.assert_allclose(value, CASES[name].by_hand(*rounded), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("length", [1.0, 1e20, 1e-9])
@pytest.mark.parametrize("name", ["clip", "nt_xent", "siglip", "decoupled"])
def test_short_rows_by_tiles(monkeypatch, name, length):
    """The value is that of the rows in float64; only slopes are rounded to 8 bits, once."""
    monkeypatch.setattr(pairs, "DENSE_PAIRS", 0)
    monkeypatch.setitem(pairs.TILE, "cpu", 3)
    views = [jnp.bfloat16(length * x) for x in (A, B)]
    value, gradients = traced_anew(name)(*views)
    exact = [np.asarray(x, np.float64) for x in views]
    np.testing.assert_allclose(value, CASES[name].by_hand(*exact), rtol=2e-6)
    slopes = library(name)(*(jnp.float32(x) for x in exact))[1]
    for gradient, slope in zip(gradients, slopes, strict=True):
        error = np.abs(gradient.astype(jnp.float32) - slope).max()
        assert error < 2**-7 * np.abs(slope).max()


def test_float16_does_not_lose_small_slopes():
    """A pair's share in a mean over 6,000 rows is below half of float16's smallest number."""
    rng = np.random.default_rng(0)
    z = np.float16(1 + rng.normal(size=(2, 6000, 4)))  # what all keys have in common pulls back
    slope = jax.jit(jax.grad(lambda a, b: losses.clip_loss(a, b, scale=1.0)))
    full = slope(*(jnp.float32(x) for x in z))
    found = slope(*(jnp.asarray(x) for x in z))
    assert found.dtype == jnp.float16
    np.testing.assert_allclose(found, full, atol=1e-2 * np.abs(full).max())
