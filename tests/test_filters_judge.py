"""The judge: order, memory, screening, and text of every unpleasant kind."""

from __future__ import annotations

import ast
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import selfinstruct
from selfinstruct.core.errors import RecipeError
from selfinstruct.core.sections.filters import FiltersConfig
from selfinstruct.core.types import Candidate, Filter, SeedTask, Verdict
from selfinstruct.steps.filters.grounded import REASONS as GROUNDED
from selfinstruct.steps.filters.judge import REASONS, Judge, build_filters
from selfinstruct.steps.filters.rules import REASONS as RULES

ROOT = Path(__file__).parent.parent
PACKAGE = Path(selfinstruct.__file__).parent
TEXT = " ".join(f"sentence {number} of it says {number * 7}," for number in range(30))
SEEDS = [
    SeedTask(
        id="s1",
        instruction="Rewrite the sentence in the past tense.",
        input="She walks to school.",
        output="She walked to school.",
    ),
    SeedTask(id="s2", instruction="Name three primary colours", output="Red, yellow and blue."),
    SeedTask(id="s3", instruction="Sum up this text", input=TEXT, output="A fox jumps."),
]


def candidate(
    instruction: str, input: str = "", output: str = "Fine.", **more: object
) -> Candidate:
    values: dict[str, object] = {
        "id": "c",
        "slot": 0,
        "index": 0,
        "strategy": "",
        "instruction": instruction,
        "input": input,
        "output": output,
        **more,
    }
    return Candidate(**values)  # type: ignore[arg-type]


def primed(**config: object) -> Judge:
    judge = Judge(build_filters(FiltersConfig(**config)))  # type: ignore[arg-type]
    judge.prime(SEEDS)
    return judge


# A candidate for each reason. Where it breaks several rules, the first filter's reason counts.
REJECTED = {
    "unparseable": candidate("", output="chatter", defect="unparseable"),
    "incomplete": candidate("Name three primary colours", defect="incomplete"),
    "malformed": candidate("Draw", defect="malformed"),
    "unanswered": candidate("Say something new", output="", defect="unanswered"),
    "not_answered": candidate("Say something new", output="", defect="not_answered"),
    "refused": candidate("Say something new", output="", defect="refused"),
    "invalid_characters": candidate("Name three \0 colours"),
    "empty_instruction": candidate(" ", output=""),
    "instruction_too_short": candidate("Draw", output=""),
    "instruction_too_long": candidate("go to " * 100),
    "forbidden_word": candidate("Write a program that draws an image", output=""),
    "forbidden_start": candidate("Write a program that adds two numbers", output=""),
    "starts_with_punctuation": candidate("- name three primary colours", parents=("s2",)),
    "starts_with_non_ascii": candidate("Überlege dir drei Farben"),
    "copied_from_prompt": candidate("Name three primary colours", output="", parents=("s1", "s2")),
    "empty_output": candidate("Name three primary colours", output=" "),
    "output_equals_input": candidate("Name three primary colours", "Red", "Red"),
    "output_equals_instruction": candidate("Tell me a story", output="Tell me a story"),
    "exact_duplicate": candidate("name three primary colours!", output="Red, yellow and blue."),
    "conflicting_output": candidate("Name three primary colours", output="Green and white."),
    "not_novel": candidate("Name three secondary colours", output="Green and white."),
    "near_duplicate": candidate("Make it much shorter please", TEXT, "A fox jumps."),
}


@pytest.mark.parametrize("reason", REJECTED)
def test_each_reason_has_its_candidate(reason: str) -> None:
    """Each reason is given, by the first filter in the order, with a detail in words."""
    item = REJECTED[reason]
    verdict = primed().judge(item)
    assert verdict.reason == reason
    assert verdict.candidate_id == item.id
    assert verdict.detail


def reasons_in_the_code() -> set[str]:
    """The values of the constants that are given as a reason, by the modules' source."""
    found: set[str] = set()
    for path in (PACKAGE / "steps" / "filters").glob("*.py"):
        tree = ast.parse(path.read_text("utf-8"))
        constants = {
            target.id: node.value.value
            for node in tree.body
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
            for target in node.targets
            if isinstance(target, ast.Name) and isinstance(node.value.value, str)
        }
        for node in ast.walk(tree):
            given = isinstance(node, ast.keyword) and node.arg == "reason"
            if given or (isinstance(node, ast.Assign) and "reason" in ast.unparse(node.targets[0])):
                names = {n.id for n in ast.walk(node.value) if isinstance(n, ast.Name)}
                found |= {constants[name] for name in names if name in constants}
    return found


def test_the_list_of_reasons_is_complete() -> None:
    """`REASONS` is what the candidates above are rejected for and what the modules can give."""
    # test_filters_rules.py, test_filters_semantic.py, test_filters_grounded.py
    elsewhere = {*RULES, "semantic_duplicate", *GROUNDED, "nothing_to_ask"}
    assert set(REASONS) == set(REJECTED) | elsewhere
    assert len(reasons_in_the_code()) >= 10
    assert reasons_in_the_code() <= set(REASONS)
    for line in REASONS.values():
        assert line
        assert "\n" not in line


