"""Vocabularies: every row comes from the model that has the word, and none is lost."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from safetensors.numpy import save_file
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

from trimtab.checkpoints import Source, open_checkpoint
from trimtab.errors import UserError
from trimtab.merging.settings import Tokenizer as Setting
from trimtab.merging.tokenizer_files import read_vocabulary
from trimtab.merging.vocabulary import (
    VocabularyModel,
    VocabularyPlan,
    plan_vocabulary,
)

_EMBED = "model.embed_tokens.weight"
_HEAD = "lm_head.weight"


class _Lineup:
    """Models whose row i holds 100 * model + i, in the embedding, and its negative in the head."""

    def __init__(self, root: Path):
        self.root = root
        self.models: list[VocabularyModel] = []

    def add(
        self,
        name: str,
        words: str,
        added: Sequence[str | AddedToken] = (),
        padding: int = 0,
        head: bool = True,
        input: bool = True,
        config: dict[str, Any] | None = None,
    ) -> None:
        folder = self.root / name
        folder.mkdir()
        numbers = {word: i for i, word in enumerate(words.split())}
        pairs = [(w[:-1], w[-1]) for w in numbers if len(w) > 1 and w[:-1] in numbers]
        tokenizer = Tokenizer(models.BPE(vocab=numbers, merges=pairs))
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        tokenizer.add_tokens(list(added))
        tokenizer.save(str(folder / "tokenizer.json"))
        (folder / "tokenizer_config.json").write_text(json.dumps(config or {}))
        n = tokenizer.get_vocab_size(with_added_tokens=True) + padding
        rows = np.arange(n, dtype=np.float32) + 100 * len(self.models)
        embedding = np.repeat(rows[:, None], 4, axis=1)
        tensors = {_EMBED: embedding} | ({_HEAD: -embedding} if head else {})
        save_file(tensors, folder / "model.safetensors")
        (folder / "config.json").write_text(json.dumps({"vocab_size": n}))
        self.models.append(VocabularyModel(name, folder, n, input))

    def plan(
        self, setting: dict[str, Any] | None = None, base: int | None = 0
    ) -> VocabularyPlan | None:
        tokenizer = None if setting is None else Setting.model_validate(setting)
        return plan_vocabulary(self.models, 0, base, tokenizer)

    def rows(
        self, plan: VocabularyPlan, member: int, tensor: str = _EMBED, block: int = 1000
    ) -> list[float]:
        """The first column of one model's tensor as it takes part in the merge."""
        checkpoints = [open_checkpoint(model.folder) for model in self.models]
        sources = [
            Source(c, c.index.row(tensor)) if tensor in c.index else None for c in checkpoints
        ]
        rows = plan.row_map(member, sources)
        sign = 1.0 if tensor == _EMBED else -1.0
        if rows is None:
            n = self.models[member].rows
            return (sign * (np.arange(n, dtype=np.float32) + 100 * member)).tolist()

        def fetch(part: int, first: int, last: int) -> npt.NDArray[np.float32]:
            place = checkpoints.index(rows.parts[part].checkpoint)
            assert 0 <= first < last <= self.models[place].rows
            values = sign * (np.arange(first, last, dtype=np.float32) + 100 * place)
            return np.repeat(values[:, None], 4, axis=1)

        pieces = [
            rows.read(first, min(first + block, rows.n_rows), 4, fetch)
            for first in range(0, rows.n_rows, block)
        ]
        values = np.concatenate(pieces)
        assert values.dtype == np.float32
        assert (values == values[:, :1]).all()
        return values[:, 0].tolist()


@pytest.fixture
def lineup(tmp_path: Path) -> _Lineup:
    return _Lineup(tmp_path)


def test_models_with_the_same_words_and_rows_are_left_as_they_are(lineup: _Lineup) -> None:
    lineup.add("start", "a b ab", ["<x>"], padding=2)
    lineup.add("tuned", "a b ab", ["<x>"], padding=2)
    assert lineup.plan() is None


def test_without_a_word_from_the_recipe_rows_meet_by_their_token(lineup: _Lineup) -> None:
    lineup.add("start", "a b c")
    lineup.add("one", "c a b")
    lineup.add("two", "a b c ab", ["<y>"])
    plan = lineup.plan()
    assert plan is not None
    assert dict(plan.ids) == {"a": 0, "b": 1, "c": 2, "ab": 3, "<y>": 4}
    assert plan.n_rows == 5
    # what only `two` has is its row in all of them: the change there is zero
    assert lineup.rows(plan, 0) == [0, 1, 2, 203, 204]
    assert lineup.rows(plan, 1) == [101, 102, 100, 203, 204]
    assert lineup.rows(plan, 2) == [200, 201, 202, 203, 204]
    assert lineup.rows(plan, 1, _HEAD) == [-101, -102, -100, -203, -204]
    codes = {(f.code, f.level, f.model) for f in plan.findings}
    assert codes == {
        ("vocabularies_differ", "warning", "one"),
        ("vocabularies_differ", "note", "two"),
    }


