"""Methods: one page each."""

from jaxcl.methods.method import Aux, Batch, Embed, Kept, Method, Phase
from jaxcl.methods.simclr import SimCLR

__all__ = ["Aux", "Batch", "Embed", "Kept", "Method", "Phase", "SimCLR"]
