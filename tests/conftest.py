"""What every test stands on: a home of its own, no network, and nothing left behind."""

from __future__ import annotations

import atexit
import gc
import importlib.util
import logging
import os
import re
import shutil
import tempfile
import threading
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

# Set before anything reads them: transformers and Qt look at their environment once, on import.
_HOME = Path(tempfile.mkdtemp(prefix="trimtab-tests-"))
atexit.register(shutil.rmtree, _HOME, ignore_errors=True)


def _home(root: Path) -> dict[str, str]:
    """The variables that decide where a program keeps its things, all of them under `root`."""
    return {
        "HOME": str(root),
        "XDG_CONFIG_HOME": str(root / "config"),
        "XDG_CACHE_HOME": str(root / "cache"),
        "XDG_DATA_HOME": str(root / "data"),
        "XDG_STATE_HOME": str(root / "state"),
        "TRIMTAB_CACHE_DIR": str(root / "cache" / "trimtab"),
        "TRIMTAB_CONFIG_DIR": str(root / "config" / "trimtab"),
        "HF_HOME": str(root / "cache" / "huggingface"),
    }


os.environ.update(_home(_HOME))
os.environ.update(
    HF_HUB_OFFLINE="1",
    TRANSFORMERS_OFFLINE="1",
    TOKENIZERS_PARALLELISM="false",
    OMP_NUM_THREADS="1",
)
os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
for _variable in ("TRIMTAB_STARTUP_PROBE", "XDG_CONFIG_DIRS", "QT_STYLE_OVERRIDE"):
    os.environ.pop(_variable, None)

import hypothesis  # noqa: E402
import psutil  # noqa: E402
import pytest  # noqa: E402

import leaks  # noqa: E402

