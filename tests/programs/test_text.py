"""Training, evaluating and exporting a run on text, as a user types it."""

import json
import re

import numpy as np
import pytest
from tiny_lines import HOME, METHOD, experiment

import jaxcl
from jaxcl import sentences
from jaxcl.data import Data
from jaxcl.evaluate.sts import sts
from jaxcl.programs import evaluate, export, train
from jaxcl.programs.similarity import word_average
from jaxcl.training.logs import read_metrics


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "run"
    assert jaxcl.fit(experiment, path).finished
    return jaxcl.load(path)


def leaves(program, arguments):
    with pytest.raises(SystemExit) as end:
        program.main(arguments)
    return end.value.code


def test_evaluation_stands_beside_its_start_and_word_vectors(run, capsys):
    evaluate.main([str(run.path)])
    told = capsys.readouterr().out
    for row in ("word vectors", "untrained", "trained"):
        assert re.search(rf"^{row} .*\d", told, re.MULTILINE)
    assert "has no STS12, STS13" in told
    scores = json.loads((run.path / "evaluation.json").read_text())["scores"]
    assert set(scores) == {"word vectors", "untrained", "trained"}
    assert set(scores["trained"]) == {"STS-B", "average", "stsb_dev", "alignment", "uniformity"}
    assert scores["trained"]["STS-B"] == pytest.approx(
        sts(run.encode, HOME / "sts", tasks=("STS-B",))["STS-B"]
    )
    assert scores["trained"] != scores["untrained"]


def test_the_best_checkpoint_is_that_of_the_development_set(run):
    rows = {row["step"]: row for row in read_metrics(run.path) if row["kind"] == "eval"}
    assert sorted(rows) == [2, 4, 6]
    assert set(rows[2]) >= {"stsb_dev", "alignment", "uniformity"}
    best = max(rows, key=lambda step: (rows[step]["stsb_dev"], step))
    assert int(jaxcl.load(run.path, best=True).state.step) == best


def test_word_vectors_are_rows_of_the_table(run):
    table = np.asarray(run.encoder.params["words"]["embedding"])
    vectors = word_average(run)(["a c c", "", "z"])
    rows = [np.mean([table[5], table[7], table[7]], axis=0), np.zeros(16), table[30]]
    np.testing.assert_allclose(vectors, rows, atol=1e-6)


def test_the_exported_folder_gives_the_runs_vectors(run, tmp_path, capsys):
    export.main([str(run.path), str(tmp_path / "mine"), "--layout", "sentence-transformers"])
    assert "SentenceTransformer(" in capsys.readouterr().out
    model, texts = sentences.load(tmp_path / "mine"), ["a b c", "q", "d e f g h i j k l m n o p"]
    np.testing.assert_allclose(model.encode(texts), run.encode(texts), atol=2e-6)


def test_the_exported_folder_opens_in_sentence_transformers(run, tmp_path):
    library = pytest.importorskip(
        "sentence_transformers", reason="the oracle needs sentence-transformers"
    )
    export.main([str(run.path), str(tmp_path / "mine"), "--layout", "sentence-transformers"])
    theirs = library.SentenceTransformer(str(tmp_path / "mine"), device="cpu")
    texts = ["a b c", "q", "d e f g h i j k l m n o p"]
    np.testing.assert_allclose(theirs.encode(texts), run.encode(texts), atol=1e-5)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["w.pth"], "--layout timm does not fit a BERT; use sentence-transformers"),
        (["w.pth", "--layout", "sentence-transformers"], "sentence-transformers writes a folder"),
    ],
)
def test_other_layouts_are_refused(run, capsys, options, words):
    assert leaves(export, [str(run.path), *options]) == 2
    assert words in capsys.readouterr().err


def test_a_folder_without_tasks_is_told(run, tmp_path, capsys):
    assert leaves(evaluate, [str(run.path), "--sts", str(tmp_path)]) == 2
    assert "holds no file of STS12" in capsys.readouterr().err


def test_the_short_options_and_what_is_wrong_before_anything_compiles(tmp_path, capsys):
    config = tmp_path / "tiny.py"
    config.write_text("from tiny_lines import experiment\n")
    arguments = [str(config), "--dir"]
    assert leaves(train, [*arguments, str(tmp_path / "one"), "--sts", "none"]) == 2
    assert "probe.folder=none holds no STSBenchmark/dev.tsv" in capsys.readouterr().err
    bare = tmp_path / "STSBenchmark" / "dev.tsv"
    bare.parent.mkdir()
    bare.write_text("score\tsentence1\tsentence2\n1\ta b\tc d\n1\ta\tb\n")
    assert leaves(train, [*arguments, str(tmp_path / "one"), "--sts", str(tmp_path)]) == 2
    assert "has 2 pairs with a score, and a correlation takes two" in capsys.readouterr().err
    assert leaves(train, [*arguments, str(tmp_path / "two"), "--data", "none.txt"]) == 2
    assert "data.lines=none.txt is no text file" in capsys.readouterr().err


def test_images_and_sentences_are_told_apart():
    assert (experiment.data.unit, Data().unit) == ("sentences", "images")
    assert METHOD.facts(8)["negatives per anchor"] == "7"