def test_rows_without_a_token_are_kept_and_new_tokens_take_their_place(lineup: _Lineup) -> None:
    lineup.add("start", "a b c", padding=4)
    lineup.add("tuned", "a b c", ["<y>"], padding=1)
    plan = lineup.plan()
    assert plan is not None
    assert plan.n_rows == 7
    # <y> is row 3 in both: trained in one, without a token in the other
    assert lineup.rows(plan, 0) == [0, 1, 2, 103, 4, 5, 6]
    assert lineup.rows(plan, 1) == [100, 101, 102, 103, 104, 5, 6]


def test_padding_that_only_one_model_has_is_not_cut_off(lineup: _Lineup) -> None:
    lineup.add("start", "a b")
    lineup.add("tuned", "a b", padding=2)
    plan = lineup.plan()
    assert plan is not None
    assert plan.n_rows == 4
    assert dict(plan.files) == {}
    assert lineup.rows(plan, 0) == [0, 1, 102, 103]
    assert lineup.rows(plan, 1) == [100, 101, 102, 103]


def test_models_without_tokenizers_meet_by_number(lineup: _Lineup) -> None:
    lineup.add("start", "a b")
    lineup.add("tuned", "a b", padding=1)
    for model in lineup.models:
        (model.folder / "tokenizer.json").unlink()
    plan = lineup.plan()
    assert plan is not None
    assert lineup.rows(plan, 0) == [0, 1, 102]
    with pytest.raises(UserError, match=r"no readable tokenizer\.json") as raised:
        lineup.plan({"source": "base"})
    assert raised.value.code == "no_tokenizer"


def test_a_model_without_a_tokenizer_is_taken_to_have_the_references(lineup: _Lineup) -> None:
    lineup.add("start", "a b")
    lineup.add("tuned", "b a")
    lineup.add("other", "a b c")
    (lineup.models[1].folder / "tokenizer.json").write_text("{")
    plan = lineup.plan({"source": "union"})
    assert plan is not None
    assert lineup.rows(plan, 1) == [100, 101, 202]
    assert [f.code for f in plan.findings if f.model == "tuned"] == ["tokenizer_unreadable"]


def test_a_union_gives_missing_rows_as_mergekit_does(lineup: _Lineup) -> None:
    lineup.add("start", "a b c d")
    lineup.add("one", "a b e f")
    lineup.add("two", "f e c")
    plan = lineup.plan({"source": "union"})
    assert plan is not None
    assert dict(plan.ids) == {t: i for i, t in enumerate("abcdef")}
    # the base's where it has the token, the only owner's, and the mean of several owners
    assert lineup.rows(plan, 0) == [0, 1, 2, 3, (102 + 201) / 2, (103 + 200) / 2]
    assert lineup.rows(plan, 1) == [100, 101, 2, 3, 102, 103]
    assert lineup.rows(plan, 2) == [0, 1, 202, 3, 201, 200]
    # without a base the mean of all owners
    plan = lineup.plan({"source": "union"}, base=None)
    assert plan is not None
    assert lineup.rows(plan, 2)[:2] == [50, 51]


def test_a_reference_that_is_not_merged_does_not_count_as_an_owner(lineup: _Lineup) -> None:
    lineup.add("a (layout)", "a b", input=False)
    lineup.add("a", "a b")
    lineup.add("other", "a")
    lineup.add("last", "c")
    plan = lineup.plan({"source": "union"}, base=None)
    assert plan is not None
    assert lineup.rows(plan, 3)[0] == (100 + 200) / 2
    assert lineup.rows(plan, 3)[1] == 101


def test_the_base_tokenizer_cuts_the_rows_to_its_words(lineup: _Lineup) -> None:
    lineup.add("start", "a b", padding=3)
    lineup.add("tuned", "c b a")
    plan = lineup.plan({"source": "base"})
    assert plan is not None
    assert plan.n_rows == 2
    assert dict(plan.files) == {}
    assert lineup.rows(plan, 0) == [0, 1]
    assert lineup.rows(plan, 1) == [102, 101]


