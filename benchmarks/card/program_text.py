"""What the text of an optimised program says: its products, its kernels, what they move.

    summary = read_program(compiled.as_text())

`as_text` is XLA's own notation, for a chip that is here or not. Everything is counted as often as
it runs: the body of a loop by the number of its rounds, where the compiler knows it.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

BYTES = {
    "pred": 1, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "s32": 4, "u32": 4, "s64": 8, "u64": 8,
    "f16": 2, "bf16": 2, "f32": 4, "f64": 8, "c64": 8, "c128": 16,
}  # fmt: skip
FREE = {
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "while", "call",
    "conditional", "partition-id", "replica-id", "domain", "opt-barrier",
}  # fmt: skip
"""Instructions that move nothing themselves."""
MOVES = {
    "copy", "transpose", "reshape", "parameter", "bitcast", "tuple", "get-tuple-element", "convert",
    "constant",
}  # fmt: skip
"""What a fusion may hold that only changes the layout or the type of an array."""
WAITS = re.compile(r".*-(start|done|update)$")
"""Halves of an operation that goes on beside others."""

_HEADER = re.compile(r"^(ENTRY )?%([^\s(]+) .*\{$")
_LINE = re.compile(r"^\s+(ROOT )?%([^\s=]+) = (.+)$")
_ARRAY = re.compile(r"\b([a-z]+[0-9]*)\[([\d,]*)\](\{[^}]*\})?")
_CALLED = re.compile(r"(?:calls|to_apply|body|condition)=%([^\s,)}]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")


@dataclass(frozen=True)
class Instruction:
    """A line of the program."""

    name: str
    shape: str
    opcode: str
    operands: tuple[str, ...]
    text: str
    """All that follows the name."""
    root: bool

    @property
    def arrays(self) -> list[tuple[str, tuple[int, ...]]]:
        """Type and shape of each array of the result."""
        return [
            (dtype, tuple(map(int, filter(None, sides.split(",")))))
            for dtype, sides, _ in _ARRAY.findall(self.shape)
            if dtype in BYTES
        ]

    @property
    def size(self) -> int:
        """Bytes of the result in the chip's memory; a TPU's fast memory, S(1), is none of it."""
        return sum(
            BYTES[dtype] * math.prod(map(int, filter(None, sides.split(","))))
            for dtype, sides, layout in _ARRAY.findall(self.shape)
            if dtype in BYTES and "S(1)" not in layout
        )

    @property
    def target(self) -> str:
        """Name of the library's function where there is one."""
        found = re.search(r'custom_call_target="([^"]*)"', self.text)
        return found[1] if found else ""


@dataclass
class Summary:
    """What a program does in one call."""

    kernels: float = 0
    """Instructions that run as a kernel of their own."""
    fusions: float = 0
    """Of these the ones that the compiler put together."""
    moved: float = 0
    """Bytes that kernels read and write in the chip's memory, each operand and result in whole."""
    moves: float = 0
    """Copies, transposes and changes of type alone that are a kernel of their own."""
    moves_bytes: float = 0
    """Bytes that those read and write."""
    largest_moves: list[tuple[float, str]] = field(default_factory=list)
    """Bytes, and the shape of the result."""
    products: dict[str, float] = field(default_factory=dict)
    """FLOP of convolutions and matrix products by the type of what is multiplied."""
    product_counts: dict[str, float] = field(default_factory=dict)
    """Their number."""
    precise: float = 0
    """FLOP of those float32 products that are asked for in more than one pass."""
    calls: dict[str, float] = field(default_factory=dict)
    """Library functions by name."""

    @property
    def flop(self) -> float:
        """Of all products."""
        return sum(self.products.values())

    def share(self, dtype: str) -> float:
        """Share of the products' FLOP whose operands have this type."""
        return self.products.get(dtype, 0.0) / self.flop if self.flop else 0.0


