"""Programs on disk: what is written comes back, in as few bits as it needs; damage is an error."""

import dataclasses
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qjax.program.load import load
from qjax.program.packing import Packing, pack, packed_size, packing_of, unpack
from qjax.program.run import runner
from qjax.program.save import ARRAYS_MEMBER, JSON_MEMBER, save
from tests.program.examples import example, pixels

FUZZED = 300


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "net.qjax"
    save(example(), path)
    return path


def rewritten(path: Path, change: Callable[[dict], object], arrays: bytes | None = None) -> None:
    """The file again with its document changed."""
    with zipfile.ZipFile(path) as archive:
        document = json.loads(archive.read(JSON_MEMBER))
        content = archive.read(ARRAYS_MEMBER) if arrays is None else arrays
    change(document)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(JSON_MEMBER, json.dumps(document))
        archive.writestr(ARRAYS_MEMBER, content)


def test_a_program_comes_back_as_it_was(saved: Path):
    before, after = example(), load(saved)
    assert after.operators == before.operators
    assert (after.inputs, after.outputs, after.policy) == (
        before.inputs,
        before.outputs,
        before.policy,
    )
    for old, new in zip(before.tensors, after.tensors, strict=True):
        fields = [f.name for f in dataclasses.fields(old) if f.name != "data"]
        assert [getattr(old, name) for name in fields] == [getattr(new, name) for name in fields]
        if old.data is not None:
            np.testing.assert_array_equal(new.constant, old.data)
            assert new.constant.dtype == old.data.dtype
    assert str(after) == str(before)
    np.testing.assert_array_equal(
        np.asarray(runner(after)(pixels())["logits"]),
        np.asarray(runner(before)(pixels())["logits"]),
    )


def test_the_same_program_is_the_same_bytes(saved: Path, tmp_path: Path):
    save(load(saved), tmp_path / "again.qjax")
    assert (tmp_path / "again.qjax").read_bytes() == saved.read_bytes()


def test_size_follows_bits(tmp_path: Path):
    sizes = save(example(), tmp_path / "net.qjax")
    # 108 weights of 4 bits, 20 signs, a table of 8 bits; two zero points of a bit by channel; four
    # lists of four real numbers, one of which (equal scales) is no whole number either.
    assert sizes.arrays == 54 + 3 + 256 + 2 + 4 * 4 * 8
    assert sizes.total == (tmp_path / "net.qjax").stat().st_size


@given(
    st.lists(st.integers(-(2**31), 2**31 - 1), min_size=1, max_size=40),
    st.integers(1, 300),
)
def test_packing_comes_back(values: list[int], repeats: int):
    array = np.tile(np.array(values, np.int64), repeats)
    packing = packing_of(array)
    packed = pack(array, packing)
    assert len(packed) == packed_size(array.size, packing.bits)
    np.testing.assert_array_equal(unpack(packed, array.size, packing), array)


def test_packing_crosses_blocks():
    array = np.random.default_rng(0).integers(-3, 4, 200_001)
    packing = packing_of(array)
    assert packing == Packing(-3, 1, 3)
    np.testing.assert_array_equal(unpack(pack(array, packing), array.size, packing), array)


@pytest.mark.parametrize(
    ("values", "bits"),
    [
        ([0], 1),
        ([-1, 1], 1),
        ([-15, -13, 15], 4),
        ([0, 0], 1),
        ([-128, 0, 127], 8),
        ([-128, 127], 1),
        ([0, 3, 12], 3),
    ],
)
def test_packing_is_as_narrow_as_the_values(values: list[int], bits: int):
    assert packing_of(np.array(values)).bits == bits


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(format="npz"), "format must be"),
        (lambda d: d.update(version=2), "version must be 1, got 2"),
        (lambda d: d.pop("policy"), "'policy' is missing"),
        (lambda d: d.update(policy=3), "'policy' is of the wrong type"),
        (lambda d: d.update(inputs=["pixels", 4]), "must be a list of names"),
        (lambda d: d.update(tensors=[1]), "must be a list of objects"),
        (lambda d: d["operators"][0].update(kind="exec"), "operator must be one of"),
        (lambda d: d["operators"][1].update(strides=[0, 1]), "conv2d.strides must be whole"),
        (lambda d: d["operators"][1].update(strides=[1.5, 1]), "strides"),
        (lambda d: d["operators"][1].update(strides="ab"), "strides"),
        (lambda d: d["operators"][1].update(shell="ls"), "unexpected keyword"),
        (lambda d: d["operators"][4].update(window=[2**40, 2]), "max_pool.window must be whole"),
        (lambda d: d["operators"][2].update(offset={"number": "x"}), "wrong type"),
        (lambda d: d["operators"][3].update(function="a b"), "lookup.function must be a word"),
        (lambda d: d["operators"].append(d["operators"][0]), "computed twice"),
        (lambda d: d["tensors"][0].update(shape=[None, 6, 6, -3]), "sizes of 1 or more"),
        (lambda d: d["tensors"][2].update(shape=[3, 3, 3, 4000]), "cannot reshape"),
        (lambda d: d["tensors"][2].update(data=99), "array 99 is not in the file"),
        (lambda d: d["tensors"][5].update(data=d["tensors"][2]["data"]), "used twice"),
        (lambda d: d["tensors"][2].update(dtype="object"), "dtype must be one of"),
        (lambda d: d["tensors"][5].update(dtype="uint8"), "do not fit uint8"),
        (lambda d: d["tensors"][3]["scale"].update(array=True), "is not in the file"),
        (lambda d: d["tensors"][0].update(scale={"number": 1e400}), "finite"),
        (lambda d: d["arrays"][0].update(elements=10**12), "inside an array"),
        (lambda d: d["arrays"][0].update(bits=0), "1 to 64 bits"),
        (lambda d: d["arrays"][2].update(bits=3), "108 values of 3 bits|inside an array|accounts"),
        (lambda d: d["arrays"].pop(), "accounts for"),
    ],
)
def test_a_changed_document_is_refused(saved: Path, change, message: str):
    rewritten(saved, change)
    with pytest.raises(ValueError, match=message) as caught:
        load(saved)
    assert str(saved) in str(caught.value)


