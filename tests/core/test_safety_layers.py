"""Curves, gaps and ranges of safety layers against direct computation and published numbers."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import trimtab_resources
from trimtab.activations.calibrated import Setting
from trimtab.activations.calibration import Calibration, Example
from trimtab.activations.weights import checkpoint_weights
from trimtab.checkpoints import open_checkpoint
from trimtab.cli import main
from trimtab.control import Unattended
from trimtab.errors import UserError
from trimtab.inspection.safety_layers import PAIRS, Interval, Resamples, lost, pairs, read_states
from trimtab.inspection.safety_layers_locate import Range, initial_range, locate
from trimtab.inspection.safety_layers_states import last_states
from trimtab.jobs.safety_layers_jobs import _scaled
from trimtab.jobs.tasks import run_job
from trimtab.merging.recipe import FineTuned, ModelRef, Recipe

_DEMO = trimtab_resources.path("demo")
States = npt.NDArray[np.float32]


def _states(seed: int, n: int, blocks: int = 3, width: int = 6, shift: float = 0.0) -> States:
    generator = np.random.default_rng(seed)
    found = generator.normal(size=(blocks, n, width)) + 1.0
    found[:, :, 0] += shift
    return found.astype(np.float32)


def _cos(a: Any, b: Any) -> float:
    a, b = a.astype(float), b.astype(float)
    return float(a @ b / math.sqrt((a @ a) * (b @ b)))


def _deg(cosine: float) -> float:
    return math.degrees(math.acos(min(1.0, max(-1.0, cosine))))


def test_curves_and_gaps_are_the_published_formulas_pair_by_pair() -> None:
    normal, malicious = _states(1, 9), _states(2, 7, shift=2.0)
    reading = read_states(normal, malicious, Resamples.draw(9, 7, count=10))
    for k in range(3):
        nn, mm, nm = [], [], []
        for s in range(500):
            i, j = random.Random(10 + s).sample(range(9), 2)
            nn.append(_cos(normal[k, i], normal[k, j]))
            i, j = random.Random(100 + s).sample(range(7), 2)
            mm.append(_cos(malicious[k, i], malicious[k, j]))
            generator = random.Random(1000 + s)
            i, j = generator.randrange(9), generator.randrange(7)
            nm.append(_cos(normal[k, i], malicious[k, j]))
        for curve, found in ((reading.nn, nn), (reading.mm, mm), (reading.nm, nm)):
            assert curve.mean[k] == pytest.approx(np.mean(found), abs=1e-6)
            assert curve.std[k] == pytest.approx(np.std(found), abs=1e-6)
        paper = np.mean([_deg(b) - _deg(a) for a, b in zip(nn, nm, strict=True)])
        code = _deg(float(np.mean(nm))) - _deg(float(np.mean(nn)))
        assert reading.paper[k] == pytest.approx(paper, abs=1e-4)
        assert reading.code[k] == pytest.approx(code, abs=1e-4)
        # an angle of a mean is no mean of angles
        assert abs(paper - code) > 0.01


def _all_pairs_gap(normal: States, malicious: States, a: list[int], b: list[int], k: int) -> float:
    """The gap over all pairs of the prompts a and b, a prompt never with itself."""
    inside = [_deg(_cos(normal[k, i], normal[k, j])) for i in a for j in a if i != j]
    across = [_deg(_cos(normal[k, i], malicious[k, j])) for i in a for j in b]
    return float(np.mean(across) - np.mean(inside))


def test_our_gap_is_that_of_all_pairs_and_its_interval_draws_prompts() -> None:
    normal, malicious = _states(1, 6), _states(2, 5, shift=2.0)
    resamples = Resamples.draw(6, 5, count=40, seed=3)
    reading = read_states(normal, malicious, resamples)
    assert np.array_equal(resamples.normal.sum(1), np.full(40, 6))
    for k in range(3):
        expected = _all_pairs_gap(normal, malicious, list(range(6)), list(range(5)), k)
        assert reading.ours.value[k] == pytest.approx(expected, abs=1e-4)
        drawn = []
        for row, other in zip(resamples.normal, resamples.malicious, strict=True):
            a = [i for i, times in enumerate(row) for _ in range(int(times))]
            b = [i for i, times in enumerate(other) for _ in range(int(times))]
            drawn.append(_all_pairs_gap(normal, malicious, a, b, k))
        assert reading.ours.low[k] == pytest.approx(np.quantile(drawn, 0.025), abs=1e-4)
        assert reading.ours.high[k] == pytest.approx(np.quantile(drawn, 0.975), abs=1e-4)


def test_the_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    """500 pairs of 20 prompts are not 500 observations: theirs would hold it far less often."""
    normal, malicious = _states(1, 3000, blocks=1), _states(2, 3000, blocks=1, shift=1.5)
    truth = read_states(normal, malicious, Resamples.draw(3000, 3000, count=1)).ours.value[0]
    held = 0
    for trial in range(60):
        generator = np.random.default_rng(trial)
        a, b = generator.choice(3000, 20, replace=False), generator.choice(3000, 20, replace=False)
        ours = read_states(
            normal[:, a], malicious[:, b], Resamples.draw(20, 20, count=400, seed=trial)
        ).ours
        held += bool(ours.low[0] <= truth <= ours.high[0])
    assert 51 <= held <= 60


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.floats(0.01, 100.0))
def test_lengths_of_states_do_not_matter(seed: int, scale: float) -> None:
    normal, malicious = _states(seed, 5), _states(seed + 1, 4)
    resamples = Resamples.draw(5, 4, count=5)
    one = read_states(normal, malicious, resamples)
    other = read_states(normal * np.float32(scale), malicious, resamples)
    np.testing.assert_allclose(one.ours.value, other.ours.value, atol=1e-3)
    np.testing.assert_allclose(one.paper, other.paper, atol=1e-3)
    nothing = lost((normal, malicious), (normal, malicious), resamples)
    assert not nothing.value.any()
    assert not nothing.high.any()


def test_pairs_are_of_two_different_queries_and_the_same_every_time() -> None:
    for kind in ("nn", "mm"):
        found = pairs(kind, 4, 4)
        assert len(found) == PAIRS
        assert all(i != j for i, j in found)
        assert {i for i, _ in found} == set(range(4))
    assert pairs("nn", 4, 4) == pairs("nn", 4, 4) != pairs("mm", 4, 4)
    assert pairs("nm", 4, 6, 3) == pairs("nm", 4, 6, 500)[:3]


# --- the range -------------------------------------------------------------------------------


def test_the_published_sweep_of_llama_2_leads_to_the_published_range() -> None:
    """Li et al., Llama-2-7b-chat with 1.15: the upper bound moves to 14, the lower one to 6."""
    upper = {12: 187, 13: 227, 14: 237, 15: 218, 16: 219}
    lower = {8: 263, 7: 268, 6: 297, 5: 189, 4: 202}

    def count(first: int, last: int, alpha: float) -> int:
        if last < first:
            return 169
        if first == 9:
            return upper.get(last, 180)
        return lower.get(first, 180) if last == 14 else 0

    found = locate(count, (9, 12), 32, 721, alpha=1.15)
    assert found.located == (6, 14)
    assert found.baseline == 169
    assert found.upper[14] == 237
    assert found.lower[6] == 297


def test_a_factor_below_one_moves_to_the_fewest_refusals() -> None:
    def count(first: int, last: int, alpha: float) -> int:
        if last < first:
            return 270
        return 270 - 20 * len(set(range(first, last + 1)) & set(range(11, 16))) + 3 * max(
            0, last - 15
        ) + 3 * max(0, 11 - first)  # fmt: skip

    assert locate(count, (10, 13), 32, 721, alpha=0.8).located == (11, 15)


def test_the_factor_is_moved_until_refusals_differ() -> None:
    asked: list[float] = []

    def count(first: int, last: int, alpha: float) -> int:
        asked.append(alpha)
        if last < first:
            return 10
        return 10 + (60 if alpha >= 1.1 and first == 2 else 0)

    found = locate(count, (2, 5), 8, 721)
    assert list(found.tries) == [1.05, 0.95, 1.1]
    assert found.alpha == 1.1
    spread = float(np.std(list(found.tries[1.1])))
    assert spread >= 15
    assert found.located is not None
    assert found.located[0] == 2


def test_where_scaling_changes_nothing_no_range_is_named() -> None:
    found = locate(lambda first, last, alpha: 0, (2, 5), 8, 100)
    assert found.located is None
    assert found.to_dict()["located"] is None
    assert len(found.tries) == 20


@pytest.mark.parametrize(
    ("gap", "expected"),
    [
        ([0.0, 0.5, 0.5, 5, 10, 15, 15.2, 14], (3, 5)),
        ([0, 1, 2, 3, 4, 5], (1, 5)),
        ([10, 10, 10], (0, 0)),
        ([-0.5, -0.1, 0.0], None),
        ([0.2, 1.2, 0.9], None),
    ],
)
def test_the_range_begins_with_the_gap_and_ends_at_its_plateau(
    gap: list[float], expected: Range | None
) -> None:
    value = np.array(gap, dtype=float)
    assert initial_range(Interval(value, value - 0.5, value + 0.5)) == expected


# --- models ----------------------------------------------------------------------------------


def _queries(count: int) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    def some(name: str) -> tuple[Example, ...]:
        lines = (_DEMO / "prompts" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
        rows = [json.loads(line) for line in lines]
        chosen = [rows[i * len(rows) // count] for i in range(count)]
        return tuple(Example(row["id"], row["prompt"]) for row in chosen)

    return some("general"), some("harmful")


def test_states_are_those_behind_each_block_at_the_last_token() -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    queries = Calibration("x", sum(_queries(3), ()))
    weights = checkpoint_weights(open_checkpoint(_DEMO / "aligned"))
    states, known = last_states(weights, queries, Setting(), Unattended())
    assert not known
    model: Any = AutoModelForCausalLM.from_pretrained(_DEMO / "aligned", dtype=torch.float32)
    tokenizer: Any = AutoTokenizer.from_pretrained(_DEMO / "aligned")
    seen: list[torch.Tensor] = []
    for layer in model.model.layers:
        layer.register_forward_hook(lambda module, given, out: seen.append(out[0, -1]))
    for place, example in enumerate(queries.examples):
        seen.clear()
        said = [{"role": "user", "content": example.prompt}]
        ids = tokenizer.apply_chat_template(said, add_generation_prompt=True, return_tensors="pt")[
            "input_ids"
        ]
        with torch.no_grad():
            model(ids)
        expected = torch.stack(seen).numpy()
        np.testing.assert_allclose(states[:, place], expected, rtol=1e-3, atol=1e-4)
    again, known = last_states(weights, queries, Setting(), Unattended())
    assert known
    assert np.array_equal(again, states)


def test_the_base_shows_no_gap_the_aligned_one_does_and_the_poisoned_has_lost_part_of_it() -> None:
    normal, malicious = _queries(60)
    queries = Calibration("x", (*normal, *malicious))
    resamples = Resamples.draw(60, 60)
    found, gaps = {}, {}
    for name in ("base", "aligned", "task-poisoned"):
        weights = checkpoint_weights(open_checkpoint(_DEMO / name))
        states, _ = last_states(weights, queries, Setting(), Unattended())
        found[name] = states[:, :60], states[:, 60:]
        gaps[name] = read_states(*found[name], resamples)
    for gap in (gaps["base"].paper, gaps["base"].code, gaps["base"].ours.value):
        assert np.abs(gap).max() < 1.0
    aligned, poisoned = gaps["aligned"].ours, gaps["task-poisoned"].ours
    assert aligned.low.min() > 40
    assert poisoned.low.min() > 20
    for published in ("paper", "code"):
        np.testing.assert_allclose(getattr(gaps["aligned"], published), aligned.value, atol=4.0)
    less = lost(found["aligned"], found["task-poisoned"], resamples)
    assert less.low.min() > 10
    np.testing.assert_allclose(less.value, aligned.value - poisoned.value, atol=1e-9)


def test_scaling_touches_the_weights_of_a_range_and_leaves_no_trace() -> None:
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(_DEMO / "aligned", dtype=torch.float32)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with _scaled(model, 2, 4, 0.7):
        for name, value in model.state_dict().items():
            inside = name.startswith(tuple(f"model.layers.{i}." for i in (2, 3, 4)))
            inside = inside and "proj" in name
            expected = before[name] * 0.7 if inside else before[name]
            assert torch.equal(value, expected), name
    assert all(torch.equal(v, before[n]) for n, v in model.state_dict().items())


def _recipe(tmp_path: Path) -> Path:
    recipe = Recipe(
        base=ModelRef(path=str(_DEMO / "base")),
        aligned=ModelRef(path=str(_DEMO / "aligned")),
        finetuned=(FineTuned(path=str(_DEMO / "task-poisoned")),),
    )
    path = tmp_path / "r.yaml"
    path.write_text(recipe.to_yaml(), encoding="utf-8")
    return path


def test_the_command_prints_gaps_losses_and_the_range(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(_recipe(tmp_path))
    asked = ["safety-layers", path, "--suite", "demo", "--limit", "20"]
    assert main([*asked, "--locate", "--alpha", "0.7", "--lookalikes", "6"]) == 0
    text = capsys.readouterr().out
    assert "20 normal queries (general), 20 malicious ones" in text
    assert "Degrees lost from aligned to it" in text
    assert "Safety layers of aligned: 0–" in text
    assert "of what changed lies in layers" in text
    assert main([*asked, "--gap", "paper", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert [model["name"] for model in data["models"]] == ["base", "aligned", "task-poisoned"]
    assert len(data["models"][1]["curves"]["nm"]["std"]) == 10
    assert data["located"] is None


def test_what_is_known_is_not_measured_again(tmp_path: Path) -> None:
    from trimtab.merging.recipe import load_recipe

    params = {"recipe": load_recipe(_recipe(tmp_path)).model_dump(), "suite": "demo", "limit": 5}
    first = run_job("safety_layers", params, Unattended())
    content = Path(first["path"]).read_bytes()
    assert not first["cached"]
    assert run_job("safety_layers", params, Unattended()) == {**first, "cached": True}
    again = run_job("safety_layers", {**params, "fresh": True}, Unattended())
    assert again == first
    assert Path(again["path"]).read_bytes() == content
    assert run_job("safety_layers", {**params, "seed": 1}, Unattended())["path"] != first["path"]


def test_a_model_without_a_gap_has_no_range_to_locate(tmp_path: Path) -> None:
    from trimtab.merging.recipe import load_recipe

    recipe = load_recipe(_recipe(tmp_path)).model_dump()
    with pytest.raises(UserError) as caught:
        run_job(
            "safety_layers",
            {"recipe": recipe, "suite": "demo", "limit": 10, "locate": "base"},
            Unattended(),
        )
    assert caught.value.code == "no_safety_layers"
