"""Inter in the few sizes the window uses, with figures that do not jump."""

from __future__ import annotations

from typing import Literal

from PySide6.QtGui import QFont, QFontDatabase, QGuiApplication

from trimtab_resources import path

Kind = Literal[
    "body",
    "strong",
    "caption",
    "caps",
    "number",
    "small_number",
    "large_number",
    "title",
    "hero",
]

# Pixels at 100 %, weight.
_SIZES: dict[str, tuple[float, QFont.Weight]] = {
    "body": (12.5, QFont.Weight.Normal),
    "strong": (12.5, QFont.Weight.DemiBold),
    "caption": (11.0, QFont.Weight.Normal),
    "caps": (10.5, QFont.Weight.DemiBold),
    "number": (12.5, QFont.Weight.Normal),
    "small_number": (11.0, QFont.Weight.Normal),
    "large_number": (21.0, QFont.Weight.DemiBold),
    "title": (13.0, QFont.Weight.DemiBold),
    "hero": (30.0, QFont.Weight.DemiBold),
}
_WEIGHTS = ("Regular", "Medium", "SemiBold", "Bold")
_loaded: list[int] = []


def load() -> None:
    """Register the shipped fonts once; a font that cannot be read leaves the system's in place."""
    if _loaded:
        return
    for weight in _WEIGHTS:
        _loaded.append(QFontDatabase.addApplicationFont(str(path("fonts", f"Inter-{weight}.otf"))))


def points(pixels: float) -> float:
    """Return the point size that is ``pixels`` high on this platform at 100 %."""
    screen = QGuiApplication.primaryScreen()
    dpi = screen.logicalDotsPerInchY() if screen is not None else 96.0
    return pixels * 72.0 / dpi


def font(kind: Kind = "body") -> QFont:
    """Return the font of a kind of text; figures that change are of a number kind: tabular."""
    load()
    pixels, weight = _SIZES[kind]
    result = QFont("Inter")
    result.setPointSizeF(points(pixels))
    result.setWeight(weight)
    result.setHintingPreference(QFont.HintingPreference.PreferNoHinting)
    if kind.endswith("number"):
        result.setFeature(QFont.Tag("tnum"), 1)
    if kind == "caps":
        result.setCapitalization(QFont.Capitalization.AllUppercase)
        result.setLetterSpacing(QFont.SpacingType.AbsoluteSpacing, 0.8)
    return result
