"""Weights of another run by name, and what is said where they cannot be had."""

import shutil
from dataclasses import dataclass, replace

import jax
import numpy as np
import pytest
from contract import ENCODER, RECIPE, experiment
from contract import SIZE as SIDE

from jaxcl import UserError, fit, load
from jaxcl.encoders import MLP, initialise
from jaxcl.methods import Method, SimCLR
from jaxcl.methods.earlier import Part, difference, named_run, read_run
from jaxcl.training.beginning import with_encoder
from jaxcl.weights import read_tensors, save_encoder, write_tensors

KEY = "method.start_from"
HEAD = MLP((0, 12), 8, final_norm="scale")


def shapes(module, width):
    image = (1, SIDE, SIDE, 3) if width is None else (1, width)
    make = lambda x: initialise(module, jax.random.key(0), x)
    return Part(*jax.eval_shape(make, jax.ShapeDtypeStruct(image, np.float32)))


def same(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_parts_come_with_their_statistics(pretrained):
    run, held = read_run(str(pretrained), KEY), load(pretrained).state
    same(
        run.part("encoder", ENCODER, shapes(ENCODER, None)),
        Part(held.params["encoder"], held.memory.stats["encoder"]),
    )
    first = run.part("projector", HEAD, shapes(MLP((0,), 8), 8)._replace(params={
        "linear1": held.params["projector"]["linear1"]}))  # fmt: skip
    same(first.params["linear1"], held.params["projector"]["linear1"])
    assert set(first.params) == {"linear1"}
    same(first.stats["norm1"], held.memory.stats["projector"]["norm1"])
    assert isinstance(run.method, SimCLR)


def test_what_only_says_how_to_compute_may_differ(pretrained):
    run = read_run(str(pretrained), KEY)
    other = ENCODER.clone(groups=4, dtype="bfloat16", remat=True)
    same(run.part("encoder", other, shapes(ENCODER, None)).params, run.kept.params)


@pytest.mark.parametrize(
    ("name", "module", "words"),
    [
        ("encoder", ENCODER.clone(width=0.25), r"method.encoder.width=0.125, and here it is 0.25"),
        ("projector", MLP((0,), 8), r"method.projector.hidden=\(0, 12\), and here it is \(0,\)"),
        ("projector", ENCODER, r"method.projector=MLP, and here it is ResNet; set method.proj"),
        ("predictor", HEAD, r"has no predictor; it has encoder, projector"),
    ],
)
def test_another_network_is_told_by_its_first_differing_field(pretrained, name, module, words):
    with pytest.raises(UserError, match=words):
        read_run(str(pretrained), KEY).part(name, module, Part({}, {}))


def test_other_images_are_told(pretrained):
    grey = jax.eval_shape(
        lambda x: initialise(ENCODER, jax.random.key(0), x), np.zeros((1, SIDE, SIDE, 1))
    )
    words = r"has shape \(3, 3, 3, 8\) where encoder.stem.kernel of shape \(3, 3, 1, 8\) is wanted"
    with pytest.raises(UserError, match=words):
        read_run(str(pretrained), KEY).part("encoder", ENCODER, Part(*grey))


def test_a_run_that_is_not_finished_is_told(tmp_path, pretrained, caplog):
    read_run(str(pretrained), KEY)
    assert not caplog.messages
    begun = shutil.copytree(pretrained, tmp_path / "begun")
    for step in (5, 6):
        shutil.rmtree(begun / "checkpoints" / str(step))
    read_run(str(begun), KEY)
    (told,) = caplog.messages
    assert told == f"{KEY}={begun} stopped after step 4 of 6; it is used as it is"


def test_runs_that_are_none(tmp_path, pretrained):
    with pytest.raises(UserError, match=r"start_from is empty; name .*: --method.start_from runs/"):
        named_run("", KEY)
    with pytest.raises(UserError, match=r"start_from=.*/gone does not exist; train it first: "):
        read_run(str(tmp_path / "gone"), KEY)
    with pytest.raises(UserError, match=r"start_from: .* holds no run \(config.json is missing"):
        read_run(str(tmp_path), KEY)
    for name in ("config.json", "shapes.json"):
        (tmp_path / name).write_bytes((pretrained / name).read_bytes())
    with pytest.raises(UserError, match=r"start_from: .* holds no checkpoint; train first"):
        read_run(str(tmp_path), KEY)


def test_differences_are_found_inside_nested_values():
    @dataclass(frozen=True)
    class Outer:
        inner: Method

    one, other = Outer(SimCLR(RECIPE)), Outer(SimCLR(RECIPE, temperature=0.3))
    assert difference(one, one) is None
    assert difference(one, other) == ("inner.temperature", 0.1, 0.3)


def test_any_run_starts_its_encoder_from_a_file(tmp_path, pretrained):
    file = tmp_path / "encoder.safetensors"
    save_encoder(file, *load(pretrained).encoder)
    method = SimCLR(RECIPE, encoder=ENCODER, projector=MLP((0,), 8))
    begun = experiment(method)
    still = replace(begun.optim, lr=0.0, weight_decay=0.0, epochs=1)
    begun = replace(begun, optim=still, train=replace(begun.train, start=str(file)))
    run = tmp_path / "run"
    fit(begun, run)
    same(load(run).state.params["encoder"], load(pretrained).state.params["encoder"])


def test_slow_copies_and_statistics_start_from_the_file_too(tmp_path, pretrained):
    file, kept = tmp_path / "encoder.safetensors", load(pretrained).encoder
    save_encoder(file, *kept)
    zeros = Part(*jax.tree.map(np.zeros_like, (kept.params, kept.stats)))
    memory = Part(
        {"encoder": zeros.params, "head": zeros.params}, {"slow": {"encoder": zeros.stats}}
    )
    params, memory = with_encoder(
        SimCLR(RECIPE, encoder=ENCODER), {"encoder": zeros.params, "head": 1}, memory, str(file)
    )
    same(params, {"encoder": kept.params, "head": 1})
    same(memory.params, {"encoder": kept.params, "head": zeros.params})
    same(memory.stats, {"slow": {"encoder": kept.stats}})

    two = {}
    for prefix, factor in (("a.", 1.0), ("b.", 2.0)):
        scaled = jax.tree.map(lambda x, by=factor: by * np.asarray(x), kept.params)
        save_encoder(tmp_path / "part.npz", kept.encoder, scaled, kept.stats, prefix=prefix)
        two |= read_tensors(tmp_path / "part.npz")
    write_tensors(tmp_path / "two.npz", two)
    start = (SimCLR(RECIPE, encoder=ENCODER), params, memory, str(tmp_path / "two.npz"))
    with pytest.raises(UserError, match=r"several networks; say --train.start-prefix: a\., b\."):
        with_encoder(*start)
    doubled, _ = with_encoder(*start, prefix="b.")
    same(doubled["encoder"], jax.tree.map(lambda x: 2.0 * np.asarray(x), kept.params))

    wide = SimCLR(RECIPE, encoder=ENCODER.clone(width=0.25))
    for method, path, words in (
        (wide, file, r"train.start=.*encoder.safetensors: the weights do not fit the encoder"),
        (Method(RECIPE), file, r"train.start=.*Method has no part that is called encoder"),
        (wide, tmp_path / "none", r"train.start=.*/none: "),
    ):
        with pytest.raises(UserError, match=words):
            with_encoder(method, params, memory, str(path))
