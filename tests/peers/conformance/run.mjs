// The official conformance suite, seen from the bridge. Called by scripts/conformance.
//
//   run.mjs [LEG...] [--verbose]
//
// Prints a table and, last, `N passed, N failed` of the scored scenarios; exit code 1 when one failed.
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { runToEnd, startServer } from '../lib/process.mjs';

const CLIENT_LIMIT_MS = 45_000;
const SERVER_LIMIT_MS = 180_000;

const here = dirname(fileURLToPath(import.meta.url));
const peers = join(here, '..');
const root = join(peers, '..', '..');
const suite = [
    '--import',
    join(here, 'fs-hook.mjs'),
    join(peers, 'node_modules', '@modelcontextprotocol', 'conformance', 'dist', 'index.js')
];

// The scenarios of 2025-11-25 that do not sign in.
const SCENARIOS_25 = {
    scored: ['initialize', 'tools_call', 'elicitation-sep1034-client-defaults', 'sse-retry'],
    unscored: ['json-schema-2020-12-preservation']
};
// The scenarios of 2026-07-28 that do not sign in, and those whose server wants its headers on every message that it ever gets.
const SCENARIOS_26 = {
    scored: [
        'tools_call',
        'request-metadata',
        'sep-2322-client-request-state',
        'http-standard-headers',
        'http-custom-headers',
        'http-invalid-tool-headers',
        'json-schema-ref-no-deref'
    ],
    unscored: ['json-schema-2020-12-preservation']
};
const FALLBACKS_2025_03_26 = ['auth/2025-03-26-oauth-metadata-backcompat', 'auth/2025-03-26-oauth-endpoint-fallback'];
const STRICT_26 = ['request-metadata', 'http-standard-headers'];

// A leg is one way to put the bridge before the suite.
const legs = {
    // The suite's servers, our stdio client. Sign-in (auth/*) has legs of its own.
    25: {
        title: 'client scenarios, 2025-11-25, without auth',
        run: workspace =>
            clientScenarios(workspace, '2025-11-25', { client: 'client.mjs', ...SCENARIOS_25 })
    },
    // The same servers, and clients that speak 2026-07-28 alone or know both: the bridge translates.
    '25m': {
        title: 'client scenarios, 2025-11-25, modern client, without auth',
        run: workspace =>
            clientScenarios(workspace, '2025-11-25', { client: 'client-modern.mjs', env: { CLIENT_ERA: 'modern' }, ...SCENARIOS_25 })
    },
    '25d': {
        title: 'client scenarios, 2025-11-25, dual-era client, without auth',
        run: workspace =>
            clientScenarios(workspace, '2025-11-25', { client: 'client-modern.mjs', env: { CLIENT_ERA: 'auto' }, ...SCENARIOS_25 })
    },
    // The suite's servers of 2026-07-28 and a client of that revision.
    '26m': {
        title: 'client scenarios, 2026-07-28, modern client, without auth',
        run: workspace =>
            clientScenarios(workspace, '2026-07-28', { client: 'client-modern.mjs', env: { CLIENT_ERA: 'modern' }, ...SCENARIOS_26 })
    },
    // The same servers and a client of 2025-11-25. Two of them count every message without the headers of 2026-07-28 as a failure, also
    // the client's `initialize` that goes out as it came; so the bridge is told what the server speaks.
    '26l': {
        title: 'client scenarios, 2026-07-28, legacy client, --protocol modern, without auth',
        run: workspace =>
            clientScenarios(workspace, '2026-07-28', {
                client: 'client-modern.mjs',
                env: { CLIENT_ERA: 'legacy', DRAWBRIDGE_ARGS: '--protocol modern' },
                ...SCENARIOS_26
            })
    },
    // The same, and the bridge finds out.
    '26l-auto': {
        title: 'client scenarios, 2026-07-28, legacy client, without auth',
        run: workspace =>
            clientScenarios(workspace, '2026-07-28', {
                client: 'client-modern.mjs',
                env: { CLIENT_ERA: 'legacy' },
                scored: SCENARIOS_26.scored.filter(name => !STRICT_26.includes(name)),
                unscored: SCENARIOS_26.unscored
            })
    },
    // Sign-in. The suite's pages approve by themselves; the browser follows their redirects.
    auth25: {
        title: 'sign-in scenarios, 2025-11-25, and the two fallbacks of 2025-03-26',
        run: async workspace => [
            ...(await signIn(workspace, '2025-11-25', 'legacy')),
            ...(await signIn(workspace, '2025-03-26', 'legacy', FALLBACKS_2025_03_26))
        ]
    },
    auth25m: {
        title: 'sign-in scenarios, 2025-11-25, modern client',
        run: workspace => signIn(workspace, '2025-11-25', 'modern')
    },
    auth25d: {
        title: 'sign-in scenarios, 2025-11-25, dual-era client',
        run: workspace => signIn(workspace, '2025-11-25', 'auto')
    },
    auth26: {
        title: 'sign-in scenarios, 2026-07-28, modern client',
        run: workspace => signIn(workspace, '2026-07-28', 'modern')
    },
    auth26l: {
        title: 'sign-in scenarios, 2026-07-28, legacy client',
        run: workspace => signIn(workspace, '2026-07-28', 'legacy')
    },
    // The suite's clients, our front, the bridge, our server.
    server25: {
        title: 'server scenarios through the bridge, 2025-11-25',
        run: workspace => serverScenarios(workspace, '2025-11-25', { server: 'server.mjs', through: 'bridge' })
    },
    // The scenario of 2026-07-28 that is about the protocol itself, with a modern front, and the bridge between modern ends.
    server26: {
        title: 'server-stateless through the bridge, 2026-07-28',
        run: workspace => oneServerScenario(workspace, 'server-stateless', { server: 'server-modern.mjs', front: 'front-modern.mjs' })
    },
    'server26-direct': {
        title: 'server-stateless against the test server itself, 2026-07-28',
        run: workspace => oneServerScenario(workspace, 'server-stateless', { server: 'server-modern.mjs' })
    },
    // The same server without the bridge: what fails here is not the bridge's fault.
    'server25-direct': {
        title: 'server scenarios against the test server itself, 2025-11-25',
        run: workspace => serverScenarios(workspace, '2025-11-25', { server: 'server.mjs', through: 'nothing' })
    }
};
const DEFAULT_LEGS = ['25', '25m', '25d', '26m', '26l', '26l-auto', 'auth25', 'auth26', 'server25', 'server26'];

