"""The guards of tests/conftest.py: each must fail a test that breaks its promise, and name it."""

from __future__ import annotations

from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]


@pytest.fixture
def guarded(pytester: pytest.Pytester) -> pytest.Pytester:
    """A folder of tests under the same guards as this one, but with less patience."""
    for name in ("conftest.py", "leaks.py", "qt_leaks.py"):
        text = (TESTS / name).read_text("utf-8")
        (pytester.path / name).write_text(text.replace("_GRACE_S = 1.0", "_GRACE_S = 0.3"), "utf-8")
    pytester.makepyprojecttoml(
        """
        [tool.pytest]
        pythonpath = ["."]
        strict_config = true
        strict_markers = true
        filterwarnings = ["error"]
        markers = ["expected_log(pattern): as in the project"]
        """
    )
    return pytester


def run(guarded: pytest.Pytester, source: str) -> pytest.RunResult:
    guarded.makepyfile(test_it=source)
    return guarded.runpytest_subprocess("-p", "no:cacheprovider")


def test_a_clean_test_passes(guarded: pytest.Pytester) -> None:
    result = run(
        guarded,
        """
        import logging, subprocess, sys, threading

        def test_clean():
            thread = threading.Thread(target=lambda: None)
            thread.start()
            thread.join()
            subprocess.run([sys.executable, "-c", ""], check=True)
            logging.getLogger("x").info("fine")
        """,
    )
    result.assert_outcomes(passed=1)


def test_a_thread_left_running_fails_and_its_line_is_named(guarded: pytest.Pytester) -> None:
    result = run(
        guarded,
        """
        import threading

        def test_leaves_a_thread():
            stop = threading.Event()
            threading.Thread(target=lambda: stop.wait(20), name="straggler", daemon=True).start()

        def test_after_it():
            pass
        """,
    )
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(
        ["*test_leaves_a_thread*", "*thread 'straggler'*", "*made at *test_it.py:5 *"]
    )


def test_a_child_process_left_running_fails_is_named_and_ended(guarded: pytest.Pytester) -> None:
    result = run(
        guarded,
        """
        import subprocess, sys

        kept = []

        def test_leaves_a_process():
            kept.append(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]))

        def test_it_was_ended():
            assert kept[0].wait(5) != 0
        """,
    )
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(["*test_leaves_a_process*", "*process * time.sleep(60)*"])
    result.stdout.fnmatch_lines(["*made at *test_it.py:6 in test_leaves_a_process"])


def test_a_grandchild_left_running_fails(guarded: pytest.Pytester) -> None:
    result = run(
        guarded,
        """
        import multiprocessing, time

        def test_leaves_a_process():
            context = multiprocessing.get_context("spawn")
            context.Process(target=time.sleep, args=(60,), daemon=True).start()
        """,
    )
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*made at *test_it.py:5 in test_leaves_a_process"])


def test_what_a_module_fixture_holds_is_judged_when_it_ends(guarded: pytest.Pytester) -> None:
    source = """
        import threading
        import pytest

        @pytest.fixture(scope="module")
        def service():
            stop = threading.Event()
            thread = threading.Thread(target=stop.wait, args=(20,), name="service", daemon=True)
            thread.start()
            yield thread
            if {ends}:
                stop.set()
                thread.join()

        def test_first(service):
            assert service.is_alive()

        def test_second(service):
            assert service.is_alive()
        """
    run(guarded, source.format(ends=True)).assert_outcomes(passed=2)
    result = run(guarded, source.format(ends=False))
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(["*ERROR at teardown of test_second*", "*thread 'service'*"])


@pytest.mark.parametrize("propagate", [True, False])
def test_an_unexpected_log_record_fails(guarded: pytest.Pytester, propagate: bool) -> None:
    result = run(
        guarded,
        f"""
        import logging

        def test_talks():
            logger = logging.getLogger("some.library")
            logger.propagate = {propagate}
            logger.warning("a %s record", "surprising")
        """,
    )
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(
        [
            "*unexpected log record WARNING some.library: a surprising record",
            "*logged at *test_it.py:6*",
        ]
    )


def test_an_expected_log_record_passes_and_a_missing_one_fails(guarded: pytest.Pytester) -> None:
    result = run(
        guarded,
        """
        import logging
        import pytest

        @pytest.mark.expected_log("disk .* full")
        def test_says_it():
            logging.getLogger("x").error("disk 3 full")

        @pytest.mark.expected_log("disk .* full")
        def test_is_silent():
            pass
        """,
    )
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(["*ERROR at teardown of test_is_silent*", "*none came*"])


def test_a_warning_fails(guarded: pytest.Pytester) -> None:
    result = run(
        guarded,
        """
        import warnings

        def test_warns():
            warnings.warn("old")
        """,
    )
    result.assert_outcomes(failed=1)


def test_no_test_sees_the_users_home(guarded: pytest.Pytester, tmp_path: Path) -> None:
    result = run(
        guarded,
        """
        import os
        from pathlib import Path

        NAMES = ("HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME", "TRIMTAB_CACHE_DIR",
                 "TRIMTAB_CONFIG_DIR", "HF_HOME")
        seen = []

        def test_first(tmp_path):
            seen.append([os.environ[name] for name in NAMES])
            assert all(Path(value).is_relative_to(tmp_path.parent) for value in seen[0])

        def test_second():
            assert not set(seen[0]) & {os.environ[name] for name in NAMES}
            assert os.environ["HF_HUB_OFFLINE"] == os.environ["TRANSFORMERS_OFFLINE"] == "1"
        """,
    )
    result.assert_outcomes(passed=2)
