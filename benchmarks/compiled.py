"""What compilers make of losses and of whole steps for chips that are not here.

    pip install --no-deps libtpu                # the version that jax[tpu] names
    pip install --no-deps jax-cuda12-pjrt jax-cuda12-plugin nvidia-cuda-nvcc-cu12    # as jaxlib's
    python benchmarks/compiled.py               # for all chips whose compiler is installed
    python benchmarks/compiled.py --chips H200 --rows 16384 --width 128 --dtype float32
    python benchmarks/compiled.py --chips H100 v5e --programs cifar imagenet dino minilm views

losses: CLIP's, value and gradients of both sides and the scale. Temporary memory is the compiler's
figure and holds the float32 gradients of all rows while they are summed. The other programs are
those of `card/programs.py`, at a card's sizes; `card/program_text.py` reads what came of them. Each
is compiled in a process of its own, since a compiler that gives up takes the process along. Nothing
runs, so nothing is timed; nor can a GPU's compiler try which of a library's functions is fastest.
"""

# ruff: noqa: E402 (compilers read the environment when jax is imported)

import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

FOLDER = tempfile.TemporaryDirectory()  # goes with the process
DUMP = Path(FOLDER.name)
os.environ |= {
    "JAX_PLATFORMS": "cpu",
    "JAX_SKIP_CUDA_CONSTRAINTS_CHECK": "1",  # there is no driver whose version could be wrong
    "TPU_SKIP_MDS_QUERY": "1",  # and no machine to ask about its chips
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "XLA_FLAGS": os.environ.get("XLA_FLAGS", "")
    + f" --xla_gpu_autotune_level=0 --xla_dump_to={DUMP} --xla_dump_emitter_re=ptx",
}

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from card import programs
from card.program_text import lines, read_program
from card.sizes import CARD
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh

from jaxcl.encoders import attention
from jaxcl.similarity import logsumexp_both

MIB = 2**20
Chip = Literal["H100", "H200", "v5e", "v5p", "v6e"]
Name = Literal["losses", "cifar", "imagenet", "dino", "minilm", "views"]
TPU = {"v5e": "v5e:2x2", "v5p": "v5p:2x2x1", "v6e": "v6e:2x2"}
GPU = {"H100": (3.35e12, 85_520_809_984), "H200": (4.8e12, 150_754_820_096)}
"""Bytes a second, and in all."""
HOPPER = """
gpu_device_info {{
  threads_per_block_limit: 1024  threads_per_warp: 32  threads_per_core_limit: 2048
  shared_memory_per_block: 49152  shared_memory_per_block_optin: 232448
  shared_memory_per_core: 233472  registers_per_core_limit: 65536  registers_per_block_limit: 65536
  core_count: 132  fpus_per_core: 128  clock_rate_ghz: 1.98  l2_cache_size: 52428800
  block_dim_limit_x: 2147483647  block_dim_limit_y: 65535  block_dim_limit_z: 65535
  memory_bandwidth: {bandwidth:.0f}  device_memory_size: {memory}
  cuda_compute_capability {{ major: 9 }}
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 7 }}
runtime_version {{ major: 12 minor: 8 }}
device_description_str: "NVIDIA {name}"
"""


@dataclass(frozen=True)
class Options:
    """What to compile."""

    chips: tuple[Chip, ...] = ("H100", "H200", "v5e", "v5p", "v6e")
    """For which."""
    programs: tuple[Name, ...] = ("losses",)
    """Which programs."""
    depth: int = 0
    """Layers of both ResNets; 0: 18 for CIFAR-10 and 50 for ImageNet."""
    stages: int = 4
    """Stages of ImageNet's ResNet."""
    blocks: int = 0
    """Blocks of the vision transformer and layers of the sentence encoder; 0: all."""
    batch: int = 0
    """Images of a training step; 0: as on a card."""
    flash: bool = True
    """Attention through cuDNN where a GPU has it; False: through XLA."""
    keep: Path | None = None
    """Folder for the texts of the programs; None: they are not kept."""
    rows: int = 65536
    """Of either side."""
    width: int = 512
    """Numbers in a row."""
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    """Of the rows."""


