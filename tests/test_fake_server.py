"""The fake server that tests, dry runs and benchmarks rely on."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from selfinstruct.testing import faults, forms, grammar
from selfinstruct.testing.fake_server import Options, Running, running
from selfinstruct.testing.forms import Ask, Share

GOOD = Share(bad=0.0, cut=0.0, refusals=0.0)
ALPACA = """Come up with a set of 6 tasks.
###
1. Instruction: Sort these words by their length.
1. Input:
cat, elephant
1. Output:
cat, elephant
###
2. Instruction:"""
START = Callable[..., Running]


def post(url: str, path: str, body: dict[str, Any]) -> Any:
    request = urllib.request.Request(
        url + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request) as reply:
        return json.load(reply)


def chat(url: str, text: str, **more: Any) -> Any:
    body = {"model": "m", "messages": [{"role": "user", "content": text}], **more}
    return post(url, "/v1/chat/completions", body)


def text_of(reply: Any) -> str:
    return str(reply["choices"][0]["message"]["content"])


def written(text: str, share: Share = GOOD, **more: Any) -> str:
    return forms.write(Ask(text, **more), Random(1), share).text


def test_alpacas_list_is_continued() -> None:
    """From the number whose label the prompt wrote, up to the number it names."""
    lines = written(ALPACA).splitlines()
    assert lines[0].startswith(" ")
    assert lines[1] == "2. Input:"
    assert lines.count("###") == 4
    assert [line for line in lines if line.endswith(". Output:")][-1] == "6. Output:"


@pytest.mark.parametrize("prompt", ["1. Sing.\n2. Dance.\nTask 3:", "Go on with tasks 3 to 10."])
def test_self_instructs_list_is_numbered(prompt: str) -> None:
    """Eight new instructions, one a line, from the number asked for."""
    numbers = [line.split(".")[0] for line in written(prompt).splitlines()]
    assert numbers == [str(n) for n in range(3, 11)]


def test_a_schema_is_followed() -> None:
    """A JSON object with the schema's keys and no other."""
    schema = {"type": "object", "properties": {"instruction": {}, "output": {}}}
    assert set(json.loads(written("One task, please.", schema=schema))) == {"instruction", "output"}


def test_a_raw_prompt_is_continued_by_a_user() -> None:
    """One instruction on one line."""
    text = written("<|im_start|>user\n", raw=True)
    assert "\n" not in text
    assert len(text.split()) > 4


def test_a_question_is_answered_about_itself() -> None:
    """The answer takes up a word of the question."""
    assert "lighthouse" in written("lighthouse?")


def test_labels_are_written_where_they_are_asked_for() -> None:
    """An instance for Self-Instruct's second call."""
    assert "Output: " in written('Then write a line that begins with "Output:".\n\nTask: Sing')


def test_the_grammar_has_enough_to_say() -> None:
    """Ten thousand instructions are all but different."""
    rng = Random(1)
    made = {grammar.task(rng).instruction for _ in range(10_000)}
    assert len(made) > 9_990


def test_bad_records_come_in_their_share() -> None:
    """Copies of the shown example, empty outputs and requests for pictures are among them."""
    text = "\n".join(
        forms.write(Ask(ALPACA), Random(n), Share(bad=0.5, cut=0.0, refusals=0.0)).text
        for n in range(100)
    )
    assert "Sort these words by their length." in text
    assert "Draw a picture" in text
    assert "Output:\n\n" in text
    assert all(bad not in written(ALPACA) for bad in ("Sort these", "Draw a picture"))


def test_the_same_request_gets_the_same_reply(start_fake_server: START) -> None:
    """On another server of the same seed, whatever was asked before; another seed differs."""
    first = text_of(chat(start_fake_server(seed=3).url, ALPACA))
    other = start_fake_server(seed=3)
    chat(other.url, "Something else?")
    assert text_of(chat(other.url, ALPACA)) == first
    assert text_of(chat(start_fake_server(seed=4).url, ALPACA)) != first


def test_limits_and_stop_strings_are_kept(start_fake_server: START) -> None:
    """max_tokens cuts with finish length, a stop string without."""
    url = start_fake_server(share=GOOD).url
    cut = chat(url, ALPACA, max_tokens=20)
    assert cut["usage"]["completion_tokens"] == 20
    assert cut["choices"][0]["finish_reason"] == "length"
    stopped = chat(url, ALPACA, stop=["###"])
    assert "###" not in text_of(stopped)
    assert stopped["choices"][0]["finish_reason"] == "stop"


