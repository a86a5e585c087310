// The client that the conformance suite starts (`client --command`): a stdio client on the TypeScript SDK 1.x
// that launches the bridge with the suite's server URL and does what the scenario wants of a client.
//
//   MCP_CONFORMANCE_SCENARIO=<name> node client.mjs <server-url>
import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { StdioClientTransport } from '@modelcontextprotocol/sdk/client/stdio.js';
import { ElicitRequestSchema } from '@modelcontextprotocol/sdk/types.js';
import { bridgeCommand } from '../clients/scenario.mjs';

const scenario = process.env.MCP_CONFORMANCE_SCENARIO;
const url = process.argv.at(-1);

async function withClient(capabilities, body) {
    const client = new Client({ name: 'conformance-stdio-client', version: '1.0.0' }, { capabilities });
    if (capabilities.elicitation) {
        // Nothing filled in: the SDK puts the schema's defaults in (SEP-1034).
        client.setRequestHandler(ElicitRequestSchema, () => ({ action: 'accept', content: {} }));
    }
    await client.connect(new StdioClientTransport({ ...bridgeCommand(url), env: process.env, stderr: 'inherit' }));
    try {
        await body(client);
    } finally {
        await client.close();
    }
}

async function listAndCall(client) {
    const { tools } = await client.listTools();
    if (tools.length > 0) await client.callTool({ name: tools[0].name, arguments: { a: 2, b: 3 } });
}

async function callByName(client, name, args) {
    const { tools } = await client.listTools();
    if (!tools.some(tool => tool.name === name)) throw new Error(`the server offers no ${name}`);
    await client.callTool({ name, arguments: args ?? {} });
}

const scenarios = {
    initialize: () => withClient({}, client => client.listTools()),
    tools_call: () => withClient({}, listAndCall),
    'elicitation-sep1034-client-defaults': () =>
        withClient({ elicitation: { form: { applyDefaults: true } } }, client => callByName(client, 'test_client_elicitation_defaults')),
    'sse-retry': () => withClient({}, client => callByName(client, 'test_reconnection')),
    'json-schema-2020-12-preservation': () =>
        withClient({}, async client => {
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
