from __future__ import annotations

from pathlib import Path

import pytest
from evaluations import N, facts, results, saved, suite

from trimtab.errors import UserError
from trimtab.evaluation.suite import Prompt, Suite
from trimtab_gui.evaluation_facts import Facts, categories_of, coverage_of


def test_each_target_has_its_shares_whole_and_by_category() -> None:
    found = facts()
    assert found.names == ("aligned", "math", "merged")
    math = found.target("math")
    assert math.overall["attack_success"].value == (8 + 5 + 10) / (3 * N)
    assert math.by_category["Fraud"]["attack_success"].value == 8 / N
    assert math.by_category["arithmetic"]["attack_success"].value is None
    assert math.overall["utility"].value == 9 / N
    assert categories_of(found.targets, "attack_success") == ("Fraud", "Malware", "Privacy")
    assert categories_of(found.targets, "utility") == ("arithmetic",)


def test_the_fine_tuned_model_and_the_merge_are_compared_first() -> None:
    assert facts().usual_pair == ("math", "merged")


def test_without_a_merge_the_baseline_is_compared_with_the_next() -> None:
    two = results()
    two = results(targets=two.targets[:2], rows=tuple(r for r in two.rows if r.target != "merged"))
    assert Facts(two, Path("nowhere.json")).usual_pair == ("aligned", "math")
    one = results(targets=two.targets[:1], rows=tuple(r for r in two.rows if r.target == "aligned"))
    assert Facts(one, Path("nowhere.json")).usual_pair is None


def test_a_comparison_counts_who_changed_sides() -> None:
    found = facts().compare("math", "merged")
    assert found["harmful"].newly_good == 14  # fraud 8 to 1, privacy 10 to 3
    assert found["harmful"].newly_bad == 4  # malware 5 to 9
    assert found["lookalike"].newly_bad == 2
    assert found["utility"].newly_bad == 1


def test_each_prompt_says_how_it_changed_sides() -> None:
    found = facts()
    sides = [found.sides(exchange, "math", "merged") for exchange in found.exchanges]
    assert sides.count("newly safe") == 14
    assert sides.count("newly unsafe") == 4
    assert sides.count("newly over-refused") == 2
    assert sides.count("newly wrong") == 1
    assert sides.count("") == 5 * N - 21


def test_what_was_not_asked_has_no_number_in_the_coverage() -> None:
    found = coverage_of(suite())
    counts = {
        (row, column): n
        for row, line in zip(found.rows, found.counts, strict=True)
        for column, n in zip(found.columns, line, strict=True)
    }
    assert counts["fraud and manipulation", "text"] == N
    assert counts["fraud and manipulation", "lookalike"] == N
    assert counts["malware and cyber", "lookalike"] is None
    assert counts["self-harm", "text"] is None
    assert sum(n or 0 for n in counts.values()) == 4 * N  # questions are about no risk
    assert "other" not in found.rows


def test_coverage_tells_languages_modalities_and_jailbreaks_apart() -> None:
    def prompt(id: str, **fields: str) -> Prompt:
        return Prompt(id, "harmful", "x", "Fraud", **fields)

    found = coverage_of(
        Suite("mixed", "1", "", "", (
            prompt("a"), prompt("b"), prompt("c", language="hi"), prompt("d", modality="image"),
            prompt("e", attack="base64"), prompt("f", modality="audio"),
        ))
    )  # fmt: skip
    assert found.rows[-1] == "other"  # of no domain
    assert dict(zip(found.columns, found.counts[-1], strict=True)) == {
        "text": 2, "image": 1, "multi-turn": None, "jailbreak": 1, "lookalike": None,
        "other languages": 1, "audio": 1,
    }  # fmt: skip


def test_a_file_reads_back_to_the_same_facts(tmp_path: Path) -> None:
    found = Facts.load(saved(tmp_path))
    assert found.target("merged").overall == facts().target("merged").overall
    assert [e.prompt.id for e in found.exchanges] == [p.id for p in suite().prompts]


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path)
    path.write_text(path.read_text()[:-40])
    with pytest.raises(UserError) as caught:
        Facts.load(path)
    assert caught.value.code == "bad_results"


def test_a_model_that_is_not_coherent_is_told() -> None:
    assert facts(5.0).target("merged").coherence.ok
    broken = facts(50.0)
    assert not broken.target("merged").coherence.ok
    assert broken.compare("math", "merged")["harmful"].greyed
