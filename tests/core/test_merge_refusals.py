"""Merges that must fail: each says why, and leaves no half-written result under a final name."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from builders import (
    make_models,
    merge,
    moved,
    recipe,
    tree,
    tuned,
    weights,
    write_model,
)
from trimtab.errors import UserError
from trimtab.merging import writer
from trimtab.merging.recipe import Output, Recipe


@pytest.fixture
def models(tmp_path: Path) -> Path:
    return make_models(tmp_path, torch.bfloat16)


def refused(made: Recipe, output: Path, **options: Any) -> UserError:
    """Run a merge that must fail, and see that it leaves the place as it was."""
    before = tree(output) if os.path.isdir(output) else None  # noqa: PTH112 - of any length
    with pytest.raises(UserError) as caught:
        merge(made, output, **options)
    assert (tree(output) if os.path.isdir(output) else None) == before  # noqa: PTH112
    if output.parent.is_dir():
        assert not [p for p in output.parent.iterdir() if ".replaced" in p.name]
    return caught.value


def test_only_models_that_count_are_read(tmp_path: Path, models: Path) -> None:
    """NaN in a model at ratio 0 does not reach the result."""
    spoil(models / "one", "model.norm.weight", float("nan"))
    merge(recipe(models / "aligned", tuned(models / "one", 0.0), tuned(models / "two", 0.5)),
          tmp_path / "out")  # fmt: skip
    assert all(bool(t.isfinite().all()) for t in weights(tmp_path / "out").values())


def spoil(folder: Path, name: str, value: float) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors[name].view(-1)[-1] = value
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize(
    ("spoilt", "ratio", "dtype"),
    [("one", 0.5, "reference"), ("one", 1.0, "reference"), ("one", 1.0, "float32"),
     ("aligned", 0.5, "reference"), ("aligned", 0.0, "reference")],
)  # fmt: skip
def test_nan_and_inf_are_refused_with_model_and_tensor(
    tmp_path: Path, models: Path, spoilt: str, ratio: float, dtype: Any, value: float
) -> None:
    spoil(models / spoilt, "model.layers.1.mlp.up_proj.weight", value)
    made = recipe(models / "aligned", tuned(models / "one", ratio), output=Output(dtype=dtype))
    error = refused(made, tmp_path / "out")
    assert error.code == "weights_not_finite"
    assert spoilt in error.what
    assert "model.layers.1.mlp.up_proj.weight" in error.why
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "out.partial").exists()


@pytest.mark.parametrize("ratio", [0.0, 0.5, 1.0])
def test_overflow_of_the_result_is_told_from_bad_input(tmp_path: Path, ratio: float) -> None:
    big = {"w": torch.full((10,), 60000.0), "v": torch.zeros(3)}
    write_model(tmp_path / "aligned", {n: t * 2 for n, t in big.items()}, None)
    write_model(tmp_path / "one", {n: t * 3 for n, t in big.items()}, None)
    made = recipe(tmp_path / "aligned", tuned(tmp_path / "one", ratio),
                  output=Output(dtype="float16"))  # fmt: skip
    error = refused(made, tmp_path / "out")
    assert error.code == "result_not_finite"
    assert "w" in error.what
    assert not (tmp_path / "out").exists()


def test_an_output_that_exists_is_replaced_only_after_a_yes(tmp_path: Path, models: Path) -> None:
    made = recipe(models / "aligned", tuned(models / "one", 0.5))
    output = tmp_path / "out"
    output.mkdir()
    (output / "precious.txt").write_text("x")
    assert refused(made, output).code == "output_exists"
    merge(made, output, overwrite=True)
    assert "precious.txt" not in tree(output)
    assert "model.safetensors" in tree(output)
    left = sorted(p.name for p in tmp_path.iterdir())
    assert left == ["aligned", "one", "out", "two"]
    file = tmp_path / "file"
    file.write_text("x")
    assert refused(made, file).code == "output_exists"
    merge(made, file, overwrite=True)
    assert (file / "model.safetensors").exists()
    link = tmp_path / "link"
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "kept.txt").write_text("x")
    link.symlink_to(tmp_path / "target")
    merge(made, link, overwrite=True)
    assert not link.is_symlink()
    assert (tmp_path / "target" / "kept.txt").read_text() == "x"
    assert not [p for p in tmp_path.iterdir() if "replaced" in p.name or "partial" in p.name]


def test_an_output_that_appears_meanwhile_is_not_replaced(
    tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = recipe(models / "aligned", tuned(models / "one", 0.5))
    output = tmp_path / "out"
    original = writer.CheckpointWriter.verify

    def verify(self: Any, check: Any, threads: int) -> None:
        output.mkdir()
        (output / "precious.txt").write_text("x")
        original(self, check, threads)

    monkeypatch.setattr(writer.CheckpointWriter, "verify", verify)
    with pytest.raises(UserError) as caught:
        merge(made, output)
    assert caught.value.code == "output_exists"
    assert tree(output) == {"precious.txt": b"x"}


@pytest.mark.parametrize("place", ["aligned", "one", "aligned/out", "one/a/b", "."])
def test_an_output_that_touches_an_input_is_refused(
    tmp_path: Path, models: Path, place: str
) -> None:
    before = tree(models)
    made = recipe(models / "aligned", tuned(models / "one", 0.5))
    error = refused(made, models / place, overwrite=True)
    assert error.code == "output_is_input"
    (models / "door").symlink_to(models / "one")
    assert refused(made, models / "door", overwrite=True).code == "output_is_input"
    (models / "door").unlink()
    assert tree(models) == before


def test_somebody_elses_partial_folder_is_left_alone(tmp_path: Path, models: Path) -> None:
    other = tmp_path / "out.partial"
    other.mkdir()
    (other / "download.bin").write_text("x")
    made = recipe(models / "aligned", tuned(models / "one", 0.5))
    assert refused(made, tmp_path / "out").code == "cannot_write"
    assert refused(made, tmp_path / "out", overwrite=True).code == "cannot_write"
    assert tree(other) == {"download.bin": b"x"}


def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path, models: Path) -> None:
    made = recipe(models / "aligned", tuned(models / "one", 0.5))
    (tmp_path / "file").write_text("x")
    assert refused(made, tmp_path / "file" / "out").code == "cannot_write"
    assert refused(made, tmp_path / "file" / "deep" / "out").code == "cannot_write"
    assert refused(made, tmp_path / ("n" * 254)).code == "cannot_write"
    assert refused(made, tmp_path / ("n" * 300)).code == "cannot_write"
    assert (tmp_path / "file").read_text() == "x"


def mounted(tmp_path: Path, *options: str) -> Iterator[Path]:
    place = tmp_path / "mounted"
    place.mkdir()
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk takes the superuser")
    mount = ["mount", "-t", "tmpfs", *options, "tmpfs", str(place)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no disk can be mounted here: {done.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.fixture
def read_only_disk(tmp_path: Path) -> Iterator[Path]:
    yield from mounted(tmp_path, "-o", "ro")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    yield from mounted(tmp_path, "-o", "size=256k")


def test_a_read_only_disk_is_refused(models: Path, read_only_disk: Path) -> None:
    made = recipe(models / "aligned", tuned(models / "one", 0.5))
    assert refused(made, read_only_disk / "out").code == "cannot_write"
    assert refused(made, read_only_disk / "deep" / "out").code == "cannot_write"


def big_models(root: Path) -> Recipe:
    aligned = {"w": torch.randn(200_000)}
    write_model(root / "aligned", aligned, None)
    write_model(root / "one", moved(aligned, 1), None)
    return recipe(root / "aligned", tuned(root / "one", 0.5))


def test_a_full_disk_is_refused_before_anything_is_written(
    tmp_path: Path, small_disk: Path
) -> None:
    made = big_models(tmp_path)
    error = refused(made, small_disk / "out")
    assert error.code == "disk_full"
    assert "0.0008" in error.why
    assert list(small_disk.iterdir()) == []


def test_a_disk_that_fills_up_leaves_no_final_name(
    tmp_path: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = big_models(tmp_path)
    roomy = shutil.disk_usage("/")._replace(free=10**12)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: roomy)
    assert refused(made, small_disk / "out").code == "disk_full"
    assert not (small_disk / "out").exists()
    # where the room cannot be kept from the start, it runs out in the middle
    monkeypatch.delattr(os, "posix_fallocate")
    assert refused(made, small_disk / "out", overwrite=True).code == "disk_full"
    assert not (small_disk / "out").exists()


def test_too_little_room_is_refused(
    tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.statvfs(tmp_path)
    full = {name: getattr(real, name) for name in dir(real) if name.startswith("f_")}
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(**full | {"f_bavail": 1}))
    made = recipe(models / "aligned", tuned(models / "one", 0.5))
    assert refused(made, tmp_path / "out").code == "disk_full"
    assert not (tmp_path / "out.partial").exists()


def test_a_write_that_fails_leaves_no_final_name(
    tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = recipe(models / "aligned", tuned(models / "one", 0.5))
    real = os.pwrite

    def failing(descriptor: int, data: Any, position: int) -> int:
        if position > 3000:
            raise OSError(5, "Input/output error")
        return real(descriptor, data, position)

    monkeypatch.setattr(os, "pwrite", failing)
    error = refused(made, tmp_path / "out")
    assert error.code == "cannot_write"
    assert not (tmp_path / "out").exists()
    monkeypatch.undo()
    merge(made, tmp_path / "out", resume=True)
    merge(made, tmp_path / "again")
    assert weights_bytes(tmp_path / "out") == weights_bytes(tmp_path / "again")


def weights_bytes(folder: Path) -> dict[str, bytes]:
    return {n: c for n, c in tree(folder).items() if n.endswith(".safetensors")}


def test_an_input_that_fails_while_it_is_read_is_named(
    tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = recipe(models / "aligned", tuned(models / "one", 0.5))

    def failing(*_: object) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "preadv", failing)
    error = refused(made, tmp_path / "out")
    assert error.code == "unreadable"
    assert "model.safetensors" in error.what


def test_a_disk_that_returns_other_bytes_is_found_out(
    tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = recipe(models / "aligned", tuned(models / "one", 0.5))
    real = os.pwrite

    def forgetful(descriptor: int, data: Any, position: int) -> int:
        if position > 6000:
            data = bytes(len(data))
        return real(descriptor, data, position)

    monkeypatch.setattr(os, "pwrite", forgetful)
    assert refused(made, tmp_path / "out").code == "verification_failed"
    assert not (tmp_path / "out").exists()
