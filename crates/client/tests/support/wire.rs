//! Connections in memory, whose other end the test has: with tokio's clock paused, time passes exactly when both sides wait.

use std::pin::Pin;
use std::sync::Arc;

use pantala_client::transport::ConnectError;
use pantala_client::{BoxedStream, Connector, Options};
use pantala_proto::frame;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::mpsc;

/// Bytes under way in one direction.
pub(crate) const WIRE_BYTES: usize = 64 << 10;

struct Wire(mpsc::UnboundedSender<DuplexStream>);

impl Connector for Wire {
    fn connect(self: Arc<Self>) -> Pin<Box<dyn Future<Output = Result<BoxedStream, ConnectError>> + Send>> {
        let (ours, theirs) = duplex(WIRE_BYTES);
        let sent = self.0.send(theirs);
        Box::pin(async move {
            sent.map_err(|_| ConnectError::Other("nobody listens".to_owned()))?;
            Ok(Box::new(ours) as BoxedStream)
        })
    }
}

/// Where the connections of one client arrive.
pub(crate) struct Listener(mpsc::UnboundedReceiver<DuplexStream>);

/// Options of a client whose connections arrive at the listener.
pub(crate) fn wire() -> (Options, Listener) {
    let (sender, receiver) = mpsc::unbounded_channel();
    (Options::with_connector(Wire(sender)), Listener(receiver))
}

impl Listener {
    pub(crate) async fn accept(&mut self) -> End {
        End { stream: self.0.recv().await.expect("the client connects"), input: Vec::new() }
    }

    /// Takes a connection, and says to its CONNECT: welcome.
    pub(crate) async fn welcome(&mut self, session_present: bool) -> End {
        let mut end = self.accept().await;
        let connect = end.packet().await.expect("the client says who it is");
        assert_eq!(connect[0], 0x10);
        let v5 = connect[8] == 5;
        let flags = u8::from(session_present);
        let conn_ack = if v5 { vec![0x20, 3, flags, 0, 0] } else { vec![0x20, 2, flags, 0] };
        end.send(&conn_ack).await;
        end
    }
}

/// The broker's end of a connection.
pub(crate) struct End {
    pub(crate) stream: DuplexStream,
    input: Vec<u8>,
}

impl End {
    /// The next packet; None at the end of the connection.
    pub(crate) async fn packet(&mut self) -> Option<Vec<u8>> {
        loop {
            if let frame::Split::Frame(frame) = frame::split(&self.input, u32::MAX).expect("a client sends packets") {
                let bytes = frame.packet_bytes;
                return Some(self.input.drain(..bytes).collect());
            }
            if self.stream.read_buf(&mut self.input).await.unwrap_or(0) == 0 {
                return None;
            }
        }
    }

    #[track_caller]
    pub(crate) fn expect(&mut self, packet: &[u8]) -> impl Future<Output = ()> {
        let caller = std::panic::Location::caller();
        async move {
            let found = self.packet().await;
            assert!(found.as_deref() == Some(packet), "{caller}: expected {packet:02x?}, and {found:02x?} came");
        }
    }

    /// Waits for a packet of this type, whatever comes before.
    pub(crate) async fn skip_to(&mut self, first_byte: u8) -> Vec<u8> {
        loop {
            let packet = self.packet().await.expect("another packet before the end");
            if packet[0] == first_byte {
                return packet;
            }
        }
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        // A client that is gone is seen by what it does not send.
        let _ = self.stream.write_all(bytes).await;
    }
}

/// PUBLISH of MQTT 5 without properties; `first_byte` with QoS, DUP and RETAIN.
pub(crate) fn publish(first_byte: u8, topic_name: &str, packet_id: u16, payload: &str) -> Vec<u8> {
    let mut body = vec![0, topic_name.len() as u8];
    body.extend(topic_name.as_bytes());
    if first_byte & 0b110 != 0 {
        body.extend(packet_id.to_be_bytes());
    }
    body.push(0);
    body.extend(payload.as_bytes());
    [vec![first_byte, body.len() as u8], body].concat()
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP with Success.
pub(crate) fn acknowledgement(first_byte: u8, packet_id: u16) -> [u8; 4] {
    let [high, low] = packet_id.to_be_bytes();
    [first_byte, 2, high, low]
}
