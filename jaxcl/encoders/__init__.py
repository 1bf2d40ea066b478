"""Encoders and heads: Linen modules whose `apply(variables, x, train)` returns named outputs."""

from jaxcl.encoders.apply import forward, in_chunks, initialise, per_chunk
from jaxcl.encoders.bert import BERT
from jaxcl.encoders.mlp import MLP
from jaxcl.encoders.norm import BatchNorm
from jaxcl.encoders.pooling import masked_mean, pool
from jaxcl.encoders.resnet import ResNet

__all__ = [
    "BERT",
    "MLP",
    "BatchNorm",
    "ResNet",
    "forward",
    "in_chunks",
    "initialise",
    "masked_mean",
    "per_chunk",
    "pool",
]
