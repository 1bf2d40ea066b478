"""Runs that other runs start from, made once."""

from dataclasses import replace

import pytest
from contract import experiment
from earlier_runs import FINE_TUNING, PRETRAINING

from jaxcl import fit


@pytest.fixture(scope="session")
def pretrained(tmp_path_factory):
    """Directory of a SimCLR run with a three-layer head."""
    run = tmp_path_factory.mktemp("pretrained") / "run"
    assert fit(experiment(PRETRAINING), run).finished
    return run


@pytest.fixture(scope="session")
def fine_tuned(tmp_path_factory, pretrained):
    """Directory of a run that started from `pretrained`."""
    run = tmp_path_factory.mktemp("fine_tuned") / "run"
    assert fit(experiment(replace(FINE_TUNING, start_from=str(pretrained))), run).finished
    return run
