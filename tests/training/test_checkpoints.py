import errno
import gc
import os
import random
import shutil
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
import tiny
from etils import epath

from jaxcl import UserError
from jaxcl.training.checkpoints import FOLDER, Checkpoints, fingerprint, not_finite
from jaxcl.training.state import State

# When one array cannot be read, orbax leaves its readers of the others unfinished; `restored`
# collects them, so that their complaints do not reach another test.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def state(step, width=3):
    rng = np.random.default_rng(step)
    return State(
        step=jnp.array(step, jnp.int32),
        key=jnp.arange(2, dtype=jnp.uint32),
        params={"encoder": {"kernel": jnp.array(rng.normal(size=(20_000, width)), jnp.float32)}},
        memory=(),
        optim={},
        average=(),
        probe=(),
        totals={},
        bad_step=jnp.array(-1, jnp.int32),
    )


@pytest.fixture(scope="module")
def saved_once(tmp_path_factory):
    run = tmp_path_factory.mktemp("saved")
    checkpoints = Checkpoints(run, keep=2)
    for step, score in [(1, 10.0), (2, 90.0), (3, 20.0), (4, 30.0)]:
        checkpoints.save(state(step), score=score)
    checkpoints.wait()
    checkpoints.close()
    return run


@pytest.fixture
def saved(saved_once, tmp_path):
    """Checkpoints of steps 1 to 4, of which 2 is the best; two newest are kept."""
    shutil.copytree(saved_once, tmp_path, dirs_exist_ok=True)
    return tmp_path


def restored(run, like=None, train=False, **options):
    told = []
    checkpoints = Checkpoints(run, tell=told.append, train=train)
    try:
        return checkpoints.restore(state(0) if like is None else like, **options), told
    finally:
        checkpoints.close()
        gc.collect()


def largest_file(run, step):
    files = (run / FOLDER / str(step)).rglob("*")
    return max((f for f in files if f.is_file()), key=lambda f: f.stat().st_size)


def test_newest_and_best_are_kept_and_come_back_bit_for_bit(saved):
    kept = sorted(int(p.name) for p in (saved / FOLDER).iterdir())
    assert kept == [2, 3, 4]
    assert tiny.same_bits(restored(saved)[0], state(4))
    assert tiny.same_bits(restored(saved, best=True)[0], state(2))


def test_no_checkpoint_is_none(tmp_path):
    assert restored(tmp_path)[0] is None


def test_one_cut_short_is_passed_over_and_said(saved):
    file = largest_file(saved, 4)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    found, told = restored(saved)
    assert tiny.same_bits(found, state(3))
    assert len(told) == 1
    assert told[0].startswith("checkpoint 4 is damaged and passed over")


