//! The load generator against a broker of a few lines that can be told to misbehave: a measurement is worth nothing if
//! a lost message would have passed unseen.

use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pantala_bench::fault::Fault;
use pantala_bench::load::{Load, Plan, Run, Shape, Until};
use pantala_bench::packet::{CONNACK, PUBACK, PUBCOMP, PUBREC, PUBREL, SUBACK, acknowledgement, split_frame};

const STALL_AFTER: Duration = Duration::from_millis(500);
/// Far longer than any test takes; only a hanging machine meets it.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the broker does to the delivery with this number, counted over all connections.
#[derive(Clone, Copy, Debug)]
enum Mischief {
    None,
    Drop(u64),
    Repeat(u64),
    /// Delivers it after the next one.
    Delay(u64),
    /// Cuts off the last byte of its payload.
    Shorten(u64),
    /// Delivers nothing from it on.
    Silence(u64),
    Close(u64),
    /// Sends DISCONNECT with Reason Code 0x97.
    Disconnect(u64),
    /// Refuses every SUBSCRIBE with Reason Code 0x87.
    RefuseSubscribe,
    /// Refuses every CONNECT with Reason Code 0x88.
    RefuseConnect,
    /// Acknowledges a QoS 1 PUBLISH under another Packet Identifier.
    WrongAcknowledgement,
    /// Never acknowledges a QoS 1 PUBLISH.
    NoAcknowledgement,
}

struct Broker {
    mischief: Mischief,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    subscriptions: Vec<(String, TcpStream)>,
    deliveries: u64,
    delayed: Option<Vec<u8>>,
}

fn start(mischief: Mischief) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has a free port");
    let address = listener.local_addr().expect("a bound listener has an address");
    let broker = Arc::new(Broker { mischief, state: Mutex::default() });
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let broker = Arc::clone(&broker);
            // A connection ends when the generator goes; what it then finds is of no interest.
            std::thread::spawn(move || broker.serve(stream));
        }
    });
    address
}

impl Broker {
    fn serve(&self, mut stream: TcpStream) -> Option<()> {
        stream.set_nodelay(true).ok()?;
        let mut bytes = Vec::new();
        let mut buffer = [0; 4096];
        // Packet Identifiers of QoS 2 deliveries for which PUBREL was sent and PUBCOMP has not come.
        let mut released = HashSet::new();
        loop {
            while let Some((frame, length)) = split_frame(&bytes).ok()? {
                self.on_packet(frame.first_byte, frame.body, &bytes[..length], &mut stream, &mut released)?;
                bytes.drain(..length);
            }
            let count = stream.read(&mut buffer).ok().filter(|&count| count > 0)?;
            bytes.extend_from_slice(&buffer[..count]);
        }
    }

