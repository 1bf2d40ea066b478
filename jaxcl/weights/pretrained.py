"""Encoders of images from other libraries' files, and to them.

    encoder, params, stats, left = load_encoder("moco_v2_800ep_pretrain.pth.tar")
    outputs, _ = forward(encoder, params, stats, images, train=False)
    save_encoder("resnet50.pth", encoder, params, stats, layout="torchvision")

Google's SimCLR checkpoints are TensorFlow's. Where that is installed, one line makes an `.npz` of
them, which is read here:

    python -c "import tensorflow as tf, numpy as np, sys; r = tf.train.load_checkpoint(sys.argv[1]);
    np.savez(sys.argv[2], **{n: r.get_tensor(n) for n in r.get_variable_to_shape_map()})" IN OUT.npz
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxcl.encoders import ResNet, ViT, initialise
from jaxcl.errors import UserError
from jaxcl.reading import NETWORKS, check_sizes, read_json, reading
from jaxcl.typing import PyTree
from jaxcl.weights import resnet, vit
from jaxcl.weights.files import (
    Tensors,
    find,
    parts_of,
    read_content,
    read_tensors,
    write_folder,
    write_tensors,
)
from jaxcl.weights.tables import Entry, gather, scatter

MOMENTUM = re.compile(r".*(encoder_k|momentum|target|teacher|ema|slow)")
"""Copies that follow the trained network; read only where they are all there is, or asked for."""


class Pretrained(NamedTuple):
    """An encoder with weights."""

    encoder: nn.Module
    params: PyTree
    stats: PyTree
    left: tuple[str, ...]
    """Names in the file that belong to something else: heads, momentum copies, counters."""


@dataclass(frozen=True)
class Layout:
    """How one library names the parts of one kind of network."""

    kind: type[nn.Module]
    anchor: str
    """A name that only this layout has; what stands before it in a file is the prefix."""
    stem: tuple[str, int]
    """Name of the first convolution, and its axis of the images' channels."""
    own: str
    """Pattern of the names of the encoder's own tensors, heads left out."""
    network: Callable[[Tensors, Mapping[str, Any] | None], nn.Module]
    """From tensors, and config.json where there is one."""
    entries: Callable[[Any], list[Entry]]


def _transformers_vit(tensors: Tensors, config: Mapping[str, Any] | None) -> ViT:
    if config is None:
        raise UserError("a ViT of transformers needs its config.json in the same folder")
    return vit.transformers_network(config)


LAYOUTS = {
    "torchvision": Layout(
        ResNet, "layer1.0.conv1.weight", ("conv1.weight", 1), r"(conv1|bn1|layer\d)\.",
        lambda tensors, config: resnet.torchvision_network(tensors),
        resnet.torchvision_entries,
    ),
    "timm": Layout(
        ViT, "blocks.0.attn.qkv.weight", ("patch_embed.proj.weight", 1),
        r"(cls_token|pos_embed|reg_token|patch_embed|norm_pre|blocks|norm)(\.|$)",
        lambda tensors, config: vit.timm_network(tensors), vit.timm_entries,
    ),
    "transformers-resnet": Layout(
        ResNet, "encoder.stages.0.layers.0.layer.0.convolution.weight",
        ("embedder.embedder.convolution.weight", 1), r"(embedder|encoder)\.",
        lambda tensors, config: resnet.transformers_network(tensors),
        resnet.transformers_entries,
    ),
    "transformers-vit": Layout(
        ViT, "encoder.layer.0.attention.attention.query.weight",
        ("embeddings.patch_embeddings.projection.weight", 1),
        r"(embeddings|encoder|layernorm)\.", _transformers_vit, vit.transformers_entries,
    ),
    "google-simclr": Layout(
        ResNet, "base_model/conv2d/kernel", ("base_model/conv2d/kernel", 2),
        r"base_model/[^/]+/(kernel|gamma|beta|moving_mean|moving_variance)$",
        lambda tensors, config: resnet.google_network(tensors), resnet.google_entries,
    ),
}  # fmt: skip
"""By name; in a layout called after a library alone, that library's ResNet or ViT."""


def load_encoder(
    path: str | Path, *, encoder: nn.Module | None = None, part: str = "", prefix: str | None = None
) -> Pretrained:
    """The encoder in a checkpoint of another library.

    Reads torchvision's, timm's, transformers' and SimCLR's networks, and what MoCo, SwAV, DINO,
    BYOL and solo-learn save around them; layout, prefix and sizes are found from the file.

    Args:
      path: a file or a folder, as `read_tensors` takes it.
      encoder: the network to fill, where what the shapes tell is not enough: `resize_offset`, the
        type of the computation, or another number of heads.
      part: of a file with several networks: "student" say, as `read_tensors` takes it.
      prefix: of the names of the one that is wanted, "module.encoder_k." say; None: the one that is
        trained.

    Raises:
      UserError: no layout fits, several networks are there, or tensors are missing, left over or
        misshapen, all of them in one message.
    """
    path = Path(path)
    with reading(path):
        return _loaded(path, encoder, part, prefix)


