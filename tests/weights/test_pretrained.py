import json
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from filled import fill, filled, images
from jitted import forward

from jaxcl import UserError
from jaxcl.encoders import MLP, ResNet, ViT, initialise
from jaxcl.encoders.positions import resize_positions
from jaxcl.weights import LAYOUTS, load_encoder, read_tensors, save_encoder, write_tensors

FIXTURES = np.load(Path(__file__).parent / "fixtures" / "vision.npz")
OTHERS = ("dino-positions", "pair-")
NETWORKS = sorted({n.split(":")[0] for n in FIXTURES if not n.startswith(OTHERS)})
VIT_CONFIG = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48,
    "image_size": 32, "patch_size": 8, "hidden_act": "gelu", "layer_norm_eps": 1e-12,
}  # fmt: skip


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """A file, or a folder with a config, for each network of the fixtures."""
    root = tmp_path_factory.mktemp("weights")
    for name in NETWORKS:
        tensors = filled(json.loads(str(FIXTURES[f"{name}:shapes"])))
        (root / name).mkdir()
        if name == "transformers-vit":
            (root / name / "config.json").write_text(json.dumps(VIT_CONFIG))
        write_tensors(root / name / "model.safetensors", tensors)
    return root


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_give_what_their_own_library_gives(checkpoints, name):
    """Other libraries' outputs for weights that their names determine."""
    read = load_encoder(checkpoints / name)
    x = images(int(FIXTURES[f"{name}:side"]))
    out, _ = forward(read.encoder, read.params, read.stats, x, train=False)
    np.testing.assert_allclose(out["features"], FIXTURES[f"{name}:features"], atol=1e-5, rtol=1e-5)
    for i, stage in enumerate(out["stages"]):
        mean = stage.mean((1, 2)) if stage.ndim == 4 else stage.mean(1)
        expected = FIXTURES[f"{name}:stage{i}"]
        np.testing.assert_allclose(mean, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("side", [3, 5, 8])
def test_positions_are_resized_as_dino_does(side):
    """torch.nn.functional.interpolate, bicubic, scale_factor=(side + 0.1) / 5."""
    table = fill("table", (1, 5, 5, 8))[0]
    resized = resize_positions(jnp.asarray(table), side, side, offset=0.1)
    if side == 5:
        np.testing.assert_array_equal(resized, table)  # DINO returns the table of its own size
        return
    expected = FIXTURES[f"dino-positions-{side}:features"]
    np.testing.assert_allclose(resized, expected, atol=1e-6)


SMALL = {
    "resnet": ResNet(10, width=0.125, stem="cifar"),
    "bottlenecks": ResNet(50, width=0.0625),
    "selective": ResNet(
        50, width=0.0625, stem="deep", pooled_shortcut=True, sk_ratio=0.0625, even_pool=False
    ),
    "vit": ViT(16, 2, 2, 24, patch=4, image=8, layer_scale=0.5, registers=2),
    "plain_vit": ViT(16, 2, 2, 24, patch=4, image=8),
    "fixed_vit": ViT(16, 2, 2, patch=4, image=8, positions="moco_v3", freeze_patches=True),
}


def variables(encoder, channels=3):
    """Random ones of its shapes."""
    image = jax.ShapeDtypeStruct((1, 8, 8, channels), jnp.float32)
    trees = jax.eval_shape(lambda x: initialise(encoder, jax.random.key(0), x), image)
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda a: rng.normal(size=a.shape).astype(a.dtype), trees)


