"""Several processes that train one run: how they begin, stop at one step, and end together.

Each has a thread that gives a sign of life every second and looks for those of the others. So a
process that fails, or is killed, ends all of them, where they would otherwise wait for it for ever.
"""

import hashlib
import itertools
import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from types import TracebackType
from typing import Any, NoReturn

import jax
from jax.experimental import multihost_utils

from jaxcl.errors import UserError

BEAT, PAUSE = 1.0, 0.05
"""Seconds between two signs of life, and between two looks while all agree where to stop."""
PATIENCE = 20.0
"""Seconds without a sign of life after which a process counts as gone."""
FAREWELL = 10.0
"""Seconds that the first process, which all others ask, waits for them to hear of an end."""
NOTICE, ARRIVAL = 10.0, 300.0
"""Seconds after which a process says that it waits for the others to begin, and gives up."""
PORT = 8476
"""Port on which the first process listens, unless its address names another."""
_GONE = {
    "line": f"no sign of life for {PATIENCE:g} s; all of them, started again, go on from the "
    "newest checkpoint",
    "status": 1,
}
_APART = "did not find the others"
_TOGETHER = "start all of them with one --hosts and --of, the address that of --rank 0"
_TIMES: dict[str, Any] = {
    "initialization_timeout": int(2 * ARRIVAL),  # where jax gives up, it does so with a trace
    "heartbeat_timeout_seconds": 50,  # where the first process's machine is gone
    "shutdown_timeout_seconds": 7 * 24 * 3600,  # who is done waits for those that are watched here
}
_FOREIGN = ("Gloo", "NCCL", "oordination service", "barrier", "DEADLINE_EXCEEDED", "UNAVAILABLE")
"""Words of errors that another process's end causes."""


class TooLate(UserError):
    """Processes cannot join any more, since jax has its devices."""


def join(address: str = "", rank: int = 0, of: int = 0) -> None:
    """Makes this process one of several that train together; nothing where it is alone.

    To be called before anything else asks jax for its devices. Without an address, the processes of
    a SLURM step, of Open MPI and of a TPU pod are found, and those that `JAX_COORDINATOR_ADDRESS`
    names.

    Args:
      address: of the first process, as all of them reach it: host or host:port.
      rank: which process this is, from 0.
      of: how many there are.

    Raises:
      UserError: the three do not go together, or the others do not come.
      TooLate: jax was asked for devices before.
    """
    asked: dict[str, Any] = {}
    if address:
        where = _address(address)
        if of < 1 or not 0 <= rank < of:
            raise UserError(
                f"--hosts {address} --rank {rank} --of {of}: every process needs its own rank, "
                "from 0 to one less than --of"
            )
        asked = {"coordinator_address": where, "num_processes": of, "process_id": rank}
    elif rank or of:
        raise UserError("--rank and --of need the first process's address: add --hosts")
    elif not _found():
        return
    jax.config.update("jax_enable_preemption_service", False)  # it would swallow SIGTERM
    who = f"process {rank} of {of} at {address}" if address else "this process"
    timers = [
        threading.Timer(NOTICE, _tell, [f"{who} waits for the others"]),
        threading.Timer(ARRIVAL, _alone, [f"{who} {_APART} within {ARRIVAL:g} s; {_TOGETHER}"]),
    ]
    for timer in timers:
        timer.daemon = True
        timer.start()
    try:
        jax.distributed.initialize(**asked, **_TIMES)
        group = process_group()
        # On CPU they meet at the first collective, and wait there for half a minute only.
        multihost_utils.sync_global_devices("jaxcl")
    except Exception as error:
        if "must be called before" in str(error):
            raise TooLate("call jaxcl.scale.join before anything asks jax for devices") from error
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        if "Failed to start RPC server" in reason:
            raise UserError(
                f"{who} cannot listen there; the port may be in use: name another in --hosts"
            ) from error
        raise UserError(f"{who} {_APART} ({reason}); {_TOGETHER}") from error
    finally:
        for timer in timers:
            timer.cancel()
    if of and group and group.size != of:
        raise UserError(f"{who} was started with --of {of}, and the first with --of {group.size}")


def _address(text: str) -> str:
    """host:port of a host, an IPv6 address or either with a port.

    Raises:
      UserError: it is none.
    """
    host, colon, port = text.rpartition(":")
    if text.count(":") > 1 and not text.startswith("["):
        host, port = f"[{text}]", str(PORT)
    elif not colon or text.endswith("]"):
        host, port = text, str(PORT)
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise UserError(f"--hosts {text} is no host or host:port")
    return f"{host}:{port}"


