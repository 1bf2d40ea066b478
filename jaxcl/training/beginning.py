"""The weights that a run begins with: random ones, a file's, another run's."""

import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxcl.errors import UserError
from jaxcl.experiment import Experiment
from jaxcl.methods import Method
from jaxcl.training.state import State
from jaxcl.typing import PyTree
from jaxcl.weights import load_encoder

ENCODER = "encoder"


def begun(state: State, experiment: Experiment) -> State:
    """The first state, with the weights that it begins from: a file's, then the method's.

    Raises:
      UserError: there is nothing to begin from, or it does not fit.
    """
    method, params, memory = experiment.method, state.params, state.memory
    if experiment.train.start:
        train = experiment.train
        params, memory = with_encoder(
            method, params, memory, train.start, part=train.start_part, prefix=train.start_prefix
        )
    params, memory = method.start(params, memory)
    if params is state.params and memory is state.memory:
        return state
    average = jax.tree.map(jnp.copy, params) if experiment.optim.average else ()
    return state._replace(params=params, memory=memory, average=average)


def with_encoder(
    method: Method,
    params: PyTree,
    memory: PyTree,
    path: str,
    *,
    part: str = "",
    prefix: str | None = None,
) -> tuple[PyTree, PyTree]:
    """Parameters and memory with the encoder of a file wherever they hold one.

    Every part named "encoder" that has the shapes of the trained one gets its parameters, and so do
    slow copies; every one that has the shapes of its statistics gets those.

    Raises:
      UserError: the method has no one encoder, or the file holds none that fits it.
    """
    key = f"train.start={path}"
    encoder = getattr(method, ENCODER, None)
    if not isinstance(encoder, nn.Module) or ENCODER not in params:
        raise UserError(f"{key}, but {type(method).__name__} has no part that is called encoder")
    try:
        found = load_encoder(path, encoder=encoder, part=part, prefix=prefix)
    except UserError as error:
        told = re.sub(r"\b(part|prefix)=(?='|: | )", r"--train.start-\1", str(error))
        raise UserError(f"{key}: {told}") from error
    if _shapes(found.params) != _shapes(params[ENCODER]):
        raise UserError(f"{key}: {_first_misfit(found.params, params[ENCODER])}")

    def visit(tree: PyTree) -> PyTree:
        def one(part: Any) -> Any:
            if not _is_parts(part):
                return part
            return {name: held(x) if name == ENCODER else visit(x) for name, x in part.items()}

        return jax.tree.map(one, tree, is_leaf=_is_parts)

    def held(part: PyTree) -> PyTree:
        fitting = [x for x in (found.params, found.stats) if _shapes(x) == _shapes(part)]
        return fitting[0] if fitting else part

    return visit(params), visit(memory)


def _is_parts(tree: Any) -> bool:
    return isinstance(tree, Mapping)


def _shapes(tree: PyTree) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree.leaves_with_path(tree)
    return {jax.tree_util.keystr(p, simple=True, separator="."): x.shape for p, x in leaves}


def _first_misfit(found: PyTree, wanted: PyTree) -> str:
    has, wants = _shapes(found), _shapes(wanted)
    name = next(n for n in sorted(has.keys() | wants.keys()) if has.get(n) != wants.get(n))
    return (
        f"its encoder has {has.get(name, 'nothing')} where encoder.{name} is {wants.get(name)}; "
        "use the network of the file, and images with as many channels"
    )