@pytest.mark.parametrize(
    ("network", "layout", "file"),
    [
        ("resnet", "torchvision", "w.pth"),
        ("resnet", "timm", "w.safetensors"),
        ("bottlenecks", "transformers", "folder"),
        ("selective", "google-simclr", "w.npz"),
        ("vit", "timm", "w.pth"),
        ("plain_vit", "transformers", "folder"),
    ],
)
def test_what_is_written_is_read_back_exactly(tmp_path, network, layout, file):
    encoder = SMALL[network]
    params, stats = variables(encoder)
    save_encoder(tmp_path / file, encoder, params, stats, layout=layout)
    again = load_encoder(tmp_path / file, encoder=encoder)
    jax.tree.map(np.testing.assert_array_equal, (params, stats), (again.params, again.stats))
    save_encoder(tmp_path / "2" / file, encoder, again.params, again.stats, layout=layout)
    one, two = read_tensors(tmp_path / file), read_tensors(tmp_path / "2" / file)
    assert one.keys() == two.keys()
    assert all(np.array_equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.parametrize(
    ("network", "layout", "file"),
    [
        ("resnet", "timm", "w.pth"),
        ("bottlenecks", "transformers", "folder"),
        ("selective", "google-simclr", "w.npz"),
        ("vit", "timm", "w.pth"),
        ("plain_vit", "transformers", "folder"),
    ],
)
def test_images_of_any_channels(tmp_path, network, layout, file, channels):
    encoder = SMALL[network]
    params, stats = variables(encoder, channels)
    save_encoder(tmp_path / file, encoder, params, stats, layout=layout)
    again = load_encoder(tmp_path / file, encoder=encoder)
    jax.tree.map(np.testing.assert_array_equal, (params, stats), (again.params, again.stats))
    if layout == "transformers":
        config = json.loads((tmp_path / file / "config.json").read_text())
        assert config["num_channels"] == channels


def test_fixed_positions_are_written_as_an_array(tmp_path):
    """The other library then computes what this one does."""
    encoder = SMALL["fixed_vit"]
    params, stats = variables(encoder)
    save_encoder(tmp_path / "w.pth", encoder, params, stats)
    read = load_encoder(tmp_path / "w.pth", encoder=ViT(16, 2, 2, patch=4, image=8))
    assert read.params["positions"].shape == (5, 16)
    x = images(8)
    ours, _ = forward(encoder, params, stats, x, train=False)
    theirs, _ = forward(read.encoder, read.params, read.stats, x, train=False)
    np.testing.assert_allclose(ours["tokens"], theirs["tokens"], atol=1e-6)


def resnet_tensors(tmp_path, prefix, value=None):
    encoder = SMALL["resnet"]
    params, stats = variables(encoder)
    if value is not None:
        params = jax.tree.map(lambda a: np.full_like(a, value), params)
    path = tmp_path / "part.safetensors"
    save_encoder(path, encoder, params, stats, layout="torchvision", prefix=prefix)
    return read_tensors(path)


@pytest.mark.parametrize(
    ("trained", "copy"),
    [
        ("module.encoder_q.", "module.encoder_k."),  # MoCo v1, v2
        ("module.base_encoder.", "module.momentum_encoder."),  # MoCo v3
        ("backbone.", "momentum_backbone."),  # solo-learn
        ("online_network.encoder.", "target_network.encoder."),  # BYOL in torch
        ("module.", None),  # SwAV
        ("", None),
    ],
)
def test_the_trained_network_is_found_among_prefixes(tmp_path, trained, copy):
    tensors = resnet_tensors(tmp_path, trained, 1.0)
    if copy:
        tensors |= resnet_tensors(tmp_path, copy, 2.0)
    head = f"{trained}projection_head.0.weight"
    tensors[head] = np.zeros((3, 3), np.float32)
    write_tensors(tmp_path / "all.pth", tensors)
    read = load_encoder(tmp_path / "all.pth")
    assert read.encoder == ResNet(10, width=0.125, stem="cifar")
    assert all((leaf == 1.0).all() for leaf in jax.tree.leaves(read.params))
    assert head in read.left
    assert any(name.endswith("num_batches_tracked") for name in read.left)
    if copy:
        slow = load_encoder(tmp_path / "all.pth", prefix=copy)
        assert all((leaf == 2.0).all() for leaf in jax.tree.leaves(slow.params))


@pytest.mark.parametrize("first", [3, 4])  # with a max pool among the layers, or without
def test_layers_of_a_list_are_named(tmp_path, first):
    """torch.nn.Sequential(*list(resnet.children())[:-1]), as in BYOL's and SimCLR's best known
    codes; and SupContrast's name of the shortcuts."""
    tensors = resnet_tensors(tmp_path, "")
    numbers = {"conv1": 0, "bn1": 1} | {f"layer{i}": first + i - 1 for i in range(1, 5)}
    listed = {}
    for name, tensor in tensors.items():
        head, _, rest = name.partition(".")
        listed[f"encoder.{numbers[head]}.{rest}".replace("downsample", "shortcut")] = tensor
    write_tensors(tmp_path / "named.pth", tensors)
    write_tensors(tmp_path / "listed.pth", listed)
    one, two = load_encoder(tmp_path / "named.pth"), load_encoder(tmp_path / "listed.pth")
    assert one.encoder == two.encoder
    jax.tree.map(np.testing.assert_array_equal, one[1:3], two[1:3])


def test_floats_that_numpy_has_no_name_for_are_wider_in_an_npz(tmp_path):
    halves = jnp.array([1.5, -0.1], jnp.bfloat16)
    for ending in (".npz", ".safetensors", ".pth"):
        write_tensors(tmp_path / f"x{ending}", {"a": halves})
        found = read_tensors(tmp_path / f"x{ending}")["a"]
        np.testing.assert_array_equal(found.astype(np.float32), np.float32(halves))


def test_one_network_under_two_names(tmp_path):
    """lucidrains/byol-pytorch keeps the encoder as `net` and within `online_encoder`."""
    plain = resnet_tensors(tmp_path, "net.", 1.0)
    tensors = plain | resnet_tensors(tmp_path, "online_encoder.net.", 1.0)
    write_tensors(
        tmp_path / "w.pth", tensors | resnet_tensors(tmp_path, "target_encoder.net.", 2.0)
    )
    read = load_encoder(tmp_path / "w.pth")
    assert all((leaf == 1.0).all() for leaf in jax.tree.leaves(read.params))


@pytest.mark.parametrize("prefix", ["module.base_encoder.", "module.", ""])
def test_moco_v3s_small_transformer_has_twelve_heads(tmp_path, prefix):
    """As it was pre-trained, and as its linear classifier's trainer saves it."""
    encoder = ViT(384, 1, 12, 8, patch=8, image=16)
    params, stats = variables(encoder)
    save_encoder(tmp_path / "w.pth", encoder, params, stats, prefix=prefix)
    assert load_encoder(tmp_path / "w.pth").encoder.heads == 6
    fixed = encoder.clone(positions="moco_v3", freeze_patches=True)
    save_encoder(tmp_path / "w.pth", fixed, *variables(fixed), prefix=prefix)
    assert load_encoder(tmp_path / "w.pth").encoder.heads == 12


def test_all_that_does_not_fit_is_listed_at_once(tmp_path):
    tensors = resnet_tensors(tmp_path, "")
    tensors["layer2.0.conv2.wieght"] = tensors.pop("layer2.0.conv2.weight")
    tensors["bn1.weight"] = np.ones(9, np.float32)
    del tensors["layer4.0.bn1.bias"]
    write_tensors(tmp_path / "w.npz", tensors)
    with pytest.raises(UserError) as caught:
        load_encoder(tmp_path / "w.npz")
    message = str(caught.value)
    assert "missing: layer2.0.conv2.weight (there is layer2.0.conv2.wieght)" in message
    assert "missing: layer4.0.bn1.bias" in message
    assert "other shape: bn1.weight is [9], not [8]" in message
    assert "left over: layer2.0.conv2.wieght" in message


def test_mistakes_are_told_in_one_message(tmp_path):
    write_tensors(
        tmp_path / "two.npz", resnet_tensors(tmp_path, "a.") | resnet_tensors(tmp_path, "b.", 2.0)
    )
    write_tensors(tmp_path / "none.npz", {"x": np.ones(2)})
    write_tensors(tmp_path / "one.npz", resnet_tensors(tmp_path, ""))
    (tmp_path / "empty").mkdir()
    for call, message in {
        lambda: load_encoder(tmp_path / "two.npz"): "several networks; say prefix=: a., b.",
        lambda: load_encoder(tmp_path / "two.npz", prefix="c."): "no network .* with prefix='c.'",
        lambda: load_encoder(tmp_path / "none.npz"): "its 1 tensors are x, ",
        lambda: load_encoder(tmp_path / "gone.npz"): "there is no file of weights at",
        lambda: load_encoder(tmp_path / "empty"): "holds none of model.safetensors",
        lambda: load_encoder(tmp_path / "one.npz", encoder=SMALL["vit"]): "holds a ResNet, not ViT",
        lambda: load_encoder(tmp_path / "one.npz", encoder=SMALL["bottlenecks"]): "missing: ",
        lambda: save_encoder(
            "x", SMALL["selective"], *variables(SMALL["selective"])
        ): "no selective",
        lambda: save_encoder(
            "x", SMALL["vit"], {}, {}, layout="torchvision"
        ): "layout='torchvision'",
        lambda: save_encoder("x", MLP(), {}, {}): "does not take a mlp; a ResNet or ViT is written",
        lambda: save_encoder("x", ResNet(18, pooled_shortcut=True), {}, {}): "pooled shortcuts",
        lambda: save_encoder("x", ViT(pool="attention"), {}, {}): "no pooling by attention",
        lambda: save_encoder(
            "x", ResNet(18), {}, {}, layout="google-simclr"
        ): "needs first_shortcut=True",
        lambda: save_encoder(
            "x", ResNet(18, first_shortcut=True), {}, {}, layout="transformers"
        ): "basic blocks have no such shortcut",
        lambda: save_encoder(
            "x", ResNet(50, norm="group"), {}, {}, layout="google-simclr"
        ): "has batch norm",
        lambda: save_encoder(
            tmp_path / "f", SMALL["resnet"], *variables(SMALL["resnet"]), layout="transformers"
        ): "stem='cifar'; transformers' ResNet has the imagenet stem alone",
    }.items():
        with pytest.raises(UserError, match=message):
            call()


def simclr_basic_blocks(x, tensors, blocks, deep):
    """Google's code, layer by layer: Keras numbers layers as they are made, shortcuts first."""
    made = {"conv2d": 0, "batch_normalization": 0}

    def layer(kind):
        number, made[kind] = made[kind], made[kind] + 1
        name = f"base_model/{kind}_{number}/" if number else f"base_model/{kind}/"
        return {n.removeprefix(name): t for n, t in tensors.items() if n.startswith(name)}

    def conv(x, stride):
        kernel = layer("conv2d")["kernel"]
        pad = (len(kernel) - 1) // 2
        x = jnp.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
        return jax.lax.conv_general_dilated(
            x, kernel, (stride, stride), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    def norm(x):
        n = layer("batch_normalization")
        y = (x - n["moving_mean"]) / jnp.sqrt(n["moving_variance"] + 1e-5)
        return n["gamma"] * y + n["beta"]

    for stride in (2, 1, 1) if deep else (2,):
        x = jax.nn.relu(norm(conv(x, stride)))
    x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, 2, 2, 1), "SAME")
    for stage, count in enumerate(blocks):
        for block in range(count):
            stride = 2 if stage and not block else 1
            beside = x
            if not block and deep and stride == 2:  # means of 2x2, zeros beyond odd sides
                beside = jax.lax.reduce_window(
                    jnp.pad(x, ((0, 0), (0, x.shape[1] % 2), (0, x.shape[2] % 2), (0, 0))),
                    0.0, jax.lax.add, (1, 2, 2, 1), (1, 2, 2, 1), "VALID",
                ) / 4  # fmt: skip
            elif not block and deep:  # means of what there is of 2x2
                total, there = (
                    jax.lax.reduce_window(y, 0.0, jax.lax.add, (1, 2, 2, 1), (1, 1, 1, 1), "SAME")
                    for y in (x, jnp.ones_like(x))
                )
                beside = total / there
            if not block:
                beside = norm(conv(beside, 1 if deep else stride))
            y = jax.nn.relu(norm(conv(x, stride)))
            x = jax.nn.relu(norm(conv(y, 1)) + beside)
    return jnp.mean(x, axis=(1, 2))


