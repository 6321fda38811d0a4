"""The inspection: one read gives what a dense float64 computation of the formulas gives."""

from __future__ import annotations

import itertools
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from builders import DTYPES, LLAMA_CONFIG, lineup, llama_tensors, moved, write_model
from trimtab.checkpoints import Lineup
from trimtab.control import JobCancelled, Unattended
from trimtab.inspection import scan
from trimtab.inspection.known import finetuned_indices, known_gram
from trimtab.inspection.metrics import zero_share
from trimtab.inspection.result import Inspection
from trimtab.inspection.scan import bytes_to_read, inspect, inspect_cached
from trimtab.kernels.whole import MEASURED
from trimtab.merging import planner
from trimtab.merging.engine import run_merge
from trimtab.merging.planner import plan_merge
from trimtab.merging.recipe import FineTuned, ModelRef, Recipe, open_lineup
from trimtab.methods import forms

Arrays = dict[str, npt.NDArray[np.float64]]


def arrays(tensors: dict[str, Tensor]) -> Arrays:
    return {name: value.double().numpy().ravel() for name, value in tensors.items()}


def dense(
    names: tuple[str, ...],
    reference: Arrays,
    base: Arrays | None,
    finetuned: list[Arrays],
) -> dict[str, npt.NDArray[Any]]:
    """The sums of `Inspection` from their definitions, float64, all at once."""
    m = len(finetuned)
    out: dict[str, list[Any]] = {
        key: []
        for key in ("gram", "ref_dots", "norm2", "numel", "conflicts", "zeros", "non_finite")
    }
    for name in names:
        own = reference[name]
        with np.errstate(all="ignore"):
            a = None if base is None or name not in base else own - base[name]
            taus = [f.get(name, own) - own for f in finetuned]
            gram = np.full((m + 1, m + 1), np.nan)
            for i, j in itertools.product(range(m), repeat=2):
                gram[i + 1, j + 1] = np.sum(taus[i] * taus[j])
            if a is not None:
                gram[0, 0] = np.sum(a * a)
                for i in range(m):
                    gram[0, i + 1] = gram[i + 1, 0] = np.sum(a * taus[i])
            out["gram"].append(gram)
            out["ref_dots"].append([np.nan if v is None else np.sum(own * v) for v in (a, *taus)])
            out["norm2"].append(np.sum(own * own))
            out["numel"].append(own.size)
            out["conflicts"].append(
                [0 if a is None else int(np.sum(np.sign(a) * np.sign(t) < 0)) for t in taus]
            )
            out["zeros"].append([int(np.sum(t == 0)) for t in taus])
            present = [base.get(name) if base else None, own, *(f.get(name) for f in finetuned)]
            out["non_finite"].append(
                [0 if x is None else int(np.sum(~np.isfinite(x))) for x in present]
            )
    return {key: np.array(value) for key, value in out.items()}


def assert_like(
    found: Inspection, wanted: dict[str, npt.NDArray[Any]], precision: float = 2e-6
) -> None:
    # an inner product is as precise as the lengths of its vectors allow
    lengths = np.sqrt(np.einsum("nii->ni", wanted["gram"]))
    scale = lengths[:, :, None] * lengths[:, None, :]
    np.testing.assert_array_equal(np.isnan(found.gram), np.isnan(wanted["gram"]))
    with np.errstate(invalid="ignore"):
        error = np.abs(found.gram - wanted["gram"])
    assert not np.any(error > precision * scale + 1e-30), np.nanmax(error / scale)
    np.testing.assert_allclose(found.norm2, wanted["norm2"], rtol=precision)
    np.testing.assert_array_equal(np.isnan(found.ref_dots), np.isnan(wanted["ref_dots"]))
    with np.errstate(invalid="ignore"):
        error = np.abs(found.ref_dots - wanted["ref_dots"])
        assert not np.any(error > precision * np.sqrt(wanted["norm2"])[:, None] * lengths + 1e-30)
    for key in ("numel", "conflicts", "zeros", "non_finite"):
        np.testing.assert_array_equal(getattr(found, key), wanted[key], err_msg=key)


def same(one: Inspection, other: Inspection) -> bool:
    return all(
        getattr(one, key).tobytes() == getattr(other, key).tobytes()
        for key in ("gram", "ref_dots", "norm2", "numel", "conflicts", "zeros", "non_finite")
    )


