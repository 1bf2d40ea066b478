"""The programs that are measured on a card and compiled for chips that are not there."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import AxisType, Mesh, SingleDeviceSharding

from card.sizes import Sizes
from jaxcl import losses
from jaxcl.augment import simclr
from jaxcl.encoders import BERT, ResNet, forward, initialise, vit
from jaxcl.experiment import Experiment, read_config
from jaxcl.similarity import pairs
from jaxcl.training import Probe
from jaxcl.training.step import Trainer

CONFIGS = Path(__file__).parents[2] / "configs"
IMAGENET = 1_281_167


@dataclass(frozen=True)
class Program:
    """A pure function, and what it is called with."""

    name: str
    run: Callable[..., Any]
    make: Callable[[], tuple[Any, ...]]
    """Makes the arguments; traced for their shapes alone where nothing is to run."""
    count: int
    """Images, sentences or rows in a call."""
    supplied: bool = False
    """The arguments come from whoever calls it, and `make` only tells their shapes."""
    carried: bool = False
    """The result takes the place of the first argument in the next call, which is donated."""
    settings: Callable[[], None] | None = None
    """Puts the engine's own settings as they must be while it is traced."""

    def lower(self, device: Any = None) -> Any:
        """The traced program for one device, the default one if None.

        Where it has settings, no other thread may trace meanwhile.
        """
        device = device or jax.devices()[0]
        place = SingleDeviceSharding(device)
        shapes = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place),
            jax.eval_shape(self.make),
        )
        # A function of its own: jax would take up what it traced of `run` with other settings.
        own = lambda *arguments: self.run(*arguments)
        jitted = jax.jit(own, donate_argnums=0 if self.carried else ())
        platform = {"gpu": "cuda"}.get(device.platform, device.platform)
        with engine_settings(self.settings), jax.set_mesh(mesh_of(device)):
            return jitted.trace(*shapes).lower(lowering_platforms=(platform,))


def mesh_of(device: Any) -> Mesh:
    """A mesh of this device alone."""
    import numpy as np

    return Mesh(np.array([device]), ("data",), axis_types=(AxisType.Auto,))


class engine_settings:
    """The engine's settings while a program is traced; those before come back after it."""

    NAMES = ("DENSE_PAIRS", "KERNELS", "TILE", "OTHER_TILE")

    def __init__(self, change: Callable[[], None] | None) -> None:
        self._change = change

    def __enter__(self) -> None:
        self._before = {name: getattr(pairs, name) for name in self.NAMES} if self._change else {}
        if self._change:
            self._change()

    def __exit__(self, *_: object) -> None:
        for name, value in self._before.items():
            setattr(pairs, name, value)


def body(name: str, platform: str, tile: int = 0) -> Callable[[], None]:
    """Settings that force a body of the engine: dense, blocked or kernels."""

    def change() -> None:
        pairs.DENSE_PAIRS = 2**62 if name == "dense" else 0
        pairs.KERNELS = {platform: platform} if name == "kernels" else {}
        if tile:
            pairs.TILE = {platform: tile}
            pairs.OTHER_TILE = tile

    return change


def clip(sizes: Sizes) -> Program:
    """CLIP's loss, both sides of it, of bfloat16 rows with a learned scale."""
    rows, width = sizes.clip

    def make() -> tuple[Any, ...]:
        q, k = (jax.random.normal(jax.random.key(i), (rows, width), jnp.bfloat16) for i in (0, 1))
        return q, k, jnp.float32(10.0)

    loss = lambda q, k, scale: losses.clip_loss(q, k, scale=scale)
    return Program("clip", jax.value_and_grad(loss, argnums=(0, 1, 2)), make, rows)


def nt_xent(sizes: Sizes) -> Program:
    """NT-Xent of float32 rows."""
    loss = lambda a, b: losses.nt_xent(a, b, temperature=0.1)
    return Program(
        "nt_xent", jax.value_and_grad(loss, argnums=(0, 1)), _views(sizes), sizes.nt_xent[0]
    )


