"""The same measurements in PyTorch, in processes of their own after jaxcl has left the card."""

import math
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from card.session import MIB, Absent, Item, Session, seconds_of
from card.sizes import Sizes

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def device() -> str:
    """The card, or the CPU in a rehearsal."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def wait(_: Any = None) -> None:
    """Until the card has nothing left to do."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def fresh() -> None:
    """Nothing is left of the item before: neither compiled code, whose shapes would count as
    changing ones, nor memory."""
    torch._dynamo.reset()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def memory(run: Callable[[], Any]) -> float:
    """MiB that a call holds at most beside what is there before it; 0 on a CPU."""
    if not torch.cuda.is_available():
        run()
        return 0.0
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run()
    wait()
    return (torch.cuda.max_memory_allocated() - before) / MIB


def timing(session: Session, run: Callable[[], Any]) -> tuple[float, dict[str, Any]]:
    """Seconds of a call, and the figures that every one has."""
    run()  # compiles
    held = memory(run)
    seconds = seconds_of(run, wait, session.sizes.seconds)
    return seconds, {"ms": 1e3 * seconds, "work space, MiB": held}


def losses(sizes: Sizes) -> list[Item]:
    """CLIP's loss and NT-Xent as one writes them, eager and compiled."""
    from card.timed import LOSSES

    items = []
    for name, make in (("clip", clip), ("nt_xent", nt_xent)):
        for compiled in (False, True):
            title = f"{name}, torch, {'compiled' if compiled else 'eager'}"
            run = lambda s, make=make, compiled=compiled: loss(s, make, compiled)
            items.append(Item(LOSSES, title, run, 90))
    return items


def loss(session: Session, make: Any, compiled: bool) -> dict[str, Any]:
    """Value and gradients of a loss of two sets of rows."""
    fresh()
    value, rows, flop = make(session.sizes)
    value = torch.compile(value, dynamic=False) if compiled else value

    def run() -> None:
        for x in rows:
            x.grad = None
        value(*rows).backward()

    seconds, figures = timing(session, run)
    return figures | {"TFLOP/s": flop / seconds / 1e12}


def clip(sizes: Sizes) -> Any:
    n, d = sizes.clip
    rows = [torch.randn(n, d, device=device(), dtype=torch.bfloat16) for _ in range(2)]
    scale = torch.tensor(10.0, device=device())

    def value(q: Any, k: Any, scale: Any) -> Any:
        logits = scale.to(q.dtype) * F.normalize(q, dim=1) @ F.normalize(k, dim=1).T
        own = torch.arange(len(q), device=q.device)
        return (F.cross_entropy(logits.float(), own) + F.cross_entropy(logits.T.float(), own)) / 2

    return value, [x.requires_grad_() for x in (*rows, scale)], 8.0 * n**2 * d


