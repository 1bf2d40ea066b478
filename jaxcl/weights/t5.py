"""T5 from and to a folder of Hugging Face's: T5ForConditionalGeneration or T5EncoderModel."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict

import jax
import jax.numpy as jnp
import numpy as np

from jaxcl.encoders import T5, initialise
from jaxcl.errors import UserError
from jaxcl.reading import check_sizes, reading
from jaxcl.typing import NumpyArray, PyTree
from jaxcl.weights.files import read_folder, write_folder
from jaxcl.weights.tables import LINEAR, Entry, Tensors, gather, linear, scatter

DEFAULTS = {
    "vocab_size": 32128,
    "d_model": 512,
    "d_kv": 64,
    "d_ff": 2048,
    "num_layers": 6,
    "num_decoder_layers": None,
    "num_heads": 8,
    "relative_attention_num_buckets": 32,
    "relative_attention_max_distance": 128,
    "dropout_rate": 0.1,
    "layer_norm_epsilon": 1e-6,
    "feed_forward_proj": "relu",
    "tie_word_embeddings": True,
}
"""What a config means where it is silent."""

FORMS = {"relu": False, "gated-gelu": True}
"""`gated` by what the config calls the layer."""

SHARED, HEAD = "shared.weight", "lm_head.weight"
COPIES = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
"""Names under which checkpoints hold the embedding again."""

IGNORED = r"decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight"
"""Offsets that early checkpoints have and no model ever used."""


class T5Config(TypedDict, total=False):
    """Types of what is read of a config.json."""

    model_type: str
    vocab_size: int
    d_model: int
    d_kv: int
    d_ff: int
    num_layers: int
    num_decoder_layers: int | None
    num_heads: int
    relative_attention_num_buckets: int
    relative_attention_max_distance: int
    dropout_rate: float
    layer_norm_epsilon: float
    feed_forward_proj: str
    tie_word_embeddings: bool
    scale_decoder_outputs: bool


def read_t5(folder: str | Path) -> tuple[T5, PyTree]:
    """The encoder, and its parameters as float32 NumPy arrays; with a decoder if there is one.

    Raises:
      UserError: files are missing or damaged, the config is of another model or of a layer that
        `T5` does not have, or tensors do not fit it.
    """
    with reading(folder):
        config, tensors = read_folder(folder, T5Config)
        if config.get("model_type") != "t5":
            raise UserError(f"{folder}: model_type={config.get('model_type')!r}, not 't5'")
        encoder = t5_from_config(config)
        sizes = {"num_layers": encoder.depth, "num_decoder_layers": encoder.decoder_depth}
        sizes |= {"d_model": encoder.width, "d_ff": encoder.mlp, "vocab_size": encoder.vocab_size}
        check_sizes(sizes, tensors, Path(folder) / "config.json")
        decoder = any(name.startswith("decoder.block.") for name in tensors)
        tensors = _each_once(tensors, encoder, decoder)
        entries, shapes = t5_entries(encoder, decoder=decoder), _shapes(encoder, decoder)
        return encoder, gather(tensors, entries, shapes, ignored=IGNORED)["params"]


def write_t5(folder: str | Path, encoder: T5, params: PyTree) -> None:
    """Writes config.json and model.safetensors; T5EncoderModel's where there is no decoder."""
    decoder = "decoder" in params
    tensors = scatter({"params": params}, t5_entries(encoder, decoder=decoder))
    write_folder(folder, t5_config(encoder, decoder=decoder), tensors)


def t5_from_config(config: Mapping[str, Any]) -> T5:
    """The encoder that a config.json describes."""
    config = {**DEFAULTS, **config}
    form = config["feed_forward_proj"]
    if form not in FORMS:
        raise UserError(f"feed_forward_proj={form!r}; T5 here has {' and '.join(FORMS)}")
    layers = config["num_decoder_layers"]
    return T5(
        vocab_size=config["vocab_size"],
        width=config["d_model"],
        depth=config["num_layers"],
        decoder_depth=config["num_layers"] if layers is None else layers,
        heads=config["num_heads"],
        head_width=config["d_kv"],
        mlp=config["d_ff"],
        gated=FORMS[form],
        # Newer configs say tie_word_embeddings=true always, and here what it used to mean.
        tied=config.get("scale_decoder_outputs", config["tie_word_embeddings"]),
        buckets=config["relative_attention_num_buckets"],
        max_distance=config["relative_attention_max_distance"],
        eps=config["layer_norm_epsilon"],
        dropout=config["dropout_rate"],
    )


