"""Methods: one page each."""

from jaxcl.methods.deepcluster import DeepClusterV2
from jaxcl.methods.method import Aux, Batch, Embed, Kept, Method, Phase, Represent
from jaxcl.methods.progress import Progress
from jaxcl.methods.simclr import SimCLR
from jaxcl.methods.swav import SwAV

__all__ = [
    "Aux", "Batch", "DeepClusterV2", "Embed", "Kept", "Method", "Phase", "Progress", "Represent",
    "SimCLR", "SwAV",
]  # fmt: skip
