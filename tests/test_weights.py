# SPDX-License-Identifier: MIT
"""Files of weights: complete or not there, repeatable, and harmless to read."""

import builtins
import io
import json
import os
import struct
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from convnet import nn, weights
from convnet.weights import load_metadata, load_weights, save_weights

ENDINGS = [".npz", ".safetensors"]


def network(rng=0):
    return nn.Sequential(nn.Conv2d(3, 5, (3, 2), rng=rng), nn.BatchNorm2d(5))


@pytest.fixture(params=ENDINGS)
def path(request, tmp_path):
    return tmp_path / f"net{request.param}"


def test_round_trip_of_a_module(path):
    net, other = network(0), network(1)
    net(np.random.default_rng(0).standard_normal((2, 3, 5, 7)))
    save_weights(net, str(path))
    other.load_state_dict(load_weights(str(path)))
    assert load_weights(path).keys() == net.state_dict().keys()
    for name, array in other.state_dict().items():
        np.testing.assert_array_equal(array, net.state_dict()[name])
    assert load_metadata(path) == {}


def test_round_trip_of_metadata(path):
    metadata = {"model": json.dumps({"channels": [3, 5]}), "größe": "7 × 11"}
    save_weights(network(), path, metadata=metadata)
    assert load_metadata(path) == metadata
    assert load_weights(path).keys() == network().state_dict().keys()


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8", "<f2", "<i8", ">i4", "u1"])
def test_round_trip_of_any_array(path, dtype):
    arrays = {
        "plain": np.arange(6).reshape(2, 3).astype(dtype),
        "fortran": np.asfortranarray(np.arange(6).reshape(2, 3).astype(dtype)),
        "strided": np.arange(60).reshape(5, 12)[::-2, 1::3].astype(dtype),
        "scalar": np.array(7, dtype),
        "empty": np.zeros((0, 3), dtype),
        "file": np.ones(3, dtype),
    }
    save_weights(arrays, path)
    loaded = load_weights(path)
    assert loaded.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(loaded[name], array)
        assert loaded[name].shape == array.shape
        assert loaded[name].dtype == np.dtype(dtype).newbyteorder("=")
        assert loaded[name].flags.writeable


def test_equal_weights_make_equal_files(tmp_path):
    for name in ("a.npz", "b.npz"):
        save_weights(network(), tmp_path / name, metadata={"b": "1", "a": "2"})
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_files_go_to_numpy_and_back(tmp_path, save):
    state = network().state_dict()
    save(tmp_path / "numpy.npz", **state)
    loaded = load_weights(tmp_path / "numpy.npz")
    save_weights(network(), tmp_path / "own.npz", metadata={"model": "small"})
    with np.load(tmp_path / "own.npz") as own:
        for name, array in state.items():
            np.testing.assert_array_equal(loaded[name], array)
            np.testing.assert_array_equal(own[name], array)


def test_a_failed_save_leaves_the_old_file_and_nothing_else(path, monkeypatch):
    save_weights(network(0), path)
    before = path.read_bytes()

    def breaks(file, *_):
        file.write(before[:100])
        raise KeyboardInterrupt

    kind = weights.FORMATS[path.suffix]._replace(write=breaks)
    monkeypatch.setitem(weights.FORMATS, path.suffix, kind)
    with pytest.raises(KeyboardInterrupt):
        save_weights(network(1), path)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_a_killed_process_leaves_the_old_file(path):
    save_weights(network(0), path)
    before = path.read_bytes()
    code = f"""
import os
from convnet import weights
def dies(file, *_):
    file.write(b"half a file")
    file.flush()
    os._exit(7)
kind = weights.FORMATS[{path.suffix!r}]._replace(write=dies)
weights.FORMATS[{path.suffix!r}] = kind
weights.save_weights({{}}, {str(path)!r})
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 7
    assert path.read_bytes() == before


def test_files_have_the_usual_permissions(path):
    save_weights(network(), path)
    ordinary = path.with_name("ordinary")
    ordinary.write_bytes(b"")
    assert path.stat().st_mode == ordinary.stat().st_mode


def npy(header, data=b""):
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header + data


def header(descr="'<f4'", shape="(3,)", order="False"):
    text = f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}\n"
    return text.encode()


HOSTILE = {
    "more_than_there_is": npy(header(shape="(2500000000000,)"), b"1234" * 3),
    "less_than_there_is": npy(header(shape="(2,)"), b"1234" * 3),
    "too_many_dimensions": npy(header(shape="(0, 1" + "0" * 40 + ")")),
    "overflowing_product": npy(header(shape="(4294967296, 4294967296, 3)"), b"1234"),
    "negative": npy(header(shape="(-3,)"), b"1234" * 3),
    "many_digits": npy(header(shape="(" + "9" * 9000 + ",)"), b"1234"),
    "object": npy(header("'|O'"), b"12345678" * 3),
    "structured": npy(header("[('a', '<f4')]"), b"1234" * 3),
    "code": npy(header(shape="(__import__('os')._exit(9),)"), b"1234" * 3),
    "nested": npy(header(shape="(" * 4000 + ")" * 4000), b"1234" * 3),
    "complex": npy(header("'<c8'"), b"12345678" * 3),
    "no_header": b"\x93NUMPY\1\0",
    "endless_header": npy(header())[:8] + b"\xff\xff" + header(),
    "not_numpy": b"1234" * 100,
    "empty": b"",
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_hostile_arrays_are_refused(tmp_path, name, compression):
    path = tmp_path / "hostile.npz"
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("weight.npy", HOSTILE[name])
    with pytest.raises(ValueError, match=r"hostile\.npz"):
        load_weights(path)


def claims(**sizes):
    """Return an archive whose directory claims other sizes than are true."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        # Dated, for the bytes name the test: all workers must collect the same one.
        entry = zipfile.ZipInfo("weight.npy", date_time=(2020, 1, 1, 0, 0, 0))
        archive.writestr(entry, npy(header(), b"1234" * 3), zipfile.ZIP_DEFLATED)
        for name, size in sizes.items():
            setattr(archive.infolist()[0], name, size)
    return file.getvalue()


