"""What a request costs, beside four other tools; a run of 50,000 records; a storm of faults.

    python benchmarks/engine.py [--quick] [--check] [--parts calls,peers,records,faults]

Each figure is taken in a fresh process against the fake server in a process of its own. CPU time is
user and system time of all threads; medians are over runs that alternate with those of the things
compared. ``--quick`` makes fewer requests, leaves out the peers and writes nothing. A part that is
measured again replaces its own figures in results/engine.json and leaves the others as they are.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import peer_runs
from harness import (
    HERE,
    MB,
    ChildFailed,
    Findings,
    Finished,
    Part,
    fake_server,
    medians,
    run,
    run_parts,
    table,
)

RESULTS = HERE / "results" / "engine.json"
REPLY = ("--reply-bytes", "2048")
CONCURRENCY = 256
LATENCY_S = 0.2
STORM = {"500": 0.05, "429-after": 0.05, "reset": 0.01, "invalid_json": 0.01, "stall": 0.01}
PACKAGES = ("selfinstruct", "aiohttp", "msgspec", "uvloop", "openai", "anthropic")
FEW = 20  # a peer's run whose cost is start-up alone


def drive(
    what: str,
    folder: str,
    *,
    url: str = "",
    count: int,
    env: Mapping[str, str] | None = None,
    **options: Any,
) -> Finished:
    """One run of `drive.py`. Options are those of its command line."""
    command = [sys.executable, str(HERE / "drive.py"), what]
    command += ["--count", str(count), "--folder", folder]
    for name, value in ({"url": url} | options).items():
        if value is True:
            command.append(f"--{name}")
        elif value:
            command += [f"--{name.replace('_', '-')}", str(value)]
    return run(command, env=env)


def calls_of(url: str, kind: str, count: int, **options: Any) -> dict[str, float]:
    """What a call through one kind of teacher costs; all of them must have been answered."""
    with tempfile.TemporaryDirectory() as folder:
        done = drive("calls", folder, url=url, count=count, kind=kind, **options)
    if done.said["completions"] != count:
        raise ChildFailed(f"{done.said['completions']} completions of {count} requests")
    return {
        "cpu_ms": done.said["cpu_s"] / count * 1000,
        "rss_mb": done.rss_mb,
        "requests_per_s": count / done.said["wall_s"],
        "ledger_bytes": done.said["ledger_bytes"] / count,
        "wall_s": done.said["wall_s"],
    }


def calls(found: Findings, quick: bool) -> None:
    """CPU and memory of a call, for each client, and the rate at a constant latency."""
    counts = {"compatible": 10_000, "openai": 2_000, "anthropic": 2_000}
    if quick:
        counts = {"compatible": 4_000, "openai": 500, "anthropic": 500}
    runs: dict[str, list[dict[str, float]]] = {kind: [] for kind in counts}
    with fake_server(*REPLY) as server:
        for _ in range(1 if quick else 5):
            for kind, count in counts.items():
                runs[kind].append(calls_of(server.url, kind, count))
    rows = {kind: medians(one) for kind, one in runs.items()}
    table(
        f"A call, {CONCURRENCY} at once, replies of 2 kB",
        [{"teacher": kind, "requests": counts[kind]} | row for kind, row in rows.items()],
    )
    found.target("compatible: CPU per record", rows["compatible"]["cpu_ms"], 0.30, "ms")
    found.target("compatible: peak memory", rows["compatible"]["rss_mb"], 120, "MB")
    for kind in ("openai", "anthropic"):
        found.target(f"{kind}: CPU per record", rows[kind]["cpu_ms"], 2.0, "ms")
    for kind, row in rows.items():
        found.note(**{kind: {"requests": counts[kind], "runs": len(runs[kind])} | row})
    _at_latency(found, counts["compatible"], 1 if quick else 3)


def _at_latency(found: Findings, count: int, repeats: int) -> None:
    with fake_server(*REPLY, "--latency-ms", str(LATENCY_S * 1000)) as server:
        row = medians([calls_of(server.url, "compatible", count) for _ in range(repeats)])
    possible = CONCURRENCY / LATENCY_S
    share = row["requests_per_s"] / possible
    table(
        f"The same at {LATENCY_S * 1000:.0f} ms latency",
        [{"requests/s": row["requests_per_s"], "possible": possible, "share": share}],
    )
    found.target("compatible: share of the possible rate", share, 0.85, "", at_least=True)
    figures = {"latency_s": LATENCY_S, "possible_per_s": possible, "share": share}
    found.note(at_latency=figures | row)


def peers(found: Findings, quick: bool) -> None:
    """What a record costs ours and other tools, whole processes, start-up taken off."""
    count, repeats = (200, 1) if quick else (2_000, 3)
    installed, failed = _install()
    many: dict[str, list[Finished]] = {}
    few: dict[str, list[Finished]] = {}
    hosts: dict[str, set[str]] = {}
    with fake_server(*REPLY, "--latency-ms", "100") as server:
        for _ in range(repeats):
            for asked, into in ((FEW, few), (count, many)):
                into.setdefault("selfinstruct", []).append(_ours(server.url, asked))
                for peer, python in list(installed.items()):
                    try:
                        done, wanted = peer_runs.run_peer(peer, python, f"{server.url}/v1", asked)
                    except ChildFailed as error:
                        failed[peer.name] = str(error).splitlines()[-1]
                        del installed[peer]
                        continue
                    into.setdefault(peer.name, []).append(done)
                    hosts.setdefault(peer.name, set()).update(wanted)
    rows = [
        _peer_row(name, few[name], many[name], count)
        for name in ("selfinstruct", *(peer.name for peer in installed))
    ]
    table(f"The whole process, {count} requests at 100 ms, start-up taken off", rows)
    for name, why in failed.items():
        print(f"  {name}: not measured: {why}")
    best = min((row["cpu_ms"] for row in rows[1:]), default=None)
    if best is not None:
        ratio = rows[0]["cpu_ms"] / best
        found.target("ours next to the best peer, CPU per record", ratio, 0.2, "of it")
    about = {
        peer.name: {
            "version": peer_runs.version_of(peer),
            "packages": list(peer.packages),
            "concurrency": peer.concurrency,
            "note": peer.note,
            "hosts_it_wanted_to_reach": sorted(hosts.get(peer.name, ())),
            "not_measured_because": failed.get(peer.name),
        }
        for peer in peer_runs.PEERS
    }
    found.note(requests=count, runs=repeats, rows=rows, about=about)


def _install() -> tuple[dict[peer_runs.Peer, Path], dict[str, str]]:
    """The peers with their interpreters, and why the others cannot be measured."""
    installed, failed = {}, {}
    for peer in peer_runs.PEERS:
        try:
            installed[peer] = peer_runs.python_of(peer)
        except peer_runs.NotInstalled as error:
            failed[peer.name] = str(error)
    return installed, failed


def _ours(url: str, count: int) -> Finished:
    with tempfile.TemporaryDirectory() as folder:
        env = peer_runs.environment(folder, Path(folder) / "guard.log")
        return drive("calls", folder, url=url, count=count, concurrency=CONCURRENCY, env=env)


def _peer_row(name: str, few: list[Finished], many: list[Finished], count: int) -> dict[str, Any]:
    start, whole = (
        medians([{"cpu": one.cpu_s, "wall": one.wall_s, "rss": one.rss_mb} for one in runs])
        for runs in (few, many)
    )
    return {
        "tool": name,
        "cpu_ms": round((whole["cpu"] - start["cpu"]) / (count - FEW) * 1000, 4),
        "start_cpu_s": start["cpu"],
        "wall_s": whole["wall"],
        "rss_mb": whole["rss"],
    }


def records(found: Findings, quick: bool) -> None:
    """A whole run with Alpaca's strategy and all filters."""
    count = 2_000 if quick else 50_000
    with tempfile.TemporaryDirectory() as folder:
        with fake_server() as server:
            done = drive("records", folder, url=server.url, count=count, concurrency=64)
        said = done.said
        pool = drive("index", folder, count=count).said["samples"]
        index = drive("index", folder, count=count, filters=True).said["samples"]
    slopes = {"run": _slope(said["samples"]), "pool": _slope(pool), "filters": _slope(index)}
    slopes["filters"] -= slopes["pool"]
    rest = slopes["run"] - slopes["pool"] - slopes["filters"]
    table(
        f"{count} records with all filters",
        [{name: sample[name] for name in sample} for sample in said["samples"]],
    )
    row = {
        "records": said["kept"],
        "candidates": said["candidates"],
        "requests": said["completions"],
        "wall_s": said["wall_s"],
        "cpu_s": said["cpu_s"],
        "cpu_ms_per_record": said["cpu_s"] / said["kept"] * 1000,
        "peak_rss_mb": done.rss_mb,
        "ledger_mb": said["ledger_bytes"] / MB,
    }
    table("The run", [row])
    growth = {f"{name}_bytes_per_record": round(slope) for name, slope in slopes.items()}
    growth["rest_bytes_per_record"] = round(rest)
    table("Growth of memory", [growth])
    found.target("records kept", said["kept"], count, "", at_least=True)
    if not quick:
        found.target("memory that grows besides pool and filters, per record", rest, 200, "bytes")
    found.note(**row, **growth, rejected=said["rejected"], samples=said["samples"])


