"""Everything about a card in twelve minutes: whether numbers are right on it, and how fast.

    python benchmarks/card/pack.py CIFAR10-FOLDER cifar10.npz      # once; 48 MiB
    python benchmarks/accelerator.py --data cifar10.npz --out card
    python benchmarks/accelerator.py --rehearse --out rehearsal    # every part in small, on a CPU

Parts come by worth: losses and training against the CPU, the losses' bodies and tiles (the fastest
are in force from there on), CIFAR-10's whole loop, the ResNet-50 step, each beside PyTorch; DINO,
sentences, views; then training to accuracy for as long as there is time. A line of JSON for each
figure in OUT/results.jsonl as soon as it is there, and tables in OUT/results.md. Whatever fails
or takes too long is noted and passed over. The same command goes on where the last call ended;
compiled programs are kept in OUT/cache. Neither network nor other packages than jaxcl's are needed;
what can be brought along is listed at the start.
"""

import argparse
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from card.record import Record, installed, missing, parsed, write_whole

GROUPS = ("first", "torch", "then", "torch again", "accuracy")
"""Processes of a call, one after the other: jaxcl's and PyTorch's never share the card's memory."""
COMPILED_FAST = "--xla_backend_optimization_level=0 --xla_cpu_parallel_codegen_split_count=1"
"""What XLA is told in a rehearsal, whose programs hardly run."""
OLD_CODE = "--xla_cpu_use_fusion_emitters=false"
"""And with jax 0.10, whose newer code generator makes views of few images take minutes so."""
REFUSED = 77
"""Exit status of a process that must not measure into this folder."""
GRACE = 10.0
"""Seconds that an item may go on after its limit; a run that is stopping saves itself in them."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the groups and prints the tables.

    Returns 1 if a number was wrong or a process broke, 2 for a user's mistake, 130 after Ctrl-C;
    items that failed are in the tables.
    """
    asked = options(arguments)
    if asked.group:
        threading.Thread(target=leave_with, args=(asked.parent,), daemon=True).start()
        work(asked)
        return 0
    try:
        asked.out.mkdir(parents=True, exist_ok=True)
        owner = (asked.out / "lock").open("w")
        fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return refused(f"another call measures into --out {asked.out}; give another folder")
    except OSError as error:
        return refused(f"--out {asked.out} cannot be written ({error.strerror})")
    begun, record, whole = time.time(), Record(asked.out), True
    if asked.rehearse:
        old = installed("jaxlib").startswith("0.10.")
        os.environ.setdefault("XLA_FLAGS", f"{COMPILED_FAST} {OLD_CODE if old else ''}")
    if lacking := missing():
        print(f"not installed, so that some parts leave something out: {' '.join(lacking)}")
        print("with network, same Python and kind of machine: pip download -d wheels NAMES")
        print("here: pip install --no-index --find-links wheels NAMES")
    try:
        for group in GROUPS if asked.peers else [g for g in GROUPS if "torch" not in g]:
            if time.time() > begun + asked.seconds - 5:
                break
            print(f"{time.time() - begun:.0f} s: {group}", flush=True)
            whole = watch(group, asked, begun, record) and whole
    except KeyboardInterrupt:
        print(record.markdown())
        return 130
    print(record.markdown())
    return int(not whole or any(row["status"] == "wrong" for row in record.latest().values()))


def refused(why: str) -> int:
    """Says what the user can mend."""
    print(f"error: {why}", file=sys.stderr)
    return 2


