from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.test_util import check_grads
from jitted import forward, initialise

from jaxcl.encoders import (
    MLP,
    BatchNorm,
    ResNet,
    apply_stage,
    attention,
    in_chunks,
    norm,
    per_chunk,
    pointwise,
    simclr_v2_resnet,
)
from jaxcl.encoders.pointwise import Pointwise

KEY = jax.random.key(0)
EXTENDED = pytest.mark.extended


def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize(
    ("encoder", "parameters", "width"),
    [  # torchvision's counts less its classifier; cifar stems: 3x3 instead of 7x7 in the stem
        (ResNet(18), 11_689_512 - 513_000, 512),
        pytest.param(ResNet(34), 21_797_672 - 513_000, 512, marks=EXTENDED),
        (ResNet(50), 25_557_032 - 2_049_000, 2048),
        pytest.param(ResNet(101), 44_549_160 - 2_049_000, 2048, marks=EXTENDED),
        pytest.param(ResNet(152), 60_192_808 - 2_049_000, 2048, marks=EXTENDED),
        (ResNet(18, stem="cifar"), 11_689_512 - 513_000 - 3 * 64 * (49 - 9), 512),
        # SimCLR's README, in millions
        pytest.param(ResNet(50, width=2), 94_000_000, 4096, marks=EXTENDED),
        (simclr_v2_resnet(50), 35_000_000, 2048),
        pytest.param(simclr_v2_resnet(50, 2), 140_000_000, 4096, marks=EXTENDED),
        pytest.param(simclr_v2_resnet(101), 65_000_000, 2048, marks=EXTENDED),
        pytest.param(simclr_v2_resnet(152), 89_000_000, 2048, marks=EXTENDED),
        pytest.param(simclr_v2_resnet(152, 3), 795_000_000, 6144, marks=EXTENDED),
    ],
)
def test_parameter_counts(encoder, parameters, width):
    image = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    params, stats = jax.eval_shape(lambda x: initialise(encoder, KEY, x), image)
    exact = 1e-9 if parameters % 1000 else 0.5e6 / parameters
    assert count(params) == pytest.approx(parameters, rel=exact)
    out, _ = jax.eval_shape(
        lambda p, s, x: forward(encoder, p, s, x, train=False), params, stats, image
    )
    assert out["features"].shape == (1, width)


@pytest.mark.parametrize(("stem", "sides"), [("imagenet", (8, 4, 2, 1)), ("cifar", (32, 16, 8, 4)),
                                             ("half", (16, 8, 4, 2))])  # fmt: skip
def test_stems_and_stages(stem, sides):
    encoder = ResNet(10, width=0.25, stem=stem)
    image = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)

    def stages(x):
        return forward(encoder, *initialise(encoder, KEY, x), x, train=True)[0]["stages"]

    shapes = [s.shape for s in jax.eval_shape(stages, image)]
    assert shapes == [(2, side, side, 16 * 2**i) for i, side in enumerate(sides)]


def test_fewer_stages_end_earlier():
    """The first three stages are those of the whole network."""
    whole, short = (ResNet(10, width=0.125, stem="half", stages=n) for n in (4, 3))
    x = jax.random.normal(KEY, (2, 32, 32, 3))
    params, stats = initialise(whole, KEY, x)
    some = lambda tree: {name: leaf for name, leaf in tree.items() if "stage4" not in name}
    full, _ = forward(whole, params, stats, x, train=False)
    part, _ = forward(short, some(params), some(stats), x, train=False)
    assert part["features"].shape == (2, 32)
    np.testing.assert_allclose(part["features"], full["stages"][2].mean((1, 2)), rtol=1e-5)


def test_too_few_blocks_are_refused():
    assert ResNet(18, blocks=(1, 2, 3, 4), stages=3).stage_blocks == (1, 2, 3)
    with pytest.raises(ValueError, match=r"blocks=\(1, 2\) for stages=4; give one number each"):
        _ = ResNet(18, blocks=(1, 2)).stage_blocks


