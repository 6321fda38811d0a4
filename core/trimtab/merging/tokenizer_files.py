"""Reads and makes the files of a tokenizer, as data: no code of any model is run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from trimtab.errors import UserError

TOKENIZER, CONFIG, ADDED = "tokenizer.json", "tokenizer_config.json", "added_tokens.json"
#: older forms of the vocabulary: right as long as nothing is taken out of it
_ORIGINALS = (
    "tokenizer.model", "vocab.json", "merges.txt", "vocab.txt", "spiece.model",
    "sentencepiece.bpe.model",
)  # fmt: skip
_ALL = (
    TOKENIZER, CONFIG, ADDED, "special_tokens_map.json", "chat_template.jinja",
    "chat_template.json", *_ORIGINALS,
)  # fmt: skip
_PROPERTIES = ("single_word", "lstrip", "rstrip", "normalized", "special")


@dataclass(frozen=True)
class Vocabulary:
    """A tokenizer's words: each token's number, and what is said of the added ones."""

    ids: Mapping[str, int] = field(repr=False)
    added: Mapping[str, dict[str, Any]] = field(repr=False)


def read_vocabulary(folder: Path) -> Vocabulary | None:
    """Return the words of tokenizer.json in their order, None when there is no readable one."""
    try:
        content = json.loads((folder / TOKENIZER).read_bytes())
        model = content["model"]["vocab"]
        ids = dict(model) if isinstance(model, dict) else {row[0]: i for i, row in enumerate(model)}
        added = {str(entry["content"]): dict(entry) for entry in content.get("added_tokens") or ()}
        ids.update({token: entry["id"] for token, entry in added.items()})
        if not all(type(i) is int and i >= 0 for i in ids.values()):
            return None
    except (OSError, ValueError, KeyError, TypeError, IndexError, RecursionError):
        return None
    return Vocabulary(dict(sorted(ids.items(), key=lambda item: item[1])), added)


class TokenizerFiles:
    """A tokenizer on its way to the output: that of `folder`, which may lose and gain tokens.

    With `instead_of` it takes the place of that folder's tokenizer: all its files are written.
    """

    def __init__(self, folder: Path, vocabulary: Vocabulary, instead_of: Path | None = None):
        self._folder = folder
        self._other = instead_of if instead_of != folder else None
        self._added = {token: dict(entry) for token, entry in vocabulary.added.items()}
        self._stripped: set[str] = set()
        self._new: list[str] = []
        self.ids = dict(vocabulary.ids)
        self._edited = False

    @property
    def grown(self) -> bool:
        """Whether there are tokens that were not there before."""
        return bool(self._new)

    def strip(self, rows: int) -> None:
        """Take out the tokens that the model has no row for; only BPE vocabularies can lose any."""
        gone = {token for token, number in self.ids.items() if number >= rows}
        if not gone:
            return
        self._stripped = gone
        self._edited = True
        self.ids = {token: number for token, number in self.ids.items() if token not in gone}
        self._added = {t: entry for t, entry in self._added.items() if t not in gone}
        if gone & set(self._content()["model"]["vocab"]) and self._type() != "BPE":
            raise UserError(
                "tokenizer_without_rows",
                f"{len(gone)} tokens of {self._folder.name} have no row in its embedding.",
                f"Tokens cannot be taken out of a vocabulary of type {self._type()}.",
                "Use another model's tokenizer.",
                details=", ".join(sorted(gone)[:20]),
            )

    def add(self, tokens: Sequence[str]) -> None:
        """Add plain tokens, behind all others, where they are not there yet."""
        for token in tokens:
            if token not in self.ids:
                self._append(token, {})

    def add_all(self, others: Sequence[tuple[Vocabulary, int]]) -> None:
        """Add every token of `others`, each with the number of its model's rows.

        First their ordinary tokens, in the order of the vocabularies and of the numbers in each,
        then their added ones; of one that several add, the first one's properties count.
        """
        later: dict[str, dict[str, Any]] = {}
        for vocabulary, rows in others:
            for token, entry in vocabulary.added.items():
                if entry["id"] < rows:
                    later.setdefault(token, entry)
        for vocabulary, rows in others:
            fits = (t for t, number in vocabulary.ids.items() if number < rows)
            self.add([t for t in fits if t not in vocabulary.added and t not in later])
        for token, entry in later.items():
            if token not in self.ids:
                self._append(token, entry)
            elif token not in self._added:
                self._added[token] = self._entry(self.ids[token], token, entry)
                self._edited = True

    def _append(self, token: str, properties: Mapping[str, Any]) -> None:
        number = 1 + max(self.ids.values(), default=-1) if not self._new else (
            self.ids[self._new[-1]] + 1)  # fmt: skip
        self.ids[token] = number
        self._added[token] = self._entry(number, token, properties)
        self._new.append(token)
        self._edited = True

    @staticmethod
    def _entry(number: int, token: str, properties: Mapping[str, Any]) -> dict[str, Any]:
        flags = {name: bool(properties.get(name, name == "normalized")) for name in _PROPERTIES}
        return {"id": number, "content": token, **flags}

    @cached_property
    def changed(self) -> dict[str, bytes]:
        """The files that differ from those of the folder that the output starts from, by name."""
        files: dict[str, bytes] = {}
        if self._other is not None:
            for name in _ALL:
                if (self._folder / name).is_file() and not self._outdated(name):
                    files[name] = (self._folder / name).read_bytes()
        if self._edited:
            files[TOKENIZER] = self._tokenizer_json()
            if (config := self._config_json()) is not None:
                files[CONFIG] = config
            if (self._folder / ADDED).is_file():
                files[ADDED] = _dump({t: entry["id"] for t, entry in self._added.items()})
        return files

    @property
    def dropped(self) -> frozenset[str]:
        """The tokenizer's files in the folder the output starts from that must not be kept."""
        start = self._other or self._folder
        here = {name for name in _ALL if (start / name).is_file()}
        if self._other is not None:
            return frozenset(here - set(self.changed))
        return frozenset(name for name in here if self._outdated(name))

    def _outdated(self, name: str) -> bool:
        return bool(self._stripped) and name in _ORIGINALS

    def _content(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((self._folder / TOKENIZER).read_bytes())
        return content

    def _type(self) -> str:
        model = self._content()["model"]
        return str(model.get("type") or ("BPE" if "merges" in model else "another"))

    def _tokenizer_json(self) -> bytes:
        content = self._content()
        if self._stripped and isinstance(content["model"]["vocab"], dict):
            model = content["model"]
            model["vocab"] = {t: i for t, i in model["vocab"].items() if t not in self._stripped}
            if "merges" in model:
                model["merges"] = [m for m in model["merges"] if self._possible(m)]
        content["added_tokens"] = sorted(self._added.values(), key=lambda entry: int(entry["id"]))
        written = _dump(content)
        self._check(written)
        return written

    def _check(self, written: bytes) -> None:
        """Read what was made with the format's own library: it numbers added tokens by itself."""
        from tokenizers import Tokenizer

        try:
            found = Tokenizer.from_buffer(written).get_vocab(with_added_tokens=True)
        except Exception as error:  # the library knows no narrower class
            found, why = {}, f"The tokenizers library says: {error}."
        else:
            why = "Its numbers have gaps, behind which the library cannot add tokens."
        if found != self.ids:
            raise UserError(
                "tokenizer_not_writable",
                f"The tokenizer of {self._folder.name} cannot take the changes.",
                why,
                "Use another tokenizer.source.",
            )

    def _possible(self, merge: str | list[str]) -> bool:
        parts = merge.split(" ") if isinstance(merge, str) else merge
        return not any(part in self._stripped for part in (*parts, "".join(parts)))

    def _config_json(self) -> bytes | None:
        """Return tokenizer_config.json with the added tokens, None where it does not list them."""
        try:
            config = json.loads((self._folder / CONFIG).read_bytes())
        except (OSError, ValueError, RecursionError):
            return None
        if not isinstance(config, dict) or "added_tokens_decoder" not in config:
            return None
        config["added_tokens_decoder"] = {
            str(entry["id"]): {"content": token, **{p: entry.get(p, False) for p in _PROPERTIES}}
            for token, entry in sorted(self._added.items(), key=lambda item: int(item[1]["id"]))
        }
        return _dump(config)


def _dump(content: object) -> bytes:
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()
