// An HTTP proxy (absolute-form requests and CONNECT) and a SOCKS5 proxy, on loopback.
// Prints `listening http://...` and `listening socks5h://...`, then `via http` or `via socks` for each
// connection that goes through.
import { Server } from 'proxy-chain';
import socks from 'simple-socks';

const say = line => process.stdout.write(`${line}\n`);

const http = new Server({
    host: '127.0.0.1',
    port: 0,
    verbose: false,
    prepareRequestFunction: () => {
        say('via http');
        return {};
    }
});
await http.listen();
say(`listening http://127.0.0.1:${http.port}`);

const server = socks.createServer();
server.on('proxyConnect', () => say('via socks'));
server.listen(0, '127.0.0.1', () => say(`listening socks5h://127.0.0.1:${server.address().port}`));
for (const signal of ['SIGTERM', 'SIGINT']) process.on(signal, () => process.exit(0));
