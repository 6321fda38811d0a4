"""The controls of the window: they draw and report gestures, and know nothing of models."""

from __future__ import annotations

from trimtab_gui.widgets.banner import Banner
from trimtab_gui.widgets.buttons import fold_button, primary_button, quiet_button
from trimtab_gui.widgets.choice import Choice
from trimtab_gui.widgets.chooser import Chooser
from trimtab_gui.widgets.drop_slot import DropSlot
from trimtab_gui.widgets.facts_table import FactsTable
from trimtab_gui.widgets.gauge import Gauge
from trimtab_gui.widgets.job_bar import JobBar
from trimtab_gui.widgets.labels import ElidedLabel, label
from trimtab_gui.widgets.model_card import ModelCard
from trimtab_gui.widgets.panel import Panel
from trimtab_gui.widgets.places_switch import PlacesSwitch
from trimtab_gui.widgets.ratio_slider import RatioSlider
from trimtab_gui.widgets.unknown import Unknown

__all__ = [
    "Banner",
    "Choice",
    "Chooser",
    "DropSlot",
    "ElidedLabel",
    "FactsTable",
    "Gauge",
    "JobBar",
    "ModelCard",
    "Panel",
    "PlacesSwitch",
    "RatioSlider",
    "Unknown",
    "fold_button",
    "label",
    "primary_button",
    "quiet_button",
]
