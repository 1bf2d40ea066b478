"""The kernels: interpreted against the loops, and compiled for chips that are not here."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import SingleDeviceSharding
from loss_family import CASES as CASES_OF_LOSSES
from pair_family import CASES, compare
from products import SHORT, products_of

from jaxcl.scale import data_mesh
from jaxcl.similarity import (
    logsumexp_among,
    logsumexp_both,
    max_pairs,
    pairs,
    pallas_gpu,
    pallas_tpu,
)

KERNELS = [name for name in CASES if name != "softplus"]
ROOT = Path(__file__).parents[2]
BODIES = {"tpu": pallas_tpu, "gpu": pallas_gpu}


@pytest.fixture(params=BODIES)
def body(request, monkeypatch):
    monkeypatch.setattr(BODIES[request.param], "INTERPRET", True)
    return request.param


@pytest.mark.parametrize("name", KERNELS)
def test_interpreted_kernels_match_the_equation(name, body):
    compare(name, body=body)


def test_other_reductions_have_kernels_for_a_gpu(monkeypatch):
    monkeypatch.setattr(pallas_gpu, "INTERPRET", True)
    compare("softplus", body="gpu")
    rng = np.random.default_rng(0)
    q, k = (jnp.array(rng.normal(size=(n, 5)), jnp.float32) for n in (140, 300))
    for pair in ((q, k), (k, k)):
        ids = [jnp.arange(len(x)) // 2 for x in pair]
        largest = lambda body, pair=pair, ids=ids: max_pairs(
            *pair, scale=-3.0, q_ids=ids[0], k_ids=ids[1], body=body
        )
        np.testing.assert_allclose(largest("gpu"), largest("dense"), rtol=1e-6)


@pytest.mark.parametrize("name", ["nt_xent", "siglip"])
def test_losses_use_the_kernels_that_a_backend_is_given(monkeypatch, name, body):
    """None is by itself: no such chip has timed them. The TPU's are of log-sum-exps alone."""
    a, b = (jnp.array(x, jnp.float32) for x in np.random.default_rng(0).normal(size=(2, 20, 4)))
    monkeypatch.setattr(pairs, "DENSE_PAIRS", 0)
    loss = CASES_OF_LOSSES[name].library
    assert "pallas_call" not in str(jax.make_jaxpr(jax.grad(loss))(a, b))
    expected = jax.grad(loss)(a, b)
    monkeypatch.setitem(pairs.KERNELS, "cpu", body)
    assert ("pallas_call" in str(jax.make_jaxpr(jax.grad(loss))(a, b))) == (
        name == "nt_xent" or body == "gpu"
    )
    np.testing.assert_allclose(jax.grad(loss)(a, b), expected, atol=1e-6)


@pytest.mark.parametrize("transport", ["gather", "ring"])
def test_kernels_run_on_each_device_of_a_mesh(transport, body):
    with jax.set_mesh(data_mesh(2)):
        compare("both", body=body, transport=transport)


def test_a_row_that_sees_nothing_has_finite_value_and_no_gradient(body):
    z = jnp.array(np.random.default_rng(0).normal(size=(5, 8)), jnp.float32)
    hidden = jnp.array([0, 0, 0, 0, -jnp.inf])
    total = jax.jit(
        jax.value_and_grad(
            lambda z, ids: jnp.sum(logsumexp_among(z, ids=ids, bias=hidden, body=body)[:4])
        )
    )
    value, gradient = total(z, jnp.array([0, 0, 0, 0, 1]))  # the last one hides
    assert -1e10 < value < -1e9
    np.testing.assert_array_equal(gradient, 0)
    assert np.abs(total(z, jnp.array([0, 0, 1, 1, 1]))[1][:4]).min() > 0


