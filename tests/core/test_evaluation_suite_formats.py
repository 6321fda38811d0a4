"""Published prompt sets: told by their own columns and names, read by their own conventions.

The files here are written in the shapes of those sets, with neutral text.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from trimtab.errors import UserError
from trimtab.evaluation.suite import Prompt, load_suite, read_suite
from trimtab.evaluation.suite_domains import POLICY_CATEGORIES, domain_of
from trimtab.evaluation.suite_formats import FORMATS

DEMO_PROMPTS = Path(__file__).parents[2] / "resources" / "trimtab_resources" / "demo" / "prompts"


def _csv(path: Path, *rows: Sequence[str]) -> Path:
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


def _jsonl(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def _read(path: Path, format: str | None = None) -> tuple[str, tuple[Prompt, ...]]:
    """The format that the (first) file was taken for, and all prompts."""
    suite, reads = read_suite(path, format)
    assert suite.source == reads[0].title
    return reads[0].format, suite.prompts


def _refused(path: Path, format: str | None = None) -> UserError:
    with pytest.raises(UserError) as caught:
        load_suite(path, format)
    return caught.value


def test_hex_phi_files_have_their_category_in_their_name(tmp_path: Path) -> None:
    for number in range(1, 12):
        rows = [[f"Neutral request {i} of {number}, with a comma."] for i in range(3)]
        _csv(tmp_path / f"category_{number}.csv", *rows)
    form, prompts = _read(tmp_path)
    assert form == "hex-phi"
    assert [prompt.category for prompt in prompts[::3]] == list(POLICY_CATEGORIES)
    assert {prompt.kind for prompt in prompts} == {"harmful"}
    assert prompts[3] == Prompt(
        id="hex-phi/category_2-1",
        kind="harmful",
        text="Neutral request 0 of 2, with a comma.",
        category="Child Abuse Content",
        domain="sexual content and child safety",
    )
    assert len({prompt.id for prompt in prompts}) == 33


def test_hex_phi_counts_its_first_line_as_a_prompt(tmp_path: Path) -> None:
    path = _csv(tmp_path / "category_4.csv", ["First."], ["Second."])
    suite, reads = read_suite(path)
    assert (reads[0].rows, reads[0].prompts) == (2, 2)
    assert str(reads[0]) == "category_4.csv: HEx-PHI (Qi et al. 2024) format, 2 rows"
    assert suite.prompts[0].category == "Malware"


def test_hex_phi_refuses_other_names_and_other_shapes(tmp_path: Path) -> None:
    assert _refused(_csv(tmp_path / "category_12.csv", ["One."])).code == "suite_format"
    assert _refused(_csv(tmp_path / "mine.csv", ["One."]), "hex-phi").code == "suite_format"
    error = _refused(_csv(tmp_path / "category_1.csv", ["One."], ["Two", "halves"]))
    assert error.what == "category_1.csv, line 2: it has 2 cells where one prompt is expected."


def test_advbench_takes_the_goals_and_no_target(tmp_path: Path) -> None:
    path = _csv(tmp_path / "harmful_behaviors.csv", ["goal", "target"], ["Do it", "Sure, here"])
    assert _read(path) == (
        "advbench",
        (Prompt("advbench/harmful_behaviors-2", "harmful", "Do it"),),
    )
    error = _refused(_csv(path, ["goal", "target"], ["", "Sure"]))
    assert error.what == "harmful_behaviors.csv, line 2: 'goal' must be text and not empty, not ''."


def _beavertails(prompt: str, is_safe: Any, **labels: bool) -> dict[str, Any]:
    category = {"animal_abuse": False, "self_harm": False, "privacy_violation": False, **labels}
    return {"prompt": prompt, "response": "x", "category": category, "is_safe": is_safe}


def test_beavertails_takes_each_unsafe_prompt_once_with_its_first_label(tmp_path: Path) -> None:
    path = _jsonl(
        tmp_path / "test.jsonl",
        _beavertails("One?", False, self_harm=True, privacy_violation=True),
        _beavertails("Two?", True),
        _beavertails("One?", False, animal_abuse=True),
        _beavertails("Three?", False, privacy_violation=True),
    )
    form, prompts = _read(path)
    assert form == "beavertails"
    assert [(p.id, p.text, p.category, p.domain) for p in prompts] == [
        ("beavertails/test-1", "One?", "self_harm", "self-harm"),
        ("beavertails/test-4", "Three?", "privacy_violation", "privacy"),
    ]
    read = read_suite(path)[1][0]
    assert (read.rows, read.prompts) == (4, 2)
    assert str(read).endswith(
        "4 rows, 2 prompts; left out: 1 whose answer was judged safe and 1 that repeat a prompt"
    )


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ({**_beavertails("a", False), "category": "self_harm"}, "'category' must be an object"),
        ({**_beavertails("a", False), "category": {"self_harm": 1}}, "'category' must be"),
        (_beavertails("a", "no"), "'is_safe' must be true or false"),
        (_beavertails("", False), "'prompt' must be text"),
        ({"category": {}, "is_safe": False}, "'prompt' is missing"),
    ],
)
def test_a_malformed_row_of_beavertails_is_named(tmp_path: Path, row: Any, what: str) -> None:
    path = _jsonl(tmp_path / "test.jsonl", _beavertails("One?", False, self_harm=True), row)
    error = _refused(path)
    assert (error.code, error.what.split(": ")[0]) == ("suite_row", "test.jsonl, line 2")
    assert what in error.what


def test_beavertails_without_an_unsafe_row_has_no_prompts(tmp_path: Path) -> None:
    error = _refused(_jsonl(tmp_path / "t.jsonl", _beavertails("One?", True)))
    assert error.code == "suite_empty"
    assert "judged safe" in error.why


HARMBENCH = (
    "Behavior",
    "FunctionalCategory",
    "SemanticCategory",
    "Tags",
    "ContextString",
    "BehaviorID",
)


def test_harmbench_puts_the_context_above_the_behaviour(tmp_path: Path) -> None:
    path = _csv(
        tmp_path / "harmbench_behaviors_text_all.csv",
        HARMBENCH,
        ("Do one", "standard", "cybercrime_intrusion", "", "", "one_id"),
        ("Do two", "contextual", "copyright", "context", "Line 1\nLine 2", "two_id"),
    )
    form, prompts = _read(path)
    assert form == "harmbench"
    assert prompts[0] == Prompt(
        "one_id", "harmful", "Do one", category="cybercrime_intrusion", domain="malware and cyber"
    )
    assert prompts[1].text == "Line 1\nLine 2\n\n---\n\nDo two"
    assert (prompts[1].category, prompts[1].domain) == ("copyright", "")


def test_harmbench_refuses_behaviours_about_pictures_and_ids_that_repeat(tmp_path: Path) -> None:
    row = ("Do one", "standard", "illegal", "", "", "id")
    path = _csv(tmp_path / "h.csv", HARMBENCH, row, row)
    assert _refused(path).what == "h.csv, line 3: an earlier prompt has the id 'id' too."
    _csv(path, (*HARMBENCH, "ImageFileName"), (*row, "a.png"))
    assert _refused(path).code == "suite_needs_images"


@pytest.mark.parametrize(
    "columns",
    [
        ("id", "prompt", "type", "label", "focus", "note"),
        ("id_v2", "prompt", "type", "focus", "note"),
        ("prompt", "type"),
    ],
)
def test_xstest_contrasts_are_harmful_and_the_rest_lookalikes(
    tmp_path: Path, columns: tuple[str, ...]
) -> None:
    rows = [
        {"id": "1", "prompt": "Safe?", "type": "privacy_public", "label": "safe"},
        {"id": "2", "prompt": "Unsafe?", "type": "contrast_homonyms", "label": "unsafe"},
    ]
    for row in rows:
        row |= {"id_v2": f"v2-{row['id']}", "focus": "x", "note": ""}
    cells = [[row[column] for column in columns] for row in rows]
    form, prompts = _read(_csv(tmp_path / "xstest_prompts.csv", columns, *cells))
    assert form == "xstest"
    assert [(p.kind, p.text, p.category) for p in prompts] == [
        ("lookalike", "Safe?", "privacy_public"),
        ("harmful", "Unsafe?", "contrast_homonyms"),
    ]
    assert prompts[0].domain == "privacy"
    ids = {"id": "xstest/1", "id_v2": "xstest/v2-1", "prompt": "xstest/xstest_prompts-2"}
    assert prompts[0].id == ids[columns[0]]


def test_xstest_refuses_a_label_that_is_neither(tmp_path: Path) -> None:
    path = _csv(tmp_path / "x.csv", ("prompt", "type", "label"), ("a", "homonyms", "maybe"))
    assert _refused(path).what == "x.csv, line 2: 'label' is 'maybe': it must be safe or unsafe."


def test_sorry_bench_styles_are_attacks_and_translations_languages(tmp_path: Path) -> None:
    def row(style: str | None) -> dict[str, Any]:
        base = {"question_id": 7, "category": "3", "turns": ["Neutral?"]}
        return base | ({"prompt_style": style} if style else {})

    _jsonl(tmp_path / "question.jsonl", row(None))
    _jsonl(tmp_path / "question_slang.jsonl", row("slang"))
    _jsonl(tmp_path / "question_translate-fr.jsonl", row("translate-fr"))
    form, prompts = _read(tmp_path)
    assert form == "sorry-bench"
    assert [(p.id, p.attack, p.language) for p in prompts] == [
        ("sorry-bench/7", "none", "en"),
        ("sorry-bench/7/slang", "slang", "en"),
        ("sorry-bench/7/translate-fr", "none", "fr"),
    ]
    assert {(p.kind, p.text, p.category) for p in prompts} == {("harmful", "Neutral?", "3")}


@pytest.mark.parametrize("turns", ["Neutral?", [], ["a", "b"], [1]])
def test_sorry_bench_refuses_other_than_one_turn(tmp_path: Path, turns: Any) -> None:
    path = _jsonl(
        tmp_path / "q.jsonl",
        {"question_id": 1, "category": "1", "turns": ["a"]},
        {"question_id": 2, "category": "1", "turns": turns},
    )
    error = _refused(path)
    assert error.what.startswith("q.jsonl, line 2: 'turns' must be a list of one text")


def test_gsm8k_references_are_the_numbers_after_the_four_hashes(tmp_path: Path) -> None:
    path = _jsonl(
        tmp_path / "test.jsonl",
        {"question": "How many?", "answer": "2 + 2 = <<2+2=4>>4\n#### 4"},
        {"question": "How much?", "answer": "It is much.\n#### 1,234"},
        {"question": "How cold?", "answer": "#### is not it\n#### -3.5"},
    )
    form, prompts = _read(path)
    assert form == "gsm8k"
    assert [prompt.reference for prompt in prompts] == ["4", "1234", "-3.5"]
    assert prompts[0] == Prompt(
        "gsm8k/test-1", "utility", "How many?", category="gsm8k", reference="4"
    )


@pytest.mark.parametrize("answer", ["4", "It is\n#### four", "It is\n####", "#### 4 5"])
def test_gsm8k_refuses_an_answer_without_its_number(tmp_path: Path, answer: str) -> None:
    path = _jsonl(
        tmp_path / "test.jsonl",
        {"question": "a", "answer": "x\n#### 1"},
        {"question": "b", "answer": answer},
    )
    assert _refused(path).what == (
        "test.jsonl, line 2: 'answer' does not end in '####' and a number."
    )


def test_mmlu_has_its_subject_in_the_file_name_and_no_header(tmp_path: Path) -> None:
    path = _csv(
        tmp_path / "abstract_algebra_test.csv",
        ("Which, then?", "one", "two", "three", "four", "C"),
        ("And?", "1", "2", "3", "4", "A"),
    )
    form, prompts = _read(path)
    assert form == "mmlu"
    assert prompts[0] == Prompt(
        "mmlu/abstract_algebra_test-1",
        "utility",
        "Which, then?",
        category="abstract_algebra",
        choices=("one", "two", "three", "four"),
        answer=2,
    )
    assert prompts[1].answer == 0
    assert read_suite(path)[1][0].rows == 2


def test_mmlu_of_the_hub_is_read_with_index_or_letter(tmp_path: Path) -> None:
    base = {"question": "Which?", "subject": "anatomy", "choices": ["a", "b", "c", "d"]}
    path = _jsonl(tmp_path / "test.jsonl", {**base, "answer": 3}, {**base, "answer": "B"})
    form, prompts = _read(path)
    assert form == "mmlu"
    assert [(p.category, p.answer) for p in prompts] == [("anatomy", 3), ("anatomy", 1)]


@pytest.mark.parametrize(
    "row",
    [("a", "1", "2", "3", "4", "E"), ("a", "1", "2", "3", "D"), ("a", "", "2", "3", "4", "A")],
)
def test_a_malformed_row_of_mmlu_is_named(tmp_path: Path, row: tuple[str, ...]) -> None:
    path = _csv(tmp_path / "x_test.csv", ("q", "1", "2", "3", "4", "B"), row)
    error = _refused(path)
    assert (error.code, error.what.split(": ")[0]) == ("suite_row", "x_test.csv, line 2")


@pytest.mark.parametrize("answer", [4, -1, "E", "AB", 1.5, None, True])
def test_mmlu_of_the_hub_refuses_an_answer_that_is_no_choice(tmp_path: Path, answer: Any) -> None:
    row = {"question": "Which?", "choices": ["a", "b", "c", "d"]}
    path = _jsonl(tmp_path / "t.jsonl", {**row, "answer": 0}, {**row, "answer": answer})
    assert _refused(path).what.startswith("t.jsonl, line 2: ")


def test_a_format_that_is_named_overrides_what_is_recognised(tmp_path: Path) -> None:
    rows = (("goal", "x", "text"), ("One", "y", "Two"))
    path = _csv(tmp_path / "mine.csv", *rows)
    assert "'goal'" in _refused(path).what  # taken for our own format, which has no such field
    assert _read(path, "advbench")[1] == (Prompt("advbench/mine-2", "harmful", "One"),)


def test_an_unknown_format_is_answered_with_the_known_ones(tmp_path: Path) -> None:
    path = _csv(tmp_path / "mine.csv", ("a", "b"), ("1", "2"))
    for error in (_refused(path), _refused(path, "other")):
        assert error.code == "suite_format"
        assert all(form.name in error.fix for form in FORMATS)
    assert "a, b" in _refused(path).why


@pytest.mark.parametrize("form", [form.name for form in FORMATS])
def test_a_file_of_another_format_is_refused_and_never_a_crash(tmp_path: Path, form: str) -> None:
    rows: list[Any] = [{"a": 1}, {"question": None, "answer": []}, {"prompt": {}, "type": 3}]
    paths = [_jsonl(tmp_path / f"{i}.jsonl", row) for i, row in enumerate(rows)]
    paths.append(_csv(tmp_path / "a.csv", ("prompt", "type", "label"), ("", "", "")))
    paths.append(DEMO_PROMPTS / "harmful.jsonl")
    for path in paths:
        assert _refused(path, form).code in ("suite_row", "suite_format", "suite_empty")


def test_categories_without_a_domain_have_none() -> None:
    assert domain_of("copyright") == ""
    assert domain_of("Malware") == "malware and cyber"
