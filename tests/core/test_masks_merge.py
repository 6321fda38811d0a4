"""A masked merge is the merge of models whose masked entries are the reference's, bit for bit."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

import builders
from builders import llama_tensors, moved, recipe, tree, tuned, weights, write_model
from trimtab.control import JobAbandoned, Unattended
from trimtab.errors import UserError
from trimtab.evaluation.merged_target import merge_in_memory
from trimtab.evaluation.preview_weights import MergedWeights
from trimtab.kernels.workbench import CpuBench
from trimtab.masks.entries import Chance, MaskEntry, Rule
from trimtab.masks.file import MaskAbout, MaskWriter
from trimtab.merging import hand, planner
from trimtab.merging.engine import run_merge
from trimtab.merging.mergekit_export import from_recipe
from trimtab.merging.plan import describe
from trimtab.merging.planner import plan_merge
from trimtab.merging.recipe import (
    Output,
    Recipe,
    Slice,
    SliceSource,
    load_recipe,
    open_lineup,
)
from trimtab.methods import get_method, methods

NAMES = [m.name for m in methods() if m.origin.startswith("trimtab.")]
Q, DOWN = "model.layers.0.self_attn.q_proj.weight", "model.layers.1.mlp.down_proj.weight"
Bits = Mapping[str, npt.NDArray[np.bool_]]
ABOUT = MaskAbout(builder="test")


@pytest.fixture
def models(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    aligned = llama_tensors(1, getattr(request, "param", torch.bfloat16))
    write_model(tmp_path / "aligned", aligned, shards=2)
    write_model(tmp_path / "base", moved(aligned, 9))
    for seed, name in enumerate(("one", "two", "three"), start=2):
        write_model(tmp_path / name, moved(aligned, seed))
    return tmp_path


def drawn(folder: Path, seed: int = 0, density: float = 0.6) -> dict[str, npt.NDArray[np.bool_]]:
    draw = np.random.default_rng(seed)
    return {n: draw.random(tuple(t.shape)) < density for n, t in weights(folder).items()}


def write_bits(path: Path, bits: Bits) -> MaskEntry:
    with MaskWriter(path, ABOUT) as writer:
        for name, kept in bits.items():
            writer.bits(name, kept.shape, np.packbits(kept, bitorder="little"))
        writer.finish()
    return MaskEntry(path=str(path))


def write_soft(path: Path, values: Mapping[str, npt.NDArray[np.float16]]) -> MaskEntry:
    with MaskWriter(path, ABOUT) as writer:
        for name, value in values.items():
            writer.soft(name, value.shape, value.reshape(-1))
        writer.finish()
    return MaskEntry(path=str(path))


def write_masked(models: Path, bits: Bits) -> Path:
    """Write the model "one" with the reference's values where a bit is not set, by torch alone."""
    reference, one = weights(models / "aligned"), weights(models / "one")
    changed = {
        n: torch.where(torch.from_numpy(bits[n]), t, reference[n]) if n in bits else t
        for n, t in one.items()
    }
    return write_model(models / "masked" / "one", changed)


def made(models: Path, method: str, one: Path, dtype: Any = "reference", **first: Any) -> Recipe:
    known = get_method(method)
    ratio = first.pop("ratio", 0.6)
    chosen = [tuned(one, ratio, **first), tuned(models / "two", 0.8), tuned(models / "three", 0.5)]
    return recipe(
        models / "aligned", *chosen[: known.takes[1] or 3], method=method,
        base=models / "base" if known.needs_base else None, output=Output(dtype=dtype),
    )  # fmt: skip


def merged(what: Recipe, folder: Path, **options: Any) -> list[bytes]:
    builders.merge(what, folder, **options)
    return [file.read_bytes() for file in sorted(folder.glob("*.safetensors"))]


