"""Our own child processes of `engine.py`: each does one thing and prints what it cost as JSON.

``calls`` makes requests through the engine, from the draw of the examples to the ledger;
``records`` runs the generate stage; ``index`` fills the filters or the pool alone with the records
of a run, to see what they take of its memory.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import math
import resource
import sys
import time
from pathlib import Path

from selfinstruct.core.recipe import Recipe
from selfinstruct.core.sections.generate import StrategyConfig
from selfinstruct.core.sections.teacher import Price, TeacherConfig
from selfinstruct.core.types import Candidate
from selfinstruct.engine import loop
from selfinstruct.engine.accounts import funnel
from selfinstruct.engine.budget import Budget
from selfinstruct.engine.dispatch import Dispatcher
from selfinstruct.engine.folder import RunFolder
from selfinstruct.engine.judging import Progress
from selfinstruct.engine.ledger import Ledger
from selfinstruct.engine.routes import Routes
from selfinstruct.engine.slots import SlotRunner
from selfinstruct.engine.steering import Course
from selfinstruct.engine.window import SlidingWindow
from selfinstruct.stages.generate import SLOTS_A_CALL, gather_seeds, generate
from selfinstruct.steps.filters.judge import Judge, build_filters
from selfinstruct.steps.privacy import Policy
from selfinstruct.steps.seeds.reader import read_seeds
from selfinstruct.steps.strategies.shapes import Pool

MODEL = "fake-1"
SEEDS = Path(__file__).resolve().parent.parent / "seeds" / "general.jsonl"
# Where memory is sampled, in fiftieths of the records: the last while the run is still at work.
POINTS = (10, 20, 30, 40, 49)


def cpu_s() -> float:
    """User and system time of this process so far, all threads."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def resident() -> int:
    """Bytes of this process's own memory now; the peak so far where the system does not say.

    Pages of files are left out: the system takes them back when it likes.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        lines = [line.split() for line in status.read_text("ascii", "replace").splitlines()]
        return 1024 * sum(int(line[1]) for line in lines if line[0] in ("RssAnon:", "VmSwap:"))
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def database_bytes(path: Path) -> int:
    """Size of a ledger with its log."""
    return sum(part.stat().st_size for part in path.parent.glob(f"{path.name}*"))


async def calls(given: argparse.Namespace) -> dict[str, object]:
    """Make `count` requests, the way a run does, without filters."""
    base = f"{given.url}/v1" if given.kind != "anthropic" else given.url
    config = TeacherConfig(
        kind=given.kind,
        base_url=base,
        model=MODEL,
        concurrency=given.concurrency,
        timeout_s=given.timeout_s,
    )
    price = {MODEL: Price.model_validate({"input": 1, "output": 2})}
    routes = Routes(config, None, policy=Policy(), prices=price, no_price=False, private=[])
    pool = Pool(list(read_seeds(SEEDS)))
    await routes.writer.start()  # imports the SDK, which is not what is measured
    cpu, began = cpu_s(), time.perf_counter()
    path = given.folder / "run.db"
    candidates = 0
    with Ledger(path) as ledger:
        dispatcher = Dispatcher(ledger, Budget(None), "generate")
        asked = [StrategyConfig(kind="alpaca")]
        active, readers = await routes.strategies(asked, ledger, dispatcher)
        runner = SlotRunner(
            seed=42,
            strategies=active,
            readers=readers,
            writer=routes.writer,
            answerer=routes.answerer,
            dispatcher=dispatcher,
            answer=None,
            ledger=ledger,
            screen=lambda _: None,
            known_slots=0,
        )
        course, judged, count = Course(), 0, int(given.count)

        async def work(slot: int) -> list[Candidate]:
            return await runner.run(slot, pool.view(0), course)

        def judge(slot: int, found: list[Candidate]) -> bool:
            nonlocal candidates, judged
            candidates += len(found)
            judged = slot + 1
            return judged < count

        await SlidingWindow(
            first=0,
            width=16 * given.concurrency,
            concurrency=math.ceil(SLOTS_A_CALL * given.concurrency),
            work=work,
            judge=judge,
            may_open=lambda open_slots: judged + open_slots < count,
        ).run()
        wall = time.perf_counter() - began
    cpu = cpu_s() - cpu
    await routes.close()
    return {
        "cpu_s": cpu,
        "wall_s": wall,
        "candidates": candidates,
        "faults": dispatcher.counters.faults,
        "ledger_bytes": database_bytes(path),
        **_arrived(path),
    }


def _arrived(path: Path) -> dict[str, int]:
    """What the ledger says of the calls: requests, good completions, failed ones."""
    with Ledger.read(path) as ledger:
        counts = funnel(ledger)
    return {
        "requests": counts.requests,
        "completions": counts.completions - counts.failed,
        "failed": counts.failed,
    }


def recipe(url: str, target: int, concurrency: int) -> Recipe:
    """A run with Alpaca's strategy and all filters."""
    return Recipe.model_validate(
        {
            "name": "bench",
            "seeds": [str(SEEDS)],
            "teacher": {
                "kind": "compatible",
                "base_url": f"{url}/v1",
                "model": MODEL,
                "max_tokens": 4096,
                "concurrency": concurrency,
            },
            "generate": {"target": target, "strategies": [{"kind": "alpaca"}]},
            "prices": {MODEL: {"input": 1, "output": 2}},
        }
    )


