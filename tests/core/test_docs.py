"""What the documents say is so: the list of methods is current, every example can be planned."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import save_file

from builders import LLAMA_CONFIG, llama_tensors, moved, write_model, write_tokenizer
from trimtab.cli import main
from trimtab.merging.mergekit import is_mergekit, parse_documents, to_recipe
from trimtab.merging.mergekit_methods import METHODS
from trimtab.merging.plan import Plan
from trimtab.merging.planner import plan_merge
from trimtab.merging.recipe import load_recipe, open_lineup
from trimtab.methods import get_method, methods
from trimtab.methods.reference import DIFFERENCES, difference, page

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
_LAYERS = 4


def _examples(document: Path) -> list[str]:
    return re.findall(r"^```yaml\n(.*?)^```", document.read_text("utf-8"), re.DOTALL | re.MULTILINE)


RECIPES = _examples(DOCS / "recipes.md")


def test_the_list_of_methods_is_the_registrys() -> None:
    assert (DOCS / "methods.md").read_text("utf-8") == page(), (
        "python -m trimtab.methods.reference > docs/methods.md"
    )


def test_the_list_is_made_without_torch() -> None:
    code = (
        "import sys; from trimtab.methods.reference import page; page(); "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_differences_are_of_methods_that_are_there() -> None:
    assert set(DIFFERENCES) <= {method.name for method in methods()}


@pytest.mark.parametrize("name", sorted(METHODS))
def test_a_default_other_than_mergekits_is_said(name: str) -> None:
    method = get_method(name)
    for theirs in (*METHODS[name].shared, *METHODS[name].each):
        if theirs.kind == "hint" or theirs.name == "weight":
            continue
        ours = method.parameter(theirs.ours).default
        default = {True: "l1", False: "none"}.get(theirs.default) if theirs.kind == "rescale" else (
            theirs.default
        )  # fmt: skip
        if ours != default:
            assert f"`{theirs.ours}" in difference(name), (theirs.ours, ours, default)


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A folder with the models that the examples name, and the result one of them uses."""
    config = LLAMA_CONFIG | {"num_hidden_layers": _LAYERS}
    base = llama_tensors(1, torch.float32, layers=_LAYERS)
    words = {f"t{i}": i for i in range(38)}
    for seed, name in enumerate(("base", "aligned", "one", "two", "halves")):
        folder = write_model(tmp_path / "models" / name, moved(base, seed, 0.01), config)
        own = ["<|im_start|>", "<|tool|>"] if name in ("one", "two") else []
        write_tokenizer(folder, words, own)
    adapter = tmp_path / "models" / "adapter"
    adapter.mkdir()
    said = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"]}
    (adapter / "adapter_config.json").write_text(json.dumps(said))
    stem = "base_model.model.model.layers.0.self_attn.q_proj"
    factors = {
        f"{stem}.lora_A.weight": torch.ones(2, 16),
        f"{stem}.lora_B.weight": torch.ones(16, 2),
    }
    save_file(factors, adapter / "adapter_model.safetensors")
    return tmp_path


def _plans(text: str, folder: Path) -> list[Plan]:
    """Read an example as the command does, and plan it."""
    if not is_mergekit(next(iter(yaml.safe_load_all(text)))):
        path = folder / "recipe.yaml"
        path.write_text(text, encoding="utf-8")
        recipes = [load_recipe(path)]
    else:
        results = {"halves": folder / "models" / "halves"}
        recipes = [to_recipe(m.document, folder, results) for m in parse_documents(text)]
    return [plan_merge(recipe, open_lineup(recipe)) for recipe in recipes]


@pytest.mark.parametrize("text", RECIPES, ids=range(len(RECIPES)))
def test_every_example_of_a_recipe_can_be_planned(text: str, models: Path) -> None:
    for plan in _plans(text, models):
        assert "merged" in plan.counts or plan.method.name == "passthrough"


