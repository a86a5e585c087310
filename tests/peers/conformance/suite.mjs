// Runs the conformance suite's scenarios, clients' and servers', and reads what it found.
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { runToEnd, startServer } from '../lib/process.mjs';

const CLIENT_LIMIT_MS = 45_000;
const SERVER_LIMIT_MS = 180_000;
/** Client scenarios at once; each has a server of its own. */
const JOBS = Math.max(2, Math.min(4, availableParallelism()));
// These measure times.
const ALONE = new Set(['sse-retry']);

const here = dirname(fileURLToPath(import.meta.url));
const peers = join(here, '..');
const published = join(peers, 'node_modules', '@modelcontextprotocol', 'conformance');
const suite = ['--import', join(here, 'fs-hook.mjs'), join(published, 'dist', 'index.js')];

/** The bridge that this checkout built. */
const built = join(peers, '..', '..', 'target', 'debug', 'mcp-drawbridge');

/** What the suite wrote about a scenario. */
function readChecks(directory) {
    return JSON.parse(readFileSync(join(directory, 'checks.json'), 'utf8'));
}

/** A scenario's row: it passes when a check succeeded and none failed. It counts when the requirement set says so. */
function row(scenario, scored, checks, trouble) {
    const of = status => checks.filter(check => check.status === status);
    const failures = of('FAILURE').map(check => `${check.name}: ${check.errorMessage ?? check.description}`);
    if (trouble) failures.push(trouble);
    if (failures.length === 0 && of('SUCCESS').length === 0) failures.push('no check succeeded');
    return {
        scenario,
        scored,
        counts: scored,
        passed: failures.length === 0,
        succeeded: of('SUCCESS').length,
        failures,
        warnings: of('WARNING').map(check => `${check.name}: ${check.errorMessage ?? check.description}`)
    };
}

/** Does `job` for each item, `width` at a time; results in the order of the items. */
async function each(items, width, job) {
    const results = new Array(items.length);
    let next = 0;
    const work = async () => {
        while (next < items.length) {
            const at = next;
            next += 1;
            results[at] = await job(items[at]);
        }
    };
    await Promise.all(Array.from({ length: width }, work));
    return results;
}

/** The lists of a revision's requirement set; the file is simple enough to read line by line. */
export function requirements(revision) {
    const lists = {};
    let list;
    for (const line of readFileSync(join(published, 'requirements', `${revision}.yaml`), 'utf8').split('\n')) {
        const heading = /^(\w+):/.exec(line);
        if (heading) list = lists[heading[1]] = [];
        const item = /^ {2}- (?:scenario: )?(\S+)$/.exec(line);
        if (item) list.push(item[1]);
    }
    return lists;
}

/** The suite in a workspace of its own, where nothing of this machine's user matters. */
export class Suite {
    /** `only` is the one scenario to run, of those that a leg has; server scenarios all run, and one is shown. */
    constructor(workspace, only) {
        this.workspace = workspace;
        this.only = only;
        this.env = { ...process.env };
        for (const name of Object.keys(this.env)) {
            if (/^(https?_proxy|all_proxy|no_proxy|mcp_.*|xdg_.*)$/i.test(name)) delete this.env[name];
        }
        Object.assign(this.env, { NO_COLOR: '1', DRAWBRIDGE: process.env.DRAWBRIDGE ?? built });
    }

