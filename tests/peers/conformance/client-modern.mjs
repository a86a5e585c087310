// The same as client.mjs for scenarios of 2026-07-28: a stdio client that launches the bridge with the suite's server URL.
// CLIENT_ERA=legacy speaks 2025-11-25 (TypeScript SDK 1.x; the bridge translates), modern speaks 2026-07-28 (SDK 2.x).
//
//   MCP_CONFORMANCE_SCENARIO=<name> CLIENT_ERA=legacy node client-modern.mjs <server-url>
import { Client as ModernClient } from '@modelcontextprotocol/client';
import { StdioClientTransport as ModernStdio } from '@modelcontextprotocol/client/stdio';
import { Client as LegacyClient } from '@modelcontextprotocol/sdk/client/index.js';
import { StdioClientTransport as LegacyStdio } from '@modelcontextprotocol/sdk/client/stdio.js';
import { CreateMessageRequestSchema, ElicitRequestSchema, ListRootsRequestSchema } from '@modelcontextprotocol/sdk/types.js';
import { bridgeCommand } from '../clients/scenario.mjs';

const scenario = process.env.MCP_CONFORMANCE_SCENARIO;
const context = JSON.parse(process.env.MCP_CONFORMANCE_CONTEXT || '{}');
const url = process.argv.at(-1);
const info = { name: 'conformance-stdio-client', version: '1.0.0' };
const capabilities = { roots: {}, sampling: {}, elicitation: {} };

/** A connected client, whose user says yes after `before` is done. */
async function connect(before = async () => {}) {
    const confirm = async () => {
        await before();
        return { action: 'accept', content: { confirmed: true } };
    };
    const sample = () => ({ model: 'm', role: 'assistant', content: { type: 'text', text: 'ok' } });
    const roots = () => ({ roots: [] });
    const stdio = { ...bridgeCommand(url), env: process.env, stderr: 'inherit' };
    if (process.env.CLIENT_ERA === 'modern') {
        const client = new ModernClient(info, { capabilities, versionNegotiation: { mode: { pin: '2026-07-28' } } });
        client.setRequestHandler('elicitation/create', confirm);
        client.setRequestHandler('sampling/createMessage', sample);
        client.setRequestHandler('roots/list', roots);
        await client.connect(new ModernStdio(stdio));
        return client;
    }
    const client = new LegacyClient(info, { capabilities });
    client.setRequestHandler(ElicitRequestSchema, confirm);
    client.setRequestHandler(CreateMessageRequestSchema, sample);
    client.setRequestHandler(ListRootsRequestSchema, roots);
    await client.connect(new LegacyStdio(stdio));
    return client;
}

async function withClient(body, before) {
    const client = await connect(before);
    try {
        await body(client);
    } finally {
        await client.close();
    }
}

const toolNames = async client => (await client.listTools()).tools.map(tool => tool.name);

const scenarios = {
    tools_call: () =>
        withClient(async client => {
            const [name] = await toolNames(client);
            await client.callTool({ name, arguments: { a: 2, b: 3 } });
        }),
    'request-metadata': () => withClient(toolNames),
    'sep-2322-client-request-state': async () => {
        // The call of another tool falls between two rounds of the first one.
        let client;
        client = await connect(() => client.callTool({ name: 'test_mrtr_unrelated', arguments: {} }));
        await client.listTools();
        for (const name of ['test_mrtr_echo_state', 'test_mrtr_no_state']) await client.callTool({ name, arguments: {} });
        // SDK 2.x itself takes no result without a type from a server of this revision; the suite wants it to be sent and survived.
        await client.callTool({ name: 'test_mrtr_no_result_type', arguments: {} }).catch(error => {
            if (process.env.CLIENT_ERA !== 'modern') throw error;
        });
        await client.close();
    },
    'http-standard-headers': () =>
        withClient(async client => {
            for (const name of await toolNames(client)) await client.callTool({ name, arguments: {} });
            for (const { uri } of (await client.listResources()).resources) await client.readResource({ uri });
            for (const { name } of (await client.listPrompts()).prompts) await client.getPrompt({ name });
        }),
    'http-custom-headers': () =>
        withClient(async client => {
            await client.listTools();
            for (const call of context.toolCalls) await client.callTool(call);
        }),
    'http-invalid-tool-headers': () =>
        withClient(async client => {
            for (const name of await toolNames(client)) await client.callTool({ name, arguments: { region: 'us-west1' } });
        }),
    'json-schema-ref-no-deref': () => withClient(toolNames),
    'json-schema-2020-12-preservation': () =>
        withClient(async client => {
            const { tools } = await client.listTools();
            const seen = tools.find(tool => tool.name === 'json_schema_2020_12_tool');
            await client.callTool({ name: 'json_schema_echo', arguments: { schema: seen.inputSchema } });
        })
};

const act = scenarios[scenario];
if (act === undefined) {
    console.error(`this client does not know the scenario ${scenario}`);
    process.exit(2);
}
await act();
