"""Brings models with different vocabularies to one: which row of which model each token has."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from trimtab.checkpoints.lineup import Finding, Source
from trimtab.checkpoints.naming import parse
from trimtab.checkpoints.rows import ZERO, RowMap, build_row_map
from trimtab.errors import UserError
from trimtab.merging.settings import ModelToken, Tokenizer, TokenSource, ZeroRow
from trimtab.merging.tokenizer_files import TokenizerFiles, Vocabulary, read_vocabulary

Ints = npt.NDArray[np.int64]
_AVERAGED = -2


@dataclass(frozen=True)
class VocabularyModel:
    """A model as far as its words go: `folder` has tokenizer.json, `rows` its embedding's rows.

    `input` is False for a model that gives the output its form and is not merged itself.
    """

    name: str
    folder: Path
    rows: int
    input: bool = True


@dataclass(frozen=True, eq=False)
class VocabularyPlan:
    """One vocabulary for all models.

    `ids` are the tokens' numbers, `n_rows` is the length of every vocabulary axis and the
    config's vocab_size. `files` are the tokenizer's files that differ from the reference's own,
    `dropped` those of the reference's that the output must not have.
    """

    n_rows: int
    ids: Mapping[str, int] = field(repr=False)
    files: Mapping[str, bytes] = field(repr=False)
    dropped: frozenset[str]
    findings: tuple[Finding, ...]
    models: tuple[VocabularyModel, ...] = field(repr=False)
    base: int | None
    #: int64 [models, rows without padding]: each model's own row of an output row, -1 for none
    own: Ints = field(repr=False)
    chosen: Mapping[int, tuple[int, int]] = field(repr=False)
    forced: frozenset[int] = field(repr=False)
    unnamed: npt.NDArray[np.bool_] = field(repr=False)
    padding: int
    reference: int

    @property
    def fingerprint(self) -> str:
        """Hex digest of every row's origin and of the tokenizer's files."""
        digest = hashlib.blake2b(self.own.tobytes(), digest_size=16)
        digest.update(repr((self.n_rows, self.base, sorted(self.chosen.items()))).encode())
        digest.update(repr((sorted(self.forced), self.padding)).encode())
        for name in sorted(self.files):
            digest.update(name.encode() + self.files[name])
        return digest.hexdigest()

    def new_id(self, old: int) -> int | None:
        """Return the number that the reference's token `old` has now, None when it has none.

        For what the config says of bos, eos and padding.
        """
        places = np.flatnonzero((self.own[self.reference] == old) & ~self.unnamed)
        return int(places[0]) if len(places) else None

    def row_map(self, member: int, sources: Sequence[Source | None]) -> RowMap | None:
        """Return how `member`'s version of one tensor is made, None where it stays as it is.

        `sources` are all models' versions of that tensor in the order of `models`; models that
        lack the tensor do not count. Raises `UserError` with `no_such_row` when a token's row is
        to come from such a model, or from none.
        """
        own_source = sources[member]
        assert own_source is not None
        present = [i for i, s in enumerate(sources) if s is not None and self.models[i].input]
        part, row, averaged = self._rows(member, present)
        n_own = own_source.checkpoint.index.shapes[own_source.row][0]
        straight = (part == member) & (row == np.arange(len(row)))
        if straight.all() and not averaged and n_own == len(row) and not self.padding:
            return None
        used = sorted({*part.tolist(), *(p for pairs in averaged.values() for p, _ in pairs)})
        numbers = [i for i in used if i >= 0]
        renumbered = np.full(len(sources) + 1, ZERO, dtype=np.int64)
        renumbered[numbers] = np.arange(len(numbers))
        place = {old: new for new, old in enumerate(numbers)}
        parts = [source for i in numbers if (source := sources[i]) is not None]
        assert len(parts) == len(numbers)
        return build_row_map(
            parts,
            np.where(part >= 0, renumbered[np.maximum(part, 0)], ZERO),
            row,
            {i: tuple((place[p], r) for p, r in pairs) for i, pairs in averaged.items()},
            self.padding,
        )

    def _rows(
        self, member: int, present: list[int]
    ) -> tuple[Ints, Ints, dict[int, tuple[tuple[int, int], ...]]]:
        """Return each output row's part and row, and the rows that are means."""
        n = self.own.shape[1]
        own = self.own[present]
        has = own >= 0
        count = has.sum(axis=0)
        first = has.argmax(axis=0) if present else np.zeros(n, dtype=np.int64)
        part = np.full(n, _AVERAGED, dtype=np.int64)
        row = np.zeros(n, dtype=np.int64)
        single = (count == 1) | (self.unnamed & (count > 0))
        part[single] = np.asarray(present, dtype=np.int64)[first[single]]
        row[single] = own[first[single], np.flatnonzero(single)]
        part[count == 0] = ZERO
        preferred = [self.reference] if self.base is None else [self.base]
        for model in preferred:
            if model in present:
                mine = self.own[model] >= 0
                mine &= self.unnamed if self.base is None else count > 1
                part[mine], row[mine] = model, self.own[model][mine]
        for target, (model, at) in self.chosen.items():
            if model >= 0 and model not in present:
                self._check_needed(target, member, model)
            part[target], row[target] = model, at
        mine = self.own[member] >= 0
        mine[list(self.forced)] = False
        part[mine], row[mine] = member, self.own[member][mine]
        averaged = {
            int(i): tuple(
                (model, int(self.own[model, i])) for model in present if self.own[model, i] >= 0
            )
            for i in np.flatnonzero(part == _AVERAGED)
        }
        part[part == _AVERAGED] = ZERO
        return part, row, averaged

    def _check_needed(self, target: int, member: int, model: int) -> None:
        if self.own[member, target] >= 0 and target not in self.forced:
            return
        token = next((t for t, i in self.ids.items() if i == target), str(target))
        raise UserError(
            "no_such_row",
            f"The row of token {token!r} is to come from {self.models[model].name}, "
            "which lacks a tensor of the vocabulary.",
            "Its head may be tied to its embedding.",
            "Choose another source for the token.",
        )


