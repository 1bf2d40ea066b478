"""`export.py RUN FILE [options]`: a run's encoder for timm, sentence-transformers, ..."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import jax

from jaxcl.augment import Recipe
from jaxcl.data.lines import TOKENIZER
from jaxcl.encoders import BERT, ResNet, ViT
from jaxcl.encoders.resnet import BLOCKS
from jaxcl.errors import UserError
from jaxcl.experiment import classes_of, read_config
from jaxcl.options import POSITIONAL, parsed
from jaxcl.programs.answers import answered
from jaxcl.run import Run, load
from jaxcl.sentences import SentenceModel
from jaxcl.tokens import tokenizer_files
from jaxcl.weights import read_tensors, save_encoder

ENDINGS = (".pth", ".pt", ".bin", ".npz", ".safetensors")
NAMED = {"torchvision": (18, 34, 50, 101, 152), "timm": (18, 34, 50, 101, 152, 200)}
"""Depths that have a function of their own there."""
SENTENCES = "sentence-transformers"
HALF = (
    "stem: half, 3x3 of stride 2; no tensor tells the stride, so readers take it for 1, "
    "jaxcl's load_encoder too unless encoder= says otherwise"
)


@dataclass(frozen=True)
class Export:
    """Writes a run's encoder, with the weights that evaluation uses, for other libraries.

    Stems for small images (cifar, half) are not those libraries' own; the program prints what to
    change there. A half stem has stride 2 at 3x3.
    """

    run: Annotated[str, POSITIONAL]
    """Run directory, as train.py wrote it."""
    file: Annotated[Path, POSITIONAL]
    """File to write: .pth, .safetensors or .npz; a folder for transformers and
    sentence-transformers."""
    layout: Literal[
        "timm", "torchvision", "transformers", "google-simclr", "sentence-transformers"
    ] = "timm"
    """Whose names the tensors get; sentence-transformers for runs on text."""
    prefix: str = ""
    """Put before all names."""
    best: bool = False
    """The checkpoint with the highest kNN accuracy, or STS-B correlation, instead of the newest."""
    config: str = ""
    """Config file that defines the run's own method or module classes, where it has any."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Exits with 2 for a user's mistake."""
    answered(lambda: export(parsed(Export, arguments, program="export.py")))


def export(options: Export) -> None:
    """Writes the file and prints what it holds, how to open it, and what images it wants.

    Raises:
      UserError: no run there, a file of another kind, or a layout that cannot express the network.
    """
    _check(options)
    classes = classes_of(read_config(options.config)) if options.config else {}
    run = load(options.run, best=options.best, classes=classes.values())
    kept = run.encoder
    if isinstance(kept.encoder, BERT) != (options.layout == SENTENCES):
        layouts = SENTENCES if isinstance(kept.encoder, BERT) else "another"
        raise UserError(
            f"--layout {options.layout} does not fit a {type(kept.encoder).__name__}; use {layouts}"
        )
    if options.layout == SENTENCES:
        export_sentences(run, options.file)
        return
    try:
        save_encoder(options.file, *kept, layout=options.layout, prefix=options.prefix)
    except OSError as error:
        raise UserError(f"{options.file} cannot be written: {error.strerror}") from error
    tensors = read_tensors(options.file)
    parameters = sum(leaf.size for leaf in jax.tree.leaves(kept.params))
    print(
        f"{options.file}: {len(tensors)} tensors, {parameters:,} parameters, "
        f"layout {options.layout}, step {int(run.state.step):,}"
    )
    print(f"there: {opening(kept.encoder, options, run.channels)}")
    print(f"images: {wanted(run.experiment.method.augment, run.channels)}")
    if isinstance(kept.encoder, ResNet) and kept.encoder.stem == "half":
        print(HALF)


def export_sentences(run: Run, folder: Path) -> None:
    """Writes encoder, pooling and tokenizer as a folder, and prints how to open it."""
    encoder, params, stats = run.encoder
    assert isinstance(encoder, BERT)
    model = SentenceModel(
        encoder=encoder,
        variables={"params": jax.device_get(params), "stats": stats},
        tokenizer_files=tokenizer_files(run.path / TOKENIZER),
        max_length=encoder.max_positions - encoder.position_offset,
    )
    try:
        model.save(folder)
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {error.strerror}") from error
    parameters = sum(leaf.size for leaf in jax.tree.leaves(params))
    print(f"{folder}: {parameters:,} parameters, step {int(run.state.step):,}")
    print(f"there: sentence_transformers.SentenceTransformer({str(folder)!r})")


def opening(encoder: Any, options: Export, channels: int) -> str:
    """What to type in the other library, or why nothing there is this network."""
    file = str(options.file)
    if options.layout == "transformers":
        return f"net = transformers.AutoModel.from_pretrained({file!r})"
    if options.layout == "google-simclr":
        return f"variables of google-research/simclr by name; jaxcl.weights.load_encoder({file!r})"
    if isinstance(encoder, ResNet) and encoder.width != 1:
        return (
            f"no ResNet of {options.layout} is {encoder.width:g} times as wide; "
            f"names are those of its ResNet-{encoder.depth}"
        )
    if isinstance(encoder, ViT):
        network = _vit(encoder, channels)
    else:
        network = _resnet(encoder, options.layout, channels)
    read = f"torch.load({file!r})"
    if options.file.suffix == ".safetensors":
        read = f"safetensors.torch.load_file({file!r})"
    elif options.file.suffix == ".npz":
        read = f"{{n: torch.from_numpy(a) for n, a in np.load({file!r}).items()}}"
    if options.prefix:
        read = f"{{n.removeprefix({options.prefix!r}): t for n, t in {read}.items()}}"
    return f"{network}; net.load_state_dict({read}); net.eval()"


def wanted(recipe: Recipe, channels: int) -> str:
    """The images that the network was evaluated on."""
    scale = ""
    if recipe.mean is not None and recipe.std is not None:
        scale = f", less {list(recipe.mean)}, over {list(recipe.std)}"
    crop = f", central {recipe.inference_crop:g} of a side" if recipe.inference_crop < 1 else ""
    return f"{channels} x {recipe.size} x {recipe.size}{crop}, in 0 to 1{scale}"


def _check(options: Export) -> None:
    folder = options.layout in ("transformers", SENTENCES)
    if folder and (options.file.suffix in ENDINGS or options.file.is_file()):
        raise UserError(f"{options.file}: layout {options.layout} writes a folder; give one's name")
    if not folder and (options.file.suffix not in ENDINGS or options.file.is_dir()):
        raise UserError(f"{options.file} is no file name that ends in {', '.join(ENDINGS)}")


def _resnet(network: ResNet, layout: str, channels: int) -> str:
    """`net = ...`, then what differs from that library's network."""
    name = f"resnet{network.depth}"
    if network.depth in NAMED[layout] and not network.blocks:
        call = f"torchvision.models.{name}()"
        made = call if layout == "torchvision" else f"timm.create_model({name!r})"
    else:
        home = f"{layout}.models.resnet"
        block = "Bottleneck" if network.depth >= 50 else "BasicBlock"
        made = f"{home}.ResNet({home}.{block}, {list(network.blocks or BLOCKS[network.depth])})"
    steps = [f"net = {made}", "net.fc = torch.nn.Identity()"]
    side, stride = {"cifar": (3, 1), "half": (3, 2)}.get(network.stem, (7, 2))
    padding = side // 2 if network.stem_padding is None else network.stem_padding
    if (side, padding, channels) != (7, 3, 3):
        shape = f"{channels}, 64, {side}, {stride}, {padding}, bias=False"
        steps.append(f"net.conv1 = torch.nn.Conv2d({shape})")
    if not network.stem_relu:
        name = "relu" if layout == "torchvision" else "act1"
        steps.append(f"net.{name} = torch.nn.Identity()")
    if side == 3:
        steps.append("net.maxpool = torch.nn.Identity()")
    elif not network.even_pool:
        steps.append("net.maxpool = torch.nn.MaxPool2d(3, 2, ceil_mode=True)")
    steps += [f"net.layer{stage} = torch.nn.Identity()" for stage in range(network.stages + 1, 5)]
    return "; ".join(steps)


