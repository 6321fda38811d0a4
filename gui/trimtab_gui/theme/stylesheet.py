"""The style sheet and the palettes of the window, built from the tokens."""

from __future__ import annotations

from PySide6.QtGui import QColor, QPalette

from trimtab_gui.theme.tokens import CONTROL_RADIUS, Tokens, legible, mix
from trimtab_resources import path

_SHEET = """
QWidget {{ color: {text}; }}
QMainWindow, QDialog, QMessageBox, QFileDialog, QWidget#root {{ background: {background}; }}
QToolTip {{ background: {card}; color: {text}; border: 1px solid {line}; padding: 6px 8px; }}
QLabel {{ background: transparent; }}
QLabel[tone="muted"] {{ color: {muted}; }}
QLabel[tone="accent"] {{ color: {accent_text}; }}
QLabel[tone="danger"] {{ color: {danger_text}; }}
QLabel[tone="base"] {{ color: {base_text}; }}
QLabel[tone="aligned"] {{ color: {aligned_text}; }}
QLabel[tone="finetuned"] {{ color: {finetuned_text}; }}
QLabel[tone="merged"] {{ color: {merged_text}; }}

QPushButton {{
  background: {card}; border: 1px solid {line}; border-radius: {r}px;
  padding: 5px 12px; min-height: 18px;
}}
QPushButton:hover {{ background: {hover}; }}
QPushButton:pressed {{ background: {line}; }}
QPushButton:disabled {{ color: {disabled}; }}
QPushButton:focus, QToolButton:focus {{ border: 1px solid {accent}; }}
QPushButton[kind="primary"] {{
  background: {accent}; color: {on_accent}; border: 1px solid {accent};
  font-weight: 600; padding: 7px 16px;
}}
QPushButton[kind="primary"]:hover {{
  background: {accent_hover}; border-color: {accent_hover};
}}
QPushButton[kind="primary"]:pressed {{ background: {accent_down}; border-color: {accent_down}; }}
QPushButton[kind="primary"]:focus {{ border: 1px solid {text}; }}
QPushButton[kind="primary"]:disabled {{
  background: {line}; border-color: {line}; color: {muted};
}}
QPushButton[kind="link"] {{
  background: transparent; border: 1px solid transparent; color: {accent_text}; padding: 3px 6px;
}}
QPushButton[kind="link"]:hover {{ background: {hover}; }}
QPushButton[kind="link"]:focus {{ border: 1px solid {accent}; }}
QToolButton {{
  background: transparent; border: 1px solid transparent; border-radius: {r}px; padding: 4px;
}}
QToolButton:hover {{ background: {hover}; }}
QToolButton:pressed, QToolButton:checked {{ background: {line}; }}
QDialogButtonBox {{ dialogbuttonbox-buttons-have-icons: 0; }}
QToolButton[kind="fold"], QToolButton[kind="fold"]:checked {{
  padding: 1px 3px 1px 0; background: transparent;
}}
QToolButton::menu-indicator {{ image: none; width: 0; }}

QLineEdit, QPlainTextEdit, QTextEdit, QTextBrowser, QSpinBox, QDoubleSpinBox, QComboBox {{
  background: {card}; border: 1px solid {line}; border-radius: {r}px; padding: 4px 8px;
  selection-background-color: {accent}; selection-color: {on_accent};
}}
QLineEdit:focus, QPlainTextEdit:focus, QTextEdit:focus, QTextBrowser:focus, QSpinBox:focus,
QDoubleSpinBox:focus, QComboBox:focus {{ border: 1px solid {accent}; }}
QLineEdit:disabled, QSpinBox:disabled, QDoubleSpinBox:disabled, QComboBox:disabled {{
  color: {disabled};
}}
QLineEdit[kind="inplace"] {{ padding: 0 4px; border-radius: 4px; }}
QComboBox {{ min-height: 20px; }}
QComboBox::drop-down {{ border: none; width: 22px; }}
QComboBox::down-arrow {{ image: url("{chevron}"); width: 14px; height: 14px; }}
QComboBox QAbstractItemView {{
  background: {card}; border: 1px solid {line}; selection-background-color: {hover};
  selection-color: {text}; outline: none; padding: 4px;
}}
QSpinBox::up-button, QSpinBox::down-button,
QDoubleSpinBox::up-button, QDoubleSpinBox::down-button {{ width: 0; border: none; }}

QCheckBox, QRadioButton {{ spacing: 8px; background: transparent; }}
QCheckBox::indicator {{
  width: 13px; height: 13px; border-radius: 4px;
  border: 1px solid {outline}; background: {background};
}}
QCheckBox::indicator:checked {{
  background: {accent}; border-color: {accent}; image: url("{check}");
}}
QCheckBox::indicator:focus, QRadioButton::indicator:focus {{ border-color: {text}; }}
QRadioButton::indicator {{
  width: 13px; height: 13px; border-radius: 7px;
  border: 1px solid {outline}; background: {background};
}}
QRadioButton::indicator:checked {{ background: {accent}; border: 1px solid {accent}; }}

QMenuBar {{ background: {background}; color: {text}; border: none; }}
QMenuBar::item {{ background: transparent; padding: 4px 9px; border-radius: 4px; }}
QMenuBar::item:selected {{ background: {card}; }}
QMenu {{ background: {card}; border: 1px solid {line}; padding: 5px; }}
QMenu::item {{ padding: 5px 22px 5px 10px; border-radius: 4px; }}
QMenu::item:selected {{ background: {hover}; }}
QMenu::item:disabled {{ color: {disabled}; }}
QMenu::icon {{ padding-left: 8px; }}
QMenu::separator {{ height: 1px; background: {line}; margin: 5px 6px; }}

QScrollBar:vertical {{ background: transparent; width: 10px; margin: 0; }}
QScrollBar:horizontal {{ background: transparent; height: 10px; margin: 0; }}
QScrollBar::handle {{ background: {line}; border-radius: 3px; margin: 2px; }}
QScrollBar::handle:vertical {{ min-height: 28px; }}
QScrollBar::handle:horizontal {{ min-width: 28px; }}
QScrollBar::handle:hover {{ background: {outline}; }}
QScrollBar::add-line, QScrollBar::sub-line {{ width: 0; height: 0; }}
QScrollBar::add-page, QScrollBar::sub-page {{ background: transparent; }}
QScrollArea {{ background: transparent; border: none; }}
QScrollArea > QWidget > QWidget {{ background: transparent; }}

QAbstractItemView {{
  background: {panel}; alternate-background-color: {card}; border: 1px solid {line};
  border-radius: {r}px; gridline-color: {line}; outline: none;
  selection-background-color: {hover}; selection-color: {text};
}}
QAbstractItemView[kind="plain"] {{ background: transparent; border: none; }}
QTableView::item {{ padding: 0 8px; }}
QTableView::item:selected {{ background: {hover}; color: {text}; }}
QAbstractScrollArea::corner {{ background: transparent; border: none; }}
QHeaderView {{ background: {panel}; border: none; }}
QHeaderView::section {{
  background: {panel}; color: {muted}; border: none; border-bottom: 1px solid {line};
  padding: 5px 8px;
}}
QTableCornerButton::section {{ background: {panel}; border: none; }}

QDockWidget {{ color: {muted}; }}
QDockWidget::title {{ background: {background}; padding: 6px 10px; }}
QMainWindow::separator {{ background: {background}; width: 10px; height: 10px; }}
QMainWindow::separator:hover {{ background: {line}; }}
QSplitter::handle {{ background: transparent; }}
QSplitter::handle:hover {{ background: {line}; }}
QStatusBar {{ background: {background}; color: {muted}; }}
QStatusBar::item {{ border: none; }}
QTabWidget::pane {{ border: 1px solid {line}; border-radius: {r}px; }}
QTabBar::tab {{ background: transparent; color: {muted}; padding: 6px 12px; border: none; }}
QTabBar::tab:selected {{ color: {text}; border-bottom: 2px solid {accent}; }}
QTabBar::tab:focus {{ color: {accent_text}; }}
QProgressBar {{
  background: {line}; border: none; border-radius: 3px; max-height: 6px; text-align: center;
}}
QProgressBar::chunk {{ background: {accent}; border-radius: 3px; }}
QGroupBox {{ border: 1px solid {line}; border-radius: {r}px; margin-top: 10px; padding: 8px; }}
QGroupBox::title {{ color: {muted}; subcontrol-origin: margin; left: 10px; }}
QFrame[frameShape="4"], QFrame[frameShape="5"] {{ color: {line}; }}
"""