def test_one_flipped_bit_is_noticed(saved):
    file = largest_file(saved, 4)
    content = bytearray(file.read_bytes())
    content[random.Random(0).randrange(len(content) // 4, len(content) // 2)] ^= 0x10
    file.write_bytes(content)
    found, told = restored(saved)
    assert tiny.same_bits(found, state(3))
    assert "checkpoint 4 is damaged" in told[0]


def test_none_whole_is_an_error(saved):
    for step in (2, 3, 4):
        file = largest_file(saved, step)
        file.write_bytes(b"")
    with pytest.raises(UserError, match=r"holds checkpoints \[2, 3, 4\], but none is whole"):
        restored(saved)


def test_other_shapes_are_named(saved):
    with pytest.raises(
        UserError, match=r"params.encoder.kernel has shape \(20000, 3\) .* \(20000, 4\)"
    ):
        restored(saved, like=state(0, width=4))
    surplus = state(0)._replace(memory={"queue": jnp.zeros(3)})
    with pytest.raises(UserError, match=r"its checkpoint lacks memory.queue; use another --dir"):
        restored(saved, like=surplus)


def test_the_state_may_be_overwritten_while_it_is_being_written(tmp_path):
    """The next step donates the buffers of the state that was handed to `save`."""
    step = jax.jit(lambda s: jax.tree.map(lambda x: x + 1, s), donate_argnums=0)
    current = state(7)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(current, score=0.0)
    for _ in range(20):
        current = step(current)
    checkpoints.wait()
    checkpoints.close()
    assert tiny.same_bits(restored(tmp_path)[0], state(7))


@pytest.mark.parametrize("cause", [errno.ENOSPC, errno.EACCES])
@pytest.mark.parametrize("first", ["mkdir", "write_text"])
def test_a_disk_that_refuses_is_told_at_once_with_the_last_good_checkpoint(
    saved, monkeypatch, cause, first
):
    """Whether the folder cannot be made or a file in it cannot be written; no thread waits."""
    reason = os.strerror(cause)
    checkpoints, start = Checkpoints(saved), time.monotonic()

    def refuse(*_arguments, **_options):
        raise OSError(cause, reason)

    monkeypatch.setattr(type(epath.Path()), first, refuse)
    with pytest.raises(UserError, match=rf"{reason}.*the last good checkpoint is step 4"):
        checkpoints.save(state(5), score=0.0)
        checkpoints.wait()
    checkpoints.close()
    assert time.monotonic() - start < 60
    assert not [t for t in threading.enumerate() if "async_save" in t.name]
    monkeypatch.undo()
    assert tiny.same_bits(restored(saved)[0], state(4))


def test_a_disk_that_is_nearly_full_is_told_before_anything_is_written(saved, monkeypatch):
    usage = shutil.disk_usage(saved)
    checkpoints, before = Checkpoints(saved), sorted(saved.rglob("*"))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1_200_000))
    with pytest.raises(UserError, match=r"No space left on device.*good checkpoint is step 4"):
        checkpoints.save(state(5))
    checkpoints.close()
    assert sorted(saved.rglob("*")) == before


def test_training_goes_on_over_the_step_of_a_damaged_checkpoint(saved):
    largest_file(saved, 4).write_bytes(b"")
    found, told = restored(saved, train=True)
    assert tiny.same_bits(found, state(3))
    assert told[0].startswith("checkpoint 4 is damaged and set aside as checkpoints/4.damaged")
    checkpoints = Checkpoints(saved, train=True)
    checkpoints.save(state(4), score=95.0)
    checkpoints.wait()
    checkpoints.close()
    assert tiny.same_bits(restored(saved)[0], state(4))
    assert tiny.same_bits(restored(saved, best=True)[0], state(4))
    assert (saved / FOLDER / "4.damaged").is_dir()


def test_reading_a_run_moves_nothing(saved):
    largest_file(saved, 4).write_bytes(b"")
    before = sorted(saved.rglob("*"))
    restored(saved)
    assert sorted(saved.rglob("*")) == before


@pytest.mark.parametrize("name", ["meta/metadata", "metrics/metrics"])
@pytest.mark.parametrize("content", [b"", b"\xff{", b"[1]", b'{"score": null}', None])
def test_one_bad_byte_beside_the_numbers_costs_nothing(saved, name, content):
    """Score and fingerprint are kept twice."""
    file = saved / FOLDER / "4" / name
    if content is None:
        content = file.read_bytes().replace(b"30.0", b"99.0")
    file.write_bytes(content)
    assert tiny.same_bits(restored(saved)[0], state(4))
    assert tiny.same_bits(restored(saved, best=True)[0], state(2))


@pytest.mark.parametrize(
    "name", ["_CHECKPOINT_METADATA", "state/_METADATA", "state/_sharding", "state/manifest.ocdbt"]
)
@pytest.mark.parametrize("change", ["flip", "cut"])
def test_damage_in_any_small_file_costs_one_checkpoint_at_most(saved, name, change):
    file = saved / FOLDER / "4" / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0x10
    file.write_bytes(content if change == "flip" else b"")
    found, _ = restored(saved, train=True)
    assert tiny.same_bits(found, state(4)) or tiny.same_bits(found, state(3))


