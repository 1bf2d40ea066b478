"""`eval.py RUN --protocol NAME`: the score of a run as a method's authors measure it."""

import json
import os
import sys
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcl.data import Data, Source, Unreadable
from jaxcl.encoders import MLP, forward
from jaxcl.errors import UserError
from jaxcl.evaluate.features import Embedder
from jaxcl.evaluate.knn import knn_scores, top_accuracy
from jaxcl.experiment import Experiment, flatten, to_json
from jaxcl.programs.answers import STOPPED
from jaxcl.protocols import PROTOCOLS, KNNProtocol, LinearProtocol, Name, linear_experiment
from jaxcl.records import write_whole
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
) -> dict[str, float]:
    """Scores a run by a protocol, prints the scores and writes protocol_NAME.json beside it.

    Scores, in percent of the test images: "knn_K" for each number of neighbours, "online" of the
    classifier that was trained beside the method, "linear" of the protocol's own linear classifier
    after its last epoch and "linear_best" at its best one; each with "_top5" where there are more
    than five classes. Names of files and of the classifier's directory end with what differs from
    the protocol: other epochs, batch or data.

    Args:
      run: a run on images.
      name: among `jaxcl.protocols.PROTOCOLS`.
      source: other data than the run's.
      epochs: length of the linear classifier's training; 0: as long as the authors'.
      batch_size: images of its batches; 0: as many as the authors'.

    Raises:
      UserError: the run is not on images, its data have no labels or are too few, it lacks what the
        protocol looks at, or its directory cannot be written to.
    """
    data, protocol, linear = run.experiment.data, PROTOCOLS[name], PROTOCOLS[name].linear
    if not isinstance(data, Data):
        raise UserError(f"--protocol {name} scores runs on images; {run.path} has none")
    if linear is None and (epochs or batch_size):
        raise UserError(
            f"--protocol {name} trains no linear classifier after the run; leave --epochs and "
            "--batch-size away"
        )
    if not os.access(run.path, os.W_OK):
        raise UserError(f"{run.path} cannot be written to, and scores are kept there; copy the run")
    changed = _changed(source, epochs, batch_size)
    split = Split(source or data.source)
    split.check(name, run, batch_size or (linear.batch_size if linear else 0))
    step = int(run.state.step)
    told: dict[str, Any] = {
        "protocol": name, "source": protocol.source, "changed": changed, "step": step,
        "data": flatten(to_json(split.source)),
    }  # fmt: skip
    print(f"protocol {name}{changed}, step {step}: {protocol.source}", flush=True)
    scores: dict[str, float] = {}
    if protocol.online:
        told["network"] = _online_network(run)
        scores |= _online(run, split)
    if protocol.knn is not None:
        scores |= _neighbours(run, split, protocol.knn)
    if linear is not None:
        path = run.path / f"linear_{name}_step{step}{changed}"
        told["linear"] = path.name
        scores |= _linear(run, split, linear, path, epochs, batch_size)
    width = max(map(len, scores), default=0)
    for label, value in scores.items():
        print(f"  {label:<{width}}  {value:6.2f} %")
    kept = run.path / f"protocol_{name}{changed}.json"
    if jax.process_index() == 0:
        write_whole(kept, json.dumps(told | {"scores": scores}, indent=1) + "\n")
    return scores