def nt_xent(sizes: Sizes) -> Any:
    n, d = sizes.nt_xent
    rows = [torch.randn(n // 2, d, device=device(), requires_grad=True) for _ in range(2)]
    return nt_xent_value, rows, 4.0 * n**2 * d


def nt_xent_value(a: Any, b: Any, temperature: float = 0.1) -> Any:
    """NT-Xent of two views, on the whole matrix."""
    z = F.normalize(torch.cat([a, b]).float(), dim=1)
    logits = z @ z.T / temperature
    logits = logits - torch.diag(torch.full((len(z),), 1e9, device=z.device))
    twins = torch.arange(len(z), device=z.device).roll(len(a))
    return F.cross_entropy(logits, twins)


class SimCLR(nn.Module):
    """A ResNet and its head."""

    def __init__(self, depth: int, small: bool, narrow: bool) -> None:
        super().__init__()
        try:
            from torchvision import models
            from torchvision.models.resnet import BasicBlock, ResNet
        except Exception as error:  # one that does not fit this torch fails in ways of its own
            raise Absent(f"torchvision cannot be imported ({error})") from error
        if narrow:
            body: Any = ResNet(BasicBlock, [1, 1, 1, 1])
        else:
            body = getattr(models, f"resnet{depth}")(zero_init_residual=not small)
        if small:
            body.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
            body.maxpool = nn.Identity()
        width = body.fc.in_features
        body.fc = nn.Identity()
        self.encoder = body
        hidden = 512 if small else width
        self.projector = nn.Sequential(
            nn.Linear(width, hidden, bias=False), nn.BatchNorm1d(hidden), nn.ReLU(),
            nn.Linear(hidden, 128, bias=False), nn.BatchNorm1d(128),
        )  # fmt: skip

    def forward(self, x: Any) -> Any:
        return self.projector(self.encoder(x))


def two_views(images: Any, side: int, strength: float, blur: float) -> Any:
    """Two SimCLR views of each image in one tensor, parameters drawn for each image.

    Boxes are cut by one bilinear sampling without antialias, jitter comes in one order: what
    batched code does, and less work than jaxcl's views are.
    """
    n = len(images)
    x = images.permute(0, 3, 1, 2).to(memory_format=torch.channels_last).float().div(255)
    x = torch.cat([x, x])
    draw = lambda: torch.rand(2 * n, 1, 1, 1, device=x.device)
    area, log_ratio = 0.08 + 0.92 * draw(), (2 * draw() - 1) * math.log(4 / 3)
    h, w = ((area * torch.exp(sign * log_ratio)).sqrt().clamp(max=1) for sign in (-1, 1))
    y, x0 = (1 - h) * (2 * draw() - 1), (1 - w) * (2 * draw() - 1)
    flip = torch.where(draw() < 0.5, -1.0, 1.0)
    zero = torch.zeros_like(h)
    theta = torch.cat([flip * w, zero, x0, zero, h, y], dim=3).reshape(2 * n, 2, 3)
    grid = F.affine_grid(theta, [2 * n, 3, side, side], align_corners=False)
    x = F.grid_sample(x, grid, align_corners=False, padding_mode="reflection")
    jittered = x
    level = 0.8 * strength
    factor = lambda: 1 + level * (2 * draw() - 1)
    jittered = (jittered * factor()).clamp(0, 1)
    jittered = blend(jittered, grey(jittered).mean(dim=(1, 2, 3), keepdim=True), factor())
    jittered = blend(jittered, grey(jittered), factor())
    jittered = turn_hue(jittered, 0.2 * strength * (2 * draw() - 1))
    x = torch.where(draw() < 0.8, jittered, x)
    x = torch.where(draw() < 0.2, grey(x), x)
    if blur:
        x = torch.where(draw() < blur, blurred(x, 0.1 + 1.9 * draw()), x)
    mean, std = (torch.tensor(m, device=x.device)[:, None, None] for m in (MEAN, STD))
    return ((x - mean) / std).contiguous(memory_format=torch.channels_last)


def grey(x: Any) -> Any:
    """Luminance as one channel."""
    return 0.299 * x[:, :1] + 0.587 * x[:, 1:2] + 0.114 * x[:, 2:]


def blend(x: Any, other: Any, factor: Any) -> Any:
    """`factor` of the image, the rest of `other`."""
    return (factor * x + (1 - factor) * other).clamp(0, 1)


def turn_hue(x: Any, by: Any) -> Any:
    """Hue moved by a part of the circle, by way of HSV."""
    value, low = x.amax(1, keepdim=True), x.amin(1, keepdim=True)
    chroma = value - low
    safe = torch.where(chroma > 0, chroma, torch.ones_like(chroma))
    r, g, b = x.split(1, dim=1)
    hue = torch.where(
        value == r, (g - b) / safe, torch.where(value == g, 2 + (b - r) / safe, 4 + (r - g) / safe)
    )
    hue = (hue / 6 + by) % 1.0
    out = []
    for place in (5.0, 3.0, 1.0):
        k = (place + 6 * hue) % 6
        out.append(value - chroma * torch.minimum(k, 4 - k).clamp(0, 1))
    return torch.cat(out, dim=1)


def blurred(x: Any, sigma: Any) -> Any:
    """Gaussian blur with a width of its own for each image."""
    n, c, side, _ = x.shape
    reach = max(1, side // 20)
    places = torch.arange(-reach, reach + 1, device=x.device, dtype=x.dtype)
    kernel = torch.exp(-(places**2) / (2 * sigma.reshape(n, 1) ** 2))
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(c, 0)
    flat = x.reshape(1, n * c, side, side)
    down = F.conv2d(F.pad(flat, (0, 0, reach, reach), mode="replicate"),
                    kernel[:, None, :, None], groups=n * c)  # fmt: skip
    across = F.conv2d(F.pad(down, (reach, reach, 0, 0), mode="replicate"),
                      kernel[:, None, None, :], groups=n * c)  # fmt: skip
    return across.reshape(n, c, side, side)


def step(session: Session, small: bool, batch: int) -> tuple[Callable[[], Any], int]:
    """A call that takes one training step: views, model, loss, gradients, SGD."""
    fresh()
    sizes = session.sizes
    side, source = (sizes.cifar_side,) * 2 if small else (sizes.side, sizes.source)
    depth = sizes.small_depth if small else sizes.depth
    model = SimCLR(depth, small, session.rehearse).to(device(), memory_format=torch.channels_last)
    optimiser = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=5e-4)
    count = sizes.images if small else 4 * batch
    images = torch.randint(0, 256, (count, source, source, 3), dtype=torch.uint8, device=device())
    compile_ = (lambda x: x) if session.rehearse else partial(torch.compile, dynamic=False)
    forward, make = compile_(model), compile_(two_views)
    torch.backends.cudnn.benchmark = True

    def run() -> Any:
        rows = torch.randint(0, count, (batch,), device=images.device)
        x = make(images[rows], side, 0.5 if small else 1.0, 0.0 if small else 0.5)
        optimiser.zero_grad(set_to_none=True)
        with torch.autocast(device(), torch.bfloat16):
            z = forward(x)
        value = nt_xent_value(z[:batch], z[batch:])
        value.backward()
        optimiser.step()
        return value

    return run, batch


def steps(small: bool, part: str, batches: tuple[int, ...]) -> list[Item]:
    """The same steps in PyTorch: compiled, channels last, bfloat16."""

    def item(batch: int) -> Item:
        def run(session: Session) -> dict[str, Any]:
            call, count = step(session, small, batch)
            start = time.perf_counter()
            call()
            wait()
            compiling = time.perf_counter() - start
            seconds, figures = timing(session, call)
            note = f"compiled in {compiling:.0f} s"
            return figures | {"images/s": count / seconds, "note": note}

        return Item(part, f"torch, batch {batch:,}", run, 240)

    return [item(batch) for batch in batches]


def others(sizes: Sizes) -> list[Item]:
    """sentence-transformers, and the views alone."""
    from card.timed import OTHERS

    items = [Item(OTHERS, "MiniLM, sentence-transformers", encode, 120)]
    for small, side in ((True, sizes.cifar_side), (False, sizes.side)):
        run = lambda s, small=small: views(s, small)
        items.append(Item(OTHERS, f"views of {side}, torch", run, 120))
    return items


def views(session: Session, small: bool) -> dict[str, Any]:
    """Source images a second of all of SimCLR's operations, compiled."""
    fresh()
    sizes = session.sizes
    side, source = (sizes.cifar_side,) * 2 if small else (sizes.side, sizes.source)
    count = sizes.views[0 if small else 1]
    images = torch.randint(0, 256, (count, source, source, 3), dtype=torch.uint8, device=device())
    make = two_views if session.rehearse else torch.compile(two_views, dynamic=False)
    seconds, figures = timing(session, lambda: make(images, side, 1.0, 0.5))
    return figures | {"images/s": count / seconds}


def encode(session: Session) -> dict[str, Any]:
    """Sentences a second by sentence-transformers' own `encode`; products in TF32, as XLA's are."""
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise Absent(f"sentence-transformers is not installed ({error})") from error
    from card.text import lines, model_folder

    torch.set_float32_matmul_precision("high")
    model = SentenceTransformer(str(model_folder(session)), device=device())
    texts = lines(session.sizes.sentences)
    run = lambda: model.encode(texts, batch_size=256, show_progress_bar=False)
    seconds = seconds_of(run, lambda _: None, session.sizes.seconds)
    return {"sentences/s": len(texts) / seconds}
