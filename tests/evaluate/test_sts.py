"""STS: ranks by hand, the protocol, and files that are not tables."""

import numpy as np
import pytest
from scipy.stats import pearsonr, spearmanr

from jaxcl import UserError
from jaxcl.evaluate import pearson, spearman, sts, sts_files
from jaxcl.evaluate.sts import missing, read_pairs


def ranks(values):
    """Average ranks from the definition, one value at a time."""
    values = np.asarray(values)
    return np.array([np.sum(values < v) + (np.sum(values == v) + 1) / 2 for v in values])


def write(file, pairs, header="score\tsentence1\tsentence2"):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join([header, *("\t".join(map(str, pair)) for pair in pairs)]) + "\n")


def angle(texts):
    """A sentence is its angle in degrees: the cosine of a pair is that of their difference."""
    radians = np.radians([float(text) for text in texts])
    directions = np.stack([np.cos(radians), np.sin(radians)], axis=1)
    return np.linspace(9, 1, len(texts))[:, None] * directions  # lengths must not matter


def test_ties_have_the_mean_of_their_ranks():
    rng = np.random.default_rng(0)
    one, two = rng.integers(0, 6, 50) / 2, rng.normal(size=50)
    expected = np.corrcoef(ranks(one), ranks(two))[0, 1]
    assert spearman(one, two) == pytest.approx(expected, abs=1e-12)
    assert spearman(one, np.exp(two)) == pytest.approx(expected, abs=1e-12)
    assert spearman(one, -two) == pytest.approx(-expected, abs=1e-12)
    assert np.isnan(spearman(one, np.ones(50)))


def test_subsets_are_pooled_before_ranking(tmp_path):
    """Each subset is ranked perfectly, both together are not."""
    write(tmp_path / "STS13" / "a.tsv", [(5, 0, 10), (4, 0, 20), (3, 0, 30)])
    write(tmp_path / "STS13" / "b.tsv", [(2, 0, 1), (1, 0, 2), (0, 0, 3)])
    write(tmp_path / "SICK" / "test.tsv", [(5, 0, 0), (3, 90, 0), (1, 180, 0)])
    write(tmp_path / "SICK" / "train.tsv", [(1, 0, 0), (5, 90, 0)])
    scores = sts(angle, tmp_path)
    gold = [5, 4, 3, 2, 1, 0]
    similarity = np.cos(np.radians([10, 20, 30, 1, 2, 3]))
    pooled = 100 * np.corrcoef(ranks(gold), ranks(similarity))[0, 1]
    assert scores == pytest.approx({"STS13": pooled, "SICK-R": 100, "average": (pooled + 100) / 2})
    assert missing(tmp_path) == ["STS12", "STS14", "STS15", "STS16", "STS-B"]
    assert sts(angle, tmp_path, tasks=("SICK-R",)) == pytest.approx({"SICK-R": 100, "average": 100})


def test_correlations_and_poolings_are_scipys(tmp_path):
    """Two subsets of different sizes, by SentEval's three poolings."""
    rng = np.random.default_rng(0)
    subsets = {"a": rng.uniform(0, 90, (9, 2)), "b": rng.uniform(0, 90, (4, 2))}
    for name, angles in subsets.items():
        rows = [(g, 0, float(x)) for g, x in zip(angles[:, 0] / 18, angles[:, 1], strict=True)]
        write(tmp_path / "STS13" / f"{name}.tsv", rows)
    write(tmp_path / "STS13" / "empty.tsv", [])
    pairs = [(np.cos(np.radians(x[:, 1])), x[:, 0] / 18) for x in subsets.values()]
    for correlation, oracle in (("spearman", spearmanr), ("pearson", pearsonr)):
        each = [oracle(*pair).statistic for pair in pairs]
        expected = {
            "all": oracle(*np.concatenate(pairs, axis=1)).statistic,
            "mean": np.mean(each),
            "wmean": (9 * each[0] + 4 * each[1]) / 13,
        }
        for pooling, value in expected.items():
            found = sts(angle, tmp_path, correlation=correlation, pooling=pooling)
            assert found["STS13"] == pytest.approx(100 * value, abs=1e-9)
    assert np.isnan(pearson(np.ones(3), np.arange(3.0)))


def test_pairs_without_a_score_are_passed_over(tmp_path):
    file = tmp_path / "STS12" / "a.tsv"
    write(file, [(1, 'He said "no', "x"), ("", "y", "z"), (2.5, "", "v")])
    pairs = read_pairs([file, file])
    assert pairs.first == ['He said "no', ""] * 2
    assert pairs.gold.tolist() == [1, 2.5] * 2


def test_random_vectors_score_nothing(tmp_path):
    rng = np.random.default_rng(0)
    pairs = [(rng.integers(0, 6), f"a{i}", f"b{i}") for i in range(2000)]
    write(tmp_path / "STS12" / "a.tsv", pairs)
    score = sts(lambda texts: rng.normal(size=(len(texts), 8)), tmp_path)["STS12"]
    assert abs(score) < 7  # three standard deviations of 2000 pairs


def test_mistakes_are_told(tmp_path):
    with pytest.raises(UserError, match=r"holds no file of STS12.*such as STS12/\*\.tsv"):
        sts(angle, tmp_path)
    file = tmp_path / "STS12" / "a.tsv"
    write(file, [(1, 2)], header="score\tsentence1")
    with pytest.raises(UserError, match=r"a\.tsv has no column sentence2"):
        sts(angle, tmp_path)
    write(file, [("", 1, 2)])
    with pytest.raises(UserError, match=r"a\.tsv: no pair of sentences with a score, so STS12"):
        sts(angle, tmp_path)
    write(file, [(1, 0, 0), ("high", 1, 2)])
    with pytest.raises(UserError, match=r"a\.tsv, line 3: score is 'high'"):
        sts(angle, tmp_path)


def test_scores_that_are_no_numbers_are_refused_and_marks_are_none(tmp_path):
    file = tmp_path / "STS12" / "a.tsv"
    for score in ("nan", "inf", "-Infinity"):
        write(file, [(1, 0, 0), (score, 1, 2)])
        with pytest.raises(UserError, match=rf"a\.tsv, line 3: score is '{score}'; leave it empty"):
            read_pairs([file])
    write(file, [(1, 0, 0), (2, 1, 2)])
    file.write_bytes(file.read_text().encode("utf-8-sig"))
    (file.parent / "._a.tsv").write_bytes(b"\0")
    assert sts_files(tmp_path)["STS12"] == [file]
    assert read_pairs([file]).gold.tolist() == [1, 2]
    file.write_bytes("score\tsentence1\tsentence2\n1\tcaf\xe9\tb\n".encode("latin-1"))
    with pytest.raises(UserError, match=r"a\.tsv, line 2 is not UTF-8"):
        read_pairs([file])


def test_the_real_files_have_the_published_sizes(real_data):
    """Pairs of each task as SentEval counts them, less what is not public."""
    sizes = {
        task: len(read_pairs(files).gold) for task, files in sts_files(real_data / "sts").items()
    }
    sizes = {task: size for task, size in sizes.items() if size}
    assert sizes == {
        "STS12": 3108, "STS13": 1500, "STS14": 3750, "STS15": 3000, "STS-B": 1379, "SICK-R": 4927
    }  # fmt: skip
