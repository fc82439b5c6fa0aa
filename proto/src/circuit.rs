//! A circuit as one relay sees it: its own onion layer, the RELAY_EARLY budget, and the circuit's windows.
//!
//! The relay removes its layer from cells that come from the client and adds it to cells that go there. What it
//! recognises is addressed to itself, whichever hop it is (the leaky pipe: tor-spec 5.5); everything else goes on.

use rand_core::CryptoRng;
use thiserror::Error;

use crate::cell::{Body, Command};
use crate::crypto::tor1::{KeyMaterial, RelayLayer, SendmeTag};
use crate::flow::{CircuitRecv, CircuitSend, FlowError};
use crate::limits;
use crate::relay_msg::{
    self, Extend2, Extend2Error, RelayCmd, RelayMsg, Sendme, SendmeError, StreamId, Truncate,
};

/// One relay's part of a circuit.
pub struct RelayCircuit {
    layer: RelayLayer,
    /// RELAY_EARLY cells that may still come.
    early_left: u8,
    /// The circuit goes on to another relay, or is being extended there.
    joined: bool,
    send: CircuitSend,
    recv: CircuitRecv,
    accept_sendme_v0: bool,
}

/// What to do with a cell from the client's side, after the relay's layer is off.
#[derive(Debug, PartialEq, Eq)]
pub enum Outbound {
    /// Send it to the next relay, with the same command.
    Forward,
    /// It is for this relay: read it with [`RelayCircuit::receive`].
    Recognised(SendmeTag),
}

