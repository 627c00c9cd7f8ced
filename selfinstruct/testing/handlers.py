"""The fake server's options, statistics and handlers; `fake_server` runs it."""

from __future__ import annotations

import asyncio
import math
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from selfinstruct.testing import batches, bodies, broken, faults, forms
from selfinstruct.testing.bodies import Protocol, Written
from selfinstruct.testing.quota import Quota

if TYPE_CHECKING:
    from aiohttp import web

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

# SmolLM2's template: a system message of its own, unless one is given.
_SYSTEM = "You are a helpful assistant."


@dataclass(frozen=True)
class Options:
    """How the server behaves."""

    seed: int = 0
    latency_ms: float = 0.0
    """Median time from request to reply."""
    sigma: float = 0.0
    """Spread of the latency (lognormal); 0 for a constant one."""
    share: forms.Share = field(default_factory=forms.Share)
    """How much of what it writes is bad."""
    faults: Mapping[str, float] = field(default_factory=dict)
    """Share of the attempts that meet each fault of `faults.NAMES`."""
    script: tuple[str, ...] = ()
    """Faults of the first calls in order of arrival; "ok" for none. Then `faults` applies."""
    template: str = "llama.cpp"
    """Whose way to the chat template it offers: "llama.cpp", "vllm" or "none"."""
    key: str = ""
    """The key it wants to see; any or none where empty."""
    schemas: str = "follows"
    """What it does with a JSON schema: "follows", "ignores" or "refuses"."""
    batch: batches.Options = field(default_factory=batches.Options)
    """How batches are dealt with."""
    context: int = 0
    """Tokens of prompt and reply that a call may ask for; any number for 0."""
    requests: int = 0
    """Requests allowed in `window_s`; any number for 0. What is left is in every reply's headers,
    and what is too much gets 429."""
    tokens: int = 0
    """The same for tokens, those of prompts and replies together."""
    window_s: float = 60.0
    reply_bytes: int = 0
    """Every reply's text is the same so many bytes of an Alpaca list, which cost nothing to write:
    for benchmarks. 0 for replies that are written for each request."""


@dataclass
class Stats:
    """What was asked and served, since the start."""

    calls: int = 0
    by_status: Counter[str] = field(default_factory=Counter)
    """HTTP statuses sent; "none" where a call ended without one."""
    by_fault: Counter[str] = field(default_factory=Counter)
    served: Counter[str] = field(default_factory=Counter)
    """Full replies with status 200, by the hash of the request's body."""
    attempts: Counter[str] = field(default_factory=Counter)
    """Calls, by the hash of the request's body."""
    tokens_in: int = 0
    """Tokens a provider would bill, those of useless replies included."""
    tokens_out: int = 0
    in_flight: int = 0
    max_in_flight: int = 0


class Received(NamedTuple):
    """A request as it came in."""

    path: str
    headers: dict[str, str]
    body: bytes


