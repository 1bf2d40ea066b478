"""BERT and its kin: what padding, dropout, types and poolers must do. Values: tests/weights."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_text import FAMILIES, tiny_bert

from jaxcl.encoders import BERT, forward, initialise, masked_mean, pool

POOLERS = ("cls", "cls_before_pooler", "avg", "avg_first_last", "avg_top2", "mean", "max")


def batch(family="bert", lengths=(12, 5, 1), width=12, seed=0):
    """Sentences padded to `width`."""
    pad = FAMILIES[family].get("pad_id", 0)
    mask = np.arange(width)[None] < np.array(lengths)[:, None]
    ids = np.random.default_rng(seed).integers(5, 31, mask.shape)
    return {"ids": np.where(mask, ids, pad).astype(np.int32), "mask": mask}


@partial(jax.jit, static_argnums=0, static_argnames="train")
def run(encoder, variables, x, train=False, key=None):
    return forward(encoder, variables["params"], {}, x, train=train, key=key)[0]


@pytest.mark.parametrize(
    ("encoder", "parameters"),
    [  # transformers' counts of bert-base-uncased, MiniLM-L6-H384, roberta-base and mpnet-base
        (BERT(), 109_482_240),
        (BERT(width=384, depth=6, mlp=1536), 22_713_216),
        (
            BERT(vocab_size=50265, max_positions=514, token_types=1, position_offset=2, pad_id=1),
            124_645_632,
        ),
        (
            BERT(vocab_size=30527, max_positions=514, token_types=0, position_offset=2, pad_id=1,
                 relative_buckets=32),
            109_486_464,
        ),
    ],
)  # fmt: skip
def test_parameter_counts(encoder, parameters):
    token = {name: jnp.zeros((1, 1), jnp.int32) for name in ("ids", "mask")}
    params, _ = jax.eval_shape(lambda: initialise(encoder, jax.random.key(0), token))
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == parameters


@pytest.mark.parametrize("family", FAMILIES)
def test_more_padding_changes_nothing(family):
    encoder, variables = tiny_bert(family)
    short = run(encoder, variables, batch(family))
    long = batch(family, width=20)
    long["ids"][:, :12] = batch(family)["ids"]
    wide = run(encoder, variables, long)
    np.testing.assert_allclose(wide["features"], short["features"], atol=1e-5)
    for one, two in zip(wide["hidden"], short["hidden"], strict=True):
        np.testing.assert_allclose(one[0, :12], two[0], atol=1e-5)


def test_what_stands_under_the_mask_changes_nothing():
    encoder, variables = tiny_bert()
    x = batch()
    other = x | {"ids": np.where(x["mask"], x["ids"], 7)}
    one, two = (run(encoder, variables, given)["features"] for given in (x, other))
    np.testing.assert_array_equal(one, two)


def test_sentences_do_not_see_each_other():
    encoder, variables = tiny_bert()
    x = batch()
    alone = jax.tree.map(lambda a: a[1:2], x)
    np.testing.assert_allclose(
        run(encoder, variables, alone)["features"][0],
        run(encoder, variables, x)["features"][1],
        atol=1e-5,
    )


def test_positions_count_tokens_that_are_not_padding():
    """RoBERTa's: tokens have positions from pad_id + 1 on, and padding between them pad_id."""
    encoder, variables = tiny_bert("roberta", depth=0, token_types=0)
    ids = np.array([[5, 5, 1, 6]], np.int32)
    params = variables["params"]
    out = run(encoder, variables, {"ids": ids, "mask": ids != 1})["hidden"][0][0]
    x = params["words"]["embedding"][ids[0]] + params["positions"]["embedding"][[2, 3, 1, 4]]
    x = (x - x.mean(1, keepdims=True)) / x.std(1, keepdims=True)
    expected = x * params["norm"]["scale"] + params["norm"]["bias"]
    np.testing.assert_allclose(out, expected, rtol=1e-3, atol=1e-4)  # eps left out by hand


def test_segments_are_zero_where_none_are_given():
    encoder, variables = tiny_bert()
    x = batch()
    zero = run(encoder, variables, x | {"types": np.zeros_like(x["ids"])})["features"]
    one = run(encoder, variables, x | {"types": np.ones_like(x["ids"])})["features"]
    np.testing.assert_allclose(run(encoder, variables, x)["features"], zero, atol=1e-6)
    assert np.abs(one - zero).max() > 1e-3


