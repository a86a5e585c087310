// What the suite's server scenarios want to find at a server, in every revision: names and texts are theirs. server.mjs and
// server-modern.mjs serve it.
import { pause } from '../lib/host.mjs';

const STEP_MS = 50;

// One transparent pixel, and a WAV file without samples.
const PNG = 'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAAC0lEQVR42mNgAAIAAAUAAen63NgAAAAASUVORK5CYII=';
const WAV = 'UklGRiQAAABXQVZFZm10IBAAAAABAAEAQB8AAIA+AAACABAAZGF0YQAAAAA=';

export const text = value => ({ type: 'text', text: value });
const image = { type: 'image', data: PNG, mimeType: 'image/png' };
const embedded = (uri, mimeType, value) => ({ type: 'resource', resource: { uri, mimeType, text: value } });
const noArguments = { type: 'object', properties: {} };

/** Tools that answer at once: their arguments' schema and what they give. */
export const simpleTools = {
    test_simple_text: { run: () => ({ content: [text('This is a simple text response for testing.')] }) },
    greet: { inputSchema: { type: 'object', properties: { name: { type: 'string' } } }, run: ({ name }) => ({ content: [text(`Hello, ${name}!`)] }) },
    test_image_content: { run: () => ({ content: [image] }) },
    test_audio_content: { run: () => ({ content: [{ type: 'audio', data: WAV, mimeType: 'audio/wav' }] }) },
    test_embedded_resource: {
        run: () => ({ content: [embedded('test://embedded-resource', 'text/plain', 'This is an embedded resource content.')] })
    },
    test_multiple_content_types: {
        run: () => ({
            content: [
                text('Multiple content types test:'),
                image,
                embedded('test://mixed-content-resource', 'application/json', '{"test":"data","value":123}')
            ]
        })
    },
    test_error_handling: {
        run: () => ({ isError: true, content: [text('This tool intentionally returns an error for testing')] })
    },
    json_schema_2020_12_tool: {
        inputSchema: {
            $schema: 'https://json-schema.org/draft/2020-12/schema',
            type: 'object',
            $defs: {
                address: {
                    $anchor: 'addressDef',
                    type: 'object',
                    properties: { street: { type: 'string' }, city: { type: 'string' } }
                }
            },
            properties: {
                name: { type: 'string' },
                address: { $ref: '#/$defs/address' },
                contactMethod: { type: 'string', enum: ['phone', 'email'] },
                phone: { type: 'string' },
                email: { type: 'string' }
            },
            allOf: [{ anyOf: [{ required: ['phone'] }, { required: ['email'] }] }],
            if: { properties: { contactMethod: { const: 'phone' } }, required: ['contactMethod'] },
            then: { required: ['phone'] },
            else: { required: ['email'] },
            additionalProperties: false
        },
        run: () => ({ content: [text('taken')] })
    }
};

const resources = {
    'test://static-text': { mimeType: 'text/plain', text: 'This is the content of the static text resource.' },
    'test://static-binary': { mimeType: 'image/png', blob: PNG },
    'test://watched-resource': { mimeType: 'text/plain', text: 'watched' }
};
export const resourceTemplates = [{ uriTemplate: 'test://template/{id}/data', name: 'template', mimeType: 'application/json' }];
const TEMPLATE = /^test:\/\/template\/([^/]+)\/data$/;

const user = content => ({ role: 'user', content });
const prompts = {
    test_simple_prompt: { arguments: [], messages: () => [user(text('This is a simple prompt for testing.'))] },
    test_prompt_with_arguments: {
        arguments: ['arg1', 'arg2'],
        messages: ({ arg1, arg2 }) => [user(text(`Prompt with arguments: arg1='${arg1}', arg2='${arg2}'`))]
    },
    test_prompt_with_embedded_resource: {
        arguments: ['resourceUri'],
        messages: ({ resourceUri }) => [
            user(embedded(resourceUri, 'text/plain', 'Embedded resource content for testing.')),
            user(text('Please process the embedded resource above.'))
        ]
    },
    test_prompt_with_image: { arguments: [], messages: () => [user(image), user(text('Please analyze the image above.'))] }
};

