// What a client does through the bridge, and what must come of it. Both TypeScript clients run this;
// py_client.py does the same with the Python SDK.
//
//   node <client>.mjs <server-url>
//
// DRAWBRIDGE        the bridge's command (words separated by blanks)
// DRAWBRIDGE_ARGS   further arguments, after the server's URL
// PEER_FEATURES     what the server at that URL can do, as a JSON list (see run.mjs)
// PEER_DIRECT=1     no bridge: the SDK's own HTTP client, to prove servers and checks themselves
//
// One line a check, `ok <name>` or `not ok <name>: <why>`, and `done` at the end. Exit code 1 when one failed.
import { createHash, randomUUID } from 'node:crypto';

const CHECK_LIMIT_MS = 10_000;
const MIB = 1024 * 1024;

/** How the bridge is launched for `url`. */
export function bridgeCommand(url) {
    const words = value => (value ?? '').split(' ').filter(word => word !== '');
    const [command, ...args] = words(process.env.DRAWBRIDGE);
    if (command === undefined) throw new Error('DRAWBRIDGE names no command');
    return { command, args: [...args, url, ...words(process.env.DRAWBRIDGE_ARGS)] };
}

/** What the client answers when a server asks. */
export const answers = {
    elicit: params =>
        params.mode === 'url' ? { action: 'accept' } : { action: 'accept', content: { name: `Ada (${params.message})` } },
    sample: params => ({
        model: 'peer-model',
        role: 'assistant',
        content: { type: 'text', text: `model says ${params.messages[0].content.text}` }
    }),
    roots: () => ({ roots: [{ uri: 'file:///peer/one' }, { uri: 'file:///peer/two' }] })
};

export const capabilities = { roots: { listChanged: true }, sampling: {}, elicitation: {} };

const sleep = ms => new Promise(resolve => setTimeout(resolve, ms));
const text = result => result.content?.[0]?.text;
const digest = value => createHash('sha256').update(value).digest('hex');

function assert(condition, why) {
    if (!condition) throw new Error(why);
}

function equal(actual, expected, what) {
    const [is, should] = [JSON.stringify(actual), JSON.stringify(expected)];
    if (is !== should) throw new Error(`${what ?? 'value'}: expected ${should?.slice(0, 200)}, got ${is?.slice(0, 200)}`);
}

/** Waits until `probe()` is truthy and returns that value. */
async function until(probe, what, limit = 5000) {
    const end = Date.now() + limit;
    for (;;) {
        const value = await probe();
        if (value) return value;
        if (Date.now() > end) throw new Error(`${what}: not within ${limit} ms`);
        await sleep(20);
    }
}

/** Ends with the outcome of `promise`, or fails after `ms`. */
function within(promise, ms, what) {
    let timer;
    const limit = new Promise((_, reject) => {
        timer = setTimeout(() => reject(new Error(`${what}: not within ${ms} ms`)), ms);
    });
    return Promise.race([promise, limit]).finally(() => clearTimeout(timer));
}

