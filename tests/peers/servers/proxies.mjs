// An HTTP proxy (absolute-form requests and CONNECT) and a SOCKS5 proxy, on loopback.
// Both find peer.test, which nobody else does, on this machine: who reaches it came through them.
// Prints `listening http://...` and `listening socks5h://...`, then `via http` or `via socks` for each
// request or connection that goes through.
import dns from 'node:dns';
import { Server } from 'proxy-chain';
import socks from 'simple-socks';

const NAME = 'peer.test';
const say = line => process.stdout.write(`${line}\n`);

const { lookup } = dns;
dns.lookup = (host, ...rest) => lookup(host === NAME ? '127.0.0.1' : host, ...rest);

const http = new Server({
    host: '127.0.0.1',
    port: 0,
    verbose: false,
    prepareRequestFunction: () => {
        say('via http');
        return { dnsLookup: dns.lookup };
    }
});
await http.listen();
say(`listening http://127.0.0.1:${http.port}`);

const server = socks.createServer();
server.on('proxyConnect', () => say('via socks'));
server.listen(0, '127.0.0.1', () => say(`listening socks5h://127.0.0.1:${server.address().port}`));
for (const signal of ['SIGTERM', 'SIGINT']) process.on(signal, () => process.exit(0));