def test_stages_one_by_one_are_the_network():
    """Maps and running statistics; and a stage of another network is told from it."""
    encoder = ResNet(10, width=0.125, stem="cifar")
    x = jax.random.normal(KEY, (4, 16, 16, 3))
    params, stats = initialise(encoder, KEY, x)
    whole, after = forward(encoder, params, stats, x, train=True)
    for stage in range(5):
        x, stats = apply_stage(encoder, params, stats, stage, x, train=True)
        if stage:
            np.testing.assert_allclose(x, whole["stages"][stage - 1], rtol=1e-4, atol=1e-5)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), stats, after)


def test_group_norm_sees_each_image_alone():
    encoder = ResNet(10, width=0.25, stem="cifar", norm="group", zero_init=False)
    x = jax.random.normal(KEY, (4, 16, 16, 3))
    params, stats = initialise(encoder, KEY, x)
    assert stats == {}
    encode = lambda p, x: forward(encoder, p, stats, x, train=True)[0]["features"]
    np.testing.assert_allclose(encode(params, x)[:1], encode(params, x[:1]), atol=1e-5)
    name = "stage1_block1"
    moved = params | {
        name: params[name] | {"conv1": {"kernel": 3 * params[name]["conv1"]["kernel"] + 1}}
    }
    # Kernels are standardised: neither their scale nor their mean matters.
    np.testing.assert_allclose(encode(moved, x), encode(params, x), rtol=1e-3, atol=1e-4)


def test_group_norm_of_rows():
    """By hand: standardised kernels in every layer, 16 groups of channels, each row alone."""
    head = MLP((32,), 3, norm="group", bias=True)
    x = np.random.default_rng(0).normal(size=(4, 5))
    params, stats = initialise(head, KEY, jnp.array(x, jnp.float32))
    assert stats == {}
    params["norm1"] = {"scale": jnp.linspace(0.5, 2, 32), "bias": jnp.linspace(-1, 1, 32)}
    kernels = [np.float64(params[name]["kernel"]) for name in ("linear1", "linear_out")]
    one, two = ((k - k.mean(0)) / k.std(0) for k in kernels)
    pairs = (x @ one).reshape(4, 16, 2)
    pairs = (pairs - pairs.mean(2, keepdims=True)) / np.sqrt(pairs.var(2, keepdims=True) + 1e-5)
    hidden = pairs.reshape(4, 32) * np.linspace(0.5, 2, 32) + np.linspace(-1, 1, 32)
    out, _ = forward(head, params, stats, jnp.array(x, jnp.float32), train=True)
    np.testing.assert_allclose(out["features"], np.maximum(hidden, 0) @ two, rtol=2e-3, atol=2e-3)


def test_strided_convolutions_pad_alike_on_both_sides():
    """A flipped image gives flipped maps only where no side is padded more than the other."""
    encoder = ResNet(10, width=0.125, stem="half", zero_init=False)
    x = jax.random.normal(KEY, (1, 33, 33, 3))
    params, stats = initialise(encoder, KEY, x)
    turned = jax.tree.map(lambda p: p[:, ::-1] if p.ndim == 4 else p, params)
    maps = forward(encoder, params, stats, x, train=False)[0]["stages"][3]
    mirror = forward(encoder, turned, stats, x[:, :, ::-1], train=False)[0]["stages"][3]
    np.testing.assert_allclose(mirror, maps[:, :, ::-1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("stride", [1, 2])
def test_pointwise_is_a_convolution(stride):
    """flax's, with the same parameters, on a map of odd sides; values and gradients."""
    x = jax.random.normal(KEY, (2, 7, 5, 3))
    ours = Pointwise(4, stride)
    theirs = nn.Conv(4, (1, 1), (stride, stride), padding="VALID", use_bias=False)
    variables = theirs.init(KEY, x)
    value = lambda module, v, x: jnp.sum(jnp.sin(module.apply(v, x)))
    one, two = (jax.value_and_grad(value, (1, 2))(m, variables, x) for m in (ours, theirs))
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), one, two)
    assert Pointwise(4, stride, dtype="bfloat16").apply(variables, x).dtype == jnp.bfloat16


