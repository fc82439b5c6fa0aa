//! Opening the ports, before the program gives up its rights.

use std::fmt;
use std::fs::{self, Permissions};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use onionring_proto::torrc::port::{ClientKind, ClientPlace, ClientPort};
use socket2::{Domain, Protocol, Type};
use thiserror::Error;

use super::{Config, Rules, TransProxyType};

/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;

/// Why a port cannot be opened.
#[derive(Debug, Error)]
pub enum BindError {
    /// The system does not let us.
    #[error("cannot open {option} {place}: {source}")]
    Socket {
        /// The option.
        option: &'static str,
        /// Where.
        place: Place,
        /// What the system says.
        source: io::Error,
    },
    /// The system has no connections that are redirected.
    #[error("TransPort is only possible on Linux; remove it, or use SocksPort")]
    NoTransparent,
    /// TPROXY needs a right.
    #[error(
        "TransPort {address} with TransProxyType TPROXY: {source}; start the program as root or with CAP_NET_ADMIN"
    )]
    Tproxy {
        /// Where.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// The directory of a socket file is not ours alone.
    #[error(
        "the directory of the socket file {} must belong to the user of this program and be closed to others{} (it has \
         user {owner} and mode {mode:03o}): on some systems, whoever can list a socket can connect to it. Use chown and \
         chmod, or WorldWritable if everybody may connect", path.display(), if *group { " but the group" } else { "" }
    )]
    Directory {
        /// The socket file.
        path: PathBuf,
        /// User that the directory belongs to.
        owner: u32,
        /// Its permissions.
        mode: u32,
        /// Whether the group may read it.
        group: bool,
    },
    /// Something else lies where the socket file should be.
    #[error("{} is there already and is no socket; remove it, or choose another path", .0.display())]
    NotASocket(PathBuf),
    /// Somebody listens there.
    #[error("{} is in use by another program; stop that one, or choose another path", .0.display())]
    InUse(PathBuf),
}

/// Where a port is, once it is open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// An address.
    Address(SocketAddr),
    /// A socket file.
    File(PathBuf),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Address(address) => address.fmt(f),
            Place::File(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A listener for connections.
#[derive(Debug)]
pub(super) enum StdListener {
    Tcp(std::net::TcpListener),
    Unix(UnixListener, SocketFile),
}

/// A listener of the runtime.
#[derive(Debug)]
pub(super) enum Listener {
    Tcp(tokio::net::TcpListener),
    Unix {
        listener: tokio::net::UnixListener,
        /// Only to be removed with it.
        _file: SocketFile,
    },
}

impl StdListener {
    pub(super) fn into_tokio(self) -> io::Result<Listener> {
        Ok(match self {
            StdListener::Tcp(listener) => Listener::Tcp(tokio::net::TcpListener::from_std(listener)?),
            StdListener::Unix(listener, file) => {
                let listener = tokio::net::UnixListener::from_std(listener)?;
                Listener::Unix { listener, _file: file }
            }
        })
    }
}

/// A socket file, which is removed with the value.
#[derive(Debug)]
pub(super) struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // With fewer rights than when it was made, it stays, and the next start removes it.
        let _ = fs::remove_file(&self.0);
    }
}

/// An open port.
#[derive(Debug)]
pub(super) enum Socket {
    Stream(StdListener),
    Udp(std::net::UdpSocket),
}

/// Ports that are open, and not yet answered on.
#[derive(Debug)]
pub struct Bound {
    pub(super) sockets: Vec<(ClientPort, Socket)>,
    pub(super) rules: Rules,
    pub(super) transparent: TransProxyType,
}

impl Bound {
    /// What is open, and where: `auto` has become a number.
    pub fn places(&self) -> impl Iterator<Item = (ClientKind, Place)> + '_ {
        self.sockets.iter().map(|(port, socket)| {
            let address = match socket {
                Socket::Udp(socket) => socket.local_addr(),
                Socket::Stream(StdListener::Tcp(listener)) => listener.local_addr(),
                Socket::Stream(StdListener::Unix(_, file)) => {
                    return (port.kind, Place::File(file.0.clone()));
                }
            };
            (port.kind, address.map_or_else(|_| asked_for(port), Place::Address))
        })
    }
}

fn asked_for(port: &ClientPort) -> Place {
    match &port.place {
        ClientPlace::Address(address) => Place::Address(*address),
        ClientPlace::File(path) => Place::File(path.into()),
    }
}

/// Opens all ports, or none.
pub fn bind(config: &Config) -> Result<Bound, BindError> {
    let open = |port: &ClientPort| Ok((port.clone(), open(port, config)?));
    let sockets = config.ports.iter().map(open).collect::<Result<_, BindError>>()?;
    Ok(Bound { sockets, rules: config.rules.clone(), transparent: config.transparent })
}

