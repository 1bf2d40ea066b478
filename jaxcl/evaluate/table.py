"""Scores of several encoders side by side."""

import re
from collections.abc import Mapping

from jaxcl.evaluate.evaluation import Evaluation

TASKS = ("STS12", "STS13", "STS14", "STS15", "STS16", "STS-B", "SICK-R")
HEADINGS = {
    "classifier": "own class- ifier %",
    "classifier_top5": "its top-5 %",
    "knn": "kNN %",
    "linear_lbfgs": "linear L-BFGS %",
    "linear_sgd": "linear SGD %",
    "cluster_accuracy": "cluster accur- acy %",
    "cluster_nmi": "cluster NMI",
    "cluster_ami": "cluster AMI",
    "cluster_ari": "cluster ARI",
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
    "classifier": "the classifier that the run itself trained, on the test images.",
    "classifier_top5": "the class is among the five that the run's classifier puts first.",
    "knn": "the nearest training images vote, weighted by similarity; nothing is fitted.",
    "linear_lbfgs": "logistic regression on the frozen features, fitted to its optimum.",
    "linear_sgd": "a linear classifier trained by SGD, the best of a grid on held-out images.",
    "cluster_accuracy": "k-means sees no label; its clusters matched one to one with the classes.",
    "cluster_nmi": "mutual information of clusters and classes, relative to their entropies.",
    "cluster_ami": "mutual information beyond that of chance; 0 by chance, 1 at best.",
    "cluster_ari": "pairs on which clusters and classes agree; 0 by chance, 1 at best.",
    "alignment": "mean squared distance of two views of an image; lower is closer.",
    "uniformity": "log mean Gaussian potential of all pairs; lower covers the sphere more evenly.",
    "feature_std": "spread of unit features; 1 is even, near 0 is a collapse.",
    "effective_rank": "how many directions the features use (exp of the entropy of the spectrum).",
    "top_singular_share": "share of the largest singular value; near 1 is a collapse.",
}
ACCURACIES = ("classifier", "classifier_top5", "knn", "linear_lbfgs", "linear_sgd")
LABELS = re.compile(r"labels_(\d+)_per_class")
SHOTS = re.compile(r"(mean|ridge)_(\d+)_way_(\d+)_shot")
LEARNERS = {"mean": "nearest class mean", "ridge": "ridge regression"}


def meaning(name: str) -> str:
    """What a score says, in a few words."""
    if match := LABELS.fullmatch(name):
        return f"logistic regression that saw only {match[1]} labelled images a class."
    if match := SHOTS.fullmatch(name):
        learner, ways, shots = LEARNERS[match[1]], match[2], match[3]
        return f"{learner} in episodes of {ways} test classes, {shots} labelled images each."
    return MEANINGS[name]


def is_accuracy(name: str) -> bool:
    """Whether a score is a percentage of right answers."""
    return name in (*ACCURACIES, "cluster_accuracy") or any(
        pattern.fullmatch(name) for pattern in (LABELS, SHOTS)
    )


def table_cells(
    rows: Mapping[str, Evaluation],
) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Headings by the name of the score, and for each row its cells, empty where it has none.

    Accuracies come first, then geometry; few-label scores carry their standard deviation, few-shot
    ones their 95 % interval. A space
    in a heading is a place to break it, "- " one to hyphenate it.
    """
    found = {name for row in rows.values() for name in row.scalars}
    few = sorted((int(match[1]), name) for name in found if (match := LABELS.fullmatch(name)))
    columns = {name: f"{n} label{'s' * (n > 1)} /class %" for n, name in few}
    columns = {name: HEADINGS[name] for name in ACCURACIES} | columns
    episodes = sorted(
        (int(match[2]), int(match[3]), name) for name in found if (match := SHOTS.fullmatch(name))
    )
    columns |= {
        name: f"{name.partition('_')[0]} {ways}-way {shots}-shot %"
        for ways, shots, name in episodes
    }
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
    for spread in (f"{name}_std", f"{name}_interval"):
        if spread in scalars:
            return f"{value:.1f} ± {scalars[spread]:.1f}"
    if is_accuracy(name) or name == "effective_rank":
        return f"{value:.1f}"
    return f"{value:.2f}"
