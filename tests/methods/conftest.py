"""Runs that other runs start from, made once."""

import pytest
from contract import ENCODER, RECIPE, experiment

from jaxcl import fit
from jaxcl.encoders import MLP
from jaxcl.methods import SimCLR

PRETRAINING = SimCLR(
    augment=RECIPE,
    encoder=ENCODER,
    projector=MLP((0, 12), 8, final_norm="scale"),
    temperature=0.5,
)


@pytest.fixture(scope="session")
def pretrained(tmp_path_factory):
    """Directory of a run with a three-layer head."""
    run = tmp_path_factory.mktemp("pretrained") / "run"
    assert fit(experiment(PRETRAINING), run).finished
    return run
