"""The Python SDK's own authorization server (FastMCP of 1.x, MCPServer of 2.x) with a provider as its users write one: a page to
sign in, tokens in memory, refresh tokens that are rotated, and a login that ends when a spent one comes again.

Offers the same control paths as servers/protected.mjs.
"""

import json
import logging
import os
import secrets
import socket
import time
import warnings
from dataclasses import dataclass
from urllib.parse import parse_qs

import anyio
import uvicorn
from mcp.server.auth.provider import (
    AccessToken,
    AuthorizationCode,
    OAuthAuthorizationServerProvider,
    RefreshToken,
    TokenError,
    construct_redirect_uri,
)
from mcp.server.auth.settings import AuthSettings, ClientRegistrationOptions, RevocationOptions
from mcp.shared.auth import OAuthToken
from starlette.responses import HTMLResponse, RedirectResponse

try:
    from mcp.server.mcpserver import MCPServer

    GENERATION = 2
except ImportError:
    from mcp.server.fastmcp import FastMCP as MCPServer

    GENERATION = 1

warnings.filterwarnings("ignore")
LIFETIME = 3600
counts = dict.fromkeys(["authorize", "register", "code", "refresh", "refused", "revoke", "metadata", "unauthorized"], 0)


@dataclass
class Login:
    client: str
    scopes: list[str]
    resource: str | None
    ended: bool = False


class Provider(OAuthAuthorizationServerProvider[AuthorizationCode, RefreshToken, AccessToken]):
    def __init__(self, origin: str) -> None:
        self.origin = origin
        self.clients = {}
        self.waiting = {}
        self.codes: dict[str, AuthorizationCode] = {}
        self.logins: dict[str, Login] = {}
        self.refresh: dict[str, RefreshToken] = {}
        self.spent: set[str] = set()
        self.access: dict[str, AccessToken] = {}
        self.seen: set[str] = set()

    async def get_client(self, client_id):
        return self.clients.get(client_id)

    async def register_client(self, client_info):
        self.clients[client_info.client_id] = client_info

    async def authorize(self, client, params):
        ticket = secrets.token_urlsafe(16)
        self.waiting[ticket] = (client, params)
        return f"{self.origin}/login?ticket={ticket}"

    async def login(self, request):
        """The page, and what comes of it."""
        if request.method == "GET":
            ticket = request.query_params["ticket"]
            form = f'<input type="hidden" name="ticket" value="{ticket}"><input name="username"><input type="password" name="password">'
            buttons = '<button name="decision" value="allow">Allow</button><button name="decision" value="deny">Deny</button>'
            return HTMLResponse(f'<h1>Sign in</h1><form method="post" action="/login">{form}{buttons}</form>')
        form = await request.form()
        client, params = self.waiting.pop(form["ticket"])
        to = str(params.redirect_uri)
        if form["username"] != "ada" or form["decision"] == "deny":
            return RedirectResponse(construct_redirect_uri(to, error="access_denied", state=params.state), 302)
        code = AuthorizationCode(
            code=secrets.token_urlsafe(32),
            scopes=params.scopes or [],
            expires_at=time.time() + 300,
            client_id=client.client_id,
            code_challenge=params.code_challenge,
            redirect_uri=params.redirect_uri,
            redirect_uri_provided_explicitly=params.redirect_uri_provided_explicitly,
            resource=params.resource,
        )
        self.codes[code.code] = code
        return RedirectResponse(construct_redirect_uri(to, code=code.code, state=params.state), 302)

    async def load_authorization_code(self, client, authorization_code):
        return self.codes.get(authorization_code)

    async def exchange_authorization_code(self, client, authorization_code):
        del self.codes[authorization_code.code]
        return self.issue(Login(client.client_id, authorization_code.scopes, authorization_code.resource))

    def issue(self, login: Login) -> OAuthToken:
        access, refresh = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
        self.logins[access] = self.logins[refresh] = login
        until = int(time.time()) + LIFETIME
        self.access[access] = AccessToken(
            token=access, client_id=login.client, scopes=login.scopes, expires_at=until, resource=login.resource
        )
        self.refresh[refresh] = RefreshToken(token=refresh, client_id=login.client, scopes=login.scopes)
        return OAuthToken(access_token=access, expires_in=LIFETIME, refresh_token=refresh, scope=" ".join(login.scopes))

    async def load_refresh_token(self, client, refresh_token):
        known = self.refresh.get(refresh_token)
        if known is None or self.logins[refresh_token].ended:
            return None
        if refresh_token in self.spent:
            self.logins[refresh_token].ended = True
            return None
        return known

    async def exchange_refresh_token(self, client, refresh_token, scopes):
        if refresh_token.token in self.spent:
            raise TokenError("invalid_grant", "this token was used before")
        self.spent.add(refresh_token.token)
        return self.issue(self.logins[refresh_token.token])

    async def load_access_token(self, token):
        known = self.access.get(token)
        if known is None or self.logins[token].ended:
            return None
        self.seen.add(token)
        return known

    async def revoke_token(self, token):
        self.logins[token.token].ended = True