def test_a_half_removed_checkpoint_is_passed_over(saved):
    """As a kill left it while an earlier version removed it, file by file."""
    shutil.rmtree(saved / FOLDER / "2" / "metrics")
    shutil.rmtree(saved / FOLDER / "2" / "meta")
    for best in (False, True):
        assert tiny.same_bits(restored(saved, best=best)[0], state(4))


def test_a_kill_between_removing_two_files_leaves_no_checkpoint(saved, monkeypatch):
    monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: None)
    checkpoints = Checkpoints(saved, keep=1)
    checkpoints.wait()
    assert checkpoints.steps == [2, 4]
    checkpoints.close()
    monkeypatch.undo()
    assert (saved / FOLDER / "3.removed").is_dir()
    restored(saved, train=True)
    assert sorted(p.name for p in (saved / FOLDER).iterdir()) == ["2", "4"]


def test_a_score_may_come_after_the_checkpoint(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=1)
    for step, score in [(1, 10.0), (2, 90.0), (3, 20.0)]:
        checkpoints.save(state(step))
        checkpoints.judge(step, score)
    checkpoints.wait()
    assert checkpoints.steps == [2, 3]
    checkpoints.close()
    assert tiny.same_bits(restored(tmp_path, best=True)[0], state(2))


def test_none_whole_is_not_set_aside(saved):
    """Or the next start would begin anew without a word."""
    for step in (2, 3, 4):
        largest_file(saved, step).write_bytes(b"")
    for _ in range(2):
        with pytest.raises(UserError, match=r"holds checkpoints \[2, 3, 4\], but none is whole"):
            restored(saved, train=True)


@pytest.mark.parametrize("error", [MemoryError(), PermissionError(13, "Permission denied")])
def test_what_cannot_be_read_now_is_not_damaged(saved, monkeypatch, error):
    """Training from an older one would lose what came since."""

    def refuse(*_arguments, **_options):
        raise error

    monkeypatch.setattr(ocp.StandardCheckpointHandler, "restore", refuse)
    with pytest.raises(UserError, match=r"checkpoint 4 of .* cannot be read"):
        restored(saved, train=True)
    assert (saved / FOLDER / "4").is_dir()


def test_what_is_not_finite_is_named():
    assert not_finite(state(1)) is None
    bad = state(1)._replace(totals={"loss": jnp.array(jnp.nan)}, key=jnp.arange(2))
    assert not_finite(bad) is None
    moments = {"all": {"mu": jnp.array([0.0, jnp.inf])}}
    assert not_finite(bad._replace(optim=moments)) == "optim.all.mu"
    assert not_finite(bad._replace(memory={"queue": jnp.array([jnp.nan])})) == "memory.queue"


def test_fingerprint_sees_every_change_and_no_device():
    one = {"a": jnp.arange(6.0), "b": jnp.ones((2, 2), jnp.bfloat16)}
    whole = int(fingerprint(one))
    assert int(fingerprint(dict(one, a=one["a"].at[3].set(3.0000002)))) != whole
    assert int(fingerprint(dict(one, a=one["a"][::-1]))) != whole
    assert int(fingerprint(dict(one, b=-one["b"]))) != whole
    assert int(fingerprint({"a": one["b"], "b": one["a"]})) != whole
    from jaxcl.scale import data_mesh, rows_split

    values = jnp.arange(64.0)
    spread = jax.device_put(values, rows_split(data_mesh(8)))
    assert int(fingerprint(spread)) == int(fingerprint(values))


def test_fingerprint_is_the_same_where_numbers_have_64_bits(x64):
    """So a checkpoint can be read with and without."""
    one = {"a": np.arange(6, dtype=np.float32), "b": np.arange(3, dtype=np.int32)}
    with jax.enable_x64(False):
        expected = int(fingerprint(one))
    assert int(fingerprint(one)) == expected
    wide = np.arange(3.0) + 1
    assert int(fingerprint(wide)) != int(fingerprint(np.nextafter(wide, 9)))