@pytest.mark.parametrize(("blocks", "deep"), [((2, 2, 2, 2), False), ((1, 3, 1, 2), True)])
def test_simclrs_basic_blocks(tmp_path, blocks, deep):
    """Depth 18, and a depth of nobody's with the second version's stem and shortcuts."""
    rng = np.random.default_rng(0)
    shapes, inputs = [], 3
    for side, width in ((3, 2), (3, 2), (3, 4)) if deep else ((7, 4),):
        shapes.append((side, side, inputs, width))
        inputs = width
    for stage, count in enumerate(blocks):
        width = 4 * 2**stage
        for block in range(count):
            shapes += [(1, 1, inputs, width)] if not block else []
            shapes += [(3, 3, inputs, width), (3, 3, width, width)]
            inputs = width
    tensors = {}
    for number, shape in enumerate(shapes):
        end = f"_{number}" if number else ""
        fan = np.sqrt(2 / np.prod(shape[:3]))
        tensors[f"base_model/conv2d{end}/kernel"] = rng.normal(size=shape) * fan
        for leaf in ("gamma", "moving_variance", "beta", "moving_mean"):
            name = f"base_model/batch_normalization{end}/{leaf}"
            positive = leaf in ("gamma", "moving_variance")
            tensors[name] = rng.uniform(0.5, 1.5, shape[3]) - (not positive)
    tensors = {name: np.float32(tensor) for name, tensor in tensors.items()}
    np.savez(tmp_path / "w.npz", **tensors)
    encoder, params, stats, left = load_encoder(tmp_path / "w.npz")
    assert (encoder.depth, encoder.stage_blocks, left) == (18, blocks, ())
    x = rng.normal(size=(2, 25, 25, 3)).astype(np.float32)
    features = forward(encoder, params, stats, x, train=False)[0]["features"]
    expected = jax.jit(partial(simclr_basic_blocks, blocks=blocks, deep=deep))(x, tensors)
    np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-4)
    save_encoder(tmp_path / "2.npz", encoder, params, stats, layout="google-simclr")
    again = read_tensors(tmp_path / "2.npz")
    assert all(np.array_equal(again[name], tensor) for name, tensor in tensors.items())


