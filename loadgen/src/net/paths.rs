//! Explicit paths: which relays a stock client's stream goes over, chosen path by path while the client runs.

use std::collections::BTreeMap;
use std::io;
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::control::{Control, ControlError};
use super::node::Node;
use crate::traffic::Socks;

/// How long a circuit may take to be built.
const BUILD_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the thread that attaches streams waits for an event before it waits again.
const EVENT_WAIT: Duration = Duration::from_secs(3600);

/// Takes over from a client which circuit each of its streams uses: those opened with a [`Path`]'s SOCKS client go
/// over that path, all others are left to the client. At most one per client at a time.
#[derive(Debug)]
pub struct Paths {
    control: Mutex<Control>,
    circuits: Arc<Mutex<Circuits>>,
    socks: Socks,
    events: TcpStream,
    attacher: Option<JoinHandle<()>>,
}

/// SOCKS user name to circuit number.
type Circuits = BTreeMap<String, u32>;

/// A built circuit for one's own streams; closed when dropped.
#[derive(Debug)]
pub struct Path<'p> {
    paths: &'p Paths,
    id: u32,
    user: String,
}

impl Paths {
    /// Takes over the stream attachment of `client`, a stock tor.
    pub fn of(client: &Node) -> Result<Paths, ControlError> {
        let mut control = client.control()?;
        control.set_conf("__LeaveStreamsUnattached", "1")?;
        let mut listener = client.control()?;
        listener.set_events(&["STREAM"])?;
        let events = listener.stream()?;
        let circuits = Arc::new(Mutex::new(Circuits::new()));
        let known = Arc::clone(&circuits);
        let attacher =
            thread::Builder::new().name("attach".into()).spawn(move || attach(listener, &known))?;
        let socks = client.socks()?;
        Ok(Paths { control: Mutex::new(control), circuits, socks, events, attacher: Some(attacher) })
    }

    /// Builds a circuit over exactly these relays, the first hop first, and waits until it is built.
    pub fn build(&self, hops: &[&Node]) -> Result<Path<'_>, ControlError> {
        let fingerprints: Vec<&str> = hops.iter().map(|hop| hop.fingerprint()).collect();
        let mut control = lock(&self.control);
        let id = control.extend_circuit(&fingerprints)?;
        let path = Path { paths: self, id, user: format!("path{id}") };
        lock(&self.circuits).insert(path.user.clone(), id);
        let built = control.wait_built(id, BUILD_TIMEOUT);
        drop(control); // which dropping the path needs
        built.map(|_| path)
    }

    /// The control connection, for whatever else is wanted of the client.
    pub fn control(&self) -> MutexGuard<'_, Control> {
        lock(&self.control)
    }
}

impl Drop for Paths {
    fn drop(&mut self) {
        let _ = lock(&self.control).set_conf("__LeaveStreamsUnattached", "0");
        let _ = self.events.shutdown(Shutdown::Both);
        if let Some(attacher) = self.attacher.take() {
            let _ = attacher.join();
        }
    }
}

impl Path<'_> {
    /// The client's number for the circuit.
    pub fn circuit(&self) -> u32 {
        self.id
    }

    /// A SOCKS client whose streams go over this path.
    pub fn socks(&self) -> Socks {
        self.paths.socks.clone().with_user(&self.user)
    }
}

impl Drop for Path<'_> {
    fn drop(&mut self) {
        lock(&self.paths.circuits).remove(&self.user);
        let _ = lock(&self.paths.control).close_circuit(self.id);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Attaches each new stream, until the connection ends.
fn attach(mut control: Control, circuits: &Mutex<Circuits>) {
    while let Ok(event) = control.next_event(EVENT_WAIT) {
        let Some(stream) = event.as_deref().and_then(unattached) else { continue };
        let circuit = stream.user.and_then(|user| lock(circuits).get(user).copied());
        match control.attach_stream(stream.id, circuit.unwrap_or(0)) {
            // The stream may be gone, or be one that tor attaches by itself.
            Ok(()) | Err(ControlError::Refused { .. }) => {}
            Err(ControlError::Io(e)) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

struct Unattached<'e> {
    id: u32,
    user: Option<&'e str>,
}

/// Reads `STREAM 5 NEW 0 host:80 PURPOSE=USER SOCKS_USERNAME="path7" ...`.
fn unattached(event: &str) -> Option<Unattached<'_>> {
    let rest = event.strip_prefix("STREAM ")?;
    let mut words = rest.split(' ');
    let id = words.next()?.parse().ok()?;
    let state = words.next()?;
    if !matches!(state, "NEW" | "NEWRESOLVE" | "DETACHED") {
        return None;
    }
    let user = words.find_map(|word| word.strip_prefix("SOCKS_USERNAME=")).map(|user| user.trim_matches('"'));
    Some(Unattached { id, user })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stream_events() {
        let event =
            "STREAM 5 NEW 0 sink.test:80 SOURCE_ADDR=127.0.0.1:5 PURPOSE=USER SOCKS_USERNAME=\"path7\" X=1";
        let stream = unattached(event).unwrap();
        assert_eq!((stream.id, stream.user), (5, Some("path7")));
        assert_eq!(unattached("STREAM 6 NEWRESOLVE 0 a:0 PURPOSE=USER").unwrap().user, None);
        assert!(unattached("STREAM 6 SENTCONNECT 3 a:80").is_none());
    }
}
