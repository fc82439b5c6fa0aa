//! The records of a TLS 1.3 session whose handshake is over (RFC 8446 5), opened and sealed where they lie.
//!
//! A session through rustls copies every byte four times more than it must: into the session's own buffer, out of it,
//! out of that again, and into the record that it seals; and takes three allocations a record for it. For what a relay
//! does that was a tenth of all its CPU time. So rustls makes the handshake and everything of TLS 1.2, and what is left
//! of TLS 1.3 after the handshake is here: application data, alerts, and KeyUpdate. The ciphers are ring's, as in rustls.

use ring::aead::{
    AES_128_GCM, AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey,
};
use rustls::{
    AlertDescription, CipherSuite, ConnectionTrafficSecrets, ContentType, ExtractedSecrets, HandshakeType,
    InvalidMessage, PeerMisbehaved,
};

use super::secrets::{NoSuchHash, Secret, Secrets};

#[cfg(test)]
mod tests;

/// `type (1) | legacy version (2) | length (2)`.
pub(super) const HEADER_LEN: usize = 5;

/// Plaintext that a record holds at most.
pub(super) const MAX_PLAINTEXT: usize = 1 << 14;

/// What a record's length says at most.
const MAX_CIPHERTEXT: usize = MAX_PLAINTEXT + 256;

const TAG_LEN: usize = 16;

/// Handshake messages after the handshake; a session ticket is the longest.
const MAX_MESSAGE: usize = 0xffff;

/// Records that may follow on each other without application data in any of them.
const MAX_FRUITLESS: u8 = 32;

/// Bytes of a handshake message before its content: `type (1) | length (3)`.
const MESSAGE_HEADER_LEN: usize = 4;

/// Which side of the session we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Client,
    Server,
}

/// How sessions of one cipher suite are sealed.
#[derive(Clone, Copy)]
struct Suite {
    aead: &'static Algorithm,
    /// Records under one key after which it must be replaced (RFC 8446 5.5).
    limit: u64,
}

impl Suite {
    fn new(suite: CipherSuite) -> Option<Suite> {
        match suite {
            CipherSuite::TLS13_AES_128_GCM_SHA256 => Some(Suite { aead: &AES_128_GCM, limit: 1 << 24 }),
            CipherSuite::TLS13_AES_256_GCM_SHA384 => Some(Suite { aead: &AES_256_GCM, limit: 1 << 24 }),
            CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => {
                Some(Suite { aead: &CHACHA20_POLY1305, limit: u64::MAX })
            }
            _ => None,
        }
    }
}

/// The keys of one direction.
struct Half {
    key: LessSafeKey,
    iv: [u8; 12],
    /// Records under this key so far.
    sequence: u64,
    secret: Secret,
}

impl Half {
    fn new(suite: Suite, secret: Secret) -> Result<Half, NoSuchHash> {
        let mut key = zeroize::Zeroizing::new([0; 32]);
        let key = &mut key[..suite.aead.key_len()];
        let mut iv = [0; 12];
        secret.expand_label(b"key", b"", key)?;
        secret.expand_label(b"iv", b"", &mut iv)?;
        let key = UnboundKey::new(suite.aead, key).map_err(|_| NoSuchHash)?;
        Ok(Half { key: LessSafeKey::new(key), iv, sequence: 0, secret })
    }

    /// Whether rustls has this key as well, and so far has used it for `sequence` records.
    fn continues(
        &mut self,
        (sequence, theirs): &(u64, ConnectionTrafficSecrets),
    ) -> Result<bool, NoSuchHash> {
        let mut ours = zeroize::Zeroizing::new([0; 32]);
        let ours = &mut ours[..self.key.algorithm().key_len()];
        self.secret.expand_label(b"key", b"", ours)?;
        self.sequence = *sequence;
        Ok(match theirs {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv }
            | ConnectionTrafficSecrets::Aes256Gcm { key, iv }
            | ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => {
                key.as_ref() == ours && iv.as_ref() == self.iv
            }
            _ => false,
        })
    }

    /// The nonce of the next record (RFC 8446 5.3).
    fn nonce(&mut self) -> Nonce {
        let mut nonce = self.iv;
        for (byte, sequence) in nonce[4..].iter_mut().zip(self.sequence.to_be_bytes()) {
            *byte ^= sequence;
        }
        self.sequence += 1;
        Nonce::assume_unique_for_key(nonce)
    }

    /// Goes on with the next key.
    fn update(&mut self, suite: Suite) -> Result<(), NoSuchHash> {
        *self = Half::new(suite, self.secret.next_generation()?)?;
        Ok(())
    }
}