def test_short_rows_stay_short(body):
    """Values are those of the rows in full; only the slopes are rounded, to 8 bits."""
    rng = np.random.default_rng(0)
    q, k = (jnp.asarray(20 * rng.normal(size=(n, 8)), jnp.bfloat16) for n in (30, 40))

    def loss(q, k, body):
        rows, columns = logsumexp_both(q, k, scale=5.0, normalize=True, body=body)
        return rows.sum() - columns.sum()

    total = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)), static_argnums=2)
    value, slopes = total(q, k, body)
    expected, in_full = total(q.astype(jnp.float32), k.astype(jnp.float32), "dense")
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    for one, other in zip(slopes, in_full, strict=True):
        assert one.dtype == jnp.bfloat16
        error = np.abs(one.astype(jnp.float32) - other).max()
        assert error < 2**-7 * np.abs(other).max()
    assert products_of(lambda q, k: total(q, k, body), q, k) == {SHORT}
    if body == "gpu":  # what its kernels write is as short
        assert "bf16[128,128]" in str(jax.make_jaxpr(total, static_argnums=2)(q, k, body))


def test_several_tiles(monkeypatch, body):
    """Biases of the size of 100: the hidden rows that fill up a tile must not overflow."""
    monkeypatch.setattr(pallas_tpu, "TILE", 128)
    rng = np.random.default_rng(0)
    z = jnp.array(rng.normal(size=(300, 8)), jnp.float32)
    bias = jnp.array(100 + rng.normal(size=300), jnp.float32)

    def loss(z, bias, body):
        among = logsumexp_among(z, scale=2.0, body=body)
        rows, columns = logsumexp_both(z, z[50:], q_bias=bias, k_bias=bias[50:], body=body)
        return jnp.mean(among) + jnp.mean(rows - 100) + jnp.mean(columns - 100)

    total = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)), static_argnums=2)
    found, expected = (jax.tree.leaves(total(z, bias, each)) for each in (body, "dense"))
    for one, other in zip(found, expected, strict=True):
        size = 1e-6 if np.ndim(other) == 0 else 5e-6  # logits of 100 are rounded to 8e-6
        np.testing.assert_allclose(one, other, rtol=0, atol=size * np.abs(other).max())


def losses(a, b, body):
    rows, columns = logsumexp_both(a, b, scale=10.0, body=body)
    ids = jnp.arange(len(a)) // 2
    return rows.mean() + columns.mean() + logsumexp_among(a, ids=ids, body=body).mean()


@pytest.mark.parametrize(
    "chip",
    ["v5e:2x2", *(pytest.param(c, marks=pytest.mark.extended) for c in ("v5p:2x2x1", "v6e:2x2"))],
)
def test_kernels_compile_for_a_tpu(tpu, chip):
    """With libtpu alone, which needs no TPU; forward and backward, short and full rows."""
    place = SingleDeviceSharding(tpu(chip))
    step = jax.jit(jax.grad(losses, argnums=(0, 1)), static_argnums=2)
    for dtype, width in ((jnp.bfloat16, 128), (jnp.float32, 512)):
        rows = jax.ShapeDtypeStruct((3000, width), dtype, sharding=place)
        program = step.trace(rows, rows, "tpu").lower(lowering_platforms=("tpu",)).compile()
        assert "tpu_custom_call" in program.as_text()
        # No matrix: a tenth of one of 3,000 x 3,000 numbers is more than all there is beside rows.
        beside = program.memory_analysis().temp_size_in_bytes - 40 * 3072 * max(width, 128) * 4
        assert beside < 3000 * 3000 * 4 / 10


@pytest.mark.parametrize("dtype", ["bfloat16", pytest.param("float32", marks=pytest.mark.extended)])
def test_kernels_compile_for_a_gpu(dtype):
    """With jax's plugin for CUDA alone, which needs no GPU; no register is spilled."""
    pytest.importorskip("jax_plugins")
    if not any(find_spec(f"jax_plugins.xla_cuda{version}") for version in (12, 13)):
        pytest.skip("needs jax's plugin for CUDA")
    command = [
        sys.executable, "benchmarks/compiled.py", "--chips", "H200", "--rows", "3000",
        "--width", "500", "--dtype", dtype,
    ]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = {line.split()[1]: line for line in done.stdout.splitlines()[1:]}
    fast = 4 if dtype == "bfloat16" else 0
    assert "; 4 kernels" in lines["gpu"]  # forward and backward, each in two forms
    assert lines["gpu"].endswith(f" 0 bytes spilled, {fast} on tensor cores")
