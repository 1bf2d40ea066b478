"""What holds for every encoder: layers computed again, parameters laid over devices."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from jitted import initialise

from jaxcl.encoders import BERT, GIN, T5, ConvNet, ResNet, TextTower, ViT, forward
from jaxcl.scale import data_mesh

KEY = jax.random.key(0)
EXTENDED = pytest.mark.extended
IMAGES = jax.random.normal(KEY, (8, 16, 16, 3))
IDS = jax.random.randint(KEY, (8, 6), 1, 16)
TOKENS = {"ids": IDS, "mask": jnp.arange(6) < jnp.arange(2, 10)[:, None]}
LINKS = jax.random.randint(KEY, (8, 6, 2), 0, 5)
GRAPHS = {
    "nodes": jax.random.normal(KEY, (8, 5, 8)),
    "node_mask": jnp.ones((8, 5), bool).at[3, 4].set(False),
    "edges": LINKS,
    "edge_mask": jnp.all(LINKS < 4, axis=-1),
}
ENCODERS = {  # the encoder, its input, how many layers there are to compute again
    "resnet": (ResNet(10, 0.125, "half", 2, zero_init=False), IMAGES, 2),
    "convnet": (ConvNet(depth=2, width=8), IMAGES, 2),
    "vit": (ViT(16, 2, 4, patch=4, image=16), IMAGES, 2),
    "bert": (BERT(16, width=16, depth=2, heads=4, mlp=32, max_positions=8), TOKENS, 2),
    "t5": (
        T5(16, width=16, depth=1, decoder_depth=2, heads=4, head_width=4, mlp=32),
        TOKENS | {"decoder_ids": IDS},
        3,
    ),
    "text": (TextTower(16, width=16, depth=2, heads=4, mlp=32, max_positions=8), TOKENS, 2),
    "gin": (GIN(width=8, depth=2, learn_self_weight=True), GRAPHS, 2),
}
EVERY = [
    pytest.param(name, marks=() if name in ("resnet", "convnet", "gin", "bert") else EXTENDED)
    for name in ENCODERS
]


def step(encoder, params, stats, x):
    """Features, statistics and gradients of a training step, dropout included."""

    def loss(params):
        outputs, new = forward(encoder, params, stats, x, train=True, key=KEY)
        read = outputs.get("logits", outputs["features"])  # T5's decoder comes after its encoder
        return jnp.mean(jnp.sin(3 * read)), (outputs["features"], new)

    return jax.grad(loss, has_aux=True)(params)


compiled = jax.jit(step, static_argnums=0)


def close(one, two):
    scale = float(jnp.abs(two).max())
    np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-5 * scale + 1e-8)


@pytest.mark.parametrize("name", EVERY)
def test_layers_computed_again_change_nothing(name):
    encoder, x, layers = ENCODERS[name]
    again = encoder.clone(remat=True)
    made = initialise(encoder, KEY, x)
    assert jax.tree.structure(initialise(again, KEY, x)) == jax.tree.structure(made)
    program = jax.make_jaxpr(partial(step, again))(*made, x)
    assert sum("prevent_cse" in str(eqn.params) for eqn in program.eqns) >= layers
    jax.tree.map(close, compiled(again, *made, x), compiled(encoder, *made, x))


@pytest.mark.parametrize("name", EVERY)
def test_parameters_can_be_spread_over_devices(name):
    """Each array along its longest axis that eight devices divide."""
    encoder, x, _ = ENCODERS[name]
    params, stats = initialise(encoder, KEY, x)
    mesh = data_mesh(8)

    def lay(leaf):
        axes = [i for i in np.argsort(leaf.shape)[::-1] if leaf.shape[i] % 8 == 0]
        spec = ["data" if i in axes[:1] else None for i in range(leaf.ndim)]
        return jax.device_put(leaf, NamedSharding(mesh, PartitionSpec(*spec)))

    shares = jax.tree.map(lay, params)
    held = sum(leaf.addressable_shards[0].data.size for leaf in jax.tree.leaves(shares))
    assert held < 0.25 * sum(leaf.size for leaf in jax.tree.leaves(params))
    jax.tree.map(close, compiled(encoder, shares, stats, x), compiled(encoder, params, stats, x))
