//! Bodies: whole, cut, too large, compressed, silent.

use std::time::Duration;

use mcp_drawbridge::http::{HttpErrorKind, HttpOptions};

use crate::{
    client, get, options,
    server::{Act, Server, send},
    shown,
};

/// What comes of a body that a server sends in these acts before it closes.
async fn read(options: HttpOptions, acts: fn() -> Vec<Act>) -> Result<Vec<u8>, HttpErrorKind> {
    let server = Server::start(move |_| {
        let mut acts = acts();
        acts.push(Act::Close);
        acts
    })
    .await;
    let client = client(options, &server.url("/"));
    let response = client.send(get(&server.url("/"))).await.map_err(|e| e.kind())?;
    let bytes = response.bytes(usize::MAX).await.map_err(|error| {
        assert!(!error.surely_unsent(), "{error:?}");
        error.kind()
    })?;
    Ok(bytes.to_vec())
}

fn head(fields: &str, body: &[u8]) -> Vec<Act> {
    let mut all = format!("HTTP/1.1 200 OK\r\n{fields}\r\n").into_bytes();
    all.extend_from_slice(body);
    send(all)
}

#[tokio::test]
async fn whole_and_cut() {
    #[rustfmt::skip]
    let table: &[(fn() -> Vec<Act>, Result<&str, HttpErrorKind>)] = &[
        (|| head("Content-Length: 3\r\n", b"abc"), Ok("abc")),
        (|| head("Content-Length: 0\r\n", b""), Ok("")),
        (|| head("Content-Length: 4\r\n", b"abc"), Err(HttpErrorKind::Cut)),
        (|| head("Content-Length: 1\r\n", b""), Err(HttpErrorKind::Cut)),
        // More than announced is not part of the answer.
        (|| head("Content-Length: 2\r\n", b"abcHTTP/1.1 200 OK\r\n\r\n"), Ok("ab")),
        (|| head("Transfer-Encoding: chunked\r\n", b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"), Ok("abcde")),
        (|| head("Transfer-Encoding: chunked\r\n", b"3\r\nabc\r\n0\r\nX-T: 1\r\n\r\n"), Ok("abc")),
        (|| head("Transfer-Encoding: chunked\r\n", b"3\r\nabc\r\n"), Err(HttpErrorKind::Cut)),
        (|| head("Transfer-Encoding: chunked\r\n", b"9\r\nabc"), Err(HttpErrorKind::Cut)),
        (|| head("Transfer-Encoding: chunked\r\n", b"zz\r\nabc"), Err(HttpErrorKind::Malformed)),
        (|| head("Transfer-Encoding: chunked\r\n", b"fffffffffffffffff\r\nabc"), Err(HttpErrorKind::Malformed)),
        // Nothing says where it ends but the end itself.
        (|| head("", b"abc"), Ok("abc")),
    ];
    for (i, (acts, want)) in table.iter().enumerate() {
        let got = read(options(), *acts).await;
        assert_eq!(got, want.map(|body| body.as_bytes().to_vec()), "case {i}");
    }
}

#[tokio::test]
async fn too_large() {
    let small = || HttpOptions { max_body: 1000, ..options() };
    #[rustfmt::skip]
    let table: &[(fn() -> Vec<Act>, Result<usize, HttpErrorKind>)] = &[
        (|| head("Content-Length: 1000\r\n", &[b'x'; 1000]), Ok(1000)),
        // Announced: refused before the body.
        (|| vec![Act::Send(b"HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n".to_vec()), Act::Hold], Err(HttpErrorKind::TooLarge)),
        (|| vec![Act::Send(b"HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551614\r\n\r\n".to_vec()), Act::Hold], Err(HttpErrorKind::TooLarge)),
        // Not announced: counted.
        (|| head("", &[b'x'; 1000]), Ok(1000)),
        (|| head("", &[b'x'; 1001]), Err(HttpErrorKind::TooLarge)),
        (|| head("Transfer-Encoding: chunked\r\n", &[b"3e9\r\n", &[b'x'; 1001][..], b"\r\n0\r\n\r\n"].concat()), Err(HttpErrorKind::TooLarge)),
        // An event stream has no size.
        (|| head("Content-Type: text/event-stream; charset=utf-8\r\nContent-Length: 5000\r\n", &[b'x'; 5000]), Ok(5000)),
        (|| head("Content-Type: text/event-streams\r\nContent-Length: 5000\r\n", &[b'x'; 5000]), Err(HttpErrorKind::TooLarge)),
    ];
    for (i, (acts, want)) in table.iter().enumerate() {
        let got = read(small(), *acts).await;
        assert_eq!(got.map(|body| body.len()), *want, "case {i}");
    }
}

#[tokio::test]
async fn the_callers_own_limit() {
    let server = Server::start(|seen| match seen.target.as_str() {
        "/announced" => head("Content-Length: 10\r\n", b"0123456789"),
        "/chunks" => head("Transfer-Encoding: chunked\r\n", b"5\r\n01234\r\n5\r\n56789\r\n0\r\n\r\n"),
        _ => vec![
            Act::Send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n01234\r\n".to_vec()),
            Act::Wait(Duration::from_millis(50)),
            Act::Send(b"5\r\n56789\r\n0\r\n\r\n".to_vec()),
        ],
    })
    .await;
    for path in ["/announced", "/chunks", "/slow-chunks"] {
        let url = server.url(path);
        let client = client(options(), &url);
        let get = || async { client.send(get(&url)).await.unwrap() };
        assert_eq!(get().await.bytes(10).await.unwrap(), "0123456789", "{path}");
        let error = get().await.bytes(9).await.unwrap_err();
        assert_eq!(error.kind(), HttpErrorKind::TooLarge, "{path}");
    }
}

#[tokio::test]
async fn compressed() {
    const GZIP: &str = "Content-Encoding: gzip\r\n";
    #[rustfmt::skip]
    let table: &[(fn() -> Vec<Act>, Result<usize, HttpErrorKind>)] = &[
        (|| head(GZIP, &gzip(b"hello")), Ok(5)),
        (|| head("Content-Encoding: identity\r\n", b"hello"), Ok(5)),
        // 60 KiB become 16 MiB.
        (|| head(GZIP, &bomb(16 << 20)), Err(HttpErrorKind::TooLarge)),
        (|| head(GZIP, &gzip(b"hello")[..20]), Err(HttpErrorKind::Cut)),
        (|| head(GZIP, b"not gzip at all"), Err(HttpErrorKind::Malformed)),
        (|| head("Content-Encoding: br\r\n", b"hello"), Err(HttpErrorKind::Malformed)),
        (|| head("Content-Encoding: gzip, gzip\r\n", b"hello"), Err(HttpErrorKind::Malformed)),
    ];
    for (i, (acts, want)) in table.iter().enumerate() {
        let limited = HttpOptions { max_body: 1 << 20, ..options() };
        let got = read(limited, *acts).await;
        assert_eq!(got.map(|body| body.len()), *want, "case {i}");
    }
}

#[tokio::test]
async fn a_bomb_is_stopped_at_the_limit() {
    let server = Server::start(|_| head("Content-Encoding: gzip\r\n", &bomb(16 << 20))).await;
    let limit = 1 << 20;
    let limited = HttpOptions { max_body: limit, ..options() };
    let client = client(limited, &server.url("/"));
    let mut response = client.send(get(&server.url("/"))).await.unwrap();
    let mut read = 0;
    let error = loop {
        match response.chunk().await {
            Ok(chunk) => read += chunk.expect("the end of a bomb").len(),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), HttpErrorKind::TooLarge);
    assert!(error.to_string().contains(&limit.to_string()), "{error}");
    assert!(read <= limit, "{read}");
}

#[tokio::test]
async fn silence_has_a_limit_and_slowness_none() {
    let slow = || {
        let mut acts = send("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n");
        for byte in [b"a", b"b", b"c", b"d", b"e", b"f"] {
            acts.push(Act::Wait(Duration::from_millis(100)));
            acts.push(Act::Send(byte.to_vec()));
        }
        acts
    };
    let limited = HttpOptions {
        body_timeout: Some(Duration::from_millis(300)),
        headers_timeout: Some(Duration::from_millis(300)),
        ..options()
    };
    assert_eq!(read(limited.clone(), slow).await, Ok(b"abcdef".to_vec()));

    let server = Server::start(|_| {
        let mut acts = send("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabc");
        acts.push(Act::Hold);
        acts
    })
    .await;
    let client = client(limited, &server.url("/"));
    let mut response = client.send(get(&server.url("/"))).await.unwrap();
    assert_eq!(response.chunk().await.unwrap().unwrap(), "abc");
    let error = response.chunk().await.unwrap_err();
    assert_eq!(error.kind(), HttpErrorKind::Timeout);
    assert!(shown(&error).contains("0.3 s") && shown(&error).contains("--body-timeout"), "{error}");
}

#[tokio::test]
async fn giving_up_a_read_loses_nothing() {
    let server = Server::start(|_| {
        let mut acts = send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n");
        for i in 0..20 {
            acts.push(Act::Wait(Duration::from_millis(7)));
            acts.push(Act::Send(vec![b'a' + i]));
        }
        acts.push(Act::Close);
        acts
    })
    .await;
    let client = client(options(), &server.url("/"));
    let mut response = client.send(get(&server.url("/"))).await.unwrap();
    let mut all = Vec::new();
    loop {
        match tokio::time::timeout(Duration::from_millis(3), response.chunk()).await {
            Err(_) => {}
            Ok(Ok(Some(chunk))) => all.extend_from_slice(&chunk),
            Ok(Ok(None)) => break,
            Ok(Err(error)) => panic!("{error:?}"),
        }
    }
    assert_eq!(all, b"abcdefghijklmnopqrst");
}

#[tokio::test]
async fn a_large_body_arrives_whole() {
    let server = Server::start(|_| {
        let mut acts = send("HTTP/1.1 200 OK\r\nContent-Length: 20971520\r\n\r\n");
        acts.extend((0..20).map(|i| Act::Send(vec![i; 1 << 20])));
        acts
    })
    .await;
    let client = client(options(), &server.url("/"));
    let response = client.send(get(&server.url("/"))).await.unwrap();
    let bytes = response.bytes(32 << 20).await.unwrap();
    assert_eq!(bytes.len(), 20 << 20);
    assert!((0..20).all(|i| bytes[(usize::from(i) << 20) + 5] == i));
}

/// RFC 1952 around one stored block (RFC 1951 section 3.2.4).
fn gzip(data: &[u8]) -> Vec<u8> {
    let length = u16::try_from(data.len()).unwrap();
    let mut out = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255, 1];
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&(!length).to_le_bytes());
    out.extend_from_slice(data);
    out.extend_from_slice(&crc32(data).to_le_bytes());
    out.extend_from_slice(&u32::from(length).to_le_bytes());
    out
}

fn crc32(data: &[u8]) -> u32 {
    !data.iter().fold(!0, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & 0_u32.wrapping_sub(crc & 1)))
    })
}

/// About `size` zeros as gzip: one literal, then nothing but "258 bytes, as the one before" in fixed Huffman codes
/// (RFC 1951 section 3.2.6). The end never comes.
fn bomb(size: usize) -> Vec<u8> {
    let mut out = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    let (mut bits, mut count) = (0_u32, 0);
    let mut put = |code: &str| {
        for bit in code.bytes() {
            bits |= u32::from(bit - b'0') << count;
            count += 1;
            if count == 8 {
                out.push(u8::try_from(bits).unwrap());
                (bits, count) = (0, 0);
            }
        }
    };
    // Last block, fixed codes (bits of numbers come lowest first), literal 0.
    put("1");
    put("10");
    put("00110000");
    for _ in 0..size / 258 {
        put("11000101");
        put("00000");
    }
    out
}
