"""How large everything is: on a card, and when it is only rehearsed."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Sizes:
    """Sizes of all measurements; the defaults are those for a card."""

    product: int = 8192
    """Side of the square product whose rate the roofline is."""
    copied: int = 1 << 30
    """Bytes of the array whose copy gives the memory's rate."""
    checked: tuple[int, int] = (4096, 512)
    """Rows of either side, and their width, where bodies are compared."""
    short: tuple[int, float, int] = (32, 0.5, 3)
    """Side of the images, width and stages of the network of the twenty steps that are compared."""
    clip: tuple[int, int] = (65536, 512)
    """Rows of either side, and their width, of the two-sided InfoNCE, in bfloat16."""
    nt_xent: tuple[int, int] = (32768, 128)
    """Rows of both views together, and their width, of NT-Xent and SupCon."""
    tiles: tuple[int, ...] = (1024, 2048, 4096, 8192)
    """Sides of the tiles that are tried."""
    kernels: bool = True
    """Whether the kernels take part; they need the chip that they are written for."""
    cifar: tuple[int, ...] = (512, 1024)
    """Batches of the CIFAR-10 loop."""
    cifar_side: int = 32
    cifar_steps: int = 100
    """Steps in an epoch of the whole loop's run, of which the second is timed."""
    images: int = 50_000
    """Training images at most."""
    imagenet: tuple[int, ...] = (256, 512)
    """Batches of the ResNet-50 step."""
    dino: int = 128
    """Batch of the DINO step."""
    side: int = 224
    """Side of large views."""
    local: int = 96
    """Side of DINO's small views."""
    source: int = 256
    """Side of the images that large views are cut from."""
    views: tuple[int, int] = (4096, 256)
    """Images whose views are made at once, small and large."""
    depth: int = 50
    """Layers of the large ResNet."""
    stages: int = 4
    """Stages of the large ResNet."""
    small_depth: int = 18
    """Layers of the small ResNet."""
    width: float = 1.0
    """Factor on the widths of both."""
    vit: str = "S/16"
    """The vision transformer."""
    vit_depth: int = 12
    """Its blocks."""
    crops: int = 8
    """Small views of DINO."""
    bert: tuple[int, int, int] = (384, 6, 12)
    """Width, layers and heads of the sentence encoder."""
    vocabulary: int = 30522
    sentences: int = 20_000
    seconds: float = 2.0
    """Time that one figure is measured for."""
    knn_every: int = 10
    """Epochs between evaluations of the accuracy runs."""


CARD = Sizes()
REHEARSAL = Sizes(
    product=256, copied=1 << 20, checked=(128, 32), short=(8, 0.125, 1), clip=(256, 32),
    nt_xent=(256, 16),
    tiles=(64, 128), cifar=(32,), cifar_side=16, cifar_steps=4, images=160, imagenet=(8,), dino=4,
    side=32, local=16, source=40, views=(8, 4), depth=10, small_depth=10, width=0.125,
    vit="Ti/16", vit_depth=1, crops=1,
    bert=(32, 2, 2), vocabulary=256, sentences=40, seconds=0.05, knn_every=1,
)  # fmt: skip
