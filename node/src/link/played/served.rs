//! A link that somebody has opened to a relay that a test plays, and the circuits on it.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use onionring_proto::cell::{BODY_LEN, Body, CircId, Command, DestroyReason, write_fixed};
use onionring_proto::crypto::tor1::{RelayLayer, SendmeTag};
use onionring_proto::flow::CircuitRecv;
use onionring_proto::handshake::{
    Create2, CreateFast, Created2, CreatedFast, OnionKey, OnionKeyRing, ServerIdentity, fast, respond,
};
use onionring_proto::link::{ExpectedPeer, Handshake, PeerIdentity};
use onionring_proto::relay_msg::{
    self, Begin, Connected, End, EndReason, Extend2, Extended2, Host, MAX_DATA_LEN, RelayCmd, RelayMsg,
    Resolve, Resolved, ResolvedValue, Sendme, StreamId,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};

use super::wire::{Wire, dial, params};
use super::{Conduct, Core, Door, Next, Occasion};
use crate::link::error::LinkFailure;

/// Seconds for which what a name leads to holds.
const TTL: u32 = 60;

/// What happens elsewhere to a circuit of a link.
enum Event {
    Extended(Vec<u8>, UnboundedSender<(Command, Body)>),
    Inbound(Box<Body>),
    Gone,
    Stream(StreamId, Happened),
}

enum Happened {
    Connected(UnboundedSender<Vec<u8>>),
    Data(Vec<u8>),
    Ended(EndReason),
}

/// A circuit of a link.
struct Circuit {
    layer: RelayLayer,
    recv: CircuitRecv,
    /// The next hop.
    next: Option<UnboundedSender<(Command, Body)>>,
    /// Requests to the directory, as far as they have come.
    requests: HashMap<StreamId, Vec<u8>>,
    /// Streams to elsewhere.
    streams: HashMap<StreamId, UnboundedSender<Vec<u8>>>,
}

/// A link that somebody has opened. What a [`Conduct`] has it send leaves when the conduct is done.
pub struct Served {
    wire: Wire,
    core: Arc<Core>,
    circuits: HashMap<CircId, Circuit>,
    events: UnboundedSender<(CircId, Event)>,
    out: Vec<u8>,
    is_over: bool,
    is_deaf: bool,
}

pub(super) async fn serve(mut socket: TcpStream, core: Arc<Core>) -> Result<(), LinkFailure> {
    match core.conduct.door() {
        Door::Link => {}
        Door::Closed => return Ok(()),
        Door::Bytes(bytes) => {
            socket.write_all(&bytes).await?;
            while socket.read(&mut [0; 4096]).await? > 0 {}
            return Ok(());
        }
        Door::Tls(bytes) => {
            let mut wire = Wire::accept(socket).await?;
            wire.send(&bytes).await?;
            return wire.drain().await;
        }
    }
    let peer_address = socket.peer_addr()?.ip();
    let mut wire = Wire::accept(socket).await?;
    let identity = core.conduct.identity().unwrap_or_else(|| core.keys.link.clone());
    let handshake = Handshake::responder(identity, params(peer_address));
    wire.open(handshake, |cells| core.conduct.hello(cells)).await?;
    let peer = wire.established().peer;
    core.seen.links[usize::from(peer.is_none())].fetch_add(1, Ordering::SeqCst);
    if let (Some(peer), Ok(mut peers)) = (peer, core.seen.peers.lock()) {
        peers.push(peer);
    }

    let (events, mut happens) = mpsc::unbounded_channel();
    let circuits = HashMap::new();
    let (is_over, is_deaf) = (false, false);
    let mut served = Served { wire, core, circuits, events, out: Vec::new(), is_over, is_deaf };
    served.asks(&Occasion::Opened);
    let mut read = Ok(());
    loop {
        while let Some((id, command, body)) = served.wire.cell()? {
            served.on_cell(id, command, body);
        }
        let out = std::mem::take(&mut served.out);
        served.wire.send(&out).await?;
        if served.is_over {
            return Ok(());
        }
        if served.is_deaf {
            return std::future::pending().await;
        }
        // The last cells may come with the end.
        read?;
        read = Ok(());
        tokio::select! {
            received = served.wire.receive() => read = received,
            Some((id, event)) = happens.recv() => served.on_event(id, event),
        }
    }
}

/// What conducts do with a link.
impl Served {
    /// Sends any bytes.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    /// Sends a cell whose body begins so, and is zero otherwise.
    ///
    /// # Panics
    /// If that is more than a body.
    pub fn cell(&mut self, id: CircId, command: Command, start: &[u8]) {
        let mut body = [0; BODY_LEN];
        body[..start.len()].copy_from_slice(start);
        write_fixed(self.wire.version(), id, command, &body, &mut self.out);
    }

