"""Every loss of two views, beside the same equation as loops in float64.

`CASES` maps a name to the library's function of two [n, d] arrays and to the loop's. Labels, queues
and prototypes are fixed and the same for both.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from golden import matrix

from jaxcl import losses
from jaxcl.losses.rows import as_rows

D = 5
LABELS = np.array([0, 1, 0, 2, 1, 0, 2, 3])
QUEUE = matrix(3.1, 6, D)
QUEUE_LABELS = np.array([0, 1, 0, -1, 0, 2])
CENTRES = matrix(2.2, 3, D)
PHI = np.array([0.1, 0.3, 0.2])
SHARES = np.array([1.0, 0.7, 0.6, 0.9, 0.5, 0.8, 0.55, 0.65])


class Case(NamedTuple):
    """A loss and its loop."""

    library: object
    by_hand: object


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def lse(logits):
    peak = np.max(logits)
    return peak + np.log(np.sum(np.exp(np.asarray(logits) - peak)))


def loop(rows, terms):
    """Mean of `terms(i)` over rows."""
    return np.mean([terms(i) for i in range(rows)])


def pick(q, keys, own, t, extra=()):
    """Cross-entropy of key `own` among keys, further logits beside them."""
    logits = [q @ key / t for key in keys]
    return lse([*logits, *extra]) - logits[own]


def info_nce(a, b, t=0.1):
    a, b = unit(a), unit(b)
    return loop(len(a), lambda i: pick(a[i], b, i, t))


def moco(a, b, t=0.07):
    a, b, queue = unit(a), unit(b), unit(QUEUE)
    return loop(len(a), lambda i: pick(a[i], [b[i], *queue], 0, t))


def nt_xent(a, b, t=0.5):
    z, n = np.concatenate([unit(a), unit(b)]), len(a)

    def term(i):
        others = [j for j in range(2 * n) if j != i]
        return pick(z[i], z[others], others.index((i + n) % (2 * n)), t)

    return loop(2 * n, term)


def nt_xent_queue(a, b, t=0.5, shown=4):
    """Two of the queue's six rows are hidden."""
    z, queue, n = np.concatenate([unit(a), unit(b)]), unit(QUEUE)[:shown], len(a)

    def term(i):
        others = [j for j in range(2 * n) if j != i]
        own = others.index((i + n) % (2 * n))
        return pick(z[i], z[others], own, t, [z[i] @ row / t for row in queue])

    return loop(2 * n, term)


def simcse_hard(a, b, t=0.05, weight=0.3):
    x, y, hard = unit(a), unit(b), unit(np.roll(b, 1, axis=0) + a)

    def term(i):
        extra = [x[i] @ h / t + weight * (i == j) for j, h in enumerate(hard)]
        return pick(x[i], y, i, t, extra)

    return loop(len(a), term)


def sup_con(a, b, t=0.1, form="out", anchors=None):
    z, labels = np.concatenate([unit(a), unit(b)]), np.tile(LABELS[: len(a)], 2)

    def term(i):
        s = z @ z[i] / t
        all_rows = [j for j in range(len(z)) if j != i]
        positives = [j for j in all_rows if labels[j] == labels[i]]
        if not positives:
            return 0.0
        if form == "out":
            return lse(s[all_rows]) - np.mean(s[positives])
        return lse(s[all_rows]) - lse(s[positives]) + np.log(len(positives))

    return loop(anchors or len(z), term)


def negatives_of(z, n, i):
    return [j for j in range(2 * n) if j % n != i % n]


def decoupled(a, b, t=0.1, both=True, sigma=None):
    z, n = np.concatenate([unit(a), unit(b)]), len(a)
    cosines = np.sum(z[:n] * z[n:], axis=1)
    weights = np.ones(n)
    if sigma:
        weights = 2 - n * np.exp(cosines / sigma) / np.sum(np.exp(cosines / sigma))

    def term(i):
        return lse(z[negatives_of(z, n, i)] @ z[i] / t) - weights[i % n] * cosines[i % n] / t

    return loop(2 * n if both else n, term)


