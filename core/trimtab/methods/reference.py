"""Writes docs/methods.md from the registry: `python -m trimtab.methods.reference`."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from itertools import combinations
from typing import Any

from trimtab.kernels.piece import Outline
from trimtab.methods.registry import MergeMethod, Parameter, methods

#: where a method's result is not what mergekit 0.1.5 makes of the same settings
DIFFERENCES: Mapping[str, str] = {
    "arcee_fusion": "Importance is computed in float64, there in `dtype`. In tensors of more "
    "than a million entries mergekit's quartiles come from a random sample, here from all "
    "entries.",
    "breadcrumbs": "`density` is 0.9 by default, 1 there. Older releases of mergekit drop a "
    "tensor's whole change where ⌊γ · n⌋ is 0; here as in 0.1.5 nothing counts as an outlier "
    "then.",
    "dare_linear": "`density` is 0.5 by default, 1 there. The paper's 1/p makes up for what is "
    "dropped; mergekit multiplies by the ratio of the sums of magnitudes, here `rescale: l1`.",
    "della": "`density` is 0.5 by default, 1 there. Each kept entry is divided by its own "
    "chance, as in the paper; mergekit multiplies by the ratio of the sums of magnitudes, here "
    "`rescale: l1`. Ranks are along the last axis, there along the second of however many. "
    "density ± ε may be 0 or 1, which mergekit refuses.",
    "karcher": "The reference is not in the mean; in mergekit a base_model is. mergekit leaves "
    "out models that are shorter than `tol`, here only those that are zero.",
    "linear": "The reference takes part with the share `reference_ratio`; in mergekit it does "
    "when it is one of the `models`.",
    "model_stock": "Cosines are exact however small the changes; mergekit divides by at least "
    "1e-6 and takes small changes to disagree, so that less of them is kept.",
    "multislerp": "Directions that cancel out leave the weighted sum; with more than two models "
    "mergekit stops there. `origin` says what mergekit tells from whether there is a base_model.",
    "nearswap": "mergekit has no default for `t`.",
    "nuslerp": "`origin` says what mergekit tells from whether there is a base_model.",
    "sce": "Where the mean squares of the changes add up to less than 1e-6, as they do in most "
    "fine-tuned models, mergekit gives all models the same share; here the shares are computed.",
    "slerp": "mergekit has no default for `t`.",
    "ties": "`density` is 0.2 by default, as in the paper, and 1 there.",
}
_LIKE = {
    "breadcrumbs_ties": "breadcrumbs",
    "dare_ties": "dare_linear",
    "della_linear": "della",
}
#: f(method, its parameters' values) -> something to say of it
Fact = Callable[[MergeMethod, Mapping[str, Any]], str]
_NOT_THERE = (
    "alignment_subspace", "iso_c", "iso_cts", "lox", "mergealign", "resta", "safe_lora",
    "safe_lora_projector", "safemerge", "safety_arithmetic", "tsv_merge",
)  # fmt: skip

_INTRODUCTION = """\
# Merge methods

Made from the code by `python -m trimtab.methods.reference > docs/methods.md`; change the methods,
not this page. What the words of a recipe mean is in [recipes.md](recipes.md), how to add a method
of your own in [example-method](example-method/README.md).

θ_ref is the reference: the aligned model, or the base where there is none. θᵢ is a fine-tuned
model, τᵢ = θᵢ − θ_ref its task vector, rᵢ or wᵢ its ratio, n the number of entries of a tensor.
Each tensor is merged by itself.

## What all methods have in common

- Arithmetic is float32, inner products and sums over a tensor are float64, and the result is
  rounded once to the output's precision. mergekit computes in `dtype`, which most published
  recipes set to bfloat16: there most methods round after every step.
- Pieces of a tensor are worked on in any order; their size and the number of threads change no
  bit of the result.
- Entries of equal magnitude are told apart by their place in the tensor, so that exactly as many
  stay as were asked for. mergekit leaves the choice among equals to the sort it uses.
- A random mask depends on the recipe's `seed`, the tensor's name and the model's name alone
  (Philox4x32-10, Salmon et al. 2011, doi 10.1145/2063384.2063405). mergekit's masks come from
  torch's generator and are other ones.
- Methods that start from the reference copy a tensor as it is where no model has changed it or
  all ratios are zero.

