//! Listening sockets.

use std::fs::Permissions;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, ToSocketAddrs};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use mio::{Interest, Registry, Token};
use socket2::{Domain, Protocol, SockAddr, SockRef, Socket as Raw, Type};

use crate::config::{Config, ListenAddress, Listener as Wanted, SocketDomain};
use crate::socket::Socket;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 4_096;

/// Open listening sockets of one configured listener: several where a name has several addresses.
#[derive(Debug)]
pub(crate) enum Bound {
    Tcp(TcpListener),
    Unix {
        listener: UnixListener,
        /// Its name in the file system, until that is removed.
        name: Option<PathBuf>,
    },
}

/// A listening socket as one worker watches it.
#[derive(Debug)]
pub(crate) enum Listener {
    Tcp { listener: mio::net::TcpListener, no_delay: bool },
    Unix(mio::net::UnixListener),
}

/// Opens what the configuration asks for.
pub(crate) fn bind(wanted: &Wanted) -> io::Result<Vec<Bound>> {
    match &wanted.address {
        ListenAddress::Unix(path) => Ok(vec![bind_unix(path, wanted.transport.unix_mode)?]),
        ListenAddress::Tcp { host, port } => {
            let interface = host.as_deref().filter(|host| is_interface(host));
            let host = host.as_deref().filter(|_| interface.is_none());
            let addresses = addresses(host, *port, wanted.socket_domain)?;
            let every_interface = host.is_none() && wanted.socket_domain == SocketDomain::Both;
            let mut bound = Vec::new();
            for address in addresses {
                match bind_tcp(address, every_interface, interface) {
                    Ok(listener) => bound.push(Bound::Tcp(listener)),
                    // A machine without IPv6 still has IPv4. A port in use is another matter: someone else would get the
                    // clients that come by IPv6.
                    Err(error) if every_interface && error.kind() != io::ErrorKind::AddrInUse => {
                        let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), *port);
                        bound.push(Bound::Tcp(bind_tcp(address, false, interface)?));
                    }
                    Err(error) => return Err(error),
                }
            }
            Ok(bound)
        }
    }
}

/// What can be known about it without listening: that the name has an address of this machine, and that a Unix socket can be made.
pub(crate) fn can_bind(wanted: &Wanted) -> io::Result<()> {
    match &wanted.address {
        ListenAddress::Tcp { host, port } => {
            let host = host.as_deref().filter(|host| !is_interface(host));
            for mut address in addresses(host, *port, wanted.socket_domain)? {
                // One that is not this machine's cannot be had at any port, and another port disturbs nobody.
                address.set_port(0);
                if host.is_some() {
                    Raw::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?.bind(&address.into())?;
                }
            }
            Ok(())
        }
        ListenAddress::Unix(path) => {
            if std::fs::symlink_metadata(path).is_ok_and(|found| !found.file_type().is_socket()) {
                return Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is something else than a socket here"));
            }
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
            Ok(rustix::fs::access(parent, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK)?)
        }
    }
}

/// Whether a name is that of a network interface: then connections are taken that come by it, to whatever address.
#[cfg(target_os = "linux")]
fn is_interface(name: &str) -> bool {
    // Names have no slashes, as the configuration sees to.
    name.parse::<IpAddr>().is_err() && ![".", ".."].contains(&name) && Path::new("/sys/class/net").join(name).exists()
}

/// Only Linux can listen on an interface.
#[cfg(not(target_os = "linux"))]
fn is_interface(_name: &str) -> bool {
    false
}

/// What a listening socket has: no two can share it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Claim {
    Tcp {
        address: SocketAddr,
        /// IPv6 with IPv4: only where `address` is that of every interface.
        both_versions: bool,
        /// Connections come by this interface only.
        interface: Option<String>,
    },
    Unix(PathBuf),
}

