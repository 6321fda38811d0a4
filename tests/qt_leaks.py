"""Finds what a test left in Qt: windows, timers, animations, threads, processes, pool jobs."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from typing import Any

from PySide6 import QtCore, QtWidgets
from shiboken6 import isValid

import leaks


class QtRegister(leaks.Register):
    """A register that also holds its objects, weakly: Qt has no list of all its timers."""

    def __init__(self, kind: type) -> None:
        super().__init__(kind)
        self._objects: dict[int, weakref.ref[Any]] = {}

    def watch(self, cls: type, method: str, key: Callable[[Any], int] = id) -> None:
        def enter(thing: Any) -> int:
            number = key(thing)
            self._objects[number] = weakref.ref(thing)
            return number

        super().watch(cls, method, enter)

    def living(self) -> Iterator[Any]:
        """The objects entered so far whose Python and C++ halves both still exist."""
        for number, reference in list(self._objects.items()):
            thing = reference()
            if thing is None or not isValid(thing):
                del self._objects[number]
            else:
                yield thing


def sources(processes: leaks.Register) -> list[Callable[[], list[leaks.Leak]]]:
    """The functions that look for leaks; `processes` learns the pids of every QProcess."""
    timers = QtRegister(QtCore.QTimer)
    timers.watch(QtCore.QTimer, "start")
    animations = QtRegister(QtCore.QAbstractAnimation)
    animations.watch(QtCore.QAbstractAnimation, "start")
    threads = QtRegister(QtCore.QThread)
    threads.watch(QtCore.QThread, "start")
    jobs = leaks.Register(QtCore.QThreadPool)
    # Each globalInstance() is another Python object for the one pool: it is entered as number 0.
    jobs.watch(QtCore.QThreadPool, "start", key=lambda _: 0)
    running = QtRegister(QtCore.QProcess)
    running.watch(QtCore.QProcess, "start")
    processes.watch(QtCore.QProcess, "start", key=_pid_once_started)
    widgets = leaks.Register(QtWidgets.QWidget)
    for cls in _widget_classes():
        widgets.watch(cls, "__init__")

    def in_widgets() -> list[leaks.Leak]:
        _deliver_deletions()
        return [
            widgets.leak(f"top-level widget {widget!r}", widget, cleanup=widget.deleteLater)
            for widget in _top_level_widgets()
        ]

    def in_objects() -> list[leaks.Leak]:
        found = [
            timers.leak(f"active timer {timer!r}, {timer.interval()} ms", timer, timer.stop)
            for timer in timers.living()
            if timer.isActive()
        ]
        found += [
            animations.leak(f"running animation {animation!r}", animation, animation.stop)
            for animation in animations.living()
            if animation.state() == QtCore.QAbstractAnimation.State.Running
        ]
        found += [
            threads.leak(f"running QThread {thread!r}", thread, thread.quit)
            for thread in threads.living()
            if thread.isRunning()
        ]
        found += [
            running.leak(f"running QProcess {process.program()}", process, process.kill)
            for process in running.living()
            if process.state() != QtCore.QProcess.ProcessState.NotRunning
        ]
        return found

    def in_pool() -> list[leaks.Leak]:
        if QtCore.QCoreApplication.instance() is None:
            return []
        count = QtCore.QThreadPool.globalInstance().activeThreadCount()
        return [jobs.leak(f"{count} job(s) in the global thread pool", 0)] if count else []

    return [in_widgets, in_objects, in_pool]


def _widget_classes() -> Iterator[type]:
    for name in dir(QtWidgets):
        cls = getattr(QtWidgets, name)
        if isinstance(cls, type) and issubclass(cls, QtWidgets.QWidget):
            yield cls


def _pid_once_started(process: QtCore.QProcess) -> int:
    return int(process.processId())


def _deliver_deletions() -> None:
    """Let deleteLater() happen: what is only waiting for the event loop was not left behind."""
    application = QtCore.QCoreApplication.instance()
    if application is not None:
        application.sendPostedEvents(None, QtCore.QEvent.Type.DeferredDelete)
        application.processEvents()


def _top_level_widgets() -> Iterator[QtWidgets.QWidget]:
    if not isinstance(QtCore.QCoreApplication.instance(), QtWidgets.QApplication):
        return
    for widget in QtWidgets.QApplication.topLevelWidgets():
        # A dialog or menu with a parent goes with its parent, which is judged itself.
        if widget.parentWidget() is not None:
            continue
        # Qt's own tool tip hides and deletes itself on a timer of its own.
        if widget.metaObject().className() == "QTipLabel":
            continue
        yield widget
