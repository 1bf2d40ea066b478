import jax
import jax.numpy as jnp
import numpy as np
import pytest
from filled import images
from jitted import forward, initialise

from jaxcl.encoders import ViT, vit
from jaxcl.encoders.positions import resize_positions, sincos_positions

KEY = jax.random.key(0)
SMALL = ViT(32, 2, 4, patch=4, image=16)


def run(encoder, x, train=False, key=None, seed=0):
    params, stats = initialise(encoder, jax.random.key(seed), x[:1])
    return forward(encoder, params, stats, x, train=train, key=key)[0]


@pytest.mark.parametrize(
    ("size", "parameters"),
    [  # timm's counts without a classifier
        ("Ti/16", 5_524_416), ("S/16", 21_665_664), ("B/16", 85_798_656), ("L/16", 303_301_632),
        ("H/14", 630_764_800),
    ],
)  # fmt: skip
def test_parameter_counts(size, parameters):
    image = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    params, _ = jax.eval_shape(lambda x: initialise(vit(size), KEY, x), image)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == parameters


def test_unknown_sizes_are_refused():
    with pytest.raises(ValueError, match="a size is one of Ti, S, B, L, H and a patch"):
        vit("XL/16")


def test_outputs_by_name():
    x = images(16)
    out = run(SMALL.clone(registers=2, projection=5), x)
    assert out["features"].shape == (2, 5)
    assert out["tokens"].shape == (2, 1 + 2 + 16, 32)
    assert len(out["stages"]) == 2
    assert out["attention"].shape == (2, 4, 19, 19)
    np.testing.assert_allclose(out["attention"].sum(-1), 1, rtol=1e-5)
    mean = run(SMALL.clone(pool="mean", registers=2), x)
    np.testing.assert_allclose(mean["features"], mean["tokens"][:, 3:].mean(1), atol=1e-6)
    np.testing.assert_array_equal(run(SMALL, x)["features"], run(SMALL, x)["tokens"][:, 0])


def test_class_tokens_of_several_blocks_are_features():
    """As DINO's linear protocol: four tokens of ViT-S, each after the last norm; of ViT-B the last
    one and the mean of the last patches."""
    plain = ViT(width=8, depth=3, heads=2, patch=4, image=8)
    x = jax.random.normal(jax.random.key(1), (2, 8, 8, 3))
    params, stats = initialise(plain, jax.random.key(0), x)
    params["norm"] = {"scale": jnp.linspace(0.5, 2.0, 8), "bias": jnp.linspace(-1.0, 1.0, 8)}
    see = lambda **fields: forward(plain.clone(**fields), params, stats, x, train=False)[0]
    outputs = see()
    stage = np.asarray(outputs["stages"][1], np.float64)[:, 0]
    stage = (stage - stage.mean(1, keepdims=True)) / np.sqrt(stage.var(1, keepdims=True) + 1e-6)
    stage = stage * params["norm"]["scale"] + params["norm"]["bias"]
    tokens = outputs["tokens"]
    both = np.concatenate([stage, tokens[:, 0]], axis=1)
    np.testing.assert_allclose(see(feature_blocks=2)["features"], both, rtol=1e-4, atol=1e-5)
    mean = np.concatenate([tokens[:, 0], np.mean(tokens[:, 1:], axis=1)], axis=1)
    np.testing.assert_allclose(see(feature_mean=True)["features"], mean, rtol=1e-5, atol=1e-6)
    for fields in (
        {"feature_blocks": 4},
        {"feature_blocks": 0},
        {"pool": "mean", "feature_blocks": 2},
    ):
        with pytest.raises(ValueError, match="join tokens of the last of 3 blocks"):
            see(**fields)


def test_patches_are_read_row_by_row():
    """Without positions, exchanging two patches exchanges two tokens and nothing else."""
    params, stats = initialise(SMALL, KEY, images(16))
    params = params | {"positions": jnp.zeros_like(params["positions"])}
    x = images(16)
    swapped = x.copy()
    swapped[:, 4:8, 8:12], swapped[:, 12:16, 0:4] = x[:, 12:16, 0:4], x[:, 4:8, 8:12]
    one, two = (forward(SMALL, params, stats, v, train=False)[0]["tokens"] for v in (x, swapped))
    order = np.arange(17)
    order[[1 + 4 + 2, 1 + 12]] = order[[1 + 12, 1 + 4 + 2]]
    np.testing.assert_allclose(two, one[:, order], atol=1e-5)


def test_sides_must_split_into_patches():
    with pytest.raises(ValueError, match="images of 18x18 do not split into patch=4"):
        run(SMALL, images(18))


def test_other_sizes_get_interpolated_positions():
    params, stats = initialise(SMALL, KEY, images(16))
    out, _ = forward(SMALL, params, stats, images(24), train=False)
    assert out["tokens"].shape == (2, 1 + 36, 32)


def test_resizing_keeps_constants_and_is_symmetric():
    table = jax.random.normal(KEY, (6, 6, 3))
    np.testing.assert_array_equal(resize_positions(table, 6, 6), table)
    np.testing.assert_allclose(resize_positions(0 * table + 2, 9, 4), 2, rtol=1e-6)
    resized = resize_positions(table, 9, 4)
    np.testing.assert_allclose(resize_positions(table[::-1], 9, 4), resized[::-1], atol=1e-6)
    turned = resize_positions(table.transpose(1, 0, 2), 4, 9)
    np.testing.assert_allclose(turned, resized.transpose(1, 0, 2), atol=1e-6)


