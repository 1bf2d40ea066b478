"""Optimisers as values: what a config says, and the optax transformation it stands for.

All share one schedule: linear warm-up to the peak, then a cosine, or a line, down to `final` times
the peak, or steps. The peak is `lr` scaled to the batch.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

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
    scaling: Literal["linear", "sqrt", "none"] = "linear"
    """Peak learning rate: lr * batch / 256, lr * sqrt(batch), or lr."""
    decay: Literal["cosine", "linear", "steps", "constant"] = "cosine"
    """How the learning rate falls after the warm-up; steps: to a tenth at 60 % and again at 80 %,
    as in MoCo's first version and InstDisc (epochs 120 and 160 of 200)."""
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
        total, warmup = self.epochs * steps_per_epoch, round(self.warmup_epochs * steps_per_epoch)
        if self.epochs < 1:
            raise UserError(f"optim.epochs={self.epochs}; a run needs at least 1")
        if warmup >= total:
            raise UserError(
                f"optim.warmup_epochs={self.warmup_epochs:g} leaves nothing of "
                f"optim.epochs={self.epochs}; make it smaller, for instance {self.epochs / 10:g}"
            )
        peak = self.peak(batch_size)
        fall = self._fall(peak, total - warmup)
        if not warmup:
            return fall
        rise = optax.linear_schedule(self.warmup_from * peak, peak, warmup)
        return optax.join_schedules([rise, fall], [warmup])

    def _fall(self, peak: float, steps: int) -> optax.Schedule:
        match self.decay:
            case "cosine":
                return optax.cosine_decay_schedule(peak, steps, alpha=self.final)
            case "linear":
                return optax.linear_schedule(peak, self.final * peak, steps)
            case "steps":
                drops = {round(share * steps): 0.1 for share in (0.6, 0.8)}
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
    """Adapt the rate of biases and norm parameters too, as SwAV's code does."""
    plain: tuple[str, ...] = ()
    """Parts of the parameters, "logits" say, whose kernels take plain momentum steps too."""

    def _update(self, schedule: optax.Schedule, total: int) -> optax.GradientTransformation:
        def but_plain(mask: Callable[[PyTree], PyTree]) -> Callable[[PyTree], PyTree]:
            def masked(params: PyTree) -> PyTree:
                whole = mask(params)
                none = {name: jax.tree.map(lambda _: False, whole[name]) for name in self.plain}
                return {**whole, **none} if self.plain else whole

            return masked

        rate = optax.scale_by_learning_rate(schedule)
        adapt = optax.scale_by_trust_ratio(trust_coefficient=self.trust)
        momentum = optax.trace(self.momentum)
        return optax.chain(
            optax.add_decayed_weights(self.weight_decay, mask=but_plain(self._decayed)),
            optax.masked(adapt, but_plain(everything if self.adapt_all else matrices)),
            *((rate, momentum) if self.lr_inside else (momentum, rate)),
        )


@dataclass(frozen=True)
class LARC(Optim):
    """LARS whose adapted rate never exceeds the learning rate, as solo-learn uses on CIFAR.

    Biases and norm parameters take plain momentum steps without decay, unless `adapt_all`.

    Reference: NVIDIA Apex LARC; vturrisi/solo-learn, solo/utils/lars.py.
    """

    momentum: float = 0.9
    """Share of the last update that is kept."""
    trust: float = 0.02
    """Step length as a share of the weight norm."""
    adapt_all: bool = False
    """Adapt and decay biases and norm parameters too."""

    def _update(self, schedule: optax.Schedule, total: int) -> optax.GradientTransformation:
        adapt = scale_by_clipped_trust(schedule, self.trust, self.weight_decay)
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


def scale_by_clipped_trust(
    schedule: optax.Schedule, trust: float, weight_decay: float, eps: float = 1e-8
) -> optax.GradientTransformation:
    """(g + wd w) * min(trust |w| / (|g| + wd |w| + eps) / lr, 1), tensor by tensor.

    A tensor or gradient of norm zero is passed on without decay.
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
            adapted = (g + weight_decay * w) * jnp.minimum(ratio / rate, 1.0)
            return jnp.where((g_norm > 0) & (w_norm > 0), adapted, g)

        return jax.tree.map(adapt, grads, params), optax.ScaleByScheduleState(state.count + 1)

    return optax.GradientTransformation(init, update)
