"""Where kept and rejected rows go: files that appear whole, or a folder in the Hub's layout."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import orjson
import yaml

from selfinstruct.core.errors import FolderError, UserError
from selfinstruct.core.types import Verdict
from selfinstruct.steps.publishing.hub_card import split_file
from selfinstruct.steps.rows.chunks import Chunk
from selfinstruct.steps.rows.lines import lines_of
from selfinstruct.steps.rows.sieve import RowFunnel, said_of
from selfinstruct.steps.rows.sinks import FORMATS, Sink, format_of, open_sink
from selfinstruct.steps.swap import replacing

STDOUT = "-"
HUB = "hub"
MARK = "filter.json"  # in a folder that was written here, and may be replaced by --force


class Outputs:
    """What will be written, checked before anything is read.

    Args:
        out: a file, a folder (no ending, or `fmt` "hub"), or ``-`` for standard output.
        rejected: a file for rejected rows; a folder always has them.
        fmt: one of `sinks.FORMATS` or "hub", where the ending does not say.
        report: an HTML file.
        force: whether what is there may be replaced.
        read: files that are read, and never written.

    Raises `UserError` or `FolderError`.
    """

    def __init__(
        self,
        out: str | Path,
        rejected: str | Path | None,
        fmt: str | None,
        *,
        report: str | Path | None = None,
        force: bool,
        read: Sequence[Path],
    ) -> None:
        self._stdout = str(out) == STDOUT
        self._out = Path(out)
        self._rejected = None if rejected is None else Path(rejected)
        self._report = None if report is None else Path(report)
        self._fmt = "jsonl" if self._stdout else format_of(out, fmt)
        if not self._fmt and not self._out.suffix:
            self._fmt = HUB
        if self._fmt not in (*FORMATS, HUB):
            raise UserError(
                f"{out}: unknown ending; name one of .jsonl, .json, .parquet and .csv, or say the "
                "format with --format"
            )
        self._rejected_fmt = "" if self._rejected is None else format_of(self._rejected)
        if self._rejected is not None and not self._rejected_fmt:
            raise UserError(
                f"{rejected}: unknown ending; name one of .jsonl, .json, .parquet and .csv"
            )
        if self._report is not None and self._report.suffix not in (".html", ".htm"):
            raise UserError(f"{report}: the report is a page; name a file that ends in .html")
        self._check(read, force)

    @property
    def names(self) -> list[str]:
        """The files or the folder to be written."""
        names = [] if self._stdout else [str(self._out)]
        return names + [str(path) for path in (self._rejected, self._report) if path is not None]

    @property
    def is_folder(self) -> bool:
        """Whether the kept rows become a folder in the Hub's layout."""
        return self._fmt == HUB

    def _check(self, read: Sequence[Path], force: bool) -> None:
        targets = [] if self._stdout else [self._out]
        targets += [path for path in (self._rejected, self._report) if path is not None]
        if len({path.resolve() for path in targets}) < len(targets):
            raise UserError(f"{self._out}: kept and rejected rows cannot go to one file")
        for path in targets:
            own = path.resolve()
            for file in read:
                if own == file.resolve() or own in file.resolve().parents:
                    raise UserError(f"{path}: is read, so it cannot be written; name another -o")
            if path.exists() and not force:
                raise FolderError(f"{path}: is there already; --force replaces it")
            if path.is_dir() and (path != self._out or not self.is_folder):
                raise FolderError(f"{path}: is a folder; name a file in it")
            if self.is_folder and path == self._out and path.exists():
                _check_folder(path)

    @contextlib.contextmanager
    def writing(self, schema: Any) -> Iterator[Writing]:
        """Where to write chunks; the files take their names when the block ends without an error.

        `schema` is the rows' Arrow schema, where they have one. Raises `OSError`.
        """
        with contextlib.ExitStack() as stack:
            sinks: list[Sink] = []  # of rejected rows
            folder: Path | None = None
            if self._rejected is not None:
                path = stack.enter_context(_beside(self._rejected))
                sinks.append(open_sink(path, self._rejected_fmt, schema, lenient=True))
            if self.is_folder:
                folder = stack.enter_context(replacing(self._out))
                sinks.append(_LateSink(folder / split_file("rejected", "train"), schema))
                path = folder / split_file("default", "train")
                path.parent.mkdir()
                kept = open_sink(path, "parquet", schema)
            elif self._stdout:
                kept = _Stdout()
            else:
                kept = open_sink(stack.enter_context(_beside(self._out)), self._fmt, schema)
            rejected = _All(sinks)
            stack.callback(rejected.abort)
            stack.callback(kept.abort)
            page = None if self._report is None else stack.enter_context(_beside(self._report))
            yield Writing(kept, rejected if sinks else None, folder, page)
            kept.close()
            rejected.close()


