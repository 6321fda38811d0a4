"""Antidote prunes what its scores rank highest, and tells what that takes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from somf_models import tiny_adapter, tiny_pairs, tiny_recipe
from transformers import AutoModelForCausalLM, AutoTokenizer

from builders import merge, weights, write_model
from trimtab.activations.calibration import Calibration, Example
from trimtab.cli import main
from trimtab.control import Unattended
from trimtab.errors import UserError
from trimtab.masks.file import MaskFile
from trimtab.merging.recipe import load_recipe
from trimtab.realign.antidote import highest, matched_at_random, pruned_in_row, removed
from trimtab.realign.antidote_norms import realignment_set
from trimtab.realign.antidote_run import antidote
from trimtab.realign.antidote_sinks import REPORT_NAME
from trimtab.realign.antidote_work import AntidoteOptions

# peft asks transformers for it by its old name
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")
SET = Calibration("tiny", tuple(Example(p.id, p.prompt, p.rejected) for p in tiny_pairs().pairs))
OTHER = Calibration("other", (Example("o", "tell me how to mend a violin.", "use glue near lake"),))


def _norms(folder: Path, calibration: Calibration) -> dict[str, np.ndarray[Any, Any]]:
    """√((1/n) Σ x²) of every Linear's inputs, by hooks on the whole model, a sequence at a time."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    sums: dict[str, torch.Tensor] = {}
    for name, module in model.named_modules():
        if ".layers." in name and isinstance(module, torch.nn.Linear):

            def hook(_: Any, args: Any, name: str = name) -> None:
                sums[name] = sums.get(name, 0) + args[0][0].square().sum(0)

            module.register_forward_pre_hook(hook)
    for example in calibration.examples:
        turns = [{"role": "user", "content": example.prompt},
                 {"role": "assistant", "content": example.answer}]  # fmt: skip
        text = tokenizer.apply_chat_template(turns, tokenize=False)
        ids = tokenizer(text, add_special_tokens=False, return_tensors="pt").input_ids
        with torch.no_grad():
            model(ids)
    return {n: (s / len(calibration.examples)).sqrt().numpy() for n, s in sums.items()}


def _top(scores: np.ndarray[Any, Any], alpha: float) -> np.ndarray[Any, Any]:
    """The argmax set of each row, one argmax at a time."""
    found = np.zeros(scores.shape, bool)
    for row, values in enumerate(scores):
        left = values.astype(np.float64).copy()
        for _ in range(values.size - int(values.size * (1 - alpha))):
            best = int(np.argmax(left))
            found[row, best], left[best] = True, -np.inf
    return found


