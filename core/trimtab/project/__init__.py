"""The open document: a recipe, the lineup it names, and reversible edits."""

from trimtab.project.document import Project
from trimtab.project.edits import Edit

__all__ = ["Edit", "Project"]