def read_program(text: str) -> Summary:
    """Counts what is in a program's text."""
    computations, entry = _computations(text)
    shapes = {one.name: one for lines in computations.values() for one in lines}
    times, fused = _times(computations, entry)
    found = Summary()
    products, counts, calls = Counter[str](), Counter[str](), Counter[str]()
    moves: list[tuple[float, str]] = []
    for name, lines in computations.items():
        runs = times.get(name, 0.0)
        for one in lines:
            product = _product(one, shapes) if runs else None
            if product is not None:
                dtype, flop = product
                products[dtype] += runs * flop
                counts[dtype] += runs
                if dtype == "f32" and re.search(r"operand_precision=\{[^}]*high", one.text):
                    found.precise += runs * flop
            if not runs or name in fused or one.opcode in FREE:
                continue
            if WAITS.match(one.opcode):  # the start names both ends of what is fetched
                found.moved += runs * one.size * one.opcode.endswith("-start")
                continue
            size = one.size + sum(shapes[o].size for o in one.operands if o in shapes)
            found.kernels += runs
            found.fusions += runs * (one.opcode == "fusion")
            found.moved += runs * size
            if one.opcode == "custom-call":
                calls[one.target] += runs
            if _only_moves(one, computations):
                found.moves += runs
                found.moves_bytes += runs * size
                moves.append((runs * size, f"{one.name} {one.shape.split('{')[0]}"))
    found.products, found.product_counts, found.calls = dict(products), dict(counts), dict(calls)
    found.largest_moves = sorted(moves, reverse=True)[:5]
    return found


def _computations(text: str) -> tuple[dict[str, list[Instruction]], str]:
    """Every computation's instructions, and the name of the one that is entered."""
    computations: dict[str, list[Instruction]] = {}
    entry, lines = "", []
    for line in text.splitlines():
        if header := _HEADER.match(line):
            lines = computations.setdefault(header[2], [])
            entry = header[2] if header[1] else entry
        elif found := _LINE.match(line):
            lines.append(_instruction(found[2], found[3], bool(found[1])))
    return computations, entry


def _instruction(name: str, text: str, root: bool) -> Instruction:
    shape, rest = _split_shape(text)
    opcode, _, rest = rest.partition("(")
    inside = rest[: _closing(rest)]
    return Instruction(
        name, shape, opcode.strip(), tuple(re.findall(r"%([^\s,)]+)", inside)), text, root
    )


def _split_shape(text: str) -> tuple[str, str]:
    """The type in front, an array's or in brackets a tuple's, and what follows."""
    if not text.startswith("("):
        shape, _, rest = text.partition(" ")
        return shape, rest
    end = _closing(text[1:]) + 2
    return text[:end], text[end:].lstrip()


def _closing(text: str) -> int:
    """Where the bracket closes that was opened before `text`."""
    depth = 1
    for place, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if not depth:
            return place
    return len(text)


def _times(
    computations: dict[str, list[Instruction]], entry: str
) -> tuple[dict[str, float], set[str]]:
    """How often each computation runs, and which are parts of one kernel."""
    times: dict[str, float] = {}
    fused: set[str] = set()

    def visit(name: str, runs: float, inside: bool) -> None:
        times[name] = times.get(name, 0.0) + runs
        if inside:
            fused.add(name)
        for one in computations.get(name, ()):
            rounds = 1.0
            if one.opcode == "while":
                known = re.search(r'"known_trip_count":\{"n":"(\d+)"', one.text)
                rounds = float(known[1]) if known else 1.0
            called = _CALLED.findall(one.text)
            for branches in _BRANCHES.findall(one.text):
                called += re.findall(r"%([^\s,]+)", branches)
            part = inside or one.opcode not in ("while", "call", "conditional")
            for other in called:
                visit(other, runs * rounds, part)

    visit(entry, 1.0, False)
    return times, fused


def _only_moves(one: Instruction, computations: dict[str, list[Instruction]]) -> bool:
    if one.opcode in ("copy", "transpose", "convert"):
        return True
    if one.opcode != "fusion":
        return False
    called = _CALLED.search(one.text)
    held = computations.get(called[1], []) if called else []
    codes = {x.opcode for x in held}
    return bool(codes) and codes <= MOVES and not codes <= {"parameter", "bitcast", "constant"}


