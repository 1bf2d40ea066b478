"""How far a run is, and the schedules that methods make of it."""

from typing import NamedTuple

import jax.numpy as jnp

from jaxcl.typing import Array, Float, Int


class Progress(NamedTuple):
    """Where a run stands."""

    step: Int[Array, ""] | int
    """Steps taken."""
    total: int
    """Steps of the whole run."""
    per_epoch: int
    """Steps of one epoch."""

    @property
    def epoch(self) -> Int[Array, ""]:
        """Epochs that are over."""
        return jnp.asarray(self.step) // self.per_epoch


def cosine(progress: Progress, start: float, end: float) -> Float[Array, ""]:
    """From `start` at the first step to `end` after the last one, along half a cosine.

    With `start=0.996, end=1` it is the momentum of BYOL's slow network.

    Reference: Grill et al. 2020, arXiv:2006.07733, section 3.2.
    """
    share = jnp.minimum(progress.step / progress.total, 1.0)
    return end - (end - start) * (1 + jnp.cos(jnp.pi * share)) / 2


def ramp(progress: Progress, start: float, end: float, epochs: int) -> Float[Array, ""]:
    """From `start` in the first epoch in equal steps to `end` in the last of `epochs`; then `end`.

    Constant within an epoch: np.linspace(start, end, epochs)[epoch], DINO's teacher temperature.

    Reference: Caron et al. 2021, arXiv:2104.14294, and its code.
    """
    if not epochs:
        return jnp.asarray(end, jnp.float32)
    share = jnp.minimum(progress.epoch / max(epochs - 1, 1), 1.0)
    return start + (end - start) * share
