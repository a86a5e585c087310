// Child processes that never outlive the tests.
import { spawn } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';

const START_LIMIT_MS = 15_000;
const STOP_LIMIT_MS = 2_000;
const DRAIN_LIMIT_MS = 1_000;
const KEPT_STDERR = 64 * 1024;

const running = new Set();

/** Ends a child with its whole process group. */
function killGroup(child, signal) {
    try {
        process.kill(-child.pid, signal);
    } catch {
        // Gone already.
    }
}

function killAll() {
    for (const child of running) killGroup(child, 'SIGKILL');
}
process.on('exit', killAll);
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => process.exit(130));

/**
 * Starts a command. `lines` gets each line of its stdout. The handle has `stderr()` (the last of it), `exit`
 * (a promise of code or signal name), and `stop()`.
 */
export function start(command, args, { env, cwd, lines = () => {} } = {}) {
    const child = spawn(command, args, { env, cwd, stdio: ['ignore', 'pipe', 'pipe'], detached: true });
    running.add(child);
    let errors = '';
    child.stderr.setEncoding('utf8');
    child.stderr.on('data', chunk => { errors = (errors + chunk).slice(-KEPT_STDERR); });
    createInterface({ input: child.stdout }).on('line', lines);
    const exit = new Promise(resolve => {
        child.on('error', error => {
            errors += `${error.message}\n`;
            running.delete(child);
            resolve('not started');
        });
        // A grandchild may hold the pipe open: wait for the rest of the output, but not for ever.
        child.on('exit', (code, signal) => setTimeout(() => resolve(code ?? signal), DRAIN_LIMIT_MS).unref());
        child.on('close', (code, signal) => {
            running.delete(child);
            resolve(code ?? signal);
        });
    });
    return {
        pid: child.pid,
        exit,
        stderr: () => errors,
        async stop() {
            killGroup(child, 'SIGTERM');
            const timer = setTimeout(() => killGroup(child, 'SIGKILL'), STOP_LIMIT_MS);
            await exit;
            clearTimeout(timer);
        }
    };
}

/** Starts a server and waits for its `listening <url>` line (or for `count` of them). */
export async function startServer(command, args, { env, cwd, count = 1, lines = () => {} } = {}) {
    const urls = [];
    let ready;
    const listening = new Promise(resolve => { ready = resolve; });
    const server = start(command, args, {
        env,
        cwd,
        lines: line => {
            lines(line);
            if (line.startsWith('listening ') && urls.push(line.slice('listening '.length)) === count) ready(true);
        }
    });
    const timer = setTimeout(() => ready(false), START_LIMIT_MS);
    const up = await Promise.race([listening, server.exit.then(() => false)]);
    clearTimeout(timer);
    if (!up) {
        await server.stop();
        throw new Error(`${command} ${args.join(' ')} did not start: ${server.stderr().slice(-2000)}`);
    }
    return { ...server, url: urls[0], urls };
}

/** Runs a command to its end; after `limit` ms it is killed and the outcome is `time-out`. */
export async function runToEnd(command, args, { env, cwd, limit, lines }) {
    const child = start(command, args, { env, cwd, lines });
    let timer;
    const late = new Promise(resolve => { timer = setTimeout(() => resolve('time-out'), limit); });
    const outcome = await Promise.race([child.exit, late]);
    clearTimeout(timer);
    await child.stop();
    return { outcome, stderr: child.stderr() };
}

/**
 * The processes whose environment holds `marker` (Linux; elsewhere none). A client that has ended must not leave
 * its bridge behind, and some clients start it in a process group of its own.
 */
export function processesWith(marker) {
    const found = [];
    let entries = [];
    try {
        entries = readdirSync('/proc').filter(name => /^\d+$/.test(name));
    } catch {
        return found;
    }
    for (const entry of entries) {
        try {
            if (!readFileSync(`/proc/${entry}/environ`, 'utf8').includes(marker)) continue;
            const command = readFileSync(`/proc/${entry}/cmdline`, 'utf8').replaceAll('\0', ' ').trim();
            if (command !== '') found.push({ pid: Number(entry), command });
        } catch {
            // Gone, or not ours.
        }
    }
    return found;
}
