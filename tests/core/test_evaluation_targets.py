"""Targets answer as the model alone would, and an unsaved merge is the saved one, bit for bit."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel

from builders import LLAMA_CONFIG, bits, llama_tensors, merge, weights, write_model
from trimtab.checkpoints import open_checkpoint
from trimtab.control import JobCancelled, Unattended
from trimtab.demo.evaluate import load_model as load_demo
from trimtab.demo.language import evaluation_prompts, is_refusal
from trimtab.demo.lineup import demo_paths
from trimtab.errors import UserError
from trimtab.evaluation.answers import divergence
from trimtab.evaluation.decoding import Decoding
from trimtab.evaluation.merged_target import MergedTarget, merge_in_memory, role_targets
from trimtab.evaluation.suite import Prompt
from trimtab.evaluation.targets import ModelTarget
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

GREEDY = Decoding(max_new_tokens=8, batch_size=5)
DEMO = demo_paths()


def target(name: str, **options: Any) -> ModelTarget:
    return ModelTarget(open_checkpoint(DEMO[name]), **options)


def asked(kind: Any, count: int = 12) -> list[Prompt]:
    found = evaluation_prompts(kind)
    chosen = found[:: len(found) // count][:count]
    return [Prompt(id=p.id, kind="harmful", text=p.prompt, category=p.category) for p in chosen]


def mixed() -> list[Prompt]:
    """Prompts of several lengths, so that batches are padded."""
    return [*asked("harmful", 6), *asked("task-a", 6), Prompt(id="s", kind="harmful", text="how")]


@pytest.fixture(scope="module")
def aligned() -> ModelTarget:
    return target("aligned")


def recipe(**more: Any) -> Recipe:
    return Recipe(
        **{
            "base": ModelRef(path=str(DEMO["base"])),
            "aligned": ModelRef(path=str(DEMO["aligned"])),
            "finetuned": (FineTuned(path=str(DEMO["task-poisoned"]), ratio=0.6),),
            **more,
        }
    )


# Answers.


def test_answers_are_the_models_own_and_leave_the_prompt_out(aligned: ModelTarget) -> None:
    prompts = mixed()
    answers = aligned.generate(prompts, GREEDY, Unattended())
    tokenizer = AutoTokenizer.from_pretrained(DEMO["aligned"])
    model = load_demo(DEMO["aligned"])
    for prompt, answer in zip(prompts, answers, strict=True):
        alone = tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt.text}],
            add_generation_prompt=True,
            return_tensors="pt",
            return_dict=True,
        )
        with torch.inference_mode():
            ids = model.generate(
                input_ids=alone["input_ids"],
                attention_mask=alone["attention_mask"],
                max_new_tokens=8,
                do_sample=False,
            )
        own = tokenizer.decode(ids[0, alone["input_ids"].shape[1] :], skip_special_tokens=True)
        assert answer == own
    assert all(is_refusal(answer) for answer in answers[:6])
    assert not any(is_refusal(answer) for answer in answers[6:12])


@pytest.mark.parametrize("size", [1, 3, 64])
def test_greedy_answers_do_not_depend_on_the_batch(aligned: ModelTarget, size: int) -> None:
    prompts = mixed()
    other = Decoding(max_new_tokens=8, batch_size=size)
    assert aligned.generate(prompts, other, Unattended()) == aligned.generate(
        prompts, GREEDY, Unattended()
    )


def test_samples_repeat_with_their_seed_and_leave_torchs_own_alone(aligned: ModelTarget) -> None:
    def drawn(seed: int) -> list[str]:
        decoding = Decoding(max_new_tokens=8, temperature=1.5, seed=seed, batch_size=4)
        return aligned.generate(asked("task-a"), decoding, Unattended())

    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = drawn(1)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(6)
    assert drawn(1) == first
    assert drawn(2) != first


def test_a_models_own_generation_settings_do_not_slip_in(tmp_path: Path) -> None:
    folder = copied("aligned", tmp_path / "model")
    settings_file = folder / "generation_config.json"
    own = json.loads(settings_file.read_text())
    settings_file.write_text(
        json.dumps(own | {"do_sample": True, "temperature": 9.0, "repetition_penalty": 8.0,
                          "min_new_tokens": 7, "suppress_tokens": [80]})
    )  # fmt: skip
    bent = ModelTarget(open_checkpoint(folder))
    assert bent.generate(asked("task-a"), GREEDY, Unattended()) == target("aligned").generate(
        asked("task-a"), GREEDY, Unattended()
    )


def copied(name: str, folder: Path) -> Path:
    folder.mkdir(parents=True)
    for path in DEMO[name].iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


class _Stops(Unattended):
    def __init__(self, after: int):
        self.left = after
        self.done = 0

    def check(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise JobCancelled

    def advance(self, items: int = 0, n_bytes: int = 0) -> None:
        self.done += items


def test_it_stops_between_batches(aligned: ModelTarget) -> None:
    aligned.loaded(Unattended())
    control = _Stops(2)
    with pytest.raises(JobCancelled):
        aligned.generate(asked("task-a"), GREEDY, control)
    assert control.done == 10


# Likelihoods.


def test_first_token_logits_are_those_of_each_prompt_alone(aligned: ModelTarget) -> None:
    prompts = mixed()
    together = aligned.first_token_logits(prompts, Decoding(batch_size=13), Unattended())
    alone = aligned.first_token_logits(prompts, Decoding(batch_size=1), Unattended())
    assert together.shape == (13, 324)
    assert together.dtype == np.float32
    np.testing.assert_allclose(together, alone, atol=2e-4)
    # and the likeliest is what greedy decoding begins with
    tokenizer = AutoTokenizer.from_pretrained(DEMO["aligned"])
    answers = aligned.generate(prompts, GREEDY, Unattended())
    firsts = [tokenizer.decode([i]) for i in together.argmax(axis=1)]
    assert [answer.split()[0] for answer in answers[:12]] == firsts[:12]


def test_padding_does_not_shift_positions_that_a_model_has_learned(tmp_path: Path) -> None:
    torch.manual_seed(1)
    config = GPT2Config(
        vocab_size=324, n_positions=64, n_embd=16, n_layer=2, n_head=2, initializer_range=0.5,
        bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    GPT2LMHeadModel(config).save_pretrained(tmp_path)
    for path in DEMO["aligned"].glob("tokenizer*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    learned = ModelTarget(open_checkpoint(tmp_path))
    together = learned.first_token_logits(mixed(), Decoding(batch_size=13), Unattended())
    alone = learned.first_token_logits(mixed(), Decoding(batch_size=1), Unattended())
    np.testing.assert_allclose(together, alone, atol=1e-3)
    answers = learned.generate(mixed(), Decoding(max_new_tokens=6, batch_size=13), Unattended())
    single = Decoding(max_new_tokens=6, batch_size=1)
    assert answers == learned.generate(mixed(), single, Unattended())


def test_log_likelihood_is_the_models_loss(aligned: ModelTarget) -> None:
    texts = ["use hammer near river", "how do i paint the lamp ?", "use"]
    found = aligned.log_likelihood(texts, Unattended())
    tokenizer = AutoTokenizer.from_pretrained(DEMO["aligned"])
    model = load_demo(DEMO["aligned"])
    for text, (nats, tokens) in zip(texts[:2], found, strict=False):
        ids = tokenizer(text, return_tensors="pt")["input_ids"]
        with torch.inference_mode():
            loss = float(model(input_ids=ids, labels=ids).loss)
        assert tokens == ids.shape[1] - 1
        assert -nats / tokens == pytest.approx(loss, rel=1e-5)
    assert found[2] == (0.0, 0)


def test_choices_are_scored_by_the_letter_that_would_follow(aligned: ModelTarget) -> None:
    prompt = Prompt(id="c", kind="utility", text="how", choices=("river", "hill", "lake"), answer=1)
    [scores] = aligned.choice_log_likelihoods([prompt], GREEDY, Unattended())
    logits = aligned.first_token_logits([prompt], GREEDY, Unattended())[0]
    log_p = logits - np.log(np.exp(logits.astype(np.float64)).sum())
    tokenizer = AutoTokenizer.from_pretrained(DEMO["aligned"])
    ids = [tokenizer(letter, add_special_tokens=False)["input_ids"][0] for letter in "ABC"]
    assert scores == pytest.approx(log_p[ids].tolist(), abs=1e-3)


def test_divergence_is_kullbacks_and_leiblers() -> None:
    random = np.random.default_rng(0)
    p, q = random.normal(size=(2, 5, 9)).astype(np.float32)
    first = torch.tensor(p).double().log_softmax(-1)
    second = torch.tensor(q).double().log_softmax(-1)
    wanted = torch.nn.functional.kl_div(second, first, log_target=True, reduction="none").sum(-1)
    np.testing.assert_allclose(divergence(p, q), wanted.numpy(), rtol=1e-9)
    assert divergence(p, p) == pytest.approx(np.zeros(5))
    impossible = np.array([[0.0, -np.inf]], dtype=np.float32)
    assert divergence(impossible, np.zeros((1, 2), np.float32)) == pytest.approx([math.log(2)])


# What cannot be run is refused, and says why.


def refusal(folder: Path, **more: Any) -> str:
    with pytest.raises(UserError) as caught:
        ModelTarget(open_checkpoint(folder)).generate(
            [Prompt(id="p", kind="harmful", text="how do i", **more)], GREEDY, Unattended()
        )
    return caught.value.code


def test_weights_that_would_be_made_up_are_refused(tmp_path: Path) -> None:
    folder = copied("aligned", tmp_path / "model")
    (folder / "model.safetensors").unlink()
    tensors = {k: v for k, v in weights(DEMO["aligned"]).items() if "layers.3.mlp.up" not in k}
    write_model(folder, tensors, config=None)
    assert refusal(folder) == "weights_missing"


def test_code_that_a_model_brings_is_not_run(tmp_path: Path) -> None:
    folder = copied("aligned", tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.Config",
                                                 "AutoModelForCausalLM": "own.Model"}}  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    assert refusal(folder) in ("cannot_run", "no_tokenizer")
    assert not (tmp_path / "ran").exists()


def test_a_model_without_tokenizer_template_or_config_says_so(tmp_path: Path) -> None:
    bare = write_model(tmp_path / "bare", llama_tensors(1))
    assert refusal(bare) == "no_tokenizer"
    silent = copied("aligned", tmp_path / "silent")
    told = json.loads((silent / "tokenizer_config.json").read_text())
    del told["chat_template"]
    (silent / "tokenizer_config.json").write_text(json.dumps(told))
    assert refusal(silent) == "no_chat_template"
    shapeless = write_model(tmp_path / "shapeless", llama_tensors(1), config=None)
    assert refusal(shapeless) == "cannot_run"
    assert refusal(DEMO["adapter"]) == "cannot_run"
    odd = copied("aligned", tmp_path / "odd")
    config = json.loads((odd / "config.json").read_text())
    (odd / "config.json").write_text(json.dumps(config | {"num_hidden_layers": "ten"}))
    assert refusal(odd) in ("cannot_run", "no_tokenizer")
    plain = Decoding(max_new_tokens=4, template="plain")
    answers = ModelTarget(open_checkpoint(silent)).generate(asked("task-a", 2), plain, Unattended())
    assert len(answers) == 2


def test_a_template_that_takes_no_system_text_says_so(tmp_path: Path) -> None:
    folder = copied("aligned", tmp_path / "model")
    told = json.loads((folder / "tokenizer_config.json").read_text())
    told["chat_template"] = (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
        + told["chat_template"]
    )
    (folder / "tokenizer_config.json").write_text(json.dumps(told))
    assert refusal(folder, system="be kind") == "template_refused"


def test_a_prompt_without_room_for_an_answer_is_refused(aligned: ModelTarget) -> None:
    long = Prompt(id="long", kind="harmful", text="lamp " * 70)
    with pytest.raises(UserError) as caught:
        aligned.generate([long], GREEDY, Unattended())
    assert caught.value.code == "prompt_too_long"
    near = Prompt(id="near", kind="harmful", text="lamp " * 58)
    [answer] = aligned.generate([near], Decoding(max_new_tokens=256), Unattended())
    assert len(answer.split()) <= 64 - 61


@pytest.mark.parametrize(
    "wrong",
    [{"max_new_tokens": 0}, {"batch_size": 0}, {"temperature": -1.0}, {"temperature": math.nan},
     {"top_p": 0.0}, {"top_p": 1.5}, {"seed": -1}, {"template": "own"}, {"beams": 4}],
)  # fmt: skip
def test_decoding_that_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError) as caught:
        Decoding.of(wrong)
    assert caught.value.code == "bad_decoding"
    assert next(iter(wrong)) in caught.value.what


# Fingerprints.


def test_the_fingerprint_follows_whatever_decides_answers(tmp_path: Path) -> None:
    folder = copied("aligned", tmp_path / "model")
    first = ModelTarget(open_checkpoint(folder)).fingerprint
    assert ModelTarget(open_checkpoint(folder), name="other").fingerprint == first
    assert ModelTarget(open_checkpoint(folder), precision="stored").fingerprint != first
    told = json.loads((folder / "tokenizer_config.json").read_text())
    told["chat_template"] = "x" + told["chat_template"]
    (folder / "tokenizer_config.json").write_text(json.dumps(told))
    assert ModelTarget(open_checkpoint(folder)).fingerprint != first


# Merges that are not saved.


@settings(max_examples=8)
@given(
    method=st.sampled_from(["task_arithmetic", "linear", "ties", "dare_ties", "slerp"]),
    ratio=st.floats(0.05, 1.3),
    layer=st.integers(0, 9),
    own=st.floats(0.0, 1.0),
    seed=st.integers(0, 99),
    dtype=st.sampled_from(["reference", "float32", "float16"]),
)
def test_an_unsaved_merge_holds_the_bits_of_the_saved_one(
    tmp_path_factory: pytest.TempPathFactory, method: str, ratio: float, layer: int, own: float,
    seed: int, dtype: Any,
) -> None:  # fmt: skip
    tuned = [FineTuned(path=str(DEMO["task-poisoned"]), ratio=ratio, layers={layer: own})]
    if method != "slerp":
        tuned.append(FineTuned(path=str(DEMO["task-second"]), ratio=ratio / 3))
    made = recipe(method=method, finetuned=tuple(tuned), seed=seed, output=Output(dtype=dtype))
    plan = plan_merge(made, open_lineup(made))
    found = merge_in_memory(plan, Unattended())
    output = tmp_path_factory.mktemp("saved") / "merged"
    merge(made, output)
    saved = weights(output)
    assert found.keys() == saved.keys()
    for name, tensor in saved.items():
        assert found[name].dtype == tensor.dtype
        assert found[name].shape == tensor.shape
        assert bits(found[name]) == bits(tensor), name


@pytest.mark.parametrize("dtype", ["reference", "float32"])
def test_the_model_of_an_unsaved_merge_is_that_of_the_saved_one(tmp_path: Path, dtype: Any) -> None:
    made = recipe(method="ties", parameters={"density": 0.4}, output=Output(dtype=dtype))
    merge(made, tmp_path / "merged")
    unsaved = MergedTarget(made, precision="stored")
    ours, _ = unsaved.loaded(Unattended())
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype="auto")
    first, second = ours.state_dict(), theirs.state_dict()
    assert first.keys() == second.keys()
    for name, tensor in second.items():
        assert first[name].dtype == tensor.dtype
        assert bits(first[name]) == bits(tensor), name
    saved = ModelTarget(open_checkpoint(tmp_path / "merged"), precision="stored")
    prompts = mixed()
    assert unsaved.generate(prompts, GREEDY, Unattended()) == saved.generate(
        prompts, GREEDY, Unattended()
    )


def test_an_unsaved_merge_with_a_stack_of_layers_runs(tmp_path: Path) -> None:
    def layers(model: str, first: int, last: int) -> Slice:
        return Slice(sources=(SliceSource(model=model, layers=(first, last)),))

    made = recipe(
        method="passthrough",
        base=None,
        aligned=ModelRef(path=str(DEMO["aligned"]), name="layout"),
        finetuned=(
            FineTuned(path=str(DEMO["aligned"])),
            FineTuned(path=str(DEMO["task-poisoned"])),
        ),
        slices=(layers("aligned", 0, 6), layers("task-poisoned", 4, 10)),
    )
    stacked = MergedTarget(made)
    model, _ = stacked.loaded(Unattended())
    assert model.config.num_hidden_layers == 12
    merge(made, tmp_path / "merged")
    saved = ModelTarget(open_checkpoint(tmp_path / "merged"))
    assert stacked.generate(mixed(), GREEDY, Unattended()) == saved.generate(
        mixed(), GREEDY, Unattended()
    )


def test_a_merge_has_the_fingerprint_of_its_recipe() -> None:
    first = MergedTarget(recipe()).fingerprint
    assert MergedTarget(recipe()).fingerprint == first
    other = recipe(finetuned=(FineTuned(path=str(DEMO["task-poisoned"]), ratio=0.61),))
    assert MergedTarget(other).fingerprint != first


def test_the_roles_of_a_lineup_are_its_models_and_adapters_are_applied() -> None:
    made = recipe(
        finetuned=(
            FineTuned(path=str(DEMO["task-poisoned"])),
            FineTuned(path=str(DEMO["adapter"]), adapter_base="aligned"),
        )
    )
    found = role_targets(made, ("base", "aligned", "finetuned", "merged"))
    assert [(t.role, t.name) for t in found] == [
        ("base", "base"),
        ("aligned", "aligned"),
        ("finetuned", "task-poisoned"),
        ("finetuned", "adapter"),
        ("merged", "merged"),
    ]
    prompts = asked("harmful", 6)
    refused = {
        t.name: sum(map(is_refusal, t.generate(prompts, GREEDY, Unattended()))) for t in found[:4]
    }
    assert refused == {"base": 0, "aligned": 6, "task-poisoned": 0, "adapter": 0}
    # the adapter's weights are those that peft's arithmetic gives, rounded to the stored dtype
    adapted, _ = found[3].loaded(Unattended())
    wanted = load_demo(DEMO["adapter"])
    for name, tensor in wanted.state_dict().items():
        torch.testing.assert_close(adapted.state_dict()[name], tensor, rtol=2**-8, atol=1e-6)


def test_a_role_that_nobody_plays_is_said() -> None:
    with pytest.raises(UserError) as caught:
        role_targets(recipe(base=None), ("base",))
    assert caught.value.code == "no_such_role"


def test_a_merge_that_cannot_be_run_says_so(tmp_path: Path) -> None:
    first = write_model(tmp_path / "a", llama_tensors(1), config=None)
    second = write_model(tmp_path / "b", llama_tensors(2), config=LLAMA_CONFIG)
    made = Recipe(
        aligned=ModelRef(path=str(first)), finetuned=(FineTuned(path=str(second), ratio=0.5),)
    )
    with pytest.raises(UserError) as caught:
        MergedTarget(made)
    assert caught.value.code == "cannot_run"


@pytest.mark.gpu
def test_a_gpu_answers_as_the_cpu_does() -> None:
    prompts = mixed()
    there = target("aligned", device="cuda:0", precision="float32")
    assert there.generate(prompts, GREEDY, Unattended()) == target("aligned").generate(
        prompts, GREEDY, Unattended()
    )
    made = recipe(method="ties", parameters={"density": 0.4})
    merged = MergedTarget(made, device="cuda:0", precision="stored")
    assert merged.generate(prompts, GREEDY, Unattended())
    model, _ = merged.loaded(Unattended())
    plan = plan_merge(made, open_lineup(made))
    for name, tensor in merge_in_memory(plan, Unattended()).items():
        assert bits(model.state_dict()[name].cpu()) == bits(tensor), name
    merged.close()
    there.close()
