import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcl.encoders import (
    AttentionPool,
    DINOHead,
    MeanQueryPool,
    Prototypes,
    forward,
    initialise,
    unit_columns,
)
from jaxcl.weights.attention_pools import mean_query_pool_entries
from jaxcl.weights.tables import gather, scatter

KEY = jax.random.key(0)
start = jax.jit(lambda head, x: initialise(head, KEY, x), static_argnums=0)
run = jax.jit(lambda head, made, x: forward(head, *made, x, train=True)[0], static_argnums=0)


def rows(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def unit(x, axis):
    return x / np.linalg.norm(x.astype(np.float64), axis=axis, keepdims=True)


def test_prototypes_score_rows():
    x = rows(3, 4)
    made = start(Prototypes(5), x)
    kernel = np.asarray(made[0]["kernel"])
    np.testing.assert_allclose(run(Prototypes(5), made, x)["features"], x @ kernel, rtol=1e-5)
    scores = run(Prototypes(5, unit=True), made, unit(x, 1))["features"]
    np.testing.assert_allclose(scores, unit(x, 1) @ unit(kernel, 0), rtol=1e-5, atol=1e-6)


def test_gains_that_start_at_the_lengths_leave_the_drawn_scores():
    """torch's weight_norm changes no output when it is put on a layer."""
    x = rows(3, 4)
    normed = Prototypes(5, unit=True, train_gain=True, gain_init="lengths", bias=True)
    made = start(normed, x)
    params = made[0]
    assert params["gain"].shape == (1, 5)
    assert np.abs(params["bias"]).max() <= 0.5
    expected = x @ np.asarray(params["kernel"]) + params["bias"]
    np.testing.assert_allclose(run(normed, made, x)["features"], expected, rtol=1e-5, atol=1e-6)


def test_swavs_columns_are_of_length_one():
    """What the stored kernel becomes before a step: then use and storage agree."""
    x = rows(3, 4)
    params, _ = start(Prototypes(5), x)
    kept = unit_columns(params)
    np.testing.assert_allclose(np.linalg.norm(kept["kernel"], axis=0), 1, rtol=1e-6)
    one, two = (run(Prototypes(5, unit=u), (p, {}), x) for u, p in [(False, kept), (True, params)])
    np.testing.assert_allclose(one["features"], two["features"], rtol=1e-5, atol=1e-6)
    zero = unit_columns({"kernel": jnp.zeros((4, 2))})["kernel"]
    np.testing.assert_array_equal(zero, 0)


SMALL = DINOHead(hidden=(8, 8), bottleneck=4, out=6)


def test_dino_head_scores_are_cosines():
    """From the rows of the narrow layer on: v / |v| by the original's weight norm, gain 1."""
    x = rows(5, 3)
    made = start(SMALL, x)
    out = run(SMALL, made, x)
    h = x.astype(np.float64)
    mlp = made[0]["mlp"]
    for name in ("linear1", "linear2", "linear_out"):
        h = h @ np.asarray(mlp[name]["kernel"], np.float64) + np.asarray(mlp[name]["bias"])
        h = h if name == "linear_out" else np.asarray(jax.nn.gelu(h, approximate=False))
    np.testing.assert_allclose(out["bottleneck"], unit(h, 1), rtol=1e-4, atol=1e-5)
    expected = unit(h, 1) @ unit(np.asarray(made[0]["kernel"]), 0)
    np.testing.assert_allclose(out["features"], expected, rtol=1e-4, atol=1e-5)
    assert set(made[0]) == {"mlp", "kernel"} and made[1] == {}


def test_dino_head_with_a_trained_gain_and_batch_norm():
    x = rows(5, 3)
    params, stats = start(SMALL.clone(train_gain=True), x)
    plain = run(SMALL, (params, stats), x)["features"]
    gain = jnp.arange(1.0, 7.0)[None]
    scaled = run(SMALL.clone(train_gain=True), (params | {"gain": gain}, stats), x)["features"]
    np.testing.assert_allclose(scaled, gain * plain, rtol=1e-5, atol=1e-6)
    _, stats = start(SMALL.clone(norm="batch"), x)
    assert set(stats["mlp"]) == {"norm1", "norm2"}


def test_dino_head_is_a_network_and_prototypes_of_length_one():
    """From its narrow rows on, at any length: DINO's method freezes the last layer by itself."""
    x = rows(5, 3)
    params, _ = start(SMALL.clone(train_gain=True), x)
    last = {"kernel": params["kernel"], "gain": jnp.arange(1.0, 7.0)[None]}
    whole = run(SMALL.clone(train_gain=True), (params | last, {}), x)
    prototypes = Prototypes(6, unit=True, unit_inputs=True, train_gain=True)
    np.testing.assert_array_equal(start(prototypes, x)[0]["gain"], 1)
    scores = run(prototypes, (last, {}), 3 * whole["bottleneck"])["features"]
    np.testing.assert_allclose(scores, whole["features"], rtol=1e-5, atol=1e-6)


def test_dino_head_of_zero_rows_has_finite_gradients():
    params, _ = start(SMALL, rows(5, 3))
    loss = lambda p: jnp.sum(forward(SMALL, p, {}, jnp.zeros((2, 3)), train=True)[0]["features"])
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(jax.jit(jax.grad(loss))(params)))


