"""Extracting an adapter: the delta's best low-rank part, as PEFT loads it, with honest errors."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM

from builders import LLAMA_CONFIG, lineup, llama_tensors, moved, tree, write_model
from trimtab.checkpoints import Lineup, open_checkpoint
from trimtab.checkpoints.reader import TensorReader
from trimtab.control import JobCancelled, Unattended
from trimtab.errors import UserError
from trimtab.lora.decompose import decompose, squared_error, squared_norm
from trimtab.lora.extract import ExtractOptions, extract, pair

transformers.logging.set_verbosity_error()

GPT2 = {"model_type": "gpt2", "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32,
        "vocab_size": 40, "architectures": ["GPT2LMHeadModel"]}  # fmt: skip
QWEN2 = LLAMA_CONFIG | {"model_type": "qwen2"}
MIXTRAL = LLAMA_CONFIG | {"model_type": "mixtral", "num_local_experts": 4}
GPT_OSS = LLAMA_CONFIG | {"model_type": "gpt_oss", "num_local_experts": 4,
                          "intermediate_size": 16}  # fmt: skip

Pair = tuple[Path, Path]


@pytest.fixture
def models(tmp_path: Path) -> Callable[..., Pair]:
    """Make a reference with random weights and a copy of it with a rank-8 change everywhere."""

    def build(config: dict[str, Any], rank: int = 8, only: str = "") -> Pair:
        torch.manual_seed(3)
        rest = {k: v for k, v in config.items() if k != "model_type"}
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(config["model_type"], **rest))
        model.save_pretrained(tmp_path / "reference")
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if only not in name:
                    continue
                if parameter.ndim == 1:
                    parameter.add_(torch.randn_like(parameter) * 0.1)
                else:
                    *many, rows, columns = parameter.shape
                    b, a = torch.randn(*many, rows, rank), torch.randn(*many, rank, columns)
                    parameter.add_(b @ a * 0.02)
        model.save_pretrained(tmp_path / "tuned")
        return tmp_path / "reference", tmp_path / "tuned"

    return build


def make(models: Pair, output: Path, **options: Any) -> dict[str, Any]:
    reference, tuned = models
    opened = pair(open_checkpoint(tuned), open_checkpoint(reference))
    return extract(opened, ExtractOptions(**options), output, Unattended())


def stored(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def merged_by_peft(reference: Path, adapter: Path, output: Path) -> dict[str, torch.Tensor]:
    model = AutoModelForCausalLM.from_pretrained(reference, dtype=torch.float32)
    with warnings.catch_warnings():  # whatever is missing in the adapter would be an error
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        warnings.filterwarnings("ignore", "Model (has|with) `tie_word_embeddings=True`")
        merged = PeftModel.from_pretrained(model, adapter).merge_and_unload()
    merged.save_pretrained(output)
    return stored(output)


def read_by_us(opened: Lineup) -> dict[str, torch.Tensor]:
    index = opened.reference.checkpoint.index
    found = {}
    with TensorReader() as reader:
        for row, name in enumerate(index.names):
            source = opened.source(name, opened.finetuned[0])
            assert source is not None
            values = reader.read(source, 0, int(index.numel[row]))
            found[name] = torch.from_numpy(values).view(index.shapes[row])
    return found


EVERYTHING = {"embeddings": True, "whole": True, "dtype": "float32"}


@pytest.mark.parametrize(
    ("config", "rank"),
    [(LLAMA_CONFIG, 8), (LLAMA_CONFIG | {"tie_word_embeddings": True}, 8), (QWEN2, 8), (GPT2, 8),
     (MIXTRAL, 8), (GPT_OSS, 8), (LLAMA_CONFIG, 12)],
    ids=["llama", "tied", "qwen2", "gpt2", "mixtral", "gpt-oss", "more than there is"],
)  # fmt: skip
def test_a_change_of_rank_8_comes_back_whole(
    config: dict[str, Any], rank: int, models: Callable[..., Pair], tmp_path: Path
) -> None:
    reference, tuned = models(config)
    report = make((reference, tuned), tmp_path / "adapter", rank=rank, **EVERYTHING)
    assert report["error"] < 2e-6
    left = set(report["left_out"])
    assert not left or config is GPT_OSS
    wanted = stored(tuned) | {name: stored(reference)[name] for name in left}
    for found in (
        merged_by_peft(reference, tmp_path / "adapter", tmp_path / "merged"),
        read_by_us(lineup(reference, tmp_path / "adapter")),
    ):
        assert found.keys() == wanted.keys()
        for name, tensor in wanted.items():
            scale = float(tensor.abs().max())
            assert float((found[name] - tensor).abs().max()) <= 3e-6 * scale, name


@pytest.mark.parametrize("rank", [3, 8])  # where what is cut off counts, and where rounding does
def test_reported_errors_are_those_of_the_dense_computation(
    rank: int, models: Callable[..., Pair], tmp_path: Path
) -> None:
    reference, tuned = models(LLAMA_CONFIG)
    report = make((reference, tuned), tmp_path / "adapter", rank=rank)
    found = read_by_us(lineup(reference, tmp_path / "adapter"))
    before, after = stored(reference), stored(tuned)
    assert len(report["targets"]) == 14
    lost = total = 0.0
    for name, target in report["targets"].items():
        assert target["rank"] == rank
        wanted = after[name] - before[name]
        _, s, _ = torch.linalg.svd(wanted.double())
        best = float((s[rank:] ** 2).sum().sqrt() / wanted.double().norm())
        error = (found[name].double() - after[name]).norm() / wanted.double().norm()
        assert target["error"] == pytest.approx(float(error), rel=1e-3)
        assert target["norm"] == pytest.approx(float(wanted.norm()), rel=1e-5)
        assert best * 0.999 <= target["error"] <= best + 0.005  # bf16 costs a little
        lost += (target["error"] * target["norm"]) ** 2
        total += target["norm"] ** 2
    assert report["error"] == pytest.approx(math.sqrt(lost / total))
    assert {why["why"] for why in report["left_out"].values()} == {
        "belongs to the vocabulary", "is no matrix",
    }  # fmt: skip
    for name, values in found.items():
        if name not in report["targets"]:
            assert torch.equal(values, before[name])
    written = json.loads((tmp_path / "adapter" / "trimtab-report.json").read_text())
    assert written["targets"] == report["targets"]


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_factors_have_the_dtype_asked_for(
    dtype: str, models: Callable[..., Pair], tmp_path: Path
) -> None:
    made = models(LLAMA_CONFIG)
    make(made, tmp_path / "adapter", rank=4, dtype=dtype)
    tensors = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {getattr(torch, dtype)}
    assert not lineup(made[0], tmp_path / "adapter").errors


def test_energy_gives_each_matrix_the_rank_it_needs(tmp_path: Path) -> None:
    before = llama_tensors(1, torch.float32)
    after = dict(before)
    ranks = {"q_proj": 1, "k_proj": 2, "up_proj": 5, "down_proj": 3}
    generator = torch.Generator().manual_seed(0)
    for name, tensor in before.items():
        for leaf, rank in ranks.items():
            if leaf in name:
                b = torch.linalg.qr(torch.randn(tensor.shape[0], rank, generator=generator)).Q
                a = torch.linalg.qr(torch.randn(tensor.shape[1], rank, generator=generator)).Q
                after[name] = tensor + b @ a.T * 0.1
    made = write_model(tmp_path / "reference", before), write_model(tmp_path / "tuned", after)
    report = make(made, tmp_path / "adapter", rank=5, energy=0.999, dtype="float32")
    for name, target in report["targets"].items():
        assert target["rank"] == ranks[name.split(".")[-2]]
        assert target["error"] < 1e-5
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert config["r"] == config["lora_alpha"] == 5
    assert config["target_modules"] == ["down_proj", "k_proj", "q_proj", "up_proj"]
    merged = merged_by_peft(made[0], tmp_path / "adapter", tmp_path / "merged")
    for name, tensor in after.items():
        torch.testing.assert_close(merged[name], tensor, rtol=0, atol=1e-6)
    assert report["unchanged"] == len(before) - len(report["targets"])


def test_only_what_changed_is_a_target(models: Callable[..., Pair], tmp_path: Path) -> None:
    made = models(LLAMA_CONFIG, only="layers.1.self_attn.q_proj")
    make(made, tmp_path / "adapter", rank=8)
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert config["target_modules"] == ["model.layers.1.self_attn.q_proj"]
    assert config["base_model_name_or_path"] == str(made[0])
    assert config["modules_to_save"] is None
    assert len(load_file(tmp_path / "adapter" / "adapter_model.safetensors")) == 2
    assert not lineup(made[0], tmp_path / "adapter").errors


@pytest.mark.parametrize("config", [MIXTRAL, GPT_OSS], ids=["mixtral", "gpt-oss"])
@pytest.mark.parametrize("only", ["layers.1.mlp.experts.down_proj", "gate_up_proj", "mlp"])
def test_experts_that_did_not_change_keep_their_weights(
    config: dict[str, Any], only: str, models: Callable[..., Pair], tmp_path: Path
) -> None:
    reference, tuned = models(config, rank=3, only=only)
    report = make((reference, tuned), tmp_path / "adapter", rank=4, energy=0.9999, dtype="float32")
    wanted = stored(tuned) | {name: stored(reference)[name] for name in report["left_out"]}
    for found in (
        merged_by_peft(reference, tmp_path / "adapter", tmp_path / "merged"),
        read_by_us(lineup(reference, tmp_path / "adapter")),
    ):
        for name, tensor in wanted.items():
            torch.testing.assert_close(found[name], tensor, rtol=0, atol=3e-6)
    assert {t["rank"] for t in report["targets"].values() if t["norm"]} == {3}


def test_task_vector_of_an_adapter_can_be_extracted_again(
    models: Callable[..., Pair], tmp_path: Path
) -> None:
    made = models(LLAMA_CONFIG)
    make(made, tmp_path / "first", rank=6, dtype="float32")
    opened = lineup(made[0], tmp_path / "first")
    report = extract(
        opened, ExtractOptions(rank=6, dtype="float32"), tmp_path / "second", Unattended()
    )
    assert report["error"] < 2e-6
    on_top = pair(
        open_checkpoint(made[0]), open_checkpoint(made[0]), open_checkpoint(tmp_path / "first")
    )
    again = extract(
        on_top, ExtractOptions(rank=6, dtype="float32"), tmp_path / "third", Unattended()
    )
    assert again["targets"] == report["targets"]


def test_same_seed_gives_the_same_bytes(models: Callable[..., Pair], tmp_path: Path) -> None:
    made = models(LLAMA_CONFIG)
    names = ("one", "two")
    for name in names:
        make(made, tmp_path / name, rank=4)
    one, two = (tree(tmp_path / name) for name in names)
    assert one["adapter_model.safetensors"] == two["adapter_model.safetensors"]
    assert one["adapter_config.json"] == two["adapter_config.json"]


class Stopping(Unattended):
    def __init__(self, after: int):
        self.left = after

    def check(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise JobCancelled


@pytest.mark.parametrize("after", [0, 5, 20])
def test_cancelled_extraction_leaves_nothing(
    after: int, models: Callable[..., Pair], tmp_path: Path
) -> None:
    reference, tuned = models(LLAMA_CONFIG)
    there = {path.name for path in tmp_path.iterdir()}
    opened = pair(open_checkpoint(tuned), open_checkpoint(reference))
    with pytest.raises(JobCancelled):
        extract(opened, ExtractOptions(), tmp_path / "adapter", Stopping(after))
    assert {path.name for path in tmp_path.iterdir()} == there


def test_what_is_there_is_kept_unless_told(models: Callable[..., Pair], tmp_path: Path) -> None:
    reference, tuned = models(LLAMA_CONFIG)
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "mine").write_text("precious")
    opened = pair(open_checkpoint(tuned), open_checkpoint(reference))
    options = ExtractOptions(rank=2)
    with pytest.raises(UserError) as caught:
        extract(opened, options, tmp_path / "adapter", Unattended())
    assert caught.value.code == "output_exists"
    assert (tmp_path / "adapter" / "mine").exists()
    extract(opened, options, tmp_path / "adapter", Unattended(), overwrite=True)
    assert "mine" not in tree(tmp_path / "adapter")
    (tmp_path / "other.partial").mkdir()
    (tmp_path / "other.partial" / "mine").write_text("precious")
    with pytest.raises(UserError) as caught:
        extract(opened, options, tmp_path / "other", Unattended())
    assert caught.value.code == "unfinished_exists"
    with pytest.raises(UserError) as caught:
        extract(opened, options, tuned, Unattended(), overwrite=True)
    assert caught.value.code == "output_is_input"


def test_leftovers_of_a_killed_extraction_are_cleared(
    models: Callable[..., Pair], tmp_path: Path
) -> None:
    made = models(LLAMA_CONFIG)
    (tmp_path / "adapter.partial").mkdir()
    for name in ("trimtab-tensors", "adapter_model.safetensors"):
        (tmp_path / "adapter.partial" / name).write_bytes(b"half")
    make(made, tmp_path / "adapter", rank=2)
    assert not (tmp_path / "adapter.partial").exists()
    assert sorted(tree(tmp_path / "adapter")) == [
        "README.md", "adapter_config.json", "adapter_model.safetensors", "trimtab-report.json",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (lambda t: t, "nothing_changed"),
        (lambda t: t | {"model.layers.0.mlp.up_proj.weight": torch.full((24, 16), torch.nan)},
         "not_finite"),
        (lambda t: t | {"model.layers.0.mlp.up_proj.weight": torch.full((24, 16), 1e30)},
         "overflow"),
        (lambda t: t | {"model.layers.0.mlp.up_proj.weight": torch.zeros(4, 4)}, "cannot_merge"),
    ],
)  # fmt: skip
def test_what_cannot_be_extracted_is_refused(spoil: Any, code: str, tmp_path: Path) -> None:
    before = llama_tensors(1, torch.float32)
    made = (
        write_model(tmp_path / "reference", before),
        write_model(tmp_path / "tuned", spoil(dict(before))),
    )
    with pytest.raises(UserError) as caught:
        make(made, tmp_path / "adapter", rank=2, dtype="float16")
    assert caught.value.code == code
    assert not (tmp_path / "adapter").exists()
    assert not (tmp_path / "adapter.partial").exists()


def test_several_task_vectors_are_refused(tmp_path: Path) -> None:
    tensors = llama_tensors(1)
    paths = [write_model(tmp_path / name, moved(tensors, seed)) for seed, name in enumerate("abc")]
    with pytest.raises(UserError) as caught:
        extract(lineup(*paths), ExtractOptions(), tmp_path / "adapter", Unattended())
    assert caught.value.code == "not_one_task_vector"


@pytest.mark.parametrize("options", [{"rank": 0}, {"energy": 0.0}, {"energy": 1.5}])
def test_options_out_of_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UserError) as caught:
        ExtractOptions(**options)
    assert caught.value.code == "bad_option"


def test_large_matrices_are_factored_nearly_as_well_as_can_be() -> None:
    draw = np.random.default_rng(0)
    u = np.linalg.qr(draw.standard_normal((700, 600))).Q
    v = np.linalg.qr(draw.standard_normal((640, 600))).Q
    s = 1 / np.arange(1, 601)
    matrix = ((u * s) @ v.T).astype(np.float32)
    found = decompose(matrix, 20, None, seed=1)
    assert not found.exact
    best = float(np.sqrt(np.square(s[20:]).sum()))
    error = math.sqrt(squared_error(matrix, found.b, found.a))
    assert best * (1 - 1e-6) <= error <= 1.02 * best
    again = decompose(matrix, 20, None, seed=1)
    assert again.b.tobytes() == found.b.tobytes()
    low = (u[:, :8] @ v[:, :8].T).astype(np.float32)
    found = decompose(low, 8, None, seed=1)
    assert math.sqrt(squared_error(low, found.b, found.a) / squared_norm(low)) < 2e-6
    assert len(decompose(low, 32, 0.9999, seed=1).a) == 8
