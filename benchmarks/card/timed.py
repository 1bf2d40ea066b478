"""Parts 2 to 5: losses, whole steps, sentences and views, each beside what the card could do."""

import math
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from card import programs
from card.session import MIB, Absent, Item, Session, seconds_of
from card.sizes import Sizes
from jaxcl import fit, sentences
from jaxcl.data import Arrays, Data
from jaxcl.similarity import pairs
from jaxcl.training import Probe
from jaxcl.training.logs import read_metrics

CARD = "The card's rates"
RIGHT = "Right on this card"
LOSSES = "Losses"
CIFAR = "CIFAR-10, ResNet-18, SimCLR"
IMAGENET = "224 pixels, ResNet-50, SimCLR"
OTHERS = "DINO, sentences, views"
SETTINGS = "settings for jaxcl/similarity/pairs.py"
MARGIN = 0.97
"""Kernels are chosen where they take at most this share of the time."""


def rates() -> list[Item]:
    """The two rates that everything else is held against."""
    return [
        Item(CARD, "product of bfloat16", lambda s: product(s, "bfloat16"), alone=True),
        Item(CARD, "product of float32, in full", lambda s: product(s, "float32"), alone=True),
        Item(CARD, "copy", copy, alone=True),
    ]


def product(session: Session, dtype: str) -> dict[str, Any]:
    """Rate of a large product of normal numbers; of ones, chips are faster."""
    side = session.sizes.product
    x = jax.random.normal(jax.random.key(0), (side, side), dtype)
    run = jax.jit(lambda x: jnp.matmul(x, x, precision="highest"))
    seconds = seconds_of(lambda: run(x), jax.block_until_ready, session.sizes.seconds / 4)
    return {"TFLOP/s": 2 * side**3 / seconds / 1e12, "ms": 1e3 * seconds}


