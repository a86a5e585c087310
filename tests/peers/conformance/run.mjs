// The official conformance suite, seen from the bridge. Called by scripts/conformance.
//
//   run.mjs [LEG...] [--scenario NAME] [--verbose]
//
// Prints a table and, last, `N passed, N failed` of the scenarios that count, and how many were set apart, each with its reason; exit
// code 1 when one failed or none ran.
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { requirements, Suite } from './suite.mjs';

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
const STRICT_26 = ['request-metadata', 'http-standard-headers'];
const FALLBACKS_2025_03_26 = ['auth/2025-03-26-oauth-metadata-backcompat', 'auth/2025-03-26-oauth-endpoint-fallback'];

// Stdio carries no headers: what these want of a server, the front does for itself, or cannot see. Their run against the test server
// itself is the one that counts.
const FRONTS_OWN = {
    'dns-rebinding-protection': 'Host and Origin are headers of whoever connects to the front',
    'http-header-validation': 'the headers end at the front; the bridge writes those that the server sees',
    'tasks-request-headers': 'the headers end at the front; the bridge writes those that the server sees'
};

// Between the eras the bridge makes what a server of 2025-11-25 does not say.
const WITHOUT_KEYS = {
    'input-required-result-basic-elicitation': 'wants the key user_name; a question of 2025-11-25 has no key, so the bridge makes one',
    'input-required-result-ignore-extra-params': 'answers before it is asked, under a key; a server of 2025-11-25 must ask first'
};
// Tasks of the two revisions are different protocols; the bridge refuses them across the eras (docs/eras.md).
const WITHOUT_TASKS = Object.fromEntries(
    requirements('2026-07-28').not_scored.filter(name => name.startsWith('tasks-')).map(name => [name, 'tasks are not promised across the eras'])
);

const LEGACY_SERVER = 'server.mjs';
const MODERN_SERVER = 'server-modern.mjs';
const LEGACY_FRONT = 'front.mjs';
const MODERN_FRONT = 'front-modern.mjs';

/** Client scenarios that do not sign in, with a client of an era. */
const plain = (revision, era, { scored, unscored }, DRAWBRIDGE_ARGS = '') => ({
    run: directory =>
        suite.clientScenarios(directory, revision, {
            client: 'client-modern.mjs',
            env: { CLIENT_ERA: era, DRAWBRIDGE_ARGS },
            scored,
            unscored
        })
});
/** The scored sign-in scenarios of a revision, or those named, with a client of an era. */
const signIn = (revision, era, scored = requirements(revision).client.filter(name => name.startsWith('auth/'))) => ({
    run: directory => suite.clientScenarios(directory, revision, { client: 'auth-client.mjs', env: { CLIENT_ERA: era }, scored })
});

/** Server scenarios: `front` is what the suite connects to, the bridge is between it and `server`. */
const served = (revision, ends) => ({ run: directory => suite.serverScenarios(directory, revision, { ...ends, frontsOwn: FRONTS_OWN }) });

