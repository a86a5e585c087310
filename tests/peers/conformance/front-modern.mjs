// A Streamable HTTP server of 2026-07-28 made of stdio bridges, because that revision knows no sessions:
//
//   suite ── HTTP ──► front ── stdio ──► bridges ── HTTP ──► server
//
//   node front-modern.mjs <server-url> [by-client | fresh]
//
// A bridge serves one request at a time, so that whatever it says belongs to that request, and then the next one. With `by-client` it
// serves requests with equal capabilities only, as if each kind of client had its own. With `fresh` it serves one request: each is the
// first that its bridge sees.
// What stdio has no place for is the front's own: HTTP status codes, made from the error codes as the specification maps them,
// headers that do not match the body, and who may connect.
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { bridgeCommand } from '../clients/scenario.mjs';
import { readBody, reply, serve } from '../lib/host.mjs';
import { isLocal } from './local-only.mjs';

const [target, mode] = process.argv.slice(2);
const VERSION = 'io.modelcontextprotocol/protocolVersion';
const CAPABILITIES = 'io.modelcontextprotocol/clientCapabilities';
const STATUS = { '-32601': 404, '-32602': 400, '-32020': 400, '-32021': 400, '-32022': 400 };
const EVENT_STREAM = { 'content-type': 'text/event-stream', 'cache-control': 'no-cache, no-transform' };

/** Bridges that wait, by whom they may serve. */
const idle = new Map();

class Bridge {
    #res;

    constructor(home) {
        this.home = home;
        const { command, args } = bridgeCommand(target);
        this.child = spawn(command, args, { stdio: ['pipe', 'pipe', 'inherit'] });
        this.child.stdin.on('error', () => {});
        this.child.on('exit', () => {
            this.gone = true;
            this.#res?.destroy();
        });
        createInterface({ input: this.child.stdout }).on('line', line => this.#said(line));
    }

    serve(raw, res) {
        this.#res = res;
        // Who hangs up before the answer wants no more of it.
        res.on('close', () => { if (this.#res === res) this.end(); });
        this.child.stdin.write(`${raw.replace(/[\r\n]+/g, ' ')}\n`);
    }

    end() {
        this.#res = undefined;
        this.child.stdin.end();
    }

    #said(line) {
        const res = this.#res;
        if (res === undefined) return;
        const message = JSON.parse(line);
        if (message.method === undefined) {
            this.#res = undefined;
            if (mode === 'fresh') this.end();
            else this.home.push(this);
            if (!res.headersSent) return reply(res, STATUS[message.error?.code] ?? 200, message);
            return res.end(`data: ${line}\n\n`);
        }
        if (!res.headersSent) res.writeHead(200, EVENT_STREAM);
        res.write(`data: ${line}\n\n`);
    }
}

function free(client) {
    const home = idle.get(client) ?? [];
    idle.set(client, home);
    for (;;) {
        const bridge = home.pop() ?? new Bridge(home);
        if (!bridge.gone) return bridge;
    }
}

serve({
    handler: async (req, res, pathname) => {
        if (!isLocal(req)) return reply(res, 403, { jsonrpc: '2.0', id: null, error: { code: -32000, message: 'Host or Origin not allowed' } });
        if (pathname !== '/mcp') return reply(res, 404, { error: 'not here' });
        if (req.method !== 'POST') return reply(res, 405, { error: 'POST only' });
        const raw = await readBody(req);
        const message = JSON.parse(raw);
        const said = message.params?._meta?.[VERSION];
        if (said !== undefined && said !== req.headers['mcp-protocol-version']) {
            const error = { code: -32020, message: 'MCP-Protocol-Version does not match the body' };
            return reply(res, 400, { jsonrpc: '2.0', id: message.id, error });
        }
        free(mode === 'by-client' ? JSON.stringify(message.params?._meta?.[CAPABILITIES]) : '').serve(raw, res);
    }
});
