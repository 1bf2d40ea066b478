"""Pickles read as data: numbers, strings and containers, and nothing called but what is offered.

Python's own reader calls what a file names, lets the file set attributes of what it was given, and
takes memory as the file says. This one follows the same steps over `pickletools.genops`, which only
tells them apart, and does none of that: a name becomes what `find` gives for it, attributes are
dropped, and both the steps and the elements that calls copy are counted.
"""

import pickletools
from collections.abc import Callable, Sequence
from typing import Any, BinaryIO

from jaxcl.reading import PICKLE_STEPS

_LITERALS = frozenset((
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING",
    "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "UNICODE",
    "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8",
))  # fmt: skip
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_EMPTY: dict[str, Callable[[], Any]] = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_SET": set}
_SHORT_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_NOTHING = frozenset(("PROTO", "FRAME"))
_KEYS = (str, int, float, bytes, type(None))
_INT_BITS = 128


class Call:
    """A function that a pickle may call; it has no attributes that could be set."""

    __slots__ = ("function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function


class Ignored:
    """Stands for an object that is no data: it can be called, filled and changed to no effect."""

    __slots__ = ()


IGNORED = Ignored()


class _Mark:
    __slots__ = ()


_MARK = _Mark()


def read_pickle(
    file: BinaryIO, find: Callable[[str, str], Any], persistent: Callable[[Any], Any]
) -> Any:
    """The object in a pickle; the file is left behind its end.

    Args:
      file: at the start of the pickle.
      find: from module and name to a `Call`, to `IGNORED` or to plain data; raises `UserError` for
        what a file must not name.
      persistent: from the identifier of something that lies outside of the pickle to it.

    Raises:
      ValueError, TypeError, IndexError, KeyError: it is no pickle of plain data, is cut short or
        takes too many steps.
    """
    return _Machine(find, persistent).run(file)


class _Machine:
    """The stack and the memo that the steps of a pickle work on."""

    def __init__(self, find: Callable[[str, str], Any], persistent: Callable[[Any], Any]) -> None:
        self.find, self.persistent = find, persistent
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.steps = 0

    def run(self, file: BinaryIO) -> Any:
        for code, argument, _ in pickletools.genops(file):
            self.spend(1)
            if code.name == "STOP":
                break
            self.step(code.name, argument)
        return self.stack.pop()

    def spend(self, steps: int) -> None:
        self.steps += steps
        if self.steps > PICKLE_STEPS:
            raise ValueError(f"its pickle takes more than {PICKLE_STEPS:,} steps, the limit")

    def step(self, name: str, argument: Any) -> None:
        stack = self.stack
        if name in ("BINPUT", "LONG_BINPUT", "PUT"):
            self.memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET", "GET"):
            stack.append(self.memo[argument])
        elif name in _LITERALS:
            if isinstance(argument, int) and argument.bit_length() > _INT_BITS:
                raise ValueError(f"a number has {argument.bit_length():,} bits")
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _EMPTY:
            stack.append(_EMPTY[name]())
        elif name in _SHORT_TUPLES:
            stack.append(tuple(self.popped(_SHORT_TUPLES[name])))
        elif name == "MARK":
            stack.append(_MARK)
        elif name in _NOTHING:
            pass
        else:
            method = getattr(self, f"_{name.lower()}", None)
            if method is None:
                raise ValueError(f"its pickle has a step {name}, which plain data has not")
            method(argument)

    def popped(self, count: int) -> list[Any]:
        """The last `count` values, taken from the stack."""
        if len(self.stack) < count:
            raise ValueError("its pickle takes more values than there are")
        values = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        return values

    def marked(self) -> list[Any]:
        """The values behind the last mark, taken from the stack with it."""
        at = len(self.stack) - 1
        while at >= 0 and self.stack[at] is not _MARK:
            at -= 1
        if at < 0:
            raise ValueError("its pickle lacks a mark")
        values = self.stack[at + 1 :]
        del self.stack[at:]
        return values

    def call(self, function: Any, arguments: Sequence[Any]) -> None:
        of_nothing = bool(arguments) and isinstance(arguments[0], Ignored)  # a dict of a stand-in
        if isinstance(function, Ignored) or (isinstance(function, Call) and of_nothing):
            self.stack.append(IGNORED)
            return
        if not isinstance(function, Call):
            raise TypeError(f"its pickle calls a {type(function).__name__}")
        self.spend(sum(len(a) for a in arguments if hasattr(a, "__len__")))
        self.stack.append(function.function(*arguments))

    def _pop(self, _: Any) -> None:
        self.stack.pop()

    def _pop_mark(self, _: Any) -> None:
        self.marked()

    def _dup(self, _: Any) -> None:
        self.stack.append(self.stack[-1])

    def _tuple(self, _: Any) -> None:
        values = self.marked()
        self.stack.append(tuple(values))

    def _list(self, _: Any) -> None:
        values = self.marked()
        self.stack.append(values)

    def _dict(self, _: Any) -> None:
        pairs = self.marked()
        made: dict[Any, Any] = {}
        fill(made, pairs)
        self.stack.append(made)

    def _frozenset(self, _: Any) -> None:
        self.stack.append(frozenset(map(key, self.marked())))

    def _append(self, _: Any) -> None:
        (item,) = self.popped(1)
        extend(self.stack[-1], [item])

    def _appends(self, _: Any) -> None:
        items = self.marked()
        extend(self.stack[-1], items)

    def _additems(self, _: Any) -> None:
        items = self.marked()
        if isinstance(self.stack[-1], set):
            self.stack[-1].update(map(key, items))
        elif not isinstance(self.stack[-1], Ignored):
            raise TypeError(f"its pickle adds to a {type(self.stack[-1]).__name__}")

    def _setitem(self, _: Any) -> None:
        pair = self.popped(2)
        fill(self.stack[-1], pair)

    def _setitems(self, _: Any) -> None:
        pairs = self.marked()
        fill(self.stack[-1], pairs)

    def _build(self, _: Any) -> None:
        """Attributes are dropped, whatever they belong to."""
        self.stack.pop()

    def _global(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self.stack.append(self.find(module, name))

    def _stack_global(self, _: Any) -> None:
        module, name = self.popped(2)
        if not isinstance(module, str) or not isinstance(name, str):
            raise TypeError("its pickle names something without a string")
        self.stack.append(self.find(module, name))

    def _inst(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        arguments = self.marked()
        self.call(self.find(module, name), arguments)

    def _obj(self, _: Any) -> None:
        function, *arguments = self.marked()
        self.call(function, arguments)

    def _reduce(self, _: Any) -> None:
        function, arguments = self.popped(2)
        self.call(function, () if isinstance(arguments, Ignored) else tuple_of(arguments))

    _newobj = _reduce

    def _newobj_ex(self, _: Any) -> None:
        function, arguments, _ = self.popped(3)
        self.call(function, tuple_of(arguments))

    def _persid(self, argument: str) -> None:
        self.stack.append(self.persistent(argument))

    def _binpersid(self, _: Any) -> None:
        (saved,) = self.popped(1)
        self.stack.append(self.persistent(saved))


def tuple_of(values: Any) -> tuple[Any, ...]:
    """The arguments of a call."""
    if not isinstance(values, tuple):
        raise TypeError(f"its pickle calls with a {type(values).__name__}")
    return values


def key(value: Any) -> Any:
    """A value that may be a key: what is nested could take for ever to hash."""
    flat = value if isinstance(value, tuple) else (value,)
    if not all(isinstance(item, _KEYS) for item in flat):
        raise TypeError(f"its pickle has a {type(value).__name__} as a key")
    return value


def fill(target: Any, pairs: Sequence[Any]) -> None:
    """Sets items of a dict; `pairs` alternates keys and values."""
    if isinstance(target, Ignored):
        return
    if not isinstance(target, dict) or len(pairs) % 2:
        raise TypeError(f"its pickle sets items of a {type(target).__name__}")
    for name, value in zip(pairs[::2], pairs[1::2], strict=True):
        target[key(name)] = value


def extend(target: Any, items: Sequence[Any]) -> None:
    """Adds items to a list."""
    if isinstance(target, list):
        target.extend(items)
    elif not isinstance(target, Ignored):
        raise TypeError(f"its pickle appends to a {type(target).__name__}")
