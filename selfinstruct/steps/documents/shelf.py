"""A file or a folder of documents, as passages."""

from __future__ import annotations

import difflib
import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import msgspec

from selfinstruct.core.errors import DocumentError
from selfinstruct.core.shipped import find
from selfinstruct.core.types import Passage
from selfinstruct.steps.documents.blocks import Block
from selfinstruct.steps.documents.cutting import Piece, cut
from selfinstruct.steps.documents.pdf import pdf_blocks
from selfinstruct.steps.documents.plain import markdown_blocks, text_blocks
from selfinstruct.steps.documents.web import read_page
from selfinstruct.steps.documents.word import docx_blocks

READERS: dict[str, Callable[[Path], Iterable[Block]]] = {
    ".txt": lambda path: text_blocks(_text(path)),
    ".md": lambda path: markdown_blocks(_text(path)),
    ".markdown": lambda path: markdown_blocks(_text(path)),
    ".html": read_page,
    ".htm": read_page,
    ".pdf": pdf_blocks,
    ".docx": docx_blocks,
}
"""How a document is read, by the ending of its name."""
_PLACE = re.compile(r":\d+$")
NAMED = 5  # faulty files that an error names


class Shelf(msgspec.Struct):
    """The passages of one source or of several, and what of them gave none.

    `documents` counts the files that were read, and `files` are where they really are. `other` are
    files of another kind than `READERS` and folders of runs, `empty` those without a word,
    `pictures` pages without text, and `repeated` counts passages that were there already.
    """

    passages: list[Passage] = []
    documents: int = 0
    files: set[str] = set()
    other: list[str] = []
    empty: list[str] = []
    pictures: list[str] = []
    repeated: int = 0

    def in_short(self) -> str:
        """What was read and what was not, in a line; nothing where there are no documents."""
        if not self.documents:
            return ""
        said = [f"{_some(len(self.passages), 'passage')} of {_some(self.documents, 'document')}"]
        for names, what, why in (
            (self.other, "file", "of other kinds"),
            (self.empty, "file", "without text"),
            (self.pictures, "page", "without a text layer"),
        ):
            if names:
                shown = ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")
                said.append(f"left out {_some(len(names), what)} {why} ({shown})")
        if self.repeated:
            said.append(f"left out {_some(self.repeated, 'passage')} word for word like others")
        return "; ".join(said)