@pytest.mark.parametrize(
    ("depth", "blocks", "layout"),
    [
        pytest.param(depth, blocks, layout, marks=() if usual == layout else pytest.mark.extended)
        for depth, blocks, usual in (
            (18, (1, 2, 1, 3), "torchvision"),
            (50, (2, 1, 3, 1), "google-simclr"),
        )
        for layout in ("torchvision", "transformers", "google-simclr")
    ],
)
def test_depths_of_nobodys(tmp_path, depth, blocks, layout):
    """Found from the file, with a width of nobody's either."""
    basic = depth < 50 and layout == "google-simclr"
    encoder = ResNet(
        depth, width=3 / 64, blocks=blocks, first_shortcut=basic,
        even_pool=layout != "google-simclr",
    )  # fmt: skip
    params, stats = variables(encoder)
    path = tmp_path / ("folder" if layout == "transformers" else "w.npz")
    save_encoder(path, encoder, params, stats, layout=layout)
    found = load_encoder(path)
    assert found.encoder == encoder
    jax.tree.map(np.testing.assert_array_equal, (params, stats), (found.params, found.stats))


def test_every_layout_has_a_network_in_the_fixtures():
    assert {name.split("-")[0] for name in LAYOUTS} <= {name.split("-")[0] for name in NETWORKS}


def test_torch_and_its_libraries_open_what_is_written(tmp_path):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    encoder = SMALL["plain_vit"]
    params, stats = variables(encoder)
    save_encoder(tmp_path / "vit", encoder, params, stats, layout="transformers")
    theirs = transformers.ViTModel.from_pretrained(tmp_path / "vit", add_pooling_layer=False)
    x = images(8)
    ours, _ = forward(encoder, params, stats, x, train=False)
    with torch.no_grad():
        states = theirs.eval()(torch.tensor(x).permute(0, 3, 1, 2)).last_hidden_state
    np.testing.assert_allclose(ours["tokens"], states, atol=1e-5)
    save_encoder(tmp_path / "w.pth", encoder, params, stats)
    state = torch.load(tmp_path / "w.pth", weights_only=True)
    np.testing.assert_array_equal(state["pos_embed"][0], params["positions"])
