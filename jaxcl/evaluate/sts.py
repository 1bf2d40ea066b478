"""Semantic textual similarity: rank correlation of cosine similarities with people's scores.

    scores = sts(model.encode, "data/sts")
    {"STS12": 72.4, ..., "SICK-R": 77.6, "average": 78.9}

The protocol is SentEval's "all", as SimCSE reports it: the subsets of a year are pooled before one
Spearman correlation, and the seven tasks are averaged. Pearson's correlation and SentEval's two
other ways to pool, which papers before 2021 report, are options of `sts`.

Reference: Gao, Yao & Chen 2021, arXiv:2104.08821, appendix B; princeton-nlp/SimCSE, SentEval/.
"""

import math
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxcl.errors import UserError
from jaxcl.evaluate.geometry import alignment, uniformity
from jaxcl.reading import entries
from jaxcl.tables import read_rows
from jaxcl.typing import Float, NumpyArray

TASKS = {
    "STS12": "STS12/*.tsv",
    "STS13": "STS13/*.tsv",
    "STS14": "STS14/*.tsv",
    "STS15": "STS15/*.tsv",
    "STS16": "STS16/*.tsv",
    "STS-B": "STSBenchmark/test.tsv",
    "SICK-R": "SICK/test.tsv",
}
"""The files of each task in a folder, one per subset."""
DEV = "STSBenchmark/dev.tsv"
"""What checkpoints are compared on, lest the tests choose them."""
CLOSE = 4.0
"""Pairs with a higher score count as positives of the alignment."""
EPSILON = 1e-12


class Pairs(NamedTuple):
    """Sentence pairs with scores."""

    first: list[str]
    second: list[str]
    gold: Float[NumpyArray, "n"]


def sts(
    encode: Callable[[list[str]], Float[NumpyArray, "n d"]],
    folder: str | Path,
    tasks: tuple[str, ...] = tuple(TASKS),
    *,
    correlation: Literal["spearman", "pearson"] = "spearman",
    pooling: Literal["all", "mean", "wmean"] = "all",
) -> dict[str, float]:
    """Correlations x 100 of the tasks whose files are there, and their average.

    Args:
      encode: strings to vectors; their lengths don't matter.
      folder: STS12 to STS16 with a file per subset, STSBenchmark/test.tsv, SICK/test.tsv. Columns
        are parted by tabs and named score, sentence1 and sentence2; pairs without a score are
        passed over.
      tasks: those wanted, of `TASKS`. A task whose files are absent is absent from the result;
        `missing` names them.
      correlation: "spearman", of ranks, or "pearson", of the similarities themselves.
      pooling: how a task's files become one number, by SentEval's names. "all": one correlation of
        the pairs of all files. "mean": mean of the files' correlations. "wmean": their mean
        weighted by the files' numbers of pairs.

    Returns:
      By task, and "average" over the tasks of this result.

    Raises:
      UserError: no task is there, a file is not such a table, or a task has no pair with a score.
    """
    files = sts_files(folder)
    wanted = {task: files[task] for task in tasks if files[task]}
    if not wanted:
        raise UserError(f"{folder} holds no file of {', '.join(tasks)}, such as {TASKS[tasks[0]]}")
    correlate = spearman if correlation == "spearman" else pearson
    scores = {}
    for task, paths in wanted.items():
        subsets = [read_pairs([path]) for path in paths]
        parts = [subset for subset in subsets if len(subset.gold)]
        if not parts:
            names = ", ".join(str(path) for path in paths)
            raise UserError(f"{names}: no pair of sentences with a score, so {task} has no value")
        scores[task] = 100 * _correlation(encode, parts, correlate, pooling)
    return scores | {"average": float(np.mean(list(scores.values())))}


def _correlation(
    encode: Callable[[list[str]], Float[NumpyArray, "n d"]],
    subsets: list[Pairs],
    correlate: Callable[[NumpyArray, NumpyArray], float],
    pooling: str,
) -> float:
    """Correlation of one task, over all pairs of its subsets or as a mean over them."""
    sizes = [len(subset.gold) for subset in subsets]
    gold = np.concatenate([subset.gold for subset in subsets])
    first, second = ([text for s in subsets for text in s[side]] for side in (0, 1))
    cosines = _cosines(encode, Pairs(first, second, gold))
    if pooling == "all":
        return correlate(cosines, gold)
    parts = np.split(cosines, np.cumsum(sizes)[:-1])
    each = [correlate(part, subset.gold) for part, subset in zip(parts, subsets, strict=True)]
    return float(np.average(each, weights=sizes if pooling == "wmean" else None))


