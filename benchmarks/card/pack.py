"""A labelled image set in one file: the encoded images end to end, where each ends, and its label.

    python benchmarks/card/pack.py FOLDER-OR-ZIP cifar10.npz --test 5000

CIFAR-10's 50,000 training and 5,000 test images take 48 MiB. A pack travels to a machine with a
card that has neither the network nor room for thousands of files.
"""

import argparse
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from jaxcl import UserError
from jaxcl.data import Arrays, Unreadable, parse_source
from jaxcl.data.pixels import decode


def write_pack(data: str, path: Path, test: int) -> None:
    """Writes the training images of a source, and so many of its test images of all classes."""
    source, fields = parse_source(data), {}
    for name in ("train", "test"):
        split = source.split(name)
        count = len(split) if name == "train" else min(test, len(split))
        rows = np.linspace(0, len(split) - 1, count).astype(int)  # ordered by class, so of each
        files = [split.read(int(row))[0] for row in rows]
        if not all(isinstance(file, bytes) for file in files):
            raise SystemExit(f"{data} holds pixels; a pack takes encoded images")
        fields[f"{name}_bytes"] = np.frombuffer(b"".join(files), np.uint8)
        fields[f"{name}_ends"] = np.cumsum([len(file) for file in files])
        fields[f"{name}_labels"] = split.labels[rows].astype(np.int32)
    np.savez(path, classes=np.array(split.classes), **fields)


def read_pack(path: Path, most: int | None = None) -> Arrays:
    """The images of a pack, decoded; the first `most` of an even spread where that is given.

    Raises:
      UserError: the file is damaged, or no pack.
    """
    try:
        return _read(path, most)
    except (OSError, ValueError, KeyError, IndexError, EOFError, BadZipFile, Unreadable) as error:
        raise UserError(
            f"{path} cannot be read as a pack ({type(error).__name__}: {error}); make it anew: "
            f"python benchmarks/card/pack.py FOLDER-OR-ZIP {path}"
        ) from error


def _read(path: Path, most: int | None) -> Arrays:
    with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
        parts = []
        for name in ("train", "test"):
            content, ends = stored[f"{name}_bytes"].tobytes(), stored[f"{name}_ends"]
            labels = stored[f"{name}_labels"]
            count = len(ends) if most is None else min(most, len(ends))
            rows = np.linspace(0, len(ends) - 1, count).astype(int)
            starts = np.concatenate([[0], ends[:-1]])
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                files = (content[starts[row] : ends[row]] for row in rows)
                images = list(pool.map(lambda file: decode(file, 3), files))
            parts += [np.stack(images), labels[rows]]
        return Arrays(*parts, classes=tuple(map(str, stored["classes"])))


def main(arguments: Sequence[str] | None = None) -> None:
    """Writes a pack and says how large it is."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", help="folder or zip of class folders, or tfds:NAME")
    parser.add_argument("pack", type=Path, help="file to write, NAME.npz")
    parser.add_argument("--test", type=int, default=5000, help="number of test images to keep")
    asked = parser.parse_args(arguments)
    write_pack(asked.data, asked.pack, asked.test)
    print(f"{asked.pack}: {asked.pack.stat().st_size / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()
