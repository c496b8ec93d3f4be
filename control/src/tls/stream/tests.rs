//! Against the client that everybody uses, over a wire that is as narrow as one likes.

use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::*;
use crate::tls::Certificate;

/// A certificate for `operator`, and who trusts it.
fn parties() -> (Arc<ServerConfig>, TlsConnector) {
    let made = rcgen::generate_simple_self_signed(["operator".to_owned()]).unwrap();
    let certificate = Certificate::new(&made.cert.pem(), &made.signing_key.serialize_pem()).unwrap();
    let mut trusted = RootCertStore::empty();
    trusted.add(made.cert.der().clone()).unwrap();
    (certificate.accepting().unwrap(), connector(trusted))
}

fn connector(trusted: RootCertStore) -> TlsConnector {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_root_certificates(trusted).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    TlsConnector::from(Arc::new(config))
}

/// Both ends, of a wire that takes `width` bytes at once.
async fn connected(width: usize) -> (Stream<DuplexStream>, TlsStream<DuplexStream>) {
    let (accepting, connector) = parties();
    let (near, far) = duplex(width);
    let client = connector.connect(ServerName::try_from("operator").unwrap(), far);
    let (server, client) = tokio::join!(Stream::accept(near, accepting), client);
    (server.unwrap(), client.unwrap())
}

fn pattern(length: usize, seed: usize) -> Vec<u8> {
    (0..length).map(|at| u8::try_from((at * 31 + seed) % 251).unwrap()).collect()
}

#[tokio::test]
async fn what_is_said_arrives_however_narrow_the_wire_is() {
    for (width, most) in [(16, 2000), (1000, 70_000), (1 << 20, 70_000)] {
        let (mut server, mut client) = connected(width).await;
        assert_eq!(client.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        // Both ways at once, on a wide wire more than a record.
        let (up, down) = (pattern(most / 2, 1), pattern(most, 2));
        let talk = async {
            let (mut from_client, mut to_client) = tokio::io::split(&mut server);
            let mut got = vec![0; up.len()];
            let send = async {
                to_client.write_all(&down).await.unwrap();
                to_client.flush().await.unwrap();
            };
            tokio::join!(send, async { from_client.read_exact(&mut got).await.unwrap() });
            assert!(got == up, "what came is not what was sent");
        };
        let answer = async {
            let (mut from_server, mut to_server) = tokio::io::split(&mut client);
            let mut got = vec![0; down.len()];
            let send = async {
                to_server.write_all(&up).await.unwrap();
                to_server.flush().await.unwrap();
            };
            tokio::join!(send, async { from_server.read_exact(&mut got).await.unwrap() });
            assert!(got == down, "what came is not what was sent");
        };
        tokio::join!(talk, answer);
    }
}

#[tokio::test]
async fn a_silent_connection_holds_no_buffer() {
    let (mut server, mut client) = connected(1 << 20).await;
    client.write_all(b"question").await.unwrap();
    client.flush().await.unwrap();
    let mut question = [0; 8];
    server.read_exact(&mut question).await.unwrap();
    server.write_all(b"answer").await.unwrap();
    server.flush().await.unwrap();
    let held = [&server.incoming, &server.plain, &server.outgoing].map(BytesMut::capacity);
    assert_eq!(held, [0, 0, 0]);
}

#[tokio::test]
async fn an_end_is_told_from_a_connection_that_broke() {
    let (mut server, mut client) = connected(1 << 20).await;
    client.write_all(b"last words").await.unwrap();
    client.shutdown().await.unwrap();
    let mut said = Vec::new();
    server.read_to_end(&mut said).await.unwrap();
    assert_eq!(said, b"last words");
    server.write_all(b"heard").await.unwrap();
    server.shutdown().await.unwrap();
    let mut heard = Vec::new();
    client.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard, b"heard");

    let (mut server, client) = connected(1 << 20).await;
    drop(client.into_inner().0);
    let error = server.read_to_end(&mut said).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
}

#[tokio::test]
async fn new_keys_are_used_from_where_they_are_announced() {
    let (mut server, mut client) = connected(1 << 20).await;
    for round in 0..3 {
        client.get_mut().1.refresh_traffic_keys().unwrap();
        let (up, down) = (pattern(100, round), pattern(100, round + 7));
        client.write_all(&up).await.unwrap();
        client.flush().await.unwrap();
        let mut got = vec![0; 100];
        server.read_exact(&mut got).await.unwrap();
        assert_eq!(got, up);
        server.write_all(&down).await.unwrap();
        server.flush().await.unwrap();
        client.read_exact(&mut got).await.unwrap();
        assert_eq!(got, down);
    }
}

#[tokio::test]
async fn who_does_not_speak_tls_is_told_so_and_ends() {
    let (accepting, _) = parties();
    let (near, mut far) = duplex(1 << 20);
    far.write_all(b"GET / HTTP/1.1\r\nhost: operator\r\n\r\n").await.unwrap();
    let error = Stream::accept(near, accepting).await.err().unwrap();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    let mut told = Vec::new();
    far.read_to_end(&mut told).await.unwrap();
    assert_eq!(told.first(), Some(&21), "an alert (RFC 8446, 5.1): {told:?}");
}

#[tokio::test]
async fn who_trusts_others_says_so() {
    let (accepting, _) = parties();
    let (near, far) = duplex(1 << 20);
    let stranger = connector(RootCertStore::empty());
    let client = stranger.connect(ServerName::try_from("operator").unwrap(), far);
    let (server, client) = tokio::join!(Stream::accept(near, accepting), client);
    let told = match server {
        // In TLS 1.3 the operator may be done first, and hears of it when it reads.
        Ok(mut server) => server.read_u8().await.unwrap_err(),
        Err(error) => error,
    };
    assert!(told.to_string().contains("UnknownCA"), "{told}");
    client.unwrap_err();
}

#[tokio::test]
async fn what_was_changed_on_the_way_is_refused() {
    let (mut server, mut client) = connected(1 << 20).await;
    // A record that nobody encrypted, past the client's TLS.
    let forged = [&[23, 3, 3, 0, 40][..], &[7; 40]].concat();
    client.get_mut().0.write_all(&forged).await.unwrap();
    let error = server.read_u8().await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    let told = tokio::time::timeout(Duration::from_secs(10), client.read_u8()).await.unwrap();
    assert!(told.unwrap_err().to_string().contains("BadRecordMac"));
}