def sup_con(sizes: Sizes) -> Program:
    """SupCon of float32 rows in 100 classes."""

    def loss(a: Any, b: Any) -> Any:
        return losses.sup_con(
            jnp.concatenate([a, b]), jnp.arange(2 * len(a)) % 100, temperature=0.1
        )

    return Program(
        "sup_con", jax.value_and_grad(loss, argnums=(0, 1)), _views(sizes), sizes.nt_xent[0]
    )


def _views(sizes: Sizes) -> Callable[[], tuple[Any, ...]]:
    rows, width = sizes.nt_xent
    return lambda: tuple(jax.random.normal(jax.random.key(i), (rows // 2, width)) for i in (0, 1))


LOSSES = {"clip": clip, "nt_xent": nt_xent, "sup_con": sup_con}


def loss_flop(name: str, sizes: Sizes) -> float:
    """FLOP of the products that the loss cannot do without."""
    if name == "clip":
        rows, width = sizes.clip
        return 8.0 * rows**2 * width
    rows, width = sizes.nt_xent
    return 4.0 * rows**2 * width


def cifar(sizes: Sizes) -> Experiment:
    """SimCLR, ResNet-18, CIFAR-10 by lightly's recipe, in bfloat16."""
    experiment = read_config(CONFIGS / "simclr_cifar10_lightly.py")
    method = experiment.method
    encoder = ResNet(
        sizes.small_depth, stem="cifar", zero_init=False, width=sizes.width, dtype="bfloat16"
    )
    method = replace(
        method,
        augment=simclr(sizes.cifar_side, strength=0.5, blur=0.0, impl="torchvision"),
        encoder=encoder,
        projector=method.projector.clone(dtype="bfloat16"),
    )
    return replace(experiment, method=method)


def imagenet(sizes: Sizes) -> Experiment:
    """SimCLR, ResNet-50, by the paper's recipe."""
    experiment = read_config(CONFIGS / "simclr_imagenet.py")
    method = replace(
        experiment.method,
        augment=simclr(sizes.side, interpolation="bicubic", normalize=None),
        encoder=ResNet(sizes.depth, width=sizes.width, stages=sizes.stages, dtype="bfloat16"),
    )
    return replace(experiment, method=method)


def dino(sizes: Sizes) -> Experiment:
    """DINO, ViT-S/16 with eight small crops, by the authors' recipe."""
    from jaxcl.augment import dino as views

    experiment = read_config(CONFIGS / "dino_imagenet.py")
    method = replace(
        experiment.method,
        augment=views(sizes.side, local_size=sizes.local, local=sizes.crops),
        encoder=vit(
            sizes.vit, depth=sizes.vit_depth, drop_path=0.1, resize_offset=0.1, dtype="bfloat16"
        ),
    )
    if sizes.width < 1:
        projector = method.projector.clone(hidden=(64,), out=32)
        method = replace(method, projector=projector, prototypes=method.prototypes.clone(count=64))
    return replace(experiment, method=method)


TRAINED = {"cifar": cifar, "imagenet": imagenet, "dino": dino}


def trainer_of(experiment: Experiment, batch: int, examples: int, classes: int) -> Trainer:
    """The step of an experiment without a probe's classifier."""
    return Trainer(
        experiment.method, experiment.optim, Probe(linear=False), batch, max(1, examples // batch),
        classes, examples,
    )  # fmt: skip


def step(name: str, sizes: Sizes, batch: int) -> Program:
    """One whole training step: views, loss, gradients, optimiser, slow copies."""
    experiment = TRAINED[name](sizes)
    trainer = trainer_of(experiment, batch, max(batch, IMAGENET), 1000)
    make = lambda: (trainer.init(0, images(sizes, name, batch)), images(sizes, name, batch))
    return Program(f"{name} step, batch {batch:,}", trainer.step, make, batch, carried=True)


def images(sizes: Sizes, name: str, batch: int) -> dict[str, Any]:
    """A batch of noise as the resident road gives it."""
    side = sizes.cifar_side if name == "cifar" else sizes.source
    pixels = jax.random.bits(jax.random.key(0), (batch, side, side, 3), jnp.uint8)
    rows = jnp.arange(batch)
    return {"image": pixels, "label": rows % 10, "index": rows}


def views_of_step(name: str, sizes: Sizes, batch: int) -> Program:
    """The views of a step alone."""
    method = TRAINED[name](sizes).method
    make = lambda: (jax.random.key_data(jax.random.key(1)), images(sizes, name, batch))
    run = lambda key, batch: method.views(jax.random.wrap_key_data(key), batch)
    return Program(f"{name} views, batch {batch:,}", run, make, batch)


def optimiser_of_step(name: str, sizes: Sizes, batch: int) -> Program:
    """What happens to parameters once gradients are there: the optimiser and slow copies."""
    experiment = TRAINED[name](sizes)
    method = experiment.method
    trainer = trainer_of(experiment, batch, max(batch, IMAGENET), 1000)

    def make() -> tuple[Any, ...]:
        state = trainer.init(0, images(sizes, name, batch))
        return state, state.params

    def run(state: Any, grads: Any) -> Any:
        transform = trainer._transform()
        updates, moments = transform.update(grads, state.optim["main"], state.params)
        params = optax.apply_updates(state.params, updates)
        memory = method.after_step(params, state.memory, trainer.progress(state.step))
        return state._replace(
            params=params, memory=memory, optim={"main": moments}, step=state.step + 1
        )

    return Program(f"{name} optimiser, batch {batch:,}", run, make, 1, supplied=True, carried=True)


def input_of_step(name: str, sizes: Sizes, batch: int) -> Program:
    """The batch picked out of a set that lies on the device."""

    def make() -> tuple[Any, ...]:
        side = sizes.cifar_side if name == "cifar" else sizes.source
        count = sizes.images if name == "cifar" else 4 * batch
        pixels = jax.random.bits(jax.random.key(0), (count, side, side, 3), jnp.uint8)
        return pixels, jax.random.permutation(jax.random.key(1), count)[:batch]

    run = lambda pixels, rows: jnp.take(pixels, rows, axis=0, mode="clip")
    return Program(f"{name} input, batch {batch:,}", run, make, batch)


def views(small: bool, sizes: Sizes) -> Program:
    """Two views by SimCLR's recipe with all of its operations."""
    side, source = (sizes.cifar_side,) * 2 if small else (sizes.side, sizes.source)
    count = sizes.views[0 if small else 1]
    recipe = simclr(side)

    def make() -> tuple[Any, ...]:
        keys = jax.random.key_data(jax.random.split(jax.random.key(0), count))
        return keys, jax.random.bits(jax.random.key(1), (count, source, source, 3), jnp.uint8)

    run = lambda keys, images: recipe(jax.random.wrap_key_data(keys), images)
    return Program(f"views of {side} pixels", run, make, count)


def sentence_encoder(sizes: Sizes) -> BERT:
    """MiniLM's architecture."""
    width, depth, heads = sizes.bert
    return BERT(width=width, depth=depth, heads=heads, mlp=4 * width, vocab_size=sizes.vocabulary)


def minilm(sizes: Sizes, tokens: int = 64, count: int = 256) -> Program:
    """The sentence encoder on padded sentences of one length."""
    encoder = sentence_encoder(sizes)

    def make() -> tuple[Any, ...]:
        ids = jax.random.randint(jax.random.key(1), (count, tokens), 1, sizes.vocabulary)
        x = {"ids": ids, "mask": jnp.ones((count, tokens), bool)}
        return initialise(encoder, jax.random.key(0), x)[0], x

    run = lambda params, x: forward(encoder, params, {}, x, train=False)[0]["features"]
    return Program(f"minilm, {count} x {tokens} tokens", run, make, count)
