//! The secrets of a TLS 1.3 session, and what is derived from them (RFC 8446 7).

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use hkdf::Hkdf;
use hkdf::hmac::{EagerHash, Hmac};
use rustls::KeyLog;
use sha2::{Digest, Sha256, Sha384};
use zeroize::Zeroizing;

/// What stands before every label.
const LABEL_PREFIX: &[u8] = b"tls13 ";

/// One secret of the key schedule: 32 bytes with SHA-256, 48 with SHA-384, by which its hash is known.
#[derive(Clone)]
pub(super) struct Secret(Zeroizing<Vec<u8>>);

/// It has a length that no hash of TLS 1.3 has.
#[derive(Debug)]
pub(super) struct NoSuchHash;

impl Secret {
    fn new(bytes: &[u8]) -> Result<Secret, NoSuchHash> {
        match bytes.len() {
            32 | 48 => Ok(Secret(Zeroizing::new(bytes.to_vec()))),
            _ => Err(NoSuchHash),
        }
    }

    /// HKDF-Expand-Label (RFC 8446 7.1). Fills `out`, which is at most as long as a hash may make it.
    pub(super) fn expand_label(
        &self,
        label: &[u8],
        context: &[u8],
        out: &mut [u8],
    ) -> Result<(), NoSuchHash> {
        let [hi, lo] = u16::try_from(out.len()).map_err(|_| NoSuchHash)?.to_be_bytes();
        let label_len = u8::try_from(LABEL_PREFIX.len() + label.len()).map_err(|_| NoSuchHash)?;
        let context_len = u8::try_from(context.len()).map_err(|_| NoSuchHash)?;
        let info: [&[u8]; 6] = [&[hi, lo], &[label_len], LABEL_PREFIX, label, &[context_len], context];
        match self.0.len() {
            32 => expand::<Sha256>(&self.0, &info, out),
            _ => expand::<Sha384>(&self.0, &info, out),
        }
    }

    /// The secret of the same length under a label without context.
    fn derive(&self, label: &[u8], context: &[u8]) -> Result<Secret, NoSuchHash> {
        let mut next = Zeroizing::new(vec![0; self.0.len()]);
        self.expand_label(label, context, &mut next)?;
        Ok(Secret(next))
    }

    /// The traffic secret after this one (RFC 8446 7.2).
    pub(super) fn next_generation(&self) -> Result<Secret, NoSuchHash> {
        self.derive(b"traffic upd", b"")
    }

    /// With the exporter secret: keying material for an application (RFC 8446 7.5).
    pub(super) fn export(&self, label: &[u8], context: &[u8], out: &mut [u8]) -> Result<(), NoSuchHash> {
        self.derive(label, &self.hash(b""))?.expand_label(b"exporter", &self.hash(context), out)
    }

    fn hash(&self, data: &[u8]) -> Vec<u8> {
        match self.0.len() {
            32 => Sha256::digest(data).to_vec(),
            _ => Sha384::digest(data).to_vec(),
        }
    }
}

fn expand<H: EagerHash>(secret: &[u8], info: &[&[u8]], out: &mut [u8]) -> Result<(), NoSuchHash>
where
    Hmac<H>: Clone,
{
    let hkdf = Hkdf::<H>::from_prk(secret).map_err(|_| NoSuchHash)?;
    hkdf.expand_multi_info(info, out).map_err(|_| NoSuchHash)
}

/// The secrets that outlive the handshake.
#[derive(Clone, Default)]
pub(super) struct Secrets {
    /// Of what the client seals.
    pub(super) client: Option<Secret>,
    /// Of what the server seals.
    pub(super) server: Option<Secret>,
    /// Of keying material for applications.
    pub(super) exporter: Option<Secret>,
}

/// Takes the secrets of one session from rustls, which has no other way to tell them.
#[derive(Clone, Default)]
pub(super) struct Capture(Arc<Mutex<Secrets>>);

impl Capture {
    /// What has been captured; nothing is left here.
    pub(super) fn take(&self) -> Secrets {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl KeyLog for Capture {
    fn log(&self, label: &str, _client_random: &[u8], secret: &[u8]) {
        let mut secrets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let place = match label {
            "CLIENT_TRAFFIC_SECRET_0" => &mut secrets.client,
            "SERVER_TRAFFIC_SECRET_0" => &mut secrets.server,
            "EXPORTER_SECRET" => &mut secrets.exporter,
            _ => return,
        };
        *place = Secret::new(secret).ok();
    }

    fn will_log(&self, label: &str) -> bool {
        matches!(label, "CLIENT_TRAFFIC_SECRET_0" | "SERVER_TRAFFIC_SECRET_0" | "EXPORTER_SECRET")
    }
}

impl fmt::Debug for Capture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Capture")
    }
}