@pytest.mark.parametrize(
    "archive",
    [
        claims(file_size=10**13),
        claims(compress_size=10**13),
        claims(file_size=10**13, compress_size=10**13),
        claims(compress_type=zipfile.ZIP_STORED),
        claims(compress_type=99),
        claims(CRC=1),
        claims(flag_bits=1),
        claims()[:50],
        b"",
        b"no zip file",
    ],
)
def test_hostile_archives_are_refused(tmp_path, archive):
    path = tmp_path / "hostile.npz"
    path.write_bytes(archive)
    with pytest.raises(ValueError, match=r"hostile\.npz"):
        load_weights(path)


def safetensors(header, data=b"", length=None):
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def tensor(dtype="F32", shape=(3,), offsets=(0, 12)):
    return {"weight": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}


@pytest.mark.parametrize(
    "content",
    [
        safetensors(tensor(shape=(2_500_000_000_000,)), b"1234" * 3),
        safetensors(tensor(offsets=(0, 10**13)), b"1234" * 3),
        safetensors(tensor(shape=(2,)), b"1234" * 3),
        safetensors(tensor(), b"1234"),
        safetensors(tensor(), b"1234" * 3, length=10**13),
        safetensors(tensor("BF16", (6,)), b"1234" * 3),
        safetensors(tensor("F8_E5M2", (12,)), b"1234" * 3),
        safetensors([1, 2, 3]),
        b"",
    ],
)
def test_hostile_safetensors_are_refused(tmp_path, content):
    path = tmp_path / "hostile.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"hostile\.safetensors"):
        load_weights(path)


@pytest.mark.parametrize("text", [b"[1, 2]", b'{"a": 1}', b"{", b"\xff", b"[" * 90000])
def test_hostile_metadata_are_refused(tmp_path, text):
    path = tmp_path / "hostile.npz"
    np.savez(path, __metadata__=np.frombuffer(text, np.uint8), weight=np.ones(3))
    with pytest.raises(ValueError, match=r"hostile\.npz"):
        load_metadata(path)
    assert list(load_weights(path)) == ["weight"]


def test_damaged_bytes_never_do_worse_than_an_error(path):
    save_weights({"weight": np.ones((2, 3)), "bias": np.ones(5)}, path)
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    refused = 0
    for _ in range(400):
        damaged = bytearray(whole)
        for position in rng.integers(0, len(whole), 2):
            damaged[position] = rng.integers(0, 256)
        path.write_bytes(damaged)
        try:
            load_weights(path)
        except ValueError:
            refused += 1
    assert refused > 50


@pytest.mark.parametrize(
    ("arrays", "metadata", "error", "message"),
    [
        ({"a": np.ones(3, complex)}, {}, TypeError, "a must .*complex128"),
        ({"a": np.array(["x", "y"])}, {}, TypeError, "a must .*<U1"),
        ({"a": np.array([None])}, {}, TypeError, "a must .*object"),
        ({1: np.ones(3)}, {}, TypeError, "strings"),
        ({"a": np.ones(3)}, {"b": 1}, TypeError, "strings"),
    ],
)
def test_what_cannot_be_saved(path, arrays, metadata, error, message):
    with pytest.raises(error, match=message):
        save_weights(arrays, path, metadata=metadata)
    assert not list(path.parent.iterdir())


@pytest.mark.parametrize("name", ["net.pt", "net", "net.NPZ"])
def test_other_endings_are_refused(tmp_path, name):
    with pytest.raises(ValueError, match=r"\.npz or \.safetensors, got .*net"):
        save_weights(network(), tmp_path / name)
    with pytest.raises(ValueError, match=r"\.npz or \.safetensors, got .*net"):
        load_weights(tmp_path / name)


def test_missing_files_and_folders(path):
    with pytest.raises(FileNotFoundError):
        load_weights(path)
    with pytest.raises(FileNotFoundError, match=r"no such folder: .*nowhere'$"):
        save_weights(network(), path.parent / "nowhere" / path.name)


def test_a_missing_extra_is_named(tmp_path, monkeypatch):
    def no_safetensors(name, *args):
        if name.startswith("safetensors"):
            raise ImportError(name)
        return real_import(name, *args)

    path, real_import = tmp_path / "net.safetensors", builtins.__import__
    monkeypatch.setattr(builtins, "__import__", no_safetensors)
    with pytest.raises(ImportError, match=r"convnet-cpu\[safetensors\]"):
        save_weights(network(), path)
    with pytest.raises(ImportError, match=r"convnet-cpu\[safetensors\]"):
        load_weights(path)
    assert os.listdir(tmp_path) == []
