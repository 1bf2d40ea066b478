"""Which tensor of another library is which of ours, as tables that are read in both directions.

A family of encoders (ResNet, BERT, ...) says once, in a list of `Entry`, what each of its arrays is
called elsewhere and how it lies there. `gather` imports by such a list, `scatter` exports by it.
"""

import difflib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxcl.errors import UserError
from jaxcl.typing import NumpyArray, PyTree

Tensors = Mapping[str, NumpyArray]
"""Arrays by the names of the other library."""
ACTIVATIONS: dict[str, Any] = {
    "quick_gelu": "quick_gelu",
    "gelu": "gelu",
    "gelu_pytorch_tanh": "tanh_gelu",
    "gelu_new": "tanh_gelu",
}
"""Names of activations here by those of transformers; the first of several is written."""


LISTED = 50
"""Names of each kind that a message lists."""


@dataclass(frozen=True)
class Layout:
    """How one of our arrays lies in the other library, there and back; both exact."""

    to_ours: Callable[[Sequence[NumpyArray]], NumpyArray]
    to_theirs: Callable[[NumpyArray], Sequence[NumpyArray]]


SAME = Layout(lambda arrays: arrays[0], lambda array: [array])
LINEAR = Layout(lambda arrays: arrays[0].T, lambda array: [array.T])
"""[out, in] there, [in, out] here."""
CONV = Layout(
    lambda arrays: arrays[0].transpose(2, 3, 1, 0), lambda array: [array.transpose(3, 2, 0, 1)]
)
"""[out, in, height, width] there, [height, width, in, out] here."""


def reshaped(theirs: Sequence[int], ours: Sequence[int]) -> Layout:
    """The same numbers in the same order under another shape."""
    return Layout(lambda arrays: arrays[0].reshape(ours), lambda array: [array.reshape(theirs)])


def fused(parts: int, layout: Layout = SAME) -> Layout:
    """Several arrays there, one here: joined along our last axis, as query, key and value are."""
    return Layout(
        lambda arrays: np.concatenate([layout.to_ours([array]) for array in arrays], axis=-1),
        lambda array: [layout.to_theirs(part)[0] for part in np.split(array, parts, axis=-1)],
    )


class Entry(NamedTuple):
    """One of our arrays and where it comes from."""

    ours: str
    """Path in {"params": ..., "stats": ...}, joined by slashes: "params/stem/kernel"."""
    theirs: tuple[str, ...]
    """Names there; several where one array here is several there."""
    layout: Layout = SAME


def linear(ours: str, *theirs: str, bias: bool = True) -> list[Entry]:
    """A linear layer, `ours/kernel` and `ours/bias`; of several layers there, fused here."""
    kernel = fused(len(theirs), LINEAR) if len(theirs) > 1 else LINEAR
    entries = [Entry(f"{ours}/kernel", tuple(f"{name}.weight" for name in theirs), kernel)]
    if bias:
        offset = fused(len(theirs)) if len(theirs) > 1 else SAME
        entries.append(Entry(f"{ours}/bias", tuple(f"{name}.bias" for name in theirs), offset))
    return entries


def layer_norm(ours: str, theirs: str) -> list[Entry]:
    """`ours/scale` and `ours/bias`."""
    return [
        Entry(f"{ours}/scale", (f"{theirs}.weight",)),
        Entry(f"{ours}/bias", (f"{theirs}.bias",)),
    ]


def batch_norm(ours: str, theirs: str) -> list[Entry]:
    """Scale and bias in "params", running mean and variance in "stats"; `ours` starts with neither.

    Torch keeps the unbiased running variance, this library the biased one; inference uses what
    is there either way, so the numbers are taken as they are.
    """
    return [
        Entry(f"params/{ours}/scale", (f"{theirs}.weight",)),
        Entry(f"params/{ours}/bias", (f"{theirs}.bias",)),
        Entry(f"stats/{ours}/mean", (f"{theirs}.running_mean",)),
        Entry(f"stats/{ours}/var", (f"{theirs}.running_var",)),
    ]


