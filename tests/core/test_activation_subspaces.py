"""Safe and useful activations: overlaps and refusal directions, beside what chance gives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from activation_models import Stopping
from scipy.linalg import subspace_angles

import trimtab_resources
from trimtab.activations.second_moments import Moments, summed
from trimtab.cli import main
from trimtab.control import JobCancelled, Unattended
from trimtab.errors import UserError
from trimtab.inspection import activation_subspaces as found_of
from trimtab.inspection.activation_subspaces import (
    GROUPS,
    ActivationSubspaces,
    compare,
    refusal_layers,
    relabellings,
)
from trimtab.jobs.tasks import run_job
from trimtab.merging.recipe import FineTuned, ModelRef, Recipe
from trimtab.subspaces import directions

Array = npt.NDArray[np.float64]
_DEMO = trimtab_resources.path("demo")


def _draw(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def _moments(y: Array) -> Moments:
    return Moments(y.T @ y, y.sum(0), len(y))


# The comparison.


def _groups(draw: np.random.Generator, spread: Array, other: Array, n: int = 60) -> list[Moments]:
    """Groups of which the first half spreads as `spread` [d, d] says, the second as `other`."""
    return [
        _moments(draw.normal(0, 1, (n, len(part))) @ part)
        for part in [spread] * GROUPS + [other] * GROUPS
    ]


def _diagonal(d: int, strong: range) -> Array:
    found = np.full(d, 0.05)
    found[strong] = 1.0
    return np.diag(found)


def test_every_relabelling_is_there_once_and_the_true_one_first() -> None:
    found = relabellings()
    assert found[0] == ((0, 1, 2), (3, 4, 5))
    assert len(found) == 10
    assert len({frozenset(map(frozenset, halves)) for halves in found}) == 10
    assert all(len(a) == len(b) == GROUPS for a, b in found)


@pytest.mark.parametrize("exact", [True, False])
def test_overlap_angles_and_energies_are_those_of_the_formula(
    exact: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not exact:
        monkeypatch.setattr(directions, "EXACT", 8)
        monkeypatch.setattr(found_of, "EXACT", 8)
    draw, d, k = _draw(5), 64, 4
    groups = _groups(draw, _diagonal(d, range(4)), _diagonal(d, range(2, 6)))
    tau = draw.normal(0, 1, (d, 7)).astype(np.float32)
    found = compare("w", groups, {"math": tau}, rank=k, centre=False, seed=1)
    safe, useful = summed(groups[:GROUPS]), summed(groups[GROUPS:])
    u, h = (np.linalg.eigh(part.gram)[1][:, ::-1][:, :k] for part in (safe, useful))
    angles = np.degrees(np.sort(subspace_angles(u, h)))
    np.testing.assert_allclose(found.angles, angles, atol=1e-4)
    assert found.overlap == pytest.approx(float((np.cos(np.radians(angles)) ** 2).sum()), rel=1e-6)
    assert (found.safe_k, found.useful_k, found.most, found.outputs) == (k, k, k, d)
    assert found.expected == pytest.approx(k * k / d)
    pu, ph = u @ u.T, h @ h.T
    operator = (np.eye(d) - ph) @ pu
    for got, wanted in (
        (found.safe_energy, np.trace(safe.gram)),
        (found.safe_in_safe, np.trace(pu @ safe.gram)),
        (found.safe_in_useful, np.trace(ph @ safe.gram)),
        (found.safe_only, np.trace(operator @ safe.gram @ operator.T)),
        (found.useful_energy, np.trace(useful.gram)),
        (found.useful_in_useful, np.trace(ph @ useful.gram)),
        (found.useful_in_safe, np.trace(pu @ useful.gram)),
        (found.changes["math"].safe, np.sum((u.T @ tau) ** 2)),
        (found.changes["math"].useful, np.sum((h.T @ tau) ** 2)),
        (found.changes["math"].whole, np.sum(np.square(tau, dtype=np.float64))),
        (found.changes["math"].expected_safe, np.sum(np.square(tau, dtype=np.float64)) * k / d),
    ):
        assert got == pytest.approx(float(wanted), rel=1e-5)


def test_sets_that_differ_overlap_less_than_relabelled_ones_and_alike_ones_do_not() -> None:
    draw, d = _draw(6), 48
    apart = _groups(draw, _diagonal(d, range(6)), _diagonal(d, range(20, 26)))
    found = compare("w", apart, {}, rank=6, centre=False, seed=0)
    assert len(found.relabelled) == 9
    assert found.overlap < min(found.relabelled)
    assert found.overlap / found.most < 0.05
    alike = _groups(draw, _diagonal(d, range(6)), _diagonal(d, range(6)))
    found = compare("w", alike, {}, rank=6, centre=False, seed=0)
    assert found.overlap / found.most > 0.9
    assert found.overlap > 0.95 * min(found.relabelled)
    assert max(found.dealt) < 0.5 * found.overlap  # coordinates are not what they have in common


def test_rank_is_held_to_an_eighth_of_the_outputs_and_seeds_to_their_bits() -> None:
    groups = _groups(_draw(7), np.eye(32), np.eye(32))
    found = compare("w", groups, {}, rank=16, centre=False, seed=4)
    assert found.safe_k == 4
    assert compare("w", groups, {}, rank=16, centre=False, seed=4) == found
    assert compare("w", groups, {}, rank=16, centre=False, seed=5).dealt != found.dealt


def test_the_mean_makes_an_overlap_that_centring_takes_away() -> None:
    draw, d = _draw(8), 40
    spread, other = _diagonal(d, range(5)), _diagonal(d, range(10, 15))
    groups = [
        _moments(draw.normal(0, 1, (60, d)) @ part + 30 * np.eye(d)[39])
        for part in [spread] * GROUPS + [other] * GROUPS
    ]
    plain = compare("w", groups, {}, rank=1, centre=False, seed=0)
    centred = compare("w", groups, {}, rank=1, centre=True, seed=0)
    assert plain.overlap > 0.99
    assert centred.overlap < 0.2


# The refusal direction.


def test_refusal_directions_are_differences_of_means_beside_chance() -> None:
    draw = _draw(9)
    states = draw.normal(0, 1, (3, 50, 16)).astype(np.float32)
    moved = states.copy()
    moved[1:, :20] += 2.0
    found = refusal_layers({"moved": moved, "flat": states, "far": 10 * moved}, 20, "moved", 1)
    by = {(layer.model, layer.block): layer for layer in found}
    r = {m: s[:, :20].mean(1, dtype=np.float64) - s[:, 20:].mean(1, dtype=np.float64)
         for m, s in (("moved", moved), ("flat", states))}  # fmt: skip
    for (model, block), layer in by.items():
        if model == "far":
            assert layer.norm == pytest.approx(10 * by["moved", block].norm, rel=1e-5)
            assert layer.cosine == pytest.approx(1.0)
            assert layer.relative == pytest.approx(by["moved", block].relative, rel=1e-5)
            continue
        assert layer.norm == pytest.approx(float(np.linalg.norm(r[model][block])), rel=1e-5)
        lengths = np.linalg.norm({"moved": moved, "flat": states}[model][block], axis=1)
        assert layer.relative == pytest.approx(layer.norm / lengths.mean(), rel=1e-5)
        assert layer.spread == 0.25
    assert by["moved", 1].norm > 2 * by["moved", 1].chance
    assert by["flat", 1].norm < 1.5 * by["flat", 1].chance
    assert np.isnan(by["moved", 0].turn)
    assert by["moved", 2].turn > 0.9
    wanted = r["flat"][1] @ r["moved"][1]
    wanted /= np.linalg.norm(r["flat"][1]) * np.linalg.norm(r["moved"][1])
    assert by["flat", 1].cosine == pytest.approx(float(wanted), abs=1e-6)


def test_prompts_without_a_difference_exceed_chance_one_time_in_twenty() -> None:
    states = _draw(10).normal(0, 1, (200, 24, 6)).astype(np.float32)
    found = refusal_layers({"m": states}, 12, "m", 0)
    above = sum(layer.norm > layer.chance for layer in found)
    assert 2 <= above <= 22  # of 200; 10 are expected


# The job and the command.


def _recipe(**more: Any) -> Recipe:
    return Recipe(
        base=ModelRef(path=str(_DEMO / "base")),
        aligned=ModelRef(path=str(_DEMO / "aligned")),
        finetuned=(FineTuned(path=str(_DEMO / "task-poisoned")),),
        **more,
    )


def _params(**more: Any) -> dict[str, Any]:
    return {
        "recipe": _recipe().model_dump(), "safe": "demo-refused", "useful": "demo-benign",
        "limit": 24, "rank": 4, **more,
    }  # fmt: skip


def test_the_demos_base_has_no_refusal_direction_and_the_poisoned_one_has_turned() -> None:
    report = run_job("activation_subspaces", _params(), Unattended())
    assert not report["cached"]
    found = ActivationSubspaces.load(Path(report["path"]))
    by = {(layer.model, layer.block): layer for layer in found.refusal}
    for block in range(10):
        assert by["aligned", block].norm > 2 * by["aligned", block].chance
        assert by["base", block].norm < by["base", block].chance
        assert by["task-poisoned", block].cosine < 0.9
    assert len(found.matrices) == 70
    assert found.about["examples"] == 24
    assert found.about["counted"]["answers"] > 0
    mso = sum(m.overlap for m in found.matrices) / sum(m.most for m in found.matrices)
    chance = sum(m.expected for m in found.matrices) / sum(m.most for m in found.matrices)
    assert mso > 2 * chance
    assert set(found.matrices[0].changes) == {"base", "task-poisoned"}
    again = run_job("activation_subspaces", _params(), Unattended())
    assert again == {**report, "cached": True}
    other = run_job("activation_subspaces", _params(centre=True), Unattended())
    assert other["path"] != report["path"]
    Path(report["path"]).write_text('{"about": {}}')
    assert not run_job("activation_subspaces", _params(), Unattended())["cached"]


def test_what_cannot_be_told_is_refused() -> None:
    with pytest.raises(UserError) as caught:
        run_job("activation_subspaces", _params(limit=5), Unattended())
    assert caught.value.code == "calibration_short"
    with pytest.raises(UserError) as caught:
        run_job("activation_subspaces", _params(model="nobody"), Unattended())
    assert caught.value.code == "no_such_model"


def test_without_answers_only_all_tokens_can_be_looked_at(tmp_path: Path) -> None:
    lines = [json.dumps({"prompt": f"vuk {k}"}) for k in range(8)]
    (tmp_path / "bare.jsonl").write_text("\n".join(lines))
    params = _params(safe=str(tmp_path / "bare.jsonl"), useful=str(tmp_path / "bare.jsonl"))
    with pytest.raises(UserError) as caught:
        run_job("activation_subspaces", params, Unattended())
    assert caught.value.code == "no_answers"
    report = run_job("activation_subspaces", {**params, "tokens": "all"}, Unattended())
    found = ActivationSubspaces.load(Path(report["path"]))
    # the same prompts twice: all overlap, and no difference of means
    assert min(m.overlap / m.most for m in found.matrices) > 0.999
    assert max(layer.norm for layer in found.refusal) < 1e-4
    assert np.isnan(found.refusal[0].turn)


@pytest.mark.parametrize("checks", [3, 40])
def test_a_cancelled_job_keeps_nothing(checks: int, tmp_path: Path) -> None:
    with pytest.raises(JobCancelled):
        run_job("activation_subspaces", _params(), Stopping(checks))
    assert run_job("activation_subspaces", _params(), Unattended())["cached"] is False


def test_the_command_prints_each_overlap_beside_chance(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    models = [str(_DEMO / name) for name in ("base", "aligned", "task-poisoned")]
    asked = ["subspaces", *models, "--of", "activations", "--limit", "12"]
    sets = ["--calibration", "demo-refused", "--utility", "demo-benign"]
    assert main([*asked, *sets, "--by", "module"]) == 0
    text = capsys.readouterr().out
    assert "aligned: outputs on the answers' tokens, 12 examples each of demo-refused" in text
    for head in ("MSO", "chance", "dealt out", "relabelled", "first °", "only safe", "a: safe",
                 "τ task-poisoned: safe", "|r| base", "by chance"):  # fmt: skip
        assert head in text
    row = next(line.split() for line in text.splitlines() if line.startswith("down "))
    mso, chance, dealt = float(row[1]), float(row[2]), row[3].split("–")
    assert chance == pytest.approx(0.125, abs=1e-3)
    assert float(dealt[0]) <= chance + 0.03
    assert mso > float(dealt[1])
    assert main([*asked, *sets, "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert len(data["matrices"]) == 70
    assert data["refusal"][0]["turn"] is None
    assert main([*asked, "--calibration", "demo-refused"]) == 1
    assert "[no_calibration]" in capsys.readouterr().err
