"""What a merge was made with may not be among the prompts that it is measured by."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from test_evaluation_command import FAST, refused, run

from trimtab.activations.calibration import Calibration, Example, load_calibration
from trimtab.demo.recipe import demo_recipe
from trimtab.errors import UserError
from trimtab.evaluation.suite import Prompt, Suite, demo_suite
from trimtab.evaluation.suite_calibration import (
    check_calibration,
    limits_of_calibration,
    refuse_overlap,
)
from trimtab.masks.entries import MaskEntry
from trimtab.masks.file import MaskAbout, MaskWriter, Prompts
from trimtab.merging.recipe import Recipe
from trimtab.search.space import default_space
from trimtab.search.spec import Spec
from trimtab.search.split import split

SUITE = Suite(
    "toy", "1", "", "", tuple(
        Prompt(f"toy/{i}", "harmful", f"tell me how one may best steal number {i} of these things")
        for i in range(4)
    ),
)  # fmt: skip
TEXTS = tuple(Example(f"line:{i}", p.text.upper()) for i, p in enumerate(SUITE.prompts[:2]))


def masked(folder: Path, *prompts: Prompts, name: str = "m") -> Recipe:
    """The demo's recipe with a mask that was found with these prompts."""
    path = folder / f"{name}.mask.safetensors"
    with MaskWriter(path, MaskAbout(builder="wanda", prompts=prompts)) as writer:
        writer.constant("model.norm.weight", (64,), False)
        writer.finish()
    whole = demo_recipe()
    model = whole.finetuned[0].model_copy(update={"masks": (MaskEntry(path=str(path)),)})
    return whole.model_copy(update={"finetuned": (model,)})


def test_the_texts_of_a_named_set_are_compared() -> None:
    checked = check_calibration(SUITE, [], [Calibration("mine", TEXTS)])
    assert [(c.how, c.met) for c in checked] == [("text", ("toy/0", "toy/1"))]
    with pytest.raises(UserError) as caught:
        refuse_overlap(checked, SUITE)
    assert caught.value.code == "prompts_overlap"
    assert "steal number 0" in caught.value.details
    others = check_calibration(SUITE, [], [Calibration("mine", (Example("a", "bake a cake"),))])
    refuse_overlap(others, SUITE)
    assert limits_of_calibration(others) == ()


def test_the_ids_that_a_mask_names_are_compared(tmp_path: Path) -> None:
    recipe = masked(tmp_path, Prompts(name="theirs", digest="x", ids=("toy/3", "other/1")))
    checked = check_calibration(SUITE, [recipe], [])
    assert [(c.how, c.met, c.used_by) for c in checked] == [
        ("ids", ("toy/3",), "m.mask.safetensors")
    ]
    with pytest.raises(UserError):
        refuse_overlap(checked, SUITE)


def test_a_bare_number_is_no_name_of_a_prompt(tmp_path: Path) -> None:
    suite = Suite("n", "", "", "", (Prompt("7", "harmful", "a"), Prompt("8", "harmful", "b")))
    recipe = masked(tmp_path, Prompts(name="theirs", digest="x", ids=("7", "9")))
    checked = check_calibration(suite, [recipe], [])
    assert [(c.how, c.met) for c in checked] == [("unknown", ())]
    refuse_overlap(checked, suite)
    assert "not known" in limits_of_calibration(checked)[0]


def test_a_mask_that_was_found_with_the_suite_itself_is_told_by_its_digest(tmp_path: Path) -> None:
    recipe = masked(tmp_path, Prompts(name="toy", digest=SUITE.digest))
    assert check_calibration(SUITE, [recipe], [])[0].met == tuple(p.id for p in SUITE.prompts)


@pytest.mark.parametrize("part", [slice(None), slice(1)])
def test_where_a_masks_very_prompts_are_at_hand_their_texts_are_compared(
    tmp_path: Path, part: slice
) -> None:
    whole = Calibration("mine", TEXTS)
    used = Calibration("mine", TEXTS[part])
    recipe = masked(tmp_path, Prompts(name="mine", digest=used.digest, ids=used.ids))
    checked = check_calibration(SUITE, [recipe], [whole])
    assert checked[-1].how == "text"
    assert checked[-1].size == len(used.examples)
    assert checked[-1].met == tuple(p.id for p in SUITE.prompts[: len(used.examples)])


def test_a_mask_that_is_switched_off_counts_for_nothing(tmp_path: Path) -> None:
    recipe = masked(tmp_path, Prompts(name="toy", digest=SUITE.digest))
    model = recipe.finetuned[0]
    off = tuple(entry.model_copy(update={"on": False}) for entry in model.masks)
    quiet = recipe.model_copy(update={"finetuned": (model.model_copy(update={"masks": off}),)})
    assert check_calibration(SUITE, [quiet], []) == ()


def test_the_shipped_calibration_sets_share_nothing_with_the_demos_suite() -> None:
    for name in ("demo-refused", "demo-harmful", "demo-benign"):
        refuse_overlap(check_calibration(demo_suite(), [], [load_calibration(name)]), demo_suite())


def test_the_command_refuses_and_goes_on_only_when_told_to(tmp_path: Path) -> None:
    prompts = demo_suite().by_kind("harmful")[:3]
    lines = [json.dumps({"prompt": p.text, "answer": "x"}) for p in prompts]
    (tmp_path / "cal.jsonl").write_text("\n".join(lines))
    recipe = masked(tmp_path, Prompts(name="s", digest="x", ids=(prompts[0].id,)))
    recipe.save(tmp_path / "masked.trim")
    demo_recipe().save(tmp_path / "plain.trim")
    given = ("--suite", "demo", "--roles", "aligned", *FAST)
    assert refused(tmp_path / "masked.trim", *given) == "[prompts_overlap]"
    named = ("--calibration", tmp_path / "cal.jsonl")
    assert refused(tmp_path / "plain.trim", *given, *named) == "[prompts_overlap]"
    status, text, errors = run(
        tmp_path / "masked.trim", *given, *named, "--limit", "3", "--allow-overlap", "--json"
    )
    assert status == 0, errors
    data = json.loads(text)
    assert any("too good" in limit for limit in data["limits"])
    assert [c["how"] for c in data["provenance"]["calibration"]] == ["text", "ids"]


def test_what_a_sweep_searched_on_may_not_be_asked_and_what_it_held_out_may(tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    folder.mkdir()
    spec = Spec(recipe=demo_recipe(), space=default_space(True), suite="demo", seed=3)
    spec.save(folder)
    (folder / "sweep.json").write_text("{}")
    demo_recipe().save(tmp_path / "a.trim")
    given = ("--roles", "aligned", *FAST, "--calibration", folder)
    assert refused(tmp_path / "a.trim", "--suite", "demo", *given) == "[prompts_overlap]"
    held_out = split(demo_suite(), 3, spec.held_out).held_out
    held_out.save(tmp_path / "held-out.jsonl")
    status, _, errors = run(
        tmp_path / "a.trim", "--suite", tmp_path / "held-out.jsonl", "--limit", "2",
        "--judge", "demo", *given,
    )  # fmt: skip
    assert status == 0, errors
