// TypeScript SDK 2.x. ERA=dual (default) serves both eras on one URL: sessions for 2025-era clients,
// stateless requests for 2026-07-28. ERA=modern serves 2026-07-28 only. ERA=stateless serves the older
// era without sessions, as many cloud deployments do.
import { randomUUID } from 'node:crypto';
import { NodeStreamableHTTPServerTransport, toNodeHandler, toWebRequest } from '@modelcontextprotocol/node';
import { createMcpHandler, isLegacyRequest } from '@modelcontextprotocol/server';
import { MAX_BODY, readJson, reply, serve, sessionNotFound, state } from '../lib/host.mjs';
import { build } from './features2.mjs';

const era = process.env.ERA ?? 'dual';
const name = `ts2-${era}`;
const sessions = new Map();
const legacyPublish = { resourceUpdated: () => {}, toolsChanged: () => {} };
const modern = createMcpHandler(ctx => build({ name, era: ctx.era, publish: modern.notify }), {
    legacy: era === 'stateless' ? 'stateless' : 'reject',
    maxRequestBodySize: MAX_BODY
});
const modernNode = toNodeHandler(modern, { maxRequestBodySize: MAX_BODY });

async function open() {
    const transport = new NodeStreamableHTTPServerTransport({
        sessionIdGenerator: randomUUID,
        maxRequestBodySize: MAX_BODY,
        onsessioninitialized: id => {
            sessions.set(id, transport);
            state.initialized += 1;
            state.sessions = sessions.size;
        },
        onsessionclosed: id => {
            sessions.delete(id);
            state.deleted += 1;
            state.sessions = sessions.size;
        }
    });
    await build({ name, era: 'legacy', publish: legacyPublish }).connect(transport);
    return transport;
}

async function legacyHandler(req, res, body) {
    const id = req.headers['mcp-session-id'];
    if (id !== undefined) {
        const known = sessions.get(id);
        return known ? known.handleRequest(req, res, body) : sessionNotFound(res);
    }
    if (body?.method === 'initialize') return (await open()).handleRequest(req, res, body);
    reply(res, 400, { jsonrpc: '2.0', id: null, error: { code: -32000, message: 'Mcp-Session-Id header is required' } });
}

serve({
    forget: () => {
        const count = sessions.size;
        sessions.clear();
        state.sessions = 0;
        return count;
    },
    handler: async (req, res, pathname) => {
        if (pathname !== '/mcp') return reply(res, 404, { error: 'not here' });
        const body = req.method === 'POST' ? await readJson(req, res) : undefined;
        if (req.method === 'POST' && body === undefined) return;
        if (era === 'dual' && (await isLegacyRequest(await toWebRequest(req, body), body))) {
            return legacyHandler(req, res, body);
        }
        return modernNode(req, res, body);
    }
});
