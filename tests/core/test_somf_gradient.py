"""One step of SOMF against autograd of its formula in float64, written anew, for all tasks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from somf_models import tiny_pairs, tiny_recipe
from transformers import AutoModelForCausalLM, AutoTokenizer

from trimtab.control import Unattended
from trimtab.demo.tokenizer import ASSISTANT, BEGIN, END, USER
from trimtab.merging.recipe import open_lineup
from trimtab.realign.pairs_tokens import pair_rows
from trimtab.realign.somf_learning import Learning, dpo_loss
from trimtab.realign.somf_merge import concrete, keep_largest, logistic, merge_changes, seeded
from trimtab.realign.somf_options import SomfOptions
from trimtab.realign.somf_tasks import load_tasks

KEY = "x"


def _learning(root: Path, options: SomfOptions, tasks: int = 2) -> Learning:
    recipe = tiny_recipe(root, tasks)
    lineup = open_lineup(recipe)
    loaded = load_tasks(recipe, lineup, options, "cpu", Unattended())
    rows = pair_rows(loaded.tokenizer, tiny_pairs().pairs, 64)
    return Learning(loaded, rows, options, options.settled(tasks), KEY)


def _merge_in_float64(
    deltas: list[torch.Tensor], merge: str, dropped: list[torch.Tensor]
) -> torch.Tensor:
    if merge == "task_arithmetic":
        return 0.3 * sum(deltas, torch.zeros_like(deltas[0]))
    if merge == "dare":
        kept = [d * (~gone) / 0.8 for d, gone in zip(deltas, dropped, strict=True)]
        return 0.3 * (kept[0] + kept[1])
    flat = [d.reshape(-1) for d in deltas]
    count = max(1, int(0.2 * flat[0].numel()))
    trimmed = []
    for d in flat:
        threshold = np.sort(np.abs(d.detach().numpy()))[::-1][count - 1]
        trimmed.append(d * (d.detach().abs() >= float(threshold)))
    total = trimmed[0].detach() + trimmed[1].detach()
    sign = torch.where(total >= 0, 1.0, -1.0).double()
    agreeing = [t * (t.detach() * sign > 0) for t in trimmed]
    return 0.4 * (agreeing[0] + agreeing[1]).reshape(deltas[0].shape)


def _loss_in_float64(
    root: Path, learning: Learning, logits: dict[str, torch.Tensor], only_first: bool
) -> torch.Tensor:
    """−log σ(β(…)) of the step's pairs, dense, from the files alone."""
    models = [
        AutoModelForCausalLM.from_pretrained(root / n, dtype=torch.float64)
        for n in ("aligned", "task0", "task1")
    ]
    tokenizer = AutoTokenizer.from_pretrained(root / "aligned")
    states: list[dict[str, torch.Tensor]] = [dict(m.named_parameters()) for m in models]
    merged: dict[str, torch.Tensor] = {}
    for name, base in states[0].items():
        shape = learning.tasks.units[name].logits
        noise = logistic(shape, seeded("noise", 0, 0, name)).double()
        mask = torch.sigmoid((logits[name] + noise) / 0.5)
        wide = mask.reshape(mask.shape[0], *[1] * (base.ndim - 1)).expand(base.shape)
        deltas = [(s[name] - base).detach() * wide / wide.mean() for s in states[1:]]
        if only_first:
            deltas[1] = deltas[1].detach()
        dropped = [
            torch.rand(base.shape, generator=seeded("dare", 0, 0, name, i)) < 0.2 for i in range(2)
        ]
        merged[name] = base.detach() + _merge_in_float64(
            deltas, str(learning.settled.merge), dropped
        )
    chosen = learning._batch()
    pairs = [tiny_pairs().pairs[i] for i in chosen]
    losses = []
    for pair in pairs:
        gaps = []
        for weights in (merged, states[0]):
            sides = []
            for answer in (pair.chosen, pair.rejected):
                asked = f"{BEGIN}{USER} {pair.prompt} {ASSISTANT}"
                text = f"{asked} {answer} {END}"
                ids = tokenizer(text, add_special_tokens=False, return_tensors="pt").input_ids
                start = len(tokenizer(asked, add_special_tokens=False).input_ids)
                out: Any = torch.func.functional_call(models[0], dict(weights), (ids,)).logits
                found = out.log_softmax(-1)[0, torch.arange(start - 1, ids.shape[1] - 1),
                                            ids[0, start:]]  # fmt: skip
                sides.append(found.sum())
            gaps.append(sides[0] - sides[1])
        losses.append(-torch.nn.functional.logsigmoid(0.1 * (gaps[0] - gaps[1].detach())))
    return torch.stack(losses).mean()


