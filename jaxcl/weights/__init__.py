"""Checkpoints of other libraries, in and out."""

from jaxcl.weights.bert import read_bert, write_bert
from jaxcl.weights.sentence_transformers import (
    SentenceWeights,
    read_sentence_weights,
    write_sentence_weights,
)

__all__ = [
    "SentenceWeights",
    "read_bert",
    "read_sentence_weights",
    "write_bert",
    "write_sentence_weights",
]
