"""Methods of other packages: installed for real, found by their entry points, and kept apart."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from builders import llama_tensors, moved, weights, write_model
from trimtab.methods import methods

Arrays = Mapping[str, npt.NDArray[np.float32]]
EXAMPLE = Path(__file__).parents[2] / "docs" / "example-method"

_LIST = """
import json
from trimtab.methods import load_entry_points, methods
problems = load_entry_points()
print(json.dumps({
    "problems": problems,
    "again": load_entry_points(),
    "methods": {m.name: m.origin for m in methods()},
    "median": [[m.title, m.sentence, m.parameters[0].range_text]
               for m in methods() if m.name == "median"],
}))
"""


def _python(packages: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(packages), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *arguments], env=environment, capture_output=True, text=True, timeout=120
    )


def _listed(packages: Path) -> dict[str, Any]:
    done = _python(packages, "-c", _LIST)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _offer(packages: Path, module: str, source: str) -> None:
    """Lay down a package as pip would: a module, and metadata with an entry point."""
    packages.mkdir(parents=True, exist_ok=True)
    (packages / f"{module}.py").write_text(source, encoding="utf-8")
    metadata = packages / f"{module}-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[trimtab.methods]\n{module} = {module}\n")


def _method(name: str) -> str:
    return f"""
from trimtab.methods import merge_method

@merge_method(title="T", formula="θ = θ_ref", reference="None")
def {name}(x):
    \"\"\"Keep the reference.\"\"\"
    return x.reference
