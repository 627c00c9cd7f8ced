"""How the fake server serves a refusal, and each way a reply can be broken."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import TYPE_CHECKING, Any

import orjson

from selfinstruct.testing import bodies
from selfinstruct.testing.bodies import Protocol
from selfinstruct.testing.faults import Refusal

if TYPE_CHECKING:
    from aiohttp import web

_FOREVER = 3600.0
_HUGE = 33 * 2**20


def as_json(body: bytes, status: int = 200) -> web.Response:
    """A reply that says it is JSON."""
    from aiohttp import web

    return web.Response(body=body, status=status, content_type="application/json")


def refuse(protocol: Protocol, refusal: Refusal) -> web.Response:
    """An error status with its body and headers."""
    message = refusal.message or f"the fake server answers {refusal.status} {refusal.code}"
    body = bodies.error(protocol, refusal.code, refusal.kind, message, refusal.param)
    response = as_json(body, refusal.status)
    response.headers.update(refusal.headers)
    return response


async def serve(
    fault: str, request: web.Request, reply: dict[str, Any], protocol: Protocol
) -> web.StreamResponse:
    """Serve `reply` the way `fault` breaks it."""
    whole = orjson.dumps(reply)
    match fault:
        case "reset":
            return await reset(request)
        case "stall":
            await asyncio.sleep(_FOREVER)
        case "reset_in_body":
            response = await _begin(request, len(whole))
            await response.write(whole[: len(whole) // 2])
            return await reset(request)
        case "stall_in_body":
            response = await _begin(request, len(whole))
            await response.write(whole[: len(whole) // 2])
            await asyncio.sleep(_FOREVER)
        case "slow_loris":
            response = await _begin(request, _HUGE)
            while True:
                await response.write(b" ")
                await asyncio.sleep(0.05)
        case "429_in_200":
            return as_json(orjson.dumps({"error": {"code": 429, "message": "slow down"}}))
        case "huge":
            return as_json(b" " * _HUGE)
        case "invalid_json":
            return as_json(b"<html><body>502 from a proxy that says 200</body></html>")
        case "truncated_json":
            return as_json(whole[: len(whole) // 2])
        case "error_in_200":
            return as_json(bodies.error(protocol, "server_error", "api_error", "it broke"))
        case _:
            _spoil(fault, reply, protocol)
    return as_json(orjson.dumps(reply))


async def _begin(request: web.Request, length: int) -> web.StreamResponse:
    from aiohttp import web

    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    response.content_length = length
    await response.prepare(request)
    return response


async def reset(request: web.Request) -> web.StreamResponse:
    """End the connection with a TCP reset instead of a close; never returns."""
    transport = request.transport
    if transport is not None:  # else the client went first
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
    await asyncio.sleep(_FOREVER)
    raise ConnectionResetError


def _spoil(fault: str, reply: dict[str, Any], protocol: Protocol) -> None:
    """Change `reply` in place."""
    if fault == "no_usage":
        del reply["usage"]
    elif protocol == "messages":
        _spoil_message(fault, reply)
    else:
        _spoil_choice(fault, reply)


def _spoil_message(fault: str, reply: dict[str, Any]) -> None:
    match fault:
        case "content_filter" | "refusal_field":
            reply["stop_reason"] = "refusal"
            reply["content"] = []
        case "length":
            reply["stop_reason"] = "max_tokens"
        case "empty_choices":
            reply["content"] = None
        case "wrong_types":
            reply["content"] = {"text": 7}


def _spoil_choice(fault: str, reply: dict[str, Any]) -> None:
    choice = reply["choices"][0]
    match fault:
        case "content_filter":
            choice["finish_reason"] = "content_filter"
        case "refusal_field":
            choice["message"] = {"role": "assistant", "content": None, "refusal": "I can't."}
        case "length":
            choice["finish_reason"] = "length"
        case "empty_choices":
            reply["choices"] = []
        case "wrong_types":
            reply["choices"] = {"message": 7}
