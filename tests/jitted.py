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
    """`function` under `jit`, with every option that is no array as a constant."""

    @lru_cache
    def program(**constants: Any) -> Callable[..., Any]:
        return jax.jit(partial(function, **constants))

    def call(*arrays: Any, **options: Any) -> Any:
        traced = {n: o for n, o in options.items() if isinstance(o, jax.Array | np.ndarray)}
        constants = {name: o for name, o in options.items() if name not in traced}
        return program(**constants)(*arrays, **traced)

    return call


losses = SimpleNamespace()
"""The functions of `jaxcl.losses`."""
for name in jaxcl.losses.__all__:
    if name.islower():
        setattr(losses, name, compiled(getattr(jaxcl.losses, name)))