def join_found() -> None:
    """Joins the processes that are found, as `join` does, unless that is done or too late."""
    if not jax.distributed.is_initialized():
        with suppress(TooLate):
            join()


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _alone(line: str) -> None:
    _tell(f"error: {line}")
    _exit(2)


def _found() -> bool:
    """Whether the environment says that this process is one of several, as SLURM's does."""
    if "JAX_COORDINATOR_ADDRESS" in os.environ:
        return True
    for count in ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE"):
        if int(os.environ.get(count) or 1) > 1:
            return True
    if "tpu" not in (jax.config.values["jax_platforms"] or "").split(","):
        return False
    if "TPU_WORKER_HOSTNAMES" in os.environ:
        slices = int(os.environ.get("MEGASCALE_NUM_SLICES") or 1)
        return "," in os.environ["TPU_WORKER_HOSTNAMES"] or slices > 1
    return "TPU_SKIP_MDS_QUERY" not in os.environ  # else a virtual machine's own data say it


def process_group() -> "ProcessGroup | None":
    """The processes that this one is one of; None where it is alone."""
    several = jax.distributed.is_initialized() and jax.process_count() > 1
    return _group() if several else None


@cache
def _group() -> "ProcessGroup":
    import orbax.checkpoint as ocp  # a second that those who are alone do without

    store = ocp.multihost.get_jax_distributed_client()
    group = ProcessGroup(jax.process_index(), jax.process_count(), store)
    sys.excepthook = group.unexpected
    return group