def siglip(a, b, scale=10.0, bias=-10.0):
    x, y = unit(a), unit(b)

    def term(i):
        signs = np.where(np.arange(len(y)) == i, 1, -1)
        return np.sum(np.logaddexp(0, -signs * (scale * y @ x[i] + bias)))

    return loop(len(x), term)


def uniformity(x, t=2):
    x = unit(x)
    pairs = [(i, j) for i in range(len(x)) for j in range(i)]
    return np.log(np.mean([np.exp(-t * np.sum((x[i] - x[j]) ** 2)) for i, j in pairs]))


def alignment(a, b, alpha=2):
    return np.mean(np.linalg.norm(unit(a) - unit(b), axis=1) ** alpha)


def hard_negatives(a, b, t=0.5, beta=1.0, tau_plus=0.1):
    z, n = np.concatenate([unit(a), unit(b)]), len(a)

    def term(i):
        own = np.exp(z[i] @ z[(i + n) % (2 * n)] / t)
        e = np.exp(z[negatives_of(z, n, i)] @ z[i] / t)
        w = e**beta
        count = 2 * n - 2
        r = np.sum(w * e) / np.mean(w)
        ng = max((r - count * tau_plus * own) / (1 - tau_plus), count * np.exp(-1 / t))
        return -np.log(own / (own + ng))

    return loop(2 * n, term)


def k_positive(a, b, t=0.07, count=2):
    q, k, queue = unit(a), unit(b), unit(QUEUE)

    def term(i):
        keys = [k[i], *queue]
        alike = [1 + j for j in range(len(queue)) if QUEUE_LABELS[j] == LABELS[i]][:count]
        return np.mean([pick(q[i], keys, p, t) for p in [0, *alike]])

    return loop(len(q), term)


def proto_nce(a, b):
    q, centres = unit(a), unit(CENTRES)

    def term(i):
        logits = centres @ q[i] / PHI
        return lse(logits) - logits[i % 3]

    return loop(len(q), term)


def class_conditional(a, b, t=0.5):
    x, e, labels = unit(a), unit(b), LABELS[: len(a)]

    def term(i):
        own = x[i] @ e[i] / t
        others = [j for j in range(len(x)) if j != i]
        alike = [x[i] @ x[j] / t for j in others if labels[j] == labels[i]]
        return lse([own, *(x[i] @ x[j] / t for j in others)]) - lse([own, *alike])

    return loop(len(x), term)


def invariant_spread(a, b, t=0.1, m=1.0):
    z, n = np.concatenate([unit(a), unit(b)]), len(a)

    def term(i):
        e = np.exp(z @ z[i] / t)
        own = (i + n) % (2 * n)
        rest = [j for j in range(2 * n) if j not in (i, own)]
        total = e[own] + m * np.sum(e[rest])
        return -np.log(e[own] / total) - m * np.sum(np.log(1 - e[rest] / total))

    return loop(2 * n, term)


def pair_contrastive(a, b, margin=1.0):
    similar = np.arange(len(a)) % 2 == 0

    def term(i):
        d = np.linalg.norm(a[i] - b[i])
        return d**2 / 2 if similar[i] else max(0, margin - d) ** 2 / 2

    return loop(len(a), term)


def batch_contrastive(a, b, near=0.0, far=1.0, only_active=True, normalize=True):
    z, labels = np.concatenate([a, b]), np.tile(LABELS[: len(a)], 2)
    z = unit(z) if normalize else z
    pulls, pushes = [], []
    for i, j in np.ndindex(len(z), len(z)):
        d = np.linalg.norm(z[i] - z[j])
        if labels[i] != labels[j]:
            pushes.append(max(0, far - d))
        elif i != j:
            pulls.append(max(0, d - near))
    if only_active:
        pulls, pushes = ([x for x in terms if x > 0] for terms in (pulls, pushes))
    return sum(np.mean(terms) for terms in (pulls, pushes) if terms)


def triplet(a, b, margin=0.2, squared=True):
    power = 2 if squared else 1

    def term(i):
        near = np.linalg.norm(a[i] - b[i]) ** power
        return max(0, near - np.linalg.norm(a[i] - b[i - 1]) ** power + margin)

    return loop(len(a), term)


