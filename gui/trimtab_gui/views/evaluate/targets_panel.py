"""Who is asked: the lineup's roles, the merge as it stands, and controls beside it."""

from __future__ import annotations

from trimtab_gui.desk import Desk
from trimtab_gui.evaluating import Choice, Evaluating
from trimtab_gui.widgets import Panel
from trimtab_gui.widgets.check_card import CheckCard


class TargetsPanel(Panel):
    """One card a target; those that the lineup has not are not there."""

    def __init__(self, desk: Desk, evaluating: Evaluating) -> None:
        super().__init__("Targets")
        self.set_title(self.tr("Targets"))
        self._desk, self._evaluating = desk, evaluating
        self.body.setSpacing(6)
        kinds: dict[Choice, tuple[str, str]] = {
            "base": ("base", self.tr("Base")),
            "aligned": ("aligned", self.tr("Aligned")),
            "finetuned": ("finetuned", self.tr("Fine-tuned")),
            "merged": ("merged", self.tr("Merged")),
            "controls": ("control", self.tr("With controls")),
        }
        told: dict[Choice, str] = {
            "controls": self.tr(
                "What the merge has to be better than: half of each change, without masks and "
                "curves, and a random mask that takes as much away as the recipe's own."
            )
        }
        self.cards: dict[Choice, CheckCard] = {}
        for choice, (role, kind) in kinds.items():
            card = CheckCard(role, kind, "")
            card.toggled.connect(lambda on, c=choice: evaluating.switch(c, on))
            card.setAccessibleDescription(told.get(choice, ""))
            self.cards[choice] = card
            self.body.addWidget(card)
        evaluating.changed.connect(self.refresh)
        self.refresh()

    def refresh(self) -> None:
        """Show what there is to ask, and what is asked."""
        targets = self._evaluating.targets
        for choice, card in self.cards.items():
            card.setVisible(choice in targets)
            if choice in targets:
                card.set_name(self._name(choice))
                card.setChecked(self._evaluating.is_on(choice))
        self.setVisible(bool(targets))

    def _name(self, choice: Choice) -> str:
        recipe = self._desk.recipe
        if choice == "merged":
            return self.tr("current recipe")
        if choice == "controls":
            linear, both = self.tr("linear ½"), self.tr("linear ½ · random mask")
            return both if self._evaluating.masked else linear
        if choice == "finetuned":
            names = [self._desk.name(i) for i in range(len(recipe.finetuned))]
            return names[0] if len(names) == 1 else self.tr("{n} models").format(n=len(names))
        model = recipe.base if choice == "base" else recipe.aligned
        assert model is not None
        return model.name or model.path.rstrip("/").rsplit("/", 1)[-1]
