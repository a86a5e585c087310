//! TLS with a private CA: who is trusted, who is not, and what a person is told.

use std::path::PathBuf;

use bytes::Bytes;
use http::Response;
use http_body_util::{BodyExt, StreamBody};
use hyper::{body::Frame, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use mcp_drawbridge::http::{HttpClient, HttpError, HttpErrorKind, HttpOptions};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;
use url::Url;

use crate::{
    certs::{Ca, Leaf, TempFile},
    client, fails, get, options, post,
    server::{Act, Server, answer},
    shown, text,
};

fn trusting(file: &TempFile) -> HttpOptions {
    HttpOptions { ca_files: vec![file.0.clone()], ..options() }
}

#[tokio::test]
async fn a_private_ca() {
    let (ca, other) = (Ca::new(), Ca::new());
    let names = ["127.0.0.1", "localhost"];
    let server = Server::start_tls(ca.leaf(&names).server(None, &[]), |_| answer(200, "", "tls")).await;
    for host in names {
        let url = server.tls_url(host, "/mcp");
        let client = client(trusting(&ca.file), &url);
        client.prepare();
        for _ in 0..3 {
            assert_eq!(text(client.send(post(&url, "{}")).await.unwrap()).await, "tls");
        }
        let (kind, error) = fails(trusting(&other.file), &url).await;
        assert_eq!(kind, HttpErrorKind::Tls, "{error:?}");
        assert!(error.surely_unsent() && error.is_definite());
        let told = shown(&error);
        assert!(told.contains("unknown issuer") && told.contains("--ca-file"), "{told}");
    }
    // Two clients that worked, each on one connection; the others did not get as far as a request.
    assert_eq!(server.seen().len(), 6);
    assert_eq!(server.connections(), 4);
}

#[tokio::test]
async fn certificates_that_do_not_fit() {
    let ca = Ca::new();
    #[rustfmt::skip]
    let table = [
        (ca.leaf(&["other.example", "b.example"]), "is for another name", Some("other.example")),
        (ca.expired(&["127.0.0.1"]), "has expired", Some("clock")),
        (Leaf::self_signed("127.0.0.1"), "self-signed", Some("--ca-file")),
    ];
    for (leaf, message, more) in table {
        let server = Server::start_tls(leaf.server(None, &[]), |_| answer(200, "", "")).await;
        let (kind, error) = fails(trusting(&ca.file), &server.tls_url("127.0.0.1", "/")).await;
        assert_eq!(kind, HttpErrorKind::Tls, "{error:?}");
        assert!(error.surely_unsent() && error.is_definite());
        let told = shown(&error);
        assert!(told.contains(message), "{told}");
        assert!(more.is_none_or(|more| told.contains(more)), "{told}");
        assert!(server.seen().is_empty());
    }
}

#[tokio::test]
async fn a_self_signed_certificate_can_be_named_itself() {
    let (leaf, wrong) = (Leaf::self_signed("127.0.0.1"), Leaf::self_signed("other.example"));
    let server = Server::start_tls(leaf.server(None, &[]), |_| answer(200, "", "own")).await;
    let url = server.tls_url("127.0.0.1", "/");
    let client = client(trusting(&leaf.chain), &url);
    assert_eq!(text(client.send(get(&url)).await.unwrap()).await, "own");

    let server = Server::start_tls(wrong.server(None, &[]), |_| answer(200, "", "own")).await;
    let (kind, error) = fails(trusting(&wrong.chain), &server.tls_url("127.0.0.1", "/")).await;
    assert_eq!(kind, HttpErrorKind::Tls);
    assert!(error.to_string().contains("for another name"), "{error}");
}

#[tokio::test]
async fn client_certificates() {
    let (ca, clients) = (Ca::new(), Ca::new());
    let server =
        Server::start_tls(ca.leaf(&["127.0.0.1"]).server(Some(&clients), &[]), |_| answer(200, "", "mutual")).await;
    let url = server.tls_url("127.0.0.1", "/");
    let with = |leaf: &Leaf| HttpOptions {
        client_identity: Some((leaf.chain.0.clone(), leaf.key_file.0.clone())),
        ..trusting(&ca.file)
    };
    let good = clients.client();
    let client = client(with(&good), &url);
    assert_eq!(text(client.send(get(&url)).await.unwrap()).await, "mutual");

    let foreign = Ca::new().client();
    for (options, message) in
        [(trusting(&ca.file), "wants a TLS client certificate"), (with(&foreign), "refuses our TLS client certificate")]
    {
        let (kind, error) = fails(options, &url).await;
        assert_eq!(kind, HttpErrorKind::Tls, "{error:?}");
        let told = shown(&error);
        assert!(told.contains(message) && told.contains("--client-cert"), "{told}");
    }
    assert_eq!(server.seen().len(), 1);
}

fn usage(options: HttpOptions) -> HttpError {
    let error = HttpClient::new(options, Url::parse("https://a.example/").unwrap()).unwrap_err();
    assert_eq!(error.kind(), HttpErrorKind::Usage, "{error:?}");
    assert!(error.surely_unsent() && error.is_definite());
    error
}

#[test]
fn files_that_cannot_be_used_are_usage_errors() {
    let ca = Ca::new();
    let (a, b) = (ca.client(), ca.client());
    let empty = TempFile::new("empty.pem", b"");
    let huge = TempFile::new("huge.pem", &vec![b'\n'; (8 << 20) + 1]);
    let encrypted =
        TempFile::new("enc.pem", b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n");
    let missing = PathBuf::from("no-such-file.pem");
    let ca_file = |path: &PathBuf| HttpOptions { ca_files: vec![path.clone()], ..options() };
    let identity = |chain: &PathBuf, key: &PathBuf| HttpOptions {
        client_identity: Some((chain.clone(), key.clone())),
        ..options()
    };
    #[rustfmt::skip]
    let table = [
        (ca_file(&missing), "no-such-file.pem"),
        (ca_file(&empty.0), "no usable certificate"),
        (ca_file(&a.key_file.0), "no usable certificate"),
        (ca_file(&huge.0), "larger than"),
        (identity(&missing, &a.key_file.0), "no-such-file.pem"),
        (identity(&a.chain.0, &missing), "no-such-file.pem"),
        (identity(&a.key_file.0, &a.key_file.0), "no PEM certificate"),
        (identity(&a.chain.0, &a.chain.0), "no PEM private key"),
        (identity(&a.chain.0, &encrypted.0), "openssl pkey"),
        (identity(&a.chain.0, &b.key_file.0), "cannot be used"),
    ];
    for (options, want) in table {
        let told = shown(&usage(options));
        assert!(told.contains(want), "{want}: {told}");
    }
    // Files are looked at for http servers as well; DER is taken too.
    let http = HttpClient::new(ca_file(&missing), Url::parse("http://localhost/").unwrap());
    assert_eq!(http.unwrap_err().kind(), HttpErrorKind::Usage);
    let der = TempFile::new("ca.der", &ca.der());
    assert!(HttpClient::new(ca_file(&der.0), Url::parse("https://a.example/").unwrap()).is_ok());
}

#[tokio::test]
async fn a_ca_file_that_only_looks_right() {
    let ca = Ca::new();
    let server = Server::start_tls(ca.leaf(&["127.0.0.1"]).server(None, &[]), |_| answer(200, "", "")).await;
    let broken = TempFile::new("broken.pem", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    let (kind, error) = fails(trusting(&broken), &server.tls_url("127.0.0.1", "/")).await;
    assert_eq!(kind, HttpErrorKind::Tls, "{error:?}");
    assert!(error.is_definite() && error.to_string().contains("no usable certificate"), "{error}");
}

#[tokio::test]
async fn https_where_there_is_none_and_the_other_way_round() {
    // A server that tries to read what it got, and one that gives up.
    for (reply, want) in [("HTTP/1.1 400 Bad Request\r\n\r\n", HttpErrorKind::Tls), ("", HttpErrorKind::Connect)] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}/", listener.local_addr().unwrap());
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 4096]).await;
            let _ = stream.write_all(reply.as_bytes()).await;
        });
        let (kind, error) = fails(options(), &url).await;
        assert_eq!(kind, want, "{error:?}");
        assert!(error.surely_unsent());
        assert!(shown(&error).contains("is it an http server?"), "{error}");
    }

    let ca = Ca::new();
    let tls = Server::start_tls(ca.leaf(&["127.0.0.1"]).server(None, &[]), |_| answer(200, "", "")).await;
    let (kind, error) = fails(options(), &tls.url("/")).await;
    // Some servers answer plain HTTP with a TLS alert, some just close.
    assert!(matches!(kind, HttpErrorKind::Malformed | HttpErrorKind::Cut), "{error:?}");
}

