"""Methods: one page each."""

from jaxcl.methods.byol import BYOL
from jaxcl.methods.deepcluster import DeepClusterV2
from jaxcl.methods.dino import DINO
from jaxcl.methods.distil import Distil
from jaxcl.methods.fine_tune import FineTune
from jaxcl.methods.linear_classifier import LinearClassifier
from jaxcl.methods.method import Aux, Batch, Embed, Kept, Method, Phase, Represent
from jaxcl.methods.moco import MoCo
from jaxcl.methods.progress import Progress
from jaxcl.methods.simclr import SimCLR
from jaxcl.methods.simclr_v2 import SimCLRv2
from jaxcl.methods.simcse import SimCSE
from jaxcl.methods.simsiam import SimSiam
from jaxcl.methods.sup_con import SupCon
from jaxcl.methods.swav import SwAV

__all__ = [
    "BYOL",
    "DINO",
    "Aux",
    "Batch",
    "DeepClusterV2",
    "Distil",
    "Embed",
    "FineTune",
    "Kept",
    "LinearClassifier",
    "Method",
    "MoCo",
    "Phase",
    "Progress",
    "Represent",
    "SimCLR",
    "SimCLRv2",
    "SimCSE",
    "SimSiam",
    "SupCon",
    "SwAV",
]
