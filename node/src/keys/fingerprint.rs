//! Fingerprints, as people and files have them.

use std::fs;
use std::path::Path;

use base64ct::{Base64Unpadded, Encoding as _};

use onionring_proto::link::PeerIdentity;
use onionring_proto::netdoc::text::Fingerprint;

use super::{KeyError, RelayKeys};
use crate::atomic_file;

/// The digest of an RSA identity in ten groups of four digits, as `--list-fingerprint` prints it.
pub fn rsa_fingerprint(rsa_id: &[u8; 20]) -> String {
    let groups: Vec<_> = rsa_id.chunks(2).map(|pair| format!("{:02X}{:02X}", pair[0], pair[1])).collect();
    groups.join(" ")
}

/// An Ed25519 identity in base64 without padding.
pub fn ed25519_fingerprint(ed_id: &[u8; 32]) -> String {
    Base64Unpadded::encode_string(ed_id)
}

const RSA_FILE: &str = "fingerprint";
const ED25519_FILE: &str = "fingerprint-ed25519";

/// The identities that `fingerprint` and `fingerprint-ed25519` in the data directory name; `None` unless both can be
/// read, since one alone says nothing about the pair.
pub fn known_identity(data_directory: &Path) -> Option<PeerIdentity> {
    let value = |name: &str| {
        let text = fs::read_to_string(data_directory.join(name)).ok()?;
        Some(text.split_ascii_whitespace().skip(1).collect::<String>())
    };
    let rsa_id = Fingerprint::from_hex(&value(RSA_FILE)?)?.0;
    let ed_id = Base64Unpadded::decode_vec(&value(ED25519_FILE)?).ok()?.try_into().ok()?;
    Some(PeerIdentity { rsa_id, ed_id })
}

/// Writes `fingerprint` and `fingerprint-ed25519` into the data directory, unless they already say so.
pub fn write_fingerprints(data_directory: &Path, nickname: &str, keys: &RelayKeys) -> Result<(), KeyError> {
    for (name, value) in [
        (RSA_FILE, Fingerprint(keys.rsa_identity.public().rsa_id()).to_string()),
        (ED25519_FILE, ed25519_fingerprint(&keys.ed_identity)),
    ] {
        let (path, line) = (data_directory.join(name), format!("{nickname} {value}\n"));
        if fs::read_to_string(&path).is_ok_and(|present| present == line) {
            continue;
        }
        if let Err(source) = atomic_file::write(&path, line.as_bytes(), 0o600) {
            return Err(KeyError::Write { path, source });
        }
    }
    Ok(())
}
