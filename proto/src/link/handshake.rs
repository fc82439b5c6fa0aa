//! The handshake inside TLS that opens a link (tor-spec 4).
//!
//! ```text
//! initiator                                 responder
//! VERSIONS                              ->
//!                                       <-  VERSIONS, CERTS, AUTH_CHALLENGE, NETINFO
//! relay:  CERTS, AUTHENTICATE, NETINFO  ->
//! client: NETINFO                       ->
//! ```
//!
//! Either side keeps a hash of every byte that went by in both directions; AUTHENTICATE signs the two.

mod initiator;
mod responder;

use std::cmp::Ordering;
use std::net::IpAddr;
use std::sync::Arc;

use rand_core::CryptoRng;
use sha2::{Digest, Sha256};

use self::initiator::Initiator;
use self::responder::Responder;
use super::msg::{Malformed, Netinfo, authenticate, versions};
use super::{CircIds, LinkError, LinkIdentity, PeerIdentity};
use crate::cell::{self, Body, CircId, Command, Framing, LinkVersion};
use crate::crypto::rsa::RsaPublic;
use crate::limits;
use crate::time::Unix;

/// The keying-material exporter of a TLS session (RFC 5705).
pub trait TlsExporter {
    /// Fills `out` with keying material for `label` and `context`.
    fn export(&self, label: &[u8], context: &[u8], out: &mut [u8; 32]) -> Result<(), ExportError>;
}

/// The TLS session cannot export keying material, for instance because it is not established.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("TLS keying material is not available")]
pub struct ExportError;

/// What both roles need to know beside who they are.
#[derive(Clone, Debug)]
pub struct LinkParams {
    /// The link protocols to offer, usually [`LinkVersion::ALL`].
    pub versions: Vec<LinkVersion>,
    /// The peer's address as the socket has it.
    pub peer_address: IpAddr,
    /// Our own addresses, which relays announce; a link whose remote end is among the peer's is canonical. Clients keep
    /// theirs to themselves whatever is given here.
    pub own_addresses: Vec<IpAddr>,
}

/// Whom an initiator wants to reach. What is `None` is not compared; an opened link says who it leads to either way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExpectedPeer {
    /// SHA-1 of the RSA identity key.
    pub rsa_id: Option<[u8; 20]>,
    /// Ed25519 identity key.
    pub ed_id: Option<[u8; 32]>,
}

/// An open link.
#[derive(Clone, Debug)]
pub struct Established {
    /// The link protocol.
    pub version: LinkVersion,
    /// Who the peer has proven to be; `None` for a client, that is, for an initiator without AUTHENTICATE.
    pub peer: Option<PeerIdentity>,
    /// The circuit IDs each side may choose.
    pub circ_ids: CircIds,
    /// Whether the peer is authenticated and names the socket's remote address as its own. Such a link is to be
    /// reused for circuits.
    pub canonical: bool,
    /// How many seconds the peer's clock is ahead of ours; `None` if it did not say.
    pub peer_clock_skew: Option<i64>,
    /// Our address as the peer sees it: a hint, the peer may lie.
    pub my_address_seen: Option<IpAddr>,
}

/// A link handshake in progress. After an error or after success it takes no more input; what it has still to send is
/// fetched with [`poll_transmit`](Handshake::poll_transmit).
pub struct Handshake {
    role: Option<Role>,
    wire: Wire,
}

enum Role {
    Initiator(Initiator),
    Responder(Responder),
}

/// The inputs of one call of [`Handshake::handle`].
struct Input<'a, R> {
    now: Unix,
    exporter: &'a dyn TlsExporter,
    rng: &'a mut R,
}

impl Handshake {
    /// Answers an initiator. `identity` must be the one made for the certificate that this TLS session showed.
    pub fn responder(identity: Arc<LinkIdentity>, params: LinkParams) -> Handshake {
        Handshake { role: Some(Role::Responder(Responder::new(identity))), wire: Wire::new(params) }
    }

    /// Opens a link to `expected`, whose TLS side showed the certificate `tls_leaf` (DER). With an `identity` we
    /// authenticate as that relay, without one we stay anonymous, as clients do.
    ///
    /// VERSIONS is ready to be sent at once.
    pub fn initiator(
        identity: Option<Arc<LinkIdentity>>,
        expected: ExpectedPeer,
        tls_leaf: &[u8],
        params: LinkParams,
    ) -> Handshake {
        let mut wire = Wire::new(params);
        wire.send_versions();
        Handshake { role: Some(Role::Initiator(Initiator::new(identity, expected, tls_leaf))), wire }
    }

    /// Takes bytes from the peer. Returns how many of them were consumed, and the open link once there is one: the
    /// bytes after those consumed then belong to it, the rest must otherwise be given again with more behind.
    ///
    /// After an error only closing the connection is left.
    pub fn handle<R: CryptoRng>(
        &mut self,
        now: Unix,
        buf: &mut [u8],
        exporter: &dyn TlsExporter,
        rng: &mut R,
    ) -> Result<(usize, Option<Established>), LinkError> {
        // Taken out, so that an early return leaves a handshake that is over.
        let mut role = self.role.take().ok_or(LinkError::Over)?;
        let mut input = Input { now, exporter, rng };
        let mut consumed = 0;
        while let Some((used, frame)) = cell::next_frame(self.wire.framing(), &mut buf[consumed..])? {
            let (command, circ_id, body_len) = (frame.command(), frame.circ_id(), frame.body().len());
            // next_frame consumes no more than it was given, and the body lies at the end of the cell.
            let cell = &buf[consumed..consumed + used];
            let body = &cell[used - body_len..];
            consumed += used;
            self.wire.received(command, circ_id, cell)?;
            let established = match (command, self.wire.version) {
                (Command::VPADDING | Command::AUTHORIZE, _) => None,
                (Command::VERSIONS, None) => {
                    let version = self.wire.negotiate(body)?;
                    if let Role::Responder(responder) = &mut role {
                        responder.answer(version, &mut self.wire, &mut input);
                    }
                    None
                }
                (Command::VERSIONS, Some(_)) => return Err(LinkError::RepeatedCell(command)),
                // Framing lets nothing else through before VERSIONS.
                (_, None) => return Err(LinkError::UnexpectedCell(command)),
                (_, Some(version)) => match &mut role {
                    Role::Initiator(role) => {
                        role.handle(version, command, body, &mut self.wire, &mut input)?
                    }
                    Role::Responder(role) => role.handle(version, command, body, &self.wire, &mut input)?,
                },
            };
            if established.is_some() {
                return Ok((consumed, established));
            }
        }
        self.role = Some(role);
        Ok((consumed, None))
    }

