"""Searches ratios, curves, parameters, methods and masks for merges that no other one beats.

A sweep lives in a folder:

    spec.json       what was asked: recipe, space, suite and its digest, the split, seed, versions
    study.sqlite3   every trial, by Optuna: what a sweep that was killed goes on from
    sweep.json      where it stands, for whoever watches; replaced whole, several times a second
    trials.csv      every trial, a row each
    front-001.trim  recipes of the front, best first objective first; `trimtab merge` takes them
    held-out.json   the answers on the prompts kept aside, as `trimtab evaluate -o` writes them

`sweep.json` is one object. Rates are shares (0 to 1); numbers that are not known are null:

    {"trimtab_sweep": 1,
     "status": "baselines" | "searching" | "held-out" | "done" | "stopped" | "failed",
     "error": null | {"code", "what", "why", "fix", "details"},         of status "failed"
     "folder": "/path", "started": "2026-01-31T12:00:00+00:00", "seconds": 12.3,
     "sampler": "nsga2", "seed": 0, "measure": "probes" | "answers",
     "trials_done": 17, "trials_failed": 0, "trials_wanted": 60 | null, "minutes_wanted": null,
     "objectives": [{"id": "refusal", "title": "Refusal of harmful", "better": "higher" | "lower"}],
     "constraints": [{"id": "perplexity", "relation": "<=", "limit": 12.3, "sentence": "..."}],
     "suite": {"name", "digest", "judge", "search": {"harmful": 165, ...}, "held_out": {...}},
     "dimensions": [{"name": "task-poisoned · layers 0", "low": 0.0, "high": 1.0,
                     "choices": null}],
     "trials": [POINT, ...], "front": [NUMBER, ...], "baselines": [POINT, ...],
     "best_linear": "linear 0.6" | null, "hypervolume": [[trials, volume], ...] of two objectives,
     "held_out": null | HELD_OUT}

A POINT was measured on the search prompts, the held-out ones were not asked:

    {"number": 3 | -1 for baselines,
     "name": "trial 3" | "aligned" | "task-poisoned" | "linear 0.6",
     "state": "done" | "failed" | "running", "why": "", "seconds": 0.3,
     "params": {dimension: value}, "values": {objective: number}, "measured": {id: number or null},
     "feasible": true, "violations": {constraint: amount above its limit},
     "recipe": "YAML" (of front and baselines; else absent),
     "file": "front-001.trim" (of the front; else absent)}

HELD_OUT holds what real answers and the judge say on prompts that the search never saw:

    {"judge": "...", "looks": 1, "path": "/path/held-out.json", "compared_with": "linear 0.6",
     "level": 0.05,
     "points": [{"name": "front-001", "trial": 3 | null, "file": "front-001.trim" | null,
                 "values": {objective: {"value", "low", "high", "n", "k"}},
                 "against_linear": null | {objective: {"difference", "low", "high", "p_value",
                                                       "p_holm", "better", "worse", "n"}},
                 "dominates": true | false | null, "coherent": true, "sentence": "..."}]}

`looks` counts how often the held-out set was looked at: from the second time on, whoever goes on
searching has seen it, even where the search has not.
"""
