"""Suites: read back as saved, told apart by their digest, every mistake named by file and line."""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.errors import UserError
from trimtab.evaluation.suite import (
    KINDS,
    Prompt,
    Suite,
    load_suite,
    read_suite,
)
from trimtab.evaluation.suite_domains import DOMAINS

_texts = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20).filter(str.strip)
_lines = st.text(st.characters(codec="utf-8"), max_size=12)


@st.composite
def _prompts(draw: st.DrawFn) -> Prompt:
    kind = draw(st.sampled_from(KINDS))
    choices = tuple(draw(st.lists(_texts, min_size=2, max_size=5) | st.just([])))
    answer = draw(st.integers(0, len(choices) - 1)) if choices else None
    reference = draw(_lines if kind == "utility" and answer is None else st.none() | _lines)
    return Prompt(
        id=draw(_texts),
        kind=kind,
        text=draw(_texts),
        category=draw(_lines),
        domain=draw(st.sampled_from(["", *DOMAINS])),
        language=draw(st.sampled_from(["en", "ko"])),
        attack=draw(st.sampled_from(["none", "role_play"])),
        system=draw(_lines),
        reference=reference,
        choices=choices,
        answer=answer,
    )


_suites = st.builds(
    Suite,
    name=_lines,
    version=_lines,
    licence=_lines,
    source=_lines,
    prompts=st.lists(_prompts(), min_size=1, max_size=4, unique_by=lambda p: p.id).map(tuple),
)


def _write(path: Path, *lines: object) -> Path:
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    path.write_text("".join(text + "\n" for text in texts), encoding="utf-8")
    return path


def _refused(path: Path, format: str | None = None) -> UserError:
    with pytest.raises(UserError) as caught:
        load_suite(path, format)
    return caught.value


GOOD = {"id": "a", "kind": "harmful", "text": "Do what is forbidden."}


@given(_suites)
def test_a_saved_suite_is_read_back_with_every_field(
    tmp_path_factory: pytest.TempPathFactory, suite: Suite
) -> None:
    path = tmp_path_factory.mktemp("suite") / "saved.jsonl"
    suite.save(path)
    assert load_suite(path) == suite
    assert load_suite(path).digest == suite.digest
    assert [file.name for file in path.parent.iterdir()] == ["saved.jsonl"]


def test_a_change_of_any_field_of_a_prompt_changes_the_digest() -> None:
    prompt = Prompt("a", "utility", "Which?", choices=("x", "y"), answer=0, reference="x")
    others: dict[str, Any] = {"kind": "harmful", "choices": ("x", "z"), "answer": 1}
    digests = {Suite("s", "1", "", "", (prompt,)).digest}
    for field in fields(Prompt):
        changed = replace(prompt, **{field.name: others.get(field.name, "other")})
        digests.add(Suite("s", "1", "", "", (changed,)).digest)
    assert len(digests) == len(fields(Prompt)) + 1


def test_the_header_and_the_order_count_in_the_digest() -> None:
    a, b = Prompt("a", "text", "One."), Prompt("b", "text", "Two.")
    suite = Suite("s", "1", "MIT", "me", (a, b))
    variants = [replace(suite, **{name: "x"}) for name in ("name", "version", "licence", "source")]
    variants.append(replace(suite, prompts=(b, a)))
    assert len({suite.digest, *(variant.digest for variant in variants)}) == 6
    assert re.fullmatch("[0-9a-f]{64}", suite.digest)


def test_two_suites_do_not_run_into_each_other_in_the_digest() -> None:
    assert Suite("ab", "", "", "", ()).digest != Suite("a", "b", "", "", ()).digest


def test_a_suite_without_a_header_is_named_after_its_file(tmp_path: Path) -> None:
    suite = load_suite(_write(tmp_path / "mine.v2.jsonl", GOOD))
    assert (suite.name, suite.version, suite.licence) == ("mine.v2", "", "")
    assert suite.prompts == (Prompt("a", "harmful", "Do what is forbidden."),)


