"""The demo lineup as a project."""

from __future__ import annotations

from trimtab.demo.recipe import demo_recipe
from trimtab.project import Project


def demo_project() -> Project:
    """Return the project that the demo opens: the poisoned task, and a second one to mix in."""
    return Project(demo_recipe())
