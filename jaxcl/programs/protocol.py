"""`eval.py RUN --protocol NAME`: the score of a run as a method's authors measure it."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax.numpy as jnp

from jaxcl.data import Data, Source
from jaxcl.encoders import forward
from jaxcl.errors import UserError
from jaxcl.evaluate.features import Embedder
from jaxcl.evaluate.knn import knn_scores, top_accuracy
from jaxcl.experiment import Experiment, flatten, to_json
from jaxcl.protocols import PROTOCOLS, KNNProtocol, Name, linear_experiment
from jaxcl.run import Run, load
from jaxcl.training.logs import read_metrics
from jaxcl.training.loop import fit
from jaxcl.training.probe import LinearProbe, probe_logits
from jaxcl.training.state import State
from jaxcl.typing import Array, Float, NumpyArray

TOPS = {"": 1, "_top5": 5}


def evaluate_protocol(
    run: Run,
    name: Name,
    source: Source | None = None,
    *,
    epochs: int = 0,
    batch_size: int = 0,
    best: bool = False,
) -> dict[str, float]:
    """Scores a run by a protocol, prints the scores and writes protocol_NAME.json beside it.

    Scores, in percent of the test images: "knn_K" for each number of neighbours, "online" of the
    classifier that was trained beside the method, "linear" of the protocol's own linear classifier
    after its last epoch and "linear_best" at its best one; each with "_top5" where there are more
    than five classes.

    Args:
      run: a run on images.
      name: among `jaxcl.protocols.PROTOCOLS`.
      source: other data than the run's.
      epochs: length of the linear classifier's training; 0: as long as the authors'.
      batch_size: images of its batches; 0: as many as the authors'.
      best: `run` is the best checkpoint of its directory, and not the newest.

    Raises:
      UserError: the run is not on images, its data have no labels, or it lacks what the protocol
        looks at.
    """
    data, protocol = run.experiment.data, PROTOCOLS[name]
    if not isinstance(data, Data):
        raise UserError(f"--protocol {name} scores runs on images; {run.path} has none")
    if protocol.linear is None and (epochs or batch_size):
        raise UserError(
            f"--protocol {name} trains no linear classifier after the run; leave --epochs and "
            "--batch-size away"
        )
    source = source or data.source
    print(f"protocol {name}: {protocol.source}", flush=True)
    scores: dict[str, float] = {}
    if protocol.online:
        scores |= _online(run, source)
    if protocol.knn is not None:
        scores |= _neighbours(run, source, protocol.knn, trained=protocol.network == "trained")
    if protocol.linear is not None:
        scores |= _linear(run, source, name, epochs, batch_size, best)
    width = max(map(len, scores))
    for label, value in scores.items():
        print(f"  {label:<{width}}  {value:6.2f} %")
    told: dict[str, Any] = {"protocol": name, "source": protocol.source}
    told |= {"step": int(run.state.step), "data": flatten(to_json(source)), "scores": scores}
    (run.path / f"protocol_{name}.json").write_text(json.dumps(told, indent=1) + "\n")
    return scores


def _online(run: Run, source: Source) -> dict[str, float]:
    """Of the linear classifier beside the method, on plain images."""
    probe, data = run.state.probe, run.experiment.data
    if not isinstance(probe, LinearProbe):
        raise UserError(
            f"{run.path} trained no linear classifier beside its method, and this protocol scores "
            "that one; train with --probe.linear, on data with labels"
        )
    test = source.split("test")
    if len(test.classes) != probe.params["kernel"].shape[1]:
        raise UserError(
            f"{test.title} has {len(test.classes)} classes, and the classifier beside {run.path} "
            f"knows {probe.params['kernel'].shape[1]}"
        )
    seen, own = (place(run.state).params for place in (run.trainer.kept, run.trainer.trained))
    if seen is not own:
        print(
            "  of the slow network, which the run keeps; published figures are of the trained one"
        )
    x, y = run.embedder.split(run.state, data.passes(test, run.experiment.method))
    return _tops("online", probe_logits(probe, jnp.asarray(x)), y)


def _neighbours(
    run: Run, source: Source, protocol: KNNProtocol, *, trained: bool
) -> dict[str, float]:
    """Votes of all training images, as plain images."""
    data, method = run.experiment.data, run.experiment.method
    embedder = Embedder(_representation(run, protocol, trained=trained))
    (x, y), (test_x, test_y) = (
        embedder.split(run.state, data.passes(source.split(name), method))
        for name in ("train", "test")
    )
    if not ((y >= 0).any() and (test_y >= 0).any()):
        raise UserError(f"{source.split('test').title} has no labels to score with")
    scores: dict[str, float] = {}
    for k in protocol.neighbours:
        votes = knn_scores(
            x, y, test_x, classes=len(source.split("train").classes), k=k,
            temperature=protocol.temperature,
        )  # fmt: skip
        scores |= _tops(f"knn_{k}", votes, test_y)
    return scores


def _representation(run: Run, protocol: KNNProtocol, *, trained: bool) -> Any:
    """The function of state and batch that gives what is compared."""
    method, trainer = run.experiment.method, run.trainer
    projector = getattr(method, "projector", None)
    wanted = protocol.output == "projection"
    if wanted and (projector is None or "projector" not in run.state.params):
        raise UserError(f"{type(method).__name__} has no projector, which this protocol looks at")

    def represent(state: State, batch: dict[str, Array]) -> dict[str, Array]:
        encoder, params, stats = (trainer.trained if trained or wanted else trainer.kept)(state)
        x = method.augment.plain(batch["image"])
        rows = forward(encoder, params, stats, x, train=False)[0]["features"]
        if wanted:
            assert projector is not None
            own, stats = state.params["projector"], state.memory.stats["projector"]
            rows = forward(projector, own, stats, rows, train=False)[0]["features"]
        return {"features": rows}

    return represent


def _linear(
    run: Run, source: Source, name: Name, epochs: int, batch_size: int, best: bool
) -> dict[str, float]:
    """Of the linear classifier, trained in a directory of its own beside the run."""
    protocol = PROTOCOLS[name].linear
    assert protocol is not None
    path = run.path / f"linear_{name}_step{int(run.state.step)}"
    train, batch = source.split("train"), batch_size or protocol.batch_size
    if len(train) < batch:
        raise UserError(
            f"--protocol {name} trains on batches of {batch} images, and {train.title} has "
            f"{len(train)} to train on; add --batch-size {2 ** (len(train).bit_length() - 1)}"
        )
    experiment = linear_experiment(
        protocol, encoder=run.encoder.encoder, recipe=run.experiment.method.augment, source=source,
        classes=len(train.classes), start_from=str(run.path), epochs=epochs, batch_size=batch,
        start_best=best,
    )  # fmt: skip
    if not fit(_beside(experiment, run), path).finished:
        sys.exit(130)
    print(f"  linear classifier: {path}")
    return _linear_scores(path, source)


def _beside(experiment: Experiment, run: Run) -> Experiment:
    """The experiment with the seed and the machine's settings of a run."""
    train = replace(run.experiment.train, dir="", start="", save_every=0, wandb="")
    return replace(experiment, train=train)


def _linear_scores(path: Path, source: Source) -> dict[str, float]:
    """Of a run of `LinearClassifier`: after its last epoch, and at its best one."""
    run = load(path)
    passes = run.experiment.data.passes(source.split("test"), run.experiment.method)
    last = run.classifier.accuracies(run.state, passes)
    scores = {label.replace("classifier", "linear"): value for label, value in last.items()}
    best = [row["classifier"] for row in read_metrics(path) if "classifier" in row]
    return scores | ({"linear_best": max(best)} if best else {})


def _tops(name: str, scores: Float[Array, "m c"], labels: NumpyArray) -> dict[str, float]:
    known = labels >= 0
    few = scores.shape[1] <= 5
    return {
        name + suffix: float(top_accuracy(scores[known], labels[known], top=top))
        for suffix, top in TOPS.items()
        if top == 1 or not few
    }