class Split:
    """Both splits of a source, opened once."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.train, self.test = source.split("train"), source.split("test")

    def check(self, name: Name, run: Run, batch_size: int) -> None:
        """Raises `UserError` where they cannot be scored."""
        for part in (self.train, self.test):
            if not (part.labels >= 0).any():
                raise UserError(f"{part.title} has no labels, and --protocol {name} scores by them")
        if len(self.train.classes) < 2:
            raise UserError(f"{self.train.title} has one class; there is nothing to tell apart")
        channels = self._channels()
        if channels != run.channels:
            raise UserError(
                f"{self.train.title} has images of {channels} channels, and {run.path} takes "
                f"{run.channels}; use other --data"
            )
        if len(self.train) < batch_size:
            most = 2 ** (len(self.train).bit_length() - 1)
            raise UserError(
                f"--protocol {name} trains on batches of {batch_size} images, and "
                f"{self.train.title} has {len(self.train)} to train on; add --batch-size {most}"
            )

    def _channels(self) -> int:
        """Number of channels of the first training image that can be read."""
        for place in range(len(self.train)):
            try:
                return int(self.train.image(place).shape[-1])
            except Unreadable:
                continue
        raise UserError(f"{self.train.title}: no image can be read")


def _changed(source: Source | None, epochs: int, batch_size: int) -> str:
    """Ending of the names of files: epochs, batch and data that are not the protocol's or run's."""
    changed = f"_epochs{epochs}" * bool(epochs) + f"_batch{batch_size}" * bool(batch_size)
    if source is None:
        return changed
    sums = [zlib.crc32(json.dumps(to_json(source), sort_keys=True).encode())]
    arrays = (value for value in vars(source).values() if isinstance(value, np.ndarray))
    sums += [zlib.crc32(array.tobytes()) for array in arrays]
    return f"{changed}_data{zlib.crc32(repr(sums).encode()):08x}"


def _online_network(run: Run) -> str:
    """Which network the classifier beside the method was trained on: trained, or slow."""
    seen, own = (place(run.state).params for place in (run.trainer.kept, run.trainer.trained))
    if seen is own:
        return "trained"
    print("  of the slow network, which the run keeps; published figures are of the trained one")
    return "slow"


def _online(run: Run, split: Split) -> dict[str, float]:
    """Accuracies of the classifier that was trained beside the method, on plain test images."""
    probe = run.state.probe
    if not isinstance(probe, LinearProbe):
        raise UserError(
            f"{run.path} trained no linear classifier beside its method, and this protocol scores "
            "that one; train with --probe.linear, on data with labels"
        )
    known = probe.params["kernel"].shape[1]
    if len(split.test.classes) != known:
        raise UserError(
            f"{split.test.title} has {len(split.test.classes)} classes, and the classifier beside "
            f"{run.path} knows {known}"
        )
    x, y = run.embedder.split(
        run.state, run.experiment.data.passes(split.test, run.experiment.method)
    )
    return _tops("online", probe_logits(probe, jnp.asarray(x)), y)


def _neighbours(run: Run, split: Split, protocol: KNNProtocol) -> dict[str, float]:
    """kNN accuracies of the plain test images among all plain training images."""
    if protocol.output == "projection" and not _projects(run):
        print("  the run has no whole projector: kNN of its projections is left out")
        return {}
    embedder = Embedder(_representation(run, protocol))
    (x, y), (test_x, test_y) = (
        embedder.split(run.state, run.experiment.data.passes(part, run.experiment.method))
        for part in (split.train, split.test)
    )
    scores: dict[str, float] = {}
    for k in protocol.neighbours:
        votes = knn_scores(
            x, y, test_x, classes=len(split.train.classes), k=k, temperature=protocol.temperature
        )
        scores |= _tops(f"knn_{k}", votes, test_y)
    return scores


def _projects(run: Run) -> bool:
    """Whether the run has all weights of its method's projector."""
    projector = getattr(run.experiment.method, "projector", None)
    if projector is None or "projector" not in run.state.params:
        return False
    layers = run.state.params["projector"]
    return isinstance(projector, MLP) and (not projector.out or "linear_out" in layers)


def _representation(run: Run, protocol: KNNProtocol) -> Any:
    """The function of state and batch that gives what is compared."""
    method, trainer = run.experiment.method, run.trainer
    projector = getattr(method, "projector", None)
    wanted = protocol.output == "projection"
    network = trainer.trained if protocol.network == "trained" else trainer.kept

    def represent(state: State, batch: dict[str, Array]) -> dict[str, Array]:
        encoder, params, stats = network(state)
        x = method.augment.plain(batch["image"])
        rows = forward(encoder, params, stats, x, train=False)[0]["features"]
        if wanted:
            assert projector is not None
            own, stats = trainer.evaluated(state)["projector"], state.memory.stats["projector"]
            rows = forward(projector, own, stats, rows, train=False)[0]["features"]
        return {"features": rows}

    return represent


def _linear(
    run: Run, split: Split, protocol: LinearProtocol, path: Path, epochs: int, batch_size: int
) -> dict[str, float]:
    """Accuracies of the protocol's linear classifier, trained in the directory `path`."""
    experiment = linear_experiment(
        protocol, encoder=run.encoder.encoder, recipe=run.experiment.method.augment,
        source=split.source, classes=len(split.train.classes), start_from=str(run.path.resolve()),
        start_step=int(run.state.step), epochs=epochs, batch_size=batch_size,
    )  # fmt: skip
    if not fit(_beside(experiment, run), path).finished:
        sys.exit(STOPPED)
    print(f"  linear classifier: {path}")
    return _linear_scores(path, split)


def _beside(experiment: Experiment, run: Run) -> Experiment:
    """The experiment with the seed, the machine's settings and the images' preparation of a run."""
    own, devices = run.experiment, run.experiment.train.devices
    train = replace(
        own.train, dir="", start="", save_every=0, wandb="",
        devices=devices if jax.process_count() == 1 and devices <= jax.device_count() else 0,
    )  # fmt: skip
    asked = experiment.data
    assert isinstance(asked, Data) and isinstance(own.data, Data)
    data = replace(own.data, source=asked.source, batch_size=asked.batch_size, labels=asked.labels)
    return replace(experiment, train=train, data=data)


def _linear_scores(path: Path, split: Split) -> dict[str, float]:
    """Accuracies of a finished run of `LinearClassifier`: after its last epoch, at its best one."""
    run = load(path)
    passes = run.experiment.data.passes(split.test, run.experiment.method)
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
