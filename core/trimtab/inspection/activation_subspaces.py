"""How far safe and useful activations share their directions, beside chance: results as numbers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trimtab.activations.second_moments import Moments, summed
from trimtab.errors import UserError
from trimtab.inspection.result import Floats
from trimtab.subspaces.directions import EXACT, directions
from trimtab.subspaces.matrices import Held
from trimtab.subspaces.overlap import by_chance, captured, overlap_sum, principal_angles

#: groups that each of the two sets is dealt into, so that prompts can be dealt out anew
GROUPS = 3
#: how often output coordinates are dealt out anew
DEALS = 20
# more directions than an eighth of the outputs would hold a good part of anything
_LARGEST_SHARE = 8


@dataclass(frozen=True)
class Change:
    """What one vector of changes (τ of a fine-tuned model, or a) has in the two subspaces.

    `whole` is ‖τ‖², `safe` and `useful` the part of it in each subspace; `expected_*` what a
    random subspace of that size holds.
    """

    whole: float
    safe: float
    useful: float
    expected_safe: float
    expected_useful: float


@dataclass(frozen=True)
class MatrixOverlap:
    """Safe and useful subspace of one weight's outputs, with `safe_k` and `useful_k` directions.

    - `overlap` ‖U_sᵀU_u‖²_F, `most` the least of the two sizes; the MSO is their ratio
    - `expected` the overlap of random subspaces, `dealt` that with the output coordinates of U_s
      dealt out anew, `relabelled` that of prompts dealt out anew among the two sets
    - `angles` the principal angles in degrees, ascending
    - energies, Σ|y|² over tokens: of the safe set `safe_energy`, in its own subspace
      `safe_in_safe`, in the other `safe_in_useful`, kept by ActSVD's (I − Π_u)Π_s `safe_only`;
      of the useful set the first two likewise
    """

    name: str
    outputs: int
    safe_k: int
    useful_k: int
    overlap: float
    most: int
    expected: float
    dealt: tuple[float, ...]
    relabelled: tuple[float, ...]
    angles: tuple[float, ...]
    safe_energy: float
    safe_in_safe: float
    safe_in_useful: float
    safe_only: float
    useful_energy: float
    useful_in_useful: float
    useful_in_safe: float
    changes: dict[str, Change]


def relabellings() -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Return every way to deal 2·`GROUPS` groups out into two equal halves, the true one first.

    Groups 0 to `GROUPS` − 1 are the safe set's. Which half is called safe makes no difference to
    an overlap, so each way is there once.
    """
    every = range(2 * GROUPS)
    found = [half for half in combinations(every, GROUPS) if 0 in half]
    return [(half, tuple(g for g in every if g not in half)) for half in found]


