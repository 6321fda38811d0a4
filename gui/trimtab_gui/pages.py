"""The screens behind the places, each made when it is first gone to."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from PySide6.QtCore import QCoreApplication, QObject, Signal
from PySide6.QtWidgets import QSplitter, QStackedWidget

from trimtab_gui.desk import Desk
from trimtab_gui.merging import Merging
from trimtab_gui.places import Place

if TYPE_CHECKING:
    from trimtab_gui.evaluating import Evaluating
    from trimtab_gui.sweeping import Sweeping
    from trimtab_gui.views.evaluate.place import EvaluatePlace
    from trimtab_gui.views.mask.place import MaskPlace
    from trimtab_gui.views.workbench import Workbench


class Pages(QObject):
    """Makes the screens; `asked` carries the id of an action that a screen wants done, `changed`
    says that other actions than before can be done.

    What a screen is made of is imported with it: the welcome page need not wait for plots.
    """

    asked = Signal(str)
    add_requested = Signal()
    plot_not_saved = Signal(str)
    changed = Signal()

    def __init__(self, desk: Desk, merging: Merging, stack: QStackedWidget) -> None:
        super().__init__(stack)
        self._desk, self._merging, self._stack = desk, merging, stack
        self._workbench: Workbench | None = None
        self._evaluating: Evaluating | None = None
        self._sweeping: Sweeping | None = None
        self._evaluate: EvaluatePlace | None = None
        self._mask: MaskPlace | None = None

    def places(self) -> list[Place]:
        """Return the places in the order of the switch; a new one is one entry here."""
        tr = QCoreApplication.translate
        return [
            Place("inspect", tr("Pages", "Inspect"), "grid", "Ctrl+1", lambda: self.workbench,
                  lambda: self.workbench.show_place("inspect")),
            Place("mask", tr("Pages", "Mask"), "brush", "Ctrl+2", lambda: self.mask,
                  lambda: self.mask.entered()),
            Place("merge", tr("Pages", "Merge"), "source-merge", "Ctrl+3", lambda: self.workbench,
                  lambda: self.workbench.show_place("merge")),
            Place("evaluate", tr("Pages", "Evaluate"), "shield-check-outline", "Ctrl+4",
                  lambda: self.evaluate),
        ]  # fmt: skip

    @property
    def workbench(self) -> Workbench:
        """The screen that Inspect and Merge share."""
        if self._workbench is None:
            from trimtab_gui.views.workbench import Workbench

            made = self._workbench = Workbench(self._desk, self._merging)
            made.add_requested.connect(self.add_requested)
            made.output.merge_requested.connect(lambda: self.asked.emit("merge"))
            made.output.plan_requested.connect(lambda: self.asked.emit("plan"))
            made.heatmap.mask_requested.connect(self._mask_by)
            for card in (made.heatmap, *made.over_layers.cards.values()):
                card.save_failed.connect(self.plot_not_saved)
            self._restore("columns", made.columns)
            for place in made.row_sizes():
                rows = self._kept(f"rows {place}", made.centre)
                if rows:
                    made.set_row_sizes(place, rows)
            self._stack.addWidget(made)
        return self._workbench

    @property
    def mask(self) -> MaskPlace:
        """The screen of Mask; stack and preview are those of the workbench."""
        if self._mask is None:
            from trimtab_gui.mask_building import MaskBuilding
            from trimtab_gui.views.mask.place import MaskPlace

            bench = self.workbench
            building = MaskBuilding(self._desk, self)
            made = self._mask = MaskPlace(self._desk, bench.masking, building, bench.pages.live)
            made.merge_requested.connect(lambda: self.asked.emit("place-merge"))
            for card in made.plot_cards:
                card.save_failed.connect(self.plot_not_saved)
            self._restore("columns mask", made.columns)
            self._restore("rows mask", made.rows)
            self._stack.addWidget(made)
        return self._mask

    def _mask_by(self, builder: str, prompts: str) -> None:
        """Go where masks are built, to a builder, with the file of prompts that scores are of."""
        from trimtab_gui.views.mask.prompt_set import PromptSet

        self.asked.emit("place-mask")
        self.mask.choose(builder)
        controls = self.mask.builder.forms[builder].controls.values()
        sets = [control for control in controls if isinstance(control, PromptSet)]
        if prompts and sets:
            sets[0].choose(Path(prompts))

    @property
    def evaluating_so_far(self) -> Evaluating | None:
        """The same where it was needed already: who only asks need not wait for it."""
        return self._evaluating

    @property
    def evaluating(self) -> Evaluating:
        """What the Evaluate place asks, and what came out."""
        if self._evaluating is None:
            from trimtab_gui.evaluating import Evaluating

            self._evaluating = Evaluating(self._desk, self)
            # what is read and what comes out decide what can be done
            self._evaluating.changed.connect(self.changed)
            self._evaluating.results_changed.connect(self.changed)
        return self._evaluating

    @property
    def sweeping(self) -> Sweeping:
        """The sweep that the Evaluate place watches."""
        if self._sweeping is None:
            from trimtab_gui.sweeping import Sweeping

            self._sweeping = Sweeping(self._desk, self.evaluating, self)
        return self._sweeping

    @property
    def evaluate(self) -> EvaluatePlace:
        """The screen of Evaluate."""
        if self._evaluate is None:
            from trimtab_gui.views.evaluate.place import EvaluatePlace

            made = self._evaluate = EvaluatePlace(self._desk, self.evaluating, self.sweeping)
            made.run_requested.connect(lambda: self.asked.emit("evaluate"))
            made.stop_requested.connect(self.evaluating.stop)
            made.provenance_requested.connect(lambda: self.asked.emit("provenance"))
            for card in made.cards:
                card.save_failed.connect(self.plot_not_saved)
            self._restore("columns evaluate", made.columns)
            self._restore("rows evaluate", made.rows)
            self._stack.addWidget(made)
        return self._evaluate

    # The end.

    def close(self) -> None:
        """Keep how the screens are divided, and let nothing outlive the window."""
        if self._sweeping is not None:
            self._sweeping.stop()
        keep = self._desk.session.set
        if self._workbench is not None:
            keep("columns", self._workbench.columns.sizes())
            for place, sizes in self._workbench.row_sizes().items():
                keep(f"rows {place}", sizes)
        if self._evaluate is not None:
            keep("columns evaluate", self._evaluate.columns.sizes())
            keep("rows evaluate", self._evaluate.rows.sizes())
        if self._mask is not None:
            keep("columns mask", self._mask.columns.sizes())
            keep("rows mask", self._mask.rows.sizes())

    def _restore(self, key: str, divided: QSplitter) -> None:
        sizes = self._kept(key, divided)
        if sizes:
            divided.setSizes(sizes)

    def _kept(self, key: str, divided: QSplitter) -> list[int]:
        """Return the sizes that a session kept, none where they do not fit."""
        kept = self._desk.session.get(key)
        if not isinstance(kept, list) or len(kept) != divided.count():
            return []
        return [int(size) for size in kept]
