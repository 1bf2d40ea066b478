"""Experiments as JSON, and the words for what does not fit together."""

import ast
import dataclasses
import json
import re
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from flax import linen as nn

import jaxcl
from jaxcl import UserError, methods, ranges
from jaxcl.data import Data, Digits
from jaxcl.experiment import (
    check,
    classes_of,
    differences,
    flatten,
    from_json,
    load_config,
    read_config,
    save_config,
    to_json,
)
from jaxcl.methods import SimCLR
from jaxcl.programs.train import with_options
from jaxcl.training.step import Trainer

CONFIGS = sorted((Path(__file__).parents[1] / "configs").glob("*.py"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_loads_is_sound_and_survives_json(path):
    experiment = read_config(path)
    check(experiment)
    experiment.optim.schedule(experiment.data.batch_size, 10)
    again = from_json(json.loads(json.dumps(to_json(experiment))))
    assert again == experiment
    header = path.read_text().split('"""')[1]
    assert f"python train.py configs/{path.name}" in header


@pytest.mark.extended
@pytest.mark.parametrize(
    "path", [path for path in CONFIGS if "imagenet" not in path.stem], ids=lambda path: path.stem
)
def test_first_steps_can_be_traced(path):
    """Of all but the deep networks' configs, which take minutes and are of the same methods."""
    experiment = read_config(path)
    if not isinstance(experiment.data, Data):
        pytest.skip("its shapes follow from its tokenizer and lines")
    size, side = experiment.data.batch_size, experiment.method.augment.size
    grey = isinstance(experiment.data.source, Digits)
    number = jax.ShapeDtypeStruct((size,), jnp.int32)
    image = jax.ShapeDtypeStruct((size, side, side, 1 if grey else 3), jnp.uint8)
    batch = {"image": image, "label": number, "index": number}
    trainer = Trainer(experiment.method, experiment.optim, experiment.probe, size, 10, 10, 50_000)
    state = jax.eval_shape(lambda batch: trainer.init(0, batch), batch)  # which traces a step
    assert "loss" in state.totals


def test_config_of_a_run_directory(tmp_path):
    experiment = read_config(CONFIGS[0].with_name("simclr_cifar10.py"))
    save_config(experiment, tmp_path)
    assert load_config(tmp_path) == experiment
    assert differences(tmp_path, experiment) == {}
    warmer = replace(experiment, method=replace(experiment.method, temperature=9.0))
    assert set(differences(tmp_path, warmer)) == {"method.temperature"}


def test_options_of_a_class_in_the_config_file_itself(tmp_path):
    """Their help is read from the file; a second file of that name has its own."""
    for folder, field in (("one", "sharpness"), ("two", "softness")):
        (tmp_path / folder).mkdir()
        path = tmp_path / folder / "own_method.py"
        path.write_text(
            "from dataclasses import dataclass, replace\n"
            "import tiny\n"
            "from jaxcl.methods import SimCLR\n\n\n"
            "@dataclass(frozen=True)\n"
            "class Own(SimCLR):\n"
            f"    {field}: float = 1.0\n"
            '    """What it adds."""\n\n\n'
            "experiment = replace(tiny.experiment, method=Own())\n"
        )
        asked = [f"--method.{field}", "3"]
        found = with_options(read_config(path), asked, program="train.py")
        assert getattr(found.method, field) == 3.0


def test_a_field_that_was_not_there_yet_counts_as_its_default(tmp_path):
    """So that a run of an earlier version goes on where it was."""
    experiment = read_config(CONFIGS[0])
    stored = to_json(experiment)
    del stored["probe"]["optimiser"]
    (tmp_path / "config.json").write_text(json.dumps(stored))
    probe = replace(experiment.probe, optimiser="adam")
    assert differences(tmp_path, replace(experiment, probe=probe)) == {}
    probe = replace(experiment.probe, optimiser="run")
    changed = differences(tmp_path, replace(experiment, probe=probe))
    assert changed == {"probe.optimiser": ("adam", "run")}


def test_pixels_are_not_stored():
    stored = to_json(tiny.experiment)["data"]["source"]["train_images"]
    assert stored == {"array": "uint8", "shape": [160, 8, 8, 1]}
    assert from_json(stored).shape == (0, 8, 8, 1)


def test_flatten_names_every_field():
    flat = flatten({"a": {"b": 1, "c": [1, 2]}, "d": [{"e": 5}]})
    assert flat == {"a.b": 1, "a.c": [1, 2], "d.0.e": 5}


@dataclass(frozen=True)
class Mine(SimCLR):
    """A user's own method."""


class Net(nn.Module):
    """A user's own encoder."""

    width: int = 3


def test_own_classes_are_found_and_asked_for():
    mine = replace(tiny.experiment, method=Mine(tiny.experiment.method.augment, 1, Net(5)))
    own = classes_of(mine)
    assert set(own.values()) == {Mine, Net}
    stored = to_json(mine.method)
    assert from_json(stored, own) == mine.method
    with pytest.raises(UserError, match=r"names .*Mine, which is no class of jaxcl; .*--config"):
        from_json(stored)


@pytest.mark.parametrize(
    "name", ["os.system", "jaxcl.run.load", "jaxcl.errors.UserError", "builtins.eval", "jaxcl.no.X"]
)
def test_reading_a_config_runs_nothing_else(name):
    with pytest.raises(UserError, match="is no class of jaxcl"):
        from_json({"class": name, "path": "x"})


def test_a_field_of_another_version_is_told():
    with pytest.raises(UserError, match=r"of this version cannot be made from it.*'colour'"):
        from_json({"class": "jaxcl.data.digits.Digits", "colour": 3})


def test_values_a_config_cannot_hold():
    with pytest.raises(TypeError, match="a config cannot hold"):
        to_json(np.sin)


def method(**changes):
    return replace(tiny.experiment, method=replace(tiny.experiment.method, **changes))


GROUPED = tiny.experiment.method.encoder.clone(groups=3)


@pytest.mark.parametrize(
    ("experiment", "words"),
    [
        (method(chunks=5), r"data.batch_size=32 does not split into method.chunks=5; use 30"),
        (
            method(encoder=GROUPED),
            r"data.batch_size=32 does not split into method.encoder.groups=3",
        ),
        (method(chunks=4), r"method.encoder.groups=1 .* over method.chunks=4.*encoder.groups=4"),
        (tiny.with_("train", log_every=0), r"train.log_every=0; it is at least 1"),
    ],
)
def test_what_does_not_fit_together(experiment, words):
    with pytest.raises(UserError, match=words):
        check(experiment)


def test_config_files_that_are_none(tmp_path):
    (tmp_path / "mine.py").write_text("x = 1\n")
    with pytest.raises(UserError, match=r"there is no config .*yours.py; .* holds mine.py"):
        read_config(tmp_path / "yours.py")
    with pytest.raises(UserError, match=r"mine.py defines no `experiment = Experiment"):
        read_config(tmp_path / "mine.py")


def test_a_damaged_config_is_told(tmp_path):
    (tmp_path / "config.json").write_text('{"class": ')
    with pytest.raises(UserError, match=r"config.json is damaged \(line 1"):
        load_config(tmp_path)
    with pytest.raises(
        UserError, match=r"holds no run .*train first: python train.py CONFIG --dir"
    ):
        load_config(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("section", "fields", "words"),
    [
        ("method", {"temperature": 0.0}, "method.temperature=0; use a number above 0"),
        ("method", {"temperature": -1.0}, "method.temperature=-1; use a number above 0"),
        ("method", {"temperature": float("nan")}, "method.temperature=nan is no number"),
        ("method", {"scale": 0.0}, "method.scale=0; use a number above 0"),
        ("method", {"chunks": 0}, "method.chunks=0; use 1 or more"),
        ("optim", {"lr": -0.1}, "optim.lr=-0.1 is below zero"),
        ("optim", {"momentum": 1.5}, "optim.momentum=1.5 is no share; use 0 to 1"),
        ("optim", {"average": 1.0}, "optim.average=1 is no share below 1"),
        ("probe", {"neighbours": 0}, "probe.neighbours=0; use 1 or more"),
        ("data", {"batch_size": 1}, "data.batch_size=1 contrasts nothing; use 2 or more"),
        ("data", {"batch_size": 0}, "data.batch_size=0 contrasts nothing; use 2 or more"),
    ],
)
def test_numbers_out_of_range_are_told(section, fields, words):
    with pytest.raises(UserError, match=re.escape(words)):
        check(tiny.with_(section, **fields))


def test_every_number_of_a_method_has_a_range():
    """By its name, in the list of ranges or, where zero and below have a meaning, here."""
    free = {"repeat", "step", "total", "per_epoch"}
    known = {*ranges.ABOVE_ZERO, *ranges.FROM_ZERO, *ranges.SHARES, *ranges.PARTS}
    found = {
        field.name
        for name in methods.__all__
        if dataclasses.is_dataclass(cls := getattr(methods, name))
        for field in dataclasses.fields(cls)
        if field.type in ("float", "int", float, int)
    }
    assert "temperature" in found and found - free <= known


def test_a_config_is_a_python_file_and_finds_its_neighbours(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(UserError, match=r"x.json is no config: that is a Python file"):
        read_config(tmp_path / "x.json")
    (tmp_path / "beside_it.py").write_text("RATE = 0.123\n")
    (tmp_path / "own.py").write_text(
        "from dataclasses import replace\nimport beside_it\nimport tiny\n"
        "optim = replace(tiny.experiment.optim, lr=beside_it.RATE)\n"
        "experiment = replace(tiny.experiment, optim=optim)\n"
    )
    assert read_config(tmp_path / "own.py").optim.lr == 0.123


def test_a_config_takes_the_place_of_no_module(tmp_path):
    """One that is read again takes its own; classes of it are looked up there."""
    for rate in (0.1, 0.2):
        for name in ("tiny", "of_its_own"):
            path = tmp_path / f"{name}.py"
            path.write_text(f"import tiny\nRATE = {rate}\nexperiment = tiny.experiment\n")
            read_config(path)
    assert sys.modules["tiny"] is tiny and not hasattr(tiny, "RATE")
    assert sys.modules.pop("of_its_own").RATE == 0.2


def test_messages_name_options_that_exist():
    """Words such as data.max_bad in the text of a `UserError`."""
    known = {"train.py"}
    for path in CONFIGS:
        for name in flatten(to_json(read_config(path))):
            parts = name.split(".")
            known |= {".".join(parts[:end]) for end in range(2, len(parts) + 1)}
    word = re.compile(r"(?<![\w/.-])(?:--)?((?:data|optim|train|probe|method)\.[a-z_.-]*[a-z_])")
    found, unknown = 0, []
    for path in Path(jaxcl.__file__).parent.rglob("*.py"):
        for call in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(call, ast.Call) and getattr(call.func, "id", "") == "UserError"):
                continue
            for text in ast.walk(call):
                if isinstance(text, ast.Constant) and isinstance(text.value, str):
                    names = [name.replace("-", "_") for name in word.findall(text.value)]
                    found += len(names)
                    unknown += [
                        (path.name, call.lineno, name)
                        for name in names
                        # Fields of a source are no options: it is given as one word.
                        if name not in known or name.startswith("data.source.")
                    ]
    assert found > 40 and unknown == []
