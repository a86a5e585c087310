// The TypeScript SDK's own authorization server (`mcpAuthRouter`, SDK 1.x) with a provider as its users write one: clients, codes and
// tokens in memory, refresh tokens that are rotated, and a login that ends when a spent one comes again.
import { randomUUID } from 'node:crypto';
import express from 'express';
import { getOAuthProtectedResourceMetadataUrl, mcpAuthRouter } from '@modelcontextprotocol/sdk/server/auth/router.js';
import { InvalidGrantError, InvalidTokenError } from '@modelcontextprotocol/sdk/server/auth/errors.js';
import { control, counting, listen, protect } from './protected.mjs';

const clients = new Map();
const codes = new Map();
const access = new Map();
const refresh = new Map();
let origin;

function issue(login) {
    const tokens = { access_token: randomUUID(), refresh_token: randomUUID(), token_type: 'bearer', expires_in: 3600, scope: login.scopes.join(' ') };
    access.set(tokens.access_token, { login, expiresAt: Math.floor(Date.now() / 1000) + 3600 });
    refresh.set(tokens.refresh_token, { login, spent: false });
    return tokens;
}

const provider = {
    clientsStore: {
        getClient: id => clients.get(id),
        registerClient: client => {
            clients.set(client.client_id, client);
            return client;
        }
    },
    // The page of a real one would be here.
    async authorize(client, params, res) {
        const code = randomUUID();
        codes.set(code, { client, params });
        const target = new URL(params.redirectUri);
        target.searchParams.set('code', code);
        if (params.state !== undefined) target.searchParams.set('state', params.state);
        res.redirect(target.href);
    },
    async challengeForAuthorizationCode(_client, code) {
        if (!codes.has(code)) throw new InvalidGrantError('unknown code');
        return codes.get(code).params.codeChallenge;
    },
    async exchangeAuthorizationCode(client, code, _verifier, redirectUri, resource) {
        const known = codes.get(code);
        codes.delete(code);
        if (known?.client.client_id !== client.client_id || redirectUri !== known.params.redirectUri) throw new InvalidGrantError('wrong code');
        if (resource?.href !== known.params.resource?.href) throw new InvalidGrantError('another resource');
        return issue({ client: client.client_id, scopes: known.params.scopes ?? [], resource: resource?.href, ended: false });
    },
    async exchangeRefreshToken(client, text, _scopes, resource) {
        const known = refresh.get(text);
        if (known === undefined || known.login.ended || known.login.client !== client.client_id) throw new InvalidGrantError('unknown token');
        if (known.spent) {
            known.login.ended = true;
            throw new InvalidGrantError('this token was used before');
        }
        if (resource?.href !== known.login.resource) throw new InvalidGrantError('another resource');
        known.spent = true;
        return issue(known.login);
    },
    async verifyAccessToken() {
        throw new InvalidTokenError('asked elsewhere');
    },
    async revokeToken(_client, { token }) {
        const known = refresh.get(token) ?? access.get(token);
        if (known) known.login.ended = true;
    }
};

const app = express();
const resource = () => `${origin}/mcp`;
control(app);
app.use(counting({ authorize: '/authorize', token: '/token', register: '/register', revoke: '/revoke' }));
protect(app, {
    name: 'ts1-auth',
    resource,
    metadataUrl: () => getOAuthProtectedResourceMetadataUrl(new URL(resource())),
    scopes: ['mcp:use'],
    find: async text => {
        const known = access.get(text);
        if (known === undefined || known.login.ended) return undefined;
        return { clientId: known.login.client, scopes: known.login.scopes, expiresAt: known.expiresAt, resource: known.login.resource };
    }
});
listen(app, own => {
    origin = own;
    app.use(mcpAuthRouter({ provider, issuerUrl: new URL(origin), resourceServerUrl: new URL(resource()), scopesSupported: ['mcp:use'] }));
});
