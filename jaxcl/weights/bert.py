"""BERT, RoBERTa, MiniLM and MPNet as transformers keeps them: a folder read and written.

encoder, variables = read_bert("all-MiniLM-L6-v2", pooler="mean")
write_bert("mine", encoder, variables)          # AutoModel.from_pretrained("mine") opens it
"""

import re
from pathlib import Path
from typing import Any, TypedDict

import jax
import jax.numpy as jnp

from jaxcl.encoders.apply import initialise
from jaxcl.encoders.bert import BERT
from jaxcl.encoders.pooling import Pooler
from jaxcl.errors import UserError
from jaxcl.reading import check_sizes, read_json, reading
from jaxcl.typing import PyTree
from jaxcl.weights.files import read_tensors, write_folder
from jaxcl.weights.tables import Entry, Tensors, gather, layer_norm, linear, scatter

FAMILIES = {"bert": "bert", "roberta": "roberta", "xlm-roberta": "roberta", "mpnet": "mpnet"}
"""Which of the three families each `model_type` of config.json belongs to."""
SILENT: dict[str, Any] = {
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "layer_norm_eps": 1e-12,
    "type_vocab_size": 2,
}
"""What transformers takes where config.json is silent."""
ONLY = {
    "position_embedding_type": "absolute",
    "relative_attention_num_buckets": 32,  # transformers computes with 32 whatever this says
    "is_decoder": False,
}
"""Settings that have one value here; the same where config.json is silent."""
PAD = {"bert": 0, "roberta": 1, "mpnet": 1}
"""The same of `pad_token_id`."""
ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "tanh_gelu",
    "gelu_pytorch_tanh": "tanh_gelu",
    "quick_gelu": "quick_gelu",
    "relu": "relu",
}
"""Their names of activations and ours; the first of ours is written."""
HEADS = r"(cls|lm_head|classifier|qa_outputs)\.|embeddings\.(position|token_type)_ids$"
"""Tensors that are no part of the encoder: heads of other tasks, counters."""
POOLER = r"|pooler\."
"""Nor is the pooler, where it is not used."""


class BERTConfig(TypedDict, total=False):
    """Types of what is read of a config.json."""

    model_type: str
    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    max_position_embeddings: int
    type_vocab_size: int
    pad_token_id: int
    hidden_act: str
    layer_norm_eps: float
    hidden_dropout_prob: float
    attention_probs_dropout_prob: float


SIZES = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads",
         "intermediate_size", "max_position_embeddings")  # fmt: skip


def read_bert(folder: str | Path, *, pooler: Pooler = "cls_before_pooler") -> tuple[BERT, PyTree]:
    """The encoder in a folder of transformers, and its variables.

    Args:
      folder: holds config.json and model.safetensors, of a bare encoder or of one with heads, which
        are left out.
      pooler: the encoder's. `cls` takes the folder's pooler, or the layer of SimCSE's checkpoints
        (`mlp.dense`) in its place.

    Returns:
      The encoder, and {"params": ..., "stats": {}} of NumPy arrays, float32.

    Raises:
      UserError: a file is absent or damaged, the model is of another kind, or the tensors are not
        those that config.json announces; the message lists them.
    """
    folder = Path(folder)
    with reading(folder):
        config = read_json(folder / "config.json", BERTConfig)
        encoder = bert_of(config, pooler=pooler)
        tensors = _plain_names(read_tensors(folder))
        check_sizes({key: config[key] for key in SIZES}, tensors, folder / "config.json")
        ignored = HEADS if pooler == "cls" else HEADS + POOLER
        shapes = _shapes(encoder)
        try:
            return encoder, gather(tensors, bert_entries(encoder), shapes, ignored=ignored)
        except UserError as error:
            raise UserError(f"{folder}: {error}") from error


def write_bert(folder: str | Path, encoder: BERT, variables: PyTree) -> None:
    """Writes config.json and model.safetensors that transformers opens, and `read_bert` too.

    A pooler of another kind than `cls` has no weights and is not written.

    Args:
      folder: made where it is absent; the two files are overwritten.
      encoder: any whose fields transformers has a model for.
      variables: {"params": ..., "stats": {}}.

    Raises:
      UserError: transformers has no such model.
    """
    write_folder(folder, bert_config(encoder), scatter(variables, bert_entries(encoder)))


def bert_of(config: dict[str, Any], *, pooler: Pooler) -> BERT:
    """The encoder that a config.json of transformers describes.

    Raises:
      UserError: it is of another kind, or lacks a size.
    """
    family = FAMILIES.get(config.get("model_type", ""))
    if family is None:
        raise UserError(
            f"config.json: model_type={config.get('model_type')!r} is not supported; "
            f"{', '.join(FAMILIES)} are"
        )
    config = SILENT | ONLY | {"pad_token_id": PAD[family]} | config
    for key, wanted in ONLY.items():
        if config[key] != wanted:
            raise UserError(f"config.json: {key}={config[key]!r}; only {wanted!r} is supported")
    if config["hidden_act"] not in ACTIVATIONS:
        known = ", ".join(ACTIVATIONS)
        raise UserError(f"config.json: hidden_act={config['hidden_act']!r} is none of {known}")
    pad = PAD["mpnet"] if family == "mpnet" else config["pad_token_id"]
    try:
        return BERT(
            vocab_size=config["vocab_size"],
            width=config["hidden_size"],
            depth=config["num_hidden_layers"],
            heads=config["num_attention_heads"],
            mlp=config["intermediate_size"],
            max_positions=config["max_position_embeddings"],
            token_types=0 if family == "mpnet" else config["type_vocab_size"],
            position_offset=0 if family == "bert" else pad + 1,
            pad_id=pad,
            relative_buckets=config["relative_attention_num_buckets"] if family == "mpnet" else 0,
            eps=config["layer_norm_eps"],
            activation=ACTIVATIONS[config["hidden_act"]],  # type: ignore[arg-type]
            dropout=config["hidden_dropout_prob"],
            attention_dropout=config["attention_probs_dropout_prob"],
            pooler=pooler,
        )
    except KeyError as error:
        raise UserError(f"config.json lacks {error}") from error


