"""Hub names: found where the hub's own tools put them, and never fetched."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from trimtab.checkpoints.hub import cache_folder, is_hub_id, resolve
from trimtab.errors import UserError

_COMMIT = "0123456789abcdef0123456789abcdef01234567"
_OTHER = "f" * 40


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "cache"
    monkeypatch.setenv("HF_HUB_CACHE", str(root))
    model = root / "models--org--some.model"
    for commit in (_COMMIT, _OTHER):
        (model / "snapshots" / commit).mkdir(parents=True)
        (model / "snapshots" / commit / "config.json").write_text("{}")
    (model / "refs" / "refs" / "pr").mkdir(parents=True)
    (model / "refs" / "main").write_text(_COMMIT)
    (model / "refs" / "v2").write_text(_OTHER + "\n")
    (model / "refs" / "refs" / "pr" / "1").write_text(_OTHER)
    return root


def _code(path: str, revision: str = "") -> str:
    with pytest.raises(UserError) as raised:
        resolve(path, revision)
    return raised.value.code


def test_a_path_that_exists_wins(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "org" / "some.model").mkdir(parents=True)
    assert resolve("org/some.model").resolve() == (tmp_path / "org" / "some.model").resolve()
    assert resolve(str(tmp_path)) == tmp_path


def test_a_name_is_found_by_branch_tag_pull_request_and_commit(cache: Path) -> None:
    snapshots = cache / "models--org--some.model" / "snapshots"
    assert resolve("org/some.model") == snapshots / _COMMIT
    assert resolve("org/some.model", "main") == snapshots / _COMMIT
    assert resolve("org/some.model", "v2") == snapshots / _OTHER
    assert resolve("org/some.model", "refs/pr/1") == snapshots / _OTHER
    assert resolve("org/some.model", _OTHER) == snapshots / _OTHER


def test_what_the_cache_lacks_is_said_with_the_command_that_fetches_it(cache: Path) -> None:
    with pytest.raises(UserError) as raised:
        resolve("org/other", "v1")
    assert raised.value.code == "not_in_cache"
    assert "hf download org/other --revision v1" in raised.value.fix
    assert _code("org/some.model", "no-such-branch") == "not_in_cache"
    assert _code("org/some.model", "0" * 40) == "not_in_cache"


def test_a_revision_cannot_lead_out_of_the_cache(cache: Path) -> None:
    (cache / "secret").write_text(_COMMIT)
    assert _code("org/some.model", "../../secret") == "not_in_cache"
    (cache / "models--org--some.model" / "refs" / "bad").write_text("../../..")
    assert _code("org/some.model", "bad") == "not_in_cache"


def test_an_interrupted_download_is_no_model(cache: Path) -> None:
    (cache / "models--org--empty" / "snapshots" / _COMMIT).mkdir(parents=True)
    assert _code("org/empty", _COMMIT) == "not_in_cache"


def test_what_can_be_no_name_is_a_missing_path(cache: Path) -> None:
    for path in ("/no/such/folder", "./here", "a/b/c", "", "~nobody-here/x", "org/../x"):
        assert _code(path) == "not_found"


def test_a_path_has_no_revisions(cache: Path, tmp_path: Path) -> None:
    assert _code(str(tmp_path), "main") == "no_revision"


def test_names_of_the_hub_are_known_by_their_form() -> None:
    assert all(map(is_hub_id, ("gpt2", "meta-llama/Llama-3.2-1B", "a/b_c.d")))
    assert not any(map(is_hub_id, ("a/b/c", "/a", "a/", "a b/c", "a--b/c", "..", "")))


def test_the_cache_lies_where_the_hubs_own_library_looks_for_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for settings in (
        {"HF_HUB_CACHE": str(tmp_path / "a")},
        {"HF_HOME": str(tmp_path / "b")},
        {"XDG_CACHE_HOME": str(tmp_path / "c")},
        {},
    ):
        for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"):
            monkeypatch.delenv(name, raising=False)
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        code = "from huggingface_hub.constants import HF_HUB_CACHE; print(HF_HUB_CACHE)"
        told = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        assert cache_folder() == Path(told.stdout.strip())
