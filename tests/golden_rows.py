"""Golden rows: values of losses from an independent float64 implementation or reference code."""

import jax.numpy as jnp
import numpy as np
from golden import A, B, C, a, b, matrix, unit
from jitted import losses

W = unit(matrix(2.2, 3))
BANK = unit(matrix(4, 10))[np.array([[0, 3, 5, 9], [1, 0, 7, 2], [2, 8, 8, 4], [3, 1, 6, 0]])]
NCE = np.einsum("nd,nkd->nk", a, BANK) / 0.07
HALVES = np.concatenate([a, b])
TWINS = np.stack([a, b], axis=1).reshape(8, 5)
THREES = np.stack([A, B, C], axis=1).reshape(12, 5)
ROLLED = np.roll(b, 1, axis=0)


def moco_3(q, k):
    return 2 * 0.2 * losses.info_nce(q, k, temperature=0.2)


def swav(scores):
    codes = [losses.sinkhorn(jnp.array(s), epsilon=0.5) for s in scores]
    return losses.swapped_prediction(scores, codes)


ROWS = [
    ("Hadsell", lambda: losses.pair_contrastive(A, B, np.array([1, 0, 1, 0])), 0.152076),
    ("triplet, squared", lambda: losses.triplet(a, b, ROLLED), 0.193763),
    ("triplet, Euclidean", lambda: losses.triplet(a, b, ROLLED, squared=False), 0.199957),
    ("N-pair", lambda: losses.n_pair(A, B), 0.711395),
    ("InfoNCE", lambda: losses.info_nce(a, b, temperature=0.1), 0.643633),
    ("CLIP", lambda: losses.clip_loss(a, b, scale=10.0), 0.648291),
    ("NT-Xent 0.5", lambda: losses.nt_xent(a, b, temperature=0.5), 1.157083),
    ("NT-Xent 0.1", lambda: losses.nt_xent(a, b, temperature=0.1), 0.716899),
    (
        "NT-Xent, halves",
        lambda: losses.nt_xent_rows(HALVES, temperature=0.5, layout="halves"),
        1.157083,
    ),
    ("SimCSE in twos", lambda: losses.simcse_pairs(TWINS), 0.802553),
    ("SimCSE", lambda: losses.simcse(a, b), 0.787690),
    ("SimCSE in threes", lambda: losses.simcse_triples(THREES), 1.244395),
    ("SimCSE, hard", lambda: losses.simcse(A, B, C), 1.244395),
    ("alignment", lambda: losses.alignment(a, b), 0.235854),
    ("uniformity", lambda: losses.uniformity(a), -2.098739),
    ("SigLIP", lambda: losses.siglip(a, b, scale=10.0, bias=-10.0), 1.723564),
    ("DCL, one way", lambda: losses.decoupled(a, b, temperature=0.1, both_ways=False), -0.456382),
    ("DCL", lambda: losses.decoupled(a, b, temperature=0.1), -0.338509),
    (
        "DCLW",
        lambda: losses.decoupled(a, b, temperature=0.1, both_ways=False, sigma=0.5),
        -0.449006,
    ),
    (
        "SupCon out",
        lambda: losses.sup_con(HALVES, jnp.array([0, 0, 1, 1] * 2), temperature=0.1),
        2.666989,
    ),
    (
        "SupCon in",
        lambda: losses.sup_con(HALVES, jnp.array([0, 0, 1, 1] * 2), temperature=0.1, form="in"),
        1.322198,
    ),
    (  # the authors' code with contrast_mode="one"
        "SupCon out, first views",
        lambda: losses.sup_con(HALVES, jnp.array([0, 0, 1, 1] * 2), temperature=0.1, anchors=4),
        2.605641,
    ),
    (  # this one and the next: pytorch-metric-learning 2.9.0, ContrastiveLoss
        "contrastive",
        lambda: losses.batch_contrastive(HALVES, jnp.array([0, 0, 1, 1] * 2)),
        1.040874,
    ),
    (
        "contrastive, margins",
        lambda: losses.batch_contrastive(
            HALVES, jnp.array([0, 0, 1, 1] * 2), positive_margin=0.3, negative_margin=1.2
        ),
        0.844268,
    ),
    ("BYOL", lambda: losses.byol(A, B), 0.235854),
    ("SimSiam", lambda: losses.negative_cosine(A, B), -0.882073),
    ("Barlow Twins", lambda: losses.barlow_twins(A, B), 0.292274),
    ("VICReg invariance", lambda: losses.vicreg_terms(A, B).invariance, 0.119893),
    ("VICReg variance", lambda: losses.vicreg_terms(A, B).variance, 0.368250),
    ("VICReg covariance", lambda: losses.vicreg_terms(A, B).covariance, 0.839768),
    ("VICReg", lambda: losses.vicreg(A, B), 13.043338),
    ("SwAV", lambda: swav([a @ W.T, b @ W.T]), 3.995910),
    ("DINO", lambda: losses.dino([A, B], [A, B], jnp.full(5, 0.1)), 1.974696),
    (
        "MoCo",
        lambda: losses.info_nce(a, b, unit(matrix(3.1, 6)), temperature=0.07, in_batch=False),
        0.283536,
    ),
    ("MoCo v3, one direction", lambda: moco_3(a, b), 0.243300),
    ("MoCo v3", lambda: moco_3(a, b) + moco_3(b, a), 0.490834),
    ("InstDisc", lambda: losses.nce(NCE, log_z=np.log(1e4), noise=0.1, eps=1e-7), 20.264491),
    ("invariant spread", lambda: losses.invariant_spread(a, b), 1.367404),
    ("smooth L1", lambda: losses.smooth_l1(A, 3 * B), 0.589199),
]
"""Name, loss, its value."""
