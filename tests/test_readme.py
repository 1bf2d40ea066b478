"""The README's snippets run as they stand, in one folder; those of the pages in docs do too."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_text import tiny_weights

import jaxcl.weights
from jaxcl import encoders
from jaxcl.encoders import BERT, T5, ResNet, TextTower, initialise
from jaxcl.losses import nt_xent
from jaxcl.programs import train
from jaxcl.scale import data_mesh
from jaxcl.sentences import SentenceModel
from jaxcl.training import loop
from jaxcl.weights import read_tensors, save_encoder

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
SNIPPETS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
PAGES = {path.stem: path.read_text() for path in (ROOT / "docs").glob("*.md")}
LOSSES, WEIGHTS, ENCODERS = (
    re.findall(r"```python\n(.*?)```", PAGES[page], re.DOTALL)
    for page in ("losses", "weights", "encoders")
)
COUNTS = re.findall(r"^\| `(.+)` \| ([\d,]+) \|$", PAGES["encoders"], re.MULTILINE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A short run stands for that of `make demo`, small models for published ones."""
    path = tmp_path_factory.mktemp("readme")
    options = ["--optim.epochs", "1", "--optim.warmup-epochs", "0", "--probe.every", "0",
               "--train.devices", "1", "--method.encoder.width", "0.125",
               "--method.encoder.stages", "2"]  # fmt: skip
    config = str(ROOT / "configs" / "simclr_digits.py")
    train.main([config, *options, "--dir", str(path / "runs" / "simclr_digits")])
    moco = ResNet(50, width=0.0625, stages=2)
    image = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    shapes = jax.eval_shape(lambda x: initialise(moco, jax.random.key(0), x), image)
    params, stats = jax.tree.map(lambda a: np.ones(a.shape, a.dtype), shapes)
    file = path / "moco.pth"
    save_encoder(file, moco, params, stats, prefix="module.encoder_q.")
    file.rename(path / "moco_v2_800ep_pretrain.pth.tar")
    SentenceModel(**vars(tiny_weights())).save(path / "all-MiniLM-L6-v2")
    table = path / "data" / "sts" / "STSBenchmark" / "test.tsv"
    table.parent.mkdir(parents=True)
    table.write_text("score\tsentence1\tsentence2\n5\ta b\ta b c\n1\ta\tc d\n0\tb\te f g\n")
    return path


@pytest.mark.parametrize("snippet", SNIPPETS, ids=lambda code: code.strip().splitlines()[-1][:40])
def test_snippets_run(snippet, folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setattr(loop, "data_mesh", lambda devices: data_mesh(1))  # not eight fake ones
    exec(compile(snippet, "README.md", "exec"), {})


def test_losses_fit_another_framework():
    pytest.importorskip("equinox")
    found = {}
    exec(compile(LOSSES[0], "docs/losses.md", "exec"), found)
    assert found["value"] > 0
    assert any(abs(x).max() > 0 for x in found["gradients"].layers[0].weight)


def test_a_loss_is_written_on_the_engine():
    found = {}
    exec(compile(LOSSES[1], "docs/losses.md", "exec"), found)
    expected = nt_xent(found["first"], found["second"], temperature=0.1)
    np.testing.assert_allclose(found["loss"], expected, rtol=1e-6)


def test_weights_in_and_out(folder, monkeypatch, capsys):
    """What the page says that a snippet prints, it prints."""
    monkeypatch.chdir(folder)
    found = {}
    for snippet in WEIGHTS:
        exec(compile(snippet, "docs/weights.md", "exec"), found)
    printed = capsys.readouterr().out
    printed = printed.replace("[3], not [4]", "[63], not [64]")  # the file's network is narrow
    assert f"```\n{printed}```" in PAGES["weights"]
    assert all(name.endswith("num_batches_tracked") for name in found["left"])
    assert found["without"] == ["STS12", "STS13", "STS14", "STS15", "STS16", "SICK-R"]
    assert read_tensors(folder / "digits.pth").keys() > {"conv1.weight", "bn1.running_var"}
    jax.tree.map(np.testing.assert_array_equal, found["again"].params, found["run"].encoder.params)


def test_encoders():
    for snippet in ENCODERS:
        found = {}
        exec(compile(snippet, "docs/encoders.md", "exec"), found)
        assert found["outputs"]["features"].shape == (4, 32)


@pytest.mark.parametrize(("encoder", "count"), COUNTS)
def test_encoders_have_as_many_parameters_as_the_page_says(encoder, count):
    module = eval(encoder, vars(encoders))
    ids = jnp.zeros((1, 4), jnp.int32)
    x = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    if isinstance(module, BERT | T5 | TextTower):
        x = {"ids": ids, "mask": ids} | ({"decoder_ids": ids} if isinstance(module, T5) else {})
    params, _ = jax.eval_shape(lambda x: initialise(module, jax.random.key(0), x), x)
    assert f"{sum(leaf.size for leaf in jax.tree.leaves(params)):,}" == count


def test_the_paths_it_names_are_there():
    for path in re.findall(r"\]\(([\w./]+)\)", README):
        assert (ROOT / path).exists(), path
    for page in PAGES.values():
        for path in re.findall(r"\]\(([\w./]+)\)", page):
            assert (ROOT / "docs" / path).exists(), path
    named = re.findall(
        r"\b([a-z]\w*_(?:digits|cifar10|imagenet|small)\w*)\b", README + PAGES["methods"]
    )
    assert len(named) > 30
    for config in named:
        assert (ROOT / "configs" / f"{config}.py").exists(), config


def test_the_weights_page_names_every_reader_and_writer():
    public = {name for name in jaxcl.weights.__all__ if name.startswith(("read_", "write_"))}
    named = set(re.findall(r"\b((?:read|write)_\w+)", PAGES["weights"]))
    assert named == public
