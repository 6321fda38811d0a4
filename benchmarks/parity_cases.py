"""What is merged both ways: mergekit documents for every method that both programs know."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from small_models import FAINT, LAYERS, LINEUPS, TOKENS

Settings = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """One merge: where it belongs in the table, whose models it takes, and the document.

    Models are named by their folder in the lineup; `lineups` are those it is tried on.
    """

    method: str
    label: str
    document: dict[str, Any]
    lineups: tuple[str, ...] = LINEUPS


def _models(**each: Settings | None) -> list[dict[str, Any]]:
    return [{"model": name, "parameters": own} if own else {"model": name}
            for name, own in each.items()]  # fmt: skip


def _whole(method: str, label: str, base: str | None, models: list[Any], **shared: Any) -> Case:
    document: dict[str, Any] = {"merge_method": method, "models": models, "dtype": "float32"}
    if base:
        document["base_model"] = base
    if shared:
        document["parameters"] = {key.rstrip("_"): value for key, value in shared.items()}
    return Case(method, label, document)


def _sliced(method: str, label: str, slices: list[Any], base: str | None, **shared: Any) -> Case:
    whole = _whole(method, label, base, [], **shared)
    del whole.document["models"]
    whole.document["slices"] = slices
    return whole


def _source(model: str, first: int, last: int, **own: Any) -> dict[str, Any]:
    source: dict[str, Any] = {"model": model, "layer_range": [first, last]}
    return source | ({"parameters": own} if own else {})


#: names of modules differ among the architectures: each filter matches in some, "*" takes the rest
BY_MODULE = [
    {"filter": "attn", "value": [0.1, 0.9, 0.4]},
    {"filter": "mlp", "value": [0.8, 0.2]},
    {"filter": "experts.1", "value": 0.3},
    {"value": 0.55},
]


def _interpolating() -> Iterator[Case]:
    three = {"base": {"weight": 0.2}, "left": {"weight": 0.3}, "right": {"weight": 0.7}}
    yield _whole("linear", "weights", None, _models(**three))
    yield _whole(
        "linear",
        "no normalising",
        None,
        _models(base={"weight": 0.7}, left={"weight": -0.2}, right={"weight": 0.6}),
        normalize=False,
    )
    yield _whole(
        "linear",
        "gradients, filters",
        None,
        _models(base={"weight": BY_MODULE}, left={"weight": [0, 0.5, 1]}, right={"weight": 0.3}),
    )
    yield _whole("linear", "base among models", "base", _models(**three))
    yield _whole("slerp", "t", "base", _models(base=None, left=None), t=0.3)
    yield _whole("slerp", "base unlisted", "base", _models(left=None), t=0.8)
    yield _whole("slerp", "t by filter", "base", _models(base=None, left=None), t=BY_MODULE)
    two = {"left": {"weight": 0.3}, "right": {"weight": 0.9}}
    yield _whole("nuslerp", "flat", None, _models(**two))
    yield _whole("nuslerp", "base", "base", _models(**two))
    yield _whole("nuslerp", "rows", "base", _models(**two), nuslerp_flatten=False)
    yield _whole(
        "nuslerp", "columns", None, _models(**two), nuslerp_flatten=False, nuslerp_row_wise=True
    )
    more = two | {"third": {"weight": 0.5}}
    yield _whole("multislerp", "flat", None, _models(**more))
    yield _whole("multislerp", "base", "base", _models(**more))
    yield _whole(
        "multislerp", "own weights", "base", _models(**more), normalize_weights=False, eps=1e-6
    )
    yield _whole("karcher", "default", None, _models(base=None, left=None, right=None))
    yield _whole(
        "karcher", "base listed", "base", _models(left=None, right=None), max_iter=20, tol=1e-6
    )
    yield _whole("nearswap", "t", "base", _models(left=None), t=0.004)
    yield _whole("arcee_fusion", "default", "base", _models(left=None))
    yield _whole("model_stock", "whole", "base", _models(left=None, right=None, third=None))
    yield _whole(
        "model_stock", "by filter", "base", _models(left=None, right=None), filter_wise=True
    )


def _task_vectors() -> Iterator[Case]:
    plain = {"left": {"weight": 0.6}, "right": {"weight": 0.4}}
    yield _whole("task_arithmetic", "weights", "base", _models(**plain))
    yield _whole(
        "task_arithmetic",
        "negative, lambda",
        "base",
        _models(left={"weight": 0.9}, right={"weight": -0.3}),
        lambda_=0.7,
    )
    yield _whole(
        "task_arithmetic",
        "gradients, filters",
        "base",
        _models(left={"weight": [1, 0, 0.5]}, right={"weight": BY_MODULE}),
        normalize=True,
    )
    for method in ("ties", "dare_linear", "dare_ties", "breadcrumbs", "breadcrumbs_ties",
                   "della", "della_linear"):  # fmt: skip
        own: Settings = {}
        if method.startswith("breadcrumbs"):
            own = {"gamma": 0.05}
        elif method.startswith("della"):
            own = {"epsilon": 0.1}
        thick, thin = {"density": 0.6} | own, {"density": 0.3} | own
        equal = _models(left={"weight": 0.6} | thick, right={"weight": 0.4} | thick)
        yield _whole(method, "default", "base", equal)
        yield _whole(
            method,
            "turned",
            "base",
            _models(
                left={"weight": 0.9} | thin,
                right={"weight": -0.3} | thick,
                third={"weight": 0.5} | thick,
            ),
            normalize=True,
            rescale=True,
            lambda_=1.3,
        )
        yield _whole(
            method,
            "turned back",
            "base",
            _models(left={"weight": 0.5} | thin, right={"weight": 0.6} | thick),
            normalize=False,
            rescale=False,
            int8_mask=True,
        )
        yield _whole(
            method,
            "gradients, filters",
            "base",
            _models(
                left={"weight": [0.2, 1], "density": [0.4, 0.7]} | own,
                right={"weight": BY_MODULE, "density": 0.5} | own,
            ),
        )
    yield _whole(
        "breadcrumbs",
        "nothing on top",
        "base",
        _models(
            left={"weight": 0.5, "density": 0.5, "gamma": 0},
            right={"weight": 0.6, "density": 0.8, "gamma": 1e-4},
        ),
    )
    yield _whole("sce", "default", "base", _models(left=None, right=None, third=None))
    yield _whole(
        "sce",
        "part",
        "base",
        _models(left=None, right=None, third=None),
        select_topk=0.4,
        int8_mask=True,
    )
    yield _whole("ram", "default", "base", _models(left=None, right=None, third=None))
    yield _whole("ram", "epsilon", "base", _models(left=None, right=None), epsilon=0.005)
    yield _whole("ramplus_tl", "default", "base", _models(left=None, right=None, third=None))
    yield _whole(
        "ramplus_tl",
        "other",
        "base",
        _models(left=None, right=None),
        r=0.5,
        alpha=0.6,
        epsilon=0.004,
    )


def _slices() -> Iterator[Case]:
    stack = [
        {"sources": [_source("left", 0, 3)]},
        {"sources": [_source("right", 1, LAYERS, scale=[{"filter": "down_proj", "value": 0.0},
                                                        {"filter": "c_proj", "value": 0.5},
                                                        {"value": 1.0}])]},
    ]  # fmt: skip
    yield _whole("passthrough", "scale", None, _models(left={"scale": BY_MODULE}))
    yield _sliced("passthrough", "stack", stack, None)
    crossed = [
        {"sources": [_source("base", 0, LAYERS), _source("left", 0, LAYERS)]},
        {"sources": [_source("base", 1, 3), _source("left", 2, LAYERS)], "parameters": {"t": 0.9}},
    ]
    yield _sliced("slerp", "slices", crossed, "base", t=BY_MODULE)
    parts = [
        {"sources": [_source("base", 0, 2), _source("left", 0, 2, weight=[0.2, 0.8], density=0.5)]},
        {"sources": [_source("base", 2, LAYERS), _source("right", 2, LAYERS, density=0.7)]},
    ]
    yield _sliced("ties", "slices", parts, "base", weight=0.5)
    uneven = [
        {"sources": [_source("left", 0, 2, weight=1.0)]},
        {
            "sources": [
                _source("left", 2, LAYERS, weight=0.5),
                _source("right", 2, LAYERS, weight=0.5),
            ]
        },
    ]
    yield _sliced("linear", "uneven slices", uneven, None)


def _points() -> Iterator[Case]:
    """Merges on lineups of their own: very small changes, and vocabularies that differ."""
    found = [
        _whole("model_stock", "faint", "base", _models(left=None, right=None)),
        _whole("sce", "faint", "base", _models(left=None, right=None)),
    ]
    for case in found:
        yield Case(case.method, case.label, case.document, (FAINT,))
    linear = _whole(
        "linear",
        "",
        "base",
        _models(
            base={"weight": 0.4}, left={"weight": 0.3}, right={"weight": 0.3}, third={"weight": 0.2}
        ),
    )
    ties = _whole(
        "ties",
        "",
        "base",
        _models(left={"weight": 0.6, "density": 0.5}, right={"weight": 0.4, "density": 0.6}),
    )
    slerp = _whole("slerp", "", "base", _models(base=None, right=None), t=0.4)
    zero = {"kind": "zero"}
    chosen = {
        "left0": {"source": "left", "force": True},
        "both0": {"source": {"kind": "model_token", "model": "right", "token": "right1"}},
        "<new>": {"source": zero},
        "t7": {"source": {"kind": "model_token", "model": "base", "token_id": 9}, "force": True},
    }
    for case, label, more in (
        (linear, "union", {"tokenizer_source": "union"}),
        (ties, "base's tokens", {"tokenizer_source": "base"}),
        (slerp, "union", {"tokenizer_source": "union"}),
        (slerp, "right's tokens", {"tokenizer_source": "right"}),
        (linear, "chosen tokens", {"tokenizer": {"source": "union", "tokens": chosen,
                                                 "pad_to_multiple_of": 32}}),
    ):  # fmt: skip
        yield Case(case.method, label, case.document | more, TOKENS)


def cases() -> tuple[Case, ...]:
    """Return all cases, by method as they are declared."""
    return (*_interpolating(), *_task_vectors(), *_slices(), *_points())


def with_paths(document: Any, folder: Any) -> Any:
    """Return a document with the models' folders for their names."""
    names = {"model", "base_model", "tokenizer_source", "source"}

    def walked(value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return {k: walked(v, k) for k, v in value.items()}
        if isinstance(value, list):
            return [walked(v) for v in value]
        if key in names and value in ("base", "left", "right", "third"):
            keyword = key in ("tokenizer_source", "source") and value == "base"
            return value if keyword else str(folder / value)
        return value

    return walked(document)