def t5_config(encoder: T5, *, decoder: bool) -> dict[str, Any]:
    """The config.json of an encoder."""
    return {
        "architectures": ["T5ForConditionalGeneration" if decoder else "T5EncoderModel"],
        "model_type": "t5",
        "vocab_size": encoder.vocab_size,
        "d_model": encoder.width,
        "d_kv": encoder.head_width,
        "d_ff": encoder.mlp,
        "num_layers": encoder.depth,
        "num_decoder_layers": encoder.decoder_depth,
        "num_heads": encoder.heads,
        "relative_attention_num_buckets": encoder.buckets,
        "relative_attention_max_distance": encoder.max_distance,
        "dropout_rate": encoder.dropout,
        "layer_norm_epsilon": encoder.eps,
        "feed_forward_proj": "gated-gelu" if encoder.gated else "relu",
        "tie_word_embeddings": encoder.tied,
        "is_encoder_decoder": decoder,
        "use_cache": decoder,
        "pad_token_id": 0,
        "decoder_start_token_id": 0,
        "eos_token_id": 1,
    }


def t5_entries(encoder: T5, *, decoder: bool) -> list[Entry]:
    """The table of a T5, with its decoder or without."""
    entries = [Entry("params/embed/embedding", (SHARED,))]
    entries += _stack("encoder", encoder.depth, encoder.gated, cross=False)
    if decoder:
        entries += _stack("decoder", encoder.decoder_depth, encoder.gated, cross=True)
    if decoder and not encoder.tied:
        entries.append(Entry("params/head/kernel", (HEAD,), LINEAR))
    return entries


def _stack(side: str, depth: int, gated: bool, *, cross: bool) -> list[Entry]:
    first = f"{side}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    entries = [
        Entry(f"params/{side}/distances", (first,)),
        *_norm(f"params/{side}/norm", f"{side}.final_layer_norm"),
    ]
    for i in range(depth):
        ours, theirs = f"params/{side}/block{i + 1}", f"{side}.block.{i}.layer"
        entries += _norm(f"{ours}/norm1", f"{theirs}.0.layer_norm")
        entries += _attention(f"{ours}/attention", f"{theirs}.0.SelfAttention")
        if cross:
            entries += _norm(f"{ours}/cross_norm", f"{theirs}.1.layer_norm")
            entries += _attention(f"{ours}/cross", f"{theirs}.1.EncDecAttention")
        last = f"{theirs}.{2 if cross else 1}"
        wi = ("wi_0", "wi_1") if gated else ("wi",)
        entries += _norm(f"{ours}/norm2", f"{last}.layer_norm")
        entries += linear(
            f"{ours}/linear1", *(f"{last}.DenseReluDense.{name}" for name in wi), bias=False
        )
        entries += linear(f"{ours}/linear2", f"{last}.DenseReluDense.wo", bias=False)
    return entries


def _attention(ours: str, theirs: str) -> list[Entry]:
    return [
        *linear(f"{ours}/q", f"{theirs}.q", bias=False),
        *linear(f"{ours}/kv", f"{theirs}.k", f"{theirs}.v", bias=False),
        *linear(f"{ours}/out", f"{theirs}.o", bias=False),
    ]


def _norm(ours: str, theirs: str) -> list[Entry]:
    return [Entry(f"{ours}/scale", (f"{theirs}.weight",))]


def _each_once(tensors: Tensors, encoder: T5, decoder: bool) -> dict[str, NumpyArray]:
    """The tensors with the embedding under one name, and a head where the encoder has one."""
    tensors = dict(tensors)
    copies = {name: tensors.pop(name) for name in (SHARED, *COPIES) if name in tensors}
    if not copies:
        return tensors
    name, shared = next(iter(copies.items()))
    tied = [HEAD] if encoder.tied and HEAD in tensors else []
    for other in [*copies, *tied]:
        if not np.array_equal(shared, copies[other] if other in copies else tensors[other]):
            raise UserError(f"{other} differs from {name}, which the config ties to it")
    tensors[SHARED] = shared
    if encoder.tied or not decoder:
        tensors.pop(HEAD, None)
    else:
        tensors.setdefault(HEAD, shared)
    return tensors


def _shapes(encoder: T5, decoder: bool) -> PyTree:
    ids = jnp.zeros((1, 2), jnp.int32)
    x = {"ids": ids, "decoder_ids": ids} if decoder else {"ids": ids}
    params, _ = jax.eval_shape(lambda: initialise(encoder, jax.random.key(0), x))
    return {"params": params, "stats": {}}