impl Claim {
    /// What a listener would have. Nothing where the system chooses, or where it is not known.
    fn all(wanted: &Wanted) -> Vec<Self> {
        match &wanted.address {
            ListenAddress::Unix(path) => {
                let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
                let name = folder.canonicalize().ok().zip(path.file_name()).map(|(folder, name)| folder.join(name));
                vec![Self::Unix(name.unwrap_or_else(|| path.clone()))]
            }
            ListenAddress::Tcp { port: 0, .. } => Vec::new(),
            ListenAddress::Tcp { host, port } => {
                let interface = host.as_deref().filter(|host| is_interface(host));
                let host = host.as_deref().filter(|_| interface.is_none());
                let both_versions = host.is_none() && wanted.socket_domain == SocketDomain::Both;
                let interface = interface.map(str::to_owned);
                // One that is not known is for those to say who look for nothing else.
                let addresses = addresses(host, *port, wanted.socket_domain).unwrap_or_default();
                let claim = |address| Self::Tcp { address, both_versions, interface: interface.clone() };
                addresses.into_iter().map(claim).collect()
            }
        }
    }

    /// What both would have.
    fn shared(&self, other: &Self) -> Option<String> {
        let (
            Self::Tcp { address: one, both_versions: one_both, interface: one_interface },
            Self::Tcp { address: two, both_versions: two_both, interface: two_interface },
        ) = (self, other)
        else {
            return match self {
                Self::Unix(path) if self == other => Some(format!("unix:{}", path.display())),
                _ => None,
            };
        };
        let interfaces_differ = one_interface.as_ref().zip(two_interface.as_ref()).is_some_and(|(one, two)| one != two);
        let covers = |wide: &SocketAddr, both: bool, narrow: &SocketAddr| {
            wide.ip().is_unspecified() && (both || wide.is_ipv6() == narrow.is_ipv6())
        };
        if one.port() != two.port() || interfaces_differ {
            return None;
        }
        match () {
            () if one == two || covers(one, *one_both, two) => Some(two.to_string()),
            () if covers(two, *two_both, one) => Some(one.to_string()),
            () => None,
        }
    }
}

/// Two listeners of a configuration that cannot both be opened, in words with their places, as far as that can be known without opening
/// them: names are looked up, and an address on all interfaces is any of them.
pub(crate) fn collision(config: &Config) -> Option<String> {
    let port = |listener: &Wanted| match listener.address {
        ListenAddress::Tcp { port, .. } => Some(port),
        ListenAddress::Unix(_) => None,
    };
    let place = |index: usize| config.listener_places.get(index).map(|places| &places.origin);
    let mut before: Vec<(usize, Vec<Claim>)> = Vec::new();
    for (index, listener) in config.listeners.iter().enumerate() {
        // Nobody is asked for a name that cannot matter.
        if config.listeners.iter().filter(|other| port(other) == port(listener)).count() < 2 {
            continue;
        }
        let claims = Claim::all(listener);
        for (other, others) in &before {
            let shared = claims.iter().find_map(|claim| others.iter().find_map(|other| claim.shared(other)));
            if let Some(shared) = shared {
                let of_one = place(index).map_or(String::new(), |origin| format!("{origin}: "));
                let of_two = place(*other).map_or(String::new(), |origin| format!(" ({origin})"));
                let (one, two) = (&listener.address, &config.listeners[*other].address);
                return Some(format!(
                    "{of_one}a listener on {one} cannot be beside the one on {two}{of_two}: both would have {shared}"
                ));
            }
        }
        before.push((index, claims));
    }
    None
}

fn addresses(host: Option<&str>, port: u16, domain: SocketDomain) -> io::Result<Vec<SocketAddr>> {
    let Some(host) = host else {
        let any = match domain {
            SocketDomain::Ipv4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            SocketDomain::Both | SocketDomain::Ipv6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        return Ok(vec![SocketAddr::new(any, port)]);
    };
    let fits = |address: &SocketAddr| match domain {
        SocketDomain::Both => true,
        SocketDomain::Ipv4 => address.is_ipv4(),
        SocketDomain::Ipv6 => address.is_ipv6(),
    };
    // One of IPv4 in the clothes of IPv6 is one of IPv4: as the other it could not be had.
    let canonical = |address: SocketAddr| match address.ip().to_canonical() {
        IpAddr::V4(ip) if address.is_ipv6() => SocketAddr::from((ip, port)),
        _ => address,
    };
    let mut found: Vec<_> = (host, port).to_socket_addrs()?.map(canonical).filter(fits).collect();
    found.sort_unstable();
    found.dedup();
    if found.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address of this kind"));
    }
    Ok(found)
}

