"""An endpoint is asked over real HTTP: what it says, what it refuses, and what is kept secret."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from trimtab.control import JobCancelled, Unattended
from trimtab.errors import UserError
from trimtab.evaluation.decoding import Decoding
from trimtab.evaluation.endpoint import Endpoint, EndpointTarget
from trimtab.evaluation.suite import Prompt

Reply = tuple[int, dict[str, str], bytes]
GREEDY = Decoding(max_new_tokens=5)


def said(text: Any, **more: Any) -> Reply:
    message = {"role": "assistant", "content": text, **more}
    return 200, {}, json.dumps({"choices": [{"message": message}]}).encode()


class Server(ThreadingHTTPServer):
    """A loopback server that answers as it is told and remembers what it was asked."""

    daemon_threads = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.seen: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.reply: Callable[[dict[str, Any]], Reply] = lambda body: said("hello")
        self.lock = threading.Lock()
        self.at_once = self.most_at_once = 0

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a client that hung up: that is what one of the tests does."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.seen.append(body)
            self.server.paths.append(self.path)
            self.server.headers.append(dict(self.headers))
            self.server.at_once += 1
            self.server.most_at_once = max(self.server.most_at_once, self.server.at_once)
        status, headers, content = self.server.reply(body)
        with self.server.lock:
            self.server.at_once -= 1
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


def endpoint(server: Server, **options: Any) -> Endpoint:
    return Endpoint(server.url, "toy", **{"backoff": 0.0, "timeout": 5.0, **options})


def ask(server: Server, **options: Any) -> str:
    return endpoint(server, **options).chat(
        [{"role": "user", "content": "hi"}], GREEDY, Unattended()
    )


def prompt(text: str, **more: Any) -> Prompt:
    return Prompt(id=text, kind="harmful", text=text, **more)


def test_a_conversation_is_put_as_openai_puts_it(server: Server) -> None:
    assert ask(server) == "hello"
    assert server.paths == ["/v1/chat/completions"]
    assert server.seen == [
        {
            "model": "toy",
            "stream": False,
            "messages": [{"role": "user", "content": "hi"}],
            "max_tokens": 5,
            "temperature": 0.0,
        }
    ]
    assert "Authorization" not in server.headers[0]


def test_a_target_answers_in_order_with_system_texts_and_bounded_requests(server: Server) -> None:
    def reply(body: dict[str, Any]) -> Reply:
        threading.Event().wait(0.02)
        return said(" | ".join(m["content"] for m in body["messages"]))

    server.reply = reply
    target = EndpointTarget(endpoint(server, concurrency=3))
    prompts = [prompt(f"p{i}") for i in range(11)] + [prompt("own", system="mine")]
    decoding = Decoding(system="be kind", temperature=0.5, seed=7, top_p=0.9)
    answers = target.generate(prompts, decoding, Unattended())
    assert answers == [f"be kind | p{i}" for i in range(11)] + ["mine | own"]
    assert 1 < server.most_at_once <= 3
    assert server.seen[0]["seed"] == 7
    assert server.seen[0]["top_p"] == 0.9


def test_a_plain_prompt_is_completed_not_chatted_with(server: Server) -> None:
    server.reply = lambda body: (200, {}, json.dumps({"choices": [{"text": "!"}]}).encode())
    target = EndpointTarget(endpoint(server))
    plain = Decoding(template="plain", system="s")
    assert target.generate([prompt("bare")], plain, Unattended()) == ["!"]
    assert server.paths == ["/v1/completions"]
    assert server.seen[0]["prompt"] == "s\n\nbare"


@pytest.mark.parametrize(
    ("content", "more", "text"),
    [
        (None, {"refusal": "I will not."}, "I will not."),
        (None, {}, ""),
        ("half \ud83d of a sign", {}, "half ? of a sign"),
        ([{"type": "text", "text": "in "}, {"type": "text", "text": "parts"}], {}, "in parts"),
    ],
)
def test_every_form_of_an_answer_is_read(
    server: Server, content: Any, more: dict[str, Any], text: str
) -> None:
    server.reply = lambda body: said(content, **more)
    assert ask(server) == text


@pytest.mark.parametrize("status", [429, 500, 503])
def test_what_may_pass_is_tried_again_and_only_so_often(server: Server, status: int) -> None:
    replies = iter([(status, {}, b""), (status, {}, b"")])
    server.reply = lambda body: next(replies, said("at last"))
    assert ask(server, retries=2) == "at last"
    assert len(server.seen) == 3

    server.reply = lambda body: (status, {}, b"no room")
    with pytest.raises(UserError) as caught:
        ask(server, retries=2)
    assert caught.value.code == "endpoint_refused"
    assert caught.value.details == "no room"
    assert len(server.seen) == 6


@pytest.mark.parametrize("status", [400, 401, 404])
def test_what_will_not_pass_is_tried_once(server: Server, status: int) -> None:
    server.reply = lambda body: (status, {}, b"")
    with pytest.raises(UserError, match=str(status)):
        ask(server)
    assert len(server.seen) == 1


def test_the_key_is_sent_and_shown_nowhere(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOY_KEY", "sesame-7")
    server.reply = lambda body: (401, {}, b"bad key sesame-7")
    with pytest.raises(UserError) as caught:
        ask(server, key_variable="TOY_KEY")
    assert server.headers[0]["Authorization"] == "Bearer sesame-7"
    assert "sesame" not in json.dumps(caught.value.to_dict())
    target = EndpointTarget(endpoint(server, key_variable="TOY_KEY"))
    assert "sesame" not in json.dumps(target.describe())


def test_a_redirect_is_not_followed(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOY_KEY", "sesame-7")
    server.reply = lambda body: (302, {"Location": server.url + "/elsewhere"}, b"")
    with pytest.raises(UserError, match="302"):
        ask(server, key_variable="TOY_KEY")
    assert len(server.seen) == 1


@pytest.mark.parametrize(
    "content", [b"", b"<html>", b"{}", b'{"choices": []}', b'{"choices": [3]}', b"[" * 100_000]
)
def test_an_answer_that_makes_no_sense_is_said_to(server: Server, content: bytes) -> None:
    server.reply = lambda body: (200, {}, content)
    with pytest.raises(UserError) as caught:
        ask(server)
    assert caught.value.code == "endpoint_unclear"
    assert len(server.seen) == 1


def test_a_server_that_is_not_there_or_silent_is_unreachable(server: Server) -> None:
    waiting = threading.Event()

    def reply(body: dict[str, Any]) -> Reply:
        waiting.wait(3)
        return said("late")

    server.reply = reply
    with pytest.raises(UserError) as caught:
        ask(server, timeout=0.2, retries=0)
    assert caught.value.code == "endpoint_unreachable"
    waiting.set()
    nobody = Endpoint("http://127.0.0.1:9/v1", "toy", retries=1, backoff=0.0)
    with pytest.raises(UserError) as caught:
        nobody.chat([], GREEDY, Unattended())
    assert caught.value.code == "endpoint_unreachable"


class _Stops(Unattended):
    """Stops at its n-th check."""

    def __init__(self, after: int):
        self._left = after

    def check(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise JobCancelled


def test_waiting_for_another_try_can_be_cancelled(server: Server) -> None:
    server.reply = lambda body: (503, {"Retry-After": "20"}, b"")
    with pytest.raises(JobCancelled):
        endpoint(server).chat([], GREEDY, _Stops(3))
    assert len(server.seen) == 1


def test_cancelling_asks_nothing_more(server: Server) -> None:
    target = EndpointTarget(endpoint(server, concurrency=1))
    with pytest.raises(JobCancelled):
        target.generate([prompt(f"p{i}") for i in range(40)], GREEDY, _Stops(4))
    assert len(server.seen) == 4


@pytest.mark.parametrize(
    "url", ["", "localhost:8000", "ftp://here/v1", "http:///v1", "http://me:secret@here/v1",
            "http://here/v1?key=secret"]
)  # fmt: skip
def test_what_is_no_address_is_refused_and_not_repeated_with_its_secret(url: str) -> None:
    with pytest.raises(UserError) as caught:
        Endpoint(url, "toy")
    assert caught.value.code == "bad_endpoint"
    assert "secret" not in str(caught.value)


def test_a_key_that_is_not_set_is_missed_at_once() -> None:
    with pytest.raises(UserError) as caught:
        Endpoint("http://localhost/v1", "toy", key_variable="NO_SUCH_KEY_HERE")
    assert caught.value.code == "no_key"
