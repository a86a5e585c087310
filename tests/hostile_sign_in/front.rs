//! Public names on this machine: a proxy that the bridge is told to use (`--proxy`). It takes CONNECT for names that it knows, is TLS for
//! them with certificates of a private CA, and hands what is inside to a scripted server. Every other target, also a literal address,
//! is written down and refused: whatever the bridge would send to anybody passes here.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;

use crate::certs::{Ca, TempFile};

/// Most bytes of a CONNECT.
const MAX_HEAD: usize = 16 << 10;

/// What certificate a name shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tls {
    Good,
    WrongName,
    UnknownCa,
    Expired,
}

/// The proxy.
pub struct Front {
    address: SocketAddr,
    ca: Ca,
    /// What was asked for: the targets of CONNECT, and `METHOD URL` of anything else.
    asked: Arc<Mutex<Vec<String>>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

type Backends = HashMap<String, (SocketAddr, TlsAcceptor)>;

impl Front {
    /// `backends`: a name, the scripted server behind it, and its certificate.
    pub fn start(backends: &[(&str, u16, Tls)]) -> Self {
        let ca = Ca::new();
        let stranger = Ca::new();
        let backends: Backends = backends
            .iter()
            .map(|(name, port, tls)| {
                let leaf = match tls {
                    Tls::Good => ca.leaf(&[name]),
                    Tls::WrongName => ca.leaf(&["another.example"]),
                    Tls::UnknownCa => stranger.leaf(&[name]),
                    Tls::Expired => ca.expired(&[name]),
                };
                let acceptor = TlsAcceptor::from(Arc::new(leaf.server(None, &[b"http/1.1"])));
                ((*name).to_owned(), (SocketAddr::from(([127, 0, 0, 1], *port)), acceptor))
            })
            .collect();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (stop, stopped) = oneshot::channel();
        let (tell, told) = std::sync::mpsc::channel();
        let log = Arc::clone(&asked);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
                tell.send(listener.local_addr().expect("an address")).expect("the test waits");
                tokio::select! {
                    () = accept(listener, Arc::new(backends), log) => {}
                    _ = stopped => {}
                }
            });
        });
        let address = told.recv_timeout(crate::support::LIMIT).expect("the proxy is up");
        Self { address, ca, asked, stop: Some(stop), thread: Some(thread) }
    }

    /// For `--proxy`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// For `--ca-file`.
    pub fn ca_file(&self) -> &TempFile {
        &self.ca.file
    }

    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        if let (Some(stop), Some(thread)) = (self.stop.take(), self.thread.take()) {
            let _ = stop.send(());
            let _ = thread.join();
        }
    }
}

async fn accept(listener: TcpListener, backends: Arc<Backends>, asked: Arc<Mutex<Vec<String>>>) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        connections.spawn(serve(stream, Arc::clone(&backends), Arc::clone(&asked)));
        while connections.try_join_next().is_some() {}
    }
}

async fn serve(mut stream: TcpStream, backends: Arc<Backends>, asked: Arc<Mutex<Vec<String>>>) -> Option<()> {
    let mut head = Vec::new();
    while memchr::memmem::find(&head, b"\r\n\r\n").is_none() {
        if head.len() > MAX_HEAD || stream.read_buf(&mut head).await.ok()? == 0 {
            return None;
        }
    }
    let text = String::from_utf8_lossy(&head).into_owned();
    let mut words = text.split(' ');
    let (method, target) = (words.next()?, words.next()?);
    if method != "CONNECT" {
        asked.lock().unwrap().push(format!("{method} {target}"));
        stream.write_all(b"HTTP/1.1 502 No\r\nContent-Length: 0\r\n\r\n").await.ok()?;
        return None;
    }
    asked.lock().unwrap().push(target.to_owned());
    let known = target.strip_suffix(":443").and_then(|name| backends.get(name));
    let Some((backend, acceptor)) = known else {
        stream.write_all(b"HTTP/1.1 403 Nobody\r\nContent-Length: 0\r\n\r\n").await.ok()?;
        return None;
    };
    stream.write_all(b"HTTP/1.1 200 Through\r\n\r\n").await.ok()?;
    let mut inside = acceptor.accept(stream).await.ok()?;
    let mut backend = TcpStream::connect(backend).await.ok()?;
    let _ = copy_bidirectional(&mut inside, &mut backend).await;
    Some(())
}
