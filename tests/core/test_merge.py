"""Merging: a float32 reference rounded once, bit for bit, in the reference's layout."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import Tensor

from builders import (
    DTYPES,
    LLAMA_CONFIG,
    bits,
    llama_tensors,
    make_models,
    merge,
    moved,
    recipe,
    tree,
    tuned,
    weights,
    write_model,
    write_tokenizer,
)
from trimtab.kernels.workbench import CpuBench
from trimtab.merging import hand, planner
from trimtab.merging.recipe import Output, Recipe

NAMES = {torch.bfloat16: "bfloat16", torch.float16: "float16", torch.float32: "float32"}


def by_hand(
    method: str,
    aligned: dict[str, Tensor],
    models: list[dict[str, Tensor]],
    ratios: list[dict[str, float]],
    dtype: torch.dtype,
    scale: float = 1.0,
) -> dict[str, Tensor]:
    """The formulas in plain torch: one float32 operation after the other, rounded at the end."""
    out = {}
    for name, stored in aligned.items():
        reference = stored.to(torch.float32)
        parts = [(m[name].to(torch.float32), r[name]) for m, r in zip(models, ratios, strict=True)]
        total = 1.0 if method == "task_arithmetic" else scale + sum(r for _, r in parts)
        factor = scale if method == "task_arithmetic" else 1.0
        change = torch.zeros_like(reference)
        for model, ratio in parts:
            change = change + (model - reference) * (factor * ratio / total)
        result = reference + change
        out[name] = result.to(dtype)
    return out


@pytest.fixture
def models(tmp_path: Path) -> Path:
    return make_models(tmp_path, torch.bfloat16)


def cut(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """Let merges work on pieces of so many elements."""
    monkeypatch.setattr(hand, "STRIDE", size)
    monkeypatch.setattr(CpuBench, "piece", size)


@pytest.mark.parametrize("out", DTYPES.values(), ids=[f"to {d}" for d in DTYPES])
@pytest.mark.parametrize("stored", DTYPES.values(), ids=DTYPES)
@pytest.mark.parametrize("method", ["task_arithmetic", "linear"])
def test_result_is_the_float32_reference_rounded_once(
    tmp_path: Path, method: str, stored: torch.dtype, out: torch.dtype,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    cut(monkeypatch, 100)
    models = make_models(tmp_path, stored)
    key = {"task_arithmetic": "scale", "linear": "reference_ratio"}[method]
    made = recipe(
        models / "aligned", tuned(models / "one", 0.3), tuned(models / "two", 0.45),
        method=method, parameters={key: 0.7}, output=Output(dtype=NAMES[out]),  # type: ignore[arg-type]
    )  # fmt: skip
    merge(made, tmp_path / "out")
    aligned = weights(models / "aligned")
    ratios = [dict.fromkeys(aligned, 0.3), dict.fromkeys(aligned, 0.45)]
    wanted = by_hand(
        method, aligned, [weights(models / "one"), weights(models / "two")], ratios, out, 0.7
    )
    found = weights(tmp_path / "out")
    assert set(found) == set(wanted)
    for name, tensor in wanted.items():
        assert found[name].dtype == out
        assert found[name].shape == tensor.shape
        assert bits(found[name]) == bits(tensor), name


def test_ratios_of_layers_and_modules_hit_exactly_the_tensors_named(
    tmp_path: Path, models: Path
) -> None:
    made = recipe(
        models / "aligned",
        tuned(models / "one", 0.5, layers={1: 0.2}, modules={"down": -1.5, "head": 0.0}),
        tuned(models / "two", 0.0, modules={"q": 3.0}, layers={0: 0.1}),
    )
    merge(made, tmp_path / "out")
    aligned = weights(models / "aligned")
    ratios: list[dict[str, float]] = [{}, {}]
    for name in aligned:
        ratios[0][name] = 0.2 if ".layers.1." in name else 0.5
        ratios[0][name] *= -1.5 if "down_proj" in name else 0.0 if "lm_head" in name else 1.0
        ratios[1][name] = 0.1 if ".layers.0." in name else 0.0
        ratios[1][name] *= 3.0 if "q_proj" in name else 1.0
    wanted = by_hand(
        "task_arithmetic", aligned, [weights(models / "one"), weights(models / "two")], ratios,
        torch.bfloat16,
    )  # fmt: skip
    found = weights(tmp_path / "out")
    for name, tensor in wanted.items():
        assert bits(found[name]) == bits(tensor), name
    assert bits(found["lm_head.weight"]) == bits(aligned["lm_head.weight"])


@pytest.mark.parametrize("method", ["task_arithmetic", "linear"])
@pytest.mark.parametrize("shards", [1, 3])
def test_ratio_zero_gives_the_reference_byte_for_byte(
    tmp_path: Path, method: str, shards: int
) -> None:
    models = make_models(tmp_path, torch.bfloat16, shards)
    # a header as another writer spells it: spaces, another order, no alignment
    merge(recipe(models / "aligned", tuned(models / "one", 0.0), method=method), tmp_path / "out")
    for path in (models / "aligned").glob("*.safetensors"):
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes()
    assert (tmp_path / "out" / "config.json").read_bytes() == (
        models / "aligned" / "config.json"
    ).read_bytes()


def test_ratio_zero_keeps_the_header_of_another_writer(tmp_path: Path, models: Path) -> None:
    file = models / "aligned" / "model.safetensors"
    content = file.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.dumps(json.loads(content[8 : 8 + length]), indent=1).encode() + b"   "
    file.write_bytes(len(header).to_bytes(8, "little") + header + content[8 + length :])
    merge(recipe(models / "aligned", tuned(models / "one", 0.0)), tmp_path / "out")
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == file.read_bytes()
    merge(recipe(models / "aligned", tuned(models / "one", 0.5)), tmp_path / "half")
    assert load_file(tmp_path / "half" / "model.safetensors")


def test_ratio_one_of_one_model_gives_its_tensors_byte_for_byte(
    tmp_path: Path, models: Path
) -> None:
    merge(recipe(models / "aligned", models / "one"), tmp_path / "out")
    wanted = weights(models / "one")
    for name, tensor in weights(tmp_path / "out").items():
        assert bits(tensor) == bits(wanted[name])


def test_the_order_of_models_does_not_matter(tmp_path: Path) -> None:
    models = make_models(tmp_path, torch.float32)
    one, two = tuned(models / "one", 0.3), tuned(models / "two", 0.8)
    merge(recipe(models / "aligned", one, two), tmp_path / "ab")
    merge(recipe(models / "aligned", two, one), tmp_path / "ba")
    found = weights(tmp_path / "ba")
    for name, tensor in weights(tmp_path / "ab").items():
        torch.testing.assert_close(tensor, found[name], rtol=1e-6, atol=1e-7)


def test_threads_and_chunks_change_no_byte(
    tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = recipe(models / "aligned", tuned(models / "one", 0.3), tuned(models / "two", 0.8))
    merge(made, tmp_path / "first", threads=1)
    wanted = (tmp_path / "first" / "model.safetensors").read_bytes()
    for number, (threads, chunk, item) in enumerate(
        [(2, 1 << 17, 1 << 22), (5, 7, 30), (3, 33, 64), (1, 1, 100)]
    ):
        cut(monkeypatch, chunk)
        monkeypatch.setattr(planner, "ITEM", item)
        output = tmp_path / f"out{number}"
        merge(made, output, threads=threads)
        assert (output / "model.safetensors").read_bytes() == wanted


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """A LoRA adapter on "aligned", written as PEFT writes it."""
    generator = torch.Generator().manual_seed(8)
    folder = tmp_path / "adapter"
    folder.mkdir()
    tensors = {}
    for layer in range(2):
        stem = f"base_model.model.model.layers.{layer}.mlp.up_proj.lora_"
        tensors[f"{stem}A.weight"] = torch.randn(3, 16, generator=generator)
        tensors[f"{stem}B.weight"] = torch.randn(24, 3, generator=generator) * 0.1
    save_file(tensors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(
        json.dumps({"peft_type": "LORA", "r": 3, "lora_alpha": 6,
                    "base_model_name_or_path": "somebody/aligned"})
    )  # fmt: skip
    return folder


def test_an_adapter_merges_like_the_model_it_makes(
    tmp_path: Path, models: Path, adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = recipe(models / "aligned", tuned(adapter, 0.5), tuned(models / "one", 0.25),
                  output=Output(dtype="float32"))  # fmt: skip
    merge(made, tmp_path / "out")
    aligned, one = weights(models / "aligned"), weights(models / "one")
    factors = load_file(adapter / "adapter_model.safetensors")
    full = {n: t.float() for n, t in aligned.items()}
    for layer in range(2):
        stem = f"base_model.model.model.layers.{layer}.mlp.up_proj.lora_"
        full[f"model.layers.{layer}.mlp.up_proj.weight"] += (
            2.0 * factors[f"{stem}B.weight"] @ factors[f"{stem}A.weight"]
        )
    ratios = [dict.fromkeys(aligned, 0.5), dict.fromkeys(aligned, 0.25)]
    wanted = by_hand("task_arithmetic", aligned, [full, one], ratios, torch.float32)
    found = weights(tmp_path / "out")
    for name, tensor in wanted.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-5, atol=1e-6)
    # at ratio 1 alone it is the adapted model, and chunks that cut rows change no byte
    merge(recipe(models / "aligned", adapter), tmp_path / "whole")
    first = (tmp_path / "whole" / "model.safetensors").read_bytes()
    for name, tensor in weights(tmp_path / "whole").items():
        assert bits(tensor) == bits(full[name].to(torch.bfloat16)), name
    for chunk in (5, 16, 50):
        cut(monkeypatch, chunk)
        merge(recipe(models / "aligned", adapter), tmp_path / f"chunk{chunk}")
        assert (tmp_path / f"chunk{chunk}" / "model.safetensors").read_bytes() == first


def test_integers_scalars_and_empty_tensors_come_through(tmp_path: Path) -> None:
    aligned = {
        "ids": torch.arange(5), "flags": torch.tensor([True, False]), "scale": torch.tensor(2.0),
        "nothing": torch.zeros(0, 4), "w": torch.ones(3, 3), "tiny": torch.ones(3).to(torch.uint8),
        "wide": torch.ones(3, dtype=torch.float64),
    }  # fmt: skip
    one = {n: t + t for n, t in aligned.items()}
    for name, tensors in (("aligned", aligned), ("one", one)):
        write_model(tmp_path / name, tensors, None)
    merge(recipe(tmp_path / "aligned", tuned(tmp_path / "one", 0.5)), tmp_path / "out")
    found = weights(tmp_path / "out")
    for name in ("ids", "flags", "tiny", "nothing"):
        assert found[name].dtype == aligned[name].dtype
        assert bits(found[name]) == bits(aligned[name])
        assert found[name].shape == aligned[name].shape
    assert found["scale"].shape == ()
    assert found["scale"] == 3.0
    assert torch.equal(found["w"], torch.full((3, 3), 1.5))
    assert torch.equal(found["wide"], torch.full((3,), 1.5, dtype=torch.float64))


def test_sharded_in_is_sharded_out(tmp_path: Path) -> None:
    models = make_models(tmp_path, torch.bfloat16, shards=3)
    merge(recipe(models / "aligned", tuned(models / "one", 0.5)), tmp_path / "out")
    shards = sorted(p.name for p in (models / "aligned").glob("*.safetensors"))
    assert sorted(p.name for p in (tmp_path / "out").glob("*.safetensors")) == shards
    for name in shards:
        assert set(load_file(tmp_path / "out" / name)) == set(load_file(models / "aligned" / name))
    index = "model.safetensors.index.json"
    assert json.loads((tmp_path / "out" / index).read_text()) == json.loads(
        (models / "aligned" / index).read_text()
    )


def test_a_shard_size_splits_the_result(tmp_path: Path) -> None:
    aligned = {f"model.layers.{i}.mlp.up_proj.weight": torch.randn(100_000) for i in range(9)}
    write_model(tmp_path / "aligned", aligned, shards=2)
    write_model(tmp_path / "one", moved(aligned, 1))
    made = recipe(tmp_path / "aligned", tuned(tmp_path / "one", 0.5),
                  output=Output(shard_size=1_000_000))  # fmt: skip
    merge(made, tmp_path / "out")
    files = sorted((tmp_path / "out").glob("*.safetensors"))
    assert [f.name for f in files] == [f"model-{i:05d}-of-00005.safetensors" for i in range(1, 6)]
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == 9 * 400_000
    assert set(index["weight_map"]) == set(aligned)
    for file in files:
        held = load_file(file)
        assert int.from_bytes(file.read_bytes()[:8], "little") % 8 == 0  # the data is aligned
        assert sum(t.numel() * 4 for t in held.values()) <= 1_000_000
        assert all(index["weight_map"][name] == file.name for name in held)
    whole = recipe(tmp_path / "aligned", tuned(tmp_path / "one", 0.5),
                   output=Output(shard_size=10**9))  # fmt: skip
    merge(whole, tmp_path / "whole")
    assert [p.name for p in (tmp_path / "whole").glob("*.safetensors*")] == ["model.safetensors"]
    found = weights(tmp_path / "whole")
    for name, tensor in weights(tmp_path / "out").items():
        assert bits(tensor) == bits(found[name])


def test_single_files_merge_into_a_folder(tmp_path: Path, models: Path) -> None:
    files = [models / name / "model.safetensors" for name in ("aligned", "one")]
    (models / "single").mkdir()
    for file in files:
        shutil.copy(file, models / "single" / f"{file.parent.name}.safetensors")
    made = recipe(models / "single" / "aligned.safetensors",
                  tuned(models / "single" / "one.safetensors", 0.5))  # fmt: skip
    merge(made, tmp_path / "out")
    merge(recipe(models / "aligned", tuned(models / "one", 0.5)), tmp_path / "folders")
    assert [p.name for p in (tmp_path / "out").glob("*.safetensors*")] == ["aligned.safetensors"]
    wanted = weights(tmp_path / "folders")
    for name, tensor in weights(tmp_path / "out").items():
        assert bits(tensor) == bits(wanted[name])


def test_companions_come_along_and_papers_are_added(tmp_path: Path, models: Path) -> None:
    aligned = models / "aligned"
    write_tokenizer(aligned, {"a": 0})
    for name in ("chat_template.jinja", "generation_config.json", "LICENSE"):
        (aligned / name).write_text(f"the {name}")
    for name in ("pytorch_model.bin", "consolidated.safetensors", "old.gguf"):
        (aligned / name).write_bytes(b"\0" * 8 + b"{}")
    (aligned / "README.md").write_text("the old card")
    (aligned / "original").mkdir()
    made = recipe(aligned, tuned(models / "one", 0.5), output=Output(dtype="float32"))
    report = merge(made, tmp_path / "out")
    out = tree(tmp_path / "out")
    for name in ("tokenizer.json", "chat_template.jinja", "generation_config.json", "LICENSE"):
        assert out.pop(name) == (aligned / name).read_bytes()
    config = json.loads(out.pop("config.json"))
    assert {v for k, v in config.items() if "dtype" in k} == {"float32"}
    assert {k: v for k, v in config.items() if "dtype" not in k} == LLAMA_CONFIG
    card = out.pop("README.md").decode()
    front = yaml.safe_load(card.split("---")[1])
    assert front["base_model"] == ["aligned", "one"]
    assert front["base_model_relation"] == "merge"
    assert "0.5" in card
    assert Recipe.model_validate(yaml.safe_load(out.pop("trimtab-recipe.yaml"))) == made
    saved = json.loads(out.pop("trimtab-report.json"))
    assert saved["counts"] == report["counts"] == {"merged": len(llama_tensors(1))}
    assert {t["name"] for t in saved["tensors"]} == set(llama_tensors(1))
    assert [m["role"] for m in saved["provenance"]["models"]] == ["aligned", "finetuned"]
    assert set(out) == {"model.safetensors"}


@contextlib.contextmanager
def quiet() -> Iterator[io.StringIO]:
    """Collect whatever is printed to stderr within."""
    with contextlib.redirect_stderr(io.StringIO()) as text:
        yield text


@pytest.mark.parametrize("shards", [1, 2])
def test_transformers_loads_the_result_without_a_warning(tmp_path: Path, shards: int) -> None:
    import transformers
    from transformers import AutoConfig, AutoModelForCausalLM

    transformers.logging.disable_progress_bar()
    models = {}
    rest = {k: v for k, v in LLAMA_CONFIG.items() if k != "model_type"}
    for seed, name in enumerate(("aligned", "one", "two")):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **rest))
        model.save_pretrained(tmp_path / name, max_shard_size="5KB" if shards > 1 else "1GB")
        models[name] = model.eval()
    merge(
        recipe(tmp_path / "aligned", tuned(tmp_path / "one", 0.4), tuned(tmp_path / "two", -0.2)),
        tmp_path / "out",
    )
    assert len(list((tmp_path / "out").glob("*.safetensors"))) > shards - 1
    # a record of level WARNING fails the test; what is printed counts as well
    with quiet() as text:
        loaded, info = AutoModelForCausalLM.from_pretrained(
            tmp_path / "out", output_loading_info=True
        )
    assert text.getvalue() == ""
    assert not any(info.values()), info
    with torch.no_grad():
        for name, parameter in models["aligned"].state_dict().items():
            own = parameter.clone()
            parameter += 0.4 * (models["one"].state_dict()[name] - own)
            parameter -= 0.2 * (models["two"].state_dict()[name] - own)
        tokens = torch.tensor([[1, 5, 9, 2, 30]])
        wanted = models["aligned"](tokens).logits
        torch.testing.assert_close(loaded.eval()(tokens).logits, wanted, rtol=1e-5, atol=1e-5)


def test_inputs_are_never_touched(tmp_path: Path, models: Path) -> None:
    before = tree(models)
    merge(recipe(models / "aligned", tuned(models / "one", 0.5)), tmp_path / "x" / "y" / "out")
    assert {n: c for n, c in tree(models).items() if not n.startswith("x/")} == before


def test_a_tied_head_follows_its_embedding(tmp_path: Path, models: Path) -> None:
    tensors = weights(models / "one")
    del tensors["lm_head.weight"]
    write_model(models / "tied", tensors, LLAMA_CONFIG | {"tie_word_embeddings": True})
    merge(recipe(models / "aligned", tuned(models / "tied", 1.0)), tmp_path / "out")
    found = weights(tmp_path / "out")
    assert bits(found["lm_head.weight"]) == bits(tensors["model.embed_tokens.weight"])
