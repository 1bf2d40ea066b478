"""Operations on colour: the jitter in both of its meanings, grey, solarise."""

from dataclasses import dataclass
from typing import Literal

import jax.numpy as jnp

from jaxcl.augment.op import Op, Scalar, check_share, join, settle, sometimes, split, uniforms
from jaxcl.errors import UserError
from jaxcl.scale import platform
from jaxcl.typing import Array, Float, Key

Impl = Literal["simclr", "torchvision"]
Planes = list[Array]
LUMA = (0.2989, 0.587, 0.114)


def luma(image: Float[Array, "h w c"]) -> Float[Array, "h w"]:
    """Brightness as seen: 0.2989 red + 0.587 green + 0.114 blue; of one channel, itself."""
    return _luma(split(image))


def _luma(planes: Planes) -> Array:
    if len(planes) == 1:
        return planes[0]
    r, g, b = planes
    return LUMA[0] * r + LUMA[1] * g + LUMA[2] * b


def _extremes(planes: Planes) -> tuple[Array, Array, Array]:
    """Value (the greatest channel), least channel and their difference, the chroma."""
    r, g, b = planes
    value = jnp.maximum(jnp.maximum(r, g), b)
    least = jnp.minimum(jnp.minimum(r, g), b)
    return value, least, value - least


def _sextant(planes: Planes, value: Array, chroma: Array) -> Array:
    """Hue times chroma, in sextants of the circle from -1 to 5: red 0, green 2, blue 4."""
    r, g, b = planes
    return jnp.where(
        value == r, g - b, jnp.where(value == g, (b - r) + 2 * chroma, (r - g) + 4 * chroma)
    )


def _wheel(sextant: Array, chroma: Array) -> Planes:
    """How far red, green and blue lie above the least channel, from `_sextant`, -4 to 8 chromas.

    Each is the chroma up to one sextant away from its own hue and falls to 0 at two. Free of
    divisions and remainders, so that all of the jitter runs in long vectors.
    """
    out = []
    for own in (0, 2, 4):
        away = jnp.abs(sextant - own * chroma)
        away = jnp.minimum(away, jnp.abs(6 * chroma - away))  # the other way round the circle
        out.append(jnp.clip(2 * chroma - away, 0.0, chroma))
    return out


def rgb_to_hsv(image: Float[Array, "h w 3"]) -> Float[Array, "h w 3"]:
    """Hue, saturation and value, each in [0, 1]; grey has hue and saturation 0."""
    planes = split(image)
    value, _, chroma = _extremes(planes)
    hue = _sextant(planes, value, chroma) / (6 * jnp.where(chroma > 0, chroma, 1.0))
    saturation = chroma / jnp.where(value > 0, value, 1.0)
    return join([jnp.where(hue < 0, hue + 1, hue), saturation, value])


def hsv_to_rgb(image: Float[Array, "h w 3"]) -> Float[Array, "h w 3"]:
    """Inverse of `rgb_to_hsv`; any real hue is taken modulo 1."""
    hue, saturation, value = split(image)
    chroma = value * saturation
    above = _wheel(6 * (hue - jnp.floor(hue)) * chroma, chroma)
    return join([value - chroma + plane for plane in above])


def adjust_brightness(
    image: Float[Array, "h w c"], factor: Scalar = 1.0, add: Scalar = 0.0
) -> Float[Array, "h w c"]:
    """`factor * image + add`, clipped to [0, 1]."""
    return jnp.clip(image * factor + add, 0.0, 1.0)


def adjust_contrast(
    image: Float[Array, "h w c"], factor: Scalar, impl: Impl = "simclr"
) -> Float[Array, "h w c"]:
    """Scale by `factor` about the mean, clipped to [0, 1].

    The mean is each channel's own ("simclr") or that of the grey image ("torchvision").
    """
    planes = split(image)
    gains = zip(planes, _means(planes, impl), strict=True)
    return join([jnp.clip(x * factor + mean * (1 - factor), 0.0, 1.0) for x, mean in gains])