class FakeServer:
    """The server's state and its handlers; `application` makes it an aiohttp application."""

    def __init__(self, options: Options | None = None) -> None:
        self.options = options or Options()
        faults.check(self.options.faults, self.options.script)
        self.stats = Stats()
        self.requests: deque[Received] = deque(maxlen=100)
        """The last requests, for tests that look at what was sent."""
        self.batches = batches.Batches(
            self.options.batch, self.options.seed, self._write, self._authorized
        )
        self._latency = Random(f"latency {self.options.seed}")
        limits = self.options.requests, self.options.tokens
        self._quota = Quota(*limits, self.options.window_s) if any(limits) else None
        self._fixed = forms.fixed(self.options.reply_bytes, self.options.seed)

    def application(self) -> web.Application:
        """The aiohttp application."""
        from aiohttp import web

        app = web.Application(client_max_size=64 * 2**20)
        for path, protocol in bodies.PATHS.items():
            app.router.add_post(path, self._serving(protocol))
        self.batches.add_routes(app)
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/health", self._health)
        app.router.add_get("/stats", self._stats)
        if self.options.template == "llama.cpp":
            app.router.add_post("/apply-template", self._apply_template)
        if self.options.template == "vllm":
            app.router.add_post("/tokenize", self._tokenize)
            app.router.add_post("/detokenize", self._detokenize)
        return app

    def _serving(self, protocol: Protocol) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            stats, number = self.stats, self.stats.calls
            stats.calls += 1
            stats.in_flight += 1
            stats.max_in_flight = max(stats.max_in_flight, stats.in_flight)
            status = "none"
            try:
                response = await self._serve(protocol, request, number)
                if self._quota is not None and not response.prepared:
                    response.headers.update(self._quota.headers(protocol))
                status = str(response.status)
                return response
            finally:
                stats.in_flight -= 1
                stats.by_status[status] += 1

        return handle

    async def _serve(
        self, protocol: Protocol, request: web.Request, number: int
    ) -> web.StreamResponse:
        raw = await request.read()
        try:
            body = orjson.loads(raw)
        except orjson.JSONDecodeError:
            body = None
        digest = bodies.digest(body)
        fault = self._fault(digest, number)
        self.stats.by_fault[fault] += 1
        self.requests.append(Received(request.path, dict(request.headers), raw))
        if self.options.latency_ms:
            await asyncio.sleep(self._delay())
        if not self._authorized(request):
            fault = "401"
        refusal = faults.REFUSALS.get(fault)
        if refusal is not None:
            return broken.refuse(protocol, refusal)
        if body is None:
            return broken.refuse(protocol, faults.REFUSALS["400"])
        refusal = self._refusal(protocol, body)
        if refusal is not None:
            return broken.refuse(protocol, refusal)
        written = self._write(protocol, body, digest)
        if fault in faults.BILLED:
            self.stats.tokens_in += written.tokens_in
            self.stats.tokens_out += written.tokens_out
        reply = bodies.reply(protocol, str(body.get("model", "")), digest, written)
        if fault == "ok":
            self.stats.served[digest] += 1
            return broken.as_json(orjson.dumps(reply))
        return await broken.serve(fault, request, reply, protocol)

    def _refusal(self, protocol: Protocol, body: dict[str, Any]) -> faults.Refusal | None:
        """What speaks against a request that is in order: its size, or how many came before."""
        ask, prompt = bodies.read(protocol, body)
        if ask.schema is not None and self.options.schemas == "refuses":
            return faults.REFUSALS["400"]
        tokens = bodies.tokens(prompt) + bodies.limits(body)[0]
        if self.options.context and tokens > self.options.context:
            return faults.REFUSALS["context"]
        wait = self._quota.admit(tokens) if self._quota is not None else None
        if wait is None:
            return None
        return faults.REFUSALS["429"]._replace(headers={"Retry-After": f"{wait:.3f}"})

    def _fault(self, digest: str, number: int) -> str:
        attempt = self.stats.attempts[digest]
        self.stats.attempts[digest] = attempt + 1
        if number < len(self.options.script):
            return self.options.script[number]
        return faults.draw(self.options.faults, self.options.seed, digest, attempt)

    def _delay(self) -> float:
        sigma = self.options.sigma
        spread = math.exp(self._latency.gauss(0.0, sigma)) if sigma else 1.0
        return self.options.latency_ms / 1000 * spread

    def _authorized(self, request: web.Request) -> bool:
        key = self.options.key
        if not key:
            return True
        given = request.headers
        return given.get("x-api-key") == key or given.get("Authorization") == f"Bearer {key}"

    def _write(self, protocol: Protocol, body: dict[str, Any], digest: str) -> Written:
        ask, prompt = bodies.read(protocol, body)
        if self._fixed:
            return Written(self._fixed, "stop", bodies.tokens(prompt), bodies.tokens(self._fixed))
        if self.options.schemas == "ignores":
            ask = ask._replace(schema=None)
        rng = Random(f"{self.options.seed} {digest}")
        draft = forms.write(ask, rng, self.options.share)
        most, stops = bodies.limits(body)
        text, finish = draft.text, "length" if draft.cut else "stop"
        ends = [at for stop in stops if (at := text.find(stop)) >= 0]
        if ends:
            text, finish = text[: min(ends)], "stop"
        if bodies.tokens(text) > most:
            text, finish = text[: max(0, 4 * most - 1)], "length"
        return Written(text, finish, bodies.tokens(prompt), bodies.tokens(text))

    async def _models(self, request: web.Request) -> web.Response:
        return broken.as_json(
            orjson.dumps({"object": "list", "data": [{"id": "fake", "object": "model"}]})
        )

    async def _health(self, request: web.Request) -> web.Response:
        return broken.as_json(b'{"status":"ok"}')

    async def _stats(self, request: web.Request) -> web.Response:
        return broken.as_json(orjson.dumps(self.snapshot()))

    def snapshot(self) -> dict[str, Any]:
        """The statistics as plain values, as ``GET /stats`` gives them."""
        return {**vars(self.stats), "batches": vars(self.batches.stats)}

    async def _apply_template(self, request: web.Request) -> web.Response:
        return broken.as_json(orjson.dumps({"prompt": _chatml(orjson.loads(await request.read()))}))

    async def _tokenize(self, request: web.Request) -> web.Response:
        ids = list(_chatml(orjson.loads(await request.read())).encode())
        return broken.as_json(
            orjson.dumps({"count": len(ids), "max_model_len": 4096, "tokens": ids})
        )

    async def _detokenize(self, request: web.Request) -> web.Response:
        ids = orjson.loads(await request.read())["tokens"]
        return broken.as_json(orjson.dumps({"prompt": bytes(ids).decode()}))


def _chatml(body: dict[str, Any]) -> str:
    """The messages of `body` in ChatML, with the opening of the assistant's turn."""
    messages = [(m["role"], m["content"]) for m in body["messages"]]
    if not messages or messages[0][0] != "system":
        messages.insert(0, ("system", _SYSTEM))
    turns = "".join(f"<|im_start|>{role}\n{content}<|im_end|>\n" for role, content in messages)
    return turns + "<|im_start|>assistant\n"