async def records(given: argparse.Namespace) -> dict[str, object]:
    """Generate `count` kept records; memory is sampled on the way."""
    folder = RunFolder.create(given.folder, recipe(given.url, given.count, given.concurrency))
    samples: list[dict[str, float]] = []
    due = [given.count * point // 50 for point in POINTS]
    sampling: list[asyncio.Task[None]] = []
    cpu, began = cpu_s(), time.perf_counter()

    async def watch(progress: Progress) -> None:
        for kept in due:
            while progress.kept < kept:  # noqa: ASYNC110 (a run tells nobody of single records)
                await asyncio.sleep(0.005)
            samples.append(_sample(progress.kept, began, cpu))

    def on_start(progress: Progress, stop: object) -> None:
        sampling.append(asyncio.get_running_loop().create_task(watch(progress)))

    await generate(folder, on_start)
    await asyncio.gather(*sampling)
    with Ledger.read(folder.db_path) as ledger:
        counts = funnel(ledger)
    return {
        "cpu_s": cpu_s() - cpu,
        "wall_s": time.perf_counter() - began,
        "kept": counts.kept,
        "candidates": counts.candidates,
        "completions": counts.completions,
        "rejected": counts.rejected,
        "ledger_bytes": database_bytes(folder.db_path),
        "samples": samples,
    }


def _sample(kept: int, began: float, cpu: float) -> dict[str, float]:
    return {
        "kept": kept,
        "memory_bytes": resident(),
        "wall_s": round(time.perf_counter() - began, 2),
        "cpu_s": round(cpu_s() - cpu, 2),
    }


async def index(given: argparse.Namespace) -> dict[str, object]:
    """Memory that the kept records of a run take in the pool, and with `--filters` there too."""
    folder = RunFolder.open(given.folder)
    seeds = gather_seeds(folder.recipe())
    pool, judge = Pool(seeds), Judge(build_filters(folder.recipe().filters))
    judge.prime(seeds)
    samples: list[dict[str, float]] = []
    due = {given.count * point // 50 for point in POINTS}
    cpu, began = cpu_s(), time.perf_counter()
    with Ledger.read(folder.db_path) as ledger:
        for n, record in enumerate(ledger.records(kept=True), 1):
            pool.add(record.candidate)
            if given.filters:
                judge.add(record.candidate)
            if n in due:
                gc.collect()
                samples.append(_sample(n, began, cpu))
    return {"samples": samples}


def main() -> None:
    """Do what the command line says and print the result."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("calls", "records", "index"))
    parser.add_argument("--url", default="")
    parser.add_argument("--kind", default="compatible")
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--concurrency", type=int, default=256)
    parser.add_argument("--timeout-s", type=float, default=60.0)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--filters", action="store_true")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    doing = {"calls": calls, "records": records, "index": index}[given.what]
    print(json.dumps(loop.run(doing(given), private=False)))


if __name__ == "__main__":
    main()
