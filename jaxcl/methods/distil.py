"""Distillation: a student learns the classes that a fine-tuned teacher gives to images.

    x -> encoder -> head -> logits          distillation(logits, teacher's)
    x -> teacher, fixed, at inference         + cross_entropy(logits, label) where there is one

Both see the same view. The student may be a smaller network, or one like the teacher, which still
gains from the unlabelled images (self-distillation). With `alpha` under 1 labels take part too:

    (1 - alpha) CE(labels) + alpha tau^2 KD(tau)

where CE is the mean over the images of the batch that have a label.

Reference: Chen et al. 2020, arXiv:2006.10029, section 2, eq. 2 and 3.
"""

import dataclasses
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxcl.errors import UserError
from jaxcl.losses import cross_entropy, distillation
from jaxcl.methods.classifier import Classifier, ClassifierMethod, Labelled
from jaxcl.methods.earlier import Part, check_run, difference, named_run, read_run
from jaxcl.methods.method import Aux
from jaxcl.methods.progress import Progress
from jaxcl.typing import Array, Float, Key, PyTree

RUN = "method.teacher_run"


class Memory(NamedTuple):
    """What training carries from step to step without differentiating it."""

    stats: dict[str, PyTree]
    """Batch-norm statistics of the student."""
    teacher: Part
    """The teacher's parameters and statistics, which nothing moves."""


@dataclass(frozen=True)
class Distil(ClassifierMethod):
    """A classifier taught by another; encoder, projector and keep_layers are the student's."""

    keep_layers: int = 0
    """Layers of the projector that the student has."""
    teacher: Classifier = Classifier()
    """The teacher's network, as it was fine-tuned."""
    teacher_run: str = ""
    """Its run directory: a fine-tuned run, or a distilled one."""
    temperature: float = 1.0
    """Of both networks' classes; in the paper 0.1 where they are alike, 1 for a smaller student."""
    alpha: float = 1.0
    """Weight of the teacher; the labels have the rest."""

    def check(self, batch_size: int) -> None:
        super().check(batch_size)
        named_run(self.teacher_run, RUN)
        if self.classes != self.teacher.classes:
            raise UserError(
                f"method.classes={self.classes} and method.teacher.classes={self.teacher.classes}; "
                "a student has its teacher's classes"
            )

    def init(self, key: Key, views: Labelled) -> tuple[PyTree, Memory]:
        student_key, teacher_key = jax.random.split(key)
        params, stats = self.network(self.chunks).init(student_key, views.images)
        teacher = Part(*self.teacher.network().init(teacher_key, views.images))
        return params, Memory(stats, teacher)

    def check_start(self) -> None:
        super().check_start()
        check_run(self.teacher_run, RUN)

    def start(self, params: PyTree, memory: Memory) -> tuple[PyTree, Memory]:
        params, memory = super().start(params, memory)
        return params, memory._replace(teacher=self._taught(memory.teacher))

    def _taught(self, like: Part) -> Part:
        """The teacher's variables out of its run."""
        run = read_run(self.teacher_run, RUN)
        run.check_pixels(self.augment)
        if not isinstance(run.method, Classifier):
            raise UserError(
                f"{RUN}={self.teacher_run} holds a {type(run.method).__name__}, which does not "
                "classify; fine-tune it first, and let that run teach"
            )
        differing = difference(_network(run.method), _network(self.teacher))
        if differing is not None:
            field, theirs, ours = differing
            raise UserError(
                f"{RUN}={self.teacher_run} was trained with method.{field}={theirs}, and "
                f"method.teacher.{field} is {ours}; set it to {theirs}, or use another run"
            )
        found = {
            name: run.part(name, None, Part(tree, like.stats[name]))
            for name, tree in like.params.items()
        }
        params = {name: part.params for name, part in found.items()}
        return Part(params, {name: part.stats for name, part in found.items()})

    def loss(
        self, params: PyTree, memory: Memory, views: Labelled, key: Key, progress: Progress
    ) -> tuple[Float[Array, ""], Aux]:
        outputs, stats = self.network(self.chunks)(params, memory.stats, views.images)
        logits = outputs["logits"][:, 0]
        wanted = self.teacher.scores(*memory.teacher, *views.images)
        taught = distillation(logits, wanted, temperature=self.temperature)
        labelled = cross_entropy(logits, views.labels)
        same = jnp.argmax(logits, axis=1) == jnp.argmax(wanted, axis=1)
        metrics = {
            "distillation": taught,
            "accuracy": 100 * labelled.accuracy,
            "agreement": 100 * jnp.mean(same),
        }
        value = self.alpha * taught + (1 - self.alpha) * labelled.loss
        return value, Aux(Memory(stats, memory.teacher), metrics, outputs["encoder"])

    def facts(self, batch_size: int) -> dict[str, str]:
        return super().facts(batch_size) | {"teacher": self.teacher_run}


def _network(classifier: Classifier) -> Classifier:
    """The fields that say which network it is, without a head that is discarded."""
    values = {f.name: getattr(classifier, f.name) for f in dataclasses.fields(Classifier)}
    if not classifier.keep_layers:
        del values["projector"]
    return Classifier(**values)
