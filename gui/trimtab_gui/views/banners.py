"""The place for notices: one banner a topic, at most three at a time."""

from __future__ import annotations

from PySide6.QtWidgets import QVBoxLayout, QWidget

from trimtab_gui.notices import Notice
from trimtab_gui.widgets import Banner

_AT_MOST = 3


class Banners(QWidget):
    """Shows notices until they are dismissed, replaced or withdrawn."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._layout = QVBoxLayout(self)
        self._layout.setContentsMargins(14, 0, 14, 8)
        self._layout.setSpacing(6)
        self._shown: dict[str, Banner] = {}
        self.hide()

    def show_notice(self, notice: Notice) -> Banner:
        """Show a notice in the place of its topic."""
        topic = notice.topic or notice.what
        banner = self._shown.pop(topic, None)
        if banner is None:
            banner = Banner()
            banner.dismissed.connect(lambda: self.withdraw(topic))
            self._layout.addWidget(banner)
        self._shown[topic] = banner
        banner.set_message(
            notice.kind, notice.what, notice.why, notice.fix, notice.details, list(notice.actions)
        )
        while len(self._shown) > _AT_MOST:
            self.withdraw(next(iter(self._shown)))
        self.show()
        return banner

    def withdraw(self, topic: str) -> None:
        """Take the notice of a topic away."""
        banner = self._shown.pop(topic, None)
        if banner is not None:
            self._layout.removeWidget(banner)
            banner.hide()
            banner.deleteLater()
        if not self._shown:
            self.hide()

    def banner(self, topic: str) -> Banner | None:
        """Return the banner of a topic while it is shown."""
        return self._shown.get(topic)

    def shown(self) -> list[Banner]:
        """Return what is shown, the oldest first."""
        return list(self._shown.values())
