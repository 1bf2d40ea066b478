"""The reductions over pairs, beside the same as loops in float64; values and gradients.

`CASES` maps a name to the numbers that are differentiated, the library's function of them, and the
loop's.
"""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np

from jaxcl.similarity import logsumexp_among, logsumexp_both, logsumexp_pairs, softplus_pairs

N, M, D = 11, 13, 4
RNG = np.random.default_rng(0)
Q, K = RNG.normal(size=(N, D)), RNG.normal(size=(M, D))
Q_IDS, K_IDS = RNG.integers(0, 6, N), RNG.integers(0, 6, M)
Q_GROUPS, K_GROUPS = RNG.integers(0, 2, N), RNG.integers(0, 2, M)
Q_BIAS, K_BIAS = RNG.normal(size=N), RNG.normal(size=M)
# Second views of the same examples.
Q_TWINS, K_TWINS = 0.5 * RNG.normal(size=(N, D)), 3 * RNG.normal(size=(M, D))
Q_TWINS[4] = 0
Q_BIAS[2] = K_BIAS[3] = K_BIAS[12] = -np.inf
WEIGHTS = RNG.normal(size=M)
# One exponential a pair is enough, and it is not, for either sign.
SCALES = {"small": 1.5, "large": 30.0, "negative": -30.0}


def seen(q, k, scale, bias, q_ids, k_ids, q_groups=None, k_groups=None):
    """The logits of each query, of the keys that it sees."""
    for i in range(len(q)):
        keys = [j for j in range(len(k)) if q_ids[i] != k_ids[j] and np.isfinite(bias[j])]
        if q_groups is not None:
            keys = [j for j in keys if q_groups[i] == k_groups[j]]
        yield np.array([scale * q[i] @ k[j] + bias[j] for j in keys])


def lse(*arguments):
    logits = list(seen(*arguments))
    return np.array([x.max() + np.log(np.exp(x - x.max()).sum()) for x in logits])


def unit(x):
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)


def twice(*marks):
    """Ids, groups or biases of the rows of two views, one after the other."""
    return (np.concatenate([x, x]) for x in marks)


def softplus(*arguments):
    return np.array([np.logaddexp(0, x).sum() for x in seen(*arguments)])


def among_views(a, b, scale, bias):
    z = np.concatenate([a, b])
    bias, ids, groups = twice(bias, K_IDS, K_GROUPS)
    return lse(z, z, scale, bias, ids, ids, groups, groups)


def both_of_views(rows, columns):
    return WEIGHTS[:N] @ rows[0] - WEIGHTS[-N:] @ rows[1] + WEIGHTS @ columns


def loop_of_views(scale, a, b, k, of_q, of_k):
    z = np.concatenate([a, b])
    bias, ids = twice(of_q, Q_IDS)
    rows, columns = lse(z, k, scale, of_k, ids, K_IDS), lse(k, z, scale, bias, K_IDS, ids)
    return both_of_views((rows[:N], rows[N:]), columns)


