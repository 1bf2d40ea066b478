from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contract import BATCH, CLASSES, ENCODER, RECIPE, SIZE, SOURCE, Contract, experiment, pictures
from earlier_runs import FINE_TUNING, PRETRAINING

from jaxcl import UserError, fit, load
from jaxcl.augment import crop_and_flip
from jaxcl.data import Labels
from jaxcl.encoders import MLP, first_layers, forward
from jaxcl.evaluate import knn_accuracy
from jaxcl.methods import Progress
from jaxcl.programs.evaluate import _own_classifier
from jaxcl.training import Probe
from jaxcl.training.logs import read_metrics
from jaxcl.training.probe import Watched

IMAGES, LABELS = pictures(BATCH, 0)
DATA = {
    "image": jnp.array(IMAGES),
    "label": jnp.array(LABELS, jnp.int32),
    "index": jnp.arange(BATCH, dtype=jnp.int32),
}
START = Progress(0, 10, 5)


@jax.jit
def start():
    views = FINE_TUNING.views(jax.random.key(0), DATA)
    return views, FINE_TUNING.init(jax.random.key(1), views)


def test_the_first_step_is_that_of_a_zero_classifier_and_moves_it_alone(pretrained):
    method = replace(FINE_TUNING, start_from=str(pretrained))
    views, state = start()
    params, memory = method.start(*state)

    @jax.jit
    def graded(params, labels):
        def loss(params):
            return method.loss(
                params, memory, views._replace(labels=labels), jax.random.key(2), START
            )

        return jax.value_and_grad(loss, has_aux=True)(params)

    (value, aux), gradients = graded(params, views.labels)
    np.testing.assert_allclose(value, np.log(CLASSES), rtol=1e-6)
    assert aux.features.shape == (BATCH, 1, 8)
    for part in ("encoder", "projector"):  # a zero matrix passes no gradient on
        assert all((np.asarray(g) == 0).all() for g in jax.tree.leaves(gradients[part]))
    assert np.abs(gradients["logits"]["linear_out"]["kernel"]).max() > 1e-3
    (value, aux), gradients = graded(params, jnp.full(BATCH, -1))
    assert (value, aux.metrics["accuracy"]) == (0, 0)
    assert all((np.asarray(g) == 0).all() for g in jax.tree.leaves(gradients))


def test_it_starts_from_the_run_and_keeps_one_layer_of_its_head(pretrained):
    held = load(pretrained).state
    _, state = start()
    params, memory = replace(FINE_TUNING, start_from=str(pretrained)).start(*state)
    same = lambda one, other: jax.tree.map(np.testing.assert_array_equal, one, other)
    same(params["encoder"], held.params["encoder"])
    same(memory.stats["encoder"], held.memory.stats["encoder"])
    assert set(params["projector"]) == {"linear1", "norm1"}
    for name, part in params["projector"].items():
        same(part, held.params["projector"][name])
    same(memory.stats["projector"]["norm1"], held.memory.stats["projector"]["norm1"])
    assert (np.asarray(params["logits"]["linear_out"]["kernel"]) == 0).all()


@pytest.mark.parametrize(
    ("keep", "parts", "width"),
    [
        (0, None, None),
        (1, {"linear1", "norm1"}, 8),
        (2, {"linear1", "norm1", "linear2", "norm2"}, 12),
        (3, {"linear1", "norm1", "linear2", "norm2", "linear_out", "norm_out"}, 8),
        (-1, {"linear1", "norm1", "linear2", "norm2", "linear_out", "norm_out"}, 8),
    ],
)
def test_how_much_of_the_head_stays(keep, parts, width):
    method = replace(FINE_TUNING, keep_layers=keep)
    views, _ = start()
    params, _ = jax.eval_shape(method.init, jax.random.key(0), views)
    assert set(params.get("projector", ())) == (parts or set())
    assert params["logits"]["linear_out"]["kernel"].shape == (width or 8, CLASSES)
    kept = "3" if keep == -1 else str(keep)
    assert method.facts(16)["head"] == f"{kept} of 3 layers kept"


def test_the_first_layers_give_what_the_whole_head_has_inside(pretrained):
    held, rows = load(pretrained).state, np.random.default_rng(0).normal(size=(5, 8))
    variables = held.params["projector"], held.memory.stats["projector"]
    run = lambda head: forward(head, *variables, jnp.float32(rows), train=False)[0]
    whole = run(PRETRAINING.projector)
    for count in (1, 2):
        part = run(first_layers(PRETRAINING.projector, count))["features"]
        np.testing.assert_allclose(part, whole["hidden"][count - 1], rtol=1e-6)
    assert first_layers(PRETRAINING.projector, 0) is None
    assert first_layers(MLP((), 8), 1) == MLP((), 8)


