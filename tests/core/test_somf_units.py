"""Logits lie over the entries as the granularity says."""

from __future__ import annotations

import numpy as np
import pytest

from trimtab.errors import UserError
from trimtab.realign.somf_options import SomfOptions, needed_bytes, refuse_too_large
from trimtab.realign.somf_units import units_of

CONFIG = {"num_attention_heads": 4, "num_key_value_heads": 2}
Q, K, OUT = (f"model.layers.0.self_attn.{m}_proj.weight" for m in "qko")
UP = "model.layers.0.mlp.up_proj.weight"


@pytest.mark.parametrize(
    ("name", "shape", "granularity", "expected"),
    [
        (UP, (3, 2), "parameter", [[0, 1], [2, 3], [4, 5]]),
        (UP, (3, 2), "row", [[0, 0], [1, 1], [2, 2]]),
        (UP, (3, 2), "head", [[0, 0], [1, 1], [2, 2]]),
        (UP, (3, 2), "module", [[0, 0], [0, 0], [0, 0]]),
        (Q, (8, 1), "head", [[0], [0], [1], [1], [2], [2], [3], [3]]),
        (K, (4, 1), "head", [[0], [0], [1], [1]]),
        (OUT, (1, 8), "head", [[0, 0, 1, 1, 2, 2, 3, 3]]),
        (Q, (6, 1), "head", [[0], [1], [2], [3], [4], [5]]),
        ("model.norm.weight", (3,), "row", [0, 1, 2]),
    ],
)
def test_each_entry_belongs_to_its_unit(name, shape, granularity, expected) -> None:  # type: ignore[no-untyped-def]
    units = units_of(name, shape, granularity, CONFIG)
    numbers = np.arange(units.count, dtype=np.float32)
    np.testing.assert_array_equal(units.spread(numbers), expected)
    assert units.count * units.entries == np.prod(shape)


def test_a_mask_that_rescaling_would_undo_is_refused() -> None:
    with pytest.raises(UserError, match="mean"):
        SomfOptions(granularity="module", rescale="tensor").settled(1)
    assert not SomfOptions(granularity="module").settled(1).rescale
    with pytest.raises(UserError, match="TIES"):
        SomfOptions(granularity="module", merge="ties").settled(2)
    with pytest.raises(UserError, match="one fine-tuned"):
        SomfOptions(merge="single").settled(2)


def test_defaults_are_the_published_ones_and_named_so() -> None:
    assert SomfOptions().settled(1).merge == "single"
    assert (SomfOptions().settled(2).merge, SomfOptions().settled(2).scale) == (
        "task_arithmetic", 0.3,
    )  # fmt: skip
    assert SomfOptions(merge="ties").settled(2).scale == 0.4
    assert SomfOptions().mode("single") == "ours"
    assert SomfOptions(granularity="parameter").mode("dare") == "paper"
    assert SomfOptions(granularity="parameter", reference="authors").mode("dare") == "authors' code"
    assert SomfOptions(granularity="parameter").mode("ties") == "ours"


def test_what_does_not_fit_in_memory_is_refused_with_numbers() -> None:
    entries = 7_000_000_000
    needed = needed_bytes(4 * entries, entries, 1, entries, "parameter")
    assert needed > 16 * entries  # logits, gradients and two moments alone
    with pytest.raises(UserError) as caught:
        refuse_too_large(needed, 32 << 30, entries, "parameter")
    assert caught.value.code == "somf_memory"
    assert "34.4 GB are free" in caught.value.what
    assert "row" in caught.value.fix
    refuse_too_large(needed, needed, entries, "parameter")
