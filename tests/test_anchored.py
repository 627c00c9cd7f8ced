"""A recipe's paths as they are stored with a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from selfinstruct.core.anchored import anchored, whole_path
from selfinstruct.core.recipe import Recipe


def test_what_is_there_is_stored_from_the_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files and folders of the student are; names, Hub ids and a teacher's seeds stay."""
    monkeypatch.chdir(tmp_path)
    for name in ("claims.jsonl", "chats.jsonl", "pairs.jsonl", "own.jinja"):
        Path(name).write_text("{}")
    Path("models/big").mkdir(parents=True)
    student = {
        "base": "models/big",
        "conversations": "chats.jsonl",
        "chat_template": "own.jinja",
        "distillation": {"teacher": "./models/big"},
        "preference": {"data": "models/../pairs.jsonl"},
    }
    given = {"name": "x", "seeds": ["claims.jsonl", "seeds/general.jsonl"], "student": student}
    held = anchored(Recipe.model_validate(given))
    assert [one.path for one in held.seeds] == [f"{tmp_path}/claims.jsonl", "seeds/general.jsonl"]
    assert held.student is not None
    assert held.student.distillation is not None
    assert held.student.preference is not None
    assert held.student.base == held.student.distillation.teacher == f"{tmp_path}/models/big"
    assert held.student.conversations == f"{tmp_path}/chats.jsonl"
    assert held.student.chat_template == f"{tmp_path}/own.jinja"
    assert held.student.preference.data == f"{tmp_path}/pairs.jsonl"
    teacher = {"kind": "scripted", "model": "replies.jsonl"}
    hub = anchored(Recipe.model_validate({**given, "teacher": teacher, "student": {"base": "a/b"}}))
    assert [one.path for one in hub.seeds] == ["claims.jsonl", "seeds/general.jsonl"]
    assert hub.student is not None
    assert hub.student.base == "a/b"


def test_a_path_through_a_link_leads_where_it_led(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder above a link's target is not the folder that holds the link."""
    (tmp_path / "far" / "inner").mkdir(parents=True)
    (tmp_path / "far" / "data.jsonl").write_text("far")
    (tmp_path / "data.jsonl").write_text("near")
    (tmp_path / "link").symlink_to(tmp_path / "far" / "inner")
    monkeypatch.chdir(tmp_path)
    assert Path(whole_path("link/../data.jsonl")).read_text() == "far"
    assert whole_path("link/x.jsonl") == "link/x.jsonl"
