//! HTTP as it is on the wire: a client that tells how a connection ends.

use std::fmt::Write as _;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(30);

/// How an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// With all that its length promised.
    Whole,
    /// Early, by FIN.
    Fin,
    /// Early, by RST.
    Reset,
}

/// An answer whose body has not been read.
pub(crate) struct Head {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    stream: TcpStream,
    received: Vec<u8>,
    bodiless: bool,
}

/// A whole answer.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    pub(crate) end: End,
}

/// Sends a request and reads the head of its answer.
pub(crate) async fn begin(to: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)]) -> Head {
    let mut stream = TcpStream::connect(to).await.unwrap();
    let mut request = format!("{method} {path} HTTP/1.1\r\nHost: {to}\r\n");
    for (name, value) in headers {
        write!(request, "{name}: {value}\r\n").unwrap();
    }
    request += "\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut received = Vec::new();
    let until = loop {
        if let Some(at) = received.windows(4).position(|window| window == b"\r\n\r\n") {
            break at;
        }
        let read = timeout(PATIENCE, stream.read_buf(&mut received)).await.expect("an answer").unwrap();
        assert!(read > 0, "closed before an answer");
    };
    let body = received.split_off(until + 4);
    let text = String::from_utf8(received).unwrap();
    let mut lines = text.trim_end().split("\r\n");
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers = lines.map(|line| {
        let (name, value) = line.split_once(':').unwrap();
        (name.to_ascii_lowercase(), value.trim().to_owned())
    });
    Head { status, headers: headers.collect(), stream, received: body, bodiless: method == "HEAD" }
}

/// Sends a request and reads the whole answer.
pub(crate) async fn ask(to: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
    begin(to, method, path, headers).await.finish().await
}

fn header<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
}

impl Head {
    /// Body bytes, once there are `count`.
    pub(crate) async fn read(&mut self, count: usize) -> &[u8] {
        while self.received.len() < count {
            let read = timeout(PATIENCE, self.stream.read_buf(&mut self.received)).await;
            assert!(read.expect("more of the body").unwrap() > 0, "closed after {}", self.received.len());
        }
        &self.received
    }

    /// Reads to the end.
    pub(crate) async fn finish(mut self) -> Answer {
        let length = header(&self.headers, "content-length").map(|value| value.parse::<usize>().unwrap());
        let expected = if self.bodiless { 0 } else { length.unwrap_or(usize::MAX) };
        let mut end = End::Whole;
        while self.received.len() < expected {
            match timeout(PATIENCE, self.stream.read_buf(&mut self.received)).await.expect("the body's end") {
                Ok(0) => {
                    end = End::Fin;
                    break;
                }
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::ConnectionReset => {
                    end = End::Reset;
                    break;
                }
                Err(error) => panic!("{error}"),
            }
        }
        Answer { status: self.status, headers: self.headers, body: self.received, end }
    }
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        header(&self.headers, name)
    }

    /// The code of the first error in an OCI error body.
    pub(crate) fn code(&self) -> String {
        let start = String::from_utf8_lossy(&self.body[..self.body.len().min(300)]).into_owned();
        let json: serde_json::Value =
            serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("{start}"));
        assert_eq!(self.header("content-type"), Some("application/json"));
        assert!(json["errors"][0]["message"].is_string(), "no reason in {json}");
        json["errors"][0]["code"].as_str().unwrap().to_owned()
    }
}
