"""Draws docs/images/safety-layers.png from what `trimtab safety-layers --suite demo --json` says.

trimtab safety-layers RECIPE --suite demo --json > layers.json
python docs/draw_safety_layers.py layers.json docs/images/safety-layers.png
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

from PySide6.QtCore import QPointF, QRectF, Qt
from PySide6.QtGui import QColor, QImage, QPainter, QPen, QPolygonF
from PySide6.QtWidgets import QApplication

from trimtab_gui import theme
from trimtab_gui.plots import scale

_WIDTH, _HEIGHT, _RATIO = 1180, 500, 2
_TITLE = (
    "The base model shows no angle gap, the aligned one does, the poisoned one has lost part of it"
)
_LEFT = int(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter)
_RIGHT = int(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
_MIDDLE = int(Qt.AlignmentFlag.AlignCenter)


@dataclass(frozen=True)
class Line:
    """A curve with its band; `label` stands at its end."""

    label: str
    colour: str
    values: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]
    stroke: Qt.PenStyle = Qt.PenStyle.SolidLine


class Plot:
    """A card with curves over the layers."""

    def __init__(self, place: QRectF, title: str, caption: str, lines: Sequence[Line]):
        self._place, self._title, self._caption, self._lines = place, title, caption, lines
        self._ticks = scale.ticks(
            min(0.0, *(min(line.low) for line in lines)), max(max(line.high) for line in lines)
        )
        self._low = min(min(self._ticks), *(min(line.low) for line in lines))
        self._high = max(max(self._ticks), *(max(line.high) for line in lines))
        self._area = place.adjusted(52, 74, -112, -44)

    def _point(self, layer: int, value: float) -> QPointF:
        area, last = self._area, len(self._lines[0].values) - 1
        x = area.left() + area.width() * layer / last
        y = area.bottom() - area.height() * (value - self._low) / (self._high - self._low)
        return QPointF(x, y)

    def draw(self, painter: QPainter) -> None:
        """Draw frame, axes, bands, curves and labels."""
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(theme.color("panel"))
        painter.drawRoundedRect(self._place, theme.PANEL_RADIUS, theme.PANEL_RADIUS)
        text = self._place.adjusted(16, 12, -16, 0)
        painter.setPen(theme.color("text"))
        painter.setFont(theme.font("title"))
        painter.drawText(QRectF(text.left(), text.top(), text.width(), 20), _LEFT, self._title)
        painter.setPen(theme.color("muted"))
        painter.setFont(theme.font("caption"))
        painter.drawText(
            QRectF(text.left(), text.top() + 22, text.width(), 18), _LEFT, self._caption
        )
        self._axes(painter)
        for line in self._lines:
            self._band(painter, line)
        for line in self._lines:
            self._curve(painter, line)
        self._labels(painter)

    def _axes(self, painter: QPainter) -> None:
        area = self._area
        for value, label in zip(self._ticks, scale.tick_texts(self._ticks), strict=True):
            y = self._point(0, value).y()
            painter.setPen(QPen(theme.color("line"), 1))
            painter.drawLine(QPointF(area.left(), y), QPointF(area.right(), y))
            painter.setPen(theme.color("muted"))
            painter.drawText(QRectF(area.left() - 50, y - 9, 42, 18), _RIGHT, label)
        for layer in range(len(self._lines[0].values)):
            x = self._point(layer, 0).x()
            painter.drawText(QRectF(x - 20, area.bottom() + 6, 40, 16), _MIDDLE, str(layer))
        painter.drawText(
            QRectF(area.left(), area.bottom() + 22, area.width(), 16), _MIDDLE, "layer"
        )

    def _band(self, painter: QPainter, line: Line) -> None:
        up = [self._point(i, value) for i, value in enumerate(line.high)]
        down = [self._point(i, value) for i, value in enumerate(line.low)]
        colour = QColor(line.colour)
        colour.setAlphaF(0.18)
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(colour)
        painter.drawPolygon(QPolygonF([*up, *reversed(down)]))

    def _curve(self, painter: QPainter, line: Line) -> None:
        painter.setPen(QPen(QColor(line.colour), 2, line.stroke))
        points = [self._point(i, value) for i, value in enumerate(line.values)]
        painter.drawPolyline(QPolygonF(points))

    def _labels(self, painter: QPainter) -> None:
        """Write each curve's name at its end, moved apart where two would touch."""
        placed: list[float] = []
        for line in sorted(self._lines, key=lambda x: -x.values[-1]):
            end = self._point(len(line.values) - 1, line.values[-1])
            y = max(end.y(), placed[-1] + 17) if placed else end.y()
            placed.append(y)
            painter.setPen(QColor(line.colour))
            painter.drawText(QRectF(end.x() + 8, y - 9, 104, 18), _LEFT, line.label)


def _cosines(model: dict[str, Any]) -> list[Line]:
    """Return the three curves in the aligned model's colour, told apart by their strokes."""
    strokes = {
        "nn": ("normal pairs", Qt.PenStyle.SolidLine),
        "mm": ("malicious pairs", Qt.PenStyle.DotLine),
        "nm": ("mixed pairs", Qt.PenStyle.DashLine),
    }
    colour = theme.color("aligned").name()
    found = []
    for key, (label, stroke) in strokes.items():
        mean, std = model["curves"][key]["mean"], model["curves"][key]["std"]
        low = [m - s for m, s in zip(mean, std, strict=True)]
        high = [min(1.0, m + s) for m, s in zip(mean, std, strict=True)]
        found.append(Line(label, colour, mean, low, high, stroke))
    return found


def _gaps(content: dict[str, Any]) -> list[Line]:
    found, finetuned = [], 0
    for model in content["models"]:
        gap = model["gap"]["ours"]
        index = finetuned if model["role"] == "finetuned" else 0
        finetuned += model["role"] == "finetuned"
        colour = theme.role_color(model["role"], index).name()
        found.append(Line(model["name"], colour, gap["value"], gap["low"], gap["high"]))
    return found


def main(arguments: Sequence[str]) -> None:
    """Read the numbers from the first path and leave the picture at the second."""
    content = json.loads(Path(arguments[0]).read_text(encoding="utf-8"))
    app = QApplication([])
    theme.apply(app, "dark")
    image = QImage(_WIDTH * _RATIO, _HEIGHT * _RATIO, QImage.Format.Format_RGB32)
    image.setDevicePixelRatio(_RATIO)
    image.fill(theme.color("background"))
    painter = QPainter(image)
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    painter.setPen(theme.color("text"))
    painter.setFont(theme.font("title"))
    painter.drawText(QRectF(20, 14, _WIDTH - 40, 24), _LEFT, _TITLE)
    aligned = next(m for m in content["models"] if m["role"] == "aligned")
    n, m = content["normal"]["n"], content["malicious"]["n"]
    width = (_WIDTH - 50) / 2
    cards = (
        Plot(
            QRectF(20, 50, width, _HEIGHT - 70),
            f"Cosines of hidden states in {aligned['name']}",
            f"{content['pairs']} pairs of {n} + {m} queries, mean ± one standard deviation",
            _cosines(aligned),
        ),
        Plot(
            QRectF(30 + width, 50, width, _HEIGHT - 70),
            "Angle gap, degrees",
            "normal–malicious minus normal–normal, all pairs, 95 % bootstrap over prompts",
            _gaps(content),
        ),
    )
    for card in cards:
        card.draw(painter)
    painter.end()
    image.save(arguments[1])


if __name__ == "__main__":
    main(sys.argv[1:])
