"""A sentence encoder of MiniLM's shape with random weights, and sentences of usual lengths."""

from pathlib import Path
from typing import Any

import numpy as np

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def words(count: int) -> list[str]:
    """Made-up words, each a token of its own."""
    letters = "etaoinshrdlucmfw"
    return ["".join(letters[(i // 16**place) % 16] for place in range(5)) for i in range(count)]


def lines(count: int) -> list[str]:
    """Sentences of 11 to 48 words, as in an encyclopedia: 13 to 50 tokens with both ends."""
    draw = np.random.default_rng(0)
    known = np.array(words(200))
    lengths = np.clip(np.round(draw.lognormal(3.2, 0.4, count)), 11, 48).astype(int)
    return [" ".join(known[draw.integers(0, len(known), length)]) for length in lengths]


def model_folder(session: Any) -> Path:
    """A folder that jaxcl and sentence-transformers open, written once."""
    folder: Path = session.record.folder / "minilm"
    if not (folder / "modules.json").exists():
        write_model(folder, session.sizes)
    return folder


def write_model(folder: Path, sizes: Any) -> None:
    """Writes the folder."""
    import jax
    import jax.numpy as jnp
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    from card.programs import sentence_encoder
    from jaxcl.encoders import initialise
    from jaxcl.weights import SentenceWeights
    from jaxcl.weights.sentence_transformers import write_sentence_weights

    encoder = sentence_encoder(sizes).clone(pooler="mean")
    token = {name: jnp.zeros((1, 1), jnp.int32) for name in ("ids", "mask")}
    shapes, _ = jax.eval_shape(lambda: initialise(encoder, jax.random.key(0), token))
    draw = np.random.default_rng(0)
    params = jax.tree.map(lambda s: draw.normal(0, 0.05, s.shape).astype(np.float32), shapes)
    vocabulary = [*SPECIAL, *words(sizes.vocabulary - len(SPECIAL))]
    tokenizer = Tokenizer(
        models.WordPiece({word: i for i, word in enumerate(vocabulary)}, unk_token="[UNK]")
    )
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    settings = (
        b'{"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 256,'
        b' "pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]",'
        b' "sep_token": "[SEP]", "mask_token": "[MASK]"}'
    )
    files = {"tokenizer.json": tokenizer.to_str().encode(), "tokenizer_config.json": settings}
    weights = SentenceWeights(
        encoder=encoder,
        variables={"params": params, "stats": {}},
        tokenizer_files=files,
        max_length=256,
    )
    write_sentence_weights(folder, weights)
