"""Eight CPU devices, the persistent compilation cache, and where real data may lie."""

import os
import signal
from importlib.metadata import version
from pathlib import Path

# Compiling is most of what the suite does, so it is done with as little optimisation as there is.
# jax 0.10 has an older code generator beside its own, which takes half the time, and does not
# compute the shared terms of a long chain again and again: with the newer one, the augmentations
# of up to eight images a device take 0.3 s a step, or 25 s without optimisation. jax 0.12 does not.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0 "
    "--xla_cpu_parallel_codegen_split_count=1"
    + (" --xla_cpu_use_fusion_emitters=false" if version("jaxlib").startswith("0.10.") else ""),
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# The workers are what is parallel: scikit-learn's threads would wait for each other, spinning.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import jax
import pytest

jax.config.update("jax_compilation_cache_dir", str(Path(__file__).parents[1] / ".jax_cache"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)

REAL_DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real data beside the checkout; skips where it is absent."""
    if not REAL_DATA.is_dir():
        pytest.skip(f"no real data at {REAL_DATA}")
    return REAL_DATA


SLOW = ("test_resume.py", "test_devices.py", "test_programs.py", "test_loop.py")
"""Files of whole runs. They start first, so that no worker is left alone with them at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {name: place for place, name in enumerate(SLOW)}
    items.sort(key=lambda item: places.get(item.path.name, len(SLOW)))
    for item in items:
        if item.path.name in places:
            item.add_marker("slow")


@pytest.fixture
def ctrl_c():
    """Ctrl-C is heard, also by a suite in the background, whose shell has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def x64():
    """Numbers without a type have 64 bits, as under JAX_ENABLE_X64=1, in every thread.

    `jax.enable_x64` as a context would reach this thread alone, and a run has others.
    """
    jax.clear_caches()  # among them constants that were cut to 32 bits before
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


@pytest.fixture
def tpu(monkeypatch):
    """From a topology's name, one of its chips, which need not be there: libtpu compiles for it."""
    pytest.importorskip("libtpu")
    from jax.experimental import topologies

    monkeypatch.setenv("TPU_SKIP_MDS_QUERY", "1")  # there is no machine to ask about its chips
    monkeypatch.setenv("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # nor one to fight over
    # A program for a machine that is not there can be kept on disk, but not read back.
    name = "jax_persistent_cache_min_compile_time_secs"
    before = getattr(jax.config, name)
    jax.config.update(name, 1e9)
    yield lambda chip: topologies.get_topology_desc(chip, platform="tpu").devices[0]
    jax.config.update(name, before)
