"""Which example stands where in which batch: a function of seed and step, and of nothing else."""

from functools import lru_cache

import numpy as np

from jaxcl.errors import UserError
from jaxcl.typing import Float, Int, NumpyArray

_ORDER, _CROPS = 0x6F72646572, 0x63726F7073  # keep the two streams of numbers apart
_WORD = 2**64 - 1


def steps_per_epoch(n: int, batch_size: int, unit: str = "images") -> int:
    """Whole batches in a pass over `n` examples; the examples left over wait for another epoch.

    Raises:
      UserError: there are fewer examples than one batch holds.
    """
    if batch_size < 1:
        raise UserError(f"data.batch_size={batch_size} holds nothing; use 1 or more")
    if n < batch_size:
        raise UserError(
            f"data.batch_size={batch_size} is more than the {n} training {unit}; use at most {n}"
        )
    return n // batch_size


def random_bits(n: int, key: tuple[int, int], counter: tuple[int, ...]) -> NumpyArray:
    """[n] uint64 from Philox, whose raw output NumPy keeps the same in every version."""
    words = [[part & _WORD for part in parts] for parts in (key, counter)]
    bits: NumpyArray = np.random.Philox(key=words[0], counter=words[1]).random_raw(n)
    return bits


def shuffled(n: int, key: tuple[int, int], counter: tuple[int, ...]) -> Int[NumpyArray, "n"]:
    """[n] int32, a permutation of 0 .. n-1 drawn with the generator so keyed."""
    return np.argsort(random_bits(n, key, counter), kind="stable").astype(np.int32)


@lru_cache(maxsize=4)
def epoch_order(seed: int, epoch: int, n: int) -> Int[NumpyArray, "n"]:
    """The order in which epoch number `epoch` goes through `n` examples.

    Returns:
      [n] int32, a permutation of 0 .. n-1; read-only, since it is shared.
    """
    order = shuffled(n, key=(seed, _ORDER), counter=(0, 0, 0, epoch))
    order.flags.writeable = False
    return order


def batch_indices(seed: int, step: int, n: int, batch_size: int) -> Int[NumpyArray, "batch_size"]:
    """The examples of the global batch of step number `step`, counted from 0 over all epochs.

    Raises:
      UserError: there are fewer examples than one batch holds.
    """
    epoch, within = divmod(step, steps_per_epoch(n, batch_size))
    return epoch_order(seed, epoch, n)[within * batch_size : (within + 1) * batch_size]


def crop_uniforms(
    seed: int, step: int, place: int, views: int, draws: int
) -> Float[NumpyArray, "views draws"]:
    """Numbers in [0, 1) that choose the host's crops for one row of the global batch.

    Args:
      seed: of the run.
      step: number of the step.
      place: row in the global batch.
      views: how many crops the row needs.
      draws: how many numbers a crop needs.
    """
    bits = random_bits(views * draws, key=(seed, _CROPS), counter=(0, place, step, 0))
    return (bits >> np.uint64(11)).reshape(views, draws) * 2.0**-53
