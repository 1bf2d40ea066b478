"""From examples to features: an encoder run over batches, their rows spread over the devices."""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxcl.evaluate.knn import class_ranks
from jaxcl.typing import Array, Float, Int, NumpyArray, PyTree

Represent = Callable[[PyTree, dict[str, Any]], dict[str, Array]]
"""(variables, batch of plain examples) -> {"features": [n, d], ...}."""
Passes = Iterable[tuple[dict[str, Any], Int[NumpyArray, "b"]]]
"""Batches and the labels of their rows, as `jaxcl.data.Section.passes` gives them."""
Batches = Iterable[tuple[Int[NumpyArray, "b"], dict[str, Any]]]
"""Places of rows and their batches, as `jaxcl.data.Section.batches` gives them."""


class Embedder:
    """Compiles `represent` once per batch shape and runs it over batches.

    Args:
      represent: pure function of the variables and a batch.
      mesh: one axis `data`; None: the default device alone.
    """

    def __init__(self, represent: Represent, *, mesh: Mesh | None = None) -> None:
        self._devices = 1 if mesh is None else mesh.size
        self._rows = None if mesh is None else NamedSharding(mesh, PartitionSpec("data"))
        everywhere = None if mesh is None else NamedSharding(mesh, PartitionSpec())
        self._run = jax.jit(represent, out_shardings=everywhere)

    def encode(
        self, variables: PyTree, batches: Batches, output: str = "features"
    ) -> Float[NumpyArray, "n ..."]:
        """One of the outputs for all rows, [n, ...], in the order of their places."""
        found = [
            (places, self._one(variables, batch, len(places), output)) for places, batch in batches
        ]
        places, features = zip(*found, strict=True)
        made = np.concatenate(features)
        ordered = np.empty_like(made)
        ordered[np.concatenate(places)] = made
        return ordered

    def split(
        self, variables: PyTree, passes: Passes
    ) -> tuple[Float[NumpyArray, "n d"], Int[NumpyArray, "n"]]:
        """Features [n, d] and labels [n] of all readable examples, in their order."""
        pairs = [
            (self._one(variables, batch, len(labels), "features"), labels)
            for batch, labels in passes
        ]
        features, labels = zip(*pairs, strict=True)
        return np.concatenate(features), np.concatenate(labels)

    def accuracies(self, variables: PyTree, passes: Passes) -> dict[str, float]:
        """Top-1 and top-5 accuracy of the "logits" on the labelled rows, in percent.

        "classifier" is the share of rows whose class has the highest of them; where there are more
        than five classes, "classifier_top5" is the share whose class is among the highest five.
        Empty where there are no logits, or no label.
        """
        found, classes = [], 0
        for batch, labels in passes:
            outputs = self._run(variables, jax.tree.map(self._place, batch))
            if "logits" not in outputs:
                return {}
            logits = np.asarray(outputs["logits"])[: len(labels)]
            classes, known = logits.shape[1], labels >= 0
            found.append(np.asarray(class_ranks(logits, labels))[known])
        ranks = np.concatenate(found)
        if not len(ranks):
            return {}
        tops = {"classifier": 1} | ({"classifier_top5": 5} if classes > 5 else {})
        return {name: 100 * float(np.mean(ranks < top)) for name, top in tops.items()}

    def _one(self, variables: PyTree, batch: dict[str, Any], count: int, output: str) -> NumpyArray:
        return np.asarray(self._run(variables, jax.tree.map(self._place, batch))[output])[:count]

    def _place(self, rows: NumpyArray) -> Array:
        if self._rows is None:
            return jnp.asarray(rows)
        surplus = np.repeat(rows[:1], -len(rows) % self._devices, axis=0)
        placed: Array = jax.device_put(np.concatenate([rows, surplus]), self._rows)
        return placed
