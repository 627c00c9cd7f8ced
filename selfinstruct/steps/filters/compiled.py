"""What the compiled indexes share: compiling with numba, and an arena of posting lists.

numba (extra `fast`) turns the functions marked `@compiled` into machine code. That takes some
seconds once; the result is kept in the user's cache folder, and where that cannot be written, in
memory alone. This module and those that import it are imported only where numba is installed.

The arena is one address space of 64-bit integers over a tuple of segments, each twice as large as
the one before. It grows by a new segment and never copies what it holds, so no addition waits for a
copy; the system hands out the zeroed pages of a segment as they are first touched. It holds three
kinds of things:

- records: what an index needs to look at a text again;
- posting lists: for each key the texts that have it, newest first, in chunks that double up to
  `MAX_CHUNK` entries, so that a scan reads contiguous memory;
- hash tables from keys to lists, open addressing, each twice as large as the one before. A full one
  stays as it is and the next takes the keys to come; a search asks all of them, oldest first.

All arithmetic is on int64, whose overflow wraps; numba would turn mixed signs into floats.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt

F = TypeVar("F", bound=Callable[..., Any])
Array = npt.NDArray[np.int64]
Segments = tuple[Array, ...]

SEGMENTS = 12  # of the tuple, whose length is part of the compiled functions' type
FIRST_SEGMENT = 1 << 20  # integers
MAX_CHUNK = 32  # entries
FIRST_TABLE = 1 << 15  # slots
_GENERATION = 170_000  # words of a dictionary; one that grows further halts for longer

# Places in `meta`, the index's own numbers.
SEGMENT, USED, TABLES, KEYS, ROWS, STAMP = 0, 1, 2, 3, 4, 5
TABLE_AT, TABLE_SIZE = 16, 48  # the address and slots of each table from there on
META = 80

# An entry is a record's address (35 bits), its number of elements and the place of the key in it.
COUNT_BITS = 14
COUNT_MASK = (1 << COUNT_BITS) - 1
LIST = -(1 << 63)  # the sign marks a slot's value as a list's address and not one entry


def _cache_folder() -> Path | None:
    """A folder for machine code that belongs to these very sources, or None."""
    from selfinstruct.steps.teachers.models import cache_folder

    here = Path(__file__).parent
    # numba looks at the file of a function alone, not at those of the functions it calls.
    sources = b"".join(path.read_bytes() for path in sorted(here.glob("*compiled*.py")))
    folder = cache_folder() / "numba" / hashlib.sha256(sources).hexdigest()[:16]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return folder if os.access(folder, os.W_OK) else None


_FOLDER = _cache_folder()


def compiled(function: F) -> F:
    """`function` compiled on its first call, or taken from the cache."""
    before = numba.config.CACHE_DIR
    numba.config.CACHE_DIR = str(_FOLDER or "")
    try:
        made = numba.njit(cache=_FOLDER is not None, nogil=True, error_model="numpy")(function)
    finally:
        numba.config.CACHE_DIR = before
    return cast(F, made)


class WordIds(dict[str, int]):
    """Words by number, counted up from 0 as they are asked for: ``ids[word]``.

    Past `_GENERATION` words, further dictionaries take the next ones: to grow, a dictionary moves
    all it holds at once.
    """

    def __init__(self) -> None:
        self._count = 0
        self._later: list[dict[str, int]] = []

    def __missing__(self, word: str) -> int:
        for generation in self._later:
            if (known := generation.get(word)) is not None:
                return known
        newest: dict[str, int] = self._later[-1] if self._later else self
        if len(newest) >= _GENERATION:
            newest = {}
            self._later.append(newest)
        number = newest[word] = self._count
        self._count += 1
        return number

    def learn(self, texts: Iterable[Sequence[str]]) -> None:
        """Number the words of `texts`, the most frequent first; ties as they are met."""
        for word, _ in Counter(chain.from_iterable(texts)).most_common():
            self[word]


def new_segments() -> Segments:
    """An empty arena: two segments that can be written to, and places for those to come."""
    return tuple(np.zeros(FIRST_SEGMENT << at if at < 2 else 0, np.int64) for at in range(SEGMENTS))


def grown(segments: Segments, meta: Array) -> Segments:
    """The arena with a segment ready after the one in use."""
    at = int(meta[SEGMENT]) + 1
    if at == SEGMENTS:
        raise MemoryError(f"an index of texts is limited to {SEGMENTS} segments")
    if len(segments[at]):
        return segments
    fresh = np.zeros(FIRST_SEGMENT << at, np.int64)
    return (*segments[:at], fresh, *segments[at + 1 :])


@compiled
def has_room(segments: Segments, meta: Array, wanted: int) -> bool:
    """Whether `wanted` integers and a new table fit: here, or in a segment that is ready."""
    last = meta[TABLES] - 1
    if last < 0:
        wanted += 2 * FIRST_TABLE
    else:
        wanted += 4 * meta[TABLE_SIZE + last]
    at = meta[SEGMENT]
    if meta[USED] + wanted <= len(segments[at]):
        return True
    return at + 1 < SEGMENTS and wanted <= len(segments[at + 1])


@compiled
def allocate(segments: Segments, meta: Array, size: int) -> int:
    """The even address of `size` zeroed integers in a row; `has_room` must have said yes."""
    size += size & 1
    if meta[USED] + size > len(segments[meta[SEGMENT]]):
        meta[SEGMENT] += 1
        meta[USED] = 0
    address = (meta[SEGMENT] << 31) | meta[USED]
    meta[USED] += size
    return address


@compiled
def offset(address: int) -> int:
    """Where in its segment an address is; the segment is ``address >> 31``."""
    return address & 0x7FFFFFFF


@compiled
def mixed(key: int) -> int:
    """The key's bits, well spread over the lower ones."""
    key = key * -7046029254386353131  # 2**64 / golden ratio
    return key ^ ((key >> 32) & 0xFFFFFFFF)


