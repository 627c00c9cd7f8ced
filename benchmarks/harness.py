"""What the benchmarks share: child processes and what they cost, the fake server, targets, tables.

Every measurement runs in a process of its own. The CPU time and the peak memory of a child are what
the operating system says of it when it ends, its own children included. This process stays small:
on Linux a child's peak memory is at least that of the process that started it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
MB = 2**20
# ru_maxrss counts kilobytes on Linux and bytes on macOS.
_RSS_UNIT = 1 if sys.platform == "darwin" else 1024


@dataclass(frozen=True)
class Finished:
    """A child process that ended well: `cpu_s` is user and system time, `said` its last line."""

    cpu_s: float
    wall_s: float
    rss_mb: float
    said: dict[str, Any]


class ChildFailed(Exception):
    """A child process ended with an error; the message holds the end of what it said."""


@dataclass
class Target:
    """A figure of a part, and the bound it must keep."""

    part: str
    name: str
    value: float
    bound: float
    unit: str
    at_least: bool = False

    @property
    def met(self) -> bool:
        """Whether the figure keeps to its bound."""
        return self.value >= self.bound if self.at_least else self.value <= self.bound

    def __str__(self) -> str:
        sign = ">=" if self.at_least else "<="
        word = "ok    " if self.met else "MISSED"
        return f"{word}  {self.name}: {self.value:.4g} {self.unit} (target {sign} {self.bound:g})"


@dataclass
class Findings:
    """What a benchmark found: figures by part, and their targets. `part` is at work now."""

    part: str = ""
    parts: dict[str, dict[str, Any]] = field(default_factory=dict)
    targets: list[Target] = field(default_factory=list)

    def begin(self, part: str) -> None:
        """Begin a part; its date and the machine's load go with its figures."""
        self.part = part
        self.parts[part] = {
            "date": datetime.now(UTC).strftime("%Y-%m-%d"),
            "load_before": round(os.getloadavg()[0], 2),
        }

    def note(self, **figures: object) -> None:
        """Note figures of the part."""
        self.parts[self.part].update(figures)

    def target(
        self, name: str, value: float, bound: float, unit: str, *, at_least: bool = False
    ) -> None:
        """Note a figure that has a target."""
        self.targets.append(Target(self.part, name, value, bound, unit, at_least))


Part = Callable[[Findings, bool], None]


def run(
    command: Sequence[str | Path], *, env: Mapping[str, str] | None = None, limit_s: float = 1800
) -> Finished:
    """Run `command` to its end; the last line it prints is JSON. Raises `ChildFailed`."""
    words = [str(word) for word in command]
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        began = time.perf_counter()
        whole = {**os.environ, **(env or {})}
        child = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=whole)
        status, usage = _wait(child, limit_s)
        wall_s = time.perf_counter() - began
        out.seek(0)
        err.seek(0)
        said = out.read().decode("utf-8", "replace")
        if status != 0:
            tail = (said + err.read().decode("utf-8", "replace")).strip()[-2000:]
            raise ChildFailed(f"exit status {status}: {tail}")
    return Finished(
        cpu_s=usage.ru_utime + usage.ru_stime,
        wall_s=wall_s,
        rss_mb=usage.ru_maxrss * _RSS_UNIT / MB,
        said=_last_json(said),
    )


def _wait(child: subprocess.Popen[bytes], limit_s: float) -> tuple[int, Any]:
    """The exit status and the resources used; a child past its limit is killed."""
    deadline = time.monotonic() + limit_s
    while True:
        pid, status, usage = os.wait4(child.pid, os.WNOHANG)
        if pid:
            child.returncode = os.waitstatus_to_exitcode(status)
            return child.returncode, usage
        if time.monotonic() > deadline:
            child.kill()
            deadline = float("inf")
        time.sleep(0.02)


def _last_json(said: str) -> dict[str, Any]:
    """The last object that begins a line, on that line or on several."""
    lines = said.splitlines()
    for at in reversed(range(len(lines))):
        if lines[at].startswith("{"):
            whole = lines[at] if lines[at].endswith("}") else "\n".join(lines[at:])
            found: dict[str, Any] = json.loads(whole)
            return found
    return {}


