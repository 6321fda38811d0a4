"""What the rows of published prompt sets become, by the conventions of their authors' own files.

None of these sets is shipped. Each function raises `UserError` with `suite_row`, which names the
file, the line and what is wrong.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from trimtab.errors import UserError
from trimtab.evaluation.suite_domains import POLICY_CATEGORIES, domain_of
from trimtab.evaluation.suite_files import PromptFile, Row, stem
from trimtab.evaluation.suite_prompt import LETTERS, Prompt

HEX_PHI_FILE = re.compile(r"category_(\d+)\.csv", re.IGNORECASE)
_MMLU_SPLIT = re.compile(r"_(test|val|dev|train)$")
_NUMBER = re.compile(r"[-−]?(\d[\d,]*)?\.?\d+")


@dataclass(frozen=True)
class Converted:
    """The prompts of one file, and in words which rows became none."""

    prompts: tuple[Prompt, ...]
    left_out: str = ""


class Collected:
    """The prompts of a file as they are found, each under an id of its own."""

    def __init__(self, file: PromptFile):
        self._file = file
        self._prompts: dict[str, Prompt] = {}

    def add(self, number: int, /, **fields: Any) -> None:
        """Take the prompt that stands at a line; what is wrong with it names that line."""
        try:
            prompt = Prompt.from_dict(fields)
        except ValueError as error:
            raise self._file.wrong(number, str(error)) from error
        if prompt.id in self._prompts:
            what = f"an earlier prompt has the id {prompt.id!r} too"
            raise self._file.wrong(number, what, "Give each prompt an id of its own.")
        self._prompts[prompt.id] = prompt

    def converted(self, left_out: str = "") -> Converted:
        """All of them, in the order of the file."""
        return Converted(tuple(self._prompts.values()), left_out)


def hex_phi(file: PromptFile) -> Converted:
    """One category a file, which its name tells; each cell is a prompt."""
    match = HEX_PHI_FILE.fullmatch(file.path.name)
    number = int(match[1]) if match else 0
    if not 1 <= number <= len(POLICY_CATEGORIES):
        raise UserError(
            "suite_format",
            f"{file.path.name} does not say which category of HEx-PHI it holds.",
            "The files of HEx-PHI are told apart by their names alone.",
            f"Name it category_1.csv to category_{len(POLICY_CATEGORIES)}.csv.",
            details=str(file.path),
        )
    category = POLICY_CATEGORIES[number - 1]
    found = Collected(file)
    for line in file.cells:
        if len(line.cells) != 1:
            what = f"it has {len(line.cells)} cells where one prompt is expected"
            raise file.wrong(line.number, what, "Put quotes around a prompt with commas.")
        found.add(
            line.number,
            id=_id("hex-phi", file, line.number),
            kind="harmful",
            text=line.cells[0].strip(),
            category=category,
            domain=domain_of(category),
        )
    return found.converted()


def advbench(file: PromptFile) -> Converted:
    """Each goal; its target is how a compliant answer would begin, and no reference."""
    found = Collected(file)
    for row in file.rows():
        found.add(
            row.number,
            id=_id("advbench", file, row.number),
            kind="harmful",
            text=_field(file, row, "goal"),
        )
    return found.converted()


def beavertails(file: PromptFile) -> Converted:
    """Each prompt once, whose answer was judged unsafe; its first label is its category.

    The labels are of prompt and answer together, so a row that is safe says nothing of its prompt.
    """
    found = Collected(file)
    texts: set[str] = set()
    safe = repeated = 0
    for row in file.rows():
        text, labels = _field(file, row, "prompt"), row.fields.get("category")
        if not isinstance(labels, dict) or any(type(hit) is not bool for hit in labels.values()):
            what = "'category' must be an object of labels that are true or false"
            raise file.wrong(row.number, f"{what}, not {labels!r}")
        is_safe = row.fields.get("is_safe")
        if type(is_safe) is not bool:
            raise file.wrong(row.number, f"'is_safe' must be true or false, not {is_safe!r}")
        safe += is_safe
        if is_safe:
            continue
        repeated += text in texts
        category = next((name for name, hit in labels.items() if hit), "")
        if text not in texts:
            texts.add(text)
            found.add(
                row.number,
                id=_id("beavertails", file, row.number),
                kind="harmful",
                text=text,
                category=category,
                domain=domain_of(category),
            )
    parts = []
    if safe:
        parts.append(f"{safe} whose answer was judged safe")
    if repeated:
        parts.append(f"{repeated} that repeat a prompt")
    return found.converted(left_out=" and ".join(parts))


def harmbench(file: PromptFile) -> Converted:
    """Each text behaviour, with its context above it as the authors put it there."""
    if "ImageFileName" in file.columns:
        raise UserError(
            "suite_needs_images",
            f"{file.path.name} holds HarmBench behaviours that ask about pictures.",
            "Prompts are sent as text alone.",
            "Choose the file of text behaviours, harmbench_behaviors_text_all.csv.",
            details=str(file.path),
        )
    found = Collected(file)
    for row in file.rows():
        category = _field(file, row, "SemanticCategory")
        text, context = _field(file, row, "Behavior"), row.fields.get("ContextString") or ""
        if not isinstance(context, str):
            raise file.wrong(row.number, f"'ContextString' must be text, not {context!r}")
        found.add(
            row.number,
            id=row.fields.get("BehaviorID") or _id("harmbench", file, row.number),
            kind="harmful",
            text=f"{context}\n\n---\n\n{text}" if context.strip() else text,
            category=category,
            domain=domain_of(category),
        )
    return found.converted()


def xstest(file: PromptFile) -> Converted:
    """Safe prompts are lookalikes, the unsafe contrasts harmful; the type is the category."""
    found = Collected(file)
    for row in file.rows():
        category = _field(file, row, "type")
        label = row.fields.get("label")
        if label not in ("safe", "unsafe", None):
            raise file.wrong(row.number, f"'label' is {label!r}: it must be safe or unsafe")
        contrast = category.startswith("contrast_") if label is None else label == "unsafe"
        number = row.fields.get("id") or row.fields.get("id_v2")
        found.add(
            row.number,
            id=f"xstest/{number}" if number else _id("xstest", file, row.number),
            kind="harmful" if contrast else "lookalike",
            text=_field(file, row, "prompt"),
            category=category,
            domain=domain_of(category),
        )
    return found.converted()


def sorry_bench(file: PromptFile) -> Converted:
    """Base questions and their rewritings; a translation counts as language, not as attack."""
    found = Collected(file)
    for row in file.rows():
        turns = row.fields.get("turns")
        if not isinstance(turns, list) or len(turns) != 1 or not isinstance(turns[0], str):
            raise file.wrong(row.number, f"'turns' must be a list of one text, not {turns!r}")
        style = row.fields.get("prompt_style") or "base"
        if not isinstance(style, str):
            raise file.wrong(row.number, f"'prompt_style' must be text, not {style!r}")
        language = style.removeprefix("translate-") if style.startswith("translate-") else ""
        number = _label(file, row, "question_id")
        found.add(
            row.number,
            id=f"sorry-bench/{number}" + ("" if style == "base" else f"/{style}"),
            kind="harmful",
            text=turns[0],
            category=_label(file, row, "category"),
            language=language or "en",
            attack="none" if language or style == "base" else style,
        )
    return found.converted()


def gsm8k(file: PromptFile) -> Converted:
    """Each question with the number after the four hash signs as its reference."""
    found = Collected(file)
    for row in file.rows():
        worked, sign, final = _field(file, row, "answer").rpartition("####")
        final = final.strip()
        if not sign or not worked.strip() or not _NUMBER.fullmatch(final):
            what = "'answer' does not end in '####' and a number"
            raise file.wrong(row.number, what)
        found.add(
            row.number,
            id=_id("gsm8k", file, row.number),
            kind="utility",
            text=_field(file, row, "question"),
            category="gsm8k",
            reference=final.replace(",", "").replace("−", "-"),
        )
    return found.converted()


def mmlu(file: PromptFile) -> Converted:
    """Each question with its choices; the subject is the category."""
    if file.cells:
        return _mmlu_cells(file)
    found = Collected(file)
    for row in file.rows():
        answer = row.fields.get("answer")
        if isinstance(answer, str) and len(answer) == 1 and answer in LETTERS:
            answer = LETTERS.index(answer)
        choices = row.fields.get("choices")
        if not isinstance(choices, list) or type(answer) is not int:
            what = f"'choices' must be a list and 'answer' an index or a letter, not {answer!r}"
            raise file.wrong(row.number, what)
        found.add(
            row.number,
            id=_id("mmlu", file, row.number),
            kind="utility",
            text=_field(file, row, "question"),
            category=row.fields.get("subject") or "",
            choices=tuple(choices),
            answer=answer,
        )
    return found.converted()


def _mmlu_cells(file: PromptFile) -> Converted:
    found = Collected(file)
    for line in file.cells:
        if len(line.cells) != 6 or line.cells[5].strip() not in ("A", "B", "C", "D"):
            what = "it must have six cells: the question, four choices, and a letter A to D"
            raise file.wrong(line.number, what)
        found.add(
            line.number,
            id=_id("mmlu", file, line.number),
            kind="utility",
            text=line.cells[0].strip(),
            category=_MMLU_SPLIT.sub("", file.path.stem),
            choices=tuple(cell.strip() for cell in line.cells[1:5]),
            answer=LETTERS.index(line.cells[5].strip()),
        )
    return found.converted()


def _id(form: str, file: PromptFile, number: int) -> str:
    return f"{form}/{stem(file.path)}-{number}"


def _field(file: PromptFile, row: Row, name: str) -> str:
    value = row.fields.get(name)
    if value is None:
        raise file.wrong(row.number, f"{name!r} is missing")
    if not isinstance(value, str) or not value.strip():
        raise file.wrong(row.number, f"{name!r} must be text and not empty, not {value!r}")
    return value


def _label(file: PromptFile, row: Row, name: str) -> str:
    """A field that some of the files hold as a number and some as text."""
    value = row.fields.get(name)
    return str(value) if type(value) is int else _field(file, row, name)
