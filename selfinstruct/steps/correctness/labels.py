"""Labels: an answer to a classification must be one of the labels that the task lists."""

from __future__ import annotations

import re

from selfinstruct.steps.rules.view import View, quoted

MAX_ANSWER_WORDS = 12  # a longer answer is an explanation, and may say it in other words
_L = r"[\"']?([\w-]+(?: [\w-]+){0,2}?)[\"']?"
_LISTS = (
    # classify ... as A or B; as either A, B, or C
    re.compile(
        rf"\b(?:classify|categori[sz]e|label)\b.{{1,120}}?\b(?:as|into|by) (?:being )?(?:either )?"
        rf"{_L}(?:, {_L})?(?:, {_L})?(?:, {_L})?,? or {_L}\s*[.:?]?\s*$",
        re.IGNORECASE,
    ),
    # classify ... (A, B, C) or (A/B/C)
    re.compile(
        r"\b(?:classify|categori[sz]e|label)\b[^()]{1,160}"
        r"\(((?:[\w' -]{2,24}[,/|] ?(?:or )?){1,7}[\w' -]{2,24})\)"
        r"\s*[.:?]?\s*$",
        re.IGNORECASE,
    ),
)
_NONE = frozenset({"neither", "both", "none", "unclear", "unknown", "not applicable"})
_FILLER = re.compile(r"^(?:an?|the|either|being|one of)\s+")
_SPLIT = re.compile(r"\s*[,/|]\s*(?:or )?|\s+or\s+")


def wrong_label(view: View) -> str:
    """A short answer in which none of the labels asked for stands."""
    instruction = view.folded["instruction"]
    if len(instruction) > 600 or len(view.folded["output"].split(" ")) > MAX_ANSWER_WORDS:
        return ""
    labels = _labels(instruction)
    if len(labels) < 2:
        return ""
    answer = _bare(view.folded["output"])
    words = [word for label in labels for word in (label, *label.split())]
    if any(_stem(word) in answer for word in words if len(word) > 2 or word in labels):
        return ""
    if any(_bare(word) in answer for word in _NONE):
        return ""
    return f"{quoted(view.output)} is none of {', '.join(labels)}"


def _labels(instruction: str) -> list[str]:
    for pattern in _LISTS:
        match = pattern.search(instruction)
        if match:
            groups = [group for group in match.groups() if group]
            parts = _SPLIT.split(groups[0]) if len(groups) == 1 else groups
            labels = [_FILLER.sub("", part.strip(" \"'.")) for part in parts]
            return [label for label in labels if label]
    return []


def _bare(text: str) -> str:
    return re.sub(r"[\W_]+", "", text)


def _stem(label: str) -> str:
    """A label without its ending, so that "true" is in "truth" and "sport" in "sports"."""
    bare = _bare(label)
    return bare[: max(4, len(bare) - 3)]
