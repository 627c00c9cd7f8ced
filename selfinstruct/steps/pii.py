"""Personal data that a rule can check: email, phone, IBAN, payment card, IPv4, national ids.

Only forms with a check of their own are looked for (a checksum, a numbering plan, a reserved
range), because a publishing gate that cries wolf is switched off. Names, addresses and birth dates
have no such check and are not found. Invented values that everybody uses as placeholders
(example.com, 555-0100, Visa's test card) are not reported.
"""

from __future__ import annotations

import ipaddress
import itertools
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from selfinstruct.steps import checksums


class Match(NamedTuple):
    """A value found in a text: what it is, and the value as it stands there."""

    kind: str
    value: str


_EMAIL = re.compile(
    r"(?<![\w.+/-])[A-Za-z0-9][\w.+-]*@(?:[A-Za-z0-9-]+\.)+[A-Za-z]{2,24}(?![\w@-])"
)
_RESERVED_DOMAIN = re.compile(  # RFC 2606 and RFC 6761
    r"(?:^|\.)(?:example\.[a-z.]{2,6}|example|test|invalid|localhost|local)$"
)
_MADE_UP_DOMAIN = re.compile(
    r"(?:^|\.)(?:(?:your|my|some|our|the|any|a)[-_]?)?(?:e?mail|domain|company|companyname|website|"
    r"web|site|business|organi[sz]ation|school|university|store|server|provider|host|xyz|abc|test|"
    r"sample|placeholder|xx+|yy+|zz+)(?:name)?\.[a-z.]{2,6}$"
)
# A role speaks for an organisation, a placeholder for nobody.
_NO_PERSON = re.compile(
    r"(?:no-?reply|do-?not-?reply|info|support|sales|contact|admin|help|helpdesk|hello|press|media|"
    r"jobs|careers|hr|office|offers?|promotions?|deals|alerts?|service|customer[._-]?(?:service|support|care)|"
    r"webmaster|postmaster|abuse|privacy|security|news|newsletter|billing|orders?|team|feedback|"
    r"marketing|notifications?|root|git|"
    r"(?:your|my|some|any|the|user|first|last|full|email|example|sample|test|name|user_?name|foo|"
    r"bar|abc|xyz|xx+|sender|receiver|recipient)[._-]?(?:e?mail|name|address|last_?name|last|user|"
    r"account|gmail|g?mail[._-]?address)?\d*)",
    re.IGNORECASE,
)

# North American Numbering Plan: NPA [2-9][0-8]x, NXX [2-9]xx and no N11.
_NANP = re.compile(
    r"(?<![\w.+/=-])(?:\+?1[-. ]{0,3})?(?:\(([2-9][0-8]\d)\) ?|([2-9][0-8]\d)[-. ])"
    r"([2-9]\d\d)[-. ](\d{4})(?![\w/=-]|\.\d)"
)
_TOLL_FREE = frozenset({"800", "822", "833", "844", "855", "866", "877", "888", "900"})
# E.164 with its plus sign: country code and number, 9 to 15 digits.
_E164 = re.compile(r"(?<![\w)\]+*/^=-])(?<![\d)] )\+[1-9](?:[ .()-]{0,2}\d){8,14}(?![\d/=*^])")

_IPV4 = re.compile(r"(?<![\w.])(?<!\w/)(?<!\w-)(?:\d{1,3}\.){3}\d{1,3}(?![\w-]|\.\d)")
_VERSION = re.compile(r"(?:version|firmware|release|build|update|\bv)\W{0,3}$", re.IGNORECASE)
# Public resolvers, and the addresses people type when they need one.
_WELL_KNOWN = frozenset({"8.8.8.8", "8.8.4.4", "1.1.1.1", "1.0.0.1", "9.9.9.9", "1.2.3.4"})

_CARD = re.compile(
    r"(?<![\w.,/=+-])(?:\d{13,19}|\d{4}([ -])\d{4}\1\d{4}\1\d{4}|\d{4}([ -])\d{6}\2\d{5})"
    r"(?![\w/=-]|[.,]\d)"
)
_IBAN = re.compile(
    r"(?<![A-Za-z0-9])[A-Z]{2}\d{2}(?:[A-Z0-9]{11,30}|(?: [A-Z0-9]{4}){2,7}(?: [A-Z0-9]{1,3})?)"
    r"(?![A-Za-z0-9])"
)
_DIGITS = re.compile(r"\d(?:[ .()/+-]{0,3}\w?\d){6}")


def find_pii(text: str) -> list[Match]:
    """Everything in `text` that passes its check, in no particular order."""
    found = list(_emails(text)) if "@" in text else []
    if _DIGITS.search(text):
        for look in (_phones, _addresses, _cards, _ibans, _national_ids):
            found.extend(look(text))
    return found


def _emails(text: str) -> Iterator[Match]:
    for match in _EMAIL.finditer(text):
        local, _, domain = match[0].rpartition("@")
        domain = domain.lower()
        if _RESERVED_DOMAIN.search(domain) or _MADE_UP_DOMAIN.search(domain):
            continue
        if len(local) == 1 or (local.isdigit() and _placeholder(local)):
            continue
        if not _NO_PERSON.fullmatch(local):
            yield Match("email address", match[0])


