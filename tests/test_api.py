"""The Python interface: a few lines, from scripts and from notebooks."""

from __future__ import annotations

from pathlib import Path

import pytest

import selfinstruct
from selfinstruct.core.errors import FolderError, RecipeError
from selfinstruct.testing.fake_server import Running
from tests.runs import recipe


def test_the_public_names_are_sorted_and_complete() -> None:
    """`__all__` is sorted, and every name in it is there."""
    assert list(selfinstruct.__all__) == sorted(selfinstruct.__all__)
    for name in selfinstruct.__all__:
        assert getattr(selfinstruct, name) is not None
    with pytest.raises(AttributeError, match="no_such_name"):
        selfinstruct.no_such_name  # noqa: B018


def test_three_lines_make_a_dataset(tmp_path: Path, fake_server: Running) -> None:
    """A recipe as a mapping, generated and written, its records and bill at hand."""
    run = selfinstruct.generate(recipe(tmp_path, fake_server.url), output=tmp_path / "run")
    assert len(run.records()) == run.funnel().kept == 40
    assert run.bill()
    assert (run.folder.dataset / "dataset.json").exists()
    assert selfinstruct.Run(tmp_path / "run").recipe == run.recipe


async def test_in_a_running_event_loop(tmp_path: Path, fake_server: Running) -> None:
    """In a notebook both the plain and the async form work."""
    settings = recipe(tmp_path, fake_server.url, target=5)
    run = selfinstruct.Run.from_recipe(settings, output=tmp_path / "run")
    assert run.generate().kept == 5
    run.configure("generate.target=8")
    assert (await run.agenerate()).kept == 8


def test_errors_come_through(tmp_path: Path) -> None:
    """User errors are raised as they are, in a loop of their own too."""
    settings = recipe(tmp_path, "http://127.0.0.1:9") | {"sedes": []}
    with pytest.raises(RecipeError, match="unknown key"):
        selfinstruct.Run.from_recipe(settings, output=tmp_path)
    with pytest.raises(FolderError, match="no run here"):
        selfinstruct.Run(tmp_path / "none")
