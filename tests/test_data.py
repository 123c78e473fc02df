# SPDX-License-Identifier: MIT
"""The digits and their split, and IDX files from friends and from strangers."""

import gzip
import hashlib
import struct
from pathlib import Path

import numpy as np
import pytest

from convnet import data
from convnet.data import load_digits, read_idx

# Digits ---------------------------------------------------------------------------


def test_digits_have_the_documented_shapes_and_types():
    (x, y), (x_test, y_test) = load_digits()
    assert x.shape == (1201, 1, 8, 8)
    assert x_test.shape == (596, 1, 8, 8)
    assert y.shape == (1201,)
    assert y_test.shape == (596,)
    assert {x.dtype, x_test.dtype} == {np.dtype(np.float32)}
    assert {y.dtype, y_test.dtype} == {np.dtype(np.int64)}
    assert x.min() == 0
    assert x.max() == 1


def test_digits_and_split_never_change():
    # The digest pins values, order and split at once: results stay comparable for ever.
    digest = hashlib.sha256()
    for x, y in load_digits():
        digest.update(
            (x * 16).astype(np.uint8).tobytes() + y.astype(np.uint8).tobytes()
        )
    assert digest.hexdigest()[:16] == "c95b942f09912b6a"


def test_split_is_stratified():
    (_, y), (_, y_test) = load_digits()
    whole = np.bincount(np.concatenate([y, y_test]))
    assert np.array_equal(np.bincount(y_test), whole // 3)


def test_split_parts_share_no_image():
    train, test = ({image.tobytes() for image in x} for x, _ in load_digits())
    assert len(train) == 1201
    assert len(test) == 596
    assert not train & test


def test_classes_select_rows_of_the_full_split():
    for some, every in zip(load_digits(classes=(7, 2)), load_digits(), strict=True):
        chosen = np.isin(every[1], (2, 7))
        assert np.array_equal(some[0], every[0][chosen])
        assert np.array_equal(some[1], every[1][chosen])


@pytest.mark.parametrize("classes", [(), (0, 10), (-1,), ("3",)])
def test_classes_that_are_no_digits_are_refused(classes):
    with pytest.raises(ValueError, match="digits from 0 to 9"):
        load_digits(classes=classes)


def test_arrays_belong_to_the_caller():
    load_digits().train[0][...] = 7
    assert load_digits().train[0].max() == 1


def test_data_is_small_and_attributed():
    folder = Path(data.__file__).parent
    assert len(folder.joinpath("digits.npz").read_bytes()) < 60_000
    assert "10.24432/C50P49" in folder.joinpath("README.md").read_text("utf-8")


# IDX ------------------------------------------------------------------------------


def idx_bytes(array, code):
    """Return `array` as an IDX file; `code` is the format's name of its dtype."""
    sizes = struct.pack(f">{array.ndim}I", *array.shape)
    data = array.astype(array.dtype.newbyteorder(">")).tobytes()
    return bytes([0, 0, code, array.ndim]) + sizes + data


CODES = [
    (0x08, np.uint8),
    (0x09, np.int8),
    (0x0B, np.int16),
    (0x0C, np.int32),
    (0x0D, np.float32),
    (0x0E, np.float64),
]


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
@pytest.mark.parametrize(("code", "dtype"), CODES)
def test_read_idx_gives_back_what_was_written(tmp_path, code, dtype, pack):
    array = np.arange(2 * 3 * 5).reshape(2, 3, 5).astype(dtype) - dtype(7)
    path = tmp_path / "images"
    path.write_bytes(pack(idx_bytes(array, code)))
    read = read_idx(path)
    assert read.dtype == np.dtype(dtype)
    assert read.dtype.isnative
    assert read.flags.writeable
    assert np.array_equal(read, array)


def test_read_idx_accepts_an_empty_array_and_a_str(tmp_path):
    path = tmp_path / "none"
    path.write_bytes(idx_bytes(np.empty((0, 3, 5), np.uint8), 0x08))
    assert read_idx(str(path)).shape == (0, 3, 5)


def header(code, *sizes):
    return bytes([0, 0, code, len(sizes)]) + struct.pack(f">{len(sizes)}I", *sizes)


BIG = 2**32 - 1
HOSTILE = {
    "empty": (b"", "not an IDX file"),
    "short magic": (b"\0\0\x08", "not an IDX file"),
    "pickle": (b"\x80\x04\x95\x10\0\0\0", "not an IDX file"),
    "unknown dtype": (header(0x0A, 3) + b"abc", "not an IDX file"),
    "no axes": (bytes([0, 0, 8, 0]), "0 axes"),
    "too many axes": (bytes([0, 0, 8, 255]) + b"\0\0\0\1" * 255 + b"x", "255 axes"),
    "header cut": (bytes([0, 0, 8, 3, 0, 0, 0, 2]), "ends after 8 bytes"),
    "data cut": (header(0x08, 3, 5) + b"x" * 14, "promises 15 bytes"),
    "data too long": (header(0x08, 3, 5) + b"x" * 16, "promises 15 bytes"),
    "claims 4 GB": (header(0x08, BIG) + b"x", f"promises {BIG} bytes"),
    "claims 73 EB": (header(0x0E, BIG, BIG) + b"x", "address space"),
    "zero hides overflow": (header(0x08, 0, BIG, BIG, BIG), "address space"),
}


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
@pytest.mark.parametrize("name", HOSTILE)
def test_read_idx_refuses_hostile_files(tmp_path, name, pack):
    content, message = HOSTILE[name]
    path = tmp_path / "hostile"
    path.write_bytes(pack(content))
    with pytest.raises(ValueError, match=message):
        read_idx(path)


@pytest.mark.parametrize("damage", [slice(0, -9), slice(0, 12)], ids=["tail", "most"])
def test_read_idx_refuses_truncated_gzip(tmp_path, damage):
    path = tmp_path / "images.gz"
    path.write_bytes(gzip.compress(idx_bytes(np.zeros((3, 5)), 0x0E))[damage])
    with pytest.raises(ValueError, match="damaged gzip data"):
        read_idx(path)


def test_read_idx_refuses_gzip_with_a_wrong_checksum(tmp_path):
    packed = bytearray(gzip.compress(idx_bytes(np.arange(997.0), 0x0E)))
    packed[-8] ^= 0xFF
    path = tmp_path / "images.gz"
    path.write_bytes(packed)
    with pytest.raises(ValueError, match="damaged gzip data"):
        read_idx(path)


def test_read_idx_stops_at_a_decompression_bomb(tmp_path, monkeypatch):
    # 64 MB of zeros behind a header that promises 15 bytes: one chunk tells enough.
    path = tmp_path / "bomb.gz"
    path.write_bytes(gzip.compress(header(0x08, 3, 5) + bytes(1 << 26)))
    reads = []
    original = gzip.GzipFile.read

    def counting(self, size=-1):
        reads.append(size)
        return original(self, size)

    monkeypatch.setattr(gzip.GzipFile, "read", counting)
    with pytest.raises(ValueError, match="has more"):
        read_idx(path)
    assert len(reads) == 3  # magic, sizes, one chunk


def test_read_idx_names_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read_idx(tmp_path / "nowhere")
