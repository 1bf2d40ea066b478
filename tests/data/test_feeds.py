"""Both roads: the same batches, whatever the devices, threads, processes and starting step."""

import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import jax
import numpy as np
import pytest

from jaxcl.augment import Flip, RandomResizedCrop, Recipe, View
from jaxcl.data import Data, Digits, Examples, Feed, Images, batch_indices, open_feed, road_of
from jaxcl.data import feeds as feeds_module
from jaxcl.data.examples import Pixels
from jaxcl.data.order import crop_uniforms
from jaxcl.data.pixels import crop_views
from jaxcl.data.resident import next_readable
from jaxcl.data.streamed import own_places
from jaxcl.errors import UserError

Files = dict[str, bytes]
Write = Callable[..., Path]
Meshes = Callable[[int], jax.sharding.Mesh]

CROPS = (RandomResizedCrop(16), RandomResizedCrop(16), RandomResizedCrop(8, (0.05, 0.3)))
RECIPE = Recipe((View(CROPS[0], (Flip(),), copies=2), View(CROPS[2])), 16)
SEED = 5


@contextmanager
def opened(
    data: Data, examples: Examples, mesh: jax.sharding.Mesh, recipe: Recipe = RECIPE
) -> Iterator[Feed]:
    feed = open_feed(data, examples, recipe, seed=SEED, mesh=mesh)
    try:
        yield feed
    finally:
        feed.close()


def batches(feed: Feed, step: int, count: int) -> list[dict[str, Any]]:
    """The batches of `count` steps as NumPy arrays, each made inside a compiled call."""

    @jax.jit
    def one(constants: Any, inputs: Any, at: Any) -> dict[str, Any]:
        return feed.batch(constants, jax.tree.map(lambda x: x[at], inputs))

    inputs = feed.inputs(step, count)
    return [jax.tree.map(np.asarray, one(feed.constants, inputs, i)) for i in range(count)]


def same(left: Any, right: Any) -> None:
    jax.tree.map(np.testing.assert_array_equal, left, right)


def whole(path: Path) -> Examples:
    return Images(str(path), holdout=0.0).split("train")


@pytest.mark.parametrize("devices", [1, 8])
@pytest.mark.parametrize("road", ["resident", "streamed"])
def test_a_batch_holds_the_images_of_its_step(
    files: Files, write_zip: Write, mesh: Meshes, road: Any, devices: int
) -> None:
    examples = whole(write_zip(files))
    data = Data(batch_size=8, road=road, crop="device")
    with opened(data, examples, mesh(devices)) as feed:
        assert feed.road == road
        assert feed.steps_per_epoch == 3
        for step, batch in enumerate(batches(feed, 2, 3), start=2):
            index = batch_indices(SEED, step, 24, 8)
            np.testing.assert_array_equal(batch["index"], index)
            np.testing.assert_array_equal(batch["label"], examples.labels[index])
            expected = np.stack([examples.image(int(i)) for i in index])
            np.testing.assert_array_equal(batch["image"], expected)
            assert batch["image"].dtype == np.uint8
            assert batch["label"].dtype == batch["index"].dtype == np.int32
        assert feed.report() == {"unreadable": 0, "first_unreadable": None, "notice": None}


def test_roads_agree_over_epochs(mesh: Meshes) -> None:
    examples = Digits(8).split("test")
    both = []
    for road in ("resident", "streamed"):
        with opened(Data(batch_size=200, road=road, crop="device"), examples, mesh(1)) as feed:  # type: ignore[arg-type]
            both.append([batch for step in range(5) for batch in batches(feed, step, 1)])
    same(*both)


@pytest.mark.parametrize("road", ["resident", "streamed"])
def test_any_step_can_be_asked_for(
    files: Files, write_folder: Write, mesh: Meshes, road: Any
) -> None:
    examples = whole(write_folder(files))
    data = Data(batch_size=6, road=road, threads=2)
    data = replace(data, crop="host" if road == "streamed" else "auto")
    with opened(data, examples, mesh(1)) as feed:
        through = [batch for step in range(9) for batch in batches(feed, step, 1)]
        same(batches(feed, 4, 3), through[4:7])  # back
        same(batches(feed, 7, 2), through[7:9])  # on
        same(batches(feed, 0, 2), through[0:2])  # and back to the start
    with opened(replace(data, threads=1), examples, mesh(1)) as feed:
        same(batches(feed, 5, 4), through[5:9])  # a resumed run


