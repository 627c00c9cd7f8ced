"""From a recipe's teacher section to a teacher."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import orjson
import pytest

from selfinstruct.core.errors import PrivacyError, UserError
from selfinstruct.core.ids import make_request
from selfinstruct.core.sections.teacher import TeacherConfig
from selfinstruct.core.types import Message, Sampling
from selfinstruct.steps.privacy import Policy
from selfinstruct.steps.teachers.build import KINDS, make_teacher
from selfinstruct.testing.fake_server import Running

LOCAL = Policy(local=True)


def test_every_kind_of_the_recipe_can_be_built() -> None:
    """The table has a builder for each kind that a recipe may name, and no other."""
    kinds = get_args(TeacherConfig.model_fields["kind"].annotation)
    assert set(KINDS) == set(kinds)


@pytest.mark.parametrize("kind", ["compatible", "openai", "anthropic"])
async def test_a_built_teacher_answers(fake_server: Running, kind: str) -> None:
    """Model and address of the section are the ones that are used; loopback needs no key."""
    base = fake_server.url if kind == "anthropic" else f"{fake_server.url}/v1"
    config = TeacherConfig(kind=kind, model="m-1", base_url=base)
    teacher = make_teacher(config, LOCAL)
    request = make_request(
        teacher=teacher.id,
        model=teacher.model,
        sampling=Sampling(max_tokens=50),
        messages=(Message("user", "Hello?"),),
        sample=0,
    )
    await teacher.start()
    try:
        completion = await teacher(request)
    finally:
        await teacher.close()
    assert teacher.id == f"{kind}/m-1"
    assert completion.model == "m-1"
    assert orjson.loads(fake_server.server.requests[0].body)["model"] == "m-1"


@pytest.mark.parametrize("kind", ["openai", "anthropic"])
def test_a_hosted_teacher_is_refused_by_a_local_policy(kind: str) -> None:
    """The provider's host is named although the recipe names none."""
    with pytest.raises(PrivacyError, match=rf"api\.{kind}\.com' \(teacher\.kind: {kind}\)"):
        make_teacher(TeacherConfig(kind=kind, model="m"), LOCAL)


def test_a_remote_address_is_refused_by_a_local_policy_unless_listed() -> None:
    """The recipe's own list of hosts decides."""
    config = TeacherConfig(kind="compatible", model="m", base_url="http://gpu-1.example/v1")
    with pytest.raises(PrivacyError, match=r"gpu-1\.example"):
        make_teacher(config, LOCAL)
    assert make_teacher(config, Policy(local=True, allow_hosts=("gpu-1.example",))).model == "m"


@pytest.mark.parametrize(
    "config",
    [
        {"kind": "compatible", "base_url": "https://models.example/v1", "api_key_env": "NO_KEY"},
        {"kind": "openai", "api_key_env": "NO_KEY"},
        {"kind": "anthropic", "api_key_env": "NO_KEY"},
    ],
)
async def test_a_missing_key_names_the_recipes_variable(
    monkeypatch: pytest.MonkeyPatch, config: dict[str, Any]
) -> None:
    """The teacher does not start without the key its recipe names."""
    monkeypatch.delenv("NO_KEY", raising=False)
    teacher = make_teacher(TeacherConfig(model="m", **config), Policy())
    with pytest.raises(UserError, match=r"export NO_KEY=\.\.\.") as caught:
        await teacher.start()
    assert "\n" not in str(caught.value)


async def test_a_scripted_teacher_reads_its_file(tmp_path: Path) -> None:
    """Its id is the file's name without the folder, so that the file may be moved."""
    path = tmp_path / "replies.jsonl"
    path.write_text('{"text": "hi"}\n')
    teacher = make_teacher(TeacherConfig(kind="scripted", model=str(path)), LOCAL)
    assert teacher.id == "scripted/replies.jsonl"


def test_a_local_teacher_is_named_without_its_folder(tmp_path: Path) -> None:
    """The same for a GGUF file; the file itself is looked at when the teacher starts."""
    config = TeacherConfig(kind="local", model=str(tmp_path / "own.gguf"))
    assert make_teacher(config, LOCAL).id == "local/own.gguf"
