"""Attention through cuDNN: where it is taken, and what surrounds it. No GPU is needed."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcl.encoders import attention, forward, initialise, vit


@pytest.fixture
def gpu(monkeypatch):
    """Programs are traced as on a GPU with cuDNN 9.10."""
    kernels = pytest.importorskip("jax._src.cudnn.fused_attention_stablehlo")
    monkeypatch.setattr(attention, "platform", lambda: "gpu")
    monkeypatch.setattr(kernels, "check_cudnn_version", lambda: 91000)


def rows(dtype="bfloat16", tokens=37, heads=2, size=16):
    rng = np.random.default_rng(0)
    return [jnp.array(x, dtype) for x in rng.normal(size=(3, 2, tokens, heads, size))]


def lowered(q, k, v, **more):
    total = lambda q, k, v: jnp.sum(attention.attend(q, k, v, **more).astype(jnp.float32) ** 2)
    step = jax.jit(jax.grad(total, argnums=(0, 1, 2)))
    return step.trace(q, k, v).lower(lowering_platforms=("cuda",)).as_text()


def test_half_precision_goes_through_cudnn_forward_and_backward(gpu):
    for tokens in (36, 37):
        text = lowered(*rows(tokens=tokens))
        assert "__cudnn$fmhaSoftmax(" in text
        assert "__cudnn$fmhaSoftmaxBackward(" in text


@pytest.mark.parametrize(
    "other",
    [{"dtype": "float32"}, {"size": 12}, {"size": 136}, {"tokens": 9}, {"mask": True},
     {"offset": True}, {"off": True}],
    ids=str,
)  # fmt: skip
def test_what_cudnn_does_not_take_goes_through_xla(gpu, monkeypatch, other):
    shape = {name: value for name, value in other.items() if name in ("dtype", "size", "tokens")}
    q, k, v = rows(**shape)
    more = {}
    if "mask" in other:
        more["mask"] = jnp.ones((2, 1, 37, 37), bool)
    if "offset" in other:
        more["offset"] = jnp.zeros((1, 2, 37, 37))
    monkeypatch.setattr(attention, "FLASH", "off" not in other)
    assert "cudnn" not in lowered(q, k, v, **more)


def test_without_cudnn_attention_goes_through_xla(monkeypatch):
    kernels = pytest.importorskip("jax._src.cudnn.fused_attention_stablehlo")

    def missing():
        raise RuntimeError("cuDNN is not detected.")

    monkeypatch.setattr(attention, "platform", lambda: "gpu")
    monkeypatch.setattr(kernels, "check_cudnn_version", missing)
    assert "cudnn" not in lowered(*rows())


def test_other_chips_never_see_cudnn(monkeypatch):
    for chip in ("tpu", "cpu"):
        monkeypatch.setattr(attention, "platform", lambda chip=chip: chip)
        assert "cudnn" not in lowered(*rows())


@pytest.mark.parametrize("tokens", [36, 37])
def test_the_added_token_changes_nothing(gpu, monkeypatch, tokens):
    """With XLA's body in cuDNN's place, whose lengths mean the same."""
    q, k, v = rows("float32", tokens)
    weights = np.random.default_rng(1).normal(size=q.shape)
    fused = jax.nn.dot_product_attention

    def outcome(attend):
        total = lambda q, k, v: jnp.sum(weights * attend(q, k, v))
        return jax.jit(jax.value_and_grad(total, argnums=(0, 1, 2)))(q, k, v)

    plain = outcome(partial(fused, scale=0.3))
    instead = lambda *args, implementation, **more: fused(*args, **more)
    monkeypatch.setattr(jax.nn, "dot_product_attention", instead)
    padded = outcome(lambda q, k, v: attention._attend_by_cudnn(q, k, v, 0.3))
    for one, other in zip(*map(jax.tree.leaves, (plain, padded)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


def test_maps_that_nobody_uses_are_not_computed(gpu):
    """A vision transformer's maps stand beside its features; softmax takes an exponential."""
    encoder = vit("Ti/16", depth=2, image=64, activation="tanh_gelu", dtype="bfloat16")
    images = jnp.zeros((2, 64, 64, 3))
    params, stats = initialise(encoder, jax.random.key(0), images)

    def loss(params, name):
        out, _ = forward(encoder, params, stats, images, train=True)
        return jnp.sum(out[name].astype(jnp.float32))

    def text(name):
        step = jax.jit(jax.grad(partial(loss, name=name)))
        return step.trace(params).lower(lowering_platforms=("cuda",)).as_text()

    assert text("features").count("stablehlo.exponential") == 0
    assert text("features").count("__cudnn$fmhaSoftmax(") == 2
    assert text("attention").count("stablehlo.exponential") > 0
