"""Encoders and losses compiled as a whole: op by op, each operation would be compiled alone."""

from collections.abc import Callable
from functools import lru_cache, partial
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np

import jaxcl.losses
from jaxcl import encoders


@partial(jax.jit, static_argnums=0)
def initialise(encoder, key, x):
    return encoders.initialise(encoder, key, x)


@partial(jax.jit, static_argnums=0, static_argnames="train")
def forward(encoder, params, stats, x, *, train, key=None):
    return encoders.forward(encoder, params, stats, x, train=train, key=key)


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` under `jit`; options and plain numbers are constants of the program."""

    @lru_cache
    def program(numbers: tuple[Any, ...], **options: Any) -> Callable[..., Any]:
        return jax.jit(lambda *arrays, **traced: function(*arrays, *numbers, **options, **traced))

    def call(*given: Any, **options: Any) -> Any:
        numbers = tuple(x for x in given if isinstance(x, int | float))  # they come last
        traced = {n: o for n, o in options.items() if isinstance(o, jax.Array | np.ndarray)}
        constants = {name: o for name, o in options.items() if name not in traced}
        return program(numbers, **constants)(*given[: len(given) - len(numbers)], **traced)

    return call


losses = SimpleNamespace()
"""The functions of `jaxcl.losses`."""
for name in jaxcl.losses.__all__:
    if name.islower():
        setattr(losses, name, compiled(getattr(jaxcl.losses, name)))
