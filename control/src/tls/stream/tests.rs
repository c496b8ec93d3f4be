//! The other end is tokio-rustls' and, where a peer does wrong, bytes.

use std::time::Duration;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion, version};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex, split};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::*;
use crate::tls::Certificate;

/// Nothing here takes so long.
const DEADLINE: Duration = Duration::from_secs(30);

struct World {
    server: Arc<ServerConfig>,
    root: CertificateDer<'static>,
}

impl World {
    fn new() -> Self {
        let made = rcgen::generate_simple_self_signed(["operator".to_owned()]).unwrap();
        let certificate = Certificate::new(&made.cert.pem(), &made.signing_key.serialize_pem()).unwrap();
        Self { server: certificate.config().unwrap(), root: made.cert.der().clone() }
    }

    fn connector(&self, version: &'static SupportedProtocolVersion) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(self.root.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder =
            ClientConfig::builder_with_provider(provider).with_protocol_versions(&[version]).unwrap();
        TlsConnector::from(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
    }

    /// Both ends of a connection on which `room` bytes are under way at most.
    async fn open(&self, room: usize) -> (Stream<DuplexStream>, TlsStream<DuplexStream>) {
        let (one, other) = duplex(room);
        let name = ServerName::try_from("operator").unwrap();
        let connect = self.connector(&version::TLS13).connect(name, other);
        let both = async { tokio::join!(Stream::accept(self.server.clone(), one), connect) };
        let (server, client) = tokio::time::timeout(DEADLINE, both).await.unwrap();
        (server.unwrap(), client.unwrap())
    }
}

fn bytes(count: usize) -> Vec<u8> {
    (0..count).map(|number| u8::try_from(number % 251).unwrap()).collect()
}

/// Writes `out` in parts of `part` bytes and says goodbye, while it reads to the end.
async fn converse<S: AsyncRead + AsyncWrite>(stream: S, out: &[u8], part: usize) -> io::Result<Vec<u8>> {
    let (mut reader, mut writer) = split(stream);
    let write = async {
        for part in out.chunks(part) {
            writer.write_all(part).await?;
            writer.flush().await?;
        }
        writer.shutdown().await
    };
    let mut read = Vec::new();
    tokio::try_join!(write, reader.read_to_end(&mut read))?;
    Ok(read)
}

#[tokio::test]
async fn each_end_reads_what_the_other_writes_however_it_is_cut() {
    let world = World::new();
    // With less than a record's head, two ends of tokio-rustls stand still as well.
    for room in [7, 100, 5000, 1 << 20] {
        for count in [0, 1, PLAIN - 1, PLAIN, PLAIN + 1, 100_000] {
            for part in [100, PLAIN + 1, 100_000] {
                let (server, client) = world.open(room).await;
                let (down, up) = (bytes(count), bytes(count / 2 + 1));
                let both = async { tokio::join!(converse(server, &down, part), converse(client, &up, part)) };
                let (at_server, at_client) =
                    tokio::time::timeout(DEADLINE, both).await.expect("it stands still");
                assert!(at_server.unwrap() == up && at_client.unwrap() == down, "{room} {count} {part}");
            }
        }
    }
}

#[tokio::test]
async fn nothing_is_held_while_nothing_moves() {
    let (mut server, mut client) = World::new().open(64 << 10).await;
    let held = |server: &Stream<_>| {
        (server.records.capacity(), server.plain.bytes.capacity(), server.sealed.bytes.capacity())
    };
    assert_eq!(held(&server), (0, 0, 0));
    for count in [1, 1000, 40_000] {
        client.write_all(&bytes(count)).await.unwrap();
        let mut read = vec![0; count];
        server.read_exact(&mut read).await.unwrap();
        server.write_all(&read).await.unwrap();
        server.flush().await.unwrap();
        client.read_exact(&mut read).await.unwrap();
        assert_eq!((read, held(&server)), (bytes(count), (0, 0, 0)));
    }
}

#[tokio::test]
async fn one_record_waits_for_a_peer_that_does_not_read() {
    let (mut server, _client) = World::new().open(100).await;
    let write = async { while server.write(&bytes(100_000)).await.is_ok() {} };
    assert!(futures::poll!(std::pin::pin!(write)).is_pending());
    assert!(server.sealed.bytes.len() <= RECORD, "{}", server.sealed.bytes.len());
}

#[tokio::test]
async fn an_end_without_a_goodbye_is_an_error_and_one_with_it_is_not() {
    let (mut server, mut client) = World::new().open(1 << 20).await;
    client.write_all(b"x").await.unwrap();
    client.shutdown().await.unwrap();
    drop(client);
    let mut read = Vec::new();
    assert_eq!(server.read_to_end(&mut read).await.unwrap(), 1);

    let (mut server, client) = World::new().open(1 << 20).await;
    drop(client);
    let error = server.read_to_end(&mut read).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
}

#[tokio::test]
async fn nothing_is_written_after_the_goodbye() {
    let (mut server, _client) = World::new().open(1 << 20).await;
    server.shutdown().await.unwrap();
    assert_eq!(server.write(b"x").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
}

#[tokio::test]
async fn keys_may_change_under_way() {
    let (mut server, mut client) = World::new().open(1 << 20).await;
    for round in 0..5_u8 {
        client.get_mut().1.refresh_traffic_keys().unwrap();
        client.write_all(&[round; 1000]).await.unwrap();
        let mut read = [0; 1000];
        server.read_exact(&mut read).await.unwrap();
        server.write_all(&read).await.unwrap();
        server.flush().await.unwrap();
        client.read_exact(&mut read).await.unwrap();
        assert_eq!(read, [round; 1000]);
    }
}

#[tokio::test]
async fn a_record_that_was_tampered_with_is_an_error() {
    let (mut server, client) = World::new().open(1 << 20).await;
    let (mut socket, _) = client.into_inner();
    // Application data of 32 bytes (RFC 8446 §5.2).
    socket.write_all(&[&[23, 3, 3, 0, 32][..], &[7; 32]].concat()).await.unwrap();
    let error = server.read_u8().await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
}

/// What becomes of a handshake in which the peer says `said` and no more, and the first byte that the peer hears.
async fn shaken(said: Vec<u8>) -> (io::Error, Option<u8>) {
    let (one, mut other) = duplex(1 << 20);
    other.write_all(&said).await.unwrap();
    other.shutdown().await.unwrap();
    let accepted = Stream::accept(World::new().server, one);
    let error = tokio::time::timeout(DEADLINE, accepted).await.expect("it waits").err().unwrap();
    (error, other.read_u8().await.ok())
}

#[tokio::test]
async fn a_peer_that_speaks_something_else_is_told_so() {
    let alert = Some(21);
    let (error, heard) = shaken(b"GET / HTTP/1.1\r\n\r\n".to_vec()).await;
    assert_eq!((error.kind(), heard), (io::ErrorKind::InvalidData, alert), "{error}");
    let (error, heard) = shaken(Vec::new()).await;
    assert_eq!((error.kind(), heard), (io::ErrorKind::UnexpectedEof, None), "{error}");
}

#[tokio::test]
async fn a_greeting_is_no_longer_than_a_record() {
    // A ClientHello of 60,000 bytes, in records of 16,384 (RFC 8446 §4, §5.1).
    let hello = [&[1, 0, 0xea, 0x60][..], &vec![0; 60_000]].concat();
    let records = hello.chunks(PLAIN).flat_map(|part| {
        let length = u16::try_from(part.len()).unwrap().to_be_bytes();
        [&[22, 3, 1][..], &length, part].concat()
    });
    let (error, _) = shaken(records.collect()).await;
    assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
}

#[tokio::test]
async fn an_older_protocol_is_refused_with_a_reason() {
    let world = World::new();
    let (one, other) = duplex(1 << 20);
    let name = ServerName::try_from("operator").unwrap();
    let connect = world.connector(&version::TLS12).connect(name, other);
    let (server, client) = tokio::join!(Stream::accept(world.server.clone(), one), connect);
    assert_eq!(server.err().unwrap().kind(), io::ErrorKind::InvalidData);
    let told = client.unwrap_err().to_string();
    assert!(told.contains("ProtocolVersion"), "{told}");
}
