"""`trimtab chat`: the same prompt answered by several models, one below the other as they write."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from trimtab.commands.evaluate import parse_roles
from trimtab.commands.running import run_job
from trimtab.control import JobCancelled
from trimtab.errors import UserError

if TYPE_CHECKING:
    from trimtab.jobs.protocol import Progress
    from trimtab.merging.recipe import Recipe

_WORDS = {"complied": "complied", "partial": "in part", "failed": "no verdict"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "models", nargs="+", metavar="MODEL",
        help="model folders, endpoint:NAME@URL, or one recipe, whose roles answer",
    )  # fmt: skip
    parser.add_argument(
        "--prompt", action="append", default=[], metavar="TEXT",
        help="what is asked; may be given several times, each for itself (default: each line of "
        "the standard input)",
    )  # fmt: skip
    parser.add_argument("--system", default="", metavar="TEXT", help="system text of every prompt")
    parser.add_argument(
        "--roles", type=parse_roles, metavar="LIST",
        help="of a recipe: base, aligned, finetuned, merged (default: all but the base)",
    )  # fmt: skip
    parser.add_argument(
        "--judge", default="auto", metavar="JUDGE",
        help="who reads the answers: phrases, keywords-29, demo or endpoint:MODEL@URL (default: "
        "demo for the demo's models, else phrases)",
    )  # fmt: skip
    parser.add_argument("--max-new-tokens", type=int, default=256, metavar="N")
    parser.add_argument(
        "--temperature", type=float, default=0.0, metavar="T", help="0 is greedy (the default)"
    )
    parser.add_argument("--top-p", type=float, default=1.0, metavar="P")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of sampling")
    parser.add_argument(
        "--device", default="auto", metavar="NAME", help="auto, cpu or cuda:0 (default: auto)"
    )
    parser.add_argument(
        "--key-variable", default="", metavar="NAME",
        help="environment variable that holds the endpoints' key",
    )  # fmt: skip


def run(arguments: argparse.Namespace) -> int:
    """Carry the command out; 1 where a model could not answer."""
    from trimtab.commands.evaluate_run import told_apart, usual_roles

    recipes, models = told_apart(arguments.models)
    if len(recipes) > 1:
        raise UserError(
            "one_recipe",
            "Two recipes were given.",
            "A chat asks the roles of one.",
            "Name one recipe, and the other models by their folders.",
        )
    recipe: Recipe | None = next(iter(recipes.values()), None)
    params: dict[str, Any] = {
        "recipe": None if recipe is None else recipe.model_dump(mode="json"),
        "roles": arguments.roles or usual_roles(recipes.values()),
        "models": models,
        "max_new_tokens": arguments.max_new_tokens,
        "temperature": arguments.temperature,
        "top_p": arguments.top_p,
        "seed": arguments.seed,
        "device": arguments.device,
        "judge": arguments.judge,
        "key_variable": arguments.key_variable,
    }
    system = [{"role": "system", "content": arguments.system}] if arguments.system else []
    typed = not arguments.prompt and sys.stdin.isatty()
    whole = True
    for text in arguments.prompt or _lines(typed):
        conversation = [*system, {"role": "user", "content": text}]
        reader = _Reader(quiet=arguments.json)
        if len(arguments.prompt) != 1 and not typed and not arguments.json:
            print(f"> {text}\n")
        try:
            found = run_job("chat", {**params, "conversation": conversation}, reader.show)
        except JobCancelled:
            reader.stopped()
            if not typed:
                raise
            continue  # Ctrl+C at a terminal ends the answer, and once more the chat
        whole = whole and not any("error" in answer for answer in found["answers"])
        if arguments.json:
            print(json.dumps({"prompt": text, **found}, ensure_ascii=False), flush=True)
    return 0 if whole else 1


def _lines(typed: bool) -> Iterator[str]:
    """Yield what is written, a line at a time; empty ones ask nothing."""
    while True:
        if typed:
            sys.stderr.write("> ")
            sys.stderr.flush()
        line = sys.stdin.readline()
        if not line:
            if typed:
                sys.stderr.write("\n")
            return
        if line.strip():
            yield line.strip()


class _Reader:
    """Writes what models say as they say it, and what the judge took it for when they are done."""

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet
        self._terminal = sys.stderr.isatty()
        self._speaker = self._shown = ""
        self._waiting = False

    def show(self, progress: Progress) -> None:
        """Take a report of the job."""
        if progress.part is not None:
            self._end(progress.part["answer"], progress.part["judge"])
        elif progress.text:
            self._say(progress.stage, progress.text)
        else:
            self._wait(f"{progress.stage} …")

    def stopped(self) -> None:
        """Leave the line that an answer broke off in."""
        self._wait("")
        if self._speaker and not self._quiet:
            print("\n  stopped here\n", flush=True)

    def _wait(self, text: str) -> None:
        """Show on a terminal what is waited for, in a line that goes again."""
        if self._terminal and (text or self._waiting) and not self._shown:
            width = shutil.get_terminal_size().columns - 1
            sys.stderr.write("\r" + text[:width].ljust(width) + ("" if text else "\r"))
            sys.stderr.flush()
            self._waiting = bool(text)

    def _say(self, speaker: str, text: str) -> None:
        if self._quiet:
            return
        if speaker != self._speaker:
            self._wait("")
            self._speaker, self._shown = speaker, ""
            print(f"{speaker}:")
        if not text.startswith(self._shown):  # what was taken for a character was half of one
            print()
            self._shown = ""
        sys.stdout.write(text[len(self._shown) :])
        sys.stdout.flush()
        self._shown = text

    def _end(self, answer: dict[str, Any], judge: str) -> None:
        if self._quiet:
            return
        error = answer.get("error")
        if error is not None:
            self._wait("")
            print(f"{answer['name']}:\n  {error['what']} {error['why']} {error['fix']}\n")
        else:
            self._say(answer["name"], answer["text"] or "(nothing)")
            print(f"\n  {_remark(answer, judge)}\n", flush=True)
        self._speaker = self._shown = ""


def _remark(answer: dict[str, Any], judge: str) -> str:
    verdict = answer["verdict"]
    said = _WORDS.get(verdict["outcome"], verdict["outcome"])
    score = "" if verdict["score"] is None else f", {verdict['score']} of 5"
    parts = [f"{said}{score} ({judge})", f"{answer['seconds']:.1f} s"]
    if answer["cut"]:
        parts.append("cut where the limit of tokens was")
    return " · ".join(parts)