/// A message for this relay.
#[derive(Debug)]
pub enum Received<'a> {
    /// Nothing to do.
    Nothing,
    /// The circuit's sending window has opened.
    WindowOpen,
    /// Extend the circuit.
    Extend(Extend2<'a>),
    /// Cut the circuit behind this hop.
    Truncate(Truncate),
    /// A message for a stream: anything of [`RelayCmd::needs_stream`], or a stream-level SENDME. If it is DATA, a
    /// circuit-level SENDME with this tag may be due at once.
    Stream(RelayMsg<'a>, Option<SendmeTag>),
}

/// Why a circuit has to be closed; the peer gets `DestroyReason::Protocol` for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum CircuitError {
    /// A cell that is not for this relay, on a circuit that ends here (tor-spec 5.5.2.2).
    #[error("relay cell that this hop does not recognise, and there is no next hop")]
    Unrecognised,
    /// More RELAY_EARLY cells than a circuit may carry (tor-spec 5.6).
    #[error("more than {} RELAY_EARLY cells", limits::RELAY_EARLY_PER_CIRCUIT)]
    TooManyEarly,
    /// The length field exceeds a cell.
    #[error(transparent)]
    Length(#[from] relay_msg::LengthError),
    /// A window or tag is wrong.
    #[error(transparent)]
    Flow(#[from] FlowError),
    /// A SENDME that cannot be read.
    #[error(transparent)]
    Sendme(#[from] SendmeError),
    /// An EXTEND2 that cannot be read.
    #[error(transparent)]
    Extend(#[from] Extend2Error),
    /// EXTEND with the TAP handshake, which no relay answers any more.
    #[error("EXTEND with the TAP handshake")]
    OldExtend,
    /// TRUNCATE without a reason, although there is a next hop.
    #[error("TRUNCATE without a reason")]
    EmptyTruncate,
}

impl CircuitError {
    /// A short name for metrics.
    pub fn label(&self) -> &'static str {
        match self {
            CircuitError::Unrecognised => "unrecognised",
            CircuitError::TooManyEarly => "too_many_relay_early",
            CircuitError::Length(_) => "relay_length",
            CircuitError::Flow(FlowError::CircuitOverrun) => "circuit_window_overrun",
            CircuitError::Flow(FlowError::StreamOverrun) => "stream_window_overrun",
            CircuitError::Flow(_) => "sendme_unexpected",
            CircuitError::Sendme(_) => "sendme_malformed",
            CircuitError::Extend(_) => "extend_malformed",
            CircuitError::OldExtend => "extend_tap",
            CircuitError::EmptyTruncate => "truncate_empty",
        }
    }
}

impl RelayCircuit {
    /// A circuit that ends here, as it is after the handshake. `accept_sendme_v0`: the circuit was made with
    /// CREATE_FAST, or `sendme_accept_min_version` is 0.
    pub fn new(keys: &KeyMaterial, circuit_window: u16, accept_sendme_v0: bool) -> Self {
        RelayCircuit {
            layer: RelayLayer::new(keys),
            early_left: limits::RELAY_EARLY_PER_CIRCUIT,
            joined: false,
            send: CircuitSend::new(circuit_window),
            recv: CircuitRecv::default(),
            accept_sendme_v0,
        }
    }

    /// Says whether the circuit goes on to another relay, from the moment an extension begins.
    pub fn set_joined(&mut self, joined: bool) {
        self.joined = joined;
    }

    /// Takes this relay's layer off a cell from the client's side. `command` is RELAY or RELAY_EARLY.
    pub fn outbound(&mut self, command: Command, body: &mut Body) -> Result<Outbound, CircuitError> {
        if command == Command::RELAY_EARLY {
            self.early_left = self.early_left.checked_sub(1).ok_or(CircuitError::TooManyEarly)?;
        }
        match self.layer.decrypt_outbound(body) {
            Some(tag) => Ok(Outbound::Recognised(tag)),
            None if self.joined => Ok(Outbound::Forward),
            None => Err(CircuitError::Unrecognised),
        }
    }

    /// Adds this relay's layer to a cell from the far side.
    pub fn inbound(&mut self, body: &mut Body) {
        self.layer.encrypt_inbound(body);
    }

    /// Reads a recognised cell, by the rules that concern the circuit as a whole: what deployed relays ignore is
    /// [`Received::Nothing`]. `may_extend`: it came in RELAY_EARLY, or consensus parameter `AllowNonearlyExtend` is on.
    pub fn receive<'a>(
        &mut self,
        may_extend: bool,
        tag: SendmeTag,
        body: &'a Body,
    ) -> Result<Received<'a>, CircuitError> {
        let msg = relay_msg::decode(body)?;
        let due = match msg.cmd {
            // Counted even if the stream is unknown.
            RelayCmd::DATA => self.recv.on_data(tag)?,
            _ => None,
        };
        if msg.stream != StreamId::CIRCUIT {
            // EXTEND2 and TRUNCATE on a stream mean nothing; neither does what only a client may receive.
            return Ok(match msg.cmd {
                cmd if cmd.needs_stream() || cmd == RelayCmd::SENDME => Received::Stream(msg, due),
                _ => Received::Nothing,
            });
        }
        Ok(match msg.cmd {
            RelayCmd::DATA => Received::Stream(msg, due),
            RelayCmd::SENDME => {
                self.send.on_sendme(Sendme::parse(msg.data)?, self.accept_sendme_v0)?;
                Received::WindowOpen
            }
            RelayCmd::EXTEND => return Err(CircuitError::OldExtend),
            // Outside RELAY_EARLY an EXTEND2 is ignored, which bounds the length of circuits (tor-spec 5.6).
            RelayCmd::EXTEND2 if may_extend => Received::Extend(Extend2::parse(msg.data)?),
            RelayCmd::TRUNCATE => match Truncate::parse(msg.data) {
                Ok(truncate) => Received::Truncate(truncate),
                Err(_) if self.joined => return Err(CircuitError::EmptyTruncate),
                Err(_) => Received::Truncate(Truncate { reason: crate::cell::DestroyReason::None }),
            },
            _ => Received::Nothing,
        })
    }

    /// Makes a message to the client into a cell body, ready to send. DATA must be within [`RelayCircuit::window`]
    /// and [`RelayCircuit::data_limit`].
    pub fn originate<R: CryptoRng + ?Sized>(
        &mut self,
        cmd: RelayCmd,
        stream: StreamId,
        data: &[u8],
        rng: &mut R,
        body: &mut Body,
    ) {
        relay_msg::encode(cmd, stream, data, rng, body);
        let tag = self.layer.originate_inbound(body);
        if cmd == RelayCmd::DATA {
            self.send.sent(data.len(), tag);
        }
    }

    /// DATA cells that the circuit's window allows now.
    pub fn window(&self) -> u16 {
        self.send.window()
    }

    /// Whether the window will open further by itself.
    pub fn expects_sendme(&self) -> bool {
        self.send.expects_sendme()
    }

    /// The most bytes that the next DATA message may carry.
    pub fn data_limit(&self) -> usize {
        self.send.data_limit()
    }
}
