"""Residual networks: names of torchvision (timm, MoCo, SwAV, DINO, solo-learn and most others use
them), of transformers, and of Google's SimCLR."""

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from jaxcl.encoders import ResNet
from jaxcl.encoders.resnet import BLOCKS
from jaxcl.errors import UserError
from jaxcl.reading import NETWORKS
from jaxcl.weights.files import Tensors
from jaxcl.weights.tables import CONV, Entry, batch_norm


def torchvision_entries(network: ResNet) -> list[Entry]:
    """conv1, bn1, layer1.0.conv1, ..., layer1.0.downsample.0.

    Raises:
      UserError: the network has selective kernels, a deep stem, pooled shortcuts or group norm,
        which torchvision's networks have not.
    """
    pooled, group = network.pooled_shortcut, network.norm == "group"
    if network.sk_ratio or network.stem == "deep" or pooled or group:
        raise UserError(
            "torchvision's layout has no selective kernels, deep stem, pooled shortcuts, group norm"
        )
    entries = _layer("stem", "conv1", "bn1")
    for stage, block in _blocks(network):
        there = f"layer{stage}.{block - 1}"
        for i in range(1, _convolutions(network) + 1):
            here = f"stage{stage}_block{block}"
            entries += _layer(
                f"{here}/conv{i}", f"{there}.conv{i}", f"{there}.bn{i}", f"{here}/norm{i}"
            )
        if _has_shortcut(network, stage, block):
            names = (f"{there}.downsample.0", f"{there}.downsample.1")
            entries += _layer(f"{here}/shortcut", *names)
    return entries


def transformers_entries(network: ResNet) -> list[Entry]:
    """embedder.embedder.convolution, encoder.stages.0.layers.0.layer.0.convolution, ...

    Raises:
      UserError: as `torchvision_entries`, or basic blocks with `first_shortcut`.
    """
    if network.first_shortcut and network.depth < 50:
        raise UserError("first_shortcut=True; transformers' basic blocks have no such shortcut")
    rename = {}
    for stage, block in _blocks(network):
        ours = f"layer{stage}.{block - 1}"
        there = f"encoder.stages.{stage - 1}.layers.{block - 1}"
        for i in range(1, _convolutions(network) + 1):
            rename[f"{ours}.conv{i}"] = f"{there}.layer.{i - 1}.convolution"
            rename[f"{ours}.bn{i}"] = f"{there}.layer.{i - 1}.normalization"
        rename[f"{ours}.downsample.0"] = f"{there}.shortcut.convolution"
        rename[f"{ours}.downsample.1"] = f"{there}.shortcut.normalization"
    rename["conv1"] = "embedder.embedder.convolution"
    rename["bn1"] = "embedder.embedder.normalization"
    renamed = []
    for ours, (theirs,), layout in torchvision_entries(network):
        layer, _, leaf = theirs.rpartition(".")
        renamed.append(Entry(ours, (f"{rename[layer]}.{leaf}",), layout))
    return renamed


