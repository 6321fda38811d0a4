"""The plots of the window and the card that each lies on."""

from __future__ import annotations

from trimtab_gui.plots.card import PlotCard
from trimtab_gui.plots.curves import Curve
from trimtab_gui.plots.heatmap import HeatmapView
from trimtab_gui.plots.profile import ProfileView

__all__ = ["Curve", "HeatmapView", "PlotCard", "ProfileView"]
