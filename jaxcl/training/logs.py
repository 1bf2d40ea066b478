"""What a run tells: lines of JSON, TensorBoard events, a progress bar or plain lines."""

import json
import logging
import shutil
import sys
import time
import uuid
import zlib
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from io import FileIO
from itertools import accumulate
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from jaxcl.errors import UserError, need
from jaxcl.records import DAMAGED, write_whole, writing

METRICS = "metrics.jsonl"
WANDB = "wandb.id"
"""File in the run directory that holds the run's name at Weights & Biases."""
BAR = 12
"""Columns of the progress bar; the words beside it take the rest of the terminal."""
SPEEDS = ("images_per_s", "sentences_per_s")
TIMES = ("seconds", *SPEEDS)
"""Fields of a row that depend on the clock; all others depend on seed and step alone."""


_CHECK = "crc"
"""Field of a stored row: CRC-32 of its other fields as JSON. Rows of earlier versions have none."""


def read_metrics(run: Path, tell: Callable[[str], None] | None = None) -> list[dict[str, Any]]:
    """The rows written so far; a last line cut short by a crash is left out.

    Args:
      run: the run directory.
      tell: called with a line where other rows are damaged, which are left out too; None: a warning
        of `logging`.

    Raises:
      UserError: the file cannot be read.
    """
    tell = tell or logging.getLogger(__name__).warning
    rows, damaged = _rows(run / METRICS)
    if damaged:
        tell(_told(run, damaged))
    return rows


def _told(run: Path, damaged: list[int]) -> str:
    return (
        f"{run / METRICS}: {len(damaged)} rows are damaged and left out (first: line {damaged[0]})"
    )


def _rows(path: Path) -> tuple[list[dict[str, Any]], list[int]]:
    """The whole rows, and the numbers of the lines that are damaged."""
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return [], []
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    found = [(number, _row(line)) for number, line in enumerate(lines, 1)]
    # What follows the last end of a line is nothing, or a row that a crash cut short.
    damaged = [number for number, row in found[:-1] if row is None]
    return [row for _, row in found if row is not None], damaged


def _row(line: bytes) -> dict[str, Any] | None:
    """A row without its check; None where it is none, or not as it was written."""
    try:
        row = json.loads(line.decode())
    except (ValueError, RecursionError):
        return None
    if not isinstance(row, dict):
        return None
    check = row.pop(_CHECK, None)
    whole = check is None or check == _sum(row)
    kind, step, *values = (row.get("kind"), row.get("step"), *row.values())
    plain = all(isinstance(value, int | float | str) for value in values)
    return row if whole and plain and isinstance(kind, str) and type(step) is int else None


def _line(row: dict[str, Any]) -> bytes:
    return json.dumps({**row, _CHECK: _sum(row)}).encode() + b"\n"


def _sum(row: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(row).encode())


