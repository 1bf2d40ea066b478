"""How fields of a config become options of the command line: the one place that knows tyro.

A config can be written, trained and loaded without tyro; only the programs need it.
"""

from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any, TypeVar

from jaxcl.errors import UserError, need

Config = TypeVar("Config")

tyro: Any = import_module("tyro") if find_spec("tyro") else None

WITHOUT: Any = None
"""What a mark is where tyro is not installed: `Annotated` takes it, and nobody reads it."""
POSITIONAL: Any = tyro.conf.Positional if tyro else WITHOUT
"""A mark for `Annotated`: the value is given by its place, without the option's name."""


def short(name: str) -> Any:
    """A mark for `Annotated`: the option can also be given under this name, "--dir" say."""
    return tyro.conf.arg(aliases=[name]) if tyro else WITHOUT


def word(
    kind: type,
    parse: Callable[[str], Any],
    words: Callable[[Any], list[str]],
    *,
    forms: str,
) -> Any:
    """A mark for `Annotated`: the field is given as one word.

    Args:
      kind: class of the field's values.
      parse: from the word to a value; its `UserError` becomes the command line's own message.
      words: from a value to what the help shows.
      forms: what the help says may be given.
    """

    def value(words: list[str]) -> Any:
        try:
            return parse(words[0])
        except UserError as error:
            raise ValueError(str(error)) from error  # what tyro prints as its own

    if not tyro:
        return WITHOUT
    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar=forms,
        instance_from_str=value,
        is_instance=lambda value: isinstance(value, kind),
        str_from_instance=words,
    )


def parsed(
    cls: type[Config],
    arguments: Sequence[str] | None,
    *,
    program: str,
    default: Config | None = None,
    description: str | None = None,
) -> Config:
    """The value that a command line gives to a dataclass of options.

    An unknown or ill-typed option ends the program with the nearest names there are.

    Args:
      cls: the dataclass; its attributes' docstrings are the help.
      arguments: words of the command line; None: those of this process.
      program: what the help calls the program.
      default: value of the fields that are not given; None: the defaults of `cls`.
      description: first lines of the help; None: the docstring of `cls`.

    Raises:
      UserError: tyro is not installed.
    """
    need("tyro", f"the command line of {program}", "or use jaxcl from Python")
    asked = {} if default is None else {"default": default}
    found: Config = tyro.cli(cls, args=arguments, prog=program, description=description, **asked)
    return found
