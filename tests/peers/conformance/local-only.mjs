// Protection against DNS rebinding: a server on loopback answers to its own names only.
const LOCAL = new Set(['localhost', '127.0.0.1', '[::1]']);

const hostname = authority => {
    try {
        return new URL(`http://${authority}`).hostname;
    } catch {
        return undefined;
    }
};

/** Whether Host (and Origin, where there is one) name this machine's loopback. */
export function isLocal(req) {
    if (!LOCAL.has(hostname(req.headers.host ?? ''))) return false;
    const { origin } = req.headers;
    if (origin === undefined) return true;
    try {
        return LOCAL.has(new URL(origin).hostname);
    } catch {
        return false;
    }
}