    /// Sends a message to the client; nothing if there is no such circuit.
    pub fn say(&mut self, id: CircId, cmd: RelayCmd, stream: StreamId, data: &[u8]) {
        let mut body = [0; BODY_LEN];
        relay_msg::encode(cmd, stream, data, &mut rand::rng(), &mut body);
        self.say_raw(id, Command::RELAY, body);
    }

    /// Sends this plaintext of a message to the client, in a cell of this command; nothing if there is no such circuit.
    pub fn say_raw(&mut self, id: CircId, command: Command, mut body: Body) {
        if let Some(circuit) = self.circuits.get_mut(&id) {
            circuit.layer.originate_inbound(&mut body);
            self.cell(id, command, &body);
        }
    }

    /// Ends a stream.
    pub fn end(&mut self, id: CircId, stream: StreamId, reason: EndReason) {
        let mut data = Vec::new();
        End::from(reason).write(&mut data);
        self.say(id, RelayCmd::END, stream, &data);
    }

    /// The answer to a request for a circuit, which is there from now on; `None` if no honest relay takes the request.
    pub fn answer(&mut self, id: CircId, command: Command, body: &Body) -> Option<(Command, Body)> {
        let rng = &mut rand::rng();
        let mut reply = [0; BODY_LEN];
        let (answer, keys) = match command {
            Command::CREATE_FAST => {
                let (answer, keys) = fast::server(rng, &CreateFast::parse(body).x);
                CreatedFast { reply: answer }.write(&mut reply);
                (Command::CREATED_FAST, keys)
            }
            _ => {
                let create = Create2::parse(body).ok()?;
                let PeerIdentity { rsa_id, ed_id } = self.core.keys.id();
                let ring = OnionKeyRing::new(OnionKey::from_secret(self.core.keys.onion.secret()), None, rng);
                let identity = ServerIdentity { rsa_id, ed_id };
                let (hdata, keys) = respond(rng, &identity, &ring, create.htype, create.hdata).ok()?;
                Created2 { hdata: &hdata }.write(&mut reply);
                (Command::CREATED2, keys)
            }
        };
        let circuit = Circuit {
            layer: RelayLayer::new(&keys),
            recv: CircuitRecv::default(),
            next: None,
            requests: HashMap::new(),
            streams: HashMap::new(),
        };
        self.circuits.insert(id, circuit);
        Some((answer, reply))
    }

    /// Whether a client is at the other end of the link.
    pub fn is_of_client(&self) -> bool {
        self.wire.established().peer.is_none()
    }

    /// Closes the connection once all is sent.
    pub fn close(&mut self) {
        self.is_over = true;
    }

    /// Reads nothing any more, and keeps the connection.
    pub fn deafen(&mut self) {
        self.is_deaf = true;
    }
}

/// What the relay does by itself.
impl Served {
    /// Whether the relay is to act itself.
    fn asks(&mut self, occasion: &Occasion<'_>) -> bool {
        let conduct: Arc<dyn Conduct> = self.core.conduct.clone();
        conduct.on(occasion, self) == Next::Honest
    }

    fn on_cell(&mut self, id: CircId, command: Command, mut body: Body) {
        if command == Command::CREATE2 || command == Command::CREATE_FAST {
            let of = usize::from(self.is_of_client());
            self.core.seen.circuits[of].fetch_add(1, Ordering::SeqCst);
        }
        if !self.asks(&Occasion::Cell { id, command, body: &body }) {
            return;
        }
        match command {
            Command::CREATE2 | Command::CREATE_FAST => match self.answer(id, command, &body) {
                Some((answer, reply)) => {
                    self.cell(id, answer, &reply);
                    self.asks(&Occasion::Created { id });
                }
                None => self.cell(id, Command::DESTROY, &[DestroyReason::Protocol.to_wire()]),
            },
            Command::DESTROY => {
                self.circuits.remove(&id);
            }
            Command::RELAY | Command::RELAY_EARLY => {
                let Some(circuit) = self.circuits.get_mut(&id) else { return };
                match circuit.layer.decrypt_outbound(&mut body) {
                    Some(tag) => self.on_recognised(id, command, tag, &body),
                    None => {
                        if self.asks(&Occasion::Outbound { id })
                            && let Some(next) =
                                self.circuits.get(&id).and_then(|circuit| circuit.next.as_ref())
                        {
                            let _ = next.send((command, body));
                        }
                    }
                }
            }
            _ => {}
        }
    }

