"""Forward and backward pass of encoders beside torch's: time and memory.

    python benchmarks/encoders.py                                  # on the default device
    python benchmarks/encoders.py --encoders minilm --batch 32
    python benchmarks/encoders.py --dtype bfloat16 --batch 256     # for a GPU

The gradient of the sum of squared features with respect to all parameters, batch norm in training,
no dropout. Every measurement has a process of its own: time is the best of the rounds, by the clock
and of the processor (which other work on the machine changes less; torch's threads spend it waiting
too, unless OMP_NUM_THREADS=1 leaves it one), memory what the process grew by at most after the
parameters were there (on a GPU, the device's peak). torch
takes part where torchvision, timm and transformers are installed; on a GPU it runs compiled and
with channels last.
"""

import json
import resource
import subprocess
import sys
import time
import types
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import tyro

ENCODERS = ("resnet18", "resnet50", "vit_s16", "minilm")
TOKENS = 64


@dataclass(frozen=True)
class Options:
    """What to measure."""

    encoders: tuple[Literal["resnet18", "resnet50", "vit_s16", "minilm"], ...] = ENCODERS
    """Which; all-MiniLM's size is 6 layers of width 384."""
    batch: int = 8
    """Images of 224x224, or sentences of 64 tokens."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the computation."""
    rounds: int = 5
    """Of which the best counts."""
    library: Literal["both", "jax", "torch"] = "both"
    """Which side."""


def main(options: Options) -> None:
    """Prints a table, or the figures of one measurement as JSON."""
    if options.library != "both":
        measure = jax_figures if options.library == "jax" else torch_figures
        print(json.dumps(measure(options)))
        return
    print(f"batch {options.batch}, {options.dtype}")
    for name in options.encoders:
        found = {
            lib: alone(replace(options, encoders=(name,), library=lib)) for lib in ("jax", "torch")
        }
        for library, figures in found.items():
            if figures is None:
                print(f"  {name:10s}{library:8s} could not be measured")
                continue
            print(
                f"  {name:10s}{library:8s}{figures['seconds']:9.3f} s"
                f"{figures['processor']:9.3f} s of processor"
                f"{figures['mib']:9,.0f} MiB   {figures['versions']}"
            )
        if all(found.values()):
            clock, work = (
                found["torch"][key] / found["jax"][key] for key in ("seconds", "processor")
            )
            print(f"  {name:10s}torch / jax: {clock:.2f}, by processor time {work:.2f}")


def alone(options: Options) -> Any:
    """The figures of one measurement, made in a process of its own."""
    command = [
        sys.executable, __file__, "--encoders", *options.encoders, "--batch", str(options.batch),
        "--dtype", options.dtype, "--rounds", str(options.rounds), "--library", options.library,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"  ({done.stderr.strip().splitlines()[-1]})")
        return None
    return json.loads(done.stdout.splitlines()[-1])


def inputs(name: str, batch: int) -> Any:
    rng = np.random.default_rng(0)
    if name == "minilm":
        return rng.integers(0, 30_000, (batch, TOKENS)).astype(np.int32)
    return rng.normal(size=(batch, 224, 224, 3)).astype(np.float32)


def jax_figures(options: Options) -> dict[str, Any]:
    import jax
    import jax.numpy as jnp

    from jaxcl.encoders import BERT, ResNet, forward, initialise, vit

    (name,) = options.encoders
    encoder = {
        "resnet18": lambda: ResNet(18, dtype=options.dtype),
        "resnet50": lambda: ResNet(50, dtype=options.dtype),
        "vit_s16": lambda: vit("S/16", dtype=options.dtype),
        "minilm": lambda: BERT(
            width=384, depth=6, heads=12, mlp=1536, dropout=0.0, attention_dropout=0.0,
            dtype=options.dtype,
        ),
    }[name]()  # fmt: skip
    x = jnp.asarray(inputs(name, options.batch))
    x = {"ids": x, "mask": jnp.ones(x.shape, bool)} if name == "minilm" else x
    params, stats = jax.jit(lambda x: initialise(encoder, jax.random.key(0), x))(x)

    def loss(params: Any, stats: Any, x: Any) -> Any:
        outputs, new = forward(encoder, params, stats, x, train=True)
        return jnp.sum(outputs["features"] ** 2), new

    step = jax.jit(jax.value_and_grad(loss, has_aux=True)).lower(params, stats, x).compile()
    run = lambda: jax.block_until_ready(step(params, stats, x))
    device = jax.devices()[0]
    peak = None
    if device.platform != "cpu":
        peak = lambda: device.memory_stats()["peak_bytes_in_use"]
    return figures(run, options.rounds, f"jax {jax.__version__}", peak)


def torch_figures(options: Options) -> dict[str, Any]:
    import torch

    sys.modules["torchvision._meta_registrations"] = types.ModuleType(
        ""
    )  # may be for another torch
    gpu = torch.cuda.is_available()
    device = "cuda" if gpu else "cpu"
    (name,) = options.encoders
    x: Any = torch.tensor(inputs(name, options.batch), device=device)
    if name == "minilm":
        from transformers import BertConfig, BertModel

        config = BertConfig(
            hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536,
            hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
        )  # fmt: skip
        model: Any = BertModel(config, add_pooling_layer=False)
        features = lambda: model(x.long()).last_hidden_state[:, 0]
    else:
        import timm

        names = {"vit_s16": "vit_small_patch16_224"}
        model = timm.create_model(names.get(name, name), num_classes=0)
        x = x.permute(0, 3, 1, 2)
        if gpu:
            x = x.contiguous(memory_format=torch.channels_last)
            model = model.to(memory_format=torch.channels_last)
        features = lambda: model(x)
    model.to(device).train()
    if gpu:
        model.compile()
    half = options.dtype == "bfloat16"

    def run() -> None:
        model.zero_grad()
        with torch.autocast(device, torch.bfloat16, enabled=half):
            value = features().float().pow(2).sum()
        value.backward()
        if gpu:
            torch.cuda.synchronize()

    peak = torch.cuda.max_memory_allocated if gpu else None
    return figures(run, options.rounds, f"torch {torch.__version__}", peak)


def figures(
    run: Callable[[], Any], rounds: int, versions: str, peak: Callable[[], int] | None
) -> dict[str, Any]:
    grown = lambda: 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    before = grown()
    run()
    times = []
    for _ in range(rounds):
        start, work = time.perf_counter(), time.process_time()
        run()
        times.append((time.perf_counter() - start, time.process_time() - work))
    memory = peak() if peak else grown() - before
    seconds, processor = (min(kind) for kind in zip(*times, strict=True))
    return {
        "seconds": seconds,
        "processor": processor,
        "mib": memory / 2**20,
        "versions": versions,
    }


if __name__ == "__main__":
    main(tyro.cli(Options))
