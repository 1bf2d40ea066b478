"""How good the features are while training goes on: kNN, the online probe, geometry."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcl.data import Examples, Subset
from jaxcl.errors import UserError
from jaxcl.evaluate.geometry import effective_rank, feature_std, uniformity
from jaxcl.evaluate.knn import knn_accuracy
from jaxcl.training.probe import LinearProbe, Probe, Watched, probe_logits
from jaxcl.training.state import State
from jaxcl.typing import NumpyArray

GEOMETRY_ROWS = 2_000
"""Test images that geometry is measured on."""


class Neighbours:
    """Calls evaluation on a state; keeps which images it looks at.

    Args:
      probe: says how many neighbours and images.
      watched: its test split is classified; the neighbours are its training images that have a
        label.
    """

    def __init__(self, probe: Probe, watched: Watched) -> None:
        self._probe, self._watched, train = probe, watched, watched.train
        known = np.flatnonzero(train.labels >= 0)
        if 0 < len(known) < len(train):
            train = Subset(train, known)
        self._bank = _spread(train, probe.bank)
        test = watched.data.split("test")
        if not len(test):
            raise UserError(
                f"{test.title} has no test images, and the run measures on them; add some, or "
                "train without: --probe.every 0 --probe.every-steps 0"
            )
        self._queries = _spread(test, probe.queries)
        self._classes = len(train.classes)

    def __call__(self, state: State) -> dict[str, float]:
        """Scores of the state: accuracies in percent, geometry of the test features."""
        queries, query_labels = self._split(state, self._queries)
        row: dict[str, float] = {}
        if self._classes > 1 and (query_labels >= 0).any() and (self._bank.labels >= 0).any():
            bank, bank_labels = self._split(state, self._bank)
            row["knn"] = float(knn_accuracy(
                bank, bank_labels, queries, query_labels, classes=self._classes,
                k=self._probe.neighbours, temperature=self._probe.temperature,
            ))  # fmt: skip
            if isinstance(state.probe, LinearProbe):
                logits = probe_logits(jax.device_get(state.probe), jnp.asarray(queries))
                hits = np.argmax(logits, axis=1) == query_labels
                row["probe_accuracy"] = 100 * float(np.mean(hits))
        if self._watched.classifier is not None:
            row |= self._watched.classifier.accuracies(state, self._passes(self._queries))
        sample = jnp.asarray(queries[:GEOMETRY_ROWS])
        measures: dict[str, Any] = {"feature_std": feature_std, "effective_rank": effective_rank}
        if len(sample) > 1:
            measures["uniformity"] = uniformity
        return row | {name: float(jax.jit(f)(sample)) for name, f in measures.items()}

    def _split(self, state: State, examples: Examples) -> tuple[NumpyArray, NumpyArray]:
        return self._watched.embedder.split(state, self._passes(examples))

    def _passes(self, examples: Examples) -> Any:
        return self._watched.data.passes(examples, self._watched.method)


def _spread(examples: Examples, count: int) -> Examples:
    """At most `count` examples, spread evenly over the set, which may be sorted by class."""
    if len(examples) <= count:
        return examples
    return Subset(examples, np.linspace(0, len(examples) - 1, count).astype(np.int64))
