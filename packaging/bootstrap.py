"""Sets up what Trimtab needs on a fresh machine and runs its demo or its tests.

    python3 packaging/bootstrap.py demo     set up .venv, then open the demo (or run it headless)
    python3 packaging/bootstrap.py test     set up .venv with the developer tools, then check all
    python3 packaging/bootstrap.py lint     as test, without the tests themselves

Only the standard library is used, and nothing is done twice: a second run starts at once.
Exit status: 0 all well, 1 a step failed, 2 wrong usage or Python, 3 a system package is missing.
"""

import ctypes
import hashlib
import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"
CONSTRAINTS = ROOT / "packaging" / "constraints.txt"
STAMP = VENV / "trimtab-setup"
OLDEST_PYTHON = (3, 11)

# Shared library -> Debian package. Found with ldd over PySide6's modules and platform plugins.
QT_LIBRARIES = {
    "libGL.so.1": "libgl1",
    "libEGL.so.1": "libegl1",
    "libxkbcommon.so.0": "libxkbcommon0",
    "libdbus-1.so.3": "libdbus-1-3",
    "libfontconfig.so.1": "libfontconfig1",
    "libfreetype.so.6": "libfreetype6",
    "libglib-2.0.so.0": "libglib2.0-0",
    "libgthread-2.0.so.0": "libglib2.0-0",
}
X11_LIBRARIES = {
    "libX11-xcb.so.1": "libx11-xcb1",
    "libxkbcommon-x11.so.0": "libxkbcommon-x11-0",
    "libxcb-cursor.so.0": "libxcb-cursor0",
    "libxcb-icccm.so.4": "libxcb-icccm4",
    "libxcb-image.so.0": "libxcb-image0",
    "libxcb-keysyms.so.1": "libxcb-keysyms1",
    "libxcb-randr.so.0": "libxcb-randr0",
    "libxcb-render.so.0": "libxcb-render0",
    "libxcb-render-util.so.0": "libxcb-render-util0",
    "libxcb-shape.so.0": "libxcb-shape0",
    "libxcb-shm.so.0": "libxcb-shm0",
    "libxcb-sync.so.1": "libxcb-sync1",
    "libxcb-util.so.1": "libxcb-util1",
    "libxcb-xfixes.so.0": "libxcb-xfixes0",
    "libxcb-xkb.so.1": "libxcb-xkb1",
}
WAYLAND_LIBRARIES = {
    "libwayland-client.so.0": "libwayland-client0",
    "libwayland-cursor.so.0": "libwayland-cursor0",
    "libwayland-egl.so.1": "libwayland-egl1",
}


class SetupError(Exception):
    """A step that could not be done; `status` is the exit status."""

    def __init__(self, message, status=1):
        super().__init__(message)
        self.status = status


def say(text):
    print(f"trimtab: {text}", flush=True)


def run(command, **options):
    """Run `command` in the project's folder; raise SetupError if it fails."""
    command = [str(part) for part in command]
    try:
        status = subprocess.run(command, cwd=ROOT, check=False, **options).returncode
    except OSError as error:
        raise SetupError(f"could not start {command[0]}: {error}") from error
    if status:
        raise SetupError(f"failed with exit status {status}: {shlex.join(command)}")


def check_python(version):
    """Raise SetupError if Python `version` is too old for the project."""
    if tuple(version[:2]) < OLDEST_PYTHON:
        wanted = ".".join(map(str, OLDEST_PYTHON))
        found = ".".join(map(str, version[:2]))
        raise SetupError(
            f"Python {wanted} or newer is needed; this is {found} ({sys.executable}).\n"
            f"Run it with a newer one: python{wanted} packaging/bootstrap.py ..., "
            f"or make PYTHON=python{wanted} ...",
            status=2,
        )


def has_display(environ):
    """Whether a window could be shown: always outside Linux, else by the display's variables."""
    if not sys.platform.startswith("linux"):
        return True
    return bool(environ.get("DISPLAY") or environ.get("WAYLAND_DISPLAY"))


def needed_libraries(environ):
    """The shared libraries that Qt will load here, each with its Debian package."""
    libraries = dict(QT_LIBRARIES)
    if environ.get("DISPLAY"):
        libraries.update(X11_LIBRARIES)
    if environ.get("WAYLAND_DISPLAY"):
        libraries.update(WAYLAND_LIBRARIES)
    return libraries


def loads(library):
    """Whether the dynamic linker finds and loads `library`."""
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def missing_packages(libraries):
    """The Debian packages of those `libraries` that do not load, sorted, each once."""
    return sorted({package for library, package in libraries.items() if not loads(library)})


def lacks_venv():
    """Whether Python cannot make an environment: Debian keeps ensurepip in another package."""
    return importlib.util.find_spec("ensurepip") is None