def main(options: Options) -> int:
    """Prints what comes of each program for each chip; 1 where nothing was compiled."""
    print(f"jax {jax.__version__}", flush=True)
    done = 0
    for chip in options.chips:
        try:
            device_of(chip)
        except RuntimeError as error:
            print(f"  {chip}: no compiler for it here ({str(error).splitlines()[0]})")
            continue
        if "losses" in options.programs:
            print(f"  {options.rows:,} x {options.width} {options.dtype} twice", flush=True)
            for body in ("blocked", "gpu" if chip in GPU else "tpu"):
                done += apart(f"{chip:5s}{body}", show_loss, chip, body, options)
        for number, program in enumerate(whole_programs(options)):
            done += apart(f"{chip:5s}{program.name}", show_program, chip, number, options)
    return 0 if done else 1


def apart(name: str, show: Callable[..., None], *arguments: Any) -> bool:
    """Runs it in a process of its own; whether it came to an end."""
    process = multiprocessing.get_context("spawn").Process(target=show, args=arguments)
    process.start()
    process.join()
    if process.exitcode:
        print(f"  {name}: the compiler gave up ({process.exitcode})", flush=True)
    return not process.exitcode


def whole_programs(options: Options) -> list[programs.Program]:
    """Those asked for, at a card's sizes but for what the options say."""
    sizes = replace(
        CARD,
        depth=options.depth or CARD.depth,
        stages=options.stages,
        small_depth=options.depth or CARD.small_depth,
        vit_depth=options.blocks or CARD.vit_depth,
        bert=(CARD.bert[0], options.blocks or CARD.bert[1], CARD.bert[2]),
    )
    batches = {"cifar": sizes.cifar, "imagenet": sizes.imagenet[:1], "dino": (sizes.dino,)}
    made: list[programs.Program] = []
    for name in options.programs:
        if name in batches:
            counts = (options.batch,) if options.batch else batches[name]
            made += [programs.step(name, sizes, batch) for batch in counts]
        elif name == "minilm":
            made.append(programs.minilm(sizes))
        elif name == "views":
            made += [programs.views(small, sizes) for small in (True, False)]
    return made


def show_program(chip: Chip, number: int, options: Options) -> None:
    """Compiles one program and prints the compiler's figures and what its text says."""
    take_up_assembler()
    take_cudnn_as_given()
    attention.FLASH = options.flash
    program = whole_programs(options)[number]
    start = time.perf_counter()
    compiled = program.lower(device_of(chip)).compile()
    took = time.perf_counter() - start
    text = compiled.as_text()
    if options.keep is not None:
        options.keep.mkdir(parents=True, exist_ok=True)
        (options.keep / f"{chip} {program.name}.txt").write_text(text)
    memory, cost = compiled.memory_analysis(), compiled.cost_analysis() or {}
    says = [
        f"temporaries {memory.temp_size_in_bytes / MIB:,.0f} MiB, "
        f"arguments {memory.argument_size_in_bytes / MIB:,.0f} MiB, compiled in {took:.0f} s"
    ]
    if "flops" in cost:
        moved = cost["bytes accessed"] / MIB
        says[0] += f"; by its own count {cost['flops'] / 1e9:,.1f} GFLOP, {moved:,.0f} MiB accessed"
    says += lines(read_program(text))
    if chip in GPU:
        says.append(spills())
    print(f"  {chip:5s}{program.name}", *says, sep="\n    ", flush=True)


def device_of(chip: Chip) -> Any:
    """One chip of the kind, as the compiler knows it."""
    if chip in TPU:
        return topologies.get_topology_desc(TPU[chip], platform="tpu").devices[0]
    bandwidth, memory = GPU[chip]
    kind = HOPPER.format(bandwidth=bandwidth, memory=memory, name=chip)
    topology = topologies.get_topology_desc(platform="cuda", target_config=kind, topology="1x1x1")
    return topology.devices[0]