    /// Appends the bytes that are to be sent now to `out`.
    pub fn poll_transmit(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.wire.transmit);
    }
}

/// Both directions of the connection and their transcripts.
struct Wire {
    params: LinkParams,
    version: Option<LinkVersion>,
    transmit: Vec<u8>,
    sent: Sha256,
    received: Sha256,
    received_len: usize,
}

impl Wire {
    fn new(params: LinkParams) -> Wire {
        let (sent, received) = (Sha256::new(), Sha256::new());
        Wire { params, version: None, transmit: Vec::new(), sent, received, received_len: 0 }
    }

    fn framing(&self) -> Framing {
        self.version.map_or(Framing::Initial, Framing::Negotiated)
    }

    /// Counts and logs a cell of the peer, and checks what holds for each one of the handshake.
    fn received(&mut self, command: Command, circ_id: CircId, cell: &[u8]) -> Result<(), LinkError> {
        self.received_len += cell.len();
        if self.received_len > limits::HANDSHAKE_BYTES {
            return Err(LinkError::HandshakeTooLong);
        }
        if circ_id != CircId::LINK {
            return Err(LinkError::NonzeroCircId(command));
        }
        // The one cell that is not in the log it is compared with.
        if command != Command::AUTHENTICATE {
            self.received.update(cell);
        }
        Ok(())
    }

    fn negotiate(&mut self, body: &[u8]) -> Result<LinkVersion, LinkError> {
        let common =
            versions::negotiate(body, &self.params.versions).map_err(malformed(Command::VERSIONS))?;
        let version = common.ok_or(LinkError::NoCommonVersion)?;
        self.version = Some(version);
        Ok(version)
    }

    fn send_versions(&mut self) {
        let body = versions::encode(&self.params.versions);
        self.send(|out| {
            cell::write_variable(Framing::Initial, CircId::LINK, Command::VERSIONS, &body, out);
        });
    }

    fn send_variable(&mut self, command: Command, body: &[u8]) {
        let framing = self.framing();
        self.send(|out| cell::write_variable(framing, CircId::LINK, command, body, out));
    }

    /// Sends NETINFO with all that a relay says, or with the little that a client says.
    fn send_netinfo(&mut self, version: LinkVersion, as_relay: bool, now: Unix) {
        let own = if as_relay { self.params.own_addresses.clone() } else { Vec::new() };
        let other = Some(self.params.peer_address.to_canonical());
        let body = Netinfo { time: as_relay.then_some(now), other, own }.encode();
        self.send(|out| cell::write_zero_filled(version, CircId::LINK, Command::NETINFO, &body, out));
    }

    fn send(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.transmit.len();
        write(&mut self.transmit);
        self.sent.update(&self.transmit[start..]);
    }

    /// Hash of everything we have sent so far.
    fn sent_log(&self) -> [u8; 32] {
        self.sent.clone().finalize().into()
    }

    /// Hash of everything the peer has sent so far, except AUTHENTICATE.
    fn received_log(&self) -> [u8; 32] {
        self.received.clone().finalize().into()
    }

    /// The link that NETINFO, the last cell of the handshake, opens.
    fn established(
        &self,
        version: LinkVersion,
        netinfo: &[u8],
        peer: Option<PeerIdentity>,
        circ_ids: CircIds,
        now: Unix,
    ) -> Result<Established, LinkError> {
        let netinfo = <&Body>::try_from(netinfo)
            .map_err(|_| Malformed)
            .and_then(Netinfo::parse)
            .map_err(malformed(Command::NETINFO))?;
        let remote = self.params.peer_address.to_canonical();
        Ok(Established {
            version,
            peer,
            circ_ids,
            canonical: peer.is_some() && netinfo.own.contains(&remote),
            peer_clock_skew: netinfo.time.map(|time| time.0 as i64 - now.0 as i64),
            my_address_seen: netinfo.other,
        })
    }
}

fn malformed(command: Command) -> impl FnOnce(Malformed) -> LinkError {
    move |Malformed| LinkError::MalformedCell(command)
}

/// How two identity keys compare as numbers: by their DER, since both have the same length, so that the encodings of the
/// moduli begin at the same place, and the same exponent.
fn compare_moduli(ours: &RsaPublic, theirs: &RsaPublic) -> Ordering {
    ours.to_der().cmp(&theirs.to_der())
}

/// TLSSECRETS of AUTHENTICATE. Both sides use the digest of the initiator's RSA key as the context.
fn tls_secrets(exporter: &dyn TlsExporter, cid: &[u8; 32]) -> Result<[u8; 32], LinkError> {
    let mut out = [0; 32];
    exporter
        .export(authenticate::EXPORTER_LABEL, cid, &mut out)
        .map_err(|ExportError| LinkError::Exporter)?;
    Ok(out)
}

#[cfg(test)]
mod tests;
