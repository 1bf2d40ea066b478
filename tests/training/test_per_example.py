"""Memory with a row per training example, filled between epochs by a pass over the whole set."""

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from contract import IMAGES, RECIPE, SOURCE, experiment

from jaxcl import fit, load
from jaxcl.augment import Recipe
from jaxcl.methods import Aux, Method


@dataclass(frozen=True)
class Colours(Method):
    """Keeps the mean colour of each image, and counts how often it is shown."""

    augment: Recipe = RECIPE

    def init(self, key, views):
        return {"main": jnp.zeros([])}, {}

    def per_example(self, key, memory, examples):
        return {"colour": jnp.zeros((examples, 3)), "shown": jnp.zeros(examples, jnp.int32)}

    def views(self, key, batch):
        return super().views(key, batch)[0], batch["index"]

    def loss(self, params, memory, views, key, progress):
        shown = memory["shown"].at[views[1]].add(1)
        return params["main"] * views[0].mean(), Aux(memory | {"shown": shown}, {})

    def colour(self, params, memory, batch):
        return {"features": batch["image"].mean((1, 2))}

    def on_epoch(self, embed, memory, key):
        colour, labels = embed(self.colour)
        np.testing.assert_array_equal(labels, SOURCE.train_labels)
        return memory | {"colour": jnp.asarray(colour)}


def test_the_whole_set_is_seen_in_its_own_order(tmp_path):
    assert fit(experiment(Colours()), tmp_path / "run").finished
    run = load(tmp_path / "run", classes=[Colours])
    np.testing.assert_allclose(
        run.state.memory["colour"], SOURCE.train_images.mean((1, 2)), rtol=1e-5
    )
    shown = np.asarray(run.state.memory["shown"])
    assert shown.shape == (IMAGES,)
    assert shown.sum() == 6 * 16
    assert shown.max() <= 3
