"""A job of `filters_drive.py`: faults that are put into real rows, and harmless changes like them.

Some rules find next to nothing in Alpaca's rows, so little can be said from those. Here each is
shown rows with a fault that a program made, and as many with a change that is none. That says how
a rule tells the two apart; it does not say how common either is in what a teacher writes.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import json
import random
import re
import statistics
import textwrap
import urllib.parse
from collections.abc import Callable, Iterator
from typing import NamedTuple

from filters_faults import rules_of_all_kinds
from harness import HERE
from texts import alpaca, data_folder

from selfinstruct.steps.rules.view import View

Said = dict[str, object]
Maker = Callable[[View, random.Random], View | None]
_SENTENCE = re.compile(r"(?<=[a-z][.!?])\s+")
_SUM = re.compile(r"(?<![\d.,/])(\d+ ?[-+*] ?\d+ ?= ?\$?)(\d+)(?![\d.,/%])")


class Made(NamedTuple):
    """A fault and a harmless change that looks like it; either may not fit a row."""

    rule: str
    fault: Maker
    harmless: Maker


def _with(view: View, output: str) -> View:
    return View(view.instruction, view.input, output)


# -- repetition and unfinished outputs ------------------------------------------------------------


def _loops(view: View, rng: random.Random) -> View | None:
    """The last words come again and again, as a model does that has lost the thread."""
    words = view.output.split()
    if len(words) < 30:
        return None
    at = rng.randrange(15, len(words) - 5)
    phrase = words[at : at + rng.randint(1, 12)]
    return _with(view, " ".join([*words[:at], *(phrase * rng.randint(25, 40))][:400]))


def _refrain(view: View, rng: random.Random) -> View | None:
    """A line that comes three times apart, and a list whose items begin with the same words."""
    parts = _SENTENCE.split(view.output)
    if len(parts) < 4:
        return None
    if rng.random() < 0.5:
        return _with(view, "\n".join(f"- It is important to know that {part}" for part in parts))
    refrain = parts[-1]
    return _with(view, "\n".join(line for part in parts[:3] for line in (part, refrain)))


def _cut(view: View, rng: random.Random) -> View | None:
    """Cut between two words of a sentence, as a limit on tokens does."""
    words = view.output.split(" ")
    places = [n for n in range(40, len(words)) if words[n - 1][-1:].isalnum()]
    return _with(view, " ".join(words[: rng.choice(places)])) if places else None


def _shorter(view: View, rng: random.Random) -> View | None:
    """Cut at the end of a sentence."""
    parts = _SENTENCE.split(view.output)
    if len(parts) < 3 or len(view.output.split()) < 40:
        return None
    return _with(view, " ".join(parts[: rng.randint(2, len(parts))]))


# -- characters -----------------------------------------------------------------------------------


def _garbled(view: View, rng: random.Random) -> View | None:
    """Decoded wrongly, escaped twice, or with a control character in the middle."""
    text, kind = view.output, rng.randrange(4)
    if kind == 0 and "'" in text:
        wrong = text.replace("'", "\u2019").encode().decode("cp1252", "replace")
        return _with(view, wrong)
    if kind == 1 and "\n" in text:
        return _with(view, text.replace("\n", "\\n"))
    if kind == 2 and '"' in text:
        return _with(view, text.replace('"', "&quot;"))
    if kind == 3 and len(text) > 20:
        at = rng.randrange(len(text))
        return _with(view, text[:at] + rng.choice("\x00\x07\x1b\ufffd") + text[at:])
    return None


def _typography(view: View, rng: random.Random) -> View | None:
    """Curly quotes, dashes, accents, emoji, a path, TeX, and an escape inside code."""
    extra = (
        "\u201cCaf\u00e9\u201d \u2013 d\u00e9j\u00e0 vu\u2026",
        "\U0001f389 100 \u20ac",
        r"Open C:\new\table.txt first.",
        r"Here $\nu = \frac{1}{T}$ and $a \times b$.",
        '```python\nprint("a\\nb")\n```',
        "R&D and Q&A; AT&T.",
    )
    return _with(view, f"{view.output}\n{rng.choice(extra)}")


# -- inputs, citations ----------------------------------------------------------------------------


def _without_input(view: View, rng: random.Random) -> View | None:
    """An instruction on the following text, from which the text was taken away."""
    asks = re.search(r"\b(?:following|given|below)\b", view.instruction)
    if not view.input or not asks or len(view.input) < 20 or ":" in view.instruction:
        return None
    return View(view.instruction, "", view.output)


def _input_behind(view: View, rng: random.Random) -> View | None:
    """The same with the text behind the instruction instead."""
    gone = _without_input(view, rng)
    if gone is None:
        return None
    mark = rng.choice((":\n", "\n\n", ": "))
    return View(f"{view.instruction.rstrip('.: ')}{mark}{view.input}", "", view.output)


def _cites(view: View, rng: random.Random) -> View | None:
    """A source that the task does not name, behind a sentence."""
    name = rng.choice(("Miller", "Okafor", "Jensen", "Li", "Garcia-Lopez"))
    year, number = rng.randrange(1970, 2024), rng.randrange(1000, 9999)
    source = rng.choice(
        (
            f"({name} et al., {year})",
            f"({name} and Smith, {year})",
            f"doi:10.1016/j.{name.lower()}.{year}.{number}",
            f"arXiv:1911.0{number}",
        )
    )
    return _with(view, f"{view.output.rstrip('.')} {source}.")


def _years(view: View, rng: random.Random) -> View | None:
    """Years and names in brackets that cite nothing."""
    extra = rng.choice(
        ("She was born in Oslo (1952).", "The film (released 1994) won two prizes.",
         "(See chapter 3, page 1987.)", "It rose from 10.5 to 10.9 percent (2011).",
         "The treaty of 1648 ended it (Peace of Westphalia).")
    )  # fmt: skip
    return _with(view, f"{view.output} {extra}")


# -- what can be checked --------------------------------------------------------------------------


def _wrong_sum(view: View, rng: random.Random) -> View | None:
    """One result of the worked sums is off."""
    sums = list(_SUM.finditer(view.output))
    if not sums:
        return None
    found = rng.choice(sums)
    wrong = int(found[2]) + rng.choice((-1, 1)) * rng.randint(1, 9)
    if wrong < 0:
        return None
    return _with(view, view.output[: found.start(2)] + str(wrong) + view.output[found.end(2) :])


def _right_sum(view: View, rng: random.Random) -> View | None:
    """The worked sums as a person wrote them."""
    return view if _SUM.search(view.output) else None


def _equation(view: View, rng: random.Random, off: int) -> View:
    a, b, x = rng.randint(2, 9), rng.randint(-9, 9), rng.randint(-9, 9)
    sign = "+" if b >= 0 else "-"
    asked = f"Solve the equation {a}x {sign} {abs(b)} = {a * x + b}."
    told = rng.choice(
        ("x = {}", "Subtracting and dividing gives\nx = {}.", "The solution is x = {}")
    )
    return View(asked, "", told.format(x + off))


def _labels(view: View, rng: random.Random, right: bool) -> View:
    one, other = rng.choice((("positive", "negative"), ("fact", "opinion"), ("formal", "informal")))
    said = rng.choice((one, other)) if right else rng.choice(("blue", "It cannot be said", "mixed"))
    form = rng.choice(("{}", "{}.", "The answer is {}."))
    return View(
        f"Classify the text as {one} or {other}.", view.output, form.format(said).capitalize()
    )


def _json(view: View, rng: random.Random, broken: bool) -> View | None:
    text = json.dumps({"task": view.instruction, "answer": view.output, "n": [1, 2]}, indent=2)
    if broken:
        at = rng.choice(
            [n for n, sign in enumerate(text) if sign in "{}[]:," and n in _syntax(text)]
        )
        text = text[:at] + text[at + 1 :]
    text = f"```json\n{text}\n```" if rng.random() < 0.5 else text
    return View(f"{view.instruction} Give the answer as JSON.", "", text)


def _syntax(text: str) -> set[int]:
    """Places of a JSON text outside its strings."""
    inside = [
        span for found in re.finditer(r'"(?:[^"\\]|\\.)*"', text) for span in range(*found.span())
    ]
    return set(range(len(text))) - set(inside)


def _functions() -> list[str]:
    """Functions of the standard library."""
    modules = (textwrap, statistics, ast, urllib.parse, random, inspect)
    found = [
        textwrap.dedent(inspect.getsource(item))
        for module in modules
        for _, item in inspect.getmembers(module, inspect.isfunction)
        if item.__module__ == module.__name__
    ]
    # A colon that ends a line of prose would break nothing.
    plain = (code for code in found if '"""' not in code and "#" not in code)
    return [code for code in plain if 3 < code.count("\n") < 40]


