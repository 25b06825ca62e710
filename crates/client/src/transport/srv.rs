//! Hosts of a service, as its domain names them by SRV records (RFC 2782).

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};

use super::dns::{self, AnswerError, Srv};

/// Where the system says which name servers there are.
const RESOLV_CONF: &str = "/etc/resolv.conf";
const DNS_PORT: u16 = 53;
/// Name servers of a list that are asked; the others are left out, as the system's resolver does.
const NAME_SERVERS_MAX: usize = 3;
/// Each is asked so many times.
const ROUNDS: usize = 2;
/// How long an answer may take, by UDP and by TCP.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// Why no hosts were found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SrvError {
    /// It cannot be asked for.
    #[error("{0} is no name of the DNS")]
    Name(String),
    /// There are none.
    #[error("the domain has no SRV records {0}")]
    None(String),
    /// The domain says that it does not have the service.
    #[error("the domain says by {0} that it has no such service")]
    NoService(String),
    /// No name server answered; the last one's trouble.
    #[error("no name server answered for {name}: {error}")]
    Unanswered {
        /// What was asked for.
        name: String,
        /// What went wrong last.
        error: io::Error,
    },
}

/// The name whose SRV records name the brokers of a domain.
pub(super) fn service_name(domain: &str, tls: bool) -> String {
    let service = if tls { "_secure-mqtt" } else { "_mqtt" };
    format!("{service}._tcp.{domain}")
}

/// Asks `name_servers`, or those of the system if there are none, one after the other; the hosts and ports that were
/// found are in the order in which they are to be tried. Takes 12 s at most with three servers that do not answer.
pub(super) async fn hosts(name: &str, name_servers: &[SocketAddr]) -> Result<Vec<(String, u16)>, SrvError> {
    let of_system;
    let name_servers = if name_servers.is_empty() {
        of_system = system_name_servers(Path::new(RESOLV_CONF));
        &of_system
    } else {
        name_servers
    };
    let mut last = io::ErrorKind::NotFound.into();
    for _ in 0..ROUNDS {
        for server in name_servers.iter().take(NAME_SERVERS_MAX) {
            match ask(name, *server).await {
                Ok(None) => return Err(SrvError::Name(name.to_owned())),
                Ok(Some(found)) if found.is_empty() => return Err(SrvError::None(name.to_owned())),
                Ok(Some(found)) => {
                    let hosts: Vec<_> = in_order(found, random)
                        .into_iter()
                        .filter(|srv| !srv.target.is_empty())
                        .map(|srv| (srv.target, srv.port))
                        .collect();
                    return if hosts.is_empty() { Err(SrvError::NoService(name.to_owned())) } else { Ok(hosts) };
                }
                Err(error) => last = error,
            }
        }
    }
    Err(SrvError::Unanswered { name: name.to_owned(), error: last })
}

/// None if `name` cannot be asked for.
async fn ask(name: &str, server: SocketAddr) -> io::Result<Option<Vec<Srv>>> {
    let id = u16::try_from(random(u32::from(u16::MAX))).unwrap_or_default();
    let Some(question) = dns::question(id, name) else { return Ok(None) };
    let timed_out = |_| io::Error::from(io::ErrorKind::TimedOut);
    let by_udp = tokio::time::timeout(ANSWER_TIMEOUT, ask_by_udp(&question, id, name, server));
    let answer = match by_udp.await.map_err(timed_out)?? {
        Err(AnswerError::Truncated) => {
            let by_tcp = tokio::time::timeout(ANSWER_TIMEOUT, ask_by_tcp(&question, id, name, server));
            by_tcp.await.map_err(timed_out)??
        }
        answer => answer,
    };
    answer.map(Some).map_err(io::Error::other)
}

type Answer = Result<Vec<Srv>, AnswerError>;

async fn ask_by_udp(question: &[u8], id: u16, name: &str, server: SocketAddr) -> io::Result<Answer> {
    let any: SocketAddr = if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }.parse().map_err(io::Error::other)?;
    let socket = UdpSocket::bind(any).await?;
    // So that only its datagrams come, and its refusals.
    socket.connect(server).await?;
    socket.send(question).await?;
    let mut bytes = vec![0; usize::from(dns::UDP_BYTES_MAX)];
    loop {
        let count = socket.recv(&mut bytes).await?;
        match dns::answer(&bytes[..count], id, name) {
            // Whoever guesses may send anything; the true answer may be behind it.
            Err(AnswerError::Other | AnswerError::Malformed) => {}
            answer => return Ok(answer),
        }
    }
}