def conv(ours: str, theirs: str, bias: bool = False) -> list[Entry]:
    """`ours/kernel`, and `ours/bias` where there is one."""
    entries = [Entry(f"{ours}/kernel", (f"{theirs}.weight",), CONV)]
    return entries + ([Entry(f"{ours}/bias", (f"{theirs}.bias",))] if bias else [])


def gather(
    tensors: Tensors, entries: Iterable[Entry], shapes: PyTree, *, ignored: str = r"(?!)"
) -> PyTree:
    """Our variables out of the tensors of another library.

    Args:
      tensors: theirs, by name.
      entries: the table of the family, which names every array of `shapes`.
      shapes: {"params": ..., "stats": ...} of arrays or `jax.ShapeDtypeStruct`.
      ignored: pattern of names, matched from their start, that may be left over.

    Returns:
      A tree as `shapes`, of NumPy arrays in its types.

    Raises:
      UserError: tensors are missing, left over or of other shapes; it lists all of them, each
        missing one with the left-over name that is most like it.
    """
    wanted = {name: (leaf.shape, leaf.dtype) for name, leaf in _flat(shapes)}
    found: dict[str, NumpyArray] = {}
    missing: list[str] = []
    misshapen: list[str] = []
    used: set[str] = set()
    for entry in entries:
        if entry.ours not in wanted:
            raise KeyError(f"the table names {entry.ours}, which the encoder does not have")
        used |= set(entry.theirs)
        absent = [name for name in entry.theirs if name not in tensors]
        missing += absent
        if absent:
            continue
        shape, dtype = wanted[entry.ours]
        theirs = [tensors[name] for name in entry.theirs]
        try:
            array = entry.layout.to_ours(theirs)
        except ValueError:
            array = None
        if array is None or array.shape != shape:
            expected = entry.layout.to_theirs(np.broadcast_to(np.zeros((), dtype), shape))
            misshapen += [
                f"{name} is {list(there.shape)}, not {list(here.shape)}"
                for name, there, here in zip(entry.theirs, theirs, expected, strict=True)
                if there.shape != here.shape
            ]
            continue
        found[entry.ours] = np.asarray(array, dtype, order="C")
    skip = re.compile(ignored)
    surplus = sorted(name for name in tensors if name not in used and not skip.match(name))
    if missing or misshapen or surplus:
        raise UserError(_complaint(missing, misshapen, surplus))
    unnamed = wanted.keys() - found.keys()
    if unnamed:
        raise KeyError(f"the table names none of {sorted(unnamed)}")
    leaves = [found[name] for name, _ in _flat(shapes)]
    return jax.tree.unflatten(jax.tree.structure(shapes), leaves)


def scatter(variables: PyTree, entries: Iterable[Entry]) -> dict[str, NumpyArray]:
    """Their tensors out of our {"params": ..., "stats": ...}; what `gather` takes back exactly."""
    arrays = dict(_flat(variables))
    tensors: dict[str, NumpyArray] = {}
    for entry in entries:
        theirs = entry.layout.to_theirs(np.asarray(arrays[entry.ours]))
        for name, array in zip(entry.theirs, theirs, strict=True):
            tensors[name] = np.asarray(array, order="C")
    return tensors


def _flat(tree: PyTree) -> list[tuple[str, jax.ShapeDtypeStruct]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return [(jax.tree_util.keystr(p, simple=True, separator="/"), leaf) for p, leaf in leaves]


def _complaint(missing: list[str], misshapen: list[str], surplus: list[str]) -> str:
    def some(lines: list[str]) -> list[str]:
        more = [f"  and {len(lines) - LISTED:,} more"] if len(lines) > LISTED else []
        return lines[:LISTED] + more

    alike = surplus[: 10 * LISTED]  # to compare every name with every other may take minutes
    absent: list[str] = []
    for name in missing[: LISTED + 1]:
        near = difflib.get_close_matches(name, alike, 1) if len(absent) < LISTED else []
        absent.append(f"  missing: {name}" + (f" (there is {near[0]})" if near else ""))
    absent += missing[LISTED + 1 :]
    return "\n".join(
        [
            "the weights do not fit the encoder",
            *some(absent),
            *some([f"  other shape: {line}" for line in misshapen]),
            *some([f"  left over: {name}" for name in surplus]),
        ]
    )
