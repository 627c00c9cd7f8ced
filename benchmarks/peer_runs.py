"""Other tools for the same work, each in a virtual environment of its own under build/bench/.

A peer is started twice, with few prompts and with many: the difference is what a record costs it,
imports and start-up apart. Caches and telemetry are off, and `peers/guard` refuses and writes down
every address but this machine's.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness import HERE, ChildFailed, Finished, run

BUILD = HERE.parent / "build" / "bench"
# torch: the version of the project's own constraints, so that no other build is fetched. litellm:
# these two releases stole credentials.
CONSTRAINTS = "torch==2.13.0\nlitellm!=1.82.7,!=1.82.8\n"
QUIET = {
    "TELEMETRY_ENABLED": "false",  # Curator
    "CURATOR_VIEWER": "false",
    "CURATOR_DISABLE_CACHE": "true",
    "NEMO_TELEMETRY_ENABLED": "false",  # Data Designer
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "DO_NOT_TRACK": "1",
    "OPENAI_API_KEY": "none",
    "USER": "bench",  # DataDreamer reads it
}


@dataclass(frozen=True)
class Peer:
    """A tool: what to install, and how many calls at once it makes at its best here."""

    name: str
    driver: str
    packages: tuple[str, ...]
    concurrency: int
    note: str = ""


PEERS = (
    Peer("Bespoke Curator", "run_curator", ("bespokelabs-curator==0.1.31",), 256),
    Peer(
        "distilabel",
        "run_distilabel",
        ("distilabel[openai]==1.5.3", "requests==2.34.2", "pillow==13.0.0"),
        256,
        "imports requests and pillow without asking for them",
    ),
    Peer(
        "DataDreamer",
        "run_datadreamer",
        ("datadreamer.dev==0.46.0", "datasets==3.2.0", "pyarrow==18.1.0"),
        64,
        "a thread for each call; newer datasets and pyarrow break its import",
    ),
    Peer("Data Designer", "run_data_designer", ("data-designer==0.9.6",), 256),
)


class NotInstalled(Exception):
    """A peer cannot be installed here; the message is pip's last line."""


def python_of(peer: Peer) -> Path:
    """The interpreter of a peer's environment, made if need be. Raises `NotInstalled`."""
    folder = BUILD / peer.driver.removeprefix("run_")
    python, stamp = folder / "bin" / "python", folder / "installed.txt"
    wanted = "\n".join(peer.packages)
    if stamp.is_file() and stamp.read_text("utf-8") == wanted:
        return python
    print(f"installing {', '.join(peer.packages)} ...", flush=True)
    BUILD.mkdir(parents=True, exist_ok=True)
    constraints = BUILD / "constraints.txt"
    constraints.write_text(CONSTRAINTS, "utf-8")
    subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
    pip = [python, "-m", "pip", "install", "--disable-pip-version-check", "--quiet"]
    done = subprocess.run(
        [*pip, "-c", constraints, *peer.packages], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        raise NotInstalled((errors or ["pip failed"])[-1])
    stamp.write_text(wanted, "utf-8")
    return python


def version_of(peer: Peer) -> str:
    """The version of the peer's package that is pinned."""
    return peer.packages[0].partition("==")[2]


def run_peer(peer: Peer, python: Path, url: str, count: int) -> tuple[Finished, list[str]]:
    """Run a peer over `count` prompts; also the hosts it wanted to reach. Raises `ChildFailed`."""
    with tempfile.TemporaryDirectory() as home:
        log = Path(home) / "guard.log"
        command = [python, HERE / "peers" / f"{peer.driver}.py", "--url", url]
        options = ["--count", count, "--concurrency", peer.concurrency, "--folder", home]
        done = run([*command, *map(str, options)], env=environment(home, log), limit_s=900)
        hosts = sorted(set(log.read_text("utf-8").split())) if log.is_file() else []
    if done.said.get("replies") != count:
        raise ChildFailed(f"{done.said.get('replies')} replies to {count} prompts")
    return done, hosts


def environment(home: str, log: Path) -> dict[str, str]:
    """What a peer is started with, and ours beside it: off line, quiet and watched."""
    found = QUIET | {
        "HOME": home,
        "BENCH_GUARD_LOG": str(log),
        "PYTHONPATH": str(HERE / "peers" / "guard"),
    }
    tables = tokenizer_tables()
    if tables:
        found["TIKTOKEN_CACHE_DIR"] = str(tables[0])
    return found


def tokenizer_tables() -> Sequence[Path]:
    """tiktoken's table that comes with litellm: three of the peers would download it."""
    return sorted(BUILD.glob("*/lib/*/site-packages/litellm/litellm_core_utils/tokenizers"))
