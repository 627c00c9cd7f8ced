"""The command line: what it answers, how it fails, and with which exit code."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from selfinstruct.cli.main import COMMANDS, cli
from selfinstruct.cli.needs import check_later
from selfinstruct.core.errors import MissingDependency
from selfinstruct.core.recipe import Recipe
from selfinstruct.testing.fake_server import Running
from tests.runs import make, recipe


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command line as a user does."""
    return subprocess.run(
        [sys.executable, "-m", "selfinstruct", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | environment,
    )


def write_recipe(folder: Path, url: str, **changes: object) -> Path:
    """A recipe file for a run against `url`."""
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe(folder, url) | changes), "utf-8")
    return path


def fails(result: subprocess.CompletedProcess[str], code: int, *says: str) -> None:
    """The command ended with this code and one line that says all of these."""
    assert result.returncode == code, result.stderr
    assert "Traceback" not in result.stderr
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("selfinstruct: ")
    for text in says:
        assert text in last, last


def test_every_command_has_help_and_is_documented() -> None:
    """Each command answers --help, and README or docs show it."""
    root = Path(__file__).parent.parent
    texts = [root / "README.md", *sorted((root / "docs").glob("*.md"))]
    documented = "".join(path.read_text("utf-8") for path in texts if path.exists())
    for name in COMMANDS:
        result = CliRunner().invoke(cli, [name, "--help"])
        assert result.exit_code == 0, result.output
        assert f"Usage: cli {name}" in result.output
        assert f"selfinstruct {name}" in documented, f"{name} is not documented"


def test_help_imports_nothing_heavy() -> None:
    """--help answers from the command table: no command, no stage and no library is imported."""
    code = (
        "import sys\nfrom selfinstruct.cli.main import cli\n"
        "try: cli.main(['--help'])\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'transformers', 'pydantic', 'rich', 'aiohttp', 'pyarrow', 'datasketch',"
        " 'openai', 'numpy', 'yaml'}\nassert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "generate" in result.stdout


def test_generate_and_status(tmp_path: Path, fake_server: Running) -> None:
    """A run from the command line, its plain output, and the same numbers as JSON."""
    config = write_recipe(tmp_path, fake_server.url)
    output = str(tmp_path / "run")
    result = command("generate", str(config), "-o", output, "--target", "20", "--max-cost", "1")
    assert result.returncode == 0, result.stderr
    assert "kept" in result.stdout
    status = command("status", output, "--json")
    data = json.loads(status.stdout)
    counts = data["funnel"]
    assert counts["kept"] == data["target"] == 20
    assert counts["candidates"] == 20 + sum(counts["rejected"].values()) + counts["beyond_target"]
    assert data["cost_usd"] > 0
    lines = command("generate", str(config), "-o", output, "--target", "30", "--json").stdout
    events = [json.loads(line) for line in lines.splitlines() if line.startswith('{"event"')]
    assert events[-1]["kept"] == 30


def test_init_writes_a_project_that_works(tmp_path: Path, fake_server: Running) -> None:
    """`init` brings seeds, prompts and recipes; a recipe of it runs from that folder."""
    result = command("init", str(tmp_path / "mine"))
    assert result.returncode == 0, result.stderr
    project = tmp_path / "mine"
    for place in (
        "seeds/general.jsonl",
        "prompts/alpaca.txt",
        "recipes/quickstart.yaml",
        "outputs",
    ):
        assert (project / place).exists(), place
    (project / "seeds" / "general.jsonl").write_text("mine", "utf-8")
    again = command("init", str(project))
    assert "kept as they were" in again.stdout
    assert (project / "seeds" / "general.jsonl").read_text("utf-8") == "mine"
    (project / "seeds" / "general.jsonl").unlink()
    settings = f"teacher.base_url={fake_server.url}/v1"
    ran = subprocess.run(
        [sys.executable, "-m", "selfinstruct", "generate", "recipes/poems.yaml", "--target", "5",
         "--set", settings],
        cwd=project, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert (project / "outputs" / "poems" / "run.db").exists()


@pytest.mark.parametrize(
    ("select", "missing"),
    [
        ({"method": "k_center", "count": 9}, "usearch"),
        ({"method": "random", "quota": 3, "quota_by": "topic"}, "sklearn"),
        ({"method": "random", "quota": 3}, None),
    ],
)
def test_packages_of_later_stages_are_looked_for_first(
    monkeypatch: pytest.MonkeyPatch, select: dict[str, Any], missing: str | None
) -> None:
    """`run` names what a selection needs before anything is paid for."""
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *more: None if name == missing else found(name, *more),
    )
    teacher = {"kind": "compatible", "base_url": "http://127.0.0.1:9/v1", "model": "m"}
    given = {"name": "r", "seeds": "s.jsonl", "teacher": teacher}
    made = Recipe.model_validate(given | {"select": select})
    if missing is None:
        check_later(made)
        return
    with pytest.raises(MissingDependency, match=r"selfinstruct\[semantic\]"):
        check_later(made)


# -- bad input: one line that names the place, and the exit code of its kind ----------------------


def test_bad_recipes(tmp_path: Path) -> None:
    """Unknown key, bad YAML, unknown teacher, no such file: exit 2 and where it is."""
    config = write_recipe(tmp_path, "http://127.0.0.1:9", taget=3)
    fails(command("generate", str(config)), 2, str(config), "unknown key 'taget'")
    config.write_text("seeds: [\n", "utf-8")
    fails(command("generate", str(config)), 2, f"{config}:", "not YAML")
    config = write_recipe(tmp_path, "x", teacher={"kind": "oracle", "model": "m"})
    fails(command("generate", str(config)), 2, "teacher.kind", "oracle")
    fails(command("generate", str(tmp_path / "none.yaml")), 2, "no such recipe")
    config.write_bytes(b"name: \xff\xfe")
    fails(command("generate", str(config)), 2, "not UTF-8")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b'{"instruction": "Do it"}\n', (":1:", "output")),
        (b"", ("is empty",)),
        (b'{"instruction": "A", "output": "b"}\n{oops\n', (":2:", "not JSON")),
        (b'{"instruction": "caf\xe9", "output": "b"}\n', (":1:", "UTF-8")),
    ],
)
def test_bad_seeds(tmp_path: Path, content: bytes, says: tuple[str, ...]) -> None:
    """A missing field, no records, broken JSON, another encoding: exit 2, file and line."""
    seeds = tmp_path / "bad.jsonl"
    seeds.write_bytes(content)
    config = write_recipe(tmp_path, "http://127.0.0.1:9", seeds=[str(seeds)])
    result = command("generate", str(config), "-o", str(tmp_path / "run"))
    fails(result, 2, str(seeds), *says)


