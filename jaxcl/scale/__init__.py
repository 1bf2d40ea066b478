"""Devices: the mesh, how arrays lie on it, and the processes that share it."""

from jaxcl.scale.mesh import data_mesh, local_mesh, platform, replicated, rows_split
from jaxcl.scale.processes import ProcessGroup, join, join_found, process_group

__all__ = [
    "ProcessGroup",
    "data_mesh",
    "join",
    "join_found",
    "local_mesh",
    "platform",
    "process_group",
    "replicated",
    "rows_split",
]
