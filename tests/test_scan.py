"""The scan before publishing: what it finds, what it leaves alone, and that it tells no value."""

from __future__ import annotations

import json
import random
import string
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfinstruct.core.errors import UserError
from selfinstruct.steps import checksums
from selfinstruct.steps.pii import find_pii
from selfinstruct.steps.publishing.scan import (
    Scan,
    can_scan,
    make_copy_scan,
    make_scan,
    mask,
    scan_file,
    scan_rows,
    text_rows,
)


@pytest.fixture(scope="module")
def scan() -> Scan:
    return make_scan()


def drawn(alphabet: str, size: int, seed: int = 5) -> str:
    """A random-looking value, so that this file holds no key of any service."""
    return "".join(random.Random(seed).choices(alphabet, k=size))


ALNUM = string.ascii_letters + string.digits
SECRETS = {
    "AWS Access Key": "AKIA" + drawn(string.ascii_uppercase + string.digits, 16),
    "GitHub Token": "ghp_" + drawn(ALNUM, 36),
    "Hugging Face token": "hf_" + drawn(ALNUM, 34),
    "Anthropic key": "sk-ant-api03-" + drawn(ALNUM, 80),
    "OpenAI key": "sk-proj-" + drawn(ALNUM, 60),
    "Google API key": "AIza" + drawn(ALNUM, 35),
    "Stripe Access Key": "sk_live_" + drawn(ALNUM, 24),
    "Slack Token": "xoxb-123456789012-" + drawn(string.ascii_lowercase, 20),
    "SendGrid API Key": f"SG.{drawn(ALNUM, 22)}.{drawn(ALNUM, 43)}",
    "Private Key": "-----BEGIN RSA PRIVATE " + "KEY-----",
    "secret in an assignment": f'db_password = "{drawn(ALNUM, 20)}"',
}


@pytest.mark.parametrize("kind", SECRETS)
def test_secrets_are_found_in_prose(scan: Scan, kind: str) -> None:
    """Each kind is found in the middle of a sentence, under its own name."""
    found = scan(f"To log in, use this:\n{SECRETS[kind]}\nand keep it to yourself.")
    assert kind in [match.kind for match in found]


@pytest.mark.parametrize(
    "text",
    [
        'password = "your_password_here"',
        "api_key: <YOUR_API_KEY>",
        "token = os.environ['API_TOKEN']",
        'secret_key = get_secret("payments/live")',
        'password = "password123456"',
        "APACHESPARK is a framework, APARTMENTS are for rent.",
        "git clone https://user:password@example.com/repo.git",
        "The commit is 3f786850e387550fdab836ed7e6dc881de23001b.",
        "The word eyJhbGciOi begins many tokens.",
    ],
)
def test_placeholders_of_lessons_are_left_alone(scan: Scan, text: str) -> None:
    """What people write to teach how a key is used is no key."""
    assert scan(text) == []


PERSONAL = {
    "email address": "maria.lindqvist@posteo.de",
    "phone number": "(212) 684-4700",
    "IBAN": "DE44 5001 0517 5407 3249 31",
    "payment card": "5425 2334 3010 9903",
    "public IPv4 address": "59.187.84.127",
    "Spanish DNI or NIE": "12345678Z",
    "Italian codice fiscale": "RSSMRA85T10A562S",
    "Brazilian CPF": "529.982.247-25",
    "French social security number": "2 55 08 14 168 025 38",
    "Chinese resident id": "11010519491231002X",
    "Swiss AHV number": "756.9217.0769.85",
    "Finnish personal id": "131052-308T",
    "Belgian national number": "85.07.30-033.28",
    "Swedish personal number": "811218-9876",
    "Polish PESEL": "PESEL: 44051401359",
    "Dutch BSN": "BSN 111222333",
    "German tax id": "Steuer-ID 86 095 742 719",
    "British NHS number": "NHS number 401 023 2137",
    "Indian Aadhaar": "Aadhaar 2341 2341 2346",
}


@pytest.mark.parametrize("kind", PERSONAL)
def test_personal_data_with_a_valid_check_is_found(kind: str) -> None:
    """A value whose checksum or numbering plan holds is found, and named for what it is."""
    assert [match.kind for match in find_pii(f"It is {PERSONAL[kind]}.")] == [kind]


NUMBERS = [kind for kind in PERSONAL if kind not in ("email address", "phone number")]