def install_packages(packages):
    """Install Debian `packages` if we may; else raise SetupError with the exact command."""
    command = ["apt-get", "install", "-y", "--no-install-recommends", *packages]
    if shutil.which("apt-get") is None:
        raise SetupError(
            f"system libraries are missing; Debian has them in: {' '.join(packages)}.\n"
            "Install your system's packages of the same libraries, then run this again.",
            status=3,
        )
    if os.geteuid() != 0:
        raise SetupError(
            "system packages are missing. Run this, then try again:\n\n"
            f"    sudo apt-get update && sudo {shlex.join(command)}\n",
            status=3,
        )
    say(f"installing system packages that are missing: {' '.join(packages)}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    try:
        run(["apt-get", "update", "-q"], env=environment, stdout=subprocess.DEVNULL)
        run(command, env=environment, stdout=subprocess.DEVNULL)
    except SetupError as error:
        raise SetupError(f"system packages could not be installed: {error}", 3) from error


def ensure_system(with_tools):
    """Make sure that Qt's libraries load and an environment can be made; one command for all."""
    if not sys.platform.startswith("linux"):
        return
    libraries = needed_libraries(os.environ)
    packages = missing_packages(libraries)
    if lacks_venv() and not is_set_up(with_tools):
        packages.append(f"python{sys.version_info[0]}.{sys.version_info[1]}-venv")
    if not packages:
        return
    install_packages(packages)
    importlib.invalidate_caches()
    left = missing_packages(libraries)
    if left:
        raise SetupError(f"still not to be loaded after installing: {' '.join(left)}", status=3)


def venv_program(name):
    """The path of program `name` inside the virtual environment."""
    return VENV / "bin" / name


def requirements(group):
    """The requirement strings of the dependency group `group` in pyproject.toml."""
    import tomllib

    document = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return document["dependency-groups"][group]


def fingerprint():
    """What the installed environment depends on: a change of any of it sets up anew."""
    digest = hashlib.sha256()
    for part in (
        str(ROOT).encode(),  # an editable install and its scripts hold absolute paths
        sys.version.encode(),
        (ROOT / "pyproject.toml").read_bytes(),
        CONSTRAINTS.read_bytes(),
    ):
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()


def runs(*command):
    """Whether `command` of the virtual environment runs and succeeds."""
    program = venv_program(command[0])
    try:
        done = subprocess.run([program, *command[1:]], check=False, capture_output=True)
    except OSError:
        return False
    return done.returncode == 0


def is_set_up(with_tools):
    """Whether the environment is the one we would make, and its Python still runs."""
    try:
        stamp = STAMP.read_text(encoding="utf-8").split()
    except OSError:
        return False
    if stamp[:1] != [fingerprint()] or (with_tools and "tools" not in stamp):
        return False
    return runs("python", "-c", "")


def set_up(with_tools):
    """Create .venv and install the project into it, editable, in the tested versions."""
    if is_set_up(with_tools):
        return
    say(f"setting up {VENV} (the first time takes some minutes: PyTorch alone is large)")
    STAMP.unlink(missing_ok=True)
    if not runs("python", "-m", "pip", "--version"):
        run([sys.executable, "-m", "venv", "--clear", VENV])
    command = [venv_program("python"), "-m", "pip", "install", "--disable-pip-version-check"]
    if not sys.stdout.isatty():
        command.append("--quiet")
    if os.environ.get("TRIMTAB_TORCH_INDEX"):
        command += ["--extra-index-url", os.environ["TRIMTAB_TORCH_INDEX"]]
    command += ["--constraint", CONSTRAINTS, "--editable", ROOT]
    if with_tools:
        command += requirements("dev")
    run(command)
    STAMP.write_text(fingerprint() + (" tools" if with_tools else "") + "\n", encoding="utf-8")


def prepare(with_tools):
    """Do all that has to be done before anything can be run."""
    ensure_system(with_tools)
    set_up(with_tools)


def demo():
    """Open the demo, or do the same job without a display."""
    prepare(with_tools=False)
    command = [venv_program("trimtab"), "demo"]
    if not has_display(os.environ):
        say("no display here: the demo runs headless and leaves its results in demo-output/")
        command += ["--headless", "--output", "demo-output"]
    run(command)


def lint():
    """Check style, types and the walls between the packages."""
    prepare(with_tools=True)
    python = venv_program("python")
    for command in (
        [python, "-m", "ruff", "check", "."],
        [python, "-m", "ruff", "format", "--check", "."],
        [python, "-m", "mypy"],
        [venv_program("lint-imports")],
    ):
        say(shlex.join([Path(command[0]).name, *map(str, command[1:])]))
        run(command)


def test():
    """Check everything that lint checks, then run all tests; pytest's summary comes last."""
    lint()
    say("python -m pytest")
    run([venv_program("python"), "-m", "pytest"])


COMMANDS = {"demo": demo, "test": test, "lint": lint}


def main(arguments):
    """Run the one command named in `arguments`; return the exit status."""
    if len(arguments) != 1 or arguments[0] not in COMMANDS:
        print(__doc__.strip(), file=sys.stderr)
        return 2
    try:
        check_python(sys.version_info)
        COMMANDS[arguments[0]]()
    except SetupError as error:
        print(f"trimtab: {error}", file=sys.stderr)
        return error.status
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
