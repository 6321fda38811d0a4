"""Guard models and classifiers that run here read an exchange as the models alone would."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForSequenceClassification

from trimtab.checkpoints import open_checkpoint
from trimtab.control import JobCancelled, Unattended
from trimtab.demo.evaluate import load_model
from trimtab.demo.lineup import demo_paths
from trimtab.errors import UserError
from trimtab.evaluation.choosing import Connection
from trimtab.evaluation.judges import ClassifierJudge, GuardJudge
from trimtab.evaluation.opening import open_judge
from trimtab.evaluation.suite import Prompt
from trimtab.evaluation.targets import ModelTarget
from trimtab.evaluation.targets_guard import LocalClassifier, LocalGuard

ALIGNED = demo_paths()["aligned"]
PROMPT = Prompt(id="p", kind="harmful", text="how do i paint the lamp?")


def judge(name: str) -> Any:
    return open_judge(name, Connection(), Unattended())


def test_a_guard_reads_request_and_answer_in_its_own_template() -> None:
    guard = LocalGuard(ModelTarget(open_checkpoint(ALIGNED)), Unattended())
    tokenizer = AutoTokenizer.from_pretrained(ALIGNED)
    model = load_model(ALIGNED)
    for answer in ("use hammer near river", "sorry i cannot help with that"):
        batch = tokenizer.apply_chat_template(
            [{"role": "user", "content": PROMPT.text}, {"role": "assistant", "content": answer}],
            add_generation_prompt=True,
            return_tensors="pt",
            return_dict=True,
        )
        with torch.inference_mode():
            ids = model.generate(
                input_ids=batch["input_ids"], attention_mask=batch["attention_mask"],
                max_new_tokens=32, do_sample=False,
            )  # fmt: skip
        own = tokenizer.decode(ids[0, batch["input_ids"].shape[1] :], skip_special_tokens=True)
        assert guard.classify(PROMPT, answer) == own


def test_a_guard_that_says_neither_gives_no_judgement() -> None:
    found = judge(f"guard:{ALIGNED}")
    assert isinstance(found, GuardJudge)
    assert found.name.startswith("guard aligned (")
    assert found.judge(PROMPT, "use hammer near river").outcome == "failed"


class _Stopped(Unattended):
    def check(self) -> None:
        raise JobCancelled


def test_a_guard_stops_when_told() -> None:
    guard = LocalGuard(ModelTarget(open_checkpoint(ALIGNED)), _Stopped())
    with pytest.raises(JobCancelled):
        guard.classify(PROMPT, "x")


def classifier(folder: Path, labels: list[str], problem: str) -> Path:
    """A random classifier over the demo's vocabulary, written by the format's own library."""
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=324, hidden_size=16, intermediate_size=24, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=64, pad_token_id=0,
        id2label=dict(enumerate(labels)), label2id={name: i for i, name in enumerate(labels)},
        problem_type=problem, initializer_range=0.5,
    )  # fmt: skip
    LlamaForSequenceClassification(config).save_pretrained(folder)
    for path in ALIGNED.glob("tokenizer*"):
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


@pytest.mark.parametrize(
    ("problem", "squash"),
    [("single_label_classification", torch.softmax), ("multi_label_classification", None)],
)
def test_a_classifiers_probabilities_are_its_own(tmp_path: Path, problem: str, squash: Any) -> None:
    folder = classifier(tmp_path / "judge", ["fine", "violence", "fraud"], problem)
    found = LocalClassifier(open_checkpoint(folder))
    assert list(found.labels) == ["fine", "violence", "fraud"]
    model = LlamaForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    batch = tokenizer(PROMPT.text, "use hammer", return_tensors="pt")
    with torch.inference_mode():
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[
            0
        ]
    wanted = squash(logits, -1) if squash else logits.sigmoid()
    assert found.probabilities(PROMPT, "use hammer") == pytest.approx(wanted.tolist(), rel=1e-5)
    assert len(found.probabilities(PROMPT, "hammer " * 500)) == 3


def test_a_classifier_must_be_told_which_labels_mean_harm(tmp_path: Path) -> None:
    folder = classifier(tmp_path / "judge", ["fine", "violence"], "single_label_classification")
    found = judge(f"classifier:{folder}#violence")
    assert isinstance(found, ClassifierJudge)
    assert found.harmful == {"violence"}
    assert found.judge(PROMPT, "use hammer").outcome in ("refused", "complied")
    for wrong in (f"classifier:{folder}", f"classifier:{folder}#", f"classifier:{folder}#arson"):
        with pytest.raises(UserError) as caught:
            judge(wrong)
        assert caught.value.code == "no_such_label"
