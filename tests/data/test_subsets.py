"""Few labels: which they are, what becomes of the others, what is said where there are none."""

import numpy as np
import pytest

from jaxcl.data import Arrays, Data, Labels, Pixels
from jaxcl.errors import UserError

COUNTS = (40, 60, 100)
LABELS = np.random.default_rng(0).permutation(np.repeat(np.arange(3), COUNTS)).astype(np.int32)
IMAGES = np.arange(200, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 1), np.uint8)
SOURCE = Arrays(IMAGES, LABELS, IMAGES[:4], LABELS[:4])


def told(**fields):
    """The training examples, and the numbers of those with a label."""
    examples = Data(SOURCE, labels=Labels(**fields)).split("train")
    shown = [examples.read(i) for i in range(len(examples))]
    rows = np.array([int(pixels[0, 0, 0]) for pixels, _ in shown])
    labels = np.array([label for _, label in shown])
    np.testing.assert_array_equal(labels, examples.labels)  # both ways of asking agree
    known = labels >= 0
    np.testing.assert_array_equal(labels[known], LABELS[rows[known]])
    return examples, rows[known]


@pytest.mark.parametrize(("keep", "sizes"), [(0.1, (4, 6, 10)), (0.05, (2, 3, 5)), (30, (10,) * 3)])
def test_every_class_keeps_its_share_or_the_same_number(keep, sizes):
    examples, rows = told(keep=keep)
    assert len(examples) == len(rows) == sum(sizes)
    assert tuple(np.bincount(LABELS[rows])) == sizes


def test_the_same_images_are_labelled_in_both_uses():
    few, rows = told(keep=0.1, seed=3)
    whole, hidden = told(keep=0.1, seed=3, others="hide")
    np.testing.assert_array_equal(rows, hidden)
    assert (len(few), len(whole)) == (20, 200)
    assert whole.name(7) == "image 7"
    assert set(rows) != set(told(keep=0.1, seed=4)[1])


def test_the_choice_is_the_same_on_every_machine():
    """By the generator's raw output, which NumPy keeps; drawn again here without the library."""
    expected = []
    for name, size in enumerate((4, 6, 10)):
        generator = np.random.Philox(key=[5, 0x6C6162656C73], counter=[0, 0, 0, name])
        order = np.argsort(generator.random_raw(COUNTS[name]), kind="stable")
        expected += list(np.flatnonzero(name == LABELS)[order[:size]])
    np.testing.assert_array_equal(told(keep=0.1, seed=5)[1], sorted(expected))


def test_a_larger_share_holds_the_smaller_one():
    assert set(told(keep=0.1)[1]) < set(told(keep=0.3)[1])


def test_all_labels_hidden_and_none():
    examples, rows = told(keep=0, others="hide")
    assert (len(examples), len(rows)) == (200, 0)
    assert len(told()[1]) == 200


@pytest.mark.parametrize("names", [("image 7", "image 199"), ("image 7",)])
def test_a_list_of_names(tmp_path, names):
    file = tmp_path / "few.txt"
    file.write_text("\n".join(names) + "\n\n")
    rows = [int(name.split()[1]) for name in names]
    np.testing.assert_array_equal(told(file=str(file))[1], rows)
    np.testing.assert_array_equal(told(file=str(file), others="hide")[1], rows)


def test_file_names_alone_are_found_inside_folders(tmp_path):
    class Named(Pixels):
        def name(self, i):
            return f"n{i % 3}/n{i % 3}_{i}.JPEG"

    file = tmp_path / "1percent.txt"
    file.write_text("n1_4.JPEG\nn2_5.JPEG\n")
    named = Named("train", IMAGES, LABELS, ("a", "b", "c"))
    np.testing.assert_array_equal(Labels(file=str(file)).among(named).rows, [4, 5])


class Filed(Pixels):
    """Images with the paths of files."""

    def name(self, i):
        return f"n{i % 3}/{i // 2}.JPEG"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("few.txt", "\ufeffn1\\2.JPEG\r\n./n2/2.JPEG\r\n".encode()),
        ("few.txt", "/n1/2.JPEG\nn2/2.JPEG\n".encode("utf-16")),
        ("few.csv", b"label,path\n7,n1/2.JPEG\n8,n2/2.JPEG\n"),
        ("few.jsonl", b'{"image": "n1/2.JPEG"}\n{"image": "n2\\\\2.JPEG"}\n'),
    ],
)
def test_lists_as_people_write_them(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    filed = Filed("train", IMAGES, LABELS, ("a", "b", "c"))
    np.testing.assert_array_equal(Labels(file=str(tmp_path / name)).among(filed).rows, [4, 5])


def test_a_name_of_several_images_is_refused(tmp_path):
    (tmp_path / "few.txt").write_text("2.JPEG\n")
    filed = Filed("train", IMAGES, LABELS, ("a", "b", "c"))
    words = r"several images of train are called 2.JPEG; write their folders too, such as n1/2.JPEG"
    with pytest.raises(UserError, match=words):
        Labels(file=str(tmp_path / "few.txt")).among(filed)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (
            {"keep": 0.01},
            r"keep=0.01 leaves a class of 40 images without a label; use 0.025 ",
        ),
        ({"keep": 31}, r"keep=31 does not split over 3 classes; use 30 or 33"),
        ({"keep": 2}, r"keep=2 does not split over 3 classes; use 3 or 6"),
        (
            {"keep": 300},
            r"keep=300 is 100 of each class, and the smallest has 40; use 120 ",
        ),
        ({"keep": -1}, r"keep=-1; use a share up to 1, or a number"),
        ({"keep": 0}, r"keep=0 drops every image; use data.labels.others=hide"),
        ({"file": "no.txt"}, r"data.labels.file=no.txt does not exist"),
    ],
)
def test_wrong_use(fields, words):
    with pytest.raises(UserError, match=words):
        Labels(**fields).among(SOURCE.split("train"))


def test_names_that_are_not_there(tmp_path):
    (tmp_path / "few.txt").write_text("image 3\ncat.jpg\n")
    words = r"few.txt: 1 of 2 names are not in train \(first: cat.jpg\); .* called image 0, "
    with pytest.raises(UserError, match=words):
        told(file=str(tmp_path / "few.txt"))


def test_images_without_labels():
    bare = Arrays(IMAGES, test_images=IMAGES[:4])
    with pytest.raises(UserError, match=r"keep=0.1, but the training images have none"):
        Data(bare, labels=Labels(0.1)).split("train")
