//! A client that is nothing but bytes.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// A test that waits so long has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// One connection.
pub struct Raw {
    stream: TcpStream,
}

/// CONNECT of MQTT 5 with Clean Start, no Keep Alive, no properties.
pub fn connect(client_id: &str) -> Vec<u8> {
    connect_with(5, 0b10, 0, &[], client_id)
}

/// CONNECT of MQTT 5 that goes on with a Session and has it last (Session Expiry Interval 100).
pub fn resume(client_id: &str) -> Vec<u8> {
    connect_with(5, 0, 0, &[0x11, 0, 0, 0, 100], client_id)
}

/// CONNECT without Will, User Name and Password.
pub fn connect_with(level: u8, flags: u8, keep_alive: u16, properties: &[u8], client_id: &str) -> Vec<u8> {
    let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', level, flags];
    body.extend(keep_alive.to_be_bytes());
    if level == 5 {
        body.push(properties.len() as u8);
        body.extend_from_slice(properties);
    }
    put_string(&mut body, client_id);
    packet(0x10, &body)
}

/// PUBLISH of MQTT 5 without properties: flags are the low bits of the first byte, `packet_id` is for QoS 1 and 2.
pub fn publish(flags: u8, topic_name: &str, packet_id: u16, payload: &str) -> Vec<u8> {
    publish_with(flags, topic_name, packet_id, &[], payload)
}

/// PUBLISH of MQTT 5.
pub fn publish_with(flags: u8, topic_name: &str, packet_id: u16, properties: &[u8], payload: &str) -> Vec<u8> {
    let mut body = Vec::new();
    put_string(&mut body, topic_name);
    if flags & 0b0110 != 0 {
        body.extend(packet_id.to_be_bytes());
    }
    body.push(properties.len() as u8);
    body.extend_from_slice(properties);
    body.extend_from_slice(payload.as_bytes());
    packet(0x30 | flags, &body)
}

/// SUBSCRIBE of MQTT 5 with one filter and no properties.
pub fn subscribe(packet_id: u16, filter: &str, options: u8) -> Vec<u8> {
    let mut body = packet_id.to_be_bytes().to_vec();
    body.push(0);
    put_string(&mut body, filter);
    body.push(options);
    packet(0x82, &body)
}

/// PUBACK (0x40), PUBREC (0x50), PUBREL (0x62) or PUBCOMP (0x70), in the short form.
pub fn ack(first_byte: u8, packet_id: u16) -> Vec<u8> {
    packet(first_byte, &packet_id.to_be_bytes())
}

pub fn packet(first_byte: u8, body: &[u8]) -> Vec<u8> {
    assert!(body.len() < 0x80, "one byte of Remaining Length");
    [&[first_byte, body.len() as u8], body].concat()
}

fn put_string(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u16).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// CONNACK of MQTT 5 without properties.
pub const CONNECTED: [u8; 5] = [0x20, 3, 0, 0, 0];
/// The same with Session Present.
pub const RESUMED: [u8; 5] = [0x20, 3, 1, 0, 0];

impl Raw {
    /// A connection on which nothing has been said.
    pub async fn open(url: &str) -> Self {
        let address = url.strip_prefix("mqtt://").expect("a URL of the mock");
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream }
    }

    /// A connection that begins with these bytes and this answer.
    pub async fn begin(url: &str, first: &[u8], answer: &[u8]) -> Self {
        let mut this = Self::open(url).await;
        this.send(first).await;
        this.expect(answer).await;
        this
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// The next bytes are these.
    #[track_caller]
    pub fn expect(&mut self, wanted: &[u8]) -> impl Future<Output = ()> {
        let caller = std::panic::Location::caller();
        async move {
            let mut bytes = vec![0; wanted.len()];
            let mut count = 0;
            while count < wanted.len() {
                match timeout(PATIENCE, self.stream.read(&mut bytes[count..])).await {
                    Ok(Ok(more)) if more > 0 => count += more,
                    other => panic!("{caller}: {:02x?} came and then {other:?}", &bytes[..count]),
                }
                assert_eq!(bytes[..count], wanted[..count], "{caller}");
            }
        }
    }

    /// A fence: all that was sent before has been handled, and nothing else has been answered.
    #[track_caller]
    pub fn ping(&mut self) -> impl Future<Output = ()> {
        let caller = std::panic::Location::caller();
        async move {
            self.send(&[0xc0, 0]).await;
            let mut bytes = [0; 2];
            timeout(PATIENCE, self.stream.read_exact(&mut bytes)).await.unwrap().unwrap();
            assert_eq!(bytes, [0xd0, 0], "{caller}");
        }
    }

    /// All bytes up to the end of the connection, and whether it ended by a reset.
    pub async fn rest(&mut self) -> (Vec<u8>, bool) {
        let mut all = Vec::new();
        let mut bytes = [0; 4_096];
        loop {
            match timeout(PATIENCE, self.stream.read(&mut bytes)).await.unwrap() {
                Ok(0) => return (all, false),
                Ok(count) => all.extend_from_slice(&bytes[..count]),
                Err(_) => return (all, true),
            }
        }
    }

    /// The stream, for what has no name here.
    pub fn stream(&mut self) -> &mut TcpStream {
        &mut self.stream
    }
}