async fn ask_by_tcp(question: &[u8], id: u16, name: &str, server: SocketAddr) -> io::Result<Answer> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(question.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes()[..], question].concat()).await?;
    let mut bytes = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut bytes).await?;
    Ok(dns::answer(&bytes, id, name))
}

/// The lines `nameserver` of a resolv.conf; without any, this machine's own.
fn system_name_servers(resolv_conf: &Path) -> Vec<SocketAddr> {
    let text = std::fs::read_to_string(resolv_conf).unwrap_or_default();
    let servers: Vec<SocketAddr> = name_servers(&text).collect();
    if servers.is_empty() { vec![(Ipv4Addr::LOCALHOST, DNS_PORT).into()] } else { servers }
}

fn name_servers(resolv_conf: &str) -> impl Iterator<Item = SocketAddr> {
    resolv_conf.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let address = words.next().filter(|word| *word == "nameserver").and_then(|_| words.next())?;
        // With a port an address of the link can have its interface (`fe80::1%2`).
        let address: IpAddr = match address.split_once('%') {
            None => address.parse().ok()?,
            Some((address, scope)) => {
                return format!("[{address}%{scope}]:{DNS_PORT}").parse().ok();
            }
        };
        Some((address, DNS_PORT).into())
    })
}

/// In the order of RFC 2782: by priority, and among those of one by chance, in proportion to their weights. `random` gives a
/// number from 0 to its argument.
fn in_order(mut records: Vec<Srv>, mut random: impl FnMut(u32) -> u32) -> Vec<Srv> {
    // Those without weight stand first, so that they have a small chance.
    records.sort_by_key(|srv| (srv.priority, srv.weight));
    let mut ordered = Vec::with_capacity(records.len());
    while let Some(priority) = records.first().map(|srv| srv.priority) {
        let count = records.iter().take_while(|srv| srv.priority == priority).count();
        let total: u32 = records[..count].iter().map(|srv| u32::from(srv.weight)).sum();
        let chosen = random(total);
        let mut sum = 0;
        let at = records[..count].iter().position(|srv| {
            sum += u32::from(srv.weight);
            sum >= chosen
        });
        ordered.push(records.remove(at.unwrap_or(0)));
    }
    ordered
}

/// A number from 0 to `maximum`.
fn random(maximum: u32) -> u32 {
    // Without randomness the heaviest goes first.
    let number = getrandom::u32().unwrap_or(u32::MAX);
    if maximum == u32::MAX { number } else { number % (maximum + 1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn srv(priority: u16, weight: u16, target: &str) -> Srv {
        Srv { priority, weight, port: 1883, target: target.to_owned() }
    }

    fn targets(records: &[Srv]) -> Vec<&str> {
        records.iter().map(|srv| srv.target.as_str()).collect()
    }

    #[test]
    fn priorities_go_first_and_weights_by_chance() {
        let records = vec![srv(2, 0, "d"), srv(1, 10, "b"), srv(1, 0, "a"), srv(1, 30, "c")];
        assert_eq!(targets(&in_order(records.clone(), |_| 0)), ["a", "b", "c", "d"]);
        assert_eq!(targets(&in_order(records.clone(), |maximum| maximum)), ["c", "b", "a", "d"]);
        assert_eq!(targets(&in_order(records.clone(), |maximum| maximum.min(1))), ["b", "c", "a", "d"]);
        // In three of four cases the heavier one goes before the other.
        let first = (0..=40).filter(|chance| {
            let mut chances = [*chance].into_iter();
            let ordered = in_order(records.clone(), |maximum| chances.next().unwrap_or(maximum));
            targets(&ordered)[0] == "c"
        });
        assert_eq!(first.count(), 30);
        assert!(in_order(Vec::new(), |_| 0).is_empty());
    }

    #[test]
    fn name_servers_are_those_of_resolv_conf() {
        let text = "# nameserver 9.9.9.9\nsearch a b\nnameserver 10.0.0.1\n nameserver\t::1 # mine\nnameserver x\nnameserver fe80::1%3\n";
        let found: Vec<String> = name_servers(text).map(|address| address.to_string()).collect();
        assert_eq!(found, ["10.0.0.1:53", "[::1]:53", "[fe80::1%3]:53"]);
        assert_eq!(system_name_servers(Path::new("/nonexistent")), ["127.0.0.1:53".parse().unwrap()]);
    }

    #[test]
    fn services_have_their_names() {
        assert_eq!(service_name("example.org", false), "_mqtt._tcp.example.org");
        assert_eq!(service_name("example.org", true), "_secure-mqtt._tcp.example.org");
    }
}
