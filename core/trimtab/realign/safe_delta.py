"""Safe Delta: as much of what was fine-tuned as a budget of safety allows, and compensation."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from trimtab.checkpoints.reader import TensorReader
from trimtab.control import Control
from trimtab.realign.data_methods import SafeDeltaOptions
from trimtab.realign.restored_model import Wide, restore_linears, second_moments
from trimtab.realign.work import Work

Bools = npt.NDArray[np.bool_]
#: what the authors' code was made for: Llama 2 7B, in blocks of so many columns
WIDTH = 4096
BLOCK = 2048
DAMPING = 0.01
#: columns that the authors' code changes together, without compensation among them
_TOGETHER = 4


def inverse_factor(moments: Wide, sequences: int) -> Wide:
    """Return upper U with UᵀU = H⁻¹, H = 2 Σ x xᵀ / n + 0.01 · mean(diag) · I; float64 [in, in].

    An input that is never used counts with 1, as in the authors' code.
    """
    h = 2 / sequences * moments
    diagonal = np.einsum("ii->i", h)
    diagonal[diagonal == 0] = 1
    diagonal += DAMPING * diagonal.mean()
    inverse = np.linalg.inv(h)
    lower: Wide = np.linalg.cholesky((inverse + inverse.T) / 2).astype(np.float64)
    return lower.T


def accepted(change: Wide, d: Wide, options: SafeDeltaOptions) -> Bools:
    """Return which entries of a block's change are taken, bool [out, columns].

    An entry costs Δ² / d². Entries are visited by 1 / d², the least first, in an order that is
    stable (theirs is not), but never the last `spared`; they are taken as long as the sum of all
    costs so far is within the budget: mean(1/d²) · s/2 · out/4096 in the authors' code, whose 2 is
    4096 columns in blocks of 2048, or (ours) s times the cost of the whole block.
    """
    weight = np.broadcast_to(1 / d**2, change.shape).reshape(-1)
    cost = change.reshape(-1) ** 2 * weight
    order = np.argsort(weight, kind="stable")
    order = order[: weight.size - int(options.spared * weight.size)]
    if options.budget == "code":
        budget = float(weight.mean()) * options.s / (WIDTH / BLOCK) * change.shape[0] / WIDTH
    else:
        budget = options.s * float(cost.sum())
    found = np.zeros(weight.size, dtype=np.bool_)
    found[order] = np.cumsum(cost[order]) <= budget
    return found.reshape(change.shape)


def restored(aligned: Wide, own: Wide, upper: Wide, options: SafeDeltaOptions) -> Wide:
    """Return the aligned weight with the accepted entries of the fine-tuned one, float64 [out, in].

    What an accepted entry moves the outputs by on the safety set is compensated in the columns
    behind it, as in optimal brain surgery: w_k −= (w_j − q_j) / d_j · U_jk (Frantar and Alistarh
    2023). With the authors' budget four columns at a time, as their code; with ours, each.
    """
    weight = aligned.copy()
    d = np.diag(upper)
    together = _TOGETHER if options.budget == "code" else 1
    for low in range(0, weight.shape[1], BLOCK):
        high = min(low + BLOCK, weight.shape[1])
        taken = accepted(own[:, low:high] - weight[:, low:high], d[low:high], options)
        for first in range(low, high, together):
            last = min(first + together, high)
            now = weight[:, first:last]
            wanted = np.where(taken[:, first - low : last - low], own[:, first:last], now)
            error = (now - wanted) / d[first:last]
            weight[:, first:last] = wanted
            weight[:, last:] -= error @ upper[first:last, last:]
    return weight


def safe_delta(work: Work, options: SafeDeltaOptions, control: Control) -> dict[str, Any]:
    """Write the aligned model with what was fine-tuned of its Linears, as far as safety allows.

    Lu et al. 2025, arXiv 2505.12038. H is of the aligned model's inputs over all tokens of the
    safety set, no block seeing what was changed before it. Embeddings, norms and biases stay
    aligned.
    """
    examples = len(work.safety.examples)
    with TensorReader() as reader, second_moments(work, work.safety, "all", control) as safety:

        def restore(name: str, aligned: Wide, own: Wide) -> Wide:
            upper = inverse_factor(safety.read(reader, name), examples)
            return restored(aligned, own, upper, options)

        mode = "authors' code" if options.budget == "code" else "ours"
        return restore_linears(
            work, restore, safety, reader, control, rest="aligned",
            report={"mode": mode, "method": "safe-delta", "options": options.model_dump()},
        )  # fmt: skip
