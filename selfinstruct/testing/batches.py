"""The batch APIs of OpenAI and Anthropic, as the fake server speaks them.

A batch is answered with what single calls of the same bodies would get, in shuffled order.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from collections.abc import Callable, Mapping
from random import Random
from typing import TYPE_CHECKING, Any

import orjson

from selfinstruct.testing import bodies, broken, faults
from selfinstruct.testing.batch_forms import (
    CHAT,
    Batch,
    Item,
    Options,
    Stats,
    Write,
    chat_batch,
    line,
    message_batch,
    with_ends,
)

if TYPE_CHECKING:
    from aiohttp import web

__all__ = ["Batch", "Batches", "Options", "Stats"]

_CUSTOM_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")


class Batches:
    """The state of all batches and the handlers of both protocols.

    Args:
        options: how batches are dealt with.
        seed: of what is drawn.
        write: writes the replies.
        authorized: whether a call has the key.
    """

    def __init__(
        self,
        options: Options,
        seed: int,
        write: Write,
        authorized: Callable[[web.Request], bool],
    ) -> None:
        self.options = options
        self.stats = Stats()
        self.batches: dict[str, Batch] = {}
        self._write = write
        self._authorized = authorized
        self._seed = seed
        self._files: dict[str, bytes] = {}
        self.creations_asked = 0
        self._made = asyncio.Event()

    def add_routes(self, app: web.Application) -> None:
        """Add the endpoints of both protocols."""
        for method, path, handler in (
            ("POST", "/v1/files", self._upload),
            ("GET", "/v1/files/{file}/content", self._content),
            ("POST", "/v1/batches", self._create_chat),
            ("GET", "/v1/batches", self._list_chat),
            ("GET", "/v1/batches/{batch}", self._show),
            ("POST", "/v1/batches/{batch}/cancel", self._cancel),
            ("POST", "/v1/messages/batches", self._create_messages),
            ("GET", "/v1/messages/batches", self._list_messages),
            ("GET", "/v1/messages/batches/{batch}", self._show),
            ("POST", "/v1/messages/batches/{batch}/cancel", self._cancel),
            ("GET", "/v1/messages/batches/{batch}/results", self._results),
        ):
            app.router.add_route(method, path, self._guarded(handler))

    def _guarded(self, handler: Callable[[web.Request], Any]) -> Callable[[web.Request], Any]:
        async def handle(request: web.Request) -> web.StreamResponse:
            if not self._authorized(request):
                return broken.refuse(_protocol(request), faults.REFUSALS["401"])
            try:
                return await handler(request)  # type: ignore[no-any-return]
            except _Refused as refused:
                return broken.refuse(_protocol(request), faults.REFUSALS[refused.args[0]])

        return handle

    # -- creating -----------------------------------------------------------------------------

    async def _upload(self, request: web.Request) -> web.Response:
        fields: dict[str, bytes] = {}
        async for part in await request.multipart():
            fields[part.name] = bytes(await part.read())  # type: ignore[union-attr, index]
        if fields.get("purpose") != b"batch" or "file" not in fields:
            raise _Refused("400")
        name = f"file-{len(self._files)}"
        self._files[name] = fields["file"]
        made = {
            "id": name,
            "object": "file",
            "bytes": len(fields["file"]),
            "purpose": "batch",
            "created_at": int(time.time()),
            "filename": "batch.jsonl",
            "status": "processed",
        }
        return broken.as_json(orjson.dumps(made))

    async def _create_chat(self, request: web.Request) -> web.StreamResponse:
        asked = orjson.loads(await request.read())
        file = self._files.get(asked["input_file_id"])
        if file is None or asked["endpoint"] != CHAT or asked["completion_window"] != "24h":
            raise _Refused("400")
        lines = [orjson.loads(each) for each in file.splitlines()]
        if any(each["method"] != "POST" or each["url"] != CHAT for each in lines):
            raise _Refused("400")
        items = [(each["custom_id"], each["body"]) for each in lines]
        metadata = asked.get("metadata") or {}
        marker = str(metadata.get("selfinstruct", ""))
        return await self._create(request, "chat", items, marker, metadata, asked["input_file_id"])

    async def _create_messages(self, request: web.Request) -> web.StreamResponse:
        whole = b"".join([chunk async for chunk in request.content.iter_any()])
        items = [(i["custom_id"], i["params"]) for i in orjson.loads(whole)["requests"]]
        if not all(_CUSTOM_ID.fullmatch(name) for name, _ in items):
            raise _Refused("400")
        marker = items[0][0].partition("_")[2] if items else ""
        return await self._create(request, "messages", items, marker, {}, "")

    async def _create(
        self,
        request: web.Request,
        protocol: bodies.Protocol,
        asked: list[tuple[str, dict[str, Any]]],
        marker: str,
        metadata: Mapping[str, str],
        file: str,
    ) -> web.StreamResponse:
        """Create a batch, as far as the script of creations lets it."""
        number, self.creations_asked = self.creations_asked, self.creations_asked + 1
        script = self.options.creations
        happens = script[number] if number < len(script) else "ok"
        names = {name for name, _ in asked}
        models = {body.get("model") for _, body in asked}
        if not asked or len(names) != len(asked) or (protocol == "chat" and len(models) != 1):
            raise _Refused("400")
        if happens in faults.REFUSALS:
            raise _Refused(happens)
        if happens == "reset_after_next":
            self._made.clear()
            await self._made.wait()
        if happens in ("reset_before", "reset_after_next"):
            return await broken.reset(request)
        items = [Item(name, body, bodies.digest(body)) for name, body in asked]
        fates, number = self.options.fates, len(self.batches)
        batch = Batch(
            id=f"{'batch' if protocol == 'chat' else 'msgbatch'}_{number:06}",
            protocol=protocol,
            items=items,
            fate=fates[number] if number < len(fates) else "ok",
            created=time.time(),
            metadata=metadata,
            input_file=file,
        )
        self.batches[batch.id] = batch
        self._made.set()
        self.stats.created += 1
        self.stats.markers[marker] += 1
        self.stats.items.update(item.digest for item in items)
        if happens == "reset_after":
            return await broken.reset(request)
        return broken.as_json(orjson.dumps(self._described(batch, request)))

    # -- looking ------------------------------------------------------------------------------

    def _batch(self, request: web.Request) -> Batch:
        batch = self.batches.get(request.match_info["batch"])
        if batch is None or batch.protocol != _protocol(request):
            raise _Refused("404")
        return batch

    async def _show(self, request: web.Request) -> web.Response:
        return broken.as_json(orjson.dumps(self._described(self._batch(request), request)))

    async def _cancel(self, request: web.Request) -> web.Response:
        batch = self._batch(request)
        if not self._has_ended(batch):
            batch.canceled = True
            self._work(batch)
        return broken.as_json(orjson.dumps(self._described(batch, request)))

    async def _list_chat(self, request: web.Request) -> web.Response:
        page, more = self._page(request, request.query.get("after"))
        listed = {"object": "list", "data": page, "has_more": more}
        return broken.as_json(orjson.dumps(with_ends(listed, page)))

    async def _list_messages(self, request: web.Request) -> web.Response:
        page, more = self._page(request, request.query.get("after_id"))
        return broken.as_json(orjson.dumps(with_ends({"data": page, "has_more": more}, page)))

    def _page(self, request: web.Request, after: str | None) -> tuple[list[dict[str, Any]], bool]:
        """A page of the batches, newest first, and whether there are more."""
        protocol, seen_until = _protocol(request), time.time() - self.options.list_lag
        found = [
            batch
            for batch in reversed(self.batches.values())
            if batch.protocol == protocol and batch.created <= seen_until
        ]
        if after:
            found = found[[batch.id for batch in found].index(after) + 1 :]
        limit = int(request.query.get("limit", 20))
        page = [self._described(batch, request) for batch in found[:limit]]
        return page, len(found) > limit

    def _has_ended(self, batch: Batch) -> bool:
        if batch.outcomes is None and time.time() - batch.created >= self.options.seconds:
            self._work(batch)
        return batch.outcomes is not None

    def _described(self, batch: Batch, request: web.Request) -> dict[str, Any]:
        ended = self._has_ended(batch)
        counts = Counter(batch.outcomes or ())
        if batch.protocol == "messages":
            return message_batch(batch, ended, counts, f"{request.scheme}://{request.host}")
        return chat_batch(batch, ended, counts)

    # -- working ------------------------------------------------------------------------------

    def _work(self, batch: Batch) -> None:
        """Decide what becomes of each item, and count what is billed."""
        done = 1.0
        if batch.canceled:
            done = (time.time() - batch.created) / max(self.options.seconds, 1e-9)
        batch.outcomes = [self._outcome(batch, item, done) for item in batch.items]
        for item, outcome in zip(batch.items, batch.outcomes, strict=True):
            if outcome == "succeeded":
                written = self._write(batch.protocol, item.body, item.digest)
                self.stats.answered[item.digest] += 1
                self.stats.tokens_in += written.tokens_in
                self.stats.tokens_out += written.tokens_out

    def _outcome(self, batch: Batch, item: Item, done: float) -> str:
        if batch.fate in ("queue_full", "invalid"):
            return "rejected"
        options = self.options
        if Random(f"{self._seed} {item.digest} valid").random() < options.invalid:
            return "invalid"
        rng = Random(f"{self._seed} {item.digest} {batch.id}")
        whole = {"canceled": "canceled", "expired": "expired"}.get(batch.fate)
        if whole is not None and rng.random() < 0.5:
            return whole
        if rng.random() >= done:
            return "canceled"
        draw = rng.random()
        for name in ("errors", "expired", "missing"):
            draw -= getattr(options, name)
            if draw < 0:
                return {"errors": "errored"}.get(name, name)
        return "succeeded"

    async def _content(self, request: web.Request) -> web.StreamResponse:
        """The output file or the error file of a batch."""
        kind, _, name = request.match_info["file"].partition("-")
        batch = self.batches.get(name)
        if batch is None or batch.outcomes is None or kind not in ("output", "error"):
            raise _Refused("404")
        good = kind == "output"
        return await self._download(batch, request, lambda o: (o == "succeeded") == good)

    async def _results(self, request: web.Request) -> web.StreamResponse:
        batch = self._batch(request)
        if not self._has_ended(batch):
            raise _Refused("404")
        return await self._download(batch, request, lambda outcome: True)

    async def _download(
        self, batch: Batch, request: web.Request, takes: Callable[[str], bool]
    ) -> web.StreamResponse:
        """The results of a batch, line by line in shuffled order."""
        from aiohttp import web

        order = list(range(len(batch.items)))
        Random(f"{self._seed} {batch.id}").shuffle(order)
        outcomes = batch.outcomes or []
        chosen = [n for n in order if takes(outcomes[n]) and outcomes[n] != "missing"]
        batch.downloads += 1
        response = web.StreamResponse(headers={"Content-Type": "application/octet-stream"})
        await response.prepare(request)
        for place, n in enumerate(chosen):
            if batch.fate == "cut" and batch.downloads == 1 and place == len(chosen) // 2:
                return await broken.reset(request)
            result = line(batch, batch.items[n], outcomes[n], self._write)
            await response.write(orjson.dumps(result) + b"\n")
            if place % 50 == 0:
                await asyncio.sleep(0)
        return response


class _Refused(Exception):
    """The call gets the refusal of this name."""


def _protocol(request: web.Request) -> bodies.Protocol:
    return "messages" if request.path.startswith("/v1/messages") else "chat"
