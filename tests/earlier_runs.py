"""Runs that other runs start from: the experiments, made once by `tests/methods/conftest.py`."""

from dataclasses import replace

from contract import CLASSES, ENCODER, RECIPE, VIEWS

from jaxcl.encoders import MLP
from jaxcl.methods import FineTune, SimCLR

PRETRAINING = SimCLR(
    augment=RECIPE,
    encoder=ENCODER,
    projector=MLP((0, 12), 8, final_norm="scale"),
    temperature=0.5,
)
FINE_TUNING = FineTune(
    augment=replace(RECIPE, views=(VIEWS,)),
    encoder=ENCODER,
    projector=PRETRAINING.projector,
    keep_layers=1,
    classes=CLASSES,
)
"""Without a run to start from."""
