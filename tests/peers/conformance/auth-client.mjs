// The client that the conformance suite starts for its sign-in scenarios (`auth/*`): launches the bridge with the suite's server URL,
// with the flags that the scenario needs, lists the tools and calls one. CLIENT_ERA=legacy speaks 2025-11-25 (TypeScript SDK 1.x), modern
// speaks 2026-07-28 (SDK 2.x), auto knows both and asks first.
//
//   MCP_CONFORMANCE_SCENARIO=<name> CLIENT_ERA=legacy node auth-client.mjs <server-url>
//
// BROWSER names the browser, and goes to the bridge with the rest of the environment.
import { bridgeCommand } from '../clients/scenario.mjs';

// The suite gives a client 30 s. A bridge that refuses must say so to the client, not leave it waiting.
const REFUSAL_LIMIT_MS = 20_000;

const scenario = process.env.MCP_CONFORMANCE_SCENARIO;
const mode = { legacy: undefined, modern: { pin: '2026-07-28' }, auto: 'auto' }[process.env.CLIENT_ERA];
const context = JSON.parse(process.env.MCP_CONFORMANCE_CONTEXT ?? '{}');
const url = process.argv.at(-1);

// The document that the suite takes for the client's own.
const METADATA_URL = 'https://conformance-test.local/client-metadata.json';

const flags = {
    'auth/basic-cimd': () => ['--client-metadata-url', METADATA_URL],
    'auth/pre-registration': () => [
        '--static-oauth-client-info',
        JSON.stringify({ client_id: context.client_id, client_secret: context.client_secret })
    ]
};

// The client is right to get an error here.
const refused = new Set([
    'auth/scope-retry-limit',
    'auth/resource-mismatch',
    'auth/iss-supported-missing',
    'auth/iss-wrong-issuer',
    'auth/iss-unexpected',
    'auth/iss-normalized',
    'auth/metadata-issuer-mismatch'
]);

const { command, args } = bridgeCommand(url);
const launch = { command, args: [...args, ...(flags[scenario]?.() ?? [])], env: process.env, stderr: 'inherit' };

async function connected() {
    const info = { name: 'conformance-stdio-client', version: '1.0.0' };
    if (mode !== undefined) {
        const { Client } = await import('@modelcontextprotocol/client');
        const { StdioClientTransport } = await import('@modelcontextprotocol/client/stdio');
        const client = new Client(info, { capabilities: {}, versionNegotiation: { mode } });
        return { client, connect: () => client.connect(new StdioClientTransport(launch)) };
    }
    const { Client } = await import('@modelcontextprotocol/sdk/client/index.js');
    const { StdioClientTransport } = await import('@modelcontextprotocol/sdk/client/stdio.js');
    const client = new Client(info, { capabilities: {} });
    return { client, connect: () => client.connect(new StdioClientTransport(launch)) };
}

const { client, connect } = await connected();
let timer;
const late = new Promise((_, reject) => { timer = setTimeout(() => reject(new Error('LATE')), REFUSAL_LIMIT_MS); });
async function act() {
    await connect();
    if (mode !== undefined && client.getNegotiatedProtocolVersion() !== '2026-07-28') throw new Error('the bridge did not speak 2026-07-28');
    const { tools } = await client.listTools();
    const result = await client.callTool({ name: tools[0].name, arguments: {} });
    if (result.isError) throw new Error(`the tool failed: ${JSON.stringify(result.content)}`);
}
let outcome;
try {
    await Promise.race([act(), late]);
    outcome = 'worked';
} catch (error) {
    outcome = error.message;
}
clearTimeout(timer);
const bad = outcome === 'LATE' || (outcome === 'worked') === refused.has(scenario);
if (bad || outcome !== 'worked') console.error(`the client's outcome: ${outcome.slice(0, 600)}`);
await client.close();
process.exit(bad ? 1 : 0);