def _python(view: View, rng: random.Random, broken: bool) -> View | None:
    code = rng.choice(_FUNCTIONS)
    if broken:
        lines = code.splitlines()
        at = rng.choice([n for n, line in enumerate(lines) if line.endswith(":")])
        # A colon is gone, or everything behind it.
        lines = (
            lines[: at + 1]
            if rng.random() < 0.5
            else [*lines[:at], lines[at][:-1], *lines[at + 1 :]]
        )
        code = "\n".join(lines)
    return View("Write a Python function for this.", "", f"```python\n{code}\n```")


_FUNCTIONS = _functions()


def _foreign(view: View, rng: random.Random) -> View:
    lines = (HERE / "data" / "languages.tsv").read_text("utf-8").splitlines()
    return _with(view, rng.choice(lines).partition("\t")[2])


MADE = (
    Made("repetition", _loops, _refrain),
    Made("unfinished", _cut, _shorter),
    Made("stray_characters", _garbled, _typography),
    Made("missing_input", _without_input, _input_behind),
    Made("invented_citation", _cites, _years),
    Made("wrong_arithmetic", _wrong_sum, _right_sum),
    Made(
        "wrong_solution",
        lambda v, r: _equation(v, r, r.choice((-2, -1, 1, 3))),
        lambda v, r: _equation(v, r, 0),
    ),
    Made("wrong_label", lambda v, r: _labels(v, r, False), lambda v, r: _labels(v, r, True)),
    Made("invalid_format", lambda v, r: _json(v, r, True), lambda v, r: _json(v, r, False)),
    Made("invalid_python", lambda v, r: _python(v, r, True), lambda v, r: _python(v, r, False)),
    Made("other_language", _foreign, lambda v, r: v if len(v.output) > 80 else None),
)


