"""mAP against scikit-learn's average precision, CMC against a loop, and the camera filter."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from jaxcl import UserError
from jaxcl.evaluate import retrieval

RNG = np.random.default_rng(0)
QUERIES, GALLERY = RNG.normal(size=(20, 4)), RNG.normal(size=(50, 4))
QUERY_IDS, GALLERY_IDS = RNG.integers(0, 8, 20), RNG.integers(-1, 6, 50)
QUERY_CAMERAS, GALLERY_CAMERAS = RNG.integers(0, 3, 20), RNG.integers(0, 3, 50)


@pytest.mark.parametrize("cameras", [True, False])
def test_scores_are_scikit_learns_on_what_is_left_of_the_gallery(cameras):
    given = {"query_cameras": QUERY_CAMERAS, "gallery_cameras": GALLERY_CAMERAS} if cameras else {}
    found = retrieval(3 * QUERIES, QUERY_IDS, GALLERY, GALLERY_IDS, ranks=(1, 3, 50), **given)
    precisions, firsts = [], []
    for query, identity, camera in zip(QUERIES, QUERY_IDS, QUERY_CAMERAS, strict=True):
        kept = np.array([
            not (cameras and GALLERY_IDS[j] == identity and GALLERY_CAMERAS[j] == camera)
            for j in range(50)
        ])  # fmt: skip
        match, rows = GALLERY_IDS[kept] == identity, GALLERY[kept]
        if match.any():
            distances = np.linalg.norm(
                query / np.linalg.norm(query) - rows / np.linalg.norm(rows, axis=1)[:, None], axis=1
            )
            precisions.append(average_precision_score(match, -distances))
            firsts.append(list(match[np.argsort(distances)]).index(True))
    assert found.queries == len(precisions) < 20
    assert found.mean_average_precision == pytest.approx(100 * np.mean(precisions))
    shares = {k: 100 * np.mean([first < k for first in firsts]) for k in (1, 3, 50)}
    assert found.cmc == pytest.approx(shares)
    assert found.cmc[50] == 100


def test_an_image_from_the_same_camera_does_not_help():
    """The query itself is in the gallery; the next match comes after a stranger."""
    gallery = np.array([[1.0, 0], [1, 0.1], [1, 0.2], [1, 0.3]])
    ids, cameras = np.array([7, 5, 7, -1]), np.array([0, 0, 1, 1])
    query = gallery[:1], np.array([7]), gallery, ids
    assert retrieval(*query).mean_average_precision == pytest.approx(100 * (1 + 2 / 3) / 2)
    filtered = retrieval(*query, query_cameras=np.array([0]), gallery_cameras=cameras, ranks=(1, 2))
    assert filtered.mean_average_precision == pytest.approx(50)
    assert filtered.cmc == {1: 0, 2: 100}


def test_wrong_use():
    with pytest.raises(ValueError, match="given together"):
        retrieval(QUERIES, QUERY_IDS, GALLERY, GALLERY_IDS, query_cameras=QUERY_CAMERAS)
    with pytest.raises(UserError, match="no query has a match"):
        retrieval(QUERIES, np.full(20, -1), GALLERY, GALLERY_IDS)
