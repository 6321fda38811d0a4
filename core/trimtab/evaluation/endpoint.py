"""An OpenAI-compatible endpoint as a target, or as what a judge asks."""

from __future__ import annotations

import contextlib
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from email.message import Message
from http.client import HTTPException
from typing import IO, Any
from urllib.parse import urlsplit

from trimtab.control import Control
from trimtab.errors import UserError
from trimtab.evaluation.asking import messages, plain_text
from trimtab.evaluation.decoding import Decoding
from trimtab.evaluation.suite_prompt import Prompt

#: an answer longer than this is no answer
_LARGEST = 16 << 20
#: seconds that a wait before another try takes at most, whatever the server asks for
_LONGEST_WAIT = 30.0
_WORTH_ANOTHER_TRY = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
_HERE = frozenset({"localhost", "127.0.0.1", "::1"})


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: the key would go along to wherever it points."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: Message,
        newurl: str,
    ) -> None:
        return None


class Endpoint:
    """A model behind `base_url`, such as http://localhost:8000/v1, asked over HTTP.

    The key is read from the environment variable `key_variable` when one is named, and is kept out
    of every message and report. `timeout` is in seconds a request; after a failure that may pass
    it is tried `retries` times more, with waits that double from `backoff` seconds. At most
    `concurrency` requests are under way at once. Raises `UserError` with `bad_endpoint` or
    `no_key`.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        key_variable: str = "",
        timeout: float = 120.0,
        retries: int = 3,
        backoff: float = 1.0,
        concurrency: int = 4,
    ):
        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UserError(
                "bad_endpoint",
                f"{base_url or 'Nothing'} is not the address of an endpoint.",
                "It must begin with http:// or https:// and name a machine.",
                "Write it as in http://localhost:8000/v1.",
            )
        if parts.username or parts.password or parts.query or parts.fragment:
            raise UserError(
                "bad_endpoint",
                f"The address of {parts.hostname} holds more than an address.",
                "A name, key or query in it would end up in reports.",
                "Name the environment variable that holds the key instead.",
            )
        if not model:
            raise UserError(
                "bad_endpoint",
                f"It was not said which model to ask at {parts.hostname}.",
                "An endpoint serves models by name.",
                "Name one.",
            )
        self.base_url = base_url.rstrip("/")
        self.host = parts.hostname
        self.model = model
        self.timeout = timeout
        self.retries = retries
        self.backoff = backoff
        self.concurrency = concurrency
        self._key = _key(key_variable, self.host)
        handlers: list[urllib.request.BaseHandler] = [_NoRedirects()]
        if parts.hostname in _HERE:
            handlers.append(urllib.request.ProxyHandler({}))
        self._opener = urllib.request.build_opener(*handlers)

    def chat(
        self, conversation: Sequence[Mapping[str, str]], decoding: Decoding, control: Control
    ) -> str:
        """Return the answer to a conversation of {"role", "content"}.

        Raises `UserError` with `endpoint_unreachable`, `endpoint_refused` or `endpoint_unclear`;
        `JobCancelled` between tries.
        """
        body = {"messages": [dict(message) for message in conversation]}
        choice = self._post("/chat/completions", {**body, **_drawn(decoding)}, control)
        message = choice.get("message")
        if not isinstance(message, dict):
            raise self._unclear("A choice holds no message.")
        # a refusal may come in a field of its own, and then there is no content
        text = message.get("content") or message.get("refusal") or ""
        if isinstance(text, list):
            text = "".join(str(part.get("text", "")) for part in text if isinstance(part, dict))
        if not isinstance(text, str):
            raise self._unclear("The message's content is no text.")
        return _sound(text)

    def complete(self, text: str, decoding: Decoding, control: Control) -> str:
        """Return what the model writes after a bare text; raises as `chat` does."""
        choice = self._post("/completions", {"prompt": text, **_drawn(decoding)}, control)
        found = choice.get("text")
        if not isinstance(found, str):
            raise self._unclear("A choice holds no text.")
        return _sound(found)

    def _post(self, path: str, body: Mapping[str, Any], control: Control) -> dict[str, Any]:
        content = json.dumps({"model": self.model, "stream": False, **body}).encode()
        headers = {"Content-Type": "application/json"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        for attempt in range(self.retries + 1):
            control.check()
            request = urllib.request.Request(self.base_url + path, content, headers)
            try:
                with self._opener.open(request, timeout=self.timeout) as response:
                    return self._choice(response.read(_LARGEST + 1))
            except urllib.error.HTTPError as error:
                with error:
                    failure = self._refused(error)
                    asked = error.headers.get("Retry-After", "") if error.headers else ""
                if error.code not in _WORTH_ANOTHER_TRY:
                    raise failure from error
            except (OSError, HTTPException) as error:
                failure, asked = self._unreachable(error), ""
            if attempt < self.retries:
                self._wait(attempt, asked, control)
        raise failure

    def _wait(self, attempt: int, asked: str, control: Control) -> None:
        seconds = self.backoff * 2.0**attempt
        with contextlib.suppress(ValueError):  # it may be a date, which is not worth parsing
            seconds = max(seconds, float(asked))
        end = time.monotonic() + min(seconds, _LONGEST_WAIT)
        while (left := end - time.monotonic()) > 0:
            control.check()
            time.sleep(min(left, 0.1))

    def _choice(self, content: bytes) -> dict[str, Any]:
        if len(content) > _LARGEST:
            raise self._unclear("The answer is longer than 16 MB.")
        try:
            choice = json.loads(content)["choices"][0]
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            raise self._unclear("The answer holds no choices in JSON.", content) from error
        if not isinstance(choice, dict):
            raise self._unclear("A choice is no JSON object.", content)
        return choice

    def _refused(self, error: urllib.error.HTTPError) -> UserError:
        said = ""
        with contextlib.suppress(OSError, HTTPException):
            said = error.read(2000).decode("utf-8", "replace")
        fix = {
            401: "Name the environment variable that holds a valid key.",
            403: "Name the environment variable that holds a key with the right to this model.",
            404: "Check the address, which usually ends in /v1, and the model's name.",
            429: "Lower the number of requests at once, or try again later.",
        }.get(error.code, "See what the server says in the details.")
        return UserError(
            "endpoint_refused",
            f"{self.host} refused to answer for {self.model}.",
            f"It says: {error.code} {error.reason}.",
            fix,
            details=self._without_key(said),
        )

    def _unreachable(self, error: Exception) -> UserError:
        reason = getattr(error, "reason", None) or error
        why = str(getattr(reason, "strerror", None) or reason) or type(reason).__name__
        return UserError(
            "endpoint_unreachable",
            f"{self.host} did not answer.",
            f"The system says: {why}.",
            "Check that the server runs and the address is right.",
            details=self.base_url,
        )

    def _unclear(self, why: str, content: bytes = b"") -> UserError:
        return UserError(
            "endpoint_unclear",
            f"{self.host} answered in a way that is not understood.",
            why,
            "Use an endpoint that speaks OpenAI's chat completions.",
            details=self._without_key(content[:2000].decode("utf-8", "replace")),
        )

    def _without_key(self, text: str) -> str:
        return text.replace(self._key, "…") if self._key else text


class EndpointTarget:
    """A model behind an endpoint as a target: what it is made of cannot be seen.

    So it has no fingerprint, and its answers are never taken from the cache.
    """

    fingerprint = ""

    def __init__(self, endpoint: Endpoint, *, name: str = "", role: str = ""):
        self.endpoint = endpoint
        self.name = name or endpoint.model
        self.role = role

    def generate(
        self, prompts: Sequence[Prompt], decoding: Decoding, control: Control
    ) -> list[str]:
        """Return an answer a prompt; the batch size is the endpoint's concern."""

        def ask(prompt: Prompt) -> str:
            if decoding.template == "plain":
                answer = self.endpoint.complete(plain_text(prompt, decoding), decoding, control)
            else:
                answer = self.endpoint.chat(messages(prompt, decoding), decoding, control)
            control.advance(1)
            return answer

        with ThreadPoolExecutor(self.endpoint.concurrency, thread_name_prefix="ask") as pool:
            try:
                return list(pool.map(ask, prompts))
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    def describe(self) -> dict[str, Any]:
        """Return what a report says of it, ready for JSON."""
        return {
            "name": self.name,
            "role": self.role,
            "fingerprint": "",
            "kind": "endpoint",
            "base_url": self.endpoint.base_url,
            "model": self.endpoint.model,
        }

    def close(self) -> None:
        """Hold nothing: each request has a connection of its own."""


def _sound(text: str) -> str:
    """Return a text that can be written down: JSON can spell half of a surrogate pair."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _drawn(decoding: Decoding) -> dict[str, Any]:
    found: dict[str, Any] = {
        "max_tokens": decoding.max_new_tokens,
        "temperature": decoding.temperature,
    }
    if not decoding.greedy:
        found |= {"top_p": decoding.top_p, "seed": decoding.seed}
    return found


def _key(variable: str, host: str) -> str:
    if not variable:
        return ""
    key = os.environ.get(variable, "")
    if not key:
        raise UserError(
            "no_key",
            f"There is no key for {host}.",
            f"The environment variable {variable} is not set.",
            "Set it to the key, or name another one.",
        )
    return key