def batch_triplet(a, b, mining="all", margin=0.2, squared=True):
    z, labels = np.concatenate([a, b]), np.tile(LABELS[: len(a)], 2)
    d = np.array([[np.linalg.norm(x - y) ** (2 if squared else 1) for y in z] for x in z])
    gaps = []
    for i in range(len(z)):
        positives = [j for j in range(len(z)) if j != i and labels[j] == labels[i]]
        negatives = [j for j in range(len(z)) if labels[j] != labels[i]]
        if not positives or not negatives:
            continue
        if mining == "hard":
            gaps.append(max(d[i, positives]) - min(d[i, negatives]))
            continue
        for p in positives:
            if mining == "all":
                gaps += [d[i, p] - d[i, n] for n in negatives]
            else:
                beyond = [d[i, n] for n in negatives if d[i, n] > d[i, p]]
                gaps.append(d[i, p] - (min(beyond) if beyond else max(d[i, negatives])))
    if margin is None:
        return np.mean(np.logaddexp(0, gaps))
    return np.mean([max(0, gap + margin) for gap in gaps])


def nce(a, b, z=1e4):
    ids = np.array([[0, 3, 5, 9], [1, 0, 7, 2], [2, 8, 8, 4], [3, 1, 6, 0]])
    scores = np.einsum("nd,nkd->nk", unit(a)[:4], unit(matrix(4, 10, D))[ids]) / 0.07
    h = np.exp(scores) / z / (np.exp(scores) / z + 3 / 10 + 1e-7)
    noise = 0.3 / (np.exp(scores) / z + 0.3 + 1e-7)
    return -np.mean(np.log(h[:, 0]) + np.sum(np.log(noise[:, 1:]), axis=1))


def library_nce(a, b):
    ids = np.array([[0, 3, 5, 9], [1, 0, 7, 2], [2, 8, 8, 4], [3, 1, 6, 0]])
    bank = unit(matrix(4, 10, D))[ids]
    scores = jnp.einsum("nd,nkd->nk", as_rows(a[:4], True), bank, precision="highest") / 0.07
    return losses.nce(scores, log_z=np.log(1e4), noise=0.1, eps=1e-7)


def barlow_twins(a, b, weight=0.0051):
    a, b = ((x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5) for x in (a, b))
    total = 0
    for i in range(a.shape[1]):
        for j in range(b.shape[1]):
            c = np.mean(a[:, i] * b[:, j])
            total += (c - 1) ** 2 if i == j else weight * c**2
    return total


def vicreg(a, b):
    value = 25 * np.mean((a - b) ** 2)
    for x in (a, b):
        deviation = np.sqrt(x.var(0, ddof=1) + 1e-4)
        value += 25 * np.mean(np.maximum(0, 1 - deviation)) / 2
        c = np.cov(x.T)
        value += (np.sum(c**2) - np.sum(np.diag(c) ** 2)) / x.shape[1]
    return value


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def sinkhorn(scores, epsilon=0.5, iterations=3):
    q = np.exp(scores / epsilon).T
    q /= q.sum()
    for _ in range(iterations):
        q /= q.sum(1, keepdims=True) * len(q)
        q /= q.sum(0, keepdims=True) * q.shape[1]
    return (q * q.shape[1]).T


CODES = sinkhorn(unit(matrix(0.9, 8, D)) @ unit(CENTRES).T)


def swapped(a, b, t=0.1):
    scores = [unit(x) @ unit(CENTRES).T for x in (a, b)]
    codes = CODES[: len(a)]  # fixed: no gradient flows through them
    terms = [-np.mean(np.sum(codes * np.log(softmax(s / t)), axis=1)) for s in scores]
    return np.mean(terms)


def library_swapped(a, b):
    centres = unit(CENTRES).T
    scores = [jnp.matmul(as_rows(x, True), centres, precision="highest") for x in (a, b)]
    return losses.swapped_prediction(scores, [CODES[: len(a)]] * 2, temperature=0.1)


TEACHER = matrix(0.4, 8, D)


def dino(a, b):
    teacher = softmax((TEACHER[: len(a)] - 0.1) / 0.04)
    logs = [np.log(softmax(x / 0.1)) for x in (a, b)]
    return np.mean([-np.mean(np.sum(teacher * x, axis=1)) for x in logs[::-1]])