// A leg is one way to put the bridge before the suite.
const legs = {
    // The suite's servers, our stdio client. Sign-in (auth/*) has legs of its own.
    25: {
        title: 'client scenarios, 2025-11-25, without auth',
        run: directory => suite.clientScenarios(directory, '2025-11-25', { client: 'client.mjs', ...SCENARIOS_25 })
    },
    // The same servers, and clients that speak 2026-07-28 alone or know both: the bridge translates.
    '25m': { title: 'client scenarios, 2025-11-25, modern client, without auth', ...plain('2025-11-25', 'modern', SCENARIOS_25) },
    '25d': { title: 'client scenarios, 2025-11-25, dual-era client, without auth', ...plain('2025-11-25', 'auto', SCENARIOS_25) },
    // The suite's servers of 2026-07-28 and a client of that revision.
    '26m': { title: 'client scenarios, 2026-07-28, modern client, without auth', ...plain('2026-07-28', 'modern', SCENARIOS_26) },
    // The same servers and a client of 2025-11-25. Two of them count every message without the headers of 2026-07-28 as a failure, also
    // the client's `initialize` that goes out as it came; so the bridge is told what the server speaks.
    '26l': {
        title: 'client scenarios, 2026-07-28, legacy client, --protocol modern, without auth',
        ...plain('2026-07-28', 'legacy', SCENARIOS_26, '--protocol modern')
    },
    // The same, and the bridge finds out.
    '26l-auto': {
        title: 'client scenarios, 2026-07-28, legacy client, without auth',
        ...plain('2026-07-28', 'legacy', { ...SCENARIOS_26, scored: SCENARIOS_26.scored.filter(name => !STRICT_26.includes(name)) })
    },
    // Sign-in. The suite's pages approve by themselves; the browser follows their redirects.
    auth25: { title: 'sign-in scenarios, 2025-11-25', ...signIn('2025-11-25', 'legacy') },
    auth0326: { title: 'sign-in without resource metadata, 2025-03-26', ...signIn('2025-03-26', 'legacy', FALLBACKS_2025_03_26) },
    auth25m: { title: 'sign-in scenarios, 2025-11-25, modern client', ...signIn('2025-11-25', 'modern') },
    auth25d: { title: 'sign-in scenarios, 2025-11-25, dual-era client', ...signIn('2025-11-25', 'auto') },
    auth26: { title: 'sign-in scenarios, 2026-07-28, modern client', ...signIn('2026-07-28', 'modern') },
    auth26l: { title: 'sign-in scenarios, 2026-07-28, legacy client', ...signIn('2026-07-28', 'legacy') },
    // The suite's clients, our front, the bridge, our server.
    server25: {
        title: 'server scenarios through the bridge, 2025-11-25',
        ...served('2025-11-25', { server: [LEGACY_SERVER], front: [LEGACY_FRONT] })
    },
    server26: {
        title: 'server scenarios through the bridge, 2026-07-28',
        ...served('2026-07-28', { server: [MODERN_SERVER], front: [MODERN_FRONT] })
    },
    'server26-fresh': {
        title: 'server scenarios through a new bridge for each request, 2026-07-28',
        ...served('2026-07-28', { server: [MODERN_SERVER], front: [MODERN_FRONT, 'fresh'] })
    },
    // The same, and the server is of the other era.
    server25m: {
        title: 'server scenarios of 2025-11-25 through the bridge to a server of 2026-07-28',
        ...served('2025-11-25', { server: [MODERN_SERVER], control: [LEGACY_SERVER], front: [LEGACY_FRONT] })
    },
    server26l: {
        title: 'server scenarios of 2026-07-28 through the bridge to a server of 2025-11-25',
        ...served('2026-07-28', { server: [LEGACY_SERVER], control: [MODERN_SERVER], front: [MODERN_FRONT, 'by-client'], impossible: { ...WITHOUT_KEYS, ...WITHOUT_TASKS } })
    }
};

const { values: flags, positionals } = parseArgs({
    allowPositionals: true,
    options: { verbose: { type: 'boolean' }, scenario: { type: 'string' } }
});
const chosen = positionals.length > 0 ? positionals : Object.keys(legs);
for (const name of chosen) {
    if (!Object.hasOwn(legs, name)) {
        console.error(`no leg is called ${name}; there are: ${Object.keys(legs).join(' ')}`);
        process.exit(2);
    }
}

const workspace = mkdtempSync(join(tmpdir(), 'conformance-'));
process.on('exit', () => rmSync(workspace, { recursive: true, force: true }));
const suite = new Suite(workspace, flags.scenario);

let passed = 0;
let failed = 0;
let apart = 0;
for (const name of chosen) {
    const start = Date.now();
    const directory = join(workspace, name);
    mkdirSync(directory);
    const rows = await legs[name].run(directory);
    console.log(`\n${name}: ${legs[name].title} (${((Date.now() - start) / 1000).toFixed(0)} s)`);
    const width = Math.max(0, ...rows.map(({ scenario }) => scenario.length));
    for (const { scenario, scored, counts, passed: good, succeeded, failures, warnings, note, apart: impossible } of rows) {
        const verdict = !good ? (counts ? 'FAILED' : 'failed') : impossible ? 'apart ' : 'passed';
        console.log(`  ${scenario.padEnd(width)}  ${verdict}  ${String(succeeded).padStart(2)} checks${scored ? '' : '  (not scored)'}`);
        if (note) console.log(`      ${note}`);
        for (const line of failures) console.log(`      ${line.replaceAll('\n', ' ').slice(0, 600)}`);
        for (const line of warnings) console.log(`      warning: ${line.replaceAll('\n', ' ').slice(0, 600)}`);
    }
    if (flags.verbose) {
        for (const log of new Set(rows.filter(one => !one.passed).map(one => one.log))) console.log(log.replace(/^/gm, '    | '));
    }
    const counted = rows.filter(one => one.counts);
    apart += counted.filter(one => one.passed && one.apart).length;
    passed += counted.filter(one => one.passed && !one.apart).length;
    failed += counted.filter(one => !one.passed).length;
}
console.log(`\n${passed} passed, ${failed} failed${apart > 0 ? `, ${apart} set apart` : ''}`);
process.exit(failed === 0 && passed > 0 ? 0 : 1);