def compare(
    name: str,
    groups: Sequence[Moments],
    changes: dict[str, npt.NDArray[np.float32]],
    *,
    rank: int,
    centre: bool,
    seed: int,
) -> MatrixOverlap:
    """Compare the two subspaces of one weight's outputs.

    `groups` are the moments of the safe set's `GROUPS` groups and the useful set's; `changes` the
    vectors of changes [out, in]. Subspaces have `rank` directions, at most an eighth of the
    outputs. Same seed, same bits.
    """
    d = groups[0].outputs
    if d <= EXACT:
        groups = [part.of_outputs() for part in groups]
    k = max(1, min(rank, d // _LARGEST_SHARE))

    def subspace(half: tuple[int, ...]) -> Floats:
        return directions(summed([groups[g] for g in half]), k, centre=centre, seed=seed)

    true, *others = relabellings()
    safe, useful = (summed([groups[g] for g in part]) for part in true)
    u, h = (subspace(half) for half in true)
    own, other = safe.inside(u, centre=centre), useful.inside(h, centre=centre)
    rest = u - h @ (h.T @ u)
    return MatrixOverlap(
        name=name,
        outputs=d,
        safe_k=u.shape[1],
        useful_k=h.shape[1],
        overlap=overlap_sum(u, h),
        most=min(u.shape[1], h.shape[1]),
        expected=u.shape[1] * h.shape[1] / d,
        dealt=tuple(overlap_sum(b, h) for b in by_chance(u, DEALS, seed, "permutation")),
        relabelled=tuple(overlap_sum(subspace(a), subspace(b)) for a, b in others),
        angles=tuple(np.degrees(principal_angles(u, h)).tolist()),
        safe_energy=safe.energy(centre=centre),
        safe_in_safe=float(np.trace(own)),
        safe_in_useful=float(np.trace(safe.inside(h, centre=centre))),
        safe_only=float(((rest @ own) * rest).sum()),
        useful_energy=useful.energy(centre=centre),
        useful_in_useful=float(np.trace(other)),
        useful_in_safe=float(np.trace(useful.inside(u, centre=centre))),
        changes={key: _change(tau, u, h) for key, tau in changes.items()},
    )


def _change(tau: npt.NDArray[np.float32], u: Floats, h: Floats) -> Change:
    whole = float(np.square(tau, dtype=np.float64).sum())
    d, held = len(tau), Held(tau)
    return Change(
        whole, captured(u, held), captured(h, held),
        whole * u.shape[1] / d, whole * h.shape[1] / d,
    )  # fmt: skip


@dataclass(frozen=True)
class RefusalLayer:
    """The difference of means behind one block in one model, at the last token of the prompt.

    `norm` is |r|, r = mean(harmful) − mean(benign); `chance` the 95th percentile of that with the
    prompts dealt out anew; `relative` |r| over the mean length of a state; `cosine` that with the
    reference's r there, `turn` that with r behind the block before (nan for the first). A random
    direction gives a cosine of 0 ± `spread`.
    """

    model: str
    block: int
    norm: float
    chance: float
    relative: float
    cosine: float
    turn: float
    spread: float


_DRAWS = 1000


def refusal_layers(
    states: dict[str, npt.NDArray[np.float32]], harmful: int, reference: str, seed: int
) -> list[RefusalLayer]:
    """Return the refusal directions of models: `states` [blocks, examples, hidden] by their names.

    The first `harmful` examples are harmful, the others benign (Arditi et al. 2024, equation 1,
    at one position).
    """
    draw = np.random.Generator(np.random.Philox(np.random.SeedSequence(seed)))
    n = next(iter(states.values())).shape[1]
    signs = np.full(n, -1.0 / (n - harmful))
    signs[:harmful] = 1.0 / harmful
    dealt = np.stack([draw.permutation(signs) for _ in range(_DRAWS)])
    means = {m: np.einsum("e,beh->bh", signs, s.astype(np.float64)) for m, s in states.items()}
    found = []
    for model, of in states.items():
        for block in range(len(of)):
            here = of[block].astype(np.float64)
            r = means[model][block]
            chance = np.linalg.norm(dealt @ here, axis=1)
            found.append(
                RefusalLayer(
                    model, block, float(np.linalg.norm(r)), float(np.quantile(chance, 0.95)),
                    float(np.linalg.norm(r) / np.linalg.norm(here, axis=1).mean()),
                    _cosine(r, means[reference][block]),
                    _cosine(r, means[model][block - 1]) if block else float("nan"),
                    float(1.0 / np.sqrt(len(r))),
                )
            )  # fmt: skip
    return found


def _cosine(a: Floats, b: Floats) -> float:
    length = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / length if length else float("nan")


@dataclass(frozen=True)
class ActivationSubspaces:
    """All that was found of one model's activations; `about` is the provenance, ready for JSON."""

    about: dict[str, Any]
    matrices: tuple[MatrixOverlap, ...]
    refusal: tuple[RefusalLayer, ...]

    def to_json(self) -> dict[str, Any]:
        """Return all of it ready for JSON; what is no number is None."""
        found: dict[str, Any] = _plain(asdict(self))
        return found

    @classmethod
    def load(cls, path: Path) -> ActivationSubspaces:
        """Read what was saved. Raises `UserError` with `damaged`."""
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            return cls(
                dict(data["about"]),
                tuple(_matrix(row) for row in data["matrices"]),
                tuple(_refusal(row) for row in data["refusal"]),
            )
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise UserError(
                "damaged",
                "What was found of the activations cannot be read.",
                f"{path.name} is missing or not what was written.",
                "Measure again.",
                details=str(error),
            ) from error


def _matrix(row: dict[str, Any]) -> MatrixOverlap:
    given = {f.name: row[f.name] for f in fields(MatrixOverlap)}
    for key in ("dealt", "relabelled", "angles"):
        given[key] = tuple(given[key])
    given["changes"] = {key: Change(**value) for key, value in given["changes"].items()}
    return MatrixOverlap(**given)


def _refusal(row: dict[str, Any]) -> RefusalLayer:
    given: dict[str, Any] = {k: float("nan") if v is None else v for k, v in row.items()}
    return RefusalLayer(**given)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
