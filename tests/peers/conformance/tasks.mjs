// The extension io.modelcontextprotocol/tasks of 2026-07-28 (SEP-2663), as far as the suite's `tasks-*` scenarios ask for it; the SDK has
// none. It takes the messages that are its own before the SDK sees them.
import { randomUUID } from 'node:crypto';
import { pause } from '../lib/host.mjs';

export const EXTENSION = 'io.modelcontextprotocol/tasks';
const CAPABILITIES = 'io.modelcontextprotocol/clientCapabilities';
const TTL_MS = 60_000;
const POLL_MS = 100;
const JOB_MS = 100;
const MAX_TASKS = 1000;
const TERMINAL = ['completed', 'failed', 'cancelled'];

const say = (text, isError) => ({ resultType: 'complete', content: [{ type: 'text', text }], ...(isError && { isError }) });
const schema = properties => ({ type: 'object', properties });
const elicit = (message, property) => ({
    method: 'elicitation/create',
    params: { message, requestedSchema: { ...schema({ [property]: { type: 'string' } }), required: [property] } }
});

class Refused extends Error {
    constructor(code, message, data) {
        super(message);
        Object.assign(this, { code, data });
    }
}

// Each tool: its arguments' schema, whether a client without tasks can have it, and what it does with its arguments and the task.
const tools = {
    slow_compute: {
        inputSchema: schema({ seconds: { type: 'number' }, label: { type: 'string' } }),
        optional: true,
        run: async ({ seconds = 0 }, task) => {
            await pause(seconds * 1000, task?.stop.signal);
            return say(`computed for ${seconds} s`);
        }
    },
    failing_job: {
        run: async () => {
            await pause(JOB_MS);
            return say('it failed as it always does', true);
        }
    },
    protocol_error_job: {
        run: async () => {
            throw new Refused(-32603, 'the job broke down');
        }
    },
    confirm_delete: {
        inputSchema: schema({ filename: { type: 'string' } }),
        run: async ({ filename }, task) => {
            const { confirm } = await task.ask({ confirm: elicit(`Delete ${filename}?`, 'confirm') });
            return say(`${confirm.action} for ${filename}`);
        }
    },
    multi_input: {
        run: async (_, task) => {
            const { first, second } = await task.ask({ first: elicit('First?', 'value'), second: elicit('Second?', 'value') });
            return say(`${first.action} ${second.action}`);
        }
    },
    test_tool_with_task: {
        before: ({ inputResponses }) =>
            inputResponses?.user_name
                ? undefined
                : { resultType: 'input_required', inputRequests: { user_name: elicit('What is your name?', 'name') } },
        run: async (_, task, { inputResponses }) => say(`Hello, ${inputResponses.user_name.content?.name}!`)
    }
};

/** Their entries of `tools/list`. */
export const listTaskTools = () =>
    Object.entries(tools).map(([name, { inputSchema = schema({}) }]) => ({ name, description: `The suite's ${name}`, inputSchema }));

class Task {
    id = randomUUID();
    stop = new AbortController();
    #created = new Date().toISOString();
    #state = { status: 'working' };
    #updated = this.#created;
    #answers = {};
    #answered;

    constructor(tool, params) {
        tool.run(params.arguments ?? {}, this, params).then(
            result => this.#become({ status: 'completed', result }),
            ({ code = -32603, message }) => this.#become({ status: 'failed', error: { code, message } })
        );
    }

    #become(state) {
        if (TERMINAL.includes(this.#state.status)) return;
        this.#state = state;
        this.#updated = new Date().toISOString();
    }

    ask(inputRequests) {
        this.#become({ status: 'input_required', inputRequests: { ...inputRequests } });
        return new Promise(resolve => { this.#answered = resolve; });
    }

    update(inputResponses) {
        const open = this.#state.inputRequests ?? {};
        for (const [key, answer] of Object.entries(inputResponses)) {
            if (!Object.hasOwn(open, key)) continue;
            this.#answers[key] = answer;
            delete open[key];
        }
        if (this.#state.status !== 'input_required' || Object.keys(open).length > 0) return;
        this.#become({ status: 'working' });
        this.#answered(this.#answers);
    }

    cancel() {
        this.#become({ status: 'cancelled' });
        this.stop.abort();
    }

    seen(resultType) {
        const about = { taskId: this.id, createdAt: this.#created, lastUpdatedAt: this.#updated, ttlMs: TTL_MS, pollIntervalMs: POLL_MS };
        return { resultType, ...about, ...this.#state };
    }
}

const tasks = new Map();

function open(tool, params) {
    if (tasks.size >= MAX_TASKS) throw new Refused(-32603, 'too many tasks');
    const task = new Task(tool, params);
    tasks.set(task.id, task);
    setTimeout(() => tasks.delete(task.id), TTL_MS).unref();
    return task.seen('task');
}

async function result({ method, params }) {
    const declared = params?._meta?.[CAPABILITIES]?.extensions?.[EXTENSION] !== undefined;
    const demand = () => {
        if (declared) return;
        throw new Refused(-32021, 'the client must declare tasks', { requiredCapabilities: { extensions: { [EXTENSION]: {} } } });
    };
    if (method === 'tools/call') {
        const tool = tools[params.name];
        if (!declared && tool.optional) return tool.run(params.arguments ?? {});
        demand();
        return tool.before?.(params) ?? open(tool, params);
    }
    demand();
    const task = tasks.get(params?.taskId);
    if (task === undefined) throw new Refused(-32602, 'no such task');
    if (method === 'tasks/get') return task.seen('complete');
    if (method === 'tasks/update') task.update(params.inputResponses ?? {});
    else task.cancel();
    return { resultType: 'complete' };
}

/** The answer to a message that is about tasks, and its HTTP status; `undefined` for others. */
export async function answer(message, headers) {
    const { id, method, params } = message;
    const calls = method === 'tools/call' && Object.hasOwn(tools, params?.name);
    if (!calls && !['tasks/get', 'tasks/update', 'tasks/cancel'].includes(method)) return undefined;
    try {
        const name = calls ? params.name : params?.taskId;
        if (headers['mcp-method'] !== method || headers['mcp-name'] !== name) {
            throw new Refused(-32020, 'Mcp-Method or Mcp-Name does not match the body');
        }
        return { status: 200, body: { jsonrpc: '2.0', id, result: await result(message) } };
    } catch (error) {
        const { code = -32603, message: why, data } = error;
        const status = [-32020, -32021].includes(code) ? 400 : 200;
        return { status, body: { jsonrpc: '2.0', id, error: { code, message: why, ...(data && { data }) } } };
    }
}
