"""Weights of transformers in and out: against stored outputs of it, and against itself."""

import json
from functools import partial
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tiny_text import FAMILIES, tiny_bert

from jaxcl import UserError
from jaxcl.encoders import forward
from jaxcl.encoders.bert import relative_buckets
from jaxcl.weights import read_bert, write_bert

FIXTURES = Path(__file__).parent / "fixtures"


@partial(jax.jit, static_argnums=0)
def run(encoder, variables, x):
    return forward(encoder, variables["params"], variables["stats"], x, train=False)[0]


def stored(family):
    folder = FIXTURES / f"{family}_tiny"
    with np.load(folder / "outputs.npz") as outputs:
        return folder, dict(outputs)


def copied(family, folder, change=lambda tensors: tensors, config=None):
    """The stored model in another folder, with its tensors and config changed."""
    source, _ = stored(family)
    folder.mkdir(exist_ok=True)
    settings = json.loads((source / "config.json").read_text()) | (config or {})
    (folder / "config.json").write_text(json.dumps(settings))
    save_file(change(load_file(source / "model.safetensors")), folder / "model.safetensors")
    return folder


def assert_same(one, two):
    jax.tree.map(np.testing.assert_array_equal, one, two)


@pytest.mark.parametrize("family", FAMILIES)
def test_gives_what_transformers_gave(family):
    """Hidden states after every layer and the pooler's output, of sentences of three lengths."""
    folder, there = stored(family)
    encoder, variables = read_bert(folder, pooler="cls")
    out = run(encoder, variables, {"ids": there["ids"], "mask": there["mask"]})
    for i, hidden in enumerate(out["hidden"]):
        ours, theirs = (h[there["mask"]] for h in (np.asarray(hidden), there[f"hidden{i}"]))
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)
    np.testing.assert_allclose(out["features"], there["pooled"], rtol=0, atol=1e-5)


def test_distances_fall_into_the_same_buckets():
    with np.load(FIXTURES / "mpnet_buckets.npz") as there:
        np.testing.assert_array_equal(relative_buckets(there["distances"], 32), there["buckets"])


@pytest.mark.parametrize("family", FAMILIES)
def test_out_and_in_again_is_exact(family, tmp_path):
    """Ours come back to the bit, and the tensors written are those that were read."""
    folder, _ = stored(family)
    encoder, variables = read_bert(folder, pooler="cls")
    write_bert(tmp_path, encoder, variables)
    again, same = read_bert(tmp_path, pooler="cls")
    assert again == encoder
    assert_same(same, variables)
    written = load_file(tmp_path / "model.safetensors")
    source = {
        name.removeprefix("bert."): tensor
        for name, tensor in load_file(folder / "model.safetensors").items()
        if not name.startswith("cls.")
    }
    assert_same(written, source)


def test_old_names_prefixes_heads_and_counters(tmp_path):
    """A checkpoint of the first days, with what other tasks left in it."""

    def aged(tensors):
        old = {
            f"roberta.{name}".replace("LayerNorm.weight", "LayerNorm.gamma").replace(
                "LayerNorm.bias", "LayerNorm.beta"
            ): tensor
            for name, tensor in tensors.items()
        }
        extra = ("lm_head.dense.weight", "lm_head.bias", "classifier.out_proj.weight")
        old |= {name: np.ones((2, 2), np.float32) for name in extra}
        return old | {"roberta.embeddings.position_ids": np.arange(26)[None]}

    _, fresh = read_bert(stored("roberta")[0], pooler="cls")
    _, old = read_bert(copied("roberta", tmp_path, aged), pooler="cls")
    assert_same(old, fresh)


def test_the_layer_of_simcse_is_the_pooler(tmp_path):
    def simcse(tensors):
        return {name.replace("bert.pooler.", "mlp."): tensor for name, tensor in tensors.items()}

    _, expected = read_bert(stored("bert")[0], pooler="cls")
    _, variables = read_bert(copied("bert", tmp_path, simcse), pooler="cls")
    assert_same(variables, expected)


def test_other_poolers_need_no_weights_of_one(tmp_path):
    def bare(tensors):
        return {name: tensor for name, tensor in tensors.items() if "pooler" not in name}

    folder = copied("bert", tmp_path, bare)
    _, variables = read_bert(folder, pooler="avg_first_last")
    assert "pooler" not in variables["params"]
    with pytest.raises(UserError, match=r"missing: pooler\.dense\.weight"):
        read_bert(folder, pooler="cls")


