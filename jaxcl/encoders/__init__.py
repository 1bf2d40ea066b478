"""Encoders and heads: Linen modules whose `apply(variables, x, train)` returns named outputs."""

from jaxcl.encoders.apply import forward, in_chunks, initialise, per_chunk
from jaxcl.encoders.convnet import ConvNet
from jaxcl.encoders.gin import GIN
from jaxcl.encoders.heads import AttentionPool, DINOHead, MeanQueryPool, Prototypes, unit_columns
from jaxcl.encoders.mlp import MLP
from jaxcl.encoders.norm import BatchNorm
from jaxcl.encoders.resnet import ResNet
from jaxcl.encoders.t5 import T5
from jaxcl.encoders.text_tower import TextTower

__all__ = [
    "GIN",
    "MLP",
    "T5",
    "AttentionPool",
    "BatchNorm",
    "ConvNet",
    "DINOHead",
    "MeanQueryPool",
    "Prototypes",
    "ResNet",
    "TextTower",
    "forward",
    "in_chunks",
    "initialise",
    "per_chunk",
    "unit_columns",
]