def three(tmp_path: Path, dtype: torch.dtype) -> tuple[Lineup, list[Arrays]]:
    aligned = llama_tensors(1, dtype)
    keep = ["model.norm.weight", "model.layers.0.mlp.up_proj.weight"]
    models = [
        moved(aligned, 2, keep=keep), aligned, moved(aligned, 3, 1e-3, keep=keep[:1]),
        moved(aligned, 4, 0.1, keep=keep[1:]),
    ]  # fmt: skip
    folders = [
        write_model(tmp_path / name, tensors)
        for name, tensors in zip(("base", "aligned", "one", "two"), models, strict=True)
    ]
    opened = lineup(folders[1], *folders[2:], base=folders[0])
    return opened, [arrays(m) for m in models]


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
def test_sums_are_those_of_a_dense_computation(tmp_path: Path, dtype: torch.dtype) -> None:
    opened, (base, aligned, *finetuned) = three(tmp_path, dtype)
    found = inspect(opened, Unattended())
    assert found.has_alignment
    assert found.finetuned == ("one", "two")
    assert_like(found, dense(opened.names, aligned, base, finetuned))
    assert found.zeros.sum() > 0
    assert found.conflicts.sum() > 0


def test_models_may_be_stored_in_different_precisions(tmp_path: Path) -> None:
    aligned = llama_tensors(1, torch.bfloat16)
    base, task = moved(aligned, 2), moved(aligned, 3)
    task = {n: t.float() + 1e-4 if "q_proj" in n else t for n, t in task.items()}
    base = {n: t.half() if "down_proj" in n else t for n, t in base.items()}
    for name, tensors in (("base", base), ("aligned", aligned), ("task", task)):
        write_model(tmp_path / name, tensors)
    opened = lineup(tmp_path / "aligned", tmp_path / "task", base=tmp_path / "base")
    wanted = dense(opened.names, arrays(aligned), arrays(base), [arrays(task)])
    assert_like(inspect(opened, Unattended()), wanted)


def test_tensors_longer_than_a_chunk_and_a_unit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, (base, aligned, *finetuned) = three(tmp_path, torch.bfloat16)
    wanted = dense(opened.names, aligned, base, finetuned)
    for chunk, unit in ((7, 50), (64, 64), (100, 130), (1 << 17, 33)):
        monkeypatch.setattr(scan, "CHUNK", chunk)
        monkeypatch.setattr(scan, "UNIT", unit)
        assert_like(inspect(opened, Unattended()), wanted)


def test_a_tensor_longer_than_the_real_chunk(tmp_path: Path) -> None:
    size = scan.CHUNK * 2 + 12345
    generator = torch.Generator().manual_seed(0)
    aligned = {"w": torch.randn(size, generator=generator).bfloat16(), "s": torch.tensor(2.0)}
    base, task = moved(aligned, 1), moved(aligned, 2, 1e-3)
    folders = [
        write_model(tmp_path / n, t, None)
        for n, t in (("base", base), ("aligned", aligned), ("task", task))
    ]
    opened = lineup(folders[1], folders[2], base=folders[0])
    wanted = dense(opened.names, arrays(aligned), arrays(base), [arrays(task)])
    # differences are rounded to float32
    assert_like(inspect(opened, Unattended()), wanted, precision=1e-7)


def test_the_number_of_threads_changes_no_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, _ = three(tmp_path, torch.float32)
    monkeypatch.setattr(scan, "CHUNK", 40)
    monkeypatch.setattr(scan, "UNIT", 90)
    first = inspect(opened, Unattended(), threads=1)
    for threads in (2, 5):
        assert same(first, inspect(opened, Unattended(), threads=threads))


def test_without_base_there_is_no_alignment_vector(tmp_path: Path) -> None:
    opened, (_, aligned, *finetuned) = three(tmp_path, torch.float16)
    alone = lineup(tmp_path / "aligned", tmp_path / "one", tmp_path / "two")
    found = inspect(alone, Unattended())
    assert not found.has_alignment
    assert_like(found, dense(opened.names, aligned, None, finetuned))
    assert np.isnan(found.gram[:, 0]).all()
    assert np.isfinite(found.gram[:, 1:, 1:]).all()


def test_without_aligned_model_the_base_is_the_reference(tmp_path: Path) -> None:
    _, (base, _, *finetuned) = three(tmp_path, torch.bfloat16)
    alone = lineup(None, tmp_path / "one", tmp_path / "two", base=tmp_path / "base")
    assert_like(inspect(alone, Unattended()), dense(alone.names, base, None, finetuned))


