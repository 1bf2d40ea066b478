import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcl.encoders import TextTower, forward, initialise

KEY = jax.random.key(0)
SMALL = {"vocab_size": 20, "width": 16, "depth": 2, "heads": 4, "mlp": 32, "max_positions": 8}
CLIP = TextTower(**SMALL, projection=12)
SIGLIP = TextTower(
    **SMALL,
    causal=False,
    activation="tanh_gelu",
    pool="last",
    projection=12,
    projection_bias=True,
    start="siglip",
)
IDS = jnp.array([[1, 5, 3, 19, 0, 0, 0, 0], [1, 5, 3, 8, 8, 2, 19, 0]])


start = jax.jit(lambda tower, x: initialise(tower, KEY, x)[0], static_argnums=0)
answer = jax.jit(
    lambda tower, params, x: forward(tower, params, {}, x, train=False)[0], static_argnums=0
)


def run(tower, x, *, params=None):
    return answer(tower, start(tower, x) if params is None else params, x)


@pytest.mark.parametrize(
    ("tower", "parameters"),
    [  # transformers 5.23: parameters of the default CLIPTextModelWithProjection and
        # SiglipTextModel
        (TextTower(), 63_428_096),
        (TextTower(vocab_size=32000, width=768, heads=12, mlp=3072, max_positions=64, causal=False,
                   projection=768, projection_bias=True), 110_271_744),
    ],
)  # fmt: skip
def test_parameter_counts(tower, parameters):
    x = {"ids": jax.ShapeDtypeStruct((1, 4), jnp.int32)}
    params, _ = jax.eval_shape(lambda x: initialise(tower, KEY, x), x)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == parameters


def test_later_tokens_do_not_change_the_end_of_a_shorter_text():
    changed = IDS.at[0, 4:].set(jnp.array([7, 9, 11, 2]))
    one, two = run(CLIP, {"ids": IDS}), run(CLIP, {"ids": changed})
    np.testing.assert_array_equal(one["features"], two["features"])
    np.testing.assert_array_equal(one["tokens"][0, :4], two["tokens"][0, :4])
    assert np.abs(one["tokens"][0, 4:] - two["tokens"][0, 4:]).max() > 1e-3


def test_earlier_tokens_do():
    one, two = run(CLIP, {"ids": IDS}), run(CLIP, {"ids": IDS.at[0, 1].set(6)})
    assert np.abs(one["features"][0] - two["features"][0]).max() > 1e-3
    np.testing.assert_allclose(one["features"][1], two["features"][1], atol=1e-6)


def test_without_the_causal_mask_every_token_counts():
    one, two = run(SIGLIP, {"ids": IDS}), run(SIGLIP, {"ids": IDS.at[0, 0].set(6)})
    assert np.abs(one["features"][0] - two["features"][0]).max() > 1e-3


@pytest.mark.parametrize("tower", [CLIP, SIGLIP])
def test_masked_tokens_do_not_change_the_others(tower):
    mask = jnp.ones_like(IDS, bool).at[0, 2:4].set(False)
    one = run(tower, {"ids": IDS, "mask": mask})
    two = run(tower, {"ids": IDS.at[0, 2].set(9), "mask": mask})
    seen = np.asarray(mask)
    np.testing.assert_allclose(one["tokens"][seen], two["tokens"][seen], atol=1e-6)
    assert np.abs(one["attention"][0, :, :, 2:4]).max() < 1e-30


def test_attention_is_causal_and_sums_to_one():
    attention = run(CLIP, {"ids": IDS})["attention"]
    assert attention.shape == (2, 4, 8, 8)
    np.testing.assert_allclose(attention.sum(-1), 1, rtol=1e-5)
    np.testing.assert_array_equal(np.triu(attention, 1), 0)


@pytest.mark.parametrize(
    ("fields", "places"),
    [
        ({"pool": "eot"}, [3, 6]),  # highest id
        ({"pool": "eot", "eos": 5}, [1, 1]),
        ({"pool": "eot", "eos": 0}, [4, 7]),  # the first of several
        ({"pool": "last"}, [7, 7]),
    ],
)
def test_which_token_stands_for_the_text(fields, places):
    out = run(TextTower(**SMALL, projection=0, **fields), {"ids": IDS})
    np.testing.assert_array_equal(out["features"], out["tokens"][jnp.arange(2), jnp.array(places)])


def test_longer_texts_than_positions_are_refused():
    with pytest.raises(ValueError, match="texts of 9 tokens; max_positions=8"):
        initialise(CLIP, KEY, {"ids": jnp.zeros((1, 9), jnp.int32)})


def test_clip_starts_as_clip():
    """Deviations of openai/CLIP's initialize_parameters, to a few standard errors."""
    tower = TextTower(vocab_size=500, width=64, depth=3, heads=4, mlp=256, projection=64)
    params = start(tower, {"ids": IDS})
    block = params["block2"]
    expected = [
        (params["embed"]["embedding"], 0.02),
        (params["positions"], 0.01),
        (block["attention"]["qkv"]["kernel"], 64**-0.5),
        (block["attention"]["out"]["kernel"], 64**-0.5 * 6**-0.5),
        (block["linear1"]["kernel"], 128**-0.5),
        (block["linear2"]["kernel"], 64**-0.5 * 6**-0.5),
        (params["projection"]["kernel"], 64**-0.5),
    ]
    for value, std in expected:
        assert np.std(value) == pytest.approx(std, rel=4 / np.sqrt(2 * value.size))
    assert "bias" not in params["projection"]


@pytest.mark.extended
def test_bfloat16_computes_in_half_and_returns_float32():
    params = start(SIGLIP, {"ids": IDS})
    exact = run(SIGLIP, {"ids": IDS}, params=params)
    rough = run(SIGLIP.clone(dtype="bfloat16"), {"ids": IDS}, params=params)
    assert rough["features"].dtype == rough["tokens"].dtype == jnp.float32
    np.testing.assert_allclose(rough["features"], exact["features"], atol=0.1)
    assert np.abs(rough["features"] - exact["features"]).max() > 0
