"""Encoders and heads: Linen modules whose `apply(variables, x, train)` returns named outputs."""

from jaxcl.encoders.apply import forward, in_chunks, initialise, per_chunk
from jaxcl.encoders.mlp import MLP
from jaxcl.encoders.norm import BatchNorm
from jaxcl.encoders.resnet import ResNet, apply_stage, simclr_v2_resnet
from jaxcl.encoders.vit import ViT, vit

__all__ = [
    "MLP",
    "BatchNorm",
    "ResNet",
    "ViT",
    "apply_stage",
    "forward",
    "in_chunks",
    "initialise",
    "per_chunk",
    "simclr_v2_resnet",
    "vit",
]
