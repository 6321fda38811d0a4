"""The engine carries out any method as if on whole tensors, in whatever pieces and threads."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import builders
from builders import LLAMA_CONFIG, llama_tensors, moved, recipe, tuned, weights, write_model
from trimtab.checkpoints.naming import parse
from trimtab.control import JobAbandoned, Unattended
from trimtab.errors import UserError
from trimtab.kernels.workbench import CpuBench
from trimtab.merging import hand, planner
from trimtab.merging.engine import run_merge
from trimtab.merging.planner import plan_merge
from trimtab.merging.recipe import (
    FineTuned,
    ModelRef,
    Output,
    Recipe,
    Slice,
    SliceSource,
    open_lineup,
)
from trimtab.methods import get_method, methods

NAMES = [m.name for m in methods() if m.origin.startswith("trimtab.")]
# what each method is tried with, so that all its passes run
PARAMETERS: dict[str, dict[str, Any]] = {
    "ties": {"density": 0.3, "rescale": "l1"},
    "dare_linear": {"rescale": "l1"},
    "dare_ties": {"density": 0.4, "rescale": "l1"},
    "della": {"rescale": "l1"},
    "breadcrumbs": {"density": 0.5, "gamma": 0.1},
    "breadcrumbs_ties": {"density": 0.5, "rescale": "l1"},
    "sce": {"select_topk": 0.4},
    "model_stock": {"filter_wise": True},
    "nuslerp": {"flatten": False},
    "passthrough": {"scale": 0.75},
    "mergealign": {"path": "arc"},
    "resta": {"drop": 0.3},
    "lox": {"rank": 2},
    "safe_lora": {"threshold": 1.0},
    "safe_lora_projector": {"threshold": 1.0},
}


@pytest.fixture
def models(tmp_path: Path) -> Path:
    aligned = llama_tensors(1)
    write_model(tmp_path / "aligned", aligned, shards=2)
    write_model(tmp_path / "base", moved(aligned, 9))
    for seed, name in enumerate(("one", "two", "three"), start=2):
        write_model(tmp_path / name, moved(aligned, seed))
    return tmp_path


def made(models: Path, name: str, dtype: Any = "float32", **more: Any) -> Recipe:
    method = get_method(name)
    count = method.takes[1] or 3
    chosen = [tuned(models / n, 0.3 + 0.4 * i) for i, n in enumerate(("one", "two", "three"))]
    return recipe(
        models / "aligned", *chosen[:count], method=name, output=Output(dtype=dtype),
        base=models / "base" if method.needs_base else None,
        parameters=PARAMETERS.get(name, {}) | more,
    )  # fmt: skip


def merge(what: Recipe, output: Path, **options: Any) -> dict[str, Tensor]:
    builders.merge(what, output, **options)
    return weights(output)


def data(folder: Path) -> list[bytes]:
    return [file.read_bytes() for file in sorted(folder.glob("*.safetensors"))]


@pytest.mark.parametrize("backend", ["numba", "torch"])
@pytest.mark.parametrize("name", NAMES)
def test_the_stream_gives_what_the_method_gives_on_whole_tensors(
    models: Path, tmp_path: Path, name: str, backend: str
) -> None:
    what = made(models, name)
    found = merge(what, tmp_path / "out", backend=backend, threads=3)
    method = get_method(name)
    inputs = [weights(models / n) for n in ("one", "two", "three")][: len(what.finetuned)]
    bases = weights(models / "base")
    for key, reference in weights(models / "aligned").items():
        wanted = method.merge(
            reference.float(), [m[key].float() for m in inputs],
            [f.ratio for f in what.finetuned], tensor=key,
            labels=["one", "two", "three"][: len(inputs)], backend=backend,
            base=bases[key].float() if method.needs_base else None, **what.parameters,
        )  # fmt: skip
        assert torch.equal(found[key], wanted), key


@pytest.mark.parametrize("name", NAMES)
def test_pieces_threads_and_memory_change_no_byte(
    models: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    what = made(models, name, "bfloat16")
    merge(what, tmp_path / "first", threads=1)
    for number, (piece, threads) in enumerate([(7, 1), (64, 4), (1000, 2)]):
        monkeypatch.setattr(CpuBench, "piece", piece)
        monkeypatch.setattr(hand, "STRIDE", piece)
        merge(what, tmp_path / f"out{number}", threads=threads, memory=10**10)
        assert data(tmp_path / f"out{number}") == data(tmp_path / "first")


@pytest.mark.parametrize(
    "name", ["ties", "dare_ties", "della", "breadcrumbs", "sce", "slerp", "ram"]
)
def test_an_interrupted_merge_goes_on_to_the_same_bytes(
    models: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planner, "ITEM", 64)
    what = made(models, name, "bfloat16")
    merge(what, tmp_path / "whole")

    class Gone(Unattended):
        def __init__(self) -> None:
            self.left = 9

        def advance(self, items: int = 0, n_bytes: int = 0) -> None:
            self.left -= items

        def check(self) -> None:
            if self.left < 0:
                raise JobAbandoned

    plan = plan_merge(what, open_lineup(what))
    with pytest.raises(JobAbandoned):
        run_merge(plan, tmp_path / "out", Gone(), threads=2)
    assert not (tmp_path / "out").exists()
    assert (tmp_path / "out.partial").exists()
    merge(what, tmp_path / "out", resume=True)
    assert data(tmp_path / "out") == data(tmp_path / "whole")


def test_masks_belong_to_the_model_and_not_to_its_place(models: Path, tmp_path: Path) -> None:
    what = made(models, "dare_linear", rescale="density")
    turned = what.model_copy(update={"finetuned": what.finetuned[::-1]})
    first, second = merge(what, tmp_path / "a"), merge(turned, tmp_path / "b")
    for key, value in first.items():
        torch.testing.assert_close(value, second[key], rtol=1e-6, atol=1e-7)
    other = merge(what.model_copy(update={"seed": 1}), tmp_path / "c")
    assert not torch.equal(first["lm_head.weight"], other["lm_head.weight"])


@pytest.mark.parametrize("name", ["slerp", "karcher", "model_stock", "multislerp"])
def test_a_cached_inspection_saves_the_reading_and_changes_no_byte(
    models: Path, tmp_path: Path, name: str
) -> None:
    from trimtab.inspection.scan import inspect_cached
    from trimtab.jobs.tasks import run_job

    what = made(models, name, "bfloat16") if name != "model_stock" else made(
        models, name, "bfloat16", filter_wise=False
    )  # fmt: skip
    params = {"recipe": what.model_dump(), "device": "cpu"}
    run_job("merge", {**params, "output": str(tmp_path / "first")}, Unattended())
    inspect_cached(open_lineup(what), Unattended())
    run_job("merge", {**params, "output": str(tmp_path / "second")}, Unattended())
    assert data(tmp_path / "first") == data(tmp_path / "second")


def test_values_by_name_and_layer_reach_each_tensor(models: Path) -> None:
    what = Recipe(
        method="ties",
        base=ModelRef(path=str(models / "aligned")),
        finetuned=(
            FineTuned(path=str(models / "one"), weight=[0.0, 1.0], parameters={"density": 0.9}),
            FineTuned.model_validate({
                "path": str(models / "two"), "ratio": 2.0, "modules": {"down": 0.5},
                "weight": [{"filter": "mlp", "value": 0.25}, {"value": 0.5}],
            }),
        ),
        parameters={"density": 0.4},
    )  # fmt: skip
    for tensor in plan_merge(what, open_lineup(what)).tensors:
        place = parse(tensor.name)
        ratios = dict(zip(tensor.model_names, tensor.ratios, strict=True))
        # one's gradient is 0 in the first layer and outside of them, and 1 in the last
        assert ratios.get("one", 0.0) == (1.0 if place.layer == 1 else 0.0)
        two = 2.0 * (0.25 if "mlp" in tensor.name else 0.5) * (0.5 if place.module == "down" else 1)
        assert ratios["two"] == two
        densities = dict(zip(tensor.model_names, tensor.parameters["density"], strict=True))
        assert densities["two"] == 0.4
        assert densities.get("one", 0.9) == 0.9


def test_stacked_layers_are_the_sources_own(models: Path, tmp_path: Path) -> None:
    what = Recipe(
        method="passthrough",
        base=ModelRef(path=str(models / "aligned"), name="layout"),
        finetuned=tuple(FineTuned(path=str(models / n)) for n in ("one", "two")),
        slices=(
            Slice(sources=(SliceSource(model="one", layers=(0, 2)),)),
            Slice(sources=(SliceSource(model="two", layers=(1, 2)),)),
            Slice(sources=(SliceSource(model="one", layers=(0, 1)),)),
        ),
    )
    found = merge(what, tmp_path / "out")
    one, two = weights(models / "one"), weights(models / "two")
    assert {parse(n).layer for n in found} == {None, 0, 1, 2, 3}
    for name, value in found.items():
        layer = parse(name).layer
        source, at = {None: (one, 0), 0: (one, 0), 1: (one, 1), 2: (two, 1), 3: (one, 0)}[layer]
        assert torch.equal(value, source[name.replace(f"layers.{layer}.", f"layers.{at}.")]), name
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["num_hidden_layers"] == 4
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert len(model.model.layers) == 4


def test_slices_that_name_what_is_not_there_are_refused(models: Path) -> None:
    def refused(*slices: Slice) -> str:
        what = Recipe(
            method="passthrough",
            base=ModelRef(path=str(models / "aligned")),
            finetuned=(FineTuned(path=str(models / "one")),),
            slices=slices,
        )
        with pytest.raises(UserError) as caught:
            plan_merge(what, open_lineup(what))
        return caught.value.code

    one = SliceSource(model="one", layers=(0, 2))
    assert refused(Slice(sources=(SliceSource(model="nobody", layers=(0, 1)),))) == "unknown_model"
    assert refused(Slice(sources=(SliceSource(model="one", layers=(1, 3)),))) == "unknown_layer"
    assert refused(Slice(sources=(SliceSource(model="one", layers=(1, 1)),))) == "slice_length"
    short = SliceSource(model="one", layers=(0, 1))
    assert refused(Slice(sources=(one, short))) == "slice_length"


def test_a_method_that_takes_another_number_of_models_is_refused(models: Path) -> None:
    what = recipe(models / "aligned", models / "one", models / "two", method="slerp")
    with pytest.raises(UserError) as caught:
        plan_merge(what, open_lineup(what))
    assert caught.value.code == "model_count"
    assert "exactly 1" in caught.value.why


def test_too_little_memory_for_whole_matrices_is_said_before_anything_is_written(
    models: Path, tmp_path: Path
) -> None:
    what = made(models, "iso_c")
    with pytest.raises(UserError) as caught:
        run_merge(plan_merge(what, open_lineup(what)), tmp_path / "out", Unattended(), memory=10**6)
    assert caught.value.code == "memory_too_small"
    assert not list(tmp_path.glob("out*"))


MERGE = """
    import re, sys
    from pathlib import Path
    from trimtab.control import Unattended
    from trimtab.merging.engine import run_merge
    from trimtab.merging.planner import plan_merge
    from trimtab.merging.recipe import FineTuned, ModelRef, Recipe, open_lineup

    root = Path(sys.argv[1])
    recipe = Recipe(
        method="ties", parameters={"density": 0.3, "rescale": "l1"},
        base=ModelRef(path=str(root / "a")),
        finetuned=(FineTuned(path=str(root / "b")), FineTuned(path=str(root / "c"))),
    )
    run_merge(plan_merge(recipe, open_lineup(recipe)), root / "out", Unattended(),
              memory=int(sys.argv[2]), threads=8)
    # not ru_maxrss: that begins with what the parent had
    status = Path("/proc/self/status").read_text()
    print(int(re.search(r"VmHWM:\\s*(\\d+) kB", status)[1]) * 1024)
"""


@pytest.mark.parametrize("rows", [1 << 13, 1 << 14])
def test_the_memory_promised_is_kept_whatever_the_size(tmp_path: Path, rows: int) -> None:
    rng = np.random.default_rng(0)
    start = torch.from_numpy(rng.standard_normal((rows, 1 << 11), dtype=np.float32) * 0.02)
    for number, name in enumerate("abc"):
        moved_on = start + number * 1e-3 * torch.roll(start, number)
        write_model(tmp_path / name, {"w": moved_on.to(torch.bfloat16)}, LLAMA_CONFIG)
    limit = 300 << 20
    script = textwrap.dedent(MERGE)
    run = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path), str(limit)],
        capture_output=True, text=True, check=True, timeout=300,
    )  # fmt: skip
    assert int(run.stdout) < limit
