"""A small BERT with random weights and a tokenizer of one-letter words, for tests of sentences."""

import jax
import jax.numpy as jnp
import numpy as np
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from jaxcl.encoders import BERT, initialise
from jaxcl.weights import SentenceWeights

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz"]
TINY = {
    "vocab_size": len(WORDS),
    "width": 16,
    "depth": 2,
    "heads": 4,
    "mlp": 24,
    "max_positions": 40,
    "pooler": "mean",
}
FAMILIES = {
    "bert": {},
    "roberta": {"token_types": 1, "position_offset": 2, "pad_id": 1, "eps": 1e-5},
    "mpnet": {"token_types": 0, "position_offset": 2, "pad_id": 1, "relative_buckets": 32},
}


def tiny_bert(family="bert", seed=0, **fields):
    """A BERT of two layers whose parameters are all random, norms and biases too."""
    encoder = BERT(**TINY | FAMILIES[family] | fields)
    token = {name: jnp.zeros((1, 1), jnp.int32) for name in ("ids", "mask")}
    shapes, _ = jax.eval_shape(lambda: initialise(encoder, jax.random.key(0), token))
    rng = np.random.default_rng(seed)
    params = jax.tree.map(lambda s: rng.normal(0.1, 0.4, s.shape).astype(np.float32), shapes)
    return encoder, {"params": params, "stats": {}}


def tiny_tokenizer():
    """Words are letters between spaces, lower case; files as transformers keeps them."""
    tokenizer = Tokenizer(
        models.WordPiece({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]")
    )
    tokenizer.add_special_tokens(WORDS[:5])
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.enable_padding(length=30)  # a file may ask for it; encoders must not
    settings = (
        b'{"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 32,'
        b' "pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]",'
        b' "sep_token": "[SEP]", "mask_token": "[MASK]"}'
    )
    return {"tokenizer.json": tokenizer.to_str().encode(), "tokenizer_config.json": settings}


def tiny_weights(*, max_length=32, projections=(), normalise=False, prompt="", **fields):
    encoder, variables = tiny_bert(**fields)
    return SentenceWeights(
        encoder=encoder,
        variables=variables,
        tokenizer_files=tiny_tokenizer(),
        max_length=max_length,
        projections=projections,
        normalise=normalise,
        prompt=prompt,
    )


def sentences(n, seed=0, longest=20):
    """Strings of 0 to `longest` words."""
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS[5:], rng.integers(0, longest + 1))) for _ in range(n)]
