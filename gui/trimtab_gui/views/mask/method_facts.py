"""What a card tells of a way to build a mask: data, determinism, reach, and what it takes away."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trimtab.realign.antidote_count import Counted
from trimtab_gui import texts
from trimtab_gui.views.mask.builders import BY_ID, Values, mode_of

#: a name, and what is to be said
Facts = list[tuple[str, str]]
#: what Antidote's variants look at
_TOUCHES = {
    "lora-space": "the adapter's factors A and B, each by itself",
    "weight-zeroing": "q, k and v of every block",
}


def method_facts(
    builder: str,
    values: Values,
    report: Mapping[str, Any] | None,
    estimate: Mapping[str, Any] | None,
    counted: Counted | None,
) -> Facts:
    """Return the facts of a builder that is set so.

    `report` is that of the mask it built last, `estimate` what Antidote would take as it is set,
    `counted` how many entries that would be, which headers tell.
    """
    way = BY_ID[builder]
    touches = _TOUCHES.get(values.get("variant", ""), way.touches)
    facts = [("whose", mode_of(builder, values)), ("needs", way.needs), ("touches", touches),
             ("repeats", way.repeats)]  # fmt: skip
    if builder == "antidote":
        facts += _antidote(estimate, counted)
    elif builder == "random":
        gone = texts.percent(1 - values["keep"])
        facts += [("takes", f"{gone} of entries and of τ's energy, as expected of chance"),
                  ("control", "it is one")]  # fmt: skip
    elif builder == "somf" and report is not None:
        facts += _somf(report)
    elif report is not None:
        facts += _built(report)
    else:
        later = "told when it is built" if builder not in ("rule", "paint") else "told above"
        facts += [("takes", later), ("control", "one click, above")]
    return [(name, said) for name, said in facts if said]


def _antidote(estimate: Mapping[str, Any] | None, counted: Counted | None) -> Facts:
    facts: Facts = []
    if counted is not None:
        share = counted.pruned / max(counted.entries, 1)
        text = f"{counted.pruned:,} of {counted.entries:,} entries, {texts.percent(share, 2)}"
        if counted.floored:
            text += (
                f"; more than α in {counted.floored:,} of {counted.matrices:,} matrices: what is "
                "kept of a row is rounded down"
            )
        facts.append(("takes", text))
    if estimate is not None:
        total = estimate["total"]
        control = total["control"]
        facts += [
            ("energy", f"{texts.percent(total['energy'])} of what is looked at; "
                       f"{texts.percent(total['output_energy'])} of its outputs, diagonal"),
            ("control", f"the same energy at random is {texts.percent(control['sparsity'])} of "
                        f"entries and {texts.percent(control['output_energy'])} of outputs"),
        ]  # fmt: skip
    return facts


def _somf(report: Mapping[str, Any]) -> Facts:
    energies = next(iter(report["energy"].values()))
    removed, control = (texts.percent(energies[key]) for key in ("removed", "control_removed"))
    return [
        ("takes", f"{removed} of τ's energy, before it is divided by the mask's mean"),
        ("control", f"the same values dealt out anew take {control}"),
    ]


def _built(report: Mapping[str, Any]) -> Facts:
    account = report.get("account") or next(iter(report["accounts"].values()))
    total = account["total"]
    return [
        ("takes", f"{int(total['entries_removed']):,} of {int(total['entries']):,} entries, "
                  f"{texts.percent(total['share_of_entries'])}; "
                  f"{texts.percent(total['share_of_tau'] or 0.0)} of τ's energy"),
        ("control", f"chance that takes as many entries of each tensor: "
                    f"{texts.percent(total['share_of_tau_by_chance'] or 0.0)} of τ's energy"),
    ]  # fmt: skip
