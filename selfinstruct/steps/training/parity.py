"""Whether a GGUF file says what the student says: the gate behind every export.

The file is served by the project's own llama.cpp child. On held-out prompts it must render the chat
template to the same text, cut it into the same token ids, and continue greedily as the model in
safetensors would: along the file's own answer both give a distribution over the next token, and the
model must agree with each choice and with its probability, as far as the file's precision allows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import orjson

from selfinstruct.core.errors import SelfInstructError, UserError
from selfinstruct.steps.privacy import Policy
from selfinstruct.steps.teachers.local import LocalTeacher
from selfinstruct.steps.training.format import StudentFormat
from selfinstruct.steps.training.loading import load_model

PROMPTS = 8
TOKENS = 24
# The likeliest tokens whose probabilities are compared at each place.
_TOP = 10
# Two tokens whose log-probabilities are this close are the same choice.
_TIE = 0.05
Row = Mapping[str, Any]


class Tolerance(msgspec.Struct, frozen=True):
    """The least share of places at which both choose the same token, and the largest mean
    difference of log-probabilities (nats)."""

    agreement: float
    difference: float


# Two to three times what SmolLM2-135M differed by, and small models suffer most from few bits. Its
# queries and keys left in the wrong order agreed on 49% and differed by 1.4.
TOLERANCES = {
    "f32": Tolerance(0.99, 0.02),
    "f16": Tolerance(0.98, 0.03),
    "bf16": Tolerance(0.95, 0.06),
    "q8_0": Tolerance(0.90, 0.15),
    "q6_k": Tolerance(0.85, 0.25),
    "q5_k_m": Tolerance(0.80, 0.40),
    "q4_k_m": Tolerance(0.70, 0.60),
}


class Parity(msgspec.Struct, frozen=True, kw_only=True):
    """How near a GGUF file is to the model it was made from, over `places` tokens of answers."""

    prompts: int
    places: int
    agreement: float
    difference: float


# What to take instead where a precision loses too much of a student.
_MORE_BITS = {"q4_k_m": "q6_k", "q5_k_m": "q8_0", "q6_k": "q8_0", "q8_0": "f16"}


class Served(msgspec.Struct, frozen=True):
    """What the server made of one prompt: its text and ids, and its greedy answer.

    `likely` holds the likeliest tokens at each place of the answer, with log-probabilities; it is
    empty where the token ends inside a character.
    """

    prompt: str
    ids: list[int]
    answer: list[int]
    likely: list[dict[int, float]]


async def check_gguf(
    path: Path, model: Path, form: StudentFormat, rows: Sequence[Row], precision: str
) -> Parity:
    """Compare the file at `path` with the model in the folder `model` on `rows`.

    Raises `SelfInstructError`, naming the first difference, where the file is wrong, and
    `UserError` where the precision is too low for this student.
    """
    served = await serve(path, form, rows)
    _check_tokens(form, rows, served)
    parity = compare(model, served)
    wanted = TOLERANCES[precision]
    if parity.agreement < wanted.agreement or parity.difference > wanted.difference:
        said = (
            f"it agrees with student/merged on {parity.agreement:.1%} of {parity.places} tokens "
            f"(at least {wanted.agreement:.0%} for {precision}) and differs by "
            f"{parity.difference:.3f} nats (at most {wanted.difference:g})"
        )
        if precision in _MORE_BITS:
            more = f"the student bears no {precision}; take --gguf {_MORE_BITS[precision]}"
            raise UserError(f"{_wrong(said)}; {more}")
        raise _wrong(said)
    return parity


async def serve(path: Path, form: StudentFormat, rows: Sequence[Row]) -> list[Served]:
    """What the llama.cpp server makes of the prompts of `rows`."""
    longest = max(len(ids) for ids in form.prompt_ids(rows))
    teacher = LocalTeacher(
        id="export",
        model=str(path),
        concurrency=1,
        context=2 * longest + TOKENS + 64,
        gpu_layers=0,  # the comparison is with float32 on the processor
        policy=Policy(local=True),
    )
    await teacher.start()
    try:
        return [await _served(teacher, form, row) for row in rows]
    finally:
        await teacher.close()


async def _served(teacher: LocalTeacher, form: StudentFormat, row: Row) -> Served:
    async def post(path: str, body: dict[str, Any]) -> Any:
        return orjson.loads(await teacher.server.post(path, orjson.dumps(body)))

    text = form.prompt(row)
    if form.kind == "chat":
        question = form.rendering.known(form.question(row))
        turns = [{"role": turn.role, "content": turn.content} for turn in question]
        text = (await post("apply-template", {"messages": turns}))["prompt"]
    asks = {"content": text, "add_special": True, "parse_special": True}
    ids = (await post("tokenize", asks))["tokens"]
    answer: list[int] = []
    likely: list[dict[int, float]] = []
    while len(answer) < TOKENS and not set(answer[-1:]) & set(form.stop_ids):
        # One token a call: within a longer answer the server leaves out the probabilities of tokens
        # that end inside a character, and does not say which.
        body = {
            "prompt": [*ids, *answer],
            "n_predict": 1,
            "temperature": 0,
            "n_probs": _TOP,
            "return_tokens": True,
            "cache_prompt": True,
        }
        reply = await post("completion", body)
        answer += reply["tokens"][:1]
        places = reply.get("completion_probabilities") or [{"top_logprobs": []}]
        likely.append({one["id"]: one["logprob"] for one in places[0]["top_logprobs"]})
        if len(answer) < len(likely):  # it stopped at a token that it keeps to itself
            return Served(text, ids, answer, likely[: len(answer)])
    return Served(text, ids, answer, likely)


def _check_tokens(form: StudentFormat, rows: Sequence[Row], served: Sequence[Served]) -> None:
    for row, ids, found in zip(rows, form.prompt_ids(rows), served, strict=True):
        if found.ids == ids:
            continue
        text = form.prompt(row)
        bos = form.tokenizer.bos_token or ""
        if found.prompt.removeprefix(bos) != text.removeprefix(bos):
            raise _wrong(
                f"its chat template writes record {row['id']} as {found.prompt[:80]!r}..., "
                f"trained was {text[:80]!r}..."
            )
        at = next(
            (n for n, pair in enumerate(zip(ids, found.ids, strict=False)) if pair[0] != pair[1]),
            min(len(ids), len(found.ids)),
        )
        raise _wrong(
            f"its tokenizer differs on record {row['id']} from token {at} on: "
            f"{found.ids[at : at + 4]} instead of {ids[at : at + 4]}"
        )


def compare(model: Path, served: Sequence[Served]) -> Parity:
    """How the model in the folder `model` judges the answers of the server."""
    import torch

    loaded = load_model(model, "student", device="cpu", dtype=torch.float32)
    agreed, places, differences = 0, 0, []
    with torch.inference_mode():
        for one in served:
            ids = torch.tensor([one.ids + one.answer])
            logits = loaded(input_ids=ids, use_cache=False).logits[0, len(one.ids) - 1 : -1]
            for place, token, likely in zip(
                logits.float().log_softmax(-1), one.answer, one.likely, strict=True
            ):
                places += 1
                agreed += int(place.max() - place[token] <= _TIE)
                if not likely:
                    continue
                theirs = torch.tensor(list(likely.values()))
                gap = (theirs - place[torch.tensor(list(likely))]).abs()
                differences.append(float((theirs.exp() * gap).sum()))
    if not differences:
        raise _wrong("it answers nothing")
    return Parity(
        prompts=len(served),
        places=places,
        agreement=round(agreed / places, 4),
        difference=round(sum(differences) / len(differences), 4),
    )


def _wrong(what: str) -> SelfInstructError:
    return SelfInstructError(
        f"the GGUF file does not say what the student says, so it was not kept: {what}"
    )