def test_every_reason_is_documented() -> None:
    """docs/filters.md names each reason and each filter."""
    page = (ROOT / "docs" / "filters.md").read_text("utf-8")
    missing = [reason for reason in REASONS if f"`{reason}`" not in page]
    missing += [one.name for one in build_filters(FiltersConfig()) if f"`{one.name}`" not in page]
    assert not missing


def test_a_kept_candidate_is_remembered_and_a_rejected_one_is_not() -> None:
    """What was kept blocks what is near it; what was rejected blocks nothing."""
    judge = primed()
    assert judge.judge(candidate("Explain why the sky is blue today", output="")).reason
    kept = judge.judge(candidate("Explain why the sky is blue today", id="a"))
    assert kept == Verdict(candidate_id="a")
    assert kept.kept
    again = judge.judge(candidate("Explain why the sea is blue today", output="Water.", id="b"))
    assert (again.reason, again.neighbour) == ("not_novel", "a")


def test_adding_is_as_good_as_having_judged() -> None:
    """A run that continues adds what was kept before, and decides as the first session would."""
    first, second = primed(), primed()
    item = candidate("Explain why the sky is blue today", id="a")
    assert first.judge(item).kept
    second.add(item)
    near = candidate("Explain why the sky is so blue today", output="Light.", id="b")
    assert first.judge(near) == second.judge(near)


def test_screening_comes_to_the_verdict_that_judging_would() -> None:
    """Before an answer is there, the instruction alone is judged, and nothing is remembered."""
    screened = {"empty_instruction", "instruction_too_short", "instruction_too_long"}
    screened |= {"forbidden_word", "forbidden_start", "starts_with_punctuation"}
    screened |= {"starts_with_non_ascii", "copied_from_prompt", "invalid_characters"}
    for reason in screened:
        judge = primed()
        verdict = judge.screen(REJECTED[reason])
        assert verdict is not None
        assert verdict == judge.judge(REJECTED[reason])
    judge = primed()
    unanswered = candidate("Explain why the sky is blue today", output="")
    assert judge.screen(unanswered) is None
    assert judge.screen(unanswered) is None
    assert judge.screen(REJECTED["not_novel"]) is None


def test_config_chooses_the_filters() -> None:
    """All filters in the documented order by default; each optional one can be left out."""
    names = [one.name for one in build_filters(FiltersConfig())]
    assert names == [
        "shape", "wording", "copied", "output", "rules", "correctness", "conflicting", "novelty",
        "minhash",
    ]  # fmt: skip
    off = FiltersConfig.model_validate(
        {
            "wording": {"enabled": False, "rules": "no such file"},
            "copied": False,
            "conflicting": False,
            "rouge": {"enabled": False},
            "minhash": {"enabled": False},
        }
    )
    assert [one.name for one in build_filters(off)] == ["shape", "output", "rules", "correctness"]


def test_config_reaches_the_filters() -> None:
    """Every setting changes a decision."""
    near = candidate("Name three secondary colours", output="Green.")
    assert primed().judge(near).reason == "not_novel"
    assert primed(rouge={"threshold": 0.8}).judge(near).kept
    assert (
        primed(rouge={"threshold": 0.8})
        .judge(candidate("Name three secondary colours", output="Green.", parents=("s2",)))
        .kept
    )
    other_input = candidate(SEEDS[0].instruction, "Nine cats sleep on our old sofa today.")
    assert primed().judge(other_input).reason == "not_novel"
    assert primed(rouge={"field": "instruction+input"}).judge(other_input).kept
    short = candidate("Explain the blue sky")
    assert primed(min_words=5).judge(short).reason == "instruction_too_short"
    assert primed(max_words=3).judge(short).reason == "instruction_too_long"
    long = REJECTED["near_duplicate"]
    assert primed(minhash={"threshold": 0.99}).judge(long).kept
    words = TEXT.split()
    words[10::30] = ["other"] * len(words[10::30])
    edited = candidate("Make it much shorter please", " ".join(words), "A fox jumps.")
    assert primed().judge(edited).reason == "near_duplicate"
    assert primed(minhash={"ngram": 10}).judge(edited).kept
    german = candidate("Überlege dir drei Farben")
    assert primed(wording={"rules": "recipes/filters/wording.de.yaml"}).judge(german).kept
    cyrillic = [
        candidate("Назови три причины гулять", id="1"),
        candidate("Назови три причины спать"),
    ]
    for tokenizer, kept in [("unicode", False), ("alpaca", True)]:
        judge = primed(rouge={"tokenizer": tokenizer}, wording={"enabled": False})
        assert judge.judge(cyrillic[0]).kept
        assert judge.judge(cyrillic[1]).kept is kept