def _vit(network: ViT, channels: int) -> str:
    """`net = ...` of timm's class, whose named models are of some sizes only."""
    fields: dict[str, Any] = {
        "img_size": network.image,
        "patch_size": network.patch,
        "in_chans": channels,
        "embed_dim": network.width,
        "depth": network.depth,
        "num_heads": network.heads,
        "mlp_ratio": (network.mlp or 4 * network.width) / network.width,
        "num_classes": network.projection,
        "global_pool": "token" if network.pool == "token" else "avg",
        "fc_norm": False,
    }
    fields |= {} if network.class_token else {"class_token": False}
    if network.class_token and not network.class_position:
        fields["no_embed_class"] = True
    fields |= {"reg_tokens": network.registers} if network.registers else {}
    fields |= {"init_values": network.layer_scale} if network.layer_scale else {}
    fields |= {"pre_norm": True} if network.first_norm else {}
    acts = {"gelu": "", "tanh_gelu": "gelu_tanh", "quick_gelu": "quick_gelu"}
    fields |= {"act_layer": acts[network.activation]} if acts[network.activation] else {}
    given = ", ".join(f"{name}={value!r}" for name, value in fields.items())
    if network.eps != 1e-6:
        given += f", norm_layer=functools.partial(torch.nn.LayerNorm, eps={network.eps})"
    bare = "; net.head.bias = None" if network.projection else ""
    return f"net = timm.models.vision_transformer.VisionTransformer({given}){bare}"
