"""DINO: the student's crops match the centred and sharpened outputs of a slow teacher."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jaxcl.losses.rows import as_rows
from jaxcl.typing import Array, Float


def dino(
    student: Sequence[Float[Array, "n k"]],
    teacher: Sequence[Float[Array, "n k"]],
    centre: Float[Array, "k"],
    *,
    student_temperature: float = 0.1,
    teacher_temperature: float | Float[Array, ""] = 0.04,
) -> Float[Array, ""]:
    """Mean cross-entropy over all pairs of a teacher's view and another view of the student.

    Args:
      student: [n, k] raw outputs, one array per view; the teacher's views come first.
      teacher: [n, k] raw outputs for the large views; no gradient flows into them.
      centre: [k] running mean of the teacher's outputs, from before this step.
      student_temperature, teacher_temperature: the teacher's is the smaller one.

    Returns:
      [] in nats, float32.

    Raises:
      ValueError: no pair of different views.

    Reference: Caron et al. 2021, arXiv:2104.14294, algorithm 1.
    """
    logs = [jax.nn.log_softmax(as_rows(s) / student_temperature) for s in student]
    terms = []
    for i, t in enumerate(teacher):
        sharp = jax.nn.softmax((as_rows(t) - centre) / teacher_temperature)
        sharp = jax.lax.stop_gradient(sharp)
        terms += [-jnp.mean(jnp.sum(sharp * x, axis=1)) for v, x in enumerate(logs) if v != i]
    if not terms:
        raise ValueError(f"{len(student)} student and {len(teacher)} teacher views make no pair")
    return sum(terms, jnp.zeros([], jnp.float32)) / len(terms)


def next_centre(
    centre: Float[Array, "k"], teacher: Sequence[Float[Array, "n k"]], *, momentum: float = 0.9
) -> Float[Array, "k"]:
    """The running mean moved towards that of this batch's raw teacher outputs, all views alike."""
    mean = jnp.mean(jnp.concatenate([as_rows(t) for t in teacher]), axis=0)
    return jax.lax.stop_gradient(momentum * centre + (1 - momentum) * mean)


def distillation(
    student: Float[Array, "n k"],
    teacher: Float[Array, "n k"],
    *,
    temperature: float = 1.0,
    rescale: bool = True,
) -> Float[Array, ""]:
    """Cross-entropy of the student's softened classes against the teacher's.

        -mean_x sum_y P_teacher(y | x) log P_student(y | x),    P = softmax(logits / temperature)

    Args:
      student: [n, k] logits.
      teacher: [n, k] logits; no gradient flows into them.
      temperature: of both.
      rescale: times temperature squared, as in SimCLR v2's code, which keeps the gradient's size.

    Returns:
      [] in nats, float32.

    Raises:
      ValueError: shapes differ.

    Reference: Chen et al. 2020, arXiv:2006.10029, eq. 2; Hinton et al. 2015, arXiv:1503.02531.
    """
    if student.shape != teacher.shape:
        raise ValueError(f"student and teacher differ: {student.shape} and {teacher.shape}")
    targets = jax.lax.stop_gradient(jax.nn.softmax(as_rows(teacher) / temperature))
    logs = jax.nn.log_softmax(as_rows(student) / temperature)
    value = -jnp.mean(jnp.sum(targets * logs, axis=1))
    return value * temperature**2 if rescale else value
