"""Sentences to vectors: a model of sentence-transformers, run in JAX.

    from jaxcl import sentences
    model = sentences.load("all-MiniLM-L6-v2")            # a folder
    vectors = model.encode(["A cat sleeps.", "The dog barks."])       # float32 [2, 384]

Sentences are sorted by length and padded to one of few lengths, because every new shape compiles
for a second or more; `jax.config.jax_compilation_cache_dir` keeps the compiled code between
processes.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from tokenizers import Tokenizer

from jaxcl.encoders.apply import forward
from jaxcl.encoders.bert import BERT
from jaxcl.errors import UserError
from jaxcl.progress import told
from jaxcl.tokens import Batch, best_batch_tokens, prepared, sorted_batches, token_ids
from jaxcl.typing import Array, Float, Int, NumpyArray, PyTree
from jaxcl.weights.sentence_transformers import (
    SentenceWeights,
    read_sentence_weights,
    write_sentence_weights,
)

CHUNK = 8192
"""Sentences that are sorted together. While the device encodes one chunk, the host prepares the
next."""


@dataclass(frozen=True)
class SentenceModel(SentenceWeights):
    """Encodes strings. With other weights: `dataclasses.replace(model, variables=...)`."""

    def encode(
        self, sentences: Sequence[str], *, batch_tokens: int | None = None
    ) -> Float[NumpyArray, "n d"]:
        """Vectors of sentences, in their order; work of minutes says how far it is.

        Args:
          sentences: any strings, empty ones too. Of a sentence with more than `max_length` tokens,
            the first ones count, the special tokens at both ends included.
          batch_tokens: tokens in a batch, with padding; the work and the memory of one. None: 512
            on CPU, whose caches hold that, and 16,384 elsewhere.

        Returns:
          [n, d] float32.

        Raises:
          UserError: `sentences` is a string itself.
        """
        if isinstance(sentences, str):
            raise UserError("sentences is a string; give a list of strings")
        if batch_tokens is None:
            batch_tokens = best_batch_tokens()
        vectors = np.empty((len(sentences), self.width), np.float32)

        def collect(encoded: list[tuple[Batch, Array]]) -> None:
            for batch, features in encoded:
                vectors[batch.rows] = np.asarray(features)[: len(batch.rows)]

        running: list[tuple[Batch, Array]] = []
        count = len(sentences)
        starts = range(0, count, CHUNK)
        for first in told(starts, lambda first: min(CHUNK, count - first), count, "sentences"):
            chunk = self._batches(sentences[first : first + CHUNK], first, batch_tokens)
            started = [(batch, self._embed(batch.ids, batch.lengths)) for batch in chunk]
            collect(running)
            running = started
        collect(running)
        return vectors

    def save(self, folder: str | Path) -> None:
        """Writes a folder that `load` and sentence-transformers open."""
        write_sentence_weights(folder, self)

    @property
    def width(self) -> int:
        """Numbers in a vector."""
        width: int = self.encoder.width
        if self.projections:
            width = self.projections[-1].kernel.shape[1]
        return width

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """Cuts at `max_length` and pads nothing, whatever its file says."""
        file = self.tokenizer_files["tokenizer.json"]
        return prepared(file, self.max_length, lower_case=self.lower_case)

    def _batches(self, texts: Sequence[str], first: int, batch_tokens: int) -> Iterator[Batch]:
        """Batches from the longest sentence to the shortest; only the last one is not full."""
        tokens = list(token_ids(self.tokenizer, [self.prompt + text for text in texts]))
        for batch in sorted_batches(tokens, self.max_length, batch_tokens, self.encoder.pad_id):
            yield batch._replace(rows=first + batch.rows)

    def _embed(self, ids: NumpyArray, lengths: NumpyArray) -> Array:
        activations = tuple(projection.activation for projection in self.projections)
        features: Array = _embed(
            self.encoder, activations, self.normalise, self._arrays, ids, lengths
        )
        return features

    @cached_property
    def _arrays(self) -> PyTree:
        """The weights, on the device once."""
        layers = [(projection.kernel, projection.bias) for projection in self.projections]
        return jax.device_put((self.variables["params"], layers))


def load(folder: str | Path) -> SentenceModel:
    """The model in a folder of sentence-transformers: BERT, MiniLM, RoBERTa or MPNet.

    Nothing is downloaded and no code of the folder runs.

    Raises:
      UserError: a file is absent or damaged, or the folder has parts that are not supported.
    """
    return SentenceModel(**vars(read_sentence_weights(folder)))


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "tanh": jnp.tanh,
    "relu": jax.nn.relu,
    "none": lambda x: x,
}


@partial(jax.jit, static_argnums=(0, 1, 2))
def _embed(
    encoder: BERT,
    activations: tuple[str, ...],
    normalise: bool,
    arrays: PyTree,
    ids: Int[Array, "n t"],
    lengths: Int[Array, "n"],
) -> Float[Array, "n d"]:
    """Encoder, linear layers, normalisation."""
    params, layers = arrays
    x = {"ids": ids, "mask": jnp.arange(ids.shape[1]) < lengths[:, None]}
    features: Array = forward(encoder, params, {}, x, train=False)[0]["features"]
    for (kernel, bias), activation in zip(layers, activations, strict=True):
        features = features @ kernel + (0 if bias is None else bias)
        features = ACTIVATIONS[activation](features)
    if normalise:
        norms = jnp.linalg.norm(features, axis=1, keepdims=True)
        features = features / jnp.maximum(norms, 1e-12)
    return features
