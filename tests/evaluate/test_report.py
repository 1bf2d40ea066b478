"""The report: whole, self-contained, escaped, and right in what it counts."""

import base64
import re
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest

from jaxcl.errors import UserError
from jaxcl.evaluate import Evaluation, FeatureMap, Neighbours, write_report
from jaxcl.evaluate.pictures import CURVE_POINTS, _thinned, curve, heat, picture

SECTIONS = ["scores", "curves", "views", "neighbours", "map", "confusion", "config", "versions"]
VOID = {"meta", "img", "br", "link", "input", "hr"}
NASTY = "<script>alert('x')</script> \"quoted\" & $\\frac{1}"


class Page(HTMLParser):
    """Collects sections, addresses and text; fails on tags that do not match."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.sections, self.addresses, self.tags, self.ids = [], [], [], []
        self.text, self.images = "", []
        self._open = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        assert all(re.fullmatch("[a-z0-9:-]+", name) for name in attrs), attrs
        self.tags.append(tag)
        self.ids += [attrs["id"]] if "id" in attrs else []
        self.addresses += [attrs[key] for key in ("src", "href", "data") if key in attrs]
        self.sections += [attrs["id"]] if tag == "section" else []
        self.images += [attrs] if tag == "img" else []
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self._open.pop()

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.text += data


def pixels(url: str) -> np.ndarray:
    """The image of a data URL, RGB or RGBA."""
    data = base64.b64decode(url.removeprefix("data:image/png;base64,"))
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    return cv2.cvtColor(image, cv2.COLOR_BGRA2RGBA)


@pytest.fixture
def everything():
    """Arguments of a report with all its parts, hostile names included."""
    rng = np.random.default_rng(0)
    classes = ("cat", NASTY, "犬")
    labels = np.array([0, 0, 0, 1, 1, 2, 2, 2])
    said = np.array([0, 1, 1, 1, 1, 2, 2, 0])
    scalars = {"knn": 90.0, "labels_1_per_class": 50.0, "labels_1_per_class_std": 2.0}
    image = lambda size=8: rng.uniform(size=(size, size, 1))
    return {
        "title": f"run {NASTY}",
        "subtitle": NASTY,
        "evaluations": {
            NASTY: Evaluation({"knn": 80.0, "uniformity": -1.0}, classes, labels, labels, (NASTY,)),
            "trained": Evaluation(scalars, classes, labels, said, ()),
        },
        "metrics": [
            {"kind": "train", "step": s, "epoch": 0, "loss": 1 / s, NASTY: 1.0} for s in (1, 2, 3)
        ]
        + [{"kind": "eval", "step": 3, "knn": 91.5}, {"step": 4, "loss": float("nan")}],
        "views": rng.uniform(size=(2, 3, 8, 8, 3)),
        "neighbours": Neighbours(
            [image(), image()], np.array([0, 1]), [[image(), image(9)]] * 2,
            np.array([[0, 1], [0, -1]]), np.array([[0.9, 0.8], [0.7, 0.6]]), (False, True),
        ),
        "plane": FeatureMap(rng.normal(size=(8, 2)), labels, "t-SNE", 8),
        "config": {"method": {"class": "SimCLR", "temperature": 0.5, "note": NASTY}, "seed": 3},
        "versions": {"jax": "0.10", NASTY: NASTY},
    }  # fmt: skip


def test_everything_is_in_one_file(tmp_path, everything):
    path = write_report(tmp_path / "new" / "report.html", **everything)
    assert [file.name for file in path.parent.iterdir()] == ["report.html"]
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert page.sections == SECTIONS
    assert all(a.startswith(("#", "data:image/png;base64,")) for a in page.addresses)
    assert not re.search(r"https?:|@import|url\((?!#)", text)
    assert len(page.ids) == len(set(page.ids))
    assert {a[1:] for a in page.addresses if a[0] == "#"} <= set(page.ids)
    assert all(image["alt"] for image in page.images)
    assert page.tags.count("svg") == 4  # three curves and the map
    assert len(page.images) == 2 * 3 + 2 * 3
    assert "width=device-width" in text
    assert "prefers-color-scheme:dark" in text


def test_names_are_text_and_never_markup(tmp_path, everything):
    page = Page(write_report(tmp_path / "r.html", **everything).read_text(encoding="utf-8"))
    assert "script" not in page.tags
    # Title twice, subtitle, the row, its note, curve, neighbours, legend, map, confusions, ...
    assert page.text.count("alert('x')") >= 12
    assert "犬" in page.text


def test_it_says_what_was_measured(tmp_path, everything):
    page = Page(write_report(tmp_path / "r.html", **everything).read_text(encoding="utf-8"))
    assert "50.0 ± 2.0" in page.text
    assert f"cat taken for {NASTY}: 2 of 3" in page.text
    assert "犬 taken for cat: 1 of 3" in page.text
    assert "method" in page.text
    assert "temperature" in page.text
    assert page.text.count("✓") == 2  # in the explanation, and one neighbour of two labelled ones
    assert page.text.count("✗") == 3


def test_best_is_marked_by_column(tmp_path, everything):
    text = write_report(tmp_path / "r.html", **everything).read_text(encoding="utf-8")
    assert re.findall(r'<td class="best">([^<]*)</td>', text) == ["90.0"]


def test_absent_parts_keep_their_section(tmp_path):
    page = Page(write_report(tmp_path / "r.html", title="t", evaluations={}).read_text())
    assert page.sections == SECTIONS
    for line in (
        "Nothing was evaluated", "No metrics", "No views", "No neighbours", "No map", "no labels",
    ):  # fmt: skip
        assert line in page.text


def test_many_classes_make_a_picture(tmp_path):
    classes = tuple(f"class {i}" for i in range(40))
    labels = np.repeat(np.arange(40), 3)
    evaluation = Evaluation({"knn": 1.0}, classes, labels, (labels + (labels == 7)) % 40, ())
    plane = FeatureMap(np.random.default_rng(0).normal(size=(120, 2)), labels, "PCA", 999)
    path = write_report(
        tmp_path / "r.html", title="t", evaluations={"trained": evaluation}, plane=plane
    )
    page = Page(path.read_text(encoding="utf-8"))
    (matrix,) = (pixels(image["src"]) for image in page.images)
    assert matrix.shape == (40, 40, 4)
    assert matrix[..., 3].nonzero()[1].tolist() == [*range(7), 8, *range(8, 40)]
    assert "class 7 taken for class 8: 3 of 3" in page.text
    assert "PCA of the features of 120 of 999 test images" in page.text


def test_unwritable_place_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        write_report(tmp_path / "file" / "r.html", title="t", evaluations={})


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_pictures_keep_their_pixels(channels):
    image = np.random.default_rng(0).integers(0, 256, (6, 9, channels), np.uint8)
    shown = pixels(picture(image))[..., :3]
    grey = np.repeat(image.mean(2, keepdims=True), 3, axis=2)
    error = shown.astype(float) - (image if channels == 3 else grey)
    assert abs(error).max() <= (0.51 if channels in (2, 5) else 0)  # halves round either way
    np.testing.assert_array_equal(pixels(picture(image / 255))[..., :3], shown)


def test_large_pictures_are_averaged():
    image = np.zeros((200, 300, 3), np.uint8)
    image[::2] = 200
    shown = pixels(picture(image))
    assert shown.shape[:2] == (50, 75)
    assert (shown[..., :3] == 100).all()


def test_pictures_survive_bad_values():
    image = np.array([[[np.nan], [2.0], [-1.0]]])
    assert pixels(picture(image))[0, :, 0].tolist() == [0, 255, 0]


def test_long_curves_are_averaged_in_bins():
    rows = np.array([(step, float(step % 50)) for step in range(50 * CURVE_POINTS)])
    np.testing.assert_allclose(_thinned(rows)[:, 1], 24.5)
    np.testing.assert_allclose(_thinned(rows)[:2, 0], [24.5, 74.5])
    np.testing.assert_array_equal(_thinned(rows[CURVE_POINTS - 1 :: -1]), rows[:CURVE_POINTS])
    assert "NaN" not in curve("loss", {"train": [(0, 1.0), (1, float("nan")), (2, float("inf"))]})


def test_the_same_report_twice_is_the_same_file(tmp_path, everything):
    one, two = (write_report(tmp_path / f"{i}.html", **everything).read_bytes() for i in range(2))
    assert one == two


def test_heat_is_blue_where_right_and_clear_where_empty():
    shown = pixels(heat(np.array([[1.0, 0.0], [0.25, 0.75]])))
    assert shown[..., 3].tolist() == [[255, 0], [128, 221]]
    assert shown[0, 0, 2] > shown[0, 0, 0]
    assert shown[1, 0, 0] > shown[1, 0, 2]
