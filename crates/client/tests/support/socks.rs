//! A SOCKS5 proxy on loopback (RFC 1928, RFC 1929) that leads to one place, whatever it is asked for, and remembers what that was.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

const NONE: u8 = 0;
const USER_AND_PASSWORD: u8 = 2;
const NONE_ACCEPTABLE: u8 = 0xff;

/// The destination of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    Name(String, u16),
    Address(SocketAddr),
}

/// Ends with the test.
pub struct SocksServer {
    pub address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl SocksServer {
    /// Leads to `target`; with credentials it takes nobody without them. `None` leads nowhere: the host cannot be reached.
    pub fn start(target: Option<SocketAddr>, credentials: Option<(&str, &str)>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port of 127.0.0.1 is free");
        let address = listener.local_addr().expect("a listener has an address");
        let asked = Arc::new(Mutex::new(Vec::new()));
        let credentials = credentials.map(|(user_name, password)| (user_name.to_owned(), password.to_owned()));
        let for_thread = asked.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (asked, credentials) = (for_thread.clone(), credentials.clone());
                // One that goes away in the middle is the test's own doing.
                thread::spawn(move || drop(serve(stream, target, credentials.as_ref(), &asked)));
            }
        });
        Self { address, asked }
    }

    /// What was asked for so far, by those who were let in.
    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().expect("nobody panics with it").clone()
    }
}

fn serve(
    mut client: TcpStream,
    target: Option<SocketAddr>,
    credentials: Option<&(String, String)>,
    asked: &Mutex<Vec<Asked>>,
) -> io::Result<()> {
    let [version, methods] = read(&mut client)?;
    assert_eq!(version, 5);
    let offered = read_some(&mut client, methods)?;
    let method = if credentials.is_some() { USER_AND_PASSWORD } else { NONE };
    let agreed = offered.contains(&method);
    client.write_all(&[5, if agreed { method } else { NONE_ACCEPTABLE }])?;
    if !agreed {
        return Ok(());
    }
    if let Some((user_name, password)) = credentials {
        let [version, length] = read(&mut client)?;
        assert_eq!(version, 1);
        let given_name = read_some(&mut client, length)?;
        let [length] = read(&mut client)?;
        let given_password = read_some(&mut client, length)?;
        let known = given_name == user_name.as_bytes() && given_password == password.as_bytes();
        client.write_all(&[1, u8::from(!known)])?;
        if !known {
            return Ok(());
        }
    }
    let [version, command, reserved, kind] = read(&mut client)?;
    assert_eq!((version, command, reserved), (5, 1, 0));
    let destination = match kind {
        1 => Asked::Address((Ipv4Addr::from(read::<4>(&mut client)?), read_port(&mut client)?).into()),
        4 => Asked::Address((Ipv6Addr::from(read::<16>(&mut client)?), read_port(&mut client)?).into()),
        3 => {
            let [length] = read(&mut client)?;
            let name = read_some(&mut client, length)?;
            Asked::Name(String::from_utf8_lossy(&name).into_owned(), read_port(&mut client)?)
        }
        other => panic!("kind of address {other}"),
    };
    asked.lock().expect("nobody panics with it").push(destination);
    let Some(broker) = target.and_then(|target| TcpStream::connect(target).ok()) else {
        return client.write_all(&[5, 4, 0, 1, 0, 0, 0, 0, 0, 0]);
    };
    // Where it connected from, by a name, which few proxies send.
    client.write_all(&[5, 0, 0, 3, 5, b'p', b'r', b'o', b'x', b'y', 0, 80])?;
    let (client_reads, broker_reads) = (client.try_clone()?, broker.try_clone()?);
    thread::spawn(move || pass(client_reads, broker));
    pass(broker_reads, client);
    Ok(())
}

fn pass(mut from: TcpStream, mut to: TcpStream) {
    // However one ends, so does the other.
    drop(io::copy(&mut from, &mut to));
    drop(to.shutdown(Shutdown::Both));
    drop(from.shutdown(Shutdown::Both));
}

fn read<const N: usize>(stream: &mut TcpStream) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn read_some(stream: &mut TcpStream, length: u8) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; length.into()];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn read_port(stream: &mut TcpStream) -> io::Result<u16> {
    read(stream).map(u16::from_be_bytes)
}