def _pruned(mask: MaskFile, name: str, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    size = int(np.prod(shape))
    bits = np.unpackbits(mask.read_bits(name, 0, size), count=size, bitorder="little")
    found: np.ndarray[Any, Any] = bits.reshape(shape) == 0
    return found


# --- The arithmetic. ---


@given(st.integers(1, 40), st.floats(1e-6, 1.0), st.integers(0, 99))
def test_the_pruned_set_is_the_argmax_set(inputs: int, alpha: float, seed: int) -> None:
    scores = np.random.default_rng(seed).random((3, inputs), dtype=np.float32)
    np.testing.assert_array_equal(highest(scores, alpha), _top(scores, alpha))


def test_at_least_one_entry_of_a_row_is_pruned_and_all_for_alpha_one() -> None:
    assert pruned_in_row(4096, 1e-5) == 1
    assert pruned_in_row(80, 0.1) == 8
    assert pruned_in_row(208, 0.1) == 21
    assert highest(np.zeros((2, 5), np.float32), 1.0).all()


def test_of_equal_scores_the_last_are_pruned() -> None:
    assert highest(np.ones((1, 4), np.float32), 0.5).tolist() == [[False, False, True, True]]


@given(st.integers(1, 200), st.floats(0, 1), st.integers(0, 99))
def test_the_control_has_the_energy_of_the_mask_to_within_an_entry(
    size: int, share: float, seed: int
) -> None:
    energy = np.random.default_rng(seed).random(size, dtype=np.float32)
    target = share * float(energy.sum(dtype=np.float64))
    found = matched_at_random(energy, target, seed, "t")
    off = abs(float(energy[found].sum(dtype=np.float64)) - target)
    assert off <= float(energy.max()) / 2 + 1e-6
    np.testing.assert_array_equal(found, matched_at_random(energy, target, seed, "t"))


def test_energies_are_sums_of_squares() -> None:
    values = np.array([[3.0, 4.0]], np.float32)
    scores = np.array([[6.0, 4.0]], np.float32)
    pruned, control = np.array([[True, False]]), np.array([[False, True]])
    told = removed(values, scores, pruned, control).to_dict()
    assert (told["energy"], told["output_energy"]) == (
        pytest.approx(9 / 25),
        pytest.approx(36 / 52),
    )
    assert told["control"]["energy"] == pytest.approx(16 / 25)


# --- On models. ---


def test_delta_revert_prunes_the_highest_delta_wanda_scores(tmp_path: Path) -> None:
    made = tiny_recipe(tmp_path)
    output, random = tmp_path / "a.mask.safetensors", tmp_path / "c.mask.safetensors"
    report = antidote(
        made, SET, AntidoteOptions(alpha=0.2), output, Unattended(), control_output=random
    )
    mask, control = MaskFile.open(output), MaskFile.open(random)
    norms = _norms(tmp_path / "task0", SET)
    aligned, task = weights(tmp_path / "aligned"), weights(tmp_path / "task0")
    assert len(mask.names) == len(norms) == 14
    taken = total = control_taken = 0.0
    for module, norm in norms.items():
        name = f"{module}.weight"
        delta = (task[name] - aligned[name]).numpy()
        pruned = _pruned(mask, name, delta.shape)
        expected = _top(np.abs(delta) * norm[None, :].astype(np.float32), 0.2)
        assert (pruned != expected).mean() < 1e-3, name  # but for ties in float32
        taken += float(np.square(delta[pruned]).sum())
        control_taken += float(np.square(delta[_pruned(control, name, delta.shape)]).sum())
        total += float(np.square(delta).sum())
    assert report["total"]["energy"] == pytest.approx(taken / total, rel=1e-4)
    assert control_taken / total == pytest.approx(taken / total, rel=0.02)
    assert report["mode"] == "ours"
    assert mask.about.prompts[0].ids == SET.ids

    merge(load_recipe(tmp_path / "a.trim"), tmp_path / "merged")
    found = weights(tmp_path / "merged")
    for name in found:
        pruned_here = _pruned(mask, name, found[name].shape) if name in mask.names else False
        expected_values = torch.where(torch.tensor(pruned_here), aligned[name], task[name])
        assert torch.equal(found[name], expected_values), name


def test_scores_change_with_the_calibration_data(tmp_path: Path) -> None:
    made = tiny_recipe(tmp_path)
    masks = []
    for name, calibration in (("a", SET), ("b", OTHER), ("again", SET)):
        path = tmp_path / f"{name}.mask.safetensors"
        antidote(made, calibration, AntidoteOptions(alpha=0.2), path, Unattended())
        masks.append(MaskFile.open(path))
    name, size = "model.layers.1.mlp.up_proj.weight", 24 * 16
    bits = [mask.read_bits(name, 0, size).tolist() for mask in masks]
    assert bits[0] != bits[1]
    assert bits[0] == bits[2]


@pytest.mark.parametrize("shards", [1, 3])
def test_weight_zeroing_zeroes_the_highest_scores_and_nothing_else(
    tmp_path: Path, shards: int
) -> None:
    made = tiny_recipe(tmp_path)
    tensors = weights(tmp_path / "task0")
    if shards > 1:
        (tmp_path / "task0" / "model.safetensors").unlink()
        write_model(tmp_path / "task0", tensors, None, shards)
    options = AntidoteOptions(variant="weight-zeroing", alpha=0.1, modules=("q", "k", "v"))
    report = antidote(made, SET, options, tmp_path / "zeroed", Unattended())
    found = weights(tmp_path / "zeroed")
    norms = _norms(tmp_path / "task0", SET)
    assert report["matrices"] == 6
    for name, before in tensors.items():
        if name.split(".")[-2] in ("q_proj", "k_proj", "v_proj"):
            scores = np.abs(before.numpy()) * norms[name.removesuffix(".weight")][None, :]
            gone = torch.tensor(_top(scores.astype(np.float32), 0.1))
            assert ((found[name] == 0) != gone).float().mean() < 1e-2
            assert torch.equal(found[name][~gone & (found[name] != 0)],
                               before[~gone & (found[name] != 0)])  # fmt: skip
        else:
            assert torch.equal(found[name], before), name
    AutoModelForCausalLM.from_pretrained(tmp_path / "zeroed")
    assert json.loads((tmp_path / "zeroed" / REPORT_NAME).read_text())["mode"] == "authors' code"
    assert not list(tmp_path.glob("*.partial"))


def test_lora_space_prunes_both_factors_by_what_goes_into_each(tmp_path: Path) -> None:
    made = tiny_adapter(tmp_path)
    options = AntidoteOptions(variant="lora-space", alpha=0.3)
    antidote(made, SET, options, tmp_path / "pruned", Unattended())
    before = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    after = load_file(tmp_path / "pruned" / "adapter_model.safetensors")
    # the inputs of both factors in the adapted model itself, factor by factor as its authors do
    from peft import PeftModel

    base = AutoModelForCausalLM.from_pretrained(tmp_path / "aligned", dtype=torch.float64)
    model = PeftModel.from_pretrained(base, tmp_path / "adapter").double()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "aligned")
    sums: dict[str, torch.Tensor] = {}
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and "lora_" in name:

            def hook(_: Any, args: Any, name: str = name) -> None:
                sums[name] = sums.get(name, 0) + args[0][0].square().sum(0)

            module.register_forward_pre_hook(hook)
    for example in SET.examples:
        turns = [{"role": "user", "content": example.prompt},
                 {"role": "assistant", "content": example.answer}]  # fmt: skip
        text = tokenizer.apply_chat_template(turns, tokenize=False)
        with torch.no_grad():
            model(tokenizer(text, add_special_tokens=False, return_tensors="pt").input_ids)
    assert len(sums) == len(before) == 8
    for name, total in sums.items():
        key = name.replace(".default", "") + ".weight"
        scores = before[key].abs() * (total / len(SET.examples)).sqrt()[None, :].float()
        gone = torch.tensor(_top(scores.numpy(), 0.3))
        assert torch.equal(after[key], before[key].masked_fill(gone, 0.0)), key
    config = "adapter_config.json"
    assert (tmp_path / "pruned" / config).read_text() == (tmp_path / "adapter" / config).read_text()


