"""Masks hold the entries that a sort would choose, and accounts and controls add up."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from builders import llama_tensors, moved, recipe, tuned, weights, write_model
from trimtab.activations.norms import ActNorms
from trimtab.checkpoints.naming import parse
from trimtab.checkpoints.reader import TensorReader
from trimtab.control import Unattended
from trimtab.errors import UserError
from trimtab.jobs.tasks import run_job
from trimtab.masks import builders as mask_builders
from trimtab.masks.bits import unpack
from trimtab.masks.builders import (
    AtLeast,
    Difference,
    Extent,
    Largest,
    Selection,
    count_kept,
    write_selection,
)
from trimtab.masks.entries import Chance, MaskEntry, Rule
from trimtab.masks.file import MaskAbout, MaskFile, MaskWriter
from trimtab.masks.matched import write_control
from trimtab.masks.scores import Magnitude, TaskVector, finetuned
from trimtab.masks.stack import MaskStack
from trimtab.merging.recipe import Recipe, open_lineup

Floats = npt.NDArray[np.float32]
Flags = npt.NDArray[np.bool_]
Q = "model.layers.0.self_attn.q_proj.weight"
ABOUT = MaskAbout(builder="test")


class Scores:
    """Scores that lie in memory."""

    about: Mapping[str, Any] = {}

    def __init__(self, of: Mapping[str, Floats]):
        self.of = of

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.of)

    def shape(self, name: str) -> tuple[int, ...]:
        return self.of[name].shape

    def read(self, name: str, low: int, high: int) -> Floats:
        return self.of[name].reshape(-1)[low:high].copy()


def drawn(seed: int) -> Scores:
    """Scores with many ties, zeros of both signs and a wide range."""
    draw = np.random.default_rng(seed)
    shapes = {"a": (13, 21), "b": (50,), "c": (2, 3, 7), "d": (1, 1), "e": (0, 4)}
    return Scores(
        {
            n: np.float32(
                draw.integers(-3, 4, s) * 10.0 ** draw.integers(-3, 3, s) * draw.choice([-1, 1], s)
            )
            for n, s in shapes.items()
        }
    )


def written(selection: Selection, path: Path, *, remove: bool = False) -> dict[str, Flags]:
    with MaskWriter(path, ABOUT) as writer:
        write_selection(selection, writer, Unattended(), remove=remove)
        writer.finish()
    file = MaskFile.open(path)
    found = {}
    for name in selection.names:
        shape = file.shape(name)
        assert shape == selection.shape(name)
        size = int(np.prod(shape))
        found[name] = unpack(file.read_bits(name, 0, size), size).reshape(shape)
    return found


def sorted_out(values: Floats, k: int, smallest: bool) -> Flags:
    """The k largest by a stable sort: of equal ones the first."""
    order = np.argsort(values if smallest else -values, kind="stable")
    chosen = np.zeros(values.size, dtype=np.bool_)
    chosen[order[:k]] = True
    return chosen


def expected(scores: Scores, share: float, extent: Extent, smallest: bool) -> dict[str, Flags]:
    if extent == "model":
        flat = np.concatenate([v.reshape(-1) for v in scores.of.values()])
        chosen = sorted_out(flat, count_kept(flat.size, share), smallest)
        ends = np.cumsum([v.size for v in scores.of.values()])[:-1]
        parts = np.split(chosen, ends)
        return {n: p.reshape(v.shape) for (n, v), p in zip(scores.of.items(), parts, strict=True)}
    found = {}
    for name, values in scores.of.items():
        width = values.shape[-1] if extent == "row" else max(values.size, 1)
        rows = values.reshape(-1, width)
        k = count_kept(width, share) if values.size else 0
        chosen = [sorted_out(row, k, smallest) for row in rows]
        found[name] = np.array(chosen, dtype=np.bool_).reshape(values.shape)
    return found


@pytest.mark.parametrize("smallest", [False, True])
@pytest.mark.parametrize("extent", ["row", "tensor", "model"])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.77, 1.0])
@pytest.mark.parametrize("stride", [8, 1 << 20])
def test_the_chosen_are_those_of_a_stable_sort(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: float, extent: Extent,
    smallest: bool, stride: int,
) -> None:  # fmt: skip
    monkeypatch.setattr(mask_builders, "STRIDE", stride)
    scores = drawn(1)
    chosen = Largest(scores, keep=share, extent=extent, smallest=smallest)
    found = written(chosen, tmp_path / "a.mask.safetensors")
    for name, wanted in expected(scores, share, extent, smallest).items():
        np.testing.assert_array_equal(found[name], wanted, name)


@pytest.mark.parametrize("extent", ["row", "tensor", "model"])
@pytest.mark.parametrize("alpha", [1e-5, 0.1, 0.5])
def test_what_is_removed_is_the_argmax_set_with_the_floor_of_what_stays(
    tmp_path: Path, alpha: float, extent: Extent
) -> None:
    """As int(in · (1 − α)) smallest are kept: at least one entry goes, however small α is."""
    scores = drawn(2)
    selection = Largest(scores, remove=alpha, extent=extent)
    found = written(selection, tmp_path / "a.mask.safetensors", remove=True)
    # the smallest stay; of equal ones the last, since the first are among the largest
    for name, values in scores.of.items():
        if extent == "row":
            width = values.shape[-1]
            for row, kept in zip(
                values.reshape(-1, width), found[name].reshape(-1, width), strict=True
            ):
                gone = width - int(width * (1 - alpha))
                np.testing.assert_array_equal(~kept, sorted_out(row, gone, False))
    if extent == "model":
        total = sum(v.size for v in scores.of.values())
        assert sum(int(kept.sum()) for kept in found.values()) == int(total * (1 - alpha))


def test_a_threshold_keeps_scores_that_reach_it(tmp_path: Path) -> None:
    scores = drawn(3)
    found = written(AtLeast(scores, 0.1), tmp_path / "a.mask.safetensors")
    for name, values in scores.of.items():
        np.testing.assert_array_equal(found[name], values >= np.float32(0.1))


def test_a_set_difference_is_the_one_without_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mask_builders, "STRIDE", 16)
    safety = drawn(4)
    # rows are cut in other places than flat pieces
    utility = Scores({n: v for n, v in drawn(5).of.items() if n != "b"})
    of = Largest(safety, remove=0.4, extent="tensor")
    found = written(
        Difference(of, Largest(utility, keep=0.3, extent="row")),
        tmp_path / "a.mask.safetensors", remove=True,
    )  # fmt: skip
    first = {n: ~k for n, k in written(of, tmp_path / "b.mask.safetensors", remove=True).items()}
    other = expected(utility, 0.3, "row", False)
    for name in safety.names:
        wanted = first[name] & ~other[name] if name in other else first[name]
        np.testing.assert_array_equal(~found[name], wanted, name)


def test_scores_that_are_not_numbers_are_refused(tmp_path: Path) -> None:
    scores = Scores({"a": np.array([1, np.nan, 2], dtype=np.float32)})
    for selection in (Largest(scores, keep=0.5), Largest(scores, keep=0.5, extent="row"),
                      AtLeast(scores, 1)):  # fmt: skip
        with pytest.raises(UserError) as error:
            written(selection, tmp_path / "a.mask.safetensors")
        assert error.value.code == "scores_not_numbers"
    with pytest.raises(UserError):
        Largest(scores)
    with pytest.raises(UserError):
        Largest(scores, keep=0.5, remove=0.5)


@pytest.fixture
def models(tmp_path: Path) -> Path:
    aligned = llama_tensors(1)
    write_model(tmp_path / "aligned", aligned)
    write_model(tmp_path / "base", moved(aligned, 9))
    write_model(tmp_path / "one", moved(aligned, 2))
    write_model(tmp_path / "two", moved(aligned, 3))
    return tmp_path


def made(models: Path, *masks: MaskEntry) -> Recipe:
    return recipe(
        models / "aligned", tuned(models / "one", masks=masks), models / "two", base=models / "base"
    )


@contextmanager
def vector(what: Recipe, name: str = "one") -> Iterator[TaskVector]:
    lineup = open_lineup(what)
    with TensorReader() as reader:
        yield TaskVector(lineup, finetuned(lineup, name), reader)


def tau(models: Path, name: str = "one") -> dict[str, Floats]:
    own, reference = weights(models / name), weights(models / "aligned")
    return {n: (t.float() - reference[n].float()).numpy() for n, t in own.items()}


def test_magnitude_is_the_size_of_what_fine_tuning_changed(models: Path) -> None:
    with vector(made(models)) as found:
        scores = Magnitude(found)
        assert set(scores.names) == set(weights(models / "one"))
        wanted = np.abs(tau(models)[Q])
        assert scores.shape(Q) == (16, 16)
        np.testing.assert_array_equal(scores.read(Q, 3, 40), wanted.reshape(-1)[3:40])


def run(name: str, what: Recipe, **more: Any) -> dict[str, Any]:
    return run_job(name, {"recipe": what.model_dump(), **more}, Unattended())


def test_the_account_is_the_formula_in_float64(models: Path, tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    aligned, base = weights(models / "aligned"), weights(models / "base")
    soft = {n: draw.random(v.shape).astype(np.float16) for n, v in tau(models).items()}
    path = tmp_path / "s.mask.safetensors"
    with MaskWriter(path, ABOUT) as writer:
        for name, values in soft.items():
            writer.soft(name, values.shape, values.reshape(-1))
        writer.finish()
    rule = MaskEntry(rule=Rule(layers=(1, 1)), op="minus")
    what = made(models, MaskEntry(path=str(path)), rule)
    norms = {Q: draw.random(16).astype(np.float32)}
    same = {n: np.float32(v**2) for n, v in norms.items()}
    ActNorms(same, same, norms, 1, 1, frozenset()).save(tmp_path / "norms.safetensors")
    found = run("mask_account", what, model="one", norms=str(tmp_path / "norms.safetensors"))
    assert found["knows"] == {"alignment": True, "output": "diagonal"}
    sums = np.zeros(6)
    by_layer: dict[str, float] = {}
    for name in soft:
        away = 1 - soft[name].astype(np.float64)
        if ".layers.1." in name:
            away[:] = 1
        t = tau(models)[name].astype(np.float64)
        a = (aligned[name].float() - base[name].float()).numpy().astype(np.float64)
        part = found["tensors"][name]
        share = away.sum() / away.size
        wanted = {
            "entries": away.size, "entries_removed": away.sum(),
            "tau": (t**2).sum(), "tau_removed": ((away * t) ** 2).sum(),
            "tau_by_chance": share * (t**2).sum(),
            "alignment": (a**2).sum(), "alignment_removed": ((away * a) ** 2).sum(),
            "alignment_by_chance": share * (a**2).sum(),
            "share_of_tau": ((away * t) ** 2).sum() / (t**2).sum(), "density": 1 - share,
        }  # fmt: skip
        if name == Q:
            out = t * norms[Q]
            wanted |= {"output": (out**2).sum(), "output_removed": ((away * out) ** 2).sum()}
        for key, value in wanted.items():
            np.testing.assert_allclose(part[key], value, rtol=1e-6, err_msg=f"{name} {key}")
        sums += [wanted[k] for k in ("entries", "entries_removed", "tau", "tau_removed",
                                     "alignment", "alignment_removed")]  # fmt: skip
        layer = str(-1 if parse(name).layer is None else parse(name).layer)
        by_layer[layer] = by_layer.get(layer, 0) + wanted["tau_removed"]
    total = found["total"]
    keys = ("entries", "entries_removed", "tau", "tau_removed", "alignment", "alignment_removed")
    np.testing.assert_allclose([total[k] for k in keys], sums, rtol=1e-6)
    assert found["layers"].keys() == by_layer.keys()
    for layer, value in by_layer.items():
        np.testing.assert_allclose(found["layers"][layer]["tau_removed"], value, rtol=1e-6)


@pytest.mark.parametrize("over", ["tensor", "model"])
@pytest.mark.parametrize("match", ["energy", "entries"])
def test_a_control_removes_as_much_as_the_mask(
    models: Path, tmp_path: Path, match: Any, over: Any
) -> None:
    with vector(made(models)) as found:
        with MaskWriter(tmp_path / "m.mask.safetensors", ABOUT) as writer:
            write_selection(
                Largest(Magnitude(found), remove=0.1), writer, Unattended(), remove=True
            )
            writer.finish()
        entry = MaskEntry(path=str(tmp_path / "m.mask.safetensors"))
        entries = (entry, MaskEntry(rule=Rule(modules=("norm",)), op="minus"))
        kept: list[dict[str, Flags]] = []
        for number, seed in enumerate((1, 1, 2)):
            path = tmp_path / f"c{number}.mask.safetensors"
            with MaskWriter(path, ABOUT) as writer:
                matched = write_control(
                    MaskStack(entries), found, writer, Unattended(),
                    match=match, over=over, seed=seed,
                )  # fmt: skip
                writer.finish()
            file = MaskFile.open(path)
            sizes = {n: int(np.prod(found.shape(n))) for n in found.names}
            kept.append({n: unpack(file.read_bits(n, 0, s), s) for n, s in sizes.items()})
        stack = MaskStack(entries)
        wanted, removed, most = {}, {}, {}
        for name in found.names:
            t = tau(models)[name].reshape(-1).astype(np.float64)
            weight = t**2 if match == "energy" else np.ones_like(t)
            mask = stack.of(name, found.shape(name))
            own = (
                np.full(t.size, mask) if isinstance(mask, bool)
                else unpack(mask.bits(0, t.size), t.size)
            )  # fmt: skip
            wanted[name], removed[name] = weight[~own].sum(), weight[~kept[0][name]].sum()
            most[name] = weight.max()
    if over == "tensor":
        assert {m.name for m in matched} == {n for n in found.names if parse(n).module != "norm"}
        for name in found.names:
            assert abs(wanted[name] - removed[name]) <= most[name] / 2 + 1e-12, name
            if parse(name).module == "norm":
                assert not kept[0][name].any()
    else:
        off = abs(sum(wanted.values()) - sum(removed.values()))
        assert off <= max(most.values()) / 2 + 1e-12
    assert all((kept[0][n] == kept[1][n]).all() for n in found.names)
    assert any((kept[0][n] != kept[2][n]).any() for n in found.names)
    # chance knows nothing of the mask: they agree no more than independent ones would
    if match == "entries" and over == "tensor":
        both = np.mean([(~kept[0][n]).mean() for n in found.names if parse(n).module != "norm"])
        assert both == pytest.approx(0.1, abs=0.02)


def test_a_control_that_could_only_be_the_mask_is_refused(models: Path, tmp_path: Path) -> None:
    what = made(models, MaskEntry(rule=Rule(layers=(0, 0)), op="minus"))
    output = str(tmp_path / "c.mask.safetensors")
    with pytest.raises(UserError) as error:
        run("mask_control", what, model="one", output=output)
    assert error.value.code == "control_is_the_mask"
    report = run("mask_control", what, model="one", output=output, over="model")
    account = run("mask_account", what, model="one")
    assert report["account"]["total"]["tau_removed"] == pytest.approx(
        account["total"]["tau_removed"], rel=0.01
    )
    with pytest.raises(UserError) as error:
        run("mask_control", what, model="one", output=output, over="model")
    assert error.value.code == "output_exists"


def test_built_masks_say_where_they_are_from(models: Path, tmp_path: Path) -> None:
    what, output = made(models), tmp_path / "m.mask.safetensors"
    of = {"score": "magnitude", "remove": 0.2, "extent": "row"}
    only = {"layers": (1, 1)}
    report = run("mask_build", what, model="one", output=str(output), of=of, only=only)
    file = MaskFile.open(output)
    assert all(".layers.1." in name for name in file.names)
    assert file.about.builder == "magnitude"
    assert file.about.mode == "ours"
    assert file.about.parameters["of"]["remove"] == 0.2
    assert file.about.lineup == open_lineup(what).fingerprint
    assert report["account"]["layers"]["0"]["density"] == 1
    # int(16 · 0.8) and int(24 · 0.8) of each row stay
    assert report["account"]["tensors"][Q.replace(".0.", ".1.")]["density"] == 12 / 16
    refused = {
        "no_scores": {"of": {"score": "delta-wanda", "keep": 0.1}},
        "nothing_to_mask": {"of": of, "only": {"modules": ("router",)}},
        "unknown_model": {"of": of, "model": "three"},
        "not_scores": {"of": {"score": "stored", "keep": 0.1, "file": str(models / "one" / "model.safetensors")}},  # noqa: E501
    }  # fmt: skip
    for code, more in refused.items():
        with pytest.raises(UserError) as error:
            run("mask_build", what, output=str(tmp_path / "x.mask.safetensors"),
                **{"model": "one", **more})  # fmt: skip
        assert error.value.code == code


def test_wanda_masks_name_the_prompts_that_they_were_found_with(
    models: Path, tmp_path: Path
) -> None:
    draw = np.random.default_rng(1)
    strength = {Q: draw.random(16).astype(np.float32)}
    said = {"calibration": "harmful", "digest": "abc", "ids": ["h1", "h2"]}
    norms = ActNorms(strength, strength, strength, 4, 9, frozenset(), said)
    norms.save(tmp_path / "n.safetensors")
    what, output = made(models), tmp_path / "m.mask.safetensors"
    of = {"score": "delta-wanda", "remove": 0.25, "extent": "row",
          "file": str(tmp_path / "n.safetensors"), "mode": "authors' code"}  # fmt: skip
    run("mask_build", what, model="one", output=str(output), of=of)
    file = MaskFile.open(output)
    assert file.about.mode == "authors' code"
    assert [(p.name, p.digest, p.ids) for p in file.about.prompts] == [
        ("harmful", "abc", ("h1", "h2"))
    ]
    scores = np.abs(tau(models)[Q]) * np.sqrt(strength[Q] / np.float32(4))
    kept = unpack(file.read_bits(Q, 0, 256), 256).reshape(16, 16)
    for row, own in zip(scores, kept, strict=True):
        np.testing.assert_array_equal(~own, sorted_out(row, 4, False))
    control = tmp_path / "c.mask.safetensors"
    masked = made(models, MaskEntry(path=str(output)))
    run("mask_control", masked, model="one", output=str(control))
    assert MaskFile.open(control).about.prompts == file.about.prompts


def test_masks_are_combined_with_and_without_a_recipe(models: Path, tmp_path: Path) -> None:
    draw = np.random.default_rng(2)
    bits, entries = [], []
    for number in range(2):
        bits.append(draw.random((16, 16)) < 0.5)
        path = tmp_path / f"{number}.mask.safetensors"
        with MaskWriter(path, ABOUT) as writer:
            writer.bits(Q, (16, 16), np.packbits(bits[-1], bitorder="little"))
            writer.finish()
        entries.append({"path": str(path), "op": "xor" if number else "and"})
    output = tmp_path / "x.mask.safetensors"
    params = {"entries": entries, "output": str(output)}
    assert run_job("mask_combine", params, Unattended())["account"] is None
    file = MaskFile.open(output)
    assert file.names == (Q,)
    np.testing.assert_array_equal(
        unpack(file.read_bits(Q, 0, 256), 256), (bits[0] ^ bits[1]).ravel()
    )
    chance = [*entries, MaskEntry(random=Chance(keep=0.5, seed=1)).model_dump()]
    report = run(
        "mask_combine", made(models), entries=chance, model="one", output=str(output),
        overwrite=True,
    )  # fmt: skip
    assert set(MaskFile.open(output).names) == set(report["account"]["tensors"])
    with pytest.raises(UserError) as error:
        run_job("mask_combine", {"entries": chance[2:], "output": str(output), "overwrite": True},
                Unattended())  # fmt: skip
    assert error.value.code == "nothing_to_mask"


def test_the_command_builds_shows_joins_and_matches(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from trimtab.cli import main

    what = models / "mix.trim"
    made(models).save(what)
    first, second = tmp_path / "a.mask.safetensors", tmp_path / "b.mask.safetensors"

    def said(*arguments: object) -> str:
        assert main(["mask", *map(str, arguments)]) == 0
        return capsys.readouterr().out

    assert "25.00 %" in said("build", what, "--model", "one", "--keep", "0.25", "-o", first)
    said("build", what, "--model", "one", "--random", "0.5", "--layers", "0-0", "-o", second)
    random_file = MaskFile.open(second)
    assert {random_file.kind(n) for n in random_file.names if ".layers.1." in n} == {"all"}
    assert random_file.kind(Q) == "bits"
    shown = said("show", what, first, second, "--model", "one", "--by", "module")
    assert "a.mask.safetensors: magnitude (ours)" in shown
    assert "by chance" in shown
    told = json.loads(said("show", what, first, "--model", "one", "--json"))
    assert told["total"]["density"] == pytest.approx(0.25, abs=0.01)
    assert "off in all" in said(
        "control", what, first, "--model", "one", "-o", tmp_path / "c.mask.safetensors"
    )
    said("combine", first, second, "--op", "or", "--invert", "-o", tmp_path / "d.mask.safetensors")
    joined = MaskFile.open(tmp_path / "d.mask.safetensors")
    one, two = (unpack(MaskFile.open(p).read_bits(Q, 0, 256), 256) for p in (first, second))
    np.testing.assert_array_equal(unpack(joined.read_bits(Q, 0, 256), 256), ~(one | two))
