"""One-colour SVG icons, tinted by a token and crisp at every pixel ratio."""

from __future__ import annotations

from functools import lru_cache

from PySide6.QtCore import QByteArray, QRectF, QSize, Qt
from PySide6.QtGui import QIcon, QPainter, QPixmap
from PySide6.QtSvg import QSvgRenderer

from trimtab_resources import path

_RATIOS = (1, 2, 3)
_SIZES = (16, 20, 28)


@lru_cache(maxsize=256)
def _svg(name: str, colour: str) -> bytes:
    source = path("icons", f"{name}.svg").read_text(encoding="utf-8")
    return source.replace("<path ", f'<path fill="{colour}" ').encode()


def draw(painter: QPainter, name: str, colour: str, rect: QRectF) -> None:
    """Paint the icon ``name`` as vectors into ``rect``."""
    QSvgRenderer(QByteArray(_svg(name, colour))).render(painter, rect)


def pixmap(name: str, colour: str, size: int, ratio: float = 1.0) -> QPixmap:
    """Return the icon as a pixmap ``size`` wide on screen; FileNotFoundError for a wrong name."""
    # Read first: an error while a painter is at work on a pixmap takes the process down.
    renderer = QSvgRenderer(QByteArray(_svg(name, colour)))
    side = round(size * ratio)
    result = QPixmap(QSize(side, side))
    result.fill(Qt.GlobalColor.transparent)
    painter = QPainter(result)
    renderer.render(painter, QRectF(0, 0, side, side))
    painter.end()
    return result


@lru_cache(maxsize=256)
def tinted(name: str, colour: str, disabled: str) -> QIcon:
    """Return the icon in ``colour``, and in ``disabled`` where its control is switched off."""
    result = QIcon()
    for size in _SIZES:
        for ratio in _RATIOS:
            result.addPixmap(pixmap(name, colour, size, ratio))
            result.addPixmap(pixmap(name, disabled, size, ratio), QIcon.Mode.Disabled)
    return result
