"""All vision methods on one set, encoder and budget, over several seeds: a table and a plot.

    python benchmarks/methods.py --data FOLDER-OR-ZIP                     # the small configs
    python benchmarks/methods.py --data FOLDER-OR-ZIP --images 10000 --epochs 10 --seeds 3
    python benchmarks/methods.py --data FOLDER-OR-ZIP --configs cifar10_lightly --epochs 200

Trains `configs/NAME_cifar10_small.py` (or of another recipe) of every method into DIR/NAME-SEED; a
call that was stopped goes on where it was, and runs that are finished are only read. Then kNN and
logistic regression on frozen features of plain images, all test images, beside the encoder as it
was before the first step. Images/s are the best log line's, memory is the compiled step's work
space by the compiler's figure.
"""

import json
import statistics
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import jax
import matplotlib.pyplot as plt
import tyro

import jaxcl
from jaxcl.data import Labels, parse_source
from jaxcl.evaluate import knn_accuracy, logistic_probe
from jaxcl.evaluate.subsets import at_most
from jaxcl.experiment import Experiment, read_config
from jaxcl.training import loop
from jaxcl.training.logs import read_metrics

CONFIGS = Path(__file__).parents[1] / "configs"
METHODS = ("simclr", "moco_v2", "byol", "simsiam", "swav", "deepcluster_v2", "dino", "sup_con")
KEPT = "benchmark.json"
PROBE_ROWS = 10_000


@dataclass(frozen=True)
class Options:
    """What to train."""

    data: str
    """A folder or zip of class folders, tfds:NAME, or digits."""
    methods: tuple[str, ...] = METHODS
    """Names of configs without the recipe."""
    configs: str = "cifar10_small"
    """The recipe: configs/METHOD_RECIPE.py."""
    seeds: int = 3
    """Runs of each method."""
    epochs: int = 0
    """Length of each run; 0: as the config says."""
    images: int = 0
    """Training images, drawn evenly over the classes; 0: all."""
    dir: str = "runs/methods"
    """Where the runs, the table and the plot go."""


class Watched(loop._Run):
    """A run that keeps the work space of its step, which a finished run cannot tell any more."""

    def _begin(self, step: int) -> None:
        super()._begin(step)
        program = next(iter(self.compiled.values()))  # the one that the run describes
        memory = program.memory_analysis().temp_size_in_bytes / 2**20
        (self.run / KEPT).write_text(json.dumps({"memory": memory}))


def main(options: Options) -> None:
    """Trains what is missing, and writes the table and the plot."""
    loop._Run = Watched
    rows: dict[str, list[dict[str, float]]] = {}
    for seed in range(options.seeds):
        for name in options.methods:
            run = Path(options.dir) / f"{name}-{seed}"
            experiment = asked(name, seed, options)
            if not jaxcl.fit(experiment, run).finished:
                sys.exit(130)
            rows.setdefault(name, []).append(measured(run))
            write(rows, options)


def asked(name: str, seed: int, options: Options) -> Experiment:
    """The config of a method, on these data, for this long."""
    experiment = read_config(CONFIGS / f"{name}_{options.configs}.py")
    data = replace(experiment.data, source=parse_source(options.data))
    if options.images:
        data = replace(data, labels=Labels(keep=options.images))
    train = replace(experiment.train, seed=seed, log_every=10, tensorboard=False)
    probe = replace(experiment.probe, every=0)
    optim = replace(experiment.optim, epochs=options.epochs or experiment.optim.epochs)
    return replace(experiment, data=data, train=train, probe=probe, optim=optim)


def measured(path: Path) -> dict[str, float]:
    """Scores of a run and of its encoder before the first step, kept beside it."""
    kept = path / KEPT
    found: dict[str, float] = json.loads(kept.read_text())
    if "untrained_knn" not in found:
        run = jaxcl.load(path)
        before = {f"untrained_{name}": score for name, score in scores(run.untrained()).items()}
        rates = [row["images_per_s"] for row in read_metrics(path) if "images_per_s" in row]
        found |= scores(run) | before | {"rate": max(rates)}
        kept.write_text(json.dumps(found))
    return found


def scores(run: jaxcl.Run) -> dict[str, float]:
    """Accuracies on frozen features of all test images, in percent."""
    data, method = run.experiment.data, run.experiment.method
    (x, y), (test_x, test_y) = (
        run.embedder.split(run.state, data.passes(data.split(name), method))
        for name in ("train", "test")
    )
    knn = knn_accuracy(x, y, test_x, test_y, classes=len(run.classes), k=200, temperature=0.1)
    rows = at_most(PROBE_ROWS, len(y))
    probe = logistic_probe(x[rows], y[rows], test_x, test_y)
    return {"knn": float(knn), "linear": probe.accuracy}


def write(rows: dict[str, list[dict[str, float]]], options: Options) -> None:
    """The table so far, on the terminal and as a file, and the plot."""
    lines = [
        f"jax {jax.__version__} on {jax.devices()[0].device_kind}, {options.configs}, "
        f"{options.data}, {options.images or 'all'} images, {options.epochs or 'config'} epochs",
        "",
        "| method | seeds | kNN % | untrained | linear % | untrained | images/s | work space |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name, found in rows.items():
        cells = [name, str(len(found))]
        cells += [
            spread(found, prefix + score)
            for score in ("knn", "linear")
            for prefix in ("", "untrained_")
        ]
        cells += [f"{max(f['rate'] for f in found):,.0f}", f"{found[0]['memory']:,.0f} MiB"]
        lines.append("| " + " | ".join(cells) + " |")
    text = "\n".join(lines) + "\n"
    print(text, flush=True)
    folder = Path(options.dir)
    (folder / "table.md").write_text(text)
    figure, axes = plt.subplots(figsize=(7, 0.5 * len(rows) + 1.5))
    for color, score, label in (("C0", "knn", "kNN"), ("C1", "linear", "linear")):
        for prefix, mark, when in (("", "o", ""), ("untrained_", "|", ", untrained")):
            dots = [
                (f[prefix + score], place)
                for place, found in enumerate(rows.values())
                for f in found
            ]
            axes.plot(*zip(*dots, strict=True), color + mark, alpha=0.7, label=label + when)
    axes.set_yticks(range(len(rows)), rows)
    axes.invert_yaxis()
    axes.set_xlabel("accuracy, %; one dot a seed")
    axes.legend()
    figure.tight_layout()
    figure.savefig(folder / "plot.png", dpi=120)
    plt.close(figure)


def spread(found: list[dict[str, float]], score: str) -> str:
    """Mean and standard deviation over the seeds."""
    values = [f[score] for f in found]
    deviation = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{deviation}"


if __name__ == "__main__":
    main(tyro.cli(Options))
