"""Linear probes on frozen features: logistic regression to its optimum, and the SGD protocol.

Both standardise the features by the training rows: the mean is taken off, and everything is divided
by one number, the root mean square of what is left. One range of penalties or learning rates then
suits encoders whose features differ a thousandfold in scale. It is one number and not one for each
dimension, because that would blow up dimensions that hardly ever move, and with few labels costs
(digits, pixels, one label a class: 66 % against 60 %). No label and no test row enters it.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxcl.errors import UserError
from jaxcl.evaluate.subsets import at_most, balanced_split
from jaxcl.typing import Array, Float, Int, Key, NumpyArray, PyTree

STEPS_PER_DECADE = 8
DECADES = 6
"""Strengths searched: 1e-6 to 1e6, eight a decade, as CLIP's linear probe does."""
TOLERANCE = 1e-5
"""Largest gradient at which L-BFGS stops; at 1e-4 a few predictions still depend on the start."""
THREADED_SIZE = 2**21
"""Numbers in the features below which L-BFGS runs on one thread: more only wait for each other
there, and on a busy machine cost tens of times what they save."""


@dataclass(frozen=True, eq=False)
class LogisticProbe:
    """What a logistic regression on frozen features reached."""

    accuracy: float
    """Share of test rows classified rightly, percent."""
    predictions: Int[NumpyArray, "m"]
    """[m] int32 class ids of the test rows."""
    C: float
    """Inverse strength of the L2 penalty that was used, in scikit-learn's scale."""


@dataclass(frozen=True, eq=False)
class SGDProbe:
    """What the best of many linear heads, trained by SGD on frozen features, reached."""

    accuracy: float
    """Share of test rows classified rightly, percent."""
    predictions: Int[NumpyArray, "m"]
    """[m] int32 class ids of the test rows."""
    lr: float
    """Learning rate of the chosen head."""
    wd: float
    """Weight decay of the chosen head."""


