//! A wire that tells which Control Packets the broker has sent: so a test knows that a client is connected or subscribed,
//! whatever the client prints.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use pantala_proto::frame;

use crate::bench::wait_for;

pub const PUBACK: u8 = 4;
pub const PUBREL: u8 = 6;
pub const SUBACK: u8 = 9;
pub const UNSUBACK: u8 = 11;
const PACKET_BYTES_MAX: u32 = 268_435_455;

/// Accepts connections on a port of its own and passes all on to the broker, until it is dropped.
pub struct Relay {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// Types of the packets that came from the broker.
    seen: Mutex<Vec<u8>>,
    over: AtomicBool,
}

impl Relay {
    pub fn new(broker: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let for_thread = shared.clone();
        thread::spawn(move || {
            for client in listener.incoming() {
                if for_thread.over.load(Ordering::SeqCst) {
                    return;
                }
                // A broker that is not there is a connection that ends at once.
                let (Ok(client), Ok(broker)) = (client, TcpStream::connect(broker)) else { continue };
                let (client_reads, broker_reads) = (client.try_clone().unwrap(), broker.try_clone().unwrap());
                thread::spawn(move || pass(client_reads, broker, |_| {}));
                let shared = for_thread.clone();
                thread::spawn(move || {
                    let mut pending = Vec::new();
                    pass(broker_reads, client, |bytes| {
                        pending.extend_from_slice(bytes);
                        while let Ok(frame::Split::Frame(packet)) = frame::split(&pending, PACKET_BYTES_MAX) {
                            shared.seen.lock().unwrap().push(packet.first_byte >> 4);
                            let bytes = packet.packet_bytes;
                            pending.drain(..bytes);
                        }
                    });
                });
            }
        });
        Self { address, shared }
    }

    /// Waits until the broker has sent a packet of this type.
    pub fn wait_for(&self, packet_type: u8) {
        wait_for(&format!("a packet of type {packet_type}"), || {
            self.shared.seen.lock().unwrap().contains(&packet_type).then_some(())
        });
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts.
        drop(TcpStream::connect(self.address));
    }
}

/// Passes bytes on until one end closes, then closes the other. They are looked at after they went on: what a test does
/// then comes later than what the peer has got.
fn pass(mut from: TcpStream, mut to: TcpStream, mut look: impl FnMut(&[u8])) {
    let mut bytes = [0; 16 << 10];
    while let Ok(count) = from.read(&mut bytes) {
        if count == 0 || to.write_all(&bytes[..count]).is_err() {
            break;
        }
        look(&bytes[..count]);
    }
    // The other end may be gone.
    drop(to.shutdown(Shutdown::Both));
    drop(from.shutdown(Shutdown::Both));
}
