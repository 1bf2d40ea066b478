"""Methods: one page each."""

from jaxcl.methods.byol import BYOL
from jaxcl.methods.method import Aux, Batch, Embed, Kept, Method, Phase, Represent
from jaxcl.methods.moco import MoCo
from jaxcl.methods.progress import Progress
from jaxcl.methods.simclr import SimCLR
from jaxcl.methods.simsiam import SimSiam

__all__ = [
    "BYOL", "Aux", "Batch", "Embed", "Kept", "Method", "MoCo", "Phase", "Progress", "Represent",
    "SimCLR", "SimSiam",
]  # fmt: skip
