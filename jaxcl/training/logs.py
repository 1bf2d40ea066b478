"""What a run tells: lines of JSON, TensorBoard events, a progress bar or plain lines."""

import json
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from importlib import import_module
from itertools import accumulate
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from jaxcl.errors import need

METRICS = "metrics.jsonl"
WANDB = "wandb.id"
"""File in the run directory that holds the run's name at Weights & Biases."""
BAR = 12
"""Columns of the progress bar; the words beside it take the rest of the terminal."""
SPEEDS = ("images_per_s", "sentences_per_s")
TIMES = ("seconds", *SPEEDS)
"""Fields of a row that depend on the clock; all others depend on seed and step alone."""


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """The rows written so far; a last line cut short by a crash is left out."""
    path = run / METRICS
    if not path.exists():
        return []
    rows = []
    for line in path.read_text().splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


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
        self._file: TextIO | None = None
        self._events: Any = None
        self._wandb: Any = None

    def open(self, step: int) -> None:
        """Goes on after so many steps; later rows, from before a crash, are dropped."""
        if not self._main:
            return
        run, (tensorboard, wandb) = self._run, self._asked
        rows = [row for row in read_metrics(run) if row["step"] <= step]
        part = run / f"{METRICS}.part"
        part.write_text("".join(json.dumps(row) + "\n" for row in rows))
        part.replace(run / METRICS)
        self._file = (run / METRICS).open("a")
        if tensorboard:
            from tensorboardX import SummaryWriter

            self._events = SummaryWriter(str(run / "tensorboard"), purge_step=step + 1)
        if wandb:
            self._wandb = import_module("wandb").init(
                project=wandb, dir=str(run), name=run.name, id=_wandb_id(run), resume="allow",
                config=dict(self._config),
            )  # fmt: skip

    def write(self, kind: str, step: int, row: dict[str, float]) -> None:
        """Adds a row; `kind` is "train" for the batches since the last one, "eval" for held-out."""
        if self._file is None:
            return
        self._file.write(json.dumps({"kind": kind, "step": step, **row}) + "\n")
        self._file.flush()
        named = {f"{kind}/{name}": value for name, value in row.items()}
        if self._events:
            for name, value in named.items():
                self._events.add_scalar(name, value, step)
        if self._wandb:
            self._wandb.log(named, step=step)

    def close(self) -> None:
        """Flushes everything."""
        for sink in (self._file, self._events):
            if sink:
                sink.close()
        if self._wandb:
            self._wandb.finish()


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
        path.write_text(uuid.uuid4().hex[:16])
    return path.read_text().strip()


def duration(seconds: float) -> str:
    """1:02:03 or 2:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
