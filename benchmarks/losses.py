"""NT-Xent, CLIP and SupCon at growing batches: time, share of the roofline, memory; peers.

    python benchmarks/losses.py                         # 4,096 to 16,384 rows, float32, width 128
    python benchmarks/losses.py --rows 131072 --rounds 1 --no-dense --no-peers
    python benchmarks/losses.py --rows 512 1024 --losses nt_xent     # small enough for every peer
    python benchmarks/losses.py --dtype bfloat16 --width 512 --rows 65536 --losses clip
    python benchmarks/losses.py --rows 16384 32768 65536 --losses nt_xent --equal-work

Value and gradients; all take turns, and the best round of each counts, by the clock and in seconds
of CPU, which other work on the machine disturbs less. The roofline is the time (of CPU, if that is
the device) that the loss's own products take at this machine's rate for large ones: 4 R^2 d FLOP
for R rows among themselves (half of the symmetric matrix, forward and again backward, and two
products), 8 N^2 d for two sets.
"dense" is the same loss on the whole matrix, jitted; "textbook" what one writes from the paper's
equation. lightly, pytorch-metric-learning and optax take part where they are installed. Temporary
memory is the compiler's figure; of torch, what the process grew by at most.

`--equal-work` compares sizes: of a long run and a short one on a machine with other work, the best
round flatters the short one, which finds a quiet moment sooner. There every size takes its turn
with the same work, small ones several times in a row, and the median round counts.
"""

import resource
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from jaxcl import losses
from jaxcl.similarity import pairs

GIB, MIB = 2**30, 2**20


@dataclass(frozen=True)
class Options:
    """What to measure."""

    rows: tuple[int, ...] = (4096, 8192, 16384)
    """Rows of both views together."""
    width: int = 128
    """Numbers in a row."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the rows."""
    losses: tuple[Literal["nt_xent", "clip", "sup_con"], ...] = ("nt_xent", "clip", "sup_con")
    """Which losses."""
    dense: bool = True
    """The whole matrix too, where it fits."""
    peers: bool = True
    """Other libraries too, where they are installed."""
    rounds: int = 5
    """Of which the best counts, or the median with `equal_work`."""
    equal_work: bool = False
    """Compare the blocked body's rates at these numbers of rows, all in turn with equal work."""


LOSSES: dict[str, Callable[[Any, Any], Any]] = {
    "nt_xent": lambda a, b: losses.nt_xent(a, b, temperature=0.1),
    "clip": lambda a, b: losses.clip_loss(a, b, scale=10.0),
    "sup_con": lambda a, b: losses.sup_con(
        jnp.concatenate([a, b]), jnp.arange(2 * len(a)) % 100, temperature=0.1
    ),
}


def work(name: str, rows: int, width: int) -> float:
    """FLOP of the products that the loss cannot do without."""
    return 8 * (rows / 2) ** 2 * width if name == "clip" else 4 * rows**2 * width


