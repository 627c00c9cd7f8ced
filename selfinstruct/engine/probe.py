"""Whether a server holds its replies to a JSON schema: asked once, remembered in the ledger.

A server may refuse ``response_format``, ignore it, or follow it; documentation and model names do
not tell which. One small call does: its text asks for a word that the schema does not allow.
"""

from __future__ import annotations

from typing import Any

import orjson

from selfinstruct.core.ids import make_request
from selfinstruct.core.types import Completion, Message, Request, Sampling
from selfinstruct.engine.dispatch import Dispatcher
from selfinstruct.engine.ledger import Ledger
from selfinstruct.engine.route import Route

ALLOWED = ("copper", "tin")
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"metal": {"type": "string", "enum": list(ALLOWED)}},
    "required": ["metal"],
    "additionalProperties": False,
}
QUESTION = "Say hello in one word."
# Of no slot: the funnel leaves it out, the bill does not.
NO_SLOT = -1
# One reply may be a refusal or cut short; a server that follows schemas does so the second time.
TRIES = 2


async def follows_schema(route: Route, dispatcher: Dispatcher, ledger: Ledger) -> bool:
    """Whether `route`'s teacher follows a JSON schema; one or two paid calls in a run's life.

    Raises what `Dispatcher.call` raises.
    """
    key = f"json_schema:{route.teacher.id}"
    remembered = ledger.meta(key)
    if remembered is None:
        remembered = "no"
        for sample in range(TRIES):
            completion = await dispatcher.call(route, _question(route, sample))
            if _followed(completion):
                remembered = "yes"
                break
        ledger.set_meta(key, remembered)
    return remembered == "yes"


def _question(route: Route, sample: int) -> Request:
    return make_request(
        teacher=route.teacher.id,
        model=route.teacher.model,
        sampling=Sampling(max_tokens=64, schema=SCHEMA, seed=sample + 1),
        messages=(Message("user", QUESTION),),
        prompt_version="probe@1",
        sample=sample,
        slot=NO_SLOT,
        strategy="probe",
    )


def _followed(completion: Completion) -> bool:
    try:
        reply = orjson.loads(completion.text)
    except ValueError:
        return False
    return isinstance(reply, dict) and reply.get("metal") in ALLOWED