const { values: flags, positionals } = parseArgs({ allowPositionals: true, options: { verbose: { type: 'boolean' } } });
const chosen = positionals.length > 0 ? positionals : DEFAULT_LEGS;
for (const name of chosen) {
    if (!Object.hasOwn(legs, name)) {
        console.error(`no leg is called ${name}; there are: ${Object.keys(legs).join(' ')}`);
        process.exit(2);
    }
}

const workspace = mkdtempSync(join(tmpdir(), 'conformance-'));
process.on('exit', () => rmSync(workspace, { recursive: true, force: true }));
const home = join(workspace, 'home');
mkdirSync(home);
const env = { ...process.env };
for (const name of Object.keys(env)) {
    if (/^(https?_proxy|all_proxy|no_proxy|mcp_.*|xdg_.*)$/i.test(name)) delete env[name];
}
Object.assign(env, {
    HOME: home,
    NO_COLOR: '1',
    DRAWBRIDGE: process.env.DRAWBRIDGE ?? join(root, 'target', 'debug', 'mcp-drawbridge')
});

/** What the suite wrote about a scenario. */
function readChecks(directory) {
    return JSON.parse(readFileSync(join(directory, 'checks.json'), 'utf8'));
}

/** A scenario's row: it passes when a check succeeded and none failed. */
function row(scenario, scored, checks, trouble) {
    const of = status => checks.filter(check => check.status === status);
    const failures = of('FAILURE').map(check => `${check.name}: ${check.errorMessage ?? check.description}`);
    if (trouble) failures.push(trouble);
    if (failures.length === 0 && of('SUCCESS').length === 0) failures.push('no check succeeded');
    return {
        scenario,
        scored,
        passed: failures.length === 0,
        succeeded: of('SUCCESS').length,
        failures,
        warnings: of('WARNING').map(check => `${check.name}: ${check.errorMessage ?? check.description}`)
    };
}

async function clientScenarios(directory, revision, { scored, unscored = [], client = 'client.mjs', env: extra = {} }) {
    const rows = [];
    for (const scenario of [...scored, ...unscored]) {
        const results = join(directory, scenario);
        const command = `${process.execPath} ${join(here, client)}`;
        // A home for each: what one scenario leaves must not help or hurt the next, whose server may have the same port.
        const home = mkdtempSync(join(workspace, 'home-'));
        const own = { ...env, ...extra, HOME: home, BROWSER: join(peers, 'lib', 'browser.mjs') };
        const args = ['client', '--command', command, '--scenario', scenario, '--spec-version', revision, '-o', results];
        const { outcome, stderr } = await runToEnd(process.execPath, [...suite, ...args], { env: own, cwd: peers, limit: CLIENT_LIMIT_MS });
        let checks = [];
        let trouble = /CLIENT (TIMED OUT|EXITED WITH ERROR)[^\n]*/.exec(stderr)?.[0];
        try {
            const file = readdirSync(results, { recursive: true }).find(name => basename(name) === 'checks.json');
            checks = readChecks(dirname(join(results, file)));
        } catch {
            trouble ??= `the suite ended with ${outcome}: ${stderr.slice(-300)}`;
        }
        const tabs = join(home, 'tabs');
        const log = existsSync(tabs) ? `${stderr}\ntabs: ${readFileSync(tabs, 'utf8')}` : stderr;
        rows.push({ ...row(scenario, scored.includes(scenario), checks, trouble), log });
    }
    return rows;
}