def test_attention_pool_ignores_the_order_of_tokens():
    head, x = AttentionPool(heads=2, mlp=6), rows(2, 5, 4)
    made = start(head, x)
    one, two = run(head, made, x), run(head, made, x[:, ::-1])
    np.testing.assert_allclose(one["features"], two["features"], atol=1e-6)
    np.testing.assert_allclose(one["attention"], two["attention"][..., ::-1], atol=1e-6)
    np.testing.assert_allclose(one["attention"].sum(-1), 1, rtol=1e-5)


def test_mean_query_pool_is_clips():
    """openai/CLIP's AttentionPool2d is this call of torch's on (mean, places) + positions."""
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(1)
    draw = lambda *shape: rng.normal(0, 0.4, shape).astype(np.float32)
    tensors = {"pool.positional_embedding": draw(7, 8)}
    for name, out in [("q", 8), ("k", 8), ("v", 8), ("c", 5)]:
        tensors |= {f"pool.{name}_proj.weight": draw(out, 8), f"pool.{name}_proj.bias": draw(out)}
    x = rows(2, 2, 3, 8)
    t = {name.removeprefix("pool."): torch.tensor(value) for name, value in tensors.items()}
    places = torch.tensor(x.reshape(2, 6, 8)).permute(1, 0, 2)
    tokens = torch.cat([places.mean(0, keepdim=True), places])
    tokens = tokens + t["positional_embedding"][:, None]
    expected, _ = torch.nn.functional.multi_head_attention_forward(
        query=tokens[:1], key=tokens, value=tokens, embed_dim_to_check=8, num_heads=4,
        in_proj_weight=None, bias_k=None, bias_v=None, add_zero_attn=False, dropout_p=0.0,
        in_proj_bias=torch.cat([t["q_proj.bias"], t["k_proj.bias"], t["v_proj.bias"]]),
        q_proj_weight=t["q_proj.weight"], k_proj_weight=t["k_proj.weight"],
        v_proj_weight=t["v_proj.weight"], out_proj_weight=t["c_proj.weight"],
        out_proj_bias=t["c_proj.bias"], use_separate_proj_weight=True, training=False,
        need_weights=False,
    )  # fmt: skip
    head, entries = MeanQueryPool(5, heads=4), mean_query_pool_entries("params", "pool")
    shapes = jax.eval_shape(lambda: initialise(head, KEY, x)[0])
    variables = gather(tensors, entries, {"params": shapes, "stats": {}})
    out = run(head, (variables["params"], {}), x)
    np.testing.assert_allclose(out["features"], expected[0], atol=1e-5, rtol=1e-5)
    assert all((scatter(variables, entries)[name] == tensors[name]).all() for name in tensors)


def test_mean_query_pool_matches_the_equation():
    """One head at a time in float64, from section 2.4 of the paper."""
    x = rows(2, 2, 3, 8)
    head = MeanQueryPool(5, heads=2)
    made = start(head, x)
    params = jax.tree.map(lambda p: np.asarray(p, np.float64), made[0])
    layer = lambda name, v: v @ params[name]["kernel"] + params[name]["bias"]
    expected = []
    for image in x.reshape(2, 6, 8):
        tokens = np.concatenate([image.mean(0)[None], image]) + params["positions"]
        q, (k, v) = layer("q", tokens[0]), np.split(layer("kv", tokens), 2, axis=1)
        pooled = []
        for h in (slice(0, 4), slice(4, 8)):
            weight = np.exp(k[:, h] @ q[h] / 2)
            pooled.append(weight @ v[:, h] / weight.sum())
        expected.append(layer("out", np.concatenate(pooled)))
    np.testing.assert_allclose(run(head, made, x)["features"], expected, atol=1e-5)


@pytest.mark.parametrize(
    ("head", "x"),
    [
        (Prototypes(5), rows(3, 4)),
        (SMALL, rows(3, 4)),
        (AttentionPool(heads=2, mlp=6), rows(2, 5, 4)),
        (MeanQueryPool(5, heads=2), rows(2, 2, 3, 8)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_bfloat16_computes_in_half_and_returns_float32(head, x):
    made = start(head, x)
    exact, rough = run(head, made, x), run(head.clone(dtype="bfloat16"), made, x)
    assert rough["features"].dtype == jnp.float32
    assert 0 < np.abs(rough["features"] - exact["features"]).max() < 0.1
