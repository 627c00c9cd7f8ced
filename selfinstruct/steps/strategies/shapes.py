"""What strategies take and give: the pool as one slot sees it, drafts of requests, the protocol."""

from __future__ import annotations

import random
from bisect import bisect_left
from collections.abc import Sequence
from functools import lru_cache
from typing import Protocol

import msgspec

from selfinstruct.core.types import (
    Candidate,
    Completion,
    Message,
    Passage,
    Request,
    Sampling,
    SeedTask,
)


class Example(msgspec.Struct, frozen=True):
    """A seed task or a kept record, as shown in a prompt."""

    id: str
    instruction: str
    input: str
    output: str


class Pool:
    """What to draw from: the seeds, the records kept so far, in order, and passages of documents.

    `seed` is the run's, which the order of the passages follows from.
    """

    def __init__(
        self, seeds: Sequence[SeedTask], passages: Sequence[Passage] = (), seed: int = 0
    ) -> None:
        self.seeds = [Example(s.id, s.instruction, s.input, s.output) for s in seeds]
        self.machine: list[Example] = []
        self.passages = passages
        self.about: dict[str, list[int]] = {passage.id: [] for passage in passages}
        self._seed = seed

    def add(self, record: Candidate) -> None:
        """Take in a kept record."""
        for parent in record.parents:
            if parent in self.about:
                self.about[parent].append(len(self.machine))
        self.machine.append(Example(record.id, record.instruction, record.input, record.output))

    def passage(self, slot: int) -> Passage:
        """The passage of a slot: all come once before any comes again, in another order each time.

        Raises `ValueError` where there are none.
        """
        if not self.passages:
            raise ValueError("there are no passages to ask about")
        turn, place = divmod(slot, len(self.passages))
        return self.passages[_shuffled(len(self.passages), f"{self._seed}/passages/{turn}")[place]]

    def view(
        self,
        machine: int,
        more_machine: int = 0,
        seeds: frozenset[str] = frozenset(),
        slot: int = 0,
    ) -> PoolView:
        """What a slot may know.

        Args:
            machine: only the first so many kept records are in sight.
            more_machine: so many of the seeds that a strategy asks for are to be kept records.
            seeds: the ids to draw seeds from; all where empty.
            slot: its number.
        """
        return PoolView(self, machine, more_machine, seeds, slot)


@lru_cache(maxsize=4)  # the slots under way are of one turn or two
def _shuffled(count: int, stream: str) -> list[int]:
    order = list(range(count))
    random.Random(stream).shuffle(order)
    return order


class PoolView:
    """The pool as it stood when the slot's window opened; later records are out of sight.

    `most` is how many examples a request may show, where it was too long with more.
    """

    def __init__(
        self,
        pool: Pool,
        machine: int,
        more_machine: int,
        seeds: frozenset[str],
        slot: int = 0,
        most: int | None = None,
    ) -> None:
        self._pool = pool
        self._machine = machine
        self.most = most
        self._more_machine = more_machine
        self._chosen_seeds = seeds
        self._slot = slot
        chosen = [example for example in pool.seeds if example.id in seeds] if seeds else []
        self._seeds = chosen or pool.seeds

    def passage(self) -> Passage:
        """The slot's passage. Raises `ValueError` where there are none."""
        return self._pool.passage(self._slot)

    def asked(self, passage: str, most: int) -> list[Example]:
        """The last `most` kept records about a passage, by its id, in order."""
        about = self._pool.about.get(passage, [])
        seen = bisect_left(about, self._machine)
        return [self._pool.machine[n] for n in about[max(0, seen - most) : seen]]

    def at_most(self, most: int) -> PoolView:
        """The same view, from which a draw gives no more than its `most` shortest examples."""
        return PoolView(
            self._pool, self._machine, self._more_machine, self._chosen_seeds, self._slot, most
        )

    def draw(self, rng: random.Random, seeds: int, machine: int) -> list[Example]:
        """`seeds` seed tasks and up to `machine` kept records, in random order.

        Where too few records were kept yet, seeds take their places; a pool smaller than what is
        asked for is given whole.
        """
        more = min(self._more_machine, seeds)
        available = min(machine + more, self._machine)
        chosen = [self._pool.machine[i] for i in rng.sample(range(self._machine), available)]
        wanted = seeds + machine - available
        # A narrowed choice of seeds is widened again rather than showing fewer examples.
        source = self._seeds if len(self._seeds) >= wanted else self._pool.seeds
        chosen += rng.sample(source, min(len(source), wanted))
        rng.shuffle(chosen)
        if self.most is None or len(chosen) <= self.most:
            return chosen
        shortest = sorted(range(len(chosen)), key=lambda n: (_length(chosen[n]), n))
        return [chosen[n] for n in sorted(shortest[: self.most])]


def _length(example: Example) -> int:
    return len(example.instruction) + len(example.input) + len(example.output)


class Draft(msgspec.Struct, frozen=True, kw_only=True):
    """A request before it is addressed to a teacher. One of `messages` and `prompt` is set."""

    messages: tuple[Message, ...] = ()
    prompt: str = ""
    sampling: Sampling
    prompt_version: str
    parents: tuple[str, ...] = ()


class Strategy(Protocol):
    """How new tasks are asked for and read from what comes back.

    `name` goes into the record. `tasks` is how many new ones a slot asks for. `two_step`
    strategies write instructions first; each is then answered by a second call, drafted by
    `answer` and read by `finish`.
    """

    name: str
    tasks: int
    two_step: bool

    def draw(self, view: PoolView, rng: random.Random) -> Draft:
        """The request of one slot, from its own random stream and its view of the pool."""
        ...

    def parse(self, request: Request, completion: Completion) -> list[Candidate]:
        """The candidates in a reply, complete or not; at least one, unless the call failed."""
        ...

    def answer(self, candidate: Candidate) -> Draft:
        """The second request, which answers a candidate's instruction."""
        ...

    def finish(self, candidate: Candidate, request: Request, completion: Completion) -> Candidate:
        """The candidate with its answer read from the second reply."""
        ...
