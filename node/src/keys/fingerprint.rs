//! Fingerprints, as people and files have them.

use std::fs;
use std::path::Path;

use base64ct::{Base64Unpadded, Encoding as _};

use super::{KeyError, RelayKeys};
use crate::atomic_file;

/// The RSA identity's digest as 40 upper-case hexadecimal digits.
pub fn rsa_fingerprint(keys: &RelayKeys) -> String {
    keys.rsa_identity.public().rsa_id().iter().map(|byte| format!("{byte:02X}")).collect()
}

/// The same in ten groups of four, as `--list-fingerprint` prints it.
pub fn rsa_fingerprint_in_groups(keys: &RelayKeys) -> String {
    let id = keys.rsa_identity.public().rsa_id();
    let groups: Vec<_> = id.chunks(2).map(|pair| format!("{:02X}{:02X}", pair[0], pair[1])).collect();
    groups.join(" ")
}

/// The Ed25519 identity in base64 without padding.
pub fn ed25519_fingerprint(keys: &RelayKeys) -> String {
    Base64Unpadded::encode_string(&keys.ed_identity)
}

/// Writes `fingerprint` and `fingerprint-ed25519` into the data directory, unless they already say so.
pub fn write_fingerprints(data_directory: &Path, nickname: &str, keys: &RelayKeys) -> Result<(), KeyError> {
    for (name, value) in
        [("fingerprint", rsa_fingerprint(keys)), ("fingerprint-ed25519", ed25519_fingerprint(keys))]
    {
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
