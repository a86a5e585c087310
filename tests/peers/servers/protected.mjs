// An MCP server on the TypeScript SDK 1.x behind a sign-in, for the authorization servers beside it. The SDK's own middleware asks for the token.
//
// What the tests may ask of it:
//   GET  /control/state    requests by path and grant: {authorize, register, code, refresh, revoke, metadata, unauthorized}
//   POST /control/expire   no access token that was seen so far is taken any more
import { randomUUID } from 'node:crypto';
import express from 'express';
import { requireBearerAuth } from '@modelcontextprotocol/sdk/server/auth/middleware/bearerAuth.js';
import { InvalidTokenError } from '@modelcontextprotocol/sdk/server/auth/errors.js';
import { StreamableHTTPServerTransport } from '@modelcontextprotocol/sdk/server/streamableHttp.js';
import { isInitializeRequest } from '@modelcontextprotocol/sdk/types.js';
import { build } from './features1.mjs';

/** What was asked for. */
export const counts = { authorize: 0, register: 0, code: 0, refresh: 0, refused: 0, revoke: 0, metadata: 0, unauthorized: 0 };

const seen = new Set();
const ended = new Set();

/** Counts the requests of an authorization server; `paths` names its endpoints. */
export function counting(paths) {
    return (req, res, next) => {
        const path = req.path ?? new URL(req.url, 'http://localhost').pathname;
        if (path.startsWith('/.well-known/')) counts.metadata += 1;
        if (path === paths.authorize) counts.authorize += 1;
        if (path === paths.register && req.method === 'POST') counts.register += 1;
        if (path === paths.revoke && req.method === 'POST') counts.revoke += 1;
        if (path === paths.token && req.method === 'POST') {
            const chunks = [];
            req.on('data', chunk => chunks.push(chunk));
            res.on('finish', () => {
                const grant = new URLSearchParams(Buffer.concat(chunks).toString('utf8')).get('grant_type');
                if (res.statusCode !== 200) counts.refused += 1;
                else counts[grant === 'refresh_token' ? 'refresh' : 'code'] += 1;
            });
        }
        next();
    };
}

/** Routes of the tests. */
export function control(app) {
    app.get('/control/state', (_req, res) => { res.json(counts); });
    app.post('/control/expire', (_req, res) => {
        for (const token of seen) ended.add(token);
        res.json({ ended: seen.size });
    });
}

/**
 * The MCP endpoint at /mcp. `find(token)` gives what the authorization server knows of an access token: client, scopes, end in seconds
 * since 1970, resource; `undefined` if it is none.
 */
export function protect(app, { name, find, resource, metadataUrl, scopes }) {
    const verifier = {
        async verifyAccessToken(token) {
            const known = ended.has(token) ? undefined : await find(token);
            if (known === undefined || (known.resource !== undefined && known.resource !== resource())) {
                throw new InvalidTokenError('this token is not taken here');
            }
            seen.add(token);
            return { token, clientId: known.clientId, scopes: known.scopes, expiresAt: known.expiresAt };
        }
    };
    const sessions = new Map();
    app.use('/mcp', (_req, res, next) => {
        res.on('finish', () => { if (res.statusCode === 401) counts.unauthorized += 1; });
        next();
    });
    const guard = (req, res, next) => requireBearerAuth({ verifier, requiredScopes: scopes, resourceMetadataUrl: metadataUrl() })(req, res, next);
    app.all('/mcp', guard, express.json(), async (req, res) => {
        const id = req.headers['mcp-session-id'];
        if (id !== undefined) {
            const known = sessions.get(id);
            if (known) return known.handleRequest(req, res, req.body);
            return res.status(404).json({ jsonrpc: '2.0', id: null, error: { code: -32001, message: 'Session not found' } });
        }
        if (!isInitializeRequest(req.body)) {
            return res.status(400).json({ jsonrpc: '2.0', id: null, error: { code: -32000, message: 'Mcp-Session-Id header is required' } });
        }
        const transport = new StreamableHTTPServerTransport({
            sessionIdGenerator: randomUUID,
            onsessioninitialized: session => { sessions.set(session, transport); }
        });
        await build({ name }).connect(transport);
        await transport.handleRequest(req, res, req.body);
    });
}

/** Listens on any port; `made(origin)` is called when it is known. */
export function listen(app, made) {
    const server = app.listen(Number(process.env.PORT ?? 0), '127.0.0.1', async () => {
        const origin = `http://127.0.0.1:${server.address().port}`;
        await made(origin);
        process.stdout.write(`listening ${origin}/mcp\n`);
    });
    for (const signal of ['SIGTERM', 'SIGINT']) process.on(signal, () => process.exit(0));
}