@pytest.mark.parametrize("kind", [kind for kind in NUMBERS if "IPv4" not in kind])
def test_personal_data_with_a_broken_check_is_not_found(kind: str) -> None:
    """With its last digit changed to any other, hardly any value still passes."""
    value = PERSONAL[kind]
    place = max(i for i, char in enumerate(value) if char.isdigit())
    others = [digit for digit in string.digits if digit != value[place]]
    passing = [d for d in others if find_pii(f"It is {value[:place]}{d}{value[place + 1 :]}.")]
    assert passing == []


@pytest.mark.parametrize(
    "text",
    [
        "Write to jane.doe@example.com or john@email.com.",
        "Contact support@acme.de or no-reply@acme.de.",
        "Enter your_email@gmail.com here, as in username@gmail.com.",
        "Call 555-123-4567, (123) 456-7890, 234-567-8901 or 1-800-561-3524.",
        "Ring +1 212 555 0147 in New York.",
        "(x+2) - 4 = 12 and x +3 456 789 is an expression.",
        "Servers 10.0.0.1, 192.168.1.20, 127.0.0.1, 203.0.113.9 and 8.8.8.8 answer.",
        "Upgrade to version 91.0.4472.124; 255.255.255.0 is a mask; 1.2.3.4.5 is a section.",
        "Test cards: 4111 1111 1111 1111, 4242424242424242 and 378282246310005.",
        "ISBN 978-1-5247-3855-7, ISBN 9780743273565, doi:10.1080/01972240903261407",
        "0 1 1 2 3 5 8 13 21 34 55 and 11000000111001 in binary",
        "https://images.unsplash.com/photo-1574643147860-3bb18d6fe2f0",
        "pi is 3.14159265358979 and 7/11 is 0.63636363636363",
        "GB82 TEST 1234 5698 7654 32 is no IBAN, DE00 0000 neither.",
    ],
)
def test_ordinary_numbers_and_placeholders_are_left_alone(text: str) -> None:
    """Fictitious, reserved and mathematical values of real instruction data are no findings."""
    assert find_pii(text) == []


@given(st.sampled_from(["DE", "FR", "GB", "NL", "ES"]), st.integers(0, 10**30))
def test_every_iban_with_right_check_digits_is_found(country: str, number: int) -> None:
    """For any account number, the IBAN with its check digits is found, and no other check."""
    size = {"DE": 22, "FR": 27, "GB": 22, "NL": 18, "ES": 24}[country] - 4
    account = str(number).zfill(size)[-size:]
    moved = account + "".join(str(int(char, 36)) for char in country) + "00"
    check = f"{98 - int(moved) % 97:02d}"
    wrong = f"{(int(check) + 1) % 97:02d}"
    spaced = " ".join((country + check + account)[i : i + 4] for i in range(0, size + 4, 4))
    assert "IBAN" in [match.kind for match in find_pii(f"Pay to {spaced} today")]
    assert not checksums.iban(country + wrong + account)


@given(st.integers(10**13, 10**14 - 1))
def test_luhn_notices_every_changed_digit_and_almost_every_swap(number: int) -> None:
    """Luhn's check digit makes a number valid, and any one other digit makes it invalid."""
    body = str(number)
    valid = next(body + d for d in string.digits if checksums.luhn(body + d))
    for place, digit in enumerate(valid):
        changed = valid[:place] + str((int(digit) + 1) % 10) + valid[place + 1 :]
        assert not checksums.luhn(changed)


@given(st.integers(10**10, 10**11 - 1), st.integers(0, 10))
def test_verhoeff_notices_swapped_neighbours(number: int, place: int) -> None:
    """Aadhaar's check finds every swap of two neighbouring digits that differ."""
    body = str(number)
    valid = next(body + d for d in string.digits if checksums.india(body + d))
    a, b = valid[place : place + 2]
    swapped = valid[:place] + b + a + valid[place + 2 :]
    assert checksums.india(swapped) == (a == b)


@given(st.text(min_size=1, max_size=200))
def test_mask_shows_at_most_a_quarter(value: str) -> None:
    """However long the value, no more than four characters and a quarter of it are shown."""
    shown = mask(value).split("…")[0]
    assert value.startswith(shown)
    assert len(shown) <= min(4, len(value) / 4)


