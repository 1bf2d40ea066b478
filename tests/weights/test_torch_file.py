"""The two files in fixtures/ were written by torch 2.13: `torch.save` of the dict that is expected
below with an `argparse.Namespace` beside it; the second in the format from before torch 1.6."""

import os
import pickle
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from jaxcl import UserError, reading
from jaxcl.weights import pickles, read_tensors
from jaxcl.weights import torch_file as torch_file_module
from jaxcl.weights.torch_file import DTYPES, read_torch, write_torch

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

NUMBERS = np.arange(6, dtype=np.float32)


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


def rebuilt(size, stride, offset=0):
    """A torch file's pickle of a tensor over the numbers of the storage "0"."""
    make = Named("torch._utils", "_rebuild_tensor_v2")
    return Reduced(make, (Stored(), offset, size, stride, False, None))


class Named:
    def __init__(self, module, name):
        self.module, self.name = module, name


class Reduced:
    def __init__(self, function, arguments):
        self.call = function, arguments


class Stored:
    """The storage "0", of float32."""


def pickled(value):
    """A pickle of plain values and of the above, written step by step."""
    if isinstance(value, Named):
        return f"c{value.module}\n{value.name}\n".encode()
    if isinstance(value, Reduced):
        return pickled(value.call[0]) + pickled(value.call[1]) + b"R"
    if isinstance(value, Stored):
        return pickled(("storage", Named("torch", "FloatStorage"), "0", "cpu", 6)) + b"Q"
    if isinstance(value, tuple):
        return b"(" + b"".join(map(pickled, value)) + b"t"
    if isinstance(value, dict):
        return b"}(" + b"".join(pickled(x) for item in value.items() for x in item) + b"u"
    return pickle.dumps(value, protocol=2)[2:-1]


def torch_file(path, codes, numbers=NUMBERS):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + codes + b".")
        archive.writestr("archive/data/0", numbers.tobytes())
    return path


@pytest.mark.parametrize(
    ("size", "stride", "offset", "message"),
    [
        ((2, 2), (-8, 1), 0, "negative"),  # returned numbers from before the storage
        ((2, 2), (2, -1), 1, "negative"),
        ((2, 2), (-(10**10), 1), 10**10, "negative"),
        ((2, -2), (2, 1), 0, "negative"),
        ((2,), (1,), -1, "negative"),
        ((2, 2), (10**10, 1), 0, "reaches beyond"),
        ((2, 3), (3, 2), 0, "reaches beyond"),
        ((6,), (1,), 1, "reaches beyond"),
        ((2, 3), (1,), 0, "2 dimensions and 1 strides"),
        ((2, 2.0), (1, 1), 0, "negative|float"),
        ((10**6, 10**6), (0, 0), 0, "the limit is"),  # one number, 4 TB of copies
    ],
)
def test_every_end_of_every_stride_lies_in_the_storage(size, stride, offset, message, tmp_path):
    file = torch_file(tmp_path / "w.pth", pickled({"w": rebuilt(size, stride, offset)}))
    with pytest.raises(UserError, match=message):
        read_torch(file)


def test_strides_within_the_storage_are_followed(tmp_path):
    """Offsets, steps, transposes and repeated rows, as NumPy's indexing gives them."""
    views = {
        "a": (rebuilt((2, 3), (3, 1)), NUMBERS.reshape(2, 3)),
        "b": (rebuilt((3, 2), (1, 3)), NUMBERS.reshape(2, 3).T),
        "c": (rebuilt((2,), (4,), 1), NUMBERS[[1, 5]]),
        "d": (rebuilt((4, 3), (0, 1), 3), np.tile(NUMBERS[3:], (4, 1))),
        "e": (rebuilt((), (), 2), NUMBERS[2]),
    }
    codes = pickled({name: view for name, (view, _) in views.items()})
    found = read_torch(torch_file(tmp_path / "w.pth", codes))
    for name, (_, expected) in views.items():
        np.testing.assert_array_equal(found[name], expected)


@pytest.mark.parametrize("state", [{"__defaults__": (1,)}, (None, {"__kwdefaults__": {"a": 1}})])
@pytest.mark.parametrize(
    "name", ["torch._utils _rebuild_tensor_v2", "collections OrderedDict", "torch FloatStorage"]
)
def test_a_file_cannot_change_the_reader(name, state, tmp_path):
    """BUILD sets attributes; on a function of the reader it lasted for all later files."""
    codes = pickled({"x": Named(*name.split())}) + b"0"
    change = pickled(Named(*name.split())) + pickled(state) + b"b0"
    w = pickled({"w": rebuilt((2,), (1,))})
    read_torch(torch_file(tmp_path / "w.pth", codes + change + w))
    for function in vars(torch_file_module).values():
        assert getattr(function, "__defaults__", None) != (1,)
        assert not getattr(function, "__kwdefaults__", None) or "a" not in function.__kwdefaults__
    assert np.dtype(np.float32) == np.dtype("<f4")
    again = read_torch(torch_file(tmp_path / "again.pth", w))
    np.testing.assert_array_equal(again["w"], NUMBERS[:2])


