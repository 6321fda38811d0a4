"""How long a frame of the heatmap takes while it is panned and brushed, drawn in software."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable

import numpy as np

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

from PySide6.QtCore import QEvent, QPoint, QPointF, Qt
from PySide6.QtGui import QMouseEvent
from PySide6.QtWidgets import QApplication

from trimtab_gui import theme
from trimtab_gui.plots import HeatmapView

ROWS, COLUMNS = 50, 1000
FRAMES = 200
LIMIT_MS = 16.7
SIZE = (900, 460)


def build() -> HeatmapView:
    rng = np.random.default_rng(0)
    view = HeatmapView()
    view.resize(*SIZE)
    ids = np.arange(ROWS * COLUMNS, dtype=np.int32).reshape(ROWS, COLUMNS)
    view.set_grid([f"m{i}" for i in range(ROWS)], [str(j) for j in range(COLUMNS)], ids)
    view.set_values(rng.random(ids.size), signed=False, label="made up")
    view.show()
    return view


def send(
    view: HeatmapView,
    kind: QEvent.Type,
    place: QPointF,
    button: Qt.MouseButton,
    buttons: Qt.MouseButton,
) -> None:
    port = view.viewport()
    event = QMouseEvent(
        kind,
        place,
        QPointF(port.mapToGlobal(QPoint(round(place.x()), round(place.y())))),
        button,
        buttons,
        Qt.KeyboardModifier.NoModifier,
    )
    QApplication.sendEvent(port, event)


def gesture(view: HeatmapView, button: Qt.MouseButton) -> list[float]:
    """Press, move through FRAMES places with a full repaint after each, release."""
    rect = view.plot_rect()
    nothing = Qt.MouseButton.NoButton
    phase = np.linspace(0, 4 * np.pi, FRAMES)
    xs = rect.center().x() + 0.45 * rect.width() * np.sin(phase)
    ys = rect.center().y() + 0.4 * rect.height() * np.cos(0.7 * phase)
    send(view, QEvent.Type.MouseButtonPress, QPointF(xs[0], ys[0]), button, button)
    times = []
    for x, y in zip(xs, ys, strict=True):
        begin = time.perf_counter()
        send(view, QEvent.Type.MouseMove, QPointF(x, y), nothing, button)
        view.viewport().repaint()
        times.append((time.perf_counter() - begin) * 1e3)
    send(view, QEvent.Type.MouseButtonRelease, QPointF(xs[-1], ys[-1]), button, nothing)
    return times


def brush(view: HeatmapView) -> list[float]:
    return gesture(view, Qt.MouseButton.LeftButton)


def pan(view: HeatmapView) -> list[float]:
    """Pan while a fifth of the columns is shown, so that gaps between cells are drawn as well."""
    home = view.home()
    home.setWidth(home.width() / 5)
    home.setHeight(home.height() / 2)
    view.set_view(home)
    times = gesture(view, Qt.MouseButton.MiddleButton)
    view.reset_view()
    return times


def hover(view: HeatmapView) -> list[float]:
    return gesture(view, Qt.MouseButton.NoButton)


def measure() -> dict[str, dict[str, float]]:
    app = QApplication.instance() or QApplication([])
    if isinstance(app, QApplication):
        theme.apply(app, "dark")
    view = build()
    QApplication.processEvents()
    view.viewport().repaint()
    parts: dict[str, Callable[[HeatmapView], list[float]]] = {
        "pan": pan,
        "brush": brush,
        "hover": hover,
    }
    result = {}
    for name, run in parts.items():
        p50, p95, p99 = (float(p) for p in np.percentile(run(view), (50, 95, 99)))
        result[name] = {"p50": p50, "p95": p95, "p99": p99}
    view.close()
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    asked = parser.parse_args()
    result = measure()
    kept = all(part["p95"] <= LIMIT_MS for part in result.values())
    if asked.json:
        report = {"cells": ROWS * COLUMNS, "frames": FRAMES, "limit_ms": LIMIT_MS}
        print(json.dumps({**report, "kept": kept, "ms": result}))
    else:
        print(f"{ROWS * COLUMNS:,} cells, {FRAMES} frames each, {SIZE[0]} x {SIZE[1]} px")
        for name, part in result.items():
            line = "  ".join(f"{key} {value:6.2f} ms" for key, value in part.items())
            print(f"{name:6}  {line}")
        print(f"limit for p95: {LIMIT_MS} ms, {'kept' if kept else 'missed'}")
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