def moco_v3_code(height, width, channels):
    """Facebook's table, entry by entry: its outer loop is over the width."""
    frequencies = [10000.0 ** (-k / (channels // 4)) for k in range(channels // 4)]
    return np.array([
        [wave(place * f) for place in (w, h) for wave in (np.sin, np.cos) for f in frequencies]
        for w in range(width) for h in range(height)
    ])  # fmt: skip


def test_moco_v3s_code_places_patches_rightly_on_square_grids_alone():
    """Patches lie row by row, there as here; here on grids of any shape."""
    square = sincos_positions(4, 4, 16, order="moco_v3")
    np.testing.assert_allclose(square, moco_v3_code(4, 4, 16), atol=1e-6)
    table = sincos_positions(3, 5, 16, order="moco_v3").reshape(3, 5, 16)
    for row, column in np.ndindex(3, 5):  # a square grid's entry for the same row and column
        square = moco_v3_code(5, 5, 16).reshape(5, 5, 16)
        np.testing.assert_allclose(table[row, column], square[row, column], atol=1e-6)
    assert np.abs(table.reshape(15, 16) - moco_v3_code(3, 5, 16)).max() > 1


@pytest.mark.parametrize("order", ["moco_v3", "big_vision"])
def test_fixed_positions(order):
    """Rows have norm sqrt(d / 2); single entries from the two libraries' equations."""
    table = sincos_positions(3, 5, 16, order=order)
    np.testing.assert_allclose(np.linalg.norm(table, axis=1), 8**0.5, rtol=1e-6)
    patch = table[1 * 5 + 4]  # row 1, column 4
    first, second = (1, 4) if order == "moco_v3" else (4, 1)
    last = 10000.0 ** (-3 / 4) if order == "moco_v3" else 1e-4
    np.testing.assert_allclose(patch[[0, 4]], [np.sin(first), np.cos(first)], rtol=1e-6)
    np.testing.assert_allclose(
        patch[[11, 15]], [np.sin(second * last), np.cos(second * last)], rtol=1e-5
    )
    with pytest.raises(ValueError, match="18 channels for positions"):
        sincos_positions(3, 5, 18, order=order)


def test_frozen_patches_are_no_parameters():
    encoder = SMALL.clone(freeze_patches=True, positions="moco_v3", kernel_init="moco_v3")
    params, stats = initialise(encoder, KEY, images(16))
    assert "patch_kernel" not in params
    bound = (6 / (3 * 16 + 32)) ** 0.5  # uniform with fan 3 p^2 + d
    assert 0.9 * bound < np.abs(stats["patch_kernel"]).max() <= bound
    assert np.abs(params["class_token"]).max() < 1e-5
    _, after = forward(encoder, params, stats, images(16), train=True)
    jax.tree.map(np.testing.assert_array_equal, stats, after)
    qkv = params["block1"]["attention"]["qkv"]["kernel"]  # three matrices, not one of 3 d
    bound = (6 / (32 + 32)) ** 0.5
    assert 0.9 * bound < np.abs(qkv).max() <= bound


def test_stochastic_depth_skips_examples_in_training_alone():
    deep = ViT(16, 2, 2, patch=4, image=8, drop_path=0.5)
    x = np.repeat(images(8)[:1], 64, 0)
    params, stats = initialise(deep, KEY, x[:1])
    out = lambda train, seed: forward(
        deep, params, stats, x, train=train, key=jax.random.key(seed)
    )[0]["stages"]
    first, second = out(True, 0)
    np.testing.assert_allclose(first, np.broadcast_to(first[:1], first.shape), atol=1e-6)
    kinds = np.unique(np.round(np.asarray(second)[:, 0, 0], 4))
    assert len(kinds) == 4  # each of two updates is there or not
    assert np.abs(out(True, 1)[1] - second).max() > 1e-3
    np.testing.assert_array_equal(out(False, 0)[1], out(False, 1)[1])
    updates = np.asarray(out(True, 2)[1]).mean(0) - np.asarray(out(False, 0)[1])[0]
    assert np.abs(updates).mean() < np.abs(second - first).mean()


def test_layer_scale_starts_small():
    out = run(SMALL.clone(layer_scale=1e-6), images(16))
    one, two = out["stages"]
    assert np.abs(two - one).max() < 1e-4
    plain = run(SMALL, images(16))["stages"]
    assert np.abs(plain[1] - plain[0]).max() > 1e-3


@pytest.mark.extended
def test_bfloat16_computes_in_half_and_returns_float32():
    x = images(16)
    params, stats = initialise(SMALL, KEY, x)
    half = SMALL.clone(dtype="bfloat16")
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    rough, _ = forward(half, params, stats, x, train=False)
    exact, _ = forward(SMALL, params, stats, x, train=False)
    assert rough["stages"][0].dtype == jnp.bfloat16
    assert rough["features"].dtype == jnp.float32
    np.testing.assert_allclose(rough["features"], exact["features"], atol=0.1)