def test_bad_keys_and_servers(tmp_path: Path, start_fake_server: Callable[..., Running]) -> None:
    """No key is exit 2; wrong key, wrong model and no server are exit 4; no key is ever shown."""
    url = start_fake_server(key="right").url
    output = ("-o", str(tmp_path / "run"))
    config = write_recipe(tmp_path, url)
    named = ("--set", "teacher.api_key_env=SI_TEST_KEY", *output)
    wrong = command("generate", str(config), *named, SI_TEST_KEY="sk-wrong-secret")
    fails(wrong, 4, "401", "check the key")
    assert "sk-wrong-secret" not in wrong.stderr + wrong.stdout
    model = start_fake_server(faults={"404": 1.0}).url
    fails(command("generate", str(write_recipe(tmp_path, model)), *output), 4, "404", "model")
    gone = write_recipe(tmp_path, "http://127.0.0.1:9")
    fails(command("generate", str(gone), *output), 4, "cannot be reached")
    hosted = {"kind": "openai", "model": "gpt-4.1-mini"}
    config = write_recipe(tmp_path, "x", teacher=hosted)
    fails(command("generate", str(config), *output, OPENAI_API_KEY=""), 2, "OPENAI_API_KEY")


def test_bad_folders(tmp_path: Path, fake_server: Running) -> None:
    """A folder in use, one that is no run, and one that cannot be written: exit 2 with the path."""
    config = write_recipe(tmp_path, fake_server.url)
    run = make(tmp_path, fake_server.url)
    with run.folder.lock():
        fails(command("generate", str(config), "-o", str(run.folder.path)), 2, "in use")
    for name in ("status", "export", "report"):
        fails(command(name, str(tmp_path / "nothing")), 2, "no run here")
    fails(command("status", str(run.folder.path)), 2, "nothing was generated yet")
    blocked = tmp_path / "file"
    blocked.write_text("not a folder", "utf-8")
    fails(command("generate", str(config), "-o", str(blocked / "run")), 2, "cannot write here")


def test_a_target_below_what_is_there(tmp_path: Path, fake_server: Running) -> None:
    """Lowering the target under the kept records is exit 2 and changes nothing."""
    config = write_recipe(tmp_path, fake_server.url)
    output = ("-o", str(tmp_path / "run"))
    assert command("generate", str(config), *output, "--target", "12").returncode == 0
    fails(command("generate", str(config), *output, "--target", "3"), 2, "below the 12 records")


def test_a_wrong_checksum(tmp_path: Path) -> None:
    """A GGUF file that is not the one named is refused before it is loaded."""
    model = tmp_path / "model.gguf"
    model.write_bytes(b"GGUF" + b"\0" * 100)
    teacher = {"kind": "local", "model": str(model), "sha256": "0" * 64}
    config = write_recipe(tmp_path, "x", teacher=teacher)
    result = command("generate", str(config), "-o", str(tmp_path / "run"))
    fails(result, 2, str(model), "sha256")


def test_the_cap_has_its_own_exit_code(tmp_path: Path, fake_server: Running) -> None:
    """Stopped by the cap is 3, and says how to go on."""
    config = write_recipe(tmp_path, fake_server.url)
    result = command("generate", str(config), "-o", str(tmp_path / "run"), "--max-cost", "$0.005")
    fails(result, 3, "--max-cost")


def test_prices_are_shown() -> None:
    """The table with its dates, for people and for programs."""
    assert "gpt-4.1-mini" in command("prices").stdout
    assert json.loads(command("prices", "--json").stdout)["gpt-4o-mini"]["output"] == 0.6
