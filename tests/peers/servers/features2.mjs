// What every server of this suite offers, on the TypeScript SDK 2.x: one definition for both eras.
// Questions to the client are written as multi-round-trip results (2026-07-28); towards a 2025-era
// client the SDK turns them into server requests.
import { acceptedContent, inputRequired, inputResponse, McpServer, ResourceTemplate } from '@modelcontextprotocol/server';
import { z } from 'zod';
import { pause, state } from '../lib/host.mjs';

export const COUNTER = 'peer://counter';

const text = value => ({ content: [{ type: 'text', text: value }] });
// Safe to repeat: a bridge may send such a call again on a new connection.
const SAFE = { readOnlyHint: true, idempotentHint: true };

/** What outlives a request: in the modern era a server object lives for one request only. */
export const shared = { counter: 0, grown: new Set() };

/**
 * One server object: for a session (legacy) or for one request (modern).
 * `publish` tells the modern era's open subscriptions what changed.
 */
export function build({ name, era, publish }) {
    const mcp = new McpServer(
        { name, version: '1.0.0' },
        {
            capabilities: { logging: {}, tools: { listChanged: true }, resources: { subscribe: true, listChanged: true } },
            instructions: `peer ${name}`
        }
    );
    const { server } = mcp;
    const legacy = era === 'legacy';
    const subscribed = new Set();

    mcp.registerTool(
        'echo',
        { description: 'Returns its argument', inputSchema: z.object({ text: z.string() }), annotations: SAFE },
        ({ text: value }) => text(value)
    );

    mcp.registerTool(
        'add',
        {
            description: 'Adds two numbers',
            inputSchema: z.object({ a: z.number(), b: z.number() }),
            outputSchema: z.object({ sum: z.number() }),
            annotations: SAFE
        },
        ({ a, b }) => ({ ...text(String(a + b)), structuredContent: { sum: a + b } })
    );

    const slow = async ({ ms, steps = 0 }, ctx) => {
        const token = ctx.mcpReq._meta?.progressToken;
        try {
            for (let step = 1; step <= steps; step++) {
                await pause(ms / (steps + 1), ctx.mcpReq.signal);
                if (token === undefined) continue;
                await ctx.mcpReq.notify({
                    method: 'notifications/progress',
                    params: { progressToken: token, progress: step, total: steps, message: `step ${step}` }
                });
            }
            await pause(ms / (steps + 1), ctx.mcpReq.signal);
        } catch (error) {
            state.cancelled += 1;
            throw error;
        }
        return text(`slept ${ms}`);
    };
    const slowInput = z.object({ ms: z.number(), steps: z.number().optional() });
    mcp.registerTool('slow', { description: 'Takes a while', inputSchema: slowInput, annotations: SAFE }, slow);
    mcp.registerTool('slow_once', { description: 'Takes a while; must not be repeated', inputSchema: slowInput }, slow);

    mcp.registerTool(
        'ask',
        { description: 'Asks the user for a name', inputSchema: z.object({ message: z.string() }) },
        ({ message }, ctx) => {
            const answer = inputResponse(ctx.mcpReq.inputResponses, 'name');
            if (answer.kind === 'elicit') {
                return text(`${answer.action} ${acceptedContent(ctx.mcpReq.inputResponses, 'name')?.name ?? ''}`.trim());
            }
            const requestedSchema = { type: 'object', properties: { name: { type: 'string' } }, required: ['name'] };
            return inputRequired({ inputRequests: { name: inputRequired.elicit({ message, requestedSchema }) } });
        }
    );

    mcp.registerTool(
        'sample',
        { description: 'Lets the client run its model', inputSchema: z.object({ prompt: z.string() }) },
        ({ prompt }, ctx) => {
            const answer = inputResponse(ctx.mcpReq.inputResponses, 'model');
            if (answer.kind === 'sampling') return text(answer.result.content.text);
            const params = { messages: [{ role: 'user', content: { type: 'text', text: prompt } }], maxTokens: 10 };
            return inputRequired({ inputRequests: { model: inputRequired.createMessage(params) } });
        }
    );

    mcp.registerTool('roots', { description: 'Lists the roots of the client' }, ctx => {
        const answer = inputResponse(ctx.mcpReq.inputResponses, 'roots');
        if (answer.kind === 'roots') return text(answer.roots.map(root => root.uri).join(' '));
        return inputRequired({ inputRequests: { roots: inputRequired.listRoots() } });
    });

    mcp.registerTool(
        'log',
        { description: 'Logs a line', inputSchema: z.object({ level: z.string(), text: z.string() }) },
        async ({ level, text: line }, ctx) => {
            await ctx.mcpReq.log(level, line, 'peer');
            return text('logged');
        }
    );

    mcp.registerTool(
        'big',
        { description: 'Returns n bytes', inputSchema: z.object({ bytes: z.number() }), annotations: SAFE },
        ({ bytes }) => text('x'.repeat(bytes))
    );

    mcp.registerTool('fail', { description: 'Fails' }, () => ({ ...text('failed as asked'), isError: true }));

    mcp.registerTool('touch', { description: 'Counts up the resource and says so' }, async () => {
        shared.counter += 1;
        if (subscribed.has(COUNTER)) await server.sendResourceUpdated({ uri: COUNTER });
        publish.resourceUpdated(COUNTER);
        return text(String(shared.counter));
    });

    const addGrown = added => mcp.registerTool(added, { description: 'Came later' }, () => text(added));
    for (const added of shared.grown) addGrown(added);
    mcp.registerTool(
        'grow',
        { description: 'Adds a tool to the list', inputSchema: z.object({ name: z.string() }) },
        ({ name: added }) => {
            shared.grown.add(added);
            // Registering sends list_changed to a session.
            if (legacy) addGrown(added);
            publish.toolsChanged();
            return text('grown');
        }
    );

    mcp.registerResource('counter', COUNTER, { mimeType: 'text/plain' }, uri => ({
        contents: [{ uri: uri.href, mimeType: 'text/plain', text: String(shared.counter) }]
    }));
    mcp.registerResource(
        'item',
        new ResourceTemplate('peer://item/{id}', { list: undefined }),
        { mimeType: 'text/plain' },
        (uri, { id }) => ({ contents: [{ uri: uri.href, mimeType: 'text/plain', text: `item ${id}` }] })
    );
    if (legacy) {
        server.setRequestHandler('resources/subscribe', ({ params }) => {
            subscribed.add(params.uri);
            return {};
        });
        server.setRequestHandler('resources/unsubscribe', ({ params }) => {
            subscribed.delete(params.uri);
            return {};
        });
    }

    mcp.registerPrompt('greet', { description: 'Greets', argsSchema: z.object({ name: z.string() }) }, ({ name: who }) => ({
        messages: [{ role: 'user', content: { type: 'text', text: `Hello, ${who}` } }]
    }));

    return mcp;
}
