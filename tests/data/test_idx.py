import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from unrote.data.idx import read_idx
from unrote.errors import DataError


def idx(values: np.ndarray, kind: int = 8) -> bytes:
    """The bytes of an IDX file, written from the format's description."""
    return struct.pack(f">BBBB{values.ndim}I", 0, 0, kind, values.ndim, *values.shape) + values.tobytes()


IMAGES = np.random.default_rng(0).integers(0, 256, (5, 4, 3), dtype=np.uint8)


@pytest.mark.parametrize("name", ["images", "images.gz", "zipped-without-saying-so"])
def test_reads_plain_and_zipped(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(idx(IMAGES) if name == "images" else gzip.compress(idx(IMAGES)))
    got = read_idx(path, 3)
    assert got.dtype == np.uint8
    assert np.array_equal(got, IMAGES)


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "starts with bytes none"),
        (b"\x00\x00\x08", "starts with bytes 000008"),
        (b"<html>404</html>", "starts with bytes 3c68746d"),
        (idx(IMAGES[:, 0, 0]), "00000803 is wanted"),  # labels where images are wanted
        (idx(IMAGES, kind=13), "00000803 is wanted"),  # floats
        (idx(IMAGES)[:9], "breaks off in its header"),
        (idx(IMAGES)[:-1], r"59 bytes of values, its header says 60 \(5, 4, 3\)"),
        (idx(IMAGES) + b"\x00", "61 bytes of values"),
        (struct.pack(">BBBB3I", 0, 0, 8, 3, *[2**32 - 1] * 3) + b"\x00" * 9, "9 bytes of values"),
    ],
)
def test_malformed(tmp_path: Path, content: bytes, message: str, zipped: bool) -> None:
    path = tmp_path / "file"
    path.write_bytes(gzip.compress(content) if zipped else content)
    with pytest.raises(DataError, match=message) as caught:
        read_idx(path, 3)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("keep", [3, 12, 40, -9, -1])
def test_a_download_that_broke_off(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "file.gz"
    path.write_bytes(gzip.compress(idx(IMAGES))[:keep])
    with pytest.raises(DataError, match="download it again"):
        read_idx(path, 3)


def test_a_flipped_bit_in_the_zipped_data(tmp_path: Path) -> None:
    content = bytearray(gzip.compress(idx(IMAGES)))
    content[len(content) // 2] ^= 0x10
    (tmp_path / "file.gz").write_bytes(content)
    with pytest.raises(DataError, match="download it again"):
        read_idx(tmp_path / "file.gz", 3)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_idx(tmp_path / "nothing", 3)
