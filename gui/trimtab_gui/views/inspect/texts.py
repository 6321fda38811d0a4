"""What the views say of spectra: what they cost before, how far they are, what chance gives."""

from __future__ import annotations

from PySide6.QtCore import QCoreApplication

from trimtab_gui import texts
from trimtab_gui.looking import SpectraFinding


def _tr(text: str) -> str:
    return QCoreApplication.translate("Inspect", text)


def cost_text(finding: SpectraFinding) -> str:
    """Say what computing the spectra takes; empty without a lineup."""
    cost = finding.cost()
    if cost is None:
        return ""
    seconds = finding.seconds_expected()
    parts = [
        _tr("{n} matrices").format(n=texts.count(cost.matrices)),
        _tr("{size} to read").format(size=texts.size(cost.bytes)),
    ]
    if seconds is not None:
        parts.append(_tr("about {time} by the last run").format(time=texts.duration(seconds)))
    return " · ".join(parts)


def level_text(stage: str) -> str:
    """Say how good spectra of a level are."""
    return {
        "nothing": _tr("some still unknown"),
        "coarse": _tr("coarse so far"),
        "fine": _tr("refined"),
        "exact": _tr("exact"),
    }[stage]
