"""The Qt half of the guards: whatever a test leaves in Qt fails it, and the line is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

TESTS = Path(__file__).parents[1]


@pytest.fixture
def guarded(pytester: pytest.Pytester) -> pytest.Pytester:
    """A folder of tests under the same guards as this one, but with less patience."""
    for name in ("conftest.py", "leaks.py", "qt_leaks.py"):
        text = (TESTS / name).read_text("utf-8")
        (pytester.path / name).write_text(text.replace("_GRACE_S = 1.0", "_GRACE_S = 0.3"), "utf-8")
    pytester.makepyprojecttoml(
        """
        [tool.pytest]
        pythonpath = ["."]
        qt_api = "pyside6"
        qt_log_level_fail = "WARNING"
        filterwarnings = ["error"]
        markers = ["expected_log(pattern): as in the project"]
        """
    )
    return pytester


def write_and_run(guarded: pytest.Pytester, bodies: dict[str, str]) -> tuple[Any, list[str]]:
    """Run one test per body; return the result and the lines of the file that was run."""
    lines = ["from PySide6 import QtCore, QtGui, QtWidgets", "kept = []"]
    for name, body in bodies.items():
        lines += [f"def test_{name.replace(' ', '_')}(qtbot):", "    kept.clear()"]
        lines += ["    " + line for line in body.splitlines()]
    guarded.makepyfile(test_it="\n".join(lines))
    return guarded.runpytest_subprocess("-p", "no:cacheprovider"), lines


# What is left behind, on the line that ends in the kind's name, and what is said of it.
LEFT_BEHIND = {
    "widget": ("kept.append(QtWidgets.QWidget())  # widget", "top-level widget"),
    "subclassed widget": (
        "class Window(QtWidgets.QMainWindow): pass\nkept.append(Window())  # subclassed widget",
        "top-level widget",
    ),
    "shown widget": (
        "kept.append(QtWidgets.QLabel('x'))  # shown widget\nkept[0].show()",
        "top-level widget",
    ),
    "timer": (
        "kept.append(QtCore.QTimer())\nkept[0].start(1000)  # timer",
        "active timer",
    ),
    "timer of an object": (
        "kept.append(QtCore.QObject())\nQtCore.QTimer(kept[0]).start(1000)  # timer of an object",
        "active timer",
    ),
    "animation": (
        "kept.append(QtCore.QVariantAnimation(duration=60000, startValue=0, endValue=9))\n"
        "kept[0].start()  # animation",
        "running animation",
    ),
    "process": (
        "kept.append(QtCore.QProcess())\n"
        "kept[0].start('sleep', ['60'])  # process\n"
        "assert kept[0].waitForStarted()",
        "running QProcess",
    ),
    "thread": (
        "class Thread(QtCore.QThread):\n"
        "    def run(self): self.msleep(2500)\n"
        "kept.append(Thread(QtWidgets.QApplication.instance()))\n"
        "kept[0].start()  # thread",
        "running QThread",
    ),
    "pool job": (
        "job = lambda: QtCore.QThread.msleep(2500)\n"
        "QtCore.QThreadPool.globalInstance().start(job)  # pool job",
        "job(s) in the global thread pool",
    ),
}


def test_what_a_test_leaves_in_qt_fails_it_and_its_line_is_named(
    guarded: pytest.Pytester,
) -> None:
    bodies = {kind: body for kind, (body, _) in LEFT_BEHIND.items()}
    result, lines = write_and_run(guarded, bodies)
    result.assert_outcomes(passed=len(bodies), errors=len(bodies))
    for kind, (_, complaint) in LEFT_BEHIND.items():
        name = f"test_{kind.replace(' ', '_')}"
        made = next(number for number, line in enumerate(lines, 1) if f"# {kind}" in line)
        result.stdout.fnmatch_lines(
            [
                f"*ERROR at teardown of {name} *",
                f"*{complaint}*",
                f"*made at *test_it.py:{made} in {name}",
            ]
        )


CLEARED_AWAY = {
    "widget given to qtbot": "qtbot.addWidget(QtWidgets.QWidget())",
    "widget without a name": "QtWidgets.QWidget()",
    "widget deleted later": "kept.append(QtWidgets.QWidget())\nkept[0].deleteLater()",
    "stopped timer": "kept.append(QtCore.QTimer())\nkept[0].start(1000)\nkept[0].stop()",
    "timer that went with its window": (
        "window = QtWidgets.QWidget()\nQtCore.QTimer(window).start(1000)\nqtbot.addWidget(window)"
    ),
    "job that ends by itself": (
        "QtCore.QThreadPool.globalInstance().start(lambda: QtCore.QThread.msleep(50))"
    ),
}


def test_a_test_that_clears_up_in_qt_passes(guarded: pytest.Pytester) -> None:
    result, _ = write_and_run(guarded, CLEARED_AWAY)
    result.assert_outcomes(passed=len(CLEARED_AWAY))


def test_a_warning_of_qt_fails(guarded: pytest.Pytester) -> None:
    result, _ = write_and_run(guarded, {"warning": "QtCore.qWarning('something odd')"})
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*something odd*"])
