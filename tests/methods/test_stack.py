"""Modules in a row against the same modules called by hand."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jitted import forward

from jaxcl.encoders import MLP, ViT
from jaxcl.methods.stack import Stack

ENCODER, HEAD = MLP((8,), 6), MLP((5,), 4, final_norm="affine")
WIDE, NARROW = (jax.random.normal(jax.random.key(i), (6, 3 - i)) for i in range(2))


class Spread(nn.Module):
    """Least and largest number of each row, whatever its width."""

    @nn.compact
    def __call__(self, x, train):
        offset = self.param("offset", nn.initializers.ones, (2,))
        return {"features": jnp.stack([x.min(-1), x.max(-1)], axis=-1) + offset}


def flat(views):
    return jnp.stack(views, axis=1).reshape(-1, views[0].shape[-1])


def test_views_share_one_batch_norm():
    stack = Stack(encoder=ENCODER, projector=HEAD)
    params, stats = stack.init(jax.random.key(0), (WIDE,))
    outputs, after = jax.jit(stack)(params, stats, (WIDE, 2 * WIDE))
    h, encoder = forward(
        ENCODER, params["encoder"], stats["encoder"], flat((WIDE, 2 * WIDE)), train=True
    )
    z, projector = forward(HEAD, params["projector"], stats["projector"], h["features"], train=True)
    np.testing.assert_allclose(outputs["encoder"], h["features"].reshape(6, 2, 6), rtol=1e-5)
    np.testing.assert_allclose(outputs["projector"], z["features"].reshape(6, 2, 4), rtol=1e-4)
    same = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-7)
    jax.tree.map(same, after, {"encoder": encoder, "projector": projector})


def test_views_apart_are_calls_one_after_the_other():
    stack = Stack(encoder=ENCODER, projector=HEAD)
    params, stats = stack.init(jax.random.key(0), (WIDE,))
    views = (WIDE, 2 * WIDE + 1)
    outputs, after = jax.jit(Stack(1, True, **stack.modules))(params, stats, views)
    for place, view in enumerate(views):
        alone, stats = jax.jit(stack)(params, stats, (view,))
        for name, rows in alone.items():
            np.testing.assert_allclose(outputs[name][:, place], rows[:, 0], rtol=1e-5, atol=1e-6)
    same = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-7)
    jax.tree.map(same, after, stats)


def test_sizes_go_through_the_trunk_apart_and_through_the_head_together():
    trunk = Spread()
    stack = Stack(encoder=trunk, projector=HEAD)
    params, stats = stack.init(jax.random.key(0), (WIDE,))
    outputs, after = jax.jit(stack)(params, stats, (WIDE, WIDE + 1, NARROW))
    embed = lambda x: forward(trunk, params["encoder"], {}, x, train=True)[0]["features"]
    wide, narrow = embed(flat((WIDE, WIDE + 1))), embed(NARROW)
    h = jnp.concatenate([wide.reshape(6, 2, 2), narrow[:, None]], axis=1)
    np.testing.assert_allclose(outputs["encoder"], h, rtol=1e-6)
    z, stats = forward(HEAD, params["projector"], stats["projector"], h.reshape(18, 2), train=True)
    np.testing.assert_allclose(outputs["projector"], z["features"].reshape(6, 3, 4), rtol=1e-4)
    np.testing.assert_allclose(
        after["projector"]["norm1"]["mean"], stats["norm1"]["mean"], rtol=1e-5
    )


def test_every_chunk_view_and_key_draws_its_own_dropout():
    vit = ViT(width=8, depth=2, heads=2, patch=4, image=8, drop_path=0.5)
    x = jnp.tile(jax.random.normal(jax.random.key(0), (1, 8, 8, 3)), (16, 1, 1, 1))
    stack = Stack(2, encoder=vit)
    params, stats = stack.init(jax.random.key(1), (x,))

    @jax.jit
    def run(key):
        return stack(params, stats, (x, x), key=key)[0]["encoder"]

    one, two = run(jax.random.key(2)), run(jax.random.key(3))
    for first, second in ((one, two), (one[:8], one[8:]), (one[:, 0], one[:, 1])):
        assert np.abs(first - second).max() > 1e-3
    np.testing.assert_array_equal(run(jax.random.key(2)), one)


def test_chunks_change_nothing_without_batch_norm():
    head = MLP((5,), 4, norm="none")
    whole, parts = Stack(encoder=head), Stack(3, encoder=head)
    params, stats = whole.init(jax.random.key(0), (WIDE,))
    outputs = [jax.jit(s)(params, stats, (WIDE, -WIDE))[0]["encoder"] for s in (whole, parts)]
    np.testing.assert_allclose(*outputs, rtol=1e-5, atol=1e-6)