def _slope(samples: Sequence[dict[str, float]]) -> float:
    """Bytes of memory per record, by least squares."""
    xs, ys = [s["kept"] for s in samples], [s["memory_bytes"] for s in samples]
    x, y = sum(xs) / len(xs), sum(ys) / len(ys)
    spread = sum((a - x) ** 2 for a in xs)
    return sum((a - x) * (b - y) for a, b in zip(xs, ys, strict=True)) / spread


def faults(found: Findings, quick: bool) -> None:
    """The same requests without faults and in a storm of them: all arrive, none twice."""
    count = 2_000 if quick else 10_000
    latency = ("--latency-ms", str(LATENCY_S * 1000))
    storm = [option for name, share in STORM.items() for option in ("--fault", f"{name}={share}")]
    walls, served = [], {}
    for options in ((), storm):
        with fake_server(*REPLY, *latency, *options) as server:
            walls.append(calls_of(server.url, "compatible", count, timeout_s=3)["wall_s"])
            served = server.stats()
    twice = sum(times > 1 for times in served["served"].values())
    row = {
        "requests": count,
        "clean_s": walls[0],
        "storm_s": walls[1],
        "ratio": walls[1] / walls[0],
        "attempts": served["calls"],
        "answered": len(served["served"]),
        "answered_twice": twice,
    }
    table("A storm of faults", [row])
    if not quick:  # a stall of three seconds alone is longer than a short clean run
        found.target("storm: wall next to the clean run", row["ratio"], 2.0, "times")
    found.target("storm: records that arrived", len(served["served"]), count, "", at_least=True)
    found.target("storm: records served twice", twice, 0, "")
    found.note(**row, by_fault=served["by_fault"], shares=STORM)


PARTS: dict[str, Part] = {
    "calls": calls,
    "peers": peers,
    "records": records,
    "faults": faults,
}


if __name__ == "__main__":
    sys.exit(
        run_parts(
            __doc__,
            PARTS,
            RESULTS,
            PACKAGES,
            quick="fewer requests, no peers",
            not_quick=("peers",),
        )
    )
