// Gives the suite's bundle an `fs` with `globSync`; everything else gets the real one.
const replacement = new URL('./fs-with-globsync.mjs', import.meta.url).href;

export async function resolve(specifier, context, next) {
    const fromSuite = context.parentURL?.includes('/@modelcontextprotocol/conformance/');
    if (fromSuite && (specifier === 'fs' || specifier === 'node:fs')) return { url: replacement, shortCircuit: true };
    return next(specifier, context);
}
