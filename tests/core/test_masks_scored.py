"""Thresholds and estimates: what is promised before a mask is built is what the mask then is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from somf_models import tiny_adapter, tiny_pairs, tiny_recipe

from builders import weights
from trimtab.control import Unattended
from trimtab.errors import UserError
from trimtab.jobs.tasks import run_job
from trimtab.masks.file import MaskFile
from trimtab.masks.spread import Counting
from trimtab.merging.recipe import Recipe, open_lineup
from trimtab.realign.antidote import Variant
from trimtab.realign.antidote_count import count_pruned, looked_at, usual_modules

# peft asks transformers for it by its old name
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")
Floats = np.ndarray[Any, Any]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIMTAB_CACHE_DIR", str(tmp_path / "cache"))


@pytest.fixture
def pairs(tmp_path: Path) -> str:
    path = tmp_path / "pairs.jsonl"
    rows = [{"prompt": p.prompt, "chosen": p.chosen, "rejected": p.rejected}
            for p in tiny_pairs().pairs]  # fmt: skip
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return str(path)


def prompts(path: Path, answer: str) -> str:
    rows = [{"prompt": p.prompt, "response": answer} for p in tiny_pairs().pairs[:4]]
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return str(path)


def run(name: str, recipe: Recipe, **params: Any) -> dict[str, Any]:
    given = {"recipe": recipe.model_dump(mode="json"), "device": "cpu", **params}
    if name == "mask_build":
        del given["device"]
    return run_job(name, given, Unattended())


def kept(mask: Path, name: str, shape: tuple[int, ...]) -> Floats:
    size = int(np.prod(shape))
    bits = MaskFile.open(mask).read_bits(name, 0, size)
    found: Floats = np.unpackbits(bits, count=size, bitorder="little").reshape(shape) == 1
    return found


CASES: list[tuple[Variant, str]] = [
    ("delta-revert", "llama"), ("delta-revert", "gpt2"), ("weight-zeroing", "llama"),
    ("lora-space", "llama"),
]  # fmt: skip


@pytest.mark.parametrize(("variant", "kind"), CASES)
@pytest.mark.parametrize("alpha", [0.01, 0.3])
def test_what_is_estimated_and_counted_is_what_is_then_pruned(
    tmp_path: Path, pairs: str, variant: Variant, kind: str, alpha: float
) -> None:
    recipe = tiny_adapter(tmp_path) if variant == "lora-space" else tiny_recipe(tmp_path, kind=kind)
    given = {"calibration": pairs, "variant": variant, "alpha": alpha,
             "modules": usual_modules(variant)}  # fmt: skip
    told = run("antidote_estimate", recipe, **given)
    assert not list(tmp_path.glob("out*"))
    name = "out.mask.safetensors" if variant == "delta-revert" else "out"
    report = run("antidote", recipe, output=str(tmp_path / name), **given)
    for key in ("total", "modules", "floored", "matrices", "mode", "settings"):
        assert told[key] == report[key], key
    lineup = open_lineup(recipe)
    counted = count_pruned(looked_at(lineup, lineup.finetuned[0], variant), alpha)
    total = report["total"]
    assert (counted.matrices, counted.entries) == (report["matrices"], total["entries"])
    assert (counted.pruned, counted.floored) == (total["pruned"], report["floored"])
    spread = told["spread"]
    assert sum(spread["counts"]) + spread["zeros"] == total["entries"]


def test_a_threshold_of_antidotes_scores_takes_what_reaches_it(tmp_path: Path, pairs: str) -> None:
    recipe = tiny_recipe(tmp_path)
    told = run("antidote_estimate", recipe, calibration=pairs)
    edges, counts = (np.array(told["spread"][k]) for k in ("edges", "counts"))
    cut = len(counts) * 2 // 3
    path = tmp_path / "cut.mask.safetensors"
    of = {"score": "delta-wanda", "file": told["norms"], "mode": "authors' code",
          "threshold": float(edges[cut]), "removes": True}  # fmt: skip
    report = run("mask_build", recipe, output=str(path), of=of, builder="Antidote, threshold")
    changed = report["account"]["total"]
    assert 0 < counts[cut:].sum() < counts.sum()
    assert changed["entries_removed"] == counts[cut:].sum()
    about = MaskFile.open(path).about
    # one threshold for all rows is nobody's but ours, whatever the scores
    assert (about.builder, about.mode) == ("Antidote, threshold", "ours")


@pytest.mark.parametrize("score", ["snip", "wanda"])
def test_a_threshold_spares_what_utility_ranks_highest(tmp_path: Path, score: str) -> None:
    recipe = tiny_recipe(tmp_path)
    safe = prompts(tmp_path / "safe.jsonl", "sorry i cannot help with that")
    useful = prompts(tmp_path / "useful.jsonl", "use brush near river")
    told = run("difference_scores", recipe, safe=safe, useful=useful, utility=0.25, score=score)
    edges, counts = np.array(told["edges"]), np.array(told["counts"])
    cut = len(counts) * 2 // 3
    threshold = float(edges[cut])
    path, other = tmp_path / "cut.mask.safetensors", tmp_path / "top.mask.safetensors"
    of = {**told["of"], "threshold": threshold, "removes": True}
    run("mask_build", recipe, output=str(path), of=of, minus=told["minus"])
    # what utility ranks highest, by a mask of its own
    spared = {**told["minus"], "keep": None, "remove": 0.25}
    run("mask_build", recipe, output=str(other), of=spared)
    plain = tmp_path / "plain.mask.safetensors"
    run("mask_build", recipe, output=str(plain), of=of)
    gone = free = 0
    for name, tensor in weights(Path(recipe.finetuned[0].path)).items():
        shape = tuple(tensor.shape)
        if name not in MaskFile.open(path).names:
            continue
        useful_ones = ~kept(other, name, shape)
        expected = ~kept(plain, name, shape) & ~useful_ones
        np.testing.assert_array_equal(~kept(path, name, shape), expected)
        gone, free = gone + int(expected.sum()), free + int(useful_ones.sum())
    assert 0 < gone == counts[cut:].sum()
    assert told["spared"] == free


def test_the_set_difference_needs_an_aligned_model(tmp_path: Path) -> None:
    made = tiny_recipe(tmp_path)
    recipe = made.model_copy(update={"aligned": None, "base": made.aligned})
    with pytest.raises(UserError) as error:
        run("difference_scores", recipe, safe="demo-refused", useful="demo-benign")
    assert error.value.code == "no_aligned"


def test_the_smallest_numbers_are_in_a_bin_that_has_a_logarithm() -> None:
    counting = Counting()
    counting.add(np.array([1e-45, 1e-40, 0.0, 1.0, np.nan, np.inf], dtype=np.float32))
    found = counting.result()
    assert found.edges[0] > 0
    assert (int(found.counts.sum()), found.zeros) == (3, 1)
    nothing = Counting().result()
    assert (nothing.counts.size, nothing.edges.size) == (0, 1)