/// How far the opening of a buffer has come.
#[derive(Default)]
pub(super) struct Progress {
    /// Bytes at the front that are plaintext now.
    pub(super) plaintext: usize,
    /// Bytes that were whole records; those after them are still to be opened, or begin a record whose end has not come.
    pub(super) used: usize,
}

/// A session after its handshake.
pub(super) struct Records {
    side: Side,
    suite: Suite,
    sealing: Half,
    opening: Half,
    exporter: Secret,
    /// The beginning of a handshake message whose end has not come.
    message: Vec<u8>,
    /// Records since the last application data.
    fruitless: u8,
    /// The peer asked for an update of our key.
    update_owed: bool,
    peer_has_closed: bool,
}

impl Records {
    /// Goes on where rustls stopped. `None` if its secrets are not those that it told before, or of a kind that is
    /// unknown here.
    pub(super) fn new(
        side: Side,
        suite: CipherSuite,
        secrets: Secrets,
        extracted: &ExtractedSecrets,
    ) -> Option<Records> {
        let suite = Suite::new(suite)?;
        let (sealing, opening) = match side {
            Side::Client => (secrets.client?, secrets.server?),
            Side::Server => (secrets.server?, secrets.client?),
        };
        let mut records = Records {
            side,
            suite,
            sealing: Half::new(suite, sealing).ok()?,
            opening: Half::new(suite, opening).ok()?,
            exporter: secrets.exporter?,
            message: Vec::new(),
            fruitless: 0,
            update_owed: false,
            peer_has_closed: false,
        };
        let same = records.sealing.continues(&extracted.tx).ok()?
            && records.opening.continues(&extracted.rx).ok()?;
        same.then_some(records)
    }

    /// Whether the peer has said that nothing more will come.
    pub(super) fn peer_has_closed(&self) -> bool {
        self.peer_has_closed
    }

    /// Keying material of the session (RFC 8446 7.5).
    pub(super) fn export(&self, label: &[u8], context: &[u8], out: &mut [u8]) -> Result<(), NoSuchHash> {
        self.exporter.export(label, context, out)
    }

    /// Opens the records in `buf` from where `progress` is, and puts their plaintext behind that which it knows. What has
    /// to be answered, an alert too, is sealed into `out`.
    pub(super) fn open(
        &mut self,
        buf: &mut [u8],
        progress: &mut Progress,
        out: &mut Vec<u8>,
    ) -> Result<(), rustls::Error> {
        self.open_all(buf, progress).map_err(|failure| {
            if let Some(description) = failure.alert {
                self.send_alert(description, out);
            }
            failure.error
        })
    }

    fn open_all(&mut self, buf: &mut [u8], progress: &mut Progress) -> Result<(), Failure> {
        while !self.peer_has_closed
            && let Some(len) = record_len(&buf[progress.used..])?
            && len <= buf.len() - progress.used
        {
            let record = &mut buf[progress.plaintext..progress.used + len];
            progress.plaintext += self.open_record(record, progress.used - progress.plaintext)?;
            progress.used += len;
        }
        Ok(())
    }