def test_a_base_that_lacks_tensors_leaves_only_those_out(tmp_path: Path) -> None:
    aligned = llama_tensors(1)
    base = moved(aligned, 2)
    del base["lm_head.weight"], base["model.norm.weight"]
    task = moved(aligned, 3)
    del task["model.layers.0.mlp.gate_proj.weight"]
    folders = [
        write_model(tmp_path / n, t)
        for n, t in (("base", base), ("aligned", aligned), ("task", task))
    ]
    opened = lineup(folders[1], folders[2], base=folders[0])
    found = inspect(opened, Unattended())
    assert_like(found, dense(opened.names, arrays(aligned), arrays(base), [arrays(task)]))
    gone = opened.names.index("lm_head.weight")
    assert np.isnan(found.gram[gone, 0]).all()
    assert np.isfinite(found.total().gram).all()
    unchanged = opened.names.index("model.layers.0.mlp.gate_proj.weight")
    assert found.gram[unchanged, 1, 1] == 0
    assert found.zeros[unchanged, 0] == 24 * 16


def test_empty_scalar_and_integer_tensors(tmp_path: Path) -> None:
    aligned = {
        "model.layers.0.mlp.up_proj.weight": torch.zeros(0, 5),
        "model.layers.0.mlp.down_proj.weight": torch.tensor(3.0),
        "model.layers.0.self_attn.rotary_emb.ids": torch.arange(7),
        "model.norm.weight": torch.ones(3),
    }
    base, task = moved(aligned, 1), moved(aligned, 2)
    task["model.layers.0.self_attn.rotary_emb.ids"] = torch.arange(7) + 1
    for name, tensors in (("base", base), ("aligned", aligned), ("task", task)):
        write_model(tmp_path / name, tensors, None)
    for opened in (
        lineup(tmp_path / "aligned", tmp_path / "task", base=tmp_path / "base"),
        lineup(tmp_path / "aligned", tmp_path / "task"),
    ):
        found = inspect(opened, Unattended())
        ids = opened.names.index("model.layers.0.self_attn.rotary_emb.ids")
        assert np.isnan(found.gram[ids]).all()
        assert np.isnan(found.ref_dots[ids]).all()
        empty = opened.names.index("model.layers.0.mlp.up_proj.weight")
        assert found.numel[empty] == 0
        assert found.gram[empty, 1, 1] == 0
        assert np.isnan(found.gram[empty, 0, 0]) == (not opened.has_alignment)
        scalar = opened.names.index("model.layers.0.mlp.down_proj.weight")
        tau = float(task["model.layers.0.mlp.down_proj.weight"]) - 3.0
        assert found.gram[scalar, 1, 1] == pytest.approx(tau * tau, rel=1e-6)
        assert np.isfinite(found.total().gram[0, 1, 1])


def test_a_layer_s_numbers_do_not_know_its_boolean_buffers(tmp_path: Path) -> None:
    aligned = {
        "gpt_neox.layers.0.attention.bias": torch.ones(1, 8, 8, dtype=torch.bool),
        "gpt_neox.layers.0.attention.dense.weight": torch.ones(4, 4),
    }
    base, task = moved(aligned, 1), moved(aligned, 2)
    for name, tensors in (("base", base), ("aligned", aligned), ("task", task)):
        write_model(tmp_path / name, tensors, None)
    found = inspect(
        lineup(tmp_path / "aligned", tmp_path / "task", base=tmp_path / "base"), Unattended()
    )
    assert found.not_numbers.tolist() == [True, False]
    assert np.isnan(zero_share(found, 0)).tolist() == [True, False]
    layer = found.summed(np.zeros(2, dtype=np.int32), ("0",))
    for added in (layer, found.total()):
        np.testing.assert_array_equal(added.gram[0], found.gram[1])
        np.testing.assert_array_equal(added.ref_dots[0], found.ref_dots[1])
        assert added.numel.tolist() == [16]
    alone = found.summed(np.arange(2, dtype=np.int32), ("bias", "weight"))
    assert np.isnan(alone.gram[0]).all()