def main(options: Options) -> None:
    """Prints a table for each number of rows."""
    device = jax.devices()[0]
    rate = gemm_rate(options.dtype, 2048 if device.platform == "cpu" else 8192)
    print(f"jax {jax.__version__} on {device.device_kind}, {options.dtype}, width {options.width}")
    print(f"large products: {rate / 1e9:,.0f} GFLOP in a second of the device")
    if options.equal_work:
        for name in options.losses:
            compare_sizes(name, options)
        return
    for rows in options.rows:
        print(f"\n{rows:,} rows")
        views = np.random.default_rng(0).normal(size=(2, rows // 2, options.width))
        entrants = [one for name in options.losses for one in bodies(name, views, rate, options)]
        if options.peers:
            entrants += peers(views.astype(np.float32))
        race(entrants, options.rounds)


def compare_sizes(name: str, options: Options) -> None:
    """Prints the rate of the roofline's FLOP at each number of rows, and its ratio to the first."""
    programs = {}
    for rows in options.rows:
        views = np.random.default_rng(0).normal(size=(2, rows // 2, options.width))
        programs[rows] = next(bodies(name, views, 1.0, options))  # blocked
        jax.block_until_ready(programs[rows].run())
    largest = max(work(name, rows, options.width) for rows in options.rows)
    rates: dict[int, list[float]] = {rows: [] for rows in options.rows}
    for _ in range(options.rounds):
        for rows, program in programs.items():
            flop = work(name, rows, options.width)
            times = [seconds(program.run) for _ in range(round(largest / flop))]
            rates[rows].append(flop * len(times) / sum(of_device(one) for one in times))
    first = np.array(rates[options.rows[0]])
    for rows, found in rates.items():
        rate, ratio = np.median(found) / 1e9, np.median(np.array(found) / first)
        held = (programs[rows].memory or 0) / MIB
        print(
            f"  {name}, {rows:,} rows: {rate:,.0f} GFLOP in a second of the device, "
            f"{ratio:.2f} of the first; {held:,.1f} MiB"
        )


class Entrant(NamedTuple):
    """Something to be timed."""

    name: str
    run: Callable[[], Any]
    memory: float | None = None
    """Temporary bytes; None: what the process grows by in the first run."""
    roofline: float | None = None
    """Seconds that its own products would take."""


def bodies(name: str, views: np.ndarray, rate: float, options: Options) -> Iterator[Entrant]:
    a, b = (jnp.asarray(view, options.dtype) for view in views)
    rows = 2 * len(a)
    roofline = work(name, rows, options.width) / rate
    backend: Any = jax.default_backend()
    limits = {"blocked": 0} | ({"kernels": 0} if backend != "cpu" else {})
    limits |= {"dense": 2**62} if options.dense else {}
    for body, limit in limits.items():
        pairs.DENSE_PAIRS = limit
        pairs.KERNELS = {backend: backend} if body == "kernels" else {}
        loss = LOSSES[name]
        step = jax.jit(jax.value_and_grad(lambda a, b, loss=loss: loss(a, b), argnums=(0, 1)))
        program = step.lower(a, b).compile()
        memory = program.memory_analysis().temp_size_in_bytes
        if memory > 16 * GIB:
            print(f"  {name + ', ' + body:34s} needs {memory / GIB:.0f} GiB")
            continue
        run = lambda program=program: program(a, b)
        yield Entrant(f"{name}, {body}", run, memory, roofline)


def race(entrants: list[Entrant], rounds: int) -> None:
    """Rounds in turn, and a line for each entrant."""
    grown = []
    for one in entrants:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        jax.block_until_ready(one.run())
        grown.append(1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before))
    times = np.array([[seconds(one.run) for one in entrants] for _ in range(rounds)]).min(axis=0)
    for one, (clock, cpu), more in zip(entrants, times, grown, strict=True):
        memory = more if one.memory is None else one.memory
        held = f"{memory / MIB:10,.1f} MiB" if memory else ""
        roof = (
            f"{100 * one.roofline / of_device((clock, cpu)):6.0f} % of the roofline"
            if one.roofline
            else ""
        )
        print(f"  {one.name:34s}{clock:9.3f} s{cpu:9.3f} s of CPU{held}{roof}", flush=True)


def seconds(run: Callable[[], Any]) -> tuple[float, float]:
    """By the clock, and of CPU."""
    start, used = time.perf_counter(), time.process_time()
    jax.block_until_ready(run())
    return time.perf_counter() - start, time.process_time() - used


def of_device(times: tuple[float, float]) -> float:
    """Seconds of CPU where that is the device, and by the clock elsewhere."""
    clock, cpu = times
    return cpu if jax.default_backend() == "cpu" else clock


def gemm_rate(dtype: str, side: int) -> float:
    """FLOP/s of a large product."""
    x = jax.random.normal(jax.random.key(0), (side, side), dtype)  # of ones, chips are faster
    product = jax.jit(lambda x: jnp.matmul(x, x, precision="highest"))
    return 2 * side**3 / min(of_device(seconds(lambda: product(x))) for _ in range(11))


def peers(views: np.ndarray) -> Iterator[Entrant]:
    program, arguments = textbook_ntxent(views)
    memory = program.memory_analysis().temp_size_in_bytes
    yield Entrant("textbook NT-Xent in JAX", lambda: program(*arguments), memory)
    for name, make in (
        ("optax ntxent", optax_ntxent),
        ("lightly NTXentLoss", lightly_ntxent),
        ("pytorch-metric-learning NTXent", metric_learning_ntxent),
    ):
        rows = 2 * views.shape[1]
        try:
            run = make(views)
        except (
            ImportError,
            RuntimeError,
        ) as error:  # torchvision that does not fit torch: the latter
            missing = isinstance(error, ModuleNotFoundError)
            print(
                f"  {name} " + ("is not installed" if missing else f"cannot be imported: {error}")
            )
            continue
        # Whole arrays of [rows, rows, width] and of all triplets; they would take the machine down.
        if rows > {"optax ntxent": 2048, "pytorch-metric-learning NTXent": 512}.get(name, 1 << 20):
            print(f"  {name}: not tried, beyond the memory of small machines")
            continue
        yield Entrant(name, run)


def optax_ntxent(views: np.ndarray) -> Callable[[], Any]:
    import optax

    z = jnp.concatenate([jnp.asarray(view) for view in views])
    labels = jnp.tile(jnp.arange(len(z) // 2), 2)
    step = jax.jit(jax.value_and_grad(lambda z: optax.losses.ntxent(z, labels, 0.1)))
    return lambda: step(z)


def textbook_ntxent(views: np.ndarray) -> tuple[Any, tuple[Any, Any]]:
    """What one writes from the paper: all logits, the diagonal masked, cross-entropy."""
    import optax

    def loss(a: Any, b: Any) -> Any:
        z = jnp.concatenate([a, b])
        z = z / jnp.linalg.norm(z, axis=1, keepdims=True)
        logits = jnp.where(jnp.eye(len(z), dtype=bool), -1e9, z @ z.T / 0.1)
        twins = jnp.roll(jnp.arange(len(z)), len(a))
        return optax.losses.softmax_cross_entropy_with_integer_labels(logits, twins).mean()

    a, b = (jnp.asarray(view) for view in views)
    program = jax.jit(jax.value_and_grad(loss, argnums=(0, 1))).lower(a, b).compile()
    return program, (a, b)


def lightly_ntxent(views: np.ndarray) -> Callable[[], Any]:
    import torch
    from lightly.loss import NTXentLoss

    a, b = (torch.tensor(view, requires_grad=True) for view in views)
    loss = NTXentLoss(temperature=0.1)

    def run() -> None:
        a.grad = b.grad = None
        loss(a, b).backward()

    return run


def metric_learning_ntxent(views: np.ndarray) -> Callable[[], Any]:
    import torch
    from pytorch_metric_learning.losses import NTXentLoss

    z = torch.tensor(np.concatenate(views), requires_grad=True)
    labels = torch.arange(len(z) // 2).repeat(2)
    loss = NTXentLoss(temperature=0.1)

    def run() -> None:
        z.grad = None
        loss(z, labels).backward()

    return run


if __name__ == "__main__":
    main(tyro.cli(Options))
