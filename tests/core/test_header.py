"""Headers: what the format's own library writes is read, whatever else is refused by name."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from builders import entry, raw_file
from trimtab.checkpoints import header as header_module
from trimtab.checkpoints.header import read_header
from trimtab.errors import UserError

GOOD = {"a": entry("F32", [2, 2], 0, 16), "b": entry("BF16", [3], 16, 22)}


def refused(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        read_header(path)
    error = caught.value
    assert error.what
    assert error.why
    assert error.fix
    return error.code


def test_reads_what_safetensors_writes(tmp_path: Path) -> None:
    tensors = {
        "matrix": torch.arange(6, dtype=torch.float32).reshape(2, 3),
        "half": torch.ones(5, dtype=torch.float16),
        "brain": torch.ones(1, 2, 3, dtype=torch.bfloat16),
        "counts": torch.arange(4),
        "flags": torch.ones(3, dtype=torch.bool),
        "scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 7),
        "tiny": torch.zeros(4, dtype=torch.float8_e4m3fn),
        "größe.層": torch.zeros(1),
    }
    path = tmp_path / "x.safetensors"
    save_file(tensors, path, metadata={"format": "pt", "note": "ä"})
    header = read_header(path)
    assert header.metadata == {"format": "pt", "note": "ä"}
    assert {e.name for e in header.entries} == set(tensors)
    content = path.read_bytes()
    for found in header.entries:
        wanted = tensors[found.name]
        assert found.shape == tuple(wanted.shape)
        assert found.numel == wanted.numel()
        stored = content[found.start : found.stop]
        assert stored == wanted.contiguous().view(-1).view(torch.uint8).numpy().tobytes()
    assert header.file_bytes == len(content)


def test_an_empty_table_is_a_file_without_tensors(tmp_path: Path) -> None:
    assert read_header(raw_file(tmp_path / "x", {})).entries == ()


@pytest.mark.parametrize(
    ("header", "data", "code"),
    [
        (b"not json", b"", "header_not_json"),
        (b'{"a": ', b"", "header_not_json"),
        (b"[" * 100_000, b"", "header_not_json"),
        ("{}".encode("utf-16"), b"", "header_not_json"),
        (b'{"\xff": 1}', b"", "header_not_json"),
        (b'{"a": ' + b"9" * 5000 + b"}", b"", "header_not_json"),
        (b"[]", b"", "bad_header"),
        (b"3", b"", "bad_header"),
        ({"__metadata__": {"a": 1}}, b"", "bad_header"),
        ({"__metadata__": []}, b"", "bad_header"),
        (b'{"__metadata__": {"\\ud800": "x"}}', b"", "bad_header"),
        (b'{"\\ud800": {"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', bytes(4), "bad_header"),
        (b'{"a": {}, "a": {}}', b"", "duplicate_names"),
        (b'{"a": {"dtype":"F32","dtype":"F16","shape":[],"data_offsets":[0,2]}}', bytes(2),
         "duplicate_names"),
        ({"a": 1}, b"", "bad_header"),
        ({"a": {}}, b"", "bad_header"),
        ({"a": entry("F33", [1], 0, 4)}, bytes(4), "bad_header"),
        ({"a": {"dtype": ["F32"], "shape": [1], "data_offsets": [0, 4]}}, bytes(4), "bad_header"),
        ({"a": entry("F32", [-1], 0, 4)}, bytes(4), "bad_header"),
        ({"a": entry("F32", [-1, -1], 0, 4)}, bytes(4), "bad_header"),
        ({"a": entry("F32", [True], 0, 4)}, bytes(4), "bad_header"),
        ({"a": entry("F32", [1.0], 0, 4)}, bytes(4), "bad_header"),  # type: ignore[list-item]
        ({"a": entry("F32", [2**63], 0, 4)}, bytes(4), "bad_header"),
        ({"a": entry("F32", [2**61] * 300, 0, 4)}, bytes(4), "bad_header"),
        ({"a": entry("F32", [2**61, 2**61, 0], 0, 0)}, b"", "bad_header"),
        (b'{"a":{"dtype":"F32","shape":[%s],"data_offsets":[0,4]}}' % (b"9" * 4000), bytes(4),
         "bad_header"),
        ({"a": {"dtype": "F32", "shape": 1, "data_offsets": [0, 4]}}, bytes(4), "bad_header"),
        ({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0]}}, bytes(4), "bad_header"),
        ({"a": entry("F32", [1], False, 4)}, bytes(4), "bad_header"),
        ({"a": entry("F32", [1], -4, 0)}, bytes(4), "bad_header"),
        ({"a": entry("F32", [1], 4, 0)}, bytes(4), "bad_header"),
        ({"a": entry("F32", [2], 0, 4)}, bytes(4), "bad_header"),
        ({"a": entry("F32", [1], 2**70, 2**70 + 4)}, bytes(4), "bad_header"),
        ({"a": entry("F32", [2], 0, 8), "b": entry("F32", [2], 4, 12)}, bytes(12),
         "offsets_overlap"),
        ({"a": entry("F32", [1], 0, 4), "b": entry("F32", [1], 0, 4)}, bytes(4),
         "offsets_overlap"),
        ({"a": entry("F32", [1], 4, 8)}, bytes(8), "offsets_outside"),
        ({"a": entry("F32", [1], 0, 4), "b": entry("F32", [1], 8, 12)}, bytes(12),
         "offsets_outside"),
        (GOOD, bytes(23), "offsets_outside"),
        (GOOD, bytes(21), "truncated"),
        (GOOD, b"", "truncated"),
        ({"a": entry("F32", [2**40], 0, 2**42)}, bytes(8), "truncated"),
    ],
)  # fmt: skip
def test_malformed_header_is_refused_by_name(
    tmp_path: Path, header: bytes | dict[str, object], data: bytes, code: str
) -> None:
    assert refused(raw_file(tmp_path / "x.safetensors", header, data)) == code


@pytest.mark.parametrize("content", [b"", b"\0", b"1234567"])
def test_a_file_without_room_for_a_header_is_not_safetensors(
    tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    assert refused(path) == "not_safetensors"


def test_header_longer_than_the_file(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes((3).to_bytes(8, "little") + b"{}")
    assert refused(path) == "header_too_long"
    path.write_bytes(b"\xff" * 8 + b"{}")
    assert refused(path) == "header_too_long"


def test_header_over_the_limit_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = raw_file(tmp_path / "x.safetensors", GOOD, bytes(22))
    monkeypatch.setattr(header_module, "MAX_HEADER_BYTES", 64)
    assert refused(path) == "header_too_long"


def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    assert refused(tmp_path) == "unreadable"
    assert refused(tmp_path / "absent") == "unreadable"
    pipe = tmp_path / "pipe.safetensors"
    os.mkfifo(pipe)
    assert refused(pipe) == "not_safetensors"


def test_a_shape_of_a_million_sizes_is_refused_quickly(tmp_path: Path) -> None:
    text = json.dumps({"a": entry("F32", [2**61] * 1_000_000, 0, 4)}).encode()
    begun = time.process_time()
    assert refused(raw_file(tmp_path / "x.safetensors", text, bytes(4))) == "bad_header"
    assert time.process_time() - begun < 5


def reads_or_refuses(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    begun = time.process_time()
    try:
        header = read_header(path)
    except UserError:
        pass
    else:
        # what is accepted must be usable: entries inside the file, one behind the other
        position = 8 + len(header.raw)
        for found in header.entries:
            assert found.start == position
            position = found.stop
        assert position == len(content)
    assert time.process_time() - begun < 1


@pytest.fixture(scope="module")
def fuzz_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "x.safetensors"


@given(st.binary(max_size=300))
def test_any_bytes_read_or_are_refused(fuzz_file: Path, content: bytes) -> None:
    reads_or_refuses(fuzz_file, content)


@given(st.binary(max_size=200), st.binary(max_size=16))
def test_any_header_text_reads_or_is_refused(fuzz_file: Path, text: bytes, data: bytes) -> None:
    reads_or_refuses(fuzz_file, len(text).to_bytes(8, "little") + text + data)


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=12,
)
_entries = st.fixed_dictionaries(
    {},
    optional={
        "dtype": st.sampled_from(["F32", "BF16", "F4", "BOOL", "F99"]) | _json,
        "shape": st.lists(st.integers(-1, 5), max_size=3) | _json,
        "data_offsets": st.lists(st.integers(-1, 32), min_size=2, max_size=2) | _json,
    },
)


@given(st.dictionaries(st.text(max_size=8), _entries | _json, max_size=4), st.binary(max_size=32))
def test_any_json_reads_or_is_refused(
    fuzz_file: Path, header: dict[str, object], data: bytes
) -> None:
    text = json.dumps(header).encode()
    reads_or_refuses(fuzz_file, len(text).to_bytes(8, "little") + text + data)


def test_every_flipped_bit_of_a_header_reads_or_is_refused(fuzz_file: Path) -> None:
    raw_file(fuzz_file, GOOD | {"__metadata__": {"format": "pt"}}, bytes(22))
    content = fuzz_file.read_bytes()
    for bit in range((len(content) - 22) * 8):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << (bit % 8)
        reads_or_refuses(fuzz_file, bytes(flipped))
