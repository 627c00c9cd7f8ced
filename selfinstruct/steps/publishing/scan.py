"""The scan before publishing: secrets and personal data in dataset rows, cards and settings.

Secrets are found by the patterns of detect-secrets' plugins (never by its `verify`, which would
send what it found to the service it belongs to), by a few newer key formats, and by assignments
such as ``api_key = "..."`` whose value looks random. Personal data is `pii`'s part. A finding names
the file, the record, the field and the kind; the value itself is masked as soon as it is found.
"""

from __future__ import annotations

import csv
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from selfinstruct.core.errors import MissingDependency, UserError
from selfinstruct.steps.pii import Match, find_pii

Scan = Callable[[str], list[Match]]
REMEMBERED = 1_000_000
_WORD = re.compile(r"\w+")


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One value that should not be published. `masked` shows its first characters and its length.

    `record` is the row's ``id``, or ``row 7`` / ``line 7`` (from 1) where there is none.
    """

    file: str
    record: str
    field: str
    kind: str
    masked: str


# Not used: the entropy plugins and KeywordDetector, which report any quoted word and any
# `password = "..."` of a lesson, and IPPublicDetector, where `pii` leaves out reserved ranges.
_PLUGINS = {
    "artifactory": "ArtifactoryDetector",
    "aws": "AWSKeyDetector",
    "azure_storage_key": "AzureStorageKeyDetector",
    "basic_auth": "BasicAuthDetector",
    "cloudant": "CloudantDetector",
    "discord": "DiscordBotTokenDetector",
    "github_token": "GitHubTokenDetector",
    "gitlab_token": "GitLabTokenDetector",
    "ibm_cloud_iam": "IbmCloudIamDetector",
    "ibm_cos_hmac": "IbmCosHmacDetector",
    "jwt": "JwtTokenDetector",
    "mailchimp": "MailchimpDetector",
    "npm": "NpmDetector",
    "openai": "OpenAIDetector",
    "private_key": "PrivateKeyDetector",
    "pypi_token": "PypiTokenDetector",
    "sendgrid": "SendGridDetector",
    "slack": "SlackDetector",
    "softlayer": "SoftlayerDetector",
    "square_oauth": "SquareOAuthDetector",
    "stripe": "StripeDetector",
    "telegram_token": "TelegramBotTokenDetector",
    "twilio": "TwilioKeyDetector",
}

# Formats that detect-secrets 1.5 does not know.
_NEWER = {
    "Hugging Face token": r"\bhf_[A-Za-z0-9]{34,}\b",
    "Anthropic key": r"\bsk-ant-[a-z0-9]+-[\w-]{40,}",
    "OpenAI key": r"\bsk-(?:proj|svcacct|admin)-[\w-]{40,}",
    "OpenRouter key": r"\bsk-or-v1-[0-9a-f]{64}\b",
    "Groq key": r"\bgsk_[A-Za-z0-9]{52}\b",
    "Google API key": r"\bAIza[\w-]{35}(?![\w-])",
    "GitHub token": r"\bgithub_pat_\w{82}\b",
    "npm token": r"\bnpm_[A-Za-z0-9]{36}\b",
    "private key": r"BEGIN ENCRYPTED PRIVATE KEY",
}

_ASSIGNMENT = re.compile(
    r"(?:api[_-]?key|access[_-]?key|secret|token|passw(?:or)?d|pwd|private[_-]?key|auth[_-]?key)"
    r"[\w-]{0,20}[\"']?\s{0,3}(?:=>|:=|=|:)\s{0,3}(?:Bearer )?([\"'`]?)"
    r"([^\s\"'`,;<>{}()\[\]$]{12,200})\1",
    re.IGNORECASE,
)
_PLACEHOLDER = re.compile(
    r"your|example|sample|dummy|fake|placeholder|changeme|insert|secret|passw|token|xxx|123456|"
    r"abcdef|\*\*\*|\.\.\.|[a-z]+[._][a-z]+[._(]|://|^[a-z_]+$",
    re.IGNORECASE,
)
# A real key in prose has digits among its letters; detect-secrets' broad patterns also match words.
_NEEDS_DIGIT = frozenset({"Artifactory Credentials", "Cloudant Credentials", "IBM Cloud IAM Key"})


def make_scan() -> Scan:
    """The function that finds secrets and personal data in one text.

    Raises `MissingDependency` where detect-secrets is not installed.
    """
    patterns = [(kind, re.compile(pattern)) for kind, pattern in _NEWER.items()]
    patterns += _plugin_patterns()
    jwt_valid = import_module("detect_secrets.plugins.jwt").JwtTokenDetector.is_formally_valid

    clean: set[int] = set()  # a dataset folder holds the same text in several formats

    def scan(text: str) -> list[Match]:
        mark = hash(text)
        if mark in clean:
            return []
        found = find_pii(text)
        for kind, pattern in patterns:
            for match in pattern.finditer(text):
                value = match[0].strip(" \t\r\n\"'=:")
                if kind in _NEEDS_DIGIT and not _mixed(value):
                    continue
                if kind == "JSON Web Token" and not jwt_valid(value):
                    continue
                if kind == "Basic Auth Credentials" and _PLACEHOLDER.search(match[1]):
                    continue
                found.append(Match(kind, value))
        known = " ".join(match.value for match in found)
        for match in _ASSIGNMENT.finditer(text):
            if match[2] not in known and _random(match[2]):
                found.append(Match("secret in an assignment", match[2]))
        if not found and len(clean) < REMEMBERED:
            clean.add(mark)
        return found

    return scan


def make_copy_scan(sources: Iterable[tuple[str, str]], words: int = 12) -> Scan:
    """The function that finds runs of `words` words taken from `sources`, given as (name, text).

    Case, punctuation and spacing don't count. A source of 6 to `words` - 1 words must occur whole;
    a shorter one is not looked for.
    """
    runs: dict[int, dict[str, str]] = {}
    for source, text in sources:
        tokens = _WORD.findall(text.lower())
        size = min(words, len(tokens))
        if size >= 6:
            known = runs.setdefault(size, {})
            for start in range(len(tokens) - size + 1):
                known.setdefault(" ".join(tokens[start : start + size]), source)

    def scan(text: str) -> list[Match]:
        tokens = _WORD.findall(text.lower())
        found: dict[str, Match] = {}
        for size, known in runs.items():
            for start in range(len(tokens) - size + 1):
                run = " ".join(tokens[start : start + size])
                if run in known:
                    found.setdefault(known[run], Match(f"text of private {known[run]}", run))
        return list(found.values())

    return scan


def _plugin_patterns() -> list[tuple[str, re.Pattern[str]]]:
    patterns = []
    for module_name, class_name in _PLUGINS.items():
        try:
            module = import_module(f"detect_secrets.plugins.{module_name}")
        except ModuleNotFoundError:
            raise MissingDependency(
                "detect-secrets", "publish", "the scan before publishing"
            ) from None
        plugin: Any = getattr(module, class_name)
        patterns += [(str(plugin.secret_type), pattern) for pattern in plugin.denylist]
    return patterns


def _mixed(value: str) -> bool:
    return any(char.isdigit() for char in value) and any(char.isalpha() for char in value)


def _random(value: str) -> bool:
    """Whether `value` looks drawn rather than written: digits and letters, 3.3 bits a character."""
    if not _mixed(value) or _PLACEHOLDER.search(value):
        return False
    size = len(value)
    entropy = -sum(n / size * math.log2(n / size) for n in Counter(value).values())
    return entropy >= 3.3


def mask(value: str) -> str:
    """The first characters of `value`, an ellipsis and its length; never more than a quarter."""
    shown = min(4, len(value) // 4)
    return f"{value[:shown]}… ({len(value)} characters)"


# Columns that hold nothing but ids of this package's own making.
_ID_COLUMNS = frozenset({"id", "parents", "requests", "prompt_version"})


def scan_rows(
    rows: Iterator[tuple[str, Mapping[str, Any]]], scan: Scan, file: str = ""
) -> Iterator[Finding]:
    """The findings in `rows`, given as (record id, fields). Nested values are looked into."""
    for record, row in rows:
        for field, value in row.items():
            if field in _ID_COLUMNS:
                continue
            for text in _texts(value):
                for match in dict.fromkeys(scan(text)):
                    yield Finding(
                        file=file, record=record, field=field, kind=match.kind,
                        masked=mask(match.value),
                    )  # fmt: skip


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts(inner)


# A tokenizer's vocabulary is no text: its merges look like anything.
_VOCABULARY = frozenset({"tokenizer.json", "vocab.json", "added_tokens.json", "merges.txt"})
_PLAIN = frozenset({".md", ".txt", ".yaml", ".yml", ".jinja", ".html", ".toml", ".py", ".log"})
_ROWS = frozenset({".parquet", ".jsonl", ".json", ".csv"})


def can_scan(path: Path) -> bool:
    """Whether `path` is of a kind that holds text; weights and vocabularies do not."""
    return path.name not in _VOCABULARY and path.suffix.lower() in _PLAIN | _ROWS


def scan_file(
    path: Path, scan: Scan, name: str | None = None, limit: int | None = None
) -> list[Finding]:
    """The findings in a Parquet, JSON, JSONL, CSV or text file, in its order.

    `name` stands in the findings for the path; `limit` reads that many rows at most. Raises
    `UserError` where the file cannot be read as what its name says.
    """
    try:
        rows = islice(read_rows(path), limit)
        return list(scan_rows(rows, scan, name or str(path)))
    except (OSError, ValueError, csv.Error) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path}: cannot be read for the scan ({first}); build it again") from None


def read_rows(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The rows of a data file, or the lines of a text, as (record id, fields)."""
    suffix = path.suffix.lower()
    rows: Iterator[Any]
    if suffix == ".parquet":
        rows = _parquet_rows(path)
    elif suffix == ".jsonl":
        with path.open("rb") as file:
            rows = iter([json.loads(line) for line in file if line.strip()])
    elif suffix == ".json":
        loaded = json.loads(path.read_bytes())
        rows = iter(loaded if isinstance(loaded, list) else [loaded])
    elif suffix == ".csv":
        with path.open(encoding="utf-8", newline="") as text:
            rows = iter(list(csv.DictReader(text)))
    else:
        yield from text_rows(path.read_text("utf-8"))
        return
    for number, row in enumerate(rows, 1):
        fields = row if isinstance(row, dict) else {"value": row}
        yield str(fields.get("id") or f"row {number}"), fields


def text_rows(text: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The lines of a text, as (record id, fields)."""
    return ((f"line {n}", {"text": line}) for n, line in enumerate(text.splitlines(), 1))


def _parquet_rows(path: Path) -> Iterator[dict[str, Any]]:
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=2048):
            yield from batch.to_pylist()
