//! A server that says what a test tells it to, byte by byte, over TCP or TLS; and a proxy of each kind.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsAcceptor;

/// A request as it came.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) method: String,
    pub(crate) target: String,
    /// Names in lower case.
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Seen {
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let found = self.fields.iter().find(|(n, _)| n == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// What the server does next.
pub(crate) enum Act {
    Send(Vec<u8>),
    Wait(Duration),
    /// Waits until the client closes.
    Hold,
    Close,
    /// Drops the socket as it is: over TLS without `close_notify`.
    Abort,
}

/// A whole answer with these extra fields.
pub(crate) fn answer(status: u16, fields: &str, body: &str) -> Vec<Act> {
    let length = body.len();
    send(format!("HTTP/1.1 {status} X\r\nContent-Length: {length}\r\n{fields}\r\n{body}"))
}

pub(crate) fn send(text: impl Into<Vec<u8>>) -> Vec<Act> {
    vec![Act::Send(text.into())]
}

type Script = dyn Fn(&Seen) -> Vec<Act> + Send + Sync;

/// A running server.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    connections: Arc<AtomicUsize>,
    closed: Arc<AtomicUsize>,
}

impl Server {
    pub(crate) async fn start(script: impl Fn(&Seen) -> Vec<Act> + Send + Sync + 'static) -> Self {
        Self::start_at("127.0.0.1:0", None, script).await.unwrap()
    }

    pub(crate) async fn start_tls(
        tls: rustls::ServerConfig,
        script: impl Fn(&Seen) -> Vec<Act> + Send + Sync + 'static,
    ) -> Self {
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        Self::start_at("127.0.0.1:0", Some(acceptor), script).await.unwrap()
    }

    pub(crate) async fn start_at(
        address: &str,
        tls: Option<TlsAcceptor>,
        script: impl Fn(&Seen) -> Vec<Act> + Send + Sync + 'static,
    ) -> std::io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let server = Self {
            address: listener.local_addr()?,
            seen: Arc::default(),
            connections: Arc::default(),
            closed: Arc::default(),
        };
        let script: Arc<Script> = Arc::new(script);
        let (seen, connections) = (Arc::clone(&server.seen), Arc::clone(&server.connections));
        let closed = Arc::clone(&server.closed);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                connections.fetch_add(1, Ordering::SeqCst);
                let (script, seen, tls) = (Arc::clone(&script), Arc::clone(&seen), tls.clone());
                let closed = Arc::clone(&closed);
                tokio::spawn(async move {
                    match tls {
                        None => serve(stream, &*script, &seen).await,
                        Some(tls) => match tls.accept(stream).into_fallible().await {
                            Ok(stream) => serve(stream, &*script, &seen).await,
                            // Closing with unread bytes would be a reset, and might overtake the alert.
                            Err((_, mut stream)) => {
                                let _ = stream.shutdown().await;
                                let _ = stream.read_to_end(&mut Vec::new()).await;
                            }
                        },
                    }
                    closed.fetch_add(1, Ordering::SeqCst);
                });
            }
        });
        Ok(server)
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) fn tls_url(&self, host: &str, path: &str) -> String {
        format!("https://{host}:{}{path}", self.address.port())
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    pub(crate) fn closed(&self) -> usize {
        self.closed.load(Ordering::SeqCst)
    }
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin>(stream: S, script: &Script, seen: &Mutex<Vec<Seen>>) {
    let mut stream = BufReader::new(stream);
    while let Some(request) = read_request(&mut stream).await {
        seen.lock().unwrap().push(request.clone());
        for act in script(&request) {
            match act {
                Act::Send(bytes) => {
                    if stream.get_mut().write_all(&bytes).await.is_err() {
                        return;
                    }
                    let _ = stream.get_mut().flush().await;
                }
                Act::Wait(time) => tokio::time::sleep(time).await,
                Act::Hold => {
                    let _ = stream.read_u8().await;
                    return;
                }
                Act::Close => {
                    let _ = stream.get_mut().shutdown().await;
                    return;
                }
                Act::Abort => return,
            }
        }
    }
}

async fn read_request<S: AsyncRead + Unpin>(stream: &mut BufReader<S>) -> Option<Seen> {
    let mut seen = Seen::default();
    let mut line = String::new();
    stream.read_line(&mut line).await.ok()?;
    let mut words = line.split_ascii_whitespace();
    seen.method = words.next()?.to_owned();
    seen.target = words.next()?.to_owned();
    loop {
        line.clear();
        stream.read_line(&mut line).await.ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else {
            break;
        };
        seen.fields.push((name.to_ascii_lowercase(), value.to_owned()));
    }
    let length = seen.field("content-length").map_or(0, |n| n.parse().unwrap());
    seen.body = vec![0; length];
    stream.read_exact(&mut seen.body).await.ok()?;
    Some(seen)
}

/// What a proxy was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    /// `CONNECT host:port`, `GET http://...` or `SOCKS host:port`.
    pub(crate) what: String,
    pub(crate) login: Option<String>,
}

