"""DINO: a student matches, from any crop, what its slow copy says of the image's large crops.

    x1, x2, small crops -> encoder -> projector -> prototypes -> s            student
    x1, x2         -> slow encoder -> slow projector -> slow prototypes -> t  teacher

    -sum P(t_i) log P(s_v), v != i      P(t) = softmax((t - centre) / 0.04), P(s) = softmax(s / 0.1)

Two forces on the teacher hold each other in check: the centre, a running mean of t, keeps one
prototype from taking everything, and the low temperature keeps P(t) from becoming even. If one
fails, the teacher's entropy goes to 0 or to log K and the divergence to 0: both are logged.

Reference: Caron et al. 2021, arXiv:2104.14294, algorithm 1; facebookresearch/dino.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxcl.augment import Recipe, dino
from jaxcl.encoders import MLP, Prototypes, vit
from jaxcl.errors import UserError
from jaxcl.losses import dino as dino_loss
from jaxcl.losses import next_centre
from jaxcl.methods.method import LARGE, Aux, Kept, Method, check_large_views
from jaxcl.methods.progress import Progress, cosine, ramp
from jaxcl.methods.slow import follow
from jaxcl.methods.stack import Stack
from jaxcl.typing import Array, Bool, Float, Key, PyTree


class Memory(NamedTuple):
    """What training carries from step to step without differentiating it."""

    teacher: dict[str, PyTree]
    """Running average of the student's parameters."""
    stats: dict[str, PyTree]
    """Batch-norm statistics of the student."""
    teacher_stats: dict[str, PyTree]
    """And of the teacher, from its own forward passes."""
    centre: Float[Array, "k"]
    """Running mean of the teacher's outputs."""


@dataclass(frozen=True)
class DINO(Method):
    """Self-distillation with no labels."""

    augment: Recipe = dino(224)
    encoder: nn.Module = vit("S/16", drop_path=0.1, resize_offset=0.1, kernel_init="dino")
    """The network; the teacher's is the same without stochastic depth."""
    projector: nn.Module = MLP(
        (2048, 2048), 256, norm="none", bias=True, out_bias=True, activation="gelu",
        kernel_init="normal_0.02",
    )  # fmt: skip
    """Features to the rows that are compared with the prototypes."""
    prototypes: Prototypes = Prototypes(65536, unit=True, unit_inputs=True)
    """Scores of the rows: the head's last layer."""
    temperature: float = 0.1
    """Scale of the student's scores."""
    teacher_temperature: float = 0.04
    """Scale of the teacher's after the warm-up; over 0.07 it is unstable."""
    first_teacher_temperature: float = 0.04
    """Where the warm-up begins."""
    temperature_epochs: int = 0
    """Epochs of its linear warm-up; 0: none."""
    centre_momentum: float = 0.9
    """Share of the centre that is kept at each step."""
    momentum: float = 0.996
    """Share of the teacher that is kept at the first step; nearer to 1 for small batches."""
    final_momentum: float = 1.0
    """And at the last one, along half a cosine."""
    frozen_epochs: int = 1
    """Epochs at the start in which the prototypes stand still."""
    keep: Literal["teacher", "student"] = "teacher"
    """Network that the run evaluates and exports: the teacher, as in the paper, or the student, as
    in solo-learn and lightly."""
    views_apart: bool = False
    """Whether each view goes through the network by itself, with its own batch statistics, as in
    solo-learn and lightly; if not, views of one size share them."""

    def check(self, batch_size: int) -> None:
        check_large_views(self)
        patch = getattr(self.encoder, "patch", 1)
        for size in self.augment.sizes:
            if size % patch:
                near = max(size // patch, 1) * patch
                raise UserError(
                    f"method.augment makes views of {size} pixels, which do not split into "
                    f"method.encoder.patch={patch}; use {near} or {near + patch}"
                )

    def init(self, key: Key, views: tuple[Array, ...]) -> tuple[PyTree, Memory]:
        params, stats = self._student.init(key, views)
        return params, Memory(params, stats, stats, jnp.zeros(self.prototypes.count, jnp.float32))

    def loss(
        self,
        params: PyTree,
        memory: Memory,
        views: tuple[Array, ...],
        key: Key,
        progress: Progress,
    ) -> tuple[Float[Array, ""], Aux]:
        student, stats = self._student(params, memory.stats, views, key=key)
        teacher, teacher_stats = self._teacher(memory.teacher, memory.teacher_stats, views[:LARGE])
        teacher = jax.lax.stop_gradient(teacher)
        s, t = (jnp.unstack(outputs["prototypes"], axis=1) for outputs in (student, teacher))
        sharpness = ramp(
            progress,
            self.first_teacher_temperature,
            self.teacher_temperature,
            self.temperature_epochs,
        )
        value = dino_loss(
            s, t, memory.centre, student_temperature=self.temperature, teacher_temperature=sharpness
        )
        logs = jax.nn.log_softmax((teacher["prototypes"] - memory.centre) / sharpness)
        entropy = -jnp.mean(jnp.sum(jnp.exp(logs) * logs, axis=2))
        metrics = {"teacher_entropy": entropy, "divergence": value - entropy}
        centre = next_centre(memory.centre, t, momentum=self.centre_momentum)
        memory = Memory(memory.teacher, stats, teacher_stats, centre)
        features = (teacher if self.keep == "teacher" else student)["encoder"][:, :LARGE]
        return value, Aux(memory, metrics, features, student["projector"][:, :LARGE])

    def frozen(self, progress: Progress) -> dict[str, Bool[Array, ""]]:
        if not self.frozen_epochs:
            return {}
        return {"prototypes": progress.epoch < self.frozen_epochs}

    def after_step(self, params: PyTree, memory: Memory, progress: Progress) -> Memory:
        momentum = cosine(progress, self.momentum, self.final_momentum)
        return memory._replace(teacher=follow(memory.teacher, params, momentum))

    @property
    def _student(self) -> Stack:
        return self._stack(self.encoder)

    @property
    def _teacher(self) -> Stack:
        dropping = hasattr(self.encoder, "drop_path")
        return self._stack(self.encoder.clone(drop_path=0.0) if dropping else self.encoder)

    def _stack(self, encoder: nn.Module) -> Stack:
        heads = {"projector": self.projector, "prototypes": self.prototypes}
        return Stack(self.chunks, self.views_apart, encoder=encoder, **heads)

    def kept(self, params: PyTree, memory: Memory) -> Kept:
        if self.keep == "student":
            return self.trained(params, memory)
        return Kept(self.encoder, memory.teacher["encoder"], memory.teacher_stats["encoder"])

    def facts(self, batch_size: int) -> dict[str, str]:
        views = self.augment.count
        return {"pairs per image": f"{LARGE * views - LARGE} of {LARGE} large views and {views}"}
