// TypeScript SDK 1.x, HTTP+SSE (the transport of 2024-11-05).
import { SSEServerTransport } from '@modelcontextprotocol/sdk/server/sse.js';
import { readJson, reply, serve, state } from '../lib/host.mjs';
import { build } from './features1.mjs';

const sessions = new Map();

serve({
    path: '/sse',
    // A session lives in its stream, so forgetting it ends the stream.
    forget: () => {
        const gone = [...sessions.values()];
        sessions.clear();
        for (const transport of gone) void transport.close();
        state.sessions = 0;
        return gone.length;
    },
    handler: async (req, res, pathname) => {
        if (pathname === '/sse' && req.method === 'GET') {
            const transport = new SSEServerTransport('/messages', res);
            sessions.set(transport.sessionId, transport);
            state.initialized += 1;
            state.sessions = sessions.size;
            res.on('close', () => {
                if (sessions.delete(transport.sessionId)) state.deleted += 1;
                state.sessions = sessions.size;
            });
            return build({ name: 'ts1-sse' }).connect(transport);
        }
        if (pathname === '/messages' && req.method === 'POST') {
            const transport = sessions.get(new URL(req.url, 'http://localhost').searchParams.get('sessionId'));
            const body = await readJson(req, res);
            if (body === undefined) return;
            if (!transport) return reply(res, 404, { error: 'Session not found' });
            return transport.handlePostMessage(req, res, body);
        }
        // What the older transport answers to a Streamable HTTP client.
        res.writeHead(pathname === '/sse' ? 405 : 404).end();
    }
});
