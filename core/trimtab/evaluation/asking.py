"""What every target answers, wherever it runs, and how a prompt is put to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from trimtab.control import Control
from trimtab.evaluation.decoding import Decoding
from trimtab.evaluation.suite_prompt import Prompt


class Target(Protocol):
    """Something that answers prompts.

    `name` is unique in an evaluation, `role` is its part in a lineup or empty. `fingerprint`
    changes when the answers could; it is empty where that cannot be known, and then no answer is
    kept for another time.
    """

    name: str
    role: str
    fingerprint: str

    def generate(
        self, prompts: Sequence[Prompt], decoding: Decoding, control: Control
    ) -> list[str]:
        """Return one answer for each prompt, without the prompt; counts each with `control`."""

    def describe(self) -> dict[str, Any]:
        """Return what a report says of it, ready for JSON."""

    def close(self) -> None:
        """Give back what it holds; the next call takes it up again."""


@runtime_checkable
class Loadable(Target, Protocol):
    """A target that has to be loaded before it answers, and would load itself when it is asked."""

    def loaded(self, control: Control) -> object:
        """Load what is not loaded yet; merging and reading report stages of their own."""


def begin(stage: str, total: int, target: Target, control: Control) -> None:
    """Begin a stage of asking a target, whose loading belongs to a stage before."""
    if isinstance(target, Loadable):
        control.stage(f"Loading {target.name}", 1)
        target.loaded(control)
    control.stage(stage, total)


def question(prompt: Prompt) -> str:
    """Return the text that is put to a model: a question's choices are lettered below it."""
    return f"{prompt.asked}\nAnswer with the letter only." if prompt.choices else prompt.asked


def messages(prompt: Prompt, decoding: Decoding) -> list[dict[str, str]]:
    """Return the conversation that a prompt is: the prompt's own system text wins."""
    system = prompt.system or decoding.system
    said = [{"role": "system", "content": system}] if system else []
    return [*said, {"role": "user", "content": question(prompt)}]


def plain_text(prompt: Prompt, decoding: Decoding) -> str:
    """Return a prompt as bare text, for models without a chat template."""
    return "\n\n".join(message["content"] for message in messages(prompt, decoding))
