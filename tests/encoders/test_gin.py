import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from jaxcl.encoders import GIN, BatchNorm, forward, initialise
from jaxcl.scale import data_mesh

KEY = jax.random.key(0)
SMALL = GIN(width=6, depth=3)
start = jax.jit(lambda encoder, x: initialise(encoder, KEY, x), static_argnums=0)
run = jax.jit(
    lambda encoder, made, x, train: forward(encoder, *made, x, train=train), static_argnums=(0, 3)
)


def batch(*graphs, nodes=5, edges=8):
    """Graphs (features [n, 4], list of edges) padded with numbers that would be noticed."""
    x = {
        "nodes": np.full((len(graphs), nodes, 4), 7e3, np.float32),
        "node_mask": np.zeros((len(graphs), nodes), bool),
        "edges": np.full((len(graphs), edges, 2), nodes - 1, np.int32),
        "edge_mask": np.zeros((len(graphs), edges), bool),
    }
    for i, (features, pairs) in enumerate(graphs):
        x["nodes"][i, : len(features)] = features
        x["node_mask"][i, : len(features)] = True
        x["edges"][i, : len(pairs)] = np.reshape(pairs, (-1, 2))
        x["edge_mask"][i, : len(pairs)] = True
    return x


def graphs():
    """A path; a triangle with an edge of one direction; a node and an isolated one; nothing."""
    features = np.random.default_rng(0).normal(size=(4, 5, 4)).astype(np.float32)
    return [
        (features[0, :4], [(0, 1), (1, 0), (1, 2), (2, 1), (2, 3), (3, 2)]),
        (features[1, :3], [(0, 1), (1, 0), (1, 2), (2, 1), (0, 2)]),
        (features[2, :2], [(0, 0)]),
        (features[3, :0], []),
    ]


def by_hand(params, graphs, *, weight=1.0, pool=np.sum, train=True):
    """Equation 4.1 in float64, one graph and one edge at a time, without padding."""
    params = jax.tree.map(lambda p: np.asarray(p, np.float64), params)
    h = [features.astype(np.float64) for features, _ in graphs]
    layers = []
    for i in range(1, SMALL.depth + 1):
        w = params.get(f"layer{i}_self_weight", weight)
        y = []
        for nodes, (_, pairs) in zip(h, graphs, strict=True):
            total = w * nodes
            for source, target in pairs:
                total[target] += nodes[source]
            for name in ("linear1", "linear2"):
                layer = params[f"layer{i}_{name}"]
                total = np.maximum(total @ layer["kernel"] + layer["bias"], 0)
            y.append(total)
        rows, norm = np.concatenate(y), params[f"layer{i}_norm"]
        mean, var = (rows.mean(0), rows.var(0)) if train else (0, 1)
        h = [(v - mean) / np.sqrt(var + 1e-5) * norm["scale"] + norm["bias"] for v in y]
        layers.append([pool(v, axis=0) if len(v) else np.zeros(v.shape[1]) for v in h])
    return np.concatenate([np.array(layer) for layer in layers], axis=1)


def shaken(made):
    """Parameters whose biases and norms are not those of the start."""
    noise = lambda p: p + 0.3 * np.random.default_rng(p.size).normal(size=p.shape)
    return jax.tree.map(lambda p: jnp.asarray(noise(p), jnp.float32), made[0]), made[1]


@pytest.mark.parametrize(
    ("fields", "hand"),
    [
        ({}, {}),
        ({"self_weight": 2.0}, {"weight": 2.0}),
        ({"learn_self_weight": True}, {}),
        ({"pool": "mean"}, {"pool": np.mean}),
        ({"pool": "max"}, {"pool": np.max}),
    ],
)
@pytest.mark.parametrize("train", [True, False])
def test_matches_the_equation(fields, hand, train):
    encoder, x = SMALL.clone(**fields), batch(*graphs())
    made = shaken(start(encoder, x))
    out, _ = run(encoder, made, x, train)
    expected = by_hand(made[0], graphs(), train=train, **hand)
    np.testing.assert_allclose(out["features"], expected, rtol=1e-4, atol=1e-4)
    for nodes in out["nodes"]:
        np.testing.assert_array_equal(nodes[~x["node_mask"]], 0)


@pytest.mark.parametrize("train", [True, False])
def test_padding_to_a_larger_size_changes_nothing(train):
    made = start(SMALL, batch(*graphs()))
    (one, stats), (two, same) = (
        run(SMALL, made, batch(*graphs(), nodes=n, edges=e), train) for n, e in [(5, 8), (9, 11)]
    )
    np.testing.assert_allclose(one["features"], two["features"], rtol=1e-5, atol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), stats, same)


def test_the_order_of_nodes_and_of_edges_changes_nothing():
    """Nodes are renumbered, padding put between them, and edges listed backwards."""
    x = batch(*graphs())
    order = np.array([2, 4, 0, 3, 1])  # place 0 now holds node 2, ...
    place = np.argsort(order)
    other = {
        "nodes": x["nodes"][:, order],
        "node_mask": x["node_mask"][:, order],
        "edges": place[x["edges"]][:, ::-1],
        "edge_mask": x["edge_mask"][:, ::-1],
    }
    made = start(SMALL, x)
    one, two = (run(SMALL, made, graph, True)[0] for graph in (x, other))
    np.testing.assert_allclose(one["features"], two["features"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(one["nodes"][2][:, order], two["nodes"][2], rtol=1e-4, atol=1e-5)


def test_gradients_do_not_see_padding():
    x = batch(*graphs())
    params, stats = start(SMALL, x)

    @jax.jit
    def gradient(params, nodes, x):
        loss = lambda p, nodes: jnp.sum(
            forward(SMALL, p, stats, x | {"nodes": nodes}, train=True)[0]["features"] ** 3
        )
        return jax.grad(loss, (0, 1))(params, nodes)

    weights, nodes = gradient(params, x["nodes"], x)
    np.testing.assert_array_equal(nodes[~x["node_mask"]], 0)
    assert np.abs(nodes[x["node_mask"]]).min() > 0
    wild = np.where(x["node_mask"][..., None], x["nodes"], np.nan)
    jax.tree.map(np.testing.assert_array_equal, weights, gradient(params, wild, x)[0])


@pytest.mark.parametrize("pool", ["sum", "mean", "max"])
def test_graphs_without_nodes_are_finite(pool):
    """One among others, or nothing but one; such a batch leaves the statistics as they are."""
    encoder = SMALL.clone(pool=pool)
    x = batch(*graphs())
    params, stats = start(encoder, x)
    np.testing.assert_array_equal(run(encoder, (params, stats), x, True)[0]["features"][3], 0)
    nothing = batch((np.zeros((0, 4)), []))

    @jax.jit
    def step(params):
        loss = lambda p: jnp.sum(forward(encoder, p, stats, nothing, train=True)[0]["features"])
        _, new = forward(encoder, params, stats, nothing, train=True)
        return jax.value_and_grad(loss)(params), new

    grads, new = step(params)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))
    jax.tree.map(np.testing.assert_array_equal, new, stats)


def test_last_layer_alone():
    x = batch(*graphs())
    made = start(SMALL, x)
    whole, last = (
        run(SMALL.clone(readout=r), made, x, False)[0]["features"] for r in ("all", "last")
    )
    assert whole.shape == (4, 18)
    np.testing.assert_array_equal(whole[:, 12:], last)


def test_defaults_are_graphcls():
    x = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), batch(*graphs()))
    out = jax.eval_shape(lambda x: forward(GIN(), *initialise(GIN(), KEY, x), x, train=False), x)[0]
    assert out["features"].shape == (4, 96)
    assert [nodes.shape for nodes in out["nodes"]] == [(4, 5, 32)] * 3


def test_bfloat16_computes_in_half_and_returns_float32():
    x = batch(*graphs())
    made = start(SMALL, x)
    exact, rough = (run(SMALL.clone(dtype=t), made, x, False)[0] for t in ("float32", "bfloat16"))
    assert rough["features"].dtype == rough["nodes"][0].dtype == jnp.float32
    assert 0 < np.abs(exact["features"] - rough["features"]).max() < 0.1


def norm(module, x, mask=None):
    variables = module.init(KEY, x, train=False)
    y, state = module.apply(variables, x, True, mask, mutable=["batch_stats"])
    return y, state["batch_stats"]


def test_masked_batch_norm_is_that_of_the_rows_that_count():
    rng = np.random.default_rng(0)
    x, mask = rng.normal(2, 3, (6, 4, 5)).astype(np.float32), rng.random((6, 4)) < 0.6
    y, stats = norm(BatchNorm(), np.where(mask[..., None], x, np.inf), mask)
    alone, expected = norm(BatchNorm(), x[mask])
    np.testing.assert_allclose(y[mask], alone, rtol=1e-5, atol=1e-5)
    for name in ("mean", "var"):
        np.testing.assert_allclose(stats[name], expected[name], rtol=1e-5)


def test_masked_groups_are_separate_batches():
    """A group of padding alone does not enter the running statistics."""
    rng = np.random.default_rng(0)
    x, mask = rng.normal(2, 3, (6, 4, 5)).astype(np.float32), rng.random((6, 4)) < 0.6
    mask[4:] = False
    y, stats = norm(BatchNorm(groups=3), x, mask)
    parts = [norm(BatchNorm(), x[i : i + 2], mask[i : i + 2]) for i in (0, 2)]
    np.testing.assert_allclose(y[:2], parts[0][0], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(y[2:4], parts[1][0], rtol=1e-5, atol=1e-5)
    for name in ("mean", "var"):
        mean = np.mean([part[name] for _, part in parts], axis=0)
        np.testing.assert_allclose(stats[name], mean, rtol=1e-5)


def test_one_device_equals_eight():
    """Masked statistics of the whole batch, whichever device holds a graph."""
    x = batch(*graphs(), *graphs())
    made = shaken(start(SMALL, x))
    one, one_stats = run(SMALL, made, x, True)
    mesh = data_mesh(8)
    spread = NamedSharding(mesh, PartitionSpec("data"))
    with jax.set_mesh(mesh):
        many, many_stats = run(SMALL, made, jax.device_put(x, spread), True)
    assert len(many["features"].sharding.device_set) == 8
    same = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    jax.tree.map(same, (many["features"], many_stats), (one["features"], one_stats))
