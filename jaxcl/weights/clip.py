"""CLIP and SigLIP, both sides, from and to folders of transformers.

model = read_clip("clip-vit-base-patch32")
images, _ = forward(model.image, model.image_params, {}, pixels, train=False)
texts, _ = forward(model.text, model.text_params, {}, {"ids": ids}, train=False)
logits = jnp.exp(model.scale) * unit_rows(images["features"]) @ unit_rows(texts["features"]).T
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

import jax
import jax.numpy as jnp
import numpy as np

from jaxcl.encoders import TextTower, ViT, initialise
from jaxcl.errors import UserError
from jaxcl.reading import check_sizes, reading
from jaxcl.typing import PyTree
from jaxcl.weights.attention_pools import attention_pool_entries
from jaxcl.weights.files import read_folder, write_folder
from jaxcl.weights.tables import ACTIVATIONS, Entry, Layout, gather, layer_norm, linear, scatter
from jaxcl.weights.text_towers import (
    TextConfig,
    clip_text_config,
    clip_text_entries,
    clip_text_tower,
    pre_norm_block,
    siglip_text_config,
    siglip_text_entries,
    siglip_text_tower,
    text_sizes,
)
from jaxcl.weights.vit import patch_entries

SILENT: dict[str, dict[str, Any]] = {
    "clip": {
        "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12,
        "num_attention_heads": 12, "image_size": 224, "patch_size": 32,
        "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5,
    },
    "siglip": {
        "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12,
        "num_attention_heads": 12, "image_size": 224, "patch_size": 16,
        "hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6,
    },
}  # fmt: skip
"""What a vision config means where it is silent."""
COUNTERS = r".*position_ids$"


class ImageConfig(TypedDict, total=False):
    """Types of what is read of an image's config."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    image_size: int
    patch_size: int
    projection_dim: int
    hidden_act: str
    layer_norm_eps: float


class BothConfig(TypedDict, total=False):
    """Types of what is read of a config.json of both sides."""

    model_type: str
    projection_dim: int
    vision_config: ImageConfig
    text_config: TextConfig


class ImageText(NamedTuple):
    """Two encoders whose features are compared by their cosine."""

    image: ViT
    image_params: PyTree
    text: TextTower
    text_params: PyTree
    scale: Any
    """[] logarithm of the factor on cosines."""
    bias: Any = 0.0
    """[] added to the scaled cosines; SigLIP's alone."""


def read_clip(folder: str | Path) -> ImageText:
    """Both sides of a CLIP or a SigLIP.

    Raises:
      UserError: files are missing or damaged, the config is of another model, or tensors do not
        fit it; the message lists all of them.
    """
    with reading(folder):
        config, tensors = read_folder(folder, BothConfig)
        family = config.get("model_type")
        if family not in SILENT:
            raise UserError(f"{folder}: model_type={family!r} is none of {', '.join(SILENT)}")
        vision, text = config.get("vision_config", {}), config.get("text_config", {})
        if family == "clip":
            width = {"projection_dim": config.get("projection_dim", 512)}
            image, tower = (
                _image(SILENT["clip"] | vision | width),
                clip_text_tower({**text, **width}),
            )
        else:
            image, tower = _image(SILENT["siglip"] | vision), siglip_text_tower(text)
        source = Path(folder) / "config.json"
        check_sizes({"num_hidden_layers": image.depth, "hidden_size": image.width}, tensors, source)
        check_sizes(text_sizes(tower), tensors, source)
        shapes = {"params": {"image": _shapes(image, _pixels(image)), "text": _shapes(tower, _IDS)}}
        shapes["params"]["scale"] = jax.ShapeDtypeStruct((), jnp.float32)
        if family == "siglip":
            shapes["params"]["bias"] = jax.ShapeDtypeStruct((), jnp.float32)
        params = gather(tensors, _entries(image, tower), shapes, ignored=COUNTERS)["params"]
        return ImageText(
            image, params["image"], tower, params["text"], params["scale"], params.get("bias", 0.0)
        )