    fn on_recognised(&mut self, id: CircId, command: Command, tag: SendmeTag, body: &Body) {
        let Ok(msg) = relay_msg::decode(body) else { return };
        if msg.cmd == RelayCmd::DATA
            && let Some(Ok(Some(tag))) = self.circuits.get_mut(&id).map(|circuit| circuit.recv.on_data(tag))
        {
            let mut data = Vec::new();
            Sendme::V1 { tag }.write(&mut data);
            self.say(id, RelayCmd::SENDME, StreamId::CIRCUIT, &data);
        }
        if !self.asks(&Occasion::Message { id, msg: &msg }) {
            return;
        }
        match (msg.cmd, msg.stream) {
            (RelayCmd::EXTEND2, StreamId::CIRCUIT) if command == Command::RELAY_EARLY => {
                if let Ok(extend) = Extend2::parse(msg.data) {
                    self.extend(id, &extend);
                }
            }
            (_, StreamId::CIRCUIT) => {}
            _ => self.on_stream_message(id, &msg),
        }
    }

    fn extend(&self, id: CircId, extend: &Extend2<'_>) {
        let mut body = [0; BODY_LEN];
        Create2 { htype: extend.htype, hdata: extend.hdata }.write(&mut body);
        let Some(address) = extend.specs.ipv4.map(SocketAddr::V4) else { return };
        let expected = ExpectedPeer { rsa_id: Some(extend.specs.rsa_id), ed_id: extend.specs.ed_id };
        let (core, events) = (self.core.clone(), self.events.clone());
        tokio::spawn(async move {
            let _ = next_hop(&core, address, expected, body, id, &events).await;
            let _ = events.send((id, Event::Gone));
        });
    }

    fn on_stream_message(&mut self, id: CircId, msg: &RelayMsg<'_>) {
        let stream = msg.stream;
        let Some(circuit) = self.circuits.get_mut(&id) else { return };
        match msg.cmd {
            RelayCmd::BEGIN_DIR => {
                circuit.requests.insert(stream, Vec::new());
                self.say(id, RelayCmd::CONNECTED, stream, &[]);
            }
            RelayCmd::BEGIN => self.begin(id, stream, msg.data),
            RelayCmd::RESOLVE => {
                let found = match Resolve::parse(msg.data) {
                    Ok(Resolve::Name(name)) => self.core.conduct.look_up(name),
                    _ => None,
                };
                let value = found.map_or(ResolvedValue::PermanentError, ResolvedValue::Addr);
                let mut data = Vec::new();
                Resolved { answers: vec![(value, TTL)] }.write(&mut data);
                self.say(id, RelayCmd::RESOLVED, stream, &data);
            }
            RelayCmd::DATA => {
                if let Some(there) = circuit.streams.get(&stream) {
                    let _ = there.send(msg.data.to_vec());
                }
                let Some(request) = circuit.requests.get_mut(&stream) else { return };
                request.extend_from_slice(msg.data);
                if request.ends_with(b"\r\n\r\n") {
                    let request = circuit.requests.remove(&stream).unwrap_or_default();
                    self.answer_request(id, stream, &request);
                }
            }
            RelayCmd::END => {
                circuit.streams.remove(&stream);
            }
            _ => {}
        }
    }

    fn begin(&mut self, id: CircId, stream: StreamId, data: &[u8]) {
        let Ok(begin) = Begin::parse(data) else { return self.end(id, stream, EndReason::TorProtocol) };
        let conduct = &self.core.conduct;
        let found = match begin.host {
            Host::Addr(address) => Some(address),
            Host::Name(name) => conduct.look_up(name),
        };
        let Some(address) = found else { return self.end(id, stream, EndReason::ResolveFailed) };
        if !conduct.permits(address, begin.port) {
            return self.end(id, stream, EndReason::ExitPolicy);
        }
        let to = SocketAddr::new(address, begin.port);
        let (from, events) = (self.core.address, self.events.clone());
        tokio::spawn(async move {
            let reason = exit(from, to, id, stream, &events).await;
            let _ = events.send((id, Event::Stream(stream, Happened::Ended(reason))));
        });
    }

    fn answer_request(&mut self, id: CircId, stream: StreamId, request: &[u8]) {
        let request = String::from_utf8_lossy(request);
        let path = request.split(' ').nth(1).unwrap_or_default();
        let answer = match self.core.conduct.document(path) {
            Some(document) => format!("HTTP/1.0 200 OK\r\n\r\n{document}"),
            None => "HTTP/1.0 404 Not found\r\n\r\n".to_owned(),
        };
        self.say_all(id, stream, answer.as_bytes());
        self.end(id, stream, EndReason::Done);
    }

    fn say_all(&mut self, id: CircId, stream: StreamId, data: &[u8]) {
        data.chunks(MAX_DATA_LEN).for_each(|piece| self.say(id, RelayCmd::DATA, stream, piece));
    }