def google_entries(network: ResNet) -> list[Entry]:
    """base_model/conv2d, base_model/batch_normalization, ..., numbered as SimCLR's code makes them:
    in a block the shortcut comes first.

    Raises:
      UserError: the network has group norm, or basic blocks without the shortcut that they have
        in the first stage there.
    """
    if network.norm == "group" or not _has_shortcut(network, 1, 1):
        raise UserError(
            "Google's SimCLR layout has batch norm, and a shortcut in the first stage too: "
            "a network of basic blocks (depth under 50) needs first_shortcut=True"
        )
    counts: Counter[str] = Counter()

    def name(kind: str) -> str:
        counts[kind] += 1
        return f"base_model/{kind}" + (f"_{counts[kind] - 1}" if counts[kind] > 1 else "")

    entries: list[Entry] = []

    def layer(conv: str, norm: str | None) -> None:
        entries.append(Entry(f"params/{conv}/kernel", (f"{name('conv2d')}/kernel",)))
        if norm:
            there = name("batch_normalization")
            pairs = {"params": ("scale", "bias"), "stats": ("mean", "var")}
            leaves = ("gamma", "beta"), ("moving_mean", "moving_variance")
            for (tree, ours), theirs in zip(pairs.items(), leaves, strict=True):
                for one, other in zip(ours, theirs, strict=True):
                    entries.append(Entry(f"{tree}/{norm}/{one}", (f"{there}/{other}",)))

    if network.stem == "deep":
        layer("stem1", "stem1_norm")
        layer("stem2", "stem2_norm")
    layer("stem", "stem_norm")
    for stage, block in _blocks(network):
        here = f"stage{stage}_block{block}"
        if _has_shortcut(network, stage, block):
            layer(f"{here}/shortcut", f"{here}/shortcut_norm")
        for i in range(1, _convolutions(network) + 1):
            layer(f"{here}/conv{i}", f"{here}/norm{i}")
            if network.sk_ratio and i == 2:
                layer(f"{here}/squeeze", f"{here}/squeeze_norm")
                layer(f"{here}/select", None)
    return entries


def named_layers(tensors: Tensors) -> Tensors:
    """Torchvision's names where its ResNet was cut into a list of layers, as in `nn.Sequential(
    *list(resnet.children())[:-1])`, or calls its shortcuts so, as SupContrast's; else the same."""
    first = r"((?:.*\.)?)(\d)\.0\.conv1\.weight$"
    starts: dict[str, int] = {}  # of each list, the number of its first stage
    for match in filter(None, (re.match(first, name) for name in tensors)):
        starts[match[1]] = min(starts.get(match[1], 9), int(match[2]))

    if len(starts) > NETWORKS:
        raise UserError(f"the file holds {len(starts):,} networks; the limit is {NETWORKS}")

    def renamed(name: str) -> str:
        for prefix, start in starts.items():
            names = {"0": "conv1", "1": "bn1"}
            names |= {str(start + stage): f"layer{stage + 1}" for stage in range(4)}
            number, dot, rest = name.removeprefix(prefix).partition(".")
            if name.startswith(prefix) and number in names:
                name = prefix + names[number] + dot + rest
        return re.sub(r"(layer\d\.\d+)\.shortcut\.", r"\1.downsample.", name)

    return {renamed(name): tensor for name, tensor in tensors.items()}


def torchvision_network(tensors: Tensors) -> ResNet:
    """The network that such tensors are of.

    A depth that is not in the table is given by `blocks`.
    """
    channels, _, side, _ = tensors["conv1.weight"].shape
    bottleneck = "layer1.0.conv3.weight" in tensors
    # A 3x3 stem of stride 2 has the same tensors; it is this library's own.
    stem: Any = "imagenet" if side == 7 else "cifar"
    sizes = _sizes(tensors, r"layer(\d)\.(\d+)\.conv1\.weight", bottleneck)
    shortcut = not bottleneck and "layer1.0.downsample.0.weight" in tensors
    return ResNet(**sizes, width=channels / 64, stem=stem, first_shortcut=shortcut)


def transformers_network(tensors: Tensors) -> ResNet:
    """As `torchvision_network`, for transformers' names."""
    channels = len(tensors["embedder.embedder.convolution.weight"])
    bottleneck = "encoder.stages.0.layers.0.layer.2.convolution.weight" in tensors
    pattern = r"encoder\.stages\.(\d)\.layers\.(\d+)\.layer\.0\.convolution\.weight"
    return ResNet(**_sizes(tensors, pattern, bottleneck), width=channels / 64)


