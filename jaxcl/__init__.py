"""Contrastive and self-supervised representation learning in JAX.

from jaxcl import load
features = load("runs/simclr_digits").encode(images)
"""

from jaxcl.errors import UserError
from jaxcl.experiment import Experiment, Train
from jaxcl.run import Run, load
from jaxcl.training.loop import fit

__version__ = "0.1.0"
__all__ = ["Experiment", "Run", "Train", "UserError", "fit", "load"]
