"""Conflicts: reject an instruction with the same input as one already there.

With the same output it teaches nothing, with another one it teaches a contradiction.
"""

from __future__ import annotations

import hashlib

from selfinstruct.core.types import Candidate, SeedTask, Verdict
from selfinstruct.steps.words import same_wording

CONFLICTING = "conflicting_output"
EXACT_DUPLICATE = "exact_duplicate"
REASONS = {
    EXACT_DUPLICATE: "the same instruction, input and output were there already",
    CONFLICTING: "the same instruction and input were there already, with another output",
}


class Conflicting:
    """Rejects a second instruction and input that were added before.

    Instructions are the same as `words.same_wording` says. Inputs are data, where case, punctuation
    and line breaks may matter: they are the same if they differ in outer spaces only. Outputs are
    the same if they differ in spacing only.
    """

    name = "conflicting"

    def __init__(self) -> None:
        self._tasks: dict[bytes, str] = {}  # instruction and input -> id of the first
        self._answered: dict[bytes, str] = {}  # with output -> id of the first

    def check(self, candidate: Candidate) -> Verdict | None:
        """A verdict that names the seed or record with this instruction and input."""
        task, answered = _keys(candidate)
        neighbour = self._answered.get(answered)
        if neighbour is not None:
            reason, detail = EXACT_DUPLICATE, f"the same as {neighbour}"
        else:
            neighbour = self._tasks.get(task)
            if neighbour is None:
                return None
            reason, detail = CONFLICTING, f"{neighbour} has another output"
        return Verdict(candidate_id=candidate.id, reason=reason, detail=detail, neighbour=neighbour)

    def add(self, item: Candidate | SeedTask) -> None:
        """Remember a seed task or a kept candidate."""
        task, answered = _keys(item)
        self._tasks.setdefault(task, item.id)
        self._answered.setdefault(answered, item.id)


def _keys(item: Candidate | SeedTask) -> tuple[bytes, bytes]:
    """Hashes of instruction and input, and of both with the output.

    128 bits take a few bytes where the texts would be held twice, and do not collide.
    """
    parts = (same_wording(item.instruction), item.input.strip())
    # The lengths keep the parts apart, whatever characters they hold.
    task = hashlib.blake2b(f"{len(parts[0])}:{'|'.join(parts)}".encode(errors="surrogatepass"))
    output = " ".join(item.output.split()).encode(errors="surrogatepass")
    answered = hashlib.blake2b(task.digest() + output, digest_size=16)
    return task.digest()[:16], answered.digest()
