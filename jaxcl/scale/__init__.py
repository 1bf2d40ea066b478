"""Devices: the mesh, and how arrays lie on it."""

from jaxcl.scale.mesh import data_mesh, platform, replicated, rows_split

__all__ = ["data_mesh", "platform", "replicated", "rows_split"]
