from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contract import ENCODER, RECIPE, Contract, experiment

from jaxcl import UserError
from jaxcl.augment import simclr, swav
from jaxcl.encoders import MLP, ResNet
from jaxcl.losses import nt_xent
from jaxcl.methods import Progress, SimCLR
from jaxcl.similarity import unit_rows

METHOD = SimCLR(
    augment=simclr(16, blur=0.0, normalize=None),
    encoder=ResNet(10, width=0.125, stem="half"),
    projector=MLP((0,), 8, final_norm="scale"),
    temperature=0.5,
)
IMAGES = np.random.default_rng(0).integers(0, 256, (6, 16, 16, 3), np.uint8)
BATCH = {
    "image": jnp.array(IMAGES),
    "label": jnp.zeros(6, jnp.int32),
    "index": jnp.arange(6, dtype=jnp.int32),
}


def start():
    views = jax.jit(METHOD.views)(jax.random.key(0), BATCH)
    params, memory = jax.jit(METHOD.init)(jax.random.key(1), views)
    return views, params, memory


VIEWS, PARAMS, MEMORY = start()
START = Progress(0, 10, 5)
loss = jax.jit(lambda params, views: METHOD.loss(params, MEMORY, views, jax.random.key(2), START))


def test_the_loss_is_nt_xent_of_the_projections():
    value, aux = loss(PARAMS, VIEWS)
    z = aux.embeddings
    np.testing.assert_allclose(value, nt_xent(z[:, 0], z[:, 1], temperature=0.5), rtol=1e-6)
    assert z.shape == (6, 2, 8)
    assert aux.features.shape == (6, 2, 64)


def test_the_authors_scale_adds_the_means_of_both_directions():
    """Their code, tf2/objective.py, line 87: each direction's mean over the batch, then the sum."""
    summed = replace(METHOD, scale=2.0)
    value, aux = jax.jit(
        lambda params: summed.loss(params, MEMORY, VIEWS, jax.random.key(2), START)
    )(PARAMS)
    a, b = (np.asarray(unit_rows(aux.embeddings[:, view]), np.float64) for view in (0, 1))
    directions = []
    for one, other in ((a, b), (b, a)):
        own = np.where(np.eye(6, dtype=bool), -np.inf, one @ one.T / 0.5)
        logits = np.concatenate([one @ other.T / 0.5, own], axis=1)
        directions.append(np.mean(np.log(np.exp(logits).sum(1)) - np.diag(logits)))
    np.testing.assert_allclose(value, sum(directions), rtol=1e-5)


def test_swapping_the_views_leaves_the_loss():
    np.testing.assert_allclose(loss(PARAMS, VIEWS[::-1])[0], loss(PARAMS, VIEWS)[0], rtol=1e-5)


def test_both_views_share_one_batch_norm():
    """Statistics move once, by those of all 12 rows together."""
    _, aux = loss(PARAMS, VIEWS)
    rows = jnp.concatenate(VIEWS)
    kernel = PARAMS["encoder"]["stem"]["kernel"]
    maps = jax.lax.conv_general_dilated(
        rows, kernel, (2, 2), ((1, 1), (1, 1)), dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    new = aux.memory.stats["encoder"]["stem_norm"]
    np.testing.assert_allclose(new["mean"], 0.1 * maps.mean((0, 1, 2)), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(new["var"], 0.9 + 0.1 * maps.var((0, 1, 2)), rtol=1e-4)


def test_the_head_ends_in_a_norm_without_offset():
    assert set(PARAMS["projector"]["norm_out"]) == {"scale"}


def test_representation_is_deterministic_row_by_row_and_before_the_head():
    represent = jax.jit(lambda images: METHOD.represent(PARAMS, MEMORY, {"image": images}))
    features = represent(jnp.array(IMAGES))["features"]
    assert features.shape == (6, 64)
    np.testing.assert_allclose(
        represent(jnp.array(IMAGES[::-1]))["features"], features[::-1], rtol=1e-5
    )


def test_views_depend_on_key_and_row_alone():
    first = {name: value[:3] for name, value in BATCH.items()}
    fewer = jax.jit(METHOD.views)(jax.random.key(0), first)
    np.testing.assert_allclose(fewer[0], VIEWS[0][:3], atol=1e-6)
    assert np.abs(np.asarray(VIEWS[0] - VIEWS[1])).max() > 0.1


def test_negatives_are_told():
    assert METHOD.facts(256) == {"negatives per anchor": "510"}


class TestContract(Contract):
    experiment = experiment(replace(METHOD, augment=RECIPE, encoder=ENCODER))


def test_views_of_several_sizes_are_refused():
    several = replace(METHOD, augment=swav(16, local_size=8, local=2))
    with pytest.raises(UserError, match=r"makes views of 16, 16, 8, 8 pixels, and SimCLR takes"):
        several.check(16)
