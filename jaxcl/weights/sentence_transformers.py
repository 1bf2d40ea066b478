"""Folders of sentence-transformers, read and written: an encoder, its tokenizer and what follows.

A folder lists its modules: the transformer, a pooling, then perhaps linear layers and a
normalisation. `jaxcl.sentences.load` makes of it a model that encodes strings.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

from jaxcl.encoders.bert import BERT
from jaxcl.encoders.pooling import Pooler
from jaxcl.errors import UserError
from jaxcl.reading import inside, read_json, reading
from jaxcl.tokens import tokenizer_files
from jaxcl.typing import Float, NumpyArray, PyTree
from jaxcl.weights.bert import read_bert, write_bert
from jaxcl.weights.files import read_tensors, write_json, write_tensors

POOLINGS: dict[str, Pooler] = {"cls": "cls_before_pooler", "mean": "mean", "max": "max"}
"""Their poolings and our poolers."""
OLD_POOLINGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
"""Keys of 1_Pooling/config.json before version 6, which that version reads as well."""
ACTIVATIONS = {
    "torch.nn.modules.activation.Tanh": "tanh",
    "torch.nn.modules.activation.ReLU": "relu",
    "torch.nn.modules.linear.Identity": "none",
}
"""Of linear layers: their names and ours."""


class ModuleForm(TypedDict):
    """One entry of modules.json."""

    type: str
    path: str


class PoolingForm(TypedDict, total=False):
    """Types of what is read of a pooling's config.json."""

    pooling_mode: str | list[str]
    include_prompt: bool


class SettingsForm(TypedDict, total=False):
    """Types of what is read of sentence_bert_config.json."""

    max_seq_length: int | None
    do_lower_case: bool


class TokenizerForm(TypedDict, total=False):
    """Types of what is read of tokenizer_config.json."""

    model_max_length: float | None


class PromptsForm(TypedDict, total=False):
    """Types of what is read of config_sentence_transformers.json."""

    prompts: dict[str, str]
    default_prompt_name: str | None


class DenseForm(TypedDict, total=False):
    """Types of what is read of a linear layer's config.json."""

    bias: bool
    use_residual: bool
    activation_function: str


class Projection(NamedTuple):
    """A linear layer on sentence vectors."""

    kernel: Float[NumpyArray, "d e"]
    bias: Float[NumpyArray, "e"] | None
    activation: str
    """tanh, relu or none."""


@dataclass(frozen=True)
class SentenceWeights:
    """All that a folder of sentence-transformers says."""

    encoder: BERT
    """Its pooler is the folder's pooling."""
    variables: PyTree
    """{"params": ..., "stats": {}} of the encoder."""
    tokenizer_files: Mapping[str, bytes]
    """By name; "tokenizer.json" is among them."""
    max_length: int
    """Tokens of the longest sentence, special ones included; longer ones lose their end."""
    projections: tuple[Projection, ...] = ()
    """After the pooling."""
    normalise: bool = False
    """Scale the vectors to length one, at the end."""
    prompt: str = ""
    """Put before every sentence."""
    lower_case: bool = False
    """Make sentences lower case before the tokenizer sees them, which may do so on its own."""


def read_sentence_weights(folder: str | Path) -> SentenceWeights:
    """Reads a folder of sentence-transformers, or one of transformers with a tokenizer.

    The latter has no modules.json; it is pooled by the mean, as sentence-transformers does.

    Raises:
      UserError: a file is absent or damaged, or a module or setting is not supported here.
    """
    folder = Path(folder)
    with reading(folder):
        return _sentence_weights(folder)


def _sentence_weights(folder: Path) -> SentenceWeights:
    places = _places(folder)
    home = places.transformer
    encoder, variables = read_bert(home, pooler=_pooler(places.pooling))
    tokenizer = tokenizer_files(home)
    if "tokenizer.json" not in tokenizer:
        raise UserError(
            f"{home / 'tokenizer.json'} is missing; AutoTokenizer.from_pretrained(...)"
            ".save_pretrained(folder) of transformers writes it"
        )
    settings: dict[str, Any] = {"max_seq_length": None, "do_lower_case": False}
    settings |= _optional(home / "sentence_bert_config.json", SettingsForm)
    tokenizer_settings = _optional(home / "tokenizer_config.json", TokenizerForm)
    positions = encoder.max_positions - encoder.position_offset
    longest = settings["max_seq_length"] or tokenizer_settings.get("model_max_length") or positions
    if not longest >= 1:
        raise UserError(f"{home}: max_seq_length={longest} of its settings leaves no token")
    return SentenceWeights(
        encoder=encoder,
        variables=variables,
        tokenizer_files=tokenizer,
        max_length=int(min(longest, positions)),
        projections=tuple(_read_projection(place) for place in places.projections),
        normalise=places.normalise,
        prompt=_prompt(folder),
        lower_case=settings["do_lower_case"],
    )


