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

from card.record import Record, installed, missing

GROUPS = ("first", "torch", "then", "torch again", "accuracy")
"""Processes of a call, one after the other: jaxcl's and PyTorch's never share the card's memory."""
COMPILED_FAST = "--xla_backend_optimization_level=0 --xla_cpu_parallel_codegen_split_count=1"
"""What XLA is told in a rehearsal, whose programs hardly run."""
OLD_CODE = "--xla_cpu_use_fusion_emitters=false"
"""And with jax 0.10, whose newer code generator makes views of few images take minutes so."""
GRACE = 10.0
"""Seconds that an item may go on after its limit; a run that is stopping saves itself in them."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the groups and prints the tables; 1 if a number was wrong or a process broke."""
    asked = options(arguments)
    asked.out.mkdir(parents=True, exist_ok=True)
    if asked.group:
        work(asked)
        return 0
    begun, record, whole = time.time(), Record(asked.out), True
    if asked.rehearse:
        old = installed("jaxlib").startswith("0.10.")
        os.environ.setdefault("XLA_FLAGS", f"{COMPILED_FAST} {OLD_CODE if old else ''}")
    if lacking := missing():
        print("not installed here; some parts leave something out without them, and a machine with")
        print(f"the network brings them: pip download --no-deps -d wheels {' '.join(lacking)}")
    for group in GROUPS if asked.peers else [g for g in GROUPS if "torch" not in g]:
        if time.time() > begun + asked.seconds - 5:
            break
        print(f"{time.time() - begun:.0f} s: {group}", flush=True)
        whole = watch(group, asked, begun, record) and whole
    print(record.markdown())
    return int(not whole or any(row["status"] == "wrong" for row in record.latest().values()))


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
    asked = parser.parse_args(arguments)
    if asked.data and not asked.data.is_file():
        parser.error(f"--data {asked.data} is no file; make it: python benchmarks/card/pack.py")
    return asked


def watch(group: str, asked: argparse.Namespace, begun: float, record: Record) -> bool:
    """Runs a group in a process; starts another one where an item took that one down.

    Returns whether none ended with an error but for an item's.
    """
    while True:
        command = [sys.executable, __file__, "--group", group, "--begun", str(begun)]
        command += ["--out", str(asked.out), "--seconds", str(asked.seconds)]
        command += ["--data", str(asked.data)] if asked.data else []
        command += ["--rehearse"] if asked.rehearse else []
        record.end()
        # What PyTorch's process needs of jaxcl must not take the card's memory.
        environment = os.environ | ({"JAX_PLATFORMS": "cpu"} if "torch" in group else {})
        process = subprocess.Popen(command, start_new_session=True, env=environment)
        over = None
        while process.poll() is None:
            time.sleep(0.2)
            running = record.running()
            now = time.time()
            if running and now > running["since"] + running["limit"] + GRACE:
                over = f"over its limit of {running['limit']:.0f} s"
            elif now > begun + asked.seconds + GRACE:
                over = "the call was over"
            if over:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        running = record.running()
        if running is None:
            return process.returncode == 0
        note = over or f"its process ended with {process.returncode}"
        record.add(running["part"], running["item"], "failed", {}, note=note)
        print(f"  {running['part']}, {running['item']}: {note}", flush=True)
        if time.time() > begun + asked.seconds - 5:
            return True


def work(asked: argparse.Namespace) -> None:
    """What the process of a group does."""
    from card.session import Session
    from card.sizes import CARD, REHEARSAL

    threading.Thread(target=leave_with, args=(os.getppid(),), daemon=True).start()
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
    describe(asked.out)
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
            session.ahead(wave)
            session.go(wave, asked.begun)
    elif asked.group == "then":
        items = timed.others(sizes)
        session.ahead(items)
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


def describe(out: Path) -> None:
    """Notes the machine; the results of another one are not mixed with its own."""
    import jax
    from card.record import machine

    about = out / "machine.json"
    told: dict[str, Any] = machine(jax.devices()[0])
    if about.exists():
        before = json.loads(about.read_text())
        if before["card"] != told["card"]:
            raise SystemExit(f"{out} holds results of {before['card']}; give another --out")
    about.write_text(json.dumps(told))


if __name__ == "__main__":
    raise SystemExit(main())
