"""Files of at most 5 MiB that ask for much more: each is answered in 10 s and 1 GiB."""

import gzip
import io
import json
import pickle
import struct
import time
import zipfile
import zlib
from pathlib import Path

import pytest

from jaxcl import UserError
from jaxcl.data.pixels import decode, resize_and_centre
from jaxcl.reading import read_json
from jaxcl.tables import read_lines
from jaxcl.tokens import prepared
from jaxcl.weights import load_encoder, read_tensors

SIZE = 5 << 20
SECONDS, MEMORY = 10.0, 1 << 30
STATUS, PEAK = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def torch_zip(codes, numbers=b""):
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("a/data.pkl", b"\x80\x02" + codes + b".")
        archive.writestr("a/data/0", numbers)
    return written.getvalue()


def tensor(count):
    """A tensor of the first numbers of storage 0."""
    stored = pickle.dumps(("storage", 0, "0", "cpu", count), protocol=2)[2:-1]
    stored = stored.replace(b"K\x00", b"ctorch\nFloatStorage\n", 1)
    size = b"K\x00(J" + struct.pack("<i", count) + b"t(K\x01t\x89NtR"
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + stored + b"Q" + size


def shared_numbers():
    """20,000 tensors, each with a copy of the same 4 MiB."""
    each = b"".join(b"X\x05\x00\x00\x00%05d" % i + tensor(1 << 20) for i in range(20_000))
    return torch_zip(b"}(" + each + b"u", bytes(4 << 20))


def npy(shape):
    header = repr({"descr": "<f8", "fortran_order": False, "shape": shape}).ljust(117).encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header) + 1) + header + b"\n"


def npz(**members):
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return written.getvalue()


def safetensors(names, shape=(0,)):
    tensors = {n: {"dtype": "F32", "shape": list(shape), "data_offsets": [0, 0]} for n in names}
    header = json.dumps(tensors, separators=(",", ":")).encode()
    return struct.pack("<Q", len(header)) + header


def png(height, width):
    def part(kind, data):
        check = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)

    packer, rows = zlib.compressobj(1), b""
    for _ in range(height):
        rows += packer.compress(bytes(1 + width))
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    end = part(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", head) + part(b"IDAT", rows + packer.flush()) + end


def shown(path):
    pixels = decode(path.read_bytes(), 3)
    if pixels is None:
        raise UserError("cannot be decoded")
    assert resize_and_centre(pixels, 224).shape == (224, 224, 3)


HOSTILE = {
    "steps.pth": (lambda: torch_zip(b"]0" * (SIZE * 4)), read_tensors),
    "sets.pth": (lambda: torch_zip(b"(" + b"\x8f" * SIZE + b"t"), read_tensors),
    "shared.pth": (shared_numbers, read_tensors),
    "copies.pth": (lambda: torch_zip(
        b"X" + struct.pack("<I", SIZE) + b"x" * SIZE + b"q\x00"
        + b"cbuiltins\nlist\nq\x01h\x00\x85R" * 9000), read_tensors),
    "zeros.npz": (lambda: npz(w=npy((1 << 25,)) + bytes(1 << 28)), read_tensors),
    "announced.npz": (lambda: npz(w=npy((10**11,))), read_tensors),
    "names.safetensors": (lambda: safetensors(f"n{i}" for i in range(80_000)), read_tensors),
    "networks.safetensors": (
        lambda: safetensors(f"n{i}.layer1.0.conv1.weight" for i in range(50_000)), load_encoder),
    "blocks.safetensors": (
        lambda: safetensors([f"blocks.{i}.attn.qkv.weight" for i in range(49_000)]
                            + ["patch_embed.proj.weight", "pos_embed"], (0, 1, 1, 1)),
        load_encoder),
    "large.png": (lambda: png(30_000, 30_000), shown),
    "strip.png": (lambda: png(1, 60_000), shown),
    "deep.json": (lambda: b"[" * SIZE, read_json),
    "wide.json": (lambda: b"[" + b"{}," * (SIZE // 3) + b"{}]", read_json),
    "lines.txt.gz": (lambda: gzip.compress(b"a\n" * (1 << 27), 1),
                     lambda path: sum(1 for _ in read_lines(path))),
    "line.txt": (lambda: b"a" * SIZE, lambda path: list(read_lines(path))),
    "tokenizer.json": (lambda: b'{"model":' + b"[" * SIZE, lambda path: prepared(
        path.read_bytes(), 8)),
}  # fmt: skip


def memory(kind):
    """VmRSS, now, or VmHWM, the highest since it was last cleared; bytes."""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(kind))
    return int(line.split()[1]) << 10


@pytest.mark.extended
@pytest.mark.skipif(not PEAK.exists(), reason="needs Linux' /proc to measure memory")
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_answered(name, tmp_path):
    make, read = HOSTILE[name]
    (tmp_path / name).write_bytes(make())
    assert (tmp_path / name).stat().st_size <= SIZE + (1 << 16)
    PEAK.write_text("5")
    before, begun = memory("VmRSS"), time.process_time()
    try:
        read(tmp_path / name)
    except UserError as error:
        print(error)
    taken, grown = time.process_time() - begun, memory("VmHWM") - before
    print(f"{name}: {taken:.1f} s, {grown >> 20} MiB")
    assert taken < SECONDS and grown < MEMORY
