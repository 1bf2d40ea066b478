"""Options of the programs that several processes run together."""

import argparse
import signal
from collections.abc import Sequence
from typing import NoReturn

from jaxcl.errors import UserError
from jaxcl.programs.answers import drop_output
from jaxcl.scale import join, process_group

HELP = """\
Several processes, on one host or many: give the same command in each, with --hosts ADDRESS (of the
first process: host or host:port), --rank R (which process this is, from 0) and --of N (how many).
A SLURM step, Open MPI and a TPU pod need none of the three."""


def joined(arguments: Sequence[str]) -> list[str]:
    """Joins the other processes, where there are any; the arguments that are left.

    Of several processes the first one alone prints its output.

    Raises:
      UserError: the options do not go together, or the others do not come.
    """
    parser = _Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("--hosts", default="")
    parser.add_argument("--rank", type=int, default=0)
    parser.add_argument("--of", type=int, default=0)
    own, others = parser.parse_known_args(arguments)
    join(own.hosts, own.rank, own.of)
    group = process_group()
    if group:
        # Where nothing is saved yet, SIGTERM ends this process, and so all of them.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    if group and group.rank:
        drop_output()
    return others


class _Parser(argparse.ArgumentParser):
    """Whose complaints are a user's mistake as any other."""

    def error(self, message: str) -> NoReturn:
        raise UserError(message)
