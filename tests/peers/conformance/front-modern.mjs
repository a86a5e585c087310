// A Streamable HTTP server of 2026-07-28 made of stdio bridges, one a request, because that revision knows no sessions:
//
//   suite ── HTTP ──► front ── stdio ──► bridge ── HTTP ──► server
//
//   node front-modern.mjs <server-url>
//
// What stdio has no place for is the front's own: HTTP status codes, made from the error codes as the specification maps them, and
// headers that do not match the body.
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { bridgeCommand } from '../clients/scenario.mjs';
import { readBody, reply, serve } from '../lib/host.mjs';

const target = process.argv[2];
const VERSION = 'io.modelcontextprotocol/protocolVersion';
const STATUS = { '-32601': 404, '-32602': 400, '-32020': 400, '-32021': 400, '-32022': 400 };

function bridge(raw, message, res) {
    const { command, args } = bridgeCommand(target);
    const child = spawn(command, args, { stdio: ['pipe', 'pipe', 'inherit'] });
    child.stdin.on('error', () => {});
    const end = () => child.stdin.end();
    res.on('close', end);
    createInterface({ input: child.stdout }).on('line', line => {
        const said = JSON.parse(line);
        const isAnswer = said.method === undefined;
        if (isAnswer && !res.headersSent) {
            reply(res, STATUS[said.error?.code] ?? 200, said);
            return end();
        }
        if (!res.headersSent) res.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-cache, no-transform' });
        res.write(`data: ${line}\n\n`);
        if (isAnswer) res.end();
    });
    child.stdin.write(`${raw.replace(/[\r\n]+/g, ' ')}\n`);
}

serve({
    handler: async (req, res, pathname) => {
        if (pathname !== '/mcp') return reply(res, 404, { error: 'not here' });
        if (req.method !== 'POST') return reply(res, 405, { error: 'POST only' });
        const raw = await readBody(req);
        const message = JSON.parse(raw);
        const said = message.params?._meta?.[VERSION];
        if (said !== undefined && said !== req.headers['mcp-protocol-version']) {
            const error = { code: -32020, message: 'MCP-Protocol-Version does not match the body' };
            return reply(res, 400, { jsonrpc: '2.0', id: message.id, error });
        }
        return bridge(raw, message, res);
    }
});
