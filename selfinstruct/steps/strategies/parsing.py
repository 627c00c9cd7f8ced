"""Reading tasks out of replies.

The labels Instruction, Input and Output may be numbered, bold, indented or in headings; the reply
may start inside the first instruction (because the prompt ended with its label), repeat the
examples, skip inputs, or be cut anywhere. Nothing is thrown away here: what is not a whole task
comes back as a candidate with a defect, so that the funnel adds up.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec

from selfinstruct.core.ids import candidate_id
from selfinstruct.core.types import Candidate, Completion, Request

# Defects; each is a reject reason of the same name.
UNPARSEABLE = "unparseable"  # nothing in the reply looks like a task
INCOMPLETE = "incomplete"  # the reply was cut off inside this task
MALFORMED = "malformed"  # a task without output, or with labels out of order
NOTHING_TO_ASK = "nothing_to_ask"  # the teacher found no question in its passage

# Both begin with the end of the line before, not with "^": a pattern that begins with a letter is
# looked for several times as fast, and the text gets a line before its first.
_LABEL = re.compile(
    r"\n[ \t]*(?:#{1,6}[ \t]*)?(?:[-*][ \t]+)?[*_]{0,2}"
    r"(?:Task[ \t]+)?(?:(\d{1,3})[.):][ \t]*)?[*_]{0,2}"
    r"(Instruction|Input|Output)[*_]{0,2}[ \t]*:[*_]{0,2}[ \t]*",
    re.IGNORECASE,
)
_RULE = re.compile(r"\n[ \t]*(?:#{2,}|-{3,}|\*{3,}|={3,})[ \t]*(?=\n|\Z)")
_NO_INPUT = re.compile(
    r"^[<\[(\"']*\s*(?:no\s*-?\s*input(?:\s+(?:is\s+)?(?:needed|required|necessary|provided))?|"
    r"none|n/?a|not applicable|empty|null)\s*[>\])\"'.]*$",
    re.IGNORECASE,
)


class Item(msgspec.Struct):
    """One task as found in a reply: `fields` by lower-case label, in the order they came."""

    fields: dict[str, str]
    repeated: bool = False


def clean_input(text: str) -> str:
    """`text`, or nothing where it is one of the many spellings of "no input"."""
    stripped = text.strip()
    return "" if _NO_INPUT.match(stripped) else stripped


def numbered_items(text: str, continues_instruction: bool) -> list[Item]:
    """The tasks of a reply in order.

    Args:
        text: the reply.
        continues_instruction: the prompt ended with the label of an instruction, so text before
            the first label is one.
    """
    text = "\n" + text
    labels = list(_LABEL.finditer(text))
    # Where labels are numbered, a bare "Output:" belongs to a task's own text.
    if any(label[1] for label in labels):
        labels = [label for label in labels if label[1]]
    items: list[Item] = []
    lead = _without_rules(text[: labels[0].start()] if labels else text)
    if lead and continues_instruction and labels and labels[0][2].lower() != "instruction":
        items.append(Item({"instruction": lead}))
    for name, value in _labelled(text, labels):
        if name == "instruction" or not items:
            items.append(Item({}))
        if name in items[-1].fields:
            items[-1].repeated = True
        else:
            items[-1].fields[name] = value
    return items


def _labelled(text: str, labels: list[re.Match[str]]) -> Iterator[tuple[str, str]]:
    for position, label in enumerate(labels):
        end = labels[position + 1].start() if position + 1 < len(labels) else len(text)
        yield label[2].lower(), _without_rules(text[label.end() : end])


def _without_rules(text: str) -> str:
    """`text`, stripped, without the lines that only separate; most texts have none."""
    if "##" in text or "---" in text or "***" in text or "===" in text:
        text = _RULE.sub("\n", "\n" + text)
    return text.strip()


def candidates_from_items(
    items: list[Item], request: Request, completion: Completion
) -> list[Candidate]:
    """A candidate for each task, the cut or malformed ones with their defect."""
    if not items:
        return [whole_reply(request, completion, UNPARSEABLE)]
    cut = completion.finish == "length"
    found = []
    for index, item in enumerate(items):
        defect = ""
        if cut and index == len(items) - 1:
            defect = INCOMPLETE
        elif item.repeated or not {"instruction", "output"} <= item.fields.keys():
            defect = MALFORMED
        found.append(
            candidate(
                request,
                completion,
                index,
                instruction=item.fields.get("instruction", ""),
                input=clean_input(item.fields.get("input", "")),
                output=item.fields.get("output", ""),
                defect=defect,
            )
        )
    return share_cost(found, completion.cost)


def whole_reply(request: Request, completion: Completion, defect: str) -> Candidate:
    """The reply as one defective candidate, its text in `output` for people to look at."""
    return candidate(
        request, completion, 0, output=completion.text, defect=defect, cost=completion.cost
    )


def candidate(
    request: Request,
    completion: Completion,
    index: int,
    *,
    instruction: str = "",
    input: str = "",
    output: str = "",
    defect: str = "",
    cost: int = 0,
) -> Candidate:
    """A candidate with its genealogy filled in from the request."""
    return Candidate(
        id=candidate_id(request.id, index),
        slot=request.slot,
        index=index,
        strategy=request.strategy,
        instruction=instruction,
        input=input,
        output=output,
        defect=defect,
        parents=request.parents,
        requests=(request.id,),
        prompt_version=request.prompt_version,
        teacher=request.teacher,
        model=completion.model or request.model,
        cost=cost,
    )


def share_cost(candidates: list[Candidate], cost: int) -> list[Candidate]:
    """`cost` divided over `candidates` to the last picodollar, the first taking the remainder."""
    share, rest = divmod(cost, len(candidates))
    return [
        msgspec.structs.replace(c, cost=share + (rest if index == 0 else 0))
        for index, c in enumerate(candidates)
    ]


def with_answer(
    written: Candidate,
    request: Request,
    completion: Completion,
    *,
    input: str = "",
    output: str,
    defect: str = "",
) -> Candidate:
    """`written` with what a second call added to it: text, defect, request and cost."""
    return msgspec.structs.replace(
        written,
        input=input or written.input,
        output=output,
        defect=defect or (INCOMPLETE if completion.finish == "length" else ""),
        requests=(*written.requests, request.id),
        cost=written.cost + completion.cost,
    )