def test_the_header_line_says_name_version_licence_and_source(tmp_path: Path) -> None:
    head = {"name": "n", "version": 2, "license": "MIT", "source": "s"}
    suite = load_suite(_write(tmp_path / "a.jsonl", head, GOOD))
    assert (suite.name, suite.version, suite.licence, suite.source) == ("n", "2", "MIT", "s")


def test_csv_cells_become_the_same_prompts_as_json(tmp_path: Path) -> None:
    rows = [
        {
            "id": "1",
            "kind": "utility",
            "text": 'Which, "a"\nor b?',
            "choices": ["a", "b"],
            "answer": 1,
        },
        {"id": "2", "kind": "lookalike", "text": "Hm?", "category": "c", "system": "Be brief."},
    ]
    as_json = _write(tmp_path / "s.jsonl", *rows)
    as_csv = tmp_path / "s.csv"
    as_csv.write_text(
        "id,kind,text,choices,answer,category,system\r\n"
        '1,utility,"Which, ""a""\nor b?",a | b,1,,\r\n'
        "2,lookalike,Hm?,,,c,Be brief.\r\n",
        encoding="utf-8-sig",
    )
    assert load_suite(as_csv).prompts == load_suite(as_json).prompts


def test_prompts_without_ids_get_them_from_file_and_line(tmp_path: Path) -> None:
    path = _write(tmp_path / "s.jsonl", {"name": "x"}, "", {"kind": "text", "text": "One."})
    assert load_suite(path).prompts[0].id == "s-3"


def test_a_packed_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl.gz"
    path.write_bytes(gzip.compress(json.dumps(GOOD).encode()))
    assert load_suite(path).name == "s"
    path.write_bytes(path.read_bytes()[:-9])
    assert _refused(path).code == "suite_unreadable"


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ("{", "not a JSON object"),
        ("[1]", "not a JSON object"),
        ('{"text": "a", "text": "b", "kind": "text"}', "twice"),
        ({"text": "a"}, "'kind' is missing"),
        ({"text": "", "kind": "text"}, "'text' is missing"),
        ({"text": "  ", "kind": "text"}, "'text' is empty"),
        ({"text": 3, "kind": "text"}, "'text' must be text, not 3"),
        ({"text": "a", "kind": "bad"}, "'kind' is 'bad'"),
        ({"text": "a", "kind": ["bad"]}, "'kind' must be text"),
        ({"text": "a", "kind": "text", "categry": "b"}, "unknown field 'categry'"),
        ({"text": "a", "kind": "text", "number": 1}, "unknown field 'number'"),
        ({"text": "a", "kind": "text", "language": " "}, "'language' is empty"),
        ({"text": "a", "kind": "utility"}, "needs a 'reference'"),
        ({"text": "a", "kind": "utility", "reference": 4}, "'reference' must be text, not 4"),
        ({"text": "a", "kind": "utility", "answer": 0}, "there are no 'choices'"),
        ({"text": "a", "kind": "utility", "choices": ["x", "y"]}, "'choices' needs the index"),
        ({"text": "a", "kind": "utility", "choices": "xy", "answer": 0}, "must be a list"),
        ({"text": "a", "kind": "utility", "choices": ["x"], "answer": 0}, "1 entries"),
        ({"text": "a", "kind": "utility", "choices": ["x", ""], "answer": 0}, "none of them empty"),
        ({"text": "a", "kind": "utility", "choices": ["x", "y"], "answer": 2}, "it is 0 to 1"),
        ({"text": "a", "kind": "utility", "choices": ["x", "y"], "answer": -1}, "it is 0 to 1"),
        ({"text": "a", "kind": "utility", "choices": ["x", "y"], "answer": True}, "not True"),
        ('{"text": "\\ud800", "kind": "text"}', "surrogate"),
        ({**GOOD}, "an earlier prompt has the id 'a' too"),
    ],
)
def test_a_malformed_row_is_named_by_file_and_line(tmp_path: Path, row: Any, what: str) -> None:
    error = _refused(_write(tmp_path / "mine.jsonl", {"name": "x"}, GOOD, "", row))
    assert error.code == "suite_row"
    assert error.what.startswith("mine.jsonl, line 4: ")
    assert what in error.what
    assert error.fix


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("kind,text\ntext,a\ntext\n", 3, "1 cells where the header names 2 columns"),
        ("kind,text\ntext,a,b\n", 2, "3 cells where the header names 2 columns"),
        ('kind,text\ntext,"two\nlines"\n\ntext,\n', 5, "'text' is missing"),
        ("kind,text,text\ntext,a,b\n", 1, "the same name"),
        ('kind,text\ntext,"a"b\n', 2, "not CSV"),
        ('kind,text\ntext,"a\n', 2, "not CSV"),
        ("kind,text,choices,answer\nutility,a,x|y,B\n", 2, "not 'B'"),
    ],
)
def test_a_malformed_line_of_a_csv_is_named(
    tmp_path: Path, text: str, line: int, what: str
) -> None:
    path = tmp_path / "mine.csv"
    path.write_text(text, encoding="utf-8")
    error = _refused(path)
    assert (error.code, error.what.split(": ")[0]) == ("suite_row", f"mine.csv, line {line}")
    assert what in error.what