fn bind_tcp(address: SocketAddr, both_versions: bool, interface: Option<&str>) -> io::Result<TcpListener> {
    let socket = Raw::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(!both_versions)?;
    }
    #[cfg(target_os = "linux")]
    if let Some(interface) = interface {
        socket.bind_device(Some(interface.as_bytes()))?;
    }
    #[cfg(not(target_os = "linux"))]
    let _ = interface;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// A Unix socket. One that a process left behind is replaced; anything else in its place is left alone.
fn bind_unix(path: &Path, mode: u32) -> io::Result<Bound> {
    if let Ok(found) = std::fs::symlink_metadata(path) {
        if !found.file_type().is_socket() {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is something else than a socket here"));
        }
        match std::os::unix::net::UnixStream::connect(path) {
            Ok(_) => return Err(io::Error::new(io::ErrorKind::AddrInUse, "another process listens here")),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path)?,
            // Who cannot ask cannot know that nobody is there.
            Err(error) => return Err(error),
        }
    }
    let socket = Raw::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::unix(path)?)?;
    // From here on it is removed again if something fails.
    let bound = Bound::Unix { listener: socket.into(), name: Some(path.to_owned()) };
    // Nobody can connect before it listens, so nobody gets in before the permissions are set.
    std::fs::set_permissions(path, Permissions::from_mode(mode))?;
    if let Bound::Unix { listener, .. } = &bound {
        SockRef::from(listener).listen(BACKLOG)?;
    }
    Ok(bound)
}

impl Bound {
    /// The same socket for one worker more.
    pub(crate) fn for_worker(&self, no_delay: bool) -> io::Result<Listener> {
        Ok(match self {
            Self::Tcp(listener) => {
                Listener::Tcp { listener: mio::net::TcpListener::from_std(listener.try_clone()?), no_delay }
            }
            Self::Unix { listener, .. } => Listener::Unix(mio::net::UnixListener::from_std(listener.try_clone()?)),
        })
    }

    /// Where it listens, to be said at the start.
    pub(crate) fn local_address(&self) -> String {
        match self {
            Self::Tcp(listener) => listener.local_addr().map_or_else(|_| "unknown".to_owned(), |at| at.to_string()),
            Self::Unix { .. } => {
                self.unix_path().map_or_else(|| "unix".to_owned(), |path| format!("unix:{}", path.display()))
            }
        }
    }

    /// The path of a Unix socket.
    pub(crate) fn unix_path(&self) -> Option<PathBuf> {
        match self {
            Self::Tcp(_) => None,
            Self::Unix { name, .. } => name.clone(),
        }
    }

    /// Takes the name of a Unix socket out of the file system, once, and says what has come of it.
    pub(crate) fn remove(&mut self) -> Option<(PathBuf, io::Result<()>)> {
        let Self::Unix { name, .. } = self else { return None };
        let name = name.take()?;
        let removed = std::fs::remove_file(&name);
        Some((name, removed))
    }

    /// The TCP port, where there is one.
    pub(crate) fn port(&self) -> Option<u16> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok().map(|address| address.port()),
            Self::Unix { .. } => None,
        }
    }
}

impl Drop for Bound {
    /// A Unix socket does not stay behind in the file system.
    fn drop(&mut self) {
        // What is gone already need not be removed.
        drop(self.remove());
    }
}