def bert_config(encoder: BERT) -> dict[str, Any]:
    """The config.json that `bert_of` takes back.

    Raises:
      UserError: transformers has no such model.
    """
    family = _family(encoder)
    theirs = {ours: name for name, ours in reversed(ACTIVATIONS.items())}
    config = {
        "model_type": family,
        "architectures": [
            {"bert": "Bert", "roberta": "Roberta", "mpnet": "MPNet"}[family] + "Model"
        ],
        "vocab_size": encoder.vocab_size,
        "hidden_size": encoder.width,
        "num_hidden_layers": encoder.depth,
        "num_attention_heads": encoder.heads,
        "intermediate_size": encoder.mlp,
        "max_position_embeddings": encoder.max_positions,
        "pad_token_id": encoder.pad_id,
        "layer_norm_eps": encoder.eps,
        "hidden_act": theirs[encoder.activation],
        "hidden_dropout_prob": encoder.dropout,
        "attention_probs_dropout_prob": encoder.attention_dropout,
    }
    if family == "mpnet":
        return config | {"relative_attention_num_buckets": encoder.relative_buckets}
    return config | {"type_vocab_size": encoder.token_types, "position_embedding_type": "absolute"}


def bert_entries(encoder: BERT) -> list[Entry]:
    """The table: our arrays and their names in transformers, without a prefix."""
    mpnet = bool(encoder.relative_buckets)
    entries = [
        Entry("params/words/embedding", ("embeddings.word_embeddings.weight",)),
        Entry("params/positions/embedding", ("embeddings.position_embeddings.weight",)),
        *layer_norm("params/norm", "embeddings.LayerNorm"),
    ]
    if encoder.token_types:
        types = "embeddings.token_type_embeddings.weight"
        entries.append(Entry("params/types/embedding", (types,)))
    if mpnet:
        relative = "encoder.relative_attention_bias.weight"
        entries.append(Entry("params/relative/embedding", (relative,)))
    for i in range(encoder.depth):
        ours, theirs = f"params/layer{i + 1}", f"encoder.layer.{i}"
        within = f"{theirs}.attention.attn." if mpnet else f"{theirs}.attention.self."
        names = ("q", "k", "v") if mpnet else ("query", "key", "value")
        out = f"{within}o" if mpnet else f"{theirs}.attention.output.dense"
        norm1 = f"{theirs}.attention.LayerNorm" if mpnet else f"{theirs}.attention.output.LayerNorm"
        entries += [
            *linear(f"{ours}/attention/qkv", *(within + name for name in names)),
            *linear(f"{ours}/attention/out", out),
            *layer_norm(f"{ours}/norm1", norm1),
            *linear(f"{ours}/linear1", f"{theirs}.intermediate.dense"),
            *linear(f"{ours}/linear2", f"{theirs}.output.dense"),
            *layer_norm(f"{ours}/norm2", f"{theirs}.output.LayerNorm"),
        ]
    return entries + (linear("params/pooler", "pooler.dense") if encoder.pooler == "cls" else [])


def _family(encoder: BERT) -> str:
    """Of the three, the one whose model computes what the encoder does."""
    if encoder.relative_buckets:
        fields = (encoder.relative_buckets, encoder.token_types)
        fits = (*fields, encoder.position_offset, encoder.pad_id) == (32, 0, 2, 1)
        needs = "relative_buckets=32, token_types=0, position_offset=2, pad_id=1"
        family = "mpnet"
    elif encoder.position_offset:
        fits = encoder.token_types > 0 and encoder.position_offset == encoder.pad_id + 1
        needs, family = "token_types >= 1, position_offset=pad_id + 1", "roberta"
    else:
        fits, needs, family = encoder.token_types > 0, "token_types >= 1", "bert"
    if not fits:
        raise UserError(f"the encoder cannot be written as {family}, which has {needs}")
    return family


def _shapes(encoder: BERT) -> PyTree:
    token = {name: jnp.zeros((1, 1), jnp.int32) for name in ("ids", "mask")}
    params, stats = jax.eval_shape(lambda key: initialise(encoder, key, token), jax.random.key(0))
    return {"params": params, "stats": stats}


def _plain_names(tensors: Tensors) -> dict[str, Any]:
    """Names as those of a bare encoder of today, whatever it was saved with."""
    plain: dict[str, Any] = {}
    for name, array in tensors.items():
        short = re.sub(r"^(bert|roberta|mpnet)\.", "", name)
        short = short.replace("LayerNorm.gamma", "LayerNorm.weight")
        plain.setdefault(short.replace("LayerNorm.beta", "LayerNorm.bias"), array)
    for part in ("weight", "bias"):
        if f"mlp.dense.{part}" in plain:
            plain[f"pooler.dense.{part}"] = plain.pop(f"mlp.dense.{part}")
    return plain
