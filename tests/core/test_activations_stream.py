"""Block by block must be what transformers computes at once, with one block in memory."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from activation_models import FAMILIES, Stopping, make_model, random_tokens

from trimtab.activations.blocks import BlockModel, Site
from trimtab.activations.shelf import Shelf
from trimtab.activations.stream import Pass, Watch
from trimtab.activations.tokens import Batch, batches
from trimtab.activations.weights import checkpoint_weights
from trimtab.checkpoints import open_checkpoint
from trimtab.checkpoints.reader import TensorReader
from trimtab.control import JobCancelled, Unattended
from trimtab.errors import UserError


class _Live(Watch):
    """Writes down how many parameters are in memory while each block runs."""

    def __init__(self, model: BlockModel):
        self._model = model
        self.seen: list[int] = []

    def hidden(self, block: int, states: torch.Tensor, batch: Batch) -> None:
        self.seen.append(self._model.live_parameters)


class _Gradients:
    def __init__(self) -> None:
        self.sums: dict[str, torch.Tensor] = {}

    def linear(self, site: Site, weight: torch.Tensor, slopes: torch.Tensor) -> None:
        found = slopes.sum(0)
        self.sums[site.name] = self.sums[site.name] + found if site.name in self.sums else found

    def done(self, block: int) -> None:
        pass


def _open(folder: Path, reader: TensorReader) -> BlockModel:
    return BlockModel(checkpoint_weights(open_checkpoint(folder)), reader)


def _stored(model: Any, name: str) -> str:
    # the files of some families leave the model's own name away
    return str(name.removeprefix(f"{model.base_model_prefix}."))


@pytest.mark.parametrize("family", FAMILIES)
def test_block_by_block_is_what_transformers_computes(family: str, tmp_path: Path) -> None:
    model = make_model(family, tmp_path / family)
    tokens = random_tokens()
    groups = batches(tokens, together=20)
    gradients = _Gradients()
    with TensorReader() as reader, Shelf(tmp_path) as shelf:
        streamed = _open(tmp_path / family, reader)
        live = _Live(streamed)
        run = Pass(streamed, groups, shelf, Unattended())
        run.forward([live], keep=True)
        for number, batch in enumerate(groups):
            with torch.no_grad():
                expected = model(batch.ids).logits
            found = run.logits(number, batch.ids.shape[1])
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
        losses = run.backward([gradients])
        assert streamed.live_parameters == 0

    total = torch.tensor(0.0)
    for place, token in enumerate(tokens):
        ids = torch.tensor([token.ids])
        labels = ids.clone()
        labels[:, : token.answer] = -100
        loss = model(ids, labels=labels).loss
        assert losses[place] == pytest.approx(loss.item(), abs=1e-5)
        total = total + loss
    torch.autograd.backward(total)
    linears = {
        name: parameter
        for name, parameter in model.named_parameters()
        if {name, _stored(model, name)} & set(gradients.sums)
    }
    assert len(linears) == len(gradients.sums) > 0
    for name, parameter in linears.items():
        key = name if name in gradients.sums else _stored(model, name)
        torch.testing.assert_close(gradients.sums[key], parameter.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", ["llama", "gpt2", "mixtral"])
def test_one_block_is_in_memory_at_a_time(family: str, tmp_path: Path) -> None:
    model = make_model(family, tmp_path / family)
    blocks = next(m for m in model.modules() if isinstance(m, torch.nn.ModuleList))
    largest = max(sum(p.numel() for p in block.parameters()) for block in blocks)
    with TensorReader() as reader, Shelf(tmp_path) as shelf:
        streamed = _open(tmp_path / family, reader)
        assert streamed.live_parameters == 0
        live = _Live(streamed)
        Pass(streamed, batches(random_tokens()), shelf, Unattended()).forward([live])
        assert streamed.live_parameters == 0
    assert max(live.seen) == largest


def test_tokens_of_one_length_run_together_without_padding() -> None:
    groups = batches(random_tokens(), together=20)
    assert [(group.places, tuple(group.ids.shape)) for group in groups] == [
        ((3,), (1, 7)), ((0, 2), (2, 9)), ((1,), (1, 12)),
    ]  # fmt: skip
    assert groups[1].answer.sum(1).tolist() == [5, 4]
    assert [len(g.places) for g in batches(random_tokens(), together=9)] == [1, 1, 1, 1]


def test_a_model_that_lacks_weights_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    make_model("llama", tmp_path / "m")
    file = tmp_path / "m" / "model.safetensors"
    tensors = load_file(file)
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, file, metadata={"format": "pt"})
    with TensorReader() as reader, pytest.raises(UserError) as caught:
        _open(tmp_path / "m", reader)
    assert caught.value.code == "weights_missing"
    assert "layers.1.mlp.up_proj" in caught.value.why


def test_a_model_whose_blocks_share_more_than_states_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers.models.llama.modeling_llama import LlamaModel

    make_model("llama", tmp_path / "m")
    original = LlamaModel.forward

    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        # something happens to the states between two blocks
        self.layers[1].register_forward_pre_hook(lambda m, a: (a[0] * 2, *a[1:]))
        return original(self, *args, **kwargs)

    monkeypatch.setattr(LlamaModel, "forward", forward)
    with TensorReader() as reader, Shelf(tmp_path) as shelf:
        run = Pass(_open(tmp_path / "m", reader), batches(random_tokens()), shelf, Unattended())
        with pytest.raises(UserError) as caught:
            run.forward()
    assert caught.value.code == "not_streamable"


@pytest.mark.parametrize("checks", [0, 5, 14, 20])
def test_a_run_stops_when_it_is_told_to(checks: int, tmp_path: Path) -> None:
    make_model("llama", tmp_path / "m")
    with TensorReader() as reader, Shelf(tmp_path) as shelf:
        model = _open(tmp_path / "m", reader)
        run = Pass(model, batches(random_tokens()), shelf, Stopping(checks))

        def both() -> None:
            run.forward(keep=True)
            run.backward([_Gradients()])

        with pytest.raises(JobCancelled):
            both()
        assert model.live_parameters == 0


def test_what_does_not_fit_in_memory_lies_on_the_disk_until_it_is_taken(tmp_path: Path) -> None:
    values = {i: torch.randn(4, 5, generator=torch.Generator().manual_seed(i)) for i in range(4)}
    with Shelf(tmp_path, room=100) as shelf:
        for i, tensor in values.items():
            shelf.put(i, tensor)
        assert shelf.on_disk == 3 * 80
        assert torch.equal(shelf.get(2), values[2])
        for i, tensor in values.items():
            assert torch.equal(shelf.take(i), tensor)
        for i, tensor in itertools.islice(values.items(), 1, None):
            shelf.put(i, tensor.to(torch.bfloat16))
            assert torch.equal(shelf.get(i), tensor.to(torch.bfloat16))
        assert shelf.on_disk <= 4 * 80
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_spills_to_the_disk_gives_the_same(tmp_path: Path) -> None:
    make_model("llama", tmp_path / "m")
    found = []
    for room in (1 << 30, 0):
        gradients = _Gradients()
        with TensorReader() as reader, Shelf(tmp_path / "s", room) as shelf:
            run = Pass(_open(tmp_path / "m", reader), batches(random_tokens()), shelf, Unattended())
            run.forward(keep=True)
            losses = run.backward([gradients])
        found.append((losses, gradients.sums))
    assert found[0][0] == found[1][0]
    assert all(torch.equal(found[0][1][name], found[1][1][name]) for name in found[0][1])
