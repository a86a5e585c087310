// A Streamable HTTP server (2025-11-25) made of a stdio bridge: each session is a bridge of its own, launched
// towards the server behind. With it the conformance suite's server scenarios run through the bridge:
//
//   suite ── HTTP ──► front ── stdio ──► bridge ── HTTP ──► server
//
//   node front.mjs <server-url>
//
// Messages go through as they are. What the bridge says without a request of its own (requests and
// notifications) goes on the response stream that it most likely belongs to: by progress token, else the
// newest open one, else the GET stream.
import { spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { createInterface } from 'node:readline';
import { bridgeCommand } from '../clients/scenario.mjs';
import { readBody, reply, serve, sessionNotFound } from '../lib/host.mjs';
import { isLocal } from './local-only.mjs';

const MAX_HELD_MESSAGES = 1000;
const target = process.argv[2];

const EVENT_STREAM = { 'content-type': 'text/event-stream', 'cache-control': 'no-cache, no-transform' };
const problem = (res, status, code, message) => reply(res, status, { jsonrpc: '2.0', id: null, error: { code, message } });
// `1` and `"1"` are different ids.
const keyOf = id => JSON.stringify(id);

class Session {
    id = randomUUID();
    /** Open response streams by request id, oldest first. */
    #open = new Map();
    #get;
    #held = [];

    constructor(onEnd) {
        const { command, args } = bridgeCommand(target);
        this.bridge = spawn(command, args, { stdio: ['pipe', 'pipe', 'inherit'] });
        this.bridge.stdin.on('error', () => {});
        createInterface({ input: this.bridge.stdout }).on('line', line => this.#fromBridge(line));
        this.bridge.on('exit', () => {
            for (const { res } of this.#open.values()) res.end();
            this.#get?.end();
            onEnd();
        });
    }

    send(raw) {
        // One line a message; line breaks within JSON text are only between tokens.
        this.bridge.stdin.write(`${raw.replace(/[\r\n]+/g, ' ')}\n`);
    }

    request(message, raw, res) {
        const key = keyOf(message.id);
        res.writeHead(200, { ...EVENT_STREAM, 'mcp-session-id': this.id });
        res.flushHeaders();
        this.#open.set(key, { res, progressToken: message.params?._meta?.progressToken });
        res.on('close', () => this.#open.delete(key));
        this.send(raw);
    }

    /** Takes the GET stream; false when there is one already. */
    listen(res) {
        if (this.#get) return false;
        this.#get = res;
        res.writeHead(200, { ...EVENT_STREAM, 'mcp-session-id': this.id });
        res.flushHeaders();
        res.on('close', () => { this.#get = undefined; });
        for (const line of this.#held.splice(0)) this.#emit(res, line);
        return true;
    }

    end() {
        this.bridge.stdin.end();
    }

    #emit(res, line) {
        res.write(`event: message\ndata: ${line}\n\n`);
    }

    #fromBridge(line) {
        const message = JSON.parse(line);
        if (message.method === undefined) {
            const stream = this.#open.get(keyOf(message.id));
            if (stream === undefined) return;
            this.#emit(stream.res, line);
            stream.res.end();
            return;
        }
        const streams = [...this.#open.values()];
        const token = message.method === 'notifications/progress' ? message.params?.progressToken : undefined;
        const stream = streams.find(({ progressToken }) => token !== undefined && progressToken === token) ?? streams.at(-1);
        if (stream) this.#emit(stream.res, line);
        else if (this.#get) this.#emit(this.#get, line);
        else if (this.#held.length < MAX_HELD_MESSAGES) this.#held.push(line);
    }
}

const sessions = new Map();

function post(req, res, raw) {
    let message;
    try {
        message = JSON.parse(raw);
    } catch (error) {
        return problem(res, 400, -32700, String(error));
    }
    if (Array.isArray(message)) return problem(res, 400, -32600, 'batches are not part of this revision');
    const id = req.headers['mcp-session-id'];
    let session = sessions.get(id);
    if (id === undefined && message.method === 'initialize') {
        session = new Session(() => sessions.delete(session.id));
        sessions.set(session.id, session);
    } else if (id === undefined) {
        return problem(res, 400, -32000, 'Mcp-Session-Id header is required');
    }
    if (session === undefined) return sessionNotFound(res);
    if (message.method !== undefined && message.id !== undefined) return session.request(message, raw, res);
    session.send(raw);
    res.writeHead(202).end();
}

serve({
    handler: async (req, res) => {
        if (!isLocal(req)) return problem(res, 403, -32000, 'Host or Origin not allowed');
        if (req.method === 'POST') return post(req, res, await readBody(req));
        const session = sessions.get(req.headers['mcp-session-id']);
        if (session === undefined) return sessionNotFound(res);
        if (req.method === 'GET') {
            if (!session.listen(res)) problem(res, 409, -32000, 'there is a stream already');
            return;
        }
        if (req.method !== 'DELETE') return res.writeHead(405, { allow: 'GET, POST, DELETE' }).end();
        sessions.delete(session.id);
        session.end();
        res.writeHead(200).end();
    }
});
process.on('exit', () => {
    for (const session of sessions.values()) session.bridge.kill('SIGKILL');
});