def copy(session: Session) -> dict[str, Any]:
    """Bytes read and written in a second by the simplest pass over memory."""
    x = jnp.ones(session.sizes.copied // 4, jnp.float32)
    run = jax.jit(lambda x: x + 1)
    seconds = seconds_of(lambda: run(x), jax.block_until_ready, session.sizes.seconds / 4)
    return {"GB/s": 2 * x.nbytes / seconds / 1e9, "ms": 1e3 * seconds}


def peak(session: Session, dtype: str = "bfloat16") -> float:
    """FLOP/s of large products, from the first part."""
    name = "product of bfloat16" if dtype == "bfloat16" else "product of float32, in full"
    row = session.record.latest().get((CARD, name), {})
    return 1e12 * float(row.get("figures", {}).get("TFLOP/s", math.nan))


def timing(
    session: Session, program: programs.Program, supplied: tuple[Any, ...] = ()
) -> tuple[float, dict[str, Any]]:
    """Seconds of a call and the figures that every program has."""
    compiled = session.compiled(program)
    arguments = list(supplied) or session.arguments(program)

    def call() -> Any:
        result = compiled(*arguments)
        if program.carried:
            arguments[0] = result
        return result

    seconds = seconds_of(call, jax.block_until_ready, session.sizes.seconds)
    memory = compiled.memory_analysis().temp_size_in_bytes / MIB
    return seconds, {"ms": 1e3 * seconds, "work space, MiB": memory}


def losses(sizes: Sizes) -> list[Item]:
    """Every body of the engine, and the choice among them."""
    platform = jax.default_backend()
    items = []
    for name, make in programs.LOSSES.items():
        base = make(sizes)
        bodies = [("blocked", tile) for tile in sizes.tiles]
        if sizes.kernels and platform in ("gpu", "tpu"):
            bodies += [("kernels", tile) for tile in sizes.tiles[-2:]]
        bodies.append(("dense", 0))
        for body, tile in bodies:
            title = f"{name}, {body}" + (f", tile {tile:,}" if tile else "")
            settings = programs.body(body, platform, tile)
            program = replace(base, name=title, settings=settings)
            run = lambda s, program=program, name=name: loss(s, program, name)
            items.append(Item(LOSSES, title, run, 60, (program,), alone=True))
    return [*items, Item(LOSSES, SETTINGS, choose, always=True)]


def loss(session: Session, program: programs.Program, name: str) -> dict[str, Any]:
    """Value and gradients of a loss, as a share of the time of its own products."""
    seconds, figures = timing(session, program)
    flop = programs.loss_flop(name, session.sizes)
    top = peak(session, "bfloat16" if name == "clip" else "float32")
    rate = flop / seconds
    return figures | {"TFLOP/s": rate / 1e12, "% of the roofline": 100 * rate / top}


def choose(session: Session) -> dict[str, Any]:
    """The fastest tile, and kernels where they were right and are faster; in force from here on."""
    latest = session.record.latest()
    found: dict[tuple[str, int], list[float]] = {}
    for (part, item), row in latest.items():
        if part == LOSSES and row["status"] == "done" and "tile" in item:
            _, body, tile = item.split(", ", 2)
            size = int(tile.removeprefix("tile ").replace(",", ""))
            found.setdefault((body, size), []).append(math.log(row["figures"]["ms"]))
    most = max(map(len, found.values()), default=0)
    means = {
        key: math.exp(sum(logs) / len(logs)) for key, logs in found.items() if len(logs) == most
    }
    if not means:
        raise Absent("no loss was timed")
    blocked, kernels = (
        min((key for key in means if key[0] == body), key=means.__getitem__, default=None)
        for body in ("blocked", "kernels")
    )
    chosen = blocked
    checks = [latest.get((RIGHT, f"kernels, {dtype}"), {}) for dtype in ("float32", "bfloat16")]
    right = all(row.get("status") == "done" for row in checks)
    if kernels and right and (not blocked or means[kernels] < MARGIN * means[blocked]):
        chosen = kernels
    if chosen is None:
        raise Absent("no body was both timed and right")
    platform = jax.default_backend()
    figures = {
        "KERNELS": {platform: platform} if chosen[0] == "kernels" else {},
        "TILE": {platform: chosen[1]},
    }
    apply(figures)
    return {"KERNELS": str(figures["KERNELS"]), "TILE": str(figures["TILE"])}


def apply(figures: dict[str, Any]) -> None:
    """Puts settings in force in this process."""
    pairs.KERNELS = dict(figures["KERNELS"])
    pairs.TILE = {**pairs.TILE, **figures["TILE"]}


def apply_recorded(session: Session) -> None:
    """The settings of an earlier process, where one has chosen."""
    import ast

    row = session.record.latest().get((LOSSES, SETTINGS))
    if row and row["status"] == "done":
        apply({name: ast.literal_eval(row["figures"][name]) for name in ("KERNELS", "TILE")})


def steps(name: str, part: str, batches: tuple[int, ...], sizes: Sizes) -> list[Item]:
    """Whole training steps, and what part of each its views, input and optimiser are."""

    def item(batch: int) -> Item:
        program = programs.step(name, sizes, batch)
        parts = {
            "views": programs.views_of_step(name, sizes, batch),
            "input": programs.input_of_step(name, sizes, batch),
            "optimiser": programs.optimiser_of_step(name, sizes, batch),
        }

        def run(session: Session) -> dict[str, Any]:
            seconds, figures = timing(session, program)
            rate = session.flop[program.name] / seconds
            figures |= {
                "images/s": batch / seconds,
                "TFLOP/s": rate / 1e12,
                "% of peak": 100 * rate / peak(session),
            }
            state, _ = session.arguments(program)
            gradients = jax.tree.map(lambda p: 1e-3 * p, state.params)
            for title, one in parts.items():
                given = (state, gradients) if one.supplied else ()
                figures[f"{title}, %"] = 100 * timing(session, one, given)[0] / seconds
            return figures

        wanted = (program, *parts.values())
        return Item(part, f"step, batch {batch:,}", run, 120, wanted, alone=True)

    return [item(batch) for batch in batches]


def loops(batches: tuple[int, ...]) -> list[Item]:
    """The whole loop as a user runs it, on images that lie on the card."""

    def item(batch: int) -> Item:
        return Item(
            CIFAR, f"whole loop, batch {batch:,}", lambda s: loop(s, batch), 180, alone=True
        )

    return [item(batch) for batch in batches]


def loop(session: Session, batch: int) -> dict[str, Any]:
    """Images a second of `fit`, by its own log, after everything is compiled."""
    sizes = session.sizes
    experiment = programs.cifar(sizes)
    per_epoch = sizes.cifar_steps  # a multiple of the steps in a call: one program serves them all
    images = noise(per_epoch * batch, sizes.cifar_side)
    data = Data(images, batch_size=batch, road="resident")
    experiment = replace(
        experiment,
        data=data,
        optim=replace(experiment.optim, epochs=2),
        train=replace(
            experiment.train, log_every=min(50, per_epoch), tensorboard=False, save_every=10**9
        ),
        probe=Probe(linear=True, every=0),
    )
    with session.own_log(), tempfile.TemporaryDirectory() as folder:
        fit(experiment, Path(folder) / "run")
        rows = read_metrics(Path(folder) / "run")
    speeds = [row["images_per_s"] for row in rows if row["step"] > per_epoch]
    return {"images/s": max(speeds), "images/s, median": sorted(speeds)[len(speeds) // 2]}


def noise(count: int, side: int) -> Arrays:
    """Images and labels of noise: speed does not depend on them."""
    import numpy as np

    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (count, side, side, 3), np.uint8)
    return Arrays(images, np.arange(count) % 10, images[:100], np.arange(100) % 10)


def profile(name: str, part: str, batch: int, sizes: Sizes) -> Item:
    """Where the time of a step goes: the largest costs by the kernels' names."""
    program = programs.step(name, sizes, batch)

    def run(session: Session) -> dict[str, Any]:
        compiled, (state, images) = session.compiled(program), session.arguments(program)
        state = jax.block_until_ready(compiled(state, images))
        folder = session.record.folder / "profile" / name
        shutil.rmtree(folder, ignore_errors=True)
        with jax.profiler.trace(str(folder)):
            for _ in range(3):
                state = compiled(state, images)
            jax.block_until_ready(state)
        costs = largest_costs(folder)
        shutil.rmtree(folder)
        return {"note": "; ".join(costs)}

    return Item(part, f"largest costs, batch {batch:,}", run, 90, (program,), alone=True)


def largest_costs(folder: Path, count: int = 8) -> list[str]:
    """Names of kernels with the share of the time that all of the same name take."""
    (file,) = folder.rglob("*.xplane.pb")
    data = jax.profiler.ProfileData.from_file(str(file))
    chips = [plane for plane in data.planes if "/device:" in plane.name]
    if not chips and jax.default_backend() != "cpu":
        raise Absent("the profiler saw nothing of the card")
    lines = [line for plane in chips or data.planes for line in plane.lines]
    operations = [line for line in lines if line.name == "XLA Ops"]
    streams = [line for line in lines if "Stream" in line.name]
    spent: dict[str, float] = {}
    for line in operations or streams or lines:
        for event in line.events:
            if event.name.startswith(("$", "ThunkExecutor")):  # what waits for the rest, on a CPU
                continue
            name = event.name.split("(")[0].rstrip("0123456789_.")
            spent[name] = spent.get(name, 0.0) + event.duration_ns
    total = sum(spent.values()) or 1.0
    first = sorted(spent, key=spent.__getitem__, reverse=True)[:count]
    return [f"{name} {100 * spent[name] / total:.1f} %" for name in first]


def others(sizes: Sizes) -> list[Item]:
    """DINO's step with ten crops, sentences and views."""
    dino = steps("dino", OTHERS, (sizes.dino,), sizes)
    items = [replace(item, name=f"DINO {item.name}") for item in dino]
    items.append(Item(OTHERS, "MiniLM, jaxcl", encode, 120, alone=True))
    for small, side in ((True, sizes.cifar_side), (False, sizes.side)):
        program = programs.views(small, sizes)
        run = lambda s, program=program: view_rate(s, program)
        items.append(Item(OTHERS, f"views of {side}, jaxcl", run, 60, (program,), alone=True))
    return items


def view_rate(session: Session, program: programs.Program) -> dict[str, Any]:
    """Source images a second; each gives two views."""
    seconds, figures = timing(session, program)
    return figures | {"images/s": program.count / seconds}


def encode(session: Session) -> dict[str, Any]:
    """Sentences a second, strings in and vectors out."""
    from card.text import lines, model_folder

    folder, texts = model_folder(session), lines(session.sizes.sentences)
    model = sentences.load(folder)
    return rate_of(lambda: model.encode(texts), len(texts), session)


def rate_of(run: Callable[[], Any], count: int, session: Session) -> dict[str, Any]:
    """Sentences a second, after a first call that compiles."""
    seconds = seconds_of(run, lambda _: None, session.sizes.seconds)
    return {"sentences/s": count / seconds}
