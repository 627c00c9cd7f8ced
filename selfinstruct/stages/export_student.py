"""Export: a finished student as one GGUF file, for llama.cpp, Ollama and LM Studio.

    outputs/<run>/student/gguf/
        <name>-Q4_K_M.gguf
        Modelfile           where asked for: `ollama create <name> -f Modelfile`
        export.json         what each file is, and how near it is to the student

Adapter and merged model are what training leaves. A file is kept only where adapter, merged model
and file say the same on held-out prompts.
"""

from __future__ import annotations

import contextlib
import importlib.util
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from selfinstruct.core.errors import FolderError, MissingDependency, SelfInstructError, UserError
from selfinstruct.core.recipe import Recipe
from selfinstruct.engine.folder import RunFolder, write_atomically, write_json
from selfinstruct.steps.privacy import Policy
from selfinstruct.steps.training.base import Base, find_again
from selfinstruct.steps.training.export import merge, same_answers
from selfinstruct.steps.training.format import StudentFormat
from selfinstruct.steps.training.gguf_base import sha256_of
from selfinstruct.steps.training.gguf_file import architecture, write_gguf
from selfinstruct.steps.training.gguf_tokens import adds_bos
from selfinstruct.steps.training.loading import context_length, load_tokenizer
from selfinstruct.steps.training.measures import spread
from selfinstruct.steps.training.ollama import modelfile
from selfinstruct.steps.training.parity import PROMPTS, TOKENS, Parity, check_gguf
from selfinstruct.steps.training.records import read_split
from selfinstruct.steps.training.runtime import check_packages, prepare_process, quiet
from selfinstruct.steps.training.summary import SUMMARY, TrainSummary, parse_summary

EXPORTS = "export.json"


class Exported(msgspec.Struct, frozen=True, kw_only=True):
    """One GGUF file: `file` is relative to the run folder, `student` names the training."""

    precision: str
    file: str
    bytes: int
    sha256: str
    parity: Parity
    student: str


async def export_student(
    folder: RunFolder, precision: str, *, ollama: bool = False, force: bool = False
) -> Exported:
    """Write the student of the run as a GGUF file, compared with what was trained.

    Args:
        folder: a run folder with a finished student, locked by the caller.
        precision: one of `gguf_quants.PRECISIONS`.
        ollama: also write a Modelfile.
        force: write again although it is there.

    Raises a `UserError` for what the user can mend (no student, an architecture this does not
    write, ...) and `SelfInstructError` where the file would say something else.
    """
    check_packages("exporting a student")
    if importlib.util.find_spec("xllamacpp") is None:
        raise MissingDependency("xllamacpp", "local", "comparing a GGUF file with the student")
    prepare_process()
    recipe = folder.recipe()
    summary = parse_summary(folder.read_json(folder.student / SUMMARY))
    parts = [] if summary is None else [summary.adapter, summary.merged]
    if summary is None or not all((folder.path / part).is_dir() for part in parts if part):
        raise UserError(f"{folder.path}: has no finished student; run: selfinstruct train-student")
    out = folder.student / "gguf"
    path = out / f"{recipe.name}-{precision.upper()}.gguf"
    with quiet():
        found = _listed(out).get(precision)
        if force or found is None or found.student != summary.fingerprint or not path.is_file():
            found = await _export(folder, recipe, summary, precision, path)
        if ollama:
            form = _form(folder, recipe, summary)
            text = modelfile(form, path.name, adds_bos=adds_bos(form.tokenizer))
            write_atomically(out / "Modelfile", text.encode())
    return found


async def _export(
    folder: RunFolder, recipe: Recipe, summary: TrainSummary, precision: str, path: Path
) -> Exported:
    form = _form(folder, recipe, summary)
    rows = _prompts(folder, form, _context(folder, recipe, summary))
    writing = path.with_suffix(".writing")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _merged(folder, recipe, summary, form, rows) as model:
            write_gguf(
                model,
                writing,
                precision=precision,
                name=recipe.name,
                stop_id=form.stop_id,
                license_id=summary.base_license,
            )
            parity = await check_gguf(writing, model, form, rows, precision)
        exported = Exported(
            precision=precision,
            file=str(path.relative_to(folder.path)),
            bytes=writing.stat().st_size,
            sha256=sha256_of(writing),
            parity=parity,
            student=summary.fingerprint,
        )
        writing.replace(path)
        listed = _listed(path.parent) | {precision: exported}
        write_json(path.parent / EXPORTS, msgspec.to_builtins(list(listed.values())))
    except OSError as error:
        raise FolderError(
            f"{path.parent}: cannot be written ({error.strerror or error}); make room, then give "
            "the same command again"
        ) from error
    finally:
        writing.unlink(missing_ok=True)
    return exported


