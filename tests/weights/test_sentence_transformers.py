"""Folders of sentence-transformers: round trips, all versions' settings, and the library itself."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from tiny_text import sentences, tiny_tokenizer, tiny_weights

from jaxcl import UserError
from jaxcl.sentences import SentenceModel, load
from jaxcl.weights import read_sentence_weights, write_bert, write_sentence_weights
from jaxcl.weights.sentence_transformers import Projection


def projection(width=6, activation="tanh", bias=True):
    rng = np.random.default_rng(1)
    kernel = rng.normal(size=(16, width)).astype(np.float32)
    return Projection(kernel, np.ones(width, np.float32) if bias else None, activation)


def edit(file, **changes):
    content = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps(content | changes))


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"pooler": "max", "normalise": True, "prompt": "a b: ", "family": "mpnet"},
        {"pooler": "cls_before_pooler", "family": "roberta",
         "projections": (projection(), Projection(np.eye(6, dtype=np.float32), None, "none"))},
    ],
)  # fmt: skip
def test_out_and_in_again_is_exact(fields, tmp_path):
    weights = tiny_weights(**fields)
    write_sentence_weights(tmp_path, weights)
    again = read_sentence_weights(tmp_path)
    for field in dataclasses.fields(weights):
        ours, back = getattr(weights, field.name), getattr(again, field.name)
        if field.name in ("variables", "projections"):
            jax.tree.map(np.testing.assert_array_equal, back, ours)
        else:
            assert back == ours, field.name


def test_the_layer_of_cls_is_written_as_a_linear_layer(tmp_path):
    """Sentence-transformers' pooling has no parameters; the vectors stay the same."""
    model = SentenceModel(**vars(tiny_weights(pooler="cls", projections=(projection(),))))
    model.save(tmp_path)
    again = load(tmp_path)
    assert again.encoder.pooler == "cls_before_pooler"
    assert [p.activation for p in again.projections] == ["tanh", "tanh"]
    texts = ["a b c", "d"]
    np.testing.assert_allclose(again.encode(texts), model.encode(texts), atol=1e-6)
    assert "pooler" in model.variables["params"]


def test_settings_of_all_versions(tmp_path):
    write_sentence_weights(tmp_path, tiny_weights())
    pooling = tmp_path / "1_Pooling" / "config.json"
    read = lambda: read_sentence_weights(tmp_path)
    pooling.write_text('{"embedding_dimension": 16, "pooling_mode": "cls"}')
    assert read().encoder.pooler == "cls_before_pooler"
    pooling.write_text('{"word_embedding_dimension": 16, "pooling_mode_max_tokens": true}')
    assert read().encoder.pooler == "max"
    pooling.write_text('{"word_embedding_dimension": 16}')
    assert read().encoder.pooler == "mean"
    assert read().max_length == 32
    edit(tmp_path / "sentence_bert_config.json", max_seq_length=9, do_lower_case=True)
    assert (read().max_length, read().lower_case) == (9, True)
    (tmp_path / "sentence_bert_config.json").unlink()
    assert read().max_length == 32  # the tokenizer's
    edit(tmp_path / "tokenizer_config.json", model_max_length=10**30)
    assert read().max_length == 40  # the encoder's


def test_a_folder_without_modules_is_pooled_by_the_mean(tmp_path):
    weights = tiny_weights()
    write_bert(tmp_path, weights.encoder, weights.variables)
    with pytest.raises(UserError, match=r"tokenizer\.json is missing; AutoTokenizer"):
        read_sentence_weights(tmp_path)
    for name, content in tiny_tokenizer().items():
        (tmp_path / name).write_bytes(content)
    assert read_sentence_weights(tmp_path).encoder.pooler == "mean"


def test_what_is_not_supported_is_told(tmp_path):
    write_sentence_weights(tmp_path, tiny_weights(projections=(projection(),), normalise=True))
    pooling, dense = tmp_path / "1_Pooling" / "config.json", tmp_path / "2_Dense" / "config.json"
    kept = dense.read_text()
    edit(dense, activation_function="my.own.Swish")
    with pytest.raises(UserError, match=r"activation_function=my\.own\.Swish"):
        load(tmp_path)
    dense.write_text(kept)
    edit(pooling, pooling_mode_lasttoken=True)
    with pytest.raises(UserError, match="the pooling is mean and lasttoken"):
        load(tmp_path)
    modules = json.loads((tmp_path / "modules.json").read_text())
    (tmp_path / "modules.json").write_text(json.dumps([modules[0], modules[1], *modules[:1:-1]]))
    with pytest.raises(UserError, match="the modules are Transformer, Pooling, Normalize, Dense"):
        load(tmp_path)
    with pytest.raises(UserError, match="no pooling like pooler='avg_top2'"):
        write_sentence_weights(tmp_path, tiny_weights(pooler="avg_top2"))


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(
    "fields",
    [
        {"normalise": True, "prompt": "a b "},
        {"pooler": "cls", "family": "mpnet"},
        {"pooler": "max", "family": "roberta", "projections": (projection(activation="relu"),)},
    ],
)
def test_the_library_opens_what_is_written_and_writes_it_back(fields, tmp_path):
    library = pytest.importorskip(
        "sentence_transformers", reason="the oracle needs sentence-transformers"
    )
    model = SentenceModel(**vars(tiny_weights(**fields)))
    model.save(tmp_path / "ours")
    theirs = library.SentenceTransformer(str(tmp_path / "ours"), device="cpu")
    theirs.save(str(tmp_path / "theirs"))
    texts = [text for text in sentences(12, longest=40) if text]
    expected = theirs.encode(texts)
    np.testing.assert_allclose(model.encode(texts), expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(load(tmp_path / "theirs").encode(texts), expected, atol=1e-5)
