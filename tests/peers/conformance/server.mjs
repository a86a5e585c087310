// A server with everything that the conformance suite's server scenarios ask for (catalogue.mjs), of 2025-11-25, on the TypeScript
// SDK 1.x. It passes those of its revision directly; behind the bridge and front.mjs it must pass them still, and behind the bridge and
// front-modern.mjs those of 2026-07-28.
import { randomUUID } from 'node:crypto';
import { Server } from '@modelcontextprotocol/sdk/server/index.js';
import { StreamableHTTPServerTransport } from '@modelcontextprotocol/sdk/server/streamableHttp.js';
import {
    CallToolRequestSchema,
    CompleteRequestSchema,
    CreateMessageResultSchema,
    ElicitResultSchema,
    ErrorCode,
    GetPromptRequestSchema,
    isInitializeRequest,
    ListPromptsRequestSchema,
    ListResourcesRequestSchema,
    ListResourceTemplatesRequestSchema,
    ListRootsResultSchema,
    ListToolsRequestSchema,
    McpError,
    ReadResourceRequestSchema,
    SubscribeRequestSchema,
    UnsubscribeRequestSchema
} from '@modelcontextprotocol/sdk/types.js';
import { readJson, reply, serve, sessionNotFound } from '../lib/host.mjs';
import {
    askingPrompts,
    askingTools,
    changingTools,
    complete,
    getPrompt,
    listPrompts,
    listResources,
    listTools,
    loggingTools,
    progress,
    readResource,
    resourceTemplates,
    simpleTools,
    text
} from './catalogue.mjs';
import { isLocal } from './local-only.mjs';

const CAPABILITIES = {
    tools: { listChanged: true },
    resources: { subscribe: true },
    prompts: { listChanged: true },
    logging: {},
    completions: {}
};
const ANSWERS = {
    'elicitation/create': ElicitResultSchema,
    'sampling/createMessage': CreateMessageResultSchema,
    'roots/list': ListRootsResultSchema
};
// 2025-11-25 "Resources", Error Handling.
const RESOURCE_NOT_FOUND = -32002;

const has = (table, name) => Object.hasOwn(table, name);
const sessions = new Map();

/** Asks round after round; the questions of a round at once. Whether the client said that it can answer, it must say itself. */
async function ask({ rounds, done }, args, server, extra) {
    const answers = {};
    for (const round of rounds) {
        const questions = Object.entries(round(args, answers, server.getClientCapabilities() ?? {}));
        await Promise.all(questions.map(async ([key, question]) => { answers[key] = await extra.sendRequest(question, ANSWERS[question.method]); }));
    }
    return done(answers);
}

function known(value, what, name, code = ErrorCode.InvalidParams) {
    if (value === undefined) throw new McpError(code, `no such ${what}: ${name}`, { uri: name });
    return value;
}

async function call({ name, arguments: args = {} }, server, extra) {
    if (has(simpleTools, name)) return simpleTools[name].run(args);
    if (has(askingTools, name)) return ask(askingTools[name], args, server, extra);
    if (has(loggingTools, name)) {
        return loggingTools[name]((level, data) => extra.sendNotification({ method: 'notifications/message', params: { level, data } }));
    }
    if (has(changingTools, name)) {
        const method = `notifications/${changingTools[name]}/list_changed`;
        for (const session of sessions.values()) await session.server.notification({ method });
        return { content: [text('changed')] };
    }
    if (name === 'test_tool_with_progress') return progress(extra._meta?.progressToken, extra.sendNotification);
    return known(undefined, 'tool', name);
}

async function prompt({ name, arguments: values }, server, extra) {
    if (has(askingPrompts, name)) return ask(askingPrompts[name], values, server, extra);
    return { messages: known(getPrompt(name, values), 'prompt', name) };
}

function build() {
    const server = new Server({ name: 'conformance-server', version: '1.0.0' }, { capabilities: CAPABILITIES });
    const subscribed = new Set();
    server.setRequestHandler(ListToolsRequestSchema, () => ({ tools: listTools() }));
    server.setRequestHandler(CallToolRequestSchema, ({ params }, extra) => call(params, server, extra));
    server.setRequestHandler(ListResourcesRequestSchema, () => ({ resources: listResources() }));
    server.setRequestHandler(ListResourceTemplatesRequestSchema, () => ({ resourceTemplates }));
    server.setRequestHandler(ReadResourceRequestSchema, ({ params: { uri } }) => ({
        contents: known(readResource(uri), 'resource', uri, RESOURCE_NOT_FOUND)
    }));
    server.setRequestHandler(SubscribeRequestSchema, ({ params }) => {
        subscribed.add(params.uri);
        return {};
    });
    server.setRequestHandler(UnsubscribeRequestSchema, ({ params }) => {
        subscribed.delete(params.uri);
        return {};
    });
    server.setRequestHandler(ListPromptsRequestSchema, () => ({ prompts: listPrompts() }));
    server.setRequestHandler(GetPromptRequestSchema, ({ params }, extra) => prompt(params, server, extra));
    server.setRequestHandler(CompleteRequestSchema, ({ params }) => complete(params.argument.value));
    return server;
}

async function open() {
    const server = build();
    const transport = new StreamableHTTPServerTransport({
        sessionIdGenerator: randomUUID,
        onsessioninitialized: id => sessions.set(id, { transport, server }),
        onsessionclosed: id => sessions.delete(id)
    });
    await server.connect(transport);
    return transport;
}

serve({
    handler: async (req, res) => {
        if (!isLocal(req)) return reply(res, 403, { jsonrpc: '2.0', id: null, error: { code: -32000, message: 'Host or Origin not allowed' } });
        const body = req.method === 'POST' ? await readJson(req, res) : undefined;
        if (req.method === 'POST' && body === undefined) return;
        const id = req.headers['mcp-session-id'];
        if (id !== undefined) {
            const session = sessions.get(id);
            return session ? session.transport.handleRequest(req, res, body) : sessionNotFound(res);
        }
        if (isInitializeRequest(body)) return (await open()).handleRequest(req, res, body);
        reply(res, 400, { jsonrpc: '2.0', id: null, error: { code: -32000, message: 'Mcp-Session-Id header is required' } });
    }
});
