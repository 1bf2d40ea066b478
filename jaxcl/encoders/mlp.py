"""Projection and prediction heads."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxcl.encoders.norm import BatchNorm
from jaxcl.encoders.standardized import StandardizedDense
from jaxcl.errors import UserError
from jaxcl.typing import Array, Float

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "relu": nn.relu,
    "gelu": partial(nn.gelu, approximate=False),
}
INITS = {
    "lecun": nn.initializers.lecun_normal(),
    "normal_0.01": nn.initializers.normal(0.01),
    "trunc_normal_0.02": nn.initializers.truncated_normal(0.02),
    "torch": nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform"),
    "zeros": nn.initializers.zeros,
}
"""Kernels at the start; "torch" is its default for linear layers, uniform(+-1/sqrt(fan in))."""


class MLP(nn.Module):
    """Linear layers with normalisation and activation between them.

    SimCLR's head is `MLP((0,), 128, final_norm="scale")`, its second version's
    `MLP((0, 0), 128, final_norm="scale")`; MoCo v2's `MLP((2048,), 128, norm="none", bias=True)`;
    BYOL's `MLP((4096,), 256, bias=True, out_bias=False)`.
    """

    hidden: tuple[int, ...] = (2048,)
    """Widths of the hidden layers; 0 means as wide as the input. Empty: one linear layer."""
    out: int = 128
    """Width of the output; 0: no last layer, the output is that of the last hidden one."""
    norm: Literal["batch", "group", "none"] = "batch"
    """After each hidden layer: batch, or group: 16 groups of channels, and every layer's kernel
    standardised, no statistics of batches."""
    final_norm: Literal["none", "affine", "scale", "plain"] = "none"
    """After the last layer: batch norm with scale and bias, with scale alone, or with neither."""
    bias: bool = False
    """Biases in the hidden layers."""
    out_bias: bool = False
    """Bias in the last layer."""
    activation: Literal["relu", "gelu"] = "relu"
    """After each hidden layer and its norm."""
    kernel_init: Literal["lecun", "normal_0.01", "trunc_normal_0.02", "torch", "zeros"] = "lecun"
    """Distribution of the kernels at the start."""
    groups: int = 1
    """Batch-norm statistics per contiguous groups-th of the rows; 1: the whole batch."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the computation; parameters and statistics stay float32."""

    @nn.compact
    def __call__(self, x: Float[Array, "n d"], train: bool) -> dict[str, Any]:
        """Rows [n, d] -> features [n, out], float32; hidden: what each hidden layer gave."""
        x = x.astype(self.dtype)
        hidden = []
        widths = [width or x.shape[-1] for width in self.hidden]
        for i, width in enumerate(widths, 1):
            x = self._linear(width, self.bias, f"linear{i}")(x)
            if self.norm == "batch":
                x = BatchNorm(groups=self.groups, dtype=self.dtype, name=f"norm{i}")(x, train)
            elif self.norm == "group":
                x = nn.GroupNorm(16, epsilon=1e-5, dtype=self.dtype, name=f"norm{i}")(x)
            x = ACTIVATIONS[self.activation](x)
            hidden.append(x)
        if self.out:
            x = self._linear(self.out, self.out_bias, "linear_out")(x)
        if self.final_norm != "none":
            x = BatchNorm(
                groups=self.groups,
                use_scale=self.final_norm in ("affine", "scale"),
                use_bias=self.final_norm == "affine",
                dtype=self.dtype,
                name="norm_out",
            )(x, train)
        return {"features": x.astype(jnp.float32), "hidden": tuple(hidden)}

    def _linear(self, width: int, bias: bool, name: str) -> nn.Dense:
        init: jax.nn.initializers.Initializer = INITS[self.kernel_init]
        make = StandardizedDense if self.norm == "group" else nn.Dense
        return make(width, use_bias=bias, dtype=self.dtype, kernel_init=init, name=name)


def first_layers(head: MLP, count: int) -> MLP | None:
    """The first layers of a head, by the same names; None for none of them.

    Args:
      head: all of it.
      count: how many: each with its norm and activation, but for the last, which has no activation.
        -1: all.

    Raises:
      UserError: the head has fewer.
    """
    layers = len(head.hidden) + 1
    if not -1 <= count <= layers:
        raise UserError(
            f"method.keep_layers={count}, and the head has {layers}; use -1 to {layers}"
        )
    if count in (-1, layers):
        return head.clone()
    kept: MLP = head.clone(hidden=head.hidden[:count], out=0, final_norm="none")
    return kept if count else None
