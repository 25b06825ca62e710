//! The scripted broker: the test says every word.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::panic::Location;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use pantala_proto::{
    Acknowledgement, AcknowledgementKind, ConnAck, DecodeError, Disconnect, Packet, PacketId, PacketType,
    ProtocolVersion, ReasonCode, SubAck, UnsubAck, UserProperties, frame,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use super::patience::{PATIENCE, within};
use super::received::Received;
use super::serve::{Behaviour, ServingBroker};

/// Bytes the kernel takes for a peer that does not read, so that a client's writes soon wait. Linux doubles it.
const RECEIVE_BUFFER_BYTES: u32 = 32 * 1_024;
/// Connections that may wait for `accept`.
const BACKLOG: u32 = 1_024;
/// Bytes of one read.
const READ_BYTES: usize = 16 * 1_024;
/// Packets a failed expectation shows of those before it.
const SHOWN_BEFORE: usize = 5;

/// A listener on the loopback interface whose connections a test plays by hand, one [`Peer`] each.
pub struct MockBroker {
    listener: TcpListener,
    address: SocketAddr,
    url: String,
    accepted: AtomicUsize,
    patience: Duration,
}

impl MockBroker {
    /// Listens on a free port of 127.0.0.1.
    ///
    /// # Panics
    /// If there is none.
    pub async fn listen() -> Self {
        let listener = listen().expect("a port of 127.0.0.1 is free");
        let address = listener.local_addr().expect("a listener has an address");
        Self { listener, address, url: url(address), accepted: AtomicUsize::new(0), patience: PATIENCE }
    }

    /// A broker that works by itself, on a free port of 127.0.0.1.
    ///
    /// # Panics
    /// If there is none.
    pub async fn serve() -> ServingBroker {
        Self::serve_with(Behaviour::default()).await
    }

    /// As [`MockBroker::serve`], with other behaviour from the first connection on.
    ///
    /// # Panics
    /// If there is no free port.
    pub async fn serve_with(behaviour: Behaviour) -> ServingBroker {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port of 127.0.0.1 is free");
        ServingBroker::start(listener, behaviour)
    }

    /// Waits this long for what is expected, instead of 20 seconds of real time. Also of peers accepted from now on.
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Where it listens, as `mqtt://127.0.0.1:PORT`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The next connection. Cancelling loses none.
    ///
    /// # Panics
    /// If none comes in time.
    #[track_caller]
    pub fn accept(&self) -> impl Future<Output = Peer> {
        let caller = Location::caller();
        async move {
            let Some(accepted) = within(self.patience, self.listener.accept()).await else {
                panic!("{caller}: expected a connection, and none came within {:?}", self.patience);
            };
            let (stream, _) = accepted.expect("a loopback listener accepts");
            // Latency is all that would change.
            let _ = stream.set_nodelay(true);
            let number = self.accepted.fetch_add(1, Ordering::Relaxed) + 1;
            Peer {
                stream,
                number,
                version: ProtocolVersion::V5,
                input: Vec::new(),
                taken: 0,
                before: VecDeque::new(),
                end: None,
                reading: true,
                patience: self.patience,
            }
        }
    }
}

pub(super) fn url(address: SocketAddr) -> String {
    format!("mqtt://{address}")
}

fn listen() -> io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    // Before listening: what is accepted inherits it.
    socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES)?;
    socket.bind((Ipv4Addr::LOCALHOST, 0).into())?;
    socket.listen(BACKLOG)
}

/// How a client has ended its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It has closed it.
    Closed,
    /// It has reset it: also what closing does while bytes of ours are unread.
    Reset,
}

/// The broker's end of one connection, in the hands of a test.
///
/// It reads only when it is asked for something or while it writes. Every `expect…` panics, with the line that called
/// it and with what came instead, if that is not what was expected, or if nothing comes in time. Packets are encoded and
/// decoded in the version of the CONNECT received, before it in that of MQTT 5.
///
/// All bytes of a connection are kept until it is dropped. Dropping it closes the connection as it is: if anything of
/// the client is unread, that is a reset.
///
/// Cancelling an expectation loses no byte; cancelling a `send` may leave half a packet sent.
pub struct Peer {
    stream: TcpStream,
    number: usize,
    version: ProtocolVersion,
    /// All that came; `input[taken..]` has not been asked for.
    input: Vec<u8>,
    taken: usize,
    /// The last packets that were asked for.
    before: VecDeque<Received>,
    end: Option<End>,
    reading: bool,
    patience: Duration,
}