def test_padding_rows_are_the_mean_of_all_others(lineup: _Lineup) -> None:
    lineup.add("start", "a b c", padding=1)
    lineup.add("tuned", "a b c")
    plan = lineup.plan({"source": "base", "pad_to_multiple_of": 4})
    assert plan is not None
    assert plan.n_rows == 4
    assert lineup.rows(plan, 0) == [0, 1, 2, 1]
    assert lineup.rows(plan, 1) == [100, 101, 102, 101]
    for block in (1, 2, 3):
        assert lineup.rows(plan, 1, block=block) == [100, 101, 102, 101]


def test_another_models_tokenizer_brings_its_files(lineup: _Lineup) -> None:
    lineup.add("start", "a b c")
    lineup.add("tuned", "c b x")
    (lineup.models[0].folder / "merges.txt").write_text("")
    plan = lineup.plan({"source": "tuned"})
    assert plan is not None
    assert lineup.rows(plan, 0) == [2, 1, 102]
    assert lineup.rows(plan, 1) == [100, 101, 102]
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert plan.files[name] == (lineup.models[1].folder / name).read_bytes()
    assert plan.dropped == {"merges.txt"}
    assert [plan.new_id(old) for old in range(3)] == [None, 1, 0]
    elsewhere = lineup.plan({"source": str(lineup.models[1].folder)})
    assert elsewhere is not None
    assert elsewhere.ids == plan.ids
    with pytest.raises(UserError, match=r"nobody has no readable tokenizer\.json"):
        lineup.plan({"source": "nobody"})


def test_single_tokens_take_the_row_that_the_recipe_names(lineup: _Lineup) -> None:
    lineup.add("start", "a b c")
    lineup.add("one", "a b c", ["<i>"])
    lineup.add("two", "a b c", ["<i>"])
    plan = lineup.plan(
        {
            "source": "union",
            "tokens": {
                "<i>": {"source": "two"},
                "<n>": {"source": {"kind": "model_token", "model": "one", "token": "b"}},
                "<m>": {"source": {"kind": "model_token", "model": "two", "token_id": 3}},
                "<z>": {"source": {"kind": "zero"}},
                "a": {"source": "one", "force": True},
            },
        }
    )
    assert plan is not None
    assert list(plan.ids) == ["a", "b", "c", "<i>", "<n>", "<m>", "<z>"]
    assert lineup.rows(plan, 0) == [100, 1, 2, 203, 101, 203, 0]
    assert lineup.rows(plan, 1) == [100, 101, 102, 103, 101, 203, 0]
    assert lineup.rows(plan, 2) == [100, 201, 202, 203, 101, 203, 0]


def test_a_token_that_nobody_has_is_zero_and_said(lineup: _Lineup) -> None:
    lineup.add("start", "a b")
    lineup.add("tuned", "a b")
    (lineup.root / "third").mkdir()
    Tokenizer(models.BPE(vocab={"a": 0, "q": 1}, merges=[])).save(
        str(lineup.root / "third" / "tokenizer.json")
    )
    plan = lineup.plan({"source": str(lineup.root / "third")})
    assert plan is not None
    assert lineup.rows(plan, 0) == [0, 0]
    finding = next(f for f in plan.findings if f.code == "tokens_without_row")
    assert finding.tensors == ("q",)


@pytest.mark.parametrize(
    ("token", "source"),
    [
        ("<n>", None),
        ("<n>", "one"),
        ("a", "nobody"),
        ("<n>", {"kind": "model_token", "model": "one", "token": "nothing"}),
        ("<n>", {"kind": "model_token", "model": "one", "token_id": 9}),
    ],
)
def test_a_source_that_has_no_such_row_is_named(
    lineup: _Lineup, token: str, source: object
) -> None:
    lineup.add("start", "a b")
    lineup.add("one", "a b")
    with pytest.raises(UserError) as raised:
        lineup.plan({"tokens": {token: {"source": source}}})
    assert raised.value.code == "no_such_row"
    assert f"tokenizer.tokens[{token!r}]" in str(raised.value)


def test_a_model_without_a_head_lends_no_rows_of_it(lineup: _Lineup) -> None:
    lineup.add("start", "a b")
    lineup.add("tuned", "a b c", head=False)
    lineup.add("other", "b a")
    plan = lineup.plan({"source": "union"})
    assert plan is not None
    assert lineup.rows(plan, 0, _HEAD) == [0, -1, 0]
    assert lineup.rows(plan, 0) == [0, 1, 102]
    asked = lineup.plan({"source": "union", "tokens": {"c": {"source": "tuned"}}})
    assert asked is not None
    with pytest.raises(UserError, match="lacks a tensor of the vocabulary"):
        lineup.rows(asked, 0, _HEAD)


