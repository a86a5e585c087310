// A server with everything that the conformance suite's server scenarios of 2025-11-25 ask for
// (names and texts are theirs), on the TypeScript SDK 1.x. It passes them directly; behind the bridge
// and front.mjs it must pass them still.
import { randomUUID } from 'node:crypto';
import { Server } from '@modelcontextprotocol/sdk/server/index.js';
import { StreamableHTTPServerTransport } from '@modelcontextprotocol/sdk/server/streamableHttp.js';
import {
    CallToolRequestSchema,
    CompleteRequestSchema,
    ErrorCode,
    GetPromptRequestSchema,
    isInitializeRequest,
    ListPromptsRequestSchema,
    ListResourcesRequestSchema,
    ListResourceTemplatesRequestSchema,
    ListToolsRequestSchema,
    McpError,
    ReadResourceRequestSchema,
    SubscribeRequestSchema,
    UnsubscribeRequestSchema
} from '@modelcontextprotocol/sdk/types.js';
import { pause, readJson, reply, serve, sessionNotFound } from '../lib/host.mjs';
import { complete, getPrompt, listPrompts, listResources, listTools, progress, readResource, resourceTemplates, simpleTools, text } from './catalogue.mjs';
import { isLocal } from './local-only.mjs';

const oneString = name => ({ type: 'object', properties: { [name]: { type: 'string' } }, required: [name] });
const STEP_MS = 50;

const elicited = answer => ({
    content: [text(`Elicitation completed: action=${answer.action}, content=${JSON.stringify(answer.content ?? {})}`)]
});
const asked = (server, extra, message, properties, required = []) =>
    server.elicitInput(
        { message, requestedSchema: { type: 'object', properties, required } },
        { relatedRequestId: extra.requestId }
    );

// Each tool: its arguments' schema and what it does with ({server, args, extra}).
const tools = {
    ...simpleTools,
    test_tool_with_logging: {
        run: async ({ extra }) => {
            const log = data => extra.sendNotification({ method: 'notifications/message', params: { level: 'info', data } });
            await log('Tool execution started');
            await pause(STEP_MS);
            await log('Tool processing data');
            await pause(STEP_MS);
            await log('Tool execution completed');
            return { content: [text('logged three lines')] };
        }
    },
    test_tool_with_progress: { run: ({ extra }) => progress(extra._meta?.progressToken, extra.sendNotification) },
    test_sampling: {
        inputSchema: oneString('prompt'),
        run: async ({ server, args, extra }) => {
            const messages = [{ role: 'user', content: text(args.prompt) }];
            const answer = await server.createMessage({ messages, maxTokens: 100 }, { relatedRequestId: extra.requestId });
            return { content: [text(`LLM response: ${answer.content.text}`)] };
        }
    },
    test_elicitation: {
        inputSchema: oneString('message'),
        run: async ({ server, args, extra }) => {
            const answer = await asked(
                server,
                extra,
                args.message,
                {
                    username: { type: 'string', description: "User's response" },
                    email: { type: 'string', description: "User's email address" }
                },
                ['username', 'email']
            );
            return { content: [text(`User response: action: ${answer.action}, content: ${JSON.stringify(answer.content ?? {})}`)] };
        }
    },
    test_elicitation_sep1034_defaults: {
        run: async ({ server, extra }) =>
            elicited(
                await asked(server, extra, 'Please look over the defaults', {
                    name: { type: 'string', default: 'John Doe' },
                    age: { type: 'integer', default: 30 },
                    score: { type: 'number', default: 95.5 },
                    status: { type: 'string', enum: ['active', 'inactive', 'pending'], default: 'active' },
                    verified: { type: 'boolean', default: true }
                })
            )
    },
    test_elicitation_sep1330_enums: {
        run: async ({ server, extra }) => {
            const plain = ['option1', 'option2', 'option3'];
            const titled = ['First', 'Second', 'Third'].map((title, i) => ({ const: `value${i + 1}`, title: `${title} Option` }));
            return elicited(
                await asked(server, extra, 'Please choose', {
                    untitledSingle: { type: 'string', enum: plain },
                    titledSingle: { type: 'string', oneOf: titled },
                    legacyEnum: { type: 'string', enum: ['opt1', 'opt2', 'opt3'], enumNames: ['Option One', 'Option Two', 'Option Three'] },
                    untitledMulti: { type: 'array', items: { type: 'string', enum: plain } },
                    titledMulti: { type: 'array', items: { anyOf: titled } }
                })
            );
        }
    }
};

function known(value, what, name) {
    if (value === undefined) throw new McpError(ErrorCode.InvalidParams, `no such ${what}: ${name}`);
    return value;
}

function build() {
    const server = new Server(
        { name: 'conformance-server', version: '1.0.0' },
        { capabilities: { tools: {}, resources: { subscribe: true }, prompts: {}, logging: {}, completions: {} } }
    );
    const subscribed = new Set();
    server.setRequestHandler(ListToolsRequestSchema, () => ({ tools: listTools(tools) }));
    server.setRequestHandler(CallToolRequestSchema, ({ params: { name, arguments: args = {} } }, extra) =>
        known(Object.hasOwn(tools, name) ? tools[name] : undefined, 'tool', name).run({ server, args, extra })
    );
    server.setRequestHandler(ListResourcesRequestSchema, () => ({ resources: listResources() }));
    server.setRequestHandler(ListResourceTemplatesRequestSchema, () => ({ resourceTemplates }));
    server.setRequestHandler(ReadResourceRequestSchema, ({ params: { uri } }) => ({ contents: known(readResource(uri), 'resource', uri) }));
    server.setRequestHandler(SubscribeRequestSchema, ({ params }) => {
        subscribed.add(params.uri);
        return {};
    });
    server.setRequestHandler(UnsubscribeRequestSchema, ({ params }) => {
        subscribed.delete(params.uri);
        return {};
    });
    server.setRequestHandler(ListPromptsRequestSchema, () => ({ prompts: listPrompts() }));
    server.setRequestHandler(GetPromptRequestSchema, ({ params: { name, arguments: values } }) => ({
        messages: known(getPrompt(name, values), 'prompt', name)
    }));
    server.setRequestHandler(CompleteRequestSchema, ({ params }) => complete(params.argument.value));
    return server;
}

const sessions = new Map();

async function open() {
    const transport = new StreamableHTTPServerTransport({
        sessionIdGenerator: randomUUID,
        onsessioninitialized: id => sessions.set(id, transport),
        onsessionclosed: id => sessions.delete(id)
    });
    await build().connect(transport);
    return transport;
}

serve({
    handler: async (req, res) => {
        if (!isLocal(req)) return reply(res, 403, { jsonrpc: '2.0', id: null, error: { code: -32000, message: 'Host or Origin not allowed' } });
        const body = req.method === 'POST' ? await readJson(req, res) : undefined;
        if (req.method === 'POST' && body === undefined) return;
        const id = req.headers['mcp-session-id'];
        if (id !== undefined) {
            const transport = sessions.get(id);
            return transport ? transport.handleRequest(req, res, body) : sessionNotFound(res);
        }
        if (isInitializeRequest(body)) return (await open()).handleRequest(req, res, body);
        reply(res, 400, { jsonrpc: '2.0', id: null, error: { code: -32000, message: 'Mcp-Session-Id header is required' } });
    }
});
