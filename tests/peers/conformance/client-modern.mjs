// The same as client.mjs for scenarios of 2026-07-28: a stdio client that launches the bridge with the suite's server URL.
// CLIENT_ERA=legacy speaks 2025-11-25 (TypeScript SDK 1.x; the bridge translates), modern speaks 2026-07-28 (SDK 2.x), auto
// knows both and asks first. The last two also meet the suite's servers of 2025-11-25.
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
// Nothing filled in: the SDK puts the schema's defaults in (SEP-1034).
const withDefaults = { elicitation: { form: { applyDefaults: true } } };
const modes = { modern: { pin: '2026-07-28' }, auto: 'auto' };

/** A connected client, whose user says yes after `before` is done. */
async function connect(before = async () => {}, declared = capabilities) {
    const confirm = async () => {
        await before();
        return { action: 'accept', content: declared === withDefaults ? {} : { confirmed: true } };
    };
    const sample = () => ({ model: 'm', role: 'assistant', content: { type: 'text', text: 'ok' } });
    const roots = () => ({ roots: [] });
    const stdio = { ...bridgeCommand(url), env: process.env, stderr: 'inherit' };
    const mode = modes[process.env.CLIENT_ERA];
    if (mode !== undefined) {
        const client = new ModernClient(info, { capabilities: declared, versionNegotiation: { mode } });
        client.setRequestHandler('elicitation/create', confirm);
        if (declared.sampling) client.setRequestHandler('sampling/createMessage', sample);
        if (declared.roots) client.setRequestHandler('roots/list', roots);
        await client.connect(new ModernStdio(stdio));
        if (client.getNegotiatedProtocolVersion() !== '2026-07-28') throw new Error('the bridge did not speak 2026-07-28');
        return client;
    }
    const client = new LegacyClient(info, { capabilities: declared });
    client.setRequestHandler(ElicitRequestSchema, confirm);
    client.setRequestHandler(CreateMessageRequestSchema, sample);
    client.setRequestHandler(ListRootsRequestSchema, roots);
    await client.connect(new LegacyStdio(stdio));
    return client;
}

async function withClient(body, declared) {
    const client = await connect(undefined, declared);
    try {
        await body(client);
    } finally {
        await client.close();
    }
}

const toolNames = async client => (await client.listTools()).tools.map(tool => tool.name);

const callByName = (name, declared) =>
    withClient(async client => {
        if (!(await toolNames(client)).includes(name)) throw new Error(`the server offers no ${name}`);
        await client.callTool({ name, arguments: {} });
    }, declared);

const scenarios = {
    initialize: () => withClient(toolNames),
    'elicitation-sep1034-client-defaults': () => callByName('test_client_elicitation_defaults', withDefaults),
    'sse-retry': () => callByName('test_reconnection'),
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