class Server:
    """The fake server in a process of its own."""

    def __init__(self, url: str) -> None:
        self.url = url

    def stats(self) -> dict[str, Any]:
        """What it was asked and what it served since it began."""
        with urllib.request.urlopen(f"{self.url}/stats", timeout=60) as reply:
            found: dict[str, Any] = json.load(reply)
            return found


@contextmanager
def fake_server(*options: str) -> Iterator[Server]:
    """Start the fake server with `options` of its command line; it ends with the block."""
    command = [sys.executable, "-m", "selfinstruct.testing.fake_server", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline() if process.stdout else ""
        if not line.startswith("http"):
            raise ChildFailed("the fake server does not start")
        yield Server(line.strip())
    finally:
        process.terminate()
        process.wait()
        if process.stdout:
            process.stdout.close()


def medians(runs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The median of each figure over runs of the same thing."""
    return {name: round(statistics.median(run[name] for run in runs), 4) for name in runs[0]}


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "cpu": _cpu_model(),
        "cores": usable,
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
    }


def _cpu_model() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text("utf-8").splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def versions(*packages: str) -> dict[str, str]:
    """Python's version and those of `packages`."""
    found = {"python": platform.python_version()}
    return found | {name: metadata.version(name) for name in packages}


def write(path: Path, findings: Findings, about: Mapping[str, Any]) -> None:
    """Write what was found as JSON; parts that were not measured now stay as they are."""
    before: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    targets = [one for one in before.get("targets", []) if one["part"] not in findings.parts]
    targets += [{**vars(target), "met": target.met} for target in findings.targets]
    whole = {**about, "targets": targets, "parts": before.get("parts", {}) | findings.parts}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(whole, indent=2) + "\n", "utf-8")


def run_parts(
    about: str | None,
    parts: Mapping[str, Part],
    results: Path,
    packages: Sequence[str],
    *,
    quick: str,
    not_quick: Sequence[str] = (),
) -> int:
    """The command line of a benchmark in parts: run them, print and write what they found.

    Args:
        about: the benchmark's docstring.
        parts: by name, in order; each is given whether it is to be quick.
        results: the file for the figures, left alone where it is quick.
        packages: whose versions go with the figures.
        quick: what ``--quick`` does, for its help.
        not_quick: parts that are left out then.

    Returns 1 where ``--check`` finds a missed target.
    """
    parser = argparse.ArgumentParser(description=about.splitlines()[0] if about else "")
    parser.add_argument("--quick", action="store_true", help=quick)
    parser.add_argument("--check", action="store_true", help="exit 1 where a target is missed")
    parser.add_argument("--parts", default="", help=f"some of {','.join(parts)}; all by default")
    parser.add_argument(
        "--output", type=Path, help=f"the JSON; results/{results.name} unless --quick"
    )
    given = parser.parse_args()
    left = not_quick if given.quick else ()
    names = given.parts.split(",") if given.parts else [name for name in parts if name not in left]
    if unknown := set(names) - set(parts):
        parser.error(f"no part is called {unknown.pop()!r}: one of {', '.join(parts)}")
    environment = {"machine": machine(), "versions": versions(*packages)}
    found = Findings()
    for name in names:
        found.begin(name)
        parts[name](found, given.quick)
    print()
    for target in found.targets:
        print(target)
    output = given.output or (None if given.quick else results)
    if output is not None:
        write(output, found, environment)
    missed = [target.name for target in found.targets if not target.met]
    if missed:
        print(f"\nmissed: {'; '.join(missed)}")
    return 1 if missed and given.check else 0


def table(title: str, rows: Sequence[Mapping[str, object]]) -> None:
    """Print rows that have the same keys."""
    print(f"\n{title}")
    if not rows:
        return
    names = list(rows[0])
    shown = [[_show(row[name]) for name in names] for row in rows]
    widths = [max(len(line[n]) for line in [names, *shown]) for n in range(len(names))]
    for line in [names, *shown]:
        print("  " + "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)))


def _show(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
