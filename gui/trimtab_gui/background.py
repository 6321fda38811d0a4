"""Runs short work that touches the disk outside the event loop; the latest request wins."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from PySide6.QtCore import QObject, QRunnable, Qt, QThreadPool, Signal

T = TypeVar("T")
Callback = Callable[[Any], None]


class _Task(QRunnable):
    def __init__(self, work: Callable[[], object], deliver: Callable[[object, object], None]):
        super().__init__()
        self._work = work
        self._deliver = deliver

    def run(self) -> None:
        try:
            value = self._work()
        except Exception as error:  # handed to the main thread, which decides
            self._deliver(None, error)
        else:
            self._deliver(value, None)


class Background(QObject):
    """Runs functions in the thread pool and hands the result over in the main thread.

    Requests carry a `topic`; the result of one that a later request of the same topic replaced is
    dropped. No thread is left after `wait`.
    """

    _arrived = Signal(str, int, object, object)

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._pool = QThreadPool()
        self._pool.setMaxThreadCount(2)
        self._latest: dict[str, int] = {}
        self._callbacks: dict[tuple[str, int], tuple[Callback, Callback]] = {}
        self._arrived.connect(self._receive, Qt.ConnectionType.QueuedConnection)

    @property
    def busy(self) -> bool:
        """Whether a result is still awaited."""
        return bool(self._callbacks)

    def submit(
        self,
        topic: str,
        work: Callable[[], T],
        done: Callable[[T], None],
        failed: Callable[[Exception], None],
    ) -> None:
        """Run `work` elsewhere, then `done(result)` or `failed(error)` here."""
        number = self._latest.get(topic, 0) + 1
        self._latest[topic] = number
        self._callbacks[topic, number] = (done, failed)
        self._pool.start(
            _Task(work, lambda value, error: self._arrived.emit(topic, number, value, error))
        )

    def forget(self, topic: str) -> None:
        """Drop whatever is still on its way for `topic`."""
        self._latest[topic] = self._latest.get(topic, 0) + 1

    def wait(self) -> None:
        """Drop everything awaited and let the running work end."""
        self._callbacks.clear()
        self._pool.clear()
        self._pool.waitForDone()

    def _receive(self, topic: str, number: int, value: object, error: Exception | None) -> None:
        callbacks = self._callbacks.pop((topic, number), None)
        if callbacks is not None and self._latest[topic] == number:
            done, failed = callbacks
            if error is None:
                done(value)
            else:
                failed(error)
