"""Methods: one page each."""

from jaxcl.methods.method import Aux, Batch, Embed, Kept, Method, Phase, Represent
from jaxcl.methods.progress import Progress
from jaxcl.methods.simclr import SimCLR
from jaxcl.methods.simcse import SimCSE

__all__ = [
    "Aux", "Batch", "Embed", "Kept", "Method", "Phase", "Progress", "Represent", "SimCLR", "SimCSE",
]  # fmt: skip