def stylesheet(tokens: Tokens) -> str:
    """Return the application style sheet; font sizes stay with the fonts, so that they may be half
    pixels."""
    values = {name: tokens.get(name) for name in _USED}
    for role in ("accent", "danger", "base", "aligned", "finetuned", "merged"):
        values[f"{role}_text"] = legible(tokens.get(role), tokens.scheme)
    return _SHEET.format(
        **values,
        r=CONTROL_RADIUS,
        hover=mix(tokens.card, tokens.muted, 0.16),
        accent_hover=mix(tokens.accent, tokens.text, 0.14),
        accent_down=mix(tokens.accent, tokens.background, 0.14),
        disabled=mix(tokens.muted, tokens.card, 0.35),
        outline=mix(tokens.muted, tokens.card, 0.3),
        chevron=path("icons", f"ui-chevron-{tokens.scheme}.svg").as_posix(),
        check=path("icons", f"ui-check-{tokens.scheme}.svg").as_posix(),
    )


_USED = ("background", "panel", "card", "line", "text", "muted", "accent", "on_accent")


def palette(tokens: Tokens) -> QPalette:
    """Return the Fusion palette, for everything that a style sheet does not reach."""
    group = QPalette.ColorGroup
    role = QPalette.ColorRole
    result = QPalette()
    pairs = {
        role.Window: tokens.background,
        role.WindowText: tokens.text,
        role.Base: tokens.card,
        role.AlternateBase: tokens.panel,
        role.ToolTipBase: tokens.card,
        role.ToolTipText: tokens.text,
        role.PlaceholderText: tokens.muted,
        role.Text: tokens.text,
        role.Button: tokens.card,
        role.ButtonText: tokens.text,
        role.BrightText: tokens.danger,
        role.Light: mix(tokens.card, tokens.text, 0.1),
        role.Midlight: tokens.line,
        role.Mid: tokens.line,
        role.Dark: tokens.line,
        role.Shadow: tokens.background,
        role.Highlight: tokens.accent,
        role.HighlightedText: tokens.on_accent,
        role.Link: legible(tokens.accent, tokens.scheme),
        role.LinkVisited: legible(tokens.merged, tokens.scheme),
        role.Accent: tokens.accent,
    }
    for key, colour in pairs.items():
        result.setColor(key, QColor(colour))
    faint = QColor(mix(tokens.muted, tokens.card, 0.35))
    for key in (role.WindowText, role.Text, role.ButtonText):
        result.setColor(group.Disabled, key, faint)
    return result
