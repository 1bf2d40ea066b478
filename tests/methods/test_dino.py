"""DINO against its equations in NumPy, on small heads; the contract on networks."""

import math
import shutil
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contract import ENCODER, RECIPE, SIZE, VIEWS, Contract, experiment

from jaxcl import UserError, load
from jaxcl.augment import RandomResizedCrop, Recipe, dino, simclr
from jaxcl.encoders import MLP, Prototypes, ViT
from jaxcl.methods import DINO, Progress
from jaxcl.methods.progress import ramp
from jaxcl.training import AdamW

K = 7
METHOD = DINO(
    augment=RECIPE,
    encoder=MLP((6,), 5),
    projector=MLP((8,), 6, norm="none", bias=True, out_bias=True, activation="gelu"),
    prototypes=Prototypes(K, unit=True, unit_inputs=True),
    first_teacher_temperature=0.04,
    teacher_temperature=0.06,
    temperature_epochs=3,
    momentum=0.9,
)
ROWS = tuple(jax.random.normal(jax.random.key(v), (6, 4)) for v in range(4))
"""Two large and two small views; the encoder takes rows, so that a step compiles in a moment."""
SECOND_EPOCH = Progress(4, 12, 3)


@jax.jit
def begin(key):
    """Parameters, and a memory whose teacher and centre are not those of the first step."""
    params, memory = METHOD.init(key, ROWS)
    teacher, _ = METHOD.init(jax.random.fold_in(key, 1), ROWS)
    return params, memory._replace(teacher=teacher, centre=jnp.linspace(-0.1, 0.1, K))


PARAMS, MEMORY = begin(jax.random.key(9))


@jax.jit
def graded(params, memory):
    of = lambda params, memory: METHOD.loss(params, memory, ROWS, jax.random.key(5), SECOND_EPOCH)
    return jax.value_and_grad(of, argnums=(0, 1), has_aux=True)(params, memory)


def scores(params, views):
    """Of all views together, in float64: [v, n, K]."""
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    h = np.concatenate(views).astype(np.float64) @ p["encoder"]["linear1"]["kernel"]
    h = (h - h.mean(0)) / np.sqrt(h.var(0) + 1e-5)  # one batch norm over this network's views
    h = np.maximum(h * p["encoder"]["norm1"]["scale"] + p["encoder"]["norm1"]["bias"], 0)
    h = h @ p["encoder"]["linear_out"]["kernel"]
    h = h @ p["projector"]["linear1"]["kernel"] + p["projector"]["linear1"]["bias"]
    h = h * np.vectorize(math.erf)(h / 2**0.5) / 2 + h / 2
    h = h @ p["projector"]["linear_out"]["kernel"] + p["projector"]["linear_out"]["bias"]
    kernel = p["prototypes"]["kernel"]
    h = h / np.linalg.norm(h, axis=1, keepdims=True) @ (kernel / np.linalg.norm(kernel, axis=0))
    return h.reshape(len(views), -1, K)


def softmax(x):
    return np.exp(x) / np.exp(x).sum(-1, keepdims=True)


def test_loss_monitors_and_centre_match_the_equations():
    s, t = scores(PARAMS, ROWS), scores(MEMORY.teacher, ROWS[:2])
    p = softmax((t - np.linspace(-0.1, 0.1, K)) / 0.05)  # the second of three epochs of warm-up
    q = softmax(s / 0.1)
    pairs = [(i, v) for i in range(2) for v in range(4) if i != v]
    assert len(pairs) == 2 * (2 + 2) - 2
    cross = np.mean([-(p[i] * np.log(q[v])).sum(1).mean() for i, v in pairs])
    divergence = np.mean([(p[i] * np.log(p[i] / q[v])).sum(1).mean() for i, v in pairs])
    (value, aux), _ = graded(PARAMS, MEMORY)
    np.testing.assert_allclose(value, cross, rtol=1e-5)
    np.testing.assert_allclose(aux.metrics["divergence"], divergence, rtol=1e-4)
    np.testing.assert_allclose(
        aux.metrics["teacher_entropy"], -(p * np.log(p)).sum(2).mean(), rtol=1e-5
    )
    centre = 0.9 * np.linspace(-0.1, 0.1, K) + 0.1 * t.reshape(-1, K).mean(0)
    np.testing.assert_allclose(aux.memory.centre, centre, rtol=1e-5, atol=1e-6)


def test_the_teacher_has_no_gradient_and_the_student_has():
    _, (student, memory) = graded(PARAMS, MEMORY)
    assert all((np.asarray(g) == 0).all() for g in jax.tree.leaves(memory))
    assert all(np.abs(g).max() > 0 for g in jax.tree.leaves(student))


def test_even_outputs_cost_the_logarithm_of_their_number():
    """Prototypes of length 0 score 0: the mean over all pairs is log K, none of it divergence."""
    even = lambda params: params | {"prototypes": {"kernel": jnp.zeros((6, K))}}
    memory = MEMORY._replace(teacher=even(MEMORY.teacher), centre=jnp.zeros(K))
    (value, aux), _ = graded(even(PARAMS), memory)
    np.testing.assert_allclose(value, np.log(K), rtol=1e-6)
    np.testing.assert_allclose(aux.metrics["divergence"], 0, atol=1e-6 * np.log(K))  # a difference