@pytest.mark.parametrize("backend", ["numba", "torch"])
@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
def test_nan_and_inf_are_counted_where_they_are(
    tmp_path: Path, dtype: torch.dtype, backend: str
) -> None:
    opened, _ = three(tmp_path, dtype)
    places = {"base": ("lm_head.weight", [float("nan")]),
              "aligned": ("model.norm.weight", [float("inf"), float("nan")]),
              "one": ("lm_head.weight", [float("nan"), 0.25, float("-inf")]),
              "two": ("model.embed_tokens.weight", [float("inf")])}  # fmt: skip
    models = {}
    for model, (name, values) in places.items():
        tensors = load_file(tmp_path / model / "model.safetensors")
        tensors[name].view(-1)[: len(values)] = torch.tensor(values)
        save_file(tensors, tmp_path / model / "model.safetensors")
        models[model] = arrays(tensors)
    opened = lineup(
        tmp_path / "aligned", tmp_path / "one", tmp_path / "two", base=tmp_path / "base"
    )
    found = inspect(opened, Unattended(), backend=backend)
    wanted = dense(opened.names, models["aligned"], models["base"], [models["one"], models["two"]])
    for key in ("non_finite", "zeros", "conflicts", "numel"):
        clean = np.ones(len(opened.names), dtype=bool)
        if key == "conflicts":  # a sign against Inf is no reading
            clean = wanted["non_finite"].sum(axis=1) == 0
        np.testing.assert_array_equal(getattr(found, key)[clean], wanted[key][clean], err_msg=key)
    head = opened.names.index("lm_head.weight")
    assert found.non_finite[head].tolist() == [1, 0, 2, 0]


@pytest.mark.parametrize("backend", ["numba", "torch"])
def test_large_and_tiny_values_neither_overflow_nor_vanish(tmp_path: Path, backend: str) -> None:
    aligned = {"big": torch.full((300,), 1e30), "small": torch.zeros(300)}
    base = {"big": torch.full((300,), -1e30), "small": torch.full((300,), -1e-30)}
    task = {"big": torch.full((300,), -2e30), "small": torch.full((300,), -1e-30)}
    for name, tensors in (("base", base), ("aligned", aligned), ("task", task)):
        write_model(tmp_path / name, tensors, None)
    opened = lineup(tmp_path / "aligned", tmp_path / "task", base=tmp_path / "base")
    found = inspect(opened, Unattended(), backend=backend)
    big, small = opened.names.index("big"), opened.names.index("small")
    assert found.gram[big, 1, 1] == pytest.approx(300 * 9e60, rel=1e-5)
    assert found.norm2[big] == pytest.approx(300 * 1e60, rel=1e-5)
    assert found.non_finite.sum() == 0
    assert found.conflicts[:, 0].tolist() == [300, 300]
    assert found.zeros[small, 0] == 0


def test_scaling_the_task_vector_scales_its_length_and_keeps_its_angle(tmp_path: Path) -> None:
    from trimtab.inspection.metrics import cosine, tau_norm

    aligned = llama_tensors(1, torch.float32)
    base = moved(aligned, 2)
    step = {n: torch.randn(t.shape, generator=torch.Generator().manual_seed(7)) * 0.01
            for n, t in aligned.items()}  # fmt: skip
    write_model(tmp_path / "base", base)
    write_model(tmp_path / "aligned", aligned)
    for name, s in (("one", 1.0), ("four", 4.0)):
        write_model(tmp_path / name, {n: t + s * step[n] for n, t in aligned.items()})
    found = inspect(
        lineup(tmp_path / "aligned", tmp_path / "one", tmp_path / "four", base=tmp_path / "base"),
        Unattended(),
    )
    np.testing.assert_allclose(tau_norm(found, 1), 4 * tau_norm(found, 0), rtol=1e-4)
    np.testing.assert_allclose(cosine(found, 1), cosine(found, 0), atol=1e-4)


