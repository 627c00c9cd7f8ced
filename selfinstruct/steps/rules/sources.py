"""Sources: what a record points to that is not in it, and what an output makes up.

A text model opens no link. A task that is only a link asks for an invention, and a link or citation
that an output brings by itself can be checked by nobody who reads the record.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from selfinstruct.steps.rules.view import View, quoted

_URL = re.compile(r"(?:https?://|www\.)[^\s<>\"'`\\\])}|]+", re.IGNORECASE)
_SHORT_REST = 5  # words beside a link that are a label, not a text
_LABEL = re.compile(r"[\w'-]+")
# A task about the address itself needs nothing but the address.
_ABOUT_ADDRESS = re.compile(
    r"\b(?:urls?|domains?|hostnames?|protocols?|https|ssl|regex|regular expression|cite|citation|"
    r"reference list|bibliograph\w+|hyperlinks?|anchor|qr code|shorten\w*|pars(?:e|ing)|code|"
    r"function|program|script|web address|email|http request|api|endpoints?|link to|"
    r"trust\w*|phishing|scam)\b",
    re.IGNORECASE,
)
_LINKED = re.compile(
    r"\b(?:articles?|pages?|webpages?|websites?|sites?|videos?|images?|pictures?|photos?|posts?|"
    r"documents?|blogs?|papers?|links?|tweets?|stor(?:y|ies)|content|clips?|songs?|datasets?)\b",
    re.IGNORECASE,
)
# Nobody's site, or one whose pages are known by heart: a standard's, an API's, an encyclopedia's.
_NOBODYS = re.compile(
    r"(?:^|\.)(?:example\d*\.[a-z.]{2,6}|example|test|invalid|localhost|w3\.org|schema\.org|"
    r"json-schema\.org|wikipedia\.org|python\.org|(?:your|my|some)[\w-]*(?:\.[a-z.]{2,6})?|"
    r"(?:domain|website|company|site|abc|xyz)\.[a-z.]{2,6})$|^(?:api|cdn\w*)\."
)
_CITATIONS = (
    re.compile(
        r"\(([A-Z][\w'-]{1,30}(?: et al\.?|(?: (?:&|and) [A-Z][\w'-]{1,30}))?),? (\d{4})[a-z]?[);,]"
    ),
    re.compile(r"\b([A-Z][\w'-]{1,30} et al\.?),? \(?(\d{4})\)?"),
    re.compile(r"\b(doi):? ?(?:https?://\S{1,20}/)?(10\.\d{4,9}/[^\s<>\"]{3,60})", re.IGNORECASE),
    re.compile(r"\b(arXiv): ?(\d{4}\.\d{4,5})"),
)  # fmt: skip

# One of these stands in each of them: a year, or the beginning of a number.
_CITED = (" 19", " 20", " (19", " (20", "10.", "rXiv", "rxiv", "RXIV")


def unseen_source(view: View) -> str:
    """A task that consists of a link to what it is about: an article, a picture, a page."""
    if not _may_link(view.input or view.instruction) or _ABOUT_ADDRESS.search(
        _URL.sub(" ", view.instruction[:2000])
    ):
        return ""
    if view.input:
        found = _URL.search(view.input[:2000])
        if found and len(view.input) < 2000 and _rest(view.input) <= _SHORT_REST:
            return f"only the link {quoted(found[0])} in the input"
        return ""
    found = _URL.search(view.instruction[:2000])
    if found and _rest(view.instruction) <= 25 and _LINKED.search(view.instruction[:2000]):
        return f"only the link {quoted(found[0])} in the instruction"
    return ""


def _may_link(text: str) -> bool:
    return "//" in text or "www." in text.lower()


def _rest(text: str) -> int:
    """Words of a text beside its links, and beside the labels of Markdown's pictures."""
    bare = re.sub(r"!?\[[^\]]{0,80}\]", " ", _URL.sub(" ", text[:2000]))
    return len(_LABEL.findall(bare))


def invented_link(view: View) -> str:
    """A link into a site that neither instruction nor input names.

    A site's front page may well be known; a page inside it is made up as often as not.
    """
    if not _may_link(view.output):
        return ""
    task = view.task.lower()
    for match in _URL.finditer(view.output):
        address = match[0].rstrip(".,;:!?*_")
        host, _, path = re.sub(r"^\w+://", "", address.lower()).partition("/")
        site = host.removeprefix("www.").partition(":")[0]
        if path.strip("/#?") and site and site not in task and not _NOBODYS.search(site):
            return quoted(address)
    return ""


def invented_citation(view: View) -> str:
    """A scholarly citation, DOI or arXiv number that neither instruction nor input gives."""
    if not any(sign in view.output for sign in _CITED):
        return ""
    task = view.task
    for who, when, whole in _cited(view.output):
        name = who.split()[0]
        if when not in task or (name.lower() not in ("doi", "arxiv") and name not in task):
            return quoted(whole)
    return ""


def _cited(text: str) -> Iterator[tuple[str, str, str]]:
    for pattern in _CITATIONS:
        for match in pattern.finditer(text):
            yield match[1], match[2], match[0]
