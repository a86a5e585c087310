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

/** Three steps of progress for a request that wants them. */
export async function progress(progressToken, notify) {
    for (const progress of [0, 50, 100]) {
        if (progressToken !== undefined) {
            await notify({ method: 'notifications/progress', params: { progressToken, progress, total: 100 } });
        }
        if (progress < 100) await pause(STEP_MS);
    }
    return { content: [text('progressed')] };
}

/** The entries of `tools/list`. */
export const listTools = tools =>
    Object.entries(tools).map(([name, { inputSchema = noArguments }]) => ({ name, description: `The suite's ${name}`, inputSchema }));

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
    Object.entries(prompts).map(([name, prompt]) => ({
        name,
        description: `The suite's ${name}`,
        arguments: prompt.arguments.map(argument => ({ name: argument, required: true }))
    }));

/** The messages of a prompt; `undefined` when there is none. */
export const getPrompt = (name, values = {}) => (Object.hasOwn(prompts, name) ? prompts[name].messages(values) : undefined);

/** What completes a value. */
export function complete(value) {
    const values = ['paris', 'park', 'party'].filter(word => word.startsWith(value));
    return { completion: { values, total: values.length, hasMore: false } };
}
