"""Small image sets made on the spot: smooth random pictures in class folders and zips."""

import zipfile
from collections.abc import Callable
from pathlib import Path

import cv2
import jax
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh

Picture = Callable[..., bytes]


@pytest.fixture(scope="session")
def picture() -> Picture:
    """A function (seed, height, width, ending) -> the bytes of an image file."""

    def make(seed: int, height: int = 24, width: int = 24, ending: str = ".jpg") -> bytes:
        coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8)
        pixels = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
        return cv2.imencode(ending, pixels)[1].tobytes()

    return make


@pytest.fixture
def files(picture: Picture) -> dict[str, bytes]:
    """Path -> content of 24 pictures of 24x24 in the classes cat, dog and owl."""
    names = [f"{name}/{i:02d}.jpg" for name in ("cat", "dog", "owl") for i in range(8)]
    return {name: picture(seed) for seed, name in enumerate(names)}


@pytest.fixture
def write_folder(tmp_path: Path) -> Callable[..., Path]:
    """A function (files, name) -> a folder that holds them."""

    def write(files: dict[str, bytes], name: str = "pictures") -> Path:
        for path, content in files.items():
            (tmp_path / name / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name / path).write_bytes(content)
        return tmp_path / name

    return write


@pytest.fixture
def write_zip(tmp_path: Path) -> Callable[..., Path]:
    """A function (files, name, method) -> a zip file that holds them, in reverse order."""

    def write(
        files: dict[str, bytes], name: str = "pictures.zip", method: int = zipfile.ZIP_STORED
    ) -> Path:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(tmp_path / name, "w", method) as file:
            for path in sorted(files, reverse=True):
                member = zipfile.ZipInfo(path)
                member.compress_type = method
                member.extra = b"xx\x03\x00abc"  # as some packers add to every member
                file.writestr(member, files[path])
        return tmp_path / name

    return write


@pytest.fixture(scope="session")
def mesh() -> Callable[[int], Mesh]:
    """A function: number of devices -> a mesh with the axis `data`."""

    def make(count: int) -> Mesh:
        devices = np.array(jax.devices()[:count])
        return Mesh(devices, ("data",), axis_types=(AxisType.Auto,))

    return make
