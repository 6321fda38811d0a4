"""The ways to build a mask, as data: what each does, needs and takes, and the job that does it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from trimtab.masks.entries import MaskEntry, Rule
from trimtab.realign.antidote_count import usual_modules
from trimtab.realign.somf_options import RATES, SomfOptions
from trimtab_gui.mask_building import somf_entry

Values = Mapping[str, Any]
Sets = Literal["pairs", "examples"]


@dataclass(frozen=True)
class Field:
    """One parameter: a choice (`choices` from key to text), a share, a number, or a prompt set.

    `sets` says which kind of prompts; `demo` are those that the demo has, the usual one first.
    `wide` fields have a line of their own.
    """

    key: str
    title: str
    tip: str
    default: Any = None
    choices: Mapping[str, str] | None = None
    low: float = 0.0
    high: float = 1.0
    decimals: int = 2
    sets: Sets | None = None
    demo: tuple[str, ...] = ()

    @property
    def wide(self) -> bool:
        """Whether it has a line of its own: what is chosen by words has."""
        return self.sets is not None or self.choices is not None or isinstance(self.default, str)


@dataclass(frozen=True)
class Request:
    """The job a builder asks for, and what goes onto the stack for its report, if anything does."""

    job: str
    params: dict[str, Any]
    entry: Callable[[Mapping[str, Any]], MaskEntry | None]
    rescale: bool = False


@dataclass(frozen=True)
class Builder:
    """A way to build a mask, as its card and form show it.

    `touches` are the tensors that it looks at; with `reverts` it needs the model before
    fine-tuning to be the aligned one.
    """

    id: str
    icon: str
    title: str
    sentence: str
    formula: str
    reference: str
    needs: str
    repeats: str
    touches: str
    fields: tuple[Field, ...]
    button: str = "Build"
    reverts: bool = False


def _share(key: str, title: str, default: float, tip: str, decimals: int = 2) -> Field:
    return Field(key, title, tip, default, low=0.0, high=1.0, decimals=decimals)


_SEED = Field("seed", "seed", "What chance is drawn by.", 0, low=0, high=2**31 - 1, decimals=0)
_SAME = "the same every time"
_CHANGED = "every tensor that fine-tuning changed"
_LINEARS = "the Linears of the blocks"
_NAMED = "the tensors named"
#: the layers of a rule go up to here, where no model says how many there are
LAST_LAYER = 999

BUILDERS: tuple[Builder, ...] = (
    Builder(
        "somf", "brain", "SOMF", "learned on preference pairs",
        "m = σ((x + log u − log(1 − u)) / 0.5), DPO on θ_aligned + m ⊙ τ / mean(m)",
        "Yi et al. 2024, arXiv 2405.09055",
        "preference pairs: a safe answer and an unsafe one; gradients",
        "for a seed, on the CPU",
        _CHANGED,
        (
            Field("granularity", "granularity", "Which entries share one logit; per parameter is "
                  "the paper's and takes 16 bytes an entry.", "row",
                  {"row": "per row", "head": "per head", "parameter": "per parameter",
                   "module": "per module"}),
            Field("pairs", "pairs", "A JSONL, CSV or Parquet file with prompt, chosen and "
                  "rejected, or PKU-SafeRLHF's.", sets="pairs", demo=("demo",)),
            Field("reference", "reference", "The model that DPO compares with: the frozen aligned "
                  "one (paper), or the fine-tuned ones under random masks (authors' code).",
                  "aligned", {"aligned": "aligned model", "authors": "authors' code"}),
            Field("beta", "β", "How far DPO may move from its reference.", 0.1,
                  low=0.001, high=10, decimals=3),
            Field("rate", "rate", "How far a logit moves in a step, at most. The authors' English "
                  f"runs use {RATES['english']:g}: with few steps nothing is learned.", 0.05,
                  low=1e-5, high=1, decimals=4),
            Field("steps", "steps", "How often the logits move.", 150, low=1, high=100_000,
                  decimals=0),
            Field("batch", "batch", "Pairs in a step.", 16, low=1, high=512, decimals=0),
            _SEED,
        ),
        "Learn",
        reverts=True,
    ),
    Builder(
        "antidote", "needle", "Antidote", "Wanda on harmful text",
        "h = |τ_ij| · ‖x_j‖ on harmful text; the top α of each row go",
        "Huang et al. 2024, arXiv 2408.09600",
        "harmful prompts with harmful answers; forward passes",
        _SAME,
        _LINEARS,
        (
            Field("variant", "what goes", "Ours takes the change back to the aligned model and "
                  "leaves a mask. The authors zero the adapter's two factors, or of a whole "
                  "model its q, k and v: that leaves a pruned copy in the model's place.",
                  "delta-revert",
                  {"delta-revert": "change, reverted (ours)",
                   "lora-space": "LoRA factors, zeroed",
                   "weight-zeroing": "weights, zeroed"}),
            Field("calibration", "harmful text", "Preference pairs, of which the rejected answers "
                  "are taken, or prompts with answers.", sets="pairs", demo=("demo",)),
            Field("norm", "input strength ‖x_j‖", "How it is taken over the tokens.",
                  "authors' code",
                  {"authors' code": "authors' code, all tokens",
                   "paper": "paper, by sequence",
                   "ours": "ours, answers alone"}),
            Field("alpha", "α of each row", "Share of each row that is pruned; what is kept is "
                  "rounded down, so at least one entry of a row goes, however small α is. The "
                  "authors use 0.01 to 0.2.", 0.1, low=0.0001, high=1.0, decimals=4),
        ),
    ),
    Builder(
        "difference", "set-left", "Safety minus utility", "SNIP set difference",
        "top q of |W · ∂L/∂W| on safety prompts, without top p on useful ones, go back",
        "Wei et al. 2024, arXiv 2402.05162, section 3.2",
        "safe answers and useful ones; gradients, one block at a time",
        _SAME,
        _LINEARS,
        (
            _share("safety", "q, safety", 0.5, "The share of each tensor that matters most for "
                   "safety."),
            _share("utility", "p, utility", 0.5, "But not the share that matters most for use."),
            Field("score", "score", "SNIP takes gradients, Wanda forward passes.", "snip",
                  {"snip": "SNIP", "wanda": "Wanda"}),
            Field("safe", "safety set", "Prompts with the safe answers.", sets="examples",
                  demo=("demo-refused",)),
            Field("useful", "utility set", "Useful prompts with their answers.", sets="examples",
                  demo=("demo-benign",)),
        ),
        reverts=True,
    ),
    Builder(
        "magnitude", "sort-descending", "Magnitude", "top share of |τ|",
        "keep the entries whose |τ| is among the largest", "the baseline of all pruning",
        "no data", _SAME, _CHANGED,
        (
            _share("keep", "keep", 0.2, "The share of entries that is kept."),
            Field("extent", "share of", "Of what the share is taken.", "tensor",
                  {"row": "each row", "tensor": "each tensor", "model": "the model"}),
        ),
    ),
    Builder(
        "random", "dice-5-outline", "Random", "chance, for comparison",
        "m ~ Bernoulli(keep), Philox4x32-10 of seed, tensor and place", "Yu et al. 2024 (DARE)",
        "no data", "for a seed, on every machine", _CHANGED,
        (_share("keep", "keep", 0.9, "The probability of an entry to be kept."), _SEED),
        "Add",
    ),
    Builder(
        "rule", "filter-variant", "Rule", "layers, modules, names",
        "whole tensors for which all that is said holds", "",
        "no data", _SAME, _NAMED,
        (
            Field("away", "these are", "What becomes of the tensors named.", "remove",
                  {"remove": "removed", "keep": "kept, the others not"}),
            Field("layers", "layers", "Of which layers.", "range",
                  {"range": "a range of them", "all": "all, and what is outside them"}),
            Field("first", "first layer", "Where the range begins.", 0, low=0, high=LAST_LAYER,
                  decimals=0),
            Field("last", "last layer", "Where it ends; that layer belongs to it.", 0, low=0,
                  high=LAST_LAYER, decimals=0),
            Field("modules", "modules", "Names as in the heatmap, separated by commas, such as "
                  "q, down; empty for all.", ""),
            Field("tensors", "name", "A tensor's name, in which * is anything, such as "
                  "*.self_attn.*; empty for all.", ""),
        ),
        "Add",
    ),
    Builder(
        "paint", "brush", "Paint", "on the heatmap",
        "whole cells, whatever the masks before them say", "", "no data", _SAME, _NAMED, (),
    ),
)  # fmt: skip
BY_ID = {builder.id: builder for builder in BUILDERS}


def mode_of(builder: str, values: Values) -> str:
    """Return whose method it is: the paper's, the authors' code's, or ours; empty for nobody's."""
    if builder == "somf":
        options = SomfOptions(granularity=values["granularity"], reference=values["reference"])
        return options.mode("single")
    if builder == "antidote":
        if values["variant"] == "delta-revert":
            return "ours: reverts the change"
        return str(values["norm"])
    if builder in ("random", "rule", "paint"):
        return ""
    return "ours: recovers from aligned" if builder == "difference" else "ours"


def request(
    builder: str, values: Values, recipe: Mapping[str, Any], model: str, active: int, output: str
) -> Request:
    """Return the job that builds a mask for one fine-tuned model of a recipe, as JSON."""
    common = {"recipe": recipe, "output": output}
    if builder == "somf":
        # the others take no part, and its own ratio is λ
        alone = [
            {**m, "ratio": float(i == active), "layers": {}, "modules": {}, "masks": []}
            for i, m in enumerate(recipe["finetuned"])
        ]
        names = ("granularity", "pairs", "reference", "beta", "rate", "steps", "batch", "seed")
        params = {
            **common, "recipe": {**recipe, "finetuned": alone},
            # a curve has no more points than can be told apart, and its file stays small
            "log_every": max(1, int(values["steps"]) // 500),
            **{name: values[name] for name in names},
        }  # fmt: skip
        return Request(
            "somf", params, somf_entry, rescale=values["granularity"] != "module"
        )  # fmt: skip
    if builder == "antidote":
        params = {**common, **antidote_params(values, model)}
        name = f"Antidote, α {100 * values['alpha']:g} %"
        masks = values["variant"] == "delta-revert"
        return Request(
            "antidote", params, lambda r: _entry(r["files"]["output"], name) if masks else None
        )
    if builder == "difference":
        options = {key: values[key] for key in ("safety", "utility", "score")}
        params = {
            **common, "method": "set-difference", "model": model, "safety": values["safe"],
            "utility": [values["useful"]], "options": options,
        }  # fmt: skip
        name = f"Safety − utility, {'SNIP' if values['score'] == 'snip' else 'Wanda'}"
        return Request("realign", params, lambda r: _entry(output, name))
    assert builder == "magnitude"
    of = {"score": "magnitude", "keep": values["keep"], "extent": values["extent"]}
    name = f"Largest {100 * values['keep']:g} % of |τ|"
    params = {**common, "model": model, "of": of, "by_tensor": False}
    return Request("mask_build", params, lambda r: _entry(r["path"], name))


def antidote_params(values: Values, model: str) -> dict[str, Any]:
    """Return what Antidote's pruning and its estimate both take, but for recipe and output."""
    return {
        "model": model, "alpha": values["alpha"], "calibration": values["calibration"],
        "norm": values["norm"], "variant": values["variant"],
        "modules": usual_modules(values["variant"]),
    }  # fmt: skip


def rule_entry(values: Values) -> MaskEntry:
    """Return the entry of a stack that a rule makes."""
    first, last = sorted((values["first"], values["last"]))
    modules = tuple(name.strip() for name in values["modules"].split(",") if name.strip())
    tensors = values["tensors"].strip()
    ranged = values["layers"] == "range"
    where = f"layers {first}–{last}" if first < last else f"layer {first}"
    named = ", ".join([*modules, *([tensors] if tensors else [])])
    parts = (named, where if ranged else "")
    what = " in ".join(part for part in parts if part) or "everything"
    remove = values["away"] == "remove"
    rule = Rule(layers=(first, last) if ranged else None, modules=modules, tensors=tensors)
    name = f"{'Without' if remove else 'Only'} {what}"
    return MaskEntry(rule=rule, op="minus" if remove else "and", name=name)


def _entry(path: str, name: str) -> MaskEntry:
    return MaskEntry(path=path, name=name)
