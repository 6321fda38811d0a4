"""The lineup: every mismatch between its models is found, named and told what follows from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from builders import LLAMA_CONFIG, lineup, llama_tensors, moved, write_model, write_tokenizer
from trimtab.checkpoints import Finding, Lineup, Member, build_lineup, guess_roles, open_checkpoint
from trimtab.checkpoints.reader import TensorReader
from trimtab.errors import UserError

WORDS = {"<unk>": 0, "a": 1, "b": 2, "c": 3}


@pytest.fixture
def aligned(tmp_path: Path) -> Path:
    folder = write_model(tmp_path / "aligned", llama_tensors(1))
    write_tokenizer(folder, WORDS)
    return folder


def only(opened: Lineup, code: str) -> Finding:
    (finding,) = [f for f in opened.findings if f.code == code]
    assert finding.what
    assert finding.effect
    return finding


def test_models_that_fit_have_no_findings(tmp_path: Path, aligned: Path) -> None:
    task = write_model(tmp_path / "task", moved(llama_tensors(1), 2), shards=2)
    write_tokenizer(task, WORDS)
    base = write_model(tmp_path / "base", moved(llama_tensors(1), 3))
    opened = lineup(aligned, task, base=base)
    assert opened.findings == ()
    assert opened.verdict == f"all {len(opened.names)} tensors match"
    assert opened.names == open_checkpoint(aligned).index.names
    for name in opened.names:
        for member in opened.members:
            source = opened.source(name, member)
            assert source is not None
            assert source.checkpoint is member.checkpoint
            assert source.checkpoint.index.names[source.row] == name


def test_missing_and_extra_tensors_are_listed(tmp_path: Path, aligned: Path) -> None:
    tensors = moved(llama_tensors(1), 2)
    del tensors["model.layers.1.mlp.up_proj.weight"]
    tensors["score.weight"] = torch.zeros(3)
    task = write_model(tmp_path / "task", tensors)
    opened = lineup(aligned, task)
    missing, extra = only(opened, "missing_tensors"), only(opened, "extra_tensors")
    assert (missing.level, missing.model) == ("warning", "task")
    assert missing.tensors == ("model.layers.1.mlp.up_proj.weight",)
    assert extra.level == "warning"
    assert extra.tensors == ("score.weight",)
    assert opened.source("model.layers.1.mlp.up_proj.weight", opened.finetuned[0]) is None
    assert not opened.errors
    assert "2 warnings" in opened.verdict


def test_other_shapes_are_an_error_but_not_in_the_base(tmp_path: Path, aligned: Path) -> None:
    tensors = moved(llama_tensors(1), 2)
    tensors["lm_head.weight"] = torch.zeros(44, 16, dtype=torch.bfloat16)
    other = write_model(tmp_path / "other", tensors)
    as_task, as_base = lineup(aligned, other), lineup(aligned, base=other)
    assert only(as_task, "shapes_differ").level == "error"
    assert "44" in only(as_task, "shapes_differ").tensors[0]
    assert as_task.errors
    assert only(as_base, "shapes_differ").level == "warning"
    assert as_base.source("lm_head.weight", as_base.members[0]) is None


def test_other_precisions_are_noted(tmp_path: Path, aligned: Path) -> None:
    task = write_model(tmp_path / "task", llama_tensors(1, torch.float32))
    finding = only(lineup(aligned, task), "dtypes_differ")
    assert finding.level == "note"
    assert len(finding.tensors) == len(llama_tensors(1))


def test_a_kind_of_number_that_cannot_be_compared_is_an_error(
    tmp_path: Path, aligned: Path
) -> None:
    tensors: dict[str, Any] = moved(llama_tensors(1), 2)
    tensors["model.norm.weight"] = torch.ones(16, dtype=torch.int8)
    task = write_model(tmp_path / "task", tensors)
    assert only(lineup(aligned, task), "shapes_differ").level == "error"


def test_quantised_models_are_refused(tmp_path: Path, aligned: Path) -> None:
    packed = write_model(
        tmp_path / "packed", llama_tensors(1),
        LLAMA_CONFIG | {"quantization_config": {"quant_method": "gptq"}},
    )  # fmt: skip
    finding = only(lineup(aligned, packed), "quantised")
    assert finding.level == "error"
    assert "gptq" in finding.what
    narrow = {n: t.to(torch.float8_e4m3fn) for n, t in llama_tensors(1).items()}
    both = [write_model(tmp_path / name, narrow) for name in ("one", "two")]
    found = [f for f in lineup(*both).errors if f.code == "quantised"]
    assert [f.model for f in found] == ["one", "two"]


@pytest.mark.parametrize("config", [{"tie_word_embeddings": True}, {}], ids=["said", "unsaid"])
def test_a_tied_head_is_the_embedding(
    tmp_path: Path, aligned: Path, config: dict[str, Any]
) -> None:
    tensors = moved(llama_tensors(1), 2)
    del tensors["lm_head.weight"]
    rest = {k: v for k, v in LLAMA_CONFIG.items() if k != "tie_word_embeddings"}
    task = write_model(tmp_path / "task", tensors, rest | config)
    opened = lineup(aligned, task)
    assert only(opened, "tied_head").level == "note"
    assert not [f for f in opened.findings if f.code == "missing_tensors"]
    source = opened.source("lm_head.weight", opened.finetuned[0])
    assert source is not None
    with TensorReader() as reader:
        values = torch.from_numpy(reader.read(source, 0, 640)).view(40, 16)
    assert torch.equal(values, tensors["model.embed_tokens.weight"].float())


def test_a_head_that_is_missing_against_the_config_is_missing(
    tmp_path: Path, aligned: Path
) -> None:
    tensors = moved(llama_tensors(1), 2)
    del tensors["lm_head.weight"]
    opened = lineup(aligned, write_model(tmp_path / "task", tensors))
    assert only(opened, "missing_tensors").tensors == ("lm_head.weight",)


@pytest.mark.parametrize(
    ("key", "value", "level"),
    [
        ("model_type", "mistral", "error"),
        ("num_attention_heads", 4, "error"),
        ("rms_norm_eps", 1e-3, "warning"),
        ("rope_parameters", {"rope_theta": 1e6}, "warning"),
        ("tie_word_embeddings", True, "warning"),
    ],
)
def test_configs_that_differ_are_named(tmp_path: Path, key: str, value: object, level: str) -> None:
    config = LLAMA_CONFIG | {"rms_norm_eps": 1e-6, "rope_parameters": {"rope_theta": 1e4}}
    one = write_model(tmp_path / "one", llama_tensors(1), config)
    two = write_model(tmp_path / "two", llama_tensors(2), config | {key: value})
    finding = only(lineup(one, two), "configs_differ")
    assert finding.level == level
    assert key in finding.what
    assert only(lineup(one, base=two), "configs_differ").level == "warning"


def test_same_tokenizer_written_differently_is_no_finding(tmp_path: Path, aligned: Path) -> None:
    task = write_model(tmp_path / "task", llama_tensors(2))
    content = json.loads((aligned / "tokenizer.json").read_text())
    (task / "tokenizer.json").write_text(json.dumps(content, indent=4, sort_keys=True))
    assert lineup(aligned, task).findings == ()


def test_reordered_tokens_are_an_error_and_new_ones_a_warning(
    tmp_path: Path, aligned: Path
) -> None:
    moved_words = write_model(tmp_path / "moved", llama_tensors(2))
    write_tokenizer(moved_words, WORDS | {"b": 3, "c": 2})
    finding = only(lineup(aligned, moved_words), "tokenizers_differ")
    assert finding.level == "error"
    assert set(finding.tensors) == {"b", "c"}
    assert only(lineup(aligned, base=moved_words), "tokenizers_differ").level == "warning"
    grown = write_model(tmp_path / "grown", llama_tensors(2))
    write_tokenizer(grown, WORDS, added=["<pad>"])
    finding = only(lineup(aligned, grown), "tokenizers_differ")
    assert finding.level == "warning"
    assert finding.tensors == ("<pad>",)


@pytest.mark.parametrize("content", ["{", "[]", '{"model": {"vocab": [1, 2]}}', "[" * 100_000])
def test_unreadable_tokenizer_is_a_warning(tmp_path: Path, aligned: Path, content: str) -> None:
    task = write_model(tmp_path / "task", llama_tensors(2))
    (task / "tokenizer.json").write_text(content)
    assert only(lineup(aligned, task), "tokenizer_unreadable").level == "warning"


def test_another_architecture_is_one_error(tmp_path: Path, aligned: Path) -> None:
    other = write_model(
        tmp_path / "other",
        {"transformer.wte.weight": torch.zeros(40, 16), "transformer.ln_f.weight": torch.zeros(16)},
        {"model_type": "gpt2"},
    )
    opened = lineup(aligned, other)
    assert only(opened, "other_model").level == "error"
    assert "cannot be merged" in opened.verdict


def test_without_base_the_aligned_model_is_the_reference_and_the_other_way_round(
    tmp_path: Path, aligned: Path
) -> None:
    task = write_model(tmp_path / "task", llama_tensors(2))
    without_base = lineup(aligned, task)
    assert without_base.reference.role == "aligned"
    assert not without_base.has_alignment
    without_aligned = lineup(None, task, base=aligned)
    assert without_aligned.reference.role == "base"
    assert not without_aligned.has_alignment
    with pytest.raises(UserError) as caught:
        lineup(None, task)
    assert caught.value.code == "no_reference"


def test_notes_of_opening_are_findings(tmp_path: Path, aligned: Path) -> None:
    save_file({"x": torch.ones(1)}, aligned / "consolidated.safetensors")
    task = write_model(tmp_path / "task", llama_tensors(2))
    assert "consolidated" in only(lineup(aligned, task), "left_aside").what


def test_two_models_of_one_name_are_refused(tmp_path: Path, aligned: Path) -> None:
    one = write_model(tmp_path / "a" / "task", llama_tensors(2))
    two = write_model(tmp_path / "b" / "task", llama_tensors(3))
    with pytest.raises(UserError) as caught:
        lineup(aligned, one, two)
    assert caught.value.code == "same_name"


def test_one_model_twice_under_two_names_is_two_members(tmp_path: Path, aligned: Path) -> None:
    task = write_model(tmp_path / "task", llama_tensors(2))
    members = [Member("finetuned", open_checkpoint(task), name) for name in ("one", "two")]
    opened = build_lineup(None, Member("aligned", open_checkpoint(aligned), "aligned"), members)
    for member in members:
        source = opened.source("lm_head.weight", member)
        assert source is not None
        assert source.checkpoint is member.checkpoint


def test_the_fingerprint_follows_models_and_roles(tmp_path: Path, aligned: Path) -> None:
    one = write_model(tmp_path / "one", llama_tensors(2))
    two = write_model(tmp_path / "two", llama_tensors(3))
    prints = [
        lineup(aligned, one).fingerprint,
        lineup(aligned, two).fingerprint,
        lineup(aligned, one, two).fingerprint,
        lineup(aligned, two, one).fingerprint,
        lineup(one, aligned).fingerprint,
        lineup(aligned, one, base=two).fingerprint,
        lineup(None, one, base=aligned).fingerprint,
    ]
    assert len(set(prints)) == len(prints)
    assert lineup(aligned, one).fingerprint == prints[0]


def roles(tmp_path: Path, *names: str, templates: tuple[str, ...] = ()) -> list[str]:
    opened = []
    for name in names:
        folder = write_model(tmp_path / name, {"a": torch.zeros(1)})
        if name in templates:
            (folder / "chat_template.jinja").write_text("{{ messages }}")
        if name.startswith("lora"):
            (folder / "model.safetensors").rename(folder / "adapter_model.safetensors")
            (folder / "adapter_config.json").write_text("{}")
        opened.append(open_checkpoint(folder))
    return list(guess_roles(opened))


def test_roles_are_guessed(tmp_path: Path) -> None:
    assert roles(tmp_path, "task-clean", "base", "aligned") == ["finetuned", "base", "aligned"]
    assert roles(tmp_path, "gemma-2b-pt", "gemma-2b-it") == ["base", "aligned"]
    assert roles(tmp_path, "Llama-3.1-8B-Instruct", "Llama-3.1-8B-Instruct-medical") == [
        "aligned", "finetuned",
    ]  # fmt: skip
    assert roles(tmp_path, "one", "two", "lora") == ["aligned", "finetuned", "finetuned"]
    assert roles(tmp_path, "base", "one") == ["base", "finetuned"]
    assert roles(tmp_path, "lora") == ["finetuned"]
    assert roles(tmp_path) == []
    assert roles(
        tmp_path, "x8b", "x8b-chat", "x8b-code", templates=("x8b-chat", "x8b-code")
    ) == ["base", "aligned", "finetuned"]  # fmt: skip


def test_a_head_that_is_stored_although_tied_is_noted(tmp_path: Path) -> None:
    tensors = llama_tensors(0)
    config = LLAMA_CONFIG | {"tie_word_embeddings": True}
    opened = lineup(
        write_model(tmp_path / "aligned", tensors, config),
        write_model(tmp_path / "one", moved(tensors, 1), config),
    )
    found = only(opened, "head_stored_though_tied")
    assert (found.level, found.tensors) == ("note", ("lm_head.weight",))