@pytest.mark.extended
class TestContract(Contract):
    @pytest.fixture(scope="class")
    @classmethod
    def alone(cls, fine_tuned):
        cls.experiment = load(fine_tuned).experiment
        cls.experiment = replace(cls.experiment, data=replace(cls.experiment.data, source=SOURCE))
        return fine_tuned


def test_accuracy_is_logged_while_it_trains_and_the_run_classifies(fine_tuned):
    rows = [row["accuracy"] for row in read_metrics(fine_tuned) if "accuracy" in row]
    assert len(rows) == 6
    run = load(fine_tuned)
    batch = {"image": jnp.array(IMAGES)}
    logits = jax.jit(run.trainer.classify)(run.state, batch)["logits"]
    assert logits.shape == (BATCH, CLASSES)
    other = jax.jit(run.trainer.classify)(run.state, {"image": batch["image"][::-1]})["logits"]
    np.testing.assert_allclose(other[::-1], logits, rtol=1e-4, atol=1e-5)
    assert run.encode(IMAGES).shape == (BATCH, 8)

    test = SOURCE.split("test")
    shown = jnp.array(np.stack([test.image(i) for i in range(len(test))]))
    scores = jax.jit(run.trainer.classify)(run.state, {"image": shown})["logits"]
    expected = 100 * np.mean(np.argmax(scores, axis=1) == test.labels)
    assert _own_classifier(run, test) == {"classifier": expected}
    told = replace(run.experiment.data, source=SOURCE, labels=Labels(0.5, "hide"))
    probe, method = Probe(linear=False, neighbours=3), run.experiment.method
    watched = Watched(told, method, told.split("train"), run.embedder, run.classifier)
    found = probe.judge(watched)(run.state)
    assert found["classifier"] == expected
    # The neighbours are labelled images alone.
    known = replace(told, labels=Labels(0.5)).split("train")
    passes = (told.passes(examples, method) for examples in (known, test))
    bank, queries = (run.embedder.split(run.state, each) for each in passes)
    knn = knn_accuracy(*bank, *queries, classes=CLASSES, k=3, temperature=0.1)
    assert found["knn"] == float(knn)
    none = replace(told, labels=Labels(0, "hide"))
    watched = Watched(none, method, none.split("train"), run.embedder)
    bare = probe.judge(watched)(run.state)
    assert not {"knn", "classifier"} & set(bare)


@pytest.mark.parametrize(
    ("method", "words"),
    [
        (replace(FINE_TUNING, keep_layers=4), r"keep_layers=4, and the head has 3; use -1 to 3"),
        (replace(FINE_TUNING, classes=1), r"method.classes=1; a classifier takes at least 2"),
        (replace(FINE_TUNING, augment=RECIPE), r"makes 2 views, and FineTune takes one; use a rec"),
    ],
)
def test_values_that_do_not_fit(method, words):
    with pytest.raises(UserError, match=words):
        method.check(16)


def test_a_run_that_does_not_fit(pretrained):
    _, state = start()
    for changes, words in (
        ({"encoder": ENCODER.clone(depth=18)}, r"method.encoder.depth=10, and here it is 18"),
        ({"projector": MLP((0,), 8)}, r"method.projector.hidden=\(0, 12\), and here it is \(0,\)"),
        ({"augment": crop_and_flip(SIZE)}, r"normalised its images with .*give the recipe the sam"),
        ({"start_from": "runs/none"}, r"method.start_from=runs/none does not exist; train it firs"),
    ):
        method = replace(FINE_TUNING, **({"start_from": str(pretrained)} | changes))
        with pytest.raises(UserError, match=words):
            method.start(*state)


def test_a_run_that_goes_on_needs_no_other_run(pretrained, fine_tuned, tmp_path):
    run, gone = load(fine_tuned).experiment, pretrained.with_name("gone")
    pretrained.rename(gone)
    try:
        assert fit(replace(run, data=replace(run.data, source=SOURCE)), fine_tuned).finished
        with pytest.raises(UserError, match=r"start_from=.* does not exist; train it first"):
            fit(replace(run, data=replace(run.data, source=SOURCE)), tmp_path / "another")
    finally:
        gone.rename(pretrained)


def test_data_without_labels_or_with_other_classes(tmp_path):
    bare = experiment(FINE_TUNING, labels=Labels(0, "hide"))
    with pytest.raises(UserError, match=r"FineTune needs labels, and train has none"):
        fit(bare, tmp_path / "bare")
    three = experiment(replace(FINE_TUNING, classes=3))
    with pytest.raises(UserError, match=r"method.classes=3, and train has 4 classes; use --method"):
        fit(three, tmp_path / "three")