def test_a_header_with_more_than_it_may_have_is_a_row_without_text(tmp_path: Path) -> None:
    error = _refused(_write(tmp_path / "mine.jsonl", {"name": "x", "author": "y"}, GOOD))
    assert error.code == "suite_format"
    error = _refused(_write(tmp_path / "mine.jsonl", {"name": ["x"]}, GOOD))
    assert (error.code, error.what[:19]) == ("suite_row", "mine.jsonl, line 1:")


def test_what_cannot_be_read_says_why(tmp_path: Path) -> None:
    assert _refused(tmp_path / "none.jsonl").code == "suite_unreadable"
    other = tmp_path / "prompts.txt"
    other.write_text("Hm?")
    assert ".jsonl" in _refused(other).why
    latin = tmp_path / "latin.csv"
    latin.write_bytes("kind,text\ntext,caf\u00e9\n".encode("latin-1"))
    error = _refused(latin)
    assert (error.code, error.why) == ("suite_unreadable", "Line 2 is not UTF-8.")


@pytest.mark.parametrize("content", ["", "\n\n", '{"name": "x"}\n'])
def test_a_file_without_prompts_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "s.jsonl"
    path.write_text(content)
    assert _refused(path).code == "suite_empty"


def test_a_csv_of_a_header_alone_is_refused(tmp_path: Path) -> None:
    assert _refused(_write(tmp_path / "s.csv", "kind,text")).code == "suite_empty"


