"""The kernels: interpreted against the loops, and compiled for chips that are not here."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import SingleDeviceSharding
from pair_family import CASES, compare

from jaxcl.scale import data_mesh
from jaxcl.similarity import logsumexp_among, logsumexp_both, pallas_gpu, pallas_tpu

KERNELS = [name for name in CASES if name != "softplus"]
BODIES = {"tpu": pallas_tpu, "gpu": pallas_gpu}


@pytest.fixture(params=BODIES)
def body(request, monkeypatch):
    monkeypatch.setattr(BODIES[request.param], "INTERPRET", True)
    return request.param


@pytest.mark.parametrize("name", KERNELS)
def test_interpreted_kernels_match_the_equation(name, body):
    compare(name, body=body)


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


@pytest.fixture
def uncached():
    """A program for a machine that is not there can be kept on disk, but not read back."""
    name = "jax_persistent_cache_min_compile_time_secs"
    before = getattr(jax.config, name)
    jax.config.update(name, 1e9)
    yield
    jax.config.update(name, before)


@pytest.mark.usefixtures("uncached")
@pytest.mark.parametrize(
    "chip",
    ["v5e:2x2", *(pytest.param(c, marks=pytest.mark.extended) for c in ("v5p:2x2x1", "v6e:2x2"))],
)
def test_kernels_compile_for_a_tpu(monkeypatch, chip):
    """With libtpu alone, which needs no TPU; forward and backward, short and full rows."""
    pytest.importorskip("libtpu")
    from jax.experimental import topologies

    monkeypatch.setenv("TPU_SKIP_MDS_QUERY", "1")  # there is no machine to ask about its chips
    monkeypatch.setenv("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # nor one to fight over
    device = topologies.get_topology_desc(chip, platform="tpu").devices[0]
    place = SingleDeviceSharding(device)
    step = jax.jit(jax.grad(losses, argnums=(0, 1)), static_argnums=2)
    for dtype, width in ((jnp.bfloat16, 128), (jnp.float32, 512)):
        rows = jax.ShapeDtypeStruct((3000, width), dtype, sharding=place)
        program = step.trace(rows, rows, "tpu").lower(lowering_platforms=("tpu",)).compile()
        assert "tpu_custom_call" in program.as_text()
        # No matrix: a tenth of one of 3,000 x 3,000 numbers is more than all there is beside rows.
        beside = program.memory_analysis().temp_size_in_bytes - 40 * 3072 * max(width, 128) * 4
        assert beside < 3000 * 3000 * 4 / 10


@pytest.mark.skipif(jax.__version_info__ >= (0, 12), reason="jax 0.12 asks which GPU is meant")
def test_kernels_lower_for_a_gpu():
    """To Triton's language, which needs no GPU; its compiler does."""
    step = jax.jit(jax.grad(losses, argnums=(0, 1)), static_argnums=2)
    for dtype, width in ((jnp.bfloat16, 128), (jnp.float32, 96)):
        rows = jax.ShapeDtypeStruct((3000, width), dtype)
        text = step.trace(rows, rows, "gpu").lower(lowering_platforms=("cuda",)).as_text()
        assert text.count("triton") >= 6