    fn on_packet(
        &self,
        first_byte: u8,
        body: &[u8],
        packet: &[u8],
        stream: &mut TcpStream,
        released: &mut HashSet<u16>,
    ) -> Option<()> {
        let mut state = self.state.lock().ok()?;
        match first_byte & 0xF0 {
            0x10 => {
                let code = if matches!(self.mischief, Mischief::RefuseConnect) { 0x88 } else { 0 };
                stream.write_all(&[CONNACK, 3, 0, code, 0]).ok()
            }
            0x80 => {
                let mut rest = &body[3..];
                let mut answer = vec![SUBACK, 0, body[0], body[1], 0];
                while !rest.is_empty() {
                    let length = usize::from(u16::from_be_bytes([rest[0], rest[1]]));
                    let topic_filter = String::from_utf8(rest[2..2 + length].to_vec()).ok()?;
                    state.subscriptions.push((topic_filter, stream.try_clone().ok()?));
                    answer.push(if matches!(self.mischief, Mischief::RefuseSubscribe) {
                        0x87
                    } else {
                        rest[2 + length]
                    });
                    rest = &rest[3 + length..];
                }
                answer[1] = u8::try_from(answer.len() - 2).ok()?;
                stream.write_all(&answer).ok()
            }
            0x30 => {
                let length = usize::from(u16::from_be_bytes([body[0], body[1]]));
                let topic_name = std::str::from_utf8(&body[2..2 + length]).ok()?;
                let packet_id = u16::from_be_bytes([body[2 + length], body[3 + length]]);
                match (first_byte >> 1 & 3, self.mischief) {
                    (1, Mischief::NoAcknowledgement) => {}
                    (1, Mischief::WrongAcknowledgement) => {
                        stream.write_all(&acknowledgement(PUBACK, packet_id ^ 0x8000)).ok()?;
                    }
                    (1, _) => stream.write_all(&acknowledgement(PUBACK, packet_id)).ok()?,
                    (2, _) => stream.write_all(&acknowledgement(PUBREC, packet_id)).ok()?,
                    _ => {}
                }
                state.route(self.mischief, topic_name, packet)
            }
            // The publisher's PUBREL and the subscriber's answers.
            0x60 => stream.write_all(&acknowledgement(PUBCOMP, u16::from_be_bytes([body[0], body[1]]))).ok(),
            0x50 => {
                let packet_id = u16::from_be_bytes([body[0], body[1]]);
                released.insert(packet_id);
                stream.write_all(&acknowledgement(PUBREL, packet_id)).ok()
            }
            0x70 if !released.remove(&u16::from_be_bytes([body[0], body[1]])) => {
                stream.shutdown(std::net::Shutdown::Both).ok()
            }
            _ => Some(()),
        }
    }
}

impl State {
    fn route(&mut self, mischief: Mischief, topic_name: &str, packet: &[u8]) -> Option<()> {
        let Self { subscriptions, deliveries, delayed, .. } = self;
        for (topic_filter, stream) in subscriptions {
            let matches = match topic_filter.strip_suffix('#') {
                Some(prefix) => topic_name.starts_with(prefix),
                None => topic_name == topic_filter,
            };
            if !matches {
                continue;
            }
            let mut bytes = packet.to_vec();
            let number = *deliveries;
            *deliveries += 1;
            if packet[0] >> 1 & 3 > 0 {
                // Publishers choose their Packet Identifiers independently, so the subscriber's have to be our own.
                let packet_id = u16::try_from(*deliveries).ok()?;
                let at = 2 + 2 + topic_name.len();
                bytes[at..at + 2].copy_from_slice(&packet_id.to_be_bytes());
            }
            match mischief {
                Mischief::Drop(at) if at == number => continue,
                Mischief::Silence(at) if at <= number => continue,
                Mischief::Repeat(at) if at == number => bytes.extend_from_slice(packet),
                Mischief::Shorten(at) if at == number => {
                    bytes[1] -= 1;
                    bytes.pop();
                }
                Mischief::Delay(at) if at == number => {
                    *delayed = Some(bytes);
                    continue;
                }
                Mischief::Close(at) if at == number => {
                    stream.shutdown(std::net::Shutdown::Both).ok()?;
                    continue;
                }
                Mischief::Disconnect(at) if at == number => bytes = vec![0xE0, 2, 0x97, 0],
                _ => {}
            }
            bytes.extend(delayed.take().into_iter().flatten());
            stream.write_all(&bytes).ok()?;
        }
        Some(())
    }
}

fn plan(shape: Shape, qos: u8) -> Plan {
    Plan { shape, qos, payload_bytes: 64, window: 10, per_write: if qos == 0 { 5 } else { 10 } }
}

fn load(mischief: Mischief, plan: &Plan, stall_after: Duration) -> Result<Run, Fault> {
    Load::connect(start(mischief), plan, stall_after)?.run(Until::MessagesPerPublisher(100))
}

#[test]
fn every_shape_at_every_qos_delivers_to_each_subscriber_once() {
    for qos in 0..=2 {
        for (shape, deliveries) in [
            (Shape::Pairs(4), 400),
            (Shape::FanIn { publishers: 4 }, 400),
            (Shape::FanOut { publishers: 3, subscribers: 5 }, 1_500),
        ] {
            let run = load(Mischief::None, &plan(shape, qos), PATIENCE);
            assert_eq!(run.map(|run| run.delivered), Ok(deliveries), "{shape:?} QoS {qos}");
        }
    }
}

