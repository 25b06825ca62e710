//! Listening sockets.

use std::fs::Permissions;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, ToSocketAddrs};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use mio::{Interest, Registry, Token};
use socket2::{Domain, Protocol, SockAddr, SockRef, Socket as Raw, Type};

use crate::config::{ListenAddress, Listener as Wanted, SocketDomain};
use crate::socket::Socket;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 4_096;

/// Open listening sockets of one configured listener: several where a name has several addresses.
#[derive(Debug)]
pub(crate) enum Bound {
    Tcp(TcpListener),
    Unix(UnixListener),
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
    let mut found: Vec<_> = (host, port).to_socket_addrs()?.filter(fits).collect();
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
    let bound = Bound::Unix(socket.into());
    // Nobody can connect before it listens, so nobody gets in before the permissions are set.
    std::fs::set_permissions(path, Permissions::from_mode(mode))?;
    if let Bound::Unix(listener) = &bound {
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
            Self::Unix(listener) => Listener::Unix(mio::net::UnixListener::from_std(listener.try_clone()?)),
        })
    }

    /// Where it listens, to be said at the start.
    pub(crate) fn local_address(&self) -> String {
        match self {
            Self::Tcp(listener) => listener.local_addr().map_or_else(|_| "unknown".to_owned(), |at| at.to_string()),
            Self::Unix(listener) => {
                let address = listener.local_addr().ok();
                let path = address.as_ref().and_then(|address| address.as_pathname());
                path.map_or_else(|| "unix".to_owned(), |path| format!("unix:{}", path.display()))
            }
        }
    }

    /// The path of a Unix socket.
    pub(crate) fn unix_path(&self) -> Option<PathBuf> {
        match self {
            Self::Tcp(_) => None,
            Self::Unix(listener) => listener.local_addr().ok()?.as_pathname().map(Path::to_owned),
        }
    }

    /// The TCP port, where there is one.
    pub(crate) fn port(&self) -> Option<u16> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok().map(|address| address.port()),
            Self::Unix(_) => None,
        }
    }
}

impl Drop for Bound {
    /// A Unix socket does not stay behind in the file system.
    fn drop(&mut self) {
        if let Self::Unix(listener) = self
            && let Some(path) = listener.local_addr().ok().as_ref().and_then(|address| address.as_pathname())
        {
            // What is gone already need not be removed.
            drop(std::fs::remove_file(path));
        }
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
