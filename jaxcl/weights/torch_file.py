"""Torch's `.pth` files without torch: tensors are read and written, no code in them is run.

Such a file is a pickle, and a pickle may call anything. Here it may build tensors and plain
containers; objects that some trainers leave beside the weights become empty stand-ins; whatever
else a file names is refused before it is touched.
"""

import io
import math
import pickle
import struct
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import ml_dtypes
import numpy as np

from jaxcl.errors import UserError
from jaxcl.reading import PICKLE_DEPTH, check_unpacked, open_regular, open_zip, reading
from jaxcl.typing import NumpyArray
from jaxcl.weights.pickles import IGNORED, Call, Ignored, key, read_pickle

DTYPES: dict[str, np.dtype[Any]] = {
    name: np.dtype(name)
    for name in (
        "float32", "float64", "float16", "int64", "int32", "int16", "int8", "uint8", "bool",
        "uint16", "uint32", "uint64", "complex64", "complex128",
    )
} | {
    name: np.dtype(getattr(ml_dtypes, name))
    for name in (
        "bfloat16", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz",
        "float8_e8m0fnu",
    )
}  # fmt: skip
"""Torch's types by their names in torch."""
STORAGES: dict[str, np.dtype[Any]] = {
    f"{name}Storage": DTYPES[dtype]
    for name, dtype in {
        "Float": "float32", "Double": "float64", "Half": "float16", "BFloat16": "bfloat16",
        "Long": "int64", "Int": "int32", "Short": "int16", "Char": "int8", "Byte": "uint8",
        "Bool": "bool", "ComplexFloat": "complex64", "ComplexDouble": "complex128",
    }.items()
}  # fmt: skip
UNTYPED = "UntypedStorage"
"""Holds bytes, of tensors that say their type themselves."""
STAND_INS = (
    "argparse",
    "datetime",
    "easydict",
    "lightning",
    "lightning_fabric",
    "numpy",
    "omegaconf",
    "pathlib",
    "pytorch_lightning",
    "typing",
    "yacs",
)
"""Packages whose objects lie beside the weights in some trainers' files; they become empty."""
MAGIC = 0x1950A86A20F9469CFC6C
"""First number in a file from before torch 1.6."""
MAX_DIMENSIONS = 32


def read_torch(path: Path) -> Any:
    """The object that `torch.save` wrote: containers, numbers, and NumPy arrays for tensors.

    Raises:
      UserError: the file names code beyond tensors and containers, is cut short or damaged, or asks
        for more memory than a file of its size should.
    """
    with reading(path, "whole torch file"):
        with open_regular(path) as file:
            if not zipfile.is_zipfile(file):
                file.seek(0)
                return _Reader(path).legacy(file)
        return _Reader(path).zipped()


@dataclass
class _Storage:
    dtype: np.dtype[Any]
    numel: int
    data: bytes = b""


class _Tensor(NamedTuple):
    """A tensor whose numbers come later in the file."""

    storage: _Storage
    dtype: np.dtype[Any]
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


def _tensor(storage: Any, offset: int, size: Any, stride: Any, *_: Any) -> _Tensor:
    if not isinstance(storage, _Storage):
        raise TypeError("a tensor has no numbers")
    return _Tensor(storage, storage.dtype, offset, tuple(size), tuple(stride))


def _tensor_of_type(
    storage: Any, offset: int, size: Any, stride: Any, grad: Any, hooks: Any, dtype: str, *_: Any
) -> _Tensor:
    """What torch writes for types that have no storage of their own, such as float8."""
    return _tensor(storage, offset, size, stride)._replace(dtype=DTYPES[dtype])


def _dict(pairs: Any = ()) -> dict[Any, Any]:
    items = pairs.items() if isinstance(pairs, dict) else pairs
    return {key(name): value for name, value in items}


def _text(text: Any = "") -> str:
    if not isinstance(text, str | int | float):
        raise TypeError(f"text is made of a {type(text).__name__}")
    return str(text)