    /** A new home: what one run leaves must not help or hurt the next, whose server may have the same port. */
    #home() {
        return mkdtempSync(join(this.workspace, 'home-'));
    }

    /** Scenarios whose servers are the suite's: `client` is the program that it starts, with `env` besides. */
    async clientScenarios(directory, revision, { scored, unscored = [], client, env = {} }) {
        const run = async scenario => {
            const results = join(directory, scenario);
            const home = this.#home();
            const own = { ...this.env, ...env, HOME: home, BROWSER: join(peers, 'lib', 'browser.mjs') };
            const command = `${process.execPath} ${join(here, client)}`;
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
            return { ...row(scenario, scored.includes(scenario), checks, trouble), log };
        };
        const all = [...scored, ...unscored].filter(name => this.only === undefined || name === this.only);
        const rows = [
            ...(await each(all.filter(name => !ALONE.has(name)), JOBS, run)),
            ...(await each(all.filter(name => ALONE.has(name)), 1, run))
        ];
        return all.map(name => rows.find(({ scenario }) => scenario === name));
    }

    /** Every server scenario of a revision's requirement set against `url`: a map of rows by name. */
    async #serverRun(directory, revision, url, env) {
        mkdirSync(directory);
        const lines = [];
        const { outcome, stderr } = await runToEnd(
            process.execPath,
            [...suite, 'server', '--url', url, '--requirements', revision, '-o', directory],
            { env, cwd: peers, limit: SERVER_LIMIT_MS, lines: line => lines.push(line) }
        );
        const log = `${lines.join('\n')}\n${stderr}`;
        const required = requirements(revision).server;
        const results = new Map();
        for (const entry of readdirSync(directory)) {
            const name = /^server-(.+)-\d{4}-\d\d-\d\dT/.exec(entry)?.[1];
            // The suite makes the directory first, and fills it when the scenario ends.
            if (name && existsSync(join(directory, entry, 'checks.json'))) results.set(name, join(directory, entry));
        }
        const names = [...required, ...[...results.keys()].filter(name => !required.includes(name))];
        return new Map(names.map(name => {
            const result = results.get(name);
            const trouble = result ? undefined : `not run to its end; the suite ended with ${outcome}`;
            return [name, { ...row(name, required.includes(name), result ? readChecks(result) : [], trouble), log }];
        }));
    }

    /**
     * The server scenarios, through `front` and the bridge to `server`, and at the same time against `control`, which speaks the
     * revision itself: as many checks must succeed here as there. `frontsOwn` names, with the reason, the scenarios about what stdio
     * does not carry: the front passes them or not, the bridge has no part in it. `impossible` names those that cannot pass; one that
     * does is a failure, so that the list stays true.
     */
    async serverScenarios(directory, revision, { server, control = server, front, frontsOwn = {}, impossible = {} }) {
        const env = { ...this.env, HOME: this.#home() };
        const running = [];
        const start = async ([file, ...args]) => {
            const one = await startServer(process.execPath, [join(here, file), ...args], { env, cwd: peers });
            running.push(one);
            return one.url;
        };
        try {
            const behind = await start(server);
            const beside = control === server ? behind : await start(control);
            const before = await start([front[0], behind, ...front.slice(1)]);
            const [direct, bridged] = await Promise.all([
                this.#serverRun(join(directory, 'direct'), revision, beside, env),
                this.#serverRun(join(directory, 'bridged'), revision, before, env)
            ]);
            const words = running.map(one => one.stderr()).join('\n');
            return [...bridged.values()].filter(({ scenario }) => this.only === undefined || scenario === this.only).map(one => {
                const control = direct.get(one.scenario);
                const log = `${one.log}\n${words}`;
                const ours = !Object.hasOwn(frontsOwn, one.scenario);
                const aside = note => ({ ...one, log, failures: [], warnings: [], note, passed: false });
                if (!one.scored && !control?.passed) return aside('the test server does not offer it');
                if (!one.scored && !ours) return aside(`the front's own: ${frontsOwn[one.scenario]}`);
                const failures = [...one.failures];
                if (!control?.passed) failures.push(`the test server itself fails: ${control?.failures.join('; ') ?? 'not run'}`);
                if (ours && one.succeeded < (control?.succeeded ?? 0)) {
                    failures.push(`${control.succeeded} checks succeed at the server itself, ${one.succeeded} here`);
                }
                if (Object.hasOwn(impossible, one.scenario)) {
                    const stale = failures.length === 0 && 'it passes: the list of the impossible is wrong';
                    return { ...one, log, failures: stale ? [stale] : [], warnings: [], note: impossible[one.scenario], passed: !stale, counts: true, apart: true };
                }
                const note = ours ? undefined : `the front's own: ${frontsOwn[one.scenario]}`;
                // What the server can, the bridge must not take away, scored or not.
                return { ...one, log, failures, note, passed: failures.length === 0, counts: true };
            });
        } finally {
            for (const one of running.reverse()) await one.stop();
        }
    }
}
