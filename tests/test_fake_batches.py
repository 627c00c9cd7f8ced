"""The fake server's batch APIs, spoken to as the SDKs do and byte by byte."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest

from selfinstruct.testing import batches
from selfinstruct.testing.fake_server import Running

START = Callable[..., Running]
BOUNDARY = "b0undary"


def call(url: str, body: Any = None, headers: dict[str, str] | None = None) -> bytes:
    """The reply to a GET, or to a POST where there is a body."""
    raw = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(url, raw, {"Content-Type": "application/json"})
    for name, value in (headers or {}).items():
        request.add_header(name, value)
    with urllib.request.urlopen(request) as reply:
        return reply.read()  # type: ignore[no-any-return]


def ask(n: int) -> dict[str, Any]:
    """The body of a chat call."""
    return {"model": "m", "messages": [{"role": "user", "content": f"What is {n}?"}]}


def upload(url: str, lines: list[dict[str, Any]]) -> str:
    """Upload a file of items; its id."""
    file = "\n".join(json.dumps(line) for line in lines)
    parts = [("purpose", "", "batch"), ("file", '; filename="x.jsonl"', file)]
    body = "".join(
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n{value}\r\n'
        for name, more, value in parts
    )
    kind = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
    reply = call(f"{url}/v1/files", f"{body}--{BOUNDARY}--\r\n".encode(), kind)
    return str(json.loads(reply)["id"])


def chat_batch(url: str, count: int = 20, marker: str = "") -> dict[str, Any]:
    """Create a batch in OpenAI's protocol."""
    lines = [
        {"custom_id": f"i{n}", "method": "POST", "url": "/v1/chat/completions", "body": ask(n)}
        for n in range(count)
    ]
    body: dict[str, Any] = {
        "input_file_id": upload(url, lines),
        "endpoint": "/v1/chat/completions",
        "completion_window": "24h",
        "metadata": {"selfinstruct": marker},
    }
    return json.loads(call(f"{url}/v1/batches", body))  # type: ignore[no-any-return]


def message_batch(url: str, count: int = 20) -> dict[str, Any]:
    """Create a batch in Anthropic's protocol."""
    requests = [
        {"custom_id": f"i{n}_mark", "params": {**ask(n), "max_tokens": 50}} for n in range(count)
    ]
    return json.loads(call(f"{url}/v1/messages/batches", {"requests": requests}))  # type: ignore[no-any-return]


def lines_of(raw: bytes) -> list[dict[str, Any]]:
    """The lines of a file of results."""
    return [json.loads(line) for line in raw.splitlines()]


def statuses(fetch: Callable[[], dict[str, Any]], key: str, last: str) -> list[str]:
    """The statuses of a batch until it reaches `last`."""
    seen = []
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        seen.append(fetch()[key])
        if seen[-1] == last:
            return seen
        time.sleep(0.02)
    raise AssertionError(seen)


def test_openais_protocol_is_spoken(start_fake_server: START) -> None:
    """A batch runs for its time; then its output has what single calls get, in another order."""
    url = start_fake_server(batch=batches.Options(seconds=0.2)).url
    made = chat_batch(url, marker="m1")
    assert (made["status"], made["request_counts"]["total"]) == ("in_progress", 20)

    def fetch() -> dict[str, Any]:
        return json.loads(call(f"{url}/v1/batches/{made['id']}"))  # type: ignore[no-any-return]

    assert statuses(fetch, "status", "completed")[0] == "in_progress"
    ended = fetch()
    assert ended["error_file_id"] is None
    assert ended["metadata"] == {"selfinstruct": "m1"}
    results = lines_of(call(f"{url}/v1/files/{ended['output_file_id']}/content"))
    names = [result["custom_id"] for result in results]
    assert names != sorted(names, key=lambda name: int(name[1:]))
    assert set(names) == {f"i{n}" for n in range(20)}
    for result in results:
        single = json.loads(call(f"{url}/v1/chat/completions", ask(int(result["custom_id"][1:]))))
        assert result["response"]["body"]["choices"] == single["choices"]


def test_anthropics_protocol_is_spoken(start_fake_server: START) -> None:
    """Counts come at the end, and the results have what single calls get."""
    url = start_fake_server(batch=batches.Options(seconds=0.2)).url
    made = message_batch(url)
    assert made["request_counts"]["processing"] == 20
    assert made["results_url"] is None

    def fetch() -> dict[str, Any]:
        return json.loads(call(f"{url}/v1/messages/batches/{made['id']}"))  # type: ignore[no-any-return]

    statuses(fetch, "processing_status", "ended")
    results = lines_of(call(fetch()["results_url"]))
    assert {result["result"]["type"] for result in results} == {"succeeded"}
    first = results[0]
    number = int(first["custom_id"].partition("_")[0][1:])
    single = json.loads(call(f"{url}/v1/messages", {**ask(number), "max_tokens": 50}))
    assert first["result"]["message"]["content"] == single["content"]


