"""Checkpoints of a run: written while training goes on, the newest and the best kept.

orbax writes and reads; a checkpoint counts once it is renamed into place, so a half-written one
is never seen. Beside each lies a fingerprint of its numbers, so that a damaged one is passed over.
"""

import errno
import logging
import math
import os
import shutil
import sys
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from jaxcl.errors import UserError
from jaxcl.reading import entries
from jaxcl.records import DAMAGED, has_record, read_record, sealed, unsealed, write_record
from jaxcl.scale import process_group
from jaxcl.training.state import State
from jaxcl.typing import Array, Int, PyTree

FOLDER = "checkpoints"
UNJUDGED = -101.0
"""Score of a checkpoint that was not evaluated: below any correlation in percent."""
_SCORE = "score.json"
_FACTS = ("meta/metadata", "metrics/metrics")
"""Files of a checkpoint that hold the same: its fingerprint, and the score it was saved with."""
_GONE = ".removed"
_SMALL_FILES = 1 << 20
"""Bytes that a checkpoint may take beside its numbers."""


class Checkpoints:
    """The checkpoints of one run directory.

    Args:
      run: the run directory.
      keep: how many of the newest stay, beside the best one.
      tell: called with each line that the user should read.
      train: the run goes on from here: what is damaged or left over by a crash is cleared away.
    """

    def __init__(
        self,
        run: Path,
        *,
        keep: int = 2,
        tell: Callable[[str], None] = print,
        train: bool = False,
    ) -> None:
        # orbax reports each file it touches, and errors that are raised too; what matters is told.
        logging.getLogger("absl").setLevel(logging.CRITICAL)
        self.run, self._keep, self._tell, self._train = run, keep, tell, train
        self._folder = (run / FOLDER).absolute()
        self._reader = ocp.StandardCheckpointHandler()
        self._pending: Future[None] | None = None

    def save(self, state: State, *, score: float = UNJUDGED) -> None:
        """Copies the state and writes it in the background; older ones go once it is written.

        Args:
          state: the state after `state.step` steps.
          score: what "best" means; larger is better.

        Raises:
          UserError: the last write or this one failed, for instance on a full disk.
        """
        step = int(state.step)
        facts = sealed({"score": score, "fingerprint": int(fingerprint(state))})
        # The next step overwrites these buffers while the writer still reads.
        copied = jax.tree.map(jnp.copy, state)

        def write() -> None:
            self._settle()
            self._folder.mkdir(exist_ok=True)
            _check_room(self._folder, copied)
            items = ocp.args.Composite(
                state=ocp.args.StandardSave(_plain(copied)),
                meta=ocp.args.JsonSave(facts),
                metrics=ocp.args.JsonSave(facts),
            )
            self._writer.save(self._folder / str(step), args=items, force=True)
            self._pending = self._thread.submit(self._finish)

        self._guarded(write)

    def judge(self, step: int, score: float) -> None:
        """Gives the checkpoint after so many steps its score, once it is written.

        Raises:
          UserError: it could not be written.
        """

        def write() -> None:
            self._settle()
            if jax.process_index() == 0:
                write_record(self._folder / str(step) / _SCORE, {"score": score})

        self._guarded(write)

    def wait(self) -> None:
        """Returns when everything is on disk.

        Raises:
          UserError: it could not be written.
        """

        def write() -> None:
            self._settle()
            self._prune()

        self._guarded(write)

    def restore(self, like: State, *, best: bool = False, at: int | None = None) -> State | None:
        """The newest whole checkpoint, or the best one; None where there is none.

        Args:
          like: a state of the wanted shapes and shardings, arrays or abstract.
          best: prefer the highest score to the newest.
          at: only the one after so many steps.

        Raises:
          UserError: a checkpoint of other shapes or without the right to read it, checkpoints of
            which none is whole, or none after that many steps.
        """
        steps = self.steps[::-1]
        group = process_group() if self._train else None
        if group:
            group.agree({"checkpoints": steps})
        if at is not None and at not in steps:
            raise UserError(f"{self.run} holds no checkpoint after step {at}, only {self.steps}")
        if at is not None:
            steps = [at]
        elif best:  # the newest of the best comes first, then the others from the newest down
            steps.sort(key=self._score, reverse=True)
        problems: dict[int, Exception] = {}
        for step in steps:
            state, problem = self._tried(step, like)
            if group:  # it counts where all can read it
                told = group.gathered(_reason(problem) if problem else "")
                others = (ValueError(f"process {r}: {t}") for r, t in enumerate(told) if t)
                problem = problem or next(others, None)
            if problem is None:
                self._clear_away(problems)
                return state
            problems[step] = problem
        for problem in problems.values():
            if isinstance(problem, UserError):  # other shapes, and no other one has those wanted
                raise problem
        if not steps:
            self._clear_away({})
            return None
        for step, problem in problems.items():
            self._tell(f"checkpoint {step} is damaged and passed over ({_reason(problem)})")
        raise UserError(
            f"{self.run} holds checkpoints {sorted(steps)}, but none is whole; "
            f"remove {self.run / FOLDER} to train from the start"
        )

    @property
    def steps(self) -> list[int]:
        """Steps that have a checkpoint, in order."""
        return kept_steps(self.run)

    @property
    def last_good(self) -> str:
        """Which checkpoint is the newest, as the end of a message."""
        steps = self.steps
        if not steps:
            return "no checkpoint was saved before"
        return f"the last good checkpoint is step {steps[-1]}"

    def close(self) -> None:
        """Waits for the writer and lets go of the directory."""
        try:
            self._settle()
        finally:
            if "_thread" in self.__dict__:
                self._thread.shutdown()
                with suppress(Exception):  # orbax repeats the errors that were raised before
                    self._writer.close()

    @cached_property
    def _thread(self) -> ThreadPoolExecutor:
        """Waits for the writer beside the training, and removes what is no longer kept."""
        return ThreadPoolExecutor(1, thread_name_prefix="checkpoints")

    @cached_property
    def _writer(self) -> ocp.AsyncCheckpointer:
        _leave_out_echoes()
        # Folders are made in the caller's thread, which fails at once where they cannot be; of one
        # made beside them, orbax's writers would wait for five minutes.
        options = ocp.options.AsyncOptions(create_directories_asynchronously=False)
        handler = ocp.CompositeCheckpointHandler(
            composite_options=ocp.CompositeOptions(async_options=options),
            state=ocp.StandardCheckpointHandler(),
            meta=ocp.JsonCheckpointHandler(),
            metrics=ocp.JsonCheckpointHandler("metrics"),
        )
        return ocp.AsyncCheckpointer(handler, async_options=options)

    def _settle(self) -> None:
        """Waits for the last write and raises what it met."""
        pending, self._pending = self._pending, None
        if pending:
            pending.result()

    def _finish(self) -> None:
        self._writer.wait_until_finished()
        self._prune()

    def _prune(self) -> None:
        """Removes all but the newest ones and the best one."""
        steps = self.steps
        if jax.process_index() or not steps:
            return
        best = max(steps, key=lambda step: (self._score(step), step))
        for step in steps[: -self._keep]:
            if step != best:
                _remove(self._folder / str(step))

    def _tried(self, step: int, like: State) -> tuple[State | None, Exception | None]:
        """A checkpoint's state, or what is wrong with it.

        Raises:
          UserError: memory, or the right to read it, is missing.
        """
        try:
            return self._read(step, like), None
        except Exception as error:  # whatever orbax meets in a damaged file
            if not _is_damage(error):
                raise UserError(
                    f"checkpoint {step} of {self.run} cannot be read ({_reason(error)})"
                ) from error
            return None, error

    def _clear_away(self, problems: dict[int, Exception]) -> None:
        """Tells of damaged checkpoints; where the run goes on, sets them aside, so that their steps
        are free again, and removes what a crash left over."""
        set_aside = self._train and jax.process_index() == 0
        for step, error in problems.items():
            done = "passed over"
            if set_aside:
                aside = _unused(self._folder / f"{step}{DAMAGED}")
                self._guarded(partial((self._folder / str(step)).rename, aside))
                done = f"set aside as {FOLDER}/{aside.name}"
            self._tell(f"checkpoint {step} is damaged and {done} ({_reason(error)})")
        if set_aside:
            for part in (*self._folder.glob(f"*{_GONE}"), *self._folder.glob("*.orbax-*tmp*")):
                shutil.rmtree(part, ignore_errors=True)

    def _facts(self, step: int) -> list[dict[str, Any]]:
        """What is known of a checkpoint, by those of its two copies that are whole."""
        found = []
        for name in _FACTS:
            try:
                facts = unsealed((self._folder / str(step) / name).read_bytes())
                found.append({"score": float(facts["score"]), "print": int(facts["fingerprint"])})
            except PermissionError:
                raise
            except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
                continue
        return found

    def _score(self, step: int) -> float:
        """What a checkpoint was judged with; minus infinity where that cannot be read."""
        record = self._folder / str(step) / _SCORE
        try:
            if has_record(record):
                score = float(read_record(record, self._tell)["score"])
            else:
                score = self._facts(step)[0]["score"]
        except (UserError, OSError, LookupError, TypeError, ValueError):
            return -math.inf
        return score if math.isfinite(score) else -math.inf

    def _read(self, step: int, like: State) -> State:
        facts, place = self._facts(step), self._folder / str(step) / "state"
        if not facts:
            raise ValueError("its fingerprint cannot be read")
        wanted = _plain(like)
        _check_shapes(self.run, self._reader.metadata(place).tree, wanted)
        target = jax.tree.map(ocp.utils.to_shape_dtype_struct, wanted)
        stored = self._reader.restore(place, args=ocp.args.StandardRestore(target))
        leaves = [stored[name] for name in wanted]
        state: State = jax.tree.unflatten(jax.tree.structure(like), leaves)
        if int(fingerprint(state)) not in [known["print"] for known in facts]:
            raise ValueError("its numbers are not those that were saved")
        if int(state.step) != step:
            raise ValueError(f"it is the state after step {int(state.step)}")
        return state

    def _guarded(self, write: Callable[[], Any]) -> None:
        try:
            write()
        except Exception as error:
            logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # it repeats each part's error
            raise UserError(
                f"cannot write a checkpoint to {self.run} ({_reason(error)}); {self.last_good}; "
                "make room there, or the right to write, or choose another --dir"
            ) from error


