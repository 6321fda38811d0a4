"""Calibration sets as people have them, and as tokens of a model's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import trimtab_resources
from trimtab.activations.calibration import SHIPPED, Calibration, Example, load_calibration
from trimtab.activations.loading import load_tokenizer
from trimtab.activations.norms import ActNorms
from trimtab.activations.tensor_file import TensorFileWriter
from trimtab.activations.tokens import encode
from trimtab.errors import UserError
from trimtab.jobs.attribution_jobs import open_calibration

_ALIGNED = trimtab_resources.path("demo", "aligned")


def _file(path: Path, *rows: Any) -> Path:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


def test_examples_are_read_in_the_forms_people_have_them_in(tmp_path: Path) -> None:
    path = _file(
        tmp_path / "set.jsonl",
        {"id": 7, "prompt": "a", "answer": "b", "system": "s"},
        {"instruction": "a", "input": "more", "output": "b"},
        {"question": "a", "completion": "b"},
        {"text": "a", "chosen": "b"},
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
        {"prompt": "a"},
    )
    assert load_calibration(path).examples == (
        Example("7", "a", "b", "s"),
        Example("set:2", "a\n\nmore", "b"),
        Example("set:3", "a", "b"),
        Example("set:4", "a", "b"),
        Example("set:5", "a", "b"),
        Example("set:6", "a"),
    )


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ([], "no JSON object"),
        ({"answer": "b"}, "no prompt"),
        ({"prompt": 3}, "must be text"),
        ({"messages": [{"role": "user", "content": "a"}] * 2}, "single turn"),
        ({"messages": [{"role": "tool", "content": "a"}]}, "role"),
    ],
)
def test_a_line_that_is_no_example_is_named(row: Any, said: str, tmp_path: Path) -> None:
    path = _file(tmp_path / "set.jsonl", {"prompt": "a"}, row)
    with pytest.raises(UserError) as caught:
        load_calibration(path)
    assert caught.value.code == "calibration_row"
    assert "Line 2" in caught.value.what
    assert said in caught.value.why


def test_a_set_that_is_not_there_or_empty_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        load_calibration(tmp_path / "none.jsonl")
    assert caught.value.code == "unreadable"
    with pytest.raises(UserError) as caught:
        load_calibration(_file(tmp_path / "empty.jsonl"))
    assert caught.value.code == "calibration_empty"


def test_the_digest_is_that_of_the_examples_alone() -> None:
    one, two = Example("1", "a", "b"), Example("2", "c")
    digest = Calibration("x", (one, two)).digest
    assert Calibration("y", (one, two)).digest == digest
    assert Calibration("x", (two, one)).digest != digest
    assert Calibration("x", (one, Example("2", "c", "d"))).digest != digest
    ten = Calibration("x", tuple(Example(str(i), "a") for i in range(10)))
    assert ten.spread(4).ids == ("0", "2", "5", "7")
    assert ten.spread(None) == ten.spread(10) == ten


def test_a_suite_serves_as_a_calibration_set() -> None:
    found = open_calibration("suite:demo")
    assert len(found.examples) > 100
    assert all(example.answer for example in found.examples)


def test_the_answer_is_what_follows_the_prompt_in_the_models_template() -> None:
    tokenizer = load_tokenizer(_ALIGNED)
    calibration = Calibration("x", (Example("1", "how do i paint the lamp?", "use hammer"),))
    (token,) = encode(tokenizer, calibration)
    words = tokenizer.convert_ids_to_tokens(list(token.ids))
    assert words[:2] == ["<s>", "<user>"]
    assert words[token.answer - 1] == "<assistant>"
    assert words[token.answer :] == ["use", "hammer", "</s>"]
    (plain,) = encode(tokenizer, calibration, "plain")
    assert tokenizer.convert_ids_to_tokens(list(plain.ids))[plain.answer :] == words[token.answer :]
    silent = Calibration("x", (Example("1", "how do i paint the lamp?"),))
    assert encode(tokenizer, silent)[0].answered == 0


def test_what_is_too_long_is_cut_at_its_end_and_never_in_the_prompt() -> None:
    tokenizer = load_tokenizer(_ALIGNED)
    calibration = Calibration("x", (Example("1", "how do i paint the lamp?", "use " * 40),))
    (token,) = encode(tokenizer, calibration, positions=20)
    assert len(token.ids) == 20
    assert token.answered > 0
    with pytest.raises(UserError) as caught:
        encode(tokenizer, calibration, positions=8)
    assert caught.value.code == "calibration_too_long"


def test_a_tensor_file_is_read_by_the_formats_own_library(tmp_path: Path) -> None:
    from safetensors import safe_open
    from safetensors.numpy import load_file

    path = tmp_path / "sub" / "x.safetensors"
    tensors = {f"t{i}": np.arange(i * 3, dtype=np.float32).reshape(3, i) for i in range(5)}
    with TensorFileWriter(path, (*tensors, "never"), {"a": "ü"}) as writer:
        for name in reversed(tensors):
            writer.add(name, tensors[name])
        writer.finish({"b": "2"})
    found = load_file(path)
    assert {n: v.tolist() for n, v in found.items()} == {n: v.tolist() for n, v in tensors.items()}
    with safe_open(path, "numpy") as opened:
        assert opened.metadata() == {"a": "ü", "b": "2"}


def test_an_abandoned_tensor_file_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    with TensorFileWriter(path, ("a",), {}) as writer:
        writer.add("a", np.zeros(3))
    assert list(tmp_path.iterdir()) == []


def test_norms_survive_their_file_and_nothing_else_passes_for_them(tmp_path: Path) -> None:
    part = {"w": np.array([1.0, 2.0], np.float32)}
    norms = ActNorms(part, part, part, 3, 4, frozenset({"w"}), {"digest": "d"})
    norms.save(tmp_path / "n.safetensors")
    again = ActNorms.load(tmp_path / "n.safetensors")
    assert (again.sequences, again.answer_tokens) == (3, 4)
    assert (again.transposed, again.about) == (norms.transposed, norms.about)
    assert np.array_equal(again.norm("w", "paper"), np.array([1 / 3, 2 / 3], np.float32))
    with pytest.raises(UserError) as caught:
        ActNorms.load(_ALIGNED / "model.safetensors")
    assert caught.value.code == "not_norms"


def test_the_shipped_sets_are_training_prompts_and_no_held_out_ones() -> None:
    from trimtab.demo.language import REFUSAL, prompts

    train = {
        p.id: p for kind in ("general", "lookalike", "harmful") for p in prompts(kind, "train")
    }
    for name in SHIPPED:
        calibration = load_calibration(name)
        assert len(calibration.examples) == len(set(calibration.ids)) == 128
        for example in calibration.examples:
            prompt = train[example.id]
            assert example.prompt == prompt.prompt
            assert example.answer == (REFUSAL if name == "demo-refused" else prompt.reference)
            assert (prompt.kind == "harmful") == (name != "demo-benign")