@pytest.mark.parametrize("merge", ["task_arithmetic", "ties", "dare"])
def test_the_gradient_of_a_step_is_that_of_the_formula_for_all_tasks(
    tmp_path: Path, merge: Any
) -> None:
    options = SomfOptions(merge=merge, batch=4, rate=0.1, steps=1)
    learning = _learning(tmp_path, options)
    names = list(learning.logits)
    torch.manual_seed(5)
    start = {name: torch.randn(x.shape) * 0.5 for name, x in learning.logits.items()}
    with torch.no_grad():
        for name, x in learning.logits.items():
            x.copy_(start[name])
    rows = [learning.rows[i] for i in learning._batch()]
    parameters = learning.merged(learning.sampled("noise", trained=True), 0)
    reference = learning.measured({}, rows, Unattended())
    loss = dpo_loss(learning.likelihoods(parameters, rows), reference, options.beta)
    ours = torch.autograd.grad(loss, list(learning.logits.values()))

    exact = {name: x.double().requires_grad_() for name, x in start.items()}
    wanted_loss = _loss_in_float64(tmp_path, learning, exact, only_first=False)
    wanted = torch.autograd.grad(wanted_loss, list(exact.values()))
    assert float(loss.detach()) == pytest.approx(float(wanted_loss.detach()), abs=1e-6)
    flat, flat_wanted = (torch.cat([g.double().reshape(-1) for g in gs]) for gs in (ours, wanted))
    error = (flat - flat_wanted).norm() / flat_wanted.norm()
    assert error < 1e-4, names

    # what the published TIES does: nothing of the second task's gradient arrives
    first = torch.autograd.grad(
        _loss_in_float64(tmp_path, learning, exact, only_first=True), list(exact.values())
    )
    flat_first = torch.cat([g.reshape(-1) for g in first])
    assert (flat - flat_first).norm() / flat_wanted.norm() > 0.1


def test_ties_keeps_the_largest_and_the_first_of_equals() -> None:
    values = torch.tensor([[1.0, -3.0, 2.0], [3.0, -3.0, 0.0]])
    assert keep_largest(values, 0.34).tolist() == [[False, True, False], [True, False, False]]
    assert int(keep_largest(torch.ones(3), 0.01).sum()) == 1


def test_ties_adds_what_agrees_with_the_elected_sign() -> None:
    a, b = torch.tensor([2.0, -5.0, 0.1, 0.0, 0.2]), torch.tensor([-3.0, 1.0, 0.2, 0.0, 0.1])
    # of each the largest of five survives
    assert merge_changes([a, b], "ties", 1.0).tolist() == [-3.0, -5.0, 0.0, 0.0, 0.0]


def test_concrete_samples_exceed_one_half_as_often_as_sigma_says() -> None:
    logits = torch.full((200_000,), 0.7)
    sample = concrete(logits, logistic(logits.shape, seeded("t", 1)), 0.5)
    share = float((sample > 0.5).float().mean())
    assert share == pytest.approx(1 / (1 + np.exp(-0.7)), abs=4e-3)
    again = concrete(logits, logistic(logits.shape, seeded("t", 1)), 0.5)
    assert torch.equal(sample, again)


def test_masks_all_alike_leave_the_merge_as_it_is(tmp_path: Path) -> None:
    learning = _learning(tmp_path, SomfOptions(), tasks=1)
    halves = {name: torch.full(x.shape, 0.5) for name, x in learning.logits.items()}
    plain, masked = learning.merged(None), learning.merged(halves)
    for name, value in plain.items():
        torch.testing.assert_close(masked[name], value, rtol=1e-6, atol=1e-7)
