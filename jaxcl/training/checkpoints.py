"""Checkpoints of a run: written while training goes on, the newest and the best kept.

orbax writes and reads; a checkpoint counts once it is renamed into place, so a half-written one
is never seen. Beside each lies a fingerprint of its numbers, so that a damaged one is passed over.
"""

import logging
import operator
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from jaxcl.errors import UserError
from jaxcl.training.state import State
from jaxcl.typing import Array, Int, PyTree

FOLDER = "checkpoints"


class Checkpoints:
    """The checkpoints of one run directory.

    Args:
      run: the run directory.
      keep: how many of the newest stay, beside the best one.
      tell: called with each line that the user should read.
    """

    def __init__(self, run: Path, *, keep: int = 2, tell: Callable[[str], None] = print) -> None:
        # orbax reports each file it touches; what matters is told below.
        logging.getLogger("absl").setLevel(logging.ERROR)
        self.run, self._tell = run, tell
        policies, score = checkpoint_managers, operator.itemgetter("score")
        best = policies.BestN(n=1, get_metric_fn=score)
        options = ocp.CheckpointManagerOptions(
            create=False,  # reading leaves nothing behind
            best_fn=score,
            preservation_policy=policies.AnyPreservationPolicy([policies.LatestN(keep), best]),
        )
        handlers = {"state": ocp.StandardCheckpointHandler(), "meta": ocp.JsonCheckpointHandler()}
        self._folder = (run / FOLDER).absolute()
        self._manager = ocp.CheckpointManager(self._folder, options=options, item_handlers=handlers)

    def save(self, state: State, *, score: float) -> None:
        """Copies the state and writes it in the background, over nothing that exists.

        Args:
          state: the state after `state.step` steps.
          score: what "best" means; larger is better.

        Raises:
          UserError: the last write or this one failed, for instance on a full disk.
        """
        step = int(state.step)
        meta = {"score": score, "fingerprint": int(fingerprint(state))}
        # The next step overwrites these buffers while the writer still reads.
        copied = jax.tree.map(jnp.copy, state)

        def write() -> None:
            self._folder.mkdir(parents=True, exist_ok=True)
            items = ocp.args.Composite(
                state=ocp.args.StandardSave(_plain(copied)), meta=ocp.args.JsonSave(meta)
            )
            self._manager.save(step, args=items, metrics=meta, force=True)

        self._guarded(step, write)

    def wait(self) -> None:
        """Returns when everything is on disk.

        Raises:
          UserError: it could not be written.
        """
        self._guarded(None, self._manager.wait_until_finished)

    def restore(self, like: State, *, best: bool = False, at: int | None = None) -> State | None:
        """The newest whole checkpoint, or the best one; None where there is none.

        Args:
          like: a state of the wanted shapes and shardings, arrays or abstract.
          best: prefer the highest score to the newest.
          at: only the one after so many steps.

        Raises:
          UserError: a checkpoint of other shapes, checkpoints of which none is whole, or none after
            that many steps.
        """
        steps = sorted(self._manager.all_steps(), reverse=True)
        if at is not None and at not in steps:
            raise UserError(f"{self.run} holds no checkpoint after step {at}, only {sorted(steps)}")
        if at is not None:
            steps = [at]
        elif best:  # the newest of the best comes first, then the others from the newest down
            steps.sort(key=lambda step: self._manager.metrics(step)["score"], reverse=True)
        for step in steps:
            try:
                return self._read(step, like)
            except UserError:
                raise
            except Exception as error:  # whatever orbax meets in a damaged file
                reason = str(error).split(". ")[0].splitlines()[0][:120]
                self._tell(f"checkpoint {step} is damaged and passed over ({reason})")
        if steps:
            raise UserError(
                f"{self.run} holds checkpoints {sorted(steps)}, but none is whole; "
                f"remove {self.run / FOLDER} to train from the start"
            )
        return None

    @property
    def steps(self) -> list[int]:
        """Steps that have a checkpoint, in order."""
        return sorted(self._manager.all_steps())

    def close(self) -> None:
        """Waits for the writer and lets go of the directory."""
        self._manager.close()

    def _read(self, step: int, like: State) -> State:
        stored = self._manager.item_metadata(step)["state"]
        _check_shapes(self.run, stored.tree, _plain(like))
        target = jax.tree.map(ocp.utils.to_shape_dtype_struct, _plain(like))
        item = self._manager.restore(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardRestore(target), meta=ocp.args.JsonRestore()
            ),
        )
        leaves = [item["state"][name] for name in _plain(like)]
        state: State = jax.tree.unflatten(jax.tree.structure(like), leaves)
        if int(fingerprint(state)) != item["meta"]["fingerprint"]:
            raise ValueError("its numbers are not those that were saved")
        return state

    def _guarded(self, step: int | None, write: Callable[[], Any]) -> None:
        try:
            write()
        except Exception as error:
            kept = [s for s in self.steps if s != step]
            last = f"the last good one is step {kept[-1]}" if kept else "there is none before it"
            reason = str(error).splitlines()[0][:200]
            raise UserError(
                f"cannot write a checkpoint to {self.run} ({reason}); {last}; "
                "free space there or choose another --dir"
            ) from error


@jax.jit
def fingerprint(tree: PyTree) -> Int[Array, ""]:
    """A number that changes with any bit of the tree's arrays; the same on any devices.

    Sums of integers modulo 2^32 do not depend on their order, so neither does this.
    """
    total = jnp.zeros([], jnp.uint32)
    for number, leaf in enumerate(jax.tree.leaves(tree), 1):
        bits = _as_integers(leaf).reshape(-1)
        place = jax.lax.iota(jnp.uint32, bits.size) * jnp.uint32(2654435761) + jnp.uint32(number)
        mixed = (bits ^ (place >> 15)) * (place | 1)
        mixed = (mixed ^ (mixed >> 16)) * jnp.uint32(2246822519)
        total = total * jnp.uint32(31) + jnp.sum(mixed, dtype=jnp.uint32)
    return total


def _as_integers(leaf: Array) -> Int[Array, "..."]:
    if leaf.dtype == jnp.bool_:
        return leaf.astype(jnp.uint32)
    width = jnp.dtype(leaf.dtype).itemsize
    # Eight bytes, which there are under jax_enable_x64 alone, become two numbers.
    unsigned = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32, 8: jnp.uint32}[width]
    return jax.lax.bitcast_convert_type(leaf, unsigned).astype(jnp.uint32)


def _plain(tree: PyTree) -> dict[str, Any]:
    """The leaves by their path, so that a stored name reads like `params.encoder.stem.kernel`."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def _check_shapes(run: Path, stored: dict[str, Any], wanted: dict[str, Any]) -> None:
    fix = "use another --dir, or the config this run was made with"
    for name in sorted(stored.keys() ^ wanted.keys()):
        where = "lacks" if name in wanted else "holds a surplus"
        raise UserError(f"{run}: its checkpoint {where} {name}; {fix}")
    for name, leaf in wanted.items():
        if tuple(stored[name].shape) != tuple(leaf.shape):
            raise UserError(
                f"{run}: {name} has shape {tuple(stored[name].shape)} in its checkpoint, "
                f"{tuple(leaf.shape)} here; {fix}"
            )
