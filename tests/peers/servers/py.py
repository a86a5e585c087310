"""The Python SDK's high-level server, Streamable HTTP (TRANSPORT=http) or HTTP+SSE (TRANSPORT=sse).

Runs on both generations of the SDK (`FastMCP` of 1.x, `MCPServer` of 2.x) and offers the same tools
and control paths as the TypeScript servers: see lib/host.mjs and servers/features1.mjs.
"""

import json
import logging
import os
import socket
import sys
import time
import warnings

import anyio
import uvicorn
from pydantic import BaseModel

try:
    from mcp import types
    from mcp.server.mcpserver import Context, MCPServer
    from mcp.server.mcpserver.exceptions import ToolError

    GENERATION = 2
except ImportError:
    from mcp import types
    from mcp.server.fastmcp import Context
    from mcp.server.fastmcp import FastMCP as MCPServer
    from mcp.server.fastmcp.exceptions import ToolError

    GENERATION = 1

warnings.filterwarnings("ignore")
TRANSPORT = os.environ.get("TRANSPORT", "http")
NAME = os.environ.get("NAME", "py")
MAX_BODY = 32 * 1024 * 1024
COUNTER = "peer://counter"
LEVELS = ["debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"]

state = {"initialized": 0, "sessions": 0, "deleted": 0, "cancelled": 0, "posts": 0, "gets": 0, "resumed": 0}
counter = 0
# By session: the log level asked for, and the resources subscribed to.
log_levels: dict[str, str] = {}
subscriptions: dict[str, set[str]] = {}

limits = {"max_request_body_size": MAX_BODY}
mcp = MCPServer(NAME, instructions=f"peer {NAME}", log_level="CRITICAL", **(limits if GENERATION == 1 else {}))
lowlevel = mcp._mcp_server if GENERATION == 1 else mcp._lowlevel_server


def session_key(request) -> str:
    """The session that an HTTP request belongs to, in either transport."""
    return request.headers.get("mcp-session-id") or request.query_params.get("session_id") or ""


def annotations(safe: bool):
    if GENERATION == 1:
        return types.ToolAnnotations(readOnlyHint=safe, idempotentHint=safe)
    return types.ToolAnnotations(read_only_hint=safe, idempotent_hint=safe)


# Safe to repeat: a bridge may send such a call again on a new connection.
SAFE = annotations(True)


@mcp.tool(annotations=SAFE, structured_output=False)
def echo(text: str) -> str:
    """Returns its argument"""
    return text


class Sum(BaseModel):
    sum: float


@mcp.tool(annotations=SAFE)
def add(a: float, b: float) -> Sum:
    """Adds two numbers"""
    return Sum(sum=a + b)


async def wait(ms: int, steps: int, ctx: Context) -> str:
    try:
        for step in range(1, steps + 1):
            await anyio.sleep(ms / (steps + 1) / 1000)
            await ctx.report_progress(step, steps, f"step {step}")
        await anyio.sleep(ms / (steps + 1) / 1000)
    except anyio.get_cancelled_exc_class():
        state["cancelled"] += 1
        raise
    return f"slept {ms}"


@mcp.tool(annotations=SAFE, structured_output=False)
async def slow(ms: int, ctx: Context, steps: int = 0) -> str:
    """Takes a while"""
    return await wait(ms, steps, ctx)


@mcp.tool(structured_output=False)
async def slow_once(ms: int, ctx: Context, steps: int = 0) -> str:
    """Takes a while; must not be repeated"""
    return await wait(ms, steps, ctx)


class Name(BaseModel):
    name: str


@mcp.tool(structured_output=False)
async def ask(message: str, ctx: Context) -> str:
    """Asks the user for a name"""
    answer = await ctx.elicit(message, Name)
    return f"{answer.action} {answer.data.name if answer.action == 'accept' else ''}".strip()


@mcp.tool(structured_output=False)
async def sample(prompt: str, ctx: Context) -> str:
    """Lets the client run its model"""
    message = types.SamplingMessage(role="user", content=types.TextContent(type="text", text=prompt))
    answer = await ctx.session.create_message([message], max_tokens=10, related_request_id=ctx.request_id)
    return answer.content.text


@mcp.tool(structured_output=False)
async def roots(ctx: Context) -> str:
    """Lists the roots of the client"""
    # This SDK always asks on the session's own stream (GET).
    return " ".join(str(root.uri) for root in (await ctx.session.list_roots()).roots)


@mcp.tool(structured_output=False)
async def log(level: str, text: str, ctx: Context) -> str:
    """Logs a line"""
    floor = log_levels.get(session_key(ctx.request_context.request), "debug")
    if LEVELS.index(level) >= LEVELS.index(floor):
        await ctx.session.send_log_message(level, text, logger="peer", related_request_id=ctx.request_id)
    return "logged"


@mcp.tool(annotations=SAFE, structured_output=False)
def big(bytes: int) -> str:
    """Returns n bytes"""
    return "x" * bytes


@mcp.tool(structured_output=False)
def fail() -> str:
    """Fails"""
    raise ToolError("failed as asked")


@mcp.tool(structured_output=False)
async def touch(ctx: Context) -> str:
    """Counts up the resource and says so"""
    global counter
    counter += 1
    if COUNTER in subscriptions.get(session_key(ctx.request_context.request), ()):
        await ctx.session.send_resource_updated(COUNTER)
    if GENERATION == 2:
        await ctx.notify_resource_updated(COUNTER)
    return str(counter)


