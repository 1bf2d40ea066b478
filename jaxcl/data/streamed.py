"""The streamed road: grain decodes in threads or processes, and batches reach the device ahead."""

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import connection, parent_process
from typing import Any

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxcl.data.examples import UNDECODABLE, Examples, Unreadable
from jaxcl.data.loading import BadImages
from jaxcl.data.order import batch_indices, crop_uniforms, steps_per_epoch
from jaxcl.data.pixels import Crop, crop_views
from jaxcl.errors import need
from jaxcl.typing import NumpyArray, PyTree

AHEAD = 2
"""Batches that wait on the device, and batches that wait on the host, for the step to take them."""
_ROWS_AT_ONCE = 16  # rows a thread decodes at a time; fewer where they do not divide the batch
_STEPS = 1 << 40  # more than any run has


@dataclass(frozen=True)
class Rows:
    """This process's rows of every batch from `first_step` on, cut into runs of `at_once` rows.

    Element i is a function of i alone, so any thread or process may make it.
    """

    examples: Examples
    crops: tuple[Crop, ...]
    """Crops to make here, one per view; none to give whole images."""
    seed: int
    batch_size: int
    """Images in the global batch."""
    places: NumpyArray
    """[m] rows of the global batch that belong to this process."""
    first_step: int
    at_once: int
    patience: int
    """How many unreadable images may follow each other before the search is given up."""

    def __len__(self) -> int:
        return _STEPS * (len(self.places) // self.at_once)

    def __getitem__(self, i: int) -> dict[str, Any]:
        """Arrays over `at_once` rows: `image` or `crops`, `label`, `index` and `bad`.

        `index` is the example shown, -1 where none was found; `bad` the example that should have
        been shown and cannot be read, or -1.
        """
        steps, run = divmod(i, len(self.places) // self.at_once)
        step = self.first_step + steps
        order = batch_indices(self.seed, step, len(self.examples), self.batch_size)
        places = self.places[run * self.at_once : (run + 1) * self.at_once]
        rows = [self._row(step, int(place), int(order[place])) for place in places]
        result = {
            name: np.array([row[name] for row in rows], np.int32)
            for name in ("label", "index", "bad")
        }
        if self.crops:
            views = zip(*(row["pixels"] for row in rows), strict=True)
            return result | {"crops": tuple(np.stack(view) for view in views)}
        return result | {"image": np.stack([row["pixels"] for row in rows])}

    def _row(self, step: int, place: int, wanted: int) -> dict[str, Any]:
        """One row; an unreadable image gives way to the next readable one, going round."""
        n = len(self.examples)
        for tried in range(min(self.patience + 1, n)):
            index = (wanted + tried) % n
            try:
                pixels, label = self.pixels(step, place, index)
            except Unreadable:
                continue
            bad = wanted if tried else -1
            return {"pixels": pixels, "label": label, "index": index, "bad": bad}
        return {"pixels": self._nothing(), "label": -1, "index": -1, "bad": wanted}

    def pixels(
        self, step: int, place: int, index: int
    ) -> tuple[NumpyArray | tuple[NumpyArray, ...], int]:
        """Whole image or crops of one example, and its label; raises `Unreadable`."""
        if not self.crops:
            image, label = self.examples.picture(index)
            if image.shape != self.examples.shape:
                reason = f"is {image.shape}, not {self.examples.shape}"
                raise Unreadable(self.examples.name(index), reason)
            return image, label
        content, label = self.examples.read(index)
        draws = max(crop.draws for crop in self.crops)
        uniforms = crop_uniforms(self.seed, step, place, len(self.crops), draws)
        views = crop_views(content, self.examples.channels, self.crops, uniforms)
        if views is None:
            raise Unreadable(self.examples.name(index), UNDECODABLE)
        return views, label

    def _nothing(self) -> NumpyArray | tuple[NumpyArray, ...]:
        channels = self.examples.channels
        if self.crops:
            return tuple(np.zeros((c.size, c.size, channels), np.uint8) for c in self.crops)
        return np.zeros(self.examples.shape or (1, 1, channels), np.uint8)


class StreamedFeed:
    """Decodes what the coming steps need, in the background; may be asked for any step."""

    road = "streamed"

    def __init__(
        self,
        examples: Examples,
        *,
        batch_size: int,
        max_bad: float,
        threads: int | None,
        workers: int,
        crops: tuple[Crop, ...],
        seed: int,
        mesh: Mesh,
    ) -> None:
        """Starts nothing yet: the first call of `inputs` says at which step to begin."""
        need("grain", "data.road=streamed", "or set data.road=resident")
        self.steps_per_epoch = steps_per_epoch(len(examples), batch_size)
        self._examples = examples
        self._crops = crops
        self._seed = seed
        self._batch_size = batch_size
        self._threads = threads or os.cpu_count() or 1
        self._workers = workers
        self._sharding = NamedSharding(mesh, PartitionSpec(None, "data"))
        self._bad = BadImages(examples, max_bad)
        self._patience = int(max_bad * len(examples))
        self._places = own_places(self._sharding, batch_size)
        self._next_step: int | None = None
        self._stream: Iterator[tuple[PyTree, NumpyArray, NumpyArray]] | None = None
        self._join = jax.jit(lambda *steps: jax.tree.map(lambda *x: jnp.concatenate(x), *steps))

    @property
    def constants(self) -> PyTree:
        """Nothing stays on the device."""
        return ()

    def inputs(self, step: int, count: int) -> PyTree:
        """Batches with a leading axis [count]; a step that is not the next one starts over there.

        Raises:
          UserError: too many images were found unreadable.
        """
        if self._stream is None or step != self._next_step:
            self._start(step)
        assert self._stream is not None
        batches = []
        for _ in range(count):
            arrays, bad, lost = next(self._stream)
            if len(bad):
                self._bad.add(bad)
            if len(lost):
                self._bad.give_up(int(lost[0]))
            batches.append(arrays)
        self._next_step = step + count
        return batches[0] if count == 1 else self._join(*batches)

    def batch(self, constants: PyTree, one: PyTree) -> dict[str, Any]:
        """The batch as it came."""
        return dict(one)

    def report(self) -> dict[str, int | str | None]:
        """Unreadable images met so far by this process."""
        return self._bad.report()

    def close(self) -> None:
        """Ends threads and processes; `inputs` would start them again."""
        if self._stream is not None:
            self._stream.close()  # type: ignore[attr-defined]
            self._stream = None

    def rows(self, first_step: int) -> Rows:
        """What the workers compute, from a step on."""
        at_once = max(k for k in range(1, _ROWS_AT_ONCE + 1) if len(self._places) % k == 0)
        return Rows(
            self._examples,
            self._crops,
            self._seed,
            self._batch_size,
            self._places,
            first_step,
            at_once,
            self._patience,
        )

    def _start(self, step: int) -> None:
        import grain  # slow to import
        from absl import flags
        from grain.experimental import ThreadPrefetchIterDataset

        self.close()
        rows = self.rows(step)
        runs = len(self._places) // rows.at_once
        # Runs that are decoded ahead: AHEAD batches, and enough to keep every thread busy.
        buffer = max(AHEAD * runs, 2 * self._threads)
        per_process = max(1, self._workers)
        reading = grain.ReadOptions(
            num_threads=-(-self._threads // per_process),
            prefetch_buffer_size=-(-buffer // per_process),
        )
        stream = grain.MapDataset.source(rows).to_iter_dataset(reading)
        if self._workers:
            if not flags.FLAGS.is_parsed():  # grain looks at them; there are none of ours
                flags.FLAGS.mark_as_parsed()
            options = grain.MultiprocessingOptions(
                num_workers=self._workers, per_worker_buffer_size=reading.prefetch_buffer_size
            )
            stream = stream.mp_prefetch(options, worker_init_fn=_start_worker)
        # The feed's own threads fill the cores; OpenCV's would only get in their way.
        cv2.setNumThreads(1)
        stream = stream.batch(runs, batch_fn=_join_runs).map(self._to_device())
        self._stream = iter(ThreadPrefetchIterDataset(stream, prefetch_buffer_size=AHEAD))

    def _to_device(self) -> Callable[[dict[str, Any]], tuple[PyTree, NumpyArray, NumpyArray]]:
        """Sends a batch on its way; what the host must look at stays here."""
        sharding, batch_size = self._sharding, self._batch_size

        def put(values: NumpyArray) -> jax.Array:
            shape = (1, batch_size, *values.shape[1:])
            local = values[None]
            sent: jax.Array = jax.make_array_from_process_local_data(sharding, local, shape)
            return sent

        def send(batch: dict[str, Any]) -> tuple[PyTree, NumpyArray, NumpyArray]:
            bad = batch.pop("bad")
            lost = bad[batch["index"] < 0]
            return jax.tree.map(put, batch), bad[bad >= 0], lost

        return send


def own_places(sharding: NamedSharding, batch_size: int) -> NumpyArray:
    """[m] ascending rows of the global batch that this process's devices hold."""
    parts = sharding.addressable_devices_indices_map((1, batch_size)).values()
    held = {part[1].indices(batch_size) for part in parts if part is not None}
    return np.concatenate([np.arange(*span) for span in sorted(held)])


def _join_runs(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    joined: dict[str, Any] = jax.tree.map(lambda *parts: np.concatenate(parts), *runs)
    return joined


def _start_worker(worker: int, workers: int) -> None:
    """Ctrl-C reaches the whole group of processes; the run decides when its workers end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    cv2.setNumThreads(1)


def _end_with_parent() -> None:
    """Ends this worker once its parent is gone, which cannot end it where it was killed."""
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)
