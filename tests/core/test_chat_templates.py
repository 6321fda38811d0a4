"""Chat templates: the one asked for, written where every reader looks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment

from trimtab.errors import UserError
from trimtab.merging.chat_templates import NAMES, chat_template_files


def _folder(root: Path, name: str, **files: str) -> Path:
    folder = root / name
    folder.mkdir()
    for file, text in files.items():
        ending = "jinja" if file == "chat_template" else "json"
        (folder / f"{file}.{ending}").write_text(text)
    return folder


def test_auto_takes_the_template_that_most_inputs_have(tmp_path: Path) -> None:
    one = _folder(tmp_path, "one", chat_template="{{ first }}")
    two = _folder(tmp_path, "two", tokenizer_config=json.dumps({"chat_template": "{{ second }} "}))
    named = [{"name": "tools", "template": "x"}, {"name": "default", "template": "{{ second }}"}]
    three = _folder(tmp_path, "three", tokenizer_config=json.dumps({"chat_template": named}))
    none = _folder(tmp_path, "none")
    made = chat_template_files("auto", [none, one, two, three], none, {})
    assert made == {"chat_template.jinja": b"{{ second }}"}
    assert chat_template_files("auto", [one, two], none, {}) == {
        "chat_template.jinja": b"{{ first }}"
    }
    assert chat_template_files("auto", [none], none, {}) == {}


def test_a_template_in_the_config_is_replaced_there_as_well(tmp_path: Path) -> None:
    start = _folder(tmp_path, "start", tokenizer_config='{"chat_template": "old", "eos": "x"}')
    text = "{% for m in messages %}{{ m }}{% endfor %}"
    made = chat_template_files(text, [start], start, {})
    assert made["chat_template.jinja"] == text.encode()
    assert json.loads(made["tokenizer_config.json"]) == {"chat_template": text, "eos": "x"}
    anew = {"tokenizer_config.json": b'{"chat_template": "old", "eos": "y"}'}
    made = chat_template_files(text, [start], start, anew)
    assert json.loads(made["tokenizer_config.json"]) == {"chat_template": text, "eos": "y"}


_SAID = {
    "alpaca": "<s>S\n\n### Instruction:\nU\n\n### Response:\nA</s>\n\n### Instruction:\nV\n\n"
    "### Response:\n",
    "chatml": "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nU<|im_end|>\n"
    "<|im_start|>assistant\nA<|im_end|>\n<|im_start|>user\nV<|im_end|>\n<|im_start|>assistant\n",
    "exaone": "[|system|]S[|endofturn|]\n[|user|]U\n[|assistant|]A[|endofturn|]\n[|user|]V\n"
    "[|assistant|]",
    "llama3": "<s><|start_header_id|>system<|end_header_id|>\n\nS<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\nU<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\nA<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\nV<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n",
    "mistral": "<s>[INST] S\n\nU [/INST] A</s>[INST] V [/INST]",
}


@pytest.mark.parametrize("name", NAMES)
def test_known_templates_write_a_conversation_in_their_format(name: str, tmp_path: Path) -> None:
    text = chat_template_files(name, [], tmp_path, {})["chat_template.jinja"].decode()
    roles = ("system", "user", "assistant", "user")
    messages = [{"role": r, "content": c} for r, c in zip(roles, "SUAV", strict=True)]
    # set up as transformers does
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    rendered = environment.from_string(text).render(
        messages=messages, add_generation_prompt=True, bos_token="<s>", eos_token="</s>"
    )
    assert rendered == _SAID[name]


@pytest.mark.parametrize("setting", ["chatlm", "{{ short }}", "a text without any markup at all"])
def test_what_is_no_template_is_named(setting: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="chat_template is"):
        chat_template_files(setting, [], tmp_path, {})
