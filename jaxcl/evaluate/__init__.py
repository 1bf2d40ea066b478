"""Judging frozen features: probes, nearest neighbours, geometry, and the report."""

from jaxcl.evaluate.balancedness import Balancedness, balancedness
from jaxcl.evaluate.clustering import Clustering, agreement, cluster
from jaxcl.evaluate.evaluation import Evaluation, Features, evaluate_features
from jaxcl.evaluate.few_label import FewLabel, few_label_accuracy
from jaxcl.evaluate.few_shot import FewShot, FewShotScores, few_shot
from jaxcl.evaluate.geometry import (
    alignment,
    effective_rank,
    feature_std,
    top_singular_share,
    uniformity,
)
from jaxcl.evaluate.knn import knn_accuracy, knn_scores, nearest, top_accuracy, weighted_knn
from jaxcl.evaluate.linear import LogisticProbe, SGDProbe, logistic_probe, sgd_probe
from jaxcl.evaluate.neighbours import Neighbours, nearest_neighbours
from jaxcl.evaluate.plane import FeatureMap, feature_map
from jaxcl.evaluate.report import write_report
from jaxcl.evaluate.retrieval import Retrieval, retrieval
from jaxcl.evaluate.sts import pearson, spearman, sts, sts_files
from jaxcl.evaluate.subsets import balanced_split, balanced_subset
from jaxcl.evaluate.table import comparison_table

__all__ = [
    "Balancedness",
    "Clustering",
    "Evaluation",
    "FeatureMap",
    "Features",
    "FewLabel",
    "FewShot",
    "FewShotScores",
    "LogisticProbe",
    "Neighbours",
    "Retrieval",
    "SGDProbe",
    "agreement",
    "alignment",
    "balanced_split",
    "balanced_subset",
    "balancedness",
    "cluster",
    "comparison_table",
    "effective_rank",
    "evaluate_features",
    "feature_map",
    "feature_std",
    "few_label_accuracy",
    "few_shot",
    "knn_accuracy",
    "knn_scores",
    "logistic_probe",
    "nearest",
    "nearest_neighbours",
    "pearson",
    "retrieval",
    "sgd_probe",
    "spearman",
    "sts",
    "sts_files",
    "top_accuracy",
    "top_singular_share",
    "uniformity",
    "weighted_knn",
    "write_report",
]