def _listed(out: Path) -> dict[str, Exported]:
    """What export.json lists, by precision."""
    try:
        found = msgspec.json.decode((out / EXPORTS).read_bytes(), type=list[Exported])
    except (OSError, msgspec.DecodeError):
        return {}
    return {one.precision: one for one in found}


def _form(folder: RunFolder, recipe: Recipe, summary: TrainSummary) -> StudentFormat:
    """The format the student was trained on, with the tokenizer that was saved beside it."""
    part = folder.path / (summary.merged or summary.adapter or "")
    tokenizer = load_tokenizer(part, recipe.name)
    system, template = recipe.dataset.system_prompt, summary.chat_template
    return StudentFormat(tokenizer, recipe.name, system, template=template)


def _base(recipe: Recipe, summary: TrainSummary) -> Base:
    """What the student was trained from. Raises `UserError` where it is no longer there."""
    policy = Policy.of(recipe.privacy, recipe.allow_hosts)
    return find_again(summary.base, policy, summary.base_commit)


def _context(folder: RunFolder, recipe: Recipe, summary: TrainSummary) -> int:
    """The positions that the student has; where its base does not say, those it was trained on."""
    if summary.merged is not None:
        model, name = folder.path / summary.merged, recipe.name
    else:
        base = _base(recipe, summary)
        model, name = base.folder, base.name
    return context_length(model, name) or summary.max_length


def _prompts(folder: RunFolder, form: StudentFormat, context: int) -> list[dict[str, Any]]:
    """Held-out records where there are any, else training records, that leave room for an answer.

    The file serves no prompt beyond its context.
    """
    rows: list[dict[str, Any]] = []
    for split in ("test", "train"):
        with contextlib.suppress(UserError):  # no such split, or none that the template takes
            rows += form.taken(read_split(folder.dataset, split))[0]
        fitting = [
            row
            for row, ids in zip(rows, form.prompt_ids(rows), strict=True)
            if len(ids) + TOKENS <= context
        ]
        if fitting:
            return [fitting[at] for at in spread(len(fitting), PROMPTS)]
    if not rows:
        raise FolderError(
            f"{folder.dataset}: no records here to compare the file with the student on; run: "
            "selfinstruct export"
        )
    raise UserError(
        f"{folder.dataset}: every prompt fills the {context} tokens that the student can read, so "
        "there is none to compare the file with it on"
    )


@contextlib.contextmanager
def _merged(
    folder: RunFolder,
    recipe: Recipe,
    summary: TrainSummary,
    form: StudentFormat,
    rows: Sequence[dict[str, Any]],
) -> Iterator[Path]:
    """The folder of the student as one model, which answers as its adapter does.

    Where training left the adapter alone, it is merged for as long as the block lasts.
    """
    if summary.adapter is None:
        whole = folder.path / (summary.merged or "")
        architecture(whole, recipe.name)
        yield whole
        return
    base = _base(recipe, summary)
    architecture(base.folder, recipe.name)  # before anything that takes time
    adapter, prompts = folder.path / summary.adapter, form.prompt_ids(rows)
    if summary.merged is None:
        with tempfile.TemporaryDirectory(prefix=".merged-", dir=folder.student) as name:
            merge(base, adapter, Path(name), form, prompts, "cpu")
            yield Path(name)
        return
    merged = folder.path / summary.merged
    if not same_answers(base, adapter, merged, form, prompts, "cpu"):
        raise SelfInstructError(
            f"{merged}: does not answer as base and adapter do, so nothing was exported from it; "
            "train again with: selfinstruct train-student --force"
        )
    yield merged
