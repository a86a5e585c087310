"""The Python SDK as a stdio client, both generations: 1.x with `ClientSession`, 2.x with `Client`.

    python py_client.py <server-url>

Does what scenario.mjs does and takes the same environment; ERA (legacy, modern, auto) for the SDK 2.x.
One line a check, `ok <name>` or `not ok <name>: <why>`, and `done` at the end. Exit code 1 when one failed.
"""

import asyncio
import hashlib
import json
import os
import sys
import time
import urllib.parse
import urllib.request
import warnings
from contextlib import AsyncExitStack

import anyio

try:
    from mcp import Client, types
    from mcp.client.stdio import StdioServerParameters
    from mcp.shared.exceptions import MCPError

    GENERATION = 2
except ImportError:
    from mcp import ClientSession, types
    from mcp.client.stdio import StdioServerParameters, stdio_client
    from mcp.shared.exceptions import McpError as MCPError

    GENERATION = 1

warnings.filterwarnings("ignore")
CHECK_LIMIT_S = 10
CLOSE_LIMIT_S = 1.9
MIB = 1024 * 1024
URL = sys.argv[1]
FEATURES = set(json.loads(os.environ.get("PEER_FEATURES", "[]")))
ERA = os.environ.get("ERA", "legacy")
# A client that knows both eras finds out which one it meets.
MODERN = "modern" in (ERA, ERA == "auto" and os.environ.get("PEER_ERA"))
COUNTER = "peer://counter"

failed = 0
logged: list[str] = []
updated: list[str] = []
list_changes = 0


def bridge() -> StdioServerParameters:
    command, *args = os.environ["DRAWBRIDGE"].split()
    args = [*args, URL, *os.environ.get("DRAWBRIDGE_ARGS", "").split()]
    return StdioServerParameters(command=command, args=args, env=dict(os.environ))


def control(path: str, method: str = "POST"):
    url = urllib.parse.urljoin(os.environ.get("PEER_CONTROL", URL), f"/control/{path}")
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    return json.load(direct.open(urllib.request.Request(url, method=method), timeout=5))


async def at_server(path: str, method: str = "POST"):
    return await asyncio.to_thread(control, path, method)


def why(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__} {error}".replace("\n", " ")[:500]


def only(kind: type[BaseException], error: BaseException) -> bool:
    """Whether an error, or everything in a group of errors, is of this kind."""
    if isinstance(error, BaseExceptionGroup):
        return all(only(kind, inner) for inner in error.exceptions)
    return isinstance(error, kind)


async def check(name: str, body, limit: float = CHECK_LIMIT_S) -> bool:
    global failed
    start = time.monotonic()
    try:
        async with asyncio.timeout(limit):
            await body()
        print(f"ok {name} ({(time.monotonic() - start) * 1000:.0f} ms)", flush=True)
        return True
    except TimeoutError:
        reason = f"no outcome within {limit} s"
    except Exception as error:
        reason = why(error)
    failed += 1
    print(f"not ok {name}: {reason}", flush=True)
    return False


def equal(actual, expected, what: str = "value") -> None:
    assert actual == expected, f"{what}: expected {str(expected)[:200]!r}, got {str(actual)[:200]!r}"


async def until(probe, what: str, limit: float = 5) -> None:
    end = time.monotonic() + limit
    while not await probe():
        assert time.monotonic() < end, f"{what}: not within {limit} s"
        await asyncio.sleep(0.02)


# What the client answers when a server asks.


async def elicit(context, params):
    return types.ElicitResult(action="accept", content={"name": f"Ada ({params.message})"})


async def sample(context, params):
    asked = params.messages[0].content
    text = (asked[0] if isinstance(asked, list) else asked).text
    content = types.TextContent(type="text", text=f"model says {text}")
    return types.CreateMessageResult(model="peer-model", role="assistant", content=content)


async def roots(context):
    return types.ListRootsResult(roots=[types.Root(uri="file:///peer/one"), types.Root(uri="file:///peer/two")])


async def on_log(params) -> None:
    logged.append(params.data)


async def on_message(message) -> None:
    global list_changes
    notification = getattr(message, "root", message)
    if isinstance(notification, types.ToolListChangedNotification):
        list_changes += 1
    if isinstance(notification, types.ResourceUpdatedNotification):
        updated.append(str(notification.params.uri))


CALLBACKS = {
    "elicitation_callback": elicit,
    "sampling_callback": sample,
    "list_roots_callback": roots,
    "logging_callback": on_log,
    "message_handler": on_message,
}