/// Why there is no packet.
enum Nothing {
    Ended(End),
    Malformed(DecodeError),
    InTime,
}

impl Peer {
    /// Which connection of its broker this is: the first is 1.
    pub fn number(&self) -> usize {
        self.number
    }

    /// The version of the client's CONNECT; MQTT 5 before it came.
    pub fn version(&self) -> ProtocolVersion {
        self.version
    }

    /// Speaks another version than CONNECT would have it.
    pub fn set_version(&mut self, version: ProtocolVersion) {
        self.version = version;
    }

    /// All bytes that were read from the client so far, those of packets already taken too.
    pub fn bytes(&self) -> &[u8] {
        &self.input
    }

    /// The next packet; None when the client has ended the connection.
    ///
    /// # Panics
    /// If it is malformed or does not come in time.
    #[track_caller]
    pub fn next_packet(&mut self) -> impl Future<Output = Option<Received>> {
        let caller = Location::caller();
        async move {
            match self.packet().await {
                Ok(received) => Some(received),
                Err(Nothing::Ended(_)) => None,
                Err(nothing) => self.fail(caller, "a packet", &nothing),
            }
        }
    }

    /// The next packet, which has to be one that `wanted` wants.
    #[track_caller]
    pub fn expect(&mut self, wanted: impl FnOnce(&Packet<'_>) -> bool) -> impl Future<Output = Received> {
        self.expect_what("another packet".into(), wanted)
    }

    /// The next packet, which has to be CONNECT.
    #[track_caller]
    pub fn expect_connect(&mut self) -> impl Future<Output = Received> {
        self.expect_what("CONNECT".into(), |packet| matches!(packet, Packet::Connect(_)))
    }

    /// The next packet, which has to be PUBLISH.
    #[track_caller]
    pub fn expect_publish(&mut self) -> impl Future<Output = Received> {
        self.expect_what("PUBLISH".into(), |packet| matches!(packet, Packet::Publish(_)))
    }

    /// The next packet, which has to be this one of PUBACK, PUBREC, PUBREL and PUBCOMP, with any Reason Code.
    #[track_caller]
    pub fn expect_acknowledgement(
        &mut self,
        kind: AcknowledgementKind,
        packet_id: PacketId,
    ) -> impl Future<Output = Received> {
        self.expect_what(
            format!("{kind:?} with Packet Identifier {}", packet_id.number()),
            move |packet| matches!(packet, Packet::Acknowledgement(it) if it.kind == kind && it.packet_id == packet_id),
        )
    }

    /// The next packet, which has to be SUBSCRIBE.
    #[track_caller]
    pub fn expect_subscribe(&mut self) -> impl Future<Output = Received> {
        self.expect_what("SUBSCRIBE".into(), |packet| matches!(packet, Packet::Subscribe(_)))
    }

    /// The next packet, which has to be UNSUBSCRIBE.
    #[track_caller]
    pub fn expect_unsubscribe(&mut self) -> impl Future<Output = Received> {
        self.expect_what("UNSUBSCRIBE".into(), |packet| matches!(packet, Packet::Unsubscribe(_)))
    }

    /// The next packet, which has to be PINGREQ.
    #[track_caller]
    pub fn expect_ping_req(&mut self) -> impl Future<Output = Received> {
        self.expect_what("PINGREQ".into(), |packet| matches!(packet, Packet::PingReq))
    }

    /// The next packet, which has to be DISCONNECT.
    #[track_caller]
    pub fn expect_disconnect(&mut self) -> impl Future<Output = Received> {
        self.expect_what("DISCONNECT".into(), |packet| matches!(packet, Packet::Disconnect(_)))
    }

    /// The next `count` bytes, whatever they are.
    ///
    /// # Panics
    /// If fewer come in time or the connection ends before.
    #[track_caller]
    pub fn expect_bytes(&mut self, count: usize) -> impl Future<Output = Vec<u8>> {
        let caller = Location::caller();
        async move {
            let wanted = self.taken + count;
            match self.fill(wanted).await {
                Ok(()) => {
                    let bytes = self.input[self.taken..wanted].to_vec();
                    self.taken = wanted;
                    bytes
                }
                Err(nothing) => self.fail(caller, &format!("{count} bytes"), &nothing),
            }
        }
    }

    /// The end of the connection, before any other packet.
    ///
    /// # Panics
    /// If a packet comes, or half of one, or nothing in time.
    #[track_caller]
    pub fn expect_end(&mut self) -> impl Future<Output = End> {
        let caller = Location::caller();
        async move {
            match self.packet().await {
                Err(Nothing::Ended(end)) if self.taken == self.input.len() || end == End::Reset => end,
                Err(nothing) => self.fail(caller, "the end of the connection", &nothing),
                Ok(received) => {
                    panic!("{caller}: expected the end of the connection, and {received:?} came{}", self.told_before())
                }
            }
        }
    }

    /// Sends a packet. If the client is gone, that shows when the next one is expected from it.
    ///
    /// # Panics
    /// If the client does not read it in time.
    #[track_caller]
    pub fn send(&mut self, packet: &Packet<'_>) -> impl Future<Output = ()> + use<'_> {
        let mut bytes = Vec::new();
        packet.encode(self.version, &mut bytes);
        self.write(bytes)
    }

    /// Sends bytes. If the client is gone, that shows when the next packet is expected from it.
    ///
    /// # Panics
    /// If the client does not read them in time.
    #[track_caller]
    pub fn send_bytes(&mut self, bytes: &[u8]) -> impl Future<Output = ()> + use<'_> {
        self.write(bytes.to_vec())
    }

    /// Sends CONNACK without properties; see [`Peer::send`].
    #[track_caller]
    pub fn conn_ack(&mut self, session_present: bool, reason_code: ReasonCode) -> impl Future<Output = ()> + use<'_> {
        self.send(&Packet::ConnAck(ConnAck::new(session_present, reason_code)))
    }