def _means(planes: Planes, impl: Impl) -> list[Array]:
    """What contrast scales about, per channel."""
    means = [jnp.mean(plane) for plane in planes]
    return means if impl == "simclr" else [_luma(means)] * len(means)


def adjust_saturation(
    image: Float[Array, "h w c"], factor: Scalar, impl: Impl = "simclr"
) -> Float[Array, "h w c"]:
    """Scale the HSV saturation, up to 1 ("simclr"), or blend with grey ("torchvision").

    One channel comes back unchanged.
    """
    if image.shape[-1] == 1:
        return image
    planes = split(image)
    if impl == "torchvision":
        return join(_blend_with_grey(planes, factor))
    return join(_tone(planes, factor, 0.0))


def adjust_hue(image: Float[Array, "h w c"], shift: Scalar) -> Float[Array, "h w c"]:
    """Turn the HSV hue by `shift` of the circle; one channel comes back unchanged."""
    if image.shape[-1] == 1:
        return image
    return join(_tone(split(image), None, shift - jnp.round(shift)))


def _blend_with_grey(planes: Planes, factor: Scalar) -> Planes:
    grey = _luma(planes)
    return [jnp.clip(x * factor + grey * (1 - factor), 0.0, 1.0) for x in planes]


def _tone(planes: Planes, saturation: Scalar | None, hue: Scalar) -> Planes:
    """HSV saturation times `saturation`, up to 1, and HSV hue plus `hue`, in [-1/2, 1/2].

    Both keep the value, so they commute, and the new chroma is min(saturation * chroma, value).
    None leaves the saturation.
    """
    value, least, chroma = _extremes(planes)
    sextant = _sextant(planes, value, chroma) + 6 * hue * chroma
    if saturation is None:
        return [least + above for above in _wheel(sextant, chroma)]
    scaled = jnp.minimum(saturation * chroma, value)
    ratio = scaled / jnp.where(chroma > 0, chroma, 1.0)
    return [value - scaled + above for above in _wheel(sextant * ratio, scaled)]


def solarize(image: Float[Array, "h w c"], threshold: Scalar = 0.5) -> Float[Array, "h w c"]:
    """`1 - x` where x is at or above the threshold, x below."""
    return jnp.where(image < threshold, image, 1.0 - image)


def grayscale(image: Float[Array, "h w c"]) -> Float[Array, "h w c"]:
    """Every channel replaced by `luma`."""
    planes = split(image)
    return join([_luma(planes)] * len(planes))