def missing(folder: str | Path) -> list[str]:
    """Tasks that have no file in the folder, so that an average lacks them."""
    return [task for task, files in sts_files(folder).items() if not files]


def sts_files(folder: str | Path) -> dict[str, list[Path]]:
    """The files of each of the seven tasks, in alphabetical order."""
    found = {}
    for task, place in TASKS.items():
        subset, _, pattern = place.partition("/")
        files = [f for f in entries(Path(folder) / subset) if fnmatch(f.name, pattern)]
        found[task] = [f for f in files if not f.name.startswith(".")]
    return found


def sts_score(encode: Callable[[list[str]], Float[NumpyArray, "n d"]], pairs: Pairs) -> float:
    """Spearman correlation x 100 of the pairs' cosine similarities with their scores.

    Ties have the mean of their ranks. The correlation with constant similarities is not a number.
    """
    return 100 * spearman(_cosines(encode, pairs), pairs.gold)


def _cosines(
    encode: Callable[[list[str]], Float[NumpyArray, "n d"]], pairs: Pairs
) -> Float[NumpyArray, "n"]:
    vectors = np.asarray(encode([*pairs.first, *pairs.second]), np.float64)
    one, two = np.split(vectors, 2)
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(two, axis=1)
    cosines: NumpyArray = np.sum(one * two, axis=1) / np.maximum(lengths, EPSILON)
    return cosines


def dev_scores(
    encode: Callable[[list[str]], Float[NumpyArray, "n d"]], pairs: Pairs
) -> dict[str, float]:
    """What SimCSE watches on STS-B's development set.

    Returns:
      "stsb_dev", the Spearman correlation x 100; "uniformity" of all distinct sentences;
      "alignment" of the pairs with a score above 4, if there are any.

    Reference: Gao, Yao & Chen 2021, arXiv:2104.08821, section 3.
    """
    sentences = list(dict.fromkeys([*pairs.first, *pairs.second]))
    vectors = np.asarray(encode(sentences))
    place = {sentence: i for i, sentence in enumerate(sentences)}

    def known(texts: list[str]) -> NumpyArray:
        return vectors[[place[text] for text in texts]]

    found = {
        "stsb_dev": sts_score(known, pairs),
        "uniformity": float(_uniformity(jnp.asarray(vectors))),
    }
    close = pairs.gold > CLOSE
    if close.any():
        one, two = (jnp.asarray(known(side)[close]) for side in (pairs.first, pairs.second))
        found["alignment"] = float(_alignment(one, two))
    return found


_uniformity, _alignment = jax.jit(uniformity), jax.jit(alignment)


def spearman(one: Float[NumpyArray, "n"], two: Float[NumpyArray, "n"]) -> float:
    """Correlation of ranks, ties with the mean of their ranks; nan where one side is constant."""
    if np.ptp(one) == 0 or np.ptp(two) == 0:
        return float("nan")
    from scipy.stats import spearmanr  # half a second that only this needs

    return float(spearmanr(one, two).statistic)


def pearson(one: Float[NumpyArray, "n"], two: Float[NumpyArray, "n"]) -> float:
    """Linear correlation; nan where one side is constant."""
    if np.ptp(one) == 0 or np.ptp(two) == 0:
        return float("nan")
    return float(np.corrcoef(one, two)[0, 1])


def read_pairs(files: list[Path]) -> Pairs:
    """The pairs of all files, one after the other; pairs without a score are passed over.

    Raises:
      UserError: a file lacks a column, or a score is not a finite number.
    """
    first, second, gold = [], [], []
    for file in files:
        for line, (score, one, two) in read_rows(file, ("score", "sentence1", "sentence2")):
            if not score:
                continue
            try:
                gold.append(float(score))
            except ValueError as error:
                raise UserError(f"{file}, line {line}: score is {score!r}") from error
            if not math.isfinite(gold[-1]):
                raise UserError(
                    f"{file}, line {line}: score is {score!r}; leave it empty to pass over the pair"
                )
            first.append(one)
            second.append(two)
    return Pairs(first, second, np.array(gold))
