"""Resolves every model of a lineup against its reference and lists each mismatch."""

from __future__ import annotations

from collections.abc import Sequence

from trimtab.checkpoints.adapters import adapter_map
from trimtab.checkpoints.comparison import compare_configs, compare_tokenizers
from trimtab.checkpoints.dtypes import DTYPES
from trimtab.checkpoints.index import Checkpoint
from trimtab.checkpoints.lineup import Finding, Lineup, Member, Source
from trimtab.errors import UserError


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
        if member.adapter is not None:
            raise UserError(
                "adapter_on_adapter",
                f"{member.name} is an adapter with an adapter on top.",
                "An adapter is applied to a model.",
                "Give the model that both were made for.",
            )
        return _resolve_adapter(member, reference, base, aligned, findings)
    if quantization := checkpoint.config.get("quantization_config"):
        method = quantization.get("quant_method", "") if isinstance(quantization, dict) else ""
        findings.append(
            Finding(
                "error", "quantised", member.name,
                f"Its weights are quantised{f' ({method})' if method else ''}.",
                "Packed weights cannot be averaged: use the unquantised model.",
            )
        )  # fmt: skip
    narrow = [
        name
        for name, dtype in zip(checkpoint.index.names, checkpoint.index.dtype.tolist(), strict=True)
        if DTYPES[dtype].code.startswith(("F4", "F6_", "F8_"))
    ]
    if narrow and not quantization:
        findings.append(
            Finding(
                "error", "quantised", member.name,
                f"{len(narrow)} of its tensors are stored in 8 bits or fewer.",
                "Such weights cannot be averaged: use the unquantised model.", tuple(narrow),
            )
        )  # fmt: skip
    column = _match_tensors(member, reference, findings)
    if member.adapter is not None:
        column = _adapted(column, checkpoint, member.adapter, member.name, findings)
    if member is reference and checkpoint.config.get("tie_word_embeddings"):
        findings.extend(
            Finding("note", "head_stored_though_tied", member.name,
                    f"It stores {head}, and its config ties the head to the embedding.",
                    "A loaded model uses the embedding in its place: a ratio for it has no effect.",
                    (head,))
            for head in _HEADS if head in checkpoint.index
        )  # fmt: skip
    if member is not reference:
        findings.extend(compare_configs(member, reference))
        findings.extend(compare_tokenizers(member, reference))
    return column


# what the output head and the embedding it may be tied to are called in the known families
_HEADS = ("lm_head.weight", "embed_out.weight")
_EMBEDDINGS = (
    "model.embed_tokens.weight",
    "transformer.wte.weight",
    "wte.weight",
    "gpt_neox.embed_in.weight",
)


def _match_tensors(member: Member, reference: Member, findings: list[Finding]) -> dict[str, Source]:
    own, ref = member.checkpoint.index, reference.checkpoint.index
    column: dict[str, Source] = {}
    missing: list[str] = []
    shapes: list[str] = []
    dtypes: list[str] = []
    used: set[str] = set()
    for row, name in enumerate(ref.names):
        found = name
        if name not in own and name in _HEADS and member.checkpoint.ties_embeddings:
            found = next((e for e in _EMBEDDINGS if e in own and e in ref), name)
            if found != name:
                findings.append(
                    Finding("note", "tied_head", member.name,
                            f"It has no {name}: its output head is its embedding.",
                            f"{found} takes part in that place.", (name,))
                )  # fmt: skip
        if found not in own:
            missing.append(name)
            continue
        used.add(found)
        own_row = own.row(found)
        if own.shapes[own_row] != ref.shapes[row]:
            shapes.append(f"{name}: {list(own.shapes[own_row])} against {list(ref.shapes[row])}")
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
    member: Member,
    reference: Member,
    base: Member | None,
    aligned: Member | None,
    findings: list[Finding],
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
    model = trained_on.checkpoint
    own = {name: Source(model, row) for row, name in enumerate(model.index.names)}
    column = _adapted(own, model, member.checkpoint, member.name, findings)
    if column and trained_on is not reference:
        _keep_what_fits(column, member, trained_on, reference, findings)
    return column


def _adapted(
    column: dict[str, Source],
    model: Checkpoint,
    adapter: Checkpoint,
    name: str,
    findings: list[Finding],
) -> dict[str, Source]:
    """Return the column of the plain `model` with what `adapter` does to each of its tensors."""
    if adapter.kind != "adapter":
        raise UserError(
            "not_an_adapter",
            f"{adapter.name} is no adapter.",
            "It has no adapter_config.json.",
            "Choose the folder of a LoRA adapter, or merge it as a model of its own.",
        )
    index = adapter.index
    try:
        made = adapter_map(
            adapter, dict(zip(model.index.names, model.index.shapes, strict=True)), model.config
        )
    except UserError as error:
        findings.append(Finding("error", error.code, name, error.what, f"{error.why} {error.fix}"))
        return {}
    adapted: dict[str, Source] = {}
    for target, plain in column.items():
        # a tied head takes what is done to its embedding
        stored = model.index.names[plain.row]
        change = made.changes.get(stored)
        of_change = adapter if change else None
        if stored in made.replaced:
            adapted[target] = Source(adapter, made.replaced[stored], of_change, change)
        else:
            adapted[target] = Source(model, plain.row, of_change, change)
    if any(not index.dtype_of(row).mergeable for row in range(len(index))):
        findings.append(Finding("error", "quantised", name,
                                f"{adapter.name}'s own tensors are no floating-point numbers.",
                                "Use the unquantised adapter."))  # fmt: skip
    findings.append(
        Finding("note", "adapter_applied", name,
                f"{adapter.name} changes {len(made)} tensors of {model.name}.",
                "The others count as unchanged.")
    )  # fmt: skip
    return adapted


def _keep_what_fits(
    column: dict[str, Source],
    member: Member,
    trained_on: Member,
    reference: Member,
    findings: list[Finding],
) -> None:
    """Drop what the reference lacks or has in another shape from an adapter on another model."""
    index, ref = trained_on.checkpoint.index, reference.checkpoint.index
    missing = [name for name in ref.names if name not in column]
    extra = [name for name in column if name not in ref]
    shapes = [
        name
        for name in column
        if name in ref
        and (
            index.shapes[index.row(name)] != ref.shapes[ref.row(name)]
            or index.dtype_of(index.row(name)).mergeable != ref.dtype_of(ref.row(name)).mergeable
        )
    ]
    for name in shapes:
        del column[name]
    findings.extend(_tensor_findings(member, reference, missing, shapes, [], extra))


def _adapter_base(member: Member, base: Member | None, aligned: Member | None) -> Member | None:
    """The model an adapter belongs to: as told, or by the name its config gives."""
    if member.adapter_base is not None:
        return aligned if member.adapter_base == "aligned" else base
    declared = str(member.checkpoint.config.get("base_model_name_or_path") or "")
    tail = declared.replace("\\", "/").rstrip("/").rsplit("/", 1)[-1].casefold()
    for candidate in (aligned, base):
        if candidate is None or not tail:
            continue
        known = {
            candidate.checkpoint.name,
            str(candidate.checkpoint.config.get("_name_or_path", "")),
        }
        if any(tail == name.rsplit("/", 1)[-1].casefold() for name in known if name):
            return candidate
    return None