class Log:
    """Writer of a run's metrics; writes nothing before it is opened.

    Args:
      run: the run directory.
      tensorboard: also write TensorBoard events.
      wandb: project to log to, if not empty.
      main: False on all hosts but the first, which write nothing.
      config: what wandb shows as the run's settings.

    Raises:
      UserError: wandb or TensorBoard events are asked for and not installed.
    """

    def __init__(
        self,
        run: Path,
        *,
        tensorboard: bool,
        wandb: str = "",
        main: bool = True,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        if wandb:
            need("wandb", f"train.wandb={wandb}", 'or set train.wandb=""')
        if tensorboard:
            need("tensorboardX", "train.tensorboard=True", "or set train.tensorboard=False")
        self._run, self._main, self._asked = run, main, (tensorboard, wandb)
        self._config = config or {}
        self._file: FileIO | None = None
        self._events: Any = None
        self._wandb: Any = None

    def open(self, step: int, tell: Callable[[str], None] = print) -> None:
        """Goes on after so many steps; later rows, from before a crash, are dropped.

        Args:
          step: steps taken.
          tell: called with a line that the user should read.

        Raises:
          UserError: a file cannot be read or written.
        """
        if not self._main:
            return
        run, (tensorboard, wandb) = self._run, self._asked
        rows, damaged = _rows(run / METRICS)
        if damaged:
            kept = run / f"{METRICS}{DAMAGED}"
            with writing(kept):
                shutil.copyfile(run / METRICS, kept)
            tell(f"{_told(run, damaged)}; the file as it was is kept as {kept.name}")
        write_whole(run / METRICS, b"".join(_line(row) for row in rows if row["step"] <= step))
        with writing(run):
            # Without a buffer nothing is left to write when the disk is full.
            self._file = (run / METRICS).open("ab", buffering=0)
            if tensorboard:
                self._events = _Events(run / "tensorboard", step)
        if wandb:
            self._wandb = import_module("wandb").init(
                project=wandb, dir=str(run), name=run.name, id=_wandb_id(run), resume="allow",
                config=dict(self._config),
            )  # fmt: skip

    def write(self, kind: str, step: int, row: dict[str, float]) -> None:
        """Adds a row; `kind` is "train" for the batches since the last one, "eval" for held-out.

        Raises:
          UserError: it cannot be written.
        """
        if self._file is None:
            return
        named = {f"{kind}/{name}": value for name, value in row.items()}
        with writing(self._run / METRICS):
            line = memoryview(_line({"kind": kind, "step": step, **row}))
            while line:  # a disk that is nearly full takes a part of it
                line = line[self._file.write(line) :]
        if self._events:
            with writing(self._run / "tensorboard"):
                self._events.write(named, step)
        if self._wandb:
            self._wandb.log(named, step=step)

    def close(self) -> None:
        """Lets go of the files."""
        for sink in (self._file, self._events):
            if sink:
                with writing(self._run):
                    sink.close()
        if self._wandb:
            self._wandb.finish()


class _Events:
    """TensorBoard's events, written in the caller's thread: tensorboardX's own writer has a thread
    that dies of a full disk, and then waits for it for ever."""

    def __init__(self, folder: Path, step: int) -> None:
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog
        from tensorboardX.summary import scalar

        folder.mkdir(exist_ok=True)
        self._event, self._scalar = Event, scalar
        self._file = EventsWriter(str(folder / "events"))
        # Events of later steps, from before a crash, are not shown.
        start = SessionLog(status=SessionLog.START)
        self._file.write_event(Event(wall_time=time.time(), step=step + 1, session_log=start))
        self._file.flush()

    def write(self, row: dict[str, float], step: int) -> None:
        """Adds a scalar per field."""
        for name, value in row.items():
            event = self._event(wall_time=time.time(), step=step, summary=self._scalar(name, value))
            self._file.write_event(event)
        self._file.flush()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


class Display:
    """A progress bar on a terminal, a plain line at each log point elsewhere."""

    def __init__(self, total: int, step: int, main: bool = True) -> None:
        self._console = Console(file=sys.stderr, quiet=not main)
        self._total, self._bar = total, None
        self._start, self._first = time.monotonic(), step
        if main and self._console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.completed:,}/{task.total:,}"),
                TimeRemainingColumn(),
                BarColumn(bar_width=BAR),
                TextColumn("{task.fields[note]}"),
                console=self._console,
            )
            self._task = self._bar.add_task("train", total=total, completed=step, note="compiling")
            self._bar.start()

    def tell(self, line: str) -> None:
        """A line of its own, above the bar."""
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def show(self, step: int, row: dict[str, float]) -> None:
        """Where the run stands."""
        names = (*SPEEDS, "loss", "lr", "contrastive_accuracy", "accuracy", "probe_accuracy", "knn",
                 "classifier", "stsb_dev")  # fmt: skip
        words = [f"{label(n)} {row[n]:.4g}" for n in names if n in row]
        if self._bar:
            room = self._console.width - len(f"{self._total:,}/{self._total:,} 0:00:00 ") - BAR - 2
            self._bar.update(self._task, completed=step, note=fitting(words, room))
            return
        note = "  ".join(words)
        spent = time.monotonic() - self._start
        left = spent / max(step - self._first, 1) * (self._total - step)
        self.tell(f"step {step:,}/{self._total:,}  {note}  left {duration(left)}")

    def close(self) -> None:
        """Leaves the terminal as it was."""
        if self._bar:
            self._bar.stop()


def fitting(words: Sequence[str], room: int) -> str:
    """As many of the first words as fit into so many characters, two spaces between them."""
    ends = accumulate(len(word) + 2 for word in words)
    return "  ".join(word for word, end in zip(words, ends, strict=True) if end - 2 <= room)


def label(name: str) -> str:
    """A metric's name as people read it."""
    named = {"stsb_dev": "STS-B dev"}
    return named.get(name, name.replace("_per_s", "/s").replace("_", " "))


def _wandb_id(run: Path) -> str:
    """The same at every start of a run, wherever its directory lies."""
    path = run / WANDB
    if not path.exists():
        write_whole(path, uuid.uuid4().hex[:16])
    return path.read_text().strip()


def duration(seconds: float) -> str:
    """1:02:03 or 2:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
