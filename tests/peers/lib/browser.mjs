#!/usr/bin/env node
// The user's browser in tests: $BROWSER names this file. Loads a page, follows redirects, keeps cookies, fills in the
// forms of sign-in and consent as a person would, and ends at the last page. What it did is in $HOME/tabs, a JSON line a tab.
//
// What the person does: $HOME/person.json, such as {"deny": true} (takes the way out of the form) or {"idle": true}.
import { appendFileSync, readFileSync, realpathSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

const MAX_STEPS = 30;
const STEP_LIMIT_MS = 15_000;
// The listener of a program may be a moment late.
const RETRIES = 20;
const RETRY_PAUSE_MS = 100;

/** What a person types into a field. */
const answers = { login: 'ada', username: 'ada', user: 'ada', email: 'ada@example.com', password: 'correct horse' };

const unescape = text => text.replaceAll('&quot;', '"').replaceAll('&#39;', "'").replaceAll('&#x27;', "'").replaceAll('&lt;', '<').replaceAll('&gt;', '>').replaceAll('&amp;', '&');

function attributes(tag) {
    const found = {};
    for (const [, name, , quoted, single, bare] of tag.matchAll(/([a-z-]+)\s*(=\s*(?:"([^"]*)"|'([^']*)'|([^\s>]+)))?/gi)) {
        found[name.toLowerCase()] = unescape(quoted ?? single ?? bare ?? '');
    }
    return found;
}

/** The forms of a page. */
export function forms(html) {
    return [...html.matchAll(/<form([^>]*)>([\s\S]*?)<\/form>/gi)].map(([, head, body]) => ({
        ...attributes(head),
        fields: [...body.matchAll(/<(input|button)([^>]*)>/gi)].map(([, kind, tag]) => {
            const field = attributes(tag);
            return { ...field, type: (field.type ?? (kind.toLowerCase() === 'button' ? 'submit' : 'text')).toLowerCase() };
        })
    }));
}

/** What is sent when a person fills the form in and presses its button. */
function filled({ fields }, deny) {
    const values = new URLSearchParams();
    const buttons = fields.filter(field => field.type === 'submit' && field.name);
    for (const { type, name, value } of fields) {
        if (name && type !== 'submit') values.set(name, value || answers[name] || (type === 'hidden' ? '' : 'ada'));
    }
    const refuses = ({ value }) => /deny|cancel|abort|no$/i.test(value ?? '');
    const button = buttons.find(one => refuses(one) === deny) ?? buttons[0];
    if (button) values.set(button.name, button.value ?? '');
    return values;
}

/** Cookies by origin and name. */
class Jar {
    #cookies = new Map();
    take(url, response) {
        for (const line of response.headers.getSetCookie()) {
            const [pair, ...rest] = line.split(';');
            const at = pair.indexOf('=');
            const path = rest.map(part => part.trim().split('=')).find(([name]) => name.toLowerCase() === 'path')?.[1] ?? '/';
            const expires = rest.map(part => part.trim()).find(part => /^expires=/i.test(part));
            const key = `${url.host}${path} ${pair.slice(0, at)}`;
            if (expires && Date.parse(expires.slice(8)) < Date.now()) this.#cookies.delete(key);
            else this.#cookies.set(key, { host: url.host, path, pair });
        }
    }
    header(url) {
        const fit = [...this.#cookies.values()].filter(({ host, path }) => host === url.host && url.pathname.startsWith(path));
        return fit.length > 0 ? { cookie: fit.map(({ pair }) => pair).join('; ') } : {};
    }
}

async function load(url, options) {
    for (let attempt = 0; ; attempt += 1) {
        try {
            return await fetch(url, { ...options, redirect: 'manual', signal: AbortSignal.timeout(STEP_LIMIT_MS) });
        } catch (error) {
            if (attempt >= RETRIES || error.cause?.code !== 'ECONNREFUSED') throw error;
            await new Promise(resolve => setTimeout(resolve, RETRY_PAUSE_MS));
        }
    }
}

/** Goes wherever the page leads. Gives the last page, and how many forms there were. */
export async function surf(start, { deny = false } = {}) {
    const jar = new Jar();
    let url = new URL(start);
    let options = {};
    let filledIn = 0;
    for (let step = 0; step < MAX_STEPS; step += 1) {
        const response = await load(url, { ...options, headers: { ...options.headers, ...jar.header(url), accept: 'text/html' } });
        jar.take(url, response);
        const location = response.headers.get('location');
        if (response.status >= 300 && response.status < 400 && location) {
            await response.arrayBuffer();
            url = new URL(location, url);
            options = {};
            continue;
        }
        const html = await response.text();
        const all = forms(html);
        const form = (deny && all.find(({ action }) => /abort|deny|cancel/.test(action ?? ''))) || all.find(({ method }) => method?.toLowerCase() === 'post');
        const out = deny && /href="([^"]*(?:abort|cancel|deny)[^"]*)"/i.exec(html)?.[1];
        if (response.ok && out) {
            url = new URL(unescape(out), url);
            options = {};
        } else if (response.ok && form) {
            filledIn += 1;
            url = new URL(form.action || url, url);
            options = { method: 'POST', body: filled(form, deny), headers: { origin: url.origin } };
        } else {
            return { url: url.href, status: response.status, title: /<h1[^>]*>([^<]*)/.exec(html)?.[1] ?? html.slice(0, 200), forms: filledIn };
        }
    }
    throw new Error(`more than ${MAX_STEPS} steps`);
}

if (process.argv[1] && import.meta.url === pathToFileURL(realpathSync(process.argv[1])).href) {
    const home = process.env.HOME;
    const note = what => appendFileSync(join(home, 'tabs'), `${JSON.stringify({ start: process.argv[2], ...what })}\n`);
    let person = {};
    try {
        person = JSON.parse(readFileSync(join(home, 'person.json'), 'utf8'));
    } catch {
        // Nothing special.
    }
    if (person.idle) note({ idle: true });
    else {
        try {
            note(await surf(process.argv[2], person));
        } catch (error) {
            note({ error: String(error?.cause?.message ?? error) });
        }
    }
}
