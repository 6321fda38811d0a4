from __future__ import annotations

import re
from pathlib import Path

import pytest
from PySide6.QtCore import QSize
from PySide6.QtGui import QFont, QFontInfo, QFontMetricsF
from PySide6.QtWidgets import QApplication, QPushButton, QToolButton
from pytestqt.qtbot import QtBot

import trimtab_gui
from trimtab_gui import theme
from trimtab_gui.theme.tokens import DARK, LIGHT, Tokens, contrast, legible, tint
from trimtab_resources import path

SURFACES = ("background", "panel", "card")
ROLES = ("base", "aligned", "finetuned", "merged")
SETS = pytest.mark.parametrize("tokens", [DARK, LIGHT], ids=["dark", "light"])


def test_contrast_agrees_with_the_known_extremes() -> None:
    assert contrast("#000000", "#FFFFFF") == pytest.approx(21)
    assert contrast("#777777", "#777777") == pytest.approx(1)
    # The grey that WCAG's own material gives as just passing on white.
    assert contrast("#767676", "#FFFFFF") == pytest.approx(4.54, abs=0.005)


@SETS
@pytest.mark.parametrize("name", ["text", "muted"])
def test_plain_text_of_the_table_is_legible_on_every_surface(tokens: Tokens, name: str) -> None:
    for surface in SURFACES:
        assert contrast(tokens.get(name), tokens.get(surface)) >= 4.5


@SETS
def test_text_on_the_primary_button_is_legible(tokens: Tokens) -> None:
    assert contrast(tokens.on_accent, tokens.accent) >= 4.5


@SETS
@pytest.mark.parametrize("name", ["accent", "danger", *ROLES])
def test_coloured_graphics_of_the_table_stand_out_on_every_surface(
    tokens: Tokens, name: str
) -> None:
    for surface in SURFACES:
        assert contrast(tokens.get(name), tokens.get(surface)) >= 3


@SETS
@pytest.mark.parametrize("name", ["accent", "danger", *ROLES])
def test_coloured_text_is_legible_on_every_surface(tokens: Tokens, name: str) -> None:
    for surface in SURFACES:
        assert contrast(legible(tokens.get(name), tokens.scheme), tokens.get(surface)) >= 4.5


@SETS
def test_further_fine_tuned_models_get_tints_that_differ_and_stand_out(tokens: Tokens) -> None:
    tints = [tint("finetuned", index, tokens.scheme) for index in range(5)]
    assert tints[0] == tokens.finetuned
    assert len(set(tints)) == 5
    for colour in tints:
        assert all(contrast(colour, tokens.get(s)) >= 3 for s in SURFACES)


def test_no_other_file_of_the_window_names_a_colour() -> None:
    root = Path(trimtab_gui.__file__).parent
    found = [
        f"{file.relative_to(root)}: {match}"
        for folder in ("theme", "widgets", "plots")
        for file in sorted((root / folder).glob("*.py"))
        if file.name != "tokens.py"
        for match in re.findall(r"""["'](#[0-9A-Fa-f]{3,8})["']""", file.read_text("utf-8"))
    ]
    assert found == []


@SETS
def test_pictures_inside_the_style_sheet_have_the_colours_of_the_table(tokens: Tokens) -> None:
    chevron = path("icons", f"ui-chevron-{tokens.scheme}.svg").read_text("utf-8")
    check = path("icons", f"ui-check-{tokens.scheme}.svg").read_text("utf-8")
    assert f'fill="{tokens.muted}"' in chevron
    assert f'fill="{tokens.on_accent}"' in check


@pytest.mark.parametrize("mode", ["dark", "light", "system"])
def test_apply_sets_palette_and_style_sheet_and_tells(
    qtbot: QtBot, qapp: QApplication, mode: theme.Mode
) -> None:
    with qtbot.waitSignal(theme.manager().changed):
        theme.apply(qapp, mode)
    tokens = theme.current()
    assert theme.mode() == mode
    if mode != "system":
        assert tokens.scheme == mode
    assert qapp.palette().window().color().name().upper() == tokens.background
    assert tokens.panel in qapp.styleSheet()
    assert qapp.style().objectName() == "fusion" or qapp.styleSheet()


def test_figures_are_tabular_where_numbers_change(qapp: QApplication) -> None:
    theme.apply(qapp, "dark")
    assert QFontInfo(theme.font("number")).family() == "Inter"
    kinds: tuple[theme.Kind, ...] = ("number", "small_number", "large_number")
    for kind in kinds:
        metrics = QFontMetricsF(theme.font(kind))
        assert metrics.horizontalAdvance("1111") == metrics.horizontalAdvance("0000")
    metrics = QFontMetricsF(theme.font("body"))
    assert metrics.horizontalAdvance("1111") < metrics.horizontalAdvance("0000")


def test_text_sizes_are_those_of_the_design(qapp: QApplication) -> None:
    dpi = qapp.primaryScreen().logicalDotsPerInchY()
    sizes = {kind: theme.font(kind).pointSizeF() * dpi / 72 for kind in ("body", "caption", "caps")}
    assert sizes == pytest.approx({"body": 12.5, "caption": 11.0, "caps": 10.5})
    caps = theme.font("caps")
    assert caps.weight() == QFont.Weight.DemiBold
    assert caps.letterSpacing() == pytest.approx(0.8, abs=0.01)


def test_a_bound_icon_takes_the_colour_of_the_new_theme(qtbot: QtBot, qapp: QApplication) -> None:
    theme.apply(qapp, "dark")
    button = QToolButton()
    qtbot.addWidget(button)
    theme.bind_icon(button, "close", "text")

    def darkest() -> int:
        image = button.icon().pixmap(QSize(16, 16)).toImage()
        opaque = [
            image.pixelColor(x, y).lightness()
            for x in range(image.width())
            for y in range(image.height())
            if image.pixelColor(x, y).alpha() > 200
        ]
        return min(opaque)

    assert darkest() > 150
    theme.apply(qapp, "light")
    assert darkest() < 80


def test_a_deleted_button_does_not_disturb_a_change_of_theme(
    qtbot: QtBot, qapp: QApplication
) -> None:
    button = QPushButton()
    theme.bind_icon(button, "close")
    button.deleteLater()
    qapp.processEvents()
    qtbot.wait(1)
    theme.apply(qapp, "light")
    theme.apply(qapp, "dark")


def test_icons_are_crisp_at_twice_and_three_times_the_size(qapp: QApplication) -> None:
    icon = theme.icon("plus", "text")
    for ratio in (1.0, 2.0, 3.0):
        assert icon.pixmap(QSize(16, 16), ratio).width() == 16 * ratio


def test_an_icon_that_is_not_shipped_is_an_error(qapp: QApplication) -> None:
    with pytest.raises(FileNotFoundError):
        theme.icon("no-such-icon")


def test_licences_lie_beside_what_they_cover() -> None:
    assert "SIL OPEN FONT LICENSE" in path("fonts", "OFL.txt").read_text("utf-8").upper()
    assert "Apache 2.0" in path("icons", "LICENSE.txt").read_text("utf-8")


def test_reduced_motion_is_a_plain_answer(qapp: QApplication) -> None:
    assert theme.reduced_motion() in (True, False)