_KNOWN: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): Call(_dict),
    ("torch._utils", "_rebuild_tensor"): Call(_tensor),
    ("torch._utils", "_rebuild_tensor_v2"): Call(_tensor),
    ("torch._utils", "_rebuild_tensor_v3"): Call(_tensor_of_type),
    ("torch._utils", "_rebuild_parameter"): Call(lambda data, *_: data),
    ("torch._utils", "_rebuild_parameter_with_state"): Call(lambda data, *_: data),
    ("torch", "Size"): Call(lambda sizes=(): tuple(sizes)),
    ("torch", "device"): Call(lambda *args: ":".join(map(_text, args))),
    ("torch.torch_version", "TorchVersion"): Call(_text),
    ("collections", "Counter"): Call(_dict),
    ("collections", "defaultdict"): Call(lambda *_: {}),
    ("_codecs", "encode"): IGNORED,
    ("builtins", "bytearray"): IGNORED,
    ("builtins", "slice"): IGNORED,
    ("builtins", "bool"): Call(bool),
    ("builtins", "complex"): Call(complex),
    ("builtins", "dict"): Call(_dict),
    ("builtins", "float"): Call(float),
    ("builtins", "frozenset"): Call(lambda items=(): frozenset(map(key, items))),
    ("builtins", "int"): Call(int),
    ("builtins", "long"): Call(int),
    ("builtins", "list"): Call(lambda items=(): list(items)),
    ("builtins", "set"): Call(lambda items=(): set(map(key, items))),
    ("builtins", "str"): Call(_text),
}