def made(given: argparse.Namespace) -> Said:
    """For each rule, what it finds of `count` made faults and of as many harmless changes."""
    rules = rules_of_all_kinds()
    rows = []
    for one in MADE:
        rng = random.Random(one.rule)
        source = list(_views(one.rule, given.count * 40))
        counts = []
        for make in (one.fault, one.harmless):
            # A row that shows the fault before it is changed says nothing.
            clean = (view for view in source if not rules[one.rule](view))
            changed = [new for view in clean if (new := make(view, rng)) is not None]
            rng.shuffle(changed)
            changed = changed[: given.count]
            counts += [len(changed), sum(bool(rules[one.rule](view)) for view in changed)]
        names = ("made", "found", "harmless", "wrongly_found")
        rows.append({"rule": one.rule, **dict(zip(names, counts, strict=True))})
    return {"real": alpaca(1).real, "rules": rows}


def _views(rule: str, count: int) -> Iterator[View]:
    """Rows to change: worked sums of GSM8K's for arithmetic, Alpaca's for the others."""
    folder = data_folder()
    if rule == "wrong_arithmetic" and folder is not None:
        for line in (folder / "gsm8k_1k.jsonl").open("rb"):
            row = json.loads(line)
            yield View(row["instruction"], row["input"], row["output"])
        return
    rows = alpaca().rows
    for row in random.Random(3).sample(rows, min(count, len(rows))):
        yield View(row["instruction"], row["input"], row["output"])
