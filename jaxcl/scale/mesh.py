"""The devices as one axis, `data`, over which the rows of a batch are spread."""

from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxcl.errors import UserError


def data_mesh(count: int = 0) -> Mesh:
    """A mesh of one axis `data` over the first `count` devices; 0: over all of them.

    Raises:
      UserError: there are fewer devices, or one of several processes is left without any.
    """
    devices: Sequence[jax.Device] = jax.devices()
    if count > len(devices):
        raise UserError(f"train.devices={count}, but there are {len(devices)}; use 0 for all")
    chosen = devices[: count or None]
    without = set(range(jax.process_count())) - {device.process_index for device in chosen}
    if without:
        raise UserError(
            f"train.devices={count} leaves process {min(without)} of {jax.process_count()} without "
            "a device; use 0 for all"
        )
    return Mesh(np.array(chosen), ("data",), axis_types=(AxisType.Auto,))


def local_mesh() -> Mesh:
    """A mesh of one axis `data` over the first of this process's own devices."""
    return Mesh(np.array(jax.local_devices()[:1]), ("data",), axis_types=(AxisType.Auto,))


def platform() -> str:
    """What the program being traced will run on: the mesh in force, or else jax's default.

    The devices of a mesh need not be there: a program can be compiled for a pod on a laptop.
    """
    device = jax.sharding.get_abstract_mesh().abstract_device
    if device is None:
        return jax.default_backend()
    return "gpu" if device.platform == "cuda" else str(device.platform)  # what absent ones say


def rows_split(mesh: Mesh) -> NamedSharding:
    """Leading axis over the devices."""
    return NamedSharding(mesh, PartitionSpec("data"))


def replicated(mesh: Mesh) -> NamedSharding:
    """The same on every device."""
    return NamedSharding(mesh, PartitionSpec())
