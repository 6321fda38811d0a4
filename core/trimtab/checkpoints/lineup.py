"""Says who plays which part, and whether they fit together."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

from trimtab.checkpoints.adapters import AdapterMap, LowRank, adapter_map
from trimtab.checkpoints.grid import Grid, build_grid
from trimtab.checkpoints.index import Checkpoint
from trimtab.errors import UserError

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

    Either a plain tensor (`row` of `checkpoint`), or `low_rank` factors of an adapter on top of
    `row` of `checkpoint`, which is then the model the adapter belongs to.
    """

    checkpoint: Checkpoint
    row: int
    adapter: Checkpoint | None = None
    low_rank: LowRank | None = None

    def same_bytes_as(self, other: Source) -> bool:
        """Whether both name the very same stored tensor."""
        return (
            self.low_rank is None
            and other.low_rank is None
            and self.row == other.row
            and self.checkpoint is other.checkpoint
        )


@dataclass(frozen=True)
class Member:
    """A model of the lineup and, for an adapter, the role it was trained on."""

    role: Role
    checkpoint: Checkpoint
    name: str
    adapter_base: Literal["aligned", "base"] | None = None


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
        for m in self.members:
            digest.update(f"{m.role} {m.adapter_base} {m.checkpoint.fingerprint}\n".encode())
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
        text = f"{matched:,} tensors match" if matched != len(self.names) else (
            f"all {matched:,} tensors match"
        )
        warnings = sum(f.level == "warning" for f in self.findings)
        if warnings:
            return f"{text} · {warnings} warning{'s' if warnings > 1 else ''}"
        return text


def build_lineup(
    base: Member | None, aligned: Member | None, finetuned: Sequence[Member]
) -> Lineup:
    """Resolve the members against the reference and list every mismatch.

    Raises `UserError` with `no_reference` when there is neither base nor aligned, with
    `adapter_as_reference` when an adapter stands for one of them, and with `same_name` when two
    fine-tuned models share a name.
    """
    reference = aligned or base
    if reference is None:
        raise UserError(
            "no_reference",
            "There is no model to compare with.",
            "A task vector is fine-tuned minus aligned (or base).",
            "Add the aligned model, or the base.",
        )
    for member in (base, aligned):
        if member is not None and member.checkpoint.kind == "adapter":
            raise UserError(
                "adapter_as_reference",
                f"{member.name} is an adapter and cannot be the {member.role} model.",
                "An adapter holds only a change to another model.",
                "Add it as a fine-tuned model.",
            )
    names = [m.name for m in finetuned]
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(
            "same_name",
            f"Two fine-tuned models are called {twice}.",
            "Ratios are given by name.",
            "Rename one of them.",
        )
    members = [m for m in (base, aligned) if m is not None] + list(finetuned)
    findings: list[Finding] = []
    columns = [_resolve(m, reference, base, aligned, findings) for m in members]
    sources = {
        name: tuple(column.get(name) for column in columns)
        for name in reference.checkpoint.index.names
    }
    return Lineup(base, aligned, tuple(finetuned), tuple(findings), sources)


def _resolve(
    member: Member,
    reference: Member,
    base: Member | None,
    aligned: Member | None,
    findings: list[Finding],
) -> dict[str, Source]:
    checkpoint = member.checkpoint
    findings.extend(
        Finding("note", "left_aside", member.name, note, "Nothing else is done about it.")
        for note in checkpoint.notes
    )
    if checkpoint.kind == "adapter":
        return _resolve_adapter(member, base, aligned, findings)
    if quantization := checkpoint.config.get("quantization_config"):
        method = quantization.get("quant_method", "") if isinstance(quantization, dict) else ""
        findings.append(
            Finding(
                "error", "quantised", member.name,
                f"Its weights are quantised{f' ({method})' if method else ''}.",
                "Packed weights cannot be averaged: use the unquantised model.",
            )
        )  # fmt: skip
    column = _match_tensors(member, reference, findings)
    if member is not reference:
        findings.extend(_compare_configs(member, reference))
        findings.extend(_compare_tokenizers(member, reference))
    return column


