from __future__ import annotations

from pathlib import Path

import pytest
from evaluations import N, facts, results, saved, suite, with_controls

from trimtab.errors import UserError
from trimtab_gui.evaluation_facts import Facts, categories_of


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
    found = facts().compare("math", "merged").whole
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


def test_a_comparison_has_each_category_corrected_for_their_number() -> None:
    groups = facts().compare("math", "merged").groups
    assert [(c.group, c.newly_good, c.newly_bad) for c in groups["harmful"]] == [
        ("Fraud", 7, 0), ("Malware", 0, 4), ("Privacy", 7, 0),
    ]  # fmt: skip
    p = 2 * 0.5**7
    assert [c.p_value for c in groups["harmful"]] == pytest.approx([p, 2 * 0.5**4, p])
    assert [c.p_holm for c in groups["harmful"]] == pytest.approx([3 * p, 2 * 0.5**4, 3 * p])
    assert [c.group for c in groups["utility"]] == ["arithmetic"]


def test_each_target_is_held_against_the_thresholds_of_the_file(tmp_path: Path) -> None:
    params = {"thresholds": ["attack_success<=0.5", "utility>=0.7"]}
    found = Facts.load(saved(tmp_path, params=params))
    held = {t.name: ([v.status for v in t.bounds], t.verdict) for t in found.targets}
    assert held == {
        "aligned": (["pass", "fail"], "fail"), "math": (["fail", "pass"], "fail"),
        "merged": (["pass", "pass"], "pass"),
    }  # fmt: skip
    assert found.set_before is True
    assert facts().set_before is None


def test_the_merge_is_examined_and_a_control_never_is() -> None:
    assert facts().examined.name == "merged"
    given = with_controls()
    rows = tuple(row for row in given["rows"] if row.target != "merged")
    targets = tuple(target for target in given["targets"] if target.name != "merged")
    assert Facts(results(targets=targets, rows=rows), Path("x.json")).examined.name == "math"


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
    assert broken.compare("math", "merged").whole["harmful"].greyed
