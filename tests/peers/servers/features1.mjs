// What every server of this suite offers, on the TypeScript SDK 1.x.
// The same names and answers are in features2.mjs (SDK 2.x) and features.py (Python SDK).
import { McpServer, ResourceTemplate } from '@modelcontextprotocol/sdk/server/mcp.js';
import { SubscribeRequestSchema, UnsubscribeRequestSchema, UrlElicitationRequiredError } from '@modelcontextprotocol/sdk/types.js';
import { z } from 'zod';
import { randomUUID } from 'node:crypto';
import { pause, state } from '../lib/host.mjs';

export const COUNTER = 'peer://counter';

const text = value => ({ content: [{ type: 'text', text: value }] });
// Safe to repeat: a bridge may send such a call again on a new connection.
const SAFE = { readOnlyHint: true, idempotentHint: true };

/**
 * One server object for one session.
 * `push` says where notifications and requests to the client go while a call runs: on the call's own
 * response stream (`related`) or on the session's GET stream (`standalone`), as servers that answer
 * with plain JSON must.
 */
export function build({ name, push = 'related' }) {
    const mcp = new McpServer(
        { name, version: '1.0.0' },
        {
            capabilities: { logging: {}, tools: { listChanged: true }, resources: { subscribe: true, listChanged: true } },
            instructions: `peer ${name}`
        }
    );
    const { server } = mcp;
    const subscribed = new Set();
    let counter = 0;

    const notify = (extra, notification) =>
        push === 'related' ? extra.sendNotification(notification) : server.notification(notification);
    // Options that tie a server request to the call that caused it.
    const related = extra => (push === 'related' ? { relatedRequestId: extra.requestId } : {});

    mcp.registerTool(
        'echo',
        { description: 'Returns its argument', inputSchema: { text: z.string() }, annotations: SAFE },
        ({ text: value }) => text(value)
    );

    mcp.registerTool(
        'add',
        {
            description: 'Adds two numbers',
            inputSchema: { a: z.number(), b: z.number() },
            outputSchema: { sum: z.number() },
            annotations: SAFE
        },
        ({ a, b }) => ({ ...text(String(a + b)), structuredContent: { sum: a + b } })
    );

    const slow = async ({ ms, steps = 0 }, extra) => {
        const token = extra._meta?.progressToken;
        try {
            for (let step = 1; step <= steps; step++) {
                await pause(ms / (steps + 1), extra.signal);
                if (token === undefined) continue;
                await notify(extra, {
                    method: 'notifications/progress',
                    params: { progressToken: token, progress: step, total: steps, message: `step ${step}` }
                });
            }
            await pause(ms / (steps + 1), extra.signal);
        } catch (error) {
            state.cancelled += 1;
            throw error;
        }
        return text(`slept ${ms}`);
    };
    const slowInput = { ms: z.number(), steps: z.number().optional() };
    mcp.registerTool('slow', { description: 'Takes a while', inputSchema: slowInput, annotations: SAFE }, slow);
    mcp.registerTool('slow_once', { description: 'Takes a while; must not be repeated', inputSchema: slowInput }, slow);

    mcp.registerTool(
        'ask',
        { description: 'Asks the user for a name', inputSchema: { message: z.string() } },
        async ({ message }, extra) => {
            const answer = await server.elicitInput(
                {
                    message,
                    requestedSchema: { type: 'object', properties: { name: { type: 'string' } }, required: ['name'] }
                },
                related(extra)
            );
            return text(`${answer.action} ${answer.content?.name ?? ''}`.trim());
        }
    );

    const visit = id => ({ mode: 'url', elicitationId: id, url: 'https://example.com/visit', message: 'Please look' });
    mcp.registerTool('visit', { description: 'Asks the user to visit a page' }, async (extra) => {
        const answer = await server.elicitInput(visit(randomUUID()), related(extra));
        return text(answer.action);
    });
    let visited = false;
    mcp.registerTool('must_visit', { description: 'Works only when the user has visited a page' }, () => {
        if (visited) return text('visited');
        const id = randomUUID();
        const complete = server.createElicitationCompletionNotifier(id);
        setTimeout(() => {
            visited = true;
            complete().catch(() => {});
        }, 300);
        throw new UrlElicitationRequiredError([visit(id)]);
    });

    mcp.registerTool(
        'sample',
        { description: 'Lets the client run its model', inputSchema: { prompt: z.string() } },
        async ({ prompt }, extra) => {
            const answer = await server.createMessage(
                { messages: [{ role: 'user', content: { type: 'text', text: prompt } }], maxTokens: 10 },
                related(extra)
            );
            return text(answer.content.text);
        }
    );

    mcp.registerTool('roots', { description: 'Lists the roots of the client' }, async extra => {
        const answer = await server.listRoots({}, related(extra));
        return text(answer.roots.map(root => root.uri).join(' '));
    });

    mcp.registerTool(
        'log',
        { description: 'Logs a line', inputSchema: { level: z.string(), text: z.string() } },
        async ({ level, text: line }, extra) => {
            // Honours the level that this session has set; always uses the GET stream.
            await server.sendLoggingMessage({ level, logger: 'peer', data: line }, extra.sessionId);
            return text('logged');
        }
    );

    mcp.registerTool(
        'big',
        { description: 'Returns n bytes', inputSchema: { bytes: z.number() }, annotations: SAFE },
        ({ bytes }) => text('x'.repeat(bytes))
    );

    mcp.registerTool('fail', { description: 'Fails' }, () => ({ ...text('failed as asked'), isError: true }));

    mcp.registerTool('touch', { description: 'Counts up the resource and says so' }, async () => {
        counter += 1;
        if (subscribed.has(COUNTER)) await server.sendResourceUpdated({ uri: COUNTER });
        return text(String(counter));
    });

    mcp.registerTool(
        'grow',
        { description: 'Adds a tool to the list', inputSchema: { name: z.string() } },
        ({ name: added }) => {
            // Registering sends list_changed.
            mcp.registerTool(added, { description: 'Came later' }, () => text(added));
            return text('grown');
        }
    );

    mcp.registerResource('counter', COUNTER, { mimeType: 'text/plain' }, uri => ({
        contents: [{ uri: uri.href, mimeType: 'text/plain', text: String(counter) }]
    }));
    mcp.registerResource(
        'item',
        new ResourceTemplate('peer://item/{id}', { list: undefined }),
        { mimeType: 'text/plain' },
        (uri, { id }) => ({ contents: [{ uri: uri.href, mimeType: 'text/plain', text: `item ${id}` }] })
    );
    server.setRequestHandler(SubscribeRequestSchema, ({ params }) => {
        subscribed.add(params.uri);
        return {};
    });
    server.setRequestHandler(UnsubscribeRequestSchema, ({ params }) => {
        subscribed.delete(params.uri);
        return {};
    });

    mcp.registerPrompt('greet', { description: 'Greets', argsSchema: { name: z.string() } }, ({ name: who }) => ({
        messages: [{ role: 'user', content: { type: 'text', text: `Hello, ${who}` } }]
    }));

    return mcp;
}