"Reads" is how often a tensor is read at most, in every model: once to merge it, and before that
once for each thing that must be measured over all of it. The last column is what must be in
memory at once.
"""


def page() -> str:
    """Return docs/methods.md: every method that Trimtab brings itself, by name."""
    built_in = [m for m in methods() if m.origin.startswith(f"{__package__}.")]
    return "\n".join([_INTRODUCTION, *_overview(built_in), *(section(m) for m in built_in)])


def difference(name: str) -> str:
    """Return in what a method's result differs from mergekit's; empty where in nothing."""
    return DIFFERENCES.get(_LIKE.get(name, name), "")


def _overview(listed: list[MergeMethod]) -> Iterator[str]:
    yield "| Method | Models | Ratios | Reads | Works on |"
    yield "| --- | --- | --- | --- | --- |"
    for m in listed:
        yield (
            f"| [`{m.name}`](#{m.name}) {m.title} | {_models(m)} | {'yes' if m.weighted else 'no'} "
            f"| {_varied(m, _reads)} | {_varied(m, _works_on, 2)} |"
        )
    yield ""


def section(method: MergeMethod) -> str:
    """Return one method's part of the page, in Markdown."""
    text = inspect.getdoc(method.combine) or ""
    detail = " ".join("\n".join(text.split("\n")[1:]).split())
    lines = [
        f"## {method.name}", "", f"**{method.title}.** {method.sentence}", "",
        f"    {method.formula}", "",
    ]  # fmt: skip
    if detail:
        lines += [detail, ""]
    lines += [f"Reference: {method.reference}.", ""]
    if method.name in _NOT_THERE:
        lines += ["mergekit does not have it.", ""]
    elif said := difference(method.name):
        lines += [f"Compared with mergekit: {said}", ""]
    facts = [
        f"Takes {_models(method)} besides the reference",
        "their ratios count" if method.weighted else "ratios do not count",
        f"reads: {_varied(method, _reads)}",
        f"works on {_varied(method, _works_on, 2)}",
    ]
    if method.needs_base:
        facts.append("needs the base model beside the aligned one")
    if method.last:
        facts.append(f"the last model is {method.last}")
    lines += [f"{'; '.join(facts)}.{_DRAWS if method.random else ''}", ""]
    if method.parameters:
        lines += ["| Parameter | Meaning | Range | Default |", "| --- | --- | --- | --- |"]
        lines += [_row(parameter) for parameter in method.parameters]
        lines += [""]
    return "\n".join(lines)


_DRAWS = " Draws random masks: `seed` counts."


def _row(parameter: Parameter) -> str:
    meaning = f"{parameter.title}: {parameter.sentence}"
    if parameter.choices:
        meaning += " " + "; ".join(f"`{k}`: {v}" for k, v in parameter.choices.items()) + "."
    taken = parameter.range_text + (", of each model" if parameter.per_model else "")
    return f"| `{parameter.name}` | {meaning} | {taken} | {_said(parameter.default)} |"


def _said(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:g}" if isinstance(value, int | float) else str(value)


def _models(method: MergeMethod) -> str:
    least, most = method.takes
    if least == most:
        return f"exactly {least}"
    return f"{least} or more" if most is None else f"{least} to {most}"


def _reads(method: MergeMethod, values: Mapping[str, Any]) -> str:
    count = max(method.takes[0], 2 if method.takes[1] is None else 1)
    given = {
        p.name: (values[p.name],) * count if p.per_model else values[p.name]
        for p in method.parameters
    }
    return str(1 + len(method.passes(Outline((64, 64), 4096, (1.0,) * count), **given)))


def _works_on(method: MergeMethod, values: Mapping[str, Any]) -> str:
    words = {"element": "pieces of any size", "row": "whole rows", "tensor": "whole tensors"}
    return words[method.scope(**values)]


def _varied(method: MergeMethod, fact: Fact, together: int = 1) -> str:
    """Return a fact at the defaults, and where other values change it, up to `together` at once."""
    defaults = {p.name: p.default for p in method.parameters}
    usual = fact(method, defaults)
    others: dict[str, list[str]] = {}
    choices = [(p.name, *found) for p in method.parameters for found in _alternatives(p)]
    for size in range(1, together + 1):
        for chosen in combinations(choices, size):
            found = fact(method, defaults | {name: value for name, value, _ in chosen})
            if found != usual and not (size > 1 and found in others):
                others.setdefault(found, []).append(" and ".join(label for *_, label in chosen))
    notes = [f"{found} with {' or '.join(labels)}" for found, labels in others.items()]
    return f"{usual} ({'; '.join(notes)})" if notes else usual


def _alternatives(parameter: Parameter) -> list[tuple[Any, str]]:
    name, default = parameter.name, parameter.default
    if parameter.kind == "switch":
        return [(not default, f"`{name}: {_said(not default)}`")]
    if parameter.kind == "choice":
        return [(key, f"`{name}: {key}`") for key in parameter.choices if key != default]
    if default != parameter.maximum:
        return [(parameter.maximum, f"`{name}: {parameter.maximum:g}`")]
    middle = (parameter.minimum + parameter.maximum) / 2
    return [(middle, f"`{name}` below {parameter.maximum:g}")]


if __name__ == "__main__":
    sys.stdout.buffer.write(page().encode())