LAUGHS = b"]qd" + b"".join(b"0(h%ch%clq%c" % (i, i, i + 1) for i in range(100, 140))
"""Forty lists, each of them twice the one before."""


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (b"]\x94h\x00a", "nested more than"),  # a list that holds itself
        (b"]" * 99 + b"a" * 98, "nested more than"),
        (b"(" + b"]0" * 600 + b"t", "more than 1,000 steps"),
        (b"\x8a\xff" + b"\x7f" * 255, "2,039 bits"),
        (pickled(Reduced(Named("builtins", "set"), (((((1,),),),),))), "as a key"),
        (b"}((((K\x01tttK\x01u", "as a key"),
        (b"r\xff\xff\xff\xff", "IndexError"),  # memo 4,294,967,295, of an empty stack
        (b"\x82\x01", "a step EXT1"),
        (b"K\x01)R", "calls a int"),
    ],
)
def test_a_pickle_that_asks_for_too_much_is_refused(codes, message, tmp_path, monkeypatch):
    monkeypatch.setattr(pickles, "PICKLE_STEPS", 1000)
    with pytest.raises(UserError, match=f"no whole torch file .*{message}"):
        read_torch(torch_file(tmp_path / "w.pth", codes))


def test_what_a_pickle_shares_is_read_once(tmp_path):
    """2^40 lists where each is read as often as it is named; forty here."""
    codes = pickled({"w": rebuilt((2,), (1,))}) + b"X\x01\x00\x00\x00x" + LAUGHS + b"s"
    found = read_torch(torch_file(tmp_path / "w.pth", codes))
    np.testing.assert_array_equal(found["w"], NUMBERS[:2])


def test_bytes_beyond_the_limit_are_not_unpacked(tmp_path, monkeypatch):
    """4 MiB of zeros in 4 KiB."""
    monkeypatch.setattr(reading, "UNPACKED", 1 << 20)
    zeros = np.zeros(1 << 20, np.float32)
    file = torch_file(tmp_path / "w.pth", pickled({"w": rebuilt((2,), (1,))}), zeros)
    with pytest.raises(UserError, match=r"bytes unpack to 4,194,\d\d\d or more; the limit is"):
        read_torch(file)


@pytest.mark.parametrize("name", ["float8_e4m3fn", "float8_e5m2", "uint16"])
def test_types_without_a_storage_of_their_own(name, tmp_path):
    """Torch writes them as bytes and `_rebuild_tensor_v3`; 8-bit floats come as float32."""
    numbers = np.array([1.0, 2.0, 3.5, 4.0]).astype(DTYPES[name])
    stored = ("storage", Named("torch.storage", "UntypedStorage"), "0", "cpu", numbers.nbytes)
    arguments = (2, (2,), (1,), False, Reduced(Named("collections", "OrderedDict"), ()))
    codes = b"}" + pickled("w") + pickled(Named("torch._utils", "_rebuild_tensor_v3")) + b"("
    codes += pickled(stored) + b"Q" + b"".join(map(pickled, arguments))
    codes += pickled(Named("torch", name)) + b"tRs"
    found = read_tensors(torch_file(tmp_path / "w.pth", codes, numbers))["w"]
    assert found.dtype == (np.uint16 if name == "uint16" else np.float32)
    np.testing.assert_array_equal(found, numbers[2:].astype(found.dtype))


ONE, OTHER = {"w": rebuilt((2,), (1,))}, {"w": rebuilt((2,), (1,), 4)}


@pytest.mark.parametrize(
    "wrapped",
    [
        {"epoch": 3, "net": ONE},
        {"model_state_dict": ONE, "optimizer_state_dict": {"state": {0: OTHER}}},
        {"state_dict_ema": ONE},
        {"state_dict": ONE, "state_dict_ema": OTHER},
        {"checkpoint": {"epoch": 3, "model": {"net": ONE}}},
        {"weights_of_mine": ONE, "optimizer": {"state": {0: OTHER}, "w": OTHER}},
    ],
)
def test_wrappers_of_trainers_are_looked_into(wrapped, tmp_path):
    found = read_tensors(torch_file(tmp_path / "w.pth", pickled(wrapped)))
    assert found.keys() == {"w"}
    np.testing.assert_array_equal(found["w"], NUMBERS[:2])


def test_parts_are_chosen_by_name(tmp_path):
    """Where the choice is open, the message names the parts, nested ones too."""
    file = torch_file(tmp_path / "w.pth", pickled({"a": {"b.c": ONE}, "d": OTHER, "e": 1}))
    with pytest.raises(UserError, match=r"several parts; say part=: a\.b\.c, d$"):
        read_tensors(file)
    for part, expected in {"a.b.c": NUMBERS[:2], "a": NUMBERS[:2], "d": NUMBERS[4:]}.items():
        np.testing.assert_array_equal(read_tensors(file, part=part)["w"], expected)
    with pytest.raises(UserError, match=r"no part 'x'; it has a\.b\.c, d"):
        read_tensors(file, part="x")


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
