"""Ranges of an experiment's numbers, by the names that these have in every method.

A name means the same thing everywhere, so a new method's fields are checked without its doing.
"""

import dataclasses
import math
from typing import Any

from jaxcl.errors import UserError

ABOVE_ZERO = (
    "temperature", "teacher_temperature", "first_teacher_temperature", "epsilon", "eps", "scale",
    "trust", "iterations", "neighbours", "bank", "queries", "classes", "chunks",
)  # fmt: skip
FROM_ZERO = (
    "lr", "warmup_epochs", "warmup_from", "final", "weight_decay", "final_weight_decay", "clip",
    "clip_each", "drop_by", "queue", "queue_epoch", "freeze_epochs", "frozen_epochs",
    "temperature_epochs", "keep_layers", "start_step", "every", "every_steps",
)  # fmt: skip
SHARES = ("momentum", "final_momentum", "centre_momentum", "alpha")
"""0 to 1."""
PARTS = ("b1", "b2", "average")
"""0 up to 1, which is none of them."""


def check_ranges(section: str, value: Any) -> None:
    """Raises `UserError` for the first number of a dataclass that is outside its range.

    Args:
      section: how options name the dataclass, "method".
      value: the dataclass; its own fields are checked, not those of what it is made of.
    """
    for field in dataclasses.fields(value):
        number = getattr(value, field.name)
        if isinstance(number, bool) or not isinstance(number, int | float):
            continue
        key = f"{section}.{field.name}={number:g}"
        if not math.isfinite(number):
            raise UserError(f"{key} is no number to work with")
        if field.name in ABOVE_ZERO and not number > 0:
            least = "1 or more" if isinstance(number, int) else "a number above 0"
            raise UserError(f"{key}; use {least}")
        if field.name in FROM_ZERO and number < 0:
            raise UserError(f"{key} is below zero; use 0 or more")
        if field.name in SHARES and not 0 <= number <= 1:
            raise UserError(f"{key} is no share; use 0 to 1")
        if field.name in PARTS and not 0 <= number < 1:
            raise UserError(f"{key} is no share below 1; use 0 up to 0.999")