class Peer:
    """The two generations behind one face."""

    async def connect(self, stack: AsyncExitStack) -> tuple[str, str]:
        """Returns the server's name and the protocol version."""
        if GENERATION == 2:
            mode = "legacy" if ERA == "legacy" else "auto" if ERA == "auto" else "2026-07-28"
            self.client = await stack.enter_async_context(Client(bridge(), mode=mode, **CALLBACKS))
            self.session = self.client.session
            if mode == "2026-07-28":
                # This mode adopts the version without asking; the server's name is learnt by asking.
                discovered = await self.session.send_discover(mode)
                info = discovered["_meta"]["io.modelcontextprotocol/serverInfo"]
                return info["name"], self.client.protocol_version
            return self.client.server_info.name, self.client.protocol_version
        read, write = await stack.enter_async_context(stdio_client(bridge()))
        self.client = self.session = await stack.enter_async_context(ClientSession(read, write, **CALLBACKS))
        result = await self.session.initialize()
        return result.serverInfo.name, result.protocolVersion

    async def call(self, name: str, progress_callback=None, /, **arguments):
        return await self.client.call_tool(name, arguments, progress_callback=progress_callback)

    async def text(self, name: str, progress_callback=None, /, **arguments) -> str:
        return (await self.call(name, progress_callback, **arguments)).content[0].text

    async def cancel(self, name: str, after: float, /, **arguments) -> None:
        """Calls a tool and cancels the call; 1.x has no way of its own to say so to the server."""
        request_id = self.session._request_id if GENERATION == 1 else None
        task = asyncio.create_task(self.call(name, **arguments))
        await asyncio.sleep(after)
        assert not task.done(), "the call to be cancelled was answered"
        if GENERATION == 1:
            params = types.CancelledNotificationParams(requestId=request_id, reason="enough")
            note = types.CancelledNotification(method="notifications/cancelled", params=params)
            await self.session.send_notification(types.ClientNotification(note))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def scenario(stack: AsyncExitStack) -> None:
    peer = Peer()

    async def initialize() -> None:
        name, version = await peer.connect(stack)
        equal(name, os.environ["PEER_NAME"], "server name")
        equal(version, "2026-07-28" if MODERN else "2025-11-25", "protocol version")

    # Not under a time limit of its own: the SDK's task groups must live on in this task.
    try:
        start = time.monotonic()
        await initialize()
        print(f"ok initialize ({(time.monotonic() - start) * 1000:.0f} ms)", flush=True)
    except Exception as error:
        global failed
        failed += 1
        print(f"not ok initialize: {why(error)}", flush=True)
        return

    async def tool_names() -> list[str]:
        return [tool.name for tool in (await peer.session.list_tools()).tools]

    async def list_tools() -> None:
        names = await tool_names()
        for name in ["echo", "add", "slow", "slow_once", "ask", "big", "fail"]:
            assert name in names, f"no tool {name}"

    await check("list tools", list_tools)

    async def text() -> None:
        value = 'A "quoted" \\ line\nand another\r\ttab \u0000 nul \u2028 separator, \U0001f600, \ufeff bom, <&>'
        equal(await peer.text("echo", text=value), value)

    await check("call: text comes back as it went", text)

    async def structured() -> None:
        result = await peer.call("add", a=2, b=40)
        equal(result.structuredContent if GENERATION == 1 else result.structured_content, {"sum": 42})

    await check("call: structured content", structured)

    async def fails() -> None:
        result = await peer.call("fail")
        assert result.isError if GENERATION == 1 else result.is_error, "isError is not set"
        assert "failed as asked" in result.content[0].text, result.content[0].text

    await check("call: a tool that fails", fails)

    async def own_error() -> None:
        try:
            await peer.session.get_prompt("no such prompt")
        except MCPError as error:
            assert error.error.code in (-32602, -32603, 0), f"code is {error.error.code}"
            assert "drawbridge" not in str(error.error.data), "the bridge made this error itself"
        else:
            raise AssertionError("no error")

    await check("an unknown prompt brings the server's own error", own_error)

    async def resources() -> None:
        assert COUNTER in [str(r.uri) for r in (await peer.session.list_resources()).resources], "counter not listed"
        equal((await peer.session.read_resource("peer://item/7")).contents[0].text, "item 7")

    await check("resources: list, read, template", resources)

    async def prompts() -> None:
        assert "greet" in [p.name for p in (await peer.session.list_prompts()).prompts], "greet not listed"
        equal((await peer.session.get_prompt("greet", {"name": "Ada"})).messages[0].content.text, "Hello, Ada")

    await check("prompts: list, get", prompts)
    if not MODERN:
        await check("ping", peer.session.send_ping)

    async def progress() -> None:
        steps = []

        async def on_progress(progress, total, message):
            steps.append(progress)

        equal(await peer.text("slow", on_progress, ms=200, steps=3), "slept 200")
        equal(steps, [1, 2, 3], "steps")

    await check("progress: in order, before the answer", progress)

    if "ask" in FEATURES:

        async def questions() -> None:
            equal(await peer.text("ask", message="who?"), "accept Ada (who?)")
            equal(await peer.text("sample", prompt="hi"), "model says hi")
            equal(await peer.text("roots"), "file:///peer/one file:///peer/two")

        async def many_questions() -> None:
            asked = await asyncio.gather(*(peer.text("ask", message=f"q{i}") for i in range(16)))
            equal(asked, [f"accept Ada (q{i})" for i in range(16)])

        await check("elicitation, sampling, roots", questions)
        await check("16 questions at once", many_questions)

    async def heard(line: str) -> bool:
        return line in logged

    if "log" in FEATURES and not MODERN:

        async def logging() -> None:
            await peer.session.set_logging_level("warning")
            await peer.call("log", level="error", text="loud")
            await peer.call("log", level="info", text="quiet")
            await until(lambda: heard("loud"), "the log line")
            await asyncio.sleep(0.1)
            assert "quiet" not in logged, "a line below the level came"

        await check("logging honours the level", logging)

    if "subscribe" in FEATURES and not MODERN:

        async def subscription() -> None:
            uri = types.AnyUrl(COUNTER) if GENERATION == 1 else COUNTER
            await peer.session.subscribe_resource(uri)
            updated.clear()
            await peer.call("touch")

            async def came() -> bool:
                return COUNTER in updated

            await until(came, "the update")
            await peer.session.unsubscribe_resource(uri)
            await asyncio.sleep(0.15)
            updated.clear()
            await peer.call("touch")
            await asyncio.sleep(0.15)
            equal(updated, [], "updates after unsubscribing")

        await check("subscription: updates while it lasts", subscription)

    async def changed() -> bool:
        return list_changes > 0

    if "list-changed" in FEATURES and not MODERN:

        async def list_changed() -> None:
            global list_changes
            list_changes = 0
            name = f"later_{os.urandom(4).hex()}"
            await peer.call("grow", name=name)
            await until(changed, "list_changed")
            assert name in await tool_names(), "the new tool is not listed"

        await check("list_changed", list_changed)

    async def cancellation() -> None:
        before = (await at_server("state", "GET"))["cancelled"]
        await peer.cancel("slow_once", 0.15, ms=60_000)

        async def arrived() -> bool:
            return (await at_server("state", "GET"))["cancelled"] > before

        if "cancel" in FEATURES:
            await until(arrived, "the server's cancellation", 3)
        equal(await peer.text("echo", text="alive"), "alive")

    await check("cancellation reaches the server, the rest goes on", cancellation)

    async def parallel() -> None:
        values = [f"call {i} {'.' * i}" for i in range(64)]
        equal(await asyncio.gather(*(peer.text("echo", text=value) for value in values)), values)

    await check("64 calls at once, each its own answer", parallel)

    async def large() -> None:
        value = 'é✓x\\"' * (MIB // 2)
        digest = hashlib.sha256((await peer.text("echo", text=value)).encode()).hexdigest()
        equal(digest, hashlib.sha256(value.encode()).hexdigest(), "digest")

    await check("5 MB there and back", large, 20)

    async def cut() -> None:
        running = asyncio.create_task(peer.text("slow", ms=600, steps=2))
        await asyncio.sleep(0.25)
        assert (await at_server("cut"))["cut"] > 0, "nothing was cut"
        equal(await running, "slept 600")

    await check("answer stream cut: a call that may be repeated is answered", cut)

    if "sessions" in FEATURES and not MODERN:

        async def forgotten() -> None:
            global list_changes
            list_changes = 0
            before = (await at_server("state", "GET"))["initialized"]
            assert (await at_server("forget-sessions"))["forgotten"] > 0, "there was no session"
            values = [f"after {i}" for i in range(16)]
            equal(await asyncio.gather(*(peer.text("echo", text=value) for value in values)), values)
            equal((await at_server("state", "GET"))["initialized"] - before, 1, "new sessions")
            if "list-changed" in FEATURES:
                await until(changed, "list_changed after the new session")

        async def restart() -> None:
            running = [asyncio.create_task(peer.text("slow", ms=700)) for _ in range(16)]
            await asyncio.sleep(0.2)
            await at_server("forget-sessions")
            await at_server("cut")
            equal(await asyncio.gather(*running), ["slept 700"] * 16)

        await check("session forgotten: 16 calls at once heal it once", forgotten)
        await check("restart in the middle: 16 calls in flight are answered", restart)


async def main() -> None:
    stack = AsyncExitStack()
    start = time.monotonic()
    try:
        async with asyncio.timeout(110), stack:
            await scenario(stack)
            start = time.monotonic()
    except Exception as error:
        # The SDK 1.x trips over a message that comes while it closes its own stream; that is not the bridge's fault.
        if not (GENERATION == 1 and only(anyio.BrokenResourceError, error)):
            print(f"not ok the client ends: {why(error)}", flush=True)
            os._exit(1)
    took = time.monotonic() - start
    # The SDK waits 2 s for the bridge to end by itself, then it kills.
    late = took >= CLOSE_LIMIT_S
    print(f"not ok close: took {took:.1f} s" if late else f"ok close: the bridge ends ({took * 1000:.0f} ms)")
    print("done", flush=True)
    os._exit(1 if failed or late else 0)


anyio.run(main)
