"""The programs as a user types them."""

import json
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from functools import partial
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcl import UserError, load, progress
from jaxcl.augment import Noise, Recipe, View
from jaxcl.data import Subset
from jaxcl.encoders import forward
from jaxcl.programs import evaluate, train
from jaxcl.run import Run

ROOT = Path(__file__).parents[2]
DIGITS = str(ROOT / "configs" / "simclr_digits.py")
QUICK = ["--optim.epochs", "1", "--optim.warmup-epochs", "0", "--method.encoder.width", "0.125",
         "--method.encoder.stages", "2",
         "--data.batch-size", "256", "--probe.every", "0", "--train.devices", "1"]  # fmt: skip


def leaves(program, arguments):
    """Exit status of a program that ends the process."""
    with pytest.raises(SystemExit) as end:
        program.main(arguments)
    return end.value.code


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("digits") / "run"
    train.main([DIGITS, *QUICK, "--dir", str(path)])
    return path


def test_help_lists_every_field_with_meaning_and_default(capsys):
    assert leaves(train, [DIGITS, "--help"]) == 0
    told = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for option, meaning, default in [
        ("--method.temperature FLOAT", "Scale of the similarities", "0.5"),
        ("--data PATH|tfds:NAME|digits, --data.source", "Images: digits", "digits"),
        ("--optim.weight-decay FLOAT", "Strength of the weight decay", "0.0001"),
        ("--method.augment.views.0.ops.0.degrees", "turn", "10.0"),
        ("--dir STR, --train.dir STR", "Run directory", ""),
        ("--method.encoder.width FLOAT", "Multiplies all channels", ""),
    ]:
        assert option in told
        assert meaning in told[told.index(option) :]
        assert f"(default: {default}" in told[told.index(option) :]


def test_a_reader_who_leaves_ends_the_help_without_a_word():
    command = [sys.executable, str(ROOT / "eval.py"), "--help"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as program:
        program.stdout.close()
        assert program.stderr.read() == b""
    assert program.returncode == 1


@pytest.mark.parametrize("program", ["train", "eval", "export"])
def test_ctrl_c_while_modules_are_imported_leaves_no_trace(program, tmp_path, ctrl_c):
    slow = tmp_path / "jaxcl"
    slow.mkdir()
    (slow / "__init__.py").write_text("import time\nprint('here', flush=True)\ntime.sleep(60)\n")
    shutil.copy(ROOT / f"{program}.py", tmp_path)
    command = [sys.executable, str(tmp_path / f"{program}.py"), "--help"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"here\n"
        process.send_signal(signal.SIGINT)
        assert process.stderr.read() == b""
    assert process.returncode == -signal.SIGINT


def test_every_option_has_a_meaning(capsys):
    leaves(train, [DIGITS, "--help"])
    lines = [line.strip("│ ").rstrip() for line in capsys.readouterr().out.splitlines()]
    unexplained = [
        option
        for option, below in pairwise(lines)
        if option.startswith("--")
        and option[2:3].isalpha()
        and below.startswith(("(default", "(required"))
    ]
    assert unexplained == []


def test_a_misspelt_option_is_answered_with_the_nearest(capsys):
    assert leaves(train, [DIGITS, "--method.temprature", "0.2"]) == 2
    assert "--method.temperature" in capsys.readouterr().err


def test_an_ill_typed_option_is_told(capsys):
    assert leaves(train, [DIGITS, "--method.temperature", "warm"]) == 2
    assert "warm" in capsys.readouterr().err


def test_without_arguments_it_says_how(capsys):
    assert leaves(train, []) == 2
    assert leaves(train, ["--help"]) == 0
    assert "usage: train.py CONFIG [options]" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--data", "nowhere.zip"], "nowhere.zip does not exist"),
        (["--data.batch-size", "2000"], "batch_size=2000"),
        (["--optim.warmup-epochs", "99"], "optim.warmup_epochs=99 leaves nothing of optim.epochs="),
        (["--train.devices", "99"], "train.devices=99, but there are 8; use 0 for all"),
        (["--train.devices", "3"], "data.batch_size=256 does not split over 3 devices"),
        (["--method.chunks", "2"], "groups=1 does not split over method.chunks=2"),
    ],
)
def test_a_mistake_is_one_line_before_anything_is_compiled(tmp_path, capsys, options, words):
    assert leaves(train, [DIGITS, "--dir", str(tmp_path / "run"), *options]) == 2
    error = capsys.readouterr().err
    assert words in " ".join(error.replace("│", " ").split())
    assert "Traceback" not in error
    assert not (tmp_path / "run").exists()


