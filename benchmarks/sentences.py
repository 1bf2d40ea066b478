"""Sentences per second of a model of sentence-transformers, here and in its own library.

    python benchmarks/sentences.py MODEL_FOLDER SENTENCES.txt
    python benchmarks/sentences.py MODEL_FOLDER SENTENCES.txt --count 4000 --rounds 5
    python benchmarks/sentences.py MODEL_FOLDER SENTENCES.txt --sts data/sts     # and both's scores

The sentences are the file's lines, evenly picked. Rounds alternate between the libraries, the
first one of each uncounted, so that other work on the machine falls on both. Two figures a line:
by the clock, and per second of processor time times the number of processors, which tells what a
quiet machine would do. Without sentence-transformers installed there are jaxcl's lines alone.
"""

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import numpy as np
import tyro

from jaxcl import sentences
from jaxcl.evaluate.sts import sts as sts_scores
from jaxcl.typing import NumpyArray


def main(
    model: tyro.conf.Positional[Path],
    text: tyro.conf.Positional[Path],
    count: int = 2000,
    rounds: int = 3,
    batch_tokens: int | None = None,
    sts: Path | None = None,
) -> None:
    """Print the figures.

    Args:
      model: folder that sentence-transformers opens.
      text: file with a sentence per line.
      count: sentences to encode.
      rounds: timed rounds of each library, of which the best counts.
      batch_tokens: as `encode` takes it.
      sts: folder of STS tasks to score each library on, Spearman x 100.
    """
    lines = text.read_text(encoding="utf-8").splitlines()
    lines = [lines[i] for i in np.linspace(0, len(lines) - 1, count).astype(int)]
    ours = sentences.load(model)
    tokens = [len(one.ids) for one in ours.tokenizer.encode_batch_fast(lines)]
    low, middle, high = np.percentile(tokens, (5, 50, 95)).astype(int)
    print(f"jax {jax.__version__}, {jax.default_backend()}, {os.cpu_count()} processors, ", end="")
    print(
        f"load {os.getloadavg()[0]:.1f}; {count} sentences of {low} to {high} tokens (5 to 95 %),"
    )
    print(f"median {middle}")
    encoders = {"jaxcl": lambda: ours.encode(lines, batch_tokens=batch_tokens)}
    if (peer := sentence_transformers(model)) is not None:
        encoders["sentence-transformers"] = lambda: peer(lines)
    vectors = {name: encode() for name, encode in encoders.items()}
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in encoders}
    for _ in range(rounds):
        for name, encode in encoders.items():
            seconds[name].append(timed(encode))
    clock, work = ({n: count / min(s[i] for s in seconds[n]) for n in encoders} for i in (0, 1))
    for name in encoders:
        quiet = work[name] * (os.cpu_count() or 1)
        print(f"  {name:24s}{clock[name]:8.1f} sentences/s {quiet:8.1f} by processor time")
    if peer is not None:
        one, two = encoders
        print(
            f"  ratio {clock[one] / clock[two]:.2f}, by processor time {work[one] / work[two]:.2f}"
        )
        difference = float(np.abs(vectors[one] - vectors[two]).max())
        print(f"  largest difference of the vectors {difference:.1e}")
        if difference > 1e-5:
            raise SystemExit("the vectors differ by more than 1e-5")
    if sts is not None:
        both = {"jaxcl": ours.encode} | ({"sentence-transformers": peer} if peer else {})
        for name, encode in both.items():
            scores = sts_scores(encode, sts)
            print(f"  {name:24s}" + ", ".join(f"{task} {s:.2f}" for task, s in scores.items()))


def timed(encode: Callable[[], NumpyArray]) -> tuple[float, float]:
    """Seconds by the clock and of processor time."""
    clock, work = time.perf_counter(), time.process_time()
    encode()
    return time.perf_counter() - clock, time.process_time() - work


def sentence_transformers(model: Path) -> Callable[[Sequence[str]], NumpyArray] | None:
    """The other library's encoder, where it is installed."""
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError:
        return None
    peer = SentenceTransformer(str(model), device=None)
    return lambda lines: np.asarray(peer.encode(list(lines), show_progress_bar=False))


if __name__ == "__main__":
    tyro.cli(main)