def _phones(text: str) -> Iterator[Match]:
    taken: list[tuple[int, int]] = []
    for match in _NANP.finditer(text):
        taken.append(match.span())
        if not _fictional((match[1] or match[2]) + match[3] + match[4]):
            yield Match("phone number", match[0])
    for match in _E164.finditer(text):
        if any(start < match.end() and match.start() < end for start, end in taken):
            continue
        digits = re.sub(r"\D", "", match[0])
        north_american = digits[0] == "1"
        if north_american and (len(digits) != 11 or _fictional(digits[1:])):
            continue
        if 9 <= len(digits) <= 15 and not _placeholder(digits[2:]):
            yield Match("phone number", match[0])


def _fictional(digits: str) -> bool:
    """Whether a ten-digit North American number is nobody's own: 555, toll-free, N11, typed."""
    area, exchange = digits[:3], digits[3:6]
    if "555" in (area, exchange) or area in _TOLL_FREE or exchange.endswith("11"):
        return True
    return _placeholder(digits)


def _placeholder(digits: str) -> bool:
    """Whether the digits count up or down, or hardly change: typed, not dialled."""
    steps = [(int(b) - int(a)) % 10 for a, b in itertools.pairwise(digits)]
    return len(set(digits)) <= 2 or max(steps.count(1), steps.count(9)) >= len(steps) - 2


def _addresses(text: str) -> Iterator[Match]:
    for match in _IPV4.finditer(text):
        try:
            address = ipaddress.IPv4Address(match[0])
        except ValueError:
            continue
        public = address.is_global and not address.is_multicast and match[0].count(".0") < 2
        before = text[max(0, match.start() - 16) : match.start()]
        if public and match[0] not in _WELL_KNOWN and not _VERSION.search(before):
            yield Match("public IPv4 address", match[0])


def _cards(text: str) -> Iterator[Match]:
    for match in _CARD.finditer(text):
        if checksums.payment_card(re.sub(r"\D", "", match[0])):
            yield Match("payment card", match[0])


def _ibans(text: str) -> Iterator[Match]:
    for match in _IBAN.finditer(text):
        if checksums.iban(match[0].replace(" ", "")):
            yield Match("IBAN", match[0])


class _NationalId(NamedTuple):
    kind: str
    pattern: re.Pattern[str]
    valid: Callable[[str], bool]
    word: re.Pattern[str] | None = None  # must stand shortly before a number that is weak alone


def _id(
    kind: str, pattern: str, valid: Callable[[str], bool], word: str | None = None
) -> _NationalId:
    near = re.compile(word, re.IGNORECASE) if word else None
    return _NationalId(kind, re.compile(rf"(?<![\w.-])(?:{pattern})(?![\w-])"), valid, near)


_NATIONAL_IDS = (
    _id("Spanish DNI or NIE", r"(?:\d{8}|[XYZ]\d{7})-?[A-Z]", checksums.spain),
    _id("Italian codice fiscale", r"[A-Z]{6}\d\d[A-EHLMPRST]\d\d[A-Z]\d{3}[A-Z]", checksums.italy),
    _id("Brazilian CPF", r"\d{3}\.\d{3}\.\d{3}-\d\d", checksums.brazil),
    _id(
        "French social security number",
        r"[12] ?\d\d ?(?:0[1-9]|1[0-2]) ?(?:\d\d|2[AB]) ?\d{3} ?\d{3} ?\d\d",
        checksums.france,
    ),
    _id("Chinese resident id", r"[1-9]\d{5}(?:19|20)\d{9}[\dX]", checksums.china),
    _id("Swiss AHV number", r"756([. ]?)\d{4}\1\d{4}\1\d\d", checksums.ean13),
    _id("Finnish personal id", r"\d{6}[-+A-FU-Y]\d{3}[0-9A-Y]", checksums.finland),
    _id("Belgian national number", r"\d\d\.\d\d\.\d\d-\d{3}\.\d\d", checksums.belgium),
    _id("Swedish personal number", r"(?:19|20)?\d{6}[-+]\d{4}", checksums.sweden),
    _id("Polish PESEL", r"\d{11}", checksums.poland, r"pesel"),
    _id("Dutch BSN", r"\d{9}", checksums.netherlands, r"bsn|burgerservice|sofi"),
    _id("German tax id", r"\d{2} ?\d{3} ?\d{3} ?\d{3}", checksums.germany, r"steuer|tax id|idnr"),
    _id("British NHS number", r"\d{3} ?\d{3} ?\d{4}", checksums.britain, r"nhs"),
    _id("Indian Aadhaar", r"[2-9]\d{3} ?\d{4} ?\d{4}", checksums.india, r"aadhaar|uidai?"),
)


def _national_ids(text: str) -> Iterator[Match]:
    for entry in _NATIONAL_IDS:
        for match in entry.pattern.finditer(text):
            before = text[max(0, match.start() - 48) : match.start()]
            if entry.word and not entry.word.search(before):
                continue
            if entry.valid(re.sub(r"[ .+-]", "", match[0])):
                yield Match(entry.kind, match[0])
