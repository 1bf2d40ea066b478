"""The mesh's devices decide what a program is traced for, whether they are here or not."""

import jax
import pytest
from jax.sharding import AbstractDevice, AbstractMesh, AxisType, use_abstract_mesh

from jaxcl.errors import UserError
from jaxcl.scale import data_mesh, platform


def test_without_a_mesh_and_with_one_of_this_machine():
    assert platform() == jax.default_backend() == "cpu"
    with jax.set_mesh(data_mesh(2)):
        assert platform() == "cpu"


def test_devices_that_are_not_here():
    chip = AbstractDevice("TPU v5 lite", 1, "tpu")
    there = AbstractMesh((4,), ("data",), (AxisType.Auto,), abstract_device=chip)
    with use_abstract_mesh(there):
        assert platform() == "tpu"


def test_more_devices_than_there_are():
    with pytest.raises(UserError, match=r"train\.devices=9, but there are 8; use 0 for all"):
        data_mesh(9)