def show_loss(chip: Chip, body: Any, options: Options) -> None:
    """Compiles the loss and prints its memory, and what kernels of a GPU use."""
    take_up_assembler()
    device = device_of(chip)
    place = jax.sharding.SingleDeviceSharding(device)
    rows = jax.ShapeDtypeStruct((options.rows, options.width), options.dtype, sharding=place)

    scale = jax.ShapeDtypeStruct((), jnp.float32, sharding=place)

    def loss(a: Any, b: Any, scale: Any) -> Any:
        ids = jnp.arange(len(a))
        sums = logsumexp_both(a, b, scale=scale, q_ids=ids, k_ids=ids, normalize=True, body=body)
        return sum(map(jnp.mean, sums))

    for old in DUMP.glob("*.ptx"):
        old.unlink()
    start = time.perf_counter()
    with jax.set_mesh(Mesh(np.array([device]), ("data",), axis_types=(AxisType.Auto,))):
        step = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2)))
        platform = "tpu" if device.platform == "tpu" else "cuda"
        program = step.trace(rows, rows, scale).lower(lowering_platforms=(platform,)).compile()
    took = time.perf_counter() - start
    memory = program.memory_analysis().temp_size_in_bytes / MIB
    more = kernels() if body == "gpu" else ""
    print(f"  {chip:5s}{body:9s}{memory:10,.0f} MiB, compiled in {took:.1f} s{more}", flush=True)


def kernels() -> str:
    """What the kernels over pairs use, from the assembler."""
    used, spilled, tensor_cores = [], 0, 0
    for path in DUMP.glob("*.ptx"):
        text = path.read_text()
        if "visit_block" not in text:
            continue
        said = assembled(path)
        used += [int(count) for count in re.findall(r"Used (\d+) registers", said)]
        spilled += sum(int(count) for count in re.findall(r"(\d+) bytes spill stores", said))
        tensor_cores += "wgmma" in text
    if not used:
        return "; no kernel was found, or no assembler"
    return (
        f"; {len(used)} kernels, {min(used)} to {max(used)} registers, {spilled} bytes spilled, "
        f"{tensor_cores} on tensor cores"
    )


def spills() -> str:
    """Which of a program's kernels keep registers in memory, from the assembler."""
    said = "".join(map(assembled, DUMP.glob("*.ptx")))
    found = re.findall(r"Function properties for (\S+)\n.*?(\d+) bytes spill stores", said)
    over = sorted(((int(count), name) for name, count in found if int(count)), reverse=True)
    some = ", ".join(f"{name} {count}" for count, name in over[:4])
    return f"{len(over)} of {len(found)} kernels spill" + (
        f" (bytes a thread: {some})" if some else ""
    )


def assembled(path: Path) -> str:
    """What the assembler says of a file of kernels."""
    return subprocess.run(
        ["ptxas", "-v", "-arch=sm_90a", path, "-o", os.devnull],
        capture_output=True, text=True, check=False,
    ).stderr  # fmt: skip


def take_up_assembler() -> None:
    """The folder of `ptxas`, and a platform's name that jax only knows where there is a GPU."""
    import jax._src.xla_bridge as bridge

    for folder in map(Path, sys.path):
        for assembler in folder.glob("nvidia/*/bin/ptxas"):
            os.environ["PATH"] = f"{assembler.parent}:{os.environ['PATH']}"
    known = bridge.canonicalize_platform

    def canonical(platform: str) -> str:
        return "cuda" if platform == "gpu" else known(platform)

    bridge.canonicalize_platform = canonical


def take_cudnn_as_given() -> None:
    """jax asks the library for its version; a program is compiled without it."""
    import jax._src.cudnn.fused_attention_stablehlo as fused_attention

    fused_attention.check_cudnn_version = lambda: 90700


if __name__ == "__main__":
    take_up_assembler()
    raise SystemExit(main(tyro.cli(Options)))
