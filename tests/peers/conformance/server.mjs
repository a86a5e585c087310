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
import { isLocal } from './local-only.mjs';

// One transparent pixel, and a WAV file without samples.
const PNG = 'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAAC0lEQVR42mNgAAIAAAUAAen63NgAAAAASUVORK5CYII=';
const WAV = 'UklGRiQAAABXQVZFZm10IBAAAAABAAEAQB8AAIA+AAACABAAZGF0YQAAAAA=';

const text = value => ({ type: 'text', text: value });
const image = { type: 'image', data: PNG, mimeType: 'image/png' };
const embedded = (uri, mimeType, value) => ({ type: 'resource', resource: { uri, mimeType, text: value } });
const noArguments = { type: 'object', properties: {} };
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
    test_simple_text: { run: () => ({ content: [text('This is a simple text response for testing.')] }) },
    test_image_content: { run: () => ({ content: [image] }) },
    test_audio_content: { run: () => ({ content: [{ type: 'audio', data: WAV, mimeType: 'audio/wav' }] }) },
    test_embedded_resource: {
        run: () => ({ content: [embedded('test://embedded-resource', 'text/plain', 'This is an embedded resource content.')] })
    },
    test_multiple_content_types: {
        run: () => ({
            content: [
                text('Multiple content types test:'),
                image,
                embedded('test://mixed-content-resource', 'application/json', '{"test":"data","value":123}')
            ]
        })
    },
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
    test_error_handling: {
        run: () => ({ isError: true, content: [text('This tool intentionally returns an error for testing')] })
    },
    test_tool_with_progress: {
        run: async ({ extra }) => {
            const progressToken = extra._meta?.progressToken;
            for (const progress of [0, 50, 100]) {
                if (progressToken !== undefined) {
                    await extra.sendNotification({ method: 'notifications/progress', params: { progressToken, progress, total: 100 } });
                }
                if (progress < 100) await pause(STEP_MS);
            }
            return { content: [text('progressed')] };
        }
    },
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
    },
    json_schema_2020_12_tool: {
        inputSchema: {
            $schema: 'https://json-schema.org/draft/2020-12/schema',
            type: 'object',
            $defs: {
                address: {
                    $anchor: 'addressDef',
                    type: 'object',
                    properties: { street: { type: 'string' }, city: { type: 'string' } }
                }
            },
            properties: {
                name: { type: 'string' },
                address: { $ref: '#/$defs/address' },
                contactMethod: { type: 'string', enum: ['phone', 'email'] },
                phone: { type: 'string' },
                email: { type: 'string' }
            },
            allOf: [{ anyOf: [{ required: ['phone'] }, { required: ['email'] }] }],
            if: { properties: { contactMethod: { const: 'phone' } }, required: ['contactMethod'] },
            then: { required: ['phone'] },
            else: { required: ['email'] },
            additionalProperties: false
        },
        run: () => ({ content: [text('taken')] })
    }
};

const resources = {
    'test://static-text': { mimeType: 'text/plain', text: 'This is the content of the static text resource.' },
    'test://static-binary': { mimeType: 'image/png', blob: PNG },
    'test://watched-resource': { mimeType: 'text/plain', text: 'watched' }
};
const TEMPLATE = /^test:\/\/template\/([^/]+)\/data$/;

const user = content => ({ role: 'user', content });
const prompts = {
    test_simple_prompt: { arguments: [], messages: () => [user(text('This is a simple prompt for testing.'))] },
    test_prompt_with_arguments: {
        arguments: ['arg1', 'arg2'],
        messages: ({ arg1, arg2 }) => [user(text(`Prompt with arguments: arg1='${arg1}', arg2='${arg2}'`))]
    },
    test_prompt_with_embedded_resource: {
        arguments: ['resourceUri'],
        messages: ({ resourceUri }) => [
            user(embedded(resourceUri, 'text/plain', 'Embedded resource content for testing.')),
            user(text('Please process the embedded resource above.'))
        ]
    },
    test_prompt_with_image: { arguments: [], messages: () => [user(image), user(text('Please analyze the image above.'))] }
};

function known(table, name, what) {
    if (!Object.hasOwn(table, name)) throw new McpError(ErrorCode.InvalidParams, `no such ${what}: ${name}`);
    return table[name];
}

function build() {
    const server = new Server(
        { name: 'conformance-server', version: '1.0.0' },
        { capabilities: { tools: {}, resources: { subscribe: true }, prompts: {}, logging: {}, completions: {} } }
    );
    const subscribed = new Set();
    server.setRequestHandler(ListToolsRequestSchema, () => ({
        tools: Object.entries(tools).map(([name, { inputSchema = noArguments }]) => ({ name, description: `The suite's ${name}`, inputSchema }))
    }));
    server.setRequestHandler(CallToolRequestSchema, ({ params }, extra) =>
        known(tools, params.name, 'tool').run({ server, args: params.arguments ?? {}, extra })
    );
    server.setRequestHandler(ListResourcesRequestSchema, () => ({
        resources: Object.entries(resources).map(([uri, { mimeType }]) => ({ uri, name: uri.slice(7), description: 'static', mimeType }))
    }));
    server.setRequestHandler(ListResourceTemplatesRequestSchema, () => ({
        resourceTemplates: [{ uriTemplate: 'test://template/{id}/data', name: 'template', mimeType: 'application/json' }]
    }));
    server.setRequestHandler(ReadResourceRequestSchema, ({ params: { uri } }) => {
        const id = TEMPLATE.exec(uri)?.[1];
        if (id === undefined) return { contents: [{ uri, ...known(resources, uri, 'resource') }] };
        const data = JSON.stringify({ id, templateTest: true, data: `Data for ID: ${id}` });
        return { contents: [{ uri, mimeType: 'application/json', text: data }] };
    });
    server.setRequestHandler(SubscribeRequestSchema, ({ params }) => {
        subscribed.add(params.uri);
        return {};
    });
    server.setRequestHandler(UnsubscribeRequestSchema, ({ params }) => {
        subscribed.delete(params.uri);
        return {};
    });
    server.setRequestHandler(ListPromptsRequestSchema, () => ({
        prompts: Object.entries(prompts).map(([name, prompt]) => ({
            name,
            description: `The suite's ${name}`,
            arguments: prompt.arguments.map(argument => ({ name: argument, required: true }))
        }))
    }));
    server.setRequestHandler(GetPromptRequestSchema, ({ params }) => ({
        messages: known(prompts, params.name, 'prompt').messages(params.arguments ?? {})
    }));
    server.setRequestHandler(CompleteRequestSchema, ({ params }) => {
        const values = ['paris', 'park', 'party'].filter(value => value.startsWith(params.argument.value));
        return { completion: { values, total: values.length, hasMore: false } };
    });
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