def library_dino(a, b):
    centre = np.full(D, 0.1)
    return losses.dino([a, b], [TEACHER[: len(a)]] * 2, centre)


def distillation(a, b, t=2.0):
    teacher = softmax(TEACHER[: len(a)] / t)
    return -(t**2) * np.mean(np.sum(teacher * np.log(softmax(a / t)), axis=1))


def partners_of(n):
    """One's successor, who has another partner: the permutation is not its own inverse."""
    return (np.arange(n) + 1) % n


def i_mix(a, b, t=0.2):
    q, k, queue, n = unit(a), unit(b), unit(QUEUE), len(a)
    partners = partners_of(n)

    def term(i):
        keys = [*k, *queue]
        own, other = pick(q[i], keys, i, t), pick(q[i], keys, partners[i], t)
        return SHARES[i] * own + (1 - SHARES[i]) * other

    return loop(n, term)


def i_mix_byol(a, b):
    q, k = unit(a), unit(b)
    keys = k[partners_of(len(q))]
    return loop(
        len(q), lambda i: 2 - 2 * (SHARES[i] * q[i] @ k[i] + (1 - SHARES[i]) * q[i] @ keys[i])
    )


def smooth_l1(a, b, beta=2.0):
    r = np.abs(a - 3 * b)
    return np.mean(np.where(r < beta, r**2 / (2 * beta), r - beta / 2))


def both_views(loss, **options):
    """A loss of rows and labels, of both views together."""
    return lambda a, b: loss(jnp.concatenate([a, b]), jnp.tile(LABELS[: len(a)], 2), **options)


