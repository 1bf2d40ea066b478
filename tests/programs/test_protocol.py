"""Runs scored as their methods' authors do."""

import json
from dataclasses import replace

import jax
import numpy as np
import pytest
from contract import SIZE, VIEWS, experiment

from jaxcl import UserError, fit, load
from jaxcl.augment import Recipe, crop_and_flip, simclr
from jaxcl.data import Arrays, Data, Digits
from jaxcl.encoders import MLP, Prototypes, ResNet, ViT, forward, vit
from jaxcl.evaluate import knn_accuracy
from jaxcl.methods import DINO
from jaxcl.programs.evaluate import main
from jaxcl.programs.protocol import _changed, _projects, _representation, evaluate_protocol
from jaxcl.protocols import PROTOCOLS, joined, linear_experiment
from jaxcl.training import SGD, ClassifierAccuracy, Probe
from jaxcl.training.logs import read_metrics

DIGITS = Digits(SIZE)
TRAIN, TEST = (DIGITS.split(name) for name in ("train", "test"))
IMAGES = [np.stack([part.image(i) for i in range(len(part))]) for part in (TRAIN, TEST)]
RECIPE = Recipe((replace(VIEWS, copies=2),), SIZE, (0.5,), (0.25,))
METHOD = DINO(
    augment=RECIPE,
    encoder=ViT(width=8, depth=5, heads=2, patch=4, image=SIZE),
    projector=MLP((8,), 6, bias=True, out_bias=True),
    prototypes=Prototypes(7, unit=True, unit_inputs=True),
    momentum=0.5,
    frozen_epochs=0,
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """DINO on digits with a small transformer and a linear classifier beside it."""
    run = tmp_path_factory.mktemp("protocols") / "run"
    begun = experiment(METHOD, SGD(lr=0.1, scaling="none", warmup_epochs=0))
    begun = replace(
        begun, data=Data(DIGITS, batch_size=432), train=replace(begun.train, save_every=9)
    )
    assert fit(replace(begun, probe=Probe(every=0, lr=0.1, optimiser="run")), run).finished
    return load(run)


def seen(encoder, params, stats, images):
    """Features and projections-to-be of plain images."""
    x = (np.float32(images) / 255 - 0.5) / 0.25
    return np.asarray(forward(encoder, params, stats, x, train=False)[0]["features"])


def test_neighbours_are_those_of_the_network_and_output_that_the_authors_compare(run, monkeypatch):
    params, memory = run.state.params, run.state.memory
    student = [seen(METHOD.encoder, params["encoder"], {}, x) for x in IMAGES]
    teacher = [seen(METHOD.encoder, memory.teacher["encoder"], {}, x) for x in IMAGES]
    own, stats = params["projector"], memory.stats["projector"]
    heads = [
        np.asarray(forward(METHOD.projector, own, stats, x, train=False)[0]["features"])
        for x in student
    ]
    assert np.abs(student[1] - teacher[1]).max() > 1e-3
    for name in ("lightly", "dino", "moco"):
        monkeypatch.setitem(PROTOCOLS, name, replace(PROTOCOLS[name], linear=None))
    for name, rows, ks, t in (
        ("lightly", student, (200,), 0.1),
        ("dino", teacher, (10, 20, 100, 200), 0.07),
        ("moco", heads, (200,), 0.1),
    ):
        represent = _representation(run, PROTOCOLS[name].knn)
        made = jax.jit(represent)(run.state, {"image": IMAGES[1]})["features"]
        np.testing.assert_allclose(made, rows[1], rtol=1e-4, atol=1e-5)
        score = lambda k, top, rows=rows, t=t: float(
            knn_accuracy(
                rows[0], TRAIN.labels, rows[1], TEST.labels, classes=10, k=k, temperature=t, top=top
            )
        )
        expected = {f"knn_{k}": score(k, 1) for k in ks} | {
            f"knn_{k}_top5": score(k, 5) for k in ks
        }
        # Features differ in their last bits, and two of 500 images may lie between neighbours.
        assert evaluate_protocol(run, name) == pytest.approx(expected, abs=0.5)


def test_the_linear_classifier_is_a_run_of_its_own(run, capsys):
    """Beside the run, of the joined tokens, evaluated at every epoch; then it is only read."""
    main([str(run.path), "--protocol", "dino", "--epochs", "2", "--batch-size", "400"])
    kept = json.loads((run.path / "protocol_dino_epochs2_batch400.json").read_text())
    assert "linear classifier: " in capsys.readouterr().out
    stage = load(run.path / "linear_dino_step9_epochs2_batch400")
    method = stage.experiment.method
    assert method.encoder.feature_blocks == 4 and method.logits_init == "normal_0.01"
    kernel = stage.state.params["logits"]["linear_out"]["kernel"]
    assert kernel.shape == (32, 10)
    assert stage.experiment.optim.peak(400) == pytest.approx(0.001 * 400 / 256)
    jax.tree.map(
        np.testing.assert_array_equal, stage.state.params["encoder"],
        run.state.memory.teacher["encoder"],
    )  # fmt: skip
    tokens = seen(method.encoder, stage.state.params["encoder"], {}, IMAGES[1])
    logits = tokens @ np.asarray(kernel) + stage.state.params["logits"]["linear_out"]["bias"]
    hits = 100 * np.mean(logits.argmax(1) == TEST.labels)
    rows = [row["classifier"] for row in read_metrics(stage.path) if "classifier" in row]
    assert len(rows) == 2 and rows[-1] == pytest.approx(hits)
    assert kept["scores"]["linear"] == rows[-1] and kept["scores"]["linear_best"] == max(rows)
    assert kept["step"] == 9 and "eval_linear.py" in kept["source"]
    moved = run.path.rename(run.path.with_name("moved"))
    main([str(moved), "--protocol", "dino", "--epochs", "2", "--batch-size", "400"])
    moved.rename(run.path)
    told = capsys.readouterr()
    assert "linear classifier: " in told.out and "images/s" not in told.out + told.err


def test_the_online_classifier_is_scored_on_plain_images(run, capsys):
    teacher = seen(METHOD.encoder, run.state.memory.teacher["encoder"], {}, IMAGES[1])
    kernel, bias = (np.asarray(run.state.probe.params[name]) for name in ("kernel", "bias"))
    hits = np.argmax(teacher @ kernel + bias, axis=1) == TEST.labels
    assert evaluate_protocol(run, "solo-learn")["online"] == pytest.approx(100 * np.mean(hits))
    assert "of the slow network" in capsys.readouterr().out
    student = replace(run.trainer, method=replace(METHOD, keep="student"))
    evaluate_protocol(replace(run, trainer=student), "solo-learn")
    assert "of the slow network" not in capsys.readouterr().out


def test_mistakes_are_told(run, capsys):
    bare = replace(run, state=run.state._replace(probe=()))
    with pytest.raises(UserError, match="trained no linear classifier beside its method"):
        evaluate_protocol(bare, "solo-learn")
    with pytest.raises(UserError, match="leave --epochs and --batch-size away"):
        evaluate_protocol(run, "lightly", epochs=3)
    fewer = Arrays(IMAGES[0], TRAIN.labels % 2, IMAGES[1], TEST.labels % 2)
    with pytest.raises(UserError, match=r"has 2 classes, and the classifier beside .* knows 10"):
        evaluate_protocol(run, "solo-learn", fewer)
    bare = Arrays(IMAGES[0], np.full(len(TRAIN), -1), IMAGES[1], TEST.labels)
    with pytest.raises(UserError, match=r"has no labels, and --protocol swav scores by them"):
        evaluate_protocol(run, "swav", bare)
    coloured = Arrays(
        np.repeat(IMAGES[0], 3, 3), TRAIN.labels, np.repeat(IMAGES[1], 3, 3), TEST.labels
    )
    with pytest.raises(UserError, match=r"has images of 3 channels, and .* takes 1"):
        evaluate_protocol(run, "lightly", coloured)
    for words, answer in (
        (["--protocol", "lightly", "--shots", "1"], "--shots has no meaning with --protocol"),
        (["--protocol", "simclr"], "has 1297 to train on; add --batch-size 1024"),
        (["--epochs", "3"], "add --protocol"),
    ):
        with pytest.raises(SystemExit) as stopped:
            main([str(run.path), *words])
        assert stopped.value.code == 2
        assert answer in capsys.readouterr().err


def test_other_data_lie_apart_from_the_runs():
    """Of whatever kind: their pixels count where no file has a name."""
    one, other = (
        Arrays(x, TRAIN.labels, IMAGES[1], TEST.labels) for x in (IMAGES[0], 255 - IMAGES[0])
    )
    names = {_changed(None, 0, 0), _changed(one, 0, 0), _changed(other, 0, 0), _changed(one, 2, 8)}
    assert len(names) == 4 and "" in names
    assert _changed(one, 0, 0) == _changed(Arrays(*vars(one).values()), 0, 0)


def test_projections_are_those_of_averaged_weights_and_of_a_whole_projector(run):
    averaged = replace(run.trainer, optim=replace(run.trainer.optim, average=0.5))
    half = jax.tree.map(lambda p: p / 2, run.state.params)
    state = run.state._replace(average=half)
    knn = PROTOCOLS["moco"].knn
    made = [
        jax.jit(_representation(replace(run, trainer=trainer), knn))(
            state, {"image": IMAGES[1][:8]}
        )["features"]
        for trainer in (averaged, run.trainer)
    ]
    rows = seen(METHOD.encoder, half["encoder"], {}, IMAGES[1][:8])
    stats = run.state.memory.stats["projector"]
    own = forward(METHOD.projector, half["projector"], stats, rows, train=False)[0]["features"]
    np.testing.assert_allclose(made[0], own, rtol=1e-4, atol=1e-5)
    assert np.abs(made[0] - made[1]).max() > 1e-3
    assert _projects(run)
    cut = {**run.state.params, "projector": {"linear1": {}}}
    assert not _projects(replace(run, state=run.state._replace(params=cut)))


def test_crops_are_the_protocols_and_what_inference_sees_is_the_runs():
    recipe = simclr(32, inference_crop=0.875, normalize="cifar10")
    made = linear_experiment(
        "simclr", encoder=ResNet(10), recipe=recipe, source=DIGITS, classes=10, start_from="run"
    )
    expected = crop_and_flip(
        32, sampler="tensorflow", interpolation="tf_bicubic", inference_crop=0.875,
        normalize="cifar10",
    )  # fmt: skip
    assert made.method.augment == replace(
        expected, inference_interpolation=recipe.inference_interpolation
    )
    assert isinstance(made.probe, ClassifierAccuracy) and made.data.batch_size == 4096
    with pytest.raises(KeyError, match="lightly trains no linear classifier"):
        linear_experiment(
            "lightly",
            encoder=ResNet(10),
            recipe=recipe,
            source=DIGITS,
            classes=10,
            start_from="run",
        )


def test_tokens_are_joined_by_the_size_of_the_transformer():
    assert joined(vit("S/16")).feature_blocks == 4 and not joined(vit("S/16")).feature_mean
    assert joined(vit("B/16")).feature_blocks == 1 and joined(vit("B/16")).feature_mean
    assert joined(ResNet(50)) == ResNet(50)
