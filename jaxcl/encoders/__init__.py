"""Encoders and heads: Linen modules whose `apply(variables, x, train)` returns named outputs."""

from jaxcl.encoders.apply import forward, in_chunks, initialise, per_chunk, spread
from jaxcl.encoders.bert import BERT
from jaxcl.encoders.convnet import ConvNet
from jaxcl.encoders.gin import GIN
from jaxcl.encoders.heads import AttentionPool, DINOHead, MeanQueryPool, Prototypes, unit_columns
from jaxcl.encoders.mlp import MLP, first_layers
from jaxcl.encoders.norm import BatchNorm
from jaxcl.encoders.pooling import masked_mean, pool
from jaxcl.encoders.resnet import ResNet, apply_stage, simclr_v2_resnet
from jaxcl.encoders.t5 import T5
from jaxcl.encoders.text_tower import TextTower
from jaxcl.encoders.vit import ViT, vit

__all__ = [
    "BERT",
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
    "ViT",
    "apply_stage",
    "first_layers",
    "forward",
    "in_chunks",
    "initialise",
    "masked_mean",
    "per_chunk",
    "pool",
    "simclr_v2_resnet",
    "spread",
    "unit_columns",
    "vit",
]
