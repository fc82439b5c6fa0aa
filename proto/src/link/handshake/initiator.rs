//! The side that opened the connection.

use std::sync::Arc;

use rand_core::CryptoRng;
use sha2::{Digest, Sha256};

use super::{Established, ExpectedPeer, Input, Wire, malformed, tls_secrets};
use crate::cell::{Command, LinkVersion};
use crate::link::chain::{Chain, TlsLeaf};
use crate::link::msg::{auth_challenge, authenticate};
use crate::link::{CircIds, LinkError, LinkIdentity};
use crate::time::Unix;

pub(super) struct Initiator {
    /// `None` on a client, which stays anonymous.
    identity: Option<Arc<LinkIdentity>>,
    expected: ExpectedPeer,
    /// SHA-256 of the TLS certificate that the responder showed.
    tls_digest: [u8; 32],
    responder: Option<Box<Chain<TlsLeaf>>>,
    challenge: Option<Challenge>,
}

/// What AUTH_CHALLENGE told us.
struct Challenge {
    /// Whether the one authentication method is offered.
    ours_offered: bool,
    /// The responder's transcript up to and including AUTH_CHALLENGE.
    slog: [u8; 32],
}

impl Initiator {
    pub(super) fn new(
        identity: Option<Arc<LinkIdentity>>,
        expected: ExpectedPeer,
        tls_leaf: &[u8],
    ) -> Initiator {
        let tls_digest = Sha256::digest(tls_leaf).into();
        Initiator { identity, expected, tls_digest, responder: None, challenge: None }
    }

    pub(super) fn handle<R: CryptoRng>(
        &mut self,
        version: LinkVersion,
        command: Command,
        body: &[u8],
        wire: &mut Wire,
        input: &mut Input<'_, R>,
    ) -> Result<Option<Established>, LinkError> {
        match (command, &self.responder) {
            (Command::CERTS, None) => {
                self.responder = Some(Box::new(self.prove(body, input.now)?));
                Ok(None)
            }
            (Command::AUTH_CHALLENGE, Some(_)) if self.challenge.is_none() => {
                let ours_offered = auth_challenge::offers_our_method(body).map_err(malformed(command))?;
                self.challenge = Some(Challenge { ours_offered, slog: wire.received_log() });
                Ok(None)
            }
            (Command::CERTS | Command::AUTH_CHALLENGE, Some(_)) => Err(LinkError::RepeatedCell(command)),
            (Command::NETINFO, Some(responder)) => {
                let modulus = self
                    .identity
                    .as_ref()
                    .map(|identity| super::compare_moduli(identity.rsa(), &responder.rsa));
                let circ_ids = CircIds::new(version, true, modulus);
                let peer = Some(responder.identity);
                let established = wire.established(version, body, peer, circ_ids, input.now)?;
                self.send_flight(version, responder, wire, input)?;
                Ok(Some(established))
            }
            // Unknown, and so to be ignored: only fixed-size cells have an order to break.
            _ if command.is_variable()
                && !matches!(command, Command::CERTS | Command::AUTH_CHALLENGE | Command::AUTHENTICATE) =>
            {
                Ok(None)
            }
            _ => Err(LinkError::UnexpectedCell(command)),
        }
    }

    /// Who the responder is. That a certificate does not hold now is only said of the one that we wanted to reach: it may
    /// be our clock that is wrong, and nobody else is to have a say in that.
    fn prove(&self, certs: &[u8], now: Unix) -> Result<Chain<TlsLeaf>, LinkError> {
        self.prove_at(certs, now).map_err(|error| {
            match error.certs_held_at().map(|then| self.prove_at(certs, then)) {
                None | Some(Ok(_)) => error,
                Some(Err(at_that_time)) if at_that_time.certs_held_at().is_some() => LinkError::CertTimes,
                Some(Err(at_that_time)) => at_that_time,
            }
        })
    }

    /// Who the responder would be at this time.
    fn prove_at(&self, certs: &[u8], time: Unix) -> Result<Chain<TlsLeaf>, LinkError> {
        let chain = Chain::of_responder(certs, &self.tls_digest, time)?;
        if self.expected.rsa_id.is_some_and(|id| id != chain.identity.rsa_id) {
            return Err(LinkError::WrongRsaIdentity);
        }
        if self.expected.ed_id.is_some_and(|id| id != chain.identity.ed_id) {
            return Err(LinkError::WrongEdIdentity);
        }
        Ok(chain)
    }

    /// Sends our side of the handshake.
    fn send_flight<R: CryptoRng>(
        &self,
        version: LinkVersion,
        responder: &Chain<TlsLeaf>,
        wire: &mut Wire,
        input: &mut Input<'_, R>,
    ) -> Result<(), LinkError> {
        if let Some(identity) = &self.identity {
            wire.send_variable(Command::CERTS, identity.initiator_certs());
            // Without a challenge we cannot prove who we are; the link opens all the same, as a client's.
            if let Some(Challenge { ours_offered: true, slog }) = self.challenge {
                let cid = identity.rsa_digest();
                let agreed = authenticate::Agreed {
                    cid,
                    sid: responder.rsa_digest,
                    cid_ed: identity.public().ed_id,
                    sid_ed: responder.identity.ed_id,
                    slog,
                    clog: wire.sent_log(),
                    scert: self.tls_digest,
                    tls_secrets: tls_secrets(input.exporter, &cid)?,
                };
                let sign = |bytes: &[u8]| identity.sign_authenticate(bytes);
                wire.send_variable(Command::AUTHENTICATE, &authenticate::encode(&agreed, sign, input.rng));
            }
        }
        wire.send_netinfo(version, self.identity.is_some(), input.now);
        Ok(())
    }
}