# By name: numbers that are differentiated, the library's function of them, and the loop's. Each is
# a weighted sum of what the reduction returns, so that every row has a gradient of its own.
CASES = {
    "pairs": (
        (Q, K, K_BIAS),
        lambda scale, q, k, bias, **how: (
            WEIGHTS[:N]
            @ logsumexp_pairs(q, k, scale=scale, q_ids=Q_IDS, k_ids=K_IDS, bias=bias, **how)
        ),
        lambda scale, q, k, bias: WEIGHTS[:N] @ lse(q, k, scale, bias, Q_IDS, K_IDS),
    ),
    "both": (
        (Q, K, Q_BIAS, K_BIAS),
        lambda scale, q, k, b, c, **how: sum(
            WEIGHTS[: len(x)] @ x
            for x in logsumexp_both(
                q, k, scale=scale, q_ids=Q_IDS, k_ids=K_IDS, q_bias=b, k_bias=c, **how
            )
        ),
        lambda scale, q, k, b, c: (
            WEIGHTS[:N] @ lse(q, k, scale, c, Q_IDS, K_IDS)
            + WEIGHTS @ lse(k, q, scale, b, K_IDS, Q_IDS)
        ),
    ),
    "among": (
        (K, K_BIAS),
        lambda scale, z, b, **how: (
            WEIGHTS @ logsumexp_among(z, scale=scale, ids=K_IDS, groups=K_GROUPS, bias=b, **how)
        ),
        lambda scale, z, b: WEIGHTS @ lse(z, z, scale, b, K_IDS, K_IDS, K_GROUPS, K_GROUPS),
    ),
    "directions": (
        (Q, K, K_BIAS),
        lambda scale, q, k, bias, **how: (
            WEIGHTS[:N]
            @ logsumexp_pairs(
                q,
                k,
                scale=scale,
                q_groups=Q_GROUPS,
                k_groups=K_GROUPS,
                bias=bias,
                normalize=True,
                **how,
            )
        ),
        lambda scale, q, k, bias: (
            WEIGHTS[:N]
            @ lse(
                unit(q),
                unit(k),
                scale,
                bias,
                np.arange(N),
                -np.arange(1, M + 1),
                Q_GROUPS,
                K_GROUPS,
            )
        ),
    ),
    "views": (
        (K, K_TWINS, K_BIAS),
        lambda scale, a, b, bias, **how: sum(
            weights @ x
            for weights, x in zip(
                (WEIGHTS, WEIGHTS[::-1]),
                logsumexp_among(
                    (a, b),
                    scale=scale,
                    ids=K_IDS,
                    groups=K_GROUPS,
                    bias=bias,
                    normalize=True,
                    **how,
                ),
                strict=True,
            )
        ),
        lambda scale, a, b, bias: (
            np.concatenate([WEIGHTS, WEIGHTS[::-1]]) @ among_views(unit(a), unit(b), scale, bias)
        ),
    ),
    "views of both": (
        (Q, Q_TWINS, K, Q_BIAS, K_BIAS),
        lambda scale, a, b, k, of_q, of_k, **how: both_of_views(
            *logsumexp_both(
                (a, b), k, scale=scale, q_ids=Q_IDS, k_ids=K_IDS, q_bias=of_q, k_bias=of_k, **how
            )
        ),
        lambda scale, a, b, k, of_q, of_k: loop_of_views(scale, a, b, k, of_q, of_k),
    ),
    "softplus": (
        (Q, K, K_BIAS),
        lambda scale, q, k, bias, **how: (
            WEIGHTS[:N]
            @ softplus_pairs(q, k, scale=scale, q_ids=Q_IDS, k_ids=K_IDS, bias=bias, **how)
        ),
        lambda scale, q, k, bias: WEIGHTS[:N] @ softplus(q, k, scale, bias, Q_IDS, K_IDS),
    ),
}


def differences(function, arguments, step=1e-5):
    """Gradient of each argument by central differences; 0 where it is infinite."""
    found = []
    for number, x in enumerate(arguments):
        slope = np.zeros(np.shape(x))
        for place in np.ndindex(np.shape(x)):
            if not np.isfinite(np.asarray(x)[place]):
                continue
            values = []
            for sign in (step, -step):
                moved = np.array(x, np.float64)
                moved[place] += sign
                values.append(function(*arguments[:number], moved, *arguments[number + 1 :]))
            slope[place] = (values[0] - values[1]) / (2 * step)
        found.append(slope)
    return found


@cache
def by_hand(name):
    """Value and gradients of a case's loop, per size of the logits."""
    args, _, function = CASES[name]
    return {
        size: (function(scale, *args), differences(function, (scale, *args)))
        for size, scale in SCALES.items()
    }


def compare(name, **how):
    """The library's value and gradients, compiled once, against the loop at all sizes."""
    args, function, _ = CASES[name]
    numbers = tuple(range(len(args) + 1))
    compiled = jax.jit(jax.value_and_grad(partial(function, **how), argnums=numbers))
    for size, scale in SCALES.items():
        value, gradients = compiled(jnp.float32(scale), *(jnp.array(x, jnp.float32) for x in args))
        expected, slopes = by_hand(name)[size]
        np.testing.assert_allclose(value, expected, rtol=2e-6, atol=1e-5)
        for gradient, slope in zip(gradients, slopes, strict=True):
            largest = np.abs(slope).max()
            np.testing.assert_allclose(gradient, slope, rtol=0, atol=2e-5 * largest + 1e-6)
