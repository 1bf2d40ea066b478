"""Recipes: which views are made of an image, and how an image looks when nothing is random."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from jaxcl.augment.geometry import Interpolation, RandomResizedCrop, center_crop
from jaxcl.augment.op import Op, join, settle, split
from jaxcl.errors import UserError
from jaxcl.typing import Array, Float, Key, UInt8


@dataclass(frozen=True)
class View:
    """One kind of view: a crop, then operations in order."""

    crop: RandomResizedCrop | None
    """What is cut out and how large it becomes; None takes the whole image as it is."""
    ops: tuple[Op, ...] = ()
    """What happens to it, in this order."""
    copies: int = 1
    """How many independent views of this kind are made."""


@dataclass(frozen=True)
class Recipe:
    """The views a method sees, as a value.

    `recipe(keys, images)` is a pure function of both: independent draws per view, operation and
    image, no operation across rows, so a batch may lie on many devices.
    """

    views: tuple[View, ...]
    """Kinds of views, in order."""
    size: int
    """Side, in pixels, of the images that inference sees."""
    mean: tuple[float, ...] | None = None
    """Subtracted per channel at the end, on the scale 0 to 1; None leaves [0, 1]."""
    std: tuple[float, ...] | None = None
    """Divided by per channel at the end."""
    inference_crop: float = 1.0
    """Side of the central square that inference sees, as a share of the shorter side."""
    inference_interpolation: Interpolation = "bilinear"
    """Kernel by which inference resizes that square: bilinear or bicubic with antialias, or
    tf_bicubic without."""

    def __post_init__(self) -> None:
        if (self.mean is None) != (self.std is None):
            raise UserError(f"recipe.mean={self.mean} and std={self.std}; give both or neither")
        if not 0 < self.inference_crop <= 1:
            raise UserError(
                f"recipe.inference_crop={self.inference_crop} is out of range; give 0 < share <= 1"
            )

    def _expanded(self) -> tuple[View, ...]:
        return tuple(view for view in self.views for _ in range(view.copies))

    @property
    def count(self) -> int:
        """Number of views, copies included."""
        return len(self._expanded())

    @property
    def crops(self) -> tuple[RandomResizedCrop | None, ...]:
        """What to cut for each view; None where the whole image goes in."""
        return tuple(view.crop for view in self._expanded())

    @property
    def sizes(self) -> tuple[int, ...]:
        """Side of each view in pixels."""
        return tuple(crop.size if crop else self.size for crop in self.crops)

    def __call__(
        self, keys: Key, images: UInt8[Array, "n h w c"]
    ) -> tuple[Float[Array, "n s s c"], ...]:
        """Make every view of every image.

        Args:
          keys: [n] typed keys, one per image.
          images: [n, h, w, c] uint8.

        Returns:
          One float32 [n, s, s, c] per view, normalised if the recipe says so.
        """
        return self._make(keys, (images,) * self.count, cut=False)

    def finish(
        self, keys: Key, crops: tuple[UInt8[Array, "n s s c"], ...]
    ) -> tuple[Float[Array, "n s s c"], ...]:
        """All but the crop: for crops cut and resized on the host, one array per view.

        The operations draw what they would draw from the same keys after a crop on the device.
        """
        if len(crops) != self.count:
            raise UserError(f"got {len(crops)} crops for a recipe of {self.count} views")
        return self._make(keys, crops, cut=True)

    def plain(self, images: UInt8[Array, "n h w c"]) -> Float[Array, "n s s c"]:
        """What inference sees: the central square, resized and normalised; nothing random."""

        def one(image: Array) -> Array:
            square = center_crop(
                image, self.size, self.inference_crop, self.inference_interpolation
            )
            return self._normalize(square)

        return jax.vmap(one)(_unit(images))

    def unnormalize(self, views: Float[Array, "... c"]) -> Float[Array, "... c"]:
        """Back to [0, 1], for pictures."""
        if self.mean is not None:
            views = views * jnp.array(self.std, views.dtype) + jnp.array(self.mean, views.dtype)
        return jnp.clip(views, 0.0, 1.0)

    def _make(self, keys: Key, sources: tuple[Array, ...], *, cut: bool) -> tuple[Array, ...]:
        views = self._expanded()
        # One key per crop and operation, all from one call: calls cost more than keys.
        count = sum(1 + len(view.ops) for view in views)
        waiting = iter(jax.vmap(lambda key: jax.random.split(key, count), out_axes=1)(keys))

        made = []
        triples = zip(views, sources, self.sizes, strict=True)
        for index, (view, source, side) in enumerate(triples):
            got = source.shape[1:3]
            if (view.crop is None or cut) and got != (side, side):
                raise UserError(
                    f"view {index} takes images of {side}x{side} whole and got {got[0]}x{got[1]}; "
                    f"resize the data or give the view a crop"
                )
            crop_keys = next(waiting)
            if view.crop is None or cut:
                images = _unit(source)
            else:
                images = jax.vmap(view.crop)(crop_keys, source)
            for op in view.ops:
                images = jax.vmap(op)(next(waiting), images)
            made.append(jax.vmap(self._normalize)(images))
        return tuple(made)

    def _normalize(self, image: Float[Array, "h w c"]) -> Float[Array, "h w c"]:
        planes = [settle(plane) for plane in split(image)]
        if self.mean is not None and self.std is not None:
            if len(planes) != len(self.mean):
                raise UserError(
                    f"recipe.mean has {len(self.mean)} numbers for images of {len(planes)} "
                    f"channels; give one per channel or None"
                )
            scales = zip(planes, self.mean, self.std, strict=True)
            planes = [(plane - mean) * (1 / std) for plane, mean, std in scales]
        return join(planes)


def _unit(images: UInt8[Array, "n h w c"]) -> Float[Array, "n h w c"]:
    return jnp.asarray(images, jnp.float32) * (1 / 255)
