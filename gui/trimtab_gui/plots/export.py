"""Plots as files: pictures as they are on screen, vectors with real text, and the full data."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from PySide6.QtCore import (
    QBuffer,
    QByteArray,
    QIODevice,
    QPoint,
    QRect,
    QRectF,
    QSize,
    Qt,
)
from PySide6.QtGui import QColor, QFontMetricsF, QGuiApplication, QImage, QPainter
from PySide6.QtSvg import QSvgGenerator
from PySide6.QtWidgets import QWidget

from trimtab_gui import theme

Cell = str | float
Table = tuple[list[str], Sequence[Sequence[Cell]]]
Legend = Sequence[tuple[str, str]]

_PAD = 14
_LINE = int(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter)
_HEAD = 40


@runtime_checkable
class HasTable(Protocol):
    """A plot that gives the full data behind it."""

    def csv_table(self) -> Table: ...


@runtime_checkable
class Paintable(Protocol):
    """A plot that can draw itself for a file."""

    def paint_to(self, painter: QPainter, vector: bool) -> None: ...


def size(body: QWidget) -> QSize:
    """Return the size of the picture of a plot with its title."""
    return body.size() + QSize(2 * _PAD, _HEAD + _PAD)


def paint(painter: QPainter, body: QWidget, title: str, legend: Legend, vector: bool) -> None:
    """Draw title, legend (``#RRGGBB``, text) and plot."""
    whole = QRectF(QRect(QPoint(0, 0), size(body)))
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    painter.fillRect(whole, theme.color("panel"))
    heading, small = theme.font("title"), theme.font("caption")
    painter.setFont(heading)
    painter.setPen(theme.color("text"))
    painter.drawText(QPoint(_PAD, 25), title)
    painter.setFont(small)
    x = whole.right() - _PAD
    for colour, text in reversed(list(legend)):
        width = QFontMetricsF(small).horizontalAdvance(text)
        painter.setPen(theme.color("muted"))
        painter.drawText(QRectF(x - width, 11, width + 2, 18), _LINE, text)
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(QColor(colour))
        painter.drawEllipse(QRectF(x - width - 13, 16, 8, 8))
        x -= width + 28
    painter.save()
    painter.translate(_PAD, _HEAD)
    if isinstance(body, Paintable):
        body.paint_to(painter, vector)
    else:
        body.render(painter, QPoint(0, 0))
    painter.restore()


def image(body: QWidget, title: str, legend: Legend = (), ratio: float = 2.0) -> QImage:
    """Return the picture of a plot at ``ratio`` device pixels for each pixel."""
    area = size(body)
    result = QImage(area * ratio, QImage.Format.Format_RGB32)
    result.setDevicePixelRatio(ratio)
    result.fill(theme.color("panel"))
    painter = QPainter(result)
    paint(painter, body, title, legend, vector=False)
    painter.end()
    return result


def svg(body: QWidget, title: str, legend: Legend = ()) -> bytes:
    """Return the plot as SVG: shapes stay shapes, text stays text."""
    data = QByteArray()
    buffer = QBuffer(data)
    buffer.open(QIODevice.OpenModeFlag.WriteOnly)
    generator = QSvgGenerator()
    generator.setOutputDevice(buffer)
    area = size(body)
    generator.setSize(area)
    generator.setViewBox(QRect(QPoint(0, 0), area))
    generator.setTitle(title)
    painter = QPainter(generator)
    paint(painter, body, title, legend, vector=True)
    painter.end()
    buffer.close()
    return bytes(data.data())


def save_png(path: Path, body: QWidget, title: str, legend: Legend = ()) -> None:
    """Write a PNG of twice the size on screen; OSError when it cannot be written."""
    if not image(body, title, legend).save(str(path), "PNG"):  # type: ignore[call-overload]
        raise OSError(f"cannot write {path}")


def save_svg(path: Path, body: QWidget, title: str, legend: Legend = ()) -> None:
    """Write an SVG; OSError when it cannot be written."""
    path.write_bytes(svg(body, title, legend))


def save_csv(path: Path, table: Table) -> None:
    """Write the full data; every number reads back to the same bits. OSError as usual."""
    headers, rows = table
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(headers)
        for row in rows:
            writer.writerow([cell if isinstance(cell, str) else repr(float(cell)) for cell in row])


def copy_image(body: QWidget, title: str, legend: Legend = ()) -> None:
    """Put the picture on the clipboard."""
    # A QMimeData made here would be destroyed by Qt after Python has gone, and crash on exit.
    QGuiApplication.clipboard().setImage(image(body, title, legend))
