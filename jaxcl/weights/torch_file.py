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
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import ml_dtypes
import numpy as np

from jaxcl.errors import UserError
from jaxcl.typing import NumpyArray

STORAGES: dict[str, np.dtype[Any]] = {
    f"{name}Storage": np.dtype(dtype)
    for name, dtype in {
        "Float": np.float32, "Double": np.float64, "Half": np.float16,
        "BFloat16": ml_dtypes.bfloat16, "Long": np.int64, "Int": np.int32, "Short": np.int16,
        "Char": np.int8, "Byte": np.uint8, "Bool": np.bool_,
    }.items()
}  # fmt: skip
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


def read_torch(path: Path) -> Any:
    """The object that `torch.save` wrote: containers, numbers, and NumPy arrays for tensors.

    Raises:
      UserError: the file names code beyond tensors and containers, or is cut short or damaged.
    """
    try:
        if zipfile.is_zipfile(path):
            return _read_zip(path)
        with path.open("rb") as file:
            return _read_legacy(path, file)
    except UserError:
        raise
    except (pickle.UnpicklingError, zipfile.BadZipFile, EOFError, KeyError, ValueError, TypeError,
            AttributeError, IndexError, struct.error) as error:  # fmt: skip
        raise UserError(
            f"{path} is no whole torch file ({type(error).__name__}: {error})"
        ) from error


@dataclass
class _Storage:
    dtype: np.dtype[Any]
    numel: int
    data: bytes = b""


class _Tensor(NamedTuple):
    """A tensor whose numbers come later in the file."""

    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


class _StandIn(dict[Any, Any]):
    """What an object of a trainer becomes: it takes whatever it is given and keeps nothing."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()

    def __setitem__(self, key: Any, value: Any) -> None: ...

    def __setstate__(self, state: Any) -> None: ...

    def append(self, item: Any) -> None: ...

    def extend(self, items: Any) -> None: ...


def _tensor(
    storage: _Storage, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any
) -> _Tensor:
    return _Tensor(storage, offset, tuple(size), tuple(stride))


_KNOWN: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor"): _tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): lambda data, *_: data,
    ("torch", "Size"): tuple,
    ("torch", "device"): lambda *args: ":".join(map(str, args)),
    ("torch.torch_version", "TorchVersion"): str,
    ("collections", "Counter"): dict,
    ("collections", "defaultdict"): lambda *_: {},
    ("builtins", "long"): int,
    ("_codecs", "encode"): lambda text, encoding: text.encode("latin1"),
    **{
        ("builtins", kind.__name__): kind
        for kind in (bool, bytearray, complex, dict, float, frozenset, int, list, set, slice, str)
    },
}


class _Unpickler(pickle.Unpickler):
    def __init__(self, path: Path, file: BinaryIO, storage: Callable[..., _Storage]) -> None:
        super().__init__(file, encoding="utf-8")
        self.path, self.storage = path, storage

    def find_class(self, module: str, name: str) -> Any:
        module = {"__builtin__": "builtins"}.get(module, module)  # as Python 2 called it
        if (module, name) in _KNOWN:
            return _KNOWN[module, name]
        if module in ("torch", "torch.storage") and name in STORAGES:
            return STORAGES[name]
        if module == "torch" and name.rpartition(".")[0] == "" and name in _DTYPES:
            return name
        if module.split(".")[0] in STAND_INS:
            return type(name, (_StandIn,), {})
        raise UserError(
            f"{self.path} holds more than tensors: it names {module}.{name}, which is not run; "
            "save its state_dict() alone, or as safetensors"
        )

    def persistent_load(self, saved: Any) -> _Storage:
        kind, dtype, key, _, numel, *view = saved
        if kind != "storage" or (view and view[0] is not None):
            raise UserError(f"{self.path} holds a {kind} in a form that is not read")
        return self.storage(str(key), dtype, int(numel))


_DTYPES = ("float32", "float64", "float16", "bfloat16", "int64", "int32", "uint8", "bool")


def _read_zip(path: Path) -> Any:
    with zipfile.ZipFile(path) as archive:
        pickled = [name for name in archive.namelist() if name.endswith("data.pkl")]
        if len(pickled) != 1:
            raise UserError(f"{path} is a zip, but not one that torch.save wrote")
        root = pickled[0].removesuffix("data.pkl")
        storages: dict[str, _Storage] = {}

        def storage(key: str, dtype: np.dtype[Any], numel: int) -> _Storage:
            if key not in storages:
                storages[key] = _Storage(dtype, numel, archive.read(f"{root}data/{key}"))
            return storages[key]

        with archive.open(pickled[0]) as file:
            found = _Unpickler(path, io.BytesIO(file.read()), storage).load()
    return _resolve(found)


def _read_legacy(path: Path, file: BinaryIO) -> Any:
    """From before torch 1.6: pickles one after the other, then the numbers."""
    storages: dict[str, _Storage] = {}

    def storage(key: str, dtype: np.dtype[Any], numel: int) -> _Storage:
        return storages.setdefault(key, _Storage(dtype, numel))

    def load() -> Any:
        return _Unpickler(path, file, storage).load()

    if load() != MAGIC:
        raise UserError(f"{path} is not a torch file")
    load(), load()  # version of the format, and of the machine
    found = load()
    for key in load():
        (numel,) = struct.unpack("<q", file.read(8))
        kept = storages[key]
        kept.data = file.read(numel * kept.dtype.itemsize)
    return _resolve(found)


def _resolve(found: Any) -> Any:
    if isinstance(found, _Tensor):
        return _array(found)
    if isinstance(found, _StandIn | type):
        return {}
    if isinstance(found, Mapping):
        return {name: _resolve(item) for name, item in found.items()}
    if isinstance(found, list | tuple):
        return [_resolve(item) for item in found]
    return found


def _array(tensor: _Tensor) -> NumpyArray:
    storage, offset, size, stride = tensor
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if math.prod(size) and not 0 <= offset <= last < len(storage.data) // storage.dtype.itemsize:
        raise ValueError("a tensor reaches beyond its numbers")
    flat = np.frombuffer(storage.data, storage.dtype)
    if not math.prod(size):
        return np.zeros(size, storage.dtype)
    steps = [step * flat.itemsize for step in stride]
    return np.lib.stride_tricks.as_strided(flat[offset:], size, steps).copy()


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
