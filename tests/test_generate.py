"""Generate: from seeds to judged records, the same at any speed, and never paid for twice."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from selfinstruct.core.errors import (
    CapReached,
    FolderError,
    Interrupted,
    NoProgress,
    PrivacyError,
    RecipeError,
    SeedError,
    TeacherError,
    UserError,
)
from selfinstruct.core.money import from_dollars
from selfinstruct.engine.accounts import spent
from selfinstruct.engine.judging import Progress
from selfinstruct.engine.ledger import Ledger
from selfinstruct.testing.fake_server import Running
from selfinstruct.testing.forms import Share
from tests.runs import adds_up, digest, make, recipe, write_seeds

Start = Callable[..., Running]


def test_a_run_reaches_its_target_and_adds_up(tmp_path: Path, fake_server: Running) -> None:
    """Exactly the target is kept, every candidate has one verdict, and each names its parents."""
    run = make(tmp_path, fake_server.url)
    progress = run.generate()
    assert progress.kept == 40
    counts = run.funnel()
    assert counts.kept == 40
    assert adds_up(counts)
    known = {seed.id for seed in run.seeds()} | {r.candidate.id for r in run.records(kept=True)}
    for record in run.records(kept=None):
        assert set(record.candidate.parents) <= known
        assert record.candidate.requests
        assert record.verdict.candidate_id == record.candidate.id
    assert len({r.candidate.instruction for r in run.records()}) == 40


def test_the_bill_is_the_servers(tmp_path: Path, fake_server: Running) -> None:
    """Tokens and dollars in the ledger are those the server counted."""
    run = make(tmp_path, fake_server.url)
    run.generate()
    stats = fake_server.server.stats
    with Ledger.read(run.folder.db_path) as ledger:
        expected = from_dollars(stats.tokens_in) + 2 * from_dollars(stats.tokens_out)
        assert spent(ledger) * 10**6 == expected
    candidates = run.records(kept=None)
    assert sum(record.candidate.cost for record in candidates) <= expected // 10**6


@pytest.mark.parametrize("concurrency", [1, 8, 64])
def test_speed_does_not_change_the_dataset(
    tmp_path: Path, start_fake_server: Start, concurrency: int
) -> None:
    """Concurrency, latency and order of arrival leave the Parquet files equal byte for byte."""
    share = Share(bad=0.2, cut=0.1)
    plain = make(tmp_path, start_fake_server(share=share).url, "plain", concurrency=4)
    plain.generate()
    server = start_fake_server(share=share, latency_ms=8, sigma=1.0)
    other = make(tmp_path, server.url, "other", concurrency=concurrency)
    other.generate()
    assert digest(other) == digest(plain)


def test_the_same_command_again_changes_nothing(tmp_path: Path, fake_server: Running) -> None:
    """A run at its target makes no call."""
    run = make(tmp_path, fake_server.url)
    run.generate()
    before, calls = digest(run), fake_server.server.stats.calls
    run.generate()
    assert fake_server.server.stats.calls == calls
    assert digest(run) == before


def test_a_larger_target_continues(tmp_path: Path, fake_server: Running) -> None:
    """Reaching 20 and then 40 gives the dataset of going straight to 40, each call paid once."""
    straight = make(tmp_path, fake_server.url, "straight")
    straight.generate()
    steps = make(tmp_path, fake_server.url, "steps", target=20)
    steps.generate()
    assert len(steps.records()) == 20
    steps.configure("generate.target=40")
    steps.generate()
    assert digest(steps) == digest(straight)
    # Both runs asked the same of the server; neither asked anything twice.
    assert max(fake_server.server.stats.served.values()) == 2


def test_a_changed_filter_costs_nothing(tmp_path: Path, fake_server: Running) -> None:
    """Verdicts are recomputed from the ledger; only records that are then missing are paid for."""
    run = make(tmp_path, fake_server.url)
    run.generate()
    calls = fake_server.server.stats.calls
    run.configure("filters.minhash.enabled=false", "filters.rouge.threshold=0.99")
    run.generate()
    assert fake_server.server.stats.calls == calls
    words = sorted(len(record.candidate.instruction.split()) for record in run.records())
    run.configure(f"filters.min_words={words[20] + 1}")
    run.generate()
    assert fake_server.server.stats.calls > calls
    assert set(fake_server.server.stats.served.values()) == {1}
    assert run.funnel().kept == 40
    assert adds_up(run.funnel())


def test_an_added_seed_pays_nothing_twice(tmp_path: Path, fake_server: Running) -> None:
    """Finished calls are used again although new slots would now draw other examples."""
    run = make(tmp_path, fake_server.url)
    run.generate()
    write_seeds(tmp_path, 14)
    run.configure("generate.target=60")
    run.generate()
    assert len(run.seeds()) == 14
    assert run.funnel().kept == 60
    assert set(fake_server.server.stats.served.values()) == {1}


def test_changed_strategies_mix_nothing_up(tmp_path: Path, fake_server: Running) -> None:
    """What other strategies asked for before is still read as theirs, answers with their own."""
    run = make(tmp_path, fake_server.url, target=12, strategies=[{"kind": "magpie"}])
    run.generate()
    before = {r.candidate.instruction: r.candidate.output for r in run.records()}
    run.configure("generate.strategies=[{kind: self-instruct}]", "generate.target=30")
    run.configure("filters.minhash.enabled=false")
    run.generate()
    after = {r.candidate.instruction: r.candidate.output for r in run.records()}
    assert before.items() <= after.items()
    assert {r.candidate.strategy for r in run.records()} == {"magpie", "self-instruct"}
    assert set(fake_server.server.stats.served.values()) == {1}


def test_a_slow_first_slot_does_not_fill_the_window(
    tmp_path: Path, start_fake_server: Start
) -> None:
    """Before anything is judged, no more is asked for than the target will probably need."""
    server = start_fake_server(latency_ms=30, sigma=1.5)
    run = make(tmp_path, server.url, concurrency=32, window=256, strategies=[{"kind": "alpaca"}])
    run.generate()
    assert run.funnel().unjudged <= 4


def test_a_kept_record_has_a_limit(tmp_path: Path, start_fake_server: Start) -> None:
    """When one more record costs more than its owner would pay, the run stops and says so."""
    server = start_fake_server(share=Share(bad=0.9))
    run = make(
        tmp_path, server.url, target=500, max_cost_per_record="0.0001",
        strategies=[{"kind": "json"}],
    )  # fmt: skip
    with pytest.raises(NoProgress, match=r"a kept record now costs \$.*max_cost_per_record"):
        run.generate()
    assert run.funnel().slots < 80


def test_ctrl_c_finishes_what_is_in_flight(tmp_path: Path, start_fake_server: Start) -> None:
    """The first stop lets calls end and be recorded; continuing gives the same dataset."""
    server = start_fake_server(latency_ms=20)
    run = make(tmp_path, server.url, target=60)
    waiting = []

    def on_start(progress: Progress, stop: Callable[[], None]) -> None:
        async def stop_at_the_first_record() -> None:
            while not progress.kept:  # noqa: ASYNC110 (it changes in place)
                await asyncio.sleep(0.005)
            stop()

        waiting.append(asyncio.get_running_loop().create_task(stop_at_the_first_record()))

    with pytest.raises(Interrupted, match="the same command continues"):
        run.generate(on_start)
    assert 0 < run.funnel().kept < 60
    assert run.funnel().lost == 0
    run.generate()
    whole = make(tmp_path, server.url, "whole", target=60)
    whole.generate()
    assert digest(run) == digest(whole)


def test_the_cap_stops_and_continues(tmp_path: Path, fake_server: Running) -> None:
    """At the cap nothing more is spent; under a higher one the run goes on where it was."""
    run = make(tmp_path, fake_server.url, max_cost="0.012")
    with pytest.raises(CapReached, match="raise it with --max-cost"):
        run.generate()
    with Ledger.read(run.folder.db_path) as ledger:
        assert 0 < spent(ledger) <= from_dollars("0.012")
    run.configure("generate.max_cost=5")
    assert run.generate().kept == 40


def test_two_teachers_share_the_work(tmp_path: Path, start_fake_server: Start) -> None:
    """With an answer_teacher, instructions come from one server and answers from the other."""
    writer, answerer = start_fake_server(), start_fake_server()
    settings = recipe(tmp_path, writer.url, strategies=[{"kind": "self-instruct"}])
    settings["answer_teacher"] = settings["teacher"] | {
        "base_url": f"{answerer.url}/v1",
        "model": "fake-2",
    }
    settings["prices"]["fake-2"] = {"input": 5, "output": 6}
    import selfinstruct

    run = selfinstruct.Run.from_recipe(settings, output=tmp_path / "run")
    run.generate()
    assert 0 < writer.server.stats.calls < answerer.server.stats.calls
    teachers = {line.item for line in run.bill()}
    assert {"compatible/fake-1", "compatible/fake-2"} <= teachers


def test_magpie_uses_the_servers_own_template(tmp_path: Path, fake_server: Running) -> None:
    """The user header is asked for once; instructions and answers come from the model alone."""
    run = make(tmp_path, fake_server.url, strategies=[{"kind": "magpie"}], target=8)
    run.generate()
    for record in run.records():
        assert record.candidate.parents == ()
        assert len(record.candidate.requests) == 2


def test_nothing_new_stops_the_run(tmp_path: Path, start_fake_server: Start) -> None:
    """A teacher that only repeats itself does not burn money for ever."""
    server = start_fake_server(share=Share(bad=1.0))
    run = make(tmp_path, server.url, give_up_after=10, strategies=[{"kind": "json"}])
    with pytest.raises(NoProgress, match="10 slots in a row kept nothing"):
        run.generate()
    limited = make(tmp_path, server.url, "limited", max_requests=5, strategies=[{"kind": "json"}])
    with pytest.raises(NoProgress, match="max_requests=5"):
        limited.generate()


def test_a_target_below_what_is_there(tmp_path: Path, fake_server: Running) -> None:
    """Records are not thrown away by lowering the target; the message says what to do."""
    run = make(tmp_path, fake_server.url)
    run.generate()
    run.configure("generate.target=10")
    with pytest.raises(UserError, match="target is 10, below the 40 records kept"):
        run.generate()


def test_a_folder_in_use_is_refused(tmp_path: Path, fake_server: Running) -> None:
    """A second process on the same run is told who has it."""
    run = make(tmp_path, fake_server.url)
    with run.folder.lock(), pytest.raises(FolderError, match="in use by another process"):
        run.generate()


@pytest.mark.parametrize(
    ("fault", "error", "says"),
    [
        ("401", TeacherError, "check the key"),
        ("404", TeacherError, "check the recipe's model"),
        ("insufficient_quota", TeacherError, "add credit"),
    ],
)
def test_a_refusing_teacher_stops_the_run(
    tmp_path: Path, start_fake_server: Start, fault: str, error: type[Exception], says: str
) -> None:
    """Wrong key, wrong model and no money end with one line, and later calls go on from there."""
    server = start_fake_server(faults={fault: 1.0})
    with pytest.raises(error, match=says):
        make(tmp_path, server.url).generate()


def test_faults_on_the_way_change_nothing(tmp_path: Path, start_fake_server: Start) -> None:
    """Errors, resets, broken JSON and rate limits are repeated until the record is there."""
    plain = make(tmp_path, start_fake_server().url, "plain", target=25)
    plain.generate()
    stormy = start_fake_server(faults={"500": 0.1, "429": 0.1, "reset": 0.05, "invalid_json": 0.05})
    run = make(tmp_path, stormy.url, "stormy", target=25)
    run.generate()
    assert digest(run) == digest(plain)


def test_no_server_is_said_at_once(tmp_path: Path) -> None:
    """An address nobody listens at is one clear line."""
    with pytest.raises(TeacherError, match=r"cannot be reached .*base_url"):
        make(tmp_path, "http://127.0.0.1:9").generate()


def test_an_unknown_price_is_asked_for(tmp_path: Path) -> None:
    """A remote model without a price runs only when its owner says so."""
    settings = recipe(tmp_path, "http://models.example:8000")
    settings["prices"] = {}
    import selfinstruct

    run = selfinstruct.Run.from_recipe(settings, output=tmp_path / "run")
    with pytest.raises(RecipeError, match=r"no price is known for the model 'fake-1'"):
        run.generate()


def test_private_seeds_stay(tmp_path: Path) -> None:
    """A private source is not sent to a remote teacher without leave."""
    settings = recipe(tmp_path, "http://models.example:8000")
    settings["seeds"] = [{"path": settings["seeds"][0], "private": True}]
    import selfinstruct

    run = selfinstruct.Run.from_recipe(settings, output=tmp_path / "run")
    with pytest.raises(PrivacyError, match="allow_remote: true"):
        run.generate()
    run.configure("privacy=local", "seeds.0.private=false")
    with pytest.raises(PrivacyError, match=r"models\.example"):
        run.generate()


def test_bad_seeds_are_named(tmp_path: Path, fake_server: Running) -> None:
    """Missing files and ids that two files share are told with their place."""
    settings = recipe(tmp_path, fake_server.url)
    settings["seeds"] = [str(tmp_path / "none.jsonl")]
    import selfinstruct

    with pytest.raises(SeedError, match="no such file; did you mean"):
        selfinstruct.Run.from_recipe(settings, output=tmp_path / "a").generate()
    seeds = write_seeds(tmp_path)
    copy = tmp_path / "more.jsonl"
    copy.write_text(seeds.read_text("utf-8"), "utf-8")
    settings["seeds"] = [str(seeds), str(copy)]
    run = selfinstruct.Run.from_recipe(settings, output=tmp_path / "b")
    run.generate()
    assert "more:s0" in {seed.id for seed in run.seeds()}


def test_sessions_tell_how_each_ended(tmp_path: Path, fake_server: Running) -> None:
    """The ledger notes when work was done and how it ended."""
    run = make(tmp_path, fake_server.url, max_cost="0.012")
    with pytest.raises(CapReached):
        run.generate()
    run.configure("generate.max_cost=5")
    run.generate()
    with Ledger.read(run.folder.db_path) as ledger:
        outcomes = [row[0] for row in ledger.db.execute("SELECT outcome FROM sessions")]
    assert outcomes == ["CapReached", "done"]


def test_replies_may_hold_anything(tmp_path: Path) -> None:
    """Half surrogates, nulls and markup in a scripted reply end as records or named rejects."""
    hostile = ["\ud800 half", "null \x00 byte", "<script>alert(1)</script>", "\u202eright to left"]
    script = tmp_path / "replies.jsonl"
    with script.open("w", encoding="utf-8") as file:
        for n, text in enumerate(hostile):
            task = {"instruction": f"Explain {text} in detail {n}", "input": "", "output": text}
            file.write(json.dumps({"text": json.dumps(task)}) + "\n")
    settings = recipe(tmp_path, "http://127.0.0.1:9", strategies=[{"kind": "json"}], target=50)
    settings["teacher"] = {"kind": "scripted", "model": str(script), "concurrency": 2}
    settings["generate"]["max_requests"] = 12
    import selfinstruct

    run = selfinstruct.Run.from_recipe(settings, output=tmp_path / "run")
    with pytest.raises(NoProgress):
        run.generate()
    assert adds_up(run.funnel())
    assert run.funnel().candidates > 0


def test_edited_rules_are_judged_by(tmp_path: Path, fake_server: Running) -> None:
    """The wording rules count by what they say: an edit of the file is a changed filter."""
    from selfinstruct.core.shipped import find

    shipped = find("recipes/filters/wording.en.yaml")
    assert shipped is not None
    rules = tmp_path / "rules.yaml"
    rules.write_text(shipped.read_text("utf-8"), "utf-8")
    run = make(tmp_path, fake_server.url)
    run.configure(f"filters.wording.rules={rules}")
    run.generate()
    word = run.records()[0].candidate.instruction.split()[0].strip(",.").lower()
    rules.write_text(rules.read_text("utf-8").replace("image, images", f"{word}, image", 1))
    run.generate()
    firsts = {r.candidate.instruction.split()[0].strip(",.").lower() for r in run.records()}
    assert word not in firsts