    /// Opens the record that starts at `from`, and ends with `buf`, to the front of `buf`. Returns the length of its
    /// application data.
    fn open_record(&mut self, buf: &mut [u8], from: usize) -> Result<usize, Failure> {
        let (_, record) = buf.split_at(from);
        let mut header = [0; HEADER_LEN];
        header.copy_from_slice(&record[..HEADER_LEN]);
        let nonce = self.opening.nonce();
        let inner = self.opening.key.open_within(nonce, Aad::from(header), buf, from + HEADER_LEN..);
        let inner =
            inner.map_err(|_| Failure::new(AlertDescription::BadRecordMac, rustls::Error::DecryptError))?;
        // The content, its type, and padding of zeros.
        let Some(len) = inner.iter().rposition(|&byte| byte != 0) else { return Err(Failure::unexpected()) };
        let (content, kind) = (&inner[..len], ContentType::from(inner[len]));
        if len > MAX_PLAINTEXT {
            return Err(Failure::too_long());
        }
        if kind != ContentType::Handshake && !self.message.is_empty() {
            return Err(Failure::unexpected());
        }
        self.fruitless = if kind == ContentType::ApplicationData && len > 0 { 0 } else { self.fruitless + 1 };
        if self.fruitless > MAX_FRUITLESS {
            let error = rustls::Error::PeerMisbehaved(PeerMisbehaved::TooManyEmptyFragments);
            return Err(Failure::new(AlertDescription::UnexpectedMessage, error));
        }
        match kind {
            ContentType::ApplicationData => return Ok(len),
            ContentType::Alert => self.alert(content)?,
            ContentType::Handshake => self.handshake(content)?,
            _ => return Err(Failure::unexpected()),
        }
        Ok(0)
    }

    fn alert(&mut self, content: &[u8]) -> Result<(), Failure> {
        let &[_level, description] = content else {
            let error = rustls::Error::InvalidMessage(InvalidMessage::MessageTooShort);
            return Err(Failure::new(AlertDescription::DecodeError, error));
        };
        match AlertDescription::from(description) {
            AlertDescription::CloseNotify => self.peer_has_closed = true,
            // A notice that close_notify follows.
            AlertDescription::UserCanceled => {}
            description => return Err(Failure::silent(rustls::Error::AlertReceived(description))),
        }
        Ok(())
    }

    fn handshake(&mut self, content: &[u8]) -> Result<(), Failure> {
        if content.is_empty() || self.message.len() + content.len() > MESSAGE_HEADER_LEN + MAX_MESSAGE {
            return Err(Failure::unexpected());
        }
        self.message.extend_from_slice(content);
        let mut all = std::mem::take(&mut self.message);
        let mut rest = &all[..];
        while let &[kind, a, b, c, ref tail @ ..] = rest {
            let len = u32::from_be_bytes([0, a, b, c]) as usize;
            if len > MAX_MESSAGE {
                return Err(Failure::unexpected());
            }
            let Some((body, tail)) = tail.split_at_checked(len) else { break };
            match (HandshakeType::from(kind), self.side) {
                // Keys change at the end of a record, or nobody could say which key the rest is under.
                (HandshakeType::KeyUpdate, _) if tail.is_empty() => self.key_update(body)?,
                // Sessions are never resumed.
                (HandshakeType::NewSessionTicket, Side::Client) => {}
                _ => return Err(Failure::unexpected()),
            }
            rest = tail;
        }
        let done = all.len() - rest.len();
        all.drain(..done);
        self.message = all;
        Ok(())
    }

    fn key_update(&mut self, body: &[u8]) -> Result<(), Failure> {
        match body {
            [0] => {}
            [1] => self.update_owed = true,
            _ => {
                let error = rustls::Error::InvalidMessage(InvalidMessage::InvalidKeyUpdate);
                return Err(Failure::new(AlertDescription::IllegalParameter, error));
            }
        }
        self.opening.update(self.suite).map_err(|NoSuchHash| Failure::unexpected())
    }

    /// Seals what `make` appends to `out` where it lies; returns how many bytes that was.
    pub(super) fn seal(&mut self, out: &mut Vec<u8>, make: impl FnOnce(&mut Vec<u8>)) -> usize {
        if self.update_owed || self.sealing.sequence >= self.suite.limit {
            self.update(out);
        }
        self.record(out, ContentType::ApplicationData, make)
    }