def test_host_crops_follow_from_seed_step_and_place(
    files: Files, write_zip: Write, mesh: Meshes
) -> None:
    examples = whole(write_zip(files))
    data = Data(batch_size=8, road="streamed", crop="host")
    made = []
    for devices in (1, 8):
        with opened(data, examples, mesh(devices)) as feed:
            made.append(batches(feed, 3, 2))
    same(*made)
    for step, batch in zip((3, 4), made[0], strict=True):
        assert set(batch) == {"crops", "label", "index"}
        for place, index in enumerate(batch_indices(SEED, step, 24, 8)):
            content, label = examples.read(int(index))
            uniforms = crop_uniforms(SEED, step, place, 3, CROPS[0].draws)
            expected = crop_views(content, 3, CROPS, uniforms)
            assert expected is not None
            same(tuple(view[place] for view in batch["crops"]), expected)
            assert batch["label"][place] == label
    assert not np.array_equal(made[0][0]["crops"][0], made[0][0]["crops"][1])


def test_worker_processes_change_nothing(files: Files, write_zip: Write, mesh: Meshes) -> None:
    cut = files | {"cat/03.jpg": files["cat/03.jpg"][:200]}
    examples = whole(write_zip(cut))
    data = Data(batch_size=8, road="streamed", crop="host", threads=2, max_bad=0.1)
    with opened(data, examples, mesh(1)) as feed:
        expected, report = batches(feed, 0, 3), feed.report()
    with opened(replace(data, workers=1), examples, mesh(1)) as feed:
        got = batches(feed, 0, 1)
        (worker,) = multiprocessing.active_children()
        os.kill(worker.pid or 0, signal.SIGINT)  # as Ctrl-C does to the whole group
        same(got + batches(feed, 1, 30)[:2], expected)
        assert worker.is_alive()
        assert feed.report() == report
        assert report["unreadable"] == 1
    assert not multiprocessing.active_children()


PARENT = """
import multiprocessing, time
from jaxcl.data.streamed import _start_worker

def work():
    _start_worker(0, 1)
    time.sleep(600)

worker = multiprocessing.get_context("fork").Process(target=work)
worker.start()
print(worker.pid, flush=True)
time.sleep(600)
"""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="no list of processes")
def test_worker_processes_end_with_a_parent_that_is_killed() -> None:
    root = str(Path(__file__).parents[2])
    command = [sys.executable, "-W", "ignore", "-c", PARENT]
    environment = os.environ | {"PYTHONPATH": root}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        worker = Path("/proc") / parent.stdout.readline().decode().strip() / "stat"
        assert worker.exists()
        parent.kill()
    until = time.monotonic() + 30
    while not _ended(worker) and time.monotonic() < until:
        time.sleep(0.05)
    assert _ended(worker)


def _ended(process: Path) -> bool:
    """Gone, or waiting for someone to ask how it ended."""
    try:
        return process.read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_each_device_picks_its_own_rows(files: Files, write_zip: Write, mesh: Meshes) -> None:
    """Eight devices make one row each, and nothing travels between them."""
    data = Data(batch_size=8, road="resident")
    with opened(data, whole(write_zip(files)), mesh(8)) as feed:
        one = jax.tree.map(lambda x: x[0], feed.inputs(0, 1))
        compiled = jax.jit(feed.batch).lower(feed.constants, one).compile()
        text = compiled.as_text()
        assert "u8[1,24,24,3]" in text
        assert "u8[8,24,24,3]" not in text
        assert not re.search(r"all-(gather|reduce|to-all)|collective|reduce-scatter", text)
        batch = compiled(feed.constants, one)
        for name in ("image", "label", "index"):
            assert batch[name].sharding.spec == jax.sharding.PartitionSpec("data")


def test_streamed_batches_arrive_split_over_the_devices(
    files: Files, write_zip: Write, mesh: Meshes
) -> None:
    data = Data(batch_size=16, road="streamed", crop="host")
    with opened(data, whole(write_zip(files)), mesh(8)) as feed:
        for count in (1, 2):
            crops = feed.inputs(0, count)["crops"][0]
            assert {shard.data.shape for shard in crops.addressable_shards} == {
                (count, 2, 16, 16, 3)
            }


def test_a_process_reads_its_own_rows_only() -> None:
    class Half:
        """Devices 4 to 7 of eight, as the second of two processes has them."""

        def addressable_devices_indices_map(self, shape: tuple[int, int]) -> dict[int, Any]:
            each = shape[1] // 8
            return {i: (slice(None), slice(i * each, (i + 1) * each)) for i in (5, 4, 7, 6)}

    places = own_places(Half(), 32)  # type: ignore[arg-type]
    np.testing.assert_array_equal(places, np.arange(16, 32))