def transformers_config(network: ResNet, channels: int) -> dict[str, Any]:
    """The config.json with which transformers' ResNetModel is this network.

    Raises:
      UserError: the stem is not the one that transformers' network has.
    """
    if network.stem_padding is not None or not network.stem_relu:
        raise UserError(
            "transformers' ResNet pads the image by half the kernel and has a stem ReLU"
        )
    if network.stem != "imagenet":
        raise UserError(f"stem={network.stem!r}; transformers' ResNet has the imagenet stem alone")
    base = round(64 * network.width)
    out = 4 if network.depth >= 50 else 1
    return {
        "model_type": "resnet",
        "architectures": ["ResNetModel"],
        "num_channels": channels,
        "embedding_size": base,
        "hidden_sizes": [out * base * 2**stage for stage in range(network.stages)],
        "depths": list(network.stage_blocks),
        "layer_type": "bottleneck" if network.depth >= 50 else "basic",
        "hidden_act": "relu",
        "downsample_in_first_stage": False,
        "downsample_in_bottleneck": False,
    }


def google_network(tensors: Tensors) -> ResNet:
    """SimCLR v1's or v2's network, by the shapes of its convolutions in the order of their numbers.

    A block has one 3x3 convolution, or two if it is basic, and stages differ in their channels.
    """
    found = re.compile(r"base_model/conv2d(?:_(\d+))?/kernel$")
    numbered = {int(m[1] or 0): tensors[name] for name in tensors if (m := found.match(name))}
    shapes = [numbered[number].shape for number in sorted(numbered)]
    side, _, _, channels = shapes[0]
    deep = side == 3 and shapes[1][0] == 3
    blocks = shapes[3 if deep else 1 :]  # they begin with a shortcut
    bottleneck = blocks[1][0] == 1
    inner = [shape for shape in blocks if shape[0] == 3]
    selective = bottleneck and inner[0][3] == 2 * inner[0][2]
    each = Counter(shape[3] // (2 if selective else 1) for shape in inner)
    counts = tuple(count // (1 if bottleneck else 2) for _, count in sorted(each.items()))
    return ResNet(
        **_depth(counts, bottleneck),
        width=channels / (32 if deep else 64),
        stem="deep" if deep else "imagenet" if side == 7 else "cifar",
        first_shortcut=not bottleneck,
        pooled_shortcut=deep or selective,
        sk_ratio=0.0625 if selective else 0.0,
        even_pool=False,
    )


def _layer(ours: str, conv: str, norm: str, our_norm: str = "") -> list[Entry]:
    kernel = Entry(f"params/{ours}/kernel", (f"{conv}.weight",), CONV)
    return [kernel, *batch_norm(our_norm or f"{ours}_norm", norm)]


def _blocks(network: ResNet) -> Iterator[tuple[int, int]]:
    for stage, count in enumerate(network.stage_blocks, 1):
        for block in range(1, count + 1):
            yield stage, block


def _convolutions(network: ResNet) -> int:
    return 3 if network.depth >= 50 else 2


def _has_shortcut(network: ResNet, stage: int, block: int) -> bool:
    """The first block of a stage changes its input's shape, but for the first with basic blocks."""
    return block == 1 and (stage > 1 or network.depth >= 50 or network.first_shortcut)


def _sizes(tensors: Tensors, pattern: str, bottleneck: bool) -> dict[str, Any]:
    """Depth and number of stages, by how many blocks the names tell of."""
    found = [match for name in tensors if (match := re.match(pattern, name))]
    counts = Counter(int(match[1]) for match in found)
    return _depth(tuple(counts[stage] for stage in sorted(counts)), bottleneck)


def _depth(blocks: tuple[int, ...], bottleneck: bool) -> dict[str, Any]:
    """`depth`, `stages` and, where no depth of the table has such blocks, `blocks`."""
    for depth, known in BLOCKS.items():
        if known[: len(blocks)] == blocks and (depth >= 50) == bottleneck:
            return {"depth": depth, "stages": len(blocks)}
    return {"depth": 50 if bottleneck else 18, "stages": len(blocks), "blocks": blocks}