def test_blocks_start_as_the_identity():
    """Whatever the first stage's convolutions are, its map is the stem's."""
    encoder = ResNet(10, width=0.125, stem="cifar")
    x = jax.random.normal(KEY, (2, 16, 16, 3))
    params, stats = initialise(encoder, KEY, x)
    other = params | {
        "stage1_block1": params["stage1_block1"] | {"conv1": {"kernel": jnp.ones((3, 3, 8, 8))}}
    }
    one, two = (forward(encoder, p, stats, x, train=False)[0]["stages"][0] for p in (params, other))
    np.testing.assert_array_equal(one, two)
    started = ResNet(10, width=0.125, stem="cifar", zero_init=False)
    three = forward(started, *initialise(started, KEY, x), x, train=False)[0]["stages"][0]
    assert np.abs(three - one).max() > 0.1


def test_bfloat16_computes_in_half_and_returns_float32():
    x = jax.random.normal(KEY, (4, 16, 16, 3))
    full, half = (ResNet(10, width=0.125, stem="cifar", dtype=t) for t in ("float32", "bfloat16"))
    params, stats = initialise(full, KEY, x)
    assert {leaf.dtype for leaf in jax.tree.leaves((params, stats))} == {jnp.dtype("float32")}
    exact, _ = forward(full, params, stats, x, train=True)
    rough, new = forward(half, params, stats, x, train=True)
    assert rough["stages"][0].dtype == jnp.bfloat16
    assert rough["features"].dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(new)} == {jnp.dtype("float32")}
    np.testing.assert_allclose(rough["features"], exact["features"], atol=0.1)


def batch_norm(module, x, train=True):
    variables = module.init(KEY, x, train=False)
    return module.apply(variables, x, train, mutable=["batch_stats"])


