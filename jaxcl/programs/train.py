"""`train.py CONFIG [options]`: reads a config, edits it by the options, trains."""

import sys
from collections.abc import Sequence
from pathlib import Path

from jaxcl.experiment import Experiment, read_config
from jaxcl.options import parsed
from jaxcl.programs.answers import STOPPED, answered
from jaxcl.programs.hosts import HELP, joined
from jaxcl.training.loop import fit

USAGE = f"""\
usage: train.py CONFIG [options]

CONFIG is a Python file that defines `experiment = Experiment(...)`, such as
configs/simclr_cifar10.py. Every field of the experiment is an option:

    python train.py configs/simclr_cifar10.py --help
    python train.py configs/simclr_cifar10.py --data photos.zip --method.temperature 0.2

A run that was stopped goes on where it was when the same command is given again.

{HELP}
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Exits with 2 for a user's mistake, with 130 where a signal stopped the run."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    answered(lambda: _asked(joined(arguments)))


def _asked(arguments: list[str]) -> None:
    if not arguments or arguments[0].startswith("-"):
        print(USAGE, end="")
        sys.exit(0 if arguments and arguments[0] in ("-h", "--help") else 2)
    train(Path(arguments[0]), arguments[1:])


def train(config: Path, options: Sequence[str]) -> None:
    """Trains the experiment of a config file with some fields set otherwise."""
    experiment = with_options(read_config(config), options, program=f"train.py {config}")
    run = Path(experiment.train.dir or Path("runs") / config.stem)
    if not fit(experiment, run).finished:
        sys.exit(STOPPED)
    print(f"done: {run}; evaluate it: python eval.py {run}")


def with_options(experiment: Experiment, options: Sequence[str], *, program: str) -> Experiment:
    """The experiment with the fields that the options name set to their values.

    An unknown or ill-typed option ends the program with the nearest names there are.
    """
    return parsed(
        Experiment,
        list(options),
        program=program,
        default=experiment,
        description=f"Trains; every field of the experiment is an option.\n\n{HELP}",
    )
