"""Text towers of CLIP and SigLIP from and to folders of Hugging Face's.

`clip_text_entries` and `siglip_text_entries` are the tables; a model of both sides joins them with
its vision tower's. On their own they are CLIPTextModelWithProjection and SiglipTextModel.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypedDict

import jax
import jax.numpy as jnp

from jaxcl.encoders import TextTower, initialise
from jaxcl.errors import UserError
from jaxcl.reading import check_sizes, reading
from jaxcl.typing import PyTree
from jaxcl.weights.files import Tensors, read_folder, write_folder
from jaxcl.weights.tables import ACTIVATIONS, Entry, gather, layer_norm, linear, scatter

CLIP_DEFAULTS = {
    "vocab_size": 49408,
    "hidden_size": 512,
    "intermediate_size": 2048,
    "projection_dim": 512,
    "num_hidden_layers": 12,
    "num_attention_heads": 8,
    "max_position_embeddings": 77,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
    "eos_token_id": 49407,
}
SIGLIP_DEFAULTS = {
    "vocab_size": 32000,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "projection_size": None,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "max_position_embeddings": 64,
    "hidden_act": "gelu_pytorch_tanh",
    "layer_norm_eps": 1e-6,
}
"""What a config means where it is silent."""

OTHER_SIDE = r"(text_model\.)?embeddings\.position_ids|vision_model\.|visual_projection\.|logit_"
"""Tensors of a whole CLIP or SigLIP that a text tower leaves aside."""


class TextConfig(TypedDict, total=False):
    """Types of what is read of a text's config."""

    model_type: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    projection_dim: int
    projection_size: int | None
    num_hidden_layers: int
    num_attention_heads: int
    max_position_embeddings: int
    hidden_act: str
    layer_norm_eps: float
    eos_token_id: int


class TextSideConfig(TextConfig, total=False):
    """Types of a config.json of the text alone, or of both sides."""

    text_config: TextConfig


def read_clip_text(folder: str | Path) -> tuple[TextTower, PyTree]:
    """Tower and parameters of a CLIP text model, or of the text side of a whole CLIP.

    Raises:
      UserError: files are missing or damaged, the config is of another model, or tensors do not
        fit it.
    """
    with reading(folder):
        config, tensors = read_folder(folder, TextSideConfig)
        text = dict(_text_config(folder, config, "clip"))
        if "projection_dim" in config:
            text["projection_dim"] = config["projection_dim"]
        tower = clip_text_tower(text)
        if "text_projection.weight" not in tensors:
            tower = tower.clone(projection=0)
        return tower, _gathered(tower, tensors, clip_text_entries, folder)


def read_siglip_text(folder: str | Path) -> tuple[TextTower, PyTree]:
    """As `read_clip_text`, of a SigLIP."""
    with reading(folder):
        config, tensors = read_folder(folder, TextSideConfig)
        tower = siglip_text_tower(_text_config(folder, config, "siglip"))
        return tower, _gathered(tower, tensors, siglip_text_entries, folder)


def _gathered(
    tower: TextTower, tensors: Tensors, entries: Callable[..., list[Entry]], folder: str | Path
) -> PyTree:
    """The tower's parameters, of a model of the text alone or of both sides."""
    check_sizes(text_sizes(tower), tensors, Path(folder) / "config.json")
    inside = "text_model." if any(name.startswith("text_model.") for name in tensors) else ""
    table = entries(tower, theirs=inside)
    return gather(tensors, table, _shapes(tower), ignored=OTHER_SIDE)["params"]


def text_sizes(tower: TextTower) -> dict[str, int]:
    """What `check_sizes` compares, by its key in a text's config."""
    keys = ("vocab_size", "hidden_size", "num_hidden_layers", "intermediate_size",
            "max_position_embeddings")  # fmt: skip
    return {key: size for key, size in _shape_config(tower).items() if key in keys}


def write_clip_text(folder: str | Path, tower: TextTower, params: PyTree) -> None:
    """Writes a folder for CLIPTextModelWithProjection; for CLIPTextModel where `projection=0`."""
    kind = "CLIPTextModelWithProjection" if tower.projection else "CLIPTextModel"
    config = {"architectures": [kind]} | clip_text_config(tower)
    write_folder(folder, config, scatter({"params": params}, clip_text_entries(tower)))


def write_siglip_text(folder: str | Path, tower: TextTower, params: PyTree) -> None:
    """Writes a folder that SiglipTextModel opens."""
    config = {"architectures": ["SiglipTextModel"]} | siglip_text_config(tower)
    write_folder(folder, config, scatter({"params": params}, siglip_text_entries(tower)))


def clip_text_tower(config: Mapping[str, Any]) -> TextTower:
    """The tower that a CLIP's text config describes."""
    config = {**CLIP_DEFAULTS, **config}
    # Configs from before transformers 4.31 say 2, whatever the id is, and mean the highest one.
    eos = None if config["eos_token_id"] == 2 else config["eos_token_id"]
    return TextTower(
        **_common(config), pool="eot", eos=eos, projection=config["projection_dim"] or 0
    )


