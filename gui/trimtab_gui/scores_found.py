"""Which weights matter on a set of prompts: asked for by model, score, mode, set and share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PySide6.QtCore import QObject

from trimtab.activations.norms import MODES, Mode
from trimtab.inspection.attribution import Score
from trimtab.inspection.attribution_metrics import SCORE_MODES, Scored
from trimtab_gui.desk import Desk
from trimtab_gui.finding import Finding

#: examples of a set of prompts that models read, at most
EXAMPLES = 128
#: bytes of weights that are gone through without a question
LIGHT = 64 << 20


@dataclass(frozen=True)
class Asked:
    """What scores are asked for: of which model, on which prompts, how; which are the highest."""

    model: str
    score: Score
    mode: Mode
    calibration: str
    share: float


class ScoresFinding(Finding):
    """Which weights of the lineup's models matter on a set of prompts.

    `calibration` (a file, or the name of a shipped set; empty for none), `mode` and `share` are
    what is asked for next; what was found for others is kept beside it.
    """

    def __init__(self, desk: Desk, parent: QObject | None = None) -> None:
        self.calibration = ""
        self.mode: Mode = MODES[-1]
        self.share = 0.01
        self.asking: Asked | None = None
        self._known: dict[Asked, Scored] = {}
        self._reading = False
        super().__init__(desk, parent)

    @property
    def running(self) -> bool:
        """Whether weights are being scored, or what came of it is being read."""
        return super().running or self._reading

    def asked(self, score: Score, model: int) -> Asked | None:
        """Return what is to be known of a fine-tuned model; None without one, or without prompts.

        Gradients are taken in one mode only, whatever is chosen.
        """
        lineup = self._desk.lineup
        if lineup is None or not self.calibration or not 0 <= model < len(lineup.finetuned):
            return None
        modes = SCORE_MODES[score]
        mode = self.mode if self.mode in modes else modes[0]
        return Asked(lineup.finetuned[model].name, score, mode, self.calibration, self.share)

    def known(self, score: Score, model: int) -> Scored | None:
        """Return the scores by the grid's groups; None where they are not known."""
        asked = self.asked(score, model)
        return None if asked is None else self._known.get(asked)

    def is_small(self, model: int) -> bool:
        """Whether the answer comes sooner than a question about it is read."""
        lineup = self._desk.lineup
        if lineup is None or not 0 <= model < len(lineup.finetuned):
            return False
        return self.bytes_read(model) <= LIGHT

    def bytes_read(self, model: int) -> int:
        """Return how many bytes of weights go through memory once, block by block."""
        lineup = self._desk.lineup
        assert lineup is not None
        return max(lineup.finetuned[model].checkpoint.n_bytes, lineup.reference.checkpoint.n_bytes)

    def choose(self, calibration: str, mode: Mode, share: float) -> None:
        """Ask for scores on other prompts, in another mode, or count another share as highest."""
        if (calibration, mode, share) != (self.calibration, self.mode, self.share):
            self.calibration, self.mode, self.share = calibration, mode, share
            self.error = None
            self.changed.emit()

    def start(self, score: Score, model: int) -> None:
        """Score the weights of a fine-tuned model; another scoring under way is given up."""
        asked = self.asked(score, model)
        if asked is None or asked in self._known or (self.running and asked == self.asking):
            return
        self.stop()
        self.asking = asked
        params = {
            "model": asked.model, "score": asked.score, "mode": asked.mode,
            "calibration": asked.calibration, "share": asked.share, "limit": EXAMPLES,
        }  # fmt: skip
        self.submit("attribute", params, self.tr("Scoring weights"))

    def forget(self) -> None:
        self._desk.background.forget("scores")
        self._known.clear()
        self.asking, self._reading = None, False

    def take(self, result: Mapping[str, Any], seconds: float) -> None:
        asked, lineup = self.asking, self._desk.lineup
        assert asked is not None
        assert lineup is not None
        path, file = Path(result["path"]), str(result["scores"] or result["norms"])

        self._reading = True

        def done(found: Scored) -> None:
            self._known[asked], self._reading = found, False
            self.changed.emit()

        def failed(error: Exception) -> None:
            self._reading = False
            self.failed_to_read(error)

        self._desk.background.submit(
            "scores",
            lambda: Scored.load(path, file).grouped(lineup.names, lineup.grid),
            done,
            failed,
        )
