// A server of 2026-07-28 (TypeScript SDK 2.x) with the tools that the suite's scenario `server-stateless` wants to call.
import { toNodeHandler } from '@modelcontextprotocol/node';
import { createMcpHandler, inputRequired } from '@modelcontextprotocol/server';
import { build } from '../servers/features2.mjs';
import { MAX_BODY, readJson, reply, serve } from '../lib/host.mjs';

const text = value => ({ content: [{ type: 'text', text: value }] });
const schema = { type: 'object', properties: { name: { type: 'string' } } };

function make(ctx) {
    const mcp = build({ name: 'conformance-modern', era: ctx.era, publish: modern.notify });
    mcp.registerTool('test_missing_capability', { description: 'Asks for sampling' }, () =>
        inputRequired({ inputRequests: { model: inputRequired.createMessage({ messages: [], maxTokens: 1 }) } })
    );
    mcp.registerTool('test_streaming_elicitation', { description: 'Asks the user' }, () =>
        inputRequired({ inputRequests: { name: inputRequired.elicit({ message: 'name?', requestedSchema: schema }) } })
    );
    mcp.registerTool('test_logging_tool', { description: 'Logs a line' }, async call => {
        await call.mcpReq.log('error', 'a line', 'conformance');
        return text('logged');
    });
    mcp.registerTool('test_trigger_tool_change', { description: 'Says that tools changed' }, () => {
        modern.notify.toolsChanged();
        return text('changed');
    });
    mcp.registerTool('test_trigger_prompt_change', { description: 'Says that prompts changed' }, () => {
        modern.notify.promptsChanged();
        return text('changed');
    });
    return mcp;
}

const modern = createMcpHandler(make, { legacy: 'reject', maxRequestBodySize: MAX_BODY });
const handle = toNodeHandler(modern, { maxRequestBodySize: MAX_BODY });

serve({
    handler: async (req, res, pathname) => {
        if (pathname !== '/mcp') return reply(res, 404, { error: 'not here' });
        const body = req.method === 'POST' ? await readJson(req, res) : undefined;
        if (req.method === 'POST' && body === undefined) return;
        return handle(req, res, body);
    }
});