/// A proxy that leads everything to one address, whatever it is asked for.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Proxy {
    /// `verdict`: the status line for CONNECT; with 200 it connects.
    pub(crate) async fn http(to: SocketAddr, verdict: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = Self::new(&listener);
        let asked = Arc::clone(&proxy.asked);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let asked = Arc::clone(&asked);
                tokio::spawn(async move {
                    let mut stream = BufReader::new(stream);
                    let Some(request) = read_request(&mut stream).await else {
                        return;
                    };
                    asked.lock().unwrap().push(Asked {
                        what: format!("{} {}", request.method, request.target),
                        login: request.field("proxy-authorization").map(str::to_owned),
                    });
                    if request.method == "CONNECT" {
                        let head = format!("HTTP/1.1 {verdict}\r\n\r\n");
                        stream.get_mut().write_all(head.as_bytes()).await.unwrap();
                        if verdict.starts_with("200") {
                            join(stream, to).await;
                        }
                    } else {
                        forward(stream, &request, to, verdict).await;
                    }
                });
            }
        });
        proxy
    }

    /// RFC 1928 and 1929. `login`: the only one that is let through, as `user:password`; `reply`: the code for CONNECT.
    pub(crate) async fn socks5(to: SocketAddr, login: Option<&'static str>, reply: u8) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = Self::new(&listener);
        let asked = Arc::clone(&proxy.asked);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let asked = Arc::clone(&asked);
                tokio::spawn(async move {
                    let _ = socks5(stream, &asked, to, login, reply).await;
                });
            }
        });
        proxy
    }

    fn new(listener: &TcpListener) -> Self {
        Self { address: listener.local_addr().unwrap(), asked: Arc::default() }
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

async fn socks5(
    stream: TcpStream,
    asked: &Mutex<Vec<Asked>>,
    to: SocketAddr,
    login: Option<&'static str>,
    reply: u8,
) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut head = [0; 2];
    stream.read_exact(&mut head).await?;
    let mut methods = vec![0; usize::from(head[1])];
    stream.read_exact(&mut methods).await?;
    let method = if login.is_some() { 2 } else { 0 };
    if !methods.contains(&method) {
        return stream.get_mut().write_all(&[5, 0xff]).await;
    }
    stream.get_mut().write_all(&[5, method]).await?;
    let mut given = None;
    if let Some(login) = login {
        stream.read_u8().await?;
        let user = read_counted(&mut stream).await?;
        let password = read_counted(&mut stream).await?;
        let text = format!("{user}:{password}");
        let good = text == login;
        given = Some(text);
        stream.get_mut().write_all(&[1, u8::from(!good)]).await?;
        if !good {
            return Ok(());
        }
    }
    let mut request = [0; 4];
    stream.read_exact(&mut request).await?;
    let host = match request[3] {
        1 => {
            let mut ip = [0; 4];
            stream.read_exact(&mut ip).await?;
            std::net::Ipv4Addr::from(ip).to_string()
        }
        3 => read_counted(&mut stream).await?,
        _ => {
            let mut ip = [0; 16];
            stream.read_exact(&mut ip).await?;
            std::net::Ipv6Addr::from(ip).to_string()
        }
    };
    let port = stream.read_u16().await?;
    asked.lock().unwrap().push(Asked { what: format!("SOCKS {host}:{port}"), login: given });
    let answer = [5, reply, 0, 1, 0, 0, 0, 0, 0, 0];
    stream.get_mut().write_all(&answer).await?;
    if reply == 0 {
        join(stream, to).await;
    }
    Ok(())
}

async fn read_counted(stream: &mut BufReader<TcpStream>) -> std::io::Result<String> {
    let length = stream.read_u8().await?;
    let mut text = vec![0; usize::from(length)];
    stream.read_exact(&mut text).await?;
    Ok(String::from_utf8(text).unwrap())
}

async fn join(mut client: BufReader<TcpStream>, to: SocketAddr) {
    let mut server = TcpStream::connect(to).await.unwrap();
    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
}

/// Passes one absolute-form request on (RFC 9112 section 3.2.2).
async fn forward(mut client: BufReader<TcpStream>, request: &Seen, to: SocketAddr, verdict: &str) {
    if !verdict.starts_with("200") {
        let head = format!("HTTP/1.1 {verdict}\r\nContent-Length: 0\r\n\r\n");
        client.get_mut().write_all(head.as_bytes()).await.unwrap();
        return;
    }
    let mut server = TcpStream::connect(to).await.unwrap();
    let mut head = format!("{} {} HTTP/1.1\r\n", request.method, request.target);
    for (name, value) in &request.fields {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    server.write_all(head.as_bytes()).await.unwrap();
    server.write_all(b"\r\n").await.unwrap();
    server.write_all(&request.body).await.unwrap();
    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
}
