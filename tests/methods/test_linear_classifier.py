"""A linear layer that learns on top of an encoder that does not."""

import shutil
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contract import CLASSES, ENCODER, IMAGES, RECIPE, SIZE, SOURCE, Contract, experiment, pictures

from jaxcl import UserError, fit, load
from jaxcl.augment import Flip, Recipe, View
from jaxcl.data import Arrays, Data
from jaxcl.encoders import MLP
from jaxcl.methods import LinearClassifier, Progress
from jaxcl.methods.classifier import Labelled
from jaxcl.training import SGD
from jaxcl.training.checkpoints import Checkpoints

METHOD = LinearClassifier(
    augment=Recipe((View(None, (Flip(),)),), SIZE), encoder=ENCODER, classes=CLASSES
)
ON_ROWS = replace(METHOD, encoder=MLP((6,), 5))
"""An encoder with batch norm that takes rows, so that a step compiles in a moment."""
LABELS = jnp.array([0, 3, -1, 2, 1, -1])
VIEWS = Labelled((jax.random.normal(jax.random.key(0), (6, 4)),), LABELS)
KEY = jax.random.key(1)
PARAMS, MEMORY = jax.jit(ON_ROWS.init)(KEY, VIEWS)


@jax.jit
def graded(logits):
    of = lambda params: ON_ROWS.loss(params, MEMORY, VIEWS, KEY, Progress(0, 10, 5))
    return jax.value_and_grad(of, has_aux=True)(PARAMS | {"logits": {"linear_out": logits}})


def test_cross_entropy_of_the_labelled_on_features_of_inference():
    kernel = np.random.default_rng(0).normal(size=(5, CLASSES))
    logits = {"kernel": jnp.float32(kernel), "bias": jnp.arange(4.0)}
    (value, aux), _ = graded(logits)
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), PARAMS["encoder"])
    h = np.asarray(VIEWS.images[0], np.float64) @ p["linear1"]["kernel"] / np.sqrt(1 + 1e-5)
    scores = np.maximum(h, 0) @ p["linear_out"]["kernel"] @ kernel + np.arange(4)
    rows, own = np.flatnonzero(LABELS >= 0), LABELS[LABELS >= 0]
    terms = np.log(np.exp(scores[rows]).sum(1)) - scores[rows, own]
    np.testing.assert_allclose(value, terms.mean(), rtol=1e-5)
    hits = scores[rows].argmax(1) == own
    np.testing.assert_allclose(aux.metrics["accuracy"], 100 * hits.mean(), rtol=1e-6)


def test_the_encoder_has_no_gradient_and_keeps_its_statistics():
    logits = {"kernel": jnp.ones((5, CLASSES)).at[0, 1].set(0), "bias": jnp.zeros(CLASSES)}
    (_, aux), slope = graded(logits)
    assert all((np.asarray(g) == 0).all() for g in jax.tree.leaves(slope["encoder"]))
    assert all((np.asarray(g) != 0).any() for g in jax.tree.leaves(slope["logits"]))
    jax.tree.map(np.testing.assert_array_equal, aux.memory, MEMORY)


def test_it_starts_undecided():
    (value, _), _ = graded(PARAMS["logits"]["linear_out"])
    np.testing.assert_allclose(value, np.log(CLASSES), rtol=1e-6)


class TestContract(Contract):
    unmoved = ("['encoder']",)

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def begin(cls, pretrained):
        method = replace(METHOD, start_from=str(pretrained))
        cls.experiment = experiment(method, SGD(lr=0.5, scaling="none", warmup_epochs=0))

    def test_the_frozen_encoder_is_the_earlier_runs_bit_for_bit(self, alone, pretrained):
        mine, theirs = load(alone).encoder, load(pretrained).encoder
        jax.tree.map(np.testing.assert_array_equal, mine.params, theirs.params)
        jax.tree.map(np.testing.assert_array_equal, mine.stats, theirs.stats)

    def test_features_are_the_earlier_runs(self, alone, pretrained):
        """So kNN and every probe of `eval.py` say of both what they say of one."""
        images, _ = pictures(5, 3)
        mine, theirs = (load(run).encode(images) for run in (alone, pretrained))
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-6)

    def test_it_starts_from_another_checkpoint_where_asked(self, pretrained, tmp_path):
        """The run kept those of all six steps; the best one, say, is not the newest."""
        run = tmp_path / "earlier"
        shutil.copytree(pretrained, run)
        Checkpoints(run).judge(4, 50.0)
        method = replace(self.experiment.method, start_from=str(run), start_step=4)
        state = fit(replace(self.experiment, method=method), tmp_path / "run").state
        best = load(run, best=True)
        assert int(best.state.step) == 4
        theirs = best.encoder.params
        jax.tree.map(np.testing.assert_array_equal, state.params["encoder"], theirs)
        gone = replace(method, start_step=9)
        with pytest.raises(UserError, match=r"holds no checkpoint after step 9, only \[1, 2, 3"):
            fit(replace(self.experiment, method=gone), tmp_path / "gone")

    def test_another_encoder_is_told(self, tmp_path):
        wide = replace(self.experiment.method, encoder=ENCODER.clone(width=0.25))
        words = r"was trained with method.encoder.width=0.125, and here it is 0.25; set method"
        with pytest.raises(UserError, match=words):
            fit(replace(self.experiment, method=wide), tmp_path / "run")


def test_a_run_that_is_not_there_is_told_before_anything_is_made(tmp_path, monkeypatch):
    monkeypatch.setattr(LinearClassifier, "init", None)
    begun = experiment(replace(METHOD, start_from=str(tmp_path / "gone")))
    with pytest.raises(UserError, match=r"method.start_from=.*gone does not exist; train it first"):
        fit(begun, tmp_path / "run")


def test_data_without_labels_is_refused(tmp_path):
    bare = Arrays(SOURCE.train_images, np.full(IMAGES, -1), SOURCE.test_images, SOURCE.test_labels)
    begun = replace(experiment(METHOD), data=Data(bare, batch_size=16))
    with pytest.raises(UserError, match=r"LinearClassifier needs labels, and .* has none"):
        fit(begun, tmp_path / "run")


def test_two_views_are_refused():
    with pytest.raises(UserError, match="makes 2 views, and LinearClassifier takes one"):
        replace(METHOD, augment=RECIPE).check(16)
