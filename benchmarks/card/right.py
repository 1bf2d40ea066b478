"""Part 1: whether numbers on this card are right."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from card.session import Absent, Item, Session, Wrong
from card.sizes import Sizes
from card.timed import RIGHT, noise
from jaxcl import Train, fit, load
from jaxcl.augment import simclr
from jaxcl.data import Data
from jaxcl.encoders import MLP, ResNet
from jaxcl.experiment import Experiment
from jaxcl.methods import SimCLR
from jaxcl.similarity import (
    logsumexp_among,
    logsumexp_both,
    logsumexp_pairs,
    max_pairs,
    softplus_pairs,
)
from jaxcl.training import SGD, Probe
from jaxcl.training.logs import read_metrics

ROOT = Path(__file__).parents[2]
GOLDEN = 1e-5
"""Largest difference of a golden row, over its size where that is above 1."""
BODIES = {"float32": (5e-6, 2e-5), "bfloat16": (2e-5, 2**-6)}
"""Largest difference between bodies, of values and of gradients, over the largest of each. In
bfloat16 the weights of pairs are rounded, and each gradient is within half of that."""
FIRST, ALL = 1e-4, 2e-2
"""Largest relative difference of the first five losses to the CPU's, and of all twenty: what
differs in the last bits grows from step to step."""
STEPS, CALL, BATCH = 20, 10, 32
"""Steps of a run, at most in a compiled call, and images."""


def losses_right(sizes: Sizes) -> list[Item]:
    """Golden rows, and every body of the engine beside the whole matrix on the CPU."""
    platform = jax.default_backend()
    bodies = ["dense", "blocked"]
    if sizes.kernels and platform in ("gpu", "tpu"):
        bodies.append(platform)
    items = [Item(RIGHT, "golden rows", golden, 120)]
    for dtype in BODIES:
        for body in bodies:
            name = "kernels" if body == platform else body
            run = lambda s, body=body, dtype=dtype: bodies_alike(s, body, dtype)
            items.append(Item(RIGHT, f"{name}, {dtype}", run, 120))
    return items


def golden(session: Session) -> dict[str, Any]:
    """The losses' stored values, from the tests."""
    sys.path.insert(0, str(ROOT / "tests"))
    try:
        from golden_rows import ROWS
    except ImportError as error:
        raise Absent(f"golden rows lie in tests/, which is not here ({error})") from error
    found = {}
    with jax.default_matmul_precision("highest"):
        for name, value, expected in ROWS:
            found[name] = abs(float(value()) - expected) / max(1, abs(expected))
    figures = {"checked": len(found), "largest difference": max(found.values())}
    if unequal := [name for name, difference in found.items() if not difference <= GOLDEN]:
        raise Wrong(figures, f"beyond {GOLDEN}: {', '.join(unequal)}")
    return figures


def bodies_alike(session: Session, body: str, dtype: str) -> dict[str, Any]:
    """Values and gradients of each reduction by this body, beside dense on the CPU."""
    rows, width = session.sizes.checked
    draw = np.random.default_rng(1)
    q, k = (draw.normal(size=(rows, width)).astype(np.float32) for _ in range(2))
    marks = np.arange(rows)
    most_value, most_gradient = BODIES[dtype]
    cpu = jax.devices("cpu")[0]
    worst: dict[str, float] = {}
    for name, reduce in reductions(marks, dtype).items():
        step = jax.value_and_grad(
            lambda q, k, scale, body, reduce=reduce: reduce(q, k, scale, body), argnums=(0, 1, 2)
        )
        step = jax.jit(step, static_argnums=3)
        with jax.default_device(cpu):
            expected = jax.tree.map(np.asarray, step(q, k, np.float32(10), "dense"))
        found = jax.tree.map(np.asarray, step(q, k, np.float32(10), body))
        worst[f"{name}, value"] = difference(found[0], expected[0]) / most_value
        if name != "max":
            worst[f"{name}, gradient"] = max(map(difference, found[1], expected[1])) / most_gradient
    largest = max(worst, key=worst.__getitem__)
    figures = {"checked": len(worst), "largest difference, of the tolerance": worst[largest]}
    if not worst[largest] <= 1:
        raise Wrong(figures, largest)
    return figures


def difference(found: np.ndarray, expected: np.ndarray) -> float:
    """Largest difference over the largest number."""
    return float(np.max(np.abs(found - expected)) / max(np.max(np.abs(expected)), 1e-30))


def reductions(marks: np.ndarray, dtype: str) -> dict[str, Callable[..., Any]]:
    """Means of what the engine gives, of directions of rows of this type."""
    ids: Any = {"q_ids": marks, "k_ids": marks}
    kind = lambda *arrays: [jnp.asarray(x, dtype) for x in arrays]

    def both(q: Any, k: Any, scale: Any, body: Any) -> Any:
        q, k = kind(q, k)
        found = logsumexp_both(q, k, scale=scale, normalize=True, body=body, **ids)
        return sum(map(jnp.mean, found))

    def pairs(q: Any, k: Any, scale: Any, body: Any) -> Any:
        q, k = kind(q, k)
        return jnp.mean(logsumexp_pairs(q, k, scale=scale, normalize=True, body=body, **ids))

    def among(q: Any, k: Any, scale: Any, body: Any) -> Any:
        views = tuple(kind(q, k))
        found = logsumexp_among(views, scale=scale, normalize=True, body=body)
        return sum(map(jnp.mean, found))

    def softplus(q: Any, k: Any, scale: Any, body: Any) -> Any:
        q, k = kind(q, k)
        return jnp.mean(softplus_pairs(q, k, scale=scale, normalize=True, body=body))

    def largest(q: Any, k: Any, scale: Any, body: Any) -> Any:
        q, k = kind(q, k)
        return jnp.mean(max_pairs(q, k, scale=scale, normalize=True, body=body, **ids))

    found = {"pairs": pairs, "both": both, "among": among, "softplus": softplus, "max": largest}
    if jax.default_backend() == "tpu":  # whose kernels make log-sum-exps alone
        found = {name: found[name] for name in ("pairs", "both", "among")}
    return found