const form = (properties, required = Object.keys(properties)) => ({ type: 'object', properties, required });
const elicit = (message, requestedSchema) => ({ method: 'elicitation/create', params: { message, requestedSchema } });
const sample = (question, maxTokens) => ({
    method: 'sampling/createMessage',
    params: { messages: [{ role: 'user', content: text(question) }], maxTokens }
});
const listRoots = { method: 'roots/list' };
const string = { type: 'string' };
const say = value => ({ content: [text(value)] });
const told = ({ action, content = {} }) => `action=${action}, content=${JSON.stringify(content)}`;

const DEFAULTS = {
    name: { type: 'string', default: 'John Doe' },
    age: { type: 'integer', default: 30 },
    score: { type: 'number', default: 95.5 },
    status: { type: 'string', enum: ['active', 'inactive', 'pending'], default: 'active' },
    verified: { type: 'boolean', default: true }
};
const plain = ['option1', 'option2', 'option3'];
const titled = ['First', 'Second', 'Third'].map((title, i) => ({ const: `value${i + 1}`, title: `${title} Option` }));
const ENUMS = {
    untitledSingle: { type: 'string', enum: plain },
    titledSingle: { type: 'string', oneOf: titled },
    legacyEnum: { type: 'string', enum: ['opt1', 'opt2', 'opt3'], enumNames: ['Option One', 'Option Two', 'Option Three'] },
    untitledMulti: { type: 'array', items: { type: 'string', enum: plain } },
    titledMulti: { type: 'array', items: { anyOf: titled } }
};
const PERSON = {
    username: { type: 'string', description: "User's response" },
    email: { type: 'string', description: "User's email address" }
};
const confirmation = {
    stateful: true,
    rounds: [() => ({ confirm: elicit('Please confirm', form({ ok: { type: 'boolean' } })) })],
    done: () => say('state-ok')
};

/**
 * Tools that ask the client: their arguments' schema; the questions of each round, by key, from the arguments, the answers so far and
 * what the client declared; what comes of the answers. A server of 2025-11-25 asks by requests of its own, one of 2026-07-28 by results
 * of the type `input_required`, with a state where the tool is `stateful`.
 */
export const askingTools = {
    test_sampling: {
        inputSchema: form({ prompt: string }),
        rounds: [({ prompt }) => ({ model: sample(prompt, 100) })],
        done: ({ model }) => say(`LLM response: ${model.content.text}`)
    },
    test_elicitation: {
        inputSchema: form({ message: string }),
        rounds: [({ message }) => ({ user: elicit(message, form(PERSON)) })],
        done: ({ user }) => say(`User response: ${told(user)}`)
    },
    test_elicitation_sep1034_defaults: {
        rounds: [() => ({ user: elicit('Please look over the defaults', form(DEFAULTS, [])) })],
        done: ({ user }) => say(`Elicitation completed: ${told(user)}`)
    },
    test_elicitation_sep1330_enums: {
        rounds: [() => ({ user: elicit('Please choose', form(ENUMS, [])) })],
        done: ({ user }) => say(`Elicitation completed: ${told(user)}`)
    },
    test_missing_capability: { rounds: [() => ({ model: sample('Anything', 1) })], done: () => say('sampled') },
    test_streaming_elicitation: { rounds: [() => ({ name: elicit('name?', form({ name: string })) })], done: () => say('named') },
    test_input_required_result_elicitation: {
        rounds: [() => ({ user_name: elicit('What is your name?', form({ name: string })) })],
        done: ({ user_name: { content } }) => say(`Hello, ${content?.name ?? 'stranger'}!`)
    },
    test_input_required_result_sampling: {
        rounds: [() => ({ capital_question: sample('What is the capital of France?', 100) })],
        done: ({ capital_question: { content } }) => say(content.text)
    },
    test_input_required_result_list_roots: {
        rounds: [() => ({ client_roots: listRoots })],
        done: ({ client_roots: { roots } }) => say(roots.map(root => root.uri).join(' '))
    },
    test_input_required_result_request_state: confirmation,
    test_input_required_result_tampered_state: confirmation,
    test_input_required_result_multiple_inputs: {
        stateful: true,
        rounds: [
            () => ({
                user_name: elicit('What is your name?', form({ name: string })),
                greeting: sample('Generate a greeting', 50),
                client_roots: listRoots
            })
        ],
        done: ({ user_name: { content }, greeting, client_roots: { roots } }) =>
            say(`${greeting.content.text} ${content?.name}, ${roots.length} roots`)
    },
    test_input_required_result_multi_round: {
        stateful: true,
        rounds: [
            () => ({ step1: elicit('Step 1: What is your name?', form({ name: string })) }),
            () => ({ step2: elicit('Step 2: What is your favorite color?', form({ color: string })) })
        ],
        done: ({ step1, step2 }) => say(`${step1.content?.name} likes ${step2.content?.color}`)
    },
    test_input_required_result_capabilities: {
        rounds: [
            (args, answers, declared) => ({
                ...(declared.sampling && { model: sample('Say something', 10) }),
                ...(declared.elicitation && { name: elicit('What is your name?', form({ name: string })) })
            })
        ],
        done: () => say('asked what could be asked')
    }
};

