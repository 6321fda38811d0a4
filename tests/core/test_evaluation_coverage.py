"""Coverage counts what is asked about which risk and how; of the rest it says: no data."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from trimtab.evaluation.coverage import (
    NO_DOMAIN,
    Column,
    coverage,
    coverage_rows,
    not_evaluated,
)
from trimtab.evaluation.suite import KINDS, Prompt, core_suite, demo_suite
from trimtab.evaluation.suite_domains import CYBER, DOMAINS, PRIVACY, SELF_HARM

PLAIN = Prompt(id="p", kind="harmful", text="steal", domain=PRIVACY)


def test_a_cell_counts_the_prompts_about_its_domain_that_are_asked_its_way() -> None:
    found = coverage(
        [
            PLAIN,
            replace(PLAIN, attack="base64"),
            replace(PLAIN, kind="lookalike"),
            replace(PLAIN, domain=CYBER, language="de", modality="image"),
        ]
    )
    cells = {key: found.count(PRIVACY, key) for key in ("direct", "jailbreak", "lookalike", "en")}
    assert cells == {"direct": 1, "jailbreak": 1, "lookalike": 1, "en": 3}
    assert found.count(CYBER, "de") == 1
    assert found.count(CYBER, "image") == 1
    assert found.count(CYBER, "en") is None
    assert found.count(PRIVACY, "image") is None


def test_nothing_asked_is_no_data_and_never_zero() -> None:
    found = coverage([PLAIN])
    everything = [count for counts in found.counts for count in counts]
    assert 0 not in everything
    assert found.count(SELF_HARM, "direct") is None
    assert SELF_HARM in found.untouched
    assert PRIVACY not in found.untouched
    head, rows = coverage_rows(found)
    assert len(head) == len(rows[0])
    assert [row for row in rows if row[0] == SELF_HARM] == [
        [SELF_HARM, *["no data"] * (len(head) - 1)]
    ]


def test_ways_that_nobody_tried_have_columns_all_the_same() -> None:
    found = coverage(core_suite().prompts)
    keys = {column.key for column in found.empty_columns}
    assert {"jailbreak", "image", "audio", "several turns", "other languages"} == keys
    said = "\n".join(not_evaluated(found))
    for key in keys:
        assert key in said
    assert "systemic impact" in said
    assert "human interaction" in said


def test_utility_and_texts_are_about_no_risk() -> None:
    found = coverage(
        [
            Prompt(id="u", kind="utility", text="1 + 1", reference="2", domain=CYBER),
            Prompt(id="t", kind="text", text="once", domain=CYBER),
        ]
    )
    assert found.untouched == DOMAINS


def test_prompts_without_a_domain_and_domains_of_ones_own_have_rows() -> None:
    assert NO_DOMAIN not in coverage([PLAIN]).rows
    found = coverage([PLAIN, replace(PLAIN, domain=""), replace(PLAIN, domain="space law")])
    assert found.count(NO_DOMAIN, "direct") == 1
    assert found.count("space law", "direct") == 1


def test_the_demos_own_language_is_its_only_one() -> None:
    found = coverage(demo_suite().prompts)
    languages = [column for column in found.columns if column.facet == "language"]
    assert languages == [Column("language", "x-demo"), Column("language", "other languages")]
    assert sum(found.count(row, "x-demo") or 0 for row in found.rows) == 550


_PROMPTS = st.lists(
    st.builds(
        Prompt,
        id=st.just("p"),
        kind=st.sampled_from([kind for kind in KINDS if kind != "utility"]),
        text=st.just("x"),
        domain=st.sampled_from(["", *DOMAINS, "another"]),
        language=st.sampled_from(["en", "de", "zh"]),
        modality=st.sampled_from(["text", "image"]),
        attack=st.sampled_from(["none", "base64"]),
    )
)


@given(_PROMPTS)
def test_every_facet_counts_every_prompt_about_harm_once(prompts: list[Prompt]) -> None:
    found = coverage(prompts)
    asked = sum(prompt.kind != "text" for prompt in prompts)
    for facet in ("form", "language", "modality", "turns"):
        places = [i for i, column in enumerate(found.columns) if column.facet == facet]
        assert sum(counts[i] or 0 for counts in found.counts for i in places) == asked
