"""What the open recipe will come to: whether its method can be used, and how far it moves."""

from __future__ import annotations

from PySide6.QtCore import QObject, Signal

from trimtab.errors import UserError
from trimtab.merging.recipe import Recipe
from trimtab_gui.background import Background
from trimtab_gui.catalogue import Catalogue, MethodInfo
from trimtab_gui.figures import Figures
from trimtab_gui.movement import Movement, stacked, why_unknown

_TOPIC = "movement"


class Outlook(QObject):
    """All live numbers rest on `movement`; where it is None `unknown` says why.

    `arrived` follows what could not be worked out at once.
    """

    arrived = Signal()

    def __init__(self, background: Background, parent: QObject) -> None:
        super().__init__(parent)
        self._background = background
        self._title = ""
        self._recipe = Recipe()
        self.catalogue = Catalogue.built_in()
        self.movement: Movement | None = None
        self.unknown = ""
        self.error: UserError | None = None

    def clear(self) -> None:
        """Know nothing: there is nothing inspected."""
        self._background.forget(_TOPIC)
        self.movement, self.unknown = None, ""

    def work_out(self, recipe: Recipe, figures: Figures | None) -> None:
        """Look at a recipe anew."""
        self.clear()
        method = self.catalogue.get(recipe.method)
        self._recipe, self._title = recipe, method.title if method is not None else recipe.method
        self.error = self._objection(recipe, method)
        if figures is None or not recipe.finetuned or self.error is not None:
            return
        if figures.instant(recipe):
            try:
                self._know(figures.movement(recipe))
            except UserError as error:
                self.error = error
            return
        self.unknown = self.tr("Working out how far it moves …")
        self._background.submit(
            _TOPIC, lambda: figures.movement(recipe), self._came, self._did_not_come
        )

    def _know(self, movement: Movement | None) -> None:
        self.movement, self.unknown = movement, ""
        if movement is None:
            self.unknown = why_unknown(self._recipe, self._title)

    def _came(self, movement: Movement | None) -> None:
        self._know(movement)
        self.arrived.emit()

    def _did_not_come(self, error: Exception) -> None:
        if not isinstance(error, UserError):
            raise error
        self.error, self.unknown = error, ""
        self.arrived.emit()

    def _objection(self, recipe: Recipe, method: MethodInfo | None) -> UserError | None:
        """What stands against the method, going by its name and the number of models."""
        if method is None:
            return UserError(
                "unknown_method",
                self.tr("There is no method called {name}.").format(name=recipe.method),
                self.tr("It comes from a package that is not installed here."),
                self.tr("Install that package, or choose another method."),
            )
        count = len(recipe.finetuned)
        aligned = recipe.base is not None and recipe.aligned is not None
        refusal = "" if stacked(recipe) or not count else method.refusal(count, aligned)
        if not refusal:
            return None
        if method.needs_base and not aligned:
            return UserError(
                "needs_base",
                f"{method.title} {refusal}.",
                self.tr("It goes by what alignment changed: aligned minus base."),
                self.tr("Add the one that is missing, or choose another method."),
            )
        more = count < method.takes[0]
        there = self.tr("there is one") if count == 1 else self.tr("there are {n}")
        return UserError(
            "model_count",
            self.tr("{method} {refusal} besides the reference; {there}.").format(
                method=method.title, refusal=refusal, there=there.format(n=count)
            ),
            self.tr("The method is defined for so many."),
            self.tr("Add models, or choose another method.")
            if more
            else self.tr("Remove models, or choose another method."),
        )


class ForesightMixin:
    """What an outlook knows, as questions to whoever holds the recipe."""

    _outlook: Outlook

    @property
    def recipe(self) -> Recipe:
        """The recipe as it stands: the holder's own."""
        raise NotImplementedError

    @property
    def movement(self) -> Movement | None:
        """How far the merge will move each group; all live numbers rest on it."""
        return self._outlook.movement

    @property
    def movement_unknown(self) -> str:
        """Why `movement` is not known though the lineup is inspected, "" where it is."""
        return self._outlook.unknown

    @property
    def method_error(self) -> UserError | None:
        """What stands against the method."""
        return self._outlook.error

    @property
    def catalogue(self) -> Catalogue:
        """The merge methods there are."""
        return self._outlook.catalogue

    @property
    def method(self) -> MethodInfo | None:
        """The recipe's method, None when nobody knows it."""
        return self.catalogue.get(self.recipe.method)

    @property
    def method_title(self) -> str:
        """What the recipe's method is called."""
        method = self.method
        return method.title if method is not None else self.recipe.method