def test_arrays_must_be_all_there(saved: Path):
    rewritten(saved, lambda document: None, arrays=b"\0" * 10)
    with pytest.raises(ValueError, match="ends after 10 bytes"):
        load(saved)


def test_bombs_and_depths_are_refused(saved: Path):
    for text in (b" " * 2**25, b"[" * 100_000):
        with zipfile.ZipFile(saved, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(JSON_MEMBER, text)
            archive.writestr(zipfile.ZipInfo(ARRAYS_MEMBER), b"")
        with pytest.raises(ValueError, match="cannot be read|no integer program"):
            load(saved)
    with zipfile.ZipFile(saved, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(JSON_MEMBER, "{}")
        archive.writestr(ARRAYS_MEMBER, bytes(2**24))
    with pytest.raises(ValueError, match="stored uncompressed"):
        load(saved)


def test_a_missing_file_is_said_to_be_missing(tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "none.qjax")


def damaged(content: bytes, rng: np.random.Generator) -> bytes:
    """Bytes changed, cut off or repeated."""
    data = bytearray(content)
    for _ in range(int(rng.integers(1, 6))):
        kind, place = int(rng.integers(4)), int(rng.integers(len(data)))
        if kind == 0:
            data[place] = int(rng.integers(256))
        elif kind == 1:
            data[place : place + 4] = rng.integers(0, 256, 4).astype(np.uint8).tobytes()
        elif kind == 2:
            data = data[: max(place, 1)]
        else:
            data[place:place] = data[place : place + 20]
    return bytes(data)


def test_damaged_files_are_errors_and_nothing_else(saved: Path):
    content = saved.read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(FUZZED):
        saved.write_bytes(damaged(content, rng))
        try:
            load(saved)
        except ValueError as error:
            assert "no integer program that can be read" in str(error)
            refused += 1
    assert refused > FUZZED // 2


def test_damaged_documents_are_errors_and_nothing_else(saved: Path):
    """As above with a sound zip file around it, so that the checks inside are reached."""
    with zipfile.ZipFile(saved) as archive:
        text, arrays = archive.read(JSON_MEMBER), archive.read(ARRAYS_MEMBER)
    rng = np.random.default_rng(1)
    refused = 0
    for _ in range(FUZZED):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr(JSON_MEMBER, mutated(text, rng))
            archive.writestr(ARRAYS_MEMBER, arrays)
        saved.write_bytes(buffer.getvalue())
        try:
            load(saved)
        except ValueError as error:
            assert "no integer program that can be read" in str(error)
            refused += 1
    assert refused > FUZZED // 2


def mutated(text: bytes, rng: np.random.Generator) -> bytes:
    """A JSON text with some of its numbers, words or lists exchanged, mostly still JSON."""
    values = [b"-1", b"0", b"null", b"true", b"1e99", b'"x"', b"[]", b"{}", b"99999999999", b"0.5"]
    pieces = text.split(b",")
    for _ in range(int(rng.integers(1, 4))):
        place = int(rng.integers(len(pieces)))
        head, colon, _ = pieces[place].rpartition(b":")
        pieces[place] = head + colon + b" " + values[int(rng.integers(len(values)))]
    return b",".join(pieces)
