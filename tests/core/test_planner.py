"""Plans: what happens to every tensor is decided, said, and decided from headers alone."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from builders import llama_tensors, moved, recipe, tuned, write_model
from trimtab.checkpoints import reader
from trimtab.errors import UserError
from trimtab.merging.plan import Plan, describe
from trimtab.merging.planner import plan_merge
from trimtab.merging.recipe import Output, Recipe, open_lineup


def plan(made: Recipe) -> Plan:
    return plan_merge(made, open_lineup(made))


def refused(made: Recipe) -> UserError:
    with pytest.raises(UserError) as caught:
        plan(made)
    return caught.value


@pytest.fixture
def models(tmp_path: Path) -> Path:
    aligned = llama_tensors(1) | {"model.ids": torch.arange(5)}
    write_model(tmp_path / "aligned", aligned)
    write_model(tmp_path / "one", moved(aligned, 2))
    partial = moved(aligned, 3)
    del partial["lm_head.weight"]
    write_model(tmp_path / "two", partial)
    return tmp_path


def actions(made: Plan) -> dict[str, tuple[str, tuple[str, ...], tuple[float, ...]]]:
    return {t.name: (t.action, t.model_names, t.ratios) for t in made.tensors}


def test_every_tensor_is_accounted_for(models: Path) -> None:
    made = plan(recipe(models / "aligned", tuned(models / "one", 0.5), tuned(models / "two", 0.25)))
    assert [t.name for t in made.tensors] == list(made.lineup.names)
    found = actions(made)
    assert found["model.ids"][0] == "copied"
    for name in llama_tensors(1):
        assert found[name][0] == "merged", name
    assert found["model.norm.weight"][1:] == (("one", "two"), (0.5, 0.25))
    report = describe(made)
    assert json.loads(json.dumps(report))["counts"] == made.counts
    assert report["counts"] == {"merged": len(llama_tensors(1)), "copied": 1}
    ids = next(t for t in report["tensors"] if t["name"] == "model.ids")  # type: ignore[attr-defined]
    assert "int64 is not averaged" in ids["why"]


def test_shortcuts_are_taken_only_where_they_are_exact(models: Path) -> None:
    one = models / "one"
    nothing = plan(recipe(models / "aligned", tuned(one, 0.0)))
    assert nothing.counts == {"copied": len(nothing.tensors)}
    assert all("ratio" in t.why or "averaged" in t.why for t in nothing.tensors)
    whole = plan(recipe(models / "aligned", one))
    for tensor in whole.tensors:
        assert tensor.action == "copied"
        wanted = "aligned" if tensor.name == "model.ids" else "one"
        assert tensor.origin.checkpoint.path.name == wanted
    # lambda times ratio is what counts
    half = plan(recipe(models / "aligned", tuned(one, 0.5), parameters={"scale": 2.0}))
    assert half.counts == {"copied": len(half.tensors)}
    scaled = plan(recipe(models / "aligned", one, parameters={"scale": 0.5}))
    assert scaled.counts["merged"] == len(llama_tensors(1))
    other = plan(recipe(models / "aligned", one, output=Output(dtype="float32")))
    assert other.counts == {"converted": len(llama_tensors(1)), "copied": 1}
    mean = plan(recipe(models / "aligned", one, method="linear"))
    assert mean.counts["merged"] == len(llama_tensors(1))


def test_a_model_at_ratio_zero_stays_out_of_the_sum(models: Path) -> None:
    made = plan(recipe(models / "aligned", tuned(models / "one", 0.5), tuned(models / "two", 0.0)))
    for name, (_, names, _) in actions(made).items():
        assert names == (() if name == "model.ids" else ("one",))


def test_layers_and_modules_hit_exactly_what_they_name(models: Path) -> None:
    made = plan(
        recipe(
            models / "aligned",
            tuned(models / "one", 0.4, layers={1: 0.25}, modules={"down": 2.0, "head": 0.0}),
        )
    )
    for name, (action, _, ratios) in actions(made).items():
        if name in ("model.ids", "lm_head.weight"):
            assert action == "copied"
            continue
        wanted = 0.25 if "layers.1." in name else 0.4
        assert ratios == ((wanted * 2,) if "down_proj" in name else (wanted,)), name


def test_a_model_that_lacks_a_tensor_counts_as_unchanged(models: Path) -> None:
    alone = plan(recipe(models / "aligned", tuned(models / "two", 0.5)))
    (head,) = (t for t in alone.tensors if t.name == "lm_head.weight")
    assert head.action == "copied"
    assert "missing in two" in head.why
    mean = plan(recipe(models / "aligned", models / "one", models / "two", method="linear"))
    (head,) = (t for t in mean.tensors if t.name == "lm_head.weight")
    # the mean divides by three still: the reference stands in for what is missing
    assert head.model_names == ("one", "two")


def test_planning_reads_no_weights(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(*_: object) -> Any:
        raise AssertionError("weights were read")

    monkeypatch.setattr(reader.TensorReader, "read_raw", read)
    plan(recipe(models / "aligned", tuned(models / "one", 0.5)))


def test_what_cannot_be_merged_is_refused(models: Path) -> None:
    name = "model.layers.0.mlp.up_proj.weight"
    wide = llama_tensors(1) | {name: torch.zeros(28, 16, dtype=torch.bfloat16)}
    write_model(models / "wide", wide)
    error = refused(recipe(models / "aligned", models / "wide"))
    assert error.code == "cannot_merge"
    assert "wide" in error.what
    assert refused(recipe(models / "aligned")).code == "nothing_to_merge"
    layer = refused(recipe(models / "aligned", tuned(models / "one", layers={2: 0.5})))
    assert layer.code == "unknown_layer"
    assert "2" in layer.what
    assert "0 to 1" in layer.why
    assert refused(
        recipe(models / "aligned", tuned(models / "one", layers={-1: 0.5}))
    ).code == "unknown_layer"  # fmt: skip
    module = refused(recipe(models / "aligned", tuned(models / "one", modules={"qkv": 0.5})))
    assert module.code == "unknown_module"
    assert "qkv" in module.what
    assert "gate" in module.why
    assert refused(
        recipe(models / "aligned", tuned(models / "one", -1.0), method="linear")
    ).code == "ratios_cancel"  # fmt: skip


def test_layers_of_a_model_without_any_are_refused(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_model(tmp_path / name, {})
    error = refused(recipe(tmp_path / "a", tuned(tmp_path / "b", layers={0: 1.0})))
    assert error.code == "unknown_layer"


def test_the_digest_follows_all_that_the_bytes_depend_on(models: Path) -> None:
    aligned, one = models / "aligned", models / "one"
    write_model(models / "three", moved(llama_tensors(1), 9))
    three = models / "three"
    plans = [
        recipe(aligned, tuned(one, 0.5)),
        recipe(aligned, tuned(one, 0.25)),
        recipe(aligned, tuned(one, 0.5), method="linear"),
        recipe(aligned, tuned(one, 0.5), parameters={"scale": 0.9}),
        recipe(aligned, tuned(one, 0.5, layers={0: 0.1})),
        recipe(aligned, tuned(one, 0.5), output=Output(dtype="float32")),
        recipe(one, tuned(aligned, 0.5)),
        recipe(aligned, tuned(three, 0.5)),
        recipe(aligned, tuned(one, 1.0), tuned(three, 0.0)),
        recipe(aligned, tuned(one, 0.0), tuned(three, 1.0)),
    ]
    digests = [plan(r).digest() for r in plans]
    assert len(set(digests)) == len(digests)
    assert [plan(r).digest() for r in plans] == digests


def test_work_items_cover_every_element_once(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from trimtab.merging import planner

    monkeypatch.setattr(planner, "ITEM", 100)
    made = plan(recipe(models / "aligned", tuned(models / "one", 0.5)))
    seen: dict[str, list[tuple[int, int]]] = {}
    for number, item in enumerate(made.items):
        assert item.number == number
        assert 0 < item.high - item.low <= 100
        seen.setdefault(item.tensor.name, []).append((item.low, item.high))
    for tensor in made.tensors:
        edges = seen[tensor.name]
        assert edges[0][0] == 0
        assert edges[-1][1] == tensor.numel
        assert all(a[1] == b[0] for a, b in pairwise(edges))