def _loaded(path: Path, encoder: nn.Module | None, part: str, prefix: str | None) -> Pretrained:
    tensors = resnet.named_layers(read_tensors(path, part=part))
    layout, prefix = _find_layout(tensors, prefix, path)
    inner = {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
    own = {name: t for name, t in inner.items() if re.match(layout.own, name)}
    own = {name: t for name, t in own.items() if not name.endswith("num_batches_tracked")}
    network = encoder
    if network is None:
        config = find(path).parent / "config.json"
        try:
            network = layout.network(own, read_json(config) if config.is_file() else None)
        except KeyError as error:
            raise UserError(f"{path} lacks {error}, which tells the network's sizes") from error
    if not isinstance(network, layout.kind):
        raise UserError(f"{path} holds a {layout.kind.__name__}, not {type(network).__name__}")
    if encoder is None:
        check_sizes({"layers": _layers(network)}, own, path)
    shapes = _shapes(network, _channels(own, layout))
    variables = gather(own, layout.entries(network), shapes)
    left = tuple(sorted(tensors.keys() - {prefix + name for name in own}))
    return Pretrained(network, variables["params"], variables["stats"], left)


def _layers(network: nn.Module) -> int:
    """Blocks of a ViT or a ResNet."""
    blocks: int = network.depth if isinstance(network, ViT) else sum(network.stage_blocks)
    return blocks


def save_encoder(
    path: str | Path,
    encoder: nn.Module,
    params: PyTree,
    stats: PyTree,
    *,
    layout: str = "timm",
    prefix: str = "",
) -> None:
    """An encoder in another library's layout.

    Args:
      path: a `.pth`, `.npz` or `.safetensors` file; for transformers, a folder, which gets
        config.json and model.safetensors.
      encoder, params, stats: a ResNet or ViT and its variables.
      layout: "torchvision" or "timm" (the same for a ResNet), "transformers", "google-simclr".
      prefix: put before all names.

    Raises:
      UserError: there is no such layout, or it cannot express the network.
    """
    variables = {"params": params, "stats": stats}
    if isinstance(encoder, ViT):
        encoder, variables = vit.with_stored_positions(encoder, variables)
    named = _layout(layout, encoder)
    tensors = scatter(variables, named.entries(encoder))
    channels = _channels(tensors, named)
    for name in [name for name in tensors if name.endswith("running_mean")]:
        tensors[name.replace("running_mean", "num_batches_tracked")] = np.zeros((), np.int64)
    tensors = {prefix + name: tensor for name, tensor in tensors.items()}
    path = Path(path)
    if layout != "transformers":
        write_tensors(path, tensors)
        return
    module = vit if isinstance(encoder, ViT) else resnet
    write_folder(path, module.transformers_config(encoder, channels), tensors)


def _find_layout(tensors: Tensors, prefix: str | None, path: Path) -> tuple[Layout, str]:
    for layout in LAYOUTS.values():
        found = [n.removesuffix(layout.anchor) for n in tensors if n.endswith(layout.anchor)]
        if prefix is not None:
            found = [name for name in found if name == prefix]
        trained = [name for name in found if not MOMENTUM.match(name)] or found
        if len(trained) > NETWORKS:
            raise UserError(f"{path} holds {len(trained):,} networks; the limit is {NETWORKS}")
        if len(trained) > 1 and len({_numbers(tensors, name) for name in trained}) > 1:
            raise UserError(f"{path} holds several networks; say prefix=: {', '.join(trained)}")
        if trained:
            return layout, trained[0]
    some = ", ".join(list(tensors)[:4])
    asked = "" if prefix is None else f" with prefix={prefix!r}"
    raise UserError(
        f"{path} holds no network that is known here{asked}; its {len(tensors)} tensors are "
        f"{some}, ... and the layouts are {', '.join(LAYOUTS)}{_others(path)}"
    )


def _others(path: Path) -> str:
    """What else `part` may name in the file."""
    parts = list(islice(parts_of(read_content(find(path))), 8))
    return f"; say part= for another part of the file: {', '.join(parts)}" if parts else ""


def _numbers(tensors: Tensors, prefix: str) -> int:
    """Differs between networks; the same for one network under two prefixes."""
    own = sorted(name for name in tensors if name.startswith(prefix))
    return hash(tuple((name.removeprefix(prefix), tensors[name].tobytes()) for name in own))


def _layout(name: str, encoder: nn.Module) -> Layout:
    kind = type(encoder).__name__.lower()
    if name == "timm" and isinstance(encoder, ResNet):
        name = "torchvision"
    found = LAYOUTS.get(name) or LAYOUTS.get(f"{name}-{kind}")
    if found is None or not isinstance(encoder, found.kind):
        able = [n for n, layout in LAYOUTS.items() if isinstance(encoder, layout.kind)]
        mend = f"one of {', '.join(able)} does" if able else "a ResNet or ViT is written"
        raise UserError(f"layout={name!r} does not take a {kind}; {mend}")
    return found


def _channels(tensors: Tensors, layout: Layout) -> int:
    """Of the images that the network takes; where its first convolution is absent, three."""
    name, axis = layout.stem
    kernel = tensors.get(name)
    return 3 if kernel is None or kernel.ndim != 4 else kernel.shape[axis]


def _shapes(network: nn.Module, channels: int) -> PyTree:
    side = getattr(network, "image", 64)
    image = jax.ShapeDtypeStruct((1, side, side, channels), jnp.float32)
    params, stats = jax.eval_shape(lambda x: initialise(network, jax.random.key(0), x), image)
    return {"params": params, "stats": stats}
