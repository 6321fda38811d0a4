"""The doctor and the devices: what they say is so, and every complaint has a fix."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from trimtab import device, doctor, paths


def find(diagnosis: doctor.Diagnosis, name: str) -> doctor.Finding:
    return next(finding for finding in diagnosis.findings if finding.name == name)


@pytest.fixture(scope="module")
def diagnosis() -> doctor.Diagnosis:
    return doctor.diagnose()


def test_it_looks_at_all_that_trimtab_needs(diagnosis: doctor.Diagnosis) -> None:
    sections = {finding.section for finding in diagnosis.findings}
    assert sections == {"Machine", "Packages", "Accelerators", "Folders", "Display"}
    assert sys.executable in find(diagnosis, "Python").value
    assert "MiB/s" in find(diagnosis, "Disk speed").value


def test_whatever_is_not_well_comes_with_a_fix(diagnosis: doctor.Diagnosis) -> None:
    for finding in diagnosis.findings:
        assert bool(finding.fix) == (finding.verdict != "ok"), finding


def test_the_json_holds_what_the_text_says(diagnosis: doctor.Diagnosis) -> None:
    document = json.loads(diagnosis.to_json())
    assert document["verdict"] == diagnosis.verdict
    text = diagnosis.to_text()
    assert len(document["findings"]) == len(diagnosis.findings)
    for finding in document["findings"]:
        assert finding["name"] in text
        assert finding["value"] in text
        assert finding["fix"] in text


def test_it_leaves_nothing_in_the_cache(own_home: Path) -> None:
    doctor.diagnose()
    assert [path for path in own_home.rglob("*") if path.is_file()] == []


def test_asking_does_not_import_torch() -> None:
    code = (
        "import sys; from trimtab import doctor; doctor.diagnose(); "
        "sys.exit('torch' in sys.modules or 'PySide6' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_verdict_is_the_worst_of_all() -> None:
    well = doctor.Finding("A", "a", "1")
    odd = doctor.Finding("A", "b", "2", "warning", "mend b")
    bad = doctor.Finding("A", "c", "3", "problem", "mend c")
    assert doctor.Diagnosis(()).verdict == "ok"
    assert doctor.Diagnosis((well,)).verdict == "ok"
    assert doctor.Diagnosis((odd, well)).verdict == "warning"
    assert doctor.Diagnosis((bad, odd, well)).verdict == "problem"
    assert doctor.Diagnosis((bad, odd, odd)).to_text().endswith(": 1 problem, 2 warnings")


def test_a_cache_that_cannot_be_made_is_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way", "utf-8")
    monkeypatch.setenv("TRIMTAB_CACHE_DIR", str(tmp_path / "file" / "cache"))
    finding = find(doctor.diagnose(), "Cache")
    assert finding.verdict == "problem"
    assert "TRIMTAB_CACHE_DIR" in finding.fix


def test_a_missing_package_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_PACKAGES", ("numpy", "trimtab-has-no-such-package"))
    findings = {finding.name: finding for finding in doctor._packages()}
    assert findings["numpy"].verdict == "ok"
    assert findings["trimtab-has-no-such-package"].verdict == "problem"


@pytest.mark.parametrize(
    ("probe", "reason"),
    [
        ("raise SystemExit('libcudart.so: cannot open')", "libcudart.so: cannot open"),
        ("print('not json')", "Expecting value"),
        ("print(3)", "unexpected answer 3"),
        ("import time; time.sleep(60)", "timed out"),
    ],
)
def test_a_torch_that_does_not_answer_is_a_problem(
    monkeypatch: pytest.MonkeyPatch, probe: str, reason: str
) -> None:
    monkeypatch.setattr(doctor, "_TORCH_PROBE", probe)
    monkeypatch.setattr(doctor, "_TORCH_TIMEOUT_S", 1.0)
    (finding,) = [f for f in doctor._accelerators() if f.name == "torch"]
    assert finding.verdict == "problem"
    assert reason in finding.value


def test_a_card_that_torch_does_not_see_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = tmp_path / "nvidia-smi"
    fake.write_text("#!/bin/sh\necho 'NVIDIA H200, 143771 MiB, 570.86.15'\n", "utf-8")
    fake.chmod(fake.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    answer = {"version": "2.13.0", "cuda_build": None, "devices": [], "threads": 2}
    monkeypatch.setattr(doctor, "_TORCH_PROBE", f"print({json.dumps(json.dumps(answer))})")
    findings = {finding.name: finding for finding in doctor._accelerators()}
    assert findings["NVIDIA"].value == "NVIDIA H200, 143771 MiB, driver 570.86.15"
    assert findings["torch"].verdict == "warning"


def test_no_display_is_a_warning_and_any_display_is_well(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    assert [finding.verdict for finding in doctor._display()] == ["warning"]
    monkeypatch.setenv("DISPLAY", ":7")
    (finding,) = doctor._display()
    assert (finding.verdict, finding.value) == ("ok", "DISPLAY=:7")


def test_the_cpu_is_the_last_device_and_has_the_machines_memory() -> None:
    cpu = device.devices()[-1]
    assert (cpu.kind, cpu.index, cpu.torch_name) == ("cpu", 0, "cpu")
    assert cpu.name
    assert cpu.total_bytes == psutil.virtual_memory().total
    assert 0 < cpu.free_bytes <= cpu.total_bytes


def test_the_folders_follow_their_variables_and_else_the_platform(
    own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert paths.cache_dir() == Path(os.environ["TRIMTAB_CACHE_DIR"])
    assert paths.config_dir() == Path(os.environ["TRIMTAB_CONFIG_DIR"])
    monkeypatch.delenv("TRIMTAB_CACHE_DIR")
    monkeypatch.delenv("TRIMTAB_CONFIG_DIR")
    assert own_home in paths.cache_dir().parents
    assert own_home in paths.config_dir().parents
    assert paths.cache_dir() != paths.config_dir()