def _product(one: Instruction, shapes: dict[str, Instruction]) -> tuple[str, float] | None:
    """Type of the operands and FLOP of a convolution or matrix product; None of anything else."""
    target = one.target
    if "cudnn$fmha" in target:
        return _attention_flop(one, shapes)
    gemm = one.opcode == "dot" or "gemm" in target or "matmul" in target
    conv = one.opcode == "convolution" or "cudnn$conv" in target
    if not (gemm or conv) or not all(o in shapes for o in one.operands[:2]):
        return None
    left, right = (shapes[o].arrays for o in one.operands[:2])
    if not (left and right and one.arrays):
        return None
    (dtype, left_shape), (other, right_shape), (_, out) = left[0], right[0], one.arrays[0]
    dtype = max(dtype, other, key=lambda d: BYTES[d])
    if gemm:
        over = re.search(r"lhs_contracting_dim(?:s|ensions)\"?[=:][\[{]([\d,\"]*)", one.text)
        axes = [int(axis) for axis in re.findall(r"\d+", over[1])] if over else []
        return dtype, 2.0 * math.prod(out) * math.prod(left_shape[axis] for axis in axes)
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", one.text)
    if labels is None:
        return None
    kernel, result = right_shape, out
    if one.opcode == "convolution":
        return dtype, 2.0 * _pairs(one.text, labels.groups(), left_shape, kernel, out)
    if "BackwardFilter" in target:
        kernel, result = out, right_shape
    elif "BackwardInput" in target:
        result = left_shape
    taps = math.prod(kernel) // kernel[labels[2].index("o")]
    return dtype, 2.0 * math.prod(result) * taps


def _pairs(
    text: str,
    labels: tuple[str, ...],
    image: tuple[int, ...],
    kernel: tuple[int, ...],
    out: tuple[int, ...],
) -> int:
    """Products of a convolution that meet a pixel, not the padding and not a gap between pixels.

    A TPU's program has products of matrices as convolutions most of whose window is padding.
    """
    said = re.search(r"window=\{([^}]*)\}", text)  # a plain product has none
    window = dict(re.findall(r"(\w+)=([-\dx_]+)", said[1])) if said else {}
    axes = sum(letter.isdigit() for letter in labels[0])
    each = lambda key, default: window[key].split("x") if key in window else [default] * axes
    steps, gaps, spreads = (
        [int(n) for n in each(key, "1")] for key in ("stride", "lhs_dilate", "rhs_dilate")
    )
    before = [int(both.split("_")[0]) for both in each("pad", "0_0")]
    met = 1
    for axis in range(axes):
        sides = (
            side[names.index(str(axis))]
            for side, names in zip((image, kernel, out), labels, strict=True)
        )
        pixels, taps, places = sides
        last = (pixels - 1) * gaps[axis]
        at = (
            place * steps[axis] + tap * spreads[axis] - before[axis]
            for place in range(places)
            for tap in range(taps)
        )
        met *= sum(0 <= i <= last and i % gaps[axis] == 0 for i in at)
    rows, features = (out[labels[2].index(letter)] for letter in "bf")
    return met * rows * features * kernel[labels[1].index("i")]


def _attention_flop(one: Instruction, shapes: dict[str, Instruction]) -> tuple[str, float] | None:
    """Two products forward, five backward, of [n, t, h, d] or [n, h, t, d] queries and keys."""
    if not all(o in shapes and shapes[o].arrays for o in one.operands[:2]):
        return None
    (dtype, query), (_, key) = (shapes[o].arrays[0] for o in one.operands[:2])
    if len(query) != 4 or len(key) != 4:
        return None
    heads = [axis for axis in (1, 2) if query[axis] == key[axis]][-1:]
    tokens = key[3 - heads[0]] if heads else key[1]
    return dtype, (10.0 if "Backward" in one.target else 4.0) * math.prod(query) * tokens


def lines(found: Summary) -> Iterable[str]:
    """The summary for people."""
    kinds = ", ".join(
        f"{found.product_counts[dtype]:,.0f} of {dtype} ({100 * found.share(dtype):.2f} %)"
        for dtype in sorted(found.products)
    )
    yield f"products {found.flop / 1e9:,.1f} GFLOP: {kinds or 'none'}" + (
        f"; {100 * found.precise / found.flop:.2f} % in several passes" if found.precise else ""
    )
    yield (
        f"{found.kernels:,.0f} kernels, {found.fusions:,.0f} of them fusions, moving "
        f"{found.moved / 2**20:,.0f} MiB; {found.moves:,.0f} only copy, transpose or convert, "
        f"{found.moves_bytes / 2**20:,.0f} MiB"
    )
    if found.largest_moves:
        yield "largest of those: " + ", ".join(
            f"{name} {size / 2**20:,.0f}" for size, name in found.largest_moves
        )
    if found.calls:
        yield "calls: " + ", ".join(f"{n:,.0f} {name}" for name, n in sorted(found.calls.items()))
