"""Scores of several encoders side by side."""

import re
from collections.abc import Mapping

from jaxcl.evaluate.evaluation import Evaluation

TASKS = ("STS12", "STS13", "STS14", "STS15", "STS16", "STS-B", "SICK-R")
HEADINGS = {
    "knn": "kNN %",
    "linear_lbfgs": "linear L-BFGS %",
    "linear_sgd": "linear SGD %",
    "stsb_dev": "STS-B dev",
    **{task: task for task in TASKS},
    "average": "mean of tasks",
    "alignment": "align- ment",
    "uniformity": "uniform- ity",
    "feature_std": "feature std",
    "effective_rank": "effective rank",
    "top_singular_share": "top share",
}
MEANINGS = {
    "knn": "the nearest training images vote, weighted by similarity; nothing is fitted.",
    "linear_lbfgs": "logistic regression on the frozen features, fitted to its optimum.",
    "linear_sgd": "a linear classifier trained by SGD, the best of a grid on held-out images.",
    "alignment": "mean squared distance of two views of an image; lower is closer.",
    "uniformity": "log mean Gaussian potential of all pairs; lower covers the sphere more evenly.",
    "feature_std": "spread of unit features; 1 is even, near 0 is a collapse.",
    "effective_rank": "how many directions the features use (exp of the entropy of the spectrum).",
    "top_singular_share": "share of the largest singular value; near 1 is a collapse.",
}
LABELS = re.compile(r"labels_(\d+)_per_class")


def meaning(name: str) -> str:
    """What a score says, in a few words."""
    if match := LABELS.fullmatch(name):
        return f"logistic regression that saw only {match[1]} labelled images a class."
    return MEANINGS[name]


def table_cells(
    rows: Mapping[str, Evaluation],
) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Headings by the name of the score, and for each row its cells, empty where it has none.

    Accuracies come first, then geometry; few-label scores carry their standard deviation. A space
    in a heading is a place to break it, "- " one to hyphenate it.
    """
    found = {name for row in rows.values() for name in row.scalars}
    few = sorted((int(match[1]), name) for name in found if (match := LABELS.fullmatch(name)))
    columns = {name: f"{n} label{'s' * (n > 1)} /class %" for n, name in few}
    columns = {name: HEADINGS[name] for name in ("knn", "linear_lbfgs", "linear_sgd")} | columns
    columns |= HEADINGS
    columns = {name: heading for name, heading in columns.items() if name in found}
    cells = {label: [_cell(row.scalars, name) for name in columns] for label, row in rows.items()}
    return columns, cells


def comparison_table(rows: Mapping[str, Evaluation]) -> str:
    """A plain text table: one row for each name, one column for each score.

    Args:
      rows: evaluations by the name to print, such as "raw pixels", "untrained", "trained".

    Returns:
      Lines of equal columns, no line break at the end.
    """
    headings, cells = table_cells(rows)
    stacked = [heading.split(" ") for heading in headings.values()]
    height = max((len(words) for words in stacked), default=0)
    head = [["" for _ in range(height - len(words))] + words for words in stacked]
    lines = [["", *(words[i] for words in head)] for i in range(height)]
    lines += [[name, *row] for name, row in cells.items()]
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    text = [
        "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]).rstrip()
        for line in lines
    ]
    text.insert(height, "-" * (sum(widths) + 2 * (len(widths) - 1)))
    return "\n".join(text)


def _cell(scalars: Mapping[str, float], name: str) -> str:
    if name not in scalars:
        return ""
    value = scalars[name]
    if f"{name}_std" in scalars:
        return f"{value:.1f} ± {scalars[f'{name}_std']:.1f}"
    if name in ("knn", "linear_lbfgs", "linear_sgd", "effective_rank") or LABELS.fullmatch(name):
        return f"{value:.1f}"
    return f"{value:.2f}"
