"""Vision transformers: names of timm (DINO, MoCo v3, DeiT and most others use them) and of
transformers' ViT."""

import re
from collections.abc import Mapping
from typing import Any, TypedDict

import numpy as np

from jaxcl.encoders import ViT
from jaxcl.encoders.positions import sincos_positions
from jaxcl.errors import UserError
from jaxcl.reading import check_form
from jaxcl.typing import NumpyArray, PyTree
from jaxcl.weights.files import Tensors
from jaxcl.weights.tables import ACTIVATIONS, Entry, Layout, layer_norm, linear


class ViTConfig(TypedDict, total=False):
    """Types of what is read of a config.json of transformers' ViT."""

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    patch_size: int
    image_size: int
    hidden_act: str
    layer_norm_eps: float


def timm_entries(network: ViT) -> list[Entry]:
    """cls_token, pos_embed, patch_embed.proj, blocks.0.attn.qkv, ..., norm.

    Raises:
      UserError: the network pools by attention.
    """
    if network.pool == "attention":
        raise UserError("timm's layout has no pooling by attention here; `write_clip` writes it")
    entries = [
        *patch_entries(network, _patch_tree(network), "patch_embed.proj"),
        *_tokens(network, "cls_token", "pos_embed", "reg_token"),
        *layer_norm("params/norm", "norm"),
    ]
    if network.first_norm:
        entries += layer_norm("params/norm_in", "norm_pre")
    if network.projection:
        entries += linear("params/projection", "head", bias=False)
    for block in range(network.depth):
        ours, theirs = f"params/block{block + 1}", f"blocks.{block}"
        entries += [
            *layer_norm(f"{ours}/norm1", f"{theirs}.norm1"),
            *linear(f"{ours}/attention/qkv", f"{theirs}.attn.qkv"),
            *linear(f"{ours}/attention/out", f"{theirs}.attn.proj"),
            *layer_norm(f"{ours}/norm2", f"{theirs}.norm2"),
            *linear(f"{ours}/linear1", f"{theirs}.mlp.fc1"),
            *linear(f"{ours}/linear2", f"{theirs}.mlp.fc2"),
        ]
        if network.layer_scale:
            entries.append(Entry(f"{ours}/scale1", (f"{theirs}.ls1.gamma",)))
            entries.append(Entry(f"{ours}/scale2", (f"{theirs}.ls2.gamma",)))
    return entries


def transformers_entries(network: ViT) -> list[Entry]:
    """embeddings.cls_token, encoder.layer.0.attention.attention.query, ..., layernorm.

    Raises:
      UserError: the network has registers, layer scale, a first norm, a projection or a pooling by
        attention, or no class token.
    """
    others = network.registers, network.layer_scale, network.first_norm, network.projection
    if any(others) or network.pool == "attention" or not network.class_token:
        raise UserError(
            "transformers' ViT has no registers, layer scale, first norm, projection or pooling by "
            "attention, and has a class token; use timm's layout"
        )
    entries = [
        *patch_entries(network, _patch_tree(network), "embeddings.patch_embeddings.projection"),
        *_tokens(network, "embeddings.cls_token", "embeddings.position_embeddings", ""),
        *layer_norm("params/norm", "layernorm"),
    ]
    for block in range(network.depth):
        ours, theirs = f"params/block{block + 1}", f"encoder.layer.{block}"
        attention = [f"{theirs}.attention.attention.{name}" for name in ("query", "key", "value")]
        entries += [
            *layer_norm(f"{ours}/norm1", f"{theirs}.layernorm_before"),
            *linear(f"{ours}/attention/qkv", *attention),
            *linear(f"{ours}/attention/out", f"{theirs}.attention.output.dense"),
            *layer_norm(f"{ours}/norm2", f"{theirs}.layernorm_after"),
            *linear(f"{ours}/linear1", f"{theirs}.intermediate.dense"),
            *linear(f"{ours}/linear2", f"{theirs}.output.dense"),
        ]
    return entries