@compiled
def find(segments: Segments, meta: Array, key: int) -> int:
    """The value of `key`: an entry, or `LIST` and the address of its newest chunk; 0 for none."""
    spread = mixed(key)
    for table in range(meta[TABLES]):
        address = meta[TABLE_AT + table]
        slots = segments[address >> 31]
        begin = offset(address)
        mask = meta[TABLE_SIZE + table] - 1
        at = spread & mask
        while True:
            held = slots[begin + 2 * at]
            if held == key:
                return slots[begin + 2 * at + 1]
            if held == 0:
                break
            at = (at + 1) & mask
    return 0


@compiled
def place(segments: Segments, meta: Array, key: int) -> int:
    """The address of the value of `key`, which is put in if it is new."""
    spread = mixed(key)
    for table in range(meta[TABLES]):
        address = meta[TABLE_AT + table]
        size = meta[TABLE_SIZE + table]
        slots = segments[address >> 31]
        begin = offset(address)
        at = spread & (size - 1)
        while True:
            held = slots[begin + 2 * at]
            if held == key:
                return address + 2 * at + 1
            if held == 0:
                break
            at = (at + 1) & (size - 1)
        if table == meta[TABLES] - 1 and 10 * meta[KEYS] < 7 * size:
            slots[begin + 2 * at] = key
            meta[KEYS] += 1
            return address + 2 * at + 1
    size = FIRST_TABLE
    if meta[TABLES] > 0:
        size = 2 * meta[TABLE_SIZE + meta[TABLES] - 1]
    address = allocate(segments, meta, 2 * size)
    meta[TABLE_AT + meta[TABLES]] = address
    meta[TABLE_SIZE + meta[TABLES]] = size
    meta[TABLES] += 1
    meta[KEYS] = 1
    at = spread & (size - 1)
    segments[address >> 31][offset(address) + 2 * at] = key
    return address + 2 * at + 1


@compiled
def post(segments: Segments, meta: Array, key: int, entry: int, extra: int, width: int) -> None:
    """Put an entry of `width` integers, `entry` and perhaps `extra`, into the list of `key`.

    A first entry of one integer needs no list. A chunk is its head (the next chunk's address, its
    capacity and how many entries it holds) and its entries.
    """
    slot = place(segments, meta, key)
    slots = segments[slot >> 31]
    value = slots[offset(slot)]
    if value == 0 and width == 1:
        slots[offset(slot)] = entry
        return
    inline = 0
    capacity = 1
    following = 0
    if value > 0:
        inline = value
        capacity = 3
    elif value < 0:
        following = value ^ LIST
        chunk = segments[following >> 31]
        begin = offset(following)
        head = chunk[begin]
        used = head & 0xFF
        capacity = (head >> 8) & 0xFF
        if used < capacity:
            at = begin + 1 + used * width
            chunk[at] = entry
            if width == 2:
                chunk[at + 1] = extra
            chunk[begin] = head + 1
            return
        capacity = min(2 * capacity + 1, MAX_CHUNK)
    address = allocate(segments, meta, 1 + capacity * width)
    chunk = segments[address >> 31]
    begin = offset(address)
    used = 0
    if inline != 0:
        chunk[begin + 1] = inline
        used = 1
    at = begin + 1 + used * width
    chunk[at] = entry
    if width == 2:
        chunk[at + 1] = extra
    chunk[begin] = (following << 16) | (capacity << 8) | (used + 1)
    slots[offset(slot)] = address | LIST


@compiled
def ones(bits: int) -> int:
    """How many bits are set."""
    bits = bits - ((bits >> 1) & 0x5555555555555555)
    bits = (bits & 0x3333333333333333) + ((bits >> 2) & 0x3333333333333333)
    bits = (bits + (bits >> 4)) & 0x0F0F0F0F0F0F0F0F
    return (bits * 0x0101010101010101) >> 56


@compiled
def sort(values: Array, count: int) -> None:
    """Sort the first `count` values, ascending, in place (Shell's sort with Ciura's gaps)."""
    gap = 1
    while gap < count:
        gap = 4 if gap == 1 else (10 if gap == 4 else gap * 9 // 4 + 1)
    while gap > 0:
        for at in range(gap, count):
            value = values[at]
            to = at
            while to >= gap and values[to - gap] > value:
                values[to] = values[to - gap]
                to -= gap
            values[to] = value
        gap = gap * 4 // 9 if gap > 1 else 0


@compiled
def word_at(segment: Array, begin: int, at: int) -> int:
    """Word `at` of those packed two to an integer from `begin` on."""
    return (segment[begin + (at >> 1)] >> (32 * (at & 1))) & 0xFFFFFFFF


@compiled
def store_words(segment: Array, begin: int, words: npt.NDArray[np.int32]) -> None:
    """Pack word ids two to an integer from `begin` on; that memory is zero."""
    for at in range(len(words)):
        segment[begin + (at >> 1)] |= np.int64(words[at]) << (32 * (at & 1))
