// A server with everything that the conformance suite's server scenarios of 2026-07-28 ask for (names and texts are theirs), on the
// TypeScript SDK 2.x. It passes them directly; behind the bridge and front-modern.mjs it must pass them still.
import { randomBytes } from 'node:crypto';
import { toNodeHandler } from '@modelcontextprotocol/node';
import {
    acceptedContent,
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
import { complete, getPrompt, listPrompts, listResources, listTools, progress, readResource, resourceTemplates, simpleTools, text } from './catalogue.mjs';
import { isLocal } from './local-only.mjs';

const CACHE = { ttlMs: 60_000, cacheScope: 'public' };
const CAPABILITIES = {
    tools: { listChanged: true },
    resources: { subscribe: true, listChanged: true },
    prompts: { listChanged: true },
    logging: {},
    completions: {}
};

const say = value => ({ content: [text(value)] });
const state = createRequestStateCodec({ key: randomBytes(32), bind: ctx => ctx.mcpReq.method });

// The questions of the tools, one of each kind.
const elicit = (message, property, type = 'string') => {
    const requestedSchema = { type: 'object', properties: { [property]: { type } }, required: [property] };
    return inputRequired.elicit({ message, requestedSchema });
};
const sample = (question, maxTokens) => inputRequired.createMessage({ messages: [{ role: 'user', content: text(question) }], maxTokens });

/** What was answered to the question `key`, if it is an answer of that kind. */
function answer(ctx, key, kind) {
    const got = inputResponse(ctx.mcpReq.inputResponses, key);
    return got.kind === kind ? got : undefined;
}
const accepted = (ctx, key, property) => acceptedContent(ctx.mcpReq.inputResponses, key)?.[property];
const ask = async (ctx, inputRequests, about) =>
    inputRequired({ inputRequests, ...(about && { requestState: await state.mint(about, ctx) }) });

/** A question whose answer counts only with the state of the same tool. */
const confirmed = tool => ({
    run: async ctx => {
        const ours = ctx.mcpReq.requestState()?.tool === tool;
        if (ours && accepted(ctx, 'confirm', 'ok') === true) return say('state-ok');
        return ask(ctx, { confirm: elicit('Please confirm', 'ok', 'boolean') }, { tool });
    }
});

// Each tool: its arguments' schema and what it does with the context of the request.
const tools = {
    ...simpleTools,
    test_tool_with_progress: { run: ctx => progress(ctx.mcpReq._meta?.progressToken, ctx.mcpReq.notify) },
    test_missing_capability: { run: ctx => ask(ctx, { model: sample('Anything', 1) }) },
    test_streaming_elicitation: { run: ctx => ask(ctx, { name: elicit('name?', 'name') }) },
    test_logging_tool: {
        run: async ctx => {
            await ctx.mcpReq.log('error', 'a line', 'conformance');
            return say('logged');
        }
    },
    test_trigger_tool_change: {
        run: () => {
            modern.notify.toolsChanged();
            return say('changed');
        }
    },
    test_trigger_prompt_change: {
        run: () => {
            modern.notify.promptsChanged();
            return say('changed');
        }
    },
    test_input_required_result_elicitation: {
        run: ctx => {
            const name = accepted(ctx, 'user_name', 'name');
            return name === undefined ? ask(ctx, { user_name: elicit('What is your name?', 'name') }) : say(`Hello, ${name}!`);
        }
    },
    test_input_required_result_sampling: {
        run: ctx => {
            const capital = answer(ctx, 'capital_question', 'sampling');
            return capital ? say(capital.result.content.text) : ask(ctx, { capital_question: sample('What is the capital of France?', 100) });
        }
    },
    test_input_required_result_list_roots: {
        run: ctx => {
            const roots = answer(ctx, 'client_roots', 'roots')?.roots;
            return roots ? say(roots.map(root => root.uri).join(' ')) : ask(ctx, { client_roots: inputRequired.listRoots() });
        }
    },
    test_input_required_result_request_state: confirmed('test_input_required_result_request_state'),
    test_input_required_result_tampered_state: confirmed('test_input_required_result_tampered_state'),
    test_input_required_result_multiple_inputs: {
        run: ctx => {
            const name = accepted(ctx, 'user_name', 'name');
            const greeting = answer(ctx, 'greeting', 'sampling')?.result.content.text;
            const roots = answer(ctx, 'client_roots', 'roots')?.roots;
            if (name !== undefined && greeting !== undefined && roots) return say(`${greeting} ${name}, ${roots.length} roots`);
            const questions = {
                user_name: elicit('What is your name?', 'name'),
                greeting: sample('Generate a greeting', 50),
                client_roots: inputRequired.listRoots()
            };
            return ask(ctx, questions, { tool: 'multiple_inputs' });
        }
    },
    test_input_required_result_multi_round: {
        run: ctx => {
            const { name } = ctx.mcpReq.requestState() ?? {};
            const color = accepted(ctx, 'step2', 'color');
            if (name !== undefined && color !== undefined) return say(`${name} likes ${color}`);
            const told = accepted(ctx, 'step1', 'name') ?? name;
            if (told === undefined) return ask(ctx, { step1: elicit('Step 1: What is your name?', 'name') }, { step: 1 });
            return ask(ctx, { step2: elicit('Step 2: What is your favorite color?', 'color') }, { step: 2, name: told });
        }
    },
    test_input_required_result_capabilities: {
        run: ctx => {
            const declared = ctx.mcpReq.envelope?.[CLIENT_CAPABILITIES_META_KEY] ?? {};
            const questions = {
                ...(declared.sampling && { model: sample('Say something', 10) }),
                ...(declared.elicitation && { name: elicit('What is your name?', 'name') })
            };
            return Object.keys(questions).length === 0 ? say('nothing to ask') : ask(ctx, questions);
        }
    }
};

const ASKING_PROMPT = 'test_input_required_result_prompt';

function prompt({ name, arguments: values }, ctx) {
    if (name !== ASKING_PROMPT) return { messages: known(getPrompt(name, values), 'prompt', name) };
    const context = accepted(ctx, 'user_context', 'context');
    if (context === undefined) return ask(ctx, { user_context: elicit('What context should the prompt use?', 'context') });
    return { messages: [{ role: 'user', content: text(`In the context of ${context}`) }] };
}

function known(value, what, name) {
    if (value === undefined) throw new ProtocolError(ProtocolErrorCode.InvalidParams, `no such ${what}: ${name}`);
    return value;
}

function build() {
    const methods = ['server/discover', 'tools/list', 'prompts/list', 'resources/list', 'resources/templates/list', 'resources/read'];
    const server = new Server(
        { name: 'conformance-modern', version: '1.0.0' },
        { capabilities: CAPABILITIES, cacheHints: Object.fromEntries(methods.map(method => [method, CACHE])), requestState: state }
    );
    server.setRequestHandler('tools/list', () => ({ tools: listTools(tools) }));
    server.setRequestHandler('tools/call', ({ params: { name } }, ctx) =>
        known(Object.hasOwn(tools, name) ? tools[name] : undefined, 'tool', name).run(ctx)
    );
    server.setRequestHandler('resources/list', () => ({ resources: listResources() }));
    server.setRequestHandler('resources/templates/list', () => ({ resourceTemplates }));
    server.setRequestHandler('resources/read', ({ params: { uri } }) => {
        const contents = readResource(uri);
        if (contents === undefined) throw new ResourceNotFoundError(uri);
        return { contents };
    });
    server.setRequestHandler('prompts/list', () => ({ prompts: [...listPrompts(), { name: ASKING_PROMPT, description: 'Asks the user' }] }));
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
        return handle(req, res, body);
    }
});
