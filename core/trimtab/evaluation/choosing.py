"""From names to judges and endpoints: what a command line or a job says, and what it means."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from trimtab.control import Control
from trimtab.errors import UserError
from trimtab.evaluation.decoding import Decoding
from trimtab.evaluation.endpoint import Endpoint
from trimtab.evaluation.judges import Judge, KeywordJudge, PhraseJudge
from trimtab.evaluation.judges_demo import DemoJudge
from trimtab.evaluation.rubric import Ask, RubricJudge

ENDPOINT = "endpoint:"
#: a judge's reply is a few sentences and a score
_REPLY = Decoding(max_new_tokens=512)

_JUDGES: dict[str, Callable[[], Judge]] = {
    "phrases": PhraseJudge,
    "keywords-29": KeywordJudge,
    "demo": DemoJudge,
}


def judge_names() -> tuple[str, ...]:
    """Return the names that stand for a judge, besides endpoint:MODEL@URL."""
    return tuple(_JUDGES)


def is_endpoint(text: str) -> bool:
    """Whether a text names an endpoint rather than a path or a judge."""
    return text.startswith(ENDPOINT)


@dataclass(frozen=True)
class Connection:
    """How endpoints are spoken to: see `Endpoint`."""

    key_variable: str = ""
    timeout: float = 120.0
    concurrency: int = 4


def open_endpoint(text: str, connection: Connection) -> Endpoint:
    """Return the endpoint that endpoint:MODEL@URL names.

    Raises `UserError` with `bad_endpoint`, `no_key`.
    """
    model, at, url = text.removeprefix(ENDPOINT).rpartition("@")
    if not at:
        raise UserError(
            "bad_endpoint",
            f"{text} does not name an endpoint.",
            "It takes a model's name and an address.",
            "Write endpoint:MODEL@URL, as in endpoint:toy@http://localhost:8000/v1.",
        )
    return Endpoint(
        url,
        model,
        key_variable=connection.key_variable,
        timeout=connection.timeout,
        concurrency=connection.concurrency,
    )


def open_ask(text: str, connection: Connection, control: Control) -> tuple[Ask, str]:
    """Return how the model behind endpoint:MODEL@URL is asked, and its name.

    Raises `UserError` as `open_endpoint` does.
    """
    endpoint = open_endpoint(text, connection)

    def ask(system: str, user: str) -> str:
        said = [{"role": "system", "content": system}, {"role": "user", "content": user}]
        return endpoint.chat(said, _REPLY, control)

    return ask, endpoint.model


def named_judge(text: str, connection: Connection, control: Control) -> Judge:
    """Return the judge that a name stands for; `connection` is for that behind an endpoint.

    Raises `UserError` with `no_such_judge`, and as `open_endpoint` does.
    """
    if is_endpoint(text):
        return RubricJudge(*open_ask(text, connection, control))
    if text not in _JUDGES:
        raise UserError(
            "no_such_judge",
            f"There is no judge {text}.",
            f"There are: {', '.join(_JUDGES)}, first-token, imported:FILE, endpoint:MODEL@URL, "
            "guard:PATH and classifier:PATH#LABEL.",
            "Choose one of these.",
        )
    return _JUDGES[text]()