    /// Announces the end of what we send.
    pub(super) fn close(&mut self, out: &mut Vec<u8>) {
        self.send_alert(AlertDescription::CloseNotify, out);
    }

    fn update(&mut self, out: &mut Vec<u8>) {
        self.update_owed = false;
        let message = [HandshakeType::KeyUpdate.into(), 0, 0, 1, 0];
        self.record(out, ContentType::Handshake, |out| out.extend_from_slice(&message));
        // A secret of a length that just served serves again.
        let updated = self.sealing.update(self.suite);
        debug_assert!(updated.is_ok(), "the same hash and cipher as before");
    }

    fn send_alert(&mut self, description: AlertDescription, out: &mut Vec<u8>) {
        const WARNING: u8 = 1;
        const FATAL: u8 = 2;
        let level = if description == AlertDescription::CloseNotify { WARNING } else { FATAL };
        self.record(out, ContentType::Alert, |out| out.extend_from_slice(&[level, description.into()]));
    }

    /// Appends a record of what `make` appends, and more of them if it is more than one holds.
    fn record(&mut self, out: &mut Vec<u8>, kind: ContentType, make: impl FnOnce(&mut Vec<u8>)) -> usize {
        let start = out.len();
        out.extend_from_slice(&[0; HEADER_LEN]);
        make(out);
        let len = out.len() - start - HEADER_LEN;
        let excess =
            if len > MAX_PLAINTEXT { out.split_off(start + HEADER_LEN + MAX_PLAINTEXT) } else { Vec::new() };
        self.finish_record(out, start, kind);
        for piece in excess.chunks(MAX_PLAINTEXT) {
            let start = out.len();
            out.extend_from_slice(&[0; HEADER_LEN]);
            out.extend_from_slice(piece);
            self.finish_record(out, start, kind);
        }
        len
    }

    /// Seals the record at the end of `out` that starts at `start`, with room for its header and then its content; it is
    /// dropped if there is no content.
    fn finish_record(&mut self, out: &mut Vec<u8>, start: usize, kind: ContentType) {
        let content = start + HEADER_LEN;
        if out.len() == content {
            return out.truncate(start);
        }
        out.push(kind.into());
        let [hi, lo] = ((out.len() - content + TAG_LEN) as u16).to_be_bytes();
        let header = [ContentType::ApplicationData.into(), 3, 3, hi, lo];
        out[start..content].copy_from_slice(&header);
        let nonce = self.sealing.nonce();
        let tag = self.sealing.key.seal_in_place_separate_tag(nonce, Aad::from(header), &mut out[content..]);
        // ring refuses only what is longer than a counter reaches, gigabytes.
        out.extend_from_slice(tag.expect("a record is short enough for every cipher").as_ref());
    }
}

/// The length of the record that `buf` begins with, its header too; `None` if its header is not complete.
fn record_len(buf: &[u8]) -> Result<Option<usize>, Failure> {
    let &[kind, _, _, hi, lo, ..] = buf else { return Ok(None) };
    let len = usize::from(u16::from_be_bytes([hi, lo]));
    if ContentType::from(kind) != ContentType::ApplicationData {
        return Err(Failure::unexpected());
    }
    if len > MAX_CIPHERTEXT {
        return Err(Failure::too_long());
    }
    Ok(Some(HEADER_LEN + len))
}

/// Why the session cannot go on, and what the peer is told of it.
#[derive(Debug)]
struct Failure {
    alert: Option<AlertDescription>,
    error: rustls::Error,
}

impl Failure {
    fn new(alert: AlertDescription, error: rustls::Error) -> Failure {
        Failure { alert: Some(alert), error }
    }

    fn silent(error: rustls::Error) -> Failure {
        Failure { alert: None, error }
    }

    fn unexpected() -> Failure {
        let error = rustls::Error::InvalidMessage(InvalidMessage::UnexpectedMessage("after the handshake"));
        Failure::new(AlertDescription::UnexpectedMessage, error)
    }

    fn too_long() -> Failure {
        Failure::new(AlertDescription::RecordOverflow, rustls::Error::PeerSentOversizedRecord)
    }
}
