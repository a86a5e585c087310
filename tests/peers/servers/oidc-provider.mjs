// npm oidc-provider, a certified OpenID provider: its own login and consent pages, dynamic registration, rotation of refresh tokens
// with reuse detection, resource indicators (RFC 8707), revocation. In front of an MCP server on the TypeScript SDK 1.x.
import http from 'node:http';
import express from 'express';
import { Provider } from 'oidc-provider';
import { control, counting, counts, listen, protect } from './protected.mjs';

const app = express();
let origin;
let provider;
const resource = () => `${origin}/mcp`;
const metadataUrl = () => `${origin}/.well-known/oauth-protected-resource/mcp`;

control(app);
app.get('/.well-known/oauth-protected-resource/mcp', (_req, res) => {
    counts.metadata += 1;
    // The provider has an origin of its own, as everywhere.
    res.json({ resource: resource(), authorization_servers: [provider.issuer], scopes_supported: ['mcp:use'], bearer_methods_supported: ['header'] });
});
protect(app, {
    name: 'oidc-provider',
    resource,
    metadataUrl,
    scopes: ['mcp:use'],
    find: async text => {
        const token = await provider.AccessToken.find(text);
        if (token === undefined || token.isExpired) return undefined;
        return { clientId: token.clientId, scopes: [...token.scopes], expiresAt: token.exp, resource: token.aud };
    }
});

listen(app, async own => {
    origin = own;
    const server = http.createServer();
    await new Promise(resolve => { server.listen(0, '127.0.0.1', resolve); });
    const issuer = `http://127.0.0.1:${server.address().port}`;
    provider = new Provider(issuer, {
        scopes: ['openid', 'offline_access', 'mcp:use'],
        cookies: { keys: ['a key of the tests'] },
        features: {
            registration: { enabled: true },
            revocation: { enabled: true },
            resourceIndicators: {
                enabled: true,
                defaultResource: () => undefined,
                useGrantedResource: () => false,
                getResourceServerInfo: (_ctx, indicator) => {
                    if (indicator !== resource()) throw new Error(`unknown resource ${indicator}`);
                    return { scope: 'mcp:use', audience: resource(), accessTokenTTL: 3600, accessTokenFormat: 'opaque' };
                }
            }
        },
        ttl: { AccessToken: 3600, Grant: 86_400, Interaction: 3600, Session: 86_400, RefreshToken: 86_400 }
    });
    provider.on('server_error', (_ctx, error) => process.stderr.write(`${error.stack}\n`));
    const handle = provider.callback();
    const count = counting({ authorize: '/auth', token: '/token', register: '/reg', revoke: '/token/revocation' });
    server.on('request', (req, res) => count(req, res, () => handle(req, res)));
});
