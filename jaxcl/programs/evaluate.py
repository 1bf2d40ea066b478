"""`eval.py RUN [options]`: features, scores beside two baselines, the report."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import singledispatch
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcl.data import Data, Examples, Section, Subset, Text, Unreadable, load_split, parse_source
from jaxcl.encoders import forward
from jaxcl.errors import UserError
from jaxcl.evaluate.evaluation import Evaluation, Features, evaluate_features
from jaxcl.evaluate.features import Embedder
from jaxcl.evaluate.neighbours import nearest_neighbours
from jaxcl.evaluate.plane import feature_map
from jaxcl.evaluate.report import write_report
from jaxcl.evaluate.table import comparison_table
from jaxcl.experiment import classes_of, flatten, read_config, to_json
from jaxcl.options import POSITIONAL, parsed
from jaxcl.programs.answers import answered, untrained
from jaxcl.programs.hosts import HELP, joined
from jaxcl.programs.protocol import evaluate_protocol
from jaxcl.programs.similarity import evaluate_sentences
from jaxcl.progress import step, told
from jaxcl.protocols import PROTOCOLS, Name
from jaxcl.records import write_whole
from jaxcl.run import Run, load
from jaxcl.training.directory import read_versions
from jaxcl.training.logs import read_metrics
from jaxcl.training.probe import Probe
from jaxcl.typing import Array, Float, Int, NumpyArray, PyTree

REPORT, SCORES = "report.html", "evaluation.json"
PIXEL_SIDE = 16
"""Raw pixels are compared at this side, so that their probe has at most some hundred inputs."""
PAIRS = 1_000
"""Test images whose two views the alignment is measured on."""
PAIRS_AT_ONCE = 250
"""Images of which the encoder sees both views at a time."""


@dataclass(frozen=True)
class Evaluate:
    """Evaluates a run on frozen features and writes evaluation.json into its directory; for a run
    on images, report.html too."""

    run: Annotated[str, POSITIONAL]
    """Run directory, as train.py wrote it."""
    data: str = ""
    """Other data than the run's: a folder or zip of class folders, tfds:NAME, or digits."""
    sts: str = ""
    """For runs on text: folder of STS tasks; empty: the one of the run's probe."""
    max_bad: float | None = None
    """Share of images that may be unreadable and are left out; None: as the run tolerated."""
    best: bool = False
    """The checkpoint with the highest kNN accuracy, or STS-B correlation, instead of the newest."""
    config: str = ""
    """Config file that defines the run's own method or module classes, where it has any."""
    protocol: Name | None = None
    """Score the run as the authors of this name do, and nothing else: their linear classifier on
    crops (a run of its own in RUN/linear_NAME_stepN), their kNN, or the online classifier. Scores
    go to RUN/protocol_NAME.json; names end with what differs from the protocol. None: the scores
    that are the same for all runs."""
    epochs: int = 0
    """Epochs of the protocol's linear classifier; 0: as many as the authors take."""
    batch_size: int = 0
    """Batch size of the protocol's linear classifier, which its learning rate is scaled to; 0: as
    large as the authors'."""
    compare: bool = True
    """Also evaluate raw pixels, or averaged word vectors, and the untrained encoder."""
    labels_per_class: tuple[int, ...] = (1, 10)
    """Few-label probes: labels per class."""
    seeds: int = 5
    """Label draws per few-label probe."""
    shots: tuple[int, ...] = ()
    """Few-shot episodes on the test images: labelled images per class, 1 5 say; none by default."""
    ways: int = 5
    """Classes of an episode."""
    clusters: bool = False
    """Score k-means of the test images against the classes."""
    neighbours: int = 0
    """k of the weighted kNN; 0: as the run's probe."""
    report: bool = True
    """Write the report."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Exits with 2 for a user's mistake."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    about = f"{Evaluate.__doc__}\n\n{HELP}"
    answered(lambda: evaluate_run(
        parsed(Evaluate, joined(arguments), program="eval.py", description=about)
    ))  # fmt: skip


def evaluate_run(options: Evaluate) -> dict[str, Evaluation]:
    """Scores a run, prints the table, and writes evaluation.json and report.html beside it.

    Raises:
      UserError: no run there, no data, or options that do not go together.
    """
    classes = classes_of(read_config(options.config)) if options.config else {}
    if jax.process_index() and (options.protocol is None or not PROTOCOLS[options.protocol].linear):
        return {}  # the first of several processes does it alone
    best = options.best or (options.protocol is not None and PROTOCOLS[options.protocol].best)
    run = tolerant(load(options.run, best=best, classes=classes.values()), options.max_bad)
    if options.protocol is not None:
        source = parse_source(options.data) if options.data else None
        plain = Evaluate(options.run)
        for name in ("neighbours", "shots", "clusters", "labels_per_class", "seeds"):
            if getattr(options, name) != getattr(plain, name):
                raise UserError(
                    f"--{name.replace('_', '-')} has no meaning with --protocol; leave it away"
                )
        evaluate_protocol(
            run, options.protocol, source, epochs=options.epochs, batch_size=options.batch_size
        )
        return {}
    if options.epochs or options.batch_size:
        raise UserError("--epochs and --batch-size are those of a linear protocol: add --protocol")
    return evaluated(run.experiment.data, run, options)


def tolerant(run: Run, max_bad: float | None) -> Run:
    """A run whose data may have another share of unreadable images; None: the same."""
    experiment = run.experiment
    if max_bad is None or not isinstance(experiment.data, Data):
        return run
    if not 0 <= max_bad < 1:
        raise UserError(f"--max-bad {max_bad:g} is no share; use 0 up to 0.5")
    return replace(
        run, experiment=replace(experiment, data=replace(experiment.data, max_bad=max_bad))
    )


@singledispatch
def evaluated(data: Section, run: Run, options: Evaluate) -> dict[str, Evaluation]:
    """The scores of a run by the kind of its data."""
    raise UserError(f"eval.py has no scores for runs on {type(data).__name__}")


@evaluated.register
def _(data: Text, run: Run, options: Evaluate) -> dict[str, Evaluation]:
    return evaluate_sentences(run, options.sts, compare=options.compare)


@evaluated.register
def _(data: Data, run: Run, options: Evaluate) -> dict[str, Evaluation]:
    source = parse_source(options.data) if options.data else data.source
    encoders = {"trained": run}
    if options.compare:
        encoders = {"untrained": untrained(run)} | encoders
    train, test = source.split("train"), source.split("test")
    found: dict[str, Evaluation] = {}
    if options.compare:
        print("raw pixels:", end="", flush=True)
        found["raw pixels"] = _scores(_pixels(train, test, data.max_bad), run, options)
        print(flush=True)
    for name, encoder in encoders.items():
        print(f"{name} encoder:", end="", flush=True)
        features = _features(encoder, train, test)
        found[name] = _scores(features, run, options, pairs=_pairs(encoder, test))
        if name == "trained":
            found[name].scalars.update(_own_classifier(run, test))
        print(flush=True)
    print(f"\n{comparison_table(found)}")
    for note in found["trained"].notes:
        print(note)
    scores = {name: evaluation.scalars for name, evaluation in found.items()}
    about = {"step": int(run.state.step), "data": flatten(to_json(source)), "scores": scores}
    write_whole(run.path / SCORES, json.dumps(about, indent=1) + "\n")
    if options.report:
        path = _report(run, found, features, train, test)
        print(f"\nreport: {path}")
    return found


def _features(run: Run, train: Examples, test: Examples) -> Features:
    data, method = run.experiment.data, run.experiment.method
    step("features")
    (train_x, train_y), (test_x, test_y) = (
        run.embedder.split(
            run.state,
            told(data.passes(part, method), lambda item: len(item[1]), len(part), "images"),
        )
        for part in (train, test)
    )
    return Features(train_x, train_y, test_x, test_y, train.classes)


def _own_classifier(run: Run, test: Examples) -> dict[str, float]:
    """Its accuracy on the test images, where the data are those that it was trained for."""
    if not run.trainer.classifies or len(test.classes) != len(run.classes):
        return {}
    passes = run.experiment.data.passes(test, run.experiment.method)
    return run.classifier.accuracies(run.state, passes)


def _pixels(train: Examples, test: Examples, max_bad: float) -> Features:
    (train_x, train_y), (test_x, test_y) = (
        load_split(e, PIXEL_SIDE, max_bad=max_bad) for e in (train, test)
    )
    flat = (x.reshape(len(x), -1).astype(np.float32) / 255 for x in (train_x, test_x))
    return Features(next(flat), train_y, next(flat), test_y, train.classes)


def _scores(features: Features, run: Run, options: Evaluate, **extra: Any) -> Evaluation:
    probe = run.experiment.probe
    probe = probe if isinstance(probe, Probe) else Probe()
    return evaluate_features(
        features,
        knn_k=options.neighbours or probe.neighbours,
        temperature=probe.temperature,
        labels_per_class=options.labels_per_class,
        seeds=options.seeds,
        shots=options.shots,
        ways=options.ways,
        clusters=options.clusters,
        tell=step,
        **extra,
    )


def _pairs(run: Run, test: Examples) -> tuple[NumpyArray, NumpyArray] | None:
    """Features of two augmented views of some test images; None where views differ in size.

    The encoder sees the views as they are, as in training: nothing is cropped out of them again.
    """
    recipe, (encoder, params, stats) = run.experiment.method.augment, run.encoder
    if recipe.count < 2 or recipe.sizes[0] != recipe.sizes[1]:
        return None
    key = jax.random.key(run.experiment.train.seed)

    def both(variables: PyTree, batch: dict[str, Array]) -> dict[str, Array]:
        params, stats = variables
        keys = jax.vmap(lambda place: jax.random.fold_in(key, place))(batch["place"])
        views = recipe(keys, batch["image"])[:2]
        seen = [forward(encoder, params, stats, view, train=False)[0] for view in views]
        return {"features": jnp.stack([outputs["features"] for outputs in seen], axis=1)}

    images = _pictures(run, test, np.arange(min(PAIRS, len(test))))
    parts = np.array_split(np.arange(len(images)), -(-len(images) // PAIRS_AT_ONCE))
    batches = ((places, {"image": images[places], "place": places}) for places in parts)
    features = Embedder(both).encode((params, stats), batches)
    return features[:, 0], features[:, 1]


def _views(run: Run, images: NumpyArray) -> list[Float[NumpyArray, "n h w c"]]:
    """What the method makes of images, in [0, 1], one array per view."""
    recipe = run.experiment.method.augment
    keys = jax.random.split(jax.random.key(run.experiment.train.seed), len(images))
    return [np.asarray(recipe.unnormalize(v)) for v in jax.jit(recipe)(keys, jnp.asarray(images))]


def _pictures(run: Run, examples: Examples, rows: Int[NumpyArray, "m"]) -> NumpyArray:
    """Readable ones of these images, as one array."""
    data = run.experiment.data
    assert isinstance(data, Data)
    recipe = run.experiment.method.augment
    side, kernel = data.side(examples, recipe), recipe.inference_interpolation
    return load_split(Subset(examples, rows), side, interpolation=kernel, max_bad=0.5)[0]


def _report(
    run: Run, found: dict[str, Evaluation], features: Features, train: Examples, test: Examples
) -> Path:
    steps = int(run.state.step)
    originals = _pictures(run, train, np.linspace(0, len(train) - 1, 8).astype(int))
    views = _views(run, originals)
    size = views[0].shape[1]
    shown = [
        jax.image.resize(jnp.asarray(o) / 255, (*views[0].shape[1:],), "linear") for o in originals
    ]
    same = [view for view in views if view.shape[1] == size]
    sheet = np.stack([np.clip(np.stack(shown), 0, 1), *same], axis=1)
    neighbours = nearest_neighbours(
        features, _Readable(train, len(features.train_x)), _Readable(test, len(features.test_x))
    )
    versions = read_versions(run.path)
    return write_report(
        run.path / REPORT,
        title=run.path.name,
        subtitle=f"{type(run.experiment.method).__name__} on {train.title}, after step {steps:,}",
        evaluations=found,
        metrics=read_metrics(run.path),
        views=sheet,
        neighbours=neighbours,
        plane=feature_map(features.test_x, features.test_y),
        config=to_json(run.experiment),
        versions=versions,
    )


class _Readable:
    """Image i of those that can be read: row i of the features."""

    def __init__(self, examples: Examples, count: int) -> None:
        self._examples = examples
        self._rows = np.arange(len(examples))
        if count < len(examples):
            self._rows = np.array([i for i in self._rows if self._reads(int(i))])

    def __getitem__(self, index: int) -> NumpyArray:
        return self._examples.image(int(self._rows[index]))

    def _reads(self, i: int) -> bool:
        try:
            self._examples.image(i)
        except Unreadable:
            return False
        return True
