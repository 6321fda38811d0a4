"""The Mask place: builders at the left, what is kept in the middle, the stack and its effect."""

from __future__ import annotations

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import QHBoxLayout, QWidget

from trimtab_gui import theme
from trimtab_gui.desk import Desk
from trimtab_gui.mask_building import MaskBuilding
from trimtab_gui.masking import Masking
from trimtab_gui.plots import PlotCard
from trimtab_gui.preview import LivePreview
from trimtab_gui.views.columns import column, scrolled, splitter, three_columns
from trimtab_gui.views.mask.answers_panel import MaskAnswersPanel
from trimtab_gui.views.mask.builder_panel import BuilderPanel
from trimtab_gui.views.mask.builders import BUILDERS
from trimtab_gui.views.mask.inside_card import InsideCard
from trimtab_gui.views.mask.kept_card import KeptCard
from trimtab_gui.views.mask.method_card import MethodCard
from trimtab_gui.views.mask.scores_card import ScoresCard
from trimtab_gui.views.mask.scoring import Scoring
from trimtab_gui.views.mask.takes_panel import TakesPanel
from trimtab_gui.views.mask_stack import MaskStackPanel
from trimtab_gui.widgets import Panel, label, primary_button
from trimtab_gui.widgets.builder_card import BuilderCard

LEFT, RIGHT = 264, 322
_BETWEEN = 6


class MaskPlace(QWidget):
    """``merge_requested`` goes on to Merge with the stack as it is."""

    merge_requested = Signal()

    def __init__(
        self, desk: Desk, masking: Masking, building: MaskBuilding, live: LivePreview
    ) -> None:
        super().__init__()
        self._desk, self._masking, self._building = desk, masking, building
        self.builders = Panel(self.tr("Build a mask"))
        self.builders.body.setSpacing(_BETWEEN)
        self.cards: dict[str, BuilderCard] = {}
        for builder in BUILDERS:
            card = BuilderCard(builder.icon, builder.title, builder.sentence)
            card.clicked.connect(lambda _=False, key=builder.id: self.choose(key))
            self.builders.body.addWidget(card)
            self.cards[builder.id] = card
        self.builder = BuilderPanel(desk, building)
        self.scoring = Scoring(desk, masking, building, self)
        self.kept = KeptCard(desk, masking)
        self.scores = ScoresCard(desk, masking, building, self.scoring)
        self.inside = InsideCard(desk, masking)
        self.stack = MaskStackPanel(desk, masking, always=True)
        self.takes = TakesPanel(desk, masking)
        self.answers = MaskAnswersPanel(masking, live)
        self.method = MethodCard(desk, building, self.builder, self.scoring)
        self.builder.brush_chosen.connect(self.kept.view.set_brush)
        self.builder.region_painted.connect(self.kept.paint_region)
        left = column(self.builders, self.builder, grows=1)
        upper = column(
            self.stack, self.takes, self.answers, self.method, QWidget(), grows=4
        )  # fmt: skip
        right = column(scrolled(upper, RIGHT), self._use_panel(), grows=0)
        right.setMinimumWidth(RIGHT)
        self.lower_row = splitter(Qt.Orientation.Horizontal, self.scores, self.inside)
        self.lower_row.setSizes([450, 450])
        self.rows = splitter(Qt.Orientation.Vertical, self.kept, self.lower_row)
        self.rows.setStretchFactor(0, 11)
        self.rows.setStretchFactor(1, 9)
        self.rows.setSizes([470, 360])
        self.columns = three_columns(scrolled(left, 250), self.rows, right, LEFT, 900, RIGHT)
        outer = QHBoxLayout(self)
        outer.setContentsMargins(14, 0, 14, 0)
        outer.setSpacing(theme.GAP)
        outer.addWidget(self.columns)
        masking.changed.connect(self._refresh)
        desk.active_changed.connect(lambda _: self._refresh())
        for signal in (self.builder.set_up, desk.lineup_changed, desk.active_changed):
            signal.connect(lambda *_: self._score())
        self.choose("somf")
        self._refresh()

    def _use_panel(self) -> Panel:
        panel = Panel()
        self.says = label("", "caption", "muted")
        self.says.setWordWrap(True)
        self.use = primary_button(self.tr("Use this mask in Merge"), "source-merge")
        self.use.clicked.connect(self.merge_requested)
        panel.body.addWidget(self.says)
        panel.body.addWidget(self.use)
        return panel

    def choose(self, builder: str) -> None:
        """Show a builder's form and the scores it goes by."""
        self.cards[builder].setChecked(True)
        self.builder.choose(builder)

    def _score(self) -> None:
        form = self.builder.form
        self.scoring.choose(self.builder.chosen, form.values, form.lacking)

    @property
    def plot_cards(self) -> tuple[PlotCard, ...]:
        """The cards that hold plots."""
        return self.kept, self.scores, self.inside

    def entered(self) -> None:
        """Begin to ask what masks keep, and look whether their files are still the same."""
        self._masking.watch()
        self._masking.refresh()

    def _refresh(self) -> None:
        masking, active = self._masking, self._desk.active
        on = sum(entry.on for entry in masking.stack)
        self.use.setEnabled(on > 0)
        if on and active >= 0:
            text = self.tr("%n mask(s) on {model}", "", on).replace("(s)", "s" * (on != 1))
            self.says.setText(text.format(model=self._desk.name(active)))
        else:
            self.says.setText(self.tr("Build a mask, paint one, or add a file."))
