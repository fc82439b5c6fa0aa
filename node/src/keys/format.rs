//! C tor's key file formats, without the files.
//!
//! Ed25519 and Curve25519 keys and certificates come as a header of 32 bytes, `== TYPE: TAG ==` padded with NULs, and
//! the bytes of the key. RSA keys are PEM.

use onionring_proto::crypto::ed25519::Ed25519Pair;
use onionring_proto::handshake::OnionKey;
use zeroize::Zeroizing;

const HEADER_LEN: usize = 32;

/// A kind of tagged file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Form {
    /// What the bytes are.
    kind: &'static str,
    /// What the key is for.
    tag: &'static str,
}

/// Public half of the Ed25519 master key.
pub const MASTER_PUBLIC: Form = Form { kind: "ed25519v1-public", tag: "type0" };
/// Secret half of the Ed25519 master key, expanded.
pub const MASTER_SECRET: Form = Form { kind: "ed25519v1-secret", tag: "type0" };
/// The Ed25519 signing key, expanded.
pub const SIGNING_SECRET: Form = Form { kind: "ed25519v1-secret", tag: "type4" };
/// The certificate of the signing key.
pub const SIGNING_CERT: Form = Form { kind: "ed25519v1-cert", tag: "type4" };
/// The Curve25519 onion key: secret, then public.
pub const ONION: Form = Form { kind: "c25519v1", tag: "onion" };

impl Form {
    fn header(self) -> [u8; HEADER_LEN] {
        let text = format!("== {}: {} ==", self.kind, self.tag);
        let mut header = [0; HEADER_LEN];
        header[..text.len()].copy_from_slice(text.as_bytes());
        header
    }

    /// Puts the header before the key.
    pub fn encode(self, key: &[u8]) -> Zeroizing<Vec<u8>> {
        // Reserved at once, so that no copy of a secret is left behind by growing.
        let mut out = Zeroizing::new(Vec::with_capacity(HEADER_LEN + key.len()));
        out.extend(self.header());
        out.extend(key);
        out
    }

    /// What stands behind the header, or what is wrong with the file.
    pub fn decode(self, file: &[u8]) -> Result<&[u8], String> {
        match file.split_first_chunk::<HEADER_LEN>() {
            Some((header, key)) if *header == self.header() => Ok(key),
            Some((header, _)) => {
                let text = header.trim_ascii_end().escape_ascii().to_string();
                let found = text.trim_end_matches("\\x00");
                Err(format!("it starts with \"{found}\" where \"== {}: {} ==\" belongs", self.kind, self.tag))
            }
            None => Err(format!("{} bytes are too few", file.len())),
        }
    }

    /// Like [`decode`](Self::decode) for a key of `N` bytes.
    pub fn decode_exact<const N: usize>(self, file: &[u8]) -> Result<&[u8; N], String> {
        let key = self.decode(file)?;
        key.try_into().map_err(|_| format!("it holds {} bytes of key where {N} belong", key.len()))
    }
}

/// Reads an expanded Ed25519 secret.
pub fn ed25519_secret(form: Form, file: &[u8]) -> Result<Ed25519Pair, String> {
    let expanded: &[u8; 64] = form.decode_exact(file)?;
    // All zero is what an interrupted write leaves; its key would be no key.
    if expanded.iter().all(|&byte| byte == 0) {
        return Err("the key is all zero".to_owned());
    }
    Ok(Ed25519Pair::from_expanded(expanded))
}

/// Reads an onion key, whose halves must belong together.
pub fn onion_key(file: &[u8]) -> Result<OnionKey, String> {
    let halves: &[u8; 64] = ONION.decode_exact(file)?;
    let secret = Zeroizing::new(*halves.first_chunk::<32>().expect("64 bytes hold 32"));
    let key = OnionKey::from_secret(&secret);
    if key.public()[..] != halves[32..] {
        return Err("the public half does not belong to the secret half".to_owned());
    }
    Ok(key)
}

/// Writes an onion key.
pub fn encode_onion_key(key: &OnionKey) -> Zeroizing<Vec<u8>> {
    let mut halves = Zeroizing::new([0; 64]);
    halves[..32].copy_from_slice(key.secret());
    halves[32..].copy_from_slice(key.public());
    ONION.encode(&*halves)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_those_of_c_tor() {
        let mut expected = b"== ed25519v1-cert: type4 ==".to_vec();
        expected.resize(32, 0);
        expected.extend(b"key");
        assert_eq!(*SIGNING_CERT.encode(b"key"), expected);
        assert_eq!(SIGNING_CERT.decode(&expected), Ok(&b"key"[..]));
        assert_eq!(
            SIGNING_SECRET.decode(&expected).unwrap_err(),
            "it starts with \"== ed25519v1-cert: type4 ==\" where \"== ed25519v1-secret: type4 ==\" belongs"
        );
        assert!(SIGNING_CERT.decode(&expected[..31]).is_err());
        assert!(SIGNING_CERT.decode_exact::<4>(&expected).is_err());
    }

    #[test]
    fn onion_keys_round_trip_and_halves_are_compared() {
        let key = OnionKey::from_secret(&[7; 32]);
        let mut file = encode_onion_key(&key);
        assert_eq!(onion_key(&file).unwrap().public(), key.public());
        file[95] ^= 1;
        assert!(onion_key(&file).is_err());
    }
}
