"""Lets no exception vanish: it is logged and shown with its traceback folded."""

from __future__ import annotations

import logging
import sys
import threading
import traceback
from collections.abc import Callable
from types import TracebackType

from PySide6.QtCore import QObject, Qt, Signal

from trimtab.errors import UserError
from trimtab_gui.notices import Notice

_log = logging.getLogger(__name__)


class Faults(QObject):
    """While installed, every uncaught exception of any thread becomes a notice."""

    _raised = Signal(object)

    def __init__(self, show: Callable[[Notice], object], parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._show = show
        self._former = sys.excepthook
        self._former_thread = threading.excepthook
        self._raised.connect(self._notify, Qt.ConnectionType.QueuedConnection)

    def install(self) -> None:
        """Take the hooks over."""
        sys.excepthook = self._hook
        threading.excepthook = self._thread_hook

    def uninstall(self) -> None:
        """Give the hooks back."""
        sys.excepthook = self._former
        threading.excepthook = self._former_thread

    def _hook(
        self, kind: type[BaseException], error: BaseException, trace: TracebackType | None
    ) -> None:
        if issubclass(kind, KeyboardInterrupt):
            self._former(kind, error, trace)
            return
        _log.error("uncaught exception", exc_info=(kind, error, trace))
        self._raised.emit(error)

    def _thread_hook(self, args: threading.ExceptHookArgs) -> None:
        if args.exc_value is not None:
            self._hook(args.exc_type, args.exc_value, args.exc_traceback)

    def _notify(self, error: BaseException) -> None:
        if isinstance(error, UserError):
            self._show(Notice.of(error))
            return
        self._show(
            Notice(
                "error",
                self.tr("Something went wrong inside Trimtab."),
                f"{type(error).__name__}: {error}",
                self.tr("Your files are unchanged. Please report it with the details below."),
                "".join(traceback.format_exception(error)),
                topic="fault",
            )
        )
