"""What the parts share: items with time limits, programs compiled ahead, timing."""

import os
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax

from card.record import Record
from card.sizes import Sizes

MIB = 2**20
COMPILING = 300.0
"""Seconds that an item may wait for compilers before its own time begins."""


class Wrong(Exception):
    """Figures that are not what they must be."""

    def __init__(self, figures: dict[str, Any], why: str) -> None:
        super().__init__(why)
        self.figures = figures


class Unfinished(Exception):
    """Figures of a run that goes on in the next call."""

    def __init__(self, figures: dict[str, Any]) -> None:
        super().__init__("the same command goes on from here")
        self.figures = figures


class Absent(Exception):
    """What an item needs is not on this machine."""


@dataclass
class Item:
    """One thing to measure; it has a line in the results."""

    part: str
    name: str
    run: Callable[["Session"], dict[str, Any]]
    limit: float = 60.0
    """Seconds after which it is ended from outside."""
    programs: tuple[Any, ...] = ()
    """Programs that it will ask for, compiled before it begins."""
    alone: bool = False
    """Wait until nothing else compiles: compilers try things out on the card."""
    always: bool = False
    """Done anew in each call, from what all calls have found."""


@dataclass
class Session:
    """One process of a call."""

    record: Record
    sizes: Sizes
    until: float
    """Time of the clock at which the call ends."""
    data: Path | None = None
    """A pack of images."""
    rehearse: bool = False
    known: dict[str, Any] = field(default_factory=dict)
    """What items leave for later ones: rates of the card, settings."""
    flop: dict[str, float] = field(default_factory=dict)
    """FLOP of a call of each program, as written, before any compiler changed it."""

    def __post_init__(self) -> None:
        self._pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1))
        self._asked: dict[str, Future[Any]] = {}

    @contextmanager
    def own_log(self) -> Iterator[None]:
        """What runs say on their way goes to a file."""
        with (self.record.folder / "training.log").open("a") as file, redirect_stderr(file):
            yield

    @property
    def left(self) -> float:
        """Seconds that are left of the call."""
        return self.until - time.time()

    def go(self, items: Iterable[Item], begun: float) -> None:
        """Measures the items that no earlier call has, and that this call has not tried."""
        for item in items:
            row = self.record.latest().get((item.part, item.name))
            done = row and row["status"] == "done" and not item.always
            if row and (done or row["at"] >= begun):
                continue
            if self.left < 5:
                return
            limit = min(10 * item.limit if self.rehearse else item.limit, self.left)
            self.record.begin(item.part, item.name, COMPILING)
            self._wait(item)
            self.record.begin(item.part, item.name, limit)
            start = time.time()
            status, figures, note = self._measured(item)
            more = {"note": note} if note else {}
            self.record.add(
                item.part, item.name, status, figures, seconds=round(time.time() - start, 1), **more
            )
            self.record.end()
            print(f"  {item.part}, {item.name}: {status} {figures} {note}", flush=True)

    def _measured(self, item: Item) -> tuple[str, dict[str, Any], str]:
        try:
            for program in item.programs:
                self.compiled(program)  # raises what its compiler said
            figures = item.run(self)
            return "done", figures, str(figures.pop("note", ""))
        except Wrong as error:
            return "wrong", error.figures, str(error)
        except Unfinished as error:
            return "unfinished", error.figures, str(error)
        except Absent as error:
            return "absent", {}, str(error)
        except Exception as error:  # whatever it is, the next item is measured
            traceback.print_exc()
            return "failed", {}, f"{type(error).__name__}: {error}".splitlines()[0]

    def ahead(self, items: Iterable[Item], begun: float) -> None:
        """Begins to compile what these items will ask for."""
        latest = self.record.latest()
        for item in items:
            row = latest.get((item.part, item.name))
            if row and (row["status"] == "done" or row["at"] >= begun):
                continue
            for program in item.programs:
                if self.left < 5:
                    return
                self._ask(program)

    def compiled(self, program: Any) -> Any:
        """The program for this card, compiled once."""
        return self._ask(program).result()[0]

    def arguments(self, program: Any) -> list[Any]:
        """What it is called with, made by a program of its own."""
        return list(self._ask(program).result()[1]())

    def _ask(self, program: Any) -> "Future[Any]":
        if program.name not in self._asked:
            traced = program.lower() if program.settings else None  # they are the whole process's
            self._asked[program.name] = self._pool.submit(self._compile, program, traced)
        return self._asked[program.name]

    def _compile(self, program: Any, traced: Any) -> tuple[Any, Any]:
        lowered = traced or program.lower()
        self.flop[program.name] = float((lowered.cost_analysis() or {}).get("flops", 0.0))
        make = None if program.supplied else jax.jit(program.make).lower().compile()
        return lowered.compile(), make

    def _wait(self, item: Item) -> None:
        """Until what it needs is compiled, or all that was asked for."""
        for program in item.programs:
            self._ask(program).exception()
        for future in list(self._asked.values()) if item.alone else ():
            future.exception()


def seconds_of(call: Callable[[], Any], wait: Callable[[Any], Any], budget: float) -> float:
    """Median seconds of a call, from runs of calls that are long enough to be timed."""
    wait(call())
    start = time.perf_counter()
    wait(call())
    once = max(time.perf_counter() - start, 1e-7)
    run = max(1, round(min(0.05, budget / 5) / once))
    times: list[float] = []
    begun = time.perf_counter()
    while len(times) < 3 or (time.perf_counter() - begun < budget and len(times) < 50):
        start = time.perf_counter()
        for _ in range(run):
            last = call()
        wait(last)
        times.append((time.perf_counter() - start) / run)
    return sorted(times)[len(times) // 2]