#[tokio::test]
async fn a_cut_without_a_tls_close_is_a_cut() {
    let ca = Ca::new();
    let server = Server::start_tls(ca.leaf(&["127.0.0.1"]).server(None, &[]), |seen| {
        let mut acts = vec![Act::Send(b"HTTP/1.1 200 OK\r\n\r\nhalf".to_vec())];
        acts.push(if seen.target == "/clean" { Act::Close } else { Act::Abort });
        acts
    })
    .await;
    let url = server.tls_url("127.0.0.1", "/clean");
    let client = client(trusting(&ca.file), &url);
    assert_eq!(text(client.send(get(&url)).await.unwrap()).await, "half");
    let cut = server.tls_url("127.0.0.1", "/cut");
    let error = client.send(get(&cut)).await.unwrap().bytes(100).await.unwrap_err();
    assert_eq!(error.kind(), HttpErrorKind::Cut, "{error:?}");
}

/// HTTP/2 where ALPN offers it: many requests and a stream on one connection.
#[tokio::test]
async fn http2() {
    let ca = Ca::new();
    let tls = ca.leaf(&["127.0.0.1"]).server(None, &[b"h2", b"http/1.1"]);
    let acceptor = TlsAcceptor::from(std::sync::Arc::new(tls));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connections = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    tokio::spawn({
        let connections = std::sync::Arc::clone(&connections);
        async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                connections.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                let stream = acceptor.accept(stream).await.unwrap();
                tokio::spawn(async move {
                    let service = service_fn(h2_answer);
                    let _ =
                        auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
                });
            }
        }
    });
    let url = |path: &str| format!("https://{address}{path}");
    let client = client(trusting(&ca.file), &url("/"));
    assert_eq!(text(client.send(post(&url("/echo"), "first")).await.unwrap()).await, "HTTP/2.0 first");
    let mut stream = client.send(get(&url("/stream"))).await.unwrap();
    assert_eq!(stream.chunk().await.unwrap().unwrap(), "one");
    let all: Vec<_> = (0..50)
        .map(|i| {
            let (client, url) = (client.clone(), url("/echo"));
            tokio::spawn(async move { text(client.send(post(&url, &i.to_string())).await.unwrap()).await })
        })
        .collect();
    for (i, one) in all.into_iter().enumerate() {
        assert_eq!(one.await.unwrap(), format!("HTTP/2.0 {i}"));
    }
    assert_eq!(connections.load(std::sync::atomic::Ordering::SeqCst), 1);
    let error = client.send(get(&url("/cut"))).await.unwrap().bytes(100).await.unwrap_err();
    assert_eq!(error.kind(), HttpErrorKind::Cut, "{error:?}");
}

type Frames = futures_util::stream::BoxStream<'static, Result<Frame<Bytes>, std::io::Error>>;

async fn h2_answer(
    request: hyper::Request<hyper::body::Incoming>,
) -> Result<Response<StreamBody<Frames>>, std::convert::Infallible> {
    use futures_util::stream::{self, StreamExt};
    let (path, version) = (request.uri().path().to_owned(), request.version());
    let frames: Frames = match path.as_str() {
        "/stream" => stream::iter([Ok(Frame::data(Bytes::from_static(b"one")))]).chain(stream::pending()).boxed(),
        "/cut" => stream::iter([Ok(Frame::data(Bytes::from_static(b"one")))])
            .chain(stream::once(async {
                // The head goes out first.
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                Err(std::io::Error::other("cut"))
            }))
            .boxed(),
        _ => {
            let body = request.into_body().collect().await.unwrap().to_bytes();
            let text = format!("{version:?} {}", String::from_utf8_lossy(&body));
            stream::iter([Ok(Frame::data(Bytes::from(text)))]).boxed()
        }
    };
    Ok(Response::new(StreamBody::new(frames)))
}
