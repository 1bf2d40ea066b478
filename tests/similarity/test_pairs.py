"""Reductions over pairs: every body and transport against loops in float64."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pair_family import (
    CASES,
    K_BIAS,
    K_GROUPS,
    K_IDS,
    Q_BIAS,
    Q_GROUPS,
    Q_IDS,
    SCALES,
    WEIGHTS,
    D,
    K,
    M,
    N,
    Q,
    compare,
    seen,
)

from jaxcl.scale import data_mesh
from jaxcl.similarity import (
    largest,
    logsumexp_among,
    logsumexp_both,
    logsumexp_pairs,
    max_pairs,
    pairs,
    topk_pairs,
)
from jaxcl.similarity.tiles import Rows, Tiling


def run(function, *rows, **options):
    """The function compiled as a whole, anew for each call, since tests change its tiles."""
    return jax.jit(partial(function, **options))(*(jnp.array(x) for x in rows))


@pytest.mark.parametrize("body", ["dense", "blocked"])
@pytest.mark.parametrize("name", CASES)
def test_bodies_match_the_equation(monkeypatch, name, body):
    monkeypatch.setitem(pairs.TILE, "cpu", 4)  # 11 and 13 rows: tiles that do not divide them
    compare(name, body=body)


@pytest.mark.parametrize("devices", [2, pytest.param(4, marks=pytest.mark.extended), 8])
@pytest.mark.parametrize("transport", ["gather", "ring"])
@pytest.mark.parametrize("name", CASES)
def test_transports_match_the_equation(monkeypatch, name, transport, devices):
    """11 and 13 rows, which no number of devices divides."""
    monkeypatch.setitem(pairs.TILE, "cpu", 4)
    with jax.set_mesh(data_mesh(devices)):
        compare(name, body="blocked", transport=transport)


@pytest.mark.parametrize("devices", [1, 8])
def test_nearest_keys_are_found(monkeypatch, devices):
    monkeypatch.setattr(largest, "TOGETHER", 3 * M)  # some queries at a time
    arguments = {
        "q_ids": Q_IDS, "k_ids": K_IDS, "q_groups": Q_GROUPS, "k_groups": K_GROUPS, "bias": K_BIAS
    }  # fmt: skip
    with jax.set_mesh(data_mesh(devices)):
        logits, places = run(topk_pairs, Q, K, count=5, scale=3.0, **arguments)
    all_seen = list(seen(Q, K, 3.0, K_BIAS, Q_IDS, K_IDS, Q_GROUPS, K_GROUPS))
    assert min(map(len, all_seen)) < 5
    for i, x in enumerate(all_seen):
        count = min(5, len(x))
        np.testing.assert_allclose(logits[i, :count], np.sort(x)[::-1][:count], rtol=1e-5)
        np.testing.assert_array_equal(places[i, count:], -1)
        there = [3.0 * Q[i] @ K[place] + K_BIAS[place] for place in places[i, :count]]
        np.testing.assert_allclose(logits[i, :count], there, rtol=1e-5)


def test_plain_use_needs_neither_ids_nor_bias(monkeypatch):
    monkeypatch.setitem(pairs.TILE, "cpu", 4)
    for body in ("dense", "blocked"):
        value = run(logsumexp_pairs, Q, K, body=body)
        np.testing.assert_allclose(value, np.log(np.exp(Q @ K.T).sum(1)), rtol=1e-5)
        # The other way round it is the queries that have the fewer hidden rows behind them.
        value = run(logsumexp_pairs, K, Q, body=body)
        np.testing.assert_allclose(value, np.log(np.exp(K @ Q.T).sum(1)), rtol=1e-5)
        among = run(logsumexp_among, Q, body=body)
        others = np.exp(Q @ Q.T) * (1 - np.eye(N))
        np.testing.assert_allclose(among, np.log(others.sum(1)), rtol=1e-5)
        views = run(lambda a, b, body=body: logsumexp_among((a, b), body=body), Q[:5], Q[5:10])
        others = np.exp(Q[:10] @ Q[:10].T) * (1 - np.eye(10))
        np.testing.assert_allclose(np.concatenate(views), np.log(others.sum(1)), rtol=1e-5)


@pytest.mark.parametrize("body", ["dense", "blocked"])
def test_largest_logit(monkeypatch, body):
    monkeypatch.setitem(pairs.TILE, "cpu", 4)
    arguments = {"q_ids": Q_IDS, "k_ids": K_IDS, "bias": K_BIAS, "body": body}
    value = run(max_pairs, Q, K, scale=3.0, **arguments)
    expected = [x.max() for x in seen(Q, K, 3.0, K_BIAS, Q_IDS, K_IDS)]
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    z, ids = jnp.array(K), jnp.array(K_IDS)
    own = jax.jit(
        lambda z: max_pairs(z, z, scale=3.0, q_ids=ids, k_ids=ids, bias=K_BIAS, body=body)
    )(z)
    expected = [x.max() for x in seen(K, K, 3.0, K_BIAS, K_IDS, K_IDS)]
    np.testing.assert_allclose(own, expected, rtol=1e-5)


def test_largest_logit_over_devices(monkeypatch):
    monkeypatch.setitem(pairs.TILE, "cpu", 4)
    expected = (Q @ K.T).max(1)
    with jax.set_mesh(data_mesh(8)):
        for transport in ("gather", "ring"):
            found = run(max_pairs, Q, K, body="blocked", transport=transport)
            np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_set_with_itself_may_wear_other_marks_as_keys(monkeypatch):
    monkeypatch.setitem(pairs.TILE, "cpu", 4)
    z, ids = jnp.array(Q), jnp.array(Q_IDS)
    zeros, others = np.zeros(N), np.roll(Q_IDS, 3)
    found = jax.jit(lambda z: max_pairs(z, z, q_ids=ids, k_ids=jnp.array(others), body="blocked"))(
        z
    )
    np.testing.assert_allclose(
        found, [x.max() for x in seen(Q, Q, 1.0, zeros, Q_IDS, others)], rtol=1e-5
    )
    groups, away = jnp.array(Q_GROUPS), np.roll(Q_GROUPS, 3)
    marks = {"q_ids": ids, "k_ids": ids, "q_groups": groups, "k_groups": jnp.array(away)}
    found = jax.jit(lambda z: max_pairs(z, z, **marks, body="blocked"))(z)
    pairs_seen = list(seen(Q, Q, 1.0, zeros, Q_IDS, Q_IDS, Q_GROUPS, away))
    for value, x in zip(found, pairs_seen, strict=True):
        assert value < -1e8 if not len(x) else abs(value - x.max()) < 1e-5


def test_no_gradient_flows_through_the_largest_logits():
    for body in ("dense", "blocked"):
        slope = jax.grad(lambda q, body=body: max_pairs(q, jnp.array(K), body=body).sum())
        np.testing.assert_array_equal(jax.jit(slope)(jnp.array(Q)), 0)


@pytest.mark.parametrize("strong", [100.0, -100.0])  # float32's exp ends before 89
@pytest.mark.parametrize("side", [0, 1])
def test_strong_biases_are_not_taken_for_small_logits(monkeypatch, strong, side):
    monkeypatch.setitem(pairs.TILE, "cpu", 4)
    biases = [np.zeros(N), np.zeros(M)]
    biases[side] += strong
    q_bias, k_bias = biases
    found = run(logsumexp_both, Q, K, scale=0.1, q_bias=q_bias, k_bias=k_bias, body="blocked")
    logits = 0.1 * Q @ K.T
    np.testing.assert_allclose(found[0], np.log(np.exp(logits).sum(1)) + k_bias[0], rtol=1e-5)
    np.testing.assert_allclose(found[1], np.log(np.exp(logits).sum(0)) + q_bias[0], rtol=1e-5)


@pytest.mark.parametrize("side", ["q_bias", "k_bias"])
def test_a_bias_of_one_side_has_its_gradient(side):
    def loss(bias, body):
        rows, columns = logsumexp_both(jnp.array(Q), jnp.array(K), **{side: bias}, body=body)
        return WEIGHTS[:N] @ rows + WEIGHTS @ columns

    bias = jnp.array(Q_BIAS if side == "q_bias" else K_BIAS)
    slope = jax.jit(jax.grad(loss), static_argnums=1)
    found, expected = (slope(bias, body) for body in ("blocked", "dense"))
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_body_is_chosen_by_the_number_of_pairs():
    for rows, tiled in ((1024, False), (1025, True)):
        q, k = (jax.ShapeDtypeStruct((n, D), jnp.float32) for n in (rows, 1024))
        assert ("scan[" in str(jax.make_jaxpr(logsumexp_pairs)(q, k))) is tiled


def test_the_transport_is_chosen_by_the_size_of_the_keys(monkeypatch):
    q, k = jnp.array(Q, jnp.float32), jnp.array(K, jnp.float32)
    for bytes_of_a_copy, chosen, other in (
        (k.nbytes, "all_gather", "ppermute"), (k.nbytes - 1, "ppermute", "all_gather")
    ):  # fmt: skip
        monkeypatch.setattr(pairs, "GATHERED_BYTES", bytes_of_a_copy)
        with jax.set_mesh(data_mesh(2)):
            steps = str(jax.make_jaxpr(partial(logsumexp_pairs, body="blocked"))(q, k))
        assert chosen in steps
        assert other not in steps


def test_within_a_shard_each_device_is_on_its_own():
    q, k = jnp.array(Q[:8], jnp.float32), jnp.array(K[:8], jnp.float32)
    rows = jax.sharding.PartitionSpec("data")
    with jax.set_mesh(data_mesh(2)):
        alone = jax.shard_map(
            partial(logsumexp_pairs, body="blocked"), in_specs=(rows, rows), out_specs=rows,
            check_vma=False,
        )  # fmt: skip
        found = jax.jit(alone)(q, k)
    expected = [logsumexp_pairs(q[half], k[half]) for half in (slice(0, 4), slice(4, 8))]
    np.testing.assert_allclose(found, np.concatenate(expected), rtol=1e-6)


@pytest.mark.parametrize("body", ["dense", "blocked"])
@pytest.mark.parametrize("scale", SCALES.values())
def test_a_row_that_sees_nothing_has_finite_value_and_no_gradient(body, scale):
    ids = jnp.array([0, 0, 0, 1])  # three rows see the last, which sees all; then nobody any
    x = jnp.array(Q[:4], jnp.float32)
    total = jax.jit(
        jax.value_and_grad(lambda x, ids: logsumexp_among(x, scale=scale, ids=ids, body=body).sum())
    )
    assert np.isfinite(total(x, ids)[1]).all()
    value, gradient = total(x, jnp.zeros(4, jnp.int32))
    assert -1e10 < value < -1e9
    np.testing.assert_array_equal(gradient, 0)
    hidden = jnp.full(4, -jnp.inf)
    value, gradient = jax.jit(
        jax.value_and_grad(
            lambda x: logsumexp_pairs(x, x, scale=scale, bias=hidden, body=body).sum()
        )
    )(x)
    assert -1e10 < value < -1e9
    np.testing.assert_array_equal(gradient, 0)


@pytest.mark.parametrize("body", ["dense", "blocked"])
def test_half_precision_rows_are_summed_in_float32(body):
    q, k = jnp.array(Q, jnp.bfloat16), jnp.array(K, jnp.bfloat16)
    total = jax.jit(jax.value_and_grad(lambda q: logsumexp_pairs(q, k, scale=2.0, body=body).sum()))
    value, gradient = total(q)
    expected, slope = total(q.astype(jnp.float32))
    assert value.dtype == jnp.float32
    assert gradient.dtype == jnp.bfloat16
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    # The weights of the keys are rounded to 8 bits before they meet the keys.
    np.testing.assert_allclose(gradient.astype(jnp.float32), slope, atol=2e-2)


def test_memory_grows_with_the_rows_and_not_with_the_pairs():
    """Read from the compiler: at 16,384 rows 1 / 50 of the whole matrix and its gradient."""

    def temporaries(rows, body):
        z = jax.ShapeDtypeStruct((rows, 128), jnp.float32)
        loss = jax.grad(lambda z: logsumexp_among(z, scale=10.0, body=body).mean())
        return jax.jit(loss).lower(z).compile().memory_analysis().temp_size_in_bytes

    blocked = [temporaries(rows, "blocked") for rows in (16_384, 131_072)]
    assert blocked[0] < temporaries(16_384, "dense") / 50
    assert blocked[1] < 2**28


def test_memory_of_the_nearest_keys_is_that_of_some_queries():
    """16 million logits at a time and their order; the whole matrix has 256 million."""
    rows = jax.ShapeDtypeStruct((16_384, 8), jnp.float32)
    program = jax.jit(lambda q, k: topk_pairs(q, k, 5)).lower(rows, rows).compile()
    assert program.memory_analysis().temp_size_in_bytes < 2**30 / 4


@pytest.mark.parametrize(("count", "views", "run"), [(8192, 2, 256), (100, 1, 56), (100, 3, 20)])
def test_a_run_of_all_views_is_no_larger_than_asked(count, views, run):
    side = (Rows(jnp.zeros((count, 1)), jnp.zeros(count), None),) * views
    most = 64 if count == 100 else 512
    assert Tiling.of(side, side, most=most).rows == run


@pytest.mark.parametrize("triangle", [False, True])
def test_tiles_hold_each_pair_once(triangle):
    """100 and 70 rows, or 100 among themselves, whose tiles off the diagonal count for two."""
    tiling = Tiling(100, 100 if triangle else 70, rows=8, columns=8, triangle=triangle)
    met = np.zeros((tiling.n, tiling.m), int)
    for i, j in tiling.places:
        queries, keys = slice(8 * i, 8 * i + 8), slice(8 * j, 8 * j + 8)
        met[queries, keys] += 1
        if triangle and i != j:
            met[keys, queries] += 1
    assert (met == 1).all()


def test_wrong_arguments():
    with pytest.raises(ValueError, match="together"):
        logsumexp_pairs(jnp.array(Q), jnp.array(K), q_ids=jnp.arange(N))
    with pytest.raises(ValueError, match="together"):
        logsumexp_both(jnp.array(Q), jnp.array(K), k_groups=jnp.arange(M))
    with pytest.raises(ValueError, match="count=14 of 13 keys"):
        topk_pairs(jnp.array(Q), jnp.array(K), 14)
    with pytest.raises(ValueError, match=r"\[n, d\].*\(11, 4\) and \(13, 3\)"):
        logsumexp_pairs(jnp.array(Q), jnp.array(K)[:, :3])
