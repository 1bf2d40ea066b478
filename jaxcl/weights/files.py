"""Tensors of a file by their names, whatever kind of file it is; nothing in it is run."""

import json
import zipfile
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, TypedDict

import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy

from jaxcl.errors import UserError
from jaxcl.reading import TENSORS, check_form, inside, open_regular, open_zip, read_json, reading
from jaxcl.typing import NumpyArray
from jaxcl.weights.torch_file import DTYPES, read_torch, write_torch

Tensors = Mapping[str, NumpyArray]

NESTED = (
    "state_dict", "model", "teacher", "student", "online_network_state_dict", "network", "module",
    "net", "model_state_dict", "model_state", "net_state_dict", "state_dict_ema", "model_ema",
)  # fmt: skip
"""Where trainers keep the weights in the dict that they save; the first that is there counts."""
INDEX = (".safetensors.index.json", ".bin.index.json")
"""Ends of the names of files that list the parts in which a large model's weights lie."""
IN_FOLDER = (
    "model.safetensors", f"model{INDEX[0]}", "pytorch_model.bin", f"pytorch_model{INDEX[1]}",
)  # fmt: skip
DEPTH = 4
"""How far parts are looked for within parts."""
SHOWN = 12
"""Parts that a message names."""
OPTIMISER = ("optim", "scaler", "sched", "lr_")
"""Beginnings of the names of parts that hold no network."""
HALF = {
    np.dtype(kind)
    for kind in (
        np.float16, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2,
        ml_dtypes.float8_e4m3fnuz, ml_dtypes.float8_e5m2fnuz, ml_dtypes.float8_e8m0fnu,
    )
}  # fmt: skip
"""Types that become float32."""
FLOAT8 = {
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "F8_E8M0": "float8_e8m0fnu",
}
"""Types of safetensors that NumPy lacks, by torch's names."""


class Index(TypedDict):
    """What a file that lists parts holds."""

    weight_map: dict[str, str]


def read_tensors(path: str | Path, *, part: str = "") -> dict[str, NumpyArray]:
    """The tensors of a safetensors, NumPy or torch file, or of a folder with one.

    What a file is, is found from its first bytes and not from its name.

    Args:
      path: the file, or a folder with model.safetensors or pytorch_model.bin, in parts or whole.
      part: of a file that holds several networks, which one: "student" say, or "ema.model" of parts
        within parts. Else the first of state_dict, model, teacher, student, net, model_state_dict
        and others that trainers use, or the only part that there is, or the file as a whole.

    Returns:
      Arrays by name; 16-bit and 8-bit floats come as float32.

    Raises:
      UserError: there is no such file or part, it holds more than tensors, or it is damaged.
    """
    path = find(Path(path))
    with reading(path):
        found = _tensors(read_content(path), part, path)
        return {name: _wide(array, name, path) for name, array in found.items()}


def read_content(path: Path) -> Any:
    """What a file of weights, or one that lists its parts, holds: tensors in dicts of dicts.

    Raises:
      UserError: it holds more than tensors, or it is damaged.
    """
    if not path.name.endswith(INDEX):
        return _read_file(path)
    listed = read_json(path, Index)["weight_map"]
    tensors: dict[str, NumpyArray] = {}
    for name in sorted(set(listed.values())):
        if "/" in name or "\\" in name or name.endswith(".json"):
            raise UserError(f"{path} names {name!r}, which is no file of weights beside it")
        file = inside(path.parent, name, path)
        if not file.is_file():
            raise UserError(f"{path} names {name}, which is not there; get it too")
        tensors |= _tensors(_read_file(file), "", file)
    if missing := sorted(listed.keys() - tensors.keys()):
        raise UserError(f"{path} lists {missing[0]}, which is not in {listed[missing[0]]}")
    return tensors


def _read_file(path: Path) -> Any:
    """What one file holds."""
    with open_regular(path) as file:
        start = file.read(9)
        zipped = zipfile.is_zipfile(file)
    if zipped and _holds_arrays(path):
        return _read_arrays(path)
    if start.startswith(b"\x93NUMPY"):
        raise UserError(f"{path} holds one array without a name; numpy.savez writes named ones")
    if path.suffix == ".safetensors" or start[8:] == b"{":
        return _read_safetensors(path)
    return read_torch(path)


def _read_arrays(path: Path) -> dict[str, NumpyArray]:
    with (
        reading(path, "whole file of NumPy arrays"),
        open_regular(path) as file,
        np.load(file, allow_pickle=False) as archive,
    ):
        return dict(archive)


def _read_safetensors(path: Path) -> dict[str, NumpyArray]:
    with (
        reading(path, "whole safetensors file"),
        safetensors.safe_open(path, framework="np") as file,
    ):
        types = {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
        tensors = {n: file.get_tensor(n) for n, kind in types.items() if kind not in FLOAT8}
        missing = [name for name in types if name not in tensors]
        return tensors | (_read_bytes(path, missing) if missing else {})


def _read_bytes(path: Path, names: list[str]) -> dict[str, NumpyArray]:
    """Tensors of a whole safetensors file in the types that its library cannot give to NumPy."""
    with open_regular(path) as file:
        start = 8 + int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(start - 8))
        tensors = {}
        for name in names:
            first, end = header[name]["data_offsets"]
            file.seek(start + first)
            numbers = np.frombuffer(file.read(end - first), DTYPES[FLOAT8[header[name]["dtype"]]])
            tensors[name] = numbers.reshape(header[name]["shape"])
    return tensors