def test_a_missing_rules_file_is_an_error_before_the_run() -> None:
    """Building the filters reads what they need, so a wrong recipe costs nothing."""
    config = FiltersConfig.model_validate({"wording": {"rules": "nowhere.yaml"}})
    with pytest.raises(RecipeError, match=r"nowhere\.yaml: no such rules file"):
        build_filters(config)


LETTERS = ["word", "Name", "three", "-", "é", "字", "ที่", "اكتب", "<noinput>", "a" * 50]
ODD = [
    "\0",
    "\ud800",
    "\udc00",
    "😀",
    "👨\u200d👩\u200d👧",
    "\u202e",
    "\u0301",
    "\ufeff",
    "\U0010ffff",
]
PARTS = st.sampled_from([*LETTERS, *ODD, " ", "\n"])


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(*[st.lists(PARTS, max_size=8).map("".join)] * 3), max_size=6))
def test_any_text_is_kept_or_rejected_by_name(texts: list[tuple[str, str, str]]) -> None:
    """Surrogates, nulls, emoji, right-to-left, marks: a known reason or a keep, never an error."""
    judge = primed(min_words=0, wording={"rules": "recipes/filters/wording.de.yaml"})
    for index, (instruction, input, output) in enumerate(texts):
        item = candidate(instruction, input, output, id=str(index), parents=("s1", "0", "gone"))
        verdict = judge.judge(item)
        assert verdict.kept or verdict.reason in REASONS


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(*[st.lists(PARTS, max_size=8).map("".join)] * 3), max_size=4))
def test_each_filter_alone_takes_any_text(texts: list[tuple[str, str, str]]) -> None:
    """A filter raises nothing either where those before it would have rejected the text."""
    for one in build_filters(FiltersConfig()):
        for instruction, input, output in texts:
            item = candidate(instruction, input, output, parents=("c",))
            verdict = one.check(item)
            assert verdict is None or verdict.reason in REASONS
            one.add(item)


MEGABYTE = {
    "one word": "a" * 1_000_000,
    "hyphens": "a-" * 500_000,
    "words": "some words " * 90_000,
    "numbers": " ".join(map(str, range(150_000))),
    "accents": "a" + "\u0301\u0316" * 250_000,
    "Chinese": "字" * 1_000_000,
}


@pytest.mark.parametrize("kind", MEGABYTE)
def test_a_megabyte_costs_seconds_at_most(kind: str) -> None:
    """No filter's time grows with the square of the text: a megabyte in each field, twice."""
    text = MEGABYTE[kind]
    filters: list[Filter] = build_filters(
        FiltersConfig.model_validate({"rouge": {"field": "instruction+input"}})
    )
    begin = time.process_time()
    for one in filters:
        for item in (candidate("Read it", text, text, id="1"), candidate(text, "x", "y")):
            one.check(item)
            one.add(item)
        one.check(candidate("Read this", text, text + "!", parents=("1",)))
    assert time.process_time() - begin < 30


def test_verdicts_do_not_depend_on_the_process() -> None:
    """The same candidates get the same verdicts under another hash seed."""
    program = (
        "import random\n"
        "from selfinstruct.core.sections.filters import FiltersConfig\n"
        "from selfinstruct.core.types import Candidate\n"
        "from selfinstruct.steps.filters.judge import Judge, build_filters\n"
        "rng = random.Random(1)\n"
        "words = 'name three old red blue cats dogs and write about them now please'.split()\n"
        "judge = Judge(build_filters(FiltersConfig()))\n"
        "for i in range(300):\n"
        "    text = ' '.join(rng.choices(words, k=rng.randint(3, 9)))\n"
        "    out = ' '.join(rng.choices(words[:4], k=6))\n"
        "    print(judge.judge(Candidate(id=str(i), slot=i, index=0, strategy='',\n"
        "        instruction=text, output=out)))\n"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program],
            cwd=ROOT,
            env={"PYTHONHASHSEED": str(seed), "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in (1, 2)
    }
    assert len(outputs) == 1
    assert "not_novel" in outputs.pop()


def test_order_decides_who_is_kept() -> None:
    """Of two near candidates the first is kept, so verdicts follow the order of judging."""
    texts = ["Explain why the sky is blue today", "Explain why the sky is blue now"]
    for order in (texts, texts[::-1]):
        judge = primed()
        verdicts = [judge.judge(candidate(text, output=text[::-1])) for text in order]
        assert [verdict.kept for verdict in verdicts] == [True, False]


def test_a_pool_of_thousands_stays_quick() -> None:
    """All filters together: a thousand candidates against a pool of thousands within seconds."""
    rng = random.Random(2)
    judge = primed()
    begin = time.process_time()
    kept = 0
    for number in range(3000):
        words = [f"w{rng.randrange(4000)}" for _ in range(12)]
        item = candidate("Say " + " ".join(words[:8]), output=" ".join(words), id=str(number))
        kept += judge.judge(item).kept
    assert kept > 2900
    assert time.process_time() - begin < 20