class Writing:
    """Rows on their way to where they belong."""

    def __init__(
        self, kept: Sink, rejected: Sink | None, folder: Path | None, page: Path | None
    ) -> None:
        self._kept, self._rejected, self._folder, self._page = kept, rejected, folder, page

    def write(self, chunk: Chunk, verdicts: Sequence[Verdict]) -> None:
        """Write the rows of `chunk` by their verdicts."""
        kept = [at for at, verdict in enumerate(verdicts) if verdict.kept]
        if kept:
            self._kept.write(chunk, kept, None)
        if self._rejected is not None and len(kept) < len(verdicts):
            gone = [at for at, verdict in enumerate(verdicts) if not verdict.kept]
            self._rejected.write(chunk, gone, [said_of(verdicts[at]) for at in gone])

    def describe(self, funnel: RowFunnel, data: str) -> None:
        """In a folder, write its card and its mark."""
        if self._folder is not None:
            describe_folder(self._folder, funnel, data)

    def report(self, html: str) -> None:
        """Write the page, where one is asked for."""
        if self._page is not None:
            self._page.write_text(html, "utf-8", "backslashreplace")


class _LateSink:
    """Parquet that is there only if there are rows: `datasets` cannot load a split without any."""

    def __init__(self, path: Path, schema: Any) -> None:
        self._path, self._schema = path, schema
        self._sink: Sink | None = None

    def write(self, chunk: Chunk, positions: Sequence[int], added: Any) -> None:
        if self._sink is None:
            self._path.parent.mkdir(parents=True)
            self._sink = open_sink(self._path, "parquet", self._schema, lenient=True)
        self._sink.write(chunk, positions, added)

    def close(self) -> None:
        if self._sink is not None:
            self._sink.close()

    def abort(self) -> None:
        if self._sink is not None:
            self._sink.abort()


class _All:
    """Rows to several places, or to none."""

    def __init__(self, sinks: Sequence[Sink]) -> None:
        self._sinks = sinks

    def write(self, chunk: Chunk, positions: Sequence[int], added: Any) -> None:
        for sink in self._sinks:
            sink.write(chunk, positions, added)

    def close(self) -> None:
        for sink in self._sinks:
            sink.close()

    def abort(self) -> None:
        for sink in self._sinks:
            sink.abort()


class _Stdout:
    """JSON lines to standard output."""

    def write(self, chunk: Chunk, positions: Sequence[int], added: Any) -> None:
        for line in lines_of(chunk, positions, added):
            sys.stdout.buffer.write(line + b"\n")

    def close(self) -> None:
        sys.stdout.buffer.flush()

    def abort(self) -> None:
        pass


@contextlib.contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """A file to write that becomes `path` when the block ends; removed if the block raises."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
        part.with_name(f"{part.name}.rows").unlink(missing_ok=True)


def _check_folder(path: Path) -> None:
    """Refuse to replace a folder that holds anything else than what was written here."""
    if not path.is_dir():
        raise FolderError(f"{path}: is a file; name a folder, or a file with an ending")
    if any(path.iterdir()) and not (path / MARK).is_file():
        raise FolderError(
            f"{path}: holds other files, so it is not replaced; name another folder, or a file"
        )


def describe_folder(folder: Path, funnel: RowFunnel, data: str) -> None:
    """Write a folder's card, and the mark by which `--force` knows it."""
    (folder / "README.md").write_text(_card(funnel, data), "utf-8")
    told = orjson.dumps(msgspec.to_builtins(funnel), option=orjson.OPT_INDENT_2)
    (folder / MARK).write_bytes(told + b"\n")


def _card(funnel: RowFunnel, data: str) -> str:
    """A short README.md: the front matter that names the files, and the funnel."""
    configs = [{"config_name": "default", "data_files": "data/train-*.parquet"}]
    if funnel.rejected:
        configs.append({"config_name": "rejected", "data_files": "rejected/train-*.parquet"})
    front = yaml.safe_dump({"configs": configs}, sort_keys=False)
    rows = [("read", funnel.read), ("kept", funnel.kept), *funnel.rejected.items()]
    table = "\n".join(f"| {name} | {number:,} |" for name, number in rows)
    return (
        f"---\n{front}---\n\n# Rows of {Path(data).name} after filtering\n\n"
        f"| | rows |\n|---|---:|\n{table}\n"
    )