def _match_tensors(
    member: Member, reference: Member, findings: list[Finding]
) -> dict[str, Source]:
    own, ref = member.checkpoint.index, reference.checkpoint.index
    column: dict[str, Source] = {}
    missing: list[str] = []
    shapes: list[str] = []
    dtypes: list[str] = []
    used: set[str] = set()
    for row, name in enumerate(ref.names):
        found = name
        if name not in own and name == "lm_head.weight" and member.checkpoint.ties_embeddings:
            found = "model.embed_tokens.weight"
        if found not in own:
            missing.append(name)
            continue
        used.add(found)
        own_row = own.row(found)
        if own.shapes[own_row] != ref.shapes[row]:
            shapes.append(
                f"{name}: {list(own.shapes[own_row])} against {list(ref.shapes[row])}"
            )
            continue
        if own.dtype[own_row] != ref.dtype[row]:
            dtypes.append(name)
            if own.dtype_of(own_row).mergeable != ref.dtype_of(row).mergeable:
                shapes.append(f"{name}: {own.dtype_of(own_row).label} against "
                              f"{ref.dtype_of(row).label}")  # fmt: skip
                continue
        column[name] = Source(member.checkpoint, own_row)
    extra = [name for name in own.names if name not in used]
    findings.extend(_tensor_findings(member, reference, missing, shapes, dtypes, extra))
    return column


def _tensor_findings(
    member: Member,
    reference: Member,
    missing: list[str],
    shapes: list[str],
    dtypes: list[str],
    extra: list[str],
) -> list[Finding]:
    found: list[Finding] = []
    is_base = member.role == "base"
    total = len(reference.checkpoint.index)
    if missing and len(missing) == total:
        return [
            Finding(
                "error", "other_model", member.name,
                f"None of its tensors has a name that {reference.name} knows.",
                "It is another kind of model and cannot be part of this lineup.",
                tuple(extra[:100]),
            )
        ]  # fmt: skip
    if missing:
        effect = (
            "Their alignment vector is not shown." if is_base
            else f"They count as unchanged from {reference.name}."
        )  # fmt: skip
        found.append(
            Finding("warning", "missing_tensors", member.name,
                    f"{len(missing)} tensors of {reference.name} are missing.", effect,
                    tuple(missing))
        )  # fmt: skip
    if shapes:
        found.append(
            Finding("warning" if is_base else "error", "shapes_differ", member.name,
                    f"{len(shapes)} tensors have another shape or kind of number.",
                    "Their alignment vector is not shown." if is_base
                    else "They cannot be merged: use a model of the same architecture.",
                    tuple(shapes))
        )  # fmt: skip
    if dtypes:
        found.append(
            Finding("note", "dtypes_differ", member.name,
                    f"{len(dtypes)} tensors are stored in another precision.",
                    f"Arithmetic is fp32 all the same; the output has {reference.name}'s.",
                    tuple(dtypes))
        )  # fmt: skip
    if extra:
        found.append(
            Finding("note" if is_base else "warning", "extra_tensors", member.name,
                    f"{len(extra)} tensors are not in {reference.name}.",
                    "They are left out of the merged model.", tuple(extra))
        )  # fmt: skip
    return found


def _resolve_adapter(
    member: Member, base: Member | None, aligned: Member | None, findings: list[Finding]
) -> dict[str, Source]:
    trained_on = _adapter_base(member, base, aligned)
    if trained_on is None:
        declared = member.checkpoint.config.get("base_model_name_or_path")
        findings.append(
            Finding("error", "adapter_other_base", member.name,
                    f"It was made for {declared or 'a model it does not name'}.",
                    "Say which model of the lineup that is, or open it beside its own base.")
        )  # fmt: skip
        return {}
    index = trained_on.checkpoint.index
    try:
        changes: AdapterMap = adapter_map(
            member.checkpoint, dict(zip(index.names, index.shapes, strict=True))
        )
    except UserError as error:
        findings.append(Finding("error", error.code, member.name, error.what,
                                f"{error.why} {error.fix}"))  # fmt: skip
        return {}
    column: dict[str, Source] = {}
    for row, name in enumerate(index.names):
        if name in changes.replaced:
            column[name] = Source(member.checkpoint, changes.replaced[name])
        else:
            low_rank = changes.low_rank.get(name)
            column[name] = Source(
                trained_on.checkpoint, row, member.checkpoint if low_rank else None, low_rank
            )
    findings.append(
        Finding("note", "adapter_applied", member.name,
                f"It changes {len(changes.low_rank) + len(changes.replaced)} tensors of "
                f"{trained_on.name}.",
                "The others count as unchanged.")
    )  # fmt: skip
    return column


