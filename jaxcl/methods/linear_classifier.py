"""A linear classifier on the frozen encoder of another run: the second stage of SupCon.

    x -> encoder -> h -> logits        cross_entropy(logits, label)

Only the logits are trained. The encoder is as inference sees it: its batch norm uses the running
statistics and leaves them. Unlike the probe beside a run and those of `eval.py`, this one sees
cropped and flipped images, as the papers' linear protocols do.

Reference: Khosla et al. 2020, arXiv:2004.11362, section 4; HobbitLong/SupContrast, main_linear.py.
"""

from dataclasses import dataclass
from typing import ClassVar

import jax
from flax import linen as nn

from jaxcl.encoders import ResNet
from jaxcl.losses import cross_entropy
from jaxcl.methods.classifier import ClassifierMethod, Labelled
from jaxcl.methods.method import Aux, Phase, Statistics
from jaxcl.methods.progress import Progress
from jaxcl.typing import Array, Float, Key, PyTree

TRAINED = "logits"


@dataclass(frozen=True)
class LinearClassifier(ClassifierMethod):
    """Linear evaluation as a run of its own."""

    needs_labels: ClassVar[bool] = True

    encoder: nn.Module = ResNet(50)
    """As it was pre-trained."""
    keep_layers: int = 0
    """Layers of the head that are frozen along with the encoder, under the classes; -1: all."""

    def loss(
        self, params: PyTree, memory: Statistics, views: Labelled, key: Key, progress: Progress
    ) -> tuple[Float[Array, ""], Aux]:
        params = {**jax.lax.stop_gradient(params), TRAINED: params[TRAINED]}
        network = self.network(self.chunks)
        outputs, _ = network(params, memory.stats, views.images, train=False)
        found = cross_entropy(outputs[TRAINED][:, 0], views.labels)
        return found.loss, Aux(memory, {"accuracy": 100 * found.accuracy}, outputs["encoder"])

    @property
    def phases(self) -> tuple[Phase, ...]:
        return (Phase("main", self.loss, groups=(TRAINED,)),)
