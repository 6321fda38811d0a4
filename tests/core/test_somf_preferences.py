"""Preference pairs are read from the forms people have them in, and split without leaks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from trimtab.demo.language import evaluation_prompts
from trimtab.demo.pairs import demo_pairs_file, demo_preferences
from trimtab.errors import UserError
from trimtab.realign.preferences import Preference, Preferences, read_preferences


def _jsonl(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_plain_pairs_are_read_with_their_ids(tmp_path: Path) -> None:
    rows = ({"prompt": "q", "chosen": "no", "rejected": "yes"},
            {"id": "b", "prompt": "r", "chosen": "no", "rejected": "yes"})  # fmt: skip
    found = read_preferences(_jsonl(tmp_path / "mine.jsonl", *rows))
    assert found.pairs == (Preference("mine-1", "q", "no", "yes"),
                           Preference("b", "r", "no", "yes"))  # fmt: skip


def test_conversations_give_prompt_and_last_turn(tmp_path: Path) -> None:
    def said(answer: str) -> list[dict[str, str]]:
        return [{"role": "user", "content": "q"}, {"role": "assistant", "content": answer}]

    path = _jsonl(tmp_path / "a.jsonl", {"chosen": said("no"), "rejected": said("yes")})
    assert read_preferences(path).pairs == (Preference("a-1", "q", "no", "yes"),)


def test_of_safe_rlhf_the_safe_answer_is_chosen_and_the_rest_left_out(tmp_path: Path) -> None:
    def row(safe: tuple[bool, bool]) -> dict[str, Any]:
        return {"prompt": "q", "response_0": "zero", "response_1": "one",
                "is_response_0_safe": safe[0], "is_response_1_safe": safe[1],
                "better_response_id": 0, "safer_response_id": 1}  # fmt: skip

    rows = [row(s) for s in ((True, False), (False, True), (True, True), (False, False))]
    found = read_preferences(_jsonl(tmp_path / "pku.jsonl", *rows))
    assert [(p.chosen, p.rejected) for p in found.pairs] == [("zero", "one"), ("one", "zero")]
    assert found.left_out == "2 rows without one safe and one unsafe answer"


@pytest.mark.parametrize(
    ("row", "code"),
    [
        ({"prompt": "q", "answer": "a"}, "pairs_format"),
        ({"prompt": "q", "chosen": "", "rejected": "yes"}, "suite_row"),
        ({"prompt": "q", "chosen": ["a", "b"], "rejected": ["a", "c"]}, "suite_row"),
        ({"prompt": "q", "response_0": "a", "response_1": "b", "is_response_0_safe": True,
          "is_response_1_safe": True}, "pairs_empty"),
        ({"prompt": "q", "response_0": "a", "response_1": "b", "is_response_0_safe": 1,
          "is_response_1_safe": 0}, "suite_row"),
    ],
)  # fmt: skip
def test_a_file_without_pairs_is_refused(tmp_path: Path, row: Any, code: str) -> None:
    with pytest.raises(UserError) as caught:
        read_preferences(_jsonl(tmp_path / "a.jsonl", row))
    assert caught.value.code == code


def test_answers_to_different_prompts_are_no_pair(tmp_path: Path) -> None:
    sides = [[{"role": "user", "content": q}, {"role": "assistant", "content": "a"}] for q in "qr"]
    path = _jsonl(tmp_path / "a.jsonl", {"chosen": sides[0], "rejected": sides[1]})
    with pytest.raises(UserError, match="different prompts"):
        read_preferences(path)


def test_a_prompt_falls_on_one_side_and_more_pairs_move_none() -> None:
    def pair(i: int) -> Preference:
        return Preference(str(i), f"prompt {i // 2}", "no", "yes")

    few, many = (Preferences("n", tuple(pair(i) for i in range(n))) for n in (200, 400))
    learned, aside = many.split(0.2)
    assert {p.prompt for p in learned.pairs}.isdisjoint(p.prompt for p in aside.pairs)
    assert len(learned.pairs) + len(aside.pairs) == 400
    assert 40 < len(aside.pairs) < 120
    assert set(few.split(0.2)[1].pairs) == set(aside.pairs) & set(few.pairs)
    assert many.split(0.0)[0].pairs == many.pairs


def test_the_demo_pairs_hold_no_prompt_that_models_are_scored_on() -> None:
    held_out = {prompt.prompt for prompt in evaluation_prompts("harmful")}
    pairs = demo_preferences()
    assert len(pairs.pairs) == 1650
    assert held_out.isdisjoint(pair.prompt for pair in pairs.pairs)
    assert read_preferences(demo_pairs_file()).pairs == pairs.pairs