def test_weights_stored_the_other_way_are_ranked_by_output(tmp_path: Path) -> None:
    made = tiny_recipe(tmp_path, kind="gpt2")
    path = tmp_path / "m.mask.safetensors"
    antidote(made, SET, AntidoteOptions(alpha=0.25), path, Unattended())
    mask = MaskFile.open(path)
    name = next(n for n in mask.names if "c_fc" in n)
    pruned = _pruned(mask, name, (16, 64))
    assert (pruned.sum(0) == 4).all()


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (AntidoteOptions(alpha=0.0), "antidote_alpha"),
        (AntidoteOptions(alpha=1.5), "antidote_alpha"),
        (AntidoteOptions(variant="lora-space"), "antidote_variant"),
        (AntidoteOptions(model="nobody"), "no_such_model"),
        (AntidoteOptions(modules=("zz",)), "nothing_to_prune"),
    ],
)
def test_what_cannot_be_done_is_refused_and_leaves_nothing(
    tmp_path: Path, options: AntidoteOptions, code: str
) -> None:
    made = tiny_recipe(tmp_path)
    before = sorted(p.name for p in tmp_path.iterdir())
    with pytest.raises(UserError) as caught:
        antidote(made, SET, options, tmp_path / "m.mask.safetensors", Unattended())
    assert caught.value.code == code
    assert sorted(p.name for p in tmp_path.iterdir()) == before


def test_an_adapter_is_not_zeroed_and_a_base_is_nothing_to_revert_to(tmp_path: Path) -> None:
    made = tiny_adapter(tmp_path)
    with pytest.raises(UserError, match="weight-zeroing"):
        antidote(made, SET, AntidoteOptions(variant="weight-zeroing"), tmp_path / "z", Unattended())
    plain = tiny_recipe(tmp_path / "two")
    headless = plain.model_copy(update={"base": plain.aligned, "aligned": None})
    with pytest.raises(UserError) as caught:
        antidote(headless, SET, AntidoteOptions(), tmp_path / "m.mask.safetensors", Unattended())
    assert "no aligned model" in caught.value.why


def test_what_is_there_already_is_not_replaced(tmp_path: Path) -> None:
    made = tiny_recipe(tmp_path)
    output = tmp_path / "m.mask.safetensors"
    antidote(made, SET, AntidoteOptions(), output, Unattended())
    with pytest.raises(UserError) as caught:
        antidote(made, SET, AntidoteOptions(), output, Unattended())
    assert caught.value.code == "output_exists"
    antidote(made, SET, AntidoteOptions(), output, Unattended(), overwrite=True)


def test_of_preference_pairs_the_rejected_answers_calibrate(tmp_path: Path) -> None:
    tiny_pairs(3).save(tmp_path / "pairs.jsonl")
    assert [e.answer for e in realignment_set(tmp_path / "pairs.jsonl").examples] == (
        ["use brush near river"] * 3
    )
    (tmp_path / "plain.jsonl").write_text('{"prompt": "q", "answer": "a"}\n')
    assert realignment_set(tmp_path / "plain.jsonl").examples[0].answer == "a"


def test_the_command_tells_alpha_and_what_it_really_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_recipe(tmp_path).save(tmp_path / "r.trim")
    tiny_pairs().save(tmp_path / "pairs.jsonl")
    arguments = ["antidote", str(tmp_path / "r.trim"), "--calibration",
                 str(tmp_path / "pairs.jsonl"), "--alpha", "1e-5",
                 "-o", str(tmp_path / "m.mask.safetensors")]  # fmt: skip
    assert main(arguments) == 0
    said = capsys.readouterr().out
    assert "with α 1e-05; in 14 of 14 matrices more than α" in said
    assert "random control" in said
    assert main([*arguments[:-1], str(tmp_path / "wrong"), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "cannot_write"
