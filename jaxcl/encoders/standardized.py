"""Layers whose kernels are used with mean 0 and deviation 1 for each output channel.

Reference: Qiao et al. 2019, arXiv:1903.10520.
"""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from jaxcl.encoders.pointwise import Pointwise


class _Standardized:
    def param(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """A parameter as the layer uses it; what is stored of a kernel is not standardised."""
        value = super().param(name, *args, **kwargs)  # type: ignore[misc]
        if name != "kernel":
            return value
        inputs = tuple(range(value.ndim - 1))
        mean, deviation = jnp.mean(value, axis=inputs), jnp.std(value, axis=inputs)
        return (value - mean) / (deviation + 1e-5)


class StandardizedConv(_Standardized, nn.Conv):
    """Convolution with a standardised kernel."""


class StandardizedPointwise(_Standardized, Pointwise):
    """1x1 convolution with a standardised kernel."""


class StandardizedDense(_Standardized, nn.Dense):
    """Linear layer with a standardised kernel."""
