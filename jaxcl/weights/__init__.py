"""Checkpoints of other libraries, in and out; loading runs no code that they hold."""

from jaxcl.weights.bert import read_bert, write_bert
from jaxcl.weights.clip import ImageText, read_clip, write_clip
from jaxcl.weights.files import read_tensors, write_tensors
from jaxcl.weights.pretrained import LAYOUTS, Pretrained, load_encoder, save_encoder
from jaxcl.weights.sentence_transformers import (
    SentenceWeights,
    read_sentence_weights,
    write_sentence_weights,
)
from jaxcl.weights.t5 import read_t5, write_t5
from jaxcl.weights.text_towers import (
    read_clip_text,
    read_siglip_text,
    write_clip_text,
    write_siglip_text,
)

__all__ = [
    "LAYOUTS",
    "ImageText",
    "Pretrained",
    "SentenceWeights",
    "load_encoder",
    "read_bert",
    "read_clip",
    "read_clip_text",
    "read_sentence_weights",
    "read_siglip_text",
    "read_t5",
    "read_tensors",
    "save_encoder",
    "write_bert",
    "write_clip",
    "write_clip_text",
    "write_sentence_weights",
    "write_siglip_text",
    "write_t5",
    "write_tensors",
]
