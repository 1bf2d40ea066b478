"""How far encoders with another library's weights are from that library's own outputs.

    python benchmarks/parity.py

Compares with the outputs stored in tests/weights/fixtures, which the `make_fixtures` scripts beside
them made: of every stage or layer, and of the features. Differences are absolute, and relative to
the largest number of that output.
"""

import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors.numpy import load_file

from jaxcl import encoders, weights
from jaxcl.similarity import unit_rows

TESTS = Path(__file__).parents[1] / "tests"
sys.path += [str(TESTS), str(TESTS / "weights")]
from filled import filled, images, texts  # noqa: E402
from towers import by_stage, stored, write  # noqa: E402

FIXTURES = TESTS / "weights" / "fixtures"
Outputs = list[tuple[Any, Any]]
"""What is computed here, and what was computed there."""


def main() -> None:
    """Prints a table."""
    print(f"{'network':24s}{'tensors':>8s}{'largest difference':>20s}{'relative':>10s}")
    for name, tensors, outputs in (*vision(), *pairs(), *berts(), *texts_and_t5()):
        differences = [np.abs(np.asarray(ours) - theirs).max() for ours, theirs in outputs]
        sizes = [np.abs(theirs).max() for _, theirs in outputs]
        relative = max(d / size for d, size in zip(differences, sizes, strict=True))
        print(f"{name:24s}{tensors:8d}{max(differences):20.1e}{relative:10.1e}")


def vision() -> Iterator[tuple[str, int, Outputs]]:
    """ResNets and ViTs of torchvision, timm, transformers and SimCLR."""
    found = np.load(FIXTURES / "vision.npz")
    for name in sorted({key.split(":")[0] for key in found}):
        if name.startswith(("dino-positions", "pair-")):
            continue
        with tempfile.TemporaryDirectory() as folder:
            tensors = filled(json.loads(str(found[f"{name}:shapes"])))
            encoder = None
            if name == "transformers-vit":  # whose heads no shape tells
                encoder = encoders.ViT(32, 2, 4, 48, patch=8, image=32, eps=1e-12)
                (Path(folder) / "config.json").write_text("{}")
            weights.write_tensors(Path(folder) / "model.safetensors", tensors)
            read = weights.load_encoder(folder, encoder=encoder)
        out = run(read.encoder, read.params, read.stats, images(int(found[f"{name}:side"])))
        outputs = [(out["features"], found[f"{name}:features"])]
        for i, stage in enumerate(out["stages"]):
            axes = (1, 2) if stage.ndim == 4 else 1
            outputs.append((stage.mean(axes), found[f"{name}:stage{i}"]))
        yield name, len(tensors), outputs


def pairs() -> Iterator[tuple[str, int, Outputs]]:
    """CLIP and SigLIP, both sides and their logits."""
    found = np.load(FIXTURES / "vision.npz")
    for name in ("clip", "siglip"):
        tensors = filled(json.loads(str(found[f"pair-{name}:shapes"])))
        with tempfile.TemporaryDirectory() as folder:
            config = json.loads(str(found[f"pair-{name}:config"]))
            model = weights.read_clip(write(Path(folder), config, tensors))
        image = run(model.image, model.image_params, {}, images(16))["features"]
        text = run(model.text, model.text_params, {}, {"ids": texts()})["features"]
        rows = [unit_rows(image), unit_rows(text)]
        logits = np.exp(model.scale) * rows[0] @ rows[1].T + model.bias
        outputs = [(rows[i], found[f"pair-{name}:stage{i}"]) for i in range(2)]
        yield name, len(tensors), [(logits, found[f"pair-{name}:features"]), *outputs]


def berts() -> Iterator[tuple[str, int, Outputs]]:
    """BERT, RoBERTa and MPNet of transformers; hidden states where there is text."""
    for name in ("bert", "roberta", "mpnet"):
        folder = FIXTURES / f"{name}_tiny"
        there = np.load(folder / "outputs.npz")
        encoder, variables = weights.read_bert(folder, pooler="cls")
        x = {"ids": there["ids"], "mask": there["mask"]}
        out = run(encoder, variables["params"], variables["stats"], x)
        seen = there["mask"].astype(bool)
        outputs = [(out["features"], there["pooled"])]
        for i, hidden in enumerate(out["hidden"]):
            outputs.append((np.asarray(hidden)[seen], there[f"hidden{i}"][seen]))
        yield name, len(load_file(folder / "model.safetensors")), outputs


def texts_and_t5() -> Iterator[tuple[str, int, Outputs]]:
    """Text towers and T5, every block."""
    read = {
        "clip_text": weights.read_clip_text, "siglip_text": weights.read_siglip_text,
        "t5": weights.read_t5, "t5_v11": weights.read_t5,
    }  # fmt: skip
    for name, function in read.items():
        config, tensors, x, there = stored(name)
        with tempfile.TemporaryDirectory() as folder:
            encoder, params = function(write(Path(folder), config, tensors))
        out = by_stage(encoder, params, x)
        outputs = []
        for key, theirs in there.items():
            ours = np.asarray(out[key.replace("coder", "coder/block")])
            # What transformers gives at padding depends on its kernel.
            of_text = name.startswith("t5") and theirs.shape[1] == x["mask"].shape[1]
            seen = x["mask"].astype(bool) if of_text else ...
            outputs.append((ours[seen], theirs[seen]))
        yield name, len(tensors), outputs


def run(encoder: Any, params: Any, stats: Any, x: Any) -> Any:
    apply = jax.jit(lambda p, s, x: encoders.forward(encoder, p, s, x, train=False)[0])
    return apply(params, stats, x)


if __name__ == "__main__":
    main()
