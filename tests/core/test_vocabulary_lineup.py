"""A lineup of models with different words: rows meet by their token, and nothing is refused."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models

from trimtab.checkpoints import Lineup, Member, build_lineup, open_checkpoint
from trimtab.merging.alignment import align
from trimtab.merging.recipe import Recipe
from trimtab.merging.settings import Tokenizer as Setting
from trimtab.merging.vocabulary import vocabulary_tensors

_TENSORS = ("model.embed_tokens.weight", "lm_head.weight")


def _model(root: Path, name: str, words: str, width: int = 4, head: bool = True) -> Path:
    folder = root / name
    folder.mkdir()
    numbers = {word: i for i, word in enumerate(words.split())}
    Tokenizer(models.BPE(vocab=numbers, merges=[])).save(str(folder / "tokenizer.json"))
    tensors = {"model.layers.0.mlp.up_proj.weight": np.zeros((3, 4), np.float32)}
    for tensor in _TENSORS[: 2 if head else 1]:
        tensors[tensor] = np.zeros((len(numbers), width), np.float32)
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    return folder


def _lineup(base: Path | None, aligned: Path | None, finetuned: Sequence[Path]) -> Lineup:
    def member(path: Path, role: Any) -> Member:
        return Member(role, open_checkpoint(path), path.name)

    return build_lineup(
        base and member(base, "base"),
        aligned and member(aligned, "aligned"),
        [member(path, "finetuned") for path in finetuned],
    )


def test_equal_vocabularies_leave_the_lineup_as_it_is(tmp_path: Path) -> None:
    lineup = _lineup(None, _model(tmp_path, "a", "x y"), [_model(tmp_path, "f", "x y")])
    same, plan = align(Recipe(), lineup)
    assert same is lineup
    assert plan is None


def test_other_words_and_lengths_are_no_longer_errors(tmp_path: Path) -> None:
    aligned = _model(tmp_path, "a", "x y")
    lineup = _lineup(
        _model(tmp_path, "b", "q"),
        aligned,
        [_model(tmp_path, "f", "y x z"), _model(tmp_path, "g", "y x")],
    )
    assert {f.code for f in lineup.errors} == {"shapes_differ", "tokenizers_differ"}
    joined, plan = align(Recipe(), lineup)
    assert plan is not None
    assert joined.errors == ()
    assert plan.n_rows == 3
    for name in _TENSORS:
        base, reference, f, g = joined.sources[name]
        assert base == lineup.sources[name][0]
        for source in (reference, f, g):
            assert source is not None
            assert source.rows is not None
            assert source.rows.n_rows == 3
    up = "model.layers.0.mlp.up_proj.weight"
    assert joined.sources[up] == lineup.sources[up]


def test_a_tied_head_has_the_rows_of_the_embedding(tmp_path: Path) -> None:
    tied = _model(tmp_path, "f", "y x z", head=False)
    (tied / "config.json").write_text(
        json.dumps({"model_type": "llama", "tie_word_embeddings": True})
    )
    joined, plan = align(Recipe(), _lineup(None, _model(tmp_path, "a", "x y"), [tied]))
    assert plan is not None
    assert joined.errors == ()
    embedding, head = (joined.sources[name][1] for name in _TENSORS)
    assert embedding is not None
    assert head is not None
    assert head.row == embedding.row
    assert head.rows is not None


def test_the_base_beside_an_aligned_model_lends_no_words(tmp_path: Path) -> None:
    base, aligned = _model(tmp_path, "b", "x y q"), _model(tmp_path, "a", "x y")
    _, plan = align(
        Recipe(tokenizer=Setting(source="union")),
        _lineup(base, aligned, [_model(tmp_path, "f", "x y")]),
    )
    assert plan is not None
    assert list(plan.ids) == ["x", "y"]


def test_another_width_stays_an_error(tmp_path: Path) -> None:
    lineup = _lineup(None, _model(tmp_path, "a", "x y"), [_model(tmp_path, "f", "x y z", width=5)])
    joined, _ = align(Recipe(), lineup)
    assert [f.code for f in joined.errors] == ["shapes_differ"]


@pytest.mark.parametrize(
    ("recipe", "merged"),
    [
        (Recipe(), True),
        (Recipe(method="karcher"), False),
        (Recipe(method="linear"), True),
        (Recipe(method="linear", parameters={"reference_ratio": 0}), False),
        (Recipe(method="nuslerp", parameters={"origin": "zero"}), False),
        (Recipe(method="nuslerp"), True),
    ],
)
def test_a_reference_that_only_gives_the_form_owns_no_words(
    tmp_path: Path, recipe: Recipe, merged: bool
) -> None:
    lineup = _lineup(None, _model(tmp_path, "a", "x y"), [_model(tmp_path, "f", "x z")])
    _, plan = align(recipe.model_copy(update={"tokenizer": Setting()}), lineup)
    assert plan is not None
    assert plan.models[0].input is merged
    assert (plan.base == 0) is merged


def test_models_without_words_are_left_as_they_are(tmp_path: Path) -> None:
    folders = []
    for name in ("a", "f"):
        (tmp_path / name).mkdir()
        save_file({"w": np.zeros(3, np.float32)}, tmp_path / name / "model.safetensors")
        folders.append(tmp_path / name)
    lineup = _lineup(None, folders[0], [folders[1]])
    assert align(Recipe(), lineup) == (lineup, None)


def test_embeddings_and_heads_are_known_by_name_and_length() -> None:
    shapes: dict[str, tuple[int, ...]] = {
        "transformer.wte.weight": (50, 8),
        "transformer.wpe.weight": (20, 8),
        "transformer.h.0.attn.c_attn.weight": (8, 24),
        "lm_head.weight": (50, 8),
        "lm_head.bias": (50,),
        "vision_tower.embed.weight": (50, 8),
        "score.weight": (2, 8),
    }
    assert vocabulary_tensors(list(shapes), list(shapes.values())) == [
        "transformer.wte.weight",
        "lm_head.weight",
        "lm_head.bias",
    ]
    assert vocabulary_tensors(["model.norm.weight"], [(8,)]) == []