def _adapter_base(member: Member, base: Member | None, aligned: Member | None) -> Member | None:
    """The model an adapter belongs to: as told, or by the name its config gives."""
    if member.adapter_base is not None:
        return aligned if member.adapter_base == "aligned" else base
    declared = str(member.checkpoint.config.get("base_model_name_or_path") or "")
    tail = declared.replace("\\", "/").rstrip("/").rsplit("/", 1)[-1].casefold()
    for candidate in (aligned, base):
        if candidate is None or not tail:
            continue
        known = {candidate.checkpoint.name, str(candidate.checkpoint.config.get("_name_or_path", ""))}
        if any(tail == name.rsplit("/", 1)[-1].casefold() for name in known if name):
            return candidate
    return None


_CONFIG_KEYS = (
    ("model_type", "error"),
    ("hidden_size", "error"),
    ("num_hidden_layers", "error"),
    ("num_attention_heads", "error"),
    ("num_key_value_heads", "error"),
    ("rope_theta", "warning"),
    ("rms_norm_eps", "warning"),
    ("hidden_act", "warning"),
    ("tie_word_embeddings", "warning"),
)


def _compare_configs(member: Member, reference: Member) -> list[Finding]:
    own, ref = member.checkpoint.config, reference.checkpoint.config
    found: list[Finding] = []
    for key, level in _CONFIG_KEYS:
        if key in own and key in ref and own[key] != ref[key]:
            weak = member.role == "base" and level == "error"
            found.append(
                Finding("warning" if weak else level, "configs_differ", member.name,  # type: ignore[arg-type]
                        f"{key} is {own[key]} here and {ref[key]} in {reference.name}.",
                        "They cannot be merged." if level == "error" and not weak
                        else f"The merged model keeps {reference.name}'s.")
            )  # fmt: skip
    return found


def _vocabulary(folder: Path) -> dict[str, int] | None:
    """Token -> id as tokenizer.json says, None when there is no readable one."""
    try:
        content = json.loads((folder / "tokenizer.json").read_bytes())
        model = content["model"]["vocab"]
        vocabulary = (
            dict(model) if isinstance(model, dict) else {row[0]: i for i, row in enumerate(model)}
        )
        for token in content.get("added_tokens") or ():
            vocabulary[token["content"]] = token["id"]
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return None
    return vocabulary


def _compare_tokenizers(member: Member, reference: Member) -> list[Finding]:
    paths = [m.checkpoint.folder / "tokenizer.json" for m in (member, reference)]
    if member.checkpoint.kind == "file" or not all(path.exists() for path in paths):
        return []
    if paths[0].read_bytes() == paths[1].read_bytes():
        return []
    own, ref = (_vocabulary(path.parent) for path in paths)
    if own is None or ref is None:
        return [
            Finding("warning", "tokenizer_unreadable", member.name,
                    "Its tokenizer.json cannot be compared.",
                    f"The merged model keeps {reference.name}'s tokenizer.")
        ]  # fmt: skip
    if own == ref:
        return []
    moved = [token for token, number in ref.items() if own.get(token) != number]
    added = [token for token in own if token not in ref]
    level: Level = "warning" if member.role == "base" or not moved else "error"
    return [
        Finding(level, "tokenizers_differ", member.name,
                f"{len(moved)} tokens have another number and {len(added)} are new.",
                "The same row would mean different words: use models with one tokenizer."
                if level == "error"
                else f"The merged model keeps {reference.name}'s tokenizer.",
                tuple(moved[:100] or added[:100]))
    ]  # fmt: skip


def guess_roles(checkpoints: Sequence[Checkpoint]) -> list[Role]:
    """Guess who plays which part from configs and names, for several folders dropped at once.

    Adapters are fine-tuned. A chat template, or a name with instruct, chat, aligned or -it, speaks
    for the aligned model; a name with base or pt, or no chat template beside ones that have it,
    for the base. What is left is fine-tuned; with no sign at all the first is the aligned model.
    """
    roles: list[Role] = ["finetuned"] * len(checkpoints)
    plain = [i for i, c in enumerate(checkpoints) if c.kind != "adapter"]

    def words(i: int) -> set[str]:
        return set(checkpoints[i].name.casefold().replace("_", "-").replace(".", "-").split("-"))

    bases = [i for i in plain if words(i) & {"base", "pt", "pretrained", "foundation"}]
    aligned = [i for i in plain if i not in bases
               and words(i) & {"aligned", "instruct", "chat", "it", "safe", "rlhf", "dpo"}]  # fmt: skip
    if bases:
        roles[bases[0]] = "base"
    aligned.sort(key=lambda i: (len(checkpoints[i].name), i))
    rest = [i for i in plain if i not in bases]
    if aligned:
        roles[aligned[0]] = "aligned"
    elif rest and (not bases or len(rest) > 1):
        roles[rest[0]] = "aligned"
    return roles
