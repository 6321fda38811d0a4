"""What can be done in the window: one declaration feeds menu, shortcut, palette and help."""

from trimtab_gui.actions.action import Action, Actions

__all__ = ["Action", "Actions"]
