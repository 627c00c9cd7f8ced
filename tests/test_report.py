"""The report: what it shows, that it loads nothing, and that no text breaks out of it."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfinstruct.core.errors import FolderError, MissingDependency
from selfinstruct.core.ids import make_request
from selfinstruct.core.recipe import Recipe
from selfinstruct.core.types import (
    Candidate,
    Completion,
    Message,
    Record,
    Sampling,
    SeedTask,
    Usage,
    Verdict,
)
from selfinstruct.engine.accounts import BillLine, Funnel
from selfinstruct.engine.folder import RunFolder, write_json
from selfinstruct.engine.ledger import Ledger
from selfinstruct.stages.report import write_report
from selfinstruct.steps.charts import figures, numbers
from selfinstruct.steps.charts.bill import money_section
from selfinstruct.steps.charts.markup import clean, passage, text
from selfinstruct.steps.charts.opening import funnel_section
from selfinstruct.steps.charts.page import Page, plotly_js
from selfinstruct.steps.charts.samples import kept_section
from selfinstruct.steps.charts.settings import LEFT_OUT, without_secrets
from selfinstruct.steps.charts.summary import nearest_seed, summarize
from selfinstruct.steps.charts.theme import LIGHT, THEMES, Theme, mix
from selfinstruct.steps.filters.rouge import rouge_l
from selfinstruct.steps.words import unicode_words

HOSTILE = [
    '<script>document.title = "owned"</script>',
    '</script><script>document.title = "owned"</script>',
    '"><img src=x onerror="document.title = 1">',
    "' onmouseover='alert(1)",
    "</section></main></body></html>",
    "<!-- comment",
    "]]> &lt; &amp;",
    "nul \x00 bell \x07 escape \x1b[31m",
    "\N{RIGHT-TO-LEFT OVERRIDE}never closed",
    "\N{HEBREW LETTER ALEF}\N{HEBREW LETTER BET} mixed",
    "x" * 10_000,
    "\N{GRINNING FACE}" * 3_000,
    "z" + "\N{COMBINING ACUTE ACCENT}" * 3_000,
    "javascript:alert(1)",
    "line\r\nbreak\ttab",
]
VOID = {"meta", "link", "img", "br", "hr", "input"}
EVALUATION = {
    "records": 40,
    "before": {"loss": 2.5, "perplexity": 12.18, "rouge_l": 0.1},
    "after": {"loss": 1.5, "perplexity": 4.48, "rouge_l": 0.3},
    "samples": [
        {"id": "r", "instruction": "Name a river.", "input": "", "reference": "The Rhine.",
         "before": "river river", "after": "The Elbe."}
    ],
    "seconds": 30.0,
    "same_weights_as_teacher": False,
    "fingerprint": "e" * 64,
}  # fmt: skip
TRAINING = {
    "base": "tiny", "method": "lora", "trainable_params": 1000, "total_params": 100_000,
    "device": "cpu", "seconds": 90.0, "steps": 3, "epochs": 1.0, "train_records": 12,
    "tokens": 3000, "useful_tokens": 2000, "truncated": 1, "fully_masked": 0,
    "losses": [
        {"step": n, "loss": 3.0 - n / 2, "learning_rate": 1e-4, "grad_norm": 1.0 + n}
        for n in (1, 2, 3)
    ],
    "merged": "student/merged", "adapter": "student/adapter", "versions": {"torch": "2.0"},
    "fingerprint": "f" * 64,
}  # fmt: skip


class Parsed(HTMLParser):
    """A page taken apart as a browser would; an end tag without its start fails."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.text = ""
        self.scripts: list[str] = []
        self.styles = ""
        self.captions: list[str] = []
        self.tables: list[list[list[str]]] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "script":
            self.scripts.append("")
        elif tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("th", "td"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "script" in self.open:
            self.scripts[-1] += data
        elif "style" in self.open:
            self.styles += data
        else:
            self.text += data
            if "caption" in self.open:
                self.captions.append(data)
            elif "tr" in self.open:
                self.tables[-1][-1][-1] += data

    def table(self, caption: str) -> list[list[str]]:
        """The rows of the table with this caption, the heading first."""
        return self.tables[self.captions.index(caption)]


def recipe(**more: Any) -> Recipe:
    values: dict[str, Any] = {
        "name": "demo",
        "seeds": ["seeds/general.jsonl"],
        "teacher": {"kind": "openai", "model": "gpt-test"},
        "generate": {"target": 8},
        "student": {"base": "tiny"},
    }
    return Recipe.model_validate(values | more)


def candidate(slot: int, index: int, instruction: str, **more: Any) -> Candidate:
    values: dict[str, Any] = {
        "id": f"{slot:016x}-{index}", "slot": slot, "index": index, "strategy": "alpaca",
        "instruction": instruction, "output": f"answer {slot}", "parents": ("seed-0",),
        "requests": (f"{slot:032x}",), "prompt_version": "alpaca-1", "teacher": "openai",
        "model": "gpt-test", "cost": 1_000_000_000,
    }  # fmt: skip
    return Candidate(**(values | more))


def kept(item: Candidate) -> Record:
    return Record(candidate=item, verdict=Verdict(candidate_id=item.id))


def rejected(item: Candidate, reason: str, **more: Any) -> Record:
    return Record(candidate=item, verdict=Verdict(candidate_id=item.id, reason=reason, **more))


async def make_run(path: Path, the_recipe: Recipe | None = None) -> RunFolder:
    """A small run: six records kept, four rejected, one call lost, everything downstream done."""
    folder = RunFolder.create(path, the_recipe or recipe())
    with Ledger(folder.db_path) as ledger:
        ledger.set_seeds(
            [
                SeedTask(id=f"seed-{n}", instruction=f"Name {n} rivers.", output="o")
                for n in range(3)
            ]
        )
        session = ledger.begin_session("generate")
        for slot, instruction in enumerate(
            ["Write a poem.", "Write a story.", "Draw a map.", "Name a bird.", "Explain tides.",
             "Why do cats purr?"]
        ):  # fmt: skip
            request = make_request(
                teacher="openai", model="gpt-test", sampling=Sampling(max_tokens=9), sample=0,
                slot=slot, messages=(Message("user", f"go {slot}"),), strategy="alpaca",
            )  # fmt: skip
            attempt = await ledger.sent(request, "generate", 5_000_000_000)
            usage = Usage(input=100, output=50)
            cost = 2_000_000_000
            await ledger.done(
                attempt,
                Completion(request_id=request.id, text="t", finish="stop", usage=usage, cost=cost),
            )
            first = candidate(slot, 0, instruction, parents=("seed-0", f"{slot - 1:016x}-0"))
            records = [kept(first)]
            if slot < 4:
                reason = ("not_novel", "too_short")[slot // 3]
                records.append(
                    rejected(
                        candidate(slot, 1, f"{instruction} Again {slot}."),
                        reason,
                        detail=f"detail {slot}",
                        neighbour=first.id,
                        score=0.875,
                    )
                )
            ledger.post_verdicts(slot, records)
        lost = make_request(
            teacher="openai", model="gpt-test", sampling=Sampling(max_tokens=9), sample=0, slot=9,
            messages=(Message("user", "lost"),),
        )  # fmt: skip
        await ledger.sent(lost, "generate", 7_000_000_000)
        ledger.close_lost_attempts()
        ledger.expense("train", "GPU", 0.5, "hours", 500_000_000_000)
        ledger.end_session(session, "done")
    write_json(
        folder.dataset / "dataset.json",
        {"train": 5, "held_out": 1, "license": "other", "fingerprint": "d" * 64},
    )
    write_json(folder.student / "training.json", TRAINING)
    write_json(folder.evaluation / "evaluation.json", EVALUATION)
    return folder


@pytest.fixture
async def folder(tmp_path: Path) -> RunFolder:
    return await make_run(tmp_path / "demo")


def charts_of(page: Parsed) -> dict[str, Any]:
    """The charts' data as the page's own script reads it."""
    return dict(json.loads(page.scripts[0])["figures"])


async def test_every_part_is_there(folder: RunFolder) -> None:
    """A finished run shows its headline numbers, every section and every chart."""
    assert write_report(folder) == folder.report
    page = Parsed(folder.report.read_text("utf-8"))
    anchors = {attributes.get("id") for tag, attributes in page.elements if tag == "section"}
    assert anchors == {
        "overview", "funnel", "money", "variety", "diversity", "kept", "faults", "rejected",
        "training", "evaluation", "provenance", "settings", "limits",
    }  # fmt: skip
    assert "6 of 8" in page.text
    assert "60.0%" in page.text
    assert "$0.52" in page.text  # 6 calls of $0.002, $0.007 perhaps, $0.50 of GPU
    assert "2.50 \N{RIGHTWARDS ARROW} 1.50" in page.text
    charts = charts_of(page)
    assert set(charts) == {
        "flow", "verbs", "length-instruction", "length-output", "nearest", "curve-loss",
        "curve-learning_rate", "curve-grad_norm", "metric-loss", "metric-perplexity",
        "metric-rouge_l",
    }  # fmt: skip
    places = {attributes.get("id") for _, attributes in page.elements}
    for anchor, versions in charts.items():
        assert f"chart-{anchor}" in places
        assert set(versions) == {"light", "dark"}
        assert versions["light"] != versions["dark"]


async def test_the_page_loads_nothing(folder: RunFolder) -> None:
    """No element, style or script of ours refers to anything outside the file, and the page's
    Content-Security-Policy forbids what a third-party script might try.
    """
    page = Parsed(write_report(folder).read_text("utf-8"))
    for tag, attributes in page.elements:
        assert tag not in {"link", "iframe", "object", "embed", "img", "base", "form", "video"}
        assert not {"src", "srcset", "data", "action", "background"} & set(attributes)
        assert attributes.get("href", "#").startswith("#")
        assert not [name for name in attributes if name.startswith("on")]
    assert not re.search(r"url\(|@import|https?:", page.styles)
    assert not re.search(r"fetch|import|XMLHttp|WebSocket|https?:", page.scripts[2])
    policy = next(a["content"] for t, a in page.elements if t == "meta" and "http-equiv" in a)
    directives = dict(part.strip().split(" ", 1) for part in policy.split(";"))
    assert directives["default-src"] == "'none'"
    assert directives["img-src"] == "data:"
    hashes = {
        "'sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() + "'"
        for script in page.scripts[1:]
    }
    assert set(directives["script-src"].split()) == hashes
    assert len(page.scripts) == 3


async def test_plotly_is_inside_once(folder: RunFolder) -> None:
    """plotly.js is embedded whole and once, and the file stays under 8 MB."""
    page = write_report(folder).read_text("utf-8")
    assert page.count("Licensed under the MIT license") >= 1
    assert page.count(plotly_js()[:2000]) == 1
    assert len(page.encode()) < 8_000_000


def test_hostile_texts_stay_texts(tmp_path: Path) -> None:
    """Whatever records, seeds, bill and settings say is shown as text: it makes no element, ends no
    script and leaves the page well formed.
    """
    hostile = recipe(teacher={"kind": "openai", "model": HOSTILE[2]})
    folder = RunFolder.create(tmp_path / "demo", hostile)
    with Ledger(folder.db_path) as ledger:
        ledger.set_seeds(
            [SeedTask(id=f'"<s{n}>', instruction=t, output="o") for n, t in enumerate(HOSTILE)]
        )
        for slot, bad in enumerate(HOSTILE):
            more = dict.fromkeys(("input", "output", "category", "model", "strategy"), bad)
            more |= {"parents": ('"<s0>', "gone<"), "teacher": "<t>", "prompt_version": "<v>"}
            first, second = (candidate(slot, k, bad, **more) for k in (0, 1))
            odd = rejected(second, "<u>reason", detail=bad, neighbour='"<s2>', score=0.5)
            ledger.post_verdicts(slot, [kept(first), odd])
        ledger.expense("<stage>", "</table><h1>", 1, "<unit>", 5)
    samples = [
        {"id": "1", "instruction": t, "input": t, "reference": t, "before": None, "after": t}
        for t in HOSTILE
    ]
    write_json(folder.evaluation / "evaluation.json", EVALUATION | {"samples": samples})
    made = write_report(folder).read_bytes()
    assert b"\x00" not in made
    page = Parsed(made.decode("utf-8"))
    assert not page.open  # Parsed also fails on an end tag without its start
    assert len(page.scripts) == 3
    assert {tag for tag, _ in page.elements} <= {
        "html", "head", "meta", "title", "style", "body", "a", "header", "p", "h1", "h2", "h3",
        "ul", "ol", "li", "nav", "main", "section", "dl", "dt", "dd", "div", "span", "small",
        "pre", "table", "caption", "thead", "tbody", "tfoot", "tr", "th", "td", "details", "code",
        "article", "figure", "figcaption", "noscript", "script", "bdi", "summary", "b",
    }  # fmt: skip
    assert not [a for _, attributes in page.elements for a in attributes if a.startswith("on")]
    assert HOSTILE[0] in page.text
    assert HOSTILE[2] in page.text
    labels = charts_of(page)["flow"]["light"]["data"][0]["node"]["label"]
    assert "&lt;u&gt;reason  15" in labels


@given(st.text() | st.binary().map(lambda raw: raw.decode("utf-8", "surrogateescape")))
def test_any_text_can_be_shown(value: str) -> None:
    """Escaped text survives UTF-8, holds no markup, and reads back as the cleaned original."""
    shown = text(value)
    assert shown.encode("utf-8").decode("utf-8") == shown
    assert not set("<>\"'\x00") & set(shown)
    page = Parsed(f'<p title="{shown}">{shown}</p>')
    assert page.elements == [("p", {"title": clean(value)})]
    assert page.text == clean(value)


def test_lone_surrogates_are_replaced() -> None:
    """Half a surrogate pair, which no file can hold, shows as a replacement character."""
    record = kept(candidate(0, 0, "a \ud800 b"))
    shown = kept_section(summarize([], [record]))
    assert "a \N{REPLACEMENT CHARACTER} b" in shown
    shown.encode("utf-8")


def test_long_texts_are_folded() -> None:
    """A text of 10,000 characters shows its beginning and the rest on request; past the limit the
    page says how much more there is.
    """
    whole = Parsed(passage("word " * 2000, limit=12_000))
    assert whole.text.replace("Show all (10,000 characters)", "") == "word " * 2000
    assert [tag for tag, _ in whole.elements] == ["div", "details", "summary"]
    cut = Parsed(passage("word " * 2000, limit=4_000))
    assert "6,000 more characters in run.db" in cut.text
    assert len(cut.text) < 4_200
    assert "details" not in passage("short", limit=4_000)


async def test_the_funnel_adds_up(folder: RunFolder) -> None:
    """Kept and rejected counts in the table sum to the candidates, and the flow loses none."""
    page = Parsed(write_report(folder).read_text("utf-8"))
    _, *rows, foot = page.table("What became of the candidates")
    assert [row[:2] for row in rows] == [["kept", "6"], ["not novel", "3"], ["too short", "1"]]
    assert foot[:3] == ["All candidates", "10", "100.0%"]
    flow = charts_of(page)["flow"]["light"]["data"][0]
    into, out = [0] * 6, [0] * 6
    link = flow["link"]
    for source, target, value in zip(link["source"], link["target"], link["value"], strict=True):
        if target == 5:  # stands where labels would lie upon flows, and is not seen
            assert value < 0.001
            continue
        out[source] += value
        into[target] += value
    assert flow["node"]["label"] == [
        "Candidates  10", "Kept  6", "Rejected  4", "not novel  3", "too short  1", "",
    ]  # fmt: skip
    assert out == [10, 0, 4, 0, 0, 0]
    assert into == [0, 6, 4, 3, 1, 0]
    assert flow["node"]["color"][5] == link["color"][-1] == "rgba(0,0,0,0)"


def test_counts_that_do_not_add_up_are_pointed_out() -> None:
    """Should verdicts and candidates ever disagree, the page says so instead of hiding it."""
    counts = Funnel(
        slots=1, requests=1, completions=1, refused=0, failed=0, unjudged=0, lost=0, candidates=9,
        kept=5, rejected={"odd": 2}, beyond_target=1,
    )  # fmt: skip
    made = funnel_section(Page("demo", ""), counts)
    assert "do not add up to the 9 candidates" in made
    assert "do not add up" not in funnel_section(
        Page("demo", ""), msgspec.structs.replace(counts, candidates=8)
    )


async def test_the_bill(folder: RunFolder) -> None:
    """Each stage and item is one row; what may have been billed stands out and is in the total."""
    page = Parsed(write_report(folder).read_text("utf-8"))
    assert page.table("The bill") == [
        ["Stage", "Item", "Used", "Cost"],
        ["generate", "openai", "6 requests, 600 tokens in, 300 tokens out", "$0.01"],
        ["generate", "possibly billed (lost) estimated", "1 attempt", "$0.0070"],
        ["train", "GPU", "0.5 hours", "$0.50"],
        ["Total", "", "", "$0.52"],
        ["Per kept record", "", "", "$0.09"],
    ]
    loud = [a for tag, a in page.elements if tag == "tr" and a.get("class") == "loud"]
    assert len(loud) == 1
    assert "the most they can have cost" in page.text


def test_a_run_without_spending() -> None:
    """Without any entry the bill says that nothing was spent; without prices, that none apply."""
    assert "Nothing was spent yet" in money_section([], 0)
    free = BillLine(stage="generate", item="local", quantity=5, unit="requests", cost=0)
    assert "nothing on this bill has a price" in money_section([free], 5)


async def test_samples_show_where_they_come_from(folder: RunFolder) -> None:
    """Kept samples name their parents with their text; rejected ones the reason in words, the
    neighbour's text and the score.
    """
    page = Parsed(write_report(folder).read_text("utf-8"))
    hover = {a["title"] for tag, a in page.elements if tag == "code" and "title" in a}
    assert {"Name 0 rivers.", "Write a poem."} <= hover
    assert "no longer in the run" in hover  # the first record's second parent never was
    assert "detail 0; score 0.875" in page.text
    assert "Write a poem. Again 0." in page.text


def test_a_new_run_says_what_to_do(tmp_path: Path) -> None:
    """With nothing but a recipe, each missing part names the command that makes it."""
    folder = RunFolder.create(tmp_path / "demo", recipe())
    page = Parsed(write_report(folder).read_text("utf-8"))
    for command in (
        f"selfinstruct generate {folder.recipe_path}",
        f"selfinstruct export {folder.path}",
        f"selfinstruct train-student {folder.path}",
        f"selfinstruct evaluate {folder.path}",
    ):
        assert f"not done yet. Run {command}" in page.text
    assert charts_of(page) == {}
    assert len(page.scripts) == 1  # no charts, so no plotly.js either
    assert folder.report.stat().st_size < 50_000
    assert "0 of 8" in page.text


def test_a_ledger_without_records(tmp_path: Path) -> None:
    """A run that was only just begun has a report too."""
    folder = RunFolder.create(tmp_path / "demo", recipe(student=None))
    with Ledger(folder.db_path) as ledger:
        ledger.set_seeds([SeedTask(id="s", instruction="Name a river.", output="o")])
    page = Parsed(write_report(folder).read_text("utf-8"))
    assert "Nothing was kept yet" in page.text
    assert "1 seed." in page.text
    assert "Training" not in page.text


async def test_only_the_report_is_written(folder: RunFolder) -> None:
    """The report changes nothing else in the run folder, and can be written over."""

    def contents() -> dict[str, bytes]:
        return {
            str(path.relative_to(folder.path)): path.read_bytes()
            for path in folder.path.rglob("*")
            if path.is_file() and not path.name.startswith(("run.db-", "report.html"))
        }

    before = contents()
    write_report(folder)
    write_report(folder)
    assert contents() == before


async def test_a_broken_stage_file_is_named(folder: RunFolder) -> None:
    """A stage's file that is no JSON is reported by its path."""
    (folder.evaluation / "evaluation.json").write_text("{", "utf-8")
    with pytest.raises(FolderError, match=r"evaluation\.json"):
        write_report(folder)


async def test_gaps_in_stage_files_are_borne(folder: RunFolder) -> None:
    """Values that a stage could not measure (null for NaN) leave gaps, not errors."""
    write_json(
        folder.evaluation / "evaluation.json",
        EVALUATION | {"before": {"loss": None}, "after": {"loss": None, "rouge_l": 0.1}},
    )
    write_json(folder.student / "training.json", {"losses": [{"step": 1, "loss": None}]})
    charts = charts_of(Parsed(write_report(folder).read_text("utf-8")))
    assert not [name for name in charts if name.startswith(("metric", "curve"))]


async def test_plotly_missing(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without plotly the error names the extra to install, and no half report is left."""
    for name in [n for n in sys.modules if n == "plotly" or n.startswith("plotly.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "plotly", None)
    with pytest.raises(MissingDependency, match=r"pip install 'selfinstruct\[report\]'"):
        write_report(folder)
    assert not folder.report.exists()


async def test_no_quality_is_claimed_for_the_teachers_own_weights(folder: RunFolder) -> None:
    """Where student and teacher share weights, the page says so at the figures and at its end."""
    claim = "no quality is claimed"
    assert claim not in Parsed(write_report(folder).read_text("utf-8")).text
    write_json(
        folder.evaluation / "evaluation.json", EVALUATION | {"same_weights_as_teacher": True}
    )
    assert Parsed(write_report(folder).read_text("utf-8")).text.count(claim) == 2


async def test_limits_follow_from_the_run(folder: RunFolder) -> None:
    """Few held-out records, estimated amounts and unfinished stages are named as limits."""
    limits = Parsed(write_report(folder).read_text("utf-8")).text
    assert "Only 40 held-out records were measured" in limits
    assert "the provider's invoice decides" in limits
    assert "Not done yet: generation (75.0% of the target)" in limits
    assert "marked as private" not in limits
    with Ledger(folder.db_path) as ledger:
        ledger.set_seeds([SeedTask(id="s", instruction="i", output="o", private=True)])
    assert "sources marked as private" in Parsed(write_report(folder).read_text("utf-8")).text


async def test_settings_without_secrets(tmp_path: Path) -> None:
    """Keys that were put into a recipe by mistake are not in the page; the rest of it is."""
    secrets = ["sk-abcdefghijkl", "hunter2", "tok-1234", "hf_abcdefghijklmnop", "s3cr3t"]
    careless = recipe(
        teacher={
            "kind": "compatible", "model": "m",
            "base_url": "https://me:hunter2@host/v1?api-key=tok-1234&v=2",
            "api_key_env": "MY_KEY",
            "extra": {"headers": {"Authorization": "Bearer sk-abcdefghijkl"}, "password": "s3cr3t",
                      "note": "use hf_abcdefghijklmnop", "max_tokens": 77},
        }
    )  # fmt: skip
    folder = await make_run(tmp_path / "demo", careless)
    made = write_report(folder).read_text("utf-8")
    assert not [secret for secret in secrets if secret in made]
    page = Parsed(made)
    assert "https://host/v1?api-key=(left out)&v=2" in page.text
    assert "api_key_env: MY_KEY" in page.text
    assert "max_tokens: 77" in page.text


def test_what_is_taken_for_a_secret() -> None:
    """Names decide for plain values, shapes for the rest; ordinary settings stay."""
    assert without_secrets({"token": "abc", "token_env": "HF_TOKEN", "tokenizer": "unicode"}) == {
        "token": LEFT_OUT, "token_env": "HF_TOKEN", "tokenizer": "unicode",
    }  # fmt: skip
    assert without_secrets({"keys": ["a", "b"], "max_tokens": 5}) == {
        "keys": [LEFT_OUT, LEFT_OUT], "max_tokens": 5,
    }  # fmt: skip
    assert without_secrets("Bearer abc.def") == f"Bearer {LEFT_OUT}"


# -- what the numbers are made of --------------------------------------------------------------


def many(total: int) -> Iterator[Record]:
    """Records of which every third is rejected, each with the previous one as a parent."""
    for n in range(total):
        item = candidate(
            n, 0, f"Write the story number {n} of a list.", parents=(f"{n - 3:016x}-0",),
            input="x" if n % 2 else "", output="word " * (n % 60 + 1),
        )  # fmt: skip
        yield rejected(item, f"reason {n % 5}") if n % 3 == 2 else kept(item)


def test_summary_counts_every_record() -> None:
    """The one pass counts verbs, lengths, origins and generations of what was kept."""
    found = summarize([], many(300))
    assert found.kept == 200
    assert found.verbs == {"write": {"number": 200}}
    assert sum(found.lengths["output"].values()) == 200
    assert sum(found.lengths["input"].values()) == 100
    assert found.teachers == {"openai gpt-test": 200}
    assert sum(found.generations.values()) == 200
    assert max(found.generations) == 100
    assert set(found.rejects) == {f"reason {n}" for n in range(5)}


def test_samples_are_stable_and_few() -> None:
    """The same run gives the same samples, a longer one mostly the same, all in order."""
    first, again = summarize([], many(3000)), summarize([], many(3000))
    assert first == again
    assert len(first.samples) == 16
    slots = [record.candidate.slot for record in first.samples]
    assert slots == sorted(slots)
    assert slots[-1] - slots[0] > 1000
    assert all(len(records) == 3 for records in first.rejects.values())


def test_a_large_run_stays_small(tmp_path: Path) -> None:
    """20,000 records with long outputs make a page under 8 MB in seconds of a core."""
    folder = RunFolder.create(tmp_path / "demo", recipe())
    long = "A sentence of an answer that goes on. " * 300
    with Ledger(folder.db_path) as ledger:
        for slot, record in enumerate(many(20_000)):
            item = msgspec.structs.replace(
                record.candidate, output=long if slot % 9 == 0 else "a b"
            )
            verdict = record.verdict
            ledger.post_verdicts(slot, [Record(candidate=item, verdict=verdict)])
    start = time.process_time()
    made = write_report(folder)
    assert time.process_time() - start < 30  # 2 s on an idle core
    assert made.stat().st_size < 8_000_000


def test_faults_are_counted_with_ten_examples_each(tmp_path: Path) -> None:
    """Rejected and flagged faults stand in one table, with what was found in each example."""
    folder = RunFolder.create(tmp_path / "demo", recipe())
    with Ledger(folder.db_path) as ledger:
        for slot in range(15):
            item = candidate(slot, 0, f"Name {slot} birds.")
            flagged = Verdict(candidate_id=item.id, flags=("no_input",), notes=(f"note {slot}",))
            other = candidate(slot, 1, f"Name {slot} trees.")
            records = [Record(candidate=item, verdict=flagged)]
            if slot < 2:
                records.append(rejected(other, "no_output", detail=f"nothing {slot}"))
            ledger.post_verdicts(slot, records)
    page = Parsed(write_report(folder).read_text("utf-8"))
    assert "What the rules found in 17 records" in page.text
    assert re.search(
        r"no input\s*its input is a way to say that there is none\s*flag\s*15", page.text
    )
    assert re.search(
        r"no output\s*its output is a way to say that there is none\s*reject\s*2", page.text
    )
    assert "failing python" not in page.text  # it is off
    assert len(re.findall(r"note \d+", page.text)) == 10
    assert page.text.count("nothing 0") == 2  # among the faults, and among the rejected


words = st.lists(st.sampled_from(["ab", "cd", "ef", "gh", "ij", "kl"]), min_size=1, max_size=9)


@given(words, st.lists(words, min_size=1, max_size=5))
def test_nearness_is_rouge_l(text_words: list[str], seeds: list[list[str]]) -> None:
    """The score with the nearest seed is the best ROUGE-L F1 of all seeds."""
    best = max(rouge_l(seed, text_words) for seed in seeds)
    found = nearest_seed([" ".join(text_words)], [" ".join(seed) for seed in seeds])
    assert found == pytest.approx([best])


def test_nearness_without_words() -> None:
    """Texts without words are near nothing, and without seeds there is nothing to compare."""
    assert nearest_seed(["...", "a b"], ["a b"]) == [0.0, 1.0]
    assert nearest_seed(["a b"], ["..."]) == []
    assert unicode_words("...") == []


@given(st.dictionaries(st.integers(1, 5000), st.integers(1, 50), max_size=60))
def test_bars_hold_every_record(counts: dict[int, int]) -> None:
    """Bars of lengths are few, of one width, without overlap, and lose no record."""
    bars = figures.binned(counts)
    assert sum(bar.records for bar in bars) == sum(counts.values())
    assert len(bars) <= figures.BARS + 1
    assert [bar.start for bar in bars] == [
        min(counts, default=0) + n * bars[0].size for n in range(len(bars))
    ]


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=2000))
def test_curves_are_thinned_and_smoothed_within_their_range(values: list[float]) -> None:
    """A long curve keeps its ends' order and few points; smoothing stays between least and most."""
    x, y = figures.thinned(range(len(values)), values)
    assert len(x) == len(y) <= figures.POINTS
    assert x == sorted(x)
    slack = 1e-6 * (1 + max(map(abs, values)))
    for series in (y, figures.moving_average(values)):
        assert min(values) - slack <= min(series) <= max(series) <= max(values) + slack


@pytest.mark.parametrize("theme", THEMES, ids=lambda theme: theme.name)
def test_the_verb_wheel(theme: Theme) -> None:
    """At most 20 verbs with 4 nouns each; a verb's sector is the sum of its nouns'."""
    verbs = {f"verb{n}": {f"noun{k}": n + k for k in range(1, 7)} | {"": 99} for n in range(30)}
    trace = figures.verb_wheel(theme, verbs).data[0]
    sums: dict[str, int] = {}
    for parent, value in zip(trace.parents, trace.values, strict=True):
        if parent:
            sums[parent] = sums.get(parent, 0) + value
    inner = {i: v for i, p, v in zip(trace.ids, trace.parents, trace.values, strict=True) if not p}
    assert sums == inner
    assert len(inner) == figures.VERBS
    assert len(trace.ids) == figures.VERBS * (1 + figures.NOUNS)
    assert len(figures.verb_wheel(theme, {"go": {"": 3}}).data[0].ids or ()) == 0


@pytest.mark.parametrize("theme", THEMES, ids=lambda theme: theme.name)
def test_contrast(theme: Theme) -> None:
    """Text has at least 4.5 to 1 on its ground (WCAG 2.2), in sectors too."""
    for colour in (theme.ink, theme.muted, theme.second, theme.accent):
        assert contrast(colour, theme.surface) >= 4.5
    for colour in theme.wheel:
        assert contrast(theme.on_wheel, colour) >= 4.5
        assert contrast(theme.ink, mix(colour, theme.surface, 0.62)) >= 4.5


def contrast(one: str, other: str) -> float:
    def light(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
        return 0.2126 * r + 0.7152 * g + 0.0722 * b

    brighter, darker = sorted((light(one), light(other)), reverse=True)
    return (brighter + 0.05) / (darker + 0.05)


def test_a_curve_of_few_steps_has_a_tick_at_each() -> None:
    """No step has a fraction, which rounding would show as the same step twice."""
    theme = LIGHT
    few = figures.curve(theme, [1, 2, 3], [3.0, 2.0, 1.0], smoothed=False)
    assert few["layout"]["xaxis"]["dtick"] == 1
    many = figures.curve(theme, list(range(200)), [1.0] * 200, smoothed=False)
    assert many["layout"]["xaxis"]["nticks"] == 7


@pytest.mark.parametrize(
    ("shown", "wanted"),
    [
        (numbers.count(1234567), "1,234,567"),
        (numbers.count(1.4), "1.4"),
        (numbers.count(0.999), "1"),
        (numbers.count(0.00403), "0.004"),
        (numbers.count(0.0000517), "0.000052"),
        (numbers.short(1_540_000), "1.54M"),
        (numbers.percent(1, 3), "33.3%"),
        (numbers.percent(1, 10_000), "< 0.1%"),
        (numbers.percent(9999, 10_000), "> 99.9%"),
        (numbers.percent(1, 0), "n/a"),
        (numbers.duration(7.25), "7.2 s"),
        (numbers.duration(59.7), "60 s"),
        (numbers.duration(725), "12 min 5 s"),
        (numbers.duration(11_520), "3 h 12 min"),
        (numbers.duration(187_200), "2 d 4 h"),
        (numbers.figure(0.1234567), "0.123"),
        (numbers.figure(12.3456), "12.35"),
        (numbers.figure(1234.5), "1,234"),
        (numbers.dollars(0), "$0.00"),
        (numbers.dollars(12_340_000_000_000), "$12.34"),
        (numbers.dollars(870_200_000), "$0.00087"),
        (numbers.dollars(32_600_000), "$0.000033"),
        (numbers.dollars(5), "< $0.0000001"),
    ],
)
def test_numbers_are_written_for_people(shown: str, wanted: str) -> None:
    """Counts have separators, shares one decimal, durations two units, small sums two digits."""
    assert shown == wanted


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium here to look at the page with")
def test_a_browser_draws_every_chart(folder: RunFolder, tmp_path: Path) -> None:
    """A real browser, from file:// and under the page's own policy, draws all charts."""
    made = write_report(folder)
    assert CHROMIUM is not None
    shown = subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
         "--no-first-run", "--disable-background-networking", "--disable-component-update",
         "--disable-sync", "--host-resolver-rules=MAP * ~NOTFOUND",
         f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", made.resolve().as_uri()],
        capture_output=True, text=True, timeout=120, encoding="utf-8",
    )  # fmt: skip
    places = re.findall(
        r'<div class="chart[^"]*js-plotly-plot[^"]*" id="chart-([^"]+)"', shown.stdout
    )
    assert set(places) == set(charts_of(Parsed(made.read_text("utf-8"))))
