"""The worker as a process: lines in, messages out, and an end that is always noticed."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Sequence

from PySide6.QtCore import QObject, QProcess, QProcessEnvironment, Signal

from trimtab.jobs.protocol import Command, Hello, ProtocolError, decode_event, encode

_LOG_LINES = 400
_LONGEST_LINE = 64 * 1024 * 1024
_GRACE_MS = 1500


def worker_command() -> list[str]:
    """Return the command that starts a worker, in a frozen build the program itself."""
    if getattr(sys, "frozen", False):
        return [sys.executable, "--worker"]
    return [sys.executable, "-m", "trimtab.jobs.worker"]


class WorkerProcess(QObject):
    """One worker process.

    `received` carries decoded events; `broken` a line that is no message; `ended(text)` comes
    once, whichever way the process ended or failed to start.
    """

    received = Signal(object)
    broken = Signal(str)
    ended = Signal(str)

    def __init__(self, command: Sequence[str], parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._command = list(command)
        self._process = QProcess(self)
        environment = QProcessEnvironment.systemEnvironment()
        environment.insert("PYTHONUNBUFFERED", "1")
        self._process.setProcessEnvironment(environment)
        self._process.readyReadStandardOutput.connect(self._read_output)
        self._process.readyReadStandardError.connect(self._read_log)
        self._process.finished.connect(self._finished)
        self._process.errorOccurred.connect(self._error)
        self._buffer = b""
        self._log: deque[str] = deque(maxlen=_LOG_LINES)
        self._over = False
        self.greeted = False

    @property
    def pid(self) -> int:
        """The process id, 0 when it does not run."""
        return int(self._process.processId())

    @property
    def log(self) -> str:
        """The last lines it wrote to stderr."""
        return "\n".join(self._log)

    def note(self, line: str) -> None:
        """Put a line into the log."""
        self._log.append(line)

    def start(self) -> None:
        """Start the process."""
        self._process.start(self._command[0], self._command[1:])

    def send(self, command: Command) -> None:
        """Write one command."""
        self._process.write(encode(command).encode() + b"\n")

    def flush(self) -> None:
        """Hand over what was written now, not when the event loop comes to it after painting."""
        if self._process.state() == QProcess.ProcessState.Running:
            self._process.waitForBytesWritten(0)

    def kill(self) -> None:
        """End the process at once."""
        self._process.kill()

    def close(self) -> None:
        """Close its stdin, give it a moment to leave, and end it if it stays."""
        self._over = True
        if self._process.state() != QProcess.ProcessState.NotRunning:
            self._process.closeWriteChannel()
            if not self._process.waitForFinished(_GRACE_MS):
                self._process.kill()
                self._process.waitForFinished(_GRACE_MS)

    def _read_output(self) -> None:
        *lines, self._buffer = (
            self._buffer + bytes(self._process.readAllStandardOutput().data())
        ).split(b"\n")
        if len(self._buffer) > _LONGEST_LINE:
            lines.append(self._buffer[:200])
            self._buffer = b""
        for line in lines:
            if self._over:
                return
            if line.strip():
                self._decode(line)

    def _decode(self, line: bytes) -> None:
        try:
            event = decode_event(line)
        except ProtocolError:
            text = line[:200].decode(errors="replace")
            self.note(f"[not a message] {text}")
            self.broken.emit(text)
            return
        if isinstance(event, Hello):
            self.greeted = True
        self.received.emit(event)

    def _read_log(self) -> None:
        text = bytes(self._process.readAllStandardError().data()).decode(errors="replace")
        self._log.extend(text.splitlines())

    def _finished(self, code: int, status: QProcess.ExitStatus) -> None:
        self._read_output()
        self._read_log()
        if status == QProcess.ExitStatus.CrashExit:
            self._end("It was ended by the system or crashed.")
        else:
            self._end(f"It left with exit code {code}.")

    def _error(self, error: QProcess.ProcessError) -> None:
        # every other error is followed by `finished`
        if error == QProcess.ProcessError.FailedToStart:
            self._end(f"It could not be started: {self._process.errorString()}.")

    def _end(self, text: str) -> None:
        if not self._over:
            self._over = True
            self.ended.emit(text)