def logistic_probe(
    train_x: Float[NumpyArray, "n d"],
    train_y: Int[NumpyArray, "n"],
    test_x: Float[NumpyArray, "m d"],
    test_y: Int[NumpyArray, "m"],
    *,
    C: float | None = None,
    standardize: bool = True,
    max_iter: int = 1000,
    seed: int = 0,
) -> LogisticProbe:
    """Multinomial logistic regression fitted by L-BFGS, the bias unpenalised (scikit-learn).

    Minimises `|W|^2 / 2 + C * sum of cross-entropies`: convex, so the start does not matter.

    Args:
      train_x: [n, d] features to fit on.
      train_y: [n] class ids.
      test_x: [m, d] features to score on.
      test_y: [m] class ids; used for the accuracy only.
      C: inverse penalty. None: chosen among 97 values from 1e-6 to 1e6 by a coarse-to-fine search
        on a held-out, class-balanced fifth of `train`, then all of `train` is fitted with it.
      standardize: take off the mean of `train_x` and divide by one common scale.
      max_iter: bound on the L-BFGS iterations; the search stops each fit after a tenth of it.
      seed: of the held-out fifth.

    Returns:
      accuracy in percent, predictions and C.

    Raises:
      UserError: one class only, or C=None and no class with two examples.

    Reference: Radford et al. 2021, arXiv:2103.00020, appendix A.3 (the search).
    """
    train_x, train_y, test_x, test_y = _checked(train_x, train_y, test_x, test_y)
    if standardize:
        train_x, test_x = standardized(train_x, test_x)
    if C is None:
        C = _search_strength(train_x, train_y, max(1, max_iter // 10), seed)
    predictions = _fit_logistic(train_x, train_y, C, max_iter).predict(test_x).astype(np.int32)
    return LogisticProbe(_percent(predictions == test_y), predictions, C)


def sgd_probe(
    train_x: Float[NumpyArray, "n d"],
    train_y: Int[NumpyArray, "n"],
    test_x: Float[NumpyArray, "m d"],
    test_y: Int[NumpyArray, "m"],
    *,
    learning_rates: Sequence[float] = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3),
    weight_decays: Sequence[float] = (0.0, 1e-4, 1e-2),
    epochs: int = 100,
    batch_size: int = 256,
    search_rows: int = 10_000,
    seed: int = 0,
) -> SGDProbe:
    """Linear heads trained by SGD, every learning rate with every weight decay at the same time.

    Nesterov momentum 0.9, cosine to zero, no warm-up, zero-initialised heads, weight decay on the
    weights only. The pair with the highest accuracy on a held-out, class-balanced fifth of `train`
    is chosen (the first of equals) among heads trained on the rest of it, or on `search_rows` rows
    of that; a head with it is then trained on all of `train` and scored.

    Args:
      train_x: [n, d] features to fit on.
      train_y: [n] class ids.
      test_x: [m, d] features to score on.
      test_y: [m] class ids; used for the accuracy only.
      learning_rates: tried at this batch size, unscaled.
      weight_decays: tried with each.
      epochs: passes over the rows, each in a new order.
      batch_size: rows a step; capped at the rows there are. The last part-batch is dropped.
      search_rows: rows, drawn at random, that the pairs are tried on at most.
      seed: of the held-out fifth and of the order.

    Returns:
      accuracy in percent, predictions, and the chosen learning rate and weight decay.

    Raises:
      UserError: one class only, or no class with two examples.

    Reference: Chen et al. 2020, arXiv:2002.05709, appendix B.6.
    """
    train_x, train_y, test_x, test_y = _checked(train_x, train_y, test_x, test_y)
    classes = int(train_y.max()) + 1
    fit, held = balanced_split(train_y, seed=seed)
    grid = [(lr, wd) for lr in learning_rates for wd in weight_decays]

    def predict(
        fit_x: NumpyArray, fit_y: NumpyArray, x: NumpyArray, settings: list[tuple[float, float]]
    ) -> NumpyArray:
        fit_x, x = standardized(fit_x, x)
        predictions = _train_heads(
            jnp.asarray(fit_x, jnp.float32),
            jnp.asarray(fit_y),
            jnp.asarray(x, jnp.float32),
            jnp.asarray(settings, jnp.float32),
            jax.random.key(seed),
            classes=classes,
            epochs=epochs,
            batch_size=min(batch_size, len(fit_x)),
        )
        return np.asarray(predictions)

    tried = fit[at_most(search_rows, len(fit), seed=seed)]
    held_predictions = predict(train_x[tried], train_y[tried], train_x[held], grid)
    best = int(np.argmax(np.mean(held_predictions == train_y[held], axis=1)))
    predictions = predict(train_x, train_y, test_x, [grid[best]])[0]
    return SGDProbe(_percent(predictions == test_y), predictions, *grid[best])


@partial(jax.jit, static_argnames=("classes", "epochs", "batch_size"))
def _train_heads(
    train_x: Float[Array, "n d"],
    train_y: Int[Array, "n"],
    x: Float[Array, "m d"],
    settings: Float[Array, "h 2"],
    key: Key,
    *,
    classes: int,
    epochs: int,
    batch_size: int,
) -> Int[Array, "h m"]:
    """Predictions for `x` of one head for each (learning rate, weight decay) of `settings`."""
    batches = len(train_x) // batch_size

    def loss(head: dict[str, Array], rows: Array) -> Array:
        logits = jnp.matmul(train_x[rows], head["w"], precision="highest") + head["b"]
        return jnp.mean(
            optax.losses.softmax_cross_entropy_with_integer_labels(logits, train_y[rows])
        )

    def train(lr: Array, wd: Array) -> dict[str, Array]:
        schedule = optax.schedules.cosine_decay_schedule(lr, epochs * batches)
        optimiser = optax.chain(
            optax.add_decayed_weights(wd, mask={"w": True, "b": False}),
            optax.sgd(schedule, momentum=0.9, nesterov=True),
        )

        def step(carry: PyTree, rows: Array) -> tuple[PyTree, None]:
            head, state = carry
            updates, state = optimiser.update(jax.grad(loss)(head, rows), state, head)
            return (optax.apply_updates(head, updates), state), None

        def epoch(carry: PyTree, key: Key) -> tuple[PyTree, None]:
            order = jax.random.permutation(key, len(train_x))[: batches * batch_size]
            return jax.lax.scan(step, carry, order.reshape(batches, batch_size))

        head = {
            "w": jnp.zeros((train_x.shape[1], classes), train_x.dtype),
            "b": jnp.zeros(classes, train_x.dtype),
        }
        carry = (head, optimiser.init(head))
        (head, _), _ = jax.lax.scan(epoch, carry, jax.random.split(key, epochs))
        trained: dict[str, Array] = head
        return trained

    # The rows of a batch are the same for every head, so vmap turns their products into one.
    heads = jax.vmap(train)(settings[:, 0], settings[:, 1])
    logits = jnp.einsum("md,hdc->hmc", x, heads["w"], precision="highest")
    logits = logits + heads["b"][:, None]
    return jnp.argmax(logits, axis=2).astype(jnp.int32)


def _search_strength(x: NumpyArray, y: NumpyArray, max_iter: int, seed: int) -> float:
    """The C = 10 ** (i / 8) with the best held-out accuracy, the smallest of equals."""
    fit, held = balanced_split(y, seed=seed)
    limit = STEPS_PER_DECADE * DECADES
    scores: dict[int, float] = {}

    def best_of(candidates: Sequence[int]) -> int:
        for i in candidates:
            if i not in scores and abs(i) <= limit:
                model = _fit_logistic(x[fit], y[fit], 10 ** (i / STEPS_PER_DECADE), max_iter)
                scores[i] = float(np.mean(model.predict(x[held]) == y[held]))
        return min(scores, key=lambda i: (-scores[i], i))

    step = 2 * STEPS_PER_DECADE
    best = best_of(range(-limit, limit + 1, step))
    while step > 1:
        step //= 2
        best = best_of((best - step, best + step))
    return float(10 ** (best / STEPS_PER_DECADE))


def _fit_logistic(x: NumpyArray, y: NumpyArray, C: float, max_iter: int) -> Any:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    threads = 1 if x.size < THREADED_SIZE else None
    with threadpool_limits(threads), warnings.catch_warnings():
        # Weakly penalised fits of separable classes crawl on long after the predictions stand.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return LogisticRegression(C=C, max_iter=max_iter, tol=TOLERANCE).fit(x, y)


def _checked(
    train_x: NumpyArray, train_y: NumpyArray, test_x: NumpyArray, test_y: NumpyArray
) -> tuple[NumpyArray, NumpyArray, NumpyArray, NumpyArray]:
    """The arrays on the host, features in float64; a UserError where nothing can be learnt."""
    train_y, test_y = np.asarray(train_y), np.asarray(test_y)
    found = np.unique(train_y)
    if len(found) < 2:
        raise UserError(
            f"train_y holds {len(found)} class{'es' * (len(found) != 1)} {found.tolist()}; "
            f"a probe needs examples of at least two"
        )
    return np.asarray(train_x, np.float64), train_y, np.asarray(test_x, np.float64), test_y


def standardized(train_x: NumpyArray, test_x: NumpyArray) -> tuple[NumpyArray, NumpyArray]:
    """Both less the mean of the training rows, over the root mean square of those that leaves."""
    mean = train_x.mean(axis=0)
    scale = np.sqrt(np.mean((train_x - mean) ** 2))
    scale = scale if scale > 0 else 1.0
    return (train_x - mean) / scale, (test_x - mean) / scale


def _percent(right: NumpyArray) -> float:
    return 100 * float(np.mean(right))