class _Reader:
    """Reads one file, and counts the bytes of its tensors."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.packed = path.stat().st_size
        self.unpacked = 0
        self.resolved: dict[int, Any] = {}

    def zipped(self) -> Any:
        with open_zip(self.path) as archive:
            pickled = [name for name in archive.namelist() if name.endswith("data.pkl")]
            if len(pickled) != 1:
                raise UserError(f"{self.path} is a zip, but not one that torch.save wrote")
            root = pickled[0].removesuffix("data.pkl")
            if f"{root}byteorder" in archive.namelist():
                order = archive.read(f"{root}byteorder")
                if order.strip() != b"little":
                    raise ValueError(f"its byte order is {order[:10]!r}; only little is read")
            storages: dict[str, _Storage] = {}

            def storage(name: str, dtype: np.dtype[Any], numel: int) -> _Storage:
                if name not in storages:
                    storages[name] = _Storage(dtype, numel, archive.read(f"{root}data/{name}"))
                return storages[name]

            with archive.open(pickled[0]) as file:
                found = self.load(io.BytesIO(file.read()), storage)
        return self.resolve(found)

    def legacy(self, file: BinaryIO) -> Any:
        """From before torch 1.6: pickles one after the other, then the numbers."""
        storages: dict[str, _Storage] = {}

        def storage(name: str, dtype: np.dtype[Any], numel: int) -> _Storage:
            return storages.setdefault(name, _Storage(dtype, numel))

        def load() -> Any:
            return self.load(file, storage)

        if load() != MAGIC:
            raise UserError(f"{self.path} is not a torch file")
        load(), load()  # version of the format, and of the machine
        found = load()
        for name in load():
            (numel,) = struct.unpack("<q", file.read(8))
            kept = storages[name]
            size = numel * kept.dtype.itemsize
            if not 0 <= size <= self.packed - file.tell():
                raise EOFError("its numbers are cut short")
            kept.data = file.read(size)
        return self.resolve(found)

    def load(self, file: BinaryIO, storage: Callable[..., _Storage]) -> Any:
        def persistent(saved: Any) -> _Storage:
            kind, dtype, name, _, numel, *view = saved
            if kind != "storage" or (view and view[0] is not None):
                raise UserError(f"{self.path} holds a {kind} in a form that is not read")
            if not isinstance(dtype, np.dtype):
                raise TypeError("numbers without a type")
            return storage(str(name), dtype, int(numel))

        return read_pickle(file, self.find, persistent)

    def find(self, module: str, name: str) -> Any:
        module = {"__builtin__": "builtins"}.get(module, module)  # as Python 2 called it
        if (module, name) in _KNOWN:
            return _KNOWN[module, name]
        if module in ("torch", "torch.storage") and name in (*STORAGES, UNTYPED):
            return STORAGES.get(name, DTYPES["uint8"])
        if module == "torch" and name in DTYPES:
            return name
        if module.split(".")[0] in STAND_INS:
            return IGNORED
        raise UserError(
            f"{self.path} holds more than tensors: it names {module}.{name}, which is not run; "
            "save its state_dict() alone, or as safetensors"
        )

    def resolve(self, found: Any, depth: int = 0) -> Any:
        """Arrays for tensors, in containers that are shared where they are shared in the file."""
        if isinstance(found, Ignored | Call):
            return {}
        if not isinstance(found, _Tensor | Mapping | list | tuple):
            return found
        if depth > PICKLE_DEPTH:
            raise ValueError(f"its containers are nested more than {PICKLE_DEPTH} deep")
        if id(found) not in self.resolved:
            items: Any
            if isinstance(found, _Tensor):
                items = self.array(found)
            elif isinstance(found, Mapping):
                items = {name: self.resolve(item, depth + 1) for name, item in found.items()}
            else:
                items = [self.resolve(item, depth + 1) for item in found]
            self.resolved[id(found)] = items
        return self.resolved[id(found)]

    def array(self, tensor: _Tensor) -> NumpyArray:
        """The numbers of a tensor, which must lie in its storage from the first to the last."""
        storage, dtype, offset, size, stride = tensor
        numbers = (offset, *size, *stride)
        if len(size) != len(stride) or len(size) > MAX_DIMENSIONS:
            raise ValueError(f"a tensor has {len(size)} dimensions and {len(stride)} strides")
        if not all(isinstance(number, int) and number >= 0 for number in numbers):
            raise ValueError("a tensor has a negative offset, size or stride")
        if 0 in size:
            return np.zeros(size, dtype)
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        if last >= len(storage.data) // dtype.itemsize:
            raise ValueError("a tensor reaches beyond its numbers")
        self.unpacked += math.prod(size) * dtype.itemsize
        check_unpacked(self.unpacked, self.packed)
        steps = [step * dtype.itemsize for step in stride]
        start = offset * dtype.itemsize
        view: NumpyArray = np.ndarray(size, dtype, storage.data, start, steps)
        return view.copy()


def write_torch(path: Path, tensors: Mapping[str, NumpyArray]) -> None:
    """A file that `torch.load(path, weights_only=True)` opens as {name: tensor}."""
    names = {dtype: name for name, dtype in STORAGES.items()}
    pickled = _Pickle()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for key, (name, array) in enumerate(tensors.items()):
            pickled.tensor(name, str(key), names[array.dtype], array.shape)
            archive.writestr(f"archive/data/{key}", np.asarray(array, order="C").tobytes())
        archive.writestr("archive/data.pkl", pickled.end())
        archive.writestr("archive/byteorder", "little")
        archive.writestr("archive/version", "3\n")


@dataclass
class _Pickle:
    """The pickle of a dict of tensors, written by hand because torch's functions are not there."""

    codes: bytearray = field(default_factory=lambda: bytearray(pickle.PROTO + b"\x02}("))

    def tensor(self, name: str, key: str, storage: str, shape: tuple[int, ...]) -> None:
        strides = [math.prod(shape[i + 1 :]) for i in range(len(shape))]
        self._text(name)
        self.codes += b"ctorch._utils\n_rebuild_tensor_v2\n("
        self.codes += b"("
        self._text("storage")
        self.codes += f"ctorch\n{storage}\n".encode()
        self._text(key)
        self._text("cpu")
        self._number(math.prod(shape))
        self.codes += b"tQ"
        self._number(0)
        for numbers in (shape, strides):
            self.codes += b"("
            for number in numbers:
                self._number(number)
            self.codes += b"t"
        self.codes += b"\x89ccollections\nOrderedDict\n)RtR"

    def end(self) -> bytes:
        return bytes(self.codes + b"u.")

    def _text(self, text: str) -> None:
        encoded = text.encode()
        self.codes += b"X" + struct.pack("<I", len(encoded)) + encoded

    def _number(self, number: int) -> None:
        data = number.to_bytes(9, "little", signed=True)
        self.codes += b"\x8a" + bytes([len(data)]) + data
