"""Checkpoints of other libraries, in and out; loading runs no code that they hold."""

from jaxcl.weights.files import read_tensors, write_tensors
from jaxcl.weights.pretrained import LAYOUTS, Pretrained, load_encoder, save_encoder

__all__ = [
    "LAYOUTS",
    "Pretrained",
    "load_encoder",
    "read_tensors",
    "save_encoder",
    "write_tensors",
]
