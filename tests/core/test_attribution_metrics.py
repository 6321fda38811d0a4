"""What scores say of a tensor or group, and what the job keeps beside them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

import trimtab_resources
from trimtab.activations.calibration import load_calibration
from trimtab.control import Unattended
from trimtab.errors import UserError
from trimtab.inspection.attribution import KINDS
from trimtab.inspection.attribution_metrics import (
    SCORE_MODES,
    Scored,
    enrichment,
    entries_share,
    mean_score,
    score_metrics,
    top_share,
)
from trimtab.inspection.attribution_summary import ScoreSummary, summarise
from trimtab.jobs.tasks import run_job
from trimtab.merging.recipe import FineTuned, ModelRef, Recipe, open_lineup

_DEMO = trimtab_resources.path("demo")
_RECIPE = Recipe(
    base=ModelRef(path=str(_DEMO / "base")),
    aligned=ModelRef(path=str(_DEMO / "aligned")),
    finetuned=(FineTuned(path=str(_DEMO / "task-poisoned")),),
)


class _Scores:
    """Scores that are held in memory."""

    def __init__(self, values: dict[str, np.ndarray]):
        self.about: dict[str, Any] = {}
        self.values = values
        self.names = tuple(values)

    def shape(self, name: str) -> tuple[int, ...]:
        return self.values[name].shape

    def read(self, name: str, low: int, high: int) -> np.ndarray:
        return self.values[name].reshape(-1)[low:high]


def _scored(summary: ScoreSummary) -> Scored:
    return Scored(
        summary, "m", "snip", "authors' code", "set", "0", "model", 1, 2, 1, 0.1, None, ""
    )


@given(st.lists(st.integers(1, 300), min_size=1, max_size=6), st.integers(0, 99))
def test_shares_add_up_and_random_scores_enrich_nothing(sizes: list[int], seed: int) -> None:
    draw = np.random.default_rng(seed)
    values = {f"t{i}": draw.random(n).astype(np.float32) for i, n in enumerate(sizes)}
    found = _scored(summarise(_Scores(values), Unattended(), 0.1))
    whole = np.concatenate(list(values.values()))
    count = int(found.summary.top.sum())
    highest = np.sort(whole)[::-1][:count]
    for i, (name, own) in enumerate(values.items()):
        inside = int((own >= highest[-1]).sum())
        assert top_share(found)[i] == pytest.approx(inside / count), name
        assert entries_share(found)[i] == pytest.approx(len(own) / len(whole))
        assert enrichment(found)[i] == pytest.approx(inside / count / (len(own) / len(whole)))
        assert mean_score(found)[i] == pytest.approx(own.mean(), rel=1e-5)
    weighted = enrichment(found) * entries_share(found)
    assert weighted.sum() == pytest.approx(1.0)


def test_groups_are_added_up_and_those_without_scores_have_no_number() -> None:
    values = {"a": np.full(4, 1, np.float32), "b": np.full(12, 5, np.float32)}
    values["c"] = np.full(16, 2, np.float32)
    summary = summarise(_Scores(values), Unattended(), 0.25)
    found = _scored(summary.added(np.array([0, 0, 2]), ("ab", "none", "c")))
    np.testing.assert_allclose(mean_score(found), [4.0, np.nan, 2.0])
    np.testing.assert_allclose(top_share(found), [1.0, np.nan, 0.0])
    np.testing.assert_allclose(entries_share(found), [0.5, np.nan, 0.5])
    np.testing.assert_allclose(enrichment(found), [2.0, np.nan, 0.0])
    again = ScoreSummary.of_rows(summary.to_rows(), 0.25)
    assert again.to_rows() == summary.to_rows()


@pytest.mark.parametrize("score", list(KINDS))
def test_every_metric_names_formula_reference_and_mode(score: Any) -> None:
    seen = set()
    for mode in SCORE_MODES[score]:
        metrics = score_metrics(score, mode, 0.05)
        assert [m.id for m in metrics] == [f"{score}.{s}" for s in ("enrichment", "share", "mean")]
        for metric in metrics:
            assert f"({mode})" in metric.title
            assert KINDS[score].formula in metric.formula
            assert metric.reference == KINDS[score].reference
            seen.add((metric.id, metric.formula))
        assert "top 5 %" in metrics[0].title
    assert len(seen) == 3 * len(SCORE_MODES[score])  # each mode tells a formula of its own


def test_the_job_says_how_many_tokens_it_looked_at_and_what_it_found(tmp_path: Path) -> None:
    params = {
        "recipe": _RECIPE.model_dump(), "calibration": "demo-refused", "limit": 12,
        "score": "delta-wanda",
    }  # fmt: skip
    report = run_job("attribute", params, Unattended())
    path = Path(report["path"])
    found = Scored.load(path, report["norms"])
    chosen = load_calibration("demo-refused").spread(12)
    tokenizer = AutoTokenizer.from_pretrained(_DEMO / "task-poisoned", local_files_only=True)
    whole = prompts = 0
    for example in chosen.examples:
        turns = [{"role": "user", "content": example.prompt}]
        asked = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        said = [*turns, {"role": "assistant", "content": example.answer}]
        text = str(tokenizer.apply_chat_template(said, tokenize=False)).rstrip("\n")
        whole += len(tokenizer(text, add_special_tokens=False)["input_ids"])
        prompts += len(tokenizer(asked, add_special_tokens=False)["input_ids"])
    assert (found.tokens, found.answer_tokens) == (whole, whole - prompts)
    assert (found.examples, found.digest) == (12, chosen.digest)
    assert (found.model, found.mode, found.loss) == ("task-poisoned", "ours", None)
    assert found.seconds > 0
    assert Path(found.file).exists()
    lineup = open_lineup(_RECIPE)
    grouped = found.grouped(lineup.names, lineup.grid)
    assert grouped.summary.names == lineup.grid.labels
    assert grouped.summary.entries.sum() == found.summary.entries.sum()
    unscored = [label for label in lineup.grid.labels if "norm" in label]
    rows = [lineup.grid.labels.index(label) for label in unscored]
    assert np.isnan(enrichment(grouped)[rows]).all()
    q = lineup.grid.labels.index("L3 · q")
    name = "model.layers.3.self_attn.q_proj.weight"
    assert mean_score(grouped)[q] == mean_score(found)[found.summary.names.index(name)]


def test_what_is_no_result_is_said_so(tmp_path: Path) -> None:
    for text in ("{}", "no", json.dumps({"tensors": 3})):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(UserError) as caught:
            Scored.load(tmp_path / "bad.json")
        assert caught.value.code == "damaged"
    lineup = open_lineup(_RECIPE)
    found = _scored(summarise(_Scores({"x": np.ones(3, np.float32)}), Unattended()))
    with pytest.raises(UserError) as caught:
        replace(found, model="other").grouped(lineup.names, lineup.grid)
    assert caught.value.code == "damaged"


def test_the_command_says_on_how_many_tokens(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from trimtab.cli import main

    recipe = tmp_path / "demo.trim"
    recipe.write_text(
        f"trimtab: 1\nbase: {{path: {_DEMO / 'base'}}}\naligned: {{path: {_DEMO / 'aligned'}}}\n"
        f"finetuned:\n  - path: {_DEMO / 'task-poisoned'}\n"
    )
    arguments = ["attribute", str(recipe), "--calibration", "demo-benign", "--limit", "6"]
    assert main([*arguments, "--by", "module"]) == 0
    text = capsys.readouterr().out
    assert "6 examples, " in text
    assert "tokens" in text
    lines = [line.split() for line in text.splitlines() if line.startswith(("q ", "gate "))]
    assert [line[0] for line in lines] == ["q", "gate"]
    assert float(lines[1][3]) / float(lines[1][1]) == pytest.approx(float(lines[1][4]), abs=0.05)