def test_words_without_a_row_are_taken_out_of_the_base_tokenizer(lineup: _Lineup) -> None:
    lineup.add("start", "a b ab c", ["<x>"], padding=-2)
    lineup.add("tuned", "a b ab")
    plan = lineup.plan({"source": "base"})
    assert plan is not None
    assert list(plan.ids) == ["a", "b", "ab"]
    made = Tokenizer.from_buffer(plan.files["tokenizer.json"])
    assert made.get_vocab() == {"a": 0, "b": 1, "ab": 2}
    assert made.encode("ab a").ids == [2, 0]


def test_a_word_goes_with_what_its_parts_are_joined_to(lineup: _Lineup) -> None:
    lineup.add("start", "a b c ab", padding=-1)
    lineup.add("tuned", "a b c")
    plan = lineup.plan({"source": "base"})
    assert plan is not None
    assert Tokenizer.from_buffer(plan.files["tokenizer.json"]).encode("ab").tokens == ["a", "b"]


def test_words_without_a_row_in_their_model_are_not_taken_from_it(lineup: _Lineup) -> None:
    lineup.add("start", "a b")
    lineup.add("tuned", "a b c d", padding=-1)
    lineup.add("other", "d c a b")
    plan = lineup.plan({"source": "union"})
    assert plan is not None
    assert lineup.rows(plan, 1) == [100, 101, 102, 200]


def test_a_row_is_no_padding_where_the_model_has_a_word_in_it(lineup: _Lineup) -> None:
    lineup.add("start", "a b", padding=3)
    lineup.add("tuned", "a b", padding=3)
    path = lineup.models[1].folder / "tokenizer.json"
    content = json.loads(path.read_text())
    content["model"]["vocab"] = {"a": 0, "b": 4}
    path.write_text(json.dumps(content))
    plan = lineup.plan()
    assert plan is not None
    assert lineup.rows(plan, 1) == [100, 104, 102, 103, 4]


def test_the_files_made_hold_every_token_with_its_number(lineup: _Lineup) -> None:
    special = AddedToken("<s>", special=True, normalized=False, lstrip=True)
    decoder: dict[str, Any] = {"added_tokens_decoder": {"3": {"content": "<s>"}}, "eos": "<s>"}
    lineup.add("start", "a b ab", [special], config=decoder)
    lineup.add("tuned", "a b ab zz", [AddedToken("<i>", special=True, normalized=False), "ab c"])
    (lineup.models[0].folder / "added_tokens.json").write_text('{"<s>": 3}')
    plan = lineup.plan({"source": "union", "tokens": {"<n>": {"source": {"kind": "zero"}}}})
    assert plan is not None
    made = Tokenizer.from_buffer(plan.files["tokenizer.json"])
    assert made.get_vocab(with_added_tokens=True) == dict(plan.ids)
    assert made.encode("ab <i>zz").tokens == ["ab", "<i>", "zz"]
    added = made.get_added_tokens_decoder()
    assert added[3] == special
    assert added[plan.ids["<i>"]].special
    assert added[plan.ids["<n>"]] == AddedToken("<n>", special=False, normalized=True)
    config = json.loads(plan.files["tokenizer_config.json"])
    assert config["eos"] == "<s>"
    assert {int(i): e["content"] for i, e in config["added_tokens_decoder"].items()} == {
        i: t for t, i in plan.ids.items() if i >= 3
    }
    assert json.loads(plan.files["added_tokens.json"])["<n>"] == plan.ids["<n>"]
    # read back, the made tokenizer is the plan's
    folder = lineup.root / "made"
    folder.mkdir()
    (folder / "tokenizer.json").write_bytes(plan.files["tokenizer.json"])
    found = read_vocabulary(folder)
    assert found is not None
    assert found.ids == plan.ids


def test_the_fingerprint_tells_other_rows_and_files_apart(lineup: _Lineup) -> None:
    lineup.add("start", "a b")
    lineup.add("tuned", "b a c")
    first, again = lineup.plan({"source": "base"}), lineup.plan({"source": "base"})
    other = lineup.plan({"source": "base", "tokens": {"a": {"source": "tuned", "force": True}}})
    assert first is not None
    assert again is not None
    assert other is not None
    assert first.fingerprint == again.fingerprint
    assert first.fingerprint != other.fingerprint