@mcp.tool(structured_output=False)
async def grow(name: str, ctx: Context) -> str:
    """Adds a tool to the list"""
    mcp.add_tool(lambda: name, name=name, description="Came later", structured_output=False)
    await ctx.session.send_tool_list_changed()
    if GENERATION == 2:
        await ctx.notify_tools_changed()
    return "grown"


@mcp.resource(COUNTER, mime_type="text/plain")
def read_counter() -> str:
    return str(counter)


@mcp.resource("peer://item/{id}", mime_type="text/plain")
def item(id: str) -> str:
    return f"item {id}"


@mcp.prompt()
def greet(name: str) -> str:
    """Greets"""
    return f"Hello, {name}"


def subscribe(request, uri: str) -> None:
    subscriptions.setdefault(session_key(request), set()).add(uri)


def unsubscribe(request, uri: str) -> None:
    subscriptions.setdefault(session_key(request), set()).discard(uri)


if GENERATION == 1:

    @lowlevel.subscribe_resource()
    async def _(uri) -> None:
        subscribe(lowlevel.request_context.request, str(uri))

    @lowlevel.unsubscribe_resource()
    async def _(uri) -> None:
        unsubscribe(lowlevel.request_context.request, str(uri))

    @lowlevel.set_logging_level()
    async def _(level) -> None:
        log_levels[session_key(lowlevel.request_context.request)] = level

else:

    async def on_subscribe(ctx, params):
        subscribe(ctx.request, str(params.uri))
        return types.EmptyResult()

    async def on_unsubscribe(ctx, params):
        unsubscribe(ctx.request, str(params.uri))
        return types.EmptyResult()

    async def on_set_level(ctx, params):
        log_levels[session_key(ctx.request)] = params.level
        return types.EmptyResult()

    lowlevel.add_request_handler("resources/subscribe", types.SubscribeRequestParams, on_subscribe)
    lowlevel.add_request_handler("resources/unsubscribe", types.UnsubscribeRequestParams, on_unsubscribe)
    lowlevel.add_request_handler("logging/setLevel", types.SetLevelRequestParams, on_set_level)


def application():
    if GENERATION == 1:
        return mcp.sse_app() if TRANSPORT == "sse" else mcp.streamable_http_app()
    return mcp.sse_app(**limits) if TRANSPORT == "sse" else mcp.streamable_http_app(**limits)


def trace(line: str) -> None:
    if os.environ.get("PEER_TRACE"):
        print(f"{time.monotonic() * 1000:.0f} ms  {line}", file=sys.stderr, flush=True)


class Controlled:
    """The application behind the control paths; it counts what clients do."""

    def __init__(self, app) -> None:
        self.app = app
        self.server: uvicorn.Server | None = None

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        path = scope["path"]
        if path.startswith("/control/"):
            trace(path)
        if path == "/control/state":
            return await self.answer(send, state)
        if path == "/control/forget-sessions":
            return await self.answer(send, {"forgotten": self.forget()})
        if path == "/control/cut":
            return await self.answer(send, {"cut": self.cut()})
        headers = dict(scope["headers"])
        method = scope["method"]
        opens = method == "POST" and b"mcp-session-id" not in headers and TRANSPORT == "http"
        state["posts"] += method == "POST"
        state["gets"] += method == "GET"
        state["resumed"] += b"last-event-id" in headers

        number = state["posts"] + state["gets"]
        trace(f"#{number} {method} {path}?{scope['query_string'].decode()}")

        started = False

        async def counted(message) -> None:
            nonlocal started
            # The SDK's HTTP+SSE endpoint begins a second response when its stream has ended.
            first, started = not started, True
            if message["type"] == "http.response.start":
                trace(f"#{number} {message['status']}")
            if message["type"] == "http.response.body" and not message.get("more_body"):
                trace(f"#{number} ended")
            if first and message["status"] < 300:
                if opens and any(name == b"mcp-session-id" for name, _ in message["headers"]):
                    state["initialized"] += 1
                if method == "DELETE":
                    state["deleted"] += 1
                if path == "/sse":
                    state["initialized"] += 1
            await send(message)

        try:
            await self.app(scope, receive, counted)
        finally:
            if path == "/sse":
                state["deleted"] += 1

    async def answer(self, send, value) -> None:
        body = json.dumps(value).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def forget(self) -> int:
        """Forgets every session, as a restart does; a session of HTTP+SSE lives in its stream."""
        if TRANSPORT == "sse":
            return self.cut(path="/sse")
        manager = mcp.session_manager
        count = len(manager._server_instances)
        manager._server_instances.clear()
        manager._session_owners.clear()
        return count

    def cut(self, path: str | None = None) -> int:
        """Breaks every connection with an unfinished answer."""
        count = 0
        for connection in list(self.server.server_state.connections):
            cycle = getattr(connection, "cycle", None)
            if cycle is None or cycle.response_complete or cycle.scope["path"].startswith("/control/"):
                continue
            if path is not None and cycle.scope["path"] != path:
                continue
            connection.transport.abort()
            count += 1
        return count


async def main() -> None:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", int(os.environ.get("PORT", "0"))))
    listener.listen(128)
    app = Controlled(application())
    config = uvicorn.Config(app, http="h11", log_level="critical", lifespan="on", timeout_graceful_shutdown=1)
    app.server = uvicorn.Server(config)
    path = "/sse" if TRANSPORT == "sse" else "/mcp"
    print(f"listening http://127.0.0.1:{listener.getsockname()[1]}{path}", flush=True)
    await app.server.serve(sockets=[listener])


logging.disable(logging.ERROR)
anyio.run(main)
