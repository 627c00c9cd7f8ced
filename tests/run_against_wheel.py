"""Build the wheel, unpack it away from the checkout, and run the suite against it.

Run as ``make test-wheel``. The wheel's files come first on the import path, before the editable
install; the tests are copied too, so that nothing of the checkout is found by accident.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Tests that look at the checkout itself (its documents, its recipes as files).
CHECKOUT_ONLY = ("test_docs.py", "run_against_wheel.py")


def main() -> int:
    """The exit code of pytest."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        python = [sys.executable, "-m"]
        build = [*python, "build", "--wheel", "--no-isolation", "--outdir", str(work / "dist")]
        subprocess.run([*build, str(ROOT)], check=True, stdout=subprocess.DEVNULL)
        [wheel] = (work / "dist").glob("*.whl")
        site = work / "site"
        install = [*python, "pip", "install", "--quiet", "--no-deps", "--target", str(site)]
        subprocess.run([*install, str(wheel)], check=True)
        for name in ("seeds/general.jsonl", "prompts/alpaca.txt", "recipes/quickstart.yaml"):
            assert (site / "selfinstruct" / "_data" / name).is_file(), f"{name} is not in the wheel"
        ignored = shutil.ignore_patterns("__pycache__", *CHECKOUT_ONLY)
        shutil.copytree(ROOT / "tests", work / "run" / "tests", ignore=ignored)
        # No part of the wheel; some tests hold them against the installed code.
        for name in ("docs", "benchmarks"):
            shutil.copytree(ROOT / name, work / "run" / name, ignore=ignored)
        for name in ("pyproject.toml", "README.md"):
            shutil.copy(ROOT / name, work / "run")
        check = "import selfinstruct, pathlib; print(pathlib.Path(selfinstruct.__file__).parent)"
        environment = os.environ | {"PYTHONPATH": str(site), "PYTHONSAFEPATH": ""}
        where = subprocess.run(
            [sys.executable, "-c", check],
            cwd=work / "run",
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        assert Path(where.stdout.strip()) == site / "selfinstruct", where.stdout
        tests = [*python, "pytest", "-n", "2", "-m", "not slow", *sys.argv[1:]]
        return subprocess.run(tests, cwd=work / "run", env=environment).returncode


if __name__ == "__main__":
    sys.exit(main())
