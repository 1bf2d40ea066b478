"""SimCSE: the golden row, dropout keys, what is kept, where it starts."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contract import Contract
from golden import A, B
from tiny_lines import ENCODER, METHOD, experiment
from tiny_text import tiny_weights

from jaxcl import UserError, load
from jaxcl.methods import Progress, SimCSE
from jaxcl.scale import data_mesh
from jaxcl.training import STS
from jaxcl.weights import read_bert, write_bert

IDS = np.random.default_rng(0).integers(5, 31, (6, 8)).astype(np.int32)
BATCH = {
    "ids": jnp.array(IDS),
    "lengths": jnp.array([8, 8, 5, 3, 8, 2]),
    "label": jnp.full(6, -1),
    "index": jnp.arange(6),
}
START = Progress(0, 10, 5)


@partial(jax.jit, static_argnums=0)
def begin(method, batch):
    views = method.views(jax.random.key(0), batch)
    return views, method.init(jax.random.key(1), views)[0]


VIEWS, PARAMS = begin(METHOD, BATCH)
embed = jax.jit(METHOD.embed)
KEYS = jax.random.split(jax.random.key(7))


class TestContract(Contract):
    """On text: batches of two lengths, the third epoch resumed."""

    experiment = replace(experiment, probe=STS(every=0))
    resume_at = 4

    def test_both_lengths_were_trained_on(self, alone):
        text = experiment.data
        feed = text.open(text.split("train"), METHOD, seed=0, mesh=data_mesh(1))
        assert {feed.inputs(step, 1)["ids"].shape[2] for step in range(6)} == {8, 12}

    def test_padding_changes_nothing(self, alone):
        """A sentence beside a longer one is what it is alone."""
        run = load(alone)
        both = run.encode(["a b c", "d e f g h i j k l m n o p", "q"])
        for i, text in enumerate(["a b c", "d e f g h i j k l m n o p", "q"]):
            np.testing.assert_allclose(run.encode([text])[0], both[i], atol=2e-6)

    @pytest.mark.extended
    def test_resumed_in_the_middle_of_an_epoch(self, alone, tmp_path):
        """As in the contract, from step 3: the rest of one epoch and the whole of the next."""
        same = type("Middle", (Contract,), {"experiment": self.experiment, "resume_at": 3})()
        same.test_stopped_and_resumed_equals_going_on(alone, tmp_path)


def test_the_loss_is_the_authors_on_both_copies(monkeypatch):
    """Golden row 0.787690: princeton-nlp/SimCSE's cl_forward on these rows at 0.05."""
    z = jnp.stack([jnp.array(A, jnp.float32), jnp.array(B, jnp.float32)], axis=1)
    monkeypatch.setattr(SimCSE, "embed", lambda self, params, views, keys: (z, z))
    value, aux = jax.jit(METHOD.loss, static_argnums=4)(PARAMS, (), VIEWS, KEYS[0], START)
    np.testing.assert_allclose(value, 0.787690, atol=1e-6)
    assert aux.embeddings.shape == (4, 2, 5)


def test_equal_dropout_keys_collapse_the_views_and_others_do_not():
    h, z = embed(PARAMS, VIEWS, jnp.stack([KEYS[0], KEYS[0]]))
    np.testing.assert_array_equal(h[:, 0], h[:, 1])
    np.testing.assert_array_equal(z[:, 0], z[:, 1])
    h, z = embed(PARAMS, VIEWS, KEYS)
    assert np.linalg.norm(h[:, 0] - h[:, 1], axis=1).min() > 1e-2
    again = embed(PARAMS, VIEWS, KEYS)
    np.testing.assert_array_equal(again[1], z)
    _, aux = jax.jit(METHOD.loss, static_argnums=4)(PARAMS, (), VIEWS, KEYS[0], START)
    assert np.linalg.norm(aux.embeddings[:, 0] - aux.embeddings[:, 1], axis=1).min() > 1e-4


def test_rows_have_masks_of_their_own():
    """The same sentence in every row: every row differs, in both copies."""
    same = jax.tree.map(lambda x: jnp.broadcast_to(x[:1], x.shape), VIEWS)
    _, z = embed(PARAMS, same, KEYS)
    flat = z.reshape(12, -1)
    distances = jnp.linalg.norm(flat[:, None] - flat[None], axis=2) + jnp.eye(12)
    assert distances.min() > 0


def test_without_dropout_both_copies_are_one():
    """In chunks too, whose rows are those of the whole."""
    method = SimCSE(encoder=ENCODER.clone(dropout=0.0, attention_dropout=0.0), chunks=2)
    _, aux = jax.jit(method.loss, static_argnums=4)(PARAMS, (), VIEWS, KEYS[0], START)
    np.testing.assert_array_equal(aux.embeddings[:, 0], aux.embeddings[:, 1])
    kept = jax.jit(replace(METHOD, mlp_only_train=False).represent)(PARAMS, (), BATCH)
    np.testing.assert_allclose(aux.embeddings[:, 0], kept["features"], atol=1e-5)


def test_the_layer_of_training_is_left_out_at_test():
    """`cls_before_pooler` of the same weights; with mlp_only_train=False, the layer on top."""
    represent = lambda method: jax.jit(method.represent)(PARAMS, (), BATCH)["features"]
    raw, kept = represent(METHOD), METHOD.kept(PARAMS, ())
    assert kept.encoder.pooler == "cls_before_pooler"
    assert "pooler" not in kept.params
    layer = PARAMS["encoder"]["pooler"]
    with_layer = represent(replace(METHOD, mlp_only_train=False))
    np.testing.assert_allclose(
        with_layer, np.tanh(raw @ layer["kernel"] + layer["bias"]), atol=1e-5
    )


def test_what_stands_behind_a_sentence_is_the_encoders_own_padding():
    method = SimCSE(encoder=tiny_weights(family="roberta").encoder)
    ids = method.views(KEYS[0], BATCH)["ids"]
    assert (np.asarray(ids)[3] == [*IDS[3, :3], 1, 1, 1, 1, 1]).all()


def test_it_starts_from_a_folder(tmp_path):
    weights = tiny_weights(seed=4, heads=2)
    write_bert(tmp_path, weights.encoder, weights.variables)
    method = replace(METHOD, pretrained=str(tmp_path))
    params, memory = method.start(PARAMS, ())
    read = read_bert(tmp_path)[1]["params"]
    own = params["encoder"].pop("pooler")
    del read["layer2"]  # the method's encoder has one layer
    jax.tree.map(np.testing.assert_array_equal, params["encoder"], read)
    jax.tree.map(np.testing.assert_array_equal, own, PARAMS["encoder"]["pooler"])
    assert memory == ()
    assert METHOD.start(PARAMS, ())[0] is PARAMS


def test_wrong_use_is_told(tmp_path):
    weights = tiny_weights()
    write_bert(tmp_path, weights.encoder, weights.variables)
    wider = SimCSE(encoder=ENCODER.clone(width=32), pretrained=str(tmp_path))
    with pytest.raises(UserError, match=r"another encoder .* must have width=16, heads=4"):
        wider.start(PARAMS, ())
    with pytest.raises(UserError, match=r"nowhere holds no config.json"):
        replace(wider, pretrained="nowhere").start(PARAMS, ())
    with pytest.raises(UserError, match=r"data.batch_size=1 gives no negatives; use 2 or more"):
        METHOD.check(1)
    with pytest.raises(UserError, match=r"method.temperature=0 is no scale; use 0.05"):
        replace(METHOD, temperature=0).check(8)


def test_facts():
    assert METHOD.facts(64) == {"negatives per anchor": "63", "starts from": "random weights"}
