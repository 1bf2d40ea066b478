"""Optimisers, the probe beside a run, and the loop."""

from jaxcl.training.optim import LARC, LARS, SGD, AdamW, Optim
from jaxcl.training.probe import Probe
from jaxcl.training.sts import STS

__all__ = ["LARC", "LARS", "SGD", "STS", "AdamW", "Optim", "Probe"]
