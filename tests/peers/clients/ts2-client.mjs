// TypeScript SDK 2.x as the client. See scenario.mjs. ERA chooses how it speaks: legacy (initialize),
// modern (2026-07-28 and nothing else), auto (asks with server/discover and then decides).
import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';
import { StdioClientTransport } from '@modelcontextprotocol/client/stdio';
import { answers, bridgeCommand, capabilities, run } from './scenario.mjs';

const url = process.argv[2];
const wanted = process.env.ERA ?? 'legacy';
const mode = { legacy: 'legacy', auto: 'auto', modern: { pin: '2026-07-28' } }[wanted];

const declared = { ...capabilities, elicitation: { form: {}, url: {} } };
const client = new Client({ name: `ts2-client-${wanted}`, version: '1.0.0' }, { capabilities: declared, versionNegotiation: { mode } });
client.setRequestHandler('elicitation/create', ({ params }) => answers.elicit(params));
client.setRequestHandler('sampling/createMessage', ({ params }) => answers.sample(params));
client.setRequestHandler('roots/list', () => answers.roots());

const wire =
    process.env.PEER_DIRECT === '1'
        ? new StreamableHTTPClientTransport(new URL(url))
        : new StdioClientTransport({ ...bridgeCommand(url), env: process.env, stderr: 'inherit' });

// What a 2025-era session is told once, a modern client says on each request or listens for.
let logLevel;
let listening;
const modern = () => client.getProtocolEra?.() === 'modern' || client.getNegotiatedProtocolVersion() === '2026-07-28';
async function listen(filter) {
    await listening?.close();
    listening = await client.listen({ toolsListChanged: true, ...filter });
}

await run(url, {
    get era() {
        return wanted === 'auto' ? process.env.PEER_ERA : wanted;
    },
    connect: async () => {
        await client.connect(wire);
        if (modern()) await listen({});
    },
    serverName: () => client.getServerVersion()?.name,
    protocolVersion: () => client.getNegotiatedProtocolVersion(),
    onNotification: listener => { client.fallbackNotificationHandler = async notification => listener(notification); },
    toolNames: async () => (await client.listTools(undefined, { cacheMode: 'refresh' })).tools.map(tool => tool.name),
    callTool: (name, args, options) => {
        const _meta = logLevel ? { 'io.modelcontextprotocol/logLevel': logLevel } : undefined;
        return client.callTool({ name, arguments: args, ...(_meta ? { _meta } : {}) }, options);
    },
    request: (method, params) => client.request({ method, params }, { '~standard': { version: 1, vendor: 'peer', validate: value => ({ value }) } }),
    resourceUris: async () => (await client.listResources()).resources.map(resource => resource.uri),
    readText: async uri => (await client.readResource({ uri })).contents[0].text,
    promptNames: async () => (await client.listPrompts()).prompts.map(prompt => prompt.name),
    promptText: async (name, args) => (await client.getPrompt({ name, arguments: args })).messages[0].content.text,
    ping: () => client.ping(),
    setLevel: async level => {
        if (modern()) logLevel = level;
        else await client.setLoggingLevel(level);
    },
    subscribe: uri => (modern() ? listen({ resourceSubscriptions: [uri] }) : client.subscribeResource({ uri })),
    unsubscribe: uri => (modern() ? listen({}) : client.unsubscribeResource({ uri })),
    close: async () => {
        await wire.terminateSession?.();
        await client.close();
    }
});
