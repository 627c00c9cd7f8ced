"""`refilter`: other filters on what is stored; nothing is asked for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

import selfinstruct
from selfinstruct.cli.main import cli
from selfinstruct.core.errors import FolderError, RecipeError, UserError
from selfinstruct.testing.fake_server import Running
from tests.runs import adds_up, digest, make

OFF = ("filters.minhash.enabled=false", "filters.rouge.threshold=0.99")


def stricter(run: selfinstruct.Run) -> str:
    """A setting that rejects about half of what was kept."""
    words = sorted(len(record.candidate.instruction.split()) for record in run.records())
    return f"filters.min_words={words[len(words) // 2] + 1}"


@pytest.mark.parametrize(
    "strategies", [[{"kind": "alpaca"}], [{"kind": "self-instruct"}], [{"kind": "magpie"}]]
)
def test_it_costs_nothing_and_says_what_changed(
    strategies: list[dict[str, str]], tmp_path: Path, fake_server: Running
) -> None:
    """No call is made; kept before, minus what went, plus what came, is kept after."""
    run = make(tmp_path, fake_server.url, strategies=strategies)
    run.generate()
    calls, bill = fake_server.server.stats.calls, run.bill()
    setting = stricter(run)
    change = run.refilter(setting)
    assert fake_server.server.stats.calls == calls
    assert run.bill() == bill
    assert change.before.kept == 40
    assert change.after.kept < 40
    came, went = sum(change.newly_kept.values()), sum(change.newly_rejected.values())
    assert change.after.kept == change.before.kept + came - went
    assert "instruction_too_short" in change.newly_rejected
    assert change.examples_rejected[0].instruction
    assert change.missing == 40 - change.after.kept
    assert adds_up(run.funnel())
    assert run.funnel() == change.after
    assert len(run.records()) == change.after.kept
    assert run.recipe.filters.min_words == int(setting.split("=")[1])


def test_a_dry_run_changes_nothing(tmp_path: Path, fake_server: Running) -> None:
    """It says what the real one then does, and leaves the folder as it was, file for file."""
    run = make(tmp_path, fake_server.url)
    run.generate()
    setting = stricter(run)
    before = sorted(path.name for path in run.folder.path.iterdir())
    records, recipe = run.records(None), run.recipe
    told = run.refilter(setting, dry_run=True)
    assert sorted(path.name for path in run.folder.path.iterdir()) == before
    assert (run.records(None), run.recipe) == (records, recipe)
    done = run.refilter(setting)
    assert told.after == done.after
    assert (told.newly_kept, told.newly_rejected) == (done.newly_kept, done.newly_rejected)
    assert (told.dry_run, done.dry_run) == (True, False)


def test_there_and_back_is_where_it_was(tmp_path: Path, fake_server: Running) -> None:
    """Filters changed and changed back give the very dataset of before."""
    run = make(tmp_path, fake_server.url)
    run.generate()
    first, words = digest(run), run.recipe.filters.min_words
    run.refilter(stricter(run))
    assert digest(run) != first
    run.refilter(f"filters.min_words={words}")
    assert digest(run) == first


def test_generate_goes_on_from_it(tmp_path: Path, fake_server: Running) -> None:
    """After refilter, generate comes to the dataset it would have come to without it."""
    run, other = make(tmp_path, fake_server.url), make(tmp_path, fake_server.url, "other")
    run.generate()
    other.generate()
    setting = stricter(run)
    run.refilter(setting)
    run.generate()
    other.configure(setting)
    other.generate()
    assert run.funnel().kept == 40
    assert digest(run) == digest(other)
    assert set(fake_server.server.stats.served.values()) <= {1, 2}  # once for each of the runs


def test_answers_that_were_never_bought(tmp_path: Path, fake_server: Running) -> None:
    """Looser filters let instructions pass without an answer: they wait, and generate buys them."""
    strict = make(tmp_path, fake_server.url, strategies=[{"kind": "self-instruct"}], target=10)
    strict.configure("filters.min_words=7")
    strict.generate()
    assert strict.funnel().rejected["instruction_too_short"]
    calls = fake_server.server.stats.calls
    change = strict.refilter("filters.min_words=1")
    assert fake_server.server.stats.calls == calls
    assert change.not_answered > 0
    assert change.after.rejected["not_answered"] == change.not_answered
    assert adds_up(strict.funnel())
    again = strict.refilter(dry_run=True)  # and once more, from the state that this left
    assert again.after == change.after
    strict.configure("generate.target=14")
    strict.generate()
    assert strict.funnel().kept == 14
    assert "not_answered" not in strict.funnel().rejected
    assert set(fake_server.server.stats.served.values()) == {1}


def test_what_waited_for_a_larger_target_is_used(tmp_path: Path, fake_server: Running) -> None:
    """Completions that were paid for and not needed fill up what filters took away."""
    run = make(tmp_path, fake_server.url, concurrency=8, target=20)
    run.generate()
    waiting = run.funnel().unjudged
    change = run.refilter(stricter(run))
    assert run.funnel().unjudged == 0
    assert change.after.candidates > change.before.candidates or not waiting


def test_the_command(tmp_path: Path, fake_server: Running) -> None:
    """A table of both funnels, what changed with examples, and what to do next; or JSON."""
    run = make(tmp_path, fake_server.url)
    run.generate()
    setting, folder = stricter(run), str(run.folder.path)
    done = CliRunner().invoke(cli, ["refilter", folder, "--set", setting, "--dry-run"])
    assert done.exit_code == 0, done.output
    assert "newly rejected" in done.output
    assert "Nothing was changed" in done.output
    assert "of 40 records; `selfinstruct generate`" in " ".join(done.output.split())
    done = CliRunner().invoke(cli, ["refilter", folder, "--set", setting, "--json"])
    told = json.loads(done.output)
    assert told["after"]["kept"] + told["missing"] == 40
    done = CliRunner().invoke(cli, ["refilter", folder])
    assert "No record changed sides." in done.output


def test_wrong_ways_to_call_it(tmp_path: Path, fake_server: Running) -> None:
    """Other settings, unknown keys and a run without a ledger are refused; nothing changes."""
    run = make(tmp_path, fake_server.url, target=5)
    with pytest.raises(FolderError, match="nothing was generated yet"):
        run.refilter(*OFF)
    run.generate()
    for wrong, error in (("generate.target=9", UserError), ("filters.rogue=1", RecipeError)):
        with pytest.raises(error):
            run.refilter(wrong)
    with run.folder.lock(), pytest.raises(FolderError, match="in use by another process"):
        selfinstruct.Run(run.folder.path).refilter(*OFF)
    assert run.funnel().kept == 5
