"""Methods: one page each."""

from jaxcl.methods.dino import DINO
from jaxcl.methods.distil import Distil
from jaxcl.methods.fine_tune import FineTune
from jaxcl.methods.linear_classifier import LinearClassifier
from jaxcl.methods.method import Aux, Batch, Embed, Kept, Method, Phase, Represent
from jaxcl.methods.progress import Progress
from jaxcl.methods.simclr import SimCLR
from jaxcl.methods.simclr_v2 import SimCLRv2
from jaxcl.methods.sup_con import SupCon

__all__ = [
    "DINO", "Aux", "Batch", "Distil", "Embed", "FineTune", "Kept", "LinearClassifier", "Method",
    "Phase", "Progress", "Represent", "SimCLR", "SimCLRv2", "SupCon",
]  # fmt: skip
