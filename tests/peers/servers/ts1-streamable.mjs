// TypeScript SDK 1.x, Streamable HTTP with sessions.
// MODE=json answers with plain JSON (then everything else travels on the GET stream, and nothing can
// be resumed); the default answers with resumable event streams.
import { randomUUID } from 'node:crypto';
import { StreamableHTTPServerTransport } from '@modelcontextprotocol/sdk/server/streamableHttp.js';
import { isInitializeRequest } from '@modelcontextprotocol/sdk/types.js';
import { readJson, reply, serve, sessionNotFound, state } from '../lib/host.mjs';
import { MemoryEventStore } from './event-store.mjs';
import { build } from './features1.mjs';

const json = process.env.MODE === 'json';
const sessions = new Map();

async function open() {
    const transport = new StreamableHTTPServerTransport({
        sessionIdGenerator: randomUUID,
        enableJsonResponse: json,
        ...(json ? {} : { eventStore: new MemoryEventStore(), retryInterval: 100 }),
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
    await build({ name: json ? 'ts1-json' : 'ts1-streamable', push: json ? 'standalone' : 'related' }).connect(transport);
    return transport;
}

serve({
    // Forgotten sessions keep their open streams: only new requests find out, as with an expired session.
    forget: () => {
        const count = sessions.size;
        sessions.clear();
        state.sessions = 0;
        return count;
    },
    handler: async (req, res, pathname) => {
        if (pathname !== '/mcp') return reply(res, 404, { error: 'not here' });
        const id = req.headers['mcp-session-id'];
        const body = req.method === 'POST' ? await readJson(req, res) : undefined;
        if (req.method === 'POST' && body === undefined) return;
        if (id !== undefined) {
            const known = sessions.get(id);
            return known ? known.handleRequest(req, res, body) : sessionNotFound(res);
        }
        if (isInitializeRequest(body)) return (await open()).handleRequest(req, res, body);
        reply(res, 400, { jsonrpc: '2.0', id: null, error: { code: -32000, message: 'Mcp-Session-Id header is required' } });
    }
});
