#!/usr/bin/env node
// The same as browser.mjs with a real Chromium: $BROWSER names this file, and it opens the page, types into its forms, presses their
// buttons, and notes in $HOME/tabs where the tab ended. CHROMIUM names another program.
//
// It talks to Chromium by the DevTools protocol over a pipe: messages end with a NUL byte.
import { spawn } from 'node:child_process';
import { appendFileSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const LIMIT_MS = 40_000;
const LOOK_MS = 50;

/** Runs in the page: fills the form in and presses its button, or says where the tab has ended. */
function act(answers, deny) {
    if (document.readyState !== 'complete' || document.body === null || window.pressed) return null;
    const press = element => {
        window.pressed = true;
        element.click();
        return 'pressed';
    };
    const form = [...document.forms].find(one => one.method === 'post');
    if (form === undefined) {
        const [navigation] = performance.getEntriesByType('navigation');
        return {
            url: location.href,
            status: navigation?.responseStatus,
            title: document.querySelector('h1')?.textContent ?? document.title,
            shown: document.body.innerText.slice(0, 300)
        };
    }
    const out = document.querySelector('a[href*=abort],a[href*=cancel],a[href*=deny]');
    if (deny && out) return press(out);
    for (const field of form.querySelectorAll('input:not([type=hidden]):not([type=submit])')) {
        field.focus();
        field.value ||= answers[field.name] ?? 'ada';
    }
    const buttons = [...form.querySelectorAll('button,input[type=submit]')];
    return press(buttons.find(button => /deny|cancel|no$/i.test(button.value) === deny) ?? buttons[0]);
}

/** Chromium without a window, and a profile that goes with it. */
function launch() {
    const profile = mkdtempSync(join(tmpdir(), 'chromium-'));
    const flags = ['--headless', '--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking', `--user-data-dir=${profile}`];
    const child = spawn(process.env.CHROMIUM ?? 'chromium', [...flags, '--remote-debugging-pipe', 'about:blank'], {
        stdio: ['ignore', 'ignore', 'ignore', 'pipe', 'pipe']
    });
    const gone = new Promise((_, reject) => {
        child.on('error', reject);
        child.on('exit', code => reject(new Error(`Chromium ended with ${code}`)));
    });
    gone.catch(() => {});
    const waiting = new Map();
    let last = 0;
    let text = '';
    child.stdio[4].setEncoding('utf8');
    child.stdio[4].on('data', chunk => {
        text += chunk;
        const messages = text.split('\0');
        text = messages.pop();
        for (const message of messages.map(one => JSON.parse(one))) {
            waiting.get(message.id)?.(message);
            waiting.delete(message.id);
        }
    });
    const ask = async (method, params = {}, sessionId) => {
        last += 1;
        const id = last;
        const answer = new Promise(resolve => waiting.set(id, resolve));
        child.stdio[3].write(`${JSON.stringify({ id, method, params, sessionId })}\0`);
        const { result, error } = await Promise.race([answer, gone]);
        if (error) throw new Error(`${method}: ${error.message}`);
        return result;
    };
    const close = async () => {
        const ended = new Promise(resolve => child.on('exit', resolve));
        child.kill('SIGTERM');
        await ended;
        rmSync(profile, { recursive: true, force: true, maxRetries: 5 });
    };
    return { ask, close };
}

async function surf(start, { deny = false } = {}) {
    const { ask, close } = launch();
    try {
        const { targetId } = await ask('Target.createTarget', { url: start });
        const { sessionId } = await ask('Target.attachToTarget', { targetId, flatten: true });
        const answers = { login: 'ada', username: 'ada', password: 'correct horse' };
        const expression = `(${act})(${JSON.stringify(answers)}, ${deny})`;
        let forms = 0;
        for (const end = Date.now() + LIMIT_MS; Date.now() < end; ) {
            await new Promise(resolve => setTimeout(resolve, LOOK_MS));
            // Between two pages there is nothing to run it in.
            const { result } = await ask('Runtime.evaluate', { expression, returnByValue: true }, sessionId).catch(() => ({}));
            if (result?.value === 'pressed') forms += 1;
            else if (result?.value && result.value.url !== 'about:blank') return { ...result.value, forms };
        }
        throw new Error('the tab never ended anywhere');
    } finally {
        await close();
    }
}

const note = what => appendFileSync(join(process.env.HOME, 'tabs'), `${JSON.stringify({ start: process.argv[2], ...what })}\n`);
let person = {};
try {
    person = JSON.parse(readFileSync(join(process.env.HOME, 'person.json'), 'utf8'));
} catch {
    // Nothing special.
}
try {
    note(await surf(process.argv[2], person));
} catch (error) {
    note({ error: String(error) });
}
