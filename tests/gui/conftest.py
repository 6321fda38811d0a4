"""What every test of the window stands on: settings of its own and a known look."""

from __future__ import annotations

from pathlib import Path

import pytest
from PySide6 import QtCore


@pytest.fixture(autouse=True)
def own_settings(own_home: Path) -> None:
    """Point QSettings at this test's home: Qt reads XDG_CONFIG_HOME only once per process."""
    for scope in (QtCore.QSettings.Scope.UserScope, QtCore.QSettings.Scope.SystemScope):
        for form in (QtCore.QSettings.Format.NativeFormat, QtCore.QSettings.Format.IniFormat):
            QtCore.QSettings.setPath(form, scope, str(own_home / "config"))
