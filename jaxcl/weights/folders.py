"""Model folders as Hugging Face lays them out: config.json beside tensors in safetensors."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from jaxcl.errors import UserError
from jaxcl.typing import NumpyArray
from jaxcl.weights.tables import Tensors


def read_json(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
      UserError: it is absent or damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be read; is {path.parent} the model's folder?") from error
    except ValueError as error:
        raise UserError(f"{path} is not JSON: {error}") from error


def write_json(path: Path, content: Any) -> None:
    """Writes `content`, making the folder where it is absent."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def read_tensors(folder: Path) -> dict[str, NumpyArray]:
    """The tensors of model.safetensors, or of its parts as its index lists them.

    Floats of two bytes become float32. Formats that can carry code are not read.

    Raises:
      UserError: there is no such file, or it is damaged.
    """
    files = [folder / "model.safetensors"]
    index = folder / "model.safetensors.index.json"
    if index.exists():
        files = [folder / name for name in sorted(set(read_json(index)["weight_map"].values()))]
    tensors: dict[str, NumpyArray] = {}
    for file in files:
        if not file.exists():
            hint = ""
            if (folder / "pytorch_model.bin").exists():
                hint = "; pytorch_model.bin is not read: save the model again as safetensors"
            raise UserError(f"{file} is missing{hint}")
        try:
            tensors |= load_file(file)
        except (SafetensorError, OSError, KeyError) as error:
            raise UserError(f"{file} cannot be read: {error}") from error
    return {name: _float32(array) for name, array in tensors.items()}


def write_tensors(folder: Path, tensors: Tensors) -> None:
    """Writes model.safetensors, marked as what torch's libraries expect."""
    folder.mkdir(parents=True, exist_ok=True)
    whole = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    save_file(whole, folder / "model.safetensors", metadata={"format": "pt"})


def _float32(array: NumpyArray) -> NumpyArray:
    return array.astype(np.float32) if array.dtype.itemsize == 2 else array
