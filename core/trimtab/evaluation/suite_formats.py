"""Which form a prompt file has, told by its columns and its name, and how that form is read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from trimtab.errors import UserError
from trimtab.evaluation.suite_files import PromptFile, stem
from trimtab.evaluation.suite_published import (
    HEX_PHI_FILE,
    Collected,
    Converted,
    advbench,
    beavertails,
    gsm8k,
    harmbench,
    hex_phi,
    mmlu,
    sorry_bench,
    xstest,
)


@dataclass(frozen=True)
class Format:
    """A form of prompt file: its name, whose it is, how it is told, and how it is read.

    `headerless` says that the first line of a CSV is a prompt already.
    """

    name: str
    title: str
    told_by: str
    recognise: Callable[[PromptFile], bool]
    convert: Callable[[PromptFile], Converted]
    headerless: bool = False


def find_format(file: PromptFile, name: str | None = None) -> Format:
    """The format called `name`, or else the first that recognises the file.

    Raises `UserError` with `suite_format` for an unknown name or a file that no format recognises.
    """
    known = ", ".join(form.name for form in FORMATS)
    for form in FORMATS:
        if form.name == name or (name is None and form.recognise(file)):
            return form
    if name is not None:
        raise UserError(
            "suite_format", f"There is no format {name!r}.", "", f"The formats are {known}."
        )
    found = ", ".join(sorted(file.columns)[:8])
    raise UserError(
        "suite_format",
        f"{file.path.name} is in no format that is known.",
        f"Its first row has: {found[:200] or 'nothing'}.",
        "Give its columns the names text and kind (harmful, lookalike, utility or text), or say "
        f"which format it has: {known}.",
        details="\n".join(f"{form.name}: {form.told_by}" for form in FORMATS),
    )


def _ours(file: PromptFile) -> Converted:
    found = Collected(file)
    for row in file.rows():
        fields = {key: value for key, value in row.fields.items() if value is not None}
        if file.cells:
            fields = _from_cells(file, row.number, fields)
        if type(fields.get("id")) is int:
            fields["id"] = str(fields["id"])
        if isinstance(answer := fields.get("answer"), float) and answer.is_integer():
            fields["answer"] = int(answer)  # what pandas makes of whole numbers with gaps
        fields.setdefault("id", f"{stem(file.path)}-{row.number}")
        found.add(row.number, **fields)
    return found.converted()


def _from_cells(file: PromptFile, number: int, cells: dict[str, Any]) -> dict[str, Any]:
    fields: dict[str, Any] = {key: value for key, value in cells.items() if value.strip()}
    if "choices" in fields:
        fields["choices"] = [choice.strip() for choice in fields["choices"].split("|")]
    if "answer" in fields:
        try:
            fields["answer"] = int(fields["answer"])
        except ValueError as error:
            what = f"'answer' must be the index of a choice, from 0, not {fields['answer']!r}"
            raise file.wrong(number, what) from error
    return fields


def _is_xstest(file: PromptFile) -> bool:
    if not file.columns >= {"prompt", "type"}:
        return False
    return bool(file.columns & {"label", "focus"}) or any(
        str(row.fields.get("type")).startswith("contrast_") for row in file.rows()
    )


def _is_mmlu(file: PromptFile) -> bool:
    if file.columns >= {"question", "choices", "answer"}:
        return True
    first = file.cells[0].cells if file.cells else ()
    return len(first) == 6 and first[5].strip() in ("A", "B", "C", "D")


def _has(*names: str) -> Callable[[PromptFile], bool]:
    return lambda file: file.columns.issuperset(names)


# In the order in which they are tried.
FORMATS: tuple[Format, ...] = (
    Format(
        "trimtab",
        "Trimtab",
        "fields text and kind; the others of a prompt where wanted",
        _has("text"),
        _ours,
    ),
    Format(
        "harmbench",
        "HarmBench (Mazeika et al. 2024)",
        "columns Behavior and SemanticCategory",
        _has("Behavior", "SemanticCategory"),
        harmbench,
    ),
    Format(
        "advbench",
        "AdvBench (Zou et al. 2023)",
        "columns goal and target",
        _has("goal", "target"),
        advbench,
    ),
    Format(
        "beavertails",
        "BeaverTails (Ji et al. 2023)",
        "fields prompt, category (an object of labels) and is_safe",
        _has("prompt", "category", "is_safe"),
        beavertails,
    ),
    Format(
        "xstest",
        "XSTest (Röttger et al. 2024)",
        "columns prompt and type, and label, focus or types that begin with contrast_",
        _is_xstest,
        xstest,
    ),
    Format(
        "sorry-bench",
        "SORRY-Bench (Xie et al. 2024)",
        "fields question_id, category and turns",
        _has("question_id", "category", "turns"),
        sorry_bench,
    ),
    Format(
        "mmlu",
        "MMLU (Hendrycks et al. 2021)",
        "no header and six cells, the last a letter A to D; or fields question, choices and answer",
        _is_mmlu,
        mmlu,
        headerless=True,
    ),
    Format(
        "gsm8k",
        "GSM8K (Cobbe et al. 2021)",
        "fields question and answer, which ends in #### and a number",
        _has("question", "answer"),
        gsm8k,
    ),
    Format(
        "hex-phi",
        "HEx-PHI (Qi et al. 2024)",
        "files category_1.csv to category_11.csv without a header",
        lambda file: bool(file.cells) and bool(HEX_PHI_FILE.fullmatch(file.path.name)),
        hex_phi,
        headerless=True,
    ),
)
