"""Optimisers, the probe beside a run, and the loop."""

from jaxcl.training.optim import LARC, LARS, SGD, Adam, AdamW, Optim
from jaxcl.training.probe import Probe

__all__ = ["LARC", "LARS", "SGD", "Adam", "AdamW", "Optim", "Probe"]
