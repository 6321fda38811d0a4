"""Each definition of a safety subspace gives what its formula says, and says what it is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from trimtab.control import Unattended
from trimtab.errors import UserError
from trimtab.jobs.tasks import run_job
from trimtab.subspaces import Activations, Evidence, get_subspace, subspaces
from trimtab.subspaces.registry import subspace

Floats = npt.NDArray[Any]
OUT, IN, TOKENS = 14, 10, 60


def evidence(seed: int = 0) -> Evidence:
    draw = np.random.default_rng(seed)
    base = draw.standard_normal((OUT, IN)).astype(np.float32)
    aligned = base + 0.1 * draw.standard_normal((OUT, IN)).astype(np.float32)
    return Evidence(aligned, base, seen(aligned, tokens(draw)), seen(aligned, tokens(draw, 0.5)))


def tokens(draw: np.random.Generator, shift: float = 0.0) -> Floats:
    return draw.standard_normal((IN, TOKENS)) * np.arange(1, IN + 1)[:, None] + shift


def seen(weight: Floats, x: Floats) -> Activations:
    y = weight @ x
    return Activations(x @ x.T, y @ y.T, y.sum(axis=1), TOKENS)


@pytest.mark.parametrize("definition", subspaces(), ids=lambda d: d.name)
def test_true_projectors_are_symmetric_and_idempotent_and_others_say_so(definition: Any) -> None:
    ranks = {"safety_rank": 3, "utility_rank": 4} if definition.name == "actsvd_orthogonal" else {}
    found = definition.find(evidence(), **ranks)
    p = found.apply(np.eye(OUT))
    twice = found.apply(p)
    k = found.basis.shape[1]
    np.testing.assert_allclose(found.basis.T @ found.basis, np.eye(k), atol=1e-10)
    # whatever it writes lies in the span that is measured
    np.testing.assert_allclose(found.basis @ (found.basis.T @ p), p, atol=1e-10)
    assert found.is_projector == definition.is_projector
    same = np.linalg.norm(twice - p) < 1e-9 and np.linalg.norm(p - p.T) < 1e-9
    assert same == definition.is_projector
    assert definition.mode in ("paper", "authors' code", "ours")
    assert definition.sentence.endswith(".")
    if not definition.is_projector:
        assert "not a projector" in definition.title


def test_alignment_directions_are_the_left_singular_vectors() -> None:
    e = evidence()
    a = e.alignment()
    u, s, _ = np.linalg.svd(a)
    find = get_subspace("alignment_directions").find
    for k in (1, 4):
        np.testing.assert_allclose(
            find(e, k=k).apply(np.eye(OUT)), u[:, :k] @ u[:, :k].T, atol=1e-8
        )
    assert find(e, by="fraction", fraction=0.3).basis.shape[1] == 3
    assert find(e, by="fraction", fraction=0.0).basis.shape[1] == 1
    kept = np.cumsum(s**2) / np.sum(s**2)
    for energy in (0.2, 0.6, 0.95, 1.0):
        k = find(e, by="energy", energy=energy).basis.shape[1]
        assert kept[k - 1] >= energy - 1e-9
        assert k == 1 or kept[k - 2] < energy
    assert find(e, k=500).basis.shape[1] == IN


def test_safe_loras_matrix_is_as_published_and_scales_with_the_vector() -> None:
    e = evidence()
    a = e.alignment()
    c = get_subspace("safe_lora").find(e).apply(np.eye(OUT))
    np.testing.assert_allclose(c, a @ a.T / np.linalg.norm(a), atol=1e-12)
    assert e.aligned is not None
    assert e.base is not None
    doubled = Evidence(2 * e.aligned, 2 * e.base)
    np.testing.assert_allclose(
        get_subspace("safe_lora").find(doubled).apply(np.eye(OUT)), 2 * c, rtol=1e-6, atol=1e-9
    )
    nothing = get_subspace("safe_lora").find(Evidence(e.base, e.base))
    assert not nothing.apply(np.eye(OUT)).any()


@pytest.mark.parametrize("given", ["outputs", "inputs"])
def test_actsvd_is_that_of_the_outputs_themselves(given: str) -> None:
    draw = np.random.default_rng(3)
    w, x = draw.standard_normal((OUT, IN)).astype(np.float32), tokens(draw)
    y = w.astype(float) @ x
    parts = Activations(outputs=y @ y.T) if given == "outputs" else Activations(inputs=x @ x.T)
    found = get_subspace("actsvd").find(Evidence(w, safety=parts), rank=3)
    u = np.linalg.svd(y)[0][:, :3]
    np.testing.assert_allclose(found.apply(w), u @ u.T @ w, atol=1e-6)
    # no more directions than the inputs can reach
    assert get_subspace("actsvd").find(Evidence(w, safety=parts), rank=99).basis.shape[1] == IN


def test_the_orthogonal_variant_keeps_nothing_of_utility() -> None:
    e = evidence()
    find = get_subspace("actsvd_orthogonal").find
    found = find(e, safety_rank=4, utility_rank=3)
    s = np.linalg.svd(e.output_gram("safety"))[0][:, :4]
    u = np.linalg.svd(e.output_gram("utility"))[0][:, :3]
    wanted = (np.eye(OUT) - u @ u.T) @ (s @ s.T)
    np.testing.assert_allclose(found.apply(np.eye(OUT)), wanted, atol=1e-8)
    np.testing.assert_allclose(u.T @ found.basis, 0, atol=1e-8)
    np.testing.assert_allclose(find(e).apply(np.eye(OUT)), 0, atol=1e-8)


def test_the_refusal_direction_is_the_difference_of_means_and_is_never_written() -> None:
    e = evidence()
    definition = get_subspace("refusal_direction")
    r = e.output_mean("safety") - e.output_mean("utility")
    found = definition.find(e).basis[:, 0]
    np.testing.assert_allclose(found, r / np.linalg.norm(r), atol=1e-12)
    with pytest.raises(UserError) as refused:
        definition.for_writing()
    assert refused.value.code == "shown_only"
    assert [d.name for d in subspaces() if d.shown_only] == ["refusal_direction"]
    assert get_subspace("actsvd").for_writing() is get_subspace("actsvd")
    same = Evidence(e.aligned, safety=e.safety, utility=e.safety)
    assert definition.find(same).basis.shape == (OUT, 0)


@pytest.mark.parametrize(("name", "prompts"), [("safe", "safety"), ("utility", "utility")])
def test_activations_subspaces_are_those_of_the_covariance(name: str, prompts: Any) -> None:
    e = evidence(5)
    find = get_subspace(f"{name}_activations").find
    gram, mean = e.output_gram(prompts), e.output_mean(prompts)
    for centre, matrix in (("no", gram), ("yes", gram - TOKENS * np.outer(mean, mean))):
        u = np.linalg.svd(matrix)[0][:, :2]
        p = find(e, k=2, centre=centre).apply(np.eye(OUT))
        np.testing.assert_allclose(p, u @ u.T, atol=1e-8)


@pytest.mark.parametrize("definition", subspaces(), ids=lambda d: d.name)
def test_missing_evidence_is_named(definition: Any) -> None:
    with pytest.raises(UserError) as refused:
        definition.find(Evidence())
    assert refused.value.code == "evidence_missing"


def test_what_does_not_fit_is_refused() -> None:
    find = get_subspace("alignment_directions").find
    for wrong in ({"k": 0}, {"k": 1.5}, {"by": "luck"}, {"energy": 2.0}, {"k": True}):
        with pytest.raises(UserError) as refused:
            find(evidence(), **wrong)
        assert refused.value.code == "parameter_out_of_range"
    with pytest.raises(UserError) as refused:
        find(evidence(), depth=3)
    assert refused.value.code == "unknown_parameter"
    with pytest.raises(UserError) as refused:
        get_subspace("nonsense")
    assert refused.value.code == "unknown_subspace"
    with pytest.raises(TypeError, match="two subspaces are called actsvd"):
        subspace(title="", formula="", reference="", mode="ours", needs=())(
            get_subspace("actsvd").function
        )


def test_the_job_describes_every_definition() -> None:
    found = run_job("subspaces", {}, Unattended())
    assert [s["name"] for s in found["subspaces"]] == [d.name for d in subspaces()]
    assert {m["id"] for m in found["metrics"]} >= {"safety_energy", "overlap", "stable_rank"}


def test_definitions_and_spectra_need_no_torch() -> None:
    code = (
        "import sys; import trimtab.subspaces, trimtab.inspection.spectra, "
        "trimtab.inspection.spectral_metrics; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize("definition", subspaces(), ids=lambda d: d.name)
def test_the_documentation_names_each_definition_and_whose_it_is(definition: Any) -> None:
    text = (Path(__file__).parents[2] / "docs" / "subspaces.md").read_text("utf-8")
    (row,) = [line for line in text.splitlines() if line.startswith(f"| `{definition.name}`")]
    assert definition.mode in row
    assert ("Not a projector" in row) == (not definition.is_projector)
    assert ("Measured only" in row) == definition.shown_only