def options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("card"), help="folder for results")
    parser.add_argument("--data", type=Path, help="pack of CIFAR-10; without it no accuracy runs")
    parser.add_argument("--seconds", type=float, default=720, help="time for everything")
    parser.add_argument("--rehearse", action="store_true", help="tiny sizes, on any machine")
    parser.add_argument("--no-peers", dest="peers", action="store_false", help="without PyTorch")
    parser.add_argument("--group", help=argparse.SUPPRESS)  # what the processes it starts are told
    parser.add_argument("--begun", type=float, default=0.0, help=argparse.SUPPRESS)
    parser.add_argument("--parent", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--again", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args(arguments)
    if not 0 < asked.seconds < 1e6:
        parser.error(f"--seconds {asked.seconds:g} is no time; give 720, say")
    if asked.data and not asked.data.is_file():
        parser.error(
            f"--data {asked.data} is no file; make it of a folder of class folders: "
            f"python benchmarks/card/pack.py FOLDER {asked.data.name}.npz"
        )
    return asked


def watch(group: str, asked: argparse.Namespace, begun: float, record: Record) -> bool:
    """Runs a group in a process; starts another one where an item took that one down.

    Returns whether none ended with an error but for an item's.
    """
    deaths = 0
    while True:
        command = [sys.executable, __file__, "--group", group, "--begun", str(begun)]
        command += ["--parent", str(os.getpid())]
        command += ["--out", str(asked.out), "--seconds", str(asked.seconds)]
        command += ["--data", str(asked.data)] if asked.data else []
        command += ["--rehearse"] if asked.rehearse else []
        command += ["--again"] if deaths else []  # each item compiles its own, and takes the blame
        record.end()
        process = subprocess.Popen(command, start_new_session=True, env=environment_of(group))
        over = None
        try:
            while process.poll() is None:
                time.sleep(0.2)
                running = record.running()
                now = time.time()
                if running and now > running["since"] + running["limit"] + GRACE:
                    over = f"over its limit of {running['limit']:.0f} s"
                elif now > begun + asked.seconds + GRACE:
                    over = "the call was over"
                if over:
                    break
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        if process.returncode == REFUSED:
            raise SystemExit(2)
        running, deaths = record.running(), deaths + 1
        if running is None and (process.returncode == 0 or deaths > 1):
            return process.returncode == 0
        if running is not None:
            note = over or f"its process ended with {process.returncode}"
            row = record.latest().get((running["part"], running["item"]))
            if row is None or row["at"] < running["since"]:  # else it was there already
                figures = row["figures"] if row and row["status"] == "unfinished" else {}
                record.add(running["part"], running["item"], "failed", figures, note=note)
            print(f"  {running['part']}, {running['item']}: {note}", flush=True)
        if time.time() > begun + asked.seconds - 5:
            return True


def environment_of(group: str) -> dict[str, str]:
    """jaxcl gets nearly all of the card's memory; what PyTorch's process needs of it gets none."""
    own = {"JAX_PLATFORMS": "cpu"} if "torch" in group else {}
    return {"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.92"} | os.environ | own


def work(asked: argparse.Namespace) -> None:
    """What the process of a group does."""
    from card.session import Session
    from card.sizes import CARD, REHEARSAL

    sizes = REHEARSAL if asked.rehearse else CARD
    session = Session(
        Record(asked.out), sizes, asked.begun + asked.seconds, asked.data, asked.rehearse
    )
    if "torch" in asked.group:
        try:
            from card import peers
        except ImportError as error:
            print(f"  PyTorch cannot be imported: {error}")
            return
        from card import timed

        items = peers.others(sizes)
        if asked.group == "torch":
            items = peers.losses(sizes)
            items += peers.steps(True, timed.CIFAR, sizes.cifar)
            items += peers.steps(False, timed.IMAGENET, sizes.imagenet)
        session.go(items, asked.begun)
        return
    keep_compiled(asked.out)
    from card import accuracy, right, timed

    if asked.group == "reference":
        right.write_reference(asked.out, sizes)
        return
    describe(asked.out, asked.rehearse)
    timed.apply_recorded(session)
    if asked.group == "first":
        session.known["reference"] = right.Reference(asked.out, asked.rehearse)
        first = [*timed.rates(), *right.losses_right(sizes), *timed.losses(sizes)]
        second = [*right.training_right(sizes)]
        second += [*timed.steps("cifar", timed.CIFAR, sizes.cifar, sizes)]
        second += [*timed.loops(sizes.cifar)]
        second += [timed.profile("cifar", timed.CIFAR, sizes.cifar[0], sizes)]
        second += [*timed.steps("imagenet", timed.IMAGENET, sizes.imagenet, sizes)]
        second += [timed.profile("imagenet", timed.IMAGENET, sizes.imagenet[0], sizes)]
        for wave in (first, second):  # the second is traced with the settings that the first found
            if not asked.again:
                session.ahead(wave, asked.begun)
            session.go(wave, asked.begun)
    elif asked.group == "then":
        items = timed.others(sizes)
        if not asked.again:
            session.ahead(items, asked.begun)
        session.go(items, asked.begun)
    else:
        session.go(accuracy.accuracy(sizes), asked.begun)


def leave_with(parent: int) -> None:
    """Ends this process when the one that started it is gone, so that no card stays taken."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def keep_compiled(out: Path) -> None:
    """Compiled programs stay beside the results."""
    import jax

    jax.config.update("jax_compilation_cache_dir", str(out.absolute() / "cache"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)


def describe(out: Path, rehearse: bool) -> None:
    """Notes the machine; results of another one, or of a rehearsal, are not mixed with its own."""
    import jax
    from card.record import machine

    about = out / "machine.json"
    told: dict[str, Any] = machine(jax.devices()[0])
    told["sizes"] = "of a rehearsal" if rehearse else "of a card"
    before = parsed(about.read_text(errors="replace")) if about.exists() else {}
    for name in ("card", "sizes"):
        if before.get(name, told[name]) != told[name]:
            refused(f"--out {out} holds results with {name} {before[name]}; give another folder")
            raise SystemExit(REFUSED)
    write_whole(about, json.dumps(told))


if __name__ == "__main__":
    raise SystemExit(main())
