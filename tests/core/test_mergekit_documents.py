"""Files of one or several merges of mergekit's: known, and brought into their order."""

from __future__ import annotations

from pathlib import Path

import pytest

from trimtab.errors import UserError
from trimtab.merging.mergekit import is_mergekit, parse_documents, to_recipe


def test_files_of_mergekit_are_known_by_their_keys() -> None:
    assert is_mergekit({"merge_method": "ties"})
    assert is_mergekit({"slices": []})
    assert not is_mergekit({"trimtab": 1, "slices": []})
    assert not is_mergekit(["merge_method"])
    assert not is_mergekit({"name": "x"})


_SEVERAL = """
name: second
merge_method: slerp
base_model: first
models: [{model: o/c}]
parameters: {t: 0.5}
---
merge_method: karcher
models: [{model: second}, {model: first}]
tokenizer_source: second
---
name: first
merge_method: karcher
models: [{model: o/a}, {model: o/b}]
"""


def test_documents_run_in_the_order_they_need_each_other(tmp_path: Path) -> None:
    merges = parse_documents(_SEVERAL)
    assert [(m.name, m.needs, m.final) for m in merges] == [
        ("first", (), False),
        ("second", ("first",), False),
        ("", ("second", "first"), True),
    ]
    output = tmp_path / "out"
    places = {m.name: m.place(output) for m in merges}
    assert places == {
        "first": tmp_path / "out.parts" / "first",
        "second": tmp_path / "out.parts" / "second",
        "": output,
    }
    last = to_recipe(merges[2].document, tmp_path, places)
    assert [m.path for m in last.finetuned] == [str(places["second"]), str(places["first"])]
    assert last.tokenizer is not None
    assert last.tokenizer.source == "second"


def test_a_file_of_named_merges_makes_the_one_that_no_other_needs() -> None:
    merges = parse_documents(_SEVERAL.replace("---\nmerge_method: karcher", "---\nname: last\n"
                                              "merge_method: karcher", 1))  # fmt: skip
    assert [(m.name, m.final) for m in merges] == [
        ("first", False),
        ("second", False),
        ("last", True),
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: a\nmerge_method: karcher\nmodels: [{model: b}]\n---\nname: b\nmerge_method:"
         " karcher\nmodels: [{model: a}]\n", "need each other: a, b"),
        ("name: a\nmerge_method: karcher\nmodels: [{model: a}]\n", "need each other: a"),
        ("name: a\nmerge_method: karcher\n---\nname: a\nmerge_method: karcher\n", "called a"),
        ("merge_method: karcher\n---\nmerge_method: karcher\n", "have no name"),
        ("name: a\nmerge_method: karcher\n---\nname: b\nmerge_method: karcher\n", "no other one"),
        ("name: ../a\nmerge_method: karcher\n", "name is '../a'"),
        ("name: a\nmerge_method: [karcher\n", "not YAML"),
        ("name: a\n", "not a recipe of mergekit"),
        ("", "not a recipe of mergekit"),
    ],
)  # fmt: skip
def test_documents_that_cannot_run_are_refused(text: str, said: str) -> None:
    with pytest.raises(UserError, match=said) as raised:
        parse_documents(text)
    assert raised.value.code == "bad_recipe"
