"""The process that does the heavy work: commands come on stdin, events leave on stdout."""

from __future__ import annotations

import logging
import os
import queue
import sys
import threading
import time
import traceback
from typing import BinaryIO

from trimtab import __version__
from trimtab.control import JobAbandoned, JobCancelled
from trimtab.errors import UserError
from trimtab.jobs.control import JobControl
from trimtab.jobs.protocol import (
    PROTOCOL_VERSION,
    Accepted,
    Cancel,
    Cancelled,
    Event,
    Failed,
    Hello,
    Log,
    ProtocolError,
    Quit,
    Result,
    Run,
    decode_command,
    encode,
)
from trimtab.jobs.tasks import run_job


class _LogEvents(logging.Handler):
    """Sends log records of level warning and above along as events."""

    def __init__(self, worker: Worker):
        super().__init__(logging.WARNING)
        self._worker = worker

    def emit(self, record: logging.LogRecord) -> None:
        self._worker.send(Log(self._worker.current, record.levelname, self.format(record)))


class Worker:
    """Runs one job after another; a reader thread takes commands meanwhile."""

    def __init__(self, commands: BinaryIO, events: BinaryIO):
        self._commands = commands
        self._events = events
        self._lock = threading.Lock()
        self._waiting: queue.Queue[tuple[Run, JobControl] | None] = queue.Queue()
        self._controls: dict[int, JobControl] = {}
        self.current = 0

    def send(self, event: Event) -> None:
        """Write one event; a reader that has gone is no error, stdin will close too."""
        try:
            with self._lock:
                self._events.write(encode(event).encode() + b"\n")
                self._events.flush()
        except (BrokenPipeError, ValueError):
            self._abandon_all()

    def _abandon_all(self) -> None:
        """Stop without tidying up: whoever asked may come back and go on with a merge."""
        for control in list(self._controls.values()):
            control.abandon()

    def _listen(self) -> None:
        for line in self._commands:
            if not line.strip():
                continue
            try:
                command = decode_command(line)
            except ProtocolError as error:
                self.send(Log(0, "WARNING", str(error)))
                continue
            if isinstance(command, Run):
                control = JobControl(self.send, command.id)
                self._controls[command.id] = control
                self._waiting.put((command, control))
            elif isinstance(command, Cancel):
                if (running := self._controls.get(command.id)) is not None:
                    running.cancel()
            elif isinstance(command, Quit):
                break
        self._abandon_all()
        self._waiting.put(None)

    def run(self) -> None:
        """Work until stdin closes or `Quit` comes."""
        self.send(Hello(PROTOCOL_VERSION, __version__, os.getpid()))
        threading.Thread(target=self._listen, name="commands", daemon=True).start()
        while (next_job := self._waiting.get()) is not None:
            command, control = next_job
            self.current = command.id
            self._run(command, control)
            self._controls.pop(command.id, None)
            self.current = 0

    def _run(self, command: Run, control: JobControl) -> None:
        self.send(Accepted(command.id))
        begun = time.monotonic()
        try:
            control.check()
            result = run_job(command.job, command.params, control)
        except JobCancelled:
            self.send(Cancelled(command.id))
        except JobAbandoned:
            return
        except UserError as error:
            self.send(Failed(command.id, error.to_dict()))
        except Exception as error:  # a fault of ours ends this job, not the worker
            self.send(Failed(command.id, _internal(error).to_dict()))
        else:
            self.send(Result(command.id, result, time.monotonic() - begun))


def _internal(error: Exception) -> UserError:
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return UserError(
            "out_of_memory",
            "There was not enough memory.",
            f"The system says: {error}.",
            "Close other programs, or use 'trimtab merge --device cpu'.",
        )
    return UserError(
        "internal",
        "Something went wrong inside Trimtab.",
        f"{type(error).__name__}: {error}",
        "Please report it with the details below; your files are unchanged.",
        details="".join(traceback.format_exception(error)),
    )


def main() -> int:
    """Run a worker on this process's stdin and stdout."""
    # a library that prints must not corrupt the stream: keep stdout, point fd 1 at stderr
    events = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    worker = Worker(sys.stdin.buffer, events)
    logging.getLogger().addHandler(_LogEvents(worker))
    worker.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