def training_right(sizes: Sizes) -> list[Item]:
    """Twenty steps beside the CPU's, many steps in a call, and a run that goes on."""
    return [
        Item(RIGHT, "20 steps of SimCLR beside the CPU", beside_cpu, 240),
        Item(RIGHT, "ten steps in a call beside one", many_in_a_call, 240),
        Item(RIGHT, "stopped and resumed", resumed, 240),
    ]


def short(per_call: int, sizes: Sizes) -> Experiment:
    """SimCLR for twenty steps, each logged where calls take one."""
    side, width, stages = sizes.short
    return Experiment(
        method=SimCLR(
            augment=simclr(side, strength=0.5, blur=0.0),
            encoder=ResNet(10, width=width, stem="cifar", stages=stages, zero_init=False),
            projector=MLP((0,), 32, final_norm="affine"),
            temperature=0.5,
        ),
        data=Data(noise(CALL * BATCH, side), batch_size=BATCH, road="resident"),
        optim=SGD(lr=0.05, epochs=STEPS // CALL, warmup_epochs=1),
        train=Train(
            log_every=per_call,
            save_every=CALL,
            steps_per_call=per_call,
            tensorboard=False,
            devices=1,
        ),
        probe=Probe(every=0),
    )


def train(folder: Path, per_call: int, sizes: Sizes) -> tuple[list[float], Any]:
    """Losses and the state after the last step."""
    with jax.default_matmul_precision("highest"):
        outcome = fit(short(per_call, sizes), folder)
    return [row["loss"] for row in read_metrics(folder) if row["kind"] == "train"], outcome.state


class Reference:
    """The CPU's losses, made by a process of its own while the card is busy with other things."""

    def __init__(self, folder: Path, rehearse: bool) -> None:
        self.file = folder / "reference.json"
        if self.file.exists():
            return
        environment = os.environ | {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": ""}
        command = [sys.executable, str(Path(__file__).parents[1] / "accelerator.py")]
        command += ["--group", "reference", "--out", str(folder), "--parent", str(os.getpid())]
        self.process = subprocess.Popen(
            command + ["--rehearse"] * rehearse,
            env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def losses(self) -> list[float]:
        """Waits for them."""
        if not self.file.exists():
            self.process.wait()
        if not self.file.exists():
            raise Absent("the CPU's process gave no losses")
        found: list[float] = json.loads(self.file.read_text())
        return found


def write_reference(folder: Path, sizes: Sizes) -> None:
    """What the process of `Reference` does."""
    with tempfile.TemporaryDirectory() as runs:
        losses, _ = train(Path(runs) / "run", 1, sizes)
    part = folder / "reference.part"
    part.write_text(json.dumps(losses))
    part.replace(folder / "reference.json")


def beside_cpu(session: Session) -> dict[str, Any]:
    """Losses of the same steps here and on the CPU."""
    with session.own_log(), tempfile.TemporaryDirectory() as runs:
        found, _ = train(Path(runs) / "run", 1, session.sizes)
    expected = session.known["reference"].losses()
    relative = np.abs(np.array(found) - expected) / np.abs(expected)
    figures = {
        "checked": len(found),
        "largest difference": float(relative.max()),
        "of the first five": float(relative[:5].max()),
    }
    if not (relative[:5].max() <= FIRST and relative.max() <= ALL):
        raise Wrong(figures, f"beyond {FIRST} in the first five steps or {ALL} in twenty")
    return figures


def many_in_a_call(session: Session) -> dict[str, Any]:
    """Means of ten losses by ten steps in a compiled call, and by one."""
    with session.own_log(), tempfile.TemporaryDirectory() as runs:
        one, _ = train(Path(runs) / "one", 1, session.sizes)
        many, _ = train(Path(runs) / "many", CALL, session.sizes)
    means = np.array(one).reshape(-1, CALL).mean(axis=1)
    relative = np.abs(means - many) / means
    figures = {"checked": len(many), "largest difference": float(relative.max())}
    if not relative.max() <= ALL:
        raise Wrong(figures, f"beyond {ALL}")
    return figures


def resumed(session: Session) -> dict[str, Any]:
    """A run whose second half is trained again from the checkpoint of the first."""
    with session.own_log(), tempfile.TemporaryDirectory() as runs:
        run = Path(runs) / "run"
        _, straight = train(run, CALL, session.sizes)
        shutil.rmtree(run / "checkpoints" / str(STEPS))
        assert int(load(run).state.step) == STEPS - CALL
        _, again = train(run, CALL, session.sizes)
    pairs = list(zip(jax.tree.leaves(straight), jax.tree.leaves(again), strict=True))
    unequal = sum(np.asarray(a).tobytes() != np.asarray(b).tobytes() for a, b in pairs)
    figures = {"checked": len(pairs), "arrays with other bits": unequal}
    if unequal:
        raise Wrong(
            figures, "kernels whose sums have no fixed order? XLA_FLAGS=--xla_gpu_deterministic_ops"
        )
    return figures
