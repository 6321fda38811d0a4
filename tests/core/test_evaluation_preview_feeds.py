"""Probes laid out together must be answered as each of them is alone, whatever the model."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from activation_models import FAMILIES, make_model
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.checkpoints import open_checkpoint
from trimtab.control import Unattended
from trimtab.evaluation.preview_feeds import Feed, Group, Row, pack, pad
from trimtab.evaluation.preview_model import PreviewModel
from trimtab.evaluation.preview_reading import Questions
from trimtab.evaluation.preview_rows import Rows
from trimtab.evaluation.preview_stream import StreamedModel

VOCABULARY = 50
#: families in which a token does not see all before it, whatever their mask says
WINDOWED = {"qwen2", "mistral", "gemma2", "gemma3_text"}
#: a family that transformers has no attention for that takes other masks
EAGER = {"gptj"}
#: families whose weights transformers keeps in another form than files do
OTHERWISE_KEPT = {"gpt_neox", "mixtral", "qwen3_moe"}


def drawn(seed: int) -> list[Row]:
    """Rows of three kinds, many of which begin alike."""
    draw = random.Random(seed)

    def tokens(count: int) -> tuple[int, ...]:
        return tuple(draw.randrange(3, VOCABULARY) for _ in range(count))

    beginnings = [tokens(count) for count in (1, 3, 6)]
    rows = []
    for _ in range(9):
        ids = draw.choice(beginnings) + tokens(draw.randrange(1, 6))
        answer = tokens(draw.randrange(1, 4))
        rows += [
            Row("harmful", ids),
            Row("answer", ids + answer[:-1], answer),
            Row("choice", ids, (), (5, 6, 7)[: draw.choice((2, 3))], draw.randrange(2)),
        ]
    kinds = ("harmful", "answer", "choice")
    return sorted(rows, key=lambda row: (kinds.index(row.kind), row.ids))


def laid_out(rows: list[Row]) -> Rows:
    padded = [
        feed
        for kind in ("harmful", "answer", "choice")
        for feed in pad([row for row in rows if row.kind == kind], 0, VOCABULARY)
    ]
    packed = pack(rows, 0, VOCABULARY)
    return Rows(tuple(padded), tuple(packed), (3, 4), 9, 18, 0, "plain")


def alone(model: Any, rows: list[Row]) -> dict[str, float]:
    """The measures from one unpadded pass a row, in float64."""

    def log_p(row: Row) -> torch.Tensor:
        with torch.no_grad():
            logits = model(torch.tensor([row.ids])).logits[0, -row.keep :]
        found: torch.Tensor = logits.double().log_softmax(-1)
        return found

    odds, leads = [], []
    for row in rows:
        said = log_p(row)
        if row.kind == "harmful":
            p = said[0, [3, 4]].exp().sum()
            odds.append(float(torch.log(p / (1 - p))))
        elif row.kind == "choice":
            letters = said[0, list(row.options)].tolist()
            right = letters.pop(row.answer)
            leads.append(right - max(letters))
        else:
            steps = []
            for step, target in zip(said, row.targets, strict=True):
                others = step.clone()
                others[target] = -torch.inf
                steps.append(float(step[target] - others.max()))
            leads.append(min(steps))
    return {
        "refusal_margin": sum(odds) / len(odds),
        "task_margin": sum(leads) / len(leads),
        "task_accuracy": sum(lead > 0 for lead in leads) / len(leads),
    }


def check(made: PreviewModel | StreamedModel, family: str, expected: dict[str, float]) -> None:
    # the first time both ways are tried, afterwards one of them is gone
    for _ in range(2):
        found = made.measure(Unattended()).values
        for name, value in expected.items():
            assert found[name].value == pytest.approx(value, abs=1e-4), name
    packed = family not in WINDOWED | EAGER
    assert made.questions.packed == packed, "where it may, what begins alike goes through once"


@pytest.mark.parametrize("family", [name for name in FAMILIES if name not in OTHERWISE_KEPT])
def test_together_is_what_each_is_alone(family: str, tmp_path: Path) -> None:
    model = make_model(family, tmp_path / family)
    rows = drawn(1)
    expected = alone(model, rows)
    made = PreviewModel(model, open_checkpoint(tmp_path / family), laid_out(rows))
    check(made, family, expected)


@pytest.mark.parametrize("family", FAMILIES)
def test_block_by_block_too(family: str, tmp_path: Path) -> None:
    model = make_model(family, tmp_path / family)
    rows = drawn(1)
    made = StreamedModel(open_checkpoint(tmp_path / family), "cpu", torch.float32)
    made.ask(laid_out(rows))
    check(made, family, alone(model, rows))
    made.close()


@pytest.mark.parametrize("seed", range(3))
def test_what_rows_begin_with_alike_is_there_once(seed: int) -> None:
    rows = drawn(seed)
    (feed,) = pack(rows, 0, VOCABULARY)
    ways = {row.ids[:end] for row in rows for end in range(1, len(row.ids) + 1)}
    assert feed.ids.shape == (1, len(ways))
    assert len(ways) < sum(len(row.ids) for row in rows) / 2
    needed = {row.ids[: end + 1] for row in rows for end in range(len(row.ids))[-row.keep :]}
    assert feed.keep == len(needed)


Tokens = st.lists(st.integers(0, 3), min_size=1, max_size=12).map(tuple)


def seen(feed: Feed, group: Group, row: int, place: int) -> list[int]:
    """Return the tokens that a looked-at position sees, in the order of their positions."""
    assert group.at is not None
    number, slot = divmod(int(group.at[row, place]), feed.keep)
    slot += feed.ids.shape[1] - feed.keep
    visible = feed.mask[number, 0, slot].nonzero()[:, 0]
    order = feed.positions[number, visible].argsort()
    assert feed.positions[number, visible][order].tolist() == list(range(len(visible)))
    return [int(token) for token in feed.ids[number, visible[order]]]


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(Tokens, st.integers(1, 3)), min_size=1, max_size=40))
def test_each_looked_at_position_sees_its_own_row_up_to_it(
    given_rows: list[tuple[tuple[int, ...], int]],
) -> None:
    rows = [
        Row("answer", ids, tuple(range(min(keep, len(ids))))) for ids, keep in sorted(given_rows)
    ]
    feeds = pack(rows, 9, 4)
    found: list[list[list[int]]] = []
    for feed in feeds:
        (group,) = feed.groups
        for number in range(len(group.lengths)):
            keep = int(group.lengths[number])
            places = range(group.keep - keep, group.keep)
            found.append([seen(feed, group, number, place) for place in places])
    assert found == [
        [list(row.ids[:end]) for end in range(len(row.ids) - row.keep + 1, len(row.ids) + 1)]
        for row in rows
    ]


def test_many_rows_are_cut_into_feeds_that_are_not_too_large(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from trimtab.evaluation import preview_feeds

    monkeypatch.setattr(preview_feeds, "_TOKENS", 300)
    monkeypatch.setattr(preview_feeds, "_WIDTH", 40)
    rows = [row for seed in range(12) for row in drawn(seed) if row.kind == "harmful"]
    rows.sort(key=lambda row: row.ids)
    feeds = pack(rows, 0, VOCABULARY)
    assert len(feeds) > 1
    assert all(feed.ids.numel() <= 300 for feed in feeds)
    assert sum(len(feed.groups[0].lengths) for feed in feeds) == len(rows)


def test_a_model_that_answers_packs_otherwise_is_asked_one_row_at_a_time() -> None:
    rows = drawn(2)
    questions = Questions(laid_out(rows), torch.device("cpu"), packs=True)
    both = len(questions.feeds)

    def answers(step: float) -> list[torch.Tensor]:
        noise = torch.Generator().manual_seed(0)
        return [
            torch.randn(len(f.ids), f.keep, VOCABULARY, generator=noise) + step * f.ids[:, :1, None]
            for f in questions.feeds
        ]

    reading = questions.read(answers(0), None)
    assert len(questions.feeds) == both - 1
    assert not questions.packed
    assert all(feed.mask.dim() == 2 for feed in questions.feeds)
    assert questions.read(answers(0), None).values == reading.values