    fn on_event(&mut self, id: CircId, event: Event) {
        let Some(circuit) = self.circuits.get_mut(&id) else { return };
        match event {
            Event::Extended(hdata, next) => {
                circuit.next = Some(next);
                if self.asks(&Occasion::Extended { id, hdata: &hdata }) {
                    let mut data = Vec::new();
                    Extended2 { hdata: &hdata }.write(&mut data);
                    self.say(id, RelayCmd::EXTENDED2, StreamId::CIRCUIT, &data);
                }
            }
            Event::Inbound(mut body) => {
                if self.asks(&Occasion::Inbound { id })
                    && let Some(circuit) = self.circuits.get_mut(&id)
                {
                    circuit.layer.encrypt_inbound(&mut body);
                    self.cell(id, Command::RELAY, &*body);
                }
            }
            Event::Gone => {
                self.circuits.remove(&id);
                self.cell(id, Command::DESTROY, &[DestroyReason::ChannelClosed.to_wire()]);
            }
            Event::Stream(stream, Happened::Connected(there)) => {
                circuit.streams.insert(stream, there);
                if self.asks(&Occasion::Connected { id, stream }) {
                    let mut data = Vec::new();
                    Connected::default().write(&mut data);
                    self.say(id, RelayCmd::CONNECTED, stream, &data);
                }
            }
            Event::Stream(stream, Happened::Data(data)) => self.say_all(id, stream, &data),
            Event::Stream(stream, Happened::Ended(reason)) => {
                // Unless the client has ended it.
                if circuit.streams.remove(&stream).is_some() || reason == EndReason::ConnectRefused {
                    self.end(id, stream, reason);
                }
            }
        }
    }
}

/// The link to the next hop of one circuit.
async fn next_hop(
    core: &Core,
    address: SocketAddr,
    expected: ExpectedPeer,
    create: Body,
    id: CircId,
    events: &UnboundedSender<(CircId, Event)>,
) -> Result<(), LinkFailure> {
    let mut wire = Wire::dial(core.address, address).await?;
    let leaf = wire.peer_certificate().to_vec();
    let handshake = Handshake::initiator(Some(core.keys.link.clone()), expected, &leaf, params(address.ip()));
    wire.open(handshake, |cells| cells).await?;
    let Ok(there) = wire.established().circ_ids.allocate(9, &mut rand::rng(), |_| true) else {
        return Ok(());
    };
    send(&mut wire, there, Command::CREATE2, &create).await?;
    let (sender, mut outbound): (_, UnboundedReceiver<(Command, Body)>) = mpsc::unbounded_channel();
    let mut sender = Some(sender);
    let mut read = Ok(());
    loop {
        while let Some((_, command, body)) = wire.cell()? {
            let event = match command {
                Command::CREATED2 => {
                    let (Ok(created), Some(sender)) = (Created2::parse(&body), sender.take()) else {
                        return Ok(());
                    };
                    Event::Extended(created.hdata.to_vec(), sender)
                }
                Command::RELAY => Event::Inbound(Box::new(body)),
                Command::DESTROY => return Ok(()),
                _ => continue,
            };
            let _ = events.send((id, event));
        }
        read?;
        read = Ok(());
        tokio::select! {
            received = wire.receive() => read = received,
            sent = outbound.recv() => match sent {
                Some((command, body)) => send(&mut wire, there, command, &body).await?,
                None => return Ok(()),
            },
            // Nobody hears of it any more.
            () = events.closed() => return Ok(()),
        }
    }
}

async fn send(wire: &mut Wire, id: CircId, command: Command, body: &Body) -> Result<(), LinkFailure> {
    let mut cell = Vec::new();
    write_fixed(wire.version(), id, command, body, &mut cell);
    wire.send(&cell).await
}

/// One stream to elsewhere; returns how it ended.
async fn exit(
    from: IpAddr,
    to: SocketAddr,
    id: CircId,
    stream: StreamId,
    events: &UnboundedSender<(CircId, Event)>,
) -> EndReason {
    let Ok(mut socket) = dial(from, to).await else { return EndReason::ConnectRefused };
    let (sender, mut sent) = mpsc::unbounded_channel::<Vec<u8>>();
    let happened = |what| {
        let _ = events.send((id, Event::Stream(stream, what)));
    };
    happened(Happened::Connected(sender));
    let mut buf = [0; 4096];
    loop {
        tokio::select! {
            read = socket.read(&mut buf) => match read {
                Ok(0) => return EndReason::Done,
                Ok(len) => happened(Happened::Data(buf[..len].to_vec())),
                Err(_) => return EndReason::ConnReset,
            },
            data = sent.recv() => match data {
                Some(data) if socket.write_all(&data).await.is_err() => return EndReason::ConnReset,
                Some(_) => {}
                None => return EndReason::Done,
            },
        }
    }
}