def adapted(folder: Path) -> Lineup:
    """A lineup of an adapter that PEFT has written and a plain model; `merged` is PEFT's merge."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(3)
    rest = {k: v for k, v in LLAMA_CONFIG.items() if k != "model_type"}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **rest))
    model.save_pretrained(folder / "aligned")
    original = load_file(folder / "aligned" / "model.safetensors")
    targets = ["layers.0.self_attn.q_proj", "layers.1.mlp.down_proj"]
    tuned = get_peft_model(model, LoraConfig(r=3, target_modules=targets))
    for name, parameter in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    tuned.save_pretrained(str(folder / "adapter"))
    # before `merged` is: merging puts the plain layers back
    write_model(folder / "merged", {**original, **tuned.merge_and_unload().state_dict()})
    write_model(folder / "base", moved(original, 2))
    write_model(folder / "one", moved(original, 4, keep=list(original)))
    return lineup(
        folder / "aligned", folder / "adapter", folder / "one", base=folder / "base",
        adapter_base="aligned",
    )  # fmt: skip


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_an_adapter_is_read_through_its_model(tmp_path: Path) -> None:
    opened = adapted(tmp_path)
    original, base, merged = (
        arrays(load_file(tmp_path / name / "model.safetensors"))
        for name in ("aligned", "base", "merged")
    )
    found = inspect(opened, Unattended())
    wanted = dense(opened.names, original, base, [merged, original])
    # the change is the small difference of two large numbers: float32 leaves about six digits
    np.testing.assert_allclose(found.gram, wanted["gram"], rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(found.zeros, wanted["zeros"])


def test_the_second_look_reads_no_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened, _ = three(tmp_path, torch.bfloat16)
    path, cached = inspect_cached(opened, Unattended())
    assert not cached
    first = Inspection.load(path)
    assert first is not None
    assert same(first, inspect(opened, Unattended()))

    def read(*_: object) -> Any:
        raise AssertionError("the weights were read again")

    monkeypatch.setattr(scan, "inspect", read)
    again = lineup(tmp_path / "aligned", tmp_path / "one", tmp_path / "two", base=tmp_path / "base")
    assert inspect_cached(again, Unattended()) == (path, True)
    # one weight in place, same size: another content
    file = tmp_path / "one" / "model.safetensors"
    with open(file, "r+b") as handle:
        handle.seek(-2, os.SEEK_END)
        handle.write(b"\x12\x34")
    changed = lineup(
        tmp_path / "aligned", tmp_path / "one", tmp_path / "two", base=tmp_path / "base"
    )
    with pytest.raises(AssertionError, match="read again"):
        inspect_cached(changed, Unattended())


def test_a_damaged_cache_entry_is_made_again(tmp_path: Path) -> None:
    opened, _ = three(tmp_path, torch.bfloat16)
    path, _ = inspect_cached(opened, Unattended())
    content = path.read_bytes()
    first = Inspection.load(path)
    assert first is not None
    rng = np.random.default_rng(0)
    for position in rng.integers(0, len(content) * 8, 300):
        flipped = bytearray(content)
        flipped[position // 8] ^= 1 << (position % 8)
        path.write_bytes(flipped)
        loaded = Inspection.load(path)  # never an exception, never other numbers
        assert loaded is None or same(loaded, first)
    for damage in (b"", content[: len(content) // 2], b"PK\x03\x04", b"x" * 100):
        path.write_bytes(damage)
        assert Inspection.load(path) is None
    assert inspect_cached(opened, Unattended()) == (path, False)
    assert path.read_bytes() == content
    assert not list(path.parent.glob("*.partial"))


def test_groups_and_total_add_up(tmp_path: Path) -> None:
    opened, _ = three(tmp_path, torch.bfloat16)
    found = inspect(opened, Unattended())
    grid = opened.grid
    grouped = found.grouped(grid)
    assert grouped.names == grid.labels
    for group in range(grid.n_groups):
        rows = [i for i in range(len(opened.names)) if grid.group_of[i] == group]
        np.testing.assert_allclose(grouped.gram[group], sum(found.gram[i] for i in rows))
        assert grouped.numel[group] == sum(found.numel[i] for i in rows)
        assert grouped.zeros[group].tolist() == sum(found.zeros[i] for i in rows).tolist()
        np.testing.assert_allclose(grouped.ref_dots[group], found.ref_dots[rows].sum(axis=0))
    total = found.total()
    np.testing.assert_allclose(total.gram[0], found.gram.sum(axis=0))
    np.testing.assert_allclose(total.ref_dots[0], found.ref_dots.sum(axis=0))
    assert total.numel[0] == found.numel.sum()


class Recorder(Unattended):
    """Remembers what work reported, and stops it after some chunks when told to."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.items = self.n_bytes = self.checks = 0
        self.total = (0, 0)
        self._stop_after = stop_after

    def check(self) -> None:
        self.checks += 1
        if self._stop_after is not None and self.checks > self._stop_after:
            raise JobCancelled

    def stage(self, name: str, total: int, bytes_total: int = 0) -> None:
        self.total = (total, bytes_total)

    def advance(self, items: int = 0, n_bytes: int = 0) -> None:
        self.items += items
        self.n_bytes += n_bytes


