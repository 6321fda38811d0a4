"""Starts the window, runs it, and takes it down in a safe order."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from PySide6.QtCore import QEvent, QTimer
from PySide6.QtWidgets import QApplication

from trimtab import __version__
from trimtab.methods import load_no_entry_points
from trimtab_gui import theme
from trimtab_gui.desk import Desk
from trimtab_gui.faults import Faults
from trimtab_gui.main_window import MainWindow
from trimtab_gui.session import Session

PROBE = "TRIMTAB_STARTUP_PROBE"
_WARM_UP_MS = 120
_SWITCH_S = 0.0005
_MODES: tuple[theme.Mode, ...] = ("dark", "light", "system")


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="trimtab-gui",
        description="See what fine-tuning did to a model's safety, and steer it back.",
    )
    parser.add_argument("files", nargs="*", type=Path, help="models, adapters or a project")
    parser.add_argument("--demo", action="store_true", help="open the demo lineup")
    parser.add_argument("--theme", choices=_MODES, help="dark, light, or as the system says")
    parser.add_argument(
        "--tour", type=Path, metavar="DIR", help="take pictures of the window into DIR and leave"
    )
    parser.add_argument("--output", type=Path, metavar="DIR", help="where --tour saves its merge")
    parser.add_argument("--version", action="version", version=f"Trimtab {__version__}")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def _application() -> QApplication:
    app = QApplication.instance()
    if not isinstance(app, QApplication):
        app = QApplication(sys.argv[:1])
    app.setApplicationName("Trimtab")
    app.setApplicationDisplayName("Trimtab")
    app.setApplicationVersion(__version__)
    app.setDesktopFileName("trimtab")
    return app


def _process_age() -> float:
    """Return the seconds since this process was born."""
    try:
        # both count from the same boot; psutil adds a boot time in whole seconds, which can be
        # most of a second off
        uptime = float(Path("/proc/uptime").read_text().split()[0])
        born = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        return uptime - born / os.sysconf("SC_CLK_TCK")
    except OSError:
        import psutil

        return time.time() - psutil.Process().create_time()


def _report_start(app: QApplication) -> None:
    """Print how long it took from the birth of the process to the first turn of the event loop."""
    seconds = _process_age()
    print(json.dumps({"first_tick_s": round(seconds, 4), "torch": "torch" in sys.modules}),  # noqa: T201
          flush=True)  # fmt: skip
    app.quit()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the window and return its exit code."""
    options = _arguments(argv)
    if options.worker:
        # a frozen program has no interpreter to start: it is its own worker
        from trimtab.jobs.worker import main as work

        return work()
    if options.tour is None:
        return _run(options, Session())
    # pictures show neither what somebody has set nor where they last were
    with tempfile.TemporaryDirectory(prefix="trimtab-") as folder:
        return _run(options, Session(Path(folder)))


def _run(options: argparse.Namespace, session: Session) -> int:
    # other packages' methods are described by the worker, and never run in this process
    load_no_entry_points()
    # while headers are read in a thread, every call into Qt waits for its turn this long at most
    sys.setswitchinterval(_SWITCH_S)
    app = _application()
    chosen = options.theme or session.get("theme", "dark")
    theme.apply(app, chosen if chosen in _MODES else "dark")
    window = MainWindow(Desk(session))
    faults = Faults(window.banners.show_notice, window)
    faults.install()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    code = 0
    try:
        if options.tour is not None:
            from trimtab_gui.tour import Tour

            tour = Tour(window, options.tour, options.output or options.tour.parent / "merged")
            tour.finished.connect(app.exit)
            QTimer.singleShot(0, tour.start)
        else:
            if os.environ.get(PROBE) == "1":
                QTimer.singleShot(0, lambda: _report_start(app))
            else:
                QTimer.singleShot(_WARM_UP_MS, window.warm_up)
            if options.demo:
                window.documents.open_demo()
            elif options.files:
                window.documents.open_paths(options.files)
        if options.tour is None:
            window.fit_screen()
        window.show()
        code = app.exec()
    finally:
        faults.uninstall()
        _take_down(app, window)
    return code


def _take_down(app: QApplication, window: MainWindow) -> None:
    """Close and delete the window while Qt still stands: a live one at exit can crash."""
    window.shut_down()
    window.deleteLater()
    app.sendPostedEvents(None, QEvent.Type.DeferredDelete.value)
    app.processEvents()
