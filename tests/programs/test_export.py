"""export.py on a run of seconds: what it writes is read back, here and by torch's libraries."""

import dataclasses
import functools

import numpy as np
import pytest
import tiny

import jaxcl
from jaxcl.data import Digits
from jaxcl.encoders import MLP, ResNet, ViT, forward
from jaxcl.methods import Kept, SimCLR
from jaxcl.programs import export
from jaxcl.weights import load_encoder, read_tensors


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Its averaged weights differ from the last ones."""
    path = tmp_path_factory.mktemp("run") / "run"
    optim = dataclasses.replace(tiny.experiment.optim, epochs=1, warmup_epochs=0, average=0.5)
    jaxcl.fit(dataclasses.replace(tiny.experiment, optim=optim), path)
    return jaxcl.load(path)


def told(capsys):
    return dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines())


@pytest.mark.parametrize("layout", ["timm", "torchvision"])
def test_what_is_written_gives_the_runs_features(run, tmp_path, capsys, layout):
    file = tmp_path / "resnet.pth"
    export.main([str(run.path), str(file), "--layout", layout])
    read = load_encoder(file, encoder=run.encoder.encoder)
    test = Digits(tiny.SIZE).split("test")
    images = np.stack([test.image(i) for i in range(5)])
    x = run.experiment.method.augment.plain(images)
    features = forward(read.encoder, read.params, read.stats, x, train=False)[0]["features"]
    np.testing.assert_allclose(features, run.encode(images), rtol=1e-5, atol=1e-6)
    last = forward(read.encoder, run.state.params["encoder"], read.stats, x, train=False)[0]
    assert np.abs(last["features"] - features).max() > 1e-3  # the averaged weights were written
    lines = told(capsys)
    weights = [t for n, t in read_tensors(file).items() if n.endswith(("weight", "bias"))]
    numbers = sum(tensor.size for tensor in weights)
    count = len(read_tensors(file))
    assert lines[str(file)] == f"{count} tensors, {numbers:,} parameters, layout {layout}, step 5"
    assert lines["there"].startswith(f"no ResNet of {layout} is 0.125 times as wide")
    assert lines["images"] == "1 x 8 x 8, in 0 to 1"


def test_a_half_stem_is_told(run, tmp_path, monkeypatch, capsys):
    encoder = run.encoder.encoder.clone(stem="half")
    kept = run.encoder._replace(encoder=encoder)
    monkeypatch.setattr(jaxcl.Run, "encoder", kept)
    export.main([str(run.path), str(tmp_path / "w.pth")])
    assert told(capsys)["stem"].startswith("half, 3x3 of stride 2; no tensor tells the stride")


def test_a_prefix_stands_before_all_names(run, tmp_path):
    export.main([str(run.path), str(tmp_path / "w.npz"), "--prefix", "backbone."])
    assert all(name.startswith("backbone.") for name in read_tensors(tmp_path / "w.npz"))


@pytest.mark.parametrize(
    ("file", "options", "words"),
    [
        ("w.pht", [], "w.pht is no file name that ends in .pth, .pt"),
        ("w.pth", ["--layout", "transformers"], "layout transformers writes a folder"),
        ("w", ["--layout", "transformers"], "stem='cifar'; transformers' ResNet has the imagenet"),
        ("w.npz", ["--layout", "google-simclr"], "needs first_shortcut=True"),
        ("w.pth/w.pth", [], "cannot be written: "),
    ],
)
def test_a_mistake_is_one_line(run, tmp_path, monkeypatch, capsys, file, options, words):
    monkeypatch.chdir(tmp_path)
    if "/" in file:
        (tmp_path / "w.pth").touch()
    with pytest.raises(SystemExit) as end:
        export.main([str(run.path), file, *options])
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert words in error
    assert len(error.splitlines()) == 1


def test_no_run(tmp_path, capsys):
    with pytest.raises(SystemExit):
        export.main([str(tmp_path), "w.pth"])
    assert "holds no run" in capsys.readouterr().err


def test_a_method_that_says_nothing_of_an_encoder():
    @dataclasses.dataclass(frozen=True)
    class Silent(jaxcl.methods.Method):
        pass

    with pytest.raises(jaxcl.UserError, match="Silent does not say which encoder it keeps"):
        Silent().kept({}, {})
    assert isinstance(SimCLR(encoder=MLP()).kept({"encoder": 1}, Memory()), Kept)


class Memory:
    stats = {"encoder": 2}  # noqa: RUF012


NETWORKS = {
    "stock": (ResNet(18), 3, "net = timm.create_model('resnet18'); net.fc"),
    "cifar": (ResNet(18, stem="cifar"), 3, "Conv2d(3, 64, 3, 1, 1, bias=False); net.maxpool"),
    "cifar_of_libraries": (
        ResNet(18, stem="cifar", stem_padding=2, stem_relu=False), 3, "Conv2d(3, 64, 3, 1, 2, bias"
    ),
    "half": (ResNet(10, stem="half", stages=3), 1, "Conv2d(1, 64, 3, 2, 1, bias=False); net.max"),
    "bottlenecks": (ResNet(50, even_pool=False, stages=2), 3, "MaxPool2d(3, 2, ceil_mode=True)"),
    "vit": (ViT(32, 2, 2, 48, patch=8, image=32), 3, "num_heads=2, mlp_ratio=1.5, num_classes=0"),
    "vit_mean": (
        ViT(32, 1, 2, patch=8, image=32, pool="mean", class_token=False, activation="tanh_gelu",
            eps=1e-3, projection=8, layer_scale=0.1),
        1, "class_token=False",
    ),
    "vit_registers": (
        ViT(32, 1, 2, patch=8, image=32, class_position=False, registers=3), 3, "reg_tokens=3"
    ),
}  # fmt: skip


def lines_of(network, channels, layout, file):
    return export.opening(network, export.Export("run", file, layout), channels)


@pytest.mark.parametrize("name", NETWORKS)
def test_it_says_how_to_make_the_network_there(name, tmp_path):
    network, channels, words = NETWORKS[name]
    assert words in lines_of(network, channels, "timm", tmp_path / "w.pth")


@pytest.mark.parametrize("layout", ["timm", "torchvision"])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_other_library_computes_the_same_by_that_line(name, layout, tmp_path):
    torch = pytest.importorskip("torch")
    library = pytest.importorskip(layout)
    network, channels, _ = NETWORKS[name]
    if layout == "torchvision" and isinstance(network, ViT):
        pytest.skip("torchvision's ViT has other names")
    x, params, stats = variables(network, channels)
    file = tmp_path / "w.pth"
    export.save_encoder(file, network, params, stats, layout=layout)
    found = {"torch": torch, layout: library, "functools": functools}
    exec(lines_of(network, channels, layout, file), found)
    ours = forward(network, params, stats, x, train=False)[0]["features"]
    with torch.no_grad():
        theirs = found["net"](torch.tensor(np.transpose(x, (0, 3, 1, 2)).copy()))
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4 * np.abs(ours).max())


def variables(network, channels):
    """Two images of 32x32, and random weights that keep numbers of their size."""
    import jax

    from jaxcl.encoders import initialise

    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 32, 32, channels)).astype(np.float32)
    shapes = jax.eval_shape(lambda: initialise(network, jax.random.key(0), x))
    draw = lambda a: rng.normal(scale=np.prod(a.shape[:-1]) ** -0.5, size=a.shape)
    params, stats = jax.tree.map(lambda a: draw(a).astype(np.float32), shapes)
    return x, params, jax.tree.map(lambda a: np.abs(a) + 1, stats)
