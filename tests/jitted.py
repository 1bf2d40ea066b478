"""Encoders compiled as a whole: op by op, each operation would be compiled alone."""

from functools import partial

import jax

from jaxcl import encoders


@partial(jax.jit, static_argnums=0)
def initialise(encoder, key, x):
    return encoders.initialise(encoder, key, x)


@partial(jax.jit, static_argnums=0, static_argnames="train")
def forward(encoder, params, stats, x, *, train, key=None):
    return encoders.forward(encoder, params, stats, x, train=train, key=key)