def test_lists_have_pages_newest_first(start_fake_server: START) -> None:
    """Each protocol lists its own batches; a new one is missing for as long as the list lags."""
    server = start_fake_server()
    made = [chat_batch(server.url, 1)["id"] for _ in range(5)]
    message_batch(server.url, 1)
    page = json.loads(call(f"{server.url}/v1/batches?limit=3"))
    assert [batch["id"] for batch in page["data"]] == made[:1:-1]
    assert page["has_more"]
    rest = json.loads(call(f"{server.url}/v1/batches?limit=3&after={page['last_id']}"))
    assert [batch["id"] for batch in rest["data"]] == made[1::-1]
    assert not rest["has_more"]
    assert len(json.loads(call(f"{server.url}/v1/messages/batches"))["data"]) == 1
    lagging = start_fake_server(batch=batches.Options(list_lag=60)).url
    chat_batch(lagging, 1)
    assert json.loads(call(f"{lagging}/v1/batches"))["data"] == []


def test_items_fail_in_their_shares(start_fake_server: START) -> None:
    """Errors, expiry and refusals are told as each provider tells them; some items get lost."""
    options = batches.Options(errors=0.2, invalid=0.2, expired=0.2, missing=0.1)
    url = start_fake_server(batch=options).url
    made = message_batch(url, 400)
    shown = json.loads(call(f"{url}/v1/messages/batches/{made['id']}"))
    kinds = [r["result"]["type"] for r in lines_of(call(shown["results_url"]))]
    assert {"succeeded", "errored", "expired"} == set(kinds)
    assert len(kinds) < 400
    assert shown["request_counts"]["errored"] == kinds.count("errored")
    shown = json.loads(call(f"{url}/v1/batches/{chat_batch(url, 400)['id']}"))
    assert shown["status"] == "expired"
    errors = lines_of(call(f"{url}/v1/files/{shown['error_file_id']}/content"))
    codes = {e["error"]["code"] if e["error"] else e["response"]["status_code"] for e in errors}
    assert codes == {"batch_expired", 400, 500}


def test_a_batch_is_canceled(start_fake_server: START) -> None:
    """What was not done by then is canceled, and not billed."""
    server = start_fake_server(batch=batches.Options(seconds=60))
    made = message_batch(server.url)
    path = f"{server.url}/v1/messages/batches/{made['id']}"
    assert json.loads(call(f"{path}/cancel", b""))["processing_status"] == "ended"
    assert {r["result"]["type"] for r in lines_of(call(f"{path}/results"))} == {"canceled"}
    assert server.server.batches.stats.answered.total() == 0


@pytest.mark.parametrize("happens", ["reset_before", "reset_after", "503"])
def test_creations_go_wrong(start_fake_server: START, happens: str) -> None:
    """A reset leaves the client in the dark: the batch may be there or not."""
    server = start_fake_server(batch=batches.Options(creations=(happens,)))
    with pytest.raises((urllib.error.URLError, ConnectionError)) as caught:
        chat_batch(server.url)
    if isinstance(caught.value, urllib.error.HTTPError):
        caught.value.close()
    assert server.server.batches.stats.created == (happens == "reset_after")


@pytest.mark.parametrize(
    "change",
    [{"custom_id": "i1"}, {"url": "/v1/embeddings"}, {"body": {"model": "other", "messages": []}}],
)
def test_openais_rules_are_kept(fake_server: Running, change: dict[str, Any]) -> None:
    """Ids are unique, and one batch has one endpoint and one model."""
    lines = [
        {"custom_id": f"i{n}", "method": "POST", "url": "/v1/chat/completions", "body": ask(n)}
        for n in range(2)
    ]
    body = {
        "input_file_id": upload(fake_server.url, [{**lines[0], **change}, lines[1]]),
        "endpoint": "/v1/chat/completions",
        "completion_window": "24h",
    }
    with pytest.raises(urllib.error.HTTPError) as caught:
        call(f"{fake_server.url}/v1/batches", body)
    assert caught.value.code == 400
    caught.value.close()


def test_anthropics_ids_are_checked(fake_server: Running) -> None:
    """At most 64 letters, digits, hyphens and underscores."""
    requests = [{"custom_id": "x" * 65, "params": {**ask(1), "max_tokens": 9}}]
    with pytest.raises(urllib.error.HTTPError) as caught:
        call(f"{fake_server.url}/v1/messages/batches", {"requests": requests})
    assert caught.value.code == 400
    caught.value.close()


def test_stats_count_submissions(fake_server: Running) -> None:
    """By marker, and by the body of each request."""
    for marker in ("m1", "m1", "m2"):
        chat_batch(fake_server.url, 2, marker)
    stats = json.loads(call(f"{fake_server.url}/stats"))["batches"]
    assert stats["markers"] == {"m1": 2, "m2": 1}
    assert sorted(stats["items"].values()) == [3, 3]
    assert stats["created"] == 3


def test_the_key_is_wanted_here_too(start_fake_server: START) -> None:
    """As for single calls."""
    url = start_fake_server(key="secret").url
    with pytest.raises(urllib.error.HTTPError) as caught:
        call(f"{url}/v1/batches")
    assert caught.value.code == 401
    caught.value.close()


def test_an_unknown_fate_is_told() -> None:
    """Before anything runs."""
    with pytest.raises(ValueError, match="'oops'"):
        batches.Options(fates=("oops",))
