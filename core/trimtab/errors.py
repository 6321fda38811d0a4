"""One class for everything a user can cause and can mend."""

from __future__ import annotations

from collections.abc import Mapping


class UserError(Exception):
    """Something the user can understand and act on.

    `code` is stable and the same in the window, the command and the job protocol; `what` says
    what happened, `why` gives the reason, `fix` says what to do about it. `details` may carry a
    longer text that the window keeps folded.
    """

    def __init__(self, code: str, what: str, why: str = "", fix: str = "", details: str = ""):
        super().__init__(what)
        self.code = code
        self.what = what
        self.why = why
        self.fix = fix
        self.details = details

    def __str__(self) -> str:
        return " ".join(part for part in (self.what, self.why, self.fix) if part)

    def to_dict(self) -> dict[str, str]:
        """Return the JSON form that the job protocol and `--json` print."""
        return {
            "code": self.code,
            "what": self.what,
            "why": self.why,
            "fix": self.fix,
            "details": self.details,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, str]) -> UserError:
        """Rebuild an error from `to_dict`."""
        return cls(
            data["code"],
            data["what"],
            data.get("why", ""),
            data.get("fix", ""),
            data.get("details", ""),
        )
