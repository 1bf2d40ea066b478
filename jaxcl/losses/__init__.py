"""Equations on arrays: pure functions of embeddings of the global batch."""

from jaxcl.losses.class_conditional import class_conditional
from jaxcl.losses.cross_entropy import CrossEntropy, cross_entropy
from jaxcl.losses.decoupled import decoupled
from jaxcl.losses.hard_negatives import debiased, hard_negatives
from jaxcl.losses.info_nce import clip_loss, info_nce
from jaxcl.losses.invariant_spread import invariant_spread
from jaxcl.losses.k_positive import k_positive
from jaxcl.losses.mixing import i_mix, i_mix_byol, mixed_negatives
from jaxcl.losses.nce import log_normaliser, nce, proximal
from jaxcl.losses.nt_xent import NTXent, nt_xent, nt_xent_rows, nt_xent_with_accuracy
from jaxcl.losses.pairwise import batch_contrastive, n_pair, pair_contrastive
from jaxcl.losses.prototypes import proto_nce_sum, prototype_nce
from jaxcl.losses.redundancy import VICReg, barlow_twins, vicreg, vicreg_terms
from jaxcl.losses.regression import byol, negative_cosine, smooth_l1
from jaxcl.losses.self_distillation import dino, distillation, next_centre
from jaxcl.losses.sigmoid import siglip
from jaxcl.losses.simcse import simcse, simcse_pairs, simcse_triples
from jaxcl.losses.sphere import alignment, alignment_and_uniformity, uniformity
from jaxcl.losses.sup_con import sup_con
from jaxcl.losses.swapped import sinkhorn, swapped_prediction
from jaxcl.losses.triplet import batch_triplet, triplet

__all__ = [
    "CrossEntropy",
    "NTXent",
    "VICReg",
    "alignment",
    "alignment_and_uniformity",
    "barlow_twins",
    "batch_contrastive",
    "batch_triplet",
    "byol",
    "class_conditional",
    "clip_loss",
    "cross_entropy",
    "debiased",
    "decoupled",
    "dino",
    "distillation",
    "hard_negatives",
    "i_mix",
    "i_mix_byol",
    "info_nce",
    "invariant_spread",
    "k_positive",
    "log_normaliser",
    "mixed_negatives",
    "n_pair",
    "nce",
    "negative_cosine",
    "next_centre",
    "nt_xent",
    "nt_xent_rows",
    "nt_xent_with_accuracy",
    "pair_contrastive",
    "proto_nce_sum",
    "prototype_nce",
    "proximal",
    "siglip",
    "simcse",
    "simcse_pairs",
    "simcse_triples",
    "sinkhorn",
    "smooth_l1",
    "sup_con",
    "swapped_prediction",
    "triplet",
    "uniformity",
    "vicreg",
    "vicreg_terms",
]
