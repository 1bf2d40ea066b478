"""Batch normalisation over the global batch, or over contiguous groups of it."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxcl.scale import platform
from jaxcl.typing import Array, Bool, Float

MANY_PIXELS = 4096
"""Pixels of a group from which on its map is read once for its statistics."""


class BatchNorm(nn.Module):
    """Normalises each channel by the statistics of the batch; by running ones at inference.

    Under `jit` the batch is the global one, however many devices hold it. With `groups=g` each
    contiguous g-th of the rows has statistics of its own, as on g devices without
    synchronisation; the running statistics then take the mean over the groups.

    Running statistics are the biased ones, as in Flax and TensorFlow.

    The variance is the mean square of what is left once the mean is taken off, in float32. Maps of
    16 bits or of many pixels are read once instead, for the mean square about the running mean,
    less the square of what the two means differ by: TPUs take both sums inside the convolution that
    makes the map, and on CPU a second reading costs a twentieth of a ResNet's time. It loses
    (difference / deviation)^2 parts in 2^24: for 16 bits less than their own rounding did, for
    others little once the running mean has come near.
    """

    groups: int = 1
    momentum: float = 0.9
    """Share of the running statistics that is kept at each step."""
    epsilon: float = 1e-5
    use_scale: bool = True
    use_bias: bool = True
    scale_init: float = 1.0
    dtype: str = "float32"
    """Type of the output; statistics are float32 always."""

    @nn.compact
    def __call__(
        self, x: Float[Array, "n ... c"], train: bool, mask: Bool[Array, "n ..."] | None = None
    ) -> Float[Array, "n ... c"]:
        """[n, ..., c] in, the same out.

        Args:
          x: [n, ..., c].
          train: by the batch's statistics, which then enter the running ones.
          mask: [n, ...] what counts in the statistics; the rest, padding, is normalised by them.
            A group of padding alone leaves the running statistics as they are. None: all counts.

        Raises:
          ValueError: training rows do not split into the groups.
        """
        channels = x.shape[-1]
        # On CPU pixels are rows, which takes a fifth less of a ResNet-50's time. Elsewhere their
        # axes stay, whose order in memory is the compiler's choice: made to turn them into rows,
        # that of TPUs (libtpu 0.0.42, 0.0.50) runs out of fast memory in a ResNet's first stage.
        inner = (channels,) if platform() == "cpu" else x.shape[1:]
        zeros, ones = (channels,), (channels,)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, zeros, jnp.float32)
        running_var = self.variable("batch_stats", "var", jnp.ones, ones, jnp.float32)
        if train:
            if len(x) % self.groups:
                raise ValueError(f"{len(x)} rows do not split into groups={self.groups}")
            # No axis for one group: XLA of jax 0.10 sums [1, n, c] a hundred times slower on CPU.
            apart = (self.groups, -1) if self.groups > 1 else (-1,)
            rows = x.reshape(*apart, *inner).astype(jnp.float32)
            counts = None if mask is None else mask.reshape(*rows.shape[:-1], 1)
            over = tuple(range(len(apart) - 1, rows.ndim - 1))
            mean = _mean(rows, counts, over)  # [g, c], or [c]
            many = x.size // (channels * self.groups) >= MANY_PIXELS
            once = x.ndim > 2 and (many or x.dtype == jnp.bfloat16)
            var = _variance(rows, counts, mean, running_mean.value if once else None, over)
            if not self.is_initializing():
                filled = None if counts is None else jnp.any(counts, axis=over)  # [g, 1], or [1]
                self._keep(running_mean, mean, filled)
                self._keep(running_var, var, filled)
        else:
            mean, var = running_mean.value, running_var.value
        factor = jax.lax.rsqrt(var + self.epsilon)
        if self.use_scale:
            init = nn.initializers.constant(self.scale_init)
            factor = factor * self.param("scale", init, (channels,), jnp.float32)
        offset = -mean * factor
        if self.use_bias:
            offset = offset + self.param("bias", nn.initializers.zeros, (channels,), jnp.float32)
        grouped = x.reshape(*factor.shape[:-1], -1, *inner).astype(jnp.float32)
        factor, offset = (
            z.reshape(*z.shape[:-1], *[1] * len(inner), channels) for z in (factor, offset)
        )
        return (grouped * factor + offset).reshape(x.shape).astype(self.dtype)

    def _keep(
        self, running: Any, value: Float[Array, "... c"], filled: Bool[Array, "... 1"] | None
    ) -> None:
        fresh = value
        if value.ndim == 2:
            fresh = _mean(value, filled, 0)
        kept = self.momentum * running.value + (1 - self.momentum) * fresh
        running.value = kept if filled is None else jnp.where(jnp.any(filled), kept, running.value)


def _mean(
    x: Float[Array, "... c"], counts: Bool[Array, "... 1"] | None, over: int | tuple[int, ...]
) -> Array:
    """Mean along some axes of what counts; 0 where nothing does."""
    if counts is None:
        return jnp.mean(x, axis=over)
    total = jnp.sum(jnp.where(counts, x, 0), axis=over)
    return total / jnp.maximum(jnp.sum(counts, axis=over), 1)


@partial(jax.custom_jvp, nondiff_argnums=(4,))
def _variance(
    rows: Float[Array, "... c"],
    counts: Bool[Array, "... 1"] | None,
    mean: Float[Array, "... c"],
    shift: Float[Array, " c"] | None,
    over: tuple[int, ...],
) -> Float[Array, "... c"]:
    """Variance along some axes of what counts: in one reading about `shift`, or about the mean."""
    if shift is None:
        return _mean(jnp.square(rows - jnp.expand_dims(mean, over)), counts, over)
    square = _mean(jnp.square(rows - shift), counts, over)
    return jnp.maximum(square - jnp.square(mean - shift), 0.0)


@_variance.defjvp
def _variance_jvp(over: tuple[int, ...], primals: Any, tangents: Any) -> tuple[Array, Array]:
    """The mean's own share is zero: deviations sum to nothing.

    Of the rows themselves, not of their deviations, which would be kept for the gradient beside
    them: the memory of one more map a layer.
    """
    rows, counts, mean, _ = primals
    change = tangents[0]
    product = _mean(rows * change, counts, over) - mean * _mean(change, counts, over)
    return _variance(*primals, over), 2 * product
