"""Applies one vocabulary to a lineup: all models' embeddings and heads get the same rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from trimtab.checkpoints.lineup import Finding, Lineup, Member, Source
from trimtab.checkpoints.naming import parse
from trimtab.merging.recipe import Recipe
from trimtab.merging.tokenizer_files import TOKENIZER
from trimtab.merging.vocabulary import (
    VocabularyModel,
    VocabularyPlan,
    plan_vocabulary,
    vocabulary_tensors,
)
from trimtab.methods import get_method

# what the matching of tensors says of different vocabularies, which are settled here
_SETTLED = ("shapes_differ", "tokenizers_differ")


def align(recipe: Recipe, lineup: Lineup) -> tuple[Lineup, VocabularyPlan | None]:
    """Return the lineup with every model's rows matched by their words, and what that came from.

    The lineup is the very same, and the plan None, where all vocabularies are equal and the
    recipe asks for nothing, or where the reference has no tensor of words. Raises as
    `plan_vocabulary` does.
    """
    index = lineup.reference.checkpoint.index
    names = vocabulary_tensors(index.names, index.shapes)
    if not names:
        return lineup, None
    columns = {name: _sources(lineup, name) for name in names}
    place = lineup.members.index(lineup.reference)
    merged = _reference_is_merged(recipe)
    models = []
    for i, member in enumerate(lineup.members):
        rows = next((_rows(c[i]) for c in columns.values() if c[i] is not None), 0)
        takes_part = member.role == "finetuned" or (i == place and merged)
        models.append(VocabularyModel(member.name, _folder(member, columns, i), rows, takes_part))
    # the base beside an aligned model is only looked at: its words are not the output's
    kept = [i for i, m in enumerate(lineup.members) if i == place or m.role == "finetuned"]
    at = kept.index(place)
    plan = plan_vocabulary([models[i] for i in kept], at, at if merged else None, recipe.tokenizer)
    if plan is None:
        return lineup, None
    sources = dict(lineup.sources)
    for name, column in columns.items():
        own = [column[i] for i in kept]
        made = list(lineup.sources[name])
        for j, i in enumerate(kept):
            source = own[j]
            made[i] = None if source is None else replace(source, rows=plan.row_map(j, own))
        sources[name] = tuple(made)
    settled = _findings(lineup, {lineup.members[i].name for i in kept}, names, columns)
    findings = (*settled, *plan.findings)
    return replace(lineup, findings=findings, sources=sources), plan


def _reference_is_merged(recipe: Recipe) -> bool:
    """Whether the reference counts among the models, and does not only give the output's form."""
    if get_method(recipe.method).part == "layout" or recipe.parameters.get("origin") == "zero":
        return False
    return recipe.method != "linear" or recipe.parameters.get("reference_ratio", 1) != 0


def _sources(lineup: Lineup, name: str) -> list[Source | None]:
    """Return all members' versions of a tensor, those of another length too."""
    index = lineup.reference.checkpoint.index
    width = index.shapes[index.row(name)][1:]
    is_head = parse(name).module == "head"
    found = list(lineup.sources[name])
    for i, member in enumerate(lineup.members):
        own = member.checkpoint.index
        plain = member.checkpoint.kind != "adapter" and member.adapter is None
        stored = name
        if name not in own and is_head and member.checkpoint.ties_embeddings:
            stored = next((n for n in own.names if parse(n).module == "embed"), name)
        if found[i] is None and plain and stored in own:
            row = own.row(stored)
            if own.shapes[row][1:] == width and own.dtype_of(row).mergeable:
                found[i] = Source(member.checkpoint, row)
    return found


def _rows(source: Source | None) -> int:
    return 0 if source is None else source.checkpoint.index.shapes[source.row][0]


def _folder(member: Member, columns: dict[str, list[Source | None]], place: int) -> Path:
    """Return where a member's tokenizer lies; an adapter without one has its model's."""
    own = member.checkpoint.folder
    if member.checkpoint.kind != "adapter" or (own / TOKENIZER).is_file():
        return own
    beneath = next((c[place] for c in columns.values() if c[place] is not None), None)
    return own if beneath is None else beneath.checkpoint.folder


def _findings(
    lineup: Lineup, kept: set[str], names: Sequence[str], columns: dict[str, list[Source | None]]
) -> list[Finding]:
    """Return what was found before, without what the common vocabulary settles."""
    member_names = [member.name for member in lineup.members]
    left = []
    for finding in lineup.findings:
        if finding.code not in _SETTLED or finding.model not in kept:
            left.append(finding)
            continue
        if finding.code == "tokenizers_differ":
            continue
        place = member_names.index(finding.model)
        settled = {name for name in names if columns[name][place] is not None}
        others = tuple(t for t in finding.tensors if t.rsplit(": ", 1)[0] not in settled)
        if others:
            what = f"{len(others)} tensors have another shape or kind of number."
            left.append(replace(finding, what=what, tensors=others))
    return left
