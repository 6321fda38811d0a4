"""Opening folders: every layout that occurs is understood, every broken one is refused by name."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from builders import LLAMA_CONFIG, entry, llama_tensors, raw_file, write_model
from trimtab.checkpoints import open_checkpoint
from trimtab.errors import UserError

INDEX = "model.safetensors.index.json"


def refused(path: Path) -> UserError:
    with pytest.raises(UserError) as caught:
        open_checkpoint(path)
    assert caught.value.what
    assert caught.value.fix
    return caught.value


def change_index(folder: Path, change: Any) -> None:
    content = json.loads((folder / INDEX).read_text())
    change(content["weight_map"])
    (folder / INDEX).write_text(json.dumps(content))


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    return write_model(tmp_path / "sharded", llama_tensors(1), shards=3)


def test_sharded_single_and_file_hold_the_same_tensors(tmp_path: Path, sharded: Path) -> None:
    single = write_model(tmp_path / "single", llama_tensors(1))
    opened = {
        "sharded": open_checkpoint(sharded),
        "index": open_checkpoint(sharded / INDEX),
        "single": open_checkpoint(str(single)),
        "file": open_checkpoint(single / "model.safetensors"),
    }
    assert [c.kind for c in opened.values()] == ["folder", "folder", "folder", "file"]
    tensors = llama_tensors(1)
    for checkpoint in opened.values():
        index = checkpoint.index
        assert set(index.names) == set(tensors)
        for row, name in enumerate(index.names):
            assert index.row(name) == row
            assert index.shapes[row] == tuple(tensors[name].shape)
            assert index.dtype_of(row).code == "BF16"
            path = checkpoint.files[index.file[row]]
            stored = path.read_bytes()[index.start[row] : index.stop[row]]
            assert stored == tensors[name].view(torch.uint8).numpy().tobytes()
        assert checkpoint.n_parameters == sum(t.numel() for t in tensors.values())
        assert checkpoint.dtype_label == "bf16"
    assert opened["file"].config == {}
    assert opened["single"].config == LLAMA_CONFIG
    assert opened["single"].notes == ()


def test_numbered_shards_need_no_index(sharded: Path) -> None:
    (sharded / INDEX).unlink()
    checkpoint = open_checkpoint(sharded)
    assert set(checkpoint.index.names) == set(llama_tensors(1))
    (sharded / "model-00002-of-00003.safetensors").unlink()
    error = refused(sharded)
    assert error.code == "missing_shard"
    assert "model-00002-of-00003.safetensors" in str(error)


def test_another_index_can_be_chosen(sharded: Path) -> None:
    other = llama_tensors(2)
    save_file(other, sharded / "model.fp16.safetensors")
    chosen = sharded / "model.fp16.safetensors.index.json"
    chosen.write_text(json.dumps({"weight_map": dict.fromkeys(other, "model.fp16.safetensors")}))
    assert [f.name for f in open_checkpoint(chosen).files] == ["model.fp16.safetensors"]


def test_missing_shard_is_named(sharded: Path) -> None:
    (sharded / "model-00003-of-00003.safetensors").unlink()
    error = refused(sharded)
    assert error.code == "missing_shard"
    assert "model-00003-of-00003.safetensors" in str(error)


def test_truncated_shard_is_named(sharded: Path) -> None:
    shard = sharded / "model-00002-of-00003.safetensors"
    os.truncate(shard, shard.stat().st_size - 10)
    error = refused(sharded)
    assert error.code == "truncated"
    assert shard.name in error.what
    os.truncate(shard, 20)
    assert refused(sharded).code == "header_too_long"


@pytest.mark.parametrize(
    "value",
    [
        "../other/model.safetensors",
        "/etc/passwd",
        "..\\x.safetensors",
        "",
        ".",
        "..",
        "a/b",
        "a\0b",
    ],
)
def test_weight_map_that_leaves_the_folder_is_refused(sharded: Path, value: str) -> None:
    change_index(sharded, lambda weight_map: weight_map.update({"lm_head.weight": value}))
    assert refused(sharded).code == "leaves_folder"


@pytest.mark.parametrize("weight_map", [[], {"a": 1}, {"a": None}, None, "x"])
def test_malformed_weight_map_is_refused(sharded: Path, weight_map: object) -> None:
    (sharded / INDEX).write_text(json.dumps({"weight_map": weight_map}))
    assert refused(sharded).code == "bad_json"


def test_tensors_that_no_shard_holds_are_named(sharded: Path) -> None:
    shard = "model-00001-of-00003.safetensors"
    change_index(sharded, lambda weight_map: weight_map.update({"model.ghost.weight": shard}))
    error = refused(sharded)
    assert error.code == "missing_tensors"
    assert "model.ghost.weight" in str(error)


def test_index_that_contradicts_the_shards_is_noted(sharded: Path) -> None:
    change_index(
        sharded,
        lambda m: m.update(
            {"lm_head.weight": next(v for v in m.values() if v != m["lm_head.weight"])}
        ),
    )
    assert any("another shard" in note for note in open_checkpoint(sharded).notes)
    change_index(sharded, lambda weight_map: weight_map.pop("lm_head.weight"))
    checkpoint = open_checkpoint(sharded)
    assert "lm_head.weight" in checkpoint.index
    assert any("not in the index" in note for note in checkpoint.notes)


def test_a_tensor_in_two_shards_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "twice"
    folder.mkdir()
    # "x.01" sorts like "x.1": it must not hide that "x.1" is there twice
    save_file(
        {"x.1": torch.ones(1), "x.01": torch.ones(1)}, folder / "model-00001-of-00002.safetensors"
    )
    save_file({"x.1": torch.ones(1)}, folder / "model-00002-of-00002.safetensors")
    error = refused(folder)
    assert error.code == "duplicate_names"
    assert "x.1 " in error.why


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    assert refused(tmp_path / "absent").code == "not_found"
    assert refused(tmp_path).code == "empty_folder"
    (tmp_path / "README.md").write_text("hello")
    assert refused(tmp_path).code == "not_a_model"
    assert refused(tmp_path / "README.md").code == "not_a_model"
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    assert refused(tmp_path).code == "pickle_refused"
    assert refused(tmp_path / "pytorch_model.bin").code == "pickle_refused"


def test_a_model_with_pickles_beside_its_safetensors_opens(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m", llama_tensors(1))
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    assert len(open_checkpoint(folder).index) == len(llama_tensors(1))


def test_consolidated_file_beside_the_model_is_left_aside_and_noted(sharded: Path) -> None:
    save_file({"layers.0.wq": torch.ones(2)}, sharded / "consolidated.safetensors")
    checkpoint = open_checkpoint(sharded)
    assert set(checkpoint.index.names) == set(llama_tensors(1))
    assert any("consolidated.safetensors" in note for note in checkpoint.notes)
    (sharded / INDEX).unlink()
    assert set(open_checkpoint(sharded).index.names) == set(llama_tensors(1))


@pytest.mark.parametrize(
    "content", [b"{", b"[]", b"\xff\xfe\xfa", b"[" * 100_000, b'{"a": ' + b"9" * 5000 + b"}"]
)
def test_broken_config_is_refused(tmp_path: Path, content: bytes) -> None:
    folder = write_model(tmp_path / "m", llama_tensors(1))
    (folder / "config.json").write_bytes(content)
    error = refused(folder)
    assert error.code == "bad_json"
    assert "config.json" in error.what


def test_a_folder_without_config_opens_with_a_note(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m", llama_tensors(1), config=None)
    assert any("config.json" in note for note in open_checkpoint(folder).notes)


def test_what_the_system_refuses_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_model(tmp_path / "m", llama_tensors(1))
    assert refused(tmp_path / ("x" * 300)).code == "unreadable"
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    assert refused(loop).code in ("not_found", "unreadable")
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to(tmp_path / "gone")
    assert refused(folder).code == "unreadable"
    if os.geteuid() != 0:
        folder.chmod(0)
        try:
            assert refused(folder).code == "unreadable"
        finally:
            folder.chmod(0o755)

    def denied(self: Path) -> Any:
        raise PermissionError(13, "Permission denied", str(self))

    # the superuser may read everything, so the refusal is made up
    monkeypatch.setattr(Path, "iterdir", denied)
    assert refused(folder).code == "unreadable"


def test_a_name_that_begins_like_a_home_folder_is_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_model(tmp_path / "~nobody-of-that-name", llama_tensors(1))
    assert open_checkpoint("~nobody-of-that-name").name == "~nobody-of-that-name"


def test_tensors_come_in_natural_order(tmp_path: Path) -> None:
    names = [
        "b.10.w",
        "b.9.w",
        "b.2.w",
        "a.w",
        "b.02.w",
        "b.2.bias",
        "c",
        "b.w",
        f"b.{'9' * 5000}.w",
    ]
    header = {name: entry("U8", [1], i, i + 1) for i, name in enumerate(names)}
    checkpoint = open_checkpoint(raw_file(tmp_path / "x.safetensors", header, bytes(len(names))))
    assert checkpoint.index.names == (
        "a.w", "b.2.bias", "b.02.w", "b.2.w", "b.9.w", "b.10.w", f"b.{'9' * 5000}.w", "b.w", "c",
    )  # fmt: skip


def test_the_hub_cache_with_its_links_opens(tmp_path: Path, sharded: Path) -> None:
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "abc"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    for number, path in enumerate(sorted(sharded.iterdir())):
        path.rename(blobs / f"{number:064x}")
        (snapshot / path.name).symlink_to(Path("../../blobs") / f"{number:064x}")
    checkpoint = open_checkpoint(snapshot)
    assert set(checkpoint.index.names) == set(llama_tensors(1))
    assert len(checkpoint.files) == 3


def test_fingerprint_follows_the_content(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m", llama_tensors(1))
    file = folder / "model.safetensors"
    first = open_checkpoint(folder).fingerprint
    assert open_checkpoint(folder).fingerprint == first
    times = file.stat()
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert open_checkpoint(folder).fingerprint != first  # this small, all of it is sampled
    content[-1] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert open_checkpoint(folder).fingerprint == first
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns + 1))
    assert open_checkpoint(folder).fingerprint != first