@pytest.mark.parametrize("packed", ["folder", "zip"])
def test_the_next_readable_image_takes_the_place_of_a_damaged_one(
    files: Files, write_folder: Write, write_zip: Write, mesh: Meshes, packed: str
) -> None:
    broken = ("cat/03.jpg", "cat/04.jpg", "owl/07.jpg")  # two in a row, and the last of all
    cut = files | {name: files[name][:150] for name in broken}
    examples = whole(write_folder(cut) if packed == "folder" else write_zip(cut))
    names = sorted(files)
    instead = {3: 5, 4: 5, 23: 0}
    assert [names[i] for i in instead] == list(broken)
    made = []
    for road in ("resident", "streamed"):
        data = Data(batch_size=8, road=road, crop="device", max_bad=0.13)  # type: ignore[arg-type]
        with opened(data, examples, mesh(1)) as feed:
            made.append(batches(feed, 0, 3))
            assert feed.report() == {
                "unreadable": 3,
                "first_unreadable": "cat/03.jpg",
                "notice": f"{examples.title}: 3 of 24 images cannot be decoded (first: "
                "cat/03.jpg); skipped, 12 % <= data.max_bad=13 %",
            }
    same(*made)
    for step, batch in enumerate(made[0]):
        index = [instead.get(int(i), int(i)) for i in batch_indices(SEED, step, 24, 8)]
        assert batch["index"].tolist() == index
        same(batch["image"], np.stack([examples.image(i) for i in index]))
        same(batch["label"], examples.labels[index])


def test_next_readable_goes_round() -> None:
    readable = np.array([False, True, False, False, True, False])
    assert next_readable(readable).tolist() == [1, 1, 4, 4, 4, 1]


@pytest.mark.parametrize("road", ["resident", "streamed"])
def test_too_many_damaged_images_stop_the_run(
    files: Files, write_zip: Write, mesh: Meshes, road: Any
) -> None:
    cut = files | dict.fromkeys(("cat/03.jpg", "dog/04.jpg", "owl/02.jpg"), b"no")
    data = Data(batch_size=8, road=road, crop="device", max_bad=0.1)
    message = (
        "pictures.zip: 3 of 24 images cannot be decoded (first: cat/03.jpg), 12 % > "
        "data.max_bad=10 %; mend or remove them, or tolerate more (train.py --data.max-bad, eval.py"
    )
    with (
        pytest.raises(UserError, match=re.escape(message)),
        opened(data, whole(write_zip(cut)), mesh(1)) as feed,
    ):
        feed.inputs(0, 3)  # a whole epoch: each image is met


def test_a_long_run_of_damaged_images_stops_the_search(
    files: Files, write_zip: Write, mesh: Meshes
) -> None:
    cut = {name: b"no" if name.startswith("dog") else files[name] for name in files}
    data = Data(batch_size=1, road="streamed", crop="host", max_bad=0.1)  # tolerates 2 of 24
    first = next(step for step in range(24) if 8 <= batch_indices(SEED, step, 24, 1)[0] <= 13)
    message = r"dog/0\d.jpg and the images after it cannot be decoded, more than data\.max_bad=10 %"
    with (
        pytest.raises(UserError, match=message),
        opened(data, whole(write_zip(cut)), mesh(1)) as feed,
    ):
        feed.inputs(first, 1)


def test_no_readable_image_at_all(files: Files, write_zip: Write, mesh: Meshes) -> None:
    examples = whole(write_zip(dict.fromkeys(files, b"no")))
    with pytest.raises(UserError, match="none of the 24 images can be decoded"):
        open_feed(Data(batch_size=8, road="resident"), examples, RECIPE, seed=0, mesh=mesh(1))


