"""Rows of tokens as they go through a model together: padded, or so that beginnings are shared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, TypeVar

import torch

Kind = Literal["harmful", "answer", "choice", "text"]
#: tokens, padding counted, and logits that go through a model together
_TOKENS = 4096
_LOGITS = 1 << 25
#: tokens of a pack at least, and as a multiple of its longest row: wider ones share more, and cost
#: more where each token looks at all others
_WIDTH, _ROWS = 128, 4


@dataclass(frozen=True)
class Row:
    """One probe: its tokens, those that are to come after its last ones, or the right option."""

    kind: Kind
    ids: tuple[int, ...]
    targets: tuple[int, ...] = ()
    options: tuple[int, ...] = ()
    answer: int = 0

    @property
    def keep(self) -> int:
        """How many of the last positions are looked at."""
        return len(self.targets) or 1


@dataclass(frozen=True)
class Group:
    """What is looked at in rows of one kind; int64 tensors but for `counted`.

    `targets` [rows, keep] holds what is to come after each of the last positions, −1 where nothing
    is, and `counted` where something is; `lengths` [rows] how many. `options` [rows, letters] are
    tokens, −1 where there is none, and `answers` [rows] the right ones' places. `at` [rows, keep]
    says where these positions are among all that a feed keeps; None where they are its rows.
    """

    kind: Kind
    targets: torch.Tensor
    counted: torch.Tensor
    lengths: torch.Tensor
    options: torch.Tensor
    answers: torch.Tensor
    at: torch.Tensor | None = None

    @property
    def keep(self) -> int:
        """How many positions of each row are looked at."""
        return self.targets.shape[1]


@dataclass(frozen=True)
class Feed:
    """What goes through a model together, padded on the left, and what is looked at in it.

    `ids` and `positions` are int64 [rows, tokens]. `mask` says what is there, int64
    [rows, tokens], or what each token sees, bool [rows, 1, tokens, tokens]. Of the logits the last
    `keep` positions are looked at.
    """

    ids: torch.Tensor
    mask: torch.Tensor
    positions: torch.Tensor
    keep: int
    groups: tuple[Group, ...]

    def to(self, device: torch.device) -> Feed:
        """Return the feed on a device."""
        groups = tuple(_moved(group, device) for group in self.groups)
        return replace(_moved(self, device), groups=groups)


_Held = TypeVar("_Held", "Group", "Feed")


def _moved(held: _Held, device: torch.device) -> _Held:
    moved: dict[str, Any] = {
        f.name: value.to(device)
        for f in fields(held)
        if isinstance(value := getattr(held, f.name), torch.Tensor)
    }
    return replace(held, **moved)


def pad(rows: Sequence[Row], filler: int, vocabulary: int) -> list[Feed]:
    """Return rows of one kind, in their order, in feeds that are not too large.

    `filler` is the token that stands where nothing is.
    """
    return [_padded(part, filler) for part in _parts(rows, vocabulary)]


def _parts(rows: Sequence[Row], vocabulary: int) -> list[list[Row]]:
    """Cut rows, in their order, so that no part is too large to go through together."""
    parts: list[list[Row]] = []
    width = keep = 0
    for row in rows:
        width, keep = max(width, len(row.ids)), max(keep, row.keep)
        size = len(parts[-1]) + 1 if parts else 0
        if not parts or size * width > _TOKENS or size * keep * vocabulary > _LOGITS:
            parts.append([])
            width, keep = len(row.ids), row.keep
        parts[-1].append(row)
    return parts


def _padded(rows: Sequence[Row], filler: int) -> Feed:
    width = max(len(row.ids) for row in rows)
    ids = torch.full((len(rows), width), filler)
    mask = torch.zeros((len(rows), width), dtype=torch.long)
    for i, row in enumerate(rows):
        ids[i, width - len(row.ids) :] = torch.tensor(row.ids)
        mask[i, width - len(row.ids) :] = 1
    group = _group(rows)
    return Feed(ids, mask, (mask.cumsum(1) - 1).clamp(min=0), group.keep, (group,))


def _group(rows: Sequence[Row]) -> Group:
    """Return what is looked at in rows of one kind."""
    keep = max(row.keep for row in rows)
    letters = max(1, *(len(row.options) for row in rows))
    targets = torch.full((len(rows), keep), -1)
    options = torch.full((len(rows), letters), -1)
    for i, row in enumerate(rows):
        if row.targets:
            targets[i, keep - len(row.targets) :] = torch.tensor(row.targets)
        if row.options:
            options[i, : len(row.options)] = torch.tensor(row.options)
    return Group(
        rows[0].kind,
        targets,
        targets >= 0,
        torch.tensor([row.keep for row in rows]),
        options,
        torch.tensor([row.answer for row in rows]),
    )


# Packs: what rows begin with alike is there once.


class _Pack:
    """A tree of tokens, of which each sees those that lead to it; a row is a way from its root.

    A node is a number; `tokens`, `parents` (−1 above the first) and `depths` are theirs, and
    `needed` those whose logits are looked at.
    """

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.ways: list[list[int]] = []
        self.tokens: list[int] = []
        self.parents: list[int] = []
        self.depths: list[int] = []
        self.needed: dict[int, None] = {}
        self._children: dict[tuple[int, int], int] = {}

    def grown(self, row: Row) -> int:
        """Return how many nodes there would be with another row."""
        node = -1
        for known, token in enumerate(row.ids):
            found = self._children.get((node, token))
            if found is None:
                return len(self.tokens) + len(row.ids) - known
            node = found
        return len(self.tokens)

    def add(self, row: Row) -> None:
        """Add a row's tokens, as far as they are not there yet."""
        way: list[int] = []
        node = -1
        for depth, token in enumerate(row.ids):
            below = self._children.setdefault((node, token), len(self.tokens))
            if below == len(self.tokens):
                self.tokens.append(token)
                self.parents.append(node)
                self.depths.append(depth)
            way.append(below)
            node = below
        self.rows.append(row)
        self.ways.append(way)
        self.needed |= dict.fromkeys(way[-row.keep :])

    @property
    def order(self) -> list[int]:
        """The nodes, with those that are looked at last."""
        return [*(n for n in range(len(self.tokens)) if n not in self.needed), *self.needed]


