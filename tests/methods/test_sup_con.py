"""SupCon against SimCLR at its one end, and what labels must and must not change."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contract import ENCODER, IMAGES, RECIPE, SOURCE, Contract, experiment

from jaxcl import UserError, fit
from jaxcl.augment import swav
from jaxcl.data import Arrays, Data
from jaxcl.encoders import MLP
from jaxcl.losses import sup_con
from jaxcl.methods import Progress, SimCLR, SupCon

HEAD = MLP((16,), 6, norm="none", bias=True, out_bias=True)
METHOD = SupCon(augment=RECIPE, encoder=MLP((16,), 5), projector=HEAD, temperature=0.5)
ROWS = tuple(jax.random.normal(jax.random.key(v), (8, 4)) for v in range(2))
"""The encoder takes rows, so that a step compiles in a moment."""
CLASSES = jnp.array([0, 0, 1, 2, 1, 0, 2, 2])
START, KEY = Progress(0, 10, 5), jax.random.key(7)


def as_views(rows, labels):
    batch = {"image": jnp.zeros((8, 8, 8, 3), jnp.uint8), "label": labels}
    return jax.eval_shape(METHOD.views, KEY, batch)._replace(images=rows, labels=labels)


PARAMS, MEMORY = jax.jit(METHOD.init)(jax.random.key(3), as_views(ROWS, CLASSES))


@jax.jit
def graded(rows, labels):
    of = lambda params: METHOD.loss(params, MEMORY, as_views(rows, labels), KEY, START)
    return jax.value_and_grad(of, has_aux=True)(PARAMS)


def test_labels_that_are_all_different_make_it_simclr():
    simclr = SimCLR(augment=RECIPE, encoder=METHOD.encoder, projector=HEAD, temperature=0.5)
    of = lambda params: simclr.loss(params, MEMORY, ROWS, KEY, START)
    (expected, _), slope = jax.jit(jax.value_and_grad(of, has_aux=True))(PARAMS)
    (value, aux), found = graded(ROWS, jnp.arange(8) + 5)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    same = lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6)
    jax.tree.map(same, found, slope)
    assert aux.features.shape == (8, 2, 5) and aux.embeddings.shape == (8, 2, 6)


def by_hand(embeddings, labels):
    """Each row's term, loops in float64; 0 for rows without positives."""
    z = np.asarray(embeddings, np.float64)
    z = (z / np.linalg.norm(z, axis=2, keepdims=True)).reshape(16, 6)
    classes, terms = np.repeat(labels, 2), []
    for i in range(16):
        s = z @ z[i] / 0.5
        everyone = np.log(sum(np.exp(s[a]) for a in range(16) if a != i))
        alike = [s[p] for p in range(16) if p != i and classes[p] == classes[i] >= 0]
        terms.append(everyone - np.mean(alike) if alike else 0)
    return terms


def test_all_views_of_a_class_are_positives():
    (value, aux), _ = graded(ROWS, CLASSES)
    np.testing.assert_allclose(value, np.mean(by_hand(aux.embeddings, CLASSES)), rtol=1e-5)


def test_the_first_views_alone_may_be_anchors():
    method = replace(METHOD, anchors="first")
    loss = jax.jit(lambda *given: method.loss(PARAMS, MEMORY, as_views(*given), KEY, START))
    value, aux = loss(ROWS, CLASSES)
    np.testing.assert_allclose(value, np.mean(by_hand(aux.embeddings, CLASSES)[::2]), rtol=1e-5)


def test_images_without_label_are_negatives_alone():
    """The others' denominators hold both views of them; they are pulled to nothing themselves."""
    labels = CLASSES.at[3].set(-1).at[4].set(-1)
    (value, aux), _ = graded(ROWS, labels)
    terms = by_hand(aux.embeddings, labels)
    assert terms.count(0) == 4
    np.testing.assert_allclose(value, np.mean(terms), rtol=1e-5)


def test_the_order_of_images_changes_nothing():
    order = np.random.default_rng(0).permutation(8)
    (value, _), slope = graded(ROWS, CLASSES)
    (other, _), moved = graded(tuple(x[order] for x in ROWS), CLASSES[order])
    np.testing.assert_allclose(other, value, rtol=1e-6)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6), moved, slope)


def test_names_of_classes_change_nothing():
    names = jnp.array([7, 2, 40])
    np.testing.assert_allclose(graded(ROWS, names[CLASSES])[0][0], graded(ROWS, CLASSES)[0][0])


def test_form_and_scale_are_the_losses():
    other = replace(METHOD, form="in", scale=0.1 / 0.07)
    views = as_views(ROWS, CLASSES)
    value, aux = jax.jit(lambda: other.loss(PARAMS, MEMORY, views, KEY, START))()
    z, labels = aux.embeddings.reshape(16, 6), jnp.repeat(CLASSES, 2)
    expected = sup_con(z, labels, temperature=0.5, form="in") / 0.7
    np.testing.assert_allclose(value, expected, rtol=1e-5)


class TestContract(Contract):
    experiment = experiment(replace(METHOD, encoder=ENCODER))


def test_data_without_labels_is_refused(tmp_path):
    bare = Arrays(SOURCE.train_images, np.full(IMAGES, -1), SOURCE.test_images, SOURCE.test_labels)
    begun = replace(TestContract.experiment, data=Data(bare, batch_size=16))
    with pytest.raises(UserError, match=r"SupCon needs labels, and .* has none"):
        fit(begun, tmp_path / "run")


def test_views_of_several_sizes_are_refused():
    several = replace(METHOD, augment=swav(16, local_size=8, local=2))
    with pytest.raises(UserError, match=r"makes views of 16, 16, 8, 8 pixels, and SupCon takes"):
        several.check(16)