@given(st.text(max_size=300))
def test_any_text_can_be_scanned(text: str) -> None:
    """No text makes the scan fail, and every value it reports stands in the text."""
    for match in find_pii(text):
        assert match.value in text


def write_parquet(path: Path, rows: list[dict[str, object]]) -> None:
    pq.write_table(pa.Table.from_pylist(rows), path)


def write_jsonl(path: Path, rows: list[dict[str, object]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


def write_json(path: Path, rows: list[dict[str, object]]) -> None:
    path.write_text(json.dumps(rows), "utf-8")


@pytest.mark.parametrize(
    ("name", "write"),
    [("a.parquet", write_parquet), ("a.jsonl", write_jsonl), ("a.json", write_json)],
)
def test_findings_name_file_record_and_field(
    tmp_path: Path, scan: Scan, name: str, write: Callable[..., None]
) -> None:
    """Rows of every format are read, nested fields too; the value is masked."""
    talk = [{"role": "user", "content": "I am maria.lindqvist@posteo.de"}]
    write(tmp_path / name, [{"id": "r-1", "messages": []}, {"id": "r-2", "messages": talk}])
    (finding,) = scan_file(tmp_path / name, scan, "data/x")
    assert (finding.file, finding.record, finding.field) == ("data/x", "r-2", "messages")
    assert finding.kind == "email address"
    assert "lindqvist" not in finding.masked


def test_rows_without_an_id_are_counted_from_one(tmp_path: Path, scan: Scan) -> None:
    """A file without ids names rows by their place; `limit` stops early."""
    rows: list[dict[str, object]] = [{"output": "nothing"}, {"output": "ring (212) 684-4700"}]
    write_json(tmp_path / "a.json", rows)
    assert [f.record for f in scan_file(tmp_path / "a.json", scan)] == ["row 2"]
    assert scan_file(tmp_path / "a.json", scan, limit=1) == []


def test_lineage_ids_are_not_scanned(scan: Scan) -> None:
    """Hashes of requests are no secrets, whatever they look like."""
    row = {"id": "AC" + "0a" * 16, "requests": ["AC" + "0a" * 16], "output": "AC" + "0a" * 16}
    assert [f.field for f in scan_rows(iter([("r", row)]), scan)] == ["output"]


def test_damaged_file_is_one_line(tmp_path: Path, scan: Scan) -> None:
    """A file that is not what its name says is a user error that names it."""
    (tmp_path / "a.parquet").write_bytes(b"no parquet")
    with pytest.raises(UserError, match=r"a\.parquet: cannot be read for the scan") as refused:
        scan_file(tmp_path / "a.parquet", scan)
    assert "\n" not in str(refused.value)


def test_weights_and_vocabularies_are_not_text() -> None:
    """Model weights and token lists are left out, cards and settings are not."""
    assert not can_scan(Path("model.safetensors"))
    assert not can_scan(Path("tokenizer.json"))
    assert can_scan(Path("config.json"))
    assert can_scan(Path("README.md"))


def test_runs_of_private_words_are_found() -> None:
    """Twelve words in a row are found whatever their case and punctuation, eleven are not."""
    words = [f"word{n}" for n in range(30)]
    look = make_copy_scan([("seed seed-1", " ".join(words))])
    copied = ", ".join(words[7:19]).upper()
    assert [m.kind for m in look(f"Well: {copied}!")] == ["text of private seed seed-1"]
    assert look(" ".join(words[7:18])) == []


def test_short_private_text_must_occur_whole() -> None:
    """A private text of six to eleven words is found as a whole, a shorter one never."""
    look = make_copy_scan([("seed a", "the claim was refused last Monday"), ("b", "no more money")])
    assert [m.kind for m in look("So the claim was refused, last Monday.")] == [
        "text of private seed a"
    ]
    assert look("the claim was refused last week, no more money") == []


def test_card_lines_are_numbered(scan: Scan) -> None:
    """A text is scanned by line, so that a finding can be looked up."""
    text = "# Card\n\nWritten by maria.lindqvist@posteo.de"
    assert [f.record for f in scan_rows(text_rows(text), scan)] == ["line 3"]


def test_same_text_again_is_found_again(scan: Scan) -> None:
    """Remembering clean texts never hides a finding in the next file."""
    text = "Ask maria.lindqvist@posteo.de"
    assert len(scan(text)) == len(scan(text)) == 1