def siglip_text_tower(config: Mapping[str, Any]) -> TextTower:
    """The tower that a SigLIP's text config describes."""
    config = {**SIGLIP_DEFAULTS, **config}
    return TextTower(
        **_common(config),
        causal=False,
        pool="last",
        projection=config["projection_size"] or config["hidden_size"],
        projection_bias=True,
        start="siglip",
    )


def clip_text_config(tower: TextTower) -> dict[str, Any]:
    """The text config of a tower with CLIP's pooling and mask."""
    if not tower.causal or tower.pool != "eot" or tower.projection_bias:
        raise UserError("CLIP's text is causal=True, pool='eot', projection_bias=False")
    eos = 2 if tower.eos is None else tower.eos
    config = {"model_type": "clip_text_model", **_shape_config(tower), "eos_token_id": eos}
    return config | ({"projection_dim": tower.projection} if tower.projection else {})


def siglip_text_config(tower: TextTower) -> dict[str, Any]:
    """The text config of a tower with SigLIP's pooling and head."""
    if tower.causal or tower.pool != "last" or not (tower.projection and tower.projection_bias):
        raise UserError("SigLIP's text is causal=False, pool='last', with a biased projection")
    config = {"model_type": "siglip_text_model", **_shape_config(tower)}
    return config | {"projection_size": tower.projection}


def clip_text_entries(
    tower: TextTower,
    *,
    ours: str = "params",
    theirs: str = "text_model.",
    projection: str = "text_projection",
) -> list[Entry]:
    """The table of a CLIP text tower.

    Args:
      tower: whose arrays are named.
      ours: path of its parameters, such as "params/text".
      theirs: what their names start with.
      projection: their name of the projection, which lies outside.
    """
    entries = _transformer(tower, ours, theirs)
    if tower.projection:
        entries += linear(f"{ours}/projection", projection, bias=False)
    return entries


def siglip_text_entries(tower: TextTower, *, ours: str = "params", theirs: str = "") -> list[Entry]:
    """The table of a SigLIP text tower; arguments as of `clip_text_entries`.

    Within a whole SigLIP `theirs` is "text_model."; alone, nothing.
    """
    return [*_transformer(tower, ours, theirs), *linear(f"{ours}/projection", f"{theirs}head")]


def _transformer(tower: TextTower, ours: str, theirs: str) -> list[Entry]:
    embeddings = f"{theirs}embeddings"
    entries = [
        Entry(f"{ours}/embed/embedding", (f"{embeddings}.token_embedding.weight",)),
        Entry(f"{ours}/positions", (f"{embeddings}.position_embedding.weight",)),
        *layer_norm(f"{ours}/norm", f"{theirs}final_layer_norm"),
    ]
    for i in range(tower.depth):
        entries += pre_norm_block(f"{ours}/block{i + 1}", f"{theirs}encoder.layers.{i}")
    return entries


def pre_norm_block(ours: str, theirs: str) -> list[Entry]:
    """The table of one `PreNormBlock`; CLIP's and SigLIP's images have the same."""
    qkv = (f"{theirs}.self_attn.{name}_proj" for name in "qkv")
    return [
        *layer_norm(f"{ours}/norm1", f"{theirs}.layer_norm1"),
        *linear(f"{ours}/attention/qkv", *qkv),
        *linear(f"{ours}/attention/out", f"{theirs}.self_attn.out_proj"),
        *layer_norm(f"{ours}/norm2", f"{theirs}.layer_norm2"),
        *linear(f"{ours}/linear1", f"{theirs}.mlp.fc1"),
        *linear(f"{ours}/linear2", f"{theirs}.mlp.fc2"),
    ]


def _common(config: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a tower that both families' configs name alike."""
    activation = config["hidden_act"]
    if activation not in ACTIVATIONS:
        raise UserError(f"hidden_act={activation!r}; text towers have {', '.join(ACTIVATIONS)}")
    return {
        "vocab_size": config["vocab_size"],
        "width": config["hidden_size"],
        "depth": config["num_hidden_layers"],
        "heads": config["num_attention_heads"],
        "mlp": config["intermediate_size"],
        "max_positions": config["max_position_embeddings"],
        "activation": ACTIVATIONS[activation],
        "eps": config["layer_norm_eps"],
    }


def _shape_config(tower: TextTower) -> dict[str, Any]:
    return {
        "vocab_size": tower.vocab_size,
        "hidden_size": tower.width,
        "num_hidden_layers": tower.depth,
        "num_attention_heads": tower.heads,
        "intermediate_size": tower.mlp,
        "max_position_embeddings": tower.max_positions,
        "hidden_act": next(t for t, ours in ACTIVATIONS.items() if ours == tower.activation),
        "layer_norm_eps": tower.eps,
    }


def _text_config(folder: str | Path, config: Mapping[str, Any], family: str) -> Mapping[str, Any]:
    """The text's part of a config of one side or of both."""
    kind = config.get("model_type")
    if kind not in (family, f"{family}_text_model"):
        raise UserError(f"{folder}: model_type={kind!r}, not {family!r} or '{family}_text_model'")
    text: Mapping[str, Any] = config.get("text_config", config) if kind == family else config
    return text


def _shapes(tower: TextTower) -> PyTree:
    x = {"ids": jnp.zeros((1, 1), jnp.int32)}
    params, _ = jax.eval_shape(lambda: initialise(tower, jax.random.key(0), x))
    return {"params": params, "stats": {}}
