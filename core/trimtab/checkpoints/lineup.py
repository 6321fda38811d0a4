"""The models of a lineup: who plays which part, and where each tensor comes from."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from trimtab.checkpoints.adapters import Change
from trimtab.checkpoints.grid import Grid, build_grid
from trimtab.checkpoints.index import Checkpoint

if TYPE_CHECKING:
    from trimtab.checkpoints.rows import RowMap

Role = Literal["base", "aligned", "finetuned"]
Level = Literal["note", "warning", "error"]


@dataclass(frozen=True)
class Finding:
    """One mismatch: what differs, in which model, and what will be done about it."""

    level: Level
    code: str
    model: str
    what: str
    effect: str
    tensors: tuple[str, ...] = ()


@dataclass(frozen=True)
class Source:
    """Where one model's version of a reference tensor comes from.

    Either a plain tensor (`row` of `checkpoint`), or the `change` that `adapter` makes on top of
    `row` of `checkpoint`, which is then the model the adapter belongs to. With `rows` the rows
    of the tensor are gathered from several places.
    """

    checkpoint: Checkpoint
    row: int
    adapter: Checkpoint | None = None
    change: Change | None = None
    rows: RowMap | None = None

    def same_bytes_as(self, other: Source) -> bool:
        """Whether both name the very same stored tensor."""
        return (
            self.change is None
            and other.change is None
            and self.rows == other.rows
            and self.row == other.row
            and self.checkpoint is other.checkpoint
        )


@dataclass(frozen=True)
class Member:
    """A model of the lineup.

    For a checkpoint that is an adapter, `adapter_base` says which role it was trained on; without,
    its config does. `adapter` is a LoRA on top of `checkpoint` itself, whatever the roles are.
    """

    role: Role
    checkpoint: Checkpoint
    name: str
    adapter_base: Literal["aligned", "base"] | None = None
    adapter: Checkpoint | None = None


@dataclass(frozen=True)
class Lineup:
    """Base, aligned and fine-tuned checkpoints, resolved tensor by tensor.

    The *reference* is the aligned model, or the base where there is none: task vectors are
    fine-tuned minus reference, and the merged model has the reference's layout.
    """

    base: Member | None
    aligned: Member | None
    finetuned: tuple[Member, ...]
    findings: tuple[Finding, ...]
    sources: Mapping[str, tuple[Source | None, ...]] = field(repr=False)

    @property
    def reference(self) -> Member:
        """The model that task vectors are measured from."""
        member = self.aligned or self.base
        assert member is not None  # build_lineup refuses a lineup without either
        return member

    @property
    def members(self) -> tuple[Member, ...]:
        """All models: base, aligned (where there are) and the fine-tuned ones."""
        first = tuple(m for m in (self.base, self.aligned) if m is not None)
        return first + self.finetuned

    @property
    def names(self) -> tuple[str, ...]:
        """The reference's tensor names: what every per-tensor array is ordered by."""
        return self.reference.checkpoint.index.names

    @property
    def has_alignment(self) -> bool:
        """Whether there is an alignment vector, that is base and aligned both."""
        return self.base is not None and self.aligned is not None

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings that keep this lineup from being merged."""
        return tuple(f for f in self.findings if f.level == "error")

    @cached_property
    def grid(self) -> Grid:
        """Layers x modules of the reference."""
        return build_grid(self.names)

    @cached_property
    def fingerprint(self) -> str:
        """Hex digest of all members' fingerprints and parts."""
        digest = hashlib.blake2b(digest_size=16)
        for column, m in enumerate(self.members):
            # an adapter's own base may have been guessed from folder names
            on = {
                source.checkpoint.fingerprint
                for row in self.sources.values()
                if m.checkpoint.kind == "adapter" and (source := row[column]) is not None
            }
            lora = m.adapter.fingerprint if m.adapter else ""
            digest.update(f"{m.role} {sorted(on)} {m.checkpoint.fingerprint} {lora}\n".encode())
        return digest.hexdigest()

    def source(self, name: str, member: Member) -> Source | None:
        """Return where `member`'s version of the reference tensor `name` comes from."""
        return self.sources[name][self.members.index(member)]

    @property
    def verdict(self) -> str:
        """One line for the panel under the cards."""
        errors = len(self.errors)
        if errors:
            return f"{errors} problem{'s' if errors > 1 else ''}: cannot be merged"
        if not self.finetuned:
            return f"{len(self.names):,} tensors · add a fine-tuned model"
        matched = sum(all(s is not None for s in row) for row in self.sources.values())
        text = (
            f"{matched:,} tensors match"
            if matched != len(self.names)
            else (f"all {matched:,} tensors match")
        )
        warnings = sum(f.level == "warning" for f in self.findings)
        if warnings:
            return f"{text} · {warnings} warning{'s' if warnings > 1 else ''}"
        return text
