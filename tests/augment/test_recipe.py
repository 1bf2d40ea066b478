"""Recipes: independence of draws, the host's road, inference, many devices, the papers' numbers."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxcl.augment import (
    Blur,
    ColorJitter,
    Flip,
    Grayscale,
    Noise,
    RandomResizedCrop,
    Recipe,
    Solarize,
    View,
    byol,
    crop_and_flip,
    crop_and_resize,
    digits,
    dino,
    moco_v1,
    moco_v2,
    simclr,
    swav,
)
from jaxcl.errors import UserError

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (8, 20, 24, 3), dtype=np.uint8)
KEYS = jax.random.split(jax.random.key(0), 8)
SMALL = simclr(12)


@pytest.fixture(scope="module")
def views():
    return jax.jit(SMALL)(KEYS, IMAGES)


def test_views_have_static_shapes_and_the_range(views):
    assert SMALL.count == 2
    for view in views:
        assert view.shape == (8, 12, 12, 3)
        assert view.dtype == jnp.float32
        back = np.asarray(view) * SMALL.std + np.asarray(SMALL.mean)
        assert back.min() > -1e-6
        assert back.max() < 1 + 1e-6
        np.testing.assert_allclose(SMALL.unnormalize(view), np.clip(back, 0, 1), atol=1e-6)


def test_same_key_same_view_other_key_other_view(views):
    again = jax.jit(SMALL)(KEYS, IMAGES)
    np.testing.assert_array_equal(views, again)
    assert not np.allclose(views[0], views[1])
    other = jax.jit(SMALL)(jax.random.split(jax.random.key(1), 8), IMAGES)
    assert not np.any([np.allclose(a, b) for a, b in zip(views[0], other[0], strict=True)])


def test_a_view_follows_from_its_own_key_and_image_alone(views):
    order = RNG.permutation(8)
    moved = jax.jit(SMALL)(KEYS[order], IMAGES[order])
    for view, shuffled in zip(views, moved, strict=True):
        np.testing.assert_array_equal(np.asarray(view)[order], shuffled)


def test_draws_are_independent_between_views_and_operations():
    """Two coins in each of two views: all sixteen outcomes equally often."""
    recipe = Recipe((View(None, (Flip(), Solarize(0.5, threshold=0.0)), copies=2),), 2)
    n = 16_000
    image = np.array([[0, 51], [0, 51]], np.uint8).reshape(1, 2, 2, 1)
    keys = jax.random.split(jax.random.key(3), n)
    views = jax.jit(recipe)(keys, np.repeat(image, n, axis=0))
    outcome = np.zeros(n, int)
    for view in np.asarray(views):
        left, right = view[:, 0, 0, 0], view[:, 0, 1, 0]
        solarised = left + right > 1
        flipped = (left > right) != solarised
        outcome = 4 * outcome + 2 * solarised + flipped
    counts = np.bincount(outcome, minlength=16)
    assert np.sum((counts - 1000) ** 2 / 1000) < 37.7  # 15 degrees of freedom, one in a thousand


def test_finish_equals_the_full_path_when_the_crop_is_the_whole_image():
    whole = RandomResizedCrop(12, scale=(1.0, 1.0), ratio=(1.0, 1.0))
    local = RandomResizedCrop(8, scale=(1.0, 1.0), ratio=(1.0, 1.0))
    view = View(whole, (Flip(), ColorJitter()), copies=2)
    square = IMAGES[:, :12, :12]
    recipe = dataclasses.replace(SMALL, views=(view,))
    full, finished = jax.jit(recipe)(KEYS, square), jax.jit(recipe.finish)(KEYS, (square,) * 2)
    np.testing.assert_allclose(full, finished, atol=2e-5)  # a crop of everything resamples by 1
    two = dataclasses.replace(recipe, views=(*recipe.views, View(local, view.ops)))
    assert [crop.size for crop in two.crops] == [12, 12, 8]
    sizes = [x.shape for x in jax.eval_shape(two.finish, KEYS, (square, square, square[:, :8, :8]))]
    assert sizes == [(8, 12, 12, 3), (8, 12, 12, 3), (8, 8, 8, 3)]


def test_crops_cut_on_the_host_join_the_device_road():
    """Cut by the crop's own key and stored in 8 bits, then finished: the device's views."""
    crop = RandomResizedCrop(6, scale=(0.2, 0.4))
    recipe = Recipe((View(crop, (Flip(), Solarize())),), 6)
    resize = jax.jit(lambda image, box: crop_and_resize(image, tuple(box), 6))
    # The first key of a view is the crop's; the others are the operations'.
    own = lambda key: jax.random.split(key, 3)[0]
    draw = jax.jit(jax.vmap(lambda key: jax.random.uniform(own(key), (crop.draws,))))
    crops = []
    for uniforms, image in zip(np.asarray(draw(KEYS)), IMAGES, strict=True):
        cut = resize(image, np.float32(crop.box(uniforms, 20, 24, xp=np)))
        crops.append(np.round(255 * np.asarray(cut)).astype(np.uint8))
    (finished,) = jax.jit(recipe.finish)(KEYS, (np.stack(crops),))
    (full,) = jax.jit(recipe)(KEYS, IMAGES)
    # Half a level of rounding; a value that it carries over the threshold solarises otherwise.
    assert np.mean(np.abs(full - finished) > 0.51 / 255) < 0.01


def test_plain_is_the_central_square_normalised():
    recipe = Recipe((), 4, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4), inference_crop=0.4)
    got = np.asarray(jax.jit(recipe.plain)(IMAGES)) * recipe.std + np.asarray(recipe.mean)
    # Antialiased bilinear at half the size weighs 1/8, 3/8, 3/8, 1/8; inside, away from the border.
    line = np.array([1, 3, 3, 1]) / 8
    cut = IMAGES[:, 6:14, 8:16].astype(np.float64) / 255
    for y, x in ((1, 1), (1, 2), (2, 2)):
        window = cut[:, 2 * y - 1 : 2 * y + 3, 2 * x - 1 : 2 * x + 3]
        expected = np.einsum("y,nyxc,x->nc", line, window, line)
        np.testing.assert_allclose(got[:, y, x], expected, atol=1e-6)


def test_plain_resizes_by_the_kernel_of_the_recipe():
    for kernel in ("bilinear", "bicubic", "tf_bicubic"):
        recipe = Recipe((), 8, inference_crop=0.8, inference_interpolation=kernel)
        expected = crop_and_resize(IMAGES[0], (2.0, 4.0, 16.0, 16.0), 8, kernel)
        np.testing.assert_allclose(recipe.plain(IMAGES)[0], expected, atol=1e-6)


def test_plain_leaves_images_of_the_right_size_as_they_are():
    square = IMAGES[:, :12, :12]
    np.testing.assert_array_equal(
        jax.jit(Recipe((), 12).plain)(square), np.float32(square) * np.float32(1 / 255)
    )


def test_one_device_equals_eight_and_nothing_moves_between_them():
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    spread = NamedSharding(mesh, PartitionSpec("data"))
    recipe = Recipe(
        (View(RandomResizedCrop(12), (Flip(), ColorJitter(), Grayscale(), Blur(size=3), Noise())),),
        12,
        *((0.5,) * 3, (0.2,) * 3),
    )
    step = jax.jit(recipe, in_shardings=(spread, spread), out_shardings=spread)
    compiled = step.lower(KEYS, IMAGES).compile()
    many = compiled(jax.device_put(KEYS, spread), jax.device_put(IMAGES, spread))
    one = jax.jit(recipe)(KEYS, IMAGES)
    assert len(many[0].sharding.device_set) == 8
    # Shorter loops are vectorised otherwise: last bits differ, next to a tie of hues a few more.
    np.testing.assert_allclose(many[0], one[0], atol=1e-4)
    text = compiled.as_text()
    for collective in ("all-gather", "all-reduce", "all-to-all", "collective-permute"):
        assert collective not in text


# Mistakes ---------------------------------------------------------------------------------------


def test_mistakes_are_told_in_one_line():
    with pytest.raises(UserError, match="give both or neither"):
        Recipe((), 4, mean=(0.5,))
    with pytest.raises(UserError, match=r"inference_crop=1\.5"):
        Recipe((), 4, inference_crop=1.5)
    with pytest.raises(UserError, match="got 1 crops for a recipe of 2 views"):
        SMALL.finish(KEYS, (IMAGES,))
    with pytest.raises(UserError, match="12x12 whole and got 20x24"):
        SMALL.finish(KEYS, (IMAGES, IMAGES))
    with pytest.raises(UserError, match="16x16 whole and got 20x24"):
        digits(16)(KEYS, IMAGES[..., :1])
    with pytest.raises(UserError, match="3 numbers for images of 1 channels"):
        SMALL.plain(IMAGES[..., :1])
    with pytest.raises(UserError, match="strength=3"):
        simclr(32, strength=3.0)


# The papers' recipes ----------------------------------------------------------------------------


def row(view):
    """A view as a row of the table in the specification."""
    find = lambda kind: next((op for op in view.ops if type(op) is kind), None)
    jitter, blur, solarise = find(ColorJitter), find(Blur), find(Solarize)
    return (
        view.crop.scale,
        (jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue, jitter.p),
        find(Grayscale).p,
        blur.p if blur else 0,
        solarise.p if solarise else 0,
        find(Flip).p,
    )


BYOL_JITTER = (0.4, 0.4, 0.2, 0.1, 0.8)


@pytest.mark.parametrize(
    ("recipe", "rows"),
    [
        (moco_v1(), [((0.2, 1), (0.4, 0.4, 0.4, 0.4, 1.0), 0.2, 0, 0, 0.5)]),
        (moco_v2(), [((0.2, 1), (0.4, 0.4, 0.4, 0.1, 0.8), 0.2, 0.5, 0, 0.5)]),
        (simclr(), [((0.08, 1), (0.8, 0.8, 0.8, 0.2, 0.8), 0.2, 0.5, 0, 0.5)]),
        (
            simclr(32, strength=0.5, blur=0.0),
            [((0.08, 1), (0.4, 0.4, 0.4, 0.1, 0.8), 0.2, 0, 0, 0.5)],
        ),
        (
            byol(),
            [
                ((0.08, 1), BYOL_JITTER, 0.2, 1.0, 0, 0.5),
                ((0.08, 1), BYOL_JITTER, 0.2, 0.1, 0.2, 0.5),
            ],
        ),
        (
            dino(),
            [
                ((0.4, 1), BYOL_JITTER, 0.2, 1.0, 0, 0.5),
                ((0.4, 1), BYOL_JITTER, 0.2, 0.1, 0.2, 0.5),
                ((0.05, 0.4), BYOL_JITTER, 0.2, 0.5, 0, 0.5),
            ],
        ),
        (
            swav(),
            [
                ((0.14, 1), (0.8, 0.8, 0.8, 0.2, 0.8), 0.2, 0.5, 0, 0.5),
                ((0.05, 0.14), (0.8, 0.8, 0.8, 0.2, 0.8), 0.2, 0.5, 0, 0.5),
            ],
        ),
    ],
)
def test_named_recipes_have_the_papers_numbers(recipe, rows):
    for view, expected in zip(recipe.views, rows, strict=True):
        for got, want in zip(row(view), expected, strict=True):
            np.testing.assert_allclose(got, want)


# google-research/simclr tf2/data_util.py, deepmind-research byol/utils/dataset.py and
# augmentations.py, facebookresearch's moco/main_moco.py, swav/src/multicropdataset.py and
# dino/main_dino.py, whose eval_knn.py resizes by Pillow's bicubic kernel.
@pytest.mark.parametrize(
    ("recipe", "sampler", "kernel", "blur"),
    [
        (simclr(interpolation="tf_bicubic"), "tensorflow", "tf_bicubic", "simclr"),
        (simclr(impl="torchvision"), "torchvision", "bilinear", "pillow"),
        (byol(), "clamp", "tf_bicubic", "simclr"),
        (moco_v1(), "torchvision", "bilinear", None),
        (moco_v2(), "torchvision", "bilinear", "pillow"),
        (dino(), "torchvision", "bicubic", "pillow"),
        (swav(), "torchvision", "bilinear", "pillow"),
    ],
)
def test_named_recipes_follow_their_authors_library(recipe, sampler, kernel, blur):
    for view in recipe.views:
        assert (view.crop.sampler, view.crop.interpolation) == (sampler, kernel)
        assert [op.impl for op in view.ops if isinstance(op, Blur)] == [blur] * (blur is not None)
    assert recipe.inference_interpolation == kernel


def test_brightness_is_added_where_the_authors_add_it():
    """In BYOL and the first version of SimCLR (google-research/simclr at be133b3)."""
    for recipe, added in (
        (simclr(), False),
        (simclr(additive_brightness=True), True),
        (byol(), True),
    ):
        for view in recipe.views:
            (jitter,) = (op for op in view.ops if isinstance(op, ColorJitter))
            assert jitter.additive_brightness == added


def test_classifiers_see_one_view_that_is_cropped_and_flipped():
    recipe = crop_and_flip(32, interpolation="bicubic", sampler="tensorflow")
    (view,) = recipe.views
    crop = RandomResizedCrop(32, (0.08, 1.0), interpolation="bicubic", sampler="tensorflow")
    assert view.crop == crop
    assert (view.ops, recipe.count, recipe.size) == ((Flip(),), 1, 32)


def test_multi_crop_counts_and_sizes():
    assert [crop.size for crop in swav().crops] == [224] * 2 + [96] * 6
    assert [crop.size for crop in dino().crops] == [224] * 2 + [96] * 8
    assert swav(local=0).count == dino(local=0).count == 2
    assert {crop.interpolation for crop in dino().crops} == {"bicubic"}


def test_moco_v1_drops_colour_before_the_jitter():
    kinds = [type(op) for op in moco_v1().views[0].ops]
    assert kinds.index(Grayscale) < kinds.index(ColorJitter)


def test_multi_crop_shapes_and_digits():
    recipe = swav(16, local_size=8, local=1)
    shapes = [view.shape for view in jax.eval_shape(recipe, KEYS, IMAGES)]
    assert shapes == [(8, 16, 16, 3), (8, 16, 16, 3), (8, 8, 8, 3)]
    grey = IMAGES[:, :16, :16, :1]
    first, second = jax.jit(digits(16))(KEYS, grey)
    assert first.shape == (8, 16, 16, 1)
    assert not np.allclose(first, second)
    assert 0 <= float(first.min()) < float(first.max()) <= 1
    assert not any(isinstance(op, Flip) for view in digits().views for op in view.ops)


def test_recipes_are_plain_values():
    assert simclr(32) == simclr(32)
    assert simclr(32) != simclr(32, blur=0.0)
    assert hash(dino()) == hash(dino())


def test_dino_without_blur_is_dino_but_for_the_blur():
    with_blur, without = dino(32, local=2), dino(32, local=2, blur=False)
    assert len(without.views) == 3 and without.count == 4
    for one, other in zip(with_blur.views, without.views, strict=True):
        assert (one.crop, one.copies) == (other.crop, other.copies)
        assert tuple(op for op in one.ops if not isinstance(op, Blur)) == other.ops != one.ops