@pytest.mark.parametrize("half", [np.float16, ml_dtypes.bfloat16])
def test_half_precision_becomes_float32(half, tmp_path):
    def halved(tensors):
        return {name: tensor.astype(half) for name, tensor in tensors.items()}

    _, full = read_bert(stored("bert")[0])
    _, variables = read_bert(copied("bert", tmp_path, halved))
    assert_same(variables, jax.tree.map(lambda a: a.astype(half).astype(np.float32), full))


def test_weights_in_parts(tmp_path):
    copied("mpnet", tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    parts = {name: f"part{i % 2}.safetensors" for i, name in enumerate(tensors)}
    for part in set(parts.values()):
        save_file({n: t for n, t in tensors.items() if parts[n] == part}, tmp_path / part)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": parts}))
    assert_same(read_bert(tmp_path)[1], read_bert(stored("mpnet")[0])[1])


def test_mistakes_are_told(tmp_path):
    with pytest.raises(UserError, match=r"nowhere holds no config\.json"):
        read_bert(tmp_path / "nowhere")
    for config, told in (
        ({"model_type": "t5"}, "model_type='t5' is not supported; bert, roberta, xlm-roberta, mp"),
        ({"hidden_act": "silu"}, "hidden_act='silu' is none of gelu"),
        ({"relative_attention_num_buckets": 16}, "only 32 is supported"),
        ({"is_decoder": True}, "is_decoder=True; only False"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type='relative_key'"),
        ({"vocab_size": 31}, r"word_embeddings\.weight is \[30, 16\], not \[31, 16\]"),
        ({"num_hidden_layers": 1}, r"left over: encoder\.layer\.1\."),
        ({"num_hidden_layers": 3}, r"missing: encoder\.layer\.2\."),
    ):
        with pytest.raises(UserError, match=told):
            read_bert(copied("bert", tmp_path, config=config))
    whole = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(whole[:-100])
    with pytest.raises(UserError, match=r"model\.safetensors is no whole safetensors file"):
        read_bert(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"config\.json cannot be read"):
        read_bert(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(UserError, match=r"config\.json lacks 'vocab_size'"):
        read_bert(tmp_path)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"token_types": 0}, "as bert, which has token_types >= 1"),
        ({"position_offset": 3}, r"as roberta, which has .* position_offset=pad_id \+ 1"),
        ({"relative_buckets": 8}, "as mpnet, which has relative_buckets=32, token_types=0"),
    ],
)
def test_what_transformers_has_no_model_for_is_not_written(fields, told, tmp_path):
    with pytest.raises(UserError, match=told):
        write_bert(tmp_path, *tiny_bert(**fields))


MODELS = {
    "Bert": {},
    "Roberta": {"type_vocab_size": 1, "layer_norm_eps": 1e-5},
    "XLMRoberta": {"type_vocab_size": 1, "layer_norm_eps": 1e-5},
    "MPNet": {"layer_norm_eps": 1e-5},
}


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("name", MODELS)
def test_equals_transformers_both_ways(name, tmp_path):
    """A model of theirs read here, and what is written here opened there: all hidden states."""
    torch = pytest.importorskip("torch", reason="the oracle needs torch")
    transformers = pytest.importorskip("transformers", reason="the oracle needs transformers")
    config = getattr(transformers, f"{name}Config")(
        vocab_size=60, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=48, max_position_embeddings=48, hidden_act="gelu_new", **MODELS[name],
    )  # fmt: skip
    theirs = getattr(transformers, f"{name}Model")(config).eval()
    torch.manual_seed(1)
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, mean=0.1, std=0.3)
    theirs.save_pretrained(tmp_path / "theirs")
    encoder, variables = read_bert(tmp_path / "theirs", pooler="cls")
    write_bert(tmp_path / "ours", encoder, variables)
    opened = transformers.AutoModel.from_pretrained(tmp_path / "ours").eval()

    mask = np.arange(40)[None] < np.array([40, 11, 2])[:, None]
    ids = np.where(mask, np.random.default_rng(0).integers(4, 60, mask.shape), config.pad_token_id)
    out = run(encoder, variables, {"ids": ids.astype(np.int32), "mask": mask})
    for model in (theirs, opened):
        with torch.no_grad():
            there = model(
                torch.tensor(ids),
                attention_mask=torch.tensor(mask.astype(int)),
                output_hidden_states=True,
            )
        for ours, hidden in zip(out["hidden"], there.hidden_states, strict=True):
            np.testing.assert_allclose(
                np.asarray(ours)[mask], hidden.numpy()[mask], rtol=0, atol=1e-5
            )
        np.testing.assert_allclose(out["features"], there.pooler_output.numpy(), atol=1e-5)
