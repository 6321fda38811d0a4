"""Chooses the merged model's chat template: a known one, the inputs' most common, or a text."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import trimtab_resources
from trimtab.errors import UserError
from trimtab.merging.tokenizer_files import CONFIG

TEMPLATE = "chat_template.jinja"
NAMES = ("alpaca", "chatml", "exaone", "llama3", "mistral")


def chat_template_files(
    setting: str, inputs: Sequence[Path], start: Path, made: Mapping[str, bytes]
) -> dict[str, bytes]:
    """Return the files that hold the template which a recipe's `chat_template` asks for, by name.

    "auto" takes the one that most of the `inputs`' folders have, of equally many the first; there
    are none when no input has any. `start` is the folder that the output's files come from, `made`
    are those made anew. Raises `UserError` with `bad_recipe` when `setting` is neither a known
    name nor a template.
    """
    if setting == "auto":
        found = [template for folder in inputs if (template := _template_of(folder))]
        if not found:
            return {}
        text = Counter(found).most_common(1)[0][0]
    elif setting in NAMES:
        path = trimtab_resources.path("chat_templates", f"{setting}.jinja")
        text = path.read_text(encoding="utf-8")
    elif len(setting) >= 20 and "{" in setting:
        text = setting
    else:
        raise UserError(
            "bad_recipe",
            f"chat_template is {setting!r}.",
            f"It takes auto, one of {', '.join(NAMES)}, or the text of a Jinja template.",
            "Correct chat_template.",
        )
    files = {TEMPLATE: text.encode()}
    config = _config(made[CONFIG]) if CONFIG in made else _config_of(start)
    if "chat_template" in config:
        # older readers look only there, and two places must not say different things
        config["chat_template"] = text
        files[CONFIG] = (json.dumps(config, indent=2, ensure_ascii=False) + "\n").encode()
    return files


def _template_of(folder: Path) -> str:
    try:
        return (folder / TEMPLATE).read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        found = _config_of(folder).get("chat_template")
    if isinstance(found, list):  # several by name, as a list of {name, template}
        found = {entry.get("name"): entry.get("template") for entry in found}
    if isinstance(found, dict):
        found = found.get("default")
    return found.strip() if isinstance(found, str) else ""


def _config_of(folder: Path) -> dict[str, Any]:
    try:
        return _config((folder / CONFIG).read_bytes())
    except OSError:
        return {}


def _config(text: bytes) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
