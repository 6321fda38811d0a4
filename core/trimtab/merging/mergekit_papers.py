"""What a mergekit document says of the output: its precision, tokenizer and chat template."""

from __future__ import annotations

from typing import Any

from trimtab.checkpoints.hub import resolve
from trimtab.merging.mergekit_models import RESERVED, Models
from trimtab.merging.mergekit_scopes import Data, check_keys, mistake

_DTYPES = ("float32", "float16", "bfloat16")


def output_data(document: Data, notes: list[str]) -> Data:
    """Return the recipe's `output`: out_dtype, or else dtype."""
    names = {}
    for key in ("dtype", "out_dtype"):
        value = document.get(key)
        if value is None:
            continue
        names[key] = str(value).removeprefix("torch.")
        if names[key] not in _DTYPES:
            raise mistake(
                f"{key} is {value!r}.",
                f"Models are written in {', '.join(_DTYPES)}.",
                f"Choose one of these for {key}.",
            )
    if names.get("dtype") in ("float16", "bfloat16"):
        notes.append(
            f"dtype {names['dtype']}: arithmetic is float32 here all the same and rounds once, "
            "so that the last digits are better than mergekit's."
        )
    chosen = names.get("out_dtype") or names.get("dtype")
    return {"output": {"dtype": chosen}} if chosen else {}


def tokenizer_data(document: Data, models: Models) -> Data:
    """Return the recipe's `tokenizer` and `chat_template`; `models` has all those merged."""
    data: Data = {}
    template = document.get("chat_template")
    if template is not None:
        if not isinstance(template, str) or not template:
            raise mistake(
                f"chat_template is {template!r}.", "It is a name or a template's own text."
            )
        data["chat_template"] = template
    source, tokenizer = document.get("tokenizer_source"), document.get("tokenizer")
    if source and tokenizer:
        raise mistake(
            "There are both tokenizer_source and tokenizer.",
            "tokenizer_source: x is short for tokenizer: {source: x}.",
            "Keep one of them.",
        )
    if source:
        data["tokenizer"] = {"source": _source(source, "tokenizer_source", models)}
    elif tokenizer is not None:
        check_keys(tokenizer, ("source", "tokens", "pad_to_multiple_of"), "tokenizer")
        made: Data = {"source": "union"}
        if tokenizer.get("source"):
            made["source"] = _source(tokenizer["source"], "tokenizer.source", models)
        tokens = tokenizer.get("tokens") or {}
        if not isinstance(tokens, dict):
            raise mistake(f"tokenizer.tokens is {tokens!r}.", "It has a key for each token.")
        made["tokens"] = {
            str(token): _token(entry or {}, f"tokenizer.tokens[{token!r}]", models)
            for token, entry in tokens.items()
        }
        if tokenizer.get("pad_to_multiple_of") is not None:
            made["pad_to_multiple_of"] = tokenizer["pad_to_multiple_of"]
        data["tokenizer"] = made
    return data


def _source(value: Any, key: str, models: Models) -> str:
    if value in RESERVED:
        return str(value)
    reference = models.parse(value, key)
    if reference in models.names:
        return models.names[reference]
    # a tokenizer may also come from a model that is not merged
    return str(resolve(reference.path, reference.revision))


def _token(entry: Any, key: str, models: Models) -> Data:
    check_keys(entry, ("source", "force"), key)
    made: Data = {"force": entry["force"]} if entry.get("force") is not None else {}
    source = entry.get("source")
    if isinstance(source, dict) and "kind" in source:
        check_keys(source, ("kind", "model", "token", "token_id"), f"{key}.source")
        made["source"] = dict(source)
        if source["kind"] == "model_token":
            made["source"]["model"] = _merged(source.get("model"), f"{key}.source.model", models)
    elif source is not None:
        made["source"] = _merged(source, f"{key}.source", models)
    return made


def _merged(value: Any, key: str, models: Models) -> str:
    reference = models.parse(value, key)
    if reference not in models.names:
        raise mistake(
            f"{key} is {reference}, which is not merged.",
            "Rows come from the models of the merge.",
            "Name one of them.",
        )
    return models.names[reference]
