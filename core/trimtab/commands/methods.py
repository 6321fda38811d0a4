"""`trimtab methods`: lists the merge methods, or explains one."""

from __future__ import annotations

import argparse
import sys

from trimtab.commands.running import print_json, run_job


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("name", nargs="?", metavar="METHOD", help="explain this one")


def run(arguments: argparse.Namespace) -> int:
    """Carry the command out."""
    from trimtab.methods import get_method

    found = run_job("methods", {})
    for problem in found["problems"]:
        print(f"trimtab: a package's methods could not be loaded: {problem}", file=sys.stderr)
    methods = found["methods"]
    if arguments.name is not None:
        get_method(arguments.name)  # says which there are when there is no such one
        methods = [m for m in methods if m["name"] == arguments.name]
    if arguments.json:
        print_json(methods)
        return 0
    if arguments.name is None:
        width = max(len(m["name"]) for m in methods)
        for m in methods:
            print(f"{m['name']:<{width}}  {m['sentence']}")
        return 0
    method = methods[0]
    print(f"{method['title']}: {method['sentence']}\n\n  {method['formula']}\n")
    print(f"{method['reference']}\n")
    for p in method["parameters"]:
        each = ", one for each model" if p["per_model"] else ""
        default = str(p["default"]).lower() if isinstance(p["default"], bool) else p["default"]
        print(f"  {p['name']} = {default}  ({p['range']}{each})")
        print(f"      {p['title']}. {p['sentence']}")
    return 0
