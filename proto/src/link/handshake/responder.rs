//! The side that accepted the connection.

use std::sync::Arc;

use rand_core::CryptoRng;
use subtle::ConstantTimeEq;

use super::{Established, Input, Wire, malformed, tls_secrets};
use crate::cell::{Command, LinkVersion};
use crate::crypto::ed25519;
use crate::link::chain::{Chain, LinkAuthKey};
use crate::link::msg::{auth_challenge, authenticate};
use crate::link::{CircIds, LinkError, LinkIdentity};

pub(super) struct Responder {
    identity: Arc<LinkIdentity>,
    /// Our transcript up to AUTH_CHALLENGE: SLOG.
    pub(super) slog: [u8; 32],
    initiator: InitiatorIs,
}

/// What the initiator has said about itself so far.
enum InitiatorIs {
    Silent,
    /// It has shown certificates, which anyone could.
    Claiming(Box<Chain<LinkAuthKey>>),
    /// It has signed our challenge.
    Proven(Box<Chain<LinkAuthKey>>),
}

impl Responder {
    pub(super) fn new(identity: Arc<LinkIdentity>) -> Responder {
        Responder { identity, slog: [0; 32], initiator: InitiatorIs::Silent }
    }

    /// Sends our whole side of the handshake, which answers VERSIONS.
    pub(super) fn answer<R: CryptoRng>(
        &mut self,
        version: LinkVersion,
        wire: &mut Wire,
        input: &mut Input<'_, R>,
    ) {
        wire.send_versions();
        wire.send_variable(Command::CERTS, self.identity.responder_certs());
        wire.send_variable(Command::AUTH_CHALLENGE, &auth_challenge::encode(input.rng));
        self.slog = wire.sent_log();
        wire.send_netinfo(version, true, input.now);
    }

    pub(super) fn handle<R>(
        &mut self,
        version: LinkVersion,
        command: Command,
        body: &[u8],
        wire: &Wire,
        input: &mut Input<'_, R>,
    ) -> Result<Option<Established>, LinkError> {
        match command {
            Command::CERTS => {
                if !matches!(self.initiator, InitiatorIs::Silent) {
                    return Err(LinkError::RepeatedCell(command));
                }
                self.initiator = InitiatorIs::Claiming(Box::new(Chain::of_initiator(body, input.now)?));
                Ok(None)
            }
            Command::AUTHENTICATE => {
                self.initiator = match std::mem::replace(&mut self.initiator, InitiatorIs::Silent) {
                    InitiatorIs::Silent => return Err(LinkError::UnexpectedCell(command)),
                    InitiatorIs::Proven(_) => return Err(LinkError::RepeatedCell(command)),
                    InitiatorIs::Claiming(chain) => {
                        self.check_authenticate(body, &chain, wire, input)?;
                        InitiatorIs::Proven(chain)
                    }
                };
                Ok(None)
            }
            Command::NETINFO => {
                // Certificates without AUTHENTICATE prove nothing: that is a client.
                let peer = match &self.initiator {
                    InitiatorIs::Proven(chain) => Some(chain),
                    InitiatorIs::Silent | InitiatorIs::Claiming(_) => None,
                };
                let modulus = peer.map(|chain| super::compare_moduli(self.identity.rsa(), &chain.rsa));
                let circ_ids = CircIds::new(version, false, modulus);
                let peer = peer.map(|chain| chain.identity);
                wire.established(version, body, peer, circ_ids, input.now).map(Some)
            }
            // Unknown, and so to be ignored: only fixed-size cells have an order to break.
            _ if command.is_variable() && command != Command::AUTH_CHALLENGE => Ok(None),
            _ => Err(LinkError::UnexpectedCell(command)),
        }
    }

    /// Checks that the initiator holds the key its certificates end in, on this very connection.
    fn check_authenticate<R>(
        &self,
        body: &[u8],
        initiator: &Chain<LinkAuthKey>,
        wire: &Wire,
        input: &Input<'_, R>,
    ) -> Result<(), LinkError> {
        let auth = authenticate::parse(body)
            .map_err(malformed(Command::AUTHENTICATE))?
            .ok_or(LinkError::AuthenticateType)?;
        let ours = authenticate::Agreed {
            cid: initiator.rsa_digest,
            sid: self.identity.rsa_digest(),
            cid_ed: initiator.identity.ed_id,
            sid_ed: self.identity.public().ed_id,
            slog: self.slog,
            clog: wire.received_log(),
            scert: self.identity.tls_digest(),
            tls_secrets: tls_secrets(input.exporter, &initiator.rsa_digest)?,
        };
        // TLSSECRETS is a secret of the two of us and TLS.
        if !bool::from(ours.to_bytes().ct_eq(auth.agreed)) {
            return Err(LinkError::AuthenticateField(ours.first_difference(auth.agreed)));
        }
        let LinkAuthKey(key) = initiator.leaf;
        ed25519::verify(&key, auth.signed, auth.signature).map_err(LinkError::AuthenticateSignature)
    }
}