# A loaded machine must not turn a slow example into a failure; the examples are always the same.
hypothesis.settings.register_profile("trimtab", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("trimtab")


@pytest.fixture(autouse=True)
def own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh HOME, cache and configuration folder for each test."""
    root = tmp_path_factory.mktemp("home")
    for variable, value in _home(root).items():
        monkeypatch.setenv(variable, value)
    return root


class LogGuard:
    """Collects every log record of level WARNING and above, whichever logger it came from."""

    def __init__(self) -> None:
        self.records: list[logging.LogRecord] = []
        self._original = logging.Logger.callHandlers

    def install(self) -> None:
        original, records = self._original, self.records

        # Patched above the handlers: loggers that do not propagate never reach a root handler.
        def call_handlers(logger: logging.Logger, record: logging.LogRecord) -> None:
            if record.levelno >= logging.WARNING:
                records.append(record)
            original(logger, record)

        logging.Logger.callHandlers = call_handlers  # type: ignore[method-assign]

    def uninstall(self) -> None:
        logging.Logger.callHandlers = self._original  # type: ignore[method-assign]

    def judge(self, item: pytest.Item) -> list[str]:
        """One line for each record that was not expected, and each expected one that never came."""
        patterns = [
            re.compile(pattern)
            for marker in item.iter_markers("expected_log")
            for pattern in marker.args
        ]
        seen: set[re.Pattern[str]] = set()
        complaints = []
        for record in self.records:
            text = record.getMessage()
            matching = [pattern for pattern in patterns if pattern.search(text)]
            seen.update(matching)
            if not matching:
                complaints.append(
                    f"unexpected log record {record.levelname} {record.name}: {text}\n"
                    f"    logged at {record.pathname}:{record.lineno} in {record.funcName}"
                )
        self.records.clear()
        complaints += [
            f"expected a log record matching {pattern.pattern!r}, none came"
            for pattern in patterns
            if pattern not in seen
        ]
        return complaints


class ThreadGuard:
    """Finds Python threads that a test started and did not end."""

    def __init__(self) -> None:
        self._made = leaks.Register(threading.Thread)
        self._made.watch(threading.Thread, "start")

    def surviving(self) -> list[leaks.Leak]:
        return [
            self._made.leak(f"thread {thread.name!r}", thread)
            for thread in threading.enumerate()
            if thread is not threading.main_thread() and not self._is_allowed(thread)
        ]

    @staticmethod
    def _is_allowed(thread: threading.Thread) -> bool:
        # A _DummyThread stands for a foreign thread (Qt, torch) that once ran Python; it is never
        # removed. Foreign threads of Qt are judged as QThread or pool job.
        if isinstance(thread, threading._DummyThread):
            return True
        # tqdm keeps one monitor for the life of the process; transformers' progress bars start it.
        return type(thread).__name__ == "TMonitor"


class ProcessGuard:
    """Finds child processes, of any depth, that a test started and did not end."""

    def __init__(self) -> None:
        import multiprocessing.process
        import subprocess

        self._me = psutil.Process()
        self._made = leaks.Register(int)
        self._made.watch(subprocess.Popen, "__init__", key=lambda process: process.pid)
        self._made.watch(multiprocessing.process.BaseProcess, "start", key=lambda p: p.pid)

    @property
    def register(self) -> leaks.Register:
        """Where processes started by other means are entered by their pid."""
        return self._made

    def surviving(self) -> list[leaks.Leak]:
        found = []
        for child in self._me.children(recursive=True):
            try:
                if child.status() == psutil.STATUS_ZOMBIE:
                    continue  # it has ended; whoever did not wait for it gets a ResourceWarning
                command = " ".join(child.cmdline())
            except psutil.NoSuchProcess:
                continue
            # Python's own helper, one for the life of the interpreter by design.
            if "multiprocessing.resource_tracker" in command:
                continue
            found.append(
                self._made.leak(
                    f"process {child.pid} ({command[:120]})", child.pid, cleanup=child.kill
                )
            )
        return found


class Guards:
    """The plugin that judges each test once everything it set up has been torn down."""

    def __init__(self) -> None:
        self.logs = LogGuard()
        self.processes = ProcessGuard()
        self._sources: list[Callable[[], list[leaks.Leak]]] = [
            ThreadGuard().surviving,
            self.processes.surviving,
        ]
        self._known: set[Any] = set()
        if importlib.util.find_spec("PySide6") is not None:
            import qt_leaks

            self._sources += qt_leaks.sources(self.processes.register)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_fixture_setup(self, fixturedef: Any) -> Generator[None, Any, Any]:
        """What a fixture of wider scope makes belongs to it, not to the test that came first."""
        if fixturedef.scope == "function":
            return (yield)
        with leaks.made_by(fixturedef):
            return (yield)

    def pytest_fixture_post_finalizer(self, fixturedef: Any) -> None:
        leaks.release(fixturedef)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Generator[None, None, None]:
        self._known = {leak.key for leak in self._survivors() if not leak.belongs_to_living_fixture}
        self.logs.records.clear()
        return (yield)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Generator[None, None, None]:
        yield
        complaints = self.logs.judge(item)
        left = self._new_survivors()
        if left:
            # Threads and processes end a moment after they were told to; cycles wait for the
            # collector. Only what outlives both has been left behind.
            gc.collect()
            left = leaks.settle(self._new_survivors)
        for leak in left:
            leak.cleanup()
        complaints += [leak.text for leak in left]
        if complaints:
            pytest.fail("left behind by this test:\n" + "\n".join(complaints), pytrace=False)

    def _survivors(self) -> Iterator[leaks.Leak]:
        for source in self._sources:
            yield from source()

    def _new_survivors(self) -> list[leaks.Leak]:
        return [
            leak
            for leak in self._survivors()
            if leak.key not in self._known and not leak.belongs_to_living_fixture
        ]


def pytest_configure(config: pytest.Config) -> None:
    guards = Guards()
    guards.logs.install()
    config.add_cleanup(guards.logs.uninstall)
    config.pluginmanager.register(guards, "trimtab-guards")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a CUDA device where there is none, and say so."""
    on_gpu = [item for item in items if item.get_closest_marker("gpu")]
    if not on_gpu:
        return
    import torch

    if not torch.cuda.is_available():
        for item in on_gpu:
            item.add_marker(pytest.mark.skip(reason="there is no CUDA device"))
