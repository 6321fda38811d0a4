"""The command: what it prints, what it refuses, and with which exit status."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from builders import llama_tensors, moved, write_model
from trimtab import __version__, console, formatting
from trimtab.cli import main


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A folder with a base, an aligned and a fine-tuned model."""
    base = llama_tensors(0)
    aligned = moved(base, 1)
    tuned = moved(aligned, 2)
    for name, tensors in (("tiny-base", base), ("tiny-chat", aligned), ("tiny-math", tuned)):
        write_model(tmp_path / name, tensors)
    return tmp_path


@pytest.fixture
def recipe(models: Path) -> Path:
    """A recipe beside the models, with relative paths."""
    path = models / "mix.trim"
    path.write_text(
        "trimtab: 1\n"
        "aligned: {path: tiny-chat}\n"
        "finetuned:\n"
        "- {path: tiny-math, ratio: 0.5, layers: {0: 0}}\n"
    )
    return path


def run_json(capsys: pytest.CaptureFixture[str], *argv: object) -> tuple[int, Any]:
    status = main([str(a) for a in argv])
    return status, json.loads(capsys.readouterr().out)


def test_inspect_guesses_roles_and_shows_a_row_for_every_layer(
    models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [str(models / n) for n in ("tiny-math", "tiny-base", "tiny-chat")]
    assert main(["inspect", *paths]) == 0
    out = capsys.readouterr().out
    assert "base       tiny-base" in out
    assert "aligned    tiny-chat" in out
    assert "tiny-math − tiny-chat" in out
    rows = [line.split()[0] for line in out.split("─\n")[-1].splitlines()]
    assert rows == ["in", "0", "1", "out"]


def test_inspect_prints_the_numbers_of_a_dense_computation(
    models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, data = run_json(
        capsys, "inspect", "--by", "tensor", "--json", "--base", models / "tiny-base",
        "--aligned", models / "tiny-chat", models / "tiny-math",
    )  # fmt: skip
    assert status == 0
    name = "model.layers.1.mlp.up_proj.weight"
    base, aligned, tuned = (
        load_file(models / n / "model.safetensors")[name].double()
        for n in ("tiny-base", "tiny-chat", "tiny-math")
    )
    tau, a = tuned - aligned, aligned - base
    row = next(r for r in data["finetuned"]["tiny-math"] if r["name"] == name)
    assert row["tau"] == pytest.approx(float(tau.norm()), rel=1e-5)
    assert row["cosine"] == pytest.approx(float((tau * a).sum() / tau.norm() / a.norm()), rel=1e-4)
    assert row["conflict"] == pytest.approx(float((tau * a < 0).double().mean()))


def test_inspect_without_a_base_leaves_out_what_needs_one(
    models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, data = run_json(
        capsys, "inspect", "--json", "--aligned", models / "tiny-chat", models / "tiny-math"
    )
    assert status == 0
    assert set(data["finetuned"]["tiny-math"][0]) == {"name", "relative", "tau", "zeros"}


def test_inspect_adds_up_to_the_same_norm_by_layer_and_by_module(
    recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    squares = []
    for by in ("layer", "module", "tensor"):
        _, data = run_json(capsys, "inspect", recipe, "--by", by, "--json")
        squares.append(sum(row["tau"] ** 2 for row in data["finetuned"]["tiny-math"]))
    assert squares[1:] == pytest.approx([squares[0]] * 2)


def test_dry_run_accounts_for_every_tensor_and_writes_nothing(
    recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(recipe.parent.iterdir())
    status, plan = run_json(
        capsys, "merge", recipe, "-o", recipe.parent / "out", "--dry-run", "--json"
    )
    assert status == 0
    assert sorted(recipe.parent.iterdir()) == before
    expected = llama_tensors(0)
    assert {t["name"] for t in plan["tensors"]} == set(expected)
    by_name = {t["name"]: t for t in plan["tensors"]}
    for name in expected:
        frozen = name.startswith("model.layers.0.")
        assert by_name[name]["action"] == ("copied" if frozen else "merged")
    assert plan["counts"] == {"copied": 9, "merged": len(expected) - 9}


def test_dry_run_prints_a_line_for_every_tensor(
    recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["merge", str(recipe), "-o", str(recipe.parent / "out"), "--dry-run"]) == 0
    out = capsys.readouterr().out
    for name in llama_tensors(0):
        assert name in out
    assert "from tiny-chat: ratio 0" in out


def test_merge_writes_the_model_and_reports_it(
    recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = recipe.parent / "out"
    status, report = run_json(capsys, "merge", recipe, "-o", output, "--json")
    assert status == 0
    assert report["output"] == str(output)
    merged = load_file(output / "model.safetensors")
    aligned = load_file(recipe.parent / "tiny-chat" / "model.safetensors")
    tuned = load_file(recipe.parent / "tiny-math" / "model.safetensors")
    name = "model.layers.1.mlp.up_proj.weight"
    reference = aligned[name].float()
    expected = reference + (tuned[name].float() - reference) * 0.5
    assert merged[name].equal(expected.bfloat16())
    assert report["bytes_written"] == (output / "model.safetensors").stat().st_size


def test_an_existing_output_is_refused_until_overwriting_is_allowed(
    recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = recipe.parent / "out"
    output.mkdir()
    (output / "mine.txt").write_text("keep")
    assert main(["merge", str(recipe), "-o", str(output)]) == 1
    assert "output_exists" in capsys.readouterr().err
    assert (output / "mine.txt").read_text() == "keep"
    assert main(["merge", str(recipe), "-o", str(output), "--overwrite"]) == 0
    assert not (output / "mine.txt").exists()


def test_errors_are_json_too_when_json_was_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, data = run_json(capsys, "inspect", "--json", tmp_path / "nowhere")
    assert status == 1
    assert data["error"]["code"] == "not_found"
    assert data["error"]["fix"]


def test_a_mistake_in_a_recipe_is_named_by_its_key(
    models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = models / "bad.trim"
    bad.write_text("trimtab: 1\naligned: {path: tiny-chat}\nfinetuned:\n- {path: x, ratoi: 1}\n")
    assert main(["merge", str(bad), "-o", str(models / "out")]) == 1
    assert "finetuned.0.ratoi" in capsys.readouterr().err


def test_resuming_where_nothing_was_begun_is_refused(
    recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["merge", str(recipe), "-o", str(recipe.parent / "out"), "--resume"]) == 1
    assert "cannot_resume" in capsys.readouterr().err
    assert not (recipe.parent / "out.partial").exists()


def test_a_device_that_is_not_there_is_refused_before_anything_is_written(
    recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = recipe.parent / "out"
    for name in ("cuda:99", "abacus"):
        assert main(["merge", str(recipe), "-o", str(output), "--device", name]) == 1
        assert "no_such_device" in capsys.readouterr().err
    assert not (recipe.parent / "out.partial").exists()


def test_a_cache_that_cannot_be_written_is_said(
    models: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked = models / "a file"
    blocked.write_text("")
    monkeypatch.setenv("TRIMTAB_CACHE_DIR", str(blocked))
    assert main(["inspect", str(models / "tiny-chat"), str(models / "tiny-math")]) == 1
    assert "TRIMTAB_CACHE_DIR" in capsys.readouterr().err


def test_a_reader_that_has_heard_enough_ends_the_command_quietly(recipe: Path) -> None:
    command = [sys.executable, "-m", "trimtab", "merge", str(recipe), "-o", "out", "--dry-run"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1


def test_doctor_speaks_json(capsys: pytest.CaptureFixture[str]) -> None:
    status, data = run_json(capsys, "doctor", "--json")
    assert status == 0
    assert __version__ in json.dumps(data)


def test_misuse_exits_with_two(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["merge"])
    assert stopped.value.code == 2
    assert "usage" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("n_bytes", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.00 kB"), (16.4e9, "16.4 GB"), (1.5e12, "1.50 TB")],
)
def test_sizes_have_three_significant_digits(n_bytes: float, text: str) -> None:
    assert formatting.size(n_bytes) == text


def test_undefined_numbers_are_a_dash_and_negative_ones_have_a_real_minus() -> None:
    assert console.number(float("nan")) == "–"
    assert console.number(-0.5, 2) == "−0.50"


def test_table_columns_line_up() -> None:
    lines = console.table(["name", "n"], [["a", "1"], ["long name", "1000"]]).splitlines()
    assert lines[2] == "a             1"
    assert lines[3] == "long name  1000"