def vocabulary_tensors(names: Sequence[str], shapes: Sequence[tuple[int, ...]]) -> list[str]:
    """Return the names of the tensors whose first axis is the vocabulary: embeddings and heads.

    The embedding's own length tells what else belongs to it, such as a head's bias.
    """
    candidates = {
        name: shape[0]
        for name, shape in zip(names, shapes, strict=True)
        if shape and (parse(name).module in ("embed", "head") or "embed_tokens" in name)
    }
    rows = next(
        (n for name, n in candidates.items() if parse(name).module == "embed"),
        next(iter(candidates.values()), 0),
    )
    return [name for name, n in candidates.items() if n == rows]


def plan_vocabulary(
    models: Sequence[VocabularyModel],
    reference: int,
    base: int | None,
    tokenizer: Tokenizer | None = None,
) -> VocabularyPlan | None:
    """Return the one vocabulary of `models`, None when all have the same rows and words.

    `reference` is the model with the output's form, `base` the one that task vectors start from
    (None: there is none), both as places in `models`. With `tokenizer` tokens and rows are as
    mergekit's: a token that a model lacks gets the row of its only owner, else the base's, else
    the mean of those who have it, else zeros. Without, the reference's vocabulary is kept and
    grows by what others have beside it, no row is cut off, and rows without a token stay.

    Raises `UserError` with `no_tokenizer` when there is none to start from.
    """
    findings: list[Finding] = []
    vocabularies = _read_all(models, reference, findings)
    asked = tokenizer is not None
    if vocabularies is None:
        if asked:
            raise UserError(
                "no_tokenizer",
                f"{models[reference].name} has no readable tokenizer.json.",
                "The recipe's tokenizer is made from it.",
                "Add the file, or remove the key tokenizer.",
                details=str(models[reference].folder),
            )
        if len({model.rows for model in models}) == 1:
            return None
        vocabularies = [Vocabulary({}, {}) for _ in models]
    if not asked and len({m.rows for m in models}) == 1:
        first = vocabularies[reference].ids
        if all(vocabulary.ids == first for vocabulary in vocabularies):
            return None
    tokenizer = tokenizer or Tokenizer()
    files = _tokenizer(models, reference, tokenizer, vocabularies, asked)
    ids = files.ids
    limit = 1 + max(ids.values(), default=-1)
    if not asked:
        limit = max(limit if files.grown else 0, *(model.rows for model in models))
    n_rows = limit
    if asked and tokenizer.pad_to_multiple_of:
        n_rows = -(-limit // tokenizer.pad_to_multiple_of) * tokenizer.pad_to_multiple_of
    own, unnamed = _own_rows(models, vocabularies, ids, limit)
    chosen, forced = _chosen(tokenizer.tokens, models, vocabularies, ids, own)
    findings += _moved(models, vocabularies, reference)
    findings += _zero_rows(models, ids, own, chosen)
    return VocabularyPlan(
        n_rows, ids, files.changed, files.dropped, tuple(findings), tuple(models), base, own,
        chosen, forced, unnamed, n_rows - limit, reference,
    )  # fmt: skip


def _read_all(
    models: Sequence[VocabularyModel], reference: int, findings: list[Finding]
) -> list[Vocabulary] | None:
    found = [read_vocabulary(model.folder) for model in models]
    own = found[reference]
    if own is None:
        return None
    for model, vocabulary in zip(models, found, strict=True):
        if vocabulary is None:
            findings.append(
                Finding("warning", "tokenizer_unreadable", model.name,
                        "It has no readable tokenizer.json.",
                        f"Its rows are taken to be {models[reference].name}'s tokens.")
            )  # fmt: skip
    return [vocabulary or own for vocabulary in found]


def _tokenizer(
    models: Sequence[VocabularyModel],
    reference: int,
    tokenizer: Tokenizer,
    vocabularies: Sequence[Vocabulary],
    asked: bool,
) -> TokenizerFiles:
    """Return the output's tokenizer, made from the reference's or the one that is asked for."""
    names = [model.name for model in models]
    model, own = models[reference], vocabularies[reference]
    union = tokenizer.source == "union"
    if not union and tokenizer.source != "base":
        if tokenizer.source in names:
            place = names.index(tokenizer.source)
            folder, found = models[place].folder, read_vocabulary(models[place].folder)
        else:
            folder = Path(tokenizer.source)
            found = read_vocabulary(folder)
        if found is None:
            raise UserError(
                "no_tokenizer",
                f"{tokenizer.source} has no readable tokenizer.json.",
                "tokenizer.source takes union, base, or a model with one.",
                "Correct tokenizer.source.",
                details=str(folder),
            )
        files = TokenizerFiles(folder, found, instead_of=model.folder)
    else:
        files = TokenizerFiles(model.folder, own)
        if asked:
            files.strip(model.rows)
    if union:
        order = [reference, *(i for i in range(len(models)) if i != reference)]
        files.add_all([(vocabularies[i], models[i].rows) for i in order])
    files.add(list(tokenizer.tokens))
    return files


def _own_rows(
    models: Sequence[VocabularyModel],
    vocabularies: Sequence[Vocabulary],
    ids: Mapping[str, int],
    limit: int,
) -> tuple[Ints, npt.NDArray[np.bool_]]:
    """Return each model's own row of each output row, int64 [models, limit], -1 for none.

    An output row without a token is the same row of any model that has it without a token.
    """
    tokens = list(ids)
    places = np.fromiter(ids.values(), dtype=np.int64, count=len(ids))
    unnamed = np.ones(limit, dtype=np.bool_)
    unnamed[places[places < limit]] = False
    own = np.full((len(models), limit), -1, dtype=np.int64)
    for i, (model, vocabulary) in enumerate(zip(models, vocabularies, strict=True)):
        rows = np.fromiter(
            (vocabulary.ids.get(token, -1) for token in tokens), dtype=np.int64, count=len(tokens)
        )
        rows[rows >= model.rows] = -1
        inside = places < limit
        own[i, places[inside]] = rows[inside]
        free = np.zeros(limit, dtype=np.bool_)
        free[: model.rows] = True
        taken = np.fromiter(vocabulary.ids.values(), dtype=np.int64, count=len(vocabulary.ids))
        free[taken[taken < limit]] = False
        free &= unnamed
        own[i, free] = np.flatnonzero(free)
    return own, unnamed


def _chosen(
    tokens: Mapping[str, TokenSource],
    models: Sequence[VocabularyModel],
    vocabularies: Sequence[Vocabulary],
    ids: Mapping[str, int],
    own: Ints,
) -> tuple[dict[int, tuple[int, int]], frozenset[int]]:
    """Return the rows whose origin the recipe names, and those that all models take from it."""
    chosen: dict[int, tuple[int, int]] = {}
    names = [model.name for model in models]
    inputs = [i for i, model in enumerate(models) if model.input]
    for token, given in tokens.items():
        target = ids[token]
        key = f"tokenizer.tokens[{token!r}]"
        source = given.source
        if source is None:
            if given.force or (own[inputs, target] < 0).any():
                raise _bad_token(key, "has no source", "A model lacks the token.")
            continue
        if isinstance(source, ZeroRow):
            chosen[target] = (ZERO, 0)
            continue
        name = source.model if isinstance(source, ModelToken) else source
        place = next((i for i in inputs if names[i] == name), None)
        if place is None:
            raise _bad_token(key, f"takes its row from {name}", "No model is called so.")
        if isinstance(source, str):
            row = int(own[place, target])
        elif source.token_id is not None:
            row = source.token_id
        else:
            row = vocabularies[place].ids.get(str(source.token), -1)
        if not 0 <= row < models[place].rows:
            what = f"token number {row}" if row >= 0 else "that token"
            raise _bad_token(key, f"takes its row from {name}", f"{name} does not have {what}.")
        chosen[target] = (place, row)
    return chosen, frozenset(ids[token] for token, given in tokens.items() if given.force)


def _bad_token(key: str, what: str, why: str) -> UserError:
    return UserError("no_such_row", f"{key} {what}.", why, "Correct its source.")


def _moved(
    models: Sequence[VocabularyModel], vocabularies: Sequence[Vocabulary], reference: int
) -> list[Finding]:
    found = []
    ref, name = vocabularies[reference].ids, models[reference].name
    for model, vocabulary in zip(models, vocabularies, strict=True):
        if vocabulary.ids == ref:
            continue
        moved = [t for t, i in ref.items() if vocabulary.ids.get(t, i) != i]
        missing = [t for t in ref if t not in vocabulary.ids]
        extra = [t for t in vocabulary.ids if t not in ref]
        found.append(
            Finding("warning" if moved else "note", "vocabularies_differ", model.name,
                    f"{len(moved)} tokens have another number than in {name}, "
                    f"{len(missing)} are missing and {len(extra)} are its own.",
                    "Rows are matched by their token.", tuple((moved or extra or missing)[:100]))
        )  # fmt: skip
    return found


def _zero_rows(
    models: Sequence[VocabularyModel],
    ids: Mapping[str, int],
    own: Ints,
    chosen: Mapping[int, tuple[int, int]],
) -> list[Finding]:
    inputs = [i for i, model in enumerate(models) if model.input]
    nowhere: npt.NDArray[np.bool_] = np.all(own[inputs] < 0, axis=0)
    tokens = [t for t, i in ids.items() if i < len(nowhere) and nowhere[i] and i not in chosen]
    if not tokens:
        return []
    return [
        Finding("warning", "tokens_without_row", models[inputs[0]].name,
                f"{len(tokens)} tokens are in no model that is merged.",
                "Their rows are zeros.", tuple(tokens[:100]))
    ]  # fmt: skip
