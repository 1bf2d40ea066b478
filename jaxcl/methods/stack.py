"""Modules one after another, by name: an encoder, a projector, perhaps a predictor.

    views -> encoder -> [n, v, d] -> projector -> [n, v, k] -> ...

Views that go in together share one batch norm; a method that wants them apart calls twice, or asks
for `apart`. Views of different sizes go through the first module size by size, and through the rest
all together.
"""

from collections.abc import Iterator
from itertools import groupby

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import linen as nn

from jaxcl.encoders import forward, in_chunks, initialise, per_chunk
from jaxcl.typing import Array, Float, Int, Key, PyTree


class Stack:
    """Named modules, each of which takes the features of the one before it.

    Args:
      chunks: encode the rows in this many parts to save memory.
      apart: every view goes through all modules by itself, with its own batch statistics, one after
        the other.
      modules: the first takes images, the others rows.
    """

    def __init__(self, chunks: int = 1, apart: bool = False, /, **modules: nn.Module) -> None:
        self.chunks, self.apart, self.modules = chunks, apart, modules

    def init(self, key: Key, views: tuple[Array, ...]) -> tuple[PyTree, PyTree]:
        """Parameters and batch statistics by name, for such views."""
        x, params, stats = views[0][:1], {}, {}
        keys = jax.random.split(key, len(self.modules))
        for (name, module), own in zip(self.modules.items(), keys, strict=True):
            params[name], stats[name] = initialise(module, own, x)
            x = forward(module, params[name], stats[name], x, train=False)[0]["features"]
        return params, stats

    def __call__(
        self,
        params: PyTree,
        stats: PyTree,
        views: tuple[Float[Array, "n ..."], ...],
        *,
        train: bool = True,
        key: Key | None = None,
    ) -> tuple[dict[str, Float[Array, "n v d"]], PyTree]:
        """What every module gives, by name, and the statistics of all after it.

        Args:
          params: by name; names of other modules are passed over.
          stats: by name, likewise; returned without those.
          views: one array per view, row i of each from example i.
          train: batch norm by the batch's own statistics, dropout where there is a key.
          key: of dropout; every chunk and module draws its own.
        """
        groups = [[view] for view in views] if self.apart else _by_size(views)
        sizes = [jnp.stack(group, axis=1) for group in groups]
        rows = jnp.arange(len(views[0]))

        def encode(part: tuple[list[Array], Array]) -> tuple[dict[str, Array], PyTree]:
            return self._run(params, stats, *part, train, key)

        return in_chunks(encode, (sizes, rows), self.chunks)

    def _run(
        self,
        params: PyTree,
        stats: PyTree,
        sizes: list[Float[Array, "n v ..."]],
        rows: Int[Array, "n"],
        train: bool,
        key: Key | None,
    ) -> tuple[dict[str, Array], PyTree]:
        key = None if key is None else jax.random.fold_in(key, rows[0])
        outputs, after, x = {}, {}, sizes
        for name, module in self.modules.items():
            module, after[name], made = per_chunk(module, self.chunks), stats[name], []
            for part in x:
                key, own = (None, None) if key is None else jax.random.split(key)
                flat = rearrange(part, "n v ... -> (n v) ...")
                found, after[name] = forward(
                    module, params[name], after[name], flat, train=train, key=own
                )
                made.append(rearrange(found["features"], "(n v) d -> n v d", n=len(rows)))
            outputs[name] = jnp.concatenate(made, axis=1)
            x = made if self.apart else [outputs[name]]
        return outputs, after


def _by_size(views: tuple[Array, ...]) -> Iterator[list[Array]]:
    """Neighbouring views of one shape together, in order."""
    for _, group in groupby(views, key=lambda view: view.shape):
        yield list(group)
