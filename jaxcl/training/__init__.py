"""Optimisers, the probe beside a run, and the loop."""

from jaxcl.training.optim import LARC, LARS, SGD, Adam, AdamW, Optim
from jaxcl.training.probe import ClassifierAccuracy, Probe
from jaxcl.training.sts import STS

__all__ = ["LARC", "LARS", "SGD", "STS", "Adam", "AdamW", "ClassifierAccuracy", "Optim", "Probe"]
