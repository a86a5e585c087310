// The MCP Inspector in CLI mode, with the bridge in a configuration file as desktop clients have it.
// One line a check, as scenario.mjs.
import { execFile } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { bridgeCommand } from './scenario.mjs';

const LIMIT_MS = 20_000;
const inspector = fileURLToPath(new URL('../node_modules/@modelcontextprotocol/inspector/cli/build/cli.js', import.meta.url));
const directory = mkdtempSync(join(tmpdir(), 'peers-inspector-'));
const config = join(directory, 'config.json');
writeFileSync(config, JSON.stringify({ mcpServers: { peer: bridgeCommand(process.argv[2]) } }));
let failed = 0;

async function check(name, rest, judge) {
    const start = Date.now();
    try {
        const { stdout } = await promisify(execFile)(
            process.execPath,
            [inspector, '--cli', '--config', config, '--server', 'peer', ...rest],
            { timeout: LIMIT_MS, killSignal: 'SIGKILL', maxBuffer: 64 * 1024 * 1024 }
        );
        const result = JSON.parse(stdout);
        if (!judge(result)) throw new Error(`unexpected answer ${JSON.stringify(result).slice(0, 300)}`);
        process.stdout.write(`ok ${name} (${Date.now() - start} ms)\n`);
    } catch (error) {
        failed += 1;
        const why = `${error?.message ?? error} ${error?.stderr ?? ''}`;
        process.stdout.write(`not ok ${name}: ${why.replaceAll('\n', ' ').slice(0, 500)}\n`);
    }
}

await check('tools/list', ['--method', 'tools/list'], result => result.tools.some(tool => tool.name === 'echo'));
await check(
    'tools/call',
    ['--method', 'tools/call', '--tool-name', 'echo', '--tool-arg', 'text=through the bridge'],
    result => result.content[0].text === 'through the bridge'
);
await check('resources/read', ['--method', 'resources/read', '--uri', 'peer://item/7'], result => result.contents[0].text === 'item 7');
await check(
    'prompts/get',
    ['--method', 'prompts/get', '--prompt-name', 'greet', '--prompt-args', 'name=Ada'],
    result => result.messages[0].content.text === 'Hello, Ada'
);
rmSync(directory, { recursive: true });
process.stdout.write('done\n', () => process.exit(failed === 0 ? 0 : 1));