@dataclass(frozen=True)
class ColorJitter(Op):
    """Brightness, contrast, saturation and hue in a random order per image, clipped after each.

    A strength d draws a factor uniformly from [max(0, 1 - d), 1 + d]; hue draws a turn from
    [-hue, hue] of the circle. The same numbers mean different things in the two implementations:

      simclr       contrast about each channel's mean, saturation by HSV
      torchvision  contrast about the mean of the grey image, saturation by blending with grey

    One-channel images get brightness and contrast only. Reference: Chen et al. 2020,
    arXiv:2002.05709, appendix A.
    """

    brightness: float = 0.8
    """Strength of the brightness factor."""
    contrast: float = 0.8
    """Strength of the contrast factor."""
    saturation: float = 0.8
    """Strength of the saturation factor."""
    hue: float = 0.2
    """Greatest turn of the hue either way, as a share of the circle, at most 0.5."""
    p: float = 0.8
    """Probability of jittering an image at all."""
    impl: Impl = "simclr"
    """What contrast and saturation mean: simclr or torchvision."""
    additive_brightness: bool = False
    """Add from [-brightness, brightness] instead of multiplying (first version of SimCLR, BYOL)."""

    def __post_init__(self) -> None:
        check_share("jitter.p", self.p)
        for name in ("brightness", "contrast", "saturation"):
            if getattr(self, name) < 0:
                raise UserError(f"jitter.{name}={getattr(self, name)} is negative; give 0 or more")
        if not 0 <= self.hue <= 0.5:
            raise UserError(f"jitter.hue={self.hue} is out of range; give a number from 0 to 0.5")

    def __call__(self, key: Key, image: Float[Array, "h w c"]) -> Float[Array, "h w c"]:
        coin, b, c, s, h, at_b, at_c, at_s, at_h = uniforms(key, 9)  # at: moments, hence an order
        contrast, saturation = _factor(c, self.contrast), _factor(s, self.saturation)
        hue = self.hue * (2 * h - 1)
        factor = 1.0 if self.additive_brightness else _factor(b, self.brightness)
        add = self.brightness * (2 * b - 1) if self.additive_brightness else 0.0

        # A vmapped switch would compute every operation at each of the four places. But brightness
        # and contrast are both `gain * x + offset`, so two places hold the two of them, and
        # saturation and hue fall into the gaps: before, between or after, neutral in the others.
        first, second = jnp.minimum(at_b, at_c), jnp.maximum(at_b, at_c)
        gap_of_s, gap_of_h = ((at > first).astype(int) + (at > second) for at in (at_s, at_h))
        planes = split(image)
        for gap in range(3):
            if len(planes) > 1:
                scale = jnp.where(gap_of_s == gap, saturation, 1.0)
                turn = jnp.where(gap_of_h == gap, hue, 0.0)
                planes = self._recolor(planes, scale, turn, at_s < at_h)
            if gap < 2:
                is_contrast = (at_c < at_b) == (gap == 0)
                gain = jnp.where(is_contrast, contrast, factor)
                offsets = [
                    jnp.where(is_contrast, mean * (1 - contrast), add)
                    for mean in _means(planes, self.impl)
                ]
                planes = [_unit(gain * x + y) for x, y in zip(planes, offsets, strict=True)]
        return sometimes(coin, self.p, join([_unit(x) for x in planes]), image)

    def _recolor(self, planes: Planes, scale: Array, turn: Array, scale_first: Array) -> Planes:
        """Saturation and hue, in either order."""
        if self.impl == "simclr":
            return _tone(planes, scale, turn)  # there they commute
        # On CPU each is computed once, or every channel of the next one computes all three anew.
        planes = _on_cpu_once(_blend_with_grey(planes, jnp.where(scale_first, scale, 1.0)))
        planes = _on_cpu_once(_tone(planes, None, turn))
        return _on_cpu_once(_blend_with_grey(planes, jnp.where(scale_first, 1.0, scale)))


def _on_cpu_once(planes: Planes) -> Planes:
    return [settle(plane) for plane in planes] if platform() == "cpu" else planes


def _factor(uniform: Array, strength: float) -> Array:
    """From [0, 1) to [max(0, 1 - strength), 1 + strength)."""
    low = max(0.0, 1 - strength)
    return low + uniform * (1 + strength - low)


def _unit(x: Array) -> Array:
    return jnp.clip(x, 0.0, 1.0)


@dataclass(frozen=True)
class Grayscale(Op):
    """Colour dropped: all channels become the luma."""

    p: float = 0.2
    """Probability."""

    def __post_init__(self) -> None:
        check_share("grayscale.p", self.p)

    def __call__(self, key: Key, image: Float[Array, "h w c"]) -> Float[Array, "h w c"]:
        (coin,) = uniforms(key, 1)
        return sometimes(coin, self.p, grayscale(image), image)


@dataclass(frozen=True)
class Solarize(Op):
    """Bright values inverted."""

    p: float = 0.2
    """Probability."""
    threshold: float = 0.5
    """Least value that is inverted."""

    def __post_init__(self) -> None:
        check_share("solarize.p", self.p)

    def __call__(self, key: Key, image: Float[Array, "h w c"]) -> Float[Array, "h w c"]:
        (coin,) = uniforms(key, 1)
        image = join([settle(plane) for plane in split(image)])
        return sometimes(coin, self.p, solarize(image, self.threshold), image)
