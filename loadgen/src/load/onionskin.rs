//! CREATE2 with a real handshake, and the check of its answer.

use onionring_proto::cell::{BODY_LEN, Body};
use onionring_proto::handshake::{Client, Create2, Created2, htype, ntor, ntor_v3};
use rand::rngs::StdRng;

use super::error::LoadError;
use super::settings::HandshakeKind;

/// What circuit handshakes are made with.
#[derive(Clone, Copy, Debug)]
pub(super) struct RelayKeys {
    pub(super) rsa_id: [u8; 20],
    pub(super) ed_id: [u8; 32],
    pub(super) onion_key: [u8; 32],
}

impl RelayKeys {
    /// A new handshake: our side of it, and the body of CREATE2.
    pub(super) fn create2(&self, kind: HandshakeKind, rng: &mut StdRng) -> (Client, Body) {
        let (client, htype, hdata) = match kind {
            HandshakeKind::Ntor => {
                let (client, hdata) = ntor::Client::start(rng, &self.rsa_id, &self.onion_key);
                (Client::Ntor(client), htype::NTOR, hdata)
            }
            HandshakeKind::NtorV3 => {
                let (client, hdata) = ntor_v3::Client::start(rng, &self.ed_id, &self.onion_key);
                (Client::NtorV3(client), htype::NTOR_V3, hdata)
            }
        };
        let mut body = [0; BODY_LEN];
        Create2 { htype, hdata: &hdata }.write(&mut body);
        (client, body)
    }
}

/// Checks the body of CREATED2, thoroughly if our side of the handshake was kept.
pub(super) fn verify(client: Option<Client>, body: &Body) -> Result<(), LoadError> {
    let wrong = |why: String| LoadError::Handshake { what: "CREATE2", why };
    let created = Created2::parse(body).map_err(|e| wrong(e.to_string()))?;
    if created.hdata.len() < ntor::SERVER_LEN {
        return Err(wrong(format!("an answer of {} bytes", created.hdata.len())));
    }
    client.map_or(Ok(()), |client| client.finish(created.hdata).map(drop).map_err(|e| wrong(e.to_string())))
}