def test_progress_counts_every_tensor_and_byte(tmp_path: Path) -> None:
    opened, _ = three(tmp_path, torch.bfloat16)
    control = Recorder()
    inspect(opened, control)
    assert control.total == (control.items, control.n_bytes)
    assert control.items == len(opened.names)
    data = sum(2 * t.numel() for t in llama_tensors(1).values())
    assert control.n_bytes == bytes_to_read(opened) == 4 * data


def test_inspection_stops_when_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened, _ = three(tmp_path, torch.bfloat16)
    monkeypatch.setattr(scan, "CHUNK", 16)
    control = Recorder(stop_after=5)
    with pytest.raises(JobCancelled):
        inspect(opened, control, threads=2)
    assert control.checks < 12
    with pytest.raises(JobCancelled):
        inspect_cached(opened, Recorder(stop_after=5))
    assert not scan.cache_path(opened).exists()


@settings(max_examples=15)
@given(data=st.data())
def test_random_models_of_any_shape(tmp_path_factory: Any, data: st.DataObject) -> None:
    shapes = data.draw(st.lists(st.lists(st.integers(0, 5), max_size=3), min_size=1, max_size=4))
    dtype = data.draw(st.sampled_from(list(DTYPES.values())))
    seed = data.draw(st.integers(0, 1000))
    folder = tmp_path_factory.mktemp("random")
    generator = torch.Generator().manual_seed(seed)
    aligned = {
        f"t{i}": torch.randn(shape, generator=generator).to(dtype) for i, shape in enumerate(shapes)
    }
    models = [moved(aligned, seed + 1), aligned, moved(aligned, seed + 2, 0.5)]
    for name, tensors in zip(("base", "aligned", "task"), models, strict=True):
        write_model(folder / name, tensors, None)
    opened = lineup(folder / "aligned", folder / "task", base=folder / "base")
    wanted = dense(opened.names, arrays(aligned), arrays(models[0]), [arrays(models[2])])
    assert_like(inspect(opened, Unattended()), wanted)


# What a merge computes of the same tensors.


def long_models(folder: Path, dtype: torch.dtype) -> None:
    """Tensors of several pieces, of several units and with ends that fill neither."""
    generator = torch.Generator().manual_seed(5)
    aligned = {
        f"model.layers.{i}.mlp.up_proj.weight": torch.randn(shape, generator=generator).to(dtype)
        for i, shape in enumerate(((500, 1000), (3, 7), (1 << 16,), (4096,), (65, 1031)))
    }
    last = next(reversed(aligned))
    for name, tensors in (
        ("base", moved(aligned, 1, 0.5)),
        ("aligned", aligned),
        ("one", moved(aligned, 2, 0.1)),
        ("two", moved(aligned, 3, 0.2, keep=[last])),
        ("three", moved(aligned, 4, 0.3)),
    ):
        write_model(folder / name, tensors, None)


def grams_of_a_merge(
    opened: Lineup, models: tuple[str, ...], backend: str, output: Path, monkeypatch: Any
) -> dict[str, npt.NDArray[np.float64]]:
    """Merge for real and write down what `methods.forms` settles on for each tensor."""
    at = {m.name: m for m in opened.finetuned}
    recipe = Recipe(
        method="karcher",
        base=ModelRef(path=str(opened.base.checkpoint.path)) if opened.base else None,
        aligned=ModelRef(path=str(opened.reference.checkpoint.path)),
        finetuned=tuple(
            FineTuned(
                path=str(at[name].checkpoint.path), ratio=0.5, adapter_base=at[name].adapter_base
            )
            for name in models
        ),
    )
    settled: list[npt.NDArray[np.float64]] = []
    settle = forms._settle

    def remember(units: Any, facts: Any) -> Any:
        settled.append(settle(units, facts))
        return settled[-1]

    monkeypatch.setattr(forms, "_settle", remember)
    plan = plan_merge(recipe, open_lineup(recipe))
    run_merge(plan, output, Unattended(), threads=1, backend=backend)
    monkeypatch.setattr(forms, "_settle", settle)
    names = [item.tensor.name for item in plan.items if item.unit == 0]
    assert len(settled) == len(names)
    return dict(zip(names, settled, strict=True))