class ProcessGroup:
    """This process's place among those that train together.

    Args:
      rank: which one it is, from 0.
      size: how many there are.
      store: of keys and values that all of them see; jax's client of the first process.
    """

    def __init__(self, rank: int, size: int, store: Any) -> None:
        self.rank, self.size, self._store = rank, size, store
        self.cleaners: list[Callable[[], object]] = []
        """Called when another process's end ends this one."""
        self._ending, self._gathered, self._lost = False, 0, set[int]()
        self._wake, self._going = threading.Event(), threading.Event()
        self._going.set()
        self._asked, self._looks, self._until, self._round = False, 0, -1, 0
        self._looking = threading.Lock()
        threading.Thread(target=self._watch, daemon=True, name="process_group").start()

    def ask_stop(self) -> None:
        """Asks all processes to stop, at the next call of `stops` that none has made yet."""
        self._asked = True
        self._wake.set()

    def stops(self) -> bool:
        """Whether to stop here; every process calls it at the same places of its work."""
        while True:
            self._going.wait()
            with self._looking:
                if not self._going.is_set():
                    continue
                self._looks += 1
                if self._looks != self._until:
                    return False
                self._asked, self._until, self._round = False, -1, self._round + 1
                return True

    def agree(self, values: Mapping[str, Any]) -> None:
        """Raises `UserError` in all processes where one of them has another value of a name.

        Args:
          values: what JSON holds, by name; the names are the same in all.
        """
        told = json.dumps(values, sort_keys=True)
        if len(set(self.gathered(hashlib.sha256(told.encode()).hexdigest()))) == 1:
            return
        everyone = [json.loads(theirs) for theirs in self.gathered(told)]
        for rank, theirs in enumerate(everyone):
            for name, value in theirs.items():
                if value != everyone[0].get(name):
                    raise UserError(
                        f"process {rank} has {name}={value!r}, and process 0 has "
                        f"{everyone[0].get(name)!r}; all need the same command and data"
                    )

    def gathered(self, value: str) -> list[str]:
        """The values of all processes, in their order; waits for the last, however long."""
        self._gathered += 1
        folder = f"jaxcl/gathered/{self._gathered}"
        self._store.key_value_set(f"{folder}/{self.rank}", value)
        pause = PAUSE
        while len(found := self._values(folder)) < self.size:
            time.sleep(pause)
            pause = min(2 * pause, BEAT)
        return [found[rank] for rank in range(self.size)]

    def fail(
        self, line: str, status: int, *, text: str = "", error: BaseException | None = None
    ) -> NoReturn:
        """Ends all processes, this one too.

        Args:
          line: why, for the others.
          status: exit status of all.
          text: what this one prints, on standard error.
          error: what was raised. Where the end of another process may have caused it, that one has
            the first word.
        """
        if _may_be_foreign(error):
            time.sleep(PATIENCE + 5 * BEAT)
        self._ending = True
        told = json.dumps({"line": line, "status": status})
        with suppress(Exception):
            self._store.key_value_set(f"jaxcl/ended/{self.rank}", told)
        with suppress(OSError, ValueError):  # a log on a full disk
            print(text, end="\n" * bool(text), file=sys.stderr, flush=True)
        self._leave(status)

    def unexpected(
        self, kind: type[BaseException], error: BaseException, trace: TracebackType | None
    ) -> None:
        """Ends all processes with an exception that nobody handled; used as `sys.excepthook`."""
        text = "".join(traceback.format_exception(kind, error, trace))
        self.fail(f"{kind.__name__}: {error}", 1, text=text, error=error)

    def _watch(self) -> None:
        beats = _Beats(self.size)
        for count in itertools.count():
            self._wake.wait(BEAT if self._going.is_set() else PAUSE)
            self._wake.clear()
            if self._ending:
                return
            with suppress(Exception):  # without the first process jax itself ends the others
                self._store.key_value_set(
                    f"jaxcl/beats/{self.rank}", str(count), allow_overwrite=True
                )
                ended = self._values("jaxcl/ended")
                if ended:
                    rank, told = next(iter(ended.items()))
                    self._end_with(rank, **json.loads(told))
                if self.rank == 0 and (gone := beats.gone(self._values("jaxcl/beats"))):
                    self._lost.add(gone)
                    self._store.key_value_set(f"jaxcl/ended/{gone}", json.dumps(_GONE))
                self._agree_where()

    def _agree_where(self) -> None:
        """All wait, say how many looks they have had, and stop at the next that none has had."""
        place = f"jaxcl/stop/{self._round}"
        if self._asked:
            self._store.key_value_set(f"{place}/asked/{self.rank}", "", allow_overwrite=True)
        if self._until >= 0 or not self._values(f"{place}/asked"):
            return
        with self._looking:
            self._going.clear()
        told = f"{place}/looks/{self.rank}", str(self._looks)
        self._store.key_value_set(*told, allow_overwrite=True)
        looks = self._values(f"{place}/looks")
        if len(looks) == self.size:
            self._until = 1 + max(map(int, looks.values()))
            self._going.set()

    def _end_with(self, rank: int, line: str, status: int) -> None:
        self._ending = True
        with suppress(OSError, ValueError):
            _tell(f"error: process {rank} of {self.size}: {line}")
        for clean in self.cleaners:
            with suppress(Exception):
                clean()
        self._leave(status)

    def _leave(self, status: int) -> NoReturn:
        """Says so and ends; the first process, which keeps what is said for all, ends last."""
        until = time.monotonic() + FAREWELL
        with suppress(Exception):
            self._store.key_value_set(f"jaxcl/leaving/{self.rank}", "")
            while self.rank == 0 and time.monotonic() < until:
                if len(self._values("jaxcl/leaving").keys() | self._lost) == self.size:
                    break
                time.sleep(PAUSE)
        _exit(status)

    def _values(self, folder: str) -> dict[int, str]:
        """The values under `folder/RANK` in the store, by rank, of those processes that set one."""
        pairs = self._store.key_value_dir_get(folder + "/")
        return {int(key.rpartition("/")[2]): value for key, value in pairs}


class _Beats:
    """Who gave a sign of life, and when."""

    def __init__(self, size: int) -> None:
        now = time.monotonic()
        self._seen = dict.fromkeys(range(1, size), ("", now))

    def gone(self, beats: dict[int, str]) -> int:
        """The first process that has given none for too long; 0, which looks itself, for none."""
        now = time.monotonic()
        for rank, (last, _) in self._seen.items():
            if beats.get(rank, "") != last:
                self._seen[rank] = beats[rank], now
        return next((r for r, (_, at) in self._seen.items() if now - at > PATIENCE), 0)


def _may_be_foreign(error: BaseException | None) -> bool:
    """Whether an error, or one behind it, reads as if another process had ended."""
    while error is not None:
        if any(word in str(error) for word in _FOREIGN):
            return True
        error = error.__cause__ or error.__context__
    return False


def _exit(status: int) -> NoReturn:
    """At once: an orderly end would wait for all processes."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    os._exit(status)
