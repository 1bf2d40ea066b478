"""The README's snippets run as they stand, in order, in one folder; the losses' page's too."""

import re
from pathlib import Path

import pytest

from jaxcl.programs import train

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
SNIPPETS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
LOSSES = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "losses.md").read_text(), re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where a short run stands for that of `make demo`."""
    path = tmp_path_factory.mktemp("readme")
    options = ["--optim.epochs", "1", "--optim.warmup-epochs", "0", "--probe.every", "0",
               "--train.devices", "1", "--method.encoder.width", "0.125"]  # fmt: skip
    config = str(ROOT / "configs" / "simclr_digits.py")
    train.main([config, *options, "--dir", str(path / "runs" / "simclr_digits")])
    return path


@pytest.mark.parametrize("snippet", SNIPPETS, ids=lambda code: code.strip().splitlines()[-1][:40])
def test_snippets_run(snippet, folder, monkeypatch):
    monkeypatch.chdir(folder)
    exec(compile(snippet, "README.md", "exec"), {})


@pytest.mark.parametrize("snippet", LOSSES, ids=["equinox"])
def test_losses_fit_another_framework(snippet):
    pytest.importorskip("equinox")
    found = {}
    exec(compile(snippet, "docs/losses.md", "exec"), found)
    assert found["value"] > 0
    assert any(abs(x).max() > 0 for x in found["gradients"].layers[0].weight)


def test_the_paths_it_names_are_there():
    for path in re.findall(r"\]\(([\w./]+)\)", README):
        assert (ROOT / path).exists(), path
    for config in re.findall(r"`(simclr_\w+\.py)`", README):
        assert (ROOT / "configs" / config).exists(), config
