"""Example order: permutations, functions of seed and epoch alone, the same on every machine."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxcl.data.order import batch_indices, crop_uniforms, epoch_order, random_bits
from jaxcl.errors import UserError


@given(st.integers(0, 2**63), st.integers(0, 1000), st.integers(1, 300))
def test_each_epoch_shows_every_example_once(seed: int, epoch: int, n: int) -> None:
    assert sorted(epoch_order(seed, epoch, n)) == list(range(n))


def test_orders_differ_by_epoch_and_by_seed() -> None:
    orders = {tuple(epoch_order(seed, epoch, 100)) for seed in range(4) for epoch in range(4)}
    assert len(orders) == 16


def test_places_are_taken_evenly() -> None:
    """Over many epochs, an example comes first as often as any other."""
    n, epochs = 10, 4000
    first = np.bincount([epoch_order(7, epoch, n)[0] for epoch in range(epochs)], minlength=n)
    expected = epochs / n
    assert np.sum((first - expected) ** 2 / expected) < 27.9  # chi-square, 9 degrees, 1 in 1,000


def test_bits_are_those_that_philox_is_defined_to_give() -> None:
    """Known answers of the authors of Philox 4x64-10 (Random123, kat_vectors): zeros, then ones.

    NumPy counts up before it draws, so the counter stands one below.
    """
    ones = 2**64 - 1
    zeros = random_bits(4, (0, 0), (ones, ones, ones, ones))
    assert [hex(word) for word in zeros] == [
        "0x16554d9eca36314c",
        "0xdb20fe9d672d0fdc",
        "0xd7e772cee186176b",
        "0x7e68b68aec7ba23b",
    ]
    filled = random_bits(4, (ones, ones), (ones - 1, ones, ones, ones))
    assert [hex(word) for word in filled] == [
        "0x87b092c3013fe90b",
        "0x438c3c67be8d0224",
        "0x9cc7d7c69cd777b6",
        "0xa09caebf594f0ba0",
    ]


def test_batches_are_the_epochs_cut_in_pieces_without_the_rest() -> None:
    n, size = 23, 5
    for epoch in range(3):
        steps = range(epoch * 4, epoch * 4 + 4)
        seen = np.concatenate([batch_indices(1, step, n, size) for step in steps])
        np.testing.assert_array_equal(seen, epoch_order(1, epoch, n)[:20])


def test_a_batch_larger_than_the_set_is_refused() -> None:
    message = r"data\.batch_size=24 is more than the 23 training images; use at most 23"
    with pytest.raises(UserError, match=message):
        batch_indices(0, 0, 23, 24)
    with pytest.raises(UserError, match=r"data\.batch_size=0 holds nothing; use 1 or more"):
        batch_indices(0, 0, 23, 0)


def test_crop_numbers_differ_in_every_coordinate_and_are_uniform() -> None:
    wide = np.stack(
        [crop_uniforms(0, step, place, 2, 4) for step in range(50) for place in range(50)]
    )
    assert len(np.unique(wide)) == wide.size
    counts = np.histogram(wide, bins=20, range=(0, 1))[0]
    expected = wide.size / 20
    assert np.sum((counts - expected) ** 2 / expected) < 43.8  # 19 degrees, 1 in 1,000
    assert not np.array_equal(crop_uniforms(1, 0, 0, 2, 4), crop_uniforms(0, 0, 0, 2, 4))
    np.testing.assert_array_equal(crop_uniforms(3, 4, 5, 1, 22), crop_uniforms(3, 4, 5, 2, 22)[:1])
