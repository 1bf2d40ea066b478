"""What a traced function multiplies, and how."""

import jax
from jax.extend.core import jaxprs_in_params

IN_FULL = ("float32", "float32", "HIGHEST")
SHORT = ("bfloat16", "bfloat16", "DEFAULT")


def products_of(function, *arguments):
    """Kinds of its matrix products: the types of both sides, and the precision asked for."""
    return set(_products(jax.make_jaxpr(function)(*arguments).jaxpr))


def _products(jaxpr):
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            kinds = [x.aval.dtype.name for x in equation.invars]
            yield (*kinds, str((equation.params["precision"] or ["whatever"])[0]))
        for inner in jaxprs_in_params(equation.params):
            yield from _products(inner)
