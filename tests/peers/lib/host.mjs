// The HTTP side that every Node test server shares: listens, announces its URL,
// counts what clients do, and can be told to misbehave.
//
//   GET  /control/state            counters, as JSON
//   POST /control/forget-sessions  forgets every session, as a restart does
//   POST /control/cut              breaks every connection with an unfinished answer
//
// PORT chooses the port (default: any). TLS_CERT and TLS_KEY (files) turn on TLS. PEER_TRACE=1 writes a line
// to stderr for each request and for each answer that ends.
import { readFileSync } from 'node:fs';
import http from 'node:http';
import https from 'node:https';

export const MAX_BODY = 32 * 1024 * 1024;

/** What clients did, for the tests to read. `cancelled` counts calls that the server saw cancelled. */
export const state = { initialized: 0, sessions: 0, deleted: 0, cancelled: 0, posts: 0, gets: 0, resumed: 0 };

const begin = Date.now();
let requests = 0;

/** Follows one request on stderr: what came, with which session, what was answered, how it ended. */
function trace(req, res) {
    const number = (requests += 1);
    const say = what => process.stderr.write(`${String(Date.now() - begin).padStart(6)} ms  #${number} ${what}\n`);
    const about = ['mcp-session-id', 'mcp-protocol-version', 'last-event-id'].flatMap(name =>
        req.headers[name] === undefined ? [] : `${name}=${req.headers[name]}`
    );
    say(`${req.method} ${req.url} ${about.join(' ')}`);
    if (req.method === 'POST') {
        const chunks = [];
        req.on('data', chunk => chunks.push(chunk));
        req.on('end', () => say(`body ${Buffer.concat(chunks).toString('utf8').slice(0, 200)}`));
    }
    res.on('close', () => say(`${res.statusCode} ${res.getHeader('content-type') ?? ''} ${res.writableFinished ? 'ended' : 'CUT'}`));
}

/** Reads a whole request body as text. */
export async function readBody(req) {
    const chunks = [];
    let size = 0;
    for await (const chunk of req) {
        size += chunk.length;
        if (size > MAX_BODY) throw new Error('request body over the limit');
        chunks.push(chunk);
    }
    return Buffer.concat(chunks).toString('utf8');
}

/** Reads a JSON body; `undefined` (and a 400 answer) when it is none. */
export async function readJson(req, res) {
    try {
        return JSON.parse(await readBody(req));
    } catch (error) {
        reply(res, 400, { jsonrpc: '2.0', id: null, error: { code: -32700, message: String(error) } });
        return undefined;
    }
}

/** Answers with JSON. */
export function reply(res, status, value) {
    res.writeHead(status, { 'content-type': 'application/json' });
    res.end(JSON.stringify(value));
}

/** The answer to a session id that this server does not know (2025-11-25, session management). */
export function sessionNotFound(res) {
    reply(res, 404, { jsonrpc: '2.0', id: null, error: { code: -32001, message: 'Session not found' } });
}

/**
 * Serves `handler(req, res)` and the control paths; prints `listening <url>` when ready.
 * `forget` drops all sessions and returns how many there were; `path` is the MCP endpoint.
 */
export function serve({ path = '/mcp', handler, forget = () => 0 }) {
    const unfinished = new Set();
    const onRequest = async (req, res) => {
        const { pathname } = new URL(req.url, 'http://localhost');
        if (process.env.PEER_TRACE) trace(req, res);
        if (pathname === '/control/state') return reply(res, 200, state);
        if (pathname === '/control/forget-sessions') return reply(res, 200, { forgotten: forget() });
        if (pathname === '/control/cut') {
            const victims = [...unfinished];
            for (const victim of victims) victim.socket?.destroy();
            return reply(res, 200, { cut: victims.length });
        }
        unfinished.add(res);
        res.on('close', () => unfinished.delete(res));
        if (req.method === 'POST') state.posts += 1;
        if (req.method === 'GET') state.gets += 1;
        if (req.headers['last-event-id']) state.resumed += 1;
        try {
            await handler(req, res, pathname);
        } catch (error) {
            process.stderr.write(`${error?.stack ?? error}\n`);
            if (res.headersSent) res.destroy();
            else reply(res, 500, { jsonrpc: '2.0', id: null, error: { code: -32603, message: String(error) } });
        }
    };
    const { TLS_CERT, TLS_KEY, PORT = '0' } = process.env;
    const server = TLS_CERT
        ? https.createServer({ cert: readFileSync(TLS_CERT), key: readFileSync(TLS_KEY) }, onRequest)
        : http.createServer(onRequest);
    server.listen(Number(PORT), '127.0.0.1', () => {
        process.stdout.write(`listening ${TLS_CERT ? 'https' : 'http'}://127.0.0.1:${server.address().port}${path}\n`);
    });
    for (const signal of ['SIGTERM', 'SIGINT']) process.on(signal, () => process.exit(0));
    return server;
}

/** A promise that ends after `ms`, or at once with a rejection when `signal` aborts. */
export function pause(ms, signal) {
    return new Promise((resolve, reject) => {
        if (signal?.aborted) return reject(new Error('cancelled'));
        const timer = setTimeout(resolve, ms);
        signal?.addEventListener('abort', () => {
            clearTimeout(timer);
            reject(new Error('cancelled'));
        }, { once: true });
    });
}
