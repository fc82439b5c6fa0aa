//! A circuit through the relay under test, from a client link of ours to a hop of ours.
//!
//! The first hop is made with CREATE_FAST and real keys. The second is us, so nobody needs its keys: HDATA of the
//! EXTEND2 carries the circuit's number instead of a handshake, and the answer carries it back.

use aes::Aes128;
use ctr::Ctr128BE;
use ctr::cipher::{KeyIvInit as _, StreamCipher as _, StreamCipherSeek as _};
use onionring_proto::cell::{BODY_LEN, Body};
use onionring_proto::crypto::tor1::{ClientOnion, KeyMaterial};
use onionring_proto::handshake::{CreateFast, CreatedFast, fast, htype, ntor};
use onionring_proto::relay_msg::{Extend2, Extended2, LinkSpecs, RelayCmd, StreamId, decode, encode};
use rand::rngs::StdRng;

use super::error::LoadError;

/// The body of every cell that we send over a finished circuit: bytes that look random to the relay.
pub(super) fn pattern() -> Body {
    std::array::from_fn(|i| (i as u8).wrapping_mul(151) ^ 0x5a)
}

/// HDATA of our EXTEND2: the number of the circuit in a message as long as ntor's, which some relays check.
fn request(number: u32) -> [u8; ntor::CLIENT_LEN] {
    let mut hdata = [0x4c; ntor::CLIENT_LEN];
    hdata[..4].copy_from_slice(&number.to_be_bytes());
    hdata
}

/// HDATA of our CREATED2.
pub(super) fn reply(number: u32) -> [u8; ntor::SERVER_LEN] {
    let mut hdata = [0x4c; ntor::SERVER_LEN];
    hdata[..4].copy_from_slice(&number.to_be_bytes());
    hdata
}

/// The number in either of them.
pub(super) fn number(hdata: &[u8]) -> Option<u32> {
    hdata.first_chunk().map(|number| u32::from_be_bytes(*number))
}

/// A circuit being built.
pub(super) enum Setup {
    /// CREATE_FAST is sent.
    Creating(fast::Client),
    /// EXTEND2 is sent.
    Extending(Box<(ClientOnion, KeyMaterial)>),
}

impl Setup {
    /// The body of CREATE_FAST.
    pub(super) fn start(rng: &mut StdRng) -> (Setup, Body) {
        let (client, x) = fast::Client::start(rng);
        let mut body = [0; BODY_LEN];
        CreateFast { x }.write(&mut body);
        (Setup::Creating(client), body)
    }

    /// CREATED_FAST has come; the body of EXTEND2, to be sent as RELAY_EARLY.
    pub(super) fn created(
        self,
        body: &Body,
        number: u32,
        next: LinkSpecs,
        rng: &mut StdRng,
    ) -> Result<(Setup, Body), LoadError> {
        let Setup::Creating(client) = self else { return Err(wrong("CREATE_FAST", "a second answer")) };
        let keys = client.finish(&CreatedFast::parse(body).reply);
        let keys = keys.map_err(|e| wrong("CREATE_FAST", e))?;
        let mut onion = ClientOnion::new();
        onion.push_hop(&keys);
        let mut data = Vec::new();
        Extend2 { specs: next, htype: htype::NTOR, hdata: &request(number) }.write(&mut data);
        let mut body = [0; BODY_LEN];
        encode(RelayCmd::EXTEND2, StreamId(0), &data, rng, &mut body);
        onion.encrypt_outbound(0, &mut body);
        Ok((Setup::Extending(Box::new((onion, keys))), body))
    }

    /// The relay's answer to EXTEND2 has come: the keys of a finished circuit.
    pub(super) fn extended(self, body: &mut Body, sent: u32) -> Result<KeyMaterial, LoadError> {
        let Setup::Extending(state) = self else { return Err(wrong("CREATE_FAST", "a relay cell")) };
        let (mut onion, keys) = *state;
        onion.decrypt_inbound(body).ok_or_else(|| wrong("EXTEND2", "a cell with a wrong digest"))?;
        let message = decode(body).map_err(|e| wrong("EXTEND2", e))?;
        if message.cmd != RelayCmd::EXTENDED2 {
            return Err(wrong("EXTEND2", message.cmd));
        }
        let extended = Extended2::parse(message.data).map_err(|e| wrong("EXTEND2", e))?;
        match extended.hdata == reply(sent) {
            true => Ok(keys),
            false => Err(wrong("EXTEND2", "another handshake than the next relay's")),
        }
    }
}

fn wrong(what: &'static str, why: impl std::fmt::Display) -> LoadError {
    LoadError::Handshake { what, why: why.to_string() }
}

/// Compares cells that came through the relay with what they must be: the pattern under the relay's keystream.
pub(super) struct Check(Ctr128BE<Aes128>);

impl Check {
    pub(super) fn new(key: &[u8; 16]) -> Check {
        Check(Ctr128BE::new(key.into(), &[0; 16].into()))
    }

    /// Checks cell `index` of its circuit and direction; cell 0 was the extension.
    pub(super) fn check(&mut self, index: u64, body: &mut Body, pattern: &Body) -> Result<(), LoadError> {
        self.0.seek(index * BODY_LEN as u64);
        self.0.apply_keystream(body);
        if body == pattern { Ok(()) } else { Err(LoadError::Corrupt { index }) }
    }
}

#[cfg(test)]
mod tests {
    use onionring_proto::crypto::tor1::RelayLayer;
    use onionring_proto::handshake::fast;

    use super::*;

    #[test]
    fn only_the_right_cell_in_the_right_place_passes() {
        let (_, keys) = fast::server(&mut rand::rng(), &[7; fast::SHARE_LEN]);
        let (mut relay, mut check) = (RelayLayer::new(&keys), Check::new(&keys.kb));
        let cells: Vec<Body> = (0..70)
            .map(|_| {
                let mut body = pattern();
                relay.encrypt_inbound(&mut body);
                body
            })
            .collect();
        for index in [0, 64, 1, 69] {
            check.check(index, &mut cells[index as usize].clone(), &pattern()).unwrap();
        }
        let mut changed = cells[3];
        changed[BODY_LEN - 1] ^= 1;
        for (index, mut body) in [(3, changed), (3, cells[4]), (3, pattern())] {
            let result = check.check(index, &mut body, &pattern());
            assert!(matches!(result, Err(LoadError::Corrupt { index: 3 })), "{result:?}");
        }
    }
}