#[test]
fn a_run_by_time_ends_with_everything_delivered_and_can_be_followed_by_another() {
    let mut load = Load::connect(start(Mischief::None), &plan(Shape::Pairs(2), 0), PATIENCE).unwrap();
    let first = load.run(Until::Elapsed(Duration::from_millis(100))).unwrap();
    assert!(first.delivered > 0 && first.elapsed >= Duration::from_millis(100));
    assert_eq!(load.run(Until::MessagesPerPublisher(7)).unwrap().delivered, 14);
}

#[test]
fn a_number_of_messages_that_does_not_fill_the_last_write_is_sent_to_the_end() {
    let one_write = Plan { window: 50, per_write: 50, ..plan(Shape::Pairs(1), 0) };
    let mut load = Load::connect(start(Mischief::None), &one_write, PATIENCE).unwrap();
    assert_eq!(load.run(Until::MessagesPerPublisher(120)).unwrap().delivered, 120);
}

#[test]
fn a_lost_message_is_seen() {
    let lost = Err(Fault::Lost { publisher: 0, messages: 1 });
    assert_eq!(load(Mischief::Drop(42), &plan(Shape::Pairs(1), 0), PATIENCE), lost);
    assert!(matches!(
        load(Mischief::Drop(42), &plan(Shape::FanOut { publishers: 2, subscribers: 3 }, 0), PATIENCE),
        Err(Fault::Lost { messages: 1, .. })
    ));
}

#[test]
fn a_lost_last_message_is_seen_as_a_stall() {
    let lost = load(Mischief::Drop(99), &plan(Shape::Pairs(1), 0), STALL_AFTER);
    assert_eq!(lost, Err(Fault::Stalled { messages: 1 }));
    let silent = load(Mischief::Silence(50), &plan(Shape::Pairs(1), 0), STALL_AFTER);
    assert_eq!(silent, Err(Fault::Stalled { messages: 10 }));
}

#[test]
fn a_doubled_message_is_seen() {
    assert_eq!(
        load(Mischief::Repeat(42), &plan(Shape::Pairs(1), 0), PATIENCE),
        Err(Fault::RepeatedOrReordered { publisher: 0, expected: 43, received: 42 })
    );
}

#[test]
fn two_messages_in_the_wrong_order_are_seen() {
    let delayed = load(Mischief::Delay(42), &plan(Shape::Pairs(1), 0), PATIENCE);
    assert_eq!(delayed, Err(Fault::Lost { publisher: 0, messages: 1 }));
}

#[test]
fn a_payload_of_another_length_is_seen() {
    assert_eq!(load(Mischief::Shorten(42), &plan(Shape::Pairs(1), 0), PATIENCE), Err(Fault::Malformed));
}

#[test]
fn a_connection_the_broker_ends_is_seen() {
    let plan = plan(Shape::Pairs(1), 0);
    assert_eq!(load(Mischief::Close(42), &plan, PATIENCE), Err(Fault::ConnectionClosed));
    assert_eq!(load(Mischief::Disconnect(42), &plan, PATIENCE), Err(Fault::Disconnected(0x97)));
}

#[test]
fn a_refusal_is_seen_with_its_reason_code() {
    let plan = plan(Shape::Pairs(1), 0);
    assert_eq!(load(Mischief::RefuseConnect, &plan, PATIENCE), Err(Fault::Refused(0x88)));
    assert_eq!(load(Mischief::RefuseSubscribe, &plan, PATIENCE), Err(Fault::Refused(0x87)));
}

#[test]
fn missing_and_stray_acknowledgements_are_seen() {
    let plan = plan(Shape::Pairs(1), 1);
    assert_eq!(load(Mischief::WrongAcknowledgement, &plan, PATIENCE), Err(Fault::StrayAcknowledgement(0x8001)));
    assert_eq!(load(Mischief::NoAcknowledgement, &plan, STALL_AFTER), Err(Fault::Stalled { messages: 0 }));
}
