"""Projection and prediction heads."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from jaxcl.encoders.norm import BatchNorm
from jaxcl.encoders.standardized import StandardizedDense
from jaxcl.errors import UserError
from jaxcl.similarity.rows import unit_rows
from jaxcl.typing import Array, Float, Key

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "relu": nn.relu,
    "gelu": partial(nn.gelu, approximate=False),
}
INITS = {
    "lecun": nn.initializers.lecun_normal(),
    "he": nn.initializers.variance_scaling(2.0, "fan_out", "normal"),
    "normal_0.01": nn.initializers.normal(0.01),
    "normal_0.02": nn.initializers.normal(0.02),
    "trunc_normal_0.02": nn.initializers.truncated_normal(0.02),
    "torch": nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform"),
    "zeros": nn.initializers.zeros,
}
"""Kernels at the start.

"torch" is its default for linear layers and convolutions, uniform(+-1/sqrt(fan in)). What torch's
`trunc_normal_(std=0.02)` draws is "normal_0.02": it cuts at +-2, a hundred deviations away.
"trunc_normal_0.02" cuts at two deviations. "lecun" is TensorFlow's VarianceScaling().
"""


def torch_bias(fan_in: int) -> Callable[..., Array]:
    """torch's default for biases, uniform(+-1/sqrt(fan in)) of the kernel's fan in."""

    def init(key: Key, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> Array:
        bound = fan_in**-0.5
        bias: Array = jax.random.uniform(key, shape, dtype, -bound, bound)
        return bias

    return init


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
    kernel_init: Literal[
        "lecun", "normal_0.01", "normal_0.02", "trunc_normal_0.02", "torch", "zeros"
    ] = "lecun"
    """Distribution of the kernels at the start; with torch that of the biases is torch's too, else
    they start at 0."""
    unit_inputs: bool = False
    """Scale each input row to length 1 first."""
    groups: int = 1
    """Batch-norm statistics per contiguous groups-th of the rows; 1: the whole batch."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the computation; parameters and statistics stay float32."""

    @nn.compact
    def __call__(self, x: Float[Array, "n d"], train: bool) -> dict[str, Any]:
        """Rows [n, d] -> features [n, out], float32; hidden: what each hidden layer gave."""
        x = (unit_rows(x.astype(jnp.float32)) if self.unit_inputs else x).astype(self.dtype)
        hidden = []
        widths = [width or x.shape[-1] for width in self.hidden]
        for i, width in enumerate(widths, 1):
            x = self._linear(x, width, self.bias, f"linear{i}")
            if self.norm == "batch":
                x = BatchNorm(groups=self.groups, dtype=self.dtype, name=f"norm{i}")(x, train)
            elif self.norm == "group":
                x = nn.GroupNorm(16, epsilon=1e-5, dtype=self.dtype, name=f"norm{i}")(x)
            x = ACTIVATIONS[self.activation](x)
            hidden.append(x)
        if self.out:
            x = self._linear(x, self.out, self.out_bias, "linear_out")
        if self.final_norm != "none":
            x = BatchNorm(
                groups=self.groups,
                use_scale=self.final_norm in ("affine", "scale"),
                use_bias=self.final_norm == "affine",
                dtype=self.dtype,
                name="norm_out",
            )(x, train)
        return {"features": x.astype(jnp.float32), "hidden": tuple(hidden)}

    def _linear(self, x: Float[Array, "n d"], width: int, bias: bool, name: str) -> Array:
        make = StandardizedDense if self.norm == "group" else nn.Dense
        torch = self.kernel_init == "torch"
        y: Array = make(
            width,
            use_bias=bias,
            dtype=self.dtype,
            kernel_init=INITS[self.kernel_init],
            bias_init=torch_bias(x.shape[-1]) if torch else nn.initializers.zeros,
            name=name,
        )(x)
        return y


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