def test_each_network_keeps_statistics_of_its_own_views():
    (_, aux), _ = graded(PARAMS, MEMORY)
    for params, stats, views in (
        (PARAMS, aux.memory.stats, ROWS),
        (MEMORY.teacher, aux.memory.teacher_stats, ROWS[:2]),
    ):
        h = np.concatenate(views) @ params["encoder"]["linear1"]["kernel"]
        kept = stats["encoder"]["norm1"]
        np.testing.assert_allclose(kept["mean"], 0.1 * h.mean(0), rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(kept["var"], 0.9 + 0.1 * h.var(0), rtol=1e-5)


def test_the_teacher_follows_to_a_stop():
    after = jax.jit(lambda progress: METHOD.after_step(PARAMS, MEMORY, progress).teacher)
    kernel = lambda params: np.asarray(params["projector"]["linear1"]["kernel"], np.float64)
    for step in (0, 7, 12):
        kept = 1 - (1 - 0.9) * (1 + np.cos(np.pi * step / 12)) / 2
        expected = kept * kernel(MEMORY.teacher) + (1 - kept) * kernel(PARAMS)
        found = kernel(after(Progress(jnp.int32(step), 12, 3)))
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("epochs", [0, 1, 5])
def test_the_ramp_is_linspace_by_epoch(epochs):
    expected = np.concatenate([np.linspace(0.04, 0.07, epochs), np.full(8 - epochs, 0.07)])
    found = [ramp(Progress(step, 24, 3), 0.04, 0.07, epochs) for step in range(24)]
    np.testing.assert_allclose(found, np.repeat(expected, 3), rtol=1e-6)


VIT = ViT(width=8, depth=2, heads=2, patch=2, image=SIZE, drop_path=0.5, resize_offset=0.1)
SMALL_CROPS = replace(VIEWS, crop=RandomResizedCrop(4, (0.1, 0.4)), copies=2)
ON_VIT = replace(METHOD, encoder=VIT, augment=Recipe((*RECIPE.views, SMALL_CROPS), SIZE))


def test_stochastic_depth_is_the_students_alone():
    views = tuple(jax.random.normal(jax.random.key(s), (6, s, s, 3)) for s in (8, 8, 4, 4))
    params, memory = jax.jit(ON_VIT.init)(jax.random.key(0), views)
    loss = jax.jit(lambda key: ON_VIT.loss(params, memory, views, key, SECOND_EPOCH)[1])
    one, two = (loss(jax.random.key(k)) for k in range(2))
    np.testing.assert_array_equal(one.features, two.features)
    np.testing.assert_array_equal(one.memory.centre, two.memory.centre)
    assert np.abs(one.embeddings - two.embeddings).max() > 1e-3


class TestContract(Contract):
    experiment = experiment(replace(METHOD, encoder=ENCODER))

    def test_prototypes_stand_still_for_an_epoch(self, alone, tmp_path):
        """Of two steps; at the end of the third epoch nothing stands still any more."""
        run = tmp_path / "run"
        shutil.copytree(alone, run)
        for step in range(3, 7):
            shutil.rmtree(run / "checkpoints" / str(step))
        run = load(run)
        before, now = run.untrained().state.params, run.state.params
        np.testing.assert_array_equal(now["prototypes"]["kernel"], before["prototypes"]["kernel"])
        head = [params["projector"]["linear1"]["kernel"] for params in (before, now)]
        assert np.abs(head[0] - head[1]).max() > 0

    def test_the_teacher_is_kept(self, alone):
        run = load(alone)
        assert run.encoder.params is run.state.memory.teacher["encoder"]
        assert run.encoder.stats is run.state.memory.teacher_stats["encoder"]


@pytest.mark.extended
class TestContractOnViT(Contract):
    """Small crops on interpolated positions, stochastic depth, decay that grows, each clipped."""

    experiment = experiment(
        ON_VIT,
        AdamW(lr=2e-3, scaling="none", warmup_epochs=0, final_weight_decay=0.4, clip_each=0.3),
    )


def test_pairs_are_told():
    crops = replace(METHOD, augment=dino(16, local_size=8, local=8))
    assert crops.facts(256) == {"pairs per image": "18 of 2 large views and 10"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"augment": Recipe((VIEWS,), SIZE)}, r"makes views of 8 pixels, and DINO takes two"),
        ({"augment": Recipe((SMALL_CROPS, VIEWS), SIZE)}, r"makes views of 4, 4, 8 pixels"),
        (
            {"augment": simclr(18), "encoder": ViT(patch=4)},
            r"views of 18 pixels.* method.encoder.patch=4; use 16 or 20",
        ),
    ],
)
def test_views_that_do_not_fit_are_refused(changes, words):
    with pytest.raises(UserError, match=words):
        replace(METHOD, **changes).check(16)
