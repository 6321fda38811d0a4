"""The job that measures a merge which is not saved, while its ratios are moved."""

from __future__ import annotations

import sys
from typing import Any

from trimtab.control import Control
from trimtab.jobs.common import chosen_devices
from trimtab.jobs.params import PreviewParams


def preview(params: PreviewParams, control: Control) -> dict[str, Any]:
    """Measure a recipe that is not merged; what that needs stays loaded for the next time."""
    from trimtab.evaluation import preview as measured

    device = chosen_devices(params.device)[0]
    request = measured.Request(
        params.recipe, params.suite, params.count, params.seed, device, params.against
    )
    return measured.preview(request, control, _let_chat_go)


def _let_chat_go() -> None:
    """Let go of the models that wait for the next question."""
    chat = sys.modules.get("trimtab.evaluation.chat")
    if chat is not None:
        chat.release()