def test_anthropics_protocol_is_spoken(fake_server: Running) -> None:
    """The same form of reply in Anthropic's shape, system text and schema included."""
    form = {"type": "json_schema", "schema": {"properties": {"output": {}}}}
    body = {
        "model": "m",
        "max_tokens": 500,
        "system": "s" * 40,
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}],
        "output_config": {"format": form},
    }
    reply = post(fake_server.url, "/v1/messages", body)
    assert set(json.loads(reply["content"][0]["text"])) == {"output"}
    assert reply["stop_reason"] == "end_turn"
    assert reply["usage"]["input_tokens"] > 10


def test_stats_count_what_was_served(start_fake_server: START) -> None:
    """Calls, statuses, full replies by request and the tokens that would be billed."""
    server = start_fake_server(script=("500", "ok", "ok", "invalid_json"))
    with pytest.raises(urllib.error.HTTPError):
        chat(server.url, "A?")
    replies = [chat(server.url, "A?"), chat(server.url, "A?")]
    with pytest.raises(json.JSONDecodeError):
        chat(server.url, "B?")
    stats = json.load(urllib.request.urlopen(f"{server.url}/stats"))
    assert stats["calls"] == 4
    assert stats["by_status"] == {"500": 1, "200": 3}
    assert sorted(stats["attempts"].values()) == [1, 3]
    assert list(stats["served"].values()) == [2]
    out = sum(reply["usage"]["completion_tokens"] for reply in replies)
    assert stats["tokens_out"] > out  # the reply that came as HTML was work, too
    assert stats["max_in_flight"] == 1


def test_faults_depend_on_request_and_attempt_alone() -> None:
    """In any order, the same attempts meet the same faults, about as often as asked."""
    shares = {"429": 0.2, "500": 0.1}
    drawn = {(d, n): faults.draw(shares, 1, str(d), n) for d in range(500) for n in range(4)}
    for (digest, attempt), fault in reversed(drawn.items()):
        assert faults.draw(shares, 1, str(digest), attempt) == fault
    assert 0.15 < sum(fault == "429" for fault in drawn.values()) / len(drawn) < 0.25
    assert 0.07 < sum(fault == "500" for fault in drawn.values()) / len(drawn) < 0.13


@pytest.mark.parametrize(
    "options", [{"faults": {"oops": 0.1}}, {"script": ("oops",)}, {"faults": {"429": 1.1}}]
)
def test_unknown_faults_are_refused(options: dict[str, Any]) -> None:
    """A fault that does not exist would make a test that tests nothing."""
    with pytest.raises(ValueError, match="fault"), running(Options(**options)):
        pass


def test_latency_is_as_asked(start_fake_server: START) -> None:
    """A constant latency delays each reply by that much."""
    url = start_fake_server(latency_ms=150).url
    began = time.perf_counter()
    chat(url, "A?")
    assert 0.15 <= time.perf_counter() - began < 2


def test_replies_of_a_fixed_size_are_all_the_same(start_fake_server: START) -> None:
    """Whatever is asked, the text is the same list of so many bytes, which still has tasks."""
    url = start_fake_server(reply_bytes=2048).url
    first, second = text_of(chat(url, ALPACA)), text_of(chat(url, "How are you?"))
    assert first == second
    assert len(first.encode()) == 2048
    assert "5. Instruction: " in first


def test_a_body_that_is_no_json_is_a_bad_request(fake_server: Running) -> None:
    """As with any server."""
    request = urllib.request.Request(f"{fake_server.url}/v1/chat/completions", b"{")
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request)
    assert caught.value.code == 400
    caught.value.close()


@pytest.mark.skipif(sys.platform == "win32", reason="stops by signal")
def test_it_runs_as_a_process() -> None:
    """It prints its address, serves with the options given, and stops on SIGTERM."""
    command = [sys.executable, "-m", "selfinstruct.testing.fake_server", "--port", "0"]
    options = ["--seed", "3", "--fault", "429=1", "--script", "ok"]
    with subprocess.Popen([*command, *options], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert text_of(chat(url, "A?"))
        with pytest.raises(urllib.error.HTTPError) as caught:
            chat(url, "A?")
        assert caught.value.code == 429
        caught.value.close()
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=10) == 0


def test_wrong_options_are_told() -> None:
    """As any command line does, with exit status 2."""
    command = [sys.executable, "-m", "selfinstruct.testing.fake_server", "--fault", "oops=1"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "no fault is called 'oops'" in done.stderr
