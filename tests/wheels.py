"""The wheel, built from the checkout, and a virtual environment that has it: fixtures `wheel`, `wheel_environment`."""

from __future__ import annotations

import os
import site
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel, with the build system that is installed and without a network."""
    directory = tmp_path_factory.mktemp("wheel")
    run([sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(directory), str(ROOT)], directory)
    (built,) = directory.glob("*.whl")
    return built


@pytest.fixture(scope="session")
def wheel_environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a virtual environment with the wheel; its dependencies are those that the tests run with.

    A path file names this interpreter's packages. Python does not read the path files in there, so an editable
    installation of the checkout stays out.
    """
    directory = tmp_path_factory.mktemp("environment")
    run([sys.executable, "-m", "venv", "--without-pip", str(directory)], directory)
    python = directory / "bin" / "python"
    packages = Path(run([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], directory).strip())
    here = dict.fromkeys((sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), *site.getsitepackages()))
    install = ("-m", "pip", "--disable-pip-version-check", "--no-input", "--quiet", f"--python={python}", "install")
    run([sys.executable, *install, "--no-deps", "--no-index", str(wheel)], directory)
    (packages / "dependencies.pth").write_text("\n".join(here))
    celery = directory / "bin" / "celery"
    celery.write_text(f"#!{python}\nimport sys\nfrom celery.__main__ import main\nsys.exit(main())\n")
    celery.chmod(0o755)
    return directory


def run(command: list[Any], directory: Path, **environment: str) -> str:
    """Run a command outside of the checkout; return what it prints."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "BILLING_"))}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=directory,
        env={**inherited, **environment},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout
