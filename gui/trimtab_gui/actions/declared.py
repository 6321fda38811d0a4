"""Every action of the window, declared once."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from trimtab_gui import theme
from trimtab_gui.actions.action import Action

if TYPE_CHECKING:
    from trimtab_gui.main_window import MainWindow


def declare(window: MainWindow) -> list[Action]:
    """Return the actions of a window, in the order of its menu."""
    desk, merging, history = window.desk, window.merging, window.desk.history
    documents = window.documents
    tr = window.tr

    def nothing_open() -> str | None:
        return tr("Nothing is open.") if desk.empty else None

    def nothing_drawn() -> str | None:
        return tr("Nothing is inspected yet.") if desk.figures is None else None

    def nothing_selected() -> str | None:
        return None if desk.selection.current else tr("Nothing is selected.")

    def nothing_evaluated() -> str | None:
        evaluating = window.screens.evaluating_so_far
        known = evaluating is not None and evaluating.facts is not None
        return None if known else tr("Nothing is evaluated yet.")

    def undo_title() -> str:
        text = history.undoText()
        return tr("Undo {what}").format(what=text) if text else tr("Undo")

    def redo_title() -> str:
        text = history.redoText()
        return tr("Redo {what}").format(what=text) if text else tr("Redo")

    def nothing_to_undo() -> str | None:
        return None if history.canUndo() else tr("There is nothing to undo.")

    def nothing_to_redo() -> str | None:
        return None if history.canRedo() else tr("There is nothing to redo.")

    def theme_in_force(mode: theme.Mode) -> str | None:
        return tr("It is in force already.") if theme.mode() == mode else None

    def select_by_rule() -> None:
        window.places.go("inspect")
        window.workbench.selection.open_rule()

    def show_over_layers(key: str) -> None:
        window.places.go("inspect")
        window.workbench.over_layers.choose(key)

    file, edit, go, view, work, helps = (
        tr("File"), tr("Edit"), tr("Go"), tr("View"), tr("Merge"), tr("Help"),
    )  # fmt: skip
    places = [
        Action(f"place-{place.key}", tr("Go to {place}").format(place=place.title),
               partial(window.places.go, place.key), go, place.shortcut, place.icon, nothing_open)
        for place in window.places
    ]  # fmt: skip
    return [
        Action("open", tr("Open…"), documents.choose_files, file, "Ctrl+O", "folder-open-outline"),
        Action("open-folder", tr("Open folder…"), documents.choose_model_folder, file,
               "Ctrl+Shift+O", "folder-outline"),
        Action("demo", tr("Try the demo"), documents.open_demo, file, "", "play"),
        Action("save", tr("Save project"), documents.save, file, "Ctrl+S", "content-save-outline",
               nothing_open),
        Action("save-as", tr("Save project as…"), documents.save_as, file, "Ctrl+Shift+S", "",
               nothing_open),
        Action("export-mergekit", tr("Export mergekit YAML…"), documents.export_mergekit, file, "",
               "", nothing_open),
        Action("close-project", tr("Close project"), documents.close_project, file, "Ctrl+W", "",
               nothing_open),
        Action("export-heatmap", tr("Save heatmap…"), window.export_heatmap, file, "", "",
               nothing_drawn),
        Action("export-profile", tr("Save profile…"), window.export_profile, file, "", "",
               nothing_drawn),
        Action("undo", undo_title, history.undo, edit, "Ctrl+Z", "undo", nothing_to_undo),
        Action("redo", redo_title, history.redo, edit, "Ctrl+Shift+Z", "redo", nothing_to_redo),
        Action("clear-selection", tr("Clear selection"), window.clear_selection, edit, "Esc", "",
               nothing_selected, local=True),
        Action("select-rule", tr("Select by a rule…"), select_by_rule, edit, "Ctrl+L", "",
               nothing_drawn),
        Action("method", tr("Choose a method…"), window.choose_method, work, "Ctrl+M", "",
               nothing_open),
        Action("mask", tr("Add a mask file…"), window.add_mask, work, "Ctrl+Shift+M", "",
               nothing_open),
        Action("merge", tr("Merge and save"), merging.start, work, "Ctrl+Return", "source-merge",
               merging.obstacle),
        Action("plan", tr("Plan…"), window.planning.show, work, "Ctrl+P", "",
               window.planning.obstacle),
        Action("output-folder", tr("Choose the output folder…"), window.choose_output, work, "",
               "", nothing_open),
        Action("copy-command", tr("Copy as command"), documents.copy_command, work,
               "Ctrl+Shift+C", "console", nothing_open),
        Action("evaluate", tr("Evaluate"), window.start_evaluation, work, "Ctrl+E",
               "shield-check-outline", window.evaluate_obstacle),
        Action("provenance", tr("Provenance and limits…"), window.show_provenance, work, "",
               "", nothing_evaluated),
        Action("decisions", tr("Decisions…"), window.show_decisions, work, "", "", nothing_open),
        Action("show-profile", tr("Profile over the layers"), partial(show_over_layers, "profile"),
               view, "", "", nothing_drawn),
        Action("show-layers", tr("Safety layers"), partial(show_over_layers, "layers"), view, "",
               "", nothing_drawn),
        Action("show-overlap", tr("Overlap of τ and a"), partial(show_over_layers, "overlap"),
               view, "", "", nothing_drawn),
        Action("fit", tr("Fit plots"), window.fit, view, "Ctrl+0", "", nothing_drawn),
        Action("theme", tr("Light or dark"), window.toggle_theme, view, "Ctrl+T",
               "theme-light-dark"),
        Action("theme-dark", tr("Dark theme"), lambda: window.set_theme("dark"), view,
               enabled=lambda: theme_in_force("dark")),
        Action("theme-light", tr("Light theme"), lambda: window.set_theme("light"), view,
               enabled=lambda: theme_in_force("light")),
        Action("theme-system", tr("Theme of the system"), lambda: window.set_theme("system"), view,
               enabled=lambda: theme_in_force("system")),
        *places,
        Action("palette", tr("Command palette"), window.show_palette, helps, "Ctrl+Shift+P",
               "magnify"),
        Action("shortcuts", tr("Keyboard shortcuts"), window.show_shortcuts, helps, "F1",
               "keyboard-outline"),
        Action("doctor", tr("Doctor"), window.show_doctor, helps, "", "stethoscope"),
        Action("about", tr("About Trimtab"), window.show_about, helps, "", "information-outline"),
        Action("quit", tr("Quit"), window.close_window, file, "Ctrl+Q"),
    ]  # fmt: skip
