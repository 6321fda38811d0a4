"""Who measures trials: this process itself, or several that each hold the lineup."""

from __future__ import annotations

import multiprocessing
import os
import threading
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import parent_process
from typing import Protocol

from trimtab.control import Control, Unattended
from trimtab.errors import UserError
from trimtab.merging.recipe import Recipe
from trimtab.search.measuring import Bench, Raw, Work

#: seconds between two looks at whether to stop
_LOOK = 0.2


class Pool(Protocol):
    """Measures recipes, `size` at once."""

    size: int

    def measure(self, recipes: list[Recipe], control: Control) -> list[Raw | UserError]:
        """Return what each recipe's merge does, or why there is none, in the order given."""

    def close(self) -> None:
        """Give back processes, files and memory."""


def open_pool(work: Work, workers: int, control: Control) -> Pool:
    """Return who measures; loads the models. Raises `UserError` as `Bench` does."""
    return Alone(work, control) if workers == 1 else Several(work, workers)


class Alone:
    """This process, one recipe after another."""

    size = 1

    def __init__(self, work: Work, control: Control):
        self._bench = Bench(work, control)

    def close(self) -> None:
        """Give back files and memory."""
        self._bench.close()

    def measure(self, recipes: list[Recipe], control: Control) -> list[Raw | UserError]:
        """Measure one recipe after another; see `Pool`."""
        return [_measured(self._bench, recipe, control) for recipe in recipes]


def _measured(bench: Bench, recipe: Recipe, control: Control) -> Raw | UserError:
    try:
        return bench.measure(recipe, control)
    except UserError as error:
        return error


#: what this process has loaded, or why it could not
_bench: Bench | UserError | None = None


def _follow_parent() -> None:
    """End this process when the one that started it has ended, however it did."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _begin(work: Work) -> None:
    global _bench
    # a parent that was killed closes nothing: its workers would wait for it for ever
    threading.Thread(target=_follow_parent, name="parent", daemon=True).start()
    try:
        _bench = Bench(work, Unattended())
    except UserError as error:
        _bench = error


def _work(recipe: Recipe) -> Raw | dict[str, str]:
    """Measure a recipe; an error comes as its JSON form, for exceptions do not travel whole."""
    assert _bench is not None
    found = _bench if isinstance(_bench, UserError) else _measured(_bench, recipe, Unattended())
    return found.to_dict() if isinstance(found, UserError) else found


class Several:
    """Processes that each hold the lineup; what is asked of one is done by whichever is free."""

    def __init__(self, work: Work, workers: int):
        self.size = workers
        # not by fork: torch's threads do not live through one
        context = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(workers, context, _begin, (work,))

    def close(self) -> None:
        """End the processes; what they are at is thrown away."""
        for process in list((self._pool._processes or {}).values()):
            process.terminate()
        self._pool.shutdown(cancel_futures=True)

    def measure(self, recipes: list[Recipe], control: Control) -> list[Raw | UserError]:
        """Measure recipes at the same time; see `Pool`.

        Raises `UserError` with `sweep_worker_died` when a process has ended.
        """
        futures: list[Future[Raw | dict[str, str]]] = [
            self._pool.submit(_work, recipe) for recipe in recipes
        ]
        while wait(futures, _LOOK).not_done:
            control.check()
        try:
            found = [future.result() for future in futures]
        except BrokenProcessPool as error:
            raise UserError(
                "sweep_worker_died",
                "A process of the sweep has ended.",
                "The system may have ended it for want of memory: each holds the models.",
                "Go on with --resume and fewer --workers.",
                details=str(error),
            ) from error
        return [UserError(**each) if isinstance(each, dict) else each for each in found]
