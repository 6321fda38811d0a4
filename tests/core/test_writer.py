"""Writing: whatever interrupts a merge, the final name holds all of it or is not there."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from builders import bits, make_models, merge, moved, recipe, tree, tuned, weights, write_model
from trimtab.control import JobCancelled, Unattended
from trimtab.errors import UserError
from trimtab.merging import planner
from trimtab.merging.place import JOURNAL, recover_replaced
from trimtab.merging.planner import plan_merge
from trimtab.merging.recipe import Recipe, open_lineup
from trimtab.merging.writer import discard_partial

ITEM = 5000


@pytest.fixture(autouse=True)
def small_items(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planner, "ITEM", ITEM)


@pytest.fixture
def made(tmp_path: Path) -> Recipe:
    generator = torch.Generator().manual_seed(0)
    aligned = {
        f"model.layers.{i}.mlp.up_proj.weight": torch.randn(
            100, 200, generator=generator
        ).bfloat16()
        for i in range(12)
    }
    models = tmp_path / "models"
    write_model(models / "aligned", aligned, shards=2)
    write_model(models / "one", moved(aligned, 1))
    return recipe(models / "aligned", tuned(models / "one", 0.5))


@pytest.fixture
def whole(made: Recipe, tmp_path: Path) -> dict[str, bytes]:
    """The weights of an uninterrupted merge."""
    merge(made, tmp_path / "whole")
    return safetensors(tmp_path / "whole")


def safetensors(folder: Path) -> dict[str, bytes]:
    return {n: c for n, c in tree(folder).items() if n.endswith(".safetensors")}


class Stop(Unattended):
    """Breaks work off at its n-th chunk, as told or with another exception."""

    def __init__(self, after: int, error: BaseException | None = None) -> None:
        self.left = after
        self.error = error or JobCancelled()

    def check(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise self.error


def interrupt(made: Recipe, output: Path, after: int = 20) -> Path:
    """Leave what a merge that broke off has written."""
    with pytest.raises(RuntimeError, match="broken off"):
        merge(made, output, Stop(after, RuntimeError("broken off")), threads=1)
    assert not output.exists()
    return output.with_name(f"{output.name}.partial")


def test_an_interrupted_merge_resumes_to_the_same_bytes(
    made: Recipe, whole: dict[str, bytes], tmp_path: Path
) -> None:
    output = tmp_path / "out"
    interrupt(made, output)
    counted = Stop(10_000)
    merge(made, output, counted, resume=True)
    assert safetensors(output) == whole
    # 48 pieces; 20 were done and only verified
    assert 10_000 - counted.left == (48 - 20) + 48
    assert sorted(p.name for p in tmp_path.iterdir()) == ["models", "out", "whole"]
    assert JOURNAL not in tree(output)


SCRIPT = """
import sys, time
from pathlib import Path
from trimtab.control import Unattended
from trimtab.merging import planner, writer
from trimtab.merging.engine import run_merge
from trimtab.merging.planner import plan_merge
from trimtab.merging.recipe import load_recipe, open_lineup
import os

planner.ITEM = {item}
journalled = 0
finished = writer.CheckpointWriter.finished

def noted(self, *piece):
    global journalled
    finished(self, *piece)
    journalled += 1
    if journalled >= {hang_after}:
        time.sleep(3600)

writer.CheckpointWriter.finished = noted
renames = 0
rename = Path.rename

def counted(self, target):
    global renames
    renames += 1
    rename(self, target)
    if renames == {die_after_rename}:
        os._exit(9)