def _some(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def read_documents(
    path: Path, *, words: int, private: bool = False, limit: int | None = None
) -> Shelf:
    """The passages of a file, or of a folder with all below it, files in the order of their names.

    Args:
        path: hidden files and folders in it are passed over.
        words: words of a passage at most; see `cutting.cut`.
        private: marks every passage as private.
        limit: take at most this many passages.

    Raises `DocumentError` where nothing is there to read, or naming the files that cannot be read.
    """
    found = _found(path)
    shelf, faults = Shelf(), list[str]()
    seen: set[str] = set()
    if _is_run(found):
        raise DocumentError(f"{path}: the folder of a run; name one that holds documents")

    def pieces() -> Iterator[Passage]:
        for name, file in _files(found):
            if file.suffix.lower() not in READERS:
                shelf.other.append(name)
                continue
            try:
                blocks = _blocks(file)
            except (DocumentError, OSError) as error:
                faults.append(_said(file, error))
                continue
            shelf.pictures += [f"{name}:{block.place}" for block in blocks if not block.text]
            passages = _passages(name, file, cut(filter(_has_text, blocks), words), private)
            shelf.documents += 1
            shelf.files.add(os.path.realpath(file))
            if not passages:
                shelf.empty.append(name)
            for passage in passages:
                wording = _wording(passage)
                if wording in seen:
                    shelf.repeated += 1
                    continue
                seen.add(wording)
                yield passage

    shelf.passages = list(islice(pieces(), limit))
    if faults:
        more = f" (and {len(faults) - NAMED} more)" if len(faults) > NAMED else ""
        raise DocumentError("; ".join(faults[:NAMED]) + more)
    if not shelf.passages:
        raise DocumentError(f"{path}: {_nothing(found, shelf)}")
    return shelf


def endings(path: Path) -> set[str]:
    """The endings of the names of the files at `path`. Raises `DocumentError` where it is not."""
    return {file.suffix.lower() for _, file in _files(_found(path))}


def _found(path: Path) -> Path:
    found = find(path)
    if found is None:
        near: list[str] = []
        if path.parent.is_dir():
            names = [child.name for child in path.parent.iterdir()]
            near = difflib.get_close_matches(path.name, names, n=1)
        hint = f"; did you mean {path.parent / near[0]}?" if near else ""
        raise DocumentError(f"{path}: no such file or folder{hint}")
    return found


def _files(found: Path, above: frozenset[str] = frozenset()) -> Iterator[tuple[str, Path]]:
    """The files with their names within the source, and folders of runs, which hold no documents.

    None whose name begins with a dot. `above` are the folders that it is in: a link back to one of
    them is not followed.
    """
    if not found.is_dir():
        yield _shown(found.name), found
        return
    real = os.path.realpath(found)
    if real in above:
        return
    try:
        children = [(child, child.is_dir()) for child in sorted(found.iterdir())]
    except OSError as error:
        raise DocumentError(_said(found, error)) from None
    for child, is_folder in children:
        if child.name.startswith("."):
            continue
        if not is_folder or _is_run(child):
            yield _shown(child.name), child
            continue
        within = _files(child, above | {real})
        yield from ((f"{_shown(child.name)}/{name}", file) for name, file in within)


def _is_run(folder: Path) -> bool:
    """Whether it is a run's: its card and report say what the run wrote."""
    # The run that reads this may have no ledger yet.
    known = (folder / name for name in ("run.db", "run.lock"))
    return (folder / "recipe.yaml").is_file() and any(path.is_file() for path in known)


def _shown(name: str) -> str:
    """A file's name on one line, without what is not UTF-8."""
    return " ".join(name.encode("utf-8", "replace").decode().split())


def _blocks(file: Path) -> list[Block]:
    if file.exists() and not file.is_file():
        raise DocumentError(f"{file}: not a file (a pipe or a device, perhaps)")
    return list(READERS[file.suffix.lower()](file))


def _has_text(block: Block) -> bool:
    return bool(block.text)


def _passages(name: str, file: Path, pieces: Iterable[Piece], private: bool) -> list[Passage]:
    # Ids go wherever records go, and a file's name may say too much.
    shown = f"private-{_mark(name)}" if private else name
    return [
        Passage(
            # The mark changes with the text, so that a record never names another than it was
            # written from.
            id=f"{shown}#{number}-{_mark(piece.text)}",
            text=piece.text,
            title=piece.title or _shown(file.stem),
            source=f"{_shown(str(file))}:{piece.place}" if piece.place else _shown(str(file)),
            private=private,
        )
        for number, piece in enumerate(pieces, 1)
    ]


def _mark(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _text(path: Path) -> str:
    """The text of a file. Raises `DocumentError` where it is not UTF-8."""
    try:
        return path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DocumentError(
            f"{path}: not UTF-8 (byte {error.start}); save it as UTF-8, or iconv does"
        ) from None


def _said(file: Path, error: DocumentError | OSError) -> str:
    if isinstance(error, DocumentError):
        return _shown(str(error))
    return _shown(f"{file}: cannot be read ({error.strerror or error})")


def _wording(passage: Passage) -> str:
    return " ".join(passage.text.split())


def _nothing(found: Path, shelf: Shelf) -> str:
    if shelf.empty:
        return "holds no text" if not found.is_dir() else "its documents hold no text"
    known = ", ".join(READERS)
    if found.is_dir():
        return f"holds no documents (read are {known})"
    return f"not a kind of document that is read ({known})"


def together(shelves: Iterable[Shelf]) -> Shelf:
    """Several sources as one, without the passages that an earlier one has.

    A passage that any of them has as private is private. Raises `DocumentError` where two have a
    document in common.
    """
    whole = Shelf()
    places: dict[str, int] = {}
    for shelf in shelves:
        for file in sorted(shelf.files & whole.files):
            raise DocumentError(
                f"{_shown(file)}: the same document is in another source; leave one of them out"
            )
        for passage in shelf.passages:
            at = places.setdefault(_wording(passage), len(whole.passages))
            if at == len(whole.passages):
                whole.passages.append(passage)
                continue
            whole.repeated += 1
            if passage.private:
                whole.passages[at] = passage
        whole.documents += shelf.documents
        whole.files |= shelf.files
        whole.other += shelf.other
        whole.empty += shelf.empty
        whole.pictures += shelf.pictures
        whole.repeated += shelf.repeated
    return whole


def private_since(earlier: Iterable[Passage], passages: Sequence[Passage]) -> list[Passage]:
    """Those of `earlier` whose document or text is among the private ones of `passages`, marked.

    A document's ids change when it becomes private, and records name the earlier ones.
    """
    private = [passage for passage in passages if passage.private]
    marks = {mark for passage in private for mark in (passage.text, _document(passage))}
    known = {passage.id for passage in passages}
    return [
        msgspec.structs.replace(passage, private=True)
        for passage in earlier
        if not passage.private
        and passage.id not in known
        and not marks.isdisjoint((passage.text, _document(passage)))
    ]


def _document(passage: Passage) -> str:
    return _PLACE.sub("", passage.source)
