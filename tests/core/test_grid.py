"""The grid: each tensor belongs to one group, and each group to the cells of its place."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders import llama_tensors
from trimtab.checkpoints import build_grid
from trimtab.checkpoints.naming import parse

LLAMA = tuple(llama_tensors(0, layers=12))


def test_a_llama_is_laid_out_by_layer_and_module() -> None:
    grid = build_grid(LLAMA)
    assert grid.columns == ("in", *map(str, range(12)), "out")
    assert grid.rows == ("q", "k", "v", "o", "gate", "up", "down", "norm")
    assert grid.cells.shape == (8, 14)
    for column in range(1, 13):
        for row, module in enumerate(grid.rows):
            group = grid.cells[row, column]
            assert grid.modules[group] == module
            assert grid.layers[group] == column - 1
            assert grid.column_of[group] == column
    assert {grid.modules[g] for g in grid.cells[:, 0]} == {"embed"}
    assert [grid.modules[g] for g in grid.cells[:, -1]] == ["norm"] * 4 + ["head"] * 4


def test_groups_gather_what_is_named_alike() -> None:
    grid = build_grid(LLAMA)
    for row, name in enumerate(LLAMA):
        place = parse(name)
        group = grid.group_of[row]
        assert grid.labels[group] == place.label
        assert row in grid.members(int(group))
    norm = grid.labels.index("L3 · norm")
    assert [LLAMA[i] for i in grid.members(norm)] == [
        "model.layers.3.input_layernorm.weight",
        "model.layers.3.post_attention_layernorm.weight",
    ]


@pytest.mark.parametrize("names", [(), ("a",), ("x.bias", "x.weight", "y")])
def test_models_without_blocks_have_a_grid(names: tuple[str, ...]) -> None:
    grid = build_grid(names)
    assert grid.group_of.shape == (len(names),)
    assert set(grid.cells.ravel().tolist()) >= set(range(grid.n_groups))


@given(
    st.lists(
        st.builds(
            lambda stem, layer, leaf: f"{stem}layers.{layer}.{leaf}" if layer >= 0 else leaf,
            st.sampled_from(["", "model."]),
            st.integers(-3, 5),
            st.sampled_from(
                ["q_proj.weight", "mlp.x", "embed_tokens.weight", "norm.weight", "a", "b"]
            ),
        ),
        unique=True,
        max_size=20,
    )
)
def test_every_group_of_any_model_can_be_pointed_at(names: list[str]) -> None:
    grid = build_grid(names)
    drawn = set(grid.cells.ravel().tolist()) - {-1}
    assert drawn == set(range(grid.n_groups))
    for group in range(grid.n_groups):
        assert group in grid.cells[:, grid.column_of[group]]
