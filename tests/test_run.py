"""`jaxcl.load(RUN)`: what a notebook does with a trained run."""

import re

import numpy as np
import pytest
import tiny

from jaxcl import UserError, fit, load, progress
from jaxcl.data import Digits


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / "run"
    fit(tiny.experiment, path)
    return load(path)


@pytest.fixture(scope="module")
def images():
    test = Digits(tiny.SIZE).split("test")
    return np.stack([test.image(i) for i in range(30)])


def test_encodes_arrays_of_any_usual_kind(run, images):
    features = run.encode(images)
    assert features.shape == (30, 8)
    assert features.dtype == np.float32
    np.testing.assert_array_equal(run.encode(images[..., 0]), features)
    np.testing.assert_allclose(run.encode(images / 255), features, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(run.encode(images[7:8]), features[7:8], rtol=1e-4, atol=1e-5)
    larger = np.kron(images, np.ones((1, 2, 2, 1), np.uint8))
    assert run.encode(larger).shape == (30, 8)


def test_work_of_minutes_says_how_far_it_is(run, images, monkeypatch, capsys):
    monkeypatch.setattr(progress, "QUIET_S", 0.0)
    run.encode(images)
    assert capsys.readouterr().err == "  30 of 30 images\n"


def test_the_untrained_network_differs(run, images):
    assert int(run.untrained().state.step) == 0
    assert np.abs(run.untrained().encode(images) - run.encode(images)).max() > 0.01


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (np.zeros((2, 8, 8, 3), np.uint8), r"\[2, 8, 8, 3\]; this encoder takes \[n, h, w, 1\]"),
        (np.zeros((0, 8, 8, 1), np.uint8), r"n >= 1"),
        (np.full((1, 8, 8, 1), 7.0), r"floats outside \[0, 1\]"),
        (np.zeros((1, 8, 8, 1), np.int64), r"images is int64; give uint8"),
    ],
)
def test_images_of_another_kind_are_refused(run, images, words):
    with pytest.raises(UserError, match=words):
        run.encode(images)


def test_a_directory_without_checkpoint(tmp_path, run):
    for name in ("config.json", "shapes.json"):
        (tmp_path / name).write_text((run.path / name).read_text())
    with pytest.raises(UserError, match=r"holds no checkpoint; train first"):
        load(tmp_path)


def test_a_run_shows_itself_in_a_line(run):
    assert re.fullmatch(r"Run\('.*': SimCLR after step 15\)", repr(run))
