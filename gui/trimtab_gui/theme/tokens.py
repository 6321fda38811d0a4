"""The one table that names colours: a dark and a light set, and what is derived from them."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Literal

Scheme = Literal["dark", "light"]

PANEL_RADIUS = 10
CARD_RADIUS = 8
CONTROL_RADIUS = 6
GAP = 10
ROW_GAP = 8
PANEL_PADDING = (14, 12)

ROLES = ("base", "aligned", "finetuned", "merged")


@dataclass(frozen=True)
class Tokens:
    """Colours as ``#RRGGBB``; a role keeps its colour in every card, curve, chip and table."""

    scheme: Scheme
    background: str
    panel: str
    card: str
    line: str
    text: str
    muted: str
    accent: str
    on_accent: str
    base: str
    aligned: str
    finetuned: str
    merged: str
    danger: str

    def get(self, name: str) -> str:
        """Return the colour called ``name``; KeyError when there is none."""
        if name == "scheme" or name not in _NAMES:
            raise KeyError(name)
        return str(getattr(self, name))


DARK = Tokens(
    scheme="dark",
    background="#14171C",
    panel="#1B1F26",
    card="#222832",
    line="#2E3541",
    text="#E6EAF0",
    muted="#8D97A8",
    accent="#7AA2FF",
    on_accent="#14171C",
    base="#93A0B4",
    aligned="#35C2A5",
    finetuned="#F2A33C",
    merged="#A78BFA",
    danger="#F2777A",
)

LIGHT = Tokens(
    scheme="light",
    background="#F5F6F8",
    panel="#FFFFFF",
    card="#F7F8FA",
    line="#DFE3EA",
    text="#1C2330",
    muted="#667085",
    accent="#3B6CF6",
    on_accent="#FFFFFF",
    base="#6B7A90",
    aligned="#0F9D85",
    finetuned="#C97A10",
    merged="#7C5CE6",
    danger="#D6454A",
)

_NAMES = frozenset(field.name for field in fields(Tokens))

RGB = tuple[float, float, float]


def rgb(colour: str) -> RGB:
    """Return the three channels of ``#RRGGBB`` in 0..1."""
    return (
        int(colour[1:3], 16) / 255,
        int(colour[3:5], 16) / 255,
        int(colour[5:7], 16) / 255,
    )


def mix(one: str, other: str, share: float) -> str:
    """Return ``one`` moved by ``share`` (0..1) towards ``other``, channel by channel in sRGB."""
    pairs = zip(rgb(one), rgb(other), strict=True)
    return "#" + "".join(f"{round(255 * (a + (b - a) * share)):02X}" for a, b in pairs)


def luminance(colour: str) -> float:
    """Return the relative luminance of WCAG 2.1, section 1.4.3, in 0..1."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in rgb(colour)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    """Return the contrast ratio of WCAG 2.1, from 1 (equal) to 21 (black on white)."""
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@lru_cache(maxsize=256)
def legible(colour: str, scheme: Scheme, ratio: float = 4.5) -> str:
    """Return ``colour``, moved towards the text colour until it has ``ratio`` on every surface."""
    tokens = DARK if scheme == "dark" else LIGHT
    surfaces = (tokens.background, tokens.panel, tokens.card)
    for step in range(101):
        candidate = mix(colour, tokens.text, step / 100)
        if min(contrast(candidate, surface) for surface in surfaces) >= ratio:
            return candidate
    return tokens.text


@lru_cache(maxsize=256)
def tint(role: str, index: int, scheme: Scheme) -> str:
    """Return a role's colour; further fine-tuned models get tints that still read as a line."""
    tokens = DARK if scheme == "dark" else LIGHT
    colour = tokens.get(role)
    if index <= 0:
        return colour
    # Alternate towards text and towards the panel so that neighbours in a list stay apart.
    towards = tokens.text if index % 2 else tokens.panel
    share = min(0.3 + 0.15 * ((index - 1) // 2), 0.6)
    return legible(mix(colour, towards, share), scheme, 3.0)