/** Prompts that ask, in the same way. */
export const askingPrompts = {
    test_input_required_result_prompt: {
        rounds: [() => ({ user_context: elicit('What context should the prompt use?', form({ context: string })) })],
        done: ({ user_context: { content } }) => ({ messages: [user(text(`In the context of ${content?.context}`))] })
    }
};

/** Tools that log. */
export const loggingTools = {
    test_tool_with_logging: async log => {
        await log('info', 'Tool execution started');
        await pause(STEP_MS);
        await log('info', 'Tool processing data');
        await pause(STEP_MS);
        await log('info', 'Tool execution completed');
        return say('logged three lines');
    },
    test_logging_tool: async log => {
        await log('error', 'a line');
        return say('logged');
    }
};

/** Tools that say that a list changed: which one. */
export const changingTools = { test_trigger_tool_change: 'tools', test_trigger_prompt_change: 'prompts' };

/** Three steps of progress for a request that wants them. */
export async function progress(progressToken, notify) {
    for (const progress of [0, 50, 100]) {
        if (progressToken !== undefined) {
            await notify({ method: 'notifications/progress', params: { progressToken, progress, total: 100 } });
        }
        if (progress < 100) await pause(STEP_MS);
    }
    return say('progressed');
}

/** The entries of `tools/list`. */
export const listTools = () =>
    Object.entries({ ...simpleTools, ...askingTools, ...loggingTools, ...changingTools, test_tool_with_progress: {} }).map(
        ([name, { inputSchema = noArguments }]) => ({ name, description: `The suite's ${name}`, inputSchema })
    );

/** The entries of `resources/list`. */
export const listResources = () =>
    Object.entries(resources).map(([uri, { mimeType }]) => ({ uri, name: uri.slice(7), description: 'static', mimeType }));

/** The contents of a resource; `undefined` when there is none. */
export function readResource(uri) {
    const id = TEMPLATE.exec(uri)?.[1];
    if (id !== undefined) {
        const data = JSON.stringify({ id, templateTest: true, data: `Data for ID: ${id}` });
        return [{ uri, mimeType: 'application/json', text: data }];
    }
    return Object.hasOwn(resources, uri) ? [{ uri, ...resources[uri] }] : undefined;
}

/** The entries of `prompts/list`. */
export const listPrompts = () =>
    Object.entries({ ...prompts, ...askingPrompts }).map(([name, prompt]) => ({
        name,
        description: `The suite's ${name}`,
        arguments: (prompt.arguments ?? []).map(argument => ({ name: argument, required: true }))
    }));

/** The messages of a prompt; `undefined` when there is none. */
export const getPrompt = (name, values = {}) => (Object.hasOwn(prompts, name) ? prompts[name].messages(values) : undefined);

/** What completes a value. */
export function complete(value) {
    const values = ['paris', 'park', 'party'].filter(word => word.startsWith(value));
    return { completion: { values, total: values.length, hasMore: false } };
}
