// A server that cannot be trusted: the bridge must say so to `initialize`, and must go on.
// Speaks raw JSON-RPC on stdio. One line a check, as scenario.mjs.
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { bridgeCommand } from './scenario.mjs';

const ANSWER_LIMIT_MS = 25_000;
const { command, args } = bridgeCommand(process.argv[2]);
const bridge = spawn(command, args, { stdio: ['pipe', 'pipe', 'inherit'] });
const waiting = new Map();
const stray = [];
createInterface({ input: bridge.stdout }).on('line', line => {
    try {
        const message = JSON.parse(line);
        waiting.get(message.id)?.(message);
    } catch {
        stray.push(line);
    }
});
bridge.stdin.on('error', () => {});
const ended = new Promise(resolve => bridge.on('exit', code => resolve(code)));

function ask(id, method, params) {
    const answer = new Promise((resolve, reject) => {
        waiting.set(id, resolve);
        setTimeout(() => reject(new Error(`no answer within ${ANSWER_LIMIT_MS} ms`)), ANSWER_LIMIT_MS).unref();
        void ended.then(code => reject(new Error(`the bridge ended (${code}) without an answer`)));
    });
    bridge.stdin.write(`${JSON.stringify({ jsonrpc: '2.0', id, method, params })}\n`);
    return answer;
}

let failed = 0;
async function check(name, body) {
    try {
        await body();
        console.log(`ok ${name}`);
    } catch (error) {
        failed += 1;
        console.log(`not ok ${name}: ${error.message}`);
    }
}

const hello = { protocolVersion: '2025-11-25', capabilities: {}, clientInfo: { name: 'refused', version: '1' } };
const about = answer => JSON.stringify(answer.error ?? answer.result).slice(0, 400);
await check('initialize is answered with an error about the certificate', async () => {
    const answer = await ask(1, 'initialize', hello);
    if (!/certificate|issuer|authority/i.test(answer.error?.message ?? '')) throw new Error(about(answer));
});
await check('the process goes on: a second initialize is answered too', async () => {
    const answer = await ask(2, 'initialize', hello);
    if (answer.error === undefined) throw new Error(about(answer));
});
await check('the end of stdin ends the bridge', async () => {
    bridge.stdin.end();
    const code = await Promise.race([ended, new Promise(resolve => setTimeout(resolve, 5000, 'no exit within 5 s'))]);
    if (code !== 0) throw new Error(String(code));
});
await check('stdout holds nothing but messages', () => {
    if (stray.length > 0) throw new Error(stray[0].slice(0, 200));
});
bridge.kill('SIGKILL');
console.log('done');
process.exitCode = failed === 0 ? 0 : 1;
