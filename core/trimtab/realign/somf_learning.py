"""SOMF's learning: DPO on preference pairs, through Concrete masks on task vectors, resumable."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from trimtab.control import Control, JobAbandoned, JobCancelled
from trimtab.errors import UserError
from trimtab.realign.pairs_tokens import Row, log_likelihoods
from trimtab.realign.somf_file import BINS, write_tensors
from trimtab.realign.somf_merge import (
    concrete,
    logistic,
    masked,
    merge_changes,
    seeded,
)
from trimtab.realign.somf_options import DARE_DROPS, TEMPERATURE, Settled, SomfOptions
from trimtab.realign.somf_tasks import Tasks

Rows = Sequence[Row]
STATE, LOG = "trimtab-state.safetensors", "log.json"
#: a file of this name in the folder of a run says that what is learned so far will do
ENOUGH = "enough"


def dpo_loss(policy: torch.Tensor, reference: torch.Tensor, beta: float) -> torch.Tensor:
    """Return the mean DPO loss of pairs; both are [pairs, 2] log-likelihoods (chosen, rejected).

    −log σ(β ((πc − rc) − (πr − rr))): Rafailov et al. 2023, equation 7.
    """
    gap = (policy - reference)[:, 0] - (policy - reference)[:, 1]
    return -torch.nn.functional.logsigmoid(beta * gap).mean()


def learning_rate(options: SomfOptions, step: int) -> float:
    """Return the rate of the step after `step` others: linear warm-up, then cosine to zero."""
    if step < options.warmup:
        return options.rate * step / max(1, options.warmup)
    along = (step - options.warmup) / max(1, options.steps - options.warmup)
    return options.rate * 0.5 * (1 + math.cos(math.pi * along))


class Learning:
    """Logits, their optimizer and a log, in a folder that a later run goes on from.

    What a step draws, noise, data and what DARE drops, is a function of the seed and of the step's
    number: nothing else must be remembered, and a run that was killed goes on to the same bits.
    """

    def __init__(self, tasks: Tasks, rows: Rows, options: SomfOptions, settled: Settled, key: str):
        self.tasks, self.rows = tasks, rows
        self.options, self.settled = options, settled
        self.key = key
        self.step = 0
        self.log: list[dict[str, Any]] = []
        self.logits = {
            name: torch.zeros(units.logits, device=tasks.device, requires_grad=True)
            for name, units in tasks.units.items()
        }
        self._optimizer = torch.optim.AdamW(
            list(self.logits.values()), lr=options.rate, betas=(0.9, 0.999), weight_decay=0.0
        )
        self._reference: torch.Tensor | None = None

    # What the model is under a mask.

    def merged(
        self, masks: Mapping[str, torch.Tensor] | None, dropped: str | int = "measured"
    ) -> dict[str, torch.Tensor]:
        """Return the merged weights under `masks` (None: all kept), by the model's own names."""
        found = {}
        for name, base in self.tasks.base.items():
            changes = list(self.tasks.deltas[name])
            if masks is not None:
                units = self.tasks.units[name]
                changes = [
                    masked(delta, masks[name], units, self.settled.rescale) for delta in changes
                ]
            change = merge_changes(
                changes, self.settled.merge, self.settled.scale, self._dropper(name, base, dropped)
            )
            place = self.tasks.places[name]
            dtype = self.tasks.model.get_parameter(place).dtype
            found[place] = (base + change).to(dtype)
        return found

    def _dropper(
        self, name: str, base: torch.Tensor, when: str | int
    ) -> Callable[[int], torch.Tensor]:
        def dropped(task: int) -> torch.Tensor:
            generator = seeded("dare", self.options.seed, when, name, task)
            return (torch.rand(base.shape, generator=generator) < DARE_DROPS).to(base.device)

        return dropped

    def sampled(self, part: str, trained: bool) -> dict[str, torch.Tensor]:
        """Return Concrete samples for this step, of the logits or of logits that stay zero."""
        found = {}
        for name, logits in self.logits.items():
            noise = logistic(logits.shape, seeded(part, self.options.seed, self.step, name))
            x = logits if trained else torch.zeros_like(logits)
            found[name] = concrete(x, noise.to(logits.device), TEMPERATURE)
        return found

    def likelihoods(self, parameters: Mapping[str, torch.Tensor], rows: Rows) -> torch.Tensor:
        """Return [pairs, 2] log-likelihoods in nats of chosen and rejected answers."""
        flat = [row[0] for row in rows] + [row[1] for row in rows]
        found = log_likelihoods(self.tasks.model, parameters, flat, self.tasks.device)
        return found.reshape(2, len(rows)).T

    @torch.no_grad()
    def measured(
        self, parameters: Mapping[str, torch.Tensor], rows: Rows, control: Control
    ) -> torch.Tensor:
        """Return `likelihoods` of any number of pairs, in batches of a fixed size."""
        parts = []
        for start in range(0, len(rows), self.options.batch):
            control.check()
            batch = rows[start : start + self.options.batch]
            parts.append(self.likelihoods(parameters, batch))
            control.advance(len(batch))
        return torch.cat(parts) if parts else torch.zeros((0, 2), device=self.tasks.device)

    # The learning.

    def run(self, folder: Path, control: Control) -> None:
        """Learn to the last step, from where `resume` left off.

        The log in `folder` grows every `log_every` steps, and the state is kept every
        `checkpoint_every`, and when the work is told to stop. A file `ENOUGH` in it ends the
        learning early.
        """
        if self.options.reference == "aligned" and self._reference is None:
            control.stage("Asking the aligned model", len(self.rows))
            self._reference = self.measured({}, self.rows, control)
        control.stage("Learning masks", self.options.steps)
        control.advance(self.step)
        while self.step < self.options.steps and not (folder / ENOUGH).exists():
            try:
                control.check()
            except (JobCancelled, JobAbandoned):
                self.keep(folder)
                raise
            self._one_step()
            if self.step % self.options.log_every == 0 or self.step == self.options.steps:
                self._write_log(folder)
            if self.step % self.options.checkpoint_every == 0:
                self.keep(folder)
            control.advance(1)

    def _one_step(self) -> None:
        chosen = self._batch()
        rows = [self.rows[i] for i in chosen]
        rate = learning_rate(self.options, self.step)
        self._optimizer.param_groups[0]["lr"] = rate
        parameters = self.merged(self.sampled("noise", trained=True), self.step)
        policy = self.likelihoods(parameters, rows)
        if self._reference is None:
            with torch.no_grad():
                # another draw of what is dropped as well: theirs is a model of its own
                theirs = self.merged(self.sampled("reference", trained=False), -1 - self.step)
                reference = self.likelihoods(theirs, rows)
        else:
            reference = self._reference[torch.tensor(chosen, device=self._reference.device)]
        loss = dpo_loss(policy, reference, self.options.beta)
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()
        self.step += 1
        gap = self.options.beta * ((policy - reference)[:, 0] - (policy - reference)[:, 1])
        if self.step % self.options.log_every == 0 or self.step == self.options.steps:
            self.log.append(
                {
                    "step": self.step,
                    "loss": float(loss.detach()),
                    "margin": float(gap.detach().mean()),
                    # of the model itself, not beside the reference: it says what it prefers
                    "preferred": float((policy[:, 0] > policy[:, 1]).float().mean()),
                    "rate": rate,
                    **self._of_masks(),
                }
            )

    def _batch(self) -> list[int]:
        """Return the pairs of this step: an endless walk, each round in an order of its own."""
        size, count = self.options.batch, len(self.rows)
        found: list[int] = []
        for place in range(self.step * size, (self.step + 1) * size):
            generator = seeded("order", self.options.seed, place // count)
            if not found or place % count == 0:
                order = torch.randperm(count, generator=generator).tolist()
            found.append(order[place % count])
        return found

    @torch.no_grad()
    def _of_masks(self) -> dict[str, Any]:
        counts, total, weight = np.zeros(BINS), 0.0, 0
        for name, logits in self.logits.items():
            units = self.tasks.units[name]
            found = torch.sigmoid(logits).cpu()
            histogram = torch.histc(found, BINS, 0.0, 1.0).numpy()
            counts += histogram * units.entries
            total += float(found.double().sum()) * units.entries
            weight += units.count * units.entries
        shares = (counts / weight).tolist()
        return {"mean_sigma": total / weight, "histogram": shares}

    def _write_log(self, folder: Path) -> None:
        content = {"key": self.key, "steps": self.options.steps, "log": self.log}
        path = folder / LOG
        partial = path.with_suffix(".partial")
        try:
            partial.write_text(json.dumps(content), encoding="utf-8")
            partial.replace(path)
        except OSError as error:
            raise _not_kept(folder, error) from error

    # Pause and resume.

    def keep(self, folder: Path) -> None:
        """Keep logits, moments, step and log in `folder`, whole or not at all."""
        tensors: dict[str, Any] = {}
        for name, logits in self.logits.items():
            state = self._optimizer.state.get(logits, {})
            tensors[f"x.{name}"] = logits.detach().cpu().numpy()
            for short, long in (("m", "exp_avg"), ("v", "exp_avg_sq")):
                if long in state:
                    tensors[f"{short}.{name}"] = state[long].cpu().numpy()
        # one file: a log that is of another step than the logits cannot come about
        metadata = {"key": self.key, "step": str(self.step), "log": json.dumps(self.log)}
        write_tensors(folder / STATE, tensors, metadata)

    def resume(self, folder: Path) -> bool:
        """Go on from what `folder` holds; False when it holds nothing.

        Raises `UserError` with `somf_other_run` when that was learned from other things.
        """
        path = folder / STATE
        if not path.exists():
            return False
        try:
            with safe_open(path, "pt") as file:
                said = file.metadata() or {}
                if said.get("key") != self.key:
                    raise _other_run(folder)
                self.step = int(said["step"])
                self.log = json.loads(said["log"])
                for name, logits in self.logits.items():
                    with torch.no_grad():
                        logits.copy_(file.get_tensor(f"x.{name}"))
                    if self.step:
                        self._optimizer.state[logits] = {
                            "step": torch.tensor(float(self.step)),
                            "exp_avg": file.get_tensor(f"m.{name}").to(logits.device),
                            "exp_avg_sq": file.get_tensor(f"v.{name}").to(logits.device),
                        }
        except (SafetensorError, OSError, KeyError, ValueError, RuntimeError) as error:
            raise UserError(
                "somf_other_run",
                f"What {folder.name} holds cannot be gone on with.",
                f"It is damaged: {error}.",
                "Allow overwriting to begin anew.",
                details=str(folder),
            ) from error
        return True


def _other_run(folder: Path) -> UserError:
    return UserError(
        "somf_other_run",
        f"{folder.name} holds a run that learned from other things.",
        "Its lineup, pairs or settings were not these, so it cannot be gone on with.",
        "Use the settings it began with, or allow overwriting to begin anew.",
        details=str(folder),
    )


def _not_kept(folder: Path, error: OSError) -> UserError:
    return UserError(
        "cannot_write",
        "The learning could not be kept.",
        f"The system says: {error.strerror or os.strerror(error.errno or 0)}.",
        f"Make room at {folder.parent}, and resume.",
        details=str(folder),
    )
