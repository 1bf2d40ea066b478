"""A run on text that takes seconds: one-letter words, a BERT of one layer."""

import tempfile
from pathlib import Path

from tiny_text import TINY, sentences, tiny_tokenizer

from jaxcl import Experiment, Train
from jaxcl.data import Text
from jaxcl.encoders import BERT
from jaxcl.methods import SimCSE
from jaxcl.training import STS, AdamW

LINES, BATCH = 40, 16
"""Two whole batches an epoch; the sentences left over are never shown in it. One is longer."""


def write(folder: Path) -> Path:
    """Sentences, a tokenizer and two tables of pairs."""
    lines = ["a b c d e f g h i j k l m n", *filter(None, sentences(60, seed=3, longest=6))][:LINES]
    (folder / "lines.txt").write_text("\n".join(lines) + "\n")
    for name, content in tiny_tokenizer().items():
        (folder / name).write_bytes(content)
    for name in ("dev", "test"):
        file = folder / "sts" / "STSBenchmark" / f"{name}.tsv"
        file.parent.mkdir(parents=True, exist_ok=True)
        pairs = zip(range(12), sentences(12, seed=5), sentences(12, seed=6), strict=True)
        rows = [f"{i % 6}\t{one}\t{one if i % 6 == 5 else two}" for i, one, two in pairs]
        file.write_text("\n".join(["score\tsentence1\tsentence2", *rows]) + "\n")
    return folder


HOME = write(Path(tempfile.mkdtemp(prefix="jaxcl-text-")))
ENCODER = BERT(**TINY | {"pooler": "cls", "depth": 1, "heads": 2})
METHOD = SimCSE(encoder=ENCODER)

experiment = Experiment(
    method=METHOD,
    data=Text(
        str(HOME / "lines.txt"), tokenizer=str(HOME), batch_size=BATCH, max_length=12, lengths=(8,)
    ),
    optim=AdamW(lr=1e-3, scaling="none", epochs=3, warmup_epochs=0, decay="linear",
                weight_decay=0.0, clip=1.0),
    train=Train(log_every=1, save_every=1, keep=9, tensorboard=False, devices=1),
    probe=STS(folder=str(HOME / "sts"), every=0, every_steps=2),
)  # fmt: skip
