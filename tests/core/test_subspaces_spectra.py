"""Spectra of a lineup: exact ones are a dense decomposition's, coarse ones come first."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy.linalg import block_diag
from torch import Tensor

from builders import DTYPES, lineup, moved, recipe, write_model
from trimtab.checkpoints import Lineup
from trimtab.cli import main
from trimtab.control import JobCancelled, Unattended
from trimtab.errors import UserError
from trimtab.inspection import spectra_scan
from trimtab.inspection import spectral_metrics as metrics
from trimtab.inspection.spectra import COARSE, EXACT, FINE, VALUES, Spectra, spectra_path
from trimtab.inspection.spectra_scan import directions, find_spectra
from trimtab.jobs.tasks import run_job

Floats = npt.NDArray[Any]

SHAPES = {
    "model.embed_tokens.weight": (120, 90),
    "model.layers.0.self_attn.q_proj.weight": (90, 90),
    "model.layers.0.mlp.up_proj.weight": (100, 90),
    "model.layers.0.mlp.up_proj.bias": (100,),
    "model.layers.1.mlp.down_proj.weight": (90, 100),
    "model.layers.1.mlp.experts.gate_up_proj": (3, 20, 90),
    "model.norm.weight": (90,),
}
UP, DOWN = "model.layers.0.mlp.up_proj.weight", "model.layers.1.mlp.down_proj.weight"
EXPERTS = "model.layers.1.mlp.experts.gate_up_proj"


def tensors(dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {name: torch.randn(s, generator=generator).to(dtype) for name, s in SHAPES.items()}


def with_common(values: dict[str, Tensor], seed: int, scale: float) -> dict[str, Tensor]:
    """A model moved at random and, in matrices, along a few directions that all have in common."""
    out = moved(values, seed, scale)
    for name, value in out.items():
        if value.ndim > 1:
            generator = torch.Generator().manual_seed(99)
            left = torch.randn(*value.shape[:-1], 3, generator=generator)
            right = torch.randn(*value.shape[:-2], 3, value.shape[-1], generator=generator)
            sign = 1 if seed == 2 else -1
            out[name] = (value.float() + sign * scale * left @ right).to(value.dtype)
    return out


def models(tmp_path: Path, dtype: torch.dtype = torch.float32) -> dict[str, dict[str, Tensor]]:
    aligned = tensors(dtype)
    found = {
        "aligned": aligned,
        "base": with_common(aligned, 2, 0.05),
        "one": with_common(aligned, 3, 0.02),
        "two": moved(aligned, 4, 0.1, keep=[UP]),
    }
    for name, values in found.items():
        write_model(tmp_path / name, values, config=None)
    return found


def opened(tmp_path: Path, *finetuned: str, base: bool = True) -> Lineup:
    return lineup(
        tmp_path / "aligned", *(tmp_path / name for name in finetuned),
        base=tmp_path / "base" if base else None,
    )  # fmt: skip


def loaded(path: Path) -> Spectra:
    found = Spectra.load(path)
    assert found is not None
    return found


def found_in(tmp_path: Path, level: Any = "exact", **options: Any) -> Spectra:
    return loaded(find_spectra(opened(tmp_path, "one", "two"), Unattended(), level, **options))


def difference(one: Tensor, other: Tensor) -> Floats:
    return np.asarray((one.float() - other.float()).double().numpy())


def blocks(values: Floats) -> list[Floats]:
    return [values] if values.ndim == 2 else list(values)


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
def test_exact_spectra_are_those_of_a_dense_decomposition(
    tmp_path: Path, dtype: torch.dtype
) -> None:
    made = models(tmp_path, dtype)
    found = found_in(tmp_path)
    assert found.stage == "exact"
    for row, name in enumerate(found.names):
        shape = SHAPES[name]
        assert found.matrices[row] == (0 if len(shape) == 1 else shape[0] if len(shape) == 3 else 1)
        if len(shape) == 1:
            assert np.isnan(found.norm2[row]).all()
            continue
        a = difference(made["aligned"][name], made["base"][name])
        taus = [difference(made[m][name], made["aligned"][name]) for m in ("one", "two")]
        for v, values in enumerate((a, *taus)):
            s = np.linalg.svd(block_diag(*blocks(values)), compute_uv=False)
            top = min(VALUES * len(blocks(values)), len(s), VALUES)
            np.testing.assert_allclose(found.values[row, v, :top], s[:top], rtol=1e-6, atol=1e-6)
            assert np.all(found.lower[row, v, :top] <= s[:top] + 1e-12)
            assert np.all(s[:top] <= found.upper[row, v, :top] + 1e-12)
            assert found.norm2[row, v] == pytest.approx(np.sum(s**2))
            assert found.fourth[row, v] == pytest.approx(np.sum(s**4))
            if s.any():
                p = s[s > 1e-9 * s[0]] / s[s > 1e-9 * s[0]].sum()
                rank = (metrics.alignment_effective_rank, metrics.effective_rank)[v > 0](
                    found, max(v - 1, 0)
                )[row]
                assert rank == pytest.approx(np.exp(-np.sum(p * np.log(p))), rel=1e-5)


def test_energy_and_overlap_are_those_of_the_formula(tmp_path: Path) -> None:
    made = models(tmp_path)
    found = found_in(tmp_path)
    for row, name in enumerate(found.names):
        if len(SHAPES[name]) == 1:
            continue
        d, k = SHAPES[name][-2], directions(16, SHAPES[name][-2:])  # type: ignore[arg-type]
        assert k == min(16, min(SHAPES[name][-2:]) // 8)
        a = blocks(difference(made["aligned"][name], made["base"][name]))
        tau = blocks(difference(made["one"][name], made["aligned"][name]))
        us = [np.linalg.svd(part)[0][:, :k] for part in a]
        own = [np.linalg.svd(part)[0][:, :k] for part in tau]
        inside = sum(np.sum((u.T @ part) ** 2) for u, part in zip(us, tau, strict=True))
        whole = sum(np.sum(part**2) for part in tau)
        overlap = np.mean([np.sum((u.T @ h) ** 2) / k for u, h in zip(us, own, strict=True)])
        assert metrics.safety_energy(found, 0)[row] == pytest.approx(inside / whole, rel=1e-4)
        # of small matrices, which a coarse look knows exactly, as of large ones
        assert np.isfinite(found.inside_permuted[row]).all()
        assert metrics.expected_energy(found, 0)[row] == pytest.approx(k / d)
        assert metrics.energy_ratio(found, 0)[row] == pytest.approx(
            inside / whole * d / k, rel=1e-4
        )
        assert metrics.overlap(found, 0)[row] == pytest.approx(overlap, rel=1e-4)
        assert metrics.expected_overlap(found, 0)[row] == pytest.approx(k / d)


def test_directions_in_common_are_above_chance_and_others_are_not(tmp_path: Path) -> None:
    models(tmp_path)
    found = found_in(tmp_path)
    rows = [found.names.index(name) for name in (DOWN, "model.embed_tokens.weight")]
    assert np.all(metrics.energy_deviations(found, 0)[rows] > 20)
    assert np.all(metrics.overlap_ratio(found, 0)[rows] > 1.5)
    assert np.all(np.abs(metrics.energy_deviations(found, 1)[rows]) < 4)
    share = found.inside_permuted[rows, 1] / found.whole[rows, 1, None]
    chance = metrics.expected_energy(found, 1)[rows, None]
    np.testing.assert_allclose(share.mean(axis=1, keepdims=True), chance, rtol=0.1)
    assert np.all(found.inside[rows, 0] > found.inside_permuted[rows, 0].max(axis=1))
    assert np.all(found.overlap[rows, 0] > found.overlap_permuted[rows, 0].max(axis=1))


def test_a_change_that_is_none_has_no_direction(tmp_path: Path) -> None:
    models(tmp_path)
    found = found_in(tmp_path)
    row = found.names.index(UP)
    assert not found.values[row, 2].any()
    assert found.inside[row, 1] == 0
    for metric in metrics.SPECTRAL_METRICS:
        if not metric.id.startswith("alignment"):
            assert np.isnan(metric.compute(found, 1)[row]), metric.id


@pytest.mark.parametrize(("level", "number"), [("coarse", COARSE), ("fine", FINE)])
def test_what_a_sketch_states_holds(tmp_path: Path, level: Any, number: int) -> None:
    models(tmp_path)
    rough, exact = found_in(tmp_path, level, seed=5), found_in(tmp_path, seed=6)
    assert rough.stage == level
    rows = np.array([len(SHAPES[name]) == 2 for name in rough.names])
    known = ~np.isnan(rough.values)
    assert known[rows].sum(axis=2).max() == (16 if level == "coarse" else VALUES)
    assert np.all(rough.lower[known] <= exact.values[known] + 1e-9)
    assert np.all(exact.values[known] <= rough.upper[known] + 1e-9)
    assert (rough.level[rough.present] == number).any()
    np.testing.assert_allclose(rough.norm2, exact.norm2, rtol=1e-6)
    np.testing.assert_allclose(rough.inside[rows, 0], exact.inside[rows, 0], rtol=0.1)


class Watching(Unattended):
    """Looks at the file whenever a stage begins or a tensor is done; may say stop."""

    def __init__(self, path: Path, stop_after: int = 10**9):
        self.path, self.seen = path, list[tuple[str, int, int]]()
        self._stage, self._left = "", stop_after

    def stage(self, name: str, total: int, bytes_total: int = 0) -> None:
        self._stage = name
        level = loaded(self.path).level
        self.seen.append((name, int((level >= COARSE).sum()), int((level == EXACT).sum())))

    def advance(self, items: int = 0, n_bytes: int = 0) -> None:
        self._left -= items

    def check(self) -> None:
        if self._left <= 0:
            raise JobCancelled


def test_all_are_coarse_before_one_is_exact_and_the_file_grows(
    tmp_path: Path,
) -> None:
    models(tmp_path)
    control = Watching(spectra_path(opened(tmp_path, "one", "two")))
    find_spectra(opened(tmp_path, "one", "two"), control)
    (first, nothing, _), (second, coarse, exact) = control.seen
    assert (first, second) == ("Coarse spectra", "Exact spectra")
    assert nothing == 0
    found = loaded(control.path)
    assert coarse == found.present.sum()
    assert exact < coarse


@pytest.mark.parametrize("stop_after", [2, 7])
def test_what_was_stopped_goes_on_and_ends_in_the_same_bits(
    tmp_path: Path, stop_after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    models(tmp_path)
    whole = found_in(tmp_path)
    path = spectra_path(opened(tmp_path, "one", "two"))
    path.unlink()
    with pytest.raises(JobCancelled):
        find_spectra(opened(tmp_path, "one", "two"), Watching(path, stop_after), threads=1)
    kept = loaded(path)
    assert (kept.level[kept.present] > 0).any()
    assert (kept.level[kept.present] < EXACT).any()
    calls: list[int] = []
    call = spectra_scan._Worker.__call__

    def counting(worker: Any, row: int) -> Spectra:
        calls.append(row)
        return call(worker, row)

    monkeypatch.setattr(spectra_scan._Worker, "__call__", counting)
    assert same(found_in(tmp_path), whole)
    assert len(calls) < 10
    calls.clear()
    assert same(found_in(tmp_path), whole)
    assert not calls


def same(one: Spectra, other: Spectra) -> bool:
    return all(
        getattr(one, key).tobytes() == getattr(other, key).tobytes()
        for key in ("level", "values", "upper", "inside", "overlap", "inside_permuted", "log_sum")
    )


@pytest.mark.parametrize("level", ["fine", "exact"])
def test_threads_and_memory_change_no_bit(tmp_path: Path, level: Any) -> None:
    models(tmp_path)
    one = found_in(tmp_path, level, threads=1)
    spectra_path(opened(tmp_path, "one", "two")).unlink()
    assert same(one, found_in(tmp_path, level, threads=3))
    spectra_path(opened(tmp_path, "one", "two")).unlink()
    assert same(one, found_in(tmp_path, level, threads=3, memory=1))


@pytest.mark.parametrize("level", ["fine", "exact"])
def test_matrices_too_large_to_hold_give_the_same_values(
    tmp_path: Path, level: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    models(tmp_path)
    held = found_in(tmp_path, level)
    spectra_path(opened(tmp_path, "one", "two")).unlink()
    monkeypatch.setattr(spectra_scan, "_HELD", 8 * 100 * 7)
    read = found_in(tmp_path, level)
    assert not same(read, held)
    for key in ("values", "inside", "norm2"):
        np.testing.assert_allclose(getattr(read, key), getattr(held, key), rtol=1e-4, atol=1e-6)


def test_without_a_base_the_changes_have_spectra_of_their_own(tmp_path: Path) -> None:
    models(tmp_path)
    found = loaded(find_spectra(opened(tmp_path, "one", base=False), Unattended()))
    assert not found.has_alignment
    assert found.stage == "exact"
    assert np.isnan(found.values[:, 0]).all()
    assert np.isnan(found.inside).all()
    row = found.names.index(DOWN)
    assert np.isfinite(metrics.stable_rank(found, 0)[row])
    assert {m.id for m in metrics.available(found)} == {
        "stable_rank", "effective_rank", "first_share",
    }  # fmt: skip
    assert len(metrics.SPECTRAL_BY_ID) == len(metrics.SPECTRAL_METRICS)


def test_entries_that_are_no_numbers_make_their_tensor_unknown_and_no_other(tmp_path: Path) -> None:
    made = models(tmp_path)
    made["one"][DOWN][3, 4] = float("nan")
    write_model(tmp_path / "one", made["one"], config=None)
    found = found_in(tmp_path)
    row = found.names.index(DOWN)
    assert found.stage == "exact"
    assert np.isnan(found.values[row, 1]).all()
    assert np.isnan(metrics.safety_energy(found, 0)[row])
    assert np.isfinite(metrics.safety_energy(found, 1)[row])
    assert np.isfinite(metrics.safety_energy(found, 0)[found.names.index(UP)])


def test_groups_are_block_diagonal_matrices(tmp_path: Path) -> None:
    made = models(tmp_path)
    found = found_in(tmp_path)
    group_of = np.array([0 if len(SHAPES[name]) > 1 else 1 for name in found.names])
    total = found.summed(group_of, ("matrices", "others"))
    parts = [
        part
        for name in found.names
        if len(SHAPES[name]) > 1
        for part in blocks(difference(made["one"][name], made["aligned"][name]))
    ]
    s = np.linalg.svd(block_diag(*parts), compute_uv=False)
    s = s[s > 0]  # a block-diagonal matrix of oblong blocks lacks rank
    np.testing.assert_allclose(total.values[0, 1], s[:VALUES], rtol=1e-6)
    assert metrics.stable_rank(total, 0)[0] == pytest.approx(np.sum(s**2) / s[0] ** 2)
    p = s / s.sum()
    assert metrics.effective_rank(total, 0)[0] == pytest.approx(np.exp(-np.sum(p * np.log(p))))
    assert metrics.first_share(total, 0)[0] == pytest.approx(s[0] ** 2 / np.sum(s**2))
    inside = np.nansum(found.inside[:, 0]) / np.nansum(found.whole[:, 0])
    assert metrics.safety_energy(total, 0)[0] == pytest.approx(inside)
    assert total.matrices.tolist() == [7, 0]
    assert np.isnan(metrics.safety_energy(total, 0)[1])
    grid = opened(tmp_path, "one", "two").grid
    assert found.grouped(grid).names == grid.labels


def test_a_group_is_unknown_as_long_as_one_of_its_tensors_is(tmp_path: Path) -> None:
    models(tmp_path)
    found = found_in(tmp_path)
    part = found.copy()
    row = found.names.index(DOWN)
    unknown = Spectra.unknown((DOWN,), found.finetuned, True)
    unknown.matrices[0], unknown.present[0] = 1, True
    part.put(row, unknown)
    total = part.summed(np.zeros(len(part.names), dtype=np.int32), ("all",))
    assert np.isnan(metrics.safety_energy(total, 0)[0])
    assert np.isnan(metrics.stable_rank(total, 0)[0])
    assert part.stage == "nothing"
    assert found.stage == "exact"


def test_twice_the_change_is_twice_the_values_and_the_same_shares(tmp_path: Path) -> None:
    made = models(tmp_path)
    twice = {
        name: (made["aligned"][name] + 2 * (t - made["aligned"][name]).double()).float()
        for name, t in made["one"].items()
    }
    write_model(tmp_path / "two", twice, config=None)
    found = found_in(tmp_path)
    np.testing.assert_allclose(found.values[:, 2], 2 * found.values[:, 1], rtol=1e-5)
    for compute in (metrics.safety_energy, metrics.overlap, metrics.stable_rank):
        np.testing.assert_allclose(compute(found, 1), compute(found, 0), rtol=1e-4)


def test_what_was_saved_is_read_back_and_nothing_else_is(tmp_path: Path) -> None:
    models(tmp_path)
    found = found_in(tmp_path, "coarse")
    path = tmp_path / "spectra.npz"
    found.save(path)
    again = loaded(path)
    assert same(found, again)
    assert (again.names, again.rank, again.seed) == (found.names, found.rank, found.seed)
    assert Spectra.load(tmp_path / "none.npz") is None
    path.write_bytes(path.read_bytes()[:900])
    assert Spectra.load(path) is None
    assert [p.name for p in tmp_path.glob("*.partial")] == []


def test_another_seed_or_rank_is_another_result(tmp_path: Path) -> None:
    models(tmp_path)
    of = opened(tmp_path, "one", "two")
    assert len({spectra_path(of, r, s) for r in (4, 16) for s in (0, 1)}) == 4
    row = of.names.index(DOWN)
    assert found_in(tmp_path, rank=2).overlap_most[row, 0] == 2
    assert found_in(tmp_path).overlap_most[row, 0] == 11


def test_a_full_cache_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models(tmp_path)

    def full(self: Spectra, path: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Spectra, "save", full)
    made = recipe(tmp_path / "aligned", tmp_path / "one", base=tmp_path / "base")
    with pytest.raises(UserError) as refused:
        run_job("spectra", {"recipe": made.model_dump()}, Unattended())
    assert refused.value.code == "cannot_write"


def command(tmp_path: Path, *options: str) -> list[str]:
    folders = [str(tmp_path / name) for name in ("one", "two")]
    ends = ["--base", str(tmp_path / "base"), "--aligned", str(tmp_path / "aligned")]
    return ["subspaces", *folders, *ends, *options]


@pytest.mark.parametrize("by", ["layer", "module", "tensor"])
def test_the_command_prints_shares_beside_chance(
    tmp_path: Path, by: str, capsys: pytest.CaptureFixture[str]
) -> None:
    models(tmp_path)
    assert main(command(tmp_path, "--by", by)) == 0
    text = capsys.readouterr().out
    assert "one − aligned   (exact spectra)" in text
    assert text.count("chance") == 4  # twice in the head of either table
    assert "±" in text
    assert "norm" not in text.replace("model.norm", "")
    assert main(command(tmp_path, "--by", by, "--json")) == 0
    found = json.loads(capsys.readouterr().out)
    rows = found["finetuned"]["one"]
    assert all(row["safety_energy"] > row["safety_energy_expected"] for row in rows)
    assert {"overlap", "overlap_expected", "stable_rank"} <= rows[0].keys()


def test_the_command_lists_definitions(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["subspaces", "--list"]) == 0
    text = capsys.readouterr().out
    assert "safe_lora: Safe LoRA's C (not a projector)  [paper]" in text
    assert "needs alignment; by = directions, k = 16" in text
    assert main(["subspaces", "--list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["subspaces"]


def test_the_command_says_what_it_knows_without_a_base(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models(tmp_path)
    options = ["--aligned", str(tmp_path / "aligned"), "--level", "coarse"]
    assert main(["subspaces", str(tmp_path / "one"), *options]) == 0
    text = capsys.readouterr().out
    assert "(coarse spectra)" in text
    assert "chance" not in text
