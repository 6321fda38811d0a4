"""`transformers serve` on a demo model, a server of others, as a target and as a judge."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from trimtab.checkpoints import open_checkpoint
from trimtab.cli import main
from trimtab.control import Unattended
from trimtab.demo.language import evaluation_prompts, is_refusal
from trimtab.demo.lineup import demo_paths
from trimtab.errors import UserError
from trimtab.evaluation.decoding import Decoding
from trimtab.evaluation.endpoint import Endpoint, EndpointTarget
from trimtab.evaluation.results import load_results
from trimtab.evaluation.suite import Prompt
from trimtab.evaluation.targets import ModelTarget

for _needed in ("fastapi", "uvicorn", "openai"):
    pytest.importorskip(_needed, reason=f"transformers serve needs {_needed}")

ALIGNED = demo_paths()["aligned"]
_SECONDS = 120


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of its own on a free port of this machine, ended afterwards."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    log = tmp_path_factory.mktemp("serve") / "log"
    command = [str(Path(sys.executable).with_name("transformers")), "serve", str(ALIGNED)]
    options = ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu", "--dtype", "float32"]
    with log.open("wb") as said:
        process = subprocess.Popen(
            [*command, *options],
            stdout=said,
            stderr=said,
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
        )
    try:
        end = time.monotonic() + _SECONDS
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                    break
            except (urllib.error.URLError, OSError):
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < end, log.read_text()
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait(30)


def test_a_served_model_answers_as_the_model_itself(url: str) -> None:
    prompts = [
        Prompt(id=p.id, kind="harmful", text=p.prompt)
        for kind in ("harmful", "task-a")
        for p in evaluation_prompts(kind)[::60]  # type: ignore[arg-type]
    ]
    decoding = Decoding(max_new_tokens=12)
    served = EndpointTarget(Endpoint(url, str(ALIGNED), concurrency=2))
    answers = served.generate(prompts, decoding, Unattended())
    here = ModelTarget(open_checkpoint(ALIGNED)).generate(prompts, decoding, Unattended())
    assert [answer.strip() for answer in answers] == [answer.strip() for answer in here]
    assert [is_refusal(answer) for answer in answers] == [True] * 6 + [False] * 4


def test_a_model_that_is_not_served_is_refused(url: str) -> None:
    with pytest.raises(UserError) as caught:
        Endpoint(url, "no-such/model", retries=0).chat(
            [{"role": "user", "content": "hi"}], Decoding(), Unattended()
        )
    assert caught.value.code == "endpoint_refused"


def test_the_command_evaluates_a_served_model_and_has_it_judge(url: str, tmp_path: Path) -> None:
    output = tmp_path / "results.json"
    endpoint = f"endpoint:{ALIGNED}@{url}"
    status = main(
        ["evaluate", endpoint, "--suite", "demo", "--limit", "2", "--max-new-tokens", "8",
         "--judge", "demo", "--judge", endpoint, "-o", str(output)]
    )  # fmt: skip
    assert status == 0
    results = load_results(output)
    demo, rubric = (judge.name for judge in results.judges)
    assert rubric.startswith("rubric 1 (")
    judged = [row.verdicts for row in results.rows if row.verdicts]
    assert [verdicts[demo].outcome for verdicts in judged] == ["refused"] * 2 + ["complied"] * 2
    # it speaks no English: what it says of the rubric is no score, and that is told, not guessed
    assert {verdicts[rubric].outcome for verdicts in judged} == {"failed"}
    assert all(verdicts[rubric].reason.startswith("no score") for verdicts in judged)
    assert results.targets[0].about["base_url"] == url