def test_batch_norm_matches_the_equation():
    x = np.random.default_rng(0).normal(2, 3, size=(6, 4, 4, 5)).astype(np.float32)
    y, state = batch_norm(BatchNorm(), x)
    mean, var = x.mean((0, 1, 2), dtype=np.float64), x.var((0, 1, 2), dtype=np.float64)
    np.testing.assert_allclose(y, (x - mean) / np.sqrt(var + 1e-5), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(state["batch_stats"]["mean"], 0.1 * mean, rtol=1e-5)
    np.testing.assert_allclose(state["batch_stats"]["var"], 0.9 + 0.1 * var, rtol=1e-5)


def test_groups_are_separate_batches():
    x = jnp.array(np.random.default_rng(0).normal(size=(8, 3, 5)), jnp.float32)
    together, state = batch_norm(BatchNorm(groups=2), x)
    parts = [batch_norm(BatchNorm(), half) for half in (x[:4], x[4:])]
    np.testing.assert_allclose(
        together, jnp.concatenate([y for y, _ in parts]), rtol=1e-5, atol=1e-6
    )
    for name in ("mean", "var"):
        mean = np.mean([s["batch_stats"][name] for _, s in parts], axis=0)
        np.testing.assert_allclose(state["batch_stats"][name], mean, rtol=1e-6)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("masked", [False, True])
def test_batch_norm_is_the_same_on_accelerators(monkeypatch, groups, masked):
    """Where the axes of images stay as they are."""
    rng = np.random.default_rng(0)
    x = jnp.array(rng.normal(2, 3, size=(6, 3, 4, 5)), jnp.float32)
    weights, mask = rng.normal(size=x.shape), rng.random(x.shape[:-1]) < 0.6
    module = BatchNorm(groups=groups)

    def outcome(chip):
        monkeypatch.setattr(norm, "platform", lambda: chip)
        variables = module.init(KEY, x, train=False)

        def total(x):
            y, state = module.apply(
                variables, x, True, mask if masked else None, mutable=["batch_stats"]
            )
            return jnp.sum(weights * y), (y, state)

        slope, found = jax.grad(total, has_aux=True)(x)
        trained = {**variables, **found[1]}
        return slope, found, module.apply(trained, x, False)

    for one, other in zip(*map(jax.tree.leaves, (outcome("tpu"), outcome("cpu"))), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("extra", ["mask", "offset", "neither"])
def test_attention_is_the_same_on_accelerators(monkeypatch, extra):
    rng = np.random.default_rng(0)
    q, k, v = (jnp.array(x, jnp.float32) for x in rng.normal(size=(3, 2, 6, 3, 4)))
    seen = rng.random((2, 1, 6, 6)) < 0.7
    more = {
        "mask": {"mask": jnp.array(seen | np.eye(6, dtype=bool))},
        "offset": {"offset": jnp.array(rng.normal(size=(2, 3, 6, 6)), jnp.float32)},
        "neither": {},
    }[extra]
    weights = rng.normal(size=(2, 6, 3, 4))

    def outcome(chip):
        monkeypatch.setattr(attention, "platform", lambda: chip)
        total = lambda q, k, v: jnp.sum(weights * attention.attend(q, k, v, scale=0.7, **more))
        return jax.jit(jax.value_and_grad(total, argnums=(0, 1, 2)))(q, k, v)

    for one, other in zip(*map(jax.tree.leaves, (outcome("gpu"), outcome("cpu"))), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.extended
def test_the_first_stages_compile_for_a_tpu(tpu):
    """With pixels made rows for batch norm, libtpu 0.0.42 and 0.0.50 fail after two minutes."""
    mesh = jax.sharding.Mesh(np.array([tpu("v5e:2x2")]), ("data",))
    place = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    encoder = ResNet(50, stages=2, dtype="bfloat16")

    def there(tree):
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), tree)

    with jax.set_mesh(mesh):
        images = there(jax.ShapeDtypeStruct((128, 224, 224, 3), jnp.float32))
        params, stats = there(jax.eval_shape(lambda x: initialise(encoder, KEY, x), images))

        def loss(params, stats, images):
            out, stats = forward(encoder, params, stats, images, train=True)
            return jnp.sum(jnp.square(out["features"].astype(jnp.float32))), stats

        step = jax.jit(jax.grad(loss, has_aux=True)).trace(params, stats, images)
        program = step.lower(lowering_platforms=("tpu",)).compile()
    assert program.memory_analysis().temp_size_in_bytes < 4 * 2**30


@pytest.mark.parametrize(
    ("shape", "groups"), [((2, 1, 1, 8), 1), ((2, 8), 1), ((4, 3, 3, 8), 2), ((64, 8), 4)]
)
@pytest.mark.parametrize("chip", ["cpu", "tpu"])
def test_batch_norm_keeps_its_digits_where_means_are_large(monkeypatch, chip, shape, groups):
    """Means a thousand deviations away, few rows: the mean of the squares less the square of the
    mean has outputs that are off by more than 1. What is left is the rounding of the mean."""
    monkeypatch.setattr(norm, "platform", lambda: chip)
    rng = np.random.default_rng(0)
    x = (10 + 0.01 * rng.normal(size=shape)).astype(np.float32)
    weights = rng.normal(size=shape)
    module = BatchNorm(groups=groups, epsilon=1e-12)
    variables = module.init(KEY, x, False)

    def total(x):
        y, _ = module.apply(variables, x, True, mutable=["batch_stats"])
        return jnp.sum(weights * y), y

    slope, y = jax.grad(total, has_aux=True)(jnp.array(x))
    parts = x.astype(np.float64).reshape(groups, -1, shape[-1])
    centred = parts - parts.mean(1, keepdims=True)
    factor = 1 / np.sqrt((centred**2).mean(1, keepdims=True) + 1e-12)
    unit = centred * factor
    np.testing.assert_allclose(y, unit.reshape(shape), atol=1e-2)
    g = weights.reshape(parts.shape)
    by_hand = g - g.mean(1, keepdims=True) - unit * (g * unit).mean(1, keepdims=True)
    scale = np.abs(factor).max() * np.abs(weights).max()
    np.testing.assert_allclose(slope / scale, (factor * by_hand).reshape(shape) / scale, atol=1e-2)


def test_batch_norm_of_half_precision_maps_is_as_exact_as_they_are():
    """One reading of the map; deviations are ten of its roundings here."""
    rng = np.random.default_rng(0)
    x = jnp.array(10 + rng.normal(size=(4, 8, 8, 5)), jnp.bfloat16)
    y, state = batch_norm(BatchNorm(), x)
    exact = np.array(x, np.float64)
    mean, var = exact.mean((0, 1, 2)), exact.var((0, 1, 2))
    np.testing.assert_allclose(y, (exact - mean) / np.sqrt(var + 1e-5), atol=1e-4)
    np.testing.assert_allclose(state["batch_stats"]["var"], 0.9 + 0.1 * var, rtol=1e-5)


@pytest.mark.parametrize("chip", ["cpu", "tpu"])
def test_many_pixels_keep_their_digits_about_the_running_mean(monkeypatch, chip):
    monkeypatch.setattr(norm, "platform", lambda: chip)
    x = (10 + 0.01 * np.random.default_rng(0).normal(size=(4, 32, 32, 3))).astype(np.float32)
    module = BatchNorm(epsilon=1e-12)
    variables = module.init(KEY, x, False)
    stats = {"mean": jnp.full(3, 10.003), "var": jnp.ones(3)}
    y, _ = module.apply(variables | {"batch_stats": stats}, x, True, mutable=["batch_stats"])
    exact = x.astype(np.float64)
    mean, var = exact.mean((0, 1, 2)), exact.var((0, 1, 2))
    np.testing.assert_allclose(y, (exact - mean) / np.sqrt(var), atol=2e-3)


@pytest.mark.parametrize("shape", [(6, 2, 2, 5), (6, 32, 32, 5)], ids=["twice", "once"])
@pytest.mark.parametrize("groups", [1, 2])
def test_of_all_maps_the_gradient_keeps_the_input_alone(shape, groups):
    """Deviations kept beside it cost half as much memory again, and a tenth of the time on CPU."""
    x = jnp.array(np.random.default_rng(0).normal(2, 3, size=shape), jnp.float32)
    variables = BatchNorm(groups=groups).init(KEY, x, False)

    def run(x):
        return BatchNorm(groups=groups).apply(variables, x, True, mutable=["batch_stats"])[0]

    kept = [leaf for leaf in jax.tree.leaves(jax.vjp(run, x)[1]) if leaf.size == x.size]
    assert kept
    for leaf in kept:
        np.testing.assert_array_equal(leaf.reshape(shape), x)
    check_grads(run, (x,), order=1, modes=("fwd", "rev"), atol=0.02, rtol=0.02)


def test_pixels_of_half_precision_are_read_once(monkeypatch):
    """On TPUs both sums are then part of the convolution; few float32 pixels are read twice."""
    monkeypatch.setattr(norm, "_variance", norm._variance.fun)  # whose sums are seen

    def sums(dtype):
        x = jnp.zeros((4, 8, 8, 5), dtype)
        variables = BatchNorm().init(KEY, x, False)
        run = lambda x: BatchNorm().apply(variables, x, True, mutable=["batch_stats"])[1]
        closed = jax.make_jaxpr(run)(x)
        first = [e for e in closed.eqns if e.primitive.name == "reduce_sum"]
        assert len(first) == 2
        made = {str(var): e for e in closed.eqns for var in e.outvars}

        def needs(var):
            found = made.get(str(var))
            return found is not None and (found is first[0] or any(map(needs, found.invars)))

        return needs(first[1].invars[0])

    assert not sums("bfloat16")
    assert sums("float32")


@pytest.mark.parametrize("stride", [1, 2])
def test_pointwise_is_the_same_on_a_gpu(monkeypatch, stride):
    x = jax.random.normal(KEY, (2, 5, 6, 3))
    module = Pointwise(4, stride)
    variables = module.init(KEY, x)

    def outcome(chip):
        monkeypatch.setattr(pointwise, "platform", lambda: chip)
        total = lambda variables, x: jnp.sum(jnp.sin(module.apply(variables, x)))
        text = jax.jit(total).lower(variables, x).as_text()
        assert ("convolution" in text) == (chip == "gpu")
        return jax.value_and_grad(total, argnums=(0, 1))(variables, x)

    for one, other in zip(*map(jax.tree.leaves, (outcome("gpu"), outcome("cpu"))), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


def test_groups_must_divide_the_batch():
    with pytest.raises(ValueError, match="6 rows do not split into groups=4"):
        batch_norm(BatchNorm(groups=4), jnp.ones((6, 2)))


def test_batch_norm_with_one_row_is_finite():
    y, _ = batch_norm(BatchNorm(), jnp.ones((1, 3)))
    assert np.isfinite(y).all()


@pytest.mark.parametrize(
    ("head", "shapes"),
    [
        (MLP((0,), 8, final_norm="scale"), {"linear1.kernel", "norm1.scale", "norm1.bias",
                                            "linear_out.kernel", "norm_out.scale"}),
        (MLP((0, 6), 8, final_norm="plain"), {"linear1.kernel", "norm1.scale", "norm1.bias",
                                              "linear2.kernel", "norm2.scale", "norm2.bias",
                                              "linear_out.kernel"}),
        (MLP((6,), 8, norm="none", bias=True, out_bias=True),
         {"linear1.kernel", "linear1.bias", "linear_out.kernel", "linear_out.bias"}),
        (MLP((), 8), {"linear_out.kernel"}),
    ],
)  # fmt: skip
def test_head_layouts(head, shapes):
    x = jax.random.normal(KEY, (4, 5))
    params, stats = initialise(head, KEY, x)
    paths = jax.tree_util.tree_leaves_with_path(params)
    assert {jax.tree_util.keystr(p, simple=True, separator=".") for p, _ in paths} == shapes
    out, _ = forward(head, params, stats, x, train=True)
    assert out["features"].shape == (4, 8)
    assert [h.shape[1] for h in out["hidden"]] == [w or 5 for w in head.hidden]


def test_chunks_equal_groups():
    """Encoding in two parts is encoding at once with statistics in two groups: values,
    statistics and gradients."""
    encoder = ResNet(10, width=0.125, stem="half", stages=1, groups=2)
    x = jax.random.normal(KEY, (8, 16, 16, 3))
    params, stats = initialise(encoder, KEY, x)

    def loss(params, chunks):
        module = per_chunk(encoder, chunks)

        def encode(rows):
            out, new = forward(module, params, stats, rows, train=True)
            return out["features"], new

        features, new = in_chunks(encode, x, chunks)
        return jnp.sum(jnp.sin(features)), (features, new)

    run = jax.jit(jax.grad(loss, has_aux=True), static_argnums=1)
    whole, parts = run(params, 1), run(params, 2)
    for one, two in zip(jax.tree.leaves(whole), jax.tree.leaves(parts), strict=True):
        # Other orders of sums, through several normalisations: relative to the largest entry.
        np.testing.assert_allclose(two, one, rtol=0, atol=1e-4 * float(jnp.abs(one).max()))