/** Runs the whole scenario with `peer` (see ts1-client.mjs for its members) and exits. */
export async function run(url, peer) {
    const features = new Set(JSON.parse(process.env.PEER_FEATURES ?? '[]'));
    const bridged = process.env.PEER_DIRECT !== '1';
    let failed = 0;

    async function check(name, body, limit = CHECK_LIMIT_MS) {
        const start = Date.now();
        try {
            await within(Promise.resolve().then(body), limit, 'no outcome');
            process.stdout.write(`ok ${name} (${Date.now() - start} ms)\n`);
        } catch (error) {
            failed += 1;
            process.stdout.write(`not ok ${name}: ${String(error?.message ?? error).replaceAll('\n', ' ').slice(0, 500)}\n`);
        }
    }

    const control = async (path, method = 'POST') => {
        const response = await fetch(new URL(`/control/${path}`, process.env.PEER_CONTROL ?? url), { method });
        return response.json();
    };
    const serverState = () => control('state', 'GET');
    const seen = [];
    const notified = (method, from = 0) => seen.slice(from).filter(notification => notification.method === method);
    const call = (name, args = {}, options) => {
        const outcome = peer.callTool(name, args, options);
        outcome.catch(() => {}); // a check looks at it later; until then it must not end the process
        return outcome;
    };
    const has = feature => features.has(feature);

    peer.onNotification(notification => seen.push(notification));
    let connected = false;
    await check('initialize', async () => {
        await peer.connect();
        connected = true;
        equal(peer.serverName(), process.env.PEER_NAME, 'server name');
        equal(peer.protocolVersion(), peer.era === 'modern' ? '2026-07-28' : '2025-11-25', 'protocol version');
    }, 20_000);
    if (!connected) process.exit(1);

    await check('list tools', async () => {
        const names = await peer.toolNames();
        for (const name of ['echo', 'add', 'slow', 'slow_once', 'ask', 'big', 'fail']) assert(names.includes(name), `no tool ${name}`);
    });

    await check('call: text comes back as it went', async () => {
        const value = 'A "quoted" \\ line\nand another\r\ttab \u0000 nul \u2028 separator, \u{1F600}, \uFEFF bom, <&>';
        equal(text(await call('echo', { text: value })), value);
    });

    await check('call: structured content', async () => {
        equal((await call('add', { a: 2, b: 40 })).structuredContent, { sum: 42 });
    });

    await check('call: a tool that fails', async () => {
        const result = await call('fail');
        equal(result.isError, true, 'isError');
        assert(text(result).includes('failed as asked'), `text is ${text(result)}`);
    });

    // A modern server answers with HTTP 404, which the SDK's own HTTP client does not look into.
    if (bridged || peer.era !== 'modern') {
        await check('an unknown method brings the server\'s own error', async () => {
            const error = await peer.request('peer/unknown', {}).then(() => undefined, reason => reason);
            // -32601; the Python SDK 1.x says -32602.
            assert([-32601, -32602].includes(error?.code), `code is ${error?.code} (${error?.message})`);
            assert(error.data?.source === undefined, 'the bridge made this error itself');
        });
    }

    await check('resources: list, read, template', async () => {
        assert((await peer.resourceUris()).includes('peer://counter'), 'counter not listed');
        equal(await peer.readText('peer://item/7'), 'item 7');
    });

    await check('prompts: list, get', async () => {
        assert((await peer.promptNames()).includes('greet'), 'greet not listed');
        equal(await peer.promptText('greet', { name: 'Ada' }), 'Hello, Ada');
    });

    if (peer.era !== 'modern') await check('ping', () => peer.ping());

    await check('progress: in order, before the answer', async () => {
        const steps = [];
        const result = await call('slow', { ms: 200, steps: 3 }, { onprogress: progress => steps.push(progress.progress) });
        equal(text(result), 'slept 200');
        equal(steps, [1, 2, 3], 'steps');
    });

    if (has('ask')) {
        await check('elicitation', async () => {
            equal(text(await call('ask', { message: 'who?' })), 'accept Ada (who?)');
        });
        await check('sampling', async () => {
            equal(text(await call('sample', { prompt: 'hi' })), 'model says hi');
        });
        await check('roots', async () => {
            equal(text(await call('roots')), 'file:///peer/one file:///peer/two');
        });
        await check('16 questions at once', async () => {
            const asked = await Promise.all(Array.from({ length: 16 }, (_, i) => call('ask', { message: `q${i}` })));
            equal(asked.map(text), Array.from({ length: 16 }, (_, i) => `accept Ada (q${i})`));
        });
    }

    if (has('url')) {
        await check('elicitation by URL', async () => {
            equal(text(await call('visit')), 'accept');
        });
        // An older client shows the URL by itself when it gets this error.
        if (peer.era === 'modern') {
            await check('a URL that the server demands by an error', async () => {
                equal(text(await call('must_visit')), 'visited');
            });
        }
    }

    const logged = () => notified('notifications/message').map(notification => notification.params.data);
    if (has('log')) {
        await check('logging honours the level', async () => {
            await peer.setLevel('warning');
            await call('log', { level: 'error', text: 'loud' });
            await call('log', { level: 'info', text: 'quiet' });
            await until(() => logged().includes('loud'), 'the log line');
            await sleep(100);
            assert(!logged().includes('quiet'), 'a line below the level came');
        });
    }

    const updates = from => notified('notifications/resources/updated', from).map(notification => notification.params.uri);
    if (has('subscribe')) {
        await check('subscription: updates while it lasts', async () => {
            await peer.subscribe('peer://counter');
            const from = seen.length;
            await call('touch');
            await until(() => updates(from).includes('peer://counter'), 'the update');
            await peer.unsubscribe('peer://counter');
            await sleep(150);
            const after = seen.length;
            await call('touch');
            await sleep(150);
            equal(updates(after), [], 'updates after unsubscribing');
            await peer.subscribe('peer://counter');
        });
    }

    const changes = from => notified('notifications/tools/list_changed', from);
    if (has('list-changed')) {
        await check('list_changed', async () => {
            const name = `later_${randomUUID().slice(0, 8)}`;
            const from = seen.length;
            await call('grow', { name });
            await until(() => changes(from).length > 0, 'list_changed');
            assert((await peer.toolNames()).includes(name), 'the new tool is not listed');
        });
    }

    await check('cancellation reaches the server, the rest goes on', async () => {
        const before = (await serverState()).cancelled;
        const stop = new AbortController();
        const cancelled = call('slow_once', { ms: 60_000 }, { signal: stop.signal }).then(
            () => { throw new Error('the cancelled call was answered'); },
            () => {}
        );
        await sleep(150);
        stop.abort('enough');
        await cancelled;
        if (has('cancel')) await until(async () => (await serverState()).cancelled > before, 'the server\'s cancellation', 3000);
        equal(text(await call('echo', { text: 'alive' })), 'alive');
    });

    await check('64 calls at once, each its own answer', async () => {
        const values = Array.from({ length: 64 }, (_, i) => `call ${i} ${'.'.repeat(i)}`);
        const results = await Promise.all(values.map(value => call('echo', { text: value })));
        equal(results.map(text), values);
    });

    await check('a fast call does not wait for slow ones', async () => {
        const slow = Array.from({ length: 8 }, () => call('slow', { ms: 800 }));
        await sleep(50);
        const start = Date.now();
        await call('echo', { text: 'fast' });
        const took = Date.now() - start;
        await Promise.all(slow);
        assert(took < 500, `took ${took} ms`);
    });

    await check('5 MB there and back', async () => {
        const value = 'é✓x\\"'.repeat(MIB / 2); // 5 MiB as JSON
        equal(digest(text(await call('echo', { text: value }))), digest(value), 'digest');
    }, 20_000);

    await check('8 MB answer', async () => {
        equal(text(await call('big', { bytes: 8 * MIB })).length, 8 * MIB, 'length');
    }, 20_000);

    if (bridged) {
        await check('answer stream cut: a call that may be repeated is answered', async () => {
            const cut = call('slow', { ms: 600, steps: 2 });
            await sleep(250);
            assert((await control('cut')).cut > 0, 'nothing was cut');
            equal(text(await cut), 'slept 600');
        });

        await check('answer stream cut: no call is left without an answer', async () => {
            const cut = call('slow_once', { ms: 600, steps: 2 });
            const outcome = cut.then(result => text(result), error => error.message);
            await sleep(250);
            assert((await control('cut')).cut > 0, 'nothing was cut');
            const answer = await within(outcome, 6000, 'answer or error');
            if (has('resume')) equal(answer, 'slept 600', 'a resumable stream gives the result');
            await until(async () => text(await call('echo', { text: 'alive' })) === 'alive', 'the next call');
        });
    }

    if (bridged && has('sessions')) {
        await check('session forgotten: 16 calls at once heal it once', async () => {
            const before = (await serverState()).initialized;
            const from = seen.length;
            assert((await control('forget-sessions')).forgotten > 0, 'there was no session');
            const values = Array.from({ length: 16 }, (_, i) => `after ${i}`);
            const results = await Promise.all(values.map(value => call('echo', { text: value })));
            equal(results.map(text), values);
            equal((await serverState()).initialized - before, 1, 'new sessions');
            if (has('list-changed')) await until(() => changes(from).length > 0, 'list_changed after the new session');
        });

        await check('restart in the middle: 16 calls in flight are answered', async () => {
            const running = Array.from({ length: 16 }, () => call('slow', { ms: 700 }));
            await sleep(200);
            await control('forget-sessions');
            await control('cut');
            const results = await Promise.all(running);
            equal(results.map(text), results.map(() => 'slept 700'));
        });

        if (has('subscribe')) {
            await check('the subscription is kept over a new session', async () => {
                const from = seen.length;
                await until(async () => {
                    await call('touch');
                    await sleep(50);
                    return updates(from).includes('peer://counter');
                }, 'the update');
            });
        }
        if (has('log')) {
            await check('the log level is kept over a new session', async () => {
                await call('log', { level: 'info', text: 'still quiet' });
                await call('log', { level: 'error', text: 'still loud' });
                await until(() => logged().includes('still loud'), 'the log line');
                await sleep(100);
                assert(!logged().includes('still quiet'), 'a line below the level came');
            });
        }
    }

    const deleted = (await serverState()).deleted;
    await check('close: the bridge ends', () => peer.close(), 5000);
    if (bridged && has('delete')) {
        await check('close: the session is ended at the server', () =>
            until(async () => (await serverState()).deleted > deleted, 'the end of the session', 3000));
    }
    process.stdout.write('done\n', () => process.exit(failed === 0 ? 0 : 1));
}