    /// Sends PUBACK, PUBREC, PUBREL or PUBCOMP; see [`Peer::send`].
    #[track_caller]
    pub fn acknowledge(
        &mut self,
        kind: AcknowledgementKind,
        packet_id: PacketId,
        reason_code: ReasonCode,
    ) -> impl Future<Output = ()> + use<'_> {
        self.send(&Packet::Acknowledgement(Acknowledgement::new(kind, packet_id, reason_code)))
    }

    /// Sends SUBACK; see [`Peer::send`].
    #[track_caller]
    pub fn sub_ack(&mut self, packet_id: PacketId, reason_codes: &[ReasonCode]) -> impl Future<Output = ()> + use<'_> {
        let reason_codes = reason_codes.to_vec();
        let user_properties = UserProperties::none();
        self.send(&Packet::SubAck(SubAck { packet_id, reason_codes, reason_string: None, user_properties }))
    }

    /// Sends UNSUBACK; see [`Peer::send`].
    #[track_caller]
    pub fn unsub_ack(
        &mut self,
        packet_id: PacketId,
        reason_codes: &[ReasonCode],
    ) -> impl Future<Output = ()> + use<'_> {
        let reason_codes = reason_codes.to_vec();
        let user_properties = UserProperties::none();
        self.send(&Packet::UnsubAck(UnsubAck { packet_id, reason_codes, reason_string: None, user_properties }))
    }

    /// Sends DISCONNECT; see [`Peer::send`].
    #[track_caller]
    pub fn disconnect(&mut self, reason_code: ReasonCode) -> impl Future<Output = ()> + use<'_> {
        self.send(&Packet::Disconnect(Disconnect::new(reason_code)))
    }

    /// Reads no more, not even while it sends: after some hundred KiB the client's writes wait.
    pub fn stop_reading(&mut self) {
        self.reading = false;
    }

    /// Reads again.
    pub fn resume_reading(&mut self) {
        self.reading = true;
    }

    /// Closes the connection. Everything sent before arrives: what the client still sends is read and thrown away,
    /// since closing with unread input would be a reset.
    pub async fn close(mut self) {
        let _ = self.stream.shutdown().await;
        tokio::spawn(drain(self.stream));
    }

    /// Resets the connection (RST). What was sent and not yet read by the client is lost.
    pub fn reset(self) {
        let _ = self.stream.set_zero_linger();
    }

    #[track_caller]
    fn expect_what(
        &mut self,
        what: String,
        wanted: impl FnOnce(&Packet<'_>) -> bool,
    ) -> impl Future<Output = Received> {
        let caller = Location::caller();
        async move {
            match self.packet().await {
                Ok(received) if wanted(&received.packet()) => received,
                Ok(received) => panic!("{caller}: expected {what}, and {received:?} came{}", self.told_before()),
                Err(nothing) => self.fail(caller, &what, &nothing),
            }
        }
    }

    /// Takes the next packet out of the input. One that is not wanted is taken too: the test is over then.
    async fn packet(&mut self) -> Result<Received, Nothing> {
        let bytes = loop {
            let needed = match frame::split(&self.input[self.taken..], u32::MAX).map_err(Nothing::Malformed)? {
                frame::Split::Frame(frame) => {
                    break Bytes::copy_from_slice(&self.input[self.taken..self.taken + frame.packet_bytes]);
                }
                frame::Split::Incomplete { needed } => self.taken + needed,
            };
            self.fill(needed).await?;
        };
        let received = Received::decode(self.number, self.version, bytes).map_err(Nothing::Malformed)?;
        if received.packet_type() == PacketType::Connect {
            self.version = received.version();
        }
        self.taken += received.bytes().len();
        if self.before.len() == SHOWN_BEFORE {
            self.before.pop_front();
        }
        self.before.push_back(received.clone());
        Ok(received)
    }

    /// Reads until there are `wanted` bytes of input in all.
    async fn fill(&mut self, wanted: usize) -> Result<(), Nothing> {
        assert!(
            self.reading || self.input.len() >= wanted,
            "expects something of a client whose bytes it has stopped to read"
        );
        let patience = self.patience;
        let filled = poll_fn(|cx| {
            while self.input.len() < wanted {
                if let Some(end) = self.end {
                    return Poll::Ready(Err(Nothing::Ended(end)));
                }
                if self.poll_read(cx).is_pending() {
                    return Poll::Pending;
                }
            }
            Poll::Ready(Ok(()))
        });
        within(patience, filled).await.unwrap_or(Err(Nothing::InTime))
    }

    /// One read into the input. Ready when something has happened.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut bytes = [0; READ_BYTES];
        let mut buffer = ReadBuf::new(&mut bytes);
        match Pin::new(&mut self.stream).poll_read(cx, &mut buffer) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Ok(())) if buffer.filled().is_empty() => self.end = Some(End::Closed),
            Poll::Ready(Ok(())) => self.input.extend_from_slice(buffer.filled()),
            Poll::Ready(Err(_)) => self.end = Some(End::Reset),
        }
        Poll::Ready(())
    }

    #[track_caller]
    fn write(&mut self, bytes: Vec<u8>) -> impl Future<Output = ()> + use<'_> {
        let caller = Location::caller();
        async move {
            let patience = self.patience;
            let mut written = 0;
            let writing = poll_fn(|cx| {
                while written < bytes.len() {
                    match Pin::new(&mut self.stream).poll_write(cx, &bytes[written..]) {
                        Poll::Ready(Ok(count)) => written += count,
                        // What is unread may still be read, and so is the end.
                        Poll::Ready(Err(_)) => return Poll::Ready(()),
                        Poll::Pending => {
                            // A client that waits for us to read would never read.
                            while self.reading && self.end.is_none() && self.poll_read(cx).is_ready() {}
                            return Poll::Pending;
                        }
                    }
                }
                Poll::Ready(())
            });
            if within(patience, writing).await.is_none() {
                panic!("{caller}: the client has read {written} of {} bytes within {patience:?}", bytes.len());
            }
        }
    }

    fn fail(&self, caller: &Location<'_>, what: &str, nothing: &Nothing) -> ! {
        let rest = &self.input[self.taken..];
        let came = match nothing {
            Nothing::Ended(End::Closed) => "the client closed the connection".to_owned(),
            Nothing::Ended(End::Reset) => "the client reset the connection".to_owned(),
            Nothing::Malformed(error) => format!("a malformed packet came ({error})"),
            Nothing::InTime => format!("nothing came within {:?}", self.patience),
        };
        let rest = if rest.is_empty() { String::new() } else { format!("; unread is {}", hex(rest)) };
        panic!("{caller}: expected {what}, and {came}{rest}{}", self.told_before())
    }

    fn told_before(&self) -> String {
        let before = self.before.iter().map(|received| format!("\n    {received:?}"));
        if self.before.is_empty() {
            "; no packet before".into()
        } else {
            format!("; packets before:{}", before.collect::<String>())
        }
    }
}

/// Reads until the client has ended the connection, too.
pub(super) async fn drain(mut stream: TcpStream) {
    let mut bytes = [0; READ_BYTES];
    while stream.read(&mut bytes).await.is_ok_and(|count| count > 0) {}
}

/// The first bytes, for messages about failed tests.
pub(super) fn hex(bytes: &[u8]) -> String {
    const SHOWN: usize = 64;
    let shown: String = bytes.iter().take(SHOWN).map(|byte| format!("{byte:02x}")).collect();
    if bytes.len() > SHOWN { format!("{shown}… ({} bytes)", bytes.len()) } else { shown }
}