@pytest.mark.parametrize("backend", ["numba", "torch"])
@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
@pytest.mark.parametrize("with_base", [True, False])
def test_inner_products_are_the_bits_of_a_merge(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, backend: str,
    with_base: bool,
) -> None:  # fmt: skip
    assert scan.UNIT == planner.ITEM
    assert scan.CHUNK % MEASURED == scan.UNIT % scan.CHUNK == 0
    for module, name in ((scan, "UNIT"), (planner, "ITEM")):
        monkeypatch.setattr(module, name, 3 * MEASURED)
    monkeypatch.setattr(scan, "CHUNK", 2 * MEASURED)
    long_models(tmp_path, dtype)
    opened = lineup(
        tmp_path / "aligned", *(tmp_path / n for n in ("one", "two", "three")),
        base=tmp_path / "base" if with_base else None,
    )  # fmt: skip
    found = inspect(opened, Unattended(), backend=backend)
    models = ("three", "two") if with_base else ("two", "one", "three")
    indices = [found.finetuned.index(name) for name in models]
    grams = grams_of_a_merge(opened, models, backend, tmp_path / "out", monkeypatch)
    assert set(grams) == set(opened.names)
    for row, name in enumerate(opened.names):
        known = known_gram(found, opened, row, indices)
        assert known is not None
        assert known.tobytes() == grams[name].tobytes(), name
        assert known.tobytes() == found.gram_of(row, indices).tobytes()


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_an_adapter_s_inner_products_are_the_bits_of_a_merge(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = adapted(tmp_path)
    found = inspect(opened, Unattended())
    grams = grams_of_a_merge(opened, ("adapter", "one"), "numba", tmp_path / "out", monkeypatch)
    changed = 0
    for name, gram in grams.items():
        known = known_gram(found, opened, opened.names.index(name), [0, 1])
        assert known is not None
        assert known.tobytes() == gram.tobytes(), name
        changed += gram[1, 1] > 0
    assert changed == 2


def test_without_numba_the_sums_are_the_same_but_for_their_last_bits(tmp_path: Path) -> None:
    opened, (base, aligned, *finetuned) = three(tmp_path, torch.bfloat16)
    assert_like(
        inspect(opened, Unattended(), backend="torch"),
        dense(opened.names, aligned, base, finetuned),
    )


def test_what_is_not_the_inspection_s_own_is_not_known(tmp_path: Path) -> None:
    opened, _ = three(tmp_path, torch.bfloat16)
    found = inspect(opened, Unattended())
    row = opened.names.index("lm_head.weight")
    reference, one, two = opened.sources["lm_head.weight"][1:]
    assert reference is not None
    assert one is not None
    assert two is not None
    assert finetuned_indices(opened, row, reference, [two, one]) == (1, 0)
    assert finetuned_indices(opened, row, reference, [replace(two)]) is None
    assert finetuned_indices(opened, row, one, [two]) is None
    assert finetuned_indices(opened, row - 1, reference, [two]) is None
    assert known_gram(found, opened, row, [1, 0]) is not None
    other = lineup(tmp_path / "aligned", tmp_path / "two", tmp_path / "one", base=tmp_path / "base")
    assert known_gram(found, other, row, [0, 1]) is None


def test_what_is_missing_or_not_finite_is_for_the_merge_to_find(tmp_path: Path) -> None:
    aligned = llama_tensors(1)
    aligned["model.layers.0.self_attn.rotary_emb.ids"] = torch.arange(7)
    task, bad = moved(aligned, 3), moved(aligned, 4)
    del task["model.norm.weight"]
    bad["lm_head.weight"][0, 0] = float("inf")
    for name, tensors in (("aligned", aligned), ("task", task), ("bad", bad)):
        write_model(tmp_path / name, tensors)
    opened = lineup(tmp_path / "aligned", tmp_path / "task", tmp_path / "bad")
    found = inspect(opened, Unattended())

    def known(name: str, *models: int) -> bool:
        return known_gram(found, opened, opened.names.index(name), models) is not None

    assert known("model.norm.weight", 1)
    assert not known("model.norm.weight", 0, 1)
    assert known("lm_head.weight", 0)
    assert not known("lm_head.weight", 1)
    assert not known("model.layers.0.self_attn.rotary_emb.ids", 0)
