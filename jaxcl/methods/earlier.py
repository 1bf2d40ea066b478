"""Weights of another run, by name, for a method's `start`.

    def start(self, params, memory):
        run = read_run(self.start_from, "method.start_from")
        like = Part(params["encoder"], memory.stats["encoder"])
        encoder = run.part("encoder", self.encoder, like)
        ...

Whether a run fits is asked here: what it holds must be the very network that is configured, but for
fields that say how it computes or how it was initialised.
"""

import dataclasses
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
from flax import linen as nn

from jaxcl.augment import Recipe
from jaxcl.errors import UserError
from jaxcl.methods.method import Kept, Method
from jaxcl.typing import PyTree

HOW = (
    "groups", "dtype", "remat", "zero_init", "kernel_init", "stem_init", "feature_blocks",
    "feature_mean", "parent", "name",
)  # fmt: skip
"""Fields of a module that leave the meaning of its weights alone."""


class Part(NamedTuple):
    """One network of a run: an encoder, a projector."""

    params: PyTree
    stats: PyTree


@dataclass(frozen=True)
class Earlier:
    """A run that another one starts from; its arrays lie on the host."""

    key: str
    """The option that names it, for messages."""
    path: Path
    method: Method
    params: PyTree
    """By name, averaged over the run where it kept an average."""
    memory: PyTree
    kept: Kept
    """The encoder that the run's evaluation sees: the trained one, or its slow copy."""

    def part(self, name: str, module: nn.Module | None, like: Part, of: str = "method") -> Part:
        """A network of the run, as much of it as `like` has.

        Args:
          name: "encoder" is the one that the run keeps; others are named as in its `params`.
          module: the network that is configured here, whole; None: only shapes are compared.
          like: its freshly initialised variables; whoever wants the first layers alone gives those.
          of: where the network is configured here, for messages.

        Raises:
          UserError: the run has no such part, or it is another network.
        """
        own, found = self._named(name)
        differing = None if module is None else difference(own, module)
        if differing is not None:
            field, theirs, ours = differing
            place = f"{name}.{field}" if field else name
            raise UserError(
                f"{self.key}={self.path} was trained with method.{place}={theirs}, and here it is "
                f"{ours}; set {of}.{place} to {theirs}, or use another run"
            )
        return Part(
            *(self._filled(name, tree, want) for tree, want in zip(found, like, strict=True))
        )

    def check_pixels(self, augment: Recipe) -> None:
        """Raises `UserError` where the run saw images on another scale."""
        theirs, ours = ((a.mean, a.std) for a in (self.method.augment, augment))
        if theirs != ours:
            raise UserError(
                f"{self.key}={self.path} normalised its images with mean and std {theirs}, and "
                f"method.augment does with {ours}; give the recipe the same `normalize`"
            )

    def _named(self, name: str) -> tuple[Any, Part]:
        if name == "encoder":
            return self.kept.encoder, Part(self.kept.params, self.kept.stats)
        if name not in self.params:
            there = ", ".join(self.params)
            raise UserError(f"{self.key}={self.path} has no {name}; it has {there}")
        stats = getattr(self.memory, "stats", {}).get(name, {})
        return getattr(self.method, name, None), Part(self.params[name], stats)

    def _filled(self, name: str, tree: PyTree, like: PyTree) -> PyTree:
        found = dict(jax.tree.leaves_with_path(tree))

        def one(path: Any, want: Any) -> Any:
            leaf = found.get(path)
            if leaf is None or leaf.shape != want.shape:
                where = jax.tree_util.keystr(path, simple=True, separator=".")
                has = "nothing" if leaf is None else f"shape {leaf.shape}"
                raise UserError(
                    f"{self.key}={self.path} has {has} where {name}.{where} of shape {want.shape} "
                    "is wanted; use the same kind of images and the same network"
                )
            return leaf

        return jax.tree.map_with_path(one, like)


def read_run(run: str, key: str, *, at: int | None = None, classes: Iterable[type] = ()) -> Earlier:
    """The newest checkpoint of a run directory; a warning where its training is not finished.

    Args:
      run: the directory that training wrote.
      key: the option that names it, for messages.
      at: take the checkpoint after so many steps instead, without a warning.
      classes: classes from outside jaxcl that its config names.

    Raises:
      UserError: none is named, there is no such run, or it holds no whole checkpoint.
    """
    # Reading a run needs its trainer, which imports this floor: so only when it is called.
    from jaxcl.run import load
    from jaxcl.scale import local_mesh

    check_run(run, key)
    try:
        with jax.set_mesh(local_mesh()):  # where it is read, however many will train
            found = load(run, at=at, classes=classes)
    except UserError as error:
        raise UserError(f"{key}: {error}") from error
    state, kept = found.state, found.encoder
    step, total = int(state.step), found.trainer.progress(state.step).total
    if step < total and at is None:
        logging.getLogger(__name__).warning(
            "%s=%s stopped after step %d of %d; it is used as it is", key, run, step, total
        )
    params = state.average if found.experiment.optim.average else state.params
    host = jax.device_get((params, state.memory, kept.params, kept.stats))
    kept = Kept(kept.encoder, *host[2:])
    return Earlier(key, Path(run), found.experiment.method, host[0], host[1], kept)


def named_run(run: str, key: str) -> None:
    """Raises `UserError` where no run is named; for `Method.check`."""
    if not run:
        raise UserError(f"{key} is empty; name the run to start from: --{key} runs/NAME")


def check_run(run: str, key: str) -> None:
    """Raises `UserError` where no run is named, or none is there; for `Method.check_start`."""
    named_run(run, key)
    if not Path(run).is_dir():
        raise UserError(
            f"{key}={run} does not exist; train it first: python train.py CONFIG --dir {run}"
        )


def difference(theirs: Any, ours: Any) -> tuple[str, Any, Any] | None:
    """The first field in which two networks differ, with both values; None where they do not.

    The name is empty where they are not even of one class.
    """
    if type(theirs) is not type(ours):
        return "", type(theirs).__name__, type(ours).__name__
    for field in dataclasses.fields(theirs):
        old, new = getattr(theirs, field.name), getattr(ours, field.name)
        if field.name in HOW:
            continue
        if dataclasses.is_dataclass(old) and dataclasses.is_dataclass(new):
            deeper = difference(old, new)
            if deeper is not None:
                name, *values = deeper
                return f"{field.name}.{name}".rstrip("."), values[0], values[1]
        elif old != new:
            return field.name, old, new
    return None