@cache
def _leave_out_echoes() -> None:
    """Keeps tensorstore quiet after a write that failed, once for the process.

    Its threads report the other parts of that write to an event loop that is closed by then; each
    report would end in `sys.unraisablehook` as a traceback.
    """
    before = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            before(unraisable)

    sys.unraisablehook = hook


def _is_damage(error: Exception) -> bool:
    """False where the checkpoint may be whole, and memory or the right to read it is missing."""
    missing = isinstance(error, MemoryError | PermissionError | jax.errors.JaxRuntimeError)
    return not missing and "PERMISSION_DENIED" not in str(error)


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    causes = map(os.strerror, (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO))
    if told := next((cause for cause in causes if cause in str(error)), None):
        return told  # in the middle of a long line of the library that writes
    lines = str(error).split(". ")[0].splitlines() or [type(error).__name__]
    return lines[0][:200]


def _check_room(folder: Path, state: State) -> None:
    """Raises `OSError` on a disk that will be full: orbax would notice half-way, and each of its
    threads complain of it."""
    needed = sum(leaf.nbytes for leaf in jax.tree.leaves(state)) + _SMALL_FILES
    disk = shutil.disk_usage(folder)
    if disk.total and disk.free < needed:  # some file systems do not tell
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _remove(place: Path) -> None:
    """Removes a checkpoint; it counts no longer before the first of its files is gone."""
    gone = _unused(place.with_name(place.name + _GONE))
    place.rename(gone)
    shutil.rmtree(gone)


def _unused(place: Path) -> Path:
    """The path itself, or with the first number after it that is free."""
    number, free = 1, place
    while free.exists():
        number += 1
        free = place.with_name(f"{place.name}{number}")
    return free


def kept_steps(run: Path) -> list[int]:
    """Steps that have a checkpoint in a run directory, in order.

    Raises:
      UserError: the folder of checkpoints may not be read.
    """
    found = entries(run / FOLDER)
    return sorted(int(p.name) for p in found if p.name.isdecimal() and p.is_dir())


def not_finite(state: State) -> str | None:
    """The first array of a state that holds an infinity or a NaN where none belongs; None without.

    Sums of metrics are left out: some metric may have no value.
    """
    arrays = {
        name: leaf
        for name, leaf in _plain(state._replace(totals={})).items()
        if jnp.issubdtype(leaf.dtype, jnp.inexact)
    }
    finite = jax.device_get(_finite(list(arrays.values())))
    return next((name for name, good in zip(arrays, finite, strict=True) if not good), None)


@jax.jit
def _finite(arrays: list[Array]) -> Array:
    return jnp.array([jnp.all(jnp.isfinite(array)) for array in arrays], bool)


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