def write_sentence_weights(folder: str | Path, weights: SentenceWeights) -> None:
    """Writes a folder that `SentenceTransformer(folder)` opens, in any of its versions from 2 on.

    The learned layer of the pooler `cls` becomes a linear layer after theirs.

    Raises:
      UserError: sentence-transformers has no such pooler, or transformers no such encoder.
    """
    folder = Path(folder)
    encoder, variables, projections = weights.encoder, weights.variables, weights.projections
    if encoder.pooler == "cls":
        params = dict(variables["params"])
        layer = params.pop("pooler")
        projections = (Projection(layer["kernel"], layer["bias"], "tanh"), *projections)
        encoder, variables = encoder.clone(pooler="cls_before_pooler"), {"params": params}
    pooling = {"avg": "mean"} | {ours: theirs for theirs, ours in POOLINGS.items()}
    if encoder.pooler not in pooling:
        raise UserError(
            f"sentence-transformers has no pooling like pooler={encoder.pooler!r}; "
            f"it has cls, {', '.join(pooling)}"
        )
    write_bert(folder, encoder, variables)
    for name, content in weights.tokenizer_files.items():
        (folder / name).write_bytes(content)
    settings = {"max_seq_length": weights.max_length, "do_lower_case": weights.lower_case}
    write_json(folder / "sentence_bert_config.json", settings)
    prompts = {"default": weights.prompt} if weights.prompt else {}
    write_json(
        folder / "config_sentence_transformers.json",
        {
            "prompts": prompts,
            "default_prompt_name": "default" if prompts else None,
            "similarity_fn_name": "cosine",
        },
    )
    modes = {key: mode == pooling[encoder.pooler] for key, mode in OLD_POOLINGS.items()}
    write_json(
        folder / "1_Pooling" / "config.json", {"word_embedding_dimension": encoder.width} | modes
    )
    kinds = ["Transformer", "Pooling"]
    for projection in projections:
        _write_projection(folder / f"{len(kinds)}_Dense", projection)
        kinds.append("Dense")
    if weights.normalise:
        write_json(folder / f"{len(kinds)}_Normalize" / "config.json", {})
        kinds.append("Normalize")
    write_json(
        folder / "modules.json",
        [
            {
                "idx": i,
                "name": str(i),
                "path": f"{i}_{kind}" if i else "",
                "type": f"sentence_transformers.models.{kind}",
            }
            for i, kind in enumerate(kinds)
        ],
    )


class _Places(NamedTuple):
    """Where each module of a folder lies."""

    transformer: Path
    pooling: Path | None
    projections: list[Path]
    normalise: bool


def _places(folder: Path) -> _Places:
    """The modules of a folder, which must follow each other as they can be computed here."""
    listing = folder / "modules.json"
    if not listing.exists():
        return _Places(folder, None, [], False)
    modules = read_json(listing, list[ModuleForm])
    kinds = [module["type"].rsplit(".", 1)[-1] for module in modules]
    dense = kinds.count("Dense")
    expected = ["Transformer", "Pooling", *["Dense"] * dense]
    normalise = kinds[-1:] == ["Normalize"]
    if kinds != expected + ["Normalize"] * normalise:
        raise UserError(
            f"{listing}: the modules are {', '.join(kinds)}; "
            "supported is Transformer, Pooling, any number of Dense, perhaps Normalize"
        )
    paths = [inside(folder, module["path"], listing) for module in modules]
    return _Places(paths[0], paths[1], paths[2 : 2 + dense], normalise)


def _pooler(place: Path | None) -> Pooler:
    if place is None:
        return "mean"
    config = {"include_prompt": True} | read_json(place / "config.json", PoolingForm)
    old = [mode for key, mode in OLD_POOLINGS.items() if config.get(key)]
    modes = config.get("pooling_mode", old or "mean")
    modes = [modes] if isinstance(modes, str) else list(modes)
    if len(modes) != 1 or modes[0] not in POOLINGS or not config["include_prompt"]:
        raise UserError(
            f"{place / 'config.json'}: the pooling is {' and '.join(modes)}, "
            f"include_prompt={config['include_prompt']}; "
            f"supported is one of {', '.join(POOLINGS)}, with prompts"
        )
    return POOLINGS[modes[0]]


def _prompt(folder: Path) -> str:
    settings: dict[str, Any] = {"prompts": {}, "default_prompt_name": None}
    file = folder / "config_sentence_transformers.json"
    settings |= _optional(file, PromptsForm)
    name = settings["default_prompt_name"]
    if name and name not in settings["prompts"]:
        raise UserError(f"{file}: default_prompt_name={name!r} is none of its prompts")
    return str(settings["prompts"][name]) if name else ""


def _optional(file: Path, form: Any) -> dict[str, Any]:
    content: dict[str, Any] = read_json(file, form) if file.exists() else {}
    return content


def _read_projection(place: Path) -> Projection:
    config = {"bias": True, "use_residual": False} | read_json(place / "config.json", DenseForm)
    activation = config.get("activation_function", "torch.nn.modules.activation.Tanh")
    if activation not in ACTIVATIONS or config["use_residual"]:
        raise UserError(
            f"{place / 'config.json'}: activation_function={activation}, "
            f"use_residual={config['use_residual']}; "
            f"supported are {', '.join(ACTIVATIONS)} without residual"
        )
    tensors = read_tensors(place)
    names = {"linear.weight"} | ({"linear.bias"} if config["bias"] else set())
    if tensors.keys() != names:
        raise UserError(f"{place} holds {', '.join(sorted(tensors))}; not {', '.join(names)}")
    shapes = [tensors[name].ndim for name in sorted(names, reverse=True)]
    if shapes != [2, 1][: len(names)]:
        raise UserError(f"{place}: its layer's weight is no matrix, or its bias no vector")
    return Projection(
        tensors["linear.weight"].T, tensors.get("linear.bias"), ACTIVATIONS[activation]
    )


def _write_projection(place: Path, projection: Projection) -> None:
    kernel, bias, activation = projection
    config = {
        "in_features": kernel.shape[0],
        "out_features": kernel.shape[1],
        "bias": bias is not None,
        "activation_function": {ours: name for name, ours in ACTIVATIONS.items()}[activation],
    }
    write_json(place / "config.json", config)
    tensors = {"linear.weight": kernel.T} | ({} if bias is None else {"linear.bias": bias})
    write_tensors(place / "model.safetensors", tensors)
