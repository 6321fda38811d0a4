"""Second moments of a Linear's outputs, how they are gathered, and their leading directions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from activation_models import make_model, random_tokens
from hypothesis import given
from hypothesis import strategies as st
from scipy.linalg import subspace_angles

from trimtab.activations.blocks import BlockModel, Site
from trimtab.activations.moment_watch import MomentWatch
from trimtab.activations.second_moments import Moments, summed
from trimtab.activations.shelf import Shelf
from trimtab.activations.stream import Pass
from trimtab.activations.tokens import batches
from trimtab.activations.weights import checkpoint_weights
from trimtab.checkpoints import open_checkpoint
from trimtab.checkpoints.reader import TensorReader
from trimtab.control import Unattended
from trimtab.inspection.activation_subspaces_run import _layer
from trimtab.subspaces import Activations, Evidence, directions, get_subspace
from trimtab.subspaces.registry import Definition

Array = npt.NDArray[np.float64]


def _draw(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def _outputs_of(x: Array, w: Array, b: Array | None) -> Array:
    return x @ w.T if b is None else x @ w.T + b


def _moments(x: Array, w: Array | None = None, b: Array | None = None) -> Moments:
    return Moments(x.T @ x, x.sum(0), len(x), w, b)


@given(st.integers(0, 99), st.booleans(), st.booleans(), st.integers(1, 12), st.integers(1, 12))
def test_moments_are_those_of_the_outputs(
    seed: int, bias: bool, centre: bool, inputs: int, outputs: int
) -> None:
    draw = _draw(seed)
    x, w = draw.normal(0.5, 1, (20, inputs)), draw.normal(0, 1, (outputs, inputs))
    b = draw.normal(0, 1, outputs) if bias else None
    y = _outputs_of(x, w, b)
    if centre:
        y = y - y.mean(0)
    q = draw.normal(0, 1, (outputs, 3))
    parts = [_moments(x[:7], w, b), _moments(x[7:], w, b)]
    for seen in (summed(parts), summed([part.of_outputs() for part in parts])):
        assert seen.outputs == outputs
        np.testing.assert_allclose(seen.times(q, centre=centre), y.T @ (y @ q), atol=1e-8)
        assert seen.energy(centre=centre) == pytest.approx(float((y * y).sum()), abs=1e-8)
        u = np.linalg.qr(q).Q
        np.testing.assert_allclose(seen.inside(u, centre=centre), (y @ u).T @ (y @ u), atol=1e-8)
        np.testing.assert_allclose(seen.output_sum(), _outputs_of(x, w, b).sum(0), atol=1e-8)


@pytest.mark.parametrize("centre", [False, True])
def test_directions_are_those_that_the_definitions_name(centre: bool) -> None:
    draw = _draw(1)
    x, w = draw.normal(0.3, 1, (40, 9)), draw.normal(0, 1, (14, 9))
    y = x @ w.T
    seen = Activations(outputs=y.T @ y, output_sum=y.sum(0), count=len(y))
    names = ["safe_activations"] if centre else ["safe_activations", "actsvd"]
    basis = directions.directions(_moments(x, w), 4, centre=centre)
    for name in names:
        definition: Definition = get_subspace(name)
        chosen: dict[str, object] = {"rank": 4} if name == "actsvd" else {"k": 4}
        if centre:
            chosen["centre"] = "yes"
        named = definition.find(Evidence(safety=seen), **chosen).basis
        assert np.max(subspace_angles(basis, named)) < 1e-6


@pytest.mark.parametrize("centre", [False, True])
def test_iterated_directions_are_the_leading_ones_of_a_spectrum_that_falls(
    centre: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = _draw(2)
    x = draw.normal(0.2, 1, (200, 60)) * 0.7 ** np.arange(60)
    w = draw.normal(0, 1, (90, 60))
    seen = _moments(x, w, draw.normal(0, 1, 90))
    exact = directions.directions(seen, 6, centre=centre)
    monkeypatch.setattr(directions, "EXACT", 10)
    iterated = directions.directions(seen, 6, centre=centre, seed=3)
    assert iterated.shape == (90, 6)
    np.testing.assert_allclose(iterated.T @ iterated, np.eye(6), atol=1e-12)
    assert np.max(subspace_angles(exact, iterated)) < 1e-5
    again = directions.directions(seen, 6, centre=centre, seed=3)
    np.testing.assert_array_equal(iterated, again)


def test_directions_without_energy_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.outer(np.arange(1.0, 9), np.ones(40))
    assert directions.directions(_moments(x), 5).shape == (40, 1)
    monkeypatch.setattr(directions, "EXACT", 10)
    assert directions.directions(_moments(x), 5).shape == (40, 1)


@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen2"])
@pytest.mark.parametrize("which", ["all", "answers"])
def test_moments_are_gathered_by_group_as_plain_hooks_see_them(
    family: str, which: Any, tmp_path: Path
) -> None:
    model, tokens = make_model(family, tmp_path / "model"), random_tokens()
    weights = checkpoint_weights(open_checkpoint(tmp_path / "model"))
    group_of = [0, 1, 1, 0]
    got: dict[str, tuple[Site, list[Moments]]] = {}
    with TensorReader() as reader, Shelf(tmp_path / "shelf") as shelf:
        streamed = BlockModel(weights, reader)
        watch = MomentWatch(
            group_of, 2, which, lambda site: _layer(weights, reader, site),
            lambda site, moments: got.update({site.name: (site, moments)}),
        )  # fmt: skip
        Pass(streamed, batches(tokens), shelf, Unattended()).forward([watch])
        modules = {
            site.name: name
            for block in range(len(streamed.blocks))
            for site, module in streamed.sites(block)
            for name, other in streamed.model.named_modules()
            if other is module
        }
    assert set(got) == set(modules)
    assert any(m[0].weight is None for _, m in got.values())  # where outputs are fewer
    for name, (_, moments) in got.items():
        seen: list[list[Array]] = [[], []]
        with torch.no_grad():
            for number, example in enumerate(tokens):
                kept: list[torch.Tensor] = []
                hook = model.get_submodule(modules[name]).register_forward_hook(
                    lambda module, given, out, kept=kept: kept.append(out)
                )
                model(torch.tensor([example.ids]))
                hook.remove()
                y = kept[0].reshape(-1, kept[0].shape[-1]).double().numpy()
                seen[group_of[number]].append(y if which == "all" else y[example.answer :])
        for own, group in zip(moments, seen, strict=True):
            y = np.concatenate(group)
            assert own.count == len(y)
            dense = own.of_outputs()
            np.testing.assert_allclose(dense.gram, y.T @ y, rtol=1e-4, atol=1e-4)
            np.testing.assert_allclose(dense.total, y.sum(0), rtol=1e-4, atol=1e-4)
