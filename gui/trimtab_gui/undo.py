"""Makes every edit of the project a step that can be taken back."""

from __future__ import annotations

from itertools import count

from PySide6.QtGui import QUndoCommand, QUndoStack

from trimtab.project import Edit, Project

_MERGEABLE = 1
_NEVER_MERGED = -1
_gestures = count(1)


def gesture(name: str) -> str:
    """Return a key for one drag: edits that carry it become a single step."""
    return f"{name}#{next(_gestures)}"


class EditCommand(QUndoCommand):
    """An edit on the undo stack; edits of one gesture merge into one step."""

    def __init__(self, project: Project, edit: Edit) -> None:
        super().__init__(edit.label)
        self._project = project
        self.edit = edit

    def redo(self) -> None:
        """Carry the edit out."""
        self._project.apply(self.edit)

    def undo(self) -> None:
        """Take the edit back."""
        self._project.revert(self.edit)

    def id(self) -> int:
        """Return the number that Qt compares before it offers a merge."""
        return _MERGEABLE if self.edit.key else _NEVER_MERGED

    def mergeWith(self, other: QUndoCommand) -> bool:
        """Join with the next edit of the same gesture."""
        if not isinstance(other, EditCommand):
            return False
        joined = self.edit.merged_with(other.edit)
        if joined is None:
            return False
        self.edit = joined
        # a drag that came back to where it began was no step
        self.setObsolete(joined.before == joined.after)
        return True


class History(QUndoStack):
    """The undo stack of one project."""

    def do(self, project: Project, edit: Edit) -> None:
        """Carry `edit` out and remember it; an edit that changes nothing leaves no step."""
        if edit.before != edit.after:
            self.push(EditCommand(project, edit))
