"""Fine-tuning: a classifier on top of a pre-trained encoder, all of it trained with labels.

    x -> encoder -> h -> first layers of the projector -> logits        cross_entropy(logits, label)

Encoder and head come from an earlier run; SimCLR v2 found that with few labels it pays to keep the
head's first layer (`keep_layers=1`), and with all labels to discard the head (0). The logits layer
starts at zero, so that the first step leaves the encoder as it is.

Reference: Chen et al. 2020, arXiv:2006.10029, section 2; google-research/simclr.
"""

from dataclasses import dataclass
from typing import ClassVar

from jaxcl.losses import cross_entropy
from jaxcl.methods.classifier import ClassifierMethod, Labelled
from jaxcl.methods.method import Aux, Statistics
from jaxcl.methods.progress import Progress
from jaxcl.typing import Array, Float, Key, PyTree


@dataclass(frozen=True)
class FineTune(ClassifierMethod):
    """A classifier from a pre-trained encoder."""

    needs_labels: ClassVar[bool] = True

    def loss(
        self, params: PyTree, memory: Statistics, views: Labelled, key: Key, progress: Progress
    ) -> tuple[Float[Array, ""], Aux]:
        outputs, stats = self.network(self.chunks)(params, memory.stats, views.images)
        found = cross_entropy(outputs["logits"][:, 0], views.labels)
        metrics = {"accuracy": 100 * found.accuracy}
        return found.loss, Aux(Statistics(stats), metrics, outputs["encoder"])
