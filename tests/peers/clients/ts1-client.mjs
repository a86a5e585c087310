// TypeScript SDK 1.x as the client. See scenario.mjs.
import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { SSEClientTransport } from '@modelcontextprotocol/sdk/client/sse.js';
import { StdioClientTransport } from '@modelcontextprotocol/sdk/client/stdio.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import { CreateMessageRequestSchema, ElicitRequestSchema, ListRootsRequestSchema, ResultSchema } from '@modelcontextprotocol/sdk/types.js';
import { answers, bridgeCommand, capabilities, run } from './scenario.mjs';

const url = process.argv[2];

function transport() {
    if (process.env.PEER_DIRECT !== '1') return new StdioClientTransport({ ...bridgeCommand(url), env: process.env, stderr: 'inherit' });
    return url.endsWith('/sse') ? new SSEClientTransport(new URL(url)) : new StreamableHTTPClientTransport(new URL(url));
}

const client = new Client({ name: 'ts1-client', version: '1.0.0' }, { capabilities });
client.setRequestHandler(ElicitRequestSchema, ({ params }) => answers.elicit(params));
client.setRequestHandler(CreateMessageRequestSchema, ({ params }) => answers.sample(params));
client.setRequestHandler(ListRootsRequestSchema, () => answers.roots());

const wire = transport();
let version;
wire.setProtocolVersion = ((original) => negotiated => {
    version = negotiated;
    original?.(negotiated);
})(wire.setProtocolVersion?.bind(wire));

await run(url, {
    era: 'legacy',
    connect: () => client.connect(wire),
    serverName: () => client.getServerVersion()?.name,
    protocolVersion: () => version,
    onNotification: listener => { client.fallbackNotificationHandler = async notification => listener(notification); },
    toolNames: async () => (await client.listTools()).tools.map(tool => tool.name),
    callTool: (name, args, options) => client.callTool({ name, arguments: args }, undefined, options),
    request: (method, params) => client.request({ method, params }, ResultSchema),
    resourceUris: async () => (await client.listResources()).resources.map(resource => resource.uri),
    readText: async uri => (await client.readResource({ uri })).contents[0].text,
    promptNames: async () => (await client.listPrompts()).prompts.map(prompt => prompt.name),
    promptText: async (name, args) => (await client.getPrompt({ name, arguments: args })).messages[0].content.text,
    ping: () => client.ping(),
    setLevel: level => client.setLoggingLevel(level),
    subscribe: uri => client.subscribeResource({ uri }),
    unsubscribe: uri => client.unsubscribeResource({ uri }),
    close: async () => {
        await wire.terminateSession?.();
        await client.close();
    }
});
