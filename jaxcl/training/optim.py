"""Optimisers as values: what a config says, and the optax transformation it stands for.

All share one schedule: linear warm-up to the peak, then a cosine, or a line, down to `final` times
the peak, or steps. The peak is `lr` scaled to the batch.
"""

from dataclasses import dataclass, replace
from typing import Literal, Self

import jax
import jax.numpy as jnp
import optax

from jaxcl.errors import UserError
from jaxcl.methods.progress import Progress, cosine
from jaxcl.training.freezing import apart
from jaxcl.typing import PyTree


@dataclass(frozen=True)
class Optim:
    """Schedule and regularisation that every optimiser shares."""

    lr: float = 0.3
    """Base learning rate, for 256 images where it is scaled linearly, for one where by the root."""
    epochs: int = 100
    """Length of the run in passes over the training set."""
    warmup_epochs: float = 10.0
    """Epochs of linear warm-up."""
    warmup_from: float = 0.0
    """Share of the peak that the warm-up begins at."""
    warmup_end: Literal["after", "last"] = "after"
    """When the warm-up reaches the peak: at the step after it, or one step earlier, at its own last
    step, as np.linspace does in the codes of SwAV and DINO."""
    changes: Literal["step", "epoch"] = "step"
    """When the learning rate changes, in the warm-up and after it: at every step, or only where an
    epoch begins, as PyTorch's schedulers do."""
    scaling: Literal["linear", "sqrt", "none"] = "linear"
    """Peak learning rate: lr * batch / 256, lr * sqrt(batch), or lr."""
    decay: Literal["cosine", "linear", "steps", "constant"] = "cosine"
    """How the learning rate falls after the warm-up; steps: by a factor of `drop_by` at each share
    of `drop_at`, which are MoCo's first version's and InstDisc's, epochs 120 and 160 of 200."""
    drop_at: tuple[float, ...] = (0.6, 0.8)
    """Shares of the run after the warm-up at which the learning rate drops, where `decay` is
    steps."""
    drop_by: float = 0.1
    """Factor that the learning rate takes at each drop, where `decay` is steps."""
    fall_from: Literal["warmup", "start"] = "warmup"
    """Where the fall is counted from: the end of the warm-up, or the first step of the run, so that
    the warm-up ends a little below the peak, as in the code of SupCon's authors."""
    final: float = 0.0
    """Share of the peak that it ends at."""
    weight_decay: float = 1e-4
    """Strength of the weight decay."""
    decay_all: bool = False
    """Decay biases and norm parameters too; they are left out otherwise."""
    clip: float = 0.0
    """Largest norm of the gradient of all parameters together; 0: no limit."""
    clip_each: float = 0.0
    """Largest norm of the gradient of each tensor by itself, as DINO has it; 0: no limit."""
    steady: tuple[str, ...] = ()
    """Parts of the parameters whose learning rate stays at the peak: SimSiam's predictor."""
    average: float = 0.0
    """Decay of a running average of the weights, which evaluation then uses; 0: none."""

    def peak(self, batch_size: int) -> float:
        """Learning rate after scaling to the global batch, in images."""
        factor = {"linear": batch_size / 256, "sqrt": batch_size**0.5, "none": 1.0}
        return float(self.lr * factor[self.scaling])

    def schedule(self, batch_size: int, steps_per_epoch: int) -> optax.Schedule:
        """Learning rate at each step, counted from 0.

        Raises:
          UserError: the warm-up is longer than the run.
        """
        by_step = self.changes == "step"
        each = steps_per_epoch if by_step else 1  # changes in an epoch
        total, warmup = self.epochs * each, round(self.warmup_epochs * each)
        if self.epochs < 1:
            raise UserError(f"optim.epochs={self.epochs}; a run needs at least 1")
        if not by_step and warmup != self.warmup_epochs:
            raise UserError(
                f"optim.warmup_epochs={self.warmup_epochs:g}, and the learning rate changes once "
                f"an epoch; use {warmup}, or --optim.changes step"
            )
        if warmup >= total:
            raise UserError(
                f"optim.warmup_epochs={self.warmup_epochs:g} leaves nothing of "
                f"optim.epochs={self.epochs}; make it smaller, for instance {self.epochs / 10:g}"
            )
        peak = self.peak(batch_size)
        fall, top = self._fall(peak, total - warmup), peak
        if self.fall_from == "start":
            whole = self._fall(peak, total)
            fall, top = lambda step: whole(step + warmup), whole(warmup)
        rising = warmup if self.warmup_end == "after" else max(warmup - 1, 1)
        rise = optax.linear_schedule(self.warmup_from * peak, top, rising)
        rate = optax.join_schedules([rise, fall], [warmup]) if warmup else fall
        return rate if by_step else lambda step: rate(step // steps_per_epoch)

    def _fall(self, peak: float, steps: int) -> optax.Schedule:
        match self.decay:
            case "cosine":
                return optax.cosine_decay_schedule(peak, steps, alpha=self.final)
            case "linear":
                return optax.linear_schedule(peak, self.final * peak, steps)
            case "steps":
                drops = {round(share * steps): self.drop_by for share in self.drop_at}
                return optax.piecewise_constant_schedule(peak, drops)
            case "constant":
                return optax.constant_schedule(peak)

    def transform(
        self, schedule: optax.Schedule, total: int, frozen: tuple[str, ...] = ()
    ) -> optax.GradientTransformation:
        """The optax transformation of gradients into updates.

        Args:
          schedule: learning rate at each step.
          total: steps of the run.
          frozen: top-level names of the parameters that may stand still for a while.
        """
        clip = optax.clip_by_global_norm(self.clip) if self.clip else optax.identity()
        each = clip_each_by_norm(self.clip_each) if self.clip_each else optax.identity()
        at_peak = round(self.warmup_epochs * total / self.epochs)
        peak = self._update(lambda _: schedule(at_peak), total)
        steady = dict.fromkeys(self.steady, peak)
        return optax.chain(clip, each, apart(self._update(schedule, total), frozen, steady))

    def without_decay(self) -> Self:
        """The same optimiser without weight decay."""
        return replace(self, weight_decay=0.0)

    def _update(self, schedule: optax.Schedule, total: int) -> optax.GradientTransformation:
        raise NotImplementedError

    def _decayed(self, params: PyTree) -> PyTree:
        """True where weight decay applies."""
        return everything(params) if self.decay_all else matrices(params)


def matrices(params: PyTree) -> PyTree:
    """True for kernels, False for biases and norm parameters, which have one axis or none."""
    return jax.tree.map(lambda p: jnp.ndim(p) > 1, params)


def everything(params: PyTree) -> PyTree:
    """True for every parameter."""
    return jax.tree.map(lambda _: True, params)


@dataclass(frozen=True)
class LARS(Optim):
    """Layer-wise adaptive SGD: each kernel's step is proportional to its norm.

    Biases and norm parameters take plain momentum steps. With `lr_inside` the learning rate
    enters the momentum, as in SimCLR's code; without, it scales the momentum, as in BYOL, MoCo v3,
    Barlow Twins. The two agree at a constant rate.

    Reference: You et al. 2017, arXiv:1708.03888; google-research/simclr, lars_optimizer.py.
    """

    weight_decay: float = 1e-6
    """Strength of the decay."""
    momentum: float = 0.9
    """Share of the last update that is kept."""
    trust: float = 0.001
    """Step length as a share of the weight norm."""
    lr_inside: bool = True
    """The learning rate enters the momentum, as in SimCLR's code, or scales it."""
    adapt_all: bool = False
    """Adapt the rate of biases and norm parameters too."""
    trust_of: Literal["gradient", "momentum"] = "gradient"
    """Which norm the weight norm is divided by: that of the decayed gradient, before it enters the
    momentum, or that of the momentum's step, as in SimCLR's code without classic momentum; the
    learning rate then scales the momentum."""
    nesterov: bool = False
    """Take each step along the gradient plus the momentum that it has entered."""
    plain: tuple[str, ...] = ()
    """Parts of the parameters, "logits" say, whose kernels take plain momentum steps too. They are
    decayed as all kernels are; in SimCLR's code that decay is part of the loss."""

    def _update(self, schedule: optax.Schedule, total: int) -> optax.GradientTransformation:
        rate = optax.scale_by_learning_rate(schedule)
        adapt = optax.masked(
            optax.scale_by_trust_ratio(trust_coefficient=self.trust), self._adapted
        )
        momentum = optax.trace(self.momentum, self.nesterov)
        order = (adapt, rate, momentum) if self.lr_inside else (adapt, momentum, rate)
        return optax.chain(
            optax.add_decayed_weights(self.weight_decay, mask=self._decayed),
            *((momentum, adapt, rate) if self.trust_of == "momentum" else order),
        )

    def _adapted(self, params: PyTree) -> PyTree:
        """True where the trust ratio applies."""
        mask = everything(params) if self.adapt_all else matrices(params)
        if not self.plain:
            return mask
        return mask | {
            name: jax.tree.map(lambda _: False, mask[name]) for name in self.plain if name in mask
        }


@dataclass(frozen=True)
class LARC(Optim):
    """LARS whose adapted rate never exceeds the learning rate, as solo-learn uses on CIFAR.

    Its trust ratio divides by |g| + wd |w|, a little more than LARS, and a tensor without gradient
    is not decayed. Biases and norm parameters take plain momentum steps without decay, unless
    `adapt_all`. SwAV on ImageNet is `LARC(trust=0.001, clip_rate=False, adapt_all=True)`.

    Reference: NVIDIA Apex LARC; vturrisi/solo-learn, solo/utils/lars.py.
    """

    momentum: float = 0.9
    """Share of the last update that is kept."""
    trust: float = 0.02
    """Step length as a share of the weight norm."""
    adapt_all: bool = False
    """Adapt and decay biases and norm parameters too."""
    clip_rate: bool = True
    """Whether no adapted rate may exceed the learning rate; if not, the two are multiplied."""

    def _update(self, schedule: optax.Schedule, total: int) -> optax.GradientTransformation:
        adapt = scale_by_larc_trust(schedule, self.trust, self.weight_decay, self.clip_rate)
        return optax.chain(
            adapt if self.adapt_all else optax.masked(adapt, matrices),
            optax.trace(self.momentum),
            optax.scale_by_learning_rate(schedule),
        )


@dataclass(frozen=True)
class SGD(Optim):
    """Momentum SGD; weight decay enters the gradient before the momentum, as in PyTorch."""

    momentum: float = 0.9
    """Share of the last update that is kept."""
    nesterov: bool = False
    """Look ahead by the momentum."""

    def _update(self, schedule: optax.Schedule, total: int) -> optax.GradientTransformation:
        return optax.chain(
            optax.add_decayed_weights(self.weight_decay, mask=self._decayed),
            optax.sgd(schedule, momentum=self.momentum, nesterov=self.nesterov),
        )


@dataclass(frozen=True)
class Adam(Optim):
    """Adam whose weight decay enters the gradient, as in PyTorch's Adam."""

    lr: float = 1e-3
    """Base learning rate, before scaling."""
    weight_decay: float = 0.0
    """Strength of the weight decay."""
    b1: float = 0.9
    """Share of the gradients' mean that is kept."""
    b2: float = 0.999
    """Share of their mean square that is kept."""
    eps: float = 1e-8
    """Added to the root of the mean square."""

    def _update(self, schedule: optax.Schedule, total: int) -> optax.GradientTransformation:
        return optax.chain(
            optax.add_decayed_weights(self.weight_decay, mask=self._decayed),
            optax.adam(schedule, self.b1, self.b2, self.eps),
        )


@dataclass(frozen=True)
class AdamW(Optim):
    """Adam with decoupled weight decay."""

    lr: float = 5e-4
    """Base learning rate, before scaling."""
    weight_decay: float = 0.05
    """Strength of the weight decay."""
    final_weight_decay: float | None = None
    """Where the weight decay ends along half a cosine, as DINO has it; None: it stays."""
    b1: float = 0.9
    """Share of the gradients' mean that is kept."""
    b2: float = 0.999
    """Share of their mean square that is kept."""
    eps: float = 1e-8
    """Added to the root of the mean square."""

    def without_decay(self) -> Self:
        return replace(self, weight_decay=0.0, final_weight_decay=None)

    def _update(self, schedule: optax.Schedule, total: int) -> optax.GradientTransformation:
        decay: float | optax.Schedule = self.weight_decay
        if self.final_weight_decay is not None:
            first, last = self.weight_decay, self.final_weight_decay
            decay = lambda step: cosine(Progress(step, total, 1), first, last)
        return optax.adamw(
            schedule, self.b1, self.b2, self.eps, weight_decay=decay, mask=self._decayed
        )


def clip_each_by_norm(limit: float) -> optax.GradientTransformation:
    """Every tensor's gradient, shortened to the norm `limit` where it is longer.

    Reference: facebookresearch/dino, utils.py, clip_gradients.
    """

    def shorten(g: jax.Array) -> jax.Array:
        return g * jnp.minimum(limit / (jnp.linalg.norm(g.ravel()) + 1e-6), 1.0)

    return optax.stateless(lambda grads, _: jax.tree.map(shorten, grads))


def scale_by_larc_trust(
    schedule: optax.Schedule, trust: float, weight_decay: float, clip: bool, eps: float = 1e-8
) -> optax.GradientTransformation:
    """(g + wd w) * r, or with `clip` * min(r / lr, 1), where r = trust |w| / (|g| + wd |w| + eps).

    Tensor by tensor; a tensor or gradient of norm zero is passed on without decay.
    """

    def init(params: PyTree) -> optax.ScaleByScheduleState:
        return optax.ScaleByScheduleState(count=jnp.zeros([], jnp.int32))

    def update(
        grads: PyTree, state: optax.ScaleByScheduleState, params: PyTree | None = None
    ) -> tuple[PyTree, optax.ScaleByScheduleState]:
        rate = jnp.maximum(schedule(state.count), eps)

        def adapt(g: jax.Array, w: jax.Array) -> jax.Array:
            g_norm, w_norm = jnp.linalg.norm(g.ravel()), jnp.linalg.norm(w.ravel())
            ratio = trust * w_norm / (g_norm + weight_decay * w_norm + eps)
            adapted = (g + weight_decay * w) * (jnp.minimum(ratio / rate, 1.0) if clip else ratio)
            return jnp.where((g_norm > 0) & (w_norm > 0), adapted, g)

        return jax.tree.map(adapt, grads, params), optax.ScaleByScheduleState(state.count + 1)

    return optax.GradientTransformation(init, update)