def pack(rows: Sequence[Row], filler: int, vocabulary: int) -> list[Feed]:
    """Return rows in feeds in which what neighbours begin with alike is there only once.

    Rows are of any kinds, one kind after the other, and stay in their order. A model whose tokens
    see nothing but what their mask and position tell gives them the logits that it gives each row
    alone, but for rounding.
    """
    if not rows:
        return []
    width = max(_WIDTH, _ROWS * max(len(row.ids) for row in rows))
    packs: list[_Pack] = []
    for row in rows:
        if not packs or packs[-1].grown(row) > width:
            packs.append(_Pack())
        packs[-1].add(row)
    feeds: list[list[_Pack]] = []
    for each in packs:
        together = [*feeds[-1], each] if feeds else []
        tokens = len(together) * max((len(p.tokens) for p in together), default=0)
        logits = len(together) * max((len(p.needed) for p in together), default=0) * vocabulary
        if not together or tokens > _TOKENS or logits > _LOGITS:
            feeds.append([])
        feeds[-1].append(each)
    return [_fed(part, filler) for part in feeds]


def _fed(packs: Sequence[_Pack], filler: int) -> Feed:
    width = max(len(pack.tokens) for pack in packs)
    keep = max(len(pack.needed) for pack in packs)
    ids = torch.full((len(packs), width), filler)
    positions = torch.zeros((len(packs), width), dtype=torch.long)
    # what stands where nothing is sees itself: attention to nothing would be no number
    sees = torch.eye(width, dtype=torch.bool).repeat(len(packs), 1, 1)
    rows: dict[Kind, list[Row]] = {}
    at: dict[Kind, list[list[int]]] = {}
    for number, each in enumerate(packs):
        start = width - len(each.tokens)
        place = {node: start + i for i, node in enumerate(each.order)}
        for node, parent in enumerate(each.parents):  # parents come first
            slot = place[node]
            ids[number, slot] = each.tokens[node]
            positions[number, slot] = each.depths[node]
            if parent >= 0:
                sees[number, slot] |= sees[number, place[parent]]
        for row, way in zip(each.rows, each.ways, strict=True):
            rows.setdefault(row.kind, []).append(row)
            seen = [number * keep + place[node] - (width - keep) for node in way[-row.keep :]]
            at.setdefault(row.kind, []).append(seen)
    groups = []
    for kind, own in rows.items():
        group = _group(own)
        # where a row has fewer positions than others its first one fills in, and is not counted
        full = [[seen[0]] * (group.keep - len(seen)) + seen for seen in at[kind]]
        groups.append(replace(group, at=torch.tensor(full)))
    return Feed(ids, sees[:, None], positions, keep, tuple(groups))
