"""Settings: gradients, filters and words mean what they mean in mergekit; nothing else is taken."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from pydantic import TypeAdapter, ValidationError

from trimtab.merging.settings import (
    Filtered,
    ModelToken,
    Setting,
    Tokenizer,
    TokenSource,
    ZeroRow,
    evaluate,
)

_setting: TypeAdapter[Any] = TypeAdapter(Setting)


def _at(text: str, tensor: str = "w", t: float = 0.0) -> object:
    return evaluate(_setting.validate_python(yaml.safe_load(text)), tensor, t)


@pytest.mark.parametrize(
    ("text", "value"), [("0.5", 0.5), ("2", 2), ("true", True), ("l1", "l1"), ("1e-5", 1e-5)]
)
def test_a_single_value_holds_everywhere(text: str, value: object) -> None:
    for t in (0.0, 0.3, 1.0):
        assert _at(text, "model.layers.3.mlp.up_proj.weight", t) == value
        assert type(_at(text, "w", t)) is type(value)


def test_a_gradient_is_linear_between_its_points() -> None:
    text = "[0, 1, 0.5]"
    for t, value in ((0, 0.0), (0.25, 0.5), (0.5, 1.0), (0.75, 0.75), (1, 0.5)):
        assert _at(text, t=t) == pytest.approx(value)
    assert _at("[0.3]", t=0.7) == pytest.approx(0.3)
    assert _at("[1e-4, '3e-4']", t=0.5) == pytest.approx(2e-4)


def test_switches_and_words_are_not_interpolated() -> None:
    assert [_at("[true, false, true]", t=t) for t in (0, 0.4, 0.5, 0.99, 1)] == [
        True, True, False, False, True,
    ]  # fmt: skip
    assert [_at("[l1, none]", t=t) for t in (0, 0.99, 1)] == ["l1", "l1", "none"]


def test_the_first_filter_that_is_part_of_the_name_counts() -> None:
    text = """
    - {filter: self_attn, value: [0, 1]}
    - {filter: attn, value: 7}
    - {filter: "*", value: 5}
    - {value: 9}
    """
    assert _at(text, "model.layers.0.self_attn.q_proj.weight", 0.25) == pytest.approx(0.25)
    assert _at(text, "h.0.attn.weight", 0.25) == 7
    assert _at(text, "mlp", 0.25) == 5


def test_a_filter_is_plain_text_and_no_pattern() -> None:
    text = "[{filter: q.proj, value: 1}]"
    assert _at(text, "q_proj") is None
    assert _at(text, "q.proj") == 1


def test_what_no_filter_matches_is_left_to_the_next_scope() -> None:
    assert _at("[{filter: mlp, value: 1}]", "norm") is None
    assert _at("[]") is None
    assert _at("{filter: mlp, value: 1}", "mlp") == 1


@pytest.mark.parametrize(
    "text", [".nan", "[.inf]", "null", "[[1]]", "[1, {value: 2}]", "{value: 1, filtre: x}", "nan"]
)
def test_anything_else_is_refused_in_one_sentence(text: str) -> None:
    with pytest.raises(ValidationError, match="write a finite number, a word") as raised:
        _setting.validate_python(yaml.safe_load(text))
    assert raised.value.error_count() == 1


def test_settings_survive_the_way_through_yaml() -> None:
    value = _setting.validate_python([{"filter": "q", "value": [0, 1.5]}, {"value": True}])
    data = _setting.dump_python(value, exclude_defaults=True)
    assert data == [{"filter": "q", "value": [0, 1.5]}, {"value": True}]
    assert value == [Filtered(filter="q", value=[0, 1.5]), Filtered(value=True)]
    assert _setting.validate_python(yaml.safe_load(yaml.safe_dump(data))) == value


def test_a_tokenizer_says_for_each_token_where_its_row_comes_from() -> None:
    tokenizer = Tokenizer.model_validate(
        {
            "source": "base",
            "tokens": {
                "<a>": {"source": "chat"},
                "<b>": {"source": {"kind": "zero"}, "force": True},
                "<c>": {"source": {"kind": "model_token", "model": "chat", "token_id": 0}},
                "<d>": {"source": {"kind": "model_token", "model": "chat", "token": "x"}},
            },
            "pad_to_multiple_of": 64,
        }
    )
    assert tokenizer.tokens["<a>"] == TokenSource(source="chat")
    assert tokenizer.tokens["<b>"] == TokenSource(source=ZeroRow(kind="zero"), force=True)
    assert tokenizer.tokens["<c>"].source == ModelToken(
        kind="model_token", model="chat", token_id=0
    )
    dumped = tokenizer.model_dump(exclude_defaults=True)
    assert Tokenizer.model_validate(yaml.safe_load(yaml.safe_dump(dumped))) == tokenizer


@pytest.mark.parametrize(
    "source",
    [
        {"kind": "model_token", "model": "a"},
        {"kind": "model_token", "model": "a", "token": "x", "token_id": 1},
        {"kind": "model_token", "model": "a", "token_id": -1},
        {"kind": "nothing"},
    ],
)
def test_a_token_source_without_a_meaning_is_refused(source: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Tokenizer.model_validate({"tokens": {"<a>": {"source": source}}})