fn open(port: &ClientPort, config: &Config) -> Result<Socket, BindError> {
    let failed = |source| BindError::Socket { option: port.kind.option(), place: asked_for(port), source };
    match (&port.place, port.kind) {
        (ClientPlace::File(path), _) => unix(Path::new(path), port, config.user).map(Socket::Stream),
        (ClientPlace::Address(address), ClientKind::Dns) => {
            let socket = new_socket(*address, Type::DGRAM, Protocol::UDP).map_err(failed)?;
            socket.bind(&(*address).into()).map_err(failed)?;
            Ok(Socket::Udp(socket.into()))
        }
        (ClientPlace::Address(address), kind) => {
            let socket = new_socket(*address, Type::STREAM, Protocol::TCP).map_err(failed)?;
            socket.set_reuse_address(true).map_err(failed)?;
            if kind == ClientKind::Transparent {
                if !cfg!(target_os = "linux") {
                    return Err(BindError::NoTransparent);
                }
                if config.transparent == TransProxyType::Tproxy {
                    set_transparent(&socket)
                        .map_err(|source| BindError::Tproxy { address: *address, source })?;
                }
            }
            socket.bind(&(*address).into()).map_err(failed)?;
            socket.listen(BACKLOG).map_err(failed)?;
            Ok(Socket::Stream(StdListener::Tcp(socket.into())))
        }
    }
}

fn new_socket(address: SocketAddr, kind: Type, protocol: Protocol) -> io::Result<socket2::Socket> {
    let socket = socket2::Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    socket.set_nonblocking(true)?;
    if address.is_ipv6() {
        // Another line may ask for the same port of IPv4.
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}

/// Lets the socket accept connections to any address.
#[cfg(target_os = "linux")]
fn set_transparent(socket: &socket2::Socket) -> io::Result<()> {
    socket.set_ip_transparent_v4(true)
}

#[cfg(not(target_os = "linux"))]
fn set_transparent(_socket: &socket2::Socket) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// A socket file, as C tor makes them: in a directory of our own, and open to whom the flags say.
fn unix(path: &Path, port: &ClientPort, user: Option<(u32, u32)>) -> Result<StdListener, BindError> {
    let failed = |source| BindError::Socket {
        option: port.kind.option(),
        place: Place::File(path.to_owned()),
        source,
    };
    if !port.world_writable {
        check_directory(path, port, user, failed)?;
    }
    remove_stale(path, failed)?;
    let listener = UnixListener::bind(path).map_err(failed)?;
    let file = SocketFile(path.to_owned());
    listener.set_nonblocking(true).map_err(failed)?;
    if let Some((user, group)) = user {
        chown(path, Some(user), Some(group)).map_err(failed)?;
    }
    let mode = match (port.world_writable, port.group_writable) {
        (true, _) => 0o666,
        (false, true) => 0o660,
        (false, false) => 0o600,
    };
    fs::set_permissions(path, Permissions::from_mode(mode)).map_err(failed)?;
    Ok(StdListener::Unix(listener, file))
}

/// The directory must be ours, and closed to all but those who may connect.
fn check_directory(
    path: &Path,
    port: &ClientPort,
    user: Option<(u32, u32)>,
    failed: impl Fn(io::Error) -> BindError,
) -> Result<(), BindError> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    let found = fs::symlink_metadata(directory).map_err(&failed)?;
    if !found.is_dir() {
        return Err(failed(io::ErrorKind::NotADirectory.into()));
    }
    let unwanted = if port.group_writable { 0o027 } else { 0o077 };
    let looked_at = if port.relax_dir_mode_check { 0o022 } else { 0o777 };
    let ours = rustix::process::geteuid().as_raw();
    let is_ours = found.uid() == ours || user.is_some_and(|(user, _)| found.uid() == user);
    let mode = found.mode() & 0o777;
    if is_ours && mode & unwanted & looked_at == 0 {
        return Ok(());
    }
    Err(BindError::Directory { path: path.to_owned(), owner: found.uid(), mode, group: port.group_writable })
}

/// Removes the socket file of a program that is gone.
fn remove_stale(path: &Path, failed: impl Fn(io::Error) -> BindError) -> Result<(), BindError> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
        Ok(found) if !found.file_type().is_socket() => return Err(BindError::NotASocket(path.to_owned())),
        Ok(_) => {}
    }
    if UnixStream::connect(path).is_ok() {
        return Err(BindError::InUse(path.to_owned()));
    }
    fs::remove_file(path).map_err(failed)
}
