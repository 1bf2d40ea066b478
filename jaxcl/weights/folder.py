"""A model's folder as the Hugging Face hub keeps it: config.json beside model.safetensors.

Reading runs no code: the config is JSON, the tensors are raw numbers with names.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from jaxcl.errors import UserError
from jaxcl.typing import NumpyArray
from jaxcl.weights.tables import Tensors

CONFIG, WEIGHTS = "config.json", "model.safetensors"
INDEX = f"{WEIGHTS}.index.json"


def read_folder(folder: str | Path) -> tuple[dict[str, Any], dict[str, NumpyArray]]:
    """The config, and all tensors by name; float16 and bfloat16 become float32.

    Weights may lie in one file or in several that `model.safetensors.index.json` lists.

    Raises:
      UserError: a file is missing, damaged or of another format.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder; it should hold {CONFIG} and {WEIGHTS}")
    config = _read_json(folder / CONFIG)
    if (folder / WEIGHTS).is_file():
        files = [WEIGHTS]
    elif (folder / INDEX).is_file():
        files = sorted(set(_read_json(folder / INDEX).get("weight_map", {}).values()))
    else:
        raise UserError(
            f"{folder} holds no {WEIGHTS}; where there is a pytorch_model.bin, save the model "
            "again with save_pretrained(folder, safe_serialization=True)"
        )
    tensors: dict[str, NumpyArray] = {}
    for name in files:
        try:
            tensors |= load_file(folder / name)
        except (OSError, SafetensorError) as error:
            raise UserError(f"{folder / name} cannot be read: {error}") from None
    return config, {name: _widened(tensor) for name, tensor in tensors.items()}


def write_folder(folder: str | Path, config: Mapping[str, Any], tensors: Tensors) -> None:
    """Writes what `read_folder` reads; the folder is made where there is none."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(dict(tensors), folder / WEIGHTS, metadata={"format": "pt"})
    (folder / CONFIG).write_text(json.dumps(dict(config), indent=2) + "\n")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(f"{path.parent} holds no {path.name}") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    if not isinstance(value, dict):
        raise UserError(f"{path} holds no JSON object")
    return value


def _widened(tensor: NumpyArray) -> NumpyArray:
    """Half-precision numbers as float32, which holds each of them exactly."""
    half = tensor.dtype.name in ("float16", "bfloat16")
    return tensor.astype(np.float32) if half else tensor
