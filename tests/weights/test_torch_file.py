"""The two files in fixtures/ were written by torch 2.13: `torch.save` of the dict that is expected
below with an `argparse.Namespace` beside it; the second in the format from before torch 1.6."""

import os
import pickle
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from jaxcl import UserError
from jaxcl.weights import read_tensors
from jaxcl.weights.torch_file import read_torch, write_torch

FIXTURES = Path(__file__).parent / "fixtures"
FILES = [FIXTURES / "torch.pth", FIXTURES / "torch_before_1_6.pth"]
EXPECTED = {
    "a": np.arange(12, dtype=np.float32).reshape(3, 4).T,  # strides of a transposed view
    "b": np.array([1.5, -2.0], np.float32),
    "c": np.array(7),
    "d": np.array([[0.5, -1.0]], np.float16),
    "e": np.array([3.0, 0.25], ml_dtypes.bfloat16),
    "f": np.array([2, 4, 6]),  # an offset and a step
    "g": np.zeros((0, 3), np.float32),
    "h": np.array([True, False]),
}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_reads_what_torch_wrote(file):
    found = read_torch(file)
    assert found["epoch"] == 3
    assert found["args"] == {}
    assert found["state_dict"].keys() == EXPECTED.keys()
    for name, array in EXPECTED.items():
        assert found["state_dict"][name].dtype == array.dtype
        np.testing.assert_array_equal(found["state_dict"][name], array)
    wide = read_tensors(file)
    assert wide["d"].dtype == wide["e"].dtype == np.float32


def test_reads_tensors_beside_what_trainers_leave():
    """make_fixtures_torch.py says what is in the file."""
    found = read_torch(FIXTURES / "torch_trainer.pth")
    weight = np.arange(6, dtype=np.float32).reshape(2, 3)
    for name in ("weight", "parameter"):
        np.testing.assert_array_equal(found["state_dict"][name], weight)
    momentum = found["optimizer"]["state"][0]["momentum_buffer"]
    np.testing.assert_array_equal(momentum, np.ones((2, 3), np.float32))
    assert found["epoch"] == 3 and found["schedule"]["milestones"] == {1: 1, 2: 1}
    assert found["hyper_parameters"] == found["best"] == found["args"] == {}
    assert found["callbacks"]["ModelCheckpoint"]["best"] == 1.0
    assert read_tensors(FIXTURES / "torch_trainer.pth").keys() == {"weight", "parameter"}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_file_cut_short_is_refused(file, tmp_path):
    whole = file.read_bytes()
    for length in (1, 30, len(whole) // 2, len(whole) - 30):
        (tmp_path / "cut.pth").write_bytes(whole[:length])
        with pytest.raises(UserError, match="no whole torch file"):
            read_torch(tmp_path / "cut.pth")


class Harmful:
    def __init__(self, function, argument):
        self.call = function, (argument,)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("function", [os.mkdir, eval, os.system])
@pytest.mark.parametrize("kind", ["zip", "plain"])
def test_code_in_a_file_is_refused_and_not_run(tmp_path, function, kind):
    trace = tmp_path / "trace"
    argument = str(trace) if function is os.mkdir else f"__import__('os').mkdir('{trace}')"
    argument = f"mkdir {trace}" if function is os.system else argument
    codes = pickle.dumps({"state_dict": {"w": Harmful(function, argument)}}, protocol=2)
    file = tmp_path / "harmful.pth"
    if kind == "zip":
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("archive/data.pkl", codes)
    else:
        file.write_bytes(codes)
    with pytest.raises(UserError, match=r"more than tensors: it names .*, which is not run"):
        read_torch(file)
    assert not trace.exists()


def test_a_tensor_beyond_its_numbers_is_refused(tmp_path):
    """A stride that would read other memory."""
    write_torch(tmp_path / "w.pth", {"w": np.ones((2, 3), np.float32)})
    with zipfile.ZipFile(tmp_path / "w.pth") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    stride = lambda n: b"\x8a\x09" + n.to_bytes(9, "little")
    codes = members["archive/data.pkl"]
    tampered = codes.replace(stride(3) + stride(1), stride(3000) + stride(1))
    assert tampered != codes
    with zipfile.ZipFile(tmp_path / "bad.pth", "w") as archive:
        for name, data in members.items():
            archive.writestr(name, tampered if name.endswith("data.pkl") else data)
    with pytest.raises(UserError, match="reaches beyond its numbers"):
        read_torch(tmp_path / "bad.pth")


def test_what_is_written_is_read_back(tmp_path):
    write_torch(tmp_path / "w.pth", EXPECTED)
    again = read_torch(tmp_path / "w.pth")
    for name, array in EXPECTED.items():
        assert again[name].dtype == array.dtype
        np.testing.assert_array_equal(again[name], array)


def test_torch_opens_what_is_written(tmp_path):
    torch = pytest.importorskip("torch")
    write_torch(tmp_path / "w.pth", EXPECTED)
    opened = torch.load(tmp_path / "w.pth", weights_only=True)
    for name, array in EXPECTED.items():
        np.testing.assert_array_equal(opened[name].double().numpy(), array.astype(float))