@pytest.mark.parametrize("rate", ["dropout", "attention_dropout"])
def test_dropout_follows_its_key(rate):
    """Each of the two rates drops by itself; equal keys drop alike, and rows of a batch differ."""
    rates = {"dropout": 0.0, "attention_dropout": 0.0} | {rate: 0.3}
    encoder, variables = tiny_bert(**rates)
    x = jax.tree.map(lambda a: np.concatenate([a, a]), batch())
    keys = jax.random.split(jax.random.key(0))
    one, again, two = (
        run(encoder, variables, x, train=True, key=k)["features"]
        for k in (keys[0], keys[0], keys[1])
    )
    np.testing.assert_array_equal(one, again)
    assert np.abs(one - two).max() > 1e-2
    assert np.abs(one[:2] - one[3:5]).max() > 1e-2
    still = run(encoder, variables, x)["features"]
    np.testing.assert_allclose(still[:3], still[3:], atol=1e-6)


def test_bfloat16_computes_in_half_and_returns_float32():
    encoder, variables = tiny_bert("mpnet", pooler="cls")
    half = encoder.clone(dtype="bfloat16")
    exact, rough = (run(e, variables, batch("mpnet")) for e in (encoder, half))
    assert {h.dtype for h in rough["hidden"]} == {jnp.dtype("bfloat16")}
    assert rough["features"].dtype == jnp.float32
    np.testing.assert_allclose(rough["features"], exact["features"], atol=0.1)
    token = jax.tree.map(lambda a: a[:1], batch("mpnet"))
    params, _ = jax.eval_shape(lambda: initialise(half, jax.random.key(0), token))
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}


def test_attention_looks_at_tokens_alone():
    encoder, variables = tiny_bert()
    maps = run(encoder, variables, batch())["attention"]
    assert maps.shape == (3, 4, 12, 12)
    np.testing.assert_allclose(maps.sum(-1), 1, rtol=1e-5)
    assert np.abs(maps[1, :, :, 5:]).max() == 0


def by_hand(hidden, mask, pooler):
    """SimCSE's poolers, a sentence at a time, in float64."""
    rows = []
    for n in range(len(mask)):
        there = [np.asarray(layer, np.float64)[n][mask[n]] for layer in hidden]
        rows.append({
            "cls_before_pooler": lambda s: s[-1][0],
            "avg": lambda s: s[-1].mean(0),
            "mean": lambda s: s[-1].mean(0),
            "avg_first_last": lambda s: ((s[1] + s[-1]) / 2).mean(0),
            "avg_top2": lambda s: ((s[-1] + s[-2]) / 2).mean(0),
            "max": lambda s: s[-1].max(0),
        }[pooler](there))  # fmt: skip
    return np.stack(rows)


@pytest.mark.parametrize("pooler", [name for name in POOLERS if name != "cls"])
def test_poolers_by_hand(pooler):
    rng = np.random.default_rng(0)
    hidden = tuple(jnp.asarray(rng.normal(size=(3, 6, 4)), jnp.float32) for _ in range(4))
    mask = np.arange(6)[None] < np.array([6, 3, 1])[:, None]
    np.testing.assert_allclose(
        pool(hidden, mask, pooler), by_hand(hidden, mask, pooler), rtol=1e-5, atol=1e-6
    )


def test_cls_is_a_layer_with_tanh_on_the_first_token():
    encoder, variables = tiny_bert(pooler="cls")
    out = run(encoder, variables, batch())
    layer = variables["params"]["pooler"]
    expected = np.tanh(out["tokens"][:, 0] @ layer["kernel"] + layer["bias"])
    np.testing.assert_allclose(out["features"], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("pooler", POOLERS)
def test_a_sentence_of_nothing_is_finite(pooler):
    """In values and in gradients, and without harm to its neighbours."""
    encoder, variables = tiny_bert(pooler=pooler)
    x = batch(lengths=(12, 0, 1))

    def loss(params):
        features = run(encoder, {"params": params}, x)["features"]
        return jnp.sum(features**2), features

    step = jax.jit(jax.value_and_grad(loss, has_aux=True))
    (_, features), gradient = step(variables["params"])
    assert np.isfinite(features).all()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_means_are_summed_in_float32():
    ones = jnp.ones((1, 1000, 1), jnp.bfloat16)
    np.testing.assert_array_equal(masked_mean(ones, jnp.ones((1, 1000), bool)), [[1.0]])


def test_too_many_tokens_are_refused():
    encoder, variables = tiny_bert("roberta")
    with pytest.raises(ValueError, match="39 tokens a sentence; there are positions for 38"):
        run(encoder, variables, batch("roberta", width=39))


def test_an_unknown_pooler_is_refused():
    with pytest.raises(ValueError, match="pooler='first' is none of cls, cls_before_pooler"):
        pool((jnp.ones((1, 2, 3)),), jnp.ones((1, 2), bool), "first")