def write_clip(folder: str | Path, model: ImageText) -> None:
    """Writes a folder that CLIPModel opens, or SiglipModel where images are pooled by attention.

    Raises:
      UserError: the encoders are of neither kind.
    """
    image, text = model.image, model.text
    params = {
        "image": model.image_params,
        "text": model.text_params,
        "scale": np.asarray(model.scale),
    }
    vision = {
        "hidden_size": image.width,
        "intermediate_size": image.mlp or 4 * image.width,
        "num_hidden_layers": image.depth,
        "num_attention_heads": image.heads,
        "image_size": image.image,
        "patch_size": image.patch,
        "hidden_act": next(t for t, ours in ACTIVATIONS.items() if ours == image.activation),
        "layer_norm_eps": image.eps,
    }
    config: dict[str, Any]
    if image.pool == "attention":
        params["bias"] = np.asarray(model.bias)
        config = {"model_type": "siglip", "architectures": ["SiglipModel"]}
        config["text_config"] = siglip_text_config(text)
        config["vision_config"] = {"model_type": "siglip_vision_model", **vision}
    else:
        width = {"projection_dim": image.projection}
        config = {"model_type": "clip", "architectures": ["CLIPModel"], **width}
        config["text_config"] = clip_text_config(text)
        config["vision_config"] = {"model_type": "clip_vision_model", **vision, **width}
    if _image(config["vision_config"]) != image.clone(
        mlp=vision["intermediate_size"], dtype="float32"
    ):
        raise UserError("image is neither CLIP's nor SigLIP's ViT; see read_clip for their fields")
    write_folder(folder, config, scatter({"params": params}, _entries(image, text)))


def _image(config: Mapping[str, Any]) -> ViT:
    """The image side that a complete vision config describes."""
    activation = config["hidden_act"]
    if activation not in ACTIVATIONS:
        raise UserError(f"hidden_act={activation!r}; one of {', '.join(ACTIVATIONS)} is read")
    common: dict[str, Any] = {
        "width": config["hidden_size"],
        "depth": config["num_hidden_layers"],
        "heads": config["num_attention_heads"],
        "mlp": config["intermediate_size"],
        "patch": config["patch_size"],
        "image": config["image_size"],
        "activation": ACTIVATIONS[activation],
        "eps": config["layer_norm_eps"],
    }
    if "projection_dim" not in config:
        return ViT(**common, class_token=False, pool="attention")
    return ViT(**common, projection=config["projection_dim"], first_norm=True, patch_bias=False)


def _entries(image: ViT, text: TextTower) -> list[Entry]:
    """The table of both sides."""
    ours, theirs = "params/image", "vision_model"
    entries = [
        *patch_entries(image, ours, f"{theirs}.embeddings.patch_embedding"),
        Entry(f"{ours}/positions", (f"{theirs}.embeddings.position_embedding.weight",)),
        *layer_norm(f"{ours}/norm", f"{theirs}.post_layernorm"),
    ]
    for block in range(image.depth):
        entries += pre_norm_block(f"{ours}/block{block + 1}", f"{theirs}.encoder.layers.{block}")
    if image.pool == "attention":
        one = Layout(lambda arrays: arrays[0].reshape(()), lambda array: [array.reshape(1)])
        return [
            *entries,
            *attention_pool_entries(f"{ours}/pool", f"{theirs}.head"),
            *siglip_text_entries(text, ours="params/text", theirs="text_model."),
            Entry("params/scale", ("logit_scale",), one),
            Entry("params/bias", ("logit_bias",), one),
        ]
    token = Layout(lambda arrays: arrays[0][None], lambda array: [array[0]])
    return [
        *entries,
        Entry(f"{ours}/class_token", (f"{theirs}.embeddings.class_embedding",), token),
        *layer_norm(f"{ours}/norm_in", f"{theirs}.pre_layrnorm"),
        *linear(f"{ours}/projection", "visual_projection", bias=False),
        *clip_text_entries(text, ours="params/text"),
        Entry("params/scale", ("logit_scale",)),
    ]


_IDS = {"ids": jax.ShapeDtypeStruct((1, 1), jnp.int32)}


def _pixels(image: ViT) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((1, image.image, image.image, 3), jnp.float32)


def _shapes(encoder: Any, x: PyTree) -> PyTree:
    return jax.eval_shape(lambda x: initialise(encoder, jax.random.key(0), x)[0], x)
