"""The suites that are shipped: what is in them, that they stay so, and the docs."""

from __future__ import annotations

import re
from operator import add, mul, sub, truediv
from pathlib import Path

from trimtab.demo.language import CATEGORIES, evaluation_prompts, is_refusal
from trimtab.evaluation.suite import core_suite, demo_suite, load_suite
from trimtab.evaluation.suite_domains import DOMAINS, POLICY_CATEGORIES
from trimtab.evaluation.suite_formats import FORMATS
from trimtab.evaluation.suite_prompt import Prompt

DOCS = Path(__file__).parents[2] / "docs" / "suites.md"


def test_our_set_has_every_policy_category_six_times_and_lookalikes_beside_it() -> None:
    suite = core_suite()
    assert (suite.name, suite.version, suite.licence) == ("trimtab-core", "1", "Apache-2.0")
    assert suite.source
    for category in POLICY_CATEGORIES:
        assert sum(prompt.category == category for prompt in suite.by_kind("harmful")) == 6
        assert sum(prompt.category == category for prompt in suite.by_kind("lookalike")) == 4
    assert len(suite.by_kind("utility")) == 30
    assert len(suite.by_kind("text")) == 6
    assert len(suite.prompts) == 11 * 10 + 36
    assert len({prompt.text for prompt in suite.prompts}) == len(suite.prompts)
    assert {p.domain for p in suite.by_kind("harmful")} <= set(DOMAINS)


# Write trimtab-core-2.jsonl for a change, so that results of version 1 stay comparable.
CORE_1 = "fe72ef49d3e2cbeec1177b838a446ca9686aac3cadf8d6069286cf7edcc67718"


def test_a_version_of_our_set_always_means_the_same_prompts() -> None:
    assert core_suite().digest == CORE_1


def test_the_sums_of_our_set_are_right() -> None:
    signs = {"+": add, "-": sub, "*": mul, "/": truediv}
    checked = 0
    for prompt in core_suite().by_kind("utility"):
        found = re.fullmatch(r"What is (\d+) ([-+*/]) (\d+)\?", prompt.text)
        if found:
            assert signs[found[2]](int(found[1]), int(found[3])) == int(prompt.reference or "")
            checked += 1
    assert checked == 7


def test_the_demo_suite_is_the_demos_held_out_prompts() -> None:
    suite = demo_suite()
    assert (suite.name, suite.version) == ("trimtab-demo", "1")
    harmful, lookalike = evaluation_prompts("harmful"), evaluation_prompts("lookalike")
    assert [p.text for p in suite.by_kind("harmful")] == [p.prompt for p in harmful]
    assert [p.category for p in suite.by_kind("harmful")] == [p.category for p in harmful]
    assert [p.text for p in suite.by_kind("lookalike")] == [p.prompt for p in lookalike]
    task = evaluation_prompts("task-a")
    assert [(p.text, p.reference) for p in suite.by_kind("utility")] == [
        (p.prompt, p.reference) for p in task
    ]
    assert not any(is_refusal(p.reference or "") for p in suite.by_kind("utility"))
    assert {p.category for p in suite.by_kind("harmful")} == set(CATEGORIES)
    assert all(p.domain in DOMAINS for p in suite.by_kind("harmful"))
    assert {p.language for p in suite.prompts} == {"x-demo"}


def test_the_example_in_the_docs_is_a_suite_of_every_kind(tmp_path: Path) -> None:
    (example,) = re.findall(
        r"^```jsonl\n(.*?)^```", DOCS.read_text("utf-8"), re.DOTALL | re.MULTILINE
    )
    path = tmp_path / "example.jsonl"
    path.write_text(example, encoding="utf-8")
    suite = load_suite(path)
    assert suite.name == "my-prompts"
    assert {prompt.kind for prompt in suite.prompts} == {"harmful", "lookalike", "utility", "text"}


def test_the_docs_name_every_format_and_every_field() -> None:
    text = DOCS.read_text("utf-8")
    for form in FORMATS:
        assert f"| `{form.name}` |" in text
    for name in Prompt.__dataclass_fields__:
        assert re.search(rf"^\| .*`{name}`.* \|", text, re.MULTILINE), name
