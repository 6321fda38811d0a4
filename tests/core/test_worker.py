"""The worker as a real process: JSON lines in, JSON lines out, and it leaves when told."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from builders import moved, recipe, tree, tuned, write_model
from trimtab.inspection.result import Inspection
from trimtab.jobs.protocol import (
    PROGRESS_PER_SECOND,
    PROTOCOL_VERSION,
    Accepted,
    Cancel,
    Cancelled,
    Event,
    Failed,
    Hello,
    Log,
    Progress,
    Quit,
    Result,
    Run,
    decode_event,
    encode,
)
from trimtab.merging.recipe import Recipe

SLOW = """
import time
from trimtab.checkpoints import reader
read = reader.TensorReader.read
def slow(self, *where, **how):
    time.sleep(0.02)
    return read(self, *where, **how)
reader.TensorReader.read = slow
"""
TALKATIVE = """
import os, logging, sys
from trimtab.jobs import tasks
run = tasks._devices
def talk(params, control):
    print("a library says hello")
    sys.stdout.flush()
    os.write(1, b"and writes to the descriptor\\n")
    logging.getLogger("some.library").warning("beware of %s", "this")
    return {"devices": []}
tasks._JOBS["devices"] = (tasks.Params, talk)
"""


class Talk:
    """A worker process and what it says, read by a thread as it comes."""

    def __init__(self, before: str = "") -> None:
        code = f"{before}\nimport sys\nfrom trimtab.jobs.worker import main\nsys.exit(main())"
        self.process = subprocess.Popen(
            [sys.executable, *(["-c", code] if before else ["-m", "trimtab.jobs.worker"])],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        self.events: queue.Queue[Event | None] = queue.Queue()
        self.errors = b""
        self._threads = [threading.Thread(target=f) for f in (self._listen, self._hear_errors)]
        for thread in self._threads:
            thread.start()

    def _listen(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self.events.put(decode_event(line))  # a line that is none would end the test
        self.events.put(None)

    def _hear_errors(self) -> None:
        assert self.process.stderr
        self.errors = self.process.stderr.read()

    def send(self, *commands: Run | Cancel | Quit | str) -> None:
        assert self.process.stdin
        for command in commands:
            line = command if isinstance(command, str) else encode(command)
            self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()

    def close(self) -> None:
        assert self.process.stdin
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()

    def next(self, timeout: float = 60) -> Event | None:
        return self.events.get(timeout=timeout)

    def until(self, *kinds: type) -> list[Event]:
        """Every event up to the first of these kinds."""
        heard: list[Event] = []
        while True:
            event = self.next()
            assert event is not None, (heard, self.errors)
            heard.append(event)
            if isinstance(event, kinds):
                return heard

    def end(self) -> int:
        self.close()
        try:
            code = self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        finally:
            for thread in self._threads:
                thread.join(20)
            for stream in (self.process.stdout, self.process.stderr):
                assert stream
                stream.close()
        return code


@contextlib.contextmanager
def worker(before: str = "") -> Iterator[Talk]:
    talk = Talk(before)
    try:
        hello = talk.next()
        assert isinstance(hello, Hello)
        assert hello.protocol == PROTOCOL_VERSION
        assert hello.pid == talk.process.pid
        yield talk
    finally:
        talk.end()


@pytest.fixture
def made(tmp_path: Path) -> Recipe:
    generator = torch.Generator().manual_seed(0)
    aligned = {
        f"model.layers.{i}.mlp.up_proj.weight": torch.randn(50, 100, generator=generator).bfloat16()
        for i in range(150)
    }
    write_model(tmp_path / "aligned", aligned)
    write_model(tmp_path / "one", moved(aligned, 1))
    return recipe(tmp_path / "aligned", tuned(tmp_path / "one", 0.5))


def merge_job(made: Recipe, output: Path, number: int = 1, **rest: Any) -> Run:
    return Run(
        number,
        "merge",
        {"recipe": made.model_dump(mode="json"), "output": str(output), "device": "cpu"} | rest,
    )


def test_a_session_from_hello_to_good_bye(made: Recipe, tmp_path: Path) -> None:
    with worker() as talk:
        talk.send(Run(1, "inspect", {"recipe": made.model_dump(mode="json")}))
        heard = talk.until(Result)
        assert isinstance(heard[0], Accepted)
        assert all(getattr(event, "id", 1) == 1 for event in heard)
        result = heard[-1]
        assert isinstance(result, Result)
        found = Inspection.load(Path(result.result["path"]))
        assert found is not None
        assert len(found.names) == 150
        assert not result.result["cached"]
        assert result.result["bytes_read"] == 2 * 150 * 50 * 100 * 2
        talk.send(Run(2, "inspect", {"recipe": made.model_dump(mode="json")}))
        again = talk.until(Result)[-1]
        assert isinstance(again, Result)
        assert again.result == result.result | {"cached": True, "bytes_read": 0}
        # several jobs wait for each other, and a used number is no trouble
        talk.send(merge_job(made, tmp_path / "a", 3), merge_job(made, tmp_path / "b", 3))
        for name in ("a", "b"):
            last = talk.until(Result, Failed)[-1]
            assert isinstance(last, Result), last
            assert last.result["output"] == str(tmp_path / name)
            assert last.seconds > 0
        assert tree(tmp_path / "a").keys() == tree(tmp_path / "b").keys()
        talk.send(Quit())
        assert talk.next() is None
        assert talk.process.wait(20) == 0


def test_progress_of_a_merge_is_steady(made: Recipe, tmp_path: Path) -> None:
    with worker(SLOW) as talk:
        begun = time.monotonic()
        talk.send(merge_job(made, tmp_path / "out"))
        heard = talk.until(Result)
        seconds = time.monotonic() - begun
        progress = [event for event in heard if isinstance(event, Progress)]
        stages = list(dict.fromkeys(p.stage for p in progress))
        assert stages == ["Merging", "Verifying"]
        for stage in stages:
            own = [p for p in progress if p.stage == stage]
            assert own[0].done == 0
            assert own[-1].done == own[-1].total == 150
            assert [p.done for p in own] == sorted(p.done for p in own)
            assert [p.bytes_done for p in own] == sorted(p.bytes_done for p in own)
            assert own[-1].bytes_done == own[-1].bytes_total
        assert len(progress) <= seconds * PROGRESS_PER_SECOND * 1.1 + 4
        assert any(p.seconds_left is not None and p.bytes_per_second > 0 for p in progress)


def test_cancel_is_obeyed_within_two_seconds(made: Recipe, tmp_path: Path) -> None:
    with worker(SLOW) as talk:
        talk.send(merge_job(made, tmp_path / "out"), merge_job(made, tmp_path / "next", 2))
        talk.until(Progress)
        talk.until(Progress)
        begun = time.monotonic()
        talk.send(Cancel(1), Cancel(2), Cancel(99))
        assert isinstance(talk.until(Cancelled, Result, Failed)[-1], Cancelled)
        assert time.monotonic() - begun < 2
        # the one that waited does not begin
        rest = talk.until(Cancelled, Result, Failed)
        assert not [e for e in rest if isinstance(e, Progress)]
        assert isinstance(rest[-1], Cancelled)
        assert sorted(p.name for p in tmp_path.iterdir()) == ["aligned", "one"]
        talk.send(Run(3, "devices", {}))
        assert isinstance(talk.until(Result, Failed)[-1], Result)


def test_what_cannot_be_run_is_answered_and_the_worker_stays(made: Recipe, tmp_path: Path) -> None:
    with worker() as talk:
        params = merge_job(made, tmp_path / "out").params
        for job, values, code in (
            ("dance", {}, "bad_job"),
            ("merge", {}, "bad_job"),
            ("merge", params | {"speed": 3}, "bad_job"),
            ("merge", params | {"recipe": {"methd": "x"}}, "bad_job"),
            ("merge", params | {"recipe": {"aligned": {"path": "/no/such"}}}, "not_found"),
            ("merge", params | {"output": str(tmp_path / "aligned"), "overwrite": True},
             "output_is_input"),
            ("discard", {}, "bad_job"),
        ):  # fmt: skip
            talk.send(Run(5, job, values))
            failed = talk.until(Failed, Result)[-1]
            assert isinstance(failed, Failed)
            assert failed.id == 5
            assert failed.error["code"] == code, failed
            assert failed.error["what"]
        talk.send("nonsense", "", "[" * 50_000, '{"type": "run", "id": [1], "job": 1, "params": 2}')
        logged = [talk.until(Log)[-1] for _ in range(3)]
        assert all(isinstance(event, Log) and event.level == "WARNING" for event in logged)
        talk.send(Run(6, "discard", {"output": str(tmp_path / "out")}))
        assert isinstance(talk.until(Failed, Result)[-1], Result)


def test_a_library_that_prints_does_not_corrupt_the_stream() -> None:
    with worker(TALKATIVE) as talk:
        talk.send(Run(1, "devices", {}))
        heard = talk.until(Result, Failed)
        assert isinstance(heard[-1], Result)
        (log,) = [event for event in heard if isinstance(event, Log)]
        assert (log.id, log.level) == (1, "WARNING")
        assert log.text == "beware of this"
    assert b"a library says hello" in talk.errors
    assert b"and writes to the descriptor" in talk.errors


def test_a_fault_of_ours_ends_the_job_and_not_the_worker() -> None:
    broken = TALKATIVE.replace('return {"devices": []}', "raise ZeroDivisionError('oops')")
    with worker(broken) as talk:
        for number in (1, 2):
            talk.send(Run(number, "devices", {}))
            failed = talk.until(Failed, Result)[-1]
            assert isinstance(failed, Failed)
            assert failed.error["code"] == "internal"
            assert "ZeroDivisionError" in failed.error["why"]
            assert "talk" in failed.error["details"]


@pytest.mark.parametrize("busy", [False, True])
def test_the_worker_leaves_when_its_stdin_closes(made: Recipe, tmp_path: Path, busy: bool) -> None:
    with worker(SLOW) as talk:
        if busy:
            talk.send(merge_job(made, tmp_path / "out"))
            talk.until(Progress)
            talk.until(Progress)
        begun = time.monotonic()
        talk.close()
        assert talk.process.wait(10) == 0
        assert time.monotonic() - begun < 3
    # what a merge has done is kept for whoever comes back, never under the final name
    left = ["aligned", "one", "out.partial"] if busy else ["aligned", "one"]
    assert sorted(p.name for p in tmp_path.iterdir()) == left


def test_the_worker_leaves_when_nobody_listens_any_more(made: Recipe, tmp_path: Path) -> None:
    """A window that died closes both ends; the merge stops instead of running on."""
    read_end, write_end = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-c", f"{SLOW}\nfrom trimtab.jobs.worker import main\nmain()"],
        stdin=subprocess.PIPE, stdout=write_end, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(write_end)
    assert process.stdin
    with process.stdin, open(read_end, "rb") as events:
        assert b"hello" in events.readline()
        process.stdin.write(encode(merge_job(made, tmp_path / "out")).encode() + b"\n")
        process.stdin.flush()
        assert b"accepted" in events.readline()
        assert b"progress" in events.readline()
    try:
        process.wait(10)
    finally:
        process.kill()
        process.wait()
    assert not (tmp_path / "out").exists()


def test_a_killed_worker_leaves_no_final_name_and_the_merge_goes_on(
    made: Recipe, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    with worker(SLOW) as talk:
        talk.send(merge_job(made, output))
        while True:
            event = talk.next()
            assert isinstance(event, (Accepted, Progress))
            if isinstance(event, Progress) and event.done > 5:
                break
        talk.process.send_signal(signal.SIGKILL)
        talk.process.wait()
    assert not output.exists()
    assert (tmp_path / "out.partial").exists()
    with worker() as talk:
        talk.send(merge_job(made, output))
        failed = talk.until(Failed, Result)[-1]
        assert isinstance(failed, Failed)
        assert failed.error["code"] == "unfinished_exists"
        talk.send(merge_job(made, output, 2, resume=True))
        assert isinstance(talk.until(Failed, Result)[-1], Result)
        talk.send(merge_job(made, tmp_path / "fresh", 3))
        assert isinstance(talk.until(Failed, Result)[-1], Result)
    assert (output / "model.safetensors").read_bytes() == (
        tmp_path / "fresh" / "model.safetensors"
    ).read_bytes()
    assert json.loads((output / "trimtab-report.json").read_text())["counts"] == {"merged": 150}
    assert not (tmp_path / "out.partial").exists()
