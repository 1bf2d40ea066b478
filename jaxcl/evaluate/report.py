"""The report of a run: one HTML file that shows what was trained, how it went and what it knows."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from jaxcl.errors import UserError
from jaxcl.evaluate.evaluation import Evaluation
from jaxcl.evaluate.neighbours import Neighbours
from jaxcl.evaluate.page import how, page, pairs
from jaxcl.evaluate.pictures import class_style, curve, heat, picture, scatter
from jaxcl.evaluate.plane import FeatureMap
from jaxcl.evaluate.table import is_accuracy, meaning, table_cells
from jaxcl.typing import Float, NumpyArray

MATRIX_CLASSES = 20
"""Classes up to which the confusion matrix is written out as numbers."""
NOT_CURVES = ("kind", "step", "epoch", "seconds", "time")
CURVES = {
    "loss": "What training lowers.",
    "contrastive_accuracy": "Percent of views whose partner is more similar than all others.",
    "accuracy": "Percent of the labelled training images that the run's classifier names.",
    "classifier": "Percent of test images that the run's own classifier names.",
    "classifier_top5": "Percent of test images whose class is among that classifier's first five.",
    "probe_accuracy": "Percent of a linear classifier trained alongside, unknown to the encoder.",
    "knn": "Percent of test images whose nearest training images vote for the right class.",
    "alignment": "Mean squared distance of two views of an image; lower is closer.",
    "uniformity": "How evenly the features cover the sphere; lower is more even.",
    "feature_std": "Spread of the features; 1 is even, near 0 is a collapse.",
    "embedding_std": "Spread of the embeddings the loss sees; 1 is even, near 0 is a collapse.",
    "effective_rank": "How many directions the features use.",
    "lr": "Learning rate.",
    "gradient_norm": "Length of the gradient.",
    "images_per_s": "Training speed.",
}
"""What each curve shows, in the order they are drawn; others follow by name."""
NAMES = {"knn": "kNN", "lr": "learning rate", "images_per_s": "images/s"}


def write_report(
    path: str | Path,
    *,
    title: str,
    evaluations: Mapping[str, Evaluation],
    subtitle: str = "",
    metrics: Sequence[Mapping[str, Any]] = (),
    views: Float[NumpyArray, "n v h w c"] | None = None,
    neighbours: Neighbours | None = None,
    plane: FeatureMap | None = None,
    config: Mapping[str, Any] | None = None,
    versions: Mapping[str, Any] | None = None,
) -> Path:
    """Writes a self-contained HTML report: no network, light and dark, readable on a phone.

    A part that is not given keeps its section, with a line that says so.

    Args:
      path: the file to write; folders are made, an older file is replaced when all is written.
      title: heading, such as the run's name.
      evaluations: by the name of the row; the last is the trained encoder, whose probe's
        confusions are shown.
      subtitle: a line under the heading.
      metrics: rows with "step" and scalars; "kind" is "train" (the default) or "eval".
      views: [n, 1 + views, h, w, c] in [0, 1]: each original, then what the network saw of it.
      neighbours: see `nearest_neighbours`.
      plane: see `feature_map`.
      config: settings, nested as they like.
      versions: of packages and devices.

    Returns:
      The path.

    Raises:
      UserError: the file cannot be written.
    """
    path = Path(path)
    classes = next((e.classes for e in evaluations.values()), ())
    trained = list(evaluations)[-1] if evaluations else ""
    sections = [
        ("scores", "Scores", _scores(evaluations)),
        ("curves", "Training", _curves(metrics)),
        ("views", "Augmented views", _views(views)),
        ("neighbours", "Nearest neighbours", _neighbours(neighbours, classes)),
        ("map", "Map of the features", _map(plane, classes)),
        ("confusion", "Confusion of the probe", _confusion(evaluations.get(trained), trained)),
        ("config", "Config", _config(config)),
        ("versions", "Versions", pairs(dict(versions)) if versions else how("Not recorded.")),
    ]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(path.name + ".part")
        part.write_text(page(title, subtitle, sections), encoding="utf-8")
        part.replace(path)
    except OSError as error:
        raise UserError(
            f"{path} cannot be written: {error.strerror}; name another place"
        ) from error
    return path


def _scores(evaluations: Mapping[str, Evaluation]) -> str:
    if not evaluations:
        return how("Nothing was evaluated.")
    columns, cells = table_cells(evaluations)
    headings = [heading.replace("- ", "").replace(" /", "/") for heading in columns.values()]
    best = {name: _best(name, evaluations) for name in columns}
    rows = ""
    for label, row in cells.items():
        rows += f'<tr><th scope="row">{escape(label)}</th>'
        for name, cell in zip(columns, row, strict=True):
            mark = ' class="best"' if label in best[name] else ""
            rows += f"<td{mark}>{escape(cell)}</td>"
        rows += "</tr>"
    head = "".join(f'<th scope="col">{escape(heading)}</th>' for heading in headings)
    meanings = {h: meaning(n) for n, h in zip(columns, headings, strict=True)}
    notes = dict.fromkeys(note for e in evaluations.values() for note in e.notes)
    return (
        how(
            "One row for each kind of features, all judged alike on the same test images: "
            "accuracies in percent, the best in bold; few-label columns are mean ± standard "
            "deviation over draws of the labels."
        )
        + '<div class="wide"><table class="scores"><thead><tr><td></td>'
        + f"{head}</tr></thead><tbody>{rows}</tbody></table></div>"
        + "".join(f'<p class="note">{escape(note)}</p>' for note in notes)
        + f"<details><summary>What the columns mean</summary>{_meanings(meanings)}</details>"
    )


def _meanings(meanings: Mapping[str, str]) -> str:
    items = "".join(f"<li><b>{escape(k)}</b>: {escape(v)}</li>" for k, v in meanings.items())
    return f'<ul class="plain how">{items}</ul>'


def _best(name: str, evaluations: Mapping[str, Evaluation]) -> set[str]:
    """Rows with the highest accuracy as printed; none for scores that have no better side."""
    values = {k: round(e.scalars[name], 1) for k, e in evaluations.items() if name in e.scalars}
    if len(values) < 2 or not is_accuracy(name):
        return set()
    return {label for label, value in values.items() if value == max(values.values())}


def _curves(metrics: Sequence[Mapping[str, Any]]) -> str:
    series: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for row in metrics:
        for name, value in row.items():
            if name not in NOT_CURVES and isinstance(value, (int, float)) and "step" in row:
                kinds = series.setdefault(name, {})
                kinds.setdefault(row.get("kind", "train"), []).append((row["step"], value))
    if not series:
        return how("No metrics were recorded.")
    names = [name for name in CURVES if name in series]
    names += sorted(name for name in series if name not in CURVES)
    figures = ""
    for name in names:
        shown = escape(NAMES.get(name, name.replace("_", " ")))
        last = ", ".join(f"{points[-1][1]:.4g}" for points in series[name].values())
        figures += (
            f"<figure><b>{shown}</b>"
            f'<span class="last">{escape(last)}</span>{curve(name, series[name])}'
            f"<figcaption>{escape(CURVES.get(name, ''))}</figcaption></figure>"
        )
    keys = "".join(
        f'<span class="key" style="background:var(--{kind})"></span>{text}'
        for kind, text in (("train", "training batches"), ("eval", "held-out images"))
    )
    return (
        how("Each chart has training steps along the bottom; its last value stands on the right.")
        + f'<p class="note">{keys}</p><div class="curves">{figures}</div>'
    )


def _views(views: NumpyArray | None) -> str:
    if views is None or len(views) == 0:
        return how("No views were recorded.")
    groups = ""
    for example in views:
        cells = ""
        for i, image in enumerate(example):
            name = f"view {i}" if i else "original"
            cells += f'<figure><img src="{picture(image)}" alt="{name}">'
            cells += f"<figcaption>{name}</figcaption></figure>"
        groups += f"<div>{cells}</div>"
    return (
        how(
            "Each group is an original and what the network saw of it: the views should be hard to "
            "match by colour or position, yet show the same thing."
        )
        + f'<div class="views">{groups}</div>'
    )


def _neighbours(found: Neighbours | None, classes: Sequence[str]) -> str:
    if found is None or len(found.query_images) == 0:
        return how("No neighbours were looked up.")
    groups = {False: "", True: ""}
    for i, image in enumerate(found.query_images):
        own = int(found.query_labels[i])
        row = f'<figure><img src="{picture(image)}" alt="test image">{_name(own, classes)}'
        row += "<br><small>test</small></figure>"
        for near, label, s in zip(
            found.images[i], found.labels[i], found.similarity[i], strict=True
        ):
            row += _neighbour(near, own, int(label), float(s), classes)
        groups[found.hard[i]] += f'<div class="hood">{row}</div>'
    text = how(
        "A test image on the left, then the training images whose features are most like its own "
        "with their cosine similarity: ✓ and a solid frame for the same class, ✗ and a dashed "
        "frame for another."
    )
    text += f'<h3>Drawn at random</h3><div class="hoods">{groups[False]}</div>'
    if groups[True]:
        text += "<h3>Chosen because the nearest image is of another class</h3>"
        text += f'<div class="hoods">{groups[True]}</div>'
    return text


def _neighbour(
    image: NumpyArray, own: int, label: int, similarity: float, classes: Sequence[str]
) -> str:
    known = own >= 0 and label >= 0
    kind = ("right" if own == label else "wrong") if known else ""
    mark = {"right": "✓", "wrong": "✗", "": ""}[kind]
    return (
        f'<figure class="{kind}"><img src="{picture(image)}" alt="training image">'
        f"<b>{mark}</b> {_name(label, classes)}<br><small>{similarity:.3f}</small></figure>"
    )


def _name(label: int, classes: Sequence[str]) -> str:
    return escape(classes[label]) if 0 <= label < len(classes) else "no label"


def _map(plane: FeatureMap | None, classes: Sequence[str]) -> str:
    if plane is None or len(plane.points) == 0:
        return how("No map was made.")
    meaning = {
        "t-SNE": "points close together have similar features, while the distances between groups "
        "and their sizes mean little",
        "PCA": "the two directions along which the features differ most",
    }[plane.method]
    some = len(plane.points) < plane.rows
    drawn = f"{len(plane.points)} of {plane.rows}" if some else f"all {plane.rows}"
    legend = ""
    found, counts = np.unique(plane.labels, return_counts=True)
    for label, count in zip(found.tolist(), counts.tolist(), strict=True):
        color = class_style(label)[0]
        legend += f'<li><i style="background:{color}"></i>{_name(label, classes)} ({count})</li>'
    return (
        how(f"{plane.method} of the features of {drawn} test images, coloured by class: {meaning}.")
        + f'<figure class="map">{scatter(plane, classes)}</figure><ul class="legend">{legend}</ul>'
    )


def _confusion(evaluation: Evaluation | None, name: str) -> str:
    if evaluation is None or len(evaluation.labels) == 0:
        return how("There are no labels to confuse.")
    size = len(evaluation.classes)
    counts = np.zeros((size, size), np.int64)
    np.add.at(counts, (evaluation.labels, evaluation.predictions), 1)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    text = how(
        f"L-BFGS probe on the features of “{name}”: rows are the true classes, columns what the "
        "probe said, so every count off the diagonal is a mistake."
    )
    if size <= MATRIX_CLASSES:
        text += _matrix(counts, shares, evaluation.classes)
    else:
        text += f'<img class="heat" src="{heat(shares)}" alt="confusion matrix">'
    wrong = counts * ~np.eye(size, dtype=bool)
    worst = [divmod(int(i), size) for i in np.argsort(-wrong, axis=None, kind="stable")[:8]]
    items = "".join(
        f"<li>{_name(true, evaluation.classes)} taken for {_name(said, evaluation.classes)}: "
        f"{counts[true, said]} of {counts[true].sum()}</li>"
        for true, said in worst
        if wrong[true, said]
    )
    return text + (
        f'<h3>Most frequent mistakes</h3><ul class="plain">{items}</ul>'
        if items
        else how("The probe made no mistake on the test images.")
    )


def _matrix(counts: NumpyArray, shares: NumpyArray, classes: Sequence[str]) -> str:
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in classes)
    rows = ""
    for i, name in enumerate(classes):
        rows += f'<tr><th scope="row">{escape(name)}</th>'
        for j, count in enumerate(counts[i].tolist()):
            color = "good" if i == j else "bad"
            # The square root makes a few mistakes among many right ones visible.
            strength = float(np.sqrt(shares[i, j])) * (0.75 if i == j else 1)
            style = f' style="background:rgb(var(--{color})/{strength:.2f})"' if count else ""
            rows += f"<td{style}>{count or ''}</td>"
        rows += f"<td>{100 * shares[i, i]:.0f} %</td></tr>"
    return (
        '<div class="wide"><table class="matrix"><thead><tr><td></td>'
        f"{head}<td>right</td></tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _config(config: Mapping[str, Any] | None) -> str:
    if not config:
        return how("Not recorded.")
    groups: dict[str, dict[str, object]] = {}
    for name, value in _flat(config).items():
        group, _, rest = name.partition(".")
        groups.setdefault(group if rest else "", {})[rest or name] = value
    parts = [
        (f"<details open><summary>{escape(group)}</summary>" if group else "")
        + pairs(rows)
        + ("</details>" if group else "")
        for group, rows in groups.items()
    ]
    return how("The settings that made this run.") + "".join(parts)


def _flat(value: Any, prefix: str = "") -> dict[str, object]:
    """Dotted names of all leaves; lists of plain values are one leaf."""
    inner: dict[str, Any] = {}
    if isinstance(value, Mapping):
        inner = {str(k): v for k, v in value.items()}
    elif isinstance(value, (list, tuple)) and any(isinstance(v, Mapping) for v in value):
        inner = {str(i): v for i, v in enumerate(value)}
    if not inner:
        return {prefix: value}
    leaves: dict[str, object] = {}
    for name, item in inner.items():
        leaves |= _flat(item, f"{prefix}.{name}" if prefix else name)
    return leaves
