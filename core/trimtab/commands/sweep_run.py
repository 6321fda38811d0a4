"""What `trimtab sweep` does with its arguments: searches, and prints what holds."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from trimtab.commands.realigning import recipe_of
from trimtab.commands.running import run_job
from trimtab.console import number, table
from trimtab.search.objectives import NUMBERS
from trimtab.search.space import open_space, parse_varies

_TRIALS = 100
#: what goes into the job as it is, where it is given
_PLAIN = (
    "sampler", "measure", "suite", "format", "judge", "held_out", "limit", "steps", "population",
    "seed", "minutes", "linear_steps",
)  # fmt: skip
_DECODING = ("max_new_tokens", "batch_size", "system", "template")
_FRONT_SHOWN = 12


def run(arguments: argparse.Namespace) -> int:
    """Carry the command out."""
    params: dict[str, Any] = {
        "output": str(arguments.output.absolute()),
        **{name: getattr(arguments, name)
           for name in ("workers", "points", "device", "resume", "overwrite")},
        **{name: value for name in _PLAIN if (value := getattr(arguments, name)) is not None},
    }  # fmt: skip
    trials = arguments.trials
    if trials is None and arguments.minutes is None:
        trials = _TRIALS
    params["trials"] = trials
    if arguments.recipe is not None:
        params["recipe"] = recipe_of(str(arguments.recipe)).model_dump()
    if arguments.space is not None:
        params["space"] = open_space(arguments.space).model_dump()
    elif arguments.vary:
        params["space"] = parse_varies(arguments.vary).model_dump()
    if arguments.objectives is not None:
        params["objectives"] = [o.strip() for o in arguments.objectives.split(",") if o.strip()]
    if arguments.constraint:
        params["constraints"] = arguments.constraint
    decoding = {n: v for n in _DECODING if (v := getattr(arguments, n)) is not None}
    if decoding:
        params["decoding"] = decoding
    path = Path(run_job("sweep", params)["path"])
    text = path.read_text(encoding="utf-8")
    if arguments.json:
        sys.stdout.write(text + "\n")
    else:
        print(report_text(json.loads(text)))
    return 0


def report_text(found: dict[str, Any]) -> str:
    """Return what a sweep has found, as the command prints it."""
    parts = [_head(found), _searched(found)]
    if found["held_out"] is not None:
        parts.append(_held_out(found["held_out"]))
    else:
        parts.append("The held-out prompts were not looked at.")
    parts.append(f"Recipes, trials and answers: {found['folder']}")
    return "\n\n".join(parts)


def _head(found: dict[str, Any]) -> str:
    suite = found["suite"]

    def counted(part: str) -> str:
        return ", ".join(f"{n} {kind}" for kind, n in suite[part].items())

    how = {"probes": "one look at each prompt", "answers": f"answers, judged by {suite['judge']}"}
    failed = f", {found['trials_failed']} failed" if found["trials_failed"] else ""
    bounds = [f"{c['id']} {c['relation']} {c['limit']:.3g} ({c['sentence']})"
              for c in found["constraints"]]  # fmt: skip
    return "\n".join(
        [
            f"{found['trials_done']} trials{failed} by {found['sampler']}, seed {found['seed']}, "
            f"{found['seconds'] / 60:.1f} minutes; {len(found['dimensions'])} dimensions",
            f"Suite {suite['name']} ({suite['digest'][:12]})",
            f"  searched on  {counted('search')}: {how[found['measure']]}",
            f"  held out     {counted('held_out')}",
            *([f"Bounds: {'; '.join(bounds)}"] if bounds else []),
        ]
    )


def _searched(found: dict[str, Any]) -> str:
    names = list(dict.fromkeys([*(o["id"] for o in found["objectives"]), "over_refusal"]))
    head = ["on the search prompts", *(NUMBERS[name].title.lower() for name in names)]
    front = [p for p in found["trials"] if "file" in p]
    shown = sorted(front, key=lambda p: str(p["file"]))[:_FRONT_SHOWN]
    rows = []
    for point in [*found["baselines"], *shown]:
        label = f"{point['file'][:-5]} ({point['name']})" if "file" in point else point["name"]
        mark = " *" if point["name"] == found["best_linear"] else ""
        rows.append([label + mark, *(_value(name, point["measured"].get(name)) for name in names)])
    notes = []
    if found["best_linear"]:
        notes.append(f"* the best one ratio for all: {found['best_linear']}")
    if len(front) > len(shown):
        notes.append(f"and {len(front) - len(shown)} more points of the front")
    return "\n".join([table(head, rows), *notes])


def _value(name: str, value: float | None) -> str:
    if value is None:
        return "no data"
    return number(100 * value, 1) if NUMBERS[name].paired else number(value, 3)


def _held_out(look: dict[str, Any]) -> str:
    names = list(look["points"][0]["values"])
    head = ["held out, percent [95 % Wilson]", *(NUMBERS[name].title.lower() for name in names)]
    rows = []
    for point in look["points"]:
        mark = " *" if point["name"] == look["compared_with"] else ""
        cells = [_estimate(name, point["values"][name]) for name in names]
        rows.append([point["name"] + mark, *cells])
    lines = [table(head, rows)]
    if look["compared_with"]:
        lines += ["", f"Against {look['compared_with']}, prompt by prompt (McNemar, exact; Holm)"]
    for point in look["points"]:
        if point["against_linear"] is None:
            continue
        lines.append(f"  {point['name']}: {point['sentence']}")
        lines += [
            f"    {_difference(name, entry)}" for name, entry in point["against_linear"].items()
        ]
    lines.append("")
    if look["looks"] > 1:
        lines.append(
            f"This is look {look['looks']} at the held-out prompts: if the search went on because "
            "of one before, they are no longer unseen."
        )
    winners = [point["name"] for point in look["points"] if point["dominates"]]
    if look["compared_with"]:
        lines.append(
            f"Dominating {look['compared_with']} on prompts never searched: "
            f"{', '.join(winners) or 'none'}."
        )
    return "\n".join(lines).rstrip()


def _estimate(name: str, entry: dict[str, Any]) -> str:
    if entry["value"] is None:
        return "no data"
    if entry["low"] is None:
        return _value(name, entry["value"])
    return f"{100 * entry['value']:.1f} [{100 * entry['low']:.0f}, {100 * entry['high']:.0f}]"


def _difference(name: str, entry: dict[str, Any]) -> str:
    title = NUMBERS[name].title.lower()
    if entry["difference"] is None:
        return f"{title}: no data"
    if entry["p_value"] is None:
        return f"{title}: {number(entry['difference'], 3)}, not tested"
    interval = ""
    if entry["low"] is not None and entry["low"] < entry["high"]:
        interval = f" [{number(100 * entry['low'], 1)}, {number(100 * entry['high'], 1)}]"
    return (
        f"{title}: {number(100 * entry['difference'], 1)}{interval} points; better on "
        f"{entry['better']}, worse on {entry['worse']} of {entry['n']} prompts; "
        f"p = {entry['p_value']:.2g}, Holm {entry['p_holm']:.2g}"
    ).replace("e-", "e−")
