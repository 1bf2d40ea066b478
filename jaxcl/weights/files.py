"""Tensors of a file by their names, whatever kind of file it is; nothing in it is run."""

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy

from jaxcl.errors import UserError
from jaxcl.typing import NumpyArray
from jaxcl.weights.torch_file import read_torch, write_torch

Tensors = Mapping[str, NumpyArray]

NESTED = (
    "state_dict", "model", "teacher", "student", "online_network_state_dict", "network", "module",
)  # fmt: skip
"""Where trainers keep the weights in the dict that they save; the first that is there counts."""
INDEX = ".safetensors.index.json"
"""End of the name of a file that lists the parts in which a large model's weights lie."""
IN_FOLDER = ("model.safetensors", f"model{INDEX}", "pytorch_model.bin")


def read_tensors(path: str | Path, *, part: str = "") -> dict[str, NumpyArray]:
    """The tensors of a safetensors, NumPy or torch file, or of a folder with one.

    What a file is, is found from its first bytes and not from its name.

    Args:
      path: the file, or a folder with model.safetensors, in parts or whole, or pytorch_model.bin.
      part: of a file that holds several networks, which one: "student" say. Else the first of
        state_dict, model, teacher, student that is there, or the file as a whole.

    Returns:
      Arrays by name; 16-bit floats come as float32.

    Raises:
      UserError: there is no such file or part, it holds more than tensors, or it is damaged.
    """
    path = find(Path(path))
    if path.name.endswith(INDEX):
        parts = sorted(set(read_json(path).get("weight_map", {}).values()))
        return {n: t for name in parts for n, t in read_tensors(path.parent / name).items()}
    with path.open("rb") as file:
        start = file.read(9)
    if zipfile.is_zipfile(path) and _holds_arrays(path):
        with np.load(path, allow_pickle=False) as archive:
            found: Any = dict(archive)
    elif path.suffix == ".safetensors" or start[8:] == b"{":
        try:
            found = safetensors.numpy.load_file(path)
        except safetensors.SafetensorError as error:
            raise UserError(f"{path} is no whole safetensors file ({error})") from error
    else:
        found = read_torch(path)
    return {name: _wide(array) for name, array in _tensors(found, part, path).items()}


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
        raise UserError(f"there is no file of weights at {path}")
    return path


def read_json(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
      UserError: it is absent or damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path.parent} holds no {path.name}") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error


def write_json(path: Path, content: Any) -> None:
    """Writes `content`, making the folder where it is absent."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def read_folder(folder: str | Path) -> tuple[dict[str, Any], dict[str, NumpyArray]]:
    """config.json, and the tensors beside it, as transformers keeps a model.

    Raises:
      UserError: a file is missing, damaged or of another format.
    """
    config = read_json(Path(folder) / "config.json")
    if not isinstance(config, dict):
        raise UserError(f"{Path(folder) / 'config.json'} holds no JSON object")
    return config, read_tensors(folder)


def write_folder(folder: str | Path, config: Mapping[str, Any], tensors: Tensors) -> None:
    """Writes what `read_folder` reads and transformers opens; the folder is made where absent."""
    write_json(Path(folder) / "config.json", dict(config))
    write_tensors(Path(folder) / "model.safetensors", tensors)


def write_tensors(path: str | Path, tensors: Tensors) -> None:
    """A `.pth` or `.pt` file for torch, an `.npz`, else safetensors; by the name's ending."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {name: np.asarray(array, order="C") for name, array in tensors.items()}
    if path.suffix in (".pth", ".pt", ".bin"):
        write_torch(path, arrays)
    elif path.suffix == ".npz":
        np.savez(path, **arrays)  # type: ignore[arg-type]
    else:
        safetensors.numpy.save_file(arrays, path, {"format": "pt"})


def _holds_arrays(path: Path) -> bool:
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    return bool(names) and all(name.endswith(".npy") for name in names)


def _tensors(found: Any, part: str, path: Path) -> dict[str, NumpyArray]:
    """The dict of tensors in what a trainer saved."""
    if not isinstance(found, Mapping):
        raise UserError(f"{path} holds a {type(found).__name__}, not tensors by name")
    names = (part,) if part else NESTED
    for name in names:
        inner = found.get(name)
        if isinstance(inner, Mapping) and inner:
            return _tensors(inner, "", path)
    if part:
        nested = [name for name, item in found.items() if isinstance(item, Mapping)]
        raise UserError(f"{path} has no part {part!r}; it has {', '.join(nested) or 'none'}")
    tensors = {name: item for name, item in found.items() if isinstance(item, np.ndarray)}
    if not tensors:
        raise UserError(f"{path} holds no tensors, but {', '.join(map(str, list(found)[:8]))}")
    return tensors


def _wide(array: NumpyArray) -> NumpyArray:
    if array.dtype in (np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16)):
        return array.astype(np.float32)
    return array
