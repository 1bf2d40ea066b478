"""`eval.py` for a run on text: STS of the run, of its start and of averaged word vectors."""

import json
from collections.abc import Callable
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from jaxcl.encoders import BERT, masked_mean
from jaxcl.errors import UserError
from jaxcl.evaluate.evaluation import Evaluation
from jaxcl.evaluate.features import Embedder
from jaxcl.evaluate.sts import DEV, dev_scores, missing, read_pairs, sts
from jaxcl.evaluate.table import comparison_table
from jaxcl.programs.answers import untrained
from jaxcl.progress import step
from jaxcl.records import write_whole
from jaxcl.run import Run
from jaxcl.training.sts import STS
from jaxcl.typing import Array, NumpyArray, PyTree

SCORES = "evaluation.json"
Encode = Callable[[list[str]], NumpyArray]


def evaluate_sentences(run: Run, folder: str, *, compare: bool) -> dict[str, Evaluation]:
    """Prints the table of STS tasks and writes evaluation.json.

    Args:
      run: on text.
      folder: of STS tasks; empty: the one of the run's probe.
      compare: beside the run, the encoder before its first step and the average of that one's word
        vectors.

    Raises:
      UserError: the folder holds no task.
    """
    probe = run.experiment.probe
    folder = folder or (probe.folder if isinstance(probe, STS) else "")
    encoders: dict[str, Encode] = {"trained": run.encode}
    if compare:
        start = untrained(run)
        encoders = {"word vectors": word_average(start), "untrained": start.encode} | encoders
    found = {name: _scored(name, encode, Path(folder)) for name, encode in encoders.items()}
    print(f"\n{comparison_table(found)}")
    absent = missing(folder)
    if absent:
        print(f"{folder} has no {', '.join(absent)}, so the mean is not that of all seven tasks.")
    scores = {name: evaluation.scalars for name, evaluation in found.items()}
    about = {"step": int(run.state.step), "data": folder, "scores": scores}
    write_whole(run.path / SCORES, json.dumps(about, indent=1) + "\n")
    return found


def word_average(run: Run) -> Encode:
    """The baseline that knows words and not their order: means of the rows of the word table.

    Special tokens, the first and the last, are left out.

    Raises:
      UserError: the run's encoder has no such table.
    """
    kept, data = run.encoder, run.experiment.data
    if not isinstance(kept.encoder, BERT):
        name = type(kept.encoder).__name__
        raise UserError(f"{name} has no table of word vectors to average; use --no-compare")

    def average(table: Array, batch: PyTree) -> dict[str, Array]:
        place, ends = jnp.arange(batch["ids"].shape[1]), batch["lengths"][:, None] - 1
        return {"features": masked_mean(table[batch["ids"]], (place > 0) & (place < ends))}

    embedder = Embedder(average)

    def encode(sentences: list[str]) -> NumpyArray:
        batches = data.batches(sentences, run.experiment.method, {}, run.path)
        return embedder.encode(kept.params["words"]["embedding"], batches)

    return encode


def _scored(name: str, encode: Encode, folder: Path) -> Evaluation:
    print(f"{name}:", end="", flush=True)

    def counted(sentences: list[str]) -> NumpyArray:
        step(f"{len(sentences):,} sentences")
        return encode(sentences)

    scalars = sts(counted, folder)
    if (folder / DEV).is_file():
        scalars |= dev_scores(counted, read_pairs([folder / DEV]))
    print(flush=True)
    none = np.zeros(0, np.int32)
    return Evaluation(scalars, (), none, none, ())
