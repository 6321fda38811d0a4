"""The protocol: every message survives its line, and whatever is no message is refused."""

from __future__ import annotations

import dataclasses
import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.jobs.control import JobCancelled, JobControl
from trimtab.jobs.protocol import (
    PROGRESS_PER_SECOND,
    Accepted,
    Cancel,
    Cancelled,
    Failed,
    Hello,
    Log,
    Progress,
    ProtocolError,
    Quit,
    Result,
    Run,
    decode_command,
    decode_event,
    encode,
)

_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=8,
)
_table = st.dictionaries(st.text(max_size=5), _json, max_size=4)
_id = st.integers(0, 2**40)
_text = st.text(st.characters())  # surrogates too: a path need not be valid Unicode
_float = st.floats(allow_nan=False)
commands = (
    st.builds(Run, id=_id, job=_text, params=_table) | st.builds(Cancel, id=_id) | st.builds(Quit)
)
events = (
    st.builds(Hello, protocol=_id, version=_text, pid=_id)
    | st.builds(Accepted, id=_id)
    | st.builds(Progress, id=_id, stage=_text, done=_id, total=_id, bytes_done=_id,
                bytes_total=_id, bytes_per_second=_float, seconds_left=st.none() | _float,
                memory_bytes=_id)
    | st.builds(Log, id=_id, level=_text, text=_text)
    | st.builds(Result, id=_id, result=_table, seconds=_float)
    | st.builds(Failed, id=_id, error=st.dictionaries(_text, _text, max_size=5))
    | st.builds(Cancelled, id=_id)
)  # fmt: skip


@given(commands)
def test_commands_survive_their_line(command: Any) -> None:
    line = encode(command)
    assert "\n" not in line
    assert line.isascii()
    assert decode_command(line) == command
    assert decode_command(line.encode() + b"\n") == command


@given(events)
def test_events_survive_their_line(event: Any) -> None:
    line = encode(event)
    assert "\n" not in line
    assert decode_event(line) == event


def test_fields_of_a_newer_speaker_are_skipped() -> None:
    assert decode_command('{"type": "cancel", "id": 3, "why": "new"}') == Cancel(3)


@pytest.mark.parametrize(
    "line",
    ["", "x", "null", "3", "[]", "{}", '{"type": "none"}', '{"type": []}', '{"type": "run"}',
     '{"type": "run", "id": 1, "job": "merge"}',
     '{"type": "run", "id": [1], "job": "m", "params": {}}',
     '{"type": "run", "id": 1, "job": ["m"], "params": {}}',
     '{"type": "run", "id": 1, "job": "m", "params": []}',
     '{"type": "run", "id": true, "job": "m", "params": {}}', '{"type": "cancel", "id": "1"}',
     '{"type": "cancel", "id": 1.5}', '{"type": "hello", "protocol": 1, "version": "1", "pid": 2}',
     b"\xff\xfe", "[" * 100_000, '{"type": "cancel", "id": ' + "9" * 5000 + "}"],
)  # fmt: skip
def test_what_is_no_command_is_refused(line: str | bytes) -> None:
    with pytest.raises(ProtocolError):
        decode_command(line)


@given(st.binary(max_size=80) | _json.map(lambda value: json.dumps(value).encode()))
def test_any_line_is_a_message_or_refused(line: bytes) -> None:
    for decode in (decode_command, decode_event):
        try:
            message = decode(line)
        except ProtocolError:
            continue
        assert dataclasses.is_dataclass(message)


@given(commands | events, st.dictionaries(st.sampled_from(["id", "job", "params", "stage", "done",
       "error", "seconds", "seconds_left", "result", "text"]), _json, max_size=3))  # fmt: skip
def test_a_message_with_other_values_is_one_or_refused(message: Any, other: dict[str, Any]) -> None:
    line = json.dumps(json.loads(encode(message)) | other)
    decode: Any = decode_command if isinstance(message, (Run, Cancel, Quit)) else decode_event
    try:
        decoded = decode(line)
    except ProtocolError:
        return
    assert isinstance(getattr(decoded, "id", 0), int)
    assert isinstance(getattr(decoded, "params", {}), dict)


def test_progress_is_rare_but_begins_and_ends() -> None:
    sent: list[Progress] = []
    control = JobControl(sent.append, 7)
    begun = time.monotonic()
    control.stage("Merging", 20_000, 40_000)
    for _ in range(20_000):
        control.advance(1, 2)
    seconds = time.monotonic() - begun
    assert sent[0].done == 0
    assert (sent[-1].done, sent[-1].bytes_done) == (20_000, 40_000)
    assert len(sent) <= seconds * PROGRESS_PER_SECOND + 2
    assert all(p.id == 7 and p.stage == "Merging" and p.total == 20_000 for p in sent)
    assert [p.done for p in sent] == sorted(p.done for p in sent)
    assert sent[-1].memory_bytes > 0


def test_time_left_follows_the_measured_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    sent: list[Progress] = []
    control = JobControl(sent.append)
    control.stage("Merging", 100, 1000)
    assert sent[-1].seconds_left is None
    for _ in range(50):
        now[0] += 0.5
        control.advance(1, 10)
    assert sent[-1].bytes_per_second == pytest.approx(20, rel=0.01)
    assert sent[-1].seconds_left == pytest.approx(500 / 20, rel=0.01)


def test_cancel_is_heard_at_the_next_check() -> None:
    control = JobControl()
    control.check()
    control.cancel()
    with pytest.raises(JobCancelled):
        control.check()