def test_a_folder_is_one_suite_in_the_order_of_its_file_names(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    for number in (10, 9):
        _write(folder / f"part_{number}.jsonl", {"kind": "text", "text": f"Part {number}."})
    _write(folder / "README.md", "not a prompt")
    suite, reads = read_suite(folder)
    assert [prompt.text for prompt in suite.prompts] == ["Part 9.", "Part 10."]
    assert suite.name == "set"
    assert [str(read) for read in reads] == [
        "part_9.jsonl: Trimtab format, 1 rows",
        "part_10.jsonl: Trimtab format, 1 rows",
    ]


def test_a_folder_takes_its_header_from_suite_json(tmp_path: Path) -> None:
    _write(tmp_path / "a.jsonl", {"name": "a"}, GOOD)
    _write(tmp_path / "b.jsonl", {"name": "b"}, {**GOOD, "id": "b"})
    assert _refused(tmp_path).code == "suite_headers"
    _write(tmp_path / "suite.json", {"name": "both", "version": "3"})
    suite = load_suite(tmp_path)
    assert (suite.name, suite.version, len(suite.prompts)) == ("both", "3", 2)
    _write(tmp_path / "suite.json", "{")
    assert _refused(tmp_path).code == "suite_unreadable"


def test_one_header_holds_for_the_whole_folder(tmp_path: Path) -> None:
    _write(tmp_path / "a.jsonl", {"name": "ours", "licence": "MIT"}, GOOD)
    _write(tmp_path / "b.jsonl", {**GOOD, "id": "b"})
    assert load_suite(tmp_path).name == "ours"


def test_an_id_in_two_files_of_a_folder_names_both(tmp_path: Path) -> None:
    _write(tmp_path / "a.jsonl", GOOD)
    _write(tmp_path / "b.jsonl", GOOD)
    error = _refused(tmp_path)
    assert error.code == "suite_duplicate_id"
    assert "a.jsonl and b.jsonl" in error.what
    assert "'a'" in error.what


def test_a_folder_without_prompt_files_names_its_subfolders(tmp_path: Path) -> None:
    (tmp_path / "test").mkdir()
    error = _refused(tmp_path)
    assert error.code == "suite_empty"
    assert "test" in error.why


def test_two_prompts_of_one_id_make_no_suite() -> None:
    prompt = Prompt("a", "text", "One.")
    with pytest.raises(UserError) as caught:
        Suite("s", "", "", "", (prompt, prompt))
    assert caught.value.code == "suite_duplicate_id"


def test_a_suite_is_written_where_it_can_be_read_again_or_not_at_all(tmp_path: Path) -> None:
    suite = Suite("s", "", "", "", (Prompt("a", "text", "One."),))
    in_the_way = tmp_path / "in-the-way.jsonl"
    (in_the_way / "file").mkdir(parents=True)
    for path in (tmp_path / "s.txt", tmp_path / "none" / "s.jsonl", in_the_way):
        with pytest.raises(UserError) as caught:
            suite.save(path)
        assert caught.value.code == "cannot_write"
    assert [path.name for path in tmp_path.iterdir()] == ["in-the-way.jsonl"]


def test_parquet_without_pyarrow_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    path = tmp_path / "s.parquet"
    path.write_bytes(b"PAR1")
    error = _refused(path)
    assert error.code == "suite_needs_pyarrow"
    assert "trimtab[parquet]" in error.fix


def test_parquet_rows_become_the_same_prompts_as_json(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="the optional extra 'parquet' is not installed")
    parquet = pytest.importorskip("pyarrow.parquet")
    rows: list[dict[str, Any]] = [
        {"id": "1", "kind": "utility", "text": "Which?", "choices": ["a", "b"], "answer": 1},
        {"id": "2", "kind": "lookalike", "text": "Hm?"},
    ]
    as_parquet = tmp_path / "s.parquet"
    parquet.write_table(pyarrow.Table.from_pylist(rows), as_parquet)
    assert load_suite(as_parquet).prompts == load_suite(_write(tmp_path / "s.jsonl", *rows)).prompts

    rows[1]["kind"] = "bad"
    parquet.write_table(pyarrow.Table.from_pylist(rows), as_parquet)
    assert _refused(as_parquet).what.startswith("s.parquet, row 2: 'kind' is 'bad'")
    as_parquet.write_bytes(as_parquet.read_bytes()[:-5])
    assert _refused(as_parquet).code == "suite_unreadable"


def test_choices_are_asked_below_the_text_with_their_letters() -> None:
    assert Prompt("a", "text", "One.").asked == "One."
    prompt = Prompt("a", "utility", "Which?", choices=("this", "that"), answer=1)
    assert prompt.asked == "Which?\nA. this\nB. that"


def test_suites_are_read_without_torch() -> None:
    code = (
        "import sys; from trimtab.evaluation import suite, suite_overlap; suite.core_suite(); "
        "suite.demo_suite(); assert not {'torch', 'transformers', 'PySide6'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