def find(path: Path) -> Path:
    """The file itself, or the file of weights in a folder.

    Raises:
      UserError: there is none.
    """
    if path.is_dir():
        for name in IN_FOLDER:
            if (path / name).is_file():
                return path / name
        raise UserError(f"{path} holds none of {', '.join(IN_FOLDER)}")
    if not path.is_file():
        kind = "file of weights" if not path.exists() else "file, but a pipe or a device,"
        raise UserError(f"there is no {kind} at {path}")
    return path


def write_json(path: Path, content: Any) -> None:
    """Writes `content`, making the folder where it is absent."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def read_folder(
    folder: str | Path, form: Any = dict
) -> tuple[dict[str, Any], dict[str, NumpyArray]]:
    """config.json, which has the form of a `TypedDict`, and the tensors beside it, as transformers
    keeps a model.

    Raises:
      UserError: a file is missing, damaged or of another format.
    """
    path = Path(folder) / "config.json"
    config = read_json(path)
    if not isinstance(config, dict):
        raise UserError(f"{path} holds no JSON object")
    check_form(config, form, path)
    return config, read_tensors(folder)


def write_folder(folder: str | Path, config: Mapping[str, Any], tensors: Tensors) -> None:
    """Writes what `read_folder` reads and transformers opens; the folder is made where absent."""
    write_json(Path(folder) / "config.json", dict(config))
    write_tensors(Path(folder) / "model.safetensors", tensors)


def write_tensors(path: str | Path, tensors: Tensors) -> None:
    """A `.pth` or `.pt` file for torch, an `.npz`, else safetensors; by the name's ending.

    Floats that NumPy has no name for, bfloat16 say, become float32 in an `.npz`.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {name: np.asarray(array, order="C") for name, array in tensors.items()}
    if path.suffix in (".pth", ".pt", ".bin"):
        write_torch(path, arrays)
    elif path.suffix == ".npz":
        named = {n: a.astype(np.float32) if a.dtype.kind == "V" else a for n, a in arrays.items()}
        np.savez(path, **named)  # type: ignore[arg-type]
    else:
        safetensors.numpy.save_file(arrays, path, {"format": "pt"})


def parts_of(found: Any, within: str = "") -> Iterator[str]:
    """Names for `part` of the dicts of tensors in what a trainer saved."""
    if not isinstance(found, Mapping) or within.count(".") >= DEPTH - 1:
        return
    for name, item in found.items():
        if isinstance(name, str) and isinstance(item, Mapping):
            inner = f"{within}.{name}" if within else name
            if _arrays(item):
                yield inner
            yield from parts_of(item, inner)


def _holds_arrays(path: Path) -> bool:
    with open_zip(path) as archive:
        names = archive.namelist()
    return bool(names) and all(name.endswith(".npy") for name in names)


def _arrays(found: Mapping[Any, Any]) -> dict[str, NumpyArray]:
    return {
        name: item
        for name, item in found.items()
        if isinstance(name, str) and isinstance(item, np.ndarray)
    }


def _tensors(found: Any, part: str, path: Path) -> dict[str, NumpyArray]:
    """The dict of tensors in what a trainer saved."""
    if not isinstance(found, Mapping):
        raise UserError(f"{path} holds a {type(found).__name__}, not tensors by name")
    parts = list(islice(parts_of(found), SHOWN))
    if part:
        inner = _within(found, part)
        if inner is None:
            there = ", ".join(parts) or "none"
            raise UserError(f"{path} has no part {part!r}; it has {there}")
        return _tensors(inner, "", path)
    for name in NESTED:
        inner = found.get(name)
        if isinstance(inner, Mapping) and inner and (_arrays(inner) or any(parts_of(inner))):
            return _tensors(inner, "", path)
    tensors = _arrays(found)
    weights = [name for name in parts if not name.startswith(OPTIMISER)]
    if not tensors and len(weights) == 1:
        return _tensors(_within(found, weights[0]), "", path)
    if not tensors and weights:
        raise UserError(f"{path} holds several parts; say part=: {', '.join(weights)}")
    if not tensors:
        raise UserError(f"{path} holds no tensors, but {', '.join(map(str, list(found)[:8]))}")
    if len(tensors) > TENSORS:
        raise UserError(f"{path} holds {len(tensors):,} tensors; the limit is {TENSORS:,}")
    return tensors


def _within(found: Mapping[Any, Any], part: str) -> Mapping[Any, Any] | None:
    """The part of a name such as "student" or "ema.model", whose names may hold dots."""
    for name, item in found.items():
        if not isinstance(name, str) or not isinstance(item, Mapping):
            continue
        if name == part:
            return item
        if part.startswith(f"{name}."):
            inner = _within(item, part.removeprefix(f"{name}."))
            if inner is not None:
                return inner
    return None


def _wide(array: NumpyArray, name: str, path: Path) -> NumpyArray:
    if array.dtype.kind not in "biufcV" or array.dtype.fields or array.dtype.subdtype:
        raise UserError(f"{path}: {name} is of type {array.dtype}, which is no number")
    if array.dtype in HALF:
        return array.astype(np.float32)
    if array.dtype.kind == "V":
        raise UserError(
            f"{path}: {name} is of type {array.dtype.str}, as NumPy stores types that it lacks; "
            "save it as float32, or as safetensors"
        )
    return array
