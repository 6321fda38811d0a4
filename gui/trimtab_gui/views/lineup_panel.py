"""The models of the lineup as cards, with the verdict on whether they fit together."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Literal

from PySide6.QtCore import QPoint, QUrl, Signal
from PySide6.QtGui import QDesktopServices
from PySide6.QtWidgets import QMenu, QVBoxLayout

from trimtab.checkpoints import Lineup, Member, Role
from trimtab.merging.recipe import ModelRef
from trimtab.project.edits import remove_finetuned, set_adapter_base, set_reference_model
from trimtab_gui import texts, theme
from trimtab_gui.desk import Desk
from trimtab_gui.opening import move_model
from trimtab_gui.views.findings import FindingsPopup
from trimtab_gui.widgets import ModelCard, Panel, quiet_button
from trimtab_gui.widgets.buttons import link_button


def member_texts(member: Member, lineup: Lineup) -> tuple[str, str]:
    """Return size and facts of a model for its card."""
    checkpoint = member.checkpoint
    size = texts.size(checkpoint.n_bytes)
    if checkpoint.kind == "adapter":
        targets = checkpoint.config.get("target_modules")
        named = sorted(targets) if isinstance(targets, list) else []
        short = ",".join(str(t).removesuffix("_proj") for t in named[:6])
        share = checkpoint.n_parameters / max(lineup.reference.checkpoint.n_parameters, 1)
        parts = [f"LoRA r={checkpoint.config.get('r', '?')}", short, texts.percent(share)]
        return size, " · ".join(part for part in parts if part)
    files = len(checkpoint.files)
    shards = f"{files} shard" if files == 1 else f"{files} shards"
    return size, " · ".join((texts.count(checkpoint.n_parameters), checkpoint.dtype_label, shards))


class LineupPanel(Panel):
    """One card a model; the card of the active fine-tuned model is marked."""

    add_requested = Signal()

    def __init__(self, desk: Desk) -> None:
        super().__init__("Lineup")
        self.set_title(self.tr("Lineup"))
        self._desk = desk
        self.cards: list[ModelCard] = []
        self._indices: list[int] = []
        self._add_button = quiet_button("plus", self.tr("Add models"))
        self._add_button.clicked.connect(self.add_requested)
        self.header_layout.addWidget(self._add_button)
        self._holder = QVBoxLayout()
        self._holder.setSpacing(8)
        self.body.addLayout(self._holder)
        self.verdict = link_button("")
        self.verdict.setFont(theme.font("caption"))
        self._tone = "muted"
        theme.manager().changed.connect(self._colour_verdict)
        self.verdict.clicked.connect(self.show_findings)
        self.body.addWidget(self.verdict)
        self.body.addStretch(1)
        self._popup: FindingsPopup | None = None
        desk.lineup_changed.connect(self.rebuild)
        desk.active_changed.connect(self._mark)
        self.rebuild()

    def rebuild(self) -> None:
        """Make the cards anew."""
        for card in self.cards:
            self._holder.removeWidget(card)
            card.hide()
            card.deleteLater()
        self.cards, self._indices = [], []
        recipe = self._desk.recipe
        if recipe.base is not None:
            self._add("base", 0, recipe.base)
        if recipe.aligned is not None:
            self._add("aligned", 0, recipe.aligned)
        for index, model in enumerate(recipe.finetuned):
            self._add("finetuned", index, model)
        for before, after in pairwise([self._add_button, *self.cards, self.verdict]):
            self.setTabOrder(before, after)
        self._mark()
        self._show_verdict()

    def _member(self, role: Role, index: int) -> Member | None:
        lineup = self._desk.lineup
        if lineup is None:
            return None
        return lineup.finetuned[index] if role == "finetuned" else getattr(lineup, role)

    def _add(self, role: Role, index: int, model: ModelRef) -> None:
        member = self._member(role, index)
        name = model.name or Path(model.path).name
        size, facts = "", self.tr("opening …")
        if member is not None and self._desk.lineup is not None:
            size, facts = member_texts(member, self._desk.lineup)
        elif self._desk.lineup_error is not None:
            facts = texts.home_path(Path(model.path).parent)
        card = ModelCard(role, name, size, facts, index)
        card.menu_requested.connect(lambda at, r=role, i=index: self._menu(at, r, i))
        if role == "finetuned":
            card.clicked.connect(lambda _checked=False, i=index: self._desk.set_active(i))
        self.cards.append(card)
        self._indices.append(index if role == "finetuned" else -1)
        self._holder.addWidget(card)

    def _mark(self) -> None:
        several = len(self._desk.recipe.finetuned) > 1
        for card, index in zip(self.cards, self._indices, strict=True):
            card.set_active(several and index >= 0 and index == self._desk.active)

    def _show_verdict(self) -> None:
        desk, lineup = self._desk, self._desk.lineup
        tone = "muted"
        if desk.lineup_error is not None:
            text, tone = desk.lineup_error.what, "finetuned"
        elif lineup is None:
            text = self.tr("opening …")
        elif lineup.errors:
            text, tone = f"✕ {lineup.verdict}", "danger"
        elif any(f.level == "warning" for f in lineup.findings):
            text, tone = f"! {lineup.verdict}", "finetuned"
        elif not lineup.finetuned:
            text = lineup.verdict
        else:
            text, tone = f"✓ {lineup.verdict}", "aligned"
        self.verdict.setText(text)
        self.verdict.setAccessibleName(text)
        listed = lineup is not None and bool(lineup.findings)
        self.verdict.setEnabled(listed)
        self.verdict.setToolTip(self.tr("What was found, and what will be done") if listed else "")
        self._tone = tone
        self._colour_verdict()

    def _colour_verdict(self) -> None:
        tone = self._tone
        colour = theme.text_color(tone) if tone in theme.ROLES else theme.color(tone)
        self.verdict.setStyleSheet(
            f"QPushButton {{ color: {colour.name()}; text-align: left; padding: 2px 0; "
            "background: transparent; border: none; }"
            "QPushButton:focus, QPushButton:hover { text-decoration: underline; }"
        )

    def show_findings(self) -> FindingsPopup | None:
        """List each mismatch with what will be done about it."""
        lineup = self._desk.lineup
        if lineup is None or not lineup.findings:
            return None
        if self._popup is not None:
            self._popup.deleteLater()
        self._popup = FindingsPopup(lineup.findings, self)
        self._popup.move(self.verdict.mapToGlobal(QPoint(0, self.verdict.height() + 4)))
        self._popup.show()
        return self._popup

    def menu_for(self, role: Role, index: int) -> QMenu:
        """Return the menu of a card."""
        desk = self._desk
        menu = QMenu(self)
        member = self._member(role, index)
        adapter = member is not None and member.checkpoint.kind == "adapter"
        parts: list[tuple[Role, str]] = [
            ("base", self.tr("Make it the base model")),
            ("aligned", self.tr("Make it the aligned model")),
            ("finetuned", self.tr("Make it a fine-tuned model")),
        ]
        for to, title in parts:
            if to != role and not adapter:
                menu.addAction(title, partial(self._move, role, index, to))
        owners: list[tuple[Literal["aligned", "base"], str]] = [
            ("aligned", self.tr("Belongs to the aligned model")),
            ("base", self.tr("Belongs to the base model")),
        ]
        for owner, title in owners:
            if adapter:
                action = menu.addAction(title, partial(self._belongs, index, owner))
                action.setCheckable(True)
                action.setChecked(desk.recipe.finetuned[index].adapter_base == owner)
        menu.addSeparator()
        path = Path(self._path(role, index))
        menu.addAction(self.tr("Show in the file manager"), lambda: _reveal(path))
        menu.addSeparator()
        menu.addAction(self.tr("Remove"), lambda: self._remove(role, index))
        return menu

    def _move(self, role: Role, index: int, to: Role) -> None:
        self._desk.edit(move_model(self._desk.recipe, role, index, to))

    def _belongs(self, index: int, owner: Literal["aligned", "base"]) -> None:
        self._desk.edit(set_adapter_base(self._desk.recipe, index, owner))

    def _path(self, role: Role, index: int) -> str:
        recipe = self._desk.recipe
        model = recipe.finetuned[index] if role == "finetuned" else getattr(recipe, role)
        return str(model.path)

    def _remove(self, role: Role, index: int) -> None:
        recipe = self._desk.recipe
        if role == "finetuned":
            self._desk.edit(remove_finetuned(recipe, index))
        else:
            self._desk.edit(set_reference_model(recipe, role, None))

    def _menu(self, at: QPoint, role: Role, index: int) -> None:
        self.menu_for(role, index).popup(at)


def _reveal(path: Path) -> None:
    folder = path if path.is_dir() else path.parent
    QDesktopServices.openUrl(QUrl.fromLocalFile(str(folder)))
