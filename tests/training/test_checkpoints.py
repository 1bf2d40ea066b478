import errno
import gc
import random

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from jaxcl import UserError
from jaxcl.training.checkpoints import FOLDER, Checkpoints, fingerprint
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


@pytest.fixture
def saved(tmp_path):
    """Checkpoints of steps 1 to 4, of which 2 is the best; two newest are kept."""
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step, score in [(1, 10.0), (2, 90.0), (3, 20.0), (4, 30.0)]:
        checkpoints.save(state(step), score=score)
    checkpoints.wait()
    checkpoints.close()
    return tmp_path


def restored(run, like=None, **options):
    told = []
    checkpoints = Checkpoints(run, tell=told.append)
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


def test_a_full_disk_is_told_with_the_last_good_checkpoint(saved, monkeypatch):
    checkpoints = Checkpoints(saved)

    def full(*_arguments, **_options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoints._manager, "save", full)
    with pytest.raises(UserError, match=r"No space left on device.*the last good one is step 4"):
        checkpoints.save(state(5), score=0.0)
    checkpoints.close()


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