def test_examples_mean_what_is_said_beside_them(models: Path) -> None:
    plans = [_plans(text, models) for text in RECIPES]
    lineup, lora, values, stack, arcs, towers, tokens, output, theirs, several = plans
    ratios = {tensor.name: tensor.ratios for tensor in lineup[0].tensors}
    assert ratios["model.layers.1.mlp.down_proj.weight"] == (0.4, 1.0)
    assert ratios["model.layers.2.self_attn.q_proj.weight"] == (0.4, 1.0)
    assert ratios["model.layers.2.mlp.down_proj.weight"] == (0.2, 1.0)
    assert ratios["lm_head.weight"] == (0.8, 1.0)
    assert [m.adapter is not None for m in lora[0].lineup.finetuned] == [False, True]
    ties = {tensor.name: tensor for tensor in values[0].tensors}
    last = ties["model.layers.3.self_attn.q_proj.weight"]
    assert last.ratios == (1.0, 0.3)
    assert last.parameters["density"] == (0.3, 0.5)
    assert ties["model.layers.0.mlp.up_proj.weight"].ratios == (0.2, 1.0)
    assert ties["model.norm.weight"].ratios == (0.2, 0.6)
    names = {tensor.name: tensor for tensor in stack[0].tensors}
    assert stack[0].config["num_hidden_layers"] == 6
    assert names["model.layers.3.mlp.down_proj.weight"].parameters["scale"] == (0.9,)
    assert names["model.layers.2.mlp.down_proj.weight"].action == "copied"
    slerp = {tensor.name: tensor for tensor in arcs[0].tensors}
    assert [slerp[f"model.layers.{i}.mlp.up_proj.weight"].parameters["t"] for i in range(4)] == [
        0.1, 0.5, 0.4, 0.4,
    ]  # fmt: skip
    assert {tensor.ratios for tensor in towers[0].tensors} == {(0.3,)}
    assert tokens[0].config["vocab_size"] == 64
    assert set(tokens[0].files) == {"tokenizer.json", "chat_template.jinja"}
    assert {tensor.dtype for tensor in output[0].tensors} == {"BF16"}
    assert theirs[0].parameters["normalize"] is True
    assert [plan.method.name for plan in several] == ["slerp", "task_arithmetic"]


def test_the_readmes_recipe_is_one(tmp_path: Path) -> None:
    [text] = _examples(ROOT / "README.md")
    (tmp_path / "recipe.yaml").write_text(text, encoding="utf-8")
    assert load_recipe(tmp_path / "recipe.yaml").finetuned


def _commands() -> dict[str, set[str]]:
    """Return the commands that the README names, each with the options it shows."""
    text = (ROOT / "README.md").read_text("utf-8")
    found: dict[str, set[str]] = {}
    for command, rest in re.findall(
        r"^`?trimtab ([a-z-]+)([^`\n]*)", text, re.MULTILINE
    ) + re.findall(r"`trimtab ([a-z-]+)([^`]*)`", text):
        shown = rest.split("   ")[0]
        found.setdefault(command, set()).update(re.findall(r"(?<!\S)\[?(--?[a-z][a-z-]*)", shown))
    return found


@pytest.mark.parametrize("command", sorted(_commands()))
def test_the_readme_names_commands_that_are_there(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        main([command, "--help"])
    said = capsys.readouterr().out
    assert left.value.code == 0
    for option in _commands()[command]:
        assert re.search(rf"(?<![\w-]){option}(?![\w-])", said), option


@pytest.mark.parametrize("document", ["README.md", "docs/recipes.md", "docs/methods.md"])
def test_links_lead_somewhere(document: str) -> None:
    text = (ROOT / document).read_text("utf-8")
    headings = {
        re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")
        for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    }
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if target.startswith("#"):
            assert target[1:] in headings, target
        elif "://" not in target:
            assert ((ROOT / document).parent / target).exists(), target
