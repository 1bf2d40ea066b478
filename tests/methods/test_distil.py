from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contract import BATCH, CLASSES, ENCODER, Contract, experiment, pictures
from earlier_runs import FINE_TUNING, PRETRAINING

from jaxcl import UserError, fit, load
from jaxcl.data import Labels
from jaxcl.encoders import ResNet
from jaxcl.methods import Distil, Progress
from jaxcl.methods.classifier import Classifier

TEACHER = Classifier(ENCODER, PRETRAINING.projector, keep_layers=1, classes=CLASSES)
METHOD = Distil(
    augment=FINE_TUNING.augment,
    encoder=ENCODER.clone(width=0.0625),
    projector=PRETRAINING.projector,
    classes=CLASSES,
    teacher=TEACHER,
    teacher_run="runs/teacher",
    temperature=2.0,
    alpha=0.7,
)
IMAGES, LABELS = pictures(BATCH, 0)
LABELS = np.where(np.arange(BATCH) < 5, LABELS, -1)
DATA = {
    "image": jnp.array(IMAGES),
    "label": jnp.array(LABELS, jnp.int32),
    "index": jnp.arange(BATCH, dtype=jnp.int32),
}
START = Progress(0, 10, 5)


def graded(method, params, memory, views):
    """Loss with its aux, and the gradients of all that it is given."""

    @jax.jit
    def both(params, memory):
        def loss(params, memory):
            return method.loss(params, memory, views, jax.random.key(2), START)

        return jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(params, memory)

    return both(params, memory)


def start(method):
    @jax.jit
    def made():
        views = method.views(jax.random.key(0), DATA)
        return views, method.init(jax.random.key(1), views)

    return made()


def softmax(x):
    return np.exp(x) / np.exp(x).sum(1, keepdims=True)


def test_it_is_the_papers_sum_and_the_teacher_is_fixed(fine_tuned):
    method = replace(METHOD, teacher_run=str(fine_tuned))
    views, state = start(method)
    params, memory = method.start(*state)
    (value, aux), (_, gradients) = graded(method, params, memory, views)
    run = load(fine_tuned)
    scores = method.teacher.scores(run.state.params, run.state.memory.stats, views.images[0])
    teacher = np.float64(scores)
    # The student's logits begin at zero: every class is as likely as any other.
    by_hand = -np.mean(np.sum(softmax(teacher / 2) * np.log(1 / CLASSES), axis=1))
    expected = 0.7 * 2**2 * by_hand + 0.3 * np.log(CLASSES)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    np.testing.assert_allclose(aux.metrics["accuracy"], 100 * np.mean(LABELS[:5] == 0))
    agreement = 100 * np.mean(teacher.argmax(1) == 0)
    np.testing.assert_allclose(aux.metrics["agreement"], agreement)
    assert all((np.asarray(g) == 0).all() for g in jax.tree.leaves(gradients.teacher))
    for one, other in zip(
        jax.tree.leaves(aux.memory.teacher), jax.tree.leaves(memory.teacher), strict=True
    ):
        np.testing.assert_array_equal(one, other)


def test_a_student_that_is_its_teacher_has_no_gradient():
    """Without batch norm, which is at inference in the teacher alone."""
    encoder = ResNet(10, width=0.25, stem="cifar", stages=1, norm="group", zero_init=False)
    same = {"encoder": encoder, "keep_layers": 0}
    method = replace(
        METHOD, alpha=1.0, teacher=Classifier(projector=METHOD.projector, classes=4, **same), **same
    )
    views, (params, memory) = start(method)
    kernel = jax.random.normal(jax.random.key(3), params["logits"]["linear_out"]["kernel"].shape)
    params["logits"]["linear_out"]["kernel"] = kernel
    memory = memory._replace(teacher=memory.teacher._replace(params=params))
    (value, aux), (gradients, _) = graded(method, params, memory, views)
    assert max(np.abs(g).max() for g in jax.tree.leaves(gradients)) < 1e-6
    assert aux.metrics["agreement"] == 100
    assert value > 0.1  # the entropy of the teacher's classes


def test_the_scale_of_the_gradient_does_not_fall_with_the_temperature():
    """Of near logits, tau^2 KD has the slope of their squared distance at any temperature."""
    views, (params, memory) = start(METHOD)
    sizes = []
    for temperature in (20.0, 40.0):
        method = replace(METHOD, temperature=temperature, alpha=1.0)
        teacher = jax.tree.map(lambda x: x + 0.05, memory.teacher.params)
        taught = memory._replace(teacher=memory.teacher._replace(params=teacher))
        _, (gradients, _) = graded(method, params, taught, views)
        sizes.append(np.abs(gradients["logits"]["linear_out"]["kernel"]).max())
    np.testing.assert_allclose(sizes[0], sizes[1], rtol=0.05)


@pytest.mark.extended
class TestContract(Contract):
    @pytest.fixture(scope="class")
    @classmethod
    def alone(cls, tmp_path_factory, fine_tuned):
        method = replace(METHOD, teacher_run=str(fine_tuned))
        cls.experiment = experiment(method, labels=Labels(0.2, "hide"))
        run = tmp_path_factory.mktemp("alone") / "run"
        assert fit(cls.experiment, run).finished
        return run

    def test_the_teacher_is_still_what_it_was(self, alone, fine_tuned):
        teacher, source = load(alone).state.memory.teacher, load(fine_tuned).state
        same = lambda one, other: jax.tree.map(np.testing.assert_array_equal, one, other)
        same(teacher.params, source.params)
        same(teacher.stats, source.memory.stats)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"teacher_run": ""}, r"method.teacher_run is empty; name the run to start from: --method"),
        ({"classes": 3}, r"classes=3 and method.teacher.classes=4; a student has its teacher's"),
    ],
)
def test_values_that_do_not_fit(changes, words):
    with pytest.raises(UserError, match=words):
        replace(METHOD, **changes).check(16)


def test_a_teacher_that_is_missing_is_told_before_anything_is_made(tmp_path):
    begun = experiment(replace(METHOD, teacher_run=str(tmp_path / "gone"), encoder=None))
    with pytest.raises(UserError, match=r"method.teacher_run=.*gone does not exist; train it fir"):
        fit(begun, tmp_path / "run")


def test_a_teacher_that_does_not_fit(pretrained, fine_tuned):
    _, state = start(METHOD)
    wide = replace(TEACHER, encoder=ENCODER.clone(width=0.25))
    deeper = replace(TEACHER, keep_layers=2)
    for changes, words in (
        ({"teacher_run": "runs/none"}, r"method.teacher_run=runs/none does not exist; train it fi"),
        ({"teacher_run": str(pretrained)}, r"holds a SimCLR, which does not classify; fine-tune i"),
        ({"teacher": wide}, r"encoder.width=0.125, and method.teacher.encoder.width is 0.25; set"),
        ({"teacher": deeper}, r"method.keep_layers=1, and method.teacher.keep_layers is 2; set it"),
    ):
        method = replace(METHOD, **({"teacher_run": str(fine_tuned)} | changes))
        with pytest.raises(UserError, match=words):
            method.start(*state)
