"""Pure functions around Linen modules: parameters and batch statistics as two plain trees."""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.sharding import PartitionSpec

from jaxcl.scale import platform
from jaxcl.typing import Array, Key, PyTree

Encoded = TypeVar("Encoded")


def initialise(module: nn.Module, key: Key, x: PyTree) -> tuple[PyTree, PyTree]:
    """Parameters and batch statistics of `module` for inputs like `x`, whose rows may be few.

    `x` is an array, or a tree of arrays where the module takes named fields.
    """
    variables = module.init(key, x, train=False)
    return variables["params"], variables.get("batch_stats", {})


def forward(
    module: nn.Module,
    params: PyTree,
    stats: PyTree,
    x: PyTree,
    *,
    train: bool,
    key: Key | None = None,
) -> tuple[dict[str, Any], PyTree]:
    """Named outputs of `module` and the statistics after it; those change in training alone.

    `key` is that of dropout and of stochastic depth; modules with neither need none.
    """
    variables = {"params": params, "batch_stats": stats}
    outputs: Any
    if not train:
        outputs = module.apply(variables, x, train=False)
        return outputs, stats
    rngs = None if key is None else {"dropout": key}
    outputs, state = module.apply(variables, x, train=True, mutable=["batch_stats"], rngs=rngs)
    return outputs, state.get("batch_stats", {})


def per_chunk(module: nn.Module, chunks: int) -> nn.Module:
    """The module as it runs on one of `chunks` parts of the batch: fewer batch-norm groups."""
    if chunks == 1 or not hasattr(module, "groups"):
        return module
    return module.clone(groups=module.groups // chunks)


def in_chunks(
    encode: Callable[[PyTree], tuple[Encoded, PyTree]], x: PyTree, chunks: int
) -> tuple[Encoded, PyTree]:
    """`encode(x)` in `chunks` contiguous parts of its rows, one at a time, to save memory.

    Activations of a part are recomputed in the backward pass, so that the memory needed is that
    of one part and of the encoded rows.

    Args:
      encode: maps rows to (what they encode to, row by row; statistics of the batch).
      x: tree of arrays with the same number of leading rows, a multiple of `chunks`.
      chunks: number of parts.

    Returns:
      The encoded rows in order, and the mean of the parts' statistics.
    """
    if chunks == 1:
        return encode(x)
    parts = jax.tree.map(lambda rows: spread(rows.reshape(chunks, -1, *rows.shape[1:]), axis=1), x)
    step = jax.checkpoint(encode, prevent_cse=False)
    # On CPU the gradient of a convolution is many times slower inside a loop than unrolled.
    unroll = chunks if platform() == "cpu" else 1
    _, (encoded, stats) = jax.lax.scan(
        lambda carry, part: (carry, step(part)), None, parts, unroll=unroll
    )
    encoded = jax.tree.map(lambda rows: rows.reshape(-1, *rows.shape[2:]), encoded)
    return encoded, jax.tree.map(lambda stat: jnp.mean(stat, axis=0), stats)


def spread(x: Array, axis: int = 0) -> Array:
    """The same numbers with the rows along `axis` over all devices, as those of a batch are.

    Where rows have been reordered the compiler may else leave all of them on every device.
    """
    if jax.sharding.get_abstract_mesh().empty:
        return x
    apart: Array = jax.lax.with_sharding_constraint(x, PartitionSpec(*(None,) * axis, "data"))
    return apart
