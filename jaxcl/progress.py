"""Signs of life of work that may take minutes."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")

QUIET_S = 15.0
"""Seconds after which work says how far it has come."""


def told(
    items: Iterable[Item], size: Callable[[Item], int], total: int, unit: str
) -> Iterator[Item]:
    """The items, with a line on standard error now and then: "  12,000 of 50,000 images".

    Args:
      items: parts of the work.
      size: how many units a part has.
      total: units of all parts.
      unit: what the line calls them.
    """
    done, last = 0, time.monotonic()
    for item in items:
        yield item
        done += size(item)
        if time.monotonic() - last >= QUIET_S:
            print(f"  {done:,} of {total:,} {unit}", file=sys.stderr, flush=True)
            last = time.monotonic()


def step(name: str) -> None:
    """The name of a part that begins, on the line of the work that it belongs to."""
    print(f" {name} ...", end="", flush=True)