CASES = {
    "info_nce": Case(lambda a, b: losses.info_nce(a, b, temperature=0.1), info_nce),
    "clip": Case(
        lambda a, b: losses.clip_loss(a, b, scale=10.0),
        lambda a, b: (info_nce(a, b) + info_nce(b, a)) / 2,
    ),
    "moco": Case(lambda a, b: losses.info_nce(a, b, QUEUE, temperature=0.07, in_batch=False), moco),
    "nt_xent": Case(lambda a, b: losses.nt_xent(a, b, temperature=0.5), nt_xent),
    "nt_xent_queue": Case(
        lambda a, b: losses.nt_xent(a, b, QUEUE, temperature=0.5, shown=np.arange(6) < 4),
        nt_xent_queue,
    ),
    "simcse_hard": Case(
        lambda a, b: losses.simcse(a, b, jnp.roll(b, 1, axis=0) + a, hard_weight=0.3), simcse_hard
    ),
    "sup_con_out": Case(both_views(losses.sup_con, temperature=0.1), sup_con),
    "sup_con_in": Case(
        both_views(losses.sup_con, temperature=0.1, form="in"),
        lambda a, b: sup_con(a, b, form="in"),
    ),
    "sup_con_first_out": Case(
        both_views(losses.sup_con, temperature=0.1, anchors=5),
        lambda a, b: sup_con(a, b, anchors=5),
    ),
    "sup_con_first_in": Case(
        both_views(losses.sup_con, temperature=0.1, anchors=5, form="in"),
        lambda a, b: sup_con(a, b, anchors=5, form="in"),
    ),
    "decoupled": Case(lambda a, b: losses.decoupled(a, b, temperature=0.1), decoupled),
    "decoupled_one_way": Case(
        lambda a, b: losses.decoupled(a, b, temperature=0.1, both_ways=False),
        lambda a, b: decoupled(a, b, both=False),
    ),
    "decoupled_weighted": Case(
        lambda a, b: losses.decoupled(
            a, b, temperature=0.1, both_ways=False, sigma=0.5, stop_weights=False
        ),
        lambda a, b: decoupled(a, b, both=False, sigma=0.5),
    ),
    "siglip": Case(lambda a, b: losses.siglip(a, b, scale=10.0, bias=-10.0), siglip),
    "alignment": Case(losses.alignment, alignment),
    "alignment_1": Case(
        lambda a, b: losses.alignment(a, b, alpha=1), lambda a, b: alignment(a, b, 1)
    ),
    "sphere": Case(
        losses.alignment_and_uniformity,
        lambda a, b: alignment(a, b) + (uniformity(a) + uniformity(b)) / 2,
    ),
    "hard_negatives": Case(
        lambda a, b: losses.hard_negatives(a, b, temperature=0.5), hard_negatives
    ),
    "debiased": Case(
        lambda a, b: losses.debiased(a, b, temperature=0.5, tau_plus=0.05),
        lambda a, b: hard_negatives(a, b, beta=0, tau_plus=0.05),
    ),
    "k_positive": Case(
        lambda a, b: losses.k_positive(
            a, b, QUEUE, LABELS[: len(a)], QUEUE_LABELS, positives=2, temperature=0.07
        ),
        k_positive,
    ),
    "proto_nce": Case(
        lambda a, b: losses.proto_nce_sum(a, [(CENTRES, np.arange(len(a)) % 3, PHI)]), proto_nce
    ),
    "class_conditional": Case(
        lambda a, b: losses.class_conditional(a, b, LABELS[: len(a)], temperature=0.5),
        class_conditional,
    ),
    "invariant_spread": Case(
        lambda a, b: losses.invariant_spread(a, b, stop_keys=False), invariant_spread
    ),
    "invariant_spread_2": Case(
        lambda a, b: losses.invariant_spread(a, b, spread=2.0, stop_keys=False),
        lambda a, b: invariant_spread(a, b, m=2.0),
    ),
    "pair_contrastive": Case(
        lambda a, b: losses.pair_contrastive(a, b, (np.arange(len(a)) + 1) % 2), pair_contrastive
    ),
    "batch_contrastive": Case(both_views(losses.batch_contrastive), batch_contrastive),
    "batch_contrastive_rows": Case(
        both_views(
            losses.batch_contrastive,
            positive_margin=0.4,
            negative_margin=2.5,
            only_active=False,
            normalize=False,
        ),
        lambda a, b: batch_contrastive(a, b, 0.4, 2.5, only_active=False, normalize=False),
    ),
    "triplet": Case(lambda a, b: losses.triplet(a, b, jnp.roll(b, 1, axis=0)), triplet),
    "triplet_euclidean": Case(
        lambda a, b: losses.triplet(a, b, jnp.roll(b, 1, axis=0), squared=False),
        lambda a, b: triplet(a, b, squared=False),
    ),
    **{
        f"triplet_{mining}_{margin}_{squared}": Case(
            both_views(losses.batch_triplet, mining=mining, margin=margin, squared=squared),
            lambda a, b, mining=mining, margin=margin, squared=squared: batch_triplet(
                a, b, mining, margin, squared
            ),
        )
        for mining in ("all", "semi-hard", "hard")
        for margin, squared in ((0.2, True), (None, False))
    },
    "n_pair": Case(
        lambda a, b: losses.n_pair(a, b, l2=0.01),
        lambda a, b: (
            loop(len(a), lambda i: pick(a[i], b, i, 1.0))
            + 0.01 * (np.mean(np.sum(a**2, 1)) + np.mean(np.sum(b**2, 1)))
        ),
    ),
    "nce": Case(library_nce, nce),
    "barlow_twins": Case(losses.barlow_twins, barlow_twins),
    "vicreg": Case(losses.vicreg, vicreg),
    "swapped": Case(library_swapped, swapped),
    "dino": Case(library_dino, dino),
    "byol": Case(losses.byol, alignment),
    "negative_cosine": Case(
        losses.negative_cosine, lambda a, b: -np.mean(np.sum(unit(a) * unit(b), axis=1))
    ),
    "smooth_l1": Case(lambda a, b: losses.smooth_l1(a, 3 * b), smooth_l1),
    "distillation": Case(
        lambda a, b: losses.distillation(a, TEACHER[: len(a)], temperature=2.0), distillation
    ),
    "i_mix": Case(
        lambda a, b: losses.i_mix(
            a, b, partners_of(len(a)), SHARES[: len(a)], temperature=0.2, queue=QUEUE
        ),
        i_mix,
    ),
    "i_mix_byol": Case(
        lambda a, b: losses.i_mix_byol(a, b, partners_of(len(a)), SHARES[: len(a)]), i_mix_byol
    ),
}