impl Listener {
    pub(crate) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        match self {
            Self::Tcp { listener, .. } => registry.register(listener, token, Interest::READABLE),
            Self::Unix(listener) => registry.register(listener, token, Interest::READABLE),
        }
    }

    pub(crate) fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        match self {
            Self::Tcp { listener, .. } => registry.deregister(listener),
            Self::Unix(listener) => registry.deregister(listener),
        }
    }

    /// The socket, and where the client is; None for a Unix socket.
    pub(crate) fn accept(&self) -> io::Result<(Socket, Option<SocketAddr>)> {
        match self {
            Self::Tcp { listener, no_delay } => {
                let (stream, address) = listener.accept()?;
                if *no_delay {
                    // It fails only on a connection that is gone already, as the first read will tell.
                    drop(stream.set_nodelay(true));
                }
                // A listener for both versions of IP shows IPv4 addresses in the clothes of IPv6.
                let address = SocketAddr::new(address.ip().to_canonical(), address.port());
                Ok((Socket::Tcp(stream), Some(address)))
            }
            Self::Unix(listener) => Ok((Socket::Unix(listener.accept()?.0), None)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Environment, Overrides};

    fn collision_of(text: &str) -> Option<String> {
        let file = Some((Path::new("c.conf"), text));
        let config = Config::of_text(file, &Overrides::default(), &Environment::default());
        collision(&config.expect("a configuration"))
    }

    /// They were found sound, and the second one could not be opened at the start.
    #[test]
    fn listeners_that_cannot_be_beside_each_other() {
        for (first, second, shared) in [
            ("1883", "1883 127.0.0.1", "127.0.0.1:1883"),
            ("1883 127.0.0.1", "1883", "127.0.0.1:1883"),
            ("1883", "1883 ::1", "[::1]:1883"),
            ("1883", "1883 0.0.0.0", "0.0.0.0:1883"),
            ("1883 0.0.0.0", "1883 192.0.2.1", "192.0.2.1:1883"),
            ("1883 ::", "1883 ::1", "[::1]:1883"),
            ("1883 127.0.0.1", "1883 localhost", "127.0.0.1:1883"),
            ("1883 127.0.0.1", "1883 ::ffff:127.0.0.1", "127.0.0.1:1883"),
            ("0 /tmp/a.sock", "0 /tmp/../tmp/a.sock", "unix:/tmp/a.sock"),
            #[cfg(target_os = "linux")]
            ("1883 lo", "1883 127.0.0.1", "127.0.0.1:1883"),
            #[cfg(target_os = "linux")]
            ("1883", "1883 lo", "[::]:1883"),
        ] {
            let found = collision_of(&format!("listener {first}\nlistener 7 127.0.0.1\nlistener {second}\n"));
            let found = found.unwrap_or_else(|| panic!("{first} and {second} are beside each other"));
            assert!(found.starts_with("c.conf:3: a listener on ") && found.contains("(c.conf:1): "), "{found}");
            assert!(found.ends_with(&format!("both would have {shared}")), "{found}");
        }
        for text in [
            "listener 1883\nlistener 1884\n",
            "listener 1883 127.0.0.1\nlistener 1883 ::1\n",
            "listener 1883 127.0.0.1\nlistener 1883 127.0.0.2\n",
            "listener 1883 0.0.0.0\nlistener 1883 ::\n",
            "listener 1883\nsocket_domain ipv4\nlistener 1883\nsocket_domain ipv6\n",
            "listener 0 /tmp/a.sock\nlistener 0 /tmp/b.sock\n",
            // A name that nobody knows is another mistake.
            "listener 1883\nlistener 1883 no.such.invalid\n",
        ] {
            assert_eq!(collision_of(text), None, "{text}");
        }
    }

    #[test]
    fn an_interface_is_not_another_one() {
        let claim = |interface: Option<&str>| Claim::Tcp {
            address: SocketAddr::from((Ipv6Addr::UNSPECIFIED, 1)),
            both_versions: true,
            interface: interface.map(str::to_owned),
        };
        assert_eq!(claim(Some("a")).shared(&claim(Some("b"))), None);
        for (one, two) in [(Some("a"), Some("a")), (Some("a"), None), (None, None)] {
            assert!(claim(one).shared(&claim(two)).is_some(), "{one:?} {two:?}");
        }
    }

    /// It could not be opened as one of IPv6 without IPv4.
    #[test]
    fn a_mapped_address_is_that_of_ipv4() {
        let found = addresses(Some("::ffff:127.0.0.1"), 1, SocketDomain::Both).unwrap();
        assert_eq!(found, [SocketAddr::from((Ipv4Addr::LOCALHOST, 1))]);
        assert!(addresses(Some("::ffff:127.0.0.1"), 1, SocketDomain::Ipv6).is_err());
    }
}