"""


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the example package is installed in; nothing is fetched for it."""
    packages = tmp_path_factory.mktemp("packages")
    if importlib.util.find_spec("hatchling") is None:
        # what pip would lay down, by hand
        project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
        [module] = project["entry-points"]["trimtab.methods"].values()
        _offer(packages, module, (EXAMPLE / f"{module}.py").read_text(encoding="utf-8"))
        return packages
    source = packages.with_name("example-source")
    shutil.copytree(EXAMPLE, source)
    done = _python(
        Path(), "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-cache-dir",
        "--no-build-isolation", "--disable-pip-version-check", "--target", str(packages),
        str(source),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return packages


def test_the_installed_example_is_listed(example: Path) -> None:
    listed = _listed(example)
    assert listed["problems"] == []
    assert listed["methods"]["median"] == "trimtab_median"
    built_in = [m for m in methods() if m.origin.startswith("trimtab.")]
    assert len(listed["methods"]) == len(built_in) + 1
    [(title, sentence, scale)] = listed["median"]
    assert title == "Median"
    assert sentence.startswith("Take the median of the task vectors")
    assert scale == "-2 to 2"


def _lineup(root: Path, ratios: Mapping[str, float]) -> tuple[Arrays, list[Arrays]]:
    """Write an aligned model and fine-tuned ones; return it and their weighted changes."""
    aligned = llama_tensors(1, torch.float32)
    write_model(root / "models" / "aligned", aligned)
    changes = []
    for seed, (name, ratio) in enumerate(ratios.items()):
        tensors = moved(aligned, 2 + seed, 0.05)
        write_model(root / "models" / name, tensors)
        changes.append({k: ratio * (v - aligned[k]).numpy() for k, v in tensors.items()})
    return {k: v.numpy() for k, v in aligned.items()}, changes


def _merge(packages: Path, root: Path, recipe: str) -> subprocess.CompletedProcess[str]:
    (root / "recipe.yaml").write_text(recipe, encoding="utf-8")
    recipe_path, output = str(root / "recipe.yaml"), str(root / "out")
    return _python(packages, "-m", "trimtab", "merge", recipe_path, "-o", output, "--json")


_TWO = """
trimtab: 1
method: median
parameters: {scale: [{filter: mlp, value: 0.5}, {value: 0.9}]}
aligned: {path: models/aligned}
finetuned: [{path: models/one, ratio: 0.5}, {path: models/two, ratio: 2}]
"""


@pytest.mark.parametrize("of", ["three", "two"])
def test_a_recipe_with_it_gives_the_median(example: Path, tmp_path: Path, of: str) -> None:
    readme = (EXAMPLE / "README.md").read_text(encoding="utf-8")
    in_readme = readme.split("```yaml\n")[1].split("```")[0]
    recipe, ratios = {
        "three": (in_readme, {"one": 1.0, "two": 1.0, "three": 1.0}),
        "two": (_TWO, {"one": 0.5, "two": 2.0}),
    }[of]
    reference, changes = _lineup(tmp_path, ratios)
    done = _merge(example, tmp_path, recipe)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["method"] == "median"
    merged = weights(tmp_path / "out")
    assert set(merged) == set(reference)
    for name, start in reference.items():
        scale = 0.5 if of == "two" and "mlp" in name else 0.9
        wanted = start + scale * np.median([change[name] for change in changes], axis=0)
        np.testing.assert_allclose(merged[name].numpy(), wanted, rtol=1e-5, atol=1e-8)


_ROW_MEANS = """
from trimtab.methods import merge_method

@merge_method(title="Row means", formula="θ = θ_ref + mean τ", reference="None")
def row_means(x):
    \"\"\"Add to each row the mean of its change.\"\"\"
    [delta] = x.deltas()
    assert x.reference.shape == delta.shape == x.shape
    return x.reference + delta.mean(-1, keepdim=True)
"""


def test_what_says_nothing_of_itself_gets_whole_tensors(tmp_path: Path) -> None:
    _offer(tmp_path / "packages", "third_rows", _ROW_MEANS)
    reference, [change] = _lineup(tmp_path, {"one": 1.0})
    recipe = _TWO.replace("median", "row_means").replace(", {path: models/two, ratio: 2}", "")
    recipe = recipe.replace("parameters: {scale: [{filter: mlp, value: 0.5}, {value: 0.9}]}", "")
    done = _merge(tmp_path / "packages", tmp_path, recipe)
    assert done.returncode == 0, done.stdout + done.stderr
    merged = weights(tmp_path / "out")
    for name, start in reference.items():
        wanted = start + change[name].mean(-1, keepdims=True)
        np.testing.assert_allclose(merged[name].numpy(), wanted, rtol=1e-5, atol=1e-7)


def test_a_package_that_fails_takes_only_its_own_methods_away(tmp_path: Path) -> None:
    _offer(tmp_path, "aaa_broken", _method("half_done") + "\nraise RuntimeError('no such luck')\n")
    _offer(tmp_path, "bbb_leaving", "import sys\n" + _method("leaving") + "\nsys.exit(3)\n")
    _offer(tmp_path, "ccc_missing", "import surely_not_installed\n")
    _offer(tmp_path, "ddd_sound", _method("sound"))
    listed = _listed(tmp_path)
    assert listed["methods"]["sound"] == "ddd_sound"
    assert "half_done" not in listed["methods"]
    assert "leaving" not in listed["methods"]
    built_in = [m for m in methods() if m.origin.startswith("trimtab.")]
    assert len(listed["methods"]) == len(built_in) + 1
    broken, leaving, missing = listed["problems"]
    assert "aaa_broken" in broken
    assert "no such luck" in broken
    assert "bbb_leaving" in leaving
    assert "ccc_missing" in missing
    assert "surely_not_installed" in missing
    assert listed["again"] == listed["problems"]


def test_whoever_asks_for_a_method_that_failed_hears_why(tmp_path: Path) -> None:
    _offer(tmp_path, "broken_median", "raise RuntimeError('no such luck')\n")
    _lineup(tmp_path, {"one": 1.0, "two": 1.0})
    done = _merge(tmp_path, tmp_path, _TWO)
    assert done.returncode == 1
    error = json.loads(done.stdout)["error"]
    assert error["code"] == "unknown_method"
    assert "broken_median" in json.dumps(error)
    assert "no such luck" in json.dumps(error)


def test_of_two_methods_of_one_name_the_second_is_refused(tmp_path: Path) -> None:
    _offer(tmp_path, "aaa_first", _method("twin"))
    _offer(tmp_path, "bbb_second", _method("alone") + _method("twin"))
    _offer(tmp_path, "ccc_ties", _method("ties"))
    listed = _listed(tmp_path)
    assert listed["methods"]["twin"] == "aaa_first"
    assert listed["methods"]["ties"] == "trimtab.methods.ties"
    assert "alone" not in listed["methods"]
    second, ties = listed["problems"]
    assert "aaa_first" in second
    assert "bbb_second" in second
    assert "trimtab.methods.ties" in ties
    assert "ccc_ties" in ties
