"""Weights that a name and a shape determine, so that a stored output is all a parity test needs."""

import zlib

import numpy as np


def fill(name, shape):
    """An array for the tensor of that name; the same on every machine."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    leaf = name.replace("/", ".").rpartition(".")[2]
    if leaf in ("running_var", "moving_variance", "gamma") or (
        leaf == "weight" and len(shape) == 1
    ):
        array = rng.uniform(0.5, 1.5, shape)
    elif len(shape) < 2 or (min(shape) == 1 and len(shape) == 3):
        array = rng.normal(0, 0.3, shape)
    else:
        inputs = np.prod(shape[:-1]) if leaf == "kernel" else np.prod(shape[1:])
        array = rng.normal(0, inputs**-0.5, shape)
    return array.astype(np.float32)


def filled(shapes):
    """Tensors for {name: shape}."""
    return {name: fill(name, tuple(shape)) for name, shape in shapes.items()}


def images(side, channels=3):
    """Two of them."""
    return np.random.default_rng(side).normal(size=(2, side, side, channels)).astype(np.float32)


def texts():
    """Tokens of two texts of 10, ending in 38."""
    ids = np.random.default_rng(1).integers(3, 38, (2, 10)).astype(np.int32)
    ids[0, 6:], ids[1, 9:] = 38, 38
    return ids
