"""The scripted teacher: replies from a file or a function."""

from __future__ import annotations

from pathlib import Path

import pytest

from selfinstruct.core.errors import UserError
from selfinstruct.core.ids import make_request
from selfinstruct.core.types import Message, Request, Sampling
from selfinstruct.steps.teachers.scripted import Reply, ScriptedTeacher, from_file


def ask(text: str, sample: int = 0) -> Request:
    return make_request(
        teacher="scripted",
        model="s",
        sampling=Sampling(max_tokens=9),
        messages=(Message("user", text),),
        sample=sample,
    )


def script(tmp_path: Path, *lines: str) -> Path:
    path = tmp_path / "replies.jsonl"
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


async def test_a_line_answers_what_it_matches(tmp_path: Path) -> None:
    """A line with match goes before those without, and brings its finish along."""
    path = script(
        tmp_path,
        '{"text": "about lighthouses", "match": "lighthouse", "finish": "length"}',
        "",
        '{"text": "anything"}',
    )
    teacher = ScriptedTeacher(from_file(path))
    lit = await teacher(ask("What is a lighthouse?"))
    assert (lit.text, lit.finish) == ("about lighthouses", "length")
    assert (await teacher(ask("What is a shed?"))).text == "anything"


async def test_a_request_always_gets_the_same_of_several_lines(tmp_path: Path) -> None:
    """The choice depends on the request alone, and different requests spread over the lines."""
    path = script(tmp_path, *(f'{{"text": "reply {n}"}}' for n in range(5)))
    requests = [ask("Hello", sample) for sample in range(60)]
    first = [(await ScriptedTeacher(from_file(path))(request)).text for request in requests]
    teacher = ScriptedTeacher(from_file(path))
    again = [(await teacher(request)).text for request in reversed(requests)]
    assert first == again[::-1]
    assert len(set(first)) == 5


async def test_a_function_answers_and_usage_is_estimated() -> None:
    """A callable is a script too; tokens are estimated from the texts, and marked."""
    teacher = ScriptedTeacher(lambda request: Reply(text=request.messages[0].content.upper()))
    request = ask("hello there")
    completion = await teacher(request)
    assert completion.text == "HELLO THERE"
    assert completion.request_id == request.id
    assert completion.usage.estimated
    assert completion.usage.output == len("hello there") // 4 + 1


async def test_a_raw_prompt_is_matched_too(tmp_path: Path) -> None:
    """The user header the teacher names is a prompt that a script can match."""
    teacher = ScriptedTeacher(
        from_file(script(tmp_path, '{"text": "as a user", "match": "<|im_start|>user"}'))
    )
    raw = make_request(
        teacher="s",
        model="s",
        sampling=Sampling(max_tokens=9),
        prompt=await teacher.user_header(),
        sample=0,
    )
    assert (await teacher(raw)).text == "as a user"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": 7}', r"replies\.jsonl:2: Expected `str`, got `int` - at `\$.text`"),
        ('{"texts": "x"}', r"replies\.jsonl:2: Object contains unknown field `texts`"),
        ('{"text": "x", "finish": "done"}', r"replies\.jsonl:2: Invalid enum value 'done'"),
        ("{", r"replies\.jsonl:2: "),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    """File and line, and what is wrong with it."""
    with pytest.raises(UserError, match=message):
        from_file(script(tmp_path, '{"text": "fine"}', line))


def test_a_script_must_exist_and_hold_a_reply(tmp_path: Path) -> None:
    """A missing or empty file is told before the run."""
    with pytest.raises(UserError, match=r"cannot read the script .*none\.jsonl"):
        from_file(tmp_path / "none.jsonl")
    with pytest.raises(UserError, match="at least one reply"):
        from_file(script(tmp_path, ""))


async def test_a_request_that_nothing_fits_is_told(tmp_path: Path) -> None:
    """A script of matches alone says which request it does not cover."""
    teacher = ScriptedTeacher(from_file(script(tmp_path, '{"text": "x", "match": "y"}')))
    with pytest.raises(UserError, match="slot 0"):
        await teacher(ask("Z?"))