class Controlled:
    """Counts requests, and answers the control paths."""

    def __init__(self, app, provider: Provider) -> None:
        self.app, self.provider = app, provider

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        path, method = scope["path"], scope["method"]
        if path == "/control/state":
            return await self.answer(send, counts)
        if path == "/control/expire":
            for token in self.provider.seen:
                self.provider.access.pop(token, None)
            return await self.answer(send, {"ended": len(self.provider.seen)})
        if path.startswith("/.well-known/"):
            counts["metadata"] += 1
        if path == "/authorize":
            counts["authorize"] += 1
        if method == "POST" and path in ("/register", "/revoke"):
            counts[path[1:]] += 1
        body = b""

        async def heard():
            nonlocal body
            message = await receive()
            body += message.get("body", b"")
            return message

        async def said(message):
            if message["type"] == "http.response.start":
                if path == "/mcp" and message["status"] == 401:
                    counts["unauthorized"] += 1
                if path == "/token" and method == "POST":
                    grant = parse_qs(body.decode()).get("grant_type", [""])[0]
                    what = "refresh" if grant == "refresh_token" else "code"
                    counts[what if message["status"] == 200 else "refused"] += 1
            await send(message)

        await self.app(scope, heard, said)

    async def answer(self, send, value) -> None:
        body = json.dumps(value).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


async def main() -> None:
    listener = socket.socket()
    listener.bind(("127.0.0.1", int(os.environ.get("PORT", "0"))))
    listener.listen(128)
    origin = f"http://127.0.0.1:{listener.getsockname()[1]}"
    provider = Provider(origin)
    checks = {"validate_token_resource": True} if "validate_token_resource" in AuthSettings.model_fields else {}
    auth = AuthSettings(
        issuer_url=origin,
        resource_server_url=f"{origin}/mcp",
        required_scopes=["mcp:use"],
        client_registration_options=ClientRegistrationOptions(enabled=True, valid_scopes=["mcp:use"], default_scopes=["mcp:use"]),
        revocation_options=RevocationOptions(enabled=True),
        **checks,
    )
    mcp = MCPServer(os.environ.get("NAME", "py-auth"), auth_server_provider=provider, auth=auth, log_level="CRITICAL")

    @mcp.tool()
    def echo(text: str) -> str:
        return text

    mcp.custom_route("/login", methods=["GET", "POST"])(provider.login)
    config = uvicorn.Config(
        Controlled(mcp.streamable_http_app(), provider), http="h11", log_level="critical", lifespan="on", timeout_graceful_shutdown=1
    )
    print(f"listening {origin}/mcp", flush=True)
    await uvicorn.Server(config).serve(sockets=[listener])


logging.disable(logging.ERROR)
anyio.run(main)