Path.rename = counted
recipe = load_recipe(Path(sys.argv[1]))
plan = plan_merge(recipe, open_lineup(recipe))
run_merge(plan, Path(sys.argv[2]), Unattended(), threads=2, overwrite=True)
"""


def start(
    made: Recipe, output: Path, hang_after: int = 10_000, die_after_rename: int = 0
) -> subprocess.Popen[bytes]:
    """A merge in a process of its own that waits after some pieces, or dies while it commits."""
    path = output.parent / "recipe.yaml"
    path.write_text(made.to_yaml())
    script = SCRIPT.format(item=ITEM, hang_after=hang_after, die_after_rename=die_after_rename)
    return subprocess.Popen([sys.executable, "-c", script, str(path), str(output)])


def journal_lines(output: Path) -> int:
    path = output.with_name(f"{output.name}.partial") / JOURNAL
    return path.read_bytes().count(b"\n") if path.exists() else 0


@pytest.mark.parametrize("seed", [1, 2])
def test_a_killed_merge_resumes_to_the_same_bytes(
    made: Recipe, whole: dict[str, bytes], tmp_path: Path, seed: int
) -> None:
    output = tmp_path / "out"
    wanted = random.Random(seed).randint(2, 40)
    process = start(made, output, hang_after=wanted)
    try:
        deadline = time.monotonic() + 60
        while journal_lines(output) <= wanted and time.monotonic() < deadline:
            time.sleep(0.002)
        assert process.poll() is None
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert process.returncode == -signal.SIGKILL
    assert not output.exists()
    assert wanted < journal_lines(output) < 49
    merge(made, output, resume=True)
    assert safetensors(output) == whole


@pytest.mark.parametrize("renames", [1, 2])
def test_a_merge_killed_while_it_takes_its_name_loses_nothing(
    made: Recipe, whole: dict[str, bytes], tmp_path: Path, renames: int
) -> None:
    output = tmp_path / "out"
    output.mkdir()
    (output / "old.txt").write_text("the old one")
    process = start(made, output, die_after_rename=renames)
    assert process.wait(60) == 9
    assert [p for p in tmp_path.iterdir() if ".replaced-" in p.name]
    # the next merge puts it right before it looks at the place
    assert refused(made, output).code == "output_exists"
    assert not [p for p in tmp_path.iterdir() if ".replaced-" in p.name]
    if renames == 1:  # it died between the two: the old one is back
        assert tree(output) == {"old.txt": b"the old one"}
        merge(made, output, overwrite=True)
    assert safetensors(output) == whole
    assert sorted(p.name for p in tmp_path.iterdir()) == ["models", "out", "recipe.yaml", "whole"]


def test_what_was_moved_aside_by_a_living_merge_stays(tmp_path: Path) -> None:
    aside = tmp_path / f"out.replaced-{os.getppid()}"
    aside.mkdir()
    other = tmp_path / "out.replaced-by-hand"
    other.mkdir()
    recover_replaced(tmp_path / "out")
    assert aside.exists()
    assert other.exists()


def test_what_an_earlier_process_of_the_same_number_moved_aside_comes_back(tmp_path: Path) -> None:
    (tmp_path / f"out.replaced-{os.getpid()}").mkdir()
    recover_replaced(tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def journal(partial: Path) -> list[bytes]:
    return (partial / JOURNAL).read_bytes().split(b"\n")


def test_a_piece_that_was_damaged_since_is_done_again(
    made: Recipe, whole: dict[str, bytes], tmp_path: Path
) -> None:
    partial = interrupt(made, tmp_path / "out")
    entry = json.loads(journal(partial)[5])
    shard = sorted(partial.glob("*.safetensors"))[entry["shard"]]
    with open(shard, "r+b") as file:
        file.seek(entry["at"] + entry["bytes"] // 2)
        file.write(b"\xaa\x55\xaa\x55")
    merge(made, tmp_path / "out", resume=True)
    assert safetensors(tmp_path / "out") == whole


def test_a_header_that_was_damaged_since_is_written_again(
    made: Recipe, whole: dict[str, bytes], tmp_path: Path
) -> None:
    partial = interrupt(made, tmp_path / "out")
    with open(sorted(partial.glob("*.safetensors"))[0], "r+b") as file:
        file.write(bytes(30))
    merge(made, tmp_path / "out", resume=True)
    assert safetensors(tmp_path / "out") == whole


@pytest.mark.parametrize("cut", [1, 2, 10, 30])
def test_a_torn_last_line_is_done_again(
    made: Recipe, whole: dict[str, bytes], tmp_path: Path, cut: int
) -> None:
    partial = interrupt(made, tmp_path / "out", after=20)
    content = (partial / JOURNAL).read_bytes()
    (partial / JOURNAL).write_bytes(content[:-cut])
    # broken off once more behind the torn line, what came after it must count as well
    interrupt_again = Stop(5, RuntimeError("broken off"))
    with pytest.raises(RuntimeError, match="broken off"):
        merge(made, tmp_path / "out", interrupt_again, threads=1, resume=True)
    for line in journal(partial)[:-1]:
        json.loads(line)
    assert len(journal(partial)) - 2 == 19 + 5
    merge(made, tmp_path / "out", resume=True)
    assert safetensors(tmp_path / "out") == whole


@pytest.mark.parametrize(
    "line",
    [b"\0\0\0", b"[]", b"{}", b'{"item":1,"shard":9,"at":0,"bytes":1,"hash":0}',
     b'{"item":1,"shard":0,"at":-5,"bytes":1,"hash":0}',
     b'{"item":1,"shard":0,"at":0,"bytes":99999999999,"hash":0}',
     b'{"item":1,"shard":"a","at":0,"bytes":1,"hash":0}'],
)  # fmt: skip
def test_a_damaged_journal_is_believed_only_up_to_there(
    made: Recipe, whole: dict[str, bytes], tmp_path: Path, line: bytes
) -> None:
    partial = interrupt(made, tmp_path / "out")
    lines = journal(partial)
    (partial / JOURNAL).write_bytes(b"\n".join([*lines[:5], line, *lines[6:]]))
    with pytest.raises(RuntimeError, match="broken off"):
        merge(made, tmp_path / "out", Stop(3, RuntimeError("broken off")), threads=1, resume=True)
    assert len([json.loads(entry) for entry in journal(partial)[:-1]]) == 5 + 3
    merge(made, tmp_path / "out", resume=True)
    assert safetensors(tmp_path / "out") == whole


def refused(made: Recipe, output: Path, **options: bool) -> UserError:
    with pytest.raises(UserError) as caught:
        merge(made, output, **options)
    return caught.value


def test_what_cannot_be_resumed_is_refused(made: Recipe, tmp_path: Path) -> None:
    output = tmp_path / "out"
    assert refused(made, output, resume=True).code == "cannot_resume"
    partial = interrupt(made, output)
    before = tree(partial)
    other = made.model_copy(
        update={"finetuned": (made.finetuned[0].model_copy(update={"ratio": 0.4}),)}
    )
    error = refused(other, output, resume=True)
    assert error.code == "cannot_resume"
    assert "changed" in error.why
    assert tree(partial) == before
    weight = Path(made.finetuned[0].path) / "model.safetensors"
    os.utime(weight, ns=(1, 1))
    assert refused(made, output, resume=True).code == "cannot_resume"
    for content in (b"", b"\n", b"[]\n", b"nonsense", b'{"plan": 3}\n'):
        (partial / JOURNAL).write_bytes(content)
        assert refused(made, output, resume=True).code == "cannot_resume"


def test_a_shard_that_was_lost_cannot_be_resumed(made: Recipe, tmp_path: Path) -> None:
    partial = interrupt(made, tmp_path / "out")
    shard = sorted(partial.glob("*.safetensors"))[0]
    os.truncate(shard, 100)
    error = refused(made, tmp_path / "out", resume=True)
    assert error.code == "cannot_resume"
    assert shard.name in error.why
    shard.unlink()
    assert refused(made, tmp_path / "out", resume=True).code == "cannot_resume"


def test_an_unfinished_merge_is_not_thrown_away_unasked(
    made: Recipe, whole: dict[str, bytes], tmp_path: Path
) -> None:
    partial = interrupt(made, tmp_path / "out")
    before = tree(partial)
    assert refused(made, tmp_path / "out").code == "unfinished_exists"
    assert tree(partial) == before
    merge(made, tmp_path / "out", overwrite=True)
    assert safetensors(tmp_path / "out") == whole


def test_two_merges_to_one_place_do_not_meet(made: Recipe, tmp_path: Path) -> None:
    output = tmp_path / "out"
    partial = interrupt(made, output)
    with open(partial / JOURNAL, "rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        before = tree(partial)
        for options in ({}, {"resume": True}, {"overwrite": True}):
            assert refused(made, output, **options).code == "output_busy"
        with pytest.raises(UserError) as caught:
            discard_partial(output)
        assert caught.value.code == "output_busy"
        assert tree(partial) == before
    merge(made, output, resume=True)


def test_a_second_merge_meets_the_first_while_it_runs(made: Recipe, tmp_path: Path) -> None:
    output = tmp_path / "out"
    seen: list[str] = []

    class Meet(Unattended):
        def check(self) -> None:
            if not seen:
                seen.append(refused(made, output).code)

    merge(made, output, Meet(), threads=1)
    assert seen == ["output_busy"]
    assert weights(output)


def test_cancelling_removes_what_was_begun(made: Recipe, tmp_path: Path) -> None:
    for after in (0, 5, 47, 60):  # while it merges, and while it verifies
        with pytest.raises(JobCancelled):
            merge(made, tmp_path / "out", Stop(after), threads=2)
        assert [p.name for p in tmp_path.iterdir()] == ["models"]


def test_discarding_removes_only_the_unfinished(made: Recipe, tmp_path: Path) -> None:
    output = tmp_path / "out"
    discard_partial(output)
    partial = interrupt(made, output)
    discard_partial(output)
    assert not partial.exists()
    other = tmp_path / "other.partial"
    other.mkdir()
    (other / "x").write_text("x")
    with pytest.raises(UserError):
        discard_partial(tmp_path / "other")
    assert tree(other) == {"x": b"x"}


def test_a_killed_merge_before_its_first_line_can_begin_anew(
    made: Recipe, whole: dict[str, bytes], tmp_path: Path
) -> None:
    (tmp_path / "out.partial").mkdir()
    merge(made, tmp_path / "out")
    assert safetensors(tmp_path / "out") == whole


def test_the_result_is_what_the_models_say(made: Recipe, tmp_path: Path) -> None:
    merge(made, tmp_path / "out")
    aligned, one = (weights(tmp_path / "models" / name) for name in ("aligned", "one"))
    for name, tensor in weights(tmp_path / "out").items():
        reference = aligned[name].float()
        wanted = reference + (one[name].float() - reference) * 0.5
        assert bits(tensor) == bits(wanted.bfloat16())


def test_large_results_go_to_the_disk_meanwhile_and_are_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trimtab.merging import writeback, writer

    flushed: list[int] = []
    real = os.fdatasync
    monkeypatch.setattr(writeback.os, "fdatasync", lambda d: (flushed.append(d), real(d))[1])
    monkeypatch.setattr(writeback, "WINDOW", 1000)
    monkeypatch.setattr(writer, "LEAST", 0)
    models = make_models(tmp_path, torch.bfloat16)
    made = recipe(models / "aligned", tuned(models / "one", 0.5))
    merge(made, tmp_path / "out")
    assert flushed
    monkeypatch.setattr(writer, "LEAST", 1 << 60)
    merge(made, tmp_path / "plain")
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == (
        tmp_path / "plain" / "model.safetensors"
    ).read_bytes()


def test_a_disk_that_fails_while_it_is_flushed_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trimtab.merging import writeback, writer

    def fails(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(writeback.os, "fdatasync", fails)
    monkeypatch.setattr(writer, "LEAST", 0)
    models = make_models(tmp_path, torch.bfloat16)
    with pytest.raises(UserError) as caught:
        merge(recipe(models / "aligned", tuned(models / "one", 0.5)), tmp_path / "out")
    assert caught.value.code == "disk_full"
    assert not (tmp_path / "out").exists()


def test_a_merge_that_ended_after_it_had_its_name_is_whole(tmp_path: Path) -> None:
    models = make_models(tmp_path, torch.bfloat16)
    made = recipe(models / "aligned", tuned(models / "one", 0.5))
    plan = plan_merge(made, open_lineup(made))
    first = merge(made, tmp_path / "out")
    before = tree(tmp_path / "out")
    (tmp_path / "out" / JOURNAL).write_text(json.dumps({"plan": plan.digest()}) + "\n")
    assert merge(made, tmp_path / "out", resume=True)["counts"] == first["counts"]
    assert tree(tmp_path / "out") == before
    # another merge's journal is no reason to take its result for this one's
    (tmp_path / "out" / JOURNAL).write_text(json.dumps({"plan": "other"}) + "\n")
    with pytest.raises(UserError) as caught:
        merge(made, tmp_path / "out", resume=True)
    assert caught.value.code == "output_exists"
