// A server with everything that the conformance suite's server scenarios ask for (catalogue.mjs), of 2026-07-28, on the TypeScript
// SDK 2.x. It passes those of its revision directly; behind the bridge and front-modern.mjs it must pass them still, and behind the
// bridge and front.mjs those of 2025-11-25.
import { randomBytes } from 'node:crypto';
import { toNodeHandler } from '@modelcontextprotocol/node';
import {
    CLIENT_CAPABILITIES_META_KEY,
    createMcpHandler,
    createRequestStateCodec,
    inputRequired,
    inputResponse,
    ProtocolError,
    ProtocolErrorCode,
    ResourceNotFoundError,
    Server
} from '@modelcontextprotocol/server';
import { MAX_BODY, readJson, reply, serve } from '../lib/host.mjs';
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
import { answer, EXTENSION, listTaskTools } from './tasks.mjs';

const CACHE = { ttlMs: 60_000, cacheScope: 'public' };
const CACHED = ['server/discover', 'tools/list', 'prompts/list', 'resources/list', 'resources/templates/list', 'resources/read'];
const CAPABILITIES = {
    tools: { listChanged: true },
    resources: { subscribe: true, listChanged: true },
    prompts: { listChanged: true },
    logging: {},
    completions: {},
    extensions: { [EXTENSION]: {} }
};
const KINDS = { 'elicitation/create': 'elicit', 'sampling/createMessage': 'sampling', 'roots/list': 'roots' };

const state = createRequestStateCodec({ key: randomBytes(32), bind: ctx => ctx.mcpReq.method });
const has = (table, name) => Object.hasOwn(table, name);

/** Asks until all rounds are answered. Answers of earlier rounds, and those that need a state, count only with the state of this one. */
async function ask(name, { stateful, rounds, done }, args, ctx) {
    const carried = ctx.mcpReq.requestState();
    const ours = carried?.name === name;
    const answers = ours ? { ...carried.answers } : {};
    const declared = ctx.mcpReq.envelope?.[CLIENT_CAPABILITIES_META_KEY] ?? {};
    for (const round of rounds) {
        const open = {};
        for (const [key, question] of Object.entries(round(args, answers, declared))) {
            if (has(answers, key)) continue;
            const { kind } = inputResponse(ctx.mcpReq.inputResponses, key);
            if (kind === KINDS[question.method] && (ours || !stateful)) answers[key] = ctx.mcpReq.inputResponses[key];
            else open[key] = question;
        }
        if (Object.keys(open).length > 0) {
            return inputRequired({ inputRequests: open, ...(stateful && { requestState: await state.mint({ name, answers }, ctx) }) });
        }
    }
    return done(answers);
}

function known(value, what, name) {
    if (value === undefined) throw new ProtocolError(ProtocolErrorCode.InvalidParams, `no such ${what}: ${name}`);
    return value;
}

function call({ name, arguments: args = {} }, ctx) {
    if (has(simpleTools, name)) return simpleTools[name].run(args);
    if (has(askingTools, name)) return ask(name, askingTools[name], args, ctx);
    if (has(loggingTools, name)) return loggingTools[name]((level, line) => ctx.mcpReq.log(level, line));
    if (has(changingTools, name)) {
        modern.notify[`${changingTools[name]}Changed`]();
        return { content: [text('changed')] };
    }
    if (name === 'test_tool_with_progress') return progress(ctx.mcpReq._meta?.progressToken, ctx.mcpReq.notify);
    return known(undefined, 'tool', name);
}

function prompt({ name, arguments: values }, ctx) {
    if (has(askingPrompts, name)) return ask(name, askingPrompts[name], values, ctx);
    return { messages: known(getPrompt(name, values), 'prompt', name) };
}

function build() {
    const server = new Server(
        { name: 'conformance-modern', version: '1.0.0' },
        { capabilities: CAPABILITIES, cacheHints: Object.fromEntries(CACHED.map(method => [method, CACHE])), requestState: state }
    );
    server.setRequestHandler('tools/list', () => ({ tools: [...listTools(), ...listTaskTools()] }));
    server.setRequestHandler('tools/call', ({ params }, ctx) => call(params, ctx));
    server.setRequestHandler('resources/list', () => ({ resources: listResources() }));
    server.setRequestHandler('resources/templates/list', () => ({ resourceTemplates }));
    server.setRequestHandler('resources/read', ({ params: { uri } }) => {
        const contents = readResource(uri);
        if (contents === undefined) throw new ResourceNotFoundError(uri);
        return { contents };
    });
    server.setRequestHandler('prompts/list', () => ({ prompts: listPrompts() }));
    server.setRequestHandler('prompts/get', ({ params }, ctx) => prompt(params, ctx));
    server.setRequestHandler('completion/complete', ({ params }) => complete(params.argument.value));
    return server;
}

const modern = createMcpHandler(build, { legacy: 'reject', maxRequestBodySize: MAX_BODY });
const handle = toNodeHandler(modern, { maxRequestBodySize: MAX_BODY });

serve({
    handler: async (req, res, pathname) => {
        if (!isLocal(req)) return reply(res, 403, { jsonrpc: '2.0', id: null, error: { code: -32000, message: 'Host or Origin not allowed' } });
        if (pathname !== '/mcp') return reply(res, 404, { error: 'not here' });
        const body = req.method === 'POST' ? await readJson(req, res) : undefined;
        if (req.method === 'POST' && body === undefined) return;
        const ours = body && (await answer(body, req.headers));
        return ours ? reply(res, ours.status, ours.body) : handle(req, res, body);
    }
});