/** The lists of a revision's requirement set; the file is simple enough to read line by line. */
function requirements(revision) {
    const file = join(peers, 'node_modules', '@modelcontextprotocol', 'conformance', 'requirements', `${revision}.yaml`);
    const lists = {};
    let list;
    for (const line of readFileSync(file, 'utf8').split('\n')) {
        const heading = /^(\w+):/.exec(line);
        if (heading) list = lists[heading[1]] = [];
        const item = /^ {2}- (?:scenario: )?(\S+)$/.exec(line);
        if (item) list.push(item[1]);
    }
    return lists;
}

/** The scored sign-in scenarios of a revision, or those named, with a client of an era. */
function signIn(directory, revision, era, scored = requirements(revision).client.filter(name => name.startsWith('auth/'))) {
    return clientScenarios(directory, revision, { client: 'auth-client.mjs', env: { CLIENT_ERA: era }, scored });
}

async function serverScenarios(directory, revision, { server, through }) {
    const running = [await startServer(process.execPath, [join(here, server)], { env, cwd: peers })];
    try {
        if (through === 'bridge') {
            running.push(await startServer(process.execPath, [join(here, 'front.mjs'), running[0].url], { env, cwd: peers }));
        }
        const url = running.at(-1).url;
        const args = ['server', '--url', url, '--requirements', revision, '-o', directory];
        const lines = [];
        const { outcome, stderr } = await runToEnd(process.execPath, [...suite, ...args], {
            env,
            cwd: peers,
            limit: SERVER_LIMIT_MS,
            lines: line => lines.push(line)
        });
        const log = `${lines.join('\n')}\n${stderr}\n${running.map(server => server.stderr()).join('\n')}`;
        const required = requirements(revision).server;
        const results = readdirSync(directory);
        const resultOf = scenario => results.find(name => name.startsWith(`server-${scenario}-2`));
        const names = results.map(name => /^server-(.+)-\d{4}-\d\d-\d\dT/.exec(name)?.[1]).filter(Boolean);
        return [...required, ...names.filter(name => !required.includes(name))].map(scenario => {
            const result = resultOf(scenario);
            const checks = result ? readChecks(join(directory, result)) : [];
            return { ...row(scenario, required.includes(scenario), checks, result ? undefined : `not run; the suite ended with ${outcome}`), log };
        });
    } finally {
        for (const process of running.reverse()) await process.stop();
    }
}

async function oneServerScenario(directory, scenario, { server, front }) {
    const running = [await startServer(process.execPath, [join(here, server)], { env, cwd: peers })];
    try {
        if (front) running.push(await startServer(process.execPath, [join(here, front), running[0].url], { env, cwd: peers }));
        const args = ['server', '--url', running.at(-1).url, '--scenario', scenario, '--spec-version', '2026-07-28', '-o', directory];
        const { outcome, stderr } = await runToEnd(process.execPath, [...suite, ...args], { env, cwd: peers, limit: SERVER_LIMIT_MS });
        const log = `${stderr}\n${running.map(one => one.stderr()).join('\n')}`;
        const result = readdirSync(directory).find(name => name.startsWith(`server-${scenario}-`));
        const checks = result ? readChecks(join(directory, result)) : [];
        return [{ ...row(scenario, true, checks, result ? undefined : `not run; the suite ended with ${outcome}`), log }];
    } finally {
        for (const process of running.reverse()) await process.stop();
    }
}

let passed = 0;
let failed = 0;
for (const name of chosen) {
    const start = Date.now();
    const directory = join(workspace, name);
    mkdirSync(directory);
    const rows = await legs[name].run(directory);
    console.log(`\n${name}: ${legs[name].title} (${((Date.now() - start) / 1000).toFixed(0)} s)`);
    const width = Math.max(...rows.map(({ scenario }) => scenario.length));
    for (const { scenario, scored, passed: good, succeeded, failures, warnings } of rows) {
        const verdict = good ? 'passed' : scored ? 'FAILED' : 'failed';
        console.log(`  ${scenario.padEnd(width)}  ${verdict}  ${String(succeeded).padStart(2)} checks${scored ? '' : '  (not scored)'}`);
        for (const line of failures) console.log(`      ${line.replaceAll('\n', ' ').slice(0, 600)}`);
        for (const line of warnings) console.log(`      warning: ${line.replaceAll('\n', ' ').slice(0, 600)}`);
    }
    if (flags.verbose) {
        for (const log of new Set(rows.filter(one => !one.passed).map(one => one.log))) console.log(log.replace(/^/gm, '    | '));
    }
    passed += rows.filter(one => one.scored && one.passed).length;
    failed += rows.filter(one => one.scored && !one.passed).length;
}
console.log(`\n${passed} passed, ${failed} failed`);
process.exit(failed === 0 ? 0 : 1);