@pytest.mark.parametrize(
    ("models", "backend"),
    [(torch.bfloat16, "numba"), (torch.float32, "numba"), (torch.float32, "torch")],
    indirect=["models"],
)
@pytest.mark.parametrize("name", NAMES)
def test_bits_put_the_reference_in_place_of_the_model_before_any_method_sees_it(
    models: Path, tmp_path: Path, name: str, backend: str
) -> None:
    bits = drawn(models / "one")
    entry = write_bits(tmp_path / "m.mask.safetensors", bits)
    masked = made(models, name, models / "one", masks=(entry,))
    plain = made(models, name, write_masked(models, bits))
    assert merged(masked, tmp_path / "a", backend=backend) == merged(
        plain, tmp_path / "b", backend=backend
    )
    assert merged(masked, tmp_path / "c", backend=backend) != merged(
        made(models, name, models / "one"), tmp_path / "d", backend=backend
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_mask_that_keeps_all_changes_no_byte(models: Path, tmp_path: Path, name: str) -> None:
    plain = merged(made(models, name, models / "one"), tmp_path / "plain")
    # known to keep all from the header, and known only once its bits are joined
    halves = [drawn(models / "one", 3)]
    halves.append({n: ~kept for n, kept in halves[0].items()})
    first, second = (
        write_bits(tmp_path / f"{i}.mask.safetensors", half) for i, half in enumerate(halves)
    )
    joined = (first, second.model_copy(update={"op": "or"}))
    for number, masks in enumerate([(MaskEntry(rule=Rule()),), joined]):
        what = made(models, name, models / "one", masks=masks)
        assert merged(what, tmp_path / f"out{number}") == plain


#: methods that do nothing where nothing has moved; others move the reference by themselves
STILL = [
    m.name
    for m in methods()
    if m.name in NAMES and m.part == "origin" and m.takes[0] and not m.last
]


@pytest.mark.parametrize("name", STILL)
def test_masks_that_remove_all_leave_the_reference(models: Path, tmp_path: Path, name: str) -> None:
    what = made(models, name, models / "one")
    nothing = (MaskEntry(rule=Rule(), invert=True),)
    removed = tuple(model.model_copy(update={"masks": nothing}) for model in what.finetuned)
    builders.merge(what.model_copy(update={"finetuned": removed}), tmp_path / "out")
    for key, value in weights(models / "aligned").items():
        assert builders.bits(weights(tmp_path / "out")[key]) == builders.bits(value), key


@pytest.mark.parametrize("name", ["task_arithmetic", "ties", "slerp", "dare_ties", "della"])
def test_soft_values_and_rescaling_follow_the_formula(tmp_path: Path, name: str) -> None:
    aligned = llama_tensors(1, torch.float32)
    for folder, tensors in {
        "aligned": aligned, "base": moved(aligned, 9), "one": moved(aligned, 2),
        "two": moved(aligned, 3), "three": moved(aligned, 4),
    }.items():  # fmt: skip
        write_model(tmp_path / folder, tensors)
    draw = np.random.default_rng(5)
    soft = {
        n: draw.choice([0.0, 0.25, 1.0, 0.7], tuple(t.shape)).astype(np.float16)
        for n, t in aligned.items()
    }
    entry = write_soft(tmp_path / "m.mask.safetensors", soft)
    for rescale in (False, True):
        changed: dict[str, Tensor] = {}
        for key, own in weights(tmp_path / "one").items():
            reference = aligned[key].numpy()
            share = soft[key].astype(np.float32)
            if rescale:
                share = share * np.float32(1 / soft[key].astype(np.float64).mean())
            mixed = reference + share * (own.numpy() - reference)
            exact = np.where(share == 0, reference, np.where(share == 1, own.numpy(), mixed))
            changed[key] = torch.from_numpy(exact)
        plain = write_model(tmp_path / f"masked{rescale}" / "one", changed)
        masked = made(tmp_path, name, tmp_path / "one", masks=(entry,), rescale=rescale)
        for backend in ("numba", "torch"):
            assert merged(masked, tmp_path / f"a{backend}{rescale}", backend=backend) == merged(
                made(tmp_path, name, plain), tmp_path / f"b{backend}{rescale}", backend=backend
            )


@pytest.mark.parametrize("ratio", [1.0, 0.4])
@pytest.mark.parametrize("dtype", ["reference", "float32"])
@pytest.mark.parametrize("models", [torch.bfloat16, torch.float64], indirect=True)
def test_at_ratio_one_kept_entries_are_the_models_very_bits(
    models: Path, tmp_path: Path, ratio: float, dtype: str
) -> None:
    # so small that the reference and the difference to it would not add up to them again
    tiny = {n: t * 1e-9 / 3 for n, t in weights(models / "one").items()}
    write_model(models / "one", tiny)
    bits = drawn(models / "one")
    entry = write_bits(tmp_path / "m.mask.safetensors", bits)

    def alone(one: Path, **more: Any) -> Recipe:
        return recipe(
            models / "aligned", tuned(one, ratio, **more), method="task_arithmetic",
            output=Output(dtype=dtype),  # type: ignore[arg-type]
        )  # fmt: skip

    assert merged(alone(models / "one", masks=(entry,)), tmp_path / "a") == merged(
        alone(write_masked(models, bits)), tmp_path / "b"
    )


def test_pieces_and_threads_change_no_byte_of_a_masked_merge(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = write_bits(tmp_path / "m.mask.safetensors", drawn(models / "one"))
    chance = MaskEntry(random=Chance(keep=0.7, seed=4))
    for method in ("task_arithmetic", "ties", "della"):
        what = made(models, method, models / "one", masks=(entry, chance))
        first = merged(what, tmp_path / f"{method} first", threads=1)
        for number, (piece, threads) in enumerate([(7, 1), (64, 3)]):
            with monkeypatch.context() as patch:
                patch.setattr(CpuBench, "piece", piece)
                patch.setattr(hand, "STRIDE", 4 * piece)
                assert merged(what, tmp_path / f"{method}{number}", threads=threads) == first


def test_a_mask_of_one_model_does_not_touch_the_others(models: Path, tmp_path: Path) -> None:
    """What is masked out of a mean still counts there, as a model that has not moved."""
    rule = MaskEntry(rule=Rule(layers=(0, 0)), op="minus")
    what = made(models, "linear", models / "one", masks=(rule,))
    bits = {n: np.full(t.shape, ".layers.0." not in n) for n, t in weights(models / "one").items()}
    plain = made(models, "linear", write_masked(models, bits))
    assert merged(what, tmp_path / "a") == merged(plain, tmp_path / "b")


def test_an_interrupted_masked_merge_goes_on_to_the_same_bytes(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planner, "ITEM", 64)
    entry = write_bits(tmp_path / "m.mask.safetensors", drawn(models / "one"))
    what = made(models, "ties", models / "one", masks=(entry,))
    whole = merged(what, tmp_path / "whole")

    class Gone(Unattended):
        left = 9

        def advance(self, items: int = 0, n_bytes: int = 0) -> None:
            self.left -= items

        def check(self) -> None:
            if self.left < 0:
                raise JobAbandoned

    plan = plan_merge(what, open_lineup(what))
    with pytest.raises(JobAbandoned):
        run_merge(plan, tmp_path / "out", Gone(), threads=2)
    assert merged(what, tmp_path / "out", resume=True) == whole


def test_what_was_begun_with_another_mask_is_not_gone_on_with(models: Path, tmp_path: Path) -> None:
    def digest(*masks: MaskEntry, **more: Any) -> str:
        what = made(models, "ties", models / "one", masks=masks, **more)
        return plan_merge(what, open_lineup(what)).digest()

    one = write_bits(tmp_path / "1.mask.safetensors", drawn(models / "one", 1))
    two = write_bits(tmp_path / "2.mask.safetensors", drawn(models / "one", 2))
    rule = MaskEntry(rule=Rule(modules=("q",)), op="minus")
    chance = MaskEntry(random=Chance(keep=0.5))
    found = [
        digest(), digest(one), digest(two), digest(one, two), digest(one, rescale=True),
        digest(rule), digest(chance), digest(one, two.model_copy(update={"op": "xor"})),
        digest(one.model_copy(update={"invert": True})),
        digest(chance.model_copy(update={"random": Chance(keep=0.5, seed=9)})),
    ]  # fmt: skip
    assert len(set(found)) == len(found)
    assert digest(one.model_copy(update={"on": False})) == found[0]


@pytest.mark.parametrize("method", ["task_arithmetic", "linear", "ties", "slerp", "model_stock"])
def test_a_random_ratio_and_mask_in_memory_are_what_a_merge_writes(
    models: Path, tmp_path: Path, method: str
) -> None:
    draw = random.Random(f"{method} 1")
    weights_held = MergedWeights(room=1 << 30)
    try:
        for number in range(4):
            bits = drawn(models / "one", draw.randrange(100), draw.random())
            entry = write_bits(tmp_path / f"{number}.mask.safetensors", bits)
            chance = MaskEntry(
                random=Chance(keep=draw.random()), op=draw.choice(["and", "or", "minus", "xor"])
            )
            rule = MaskEntry(rule=Rule(layers=(1, 1)), op=draw.choice(["and", "or", "minus"]))
            what = made(
                models, method, models / "one", ratio=draw.choice([1.0, draw.uniform(-0.5, 1.5)]),
                masks=draw.sample([entry, chance, rule], k=draw.randrange(1, 4)),
                rescale=draw.random() < 0.5,
            )  # fmt: skip
            plan = plan_merge(what, open_lineup(what))
            weights_held.update(plan, Unattended())
            saved = merged(what, tmp_path / f"out{number}")
            assert [image.tobytes() for _, image in weights_held.files] == saved
            for key, value in merge_in_memory(plan, Unattended()).items():
                written = weights(tmp_path / f"out{number}")[key]
                assert builders.bits(value) == builders.bits(written), key
    finally:
        weights_held.close()


def test_only_tensors_that_a_mask_reaches_are_made_again(models: Path) -> None:
    held = MergedWeights(room=1 << 30)
    try:
        what = made(models, "task_arithmetic", models / "one")
        held.update(plan_merge(what, open_lineup(what)), Unattended())
        held.take_changed()
        rule = MaskEntry(rule=Rule(layers=(1, 1)), op="minus")
        masked = made(models, "task_arithmetic", models / "one", masks=(rule,))
        lineup = open_lineup(masked)
        held.update(plan_merge(masked, lineup), Unattended())
        assert held.take_changed() == {n for n in lineup.names if ".layers.1." in n}
    finally:
        held.close()


def test_the_plan_tells_what_is_masked_and_how_much_is_kept(models: Path, tmp_path: Path) -> None:
    bits = {Q: drawn(models / "one")[Q]}
    entry = write_bits(tmp_path / "m.mask.safetensors", bits)
    what = made(models, "ties", models / "one", masks=(entry,))
    told = {t["name"]: t for t in describe(plan_merge(what, open_lineup(what)))["tensors"]}  # type: ignore[attr-defined]
    kept = float(bits[Q].mean())
    assert told[Q]["masks"]["one"] == {
        "mask": "m.mask.safetensors", "kept": kept, "counted": True, "rescaled": False,
    }  # fmt: skip
    assert told[Q]["why"] == f"aligned with one, two, three; one masked, {100 * kept:.3g} % kept"
    assert "masks" not in told[DOWN]
    rules = (MaskEntry(random=Chance(keep=0.25)), MaskEntry(rule=Rule(layers=(1, 1)), op="minus"))
    what = made(models, "ties", models / "one", masks=rules)
    told = {t["name"]: t for t in describe(plan_merge(what, open_lineup(what)))["tensors"]}  # type: ignore[attr-defined]
    assert told[Q]["masks"]["one"]["kept"] == 0.25
    assert told[Q]["masks"]["one"]["counted"] is False
    assert told[DOWN]["masks"]["one"]["kept"] == 0


def test_a_mask_that_does_not_fit_is_refused_by_tensor_and_shapes(
    models: Path, tmp_path: Path
) -> None:
    def refused(*masks: MaskEntry) -> UserError:
        what = made(models, "task_arithmetic", models / "one", masks=masks)
        with pytest.raises(UserError) as error:
            plan_merge(what, open_lineup(what))
        return error.value

    wrong = write_bits(tmp_path / "w.mask.safetensors", {Q: np.tile([True, False], (4, 4))})
    error = refused(wrong)
    assert error.code == "mask_does_not_fit"
    assert Q in error.what
    assert "[4, 8]" in error.why
    assert "[16, 16]" in error.why
    strange = write_bits(tmp_path / "s.mask.safetensors", {"other": np.array([True, False])})
    assert "no such tensor" in refused(strange).why
    assert refused(MaskEntry(path=str(tmp_path / "none.mask.safetensors"))).code == "unreadable"
    assert refused(MaskEntry(path=str(models / "one" / "model.safetensors"))).code == "not_a_mask"
    assert refused(MaskEntry(rule=Rule(modules=("qq",)))).code == "rule_matches_nothing"


def test_masks_follow_the_names_of_layers_that_are_stacked_anew(
    models: Path, tmp_path: Path
) -> None:
    sources = tuple(SliceSource(model=m, layers=(1, 2)) for m in ("aligned", "one"))
    part = Slice(sources=sources, base="aligned")
    name = "model.layers.0.self_attn.q_proj.weight"
    bits = {name: drawn(models / "one")[name]}
    entry = write_bits(tmp_path / "m.mask.safetensors", bits)
    what = made(models, "task_arithmetic", models / "one", masks=(entry,), ratio=1.0)
    what = what.model_copy(update={"slices": (part,), "finetuned": what.finetuned[:1]})
    builders.merge(what, tmp_path / "out")
    source = name.replace(".0.", ".1.")
    kept = torch.from_numpy(bits[name])
    wanted = torch.where(kept, weights(models / "one")[source], weights(models / "aligned")[source])
    assert torch.equal(weights(tmp_path / "out")[name], wanted)


def test_a_recipe_with_masks_is_read_back_and_moves_with_its_folder(
    models: Path, tmp_path: Path
) -> None:
    write_bits(models / "m.mask.safetensors", {Q: drawn(models / "one")[Q]})
    masks = (
        MaskEntry(path=str(models / "m.mask.safetensors"), name="attention"),
        MaskEntry(rule=Rule(layers=(0, 3), modules=("q", "v")), op="minus", on=False),
        MaskEntry(random=Chance(keep=0.5, seed=7), op="xor", invert=True),
        MaskEntry(rule=Rule(cells=((0, "q"), (-1, "embed"))), op="or"),
    )
    what = made(models, "task_arithmetic", models / "one", masks=masks, rescale=True)
    what.save(models / "mix.trim")
    text = (models / "mix.trim").read_text()
    assert "path: m.mask.safetensors" in text
    assert load_recipe(models / "mix.trim") == what
    # as a person writes it, YAML takes the key for a truth value
    (models / "mix.trim").write_text(text.replace("'on': false", "on: false"))
    assert "\n" + " " * 4 + "on: false" in (models / "mix.trim").read_text()
    assert load_recipe(models / "mix.trim") == what


def test_distances_are_not_known_under_a_mask(models: Path) -> None:
    layers = np.array([0, 1], dtype=np.int32)
    plain = made(models, "task_arithmetic", models / "one")
    masked = made(
        models, "task_arithmetic", models / "one", masks=(MaskEntry(random=Chance(keep=0.5)),)
    )
    assert plain.coefficients(layers, ("q", "q")) is not None
    assert masked.coefficients(layers, ("q", "q")) is None


def test_inner_products_of_whole_models_are_not_used_for_masked_ones(
    models: Path, tmp_path: Path
) -> None:
    from trimtab.inspection.scan import inspect_cached
    from trimtab.jobs.tasks import run_job

    entry = write_bits(tmp_path / "m.mask.safetensors", drawn(models / "one"))
    what = made(models, "model_stock", models / "one", masks=(entry,))
    without = merged(what, tmp_path / "first")
    inspect_cached(open_lineup(what), Unattended())
    params = {"recipe": what.model_dump(), "device": "cpu", "output": str(tmp_path / "second")}
    run_job("merge", params, Unattended())
    assert [f.read_bytes() for f in sorted((tmp_path / "second").glob("*.safetensors"))] == without


def test_mergekit_is_not_given_a_masked_recipe(models: Path) -> None:
    masks = (MaskEntry(random=Chance(keep=0.5), name="half"),)
    what = made(models, "task_arithmetic", models / "one", masks=masks)
    with pytest.raises(UserError, match="half") as error:
        from_recipe(what, [Q])
    assert error.value.code == "cannot_export"


def test_a_merge_that_reads_a_masked_nan_is_finite(models: Path, tmp_path: Path) -> None:
    broken = weights(models / "one")
    broken[Q][0, 0] = float("nan")
    write_model(models / "broken", broken)
    kept = np.ones((16, 16), dtype=np.bool_)
    kept[0, 0] = False
    entry = write_bits(tmp_path / "m.mask.safetensors", {Q: kept})
    for ratio in (1.0, 0.5):
        what = recipe(models / "aligned", tuned(models / "broken", ratio, masks=(entry,)))
        builders.merge(what, tmp_path / f"out{ratio}")
        found = weights(tmp_path / f"out{ratio}")[Q]
        assert found[0, 0] == weights(models / "aligned")[Q][0, 0]
    assert tree(tmp_path / "out1.0").keys() == tree(tmp_path / "out0.5").keys()
