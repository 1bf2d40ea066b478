import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcl.encoders import T5, forward, initialise
from jaxcl.encoders.t5 import distance_buckets

KEY = jax.random.key(0)
SMALL = T5(
    vocab_size=20, width=12, depth=2, decoder_depth=2, heads=4, head_width=4, mlp=16, buckets=8,
    max_distance=12, dropout=0.0,
)  # fmt: skip
V11 = SMALL.clone(gated=True, tied=False)
X = {
    "ids": jnp.array([[3, 5, 7, 1, 0, 0], [4, 9, 9, 2, 8, 1]]),
    "mask": jnp.array([[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1]], bool),
    "decoder_ids": jnp.array([[0, 6, 7, 8], [0, 2, 3, 4]]),
}
ENCODER_ONLY = {"ids": X["ids"], "mask": X["mask"]}


start = jax.jit(lambda encoder, x: initialise(encoder, KEY, x)[0], static_argnums=0)
answer = jax.jit(
    lambda encoder, params, x: forward(encoder, params, {}, x, train=False)[0], static_argnums=0
)


@pytest.fixture(
    scope="module",
    params=[SMALL, pytest.param(V11, marks=pytest.mark.extended)],
    ids=["v1.0", "v1.1"],
)
def made(request):
    return request.param, start(request.param, X)


def run(model, x):
    return answer(*model, x)


@pytest.mark.parametrize(
    ("encoder", "parameters"),
    [  # transformers 5.23: parameters of T5ForConditionalGeneration with t5-small's and
        # t5-v1_1-small's configs, the latter's head counted on its own
        (T5(), 60_506_624),
        (T5(heads=6, depth=8, decoder_depth=8, mlp=1024, gated=True, tied=False), 76_961_152),
    ],
)
def test_parameter_counts(encoder, parameters):
    ids = jax.ShapeDtypeStruct((1, 4), jnp.int32)
    params = jax.eval_shape(
        lambda x: initialise(encoder, KEY, x)[0], {"ids": ids, "decoder_ids": ids}
    )
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == parameters


def test_padding_changes_nothing(made):
    longer = {
        "ids": jnp.pad(X["ids"], ((0, 0), (0, 3)), constant_values=13).at[0, 4:].set(17),
        "mask": jnp.pad(X["mask"], ((0, 0), (0, 3))),
        "decoder_ids": X["decoder_ids"],
    }
    one, two = run(made, X), run(made, longer)
    for name in ("features", "logits"):
        np.testing.assert_allclose(one[name], two[name], atol=1e-5)
    mean = [one["tokens"][0, :4].mean(0), one["tokens"][1].mean(0)]
    np.testing.assert_allclose(one["features"], mean, atol=1e-6)


def test_no_mask_is_a_mask_of_ones(made):
    ones = run(made, ENCODER_ONLY | {"mask": jnp.ones_like(X["mask"])})
    none = run(made, {"ids": X["ids"]})
    np.testing.assert_array_equal(ones["features"], none["features"])


def test_the_decoder_does_not_look_ahead(made):
    one = run(made, X)["logits"]
    two = run(made, X | {"decoder_ids": X["decoder_ids"].at[:, 2].set(11)})["logits"]
    np.testing.assert_allclose(one[:, :2], two[:, :2], atol=1e-5)
    assert np.abs(one[:, 2:] - two[:, 2:]).max() > 1e-2


def test_the_decoder_looks_at_the_source(made):
    one = run(made, X)["logits"]
    two = run(made, X | {"ids": X["ids"].at[0, 1].set(11)})["logits"]
    assert np.abs(one[0] - two[0]).max() > 1e-2
    np.testing.assert_allclose(one[1], two[1], atol=1e-5)


def test_encoder_alone(made):
    """Without decoder_ids there is no decoder to train, and none is missed where there is one."""
    encoder, params = made
    alone = jax.eval_shape(lambda: initialise(encoder, KEY, ENCODER_ONLY)[0])
    assert set(alone) == {"embed", "encoder"}
    out = run(made, ENCODER_ONLY)
    assert set(out) == {"features", "tokens"}
    np.testing.assert_array_equal(out["features"], run(made, X)["features"])
    some = {"embed": params["embed"], "encoder": params["encoder"]}
    np.testing.assert_array_equal(run((encoder, some), ENCODER_ONLY)["features"], out["features"])


def test_a_text_of_padding_alone_is_finite(made):
    encoder, params = made
    x = X | {"mask": jnp.zeros_like(X["mask"])}
    loss = lambda p: jnp.sum(forward(encoder, p, {}, x, train=False)[0]["logits"] ** 2)
    value, gradient = jax.jit(jax.value_and_grad(loss))(params)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((value, gradient)))


def test_buckets_match_the_paper():
    """One bucket a distance up to 7, then wider ones, the last from 128 on; 16 more after it.

    The edges are ceil(8 * 16^(i/8)) for i = 0..7, worked out by hand from section 2.1."""
    edges = np.array([0, 1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 23, 32, 46, 64, 91])
    far = np.arange(300)
    by_hand = np.searchsorted(edges, far, side="right") - 1
    both = {"count": 32, "furthest": 128, "both_ways": True}
    np.testing.assert_array_equal(distance_buckets(-far, **both), by_hand)
    np.testing.assert_array_equal(distance_buckets(far, **both), by_hand + 16 * (far > 0))
    one_way = distance_buckets(far, count=16, furthest=128, both_ways=False)
    np.testing.assert_array_equal(one_way, 0)
    one_way = distance_buckets(-far, count=16, furthest=128, both_ways=False)
    np.testing.assert_array_equal(one_way, by_hand)


def test_buckets_are_those_of_transformers():
    pytest.importorskip("torch")
    from torch import from_numpy

    modeling = pytest.importorskip("transformers.models.t5.modeling_t5")
    theirs = modeling.T5Attention._relative_position_bucket
    far = np.arange(-1000, 1000)
    for count, furthest, both_ways in [(32, 128, True), (32, 128, False), (8, 12, True)]:
        ours = distance_buckets(far, count=count, furthest=furthest, both_ways=both_ways)
        np.testing.assert_array_equal(ours, theirs(from_numpy(far), both_ways, count, furthest))


def test_dropout_draws_from_the_key():
    encoder = SMALL.clone(dropout=0.3)
    params = start(encoder, X)
    run = jax.jit(lambda key: forward(encoder, params, {}, X, train=True, key=key)[0]["features"])
    one, same, other = run(KEY), run(KEY), run(jax.random.key(1))
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).max() > 1e-3


@pytest.mark.extended
def test_bfloat16_computes_in_half_and_returns_float32(made):
    encoder, params = made
    exact, rough = run(made, X), run((encoder.clone(dtype="bfloat16"), params), X)
    assert {value.dtype for value in rough.values()} == {jnp.dtype("float32")}
    for name in rough:
        spread = np.std(exact[name])
        assert 0 < np.abs(rough[name] - exact[name]).max() < 0.1 * spread