def timm_network(tensors: Tensors) -> ViT:
    """The network that such tensors, by timm's names, are of.

    No shape tells the heads. There is one for each 64 channels, but for MoCo v3's ViT-S with twice
    as many, which is known by its fixed table of positions. Such a table, stored, is taken as a
    learned one. All grids are taken to be square. MoCo v3's code would place the patches of another
    grid wrongly (`sincos_positions`), but its published weights are of 14x14 patches.
    """
    width, _, patch, _ = tensors["patch_embed.proj.weight"].shape
    class_token = "cls_token" in tensors
    places = tensors["pos_embed"].shape[1]
    class_position = class_token and round(places**0.5) ** 2 != places
    side = round((places - class_position) ** 0.5)
    scale = tensors.get("blocks.0.ls1.gamma")
    return ViT(
        width=width,
        depth=1 + max(int(m[1]) for n in tensors if (m := re.match(r"blocks\.(\d+)\.", n))),
        heads=12 if width == 384 and _fixed(tensors["pos_embed"][0], side) else width // 64,
        mlp=tensors["blocks.0.mlp.fc1.weight"].shape[0],
        patch=patch,
        image=patch * side,
        class_token=class_token,
        class_position=class_position,
        registers=tensors["reg_token"].shape[1] if "reg_token" in tensors else 0,
        pool="token" if class_token else "mean",
        first_norm="norm_pre.weight" in tensors,
        patch_bias="patch_embed.proj.bias" in tensors,
        layer_scale=0.0 if scale is None else float(abs(scale).mean()) or 1e-5,
    )


def _fixed(positions: NumpyArray, side: int) -> bool:
    """Whether they are MoCo v3's table, behind the class token's if it has one."""
    table = sincos_positions(side, side, positions.shape[1], order="moco_v3")
    places = positions[-len(table) :]
    return places.shape == table.shape and np.allclose(places, table, atol=1e-3)


def transformers_network(config: Mapping[str, Any]) -> ViT:
    """The network of a ViT's config.json.

    Raises:
      UserError: it asks for an activation that is not here.
    """
    check_form(config, ViTConfig, "config.json")
    activation = config.get("hidden_act", "gelu")
    if activation not in ACTIVATIONS:
        raise UserError(f"hidden_act={activation!r}; one of {', '.join(ACTIVATIONS)} is read")
    return ViT(
        width=config["hidden_size"],
        depth=config["num_hidden_layers"],
        heads=config["num_attention_heads"],
        mlp=config["intermediate_size"],
        patch=config.get("patch_size", 16),
        image=config.get("image_size", 224),
        activation=ACTIVATIONS[activation],
        eps=config.get("layer_norm_eps", 1e-12),
    )


def transformers_config(network: ViT, channels: int) -> dict[str, Any]:
    """The config.json with which transformers' ViTModel is this network."""
    return {
        "model_type": "vit",
        "architectures": ["ViTModel"],
        "hidden_size": network.width,
        "num_hidden_layers": network.depth,
        "num_attention_heads": network.heads,
        "intermediate_size": network.mlp or 4 * network.width,
        "patch_size": network.patch,
        "image_size": network.image,
        "num_channels": channels,
        "hidden_act": next(t for t, ours in ACTIVATIONS.items() if ours == network.activation),
        "layer_norm_eps": network.eps,
        "qkv_bias": True,
    }


def with_stored_positions(network: ViT, variables: PyTree) -> tuple[ViT, PyTree]:
    """The same network with its fixed positions as an array, for libraries that store them."""
    if network.positions == "learned":
        return network, variables
    side = network.image // network.patch
    table = sincos_positions(side, side, network.width, order=network.positions)
    if network.class_token and network.class_position:
        table = np.concatenate([np.zeros((1, network.width), np.float32), table])
    params = variables["params"] | {"positions": table}
    return network.clone(positions="learned"), variables | {"params": params}


def patch_entries(network: ViT, tree: str, name: str) -> list[Entry]:
    """The patch projection, in `tree` here and a convolution there."""
    entries = [Entry(f"{tree}/patch_kernel", (f"{name}.weight",), _patch_layout(network.patch))]
    if network.patch_bias:
        entries.append(Entry(f"{tree}/patch_bias", (f"{name}.bias",)))
    return entries


def _patch_tree(network: ViT) -> str:
    return "stats" if network.freeze_patches else "params"


def _patch_layout(patch: int) -> Layout:
    """[width, channels, patch, patch] there, [patch * patch * channels, width] here."""
    return Layout(
        lambda arrays: arrays[0].transpose(2, 3, 1, 0).reshape(-1, len(arrays[0])),
        lambda array: [array.reshape(patch, patch, -1, array.shape[1]).transpose(3, 2, 0, 1)],
    )


def _tokens(network: ViT, class_token: str, positions: str, registers: str) -> list[Entry]:
    """Tokens and learned positions, which have a leading axis of 1 there."""
    lead = Layout(lambda arrays: arrays[0][0], lambda array: [array[None]])
    entries = [Entry("params/positions", (positions,), lead)]
    if network.class_token:
        entries.append(Entry("params/class_token", (class_token,), lead))
    if network.registers:
        entries.append(Entry("params/registers", (registers,), lead))
    return entries