@pytest.mark.parametrize("road", ["resident", "streamed"])
def test_image_size_makes_images_alike(
    files: Files, picture: Callable, write_zip: Write, mesh: Meshes, road: Any
) -> None:
    ragged = files | {f"cat/{i:02d}.jpg": picture(i, 20 + i, 40) for i in range(8)}
    examples = whole(write_zip(ragged))
    assert examples.shape is None
    data = Data(batch_size=24, road=road, crop="device", image_size=12)
    with opened(data, examples, mesh(1)) as feed:
        batch = batches(feed, 0, 1)[0]
    for index, image in zip(batch["index"], batch["image"], strict=True):
        pixels = examples.image(int(index))
        h, w = (max(12, round(side * 12 / min(pixels.shape[:2]))) for side in pixels.shape[:2])
        small = cv2.resize(pixels, (w, h), interpolation=cv2.INTER_AREA)
        np.testing.assert_array_equal(image, small[(h - 12) // 2 :, (w - 12) // 2 :][:12, :12])


def test_auto_takes_the_road_that_fits(
    files: Files, picture: Callable, write_zip: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    alike = whole(write_zip(files))
    ragged = whole(write_zip(files | {"cat/09.jpg": picture(0, 30, 40)}, "ragged.zip"))
    assert road_of(Data(), alike) == "resident"
    assert road_of(Data(), ragged) == "streamed"
    assert road_of(Data(road="streamed"), alike) == "streamed"
    monkeypatch.setattr(feeds_module, "RESIDENT_BYTES", 24 * 24 * 24 * 3)
    assert road_of(Data(), alike) == "resident"
    monkeypatch.setattr(feeds_module, "RESIDENT_BYTES", 24 * 24 * 24 * 3 - 1)
    assert road_of(Data(), alike) == "streamed"


def test_auto_crops_where_fewer_pixels_travel(
    files: Files, picture: Callable, write_zip: Write, mesh: Meshes
) -> None:
    """24x24 = 576 pixels: the crops of 16, 16 and 8 hold 576, those of 16 and 16 hold 512."""
    alike = whole(write_zip(files))
    ragged = whole(write_zip(files | {"cat/09.jpg": picture(0, 30, 40)}, "ragged.zip"))
    two = Recipe((View(CROPS[0], copies=2),), 16)
    mixed = Recipe((View(CROPS[0]), View(None)), 24)
    data = Data(batch_size=4, road="streamed")
    for examples, recipe, name in [
        (alike, RECIPE, "image"),
        (alike, two, "crops"),
        (alike, mixed, "image"),
        (ragged, RECIPE, "crops"),
    ]:
        with opened(data, examples, mesh(1), recipe) as feed:
            assert name in feed.inputs(0, 1)


@pytest.mark.parametrize(
    ("data", "devices", "message"),
    [
        (Data(batch_size=20), 8, "data.batch_size=20 does not split over 8 devices; use 16 or 24"),
        (Data(batch_size=4), 8, "data.batch_size=4 does not split over 8 devices; use 8"),
        (Data(batch_size=32), 1, "data.batch_size=32 is more than the 24 training images; use at"),
        (Data(batch_size=8, max_bad=1.5), 1, "data.max_bad=1.5 is no share; use 0 up to 0.5"),
        (Data(batch_size=8, image_size=0), 1, "data.image_size=0 leaves no pixels; use 1 or more"),
        (Data(batch_size=8, threads=0), 1, "data.threads=0 decodes nothing; use 1 or more"),
        (Data(batch_size=8, workers=-1), 1, "data.workers=-1 is below zero; use 0 or more"),
        (
            Data(batch_size=8, road="streamed", crop="host"),
            1,
            "data.crop=host, but a view here takes the whole image; use data.crop=device",
        ),
    ],
)
def test_numbers_that_do_not_fit_are_refused(
    files: Files, write_zip: Write, mesh: Meshes, data: Data, devices: int, message: str
) -> None:
    recipe = Recipe((View(CROPS[0]), View(None)), 24)
    with pytest.raises(UserError, match=re.escape(message)):
        open_feed(data, whole(write_zip(files)), recipe, seed=0, mesh=mesh(devices))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            Data(batch_size=8, road="streamed", crop="device"),
            "data.crop=device: ragged.zip may hold images of different sizes, which cannot be "
            "stacked; set data.image_size, or crop every view and use data.crop=host",
        ),
        (
            Data(batch_size=8, road="resident"),
            "ragged.zip: owl/09.jpg is 30x40 where others are 24x24; set data.image_size=24 to "
            "make them alike, or data.road=streamed",
        ),
    ],
)
def test_images_that_differ_in_size_are_refused_where_they_must_not(
    files: Files, picture: Callable, write_zip: Write, mesh: Meshes, data: Data, message: str
) -> None:
    examples = whole(write_zip(files | {"owl/09.jpg": picture(0, 30, 40)}, "ragged.zip"))
    with pytest.raises(UserError, match=re.escape(message)):
        open_feed(data, examples, RECIPE, seed=0, mesh=mesh(1))


def test_unlabelled_images_have_label_minus_one(mesh: Meshes) -> None:
    images = np.zeros((9, 4, 4, 1), np.uint8)
    examples = Pixels("plain", images, np.full(9, -1), ())
    with opened(Data(batch_size=9), examples, mesh(1)) as feed:
        assert batches(feed, 0, 1)[0]["label"].tolist() == [-1] * 9