def test_an_unknown_config_names_those_there_are(capsys):
    assert leaves(train, [str(ROOT / "configs" / "simclr_cifar11.py")]) == 2
    assert "simclr_cifar10.py" in capsys.readouterr().err


def test_the_same_command_again_has_nothing_to_do(run, capsys):
    train.main([DIGITS, *QUICK, "--dir", str(run)])
    assert "done:" in capsys.readouterr().out


def test_evaluation_prints_a_table_and_writes_a_report(run, capsys):
    evaluate.main([str(run), "--seeds", "2", "--shots", "1", "--clusters"])
    told = capsys.readouterr().out
    for row in ("raw pixels", "untrained", "trained"):
        assert re.search(rf"^{row} .*\d", told, re.MULTILINE)
    scores = json.loads((run / "evaluation.json").read_text())["scores"]
    assert set(scores) == {"raw pixels", "untrained", "trained"}
    assert scores["raw pixels"]["knn"] > 90
    names = "knn linear_lbfgs linear_sgd labels_1_per_class labels_10_per_class"
    names += " mean_5_way_1_shot ridge_5_way_1_shot cluster_accuracy cluster_nmi cluster_ari"
    geometry = "alignment uniformity effective_rank feature_std"
    assert set(names.split()) | set(geometry.split()) <= set(scores["trained"])
    page = (run / "report.html").read_text()
    HTMLParser().feed(page)
    for part in ("Training", "Augmented views", "Nearest neighbours", "Map", "Confusion", "Config"):
        assert part in page
    assert 'src="http' not in page


def test_alignment_is_of_the_views_that_training_sees(run):
    """Not of the central square that inference cuts out of an image, nor rounded to 8 bits."""
    run = load(run)
    view = View(None, (Noise(p=1.0, sigma=0.1),), copies=2)
    recipe = Recipe((view,), 16, mean=(0.4,), std=(0.3,), inference_crop=0.5)
    method = replace(run.experiment.method, augment=recipe)
    run = replace(
        run,
        experiment=replace(run.experiment, method=method),
        trainer=replace(run.trainer, method=method),
    )
    test = Subset(run.experiment.data.source.split("test"), np.arange(3))
    images = jnp.array(np.stack([test.image(i) for i in range(3)]))
    keys = [jax.random.fold_in(jax.random.key(run.experiment.train.seed), i) for i in range(3)]
    pairs = evaluate._pairs(run, test)
    for seen, view in zip(pairs, jax.jit(recipe)(jnp.stack(keys), images), strict=True):
        expected = jax.jit(partial(forward, run.encoder.encoder, train=False))(
            run.encoder.params, run.encoder.stats, view
        )[0]["features"]
        np.testing.assert_allclose(seen, expected, rtol=1e-5, atol=1e-6)


def test_evaluating_nothing(tmp_path, capsys):
    assert leaves(evaluate, [str(tmp_path)]) == 2
    assert "holds no run" in capsys.readouterr().err


def test_unreadable_images_are_tolerated_as_the_run_does_or_as_asked(run):
    found = load(run)
    assert evaluate.tolerant(found, None) is found
    assert evaluate.tolerant(found, 0.25).experiment.data.max_bad == 0.25
    with pytest.raises(UserError, match=r"--max-bad 1\.5 is no share"):
        evaluate.tolerant(found, 1.5)


def test_work_that_takes_long_says_how_far_it_has_come(monkeypatch, capsys):
    monkeypatch.setattr(progress, "QUIET_S", 0.0)
    assert list(progress.told([[1, 2], [3]], len, 3, "images")) == [[1, 2], [3]]
    assert capsys.readouterr().err == "  2 of 3 images\n  3 of 3 images\n"


def test_weights_that_are_gone_are_told_with_the_option_to_do_without(run, monkeypatch, capsys):
    def gone(self):
        raise UserError("train.start=x.pth does not exist")

    monkeypatch.setattr(Run, "untrained", gone)
    assert leaves(evaluate, [str(run), "--no-report"]) == 2
    told = capsys.readouterr().err
    assert "x.pth does not exist; or leave that comparison away by --no-compare" in told
