//! A relay's keys on disk, in C tor's files, so that the two programs can take over from each other.
//!
//! Under the key directory: `secret_id_key` (RSA identity), `ed25519_master_id_secret_key` and `_public_key`,
//! `ed25519_signing_secret_key` and `ed25519_signing_cert`, `secret_onion_key_ntor`, `secret_onion_key` (the dummy for
//! descriptors that must still have one), the last two also with `.old` for the grace period. Under the data directory:
//! `fingerprint` and `fingerprint-ed25519`.
//!
//! Rules: what is there and cannot be used is an error and stays as it is; what is missing is made, unless that would
//! tear an identity in half; every file is replaced whole or not at all. A relay has two identities, and authorities
//! refuse for good one that shows the first with another second: the fingerprint files remember the pair.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use onionring_proto::crypto::ed25519::Ed25519Pair;
use onionring_proto::crypto::rsa::RsaPrivate;
use onionring_proto::handshake::OnionKey;
use onionring_proto::link::PeerIdentity;
use onionring_proto::link::cert::{self, CertError, CertType, Certified, UnverifiedCert};
use onionring_proto::time::Unix;
use rand_core::CryptoRng;
use zeroize::Zeroizing;

use crate::limits::KEY_FILE_BYTES;
use crate::{atomic_file, private_dir};

mod error;
mod fingerprint;
mod format;

pub use error::{KeyError, MasterAway};
pub use fingerprint::{ed25519_fingerprint, known_identity, rsa_fingerprint, write_fingerprints};

#[cfg(test)]
mod tests;

/// Bits of a relay's RSA keys (tor-spec 1.1).
const RSA_BITS: usize = 1024;

/// Permissions of a key file.
const MODE: u32 = 0o600;

const RSA_IDENTITY: &str = "secret_id_key";
const MASTER_SECRET: &str = "ed25519_master_id_secret_key";
const MASTER_ENCRYPTED: &str = "ed25519_master_id_secret_key_encrypted";
const MASTER_PUBLIC: &str = "ed25519_master_id_public_key";
const SIGNING_SECRET: &str = "ed25519_signing_secret_key";
const SIGNING_CERT: &str = "ed25519_signing_cert";
const ONION: &str = "secret_onion_key_ntor";
const ONION_OLD: &str = "secret_onion_key_ntor.old";
const TAP: &str = "secret_onion_key";
const TAP_OLD: &str = "secret_onion_key.old";

/// The keys of a running relay.
pub struct RelayKeys {
    /// The RSA identity, whose digest is the fingerprint.
    pub rsa_identity: RsaPrivate,
    /// The Ed25519 identity. Its secret stays on disk, and may be elsewhere.
    pub ed_identity: [u8; 32],
    /// The key that signs for the Ed25519 identity.
    pub signing: Ed25519Pair,
    /// The certificate (type 4) by which the identity vouches for `signing`.
    pub signing_cert: Vec<u8>,
    /// The last second in which `signing_cert` is valid.
    pub signing_expires: Unix,
    /// The onion key.
    pub onion: OnionKey,
    /// The onion key before it, while it is still accepted.
    pub previous_onion: Option<OnionKey>,
    /// When `onion` came into use.
    pub onion_since: Unix,
    /// The RSA onion key for descriptors, replaced together with `onion`. Nothing is ever decrypted with it.
    pub tap: RsaPrivate,
}

/// What an operator can say about keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyOptions {
    /// `KeyDirectoryGroupReadable`.
    pub group_readable: bool,
    /// `OfflineMasterKey`: never make or read the master secret.
    pub offline_master: bool,
    /// `SigningKeyLifetime`.
    pub signing_lifetime: Duration,
    /// `TestingSigningKeySlop`: how long before its end a signing key is replaced.
    pub signing_slop: Duration,
}

impl Default for KeyOptions {
    /// C tor's defaults.
    fn default() -> Self {
        let day = Duration::from_secs(86_400);
        KeyOptions {
            group_readable: false,
            offline_master: false,
            signing_lifetime: 30 * day,
            signing_slop: day,
        }
    }
}

/// A relay's key directory.
#[derive(Debug)]
pub struct KeyStore {
    directory: PathBuf,
    options: KeyOptions,
    /// The identities by which this relay was known, and the directory of the files that say so.
    known: Option<(PeerIdentity, PathBuf)>,
}

impl KeyStore {
    /// Opens the directory, making it if it is missing and closing it to others.
    pub fn open(directory: &Path, options: KeyOptions) -> Result<KeyStore, KeyError> {
        private_dir::ensure(directory, options.group_readable)?;
        Ok(KeyStore { directory: directory.to_owned(), options, known: None })
    }

    /// Loads no keys that have one of the two identities of the fingerprint files in this data directory and not the
    /// other, if both files are there.
    pub fn guarded_by(mut self, data_directory: &Path) -> KeyStore {
        self.known = known_identity(data_directory).map(|known| (known, data_directory.to_owned()));
        self
    }

    /// Loads the keys. What is missing is made and saved: everything on a first start, the signing key when it is about
    /// to expire and the master key is here, onion keys always.
    pub fn load_or_create(&self, now: Unix, rng: &mut impl CryptoRng) -> Result<RelayKeys, KeyError> {
        // Everything that is there is read before anything is written.
        let rsa = self.read_rsa(RSA_IDENTITY)?;
        let master = self.read_master()?;
        let signing = self.read_signing(master.public, now)?;
        let onion = self.read_onion(ONION)?;
        let previous_onion = self.read_onion(ONION_OLD)?;
        let tap = self.read_rsa(TAP)?;

        let has_ed_identity = master.public.is_some() || !matches!(signing, Signing::Missing);
        if rsa.is_none() && has_ed_identity {
            return Err(KeyError::HalfIdentity(self.path(RSA_IDENTITY)));
        }
        let ed_identity = match &signing {
            Signing::Good(signing) => Some(signing.identity),
            _ => master.public,
        };
        self.check_pair(rsa.as_ref().map(|key| key.public().rsa_id()), ed_identity)?;
        let onion_since = self.modified(ONION, now);

        let rsa_identity = match rsa {
            Some(key) => key,
            None => self.make_rsa(RSA_IDENTITY, rng)?,
        };
        let signing = match signing {
            Signing::Good(signing) => {
                if !self.exists(MASTER_PUBLIC) {
                    // C tor infers it from the certificate, too.
                    self.write(MASTER_PUBLIC, &format::MASTER_PUBLIC.encode(&signing.identity))?;
                }
                *signing
            }
            Signing::Missing => self.make_signing(master, "there is none", now, rng)?,
            Signing::Expired => self.make_signing(master, "the present one has expired", now, rng)?,
            Signing::Unrelated => {
                self.make_signing(master, "the present one does not fit its certificate", now, rng)?
            }
        };
        let onion = match onion {
            Some(key) => key,
            None => self.make_onion(rng)?,
        };
        let tap = match tap {
            Some(key) => key,
            None => self.make_rsa(TAP, rng)?,
        };
        let mut keys = RelayKeys {
            rsa_identity,
            ed_identity: signing.identity,
            signing: signing.key,
            signing_cert: signing.cert,
            signing_expires: signing.expires,
            onion,
            previous_onion,
            onion_since,
            tap,
        };
        if self.signing_is_due(&keys, now) {
            // The present key is good for a while: without the master key, go on with it.
            match self.renew_signing(&mut keys, now, rng) {
                Ok(()) | Err(KeyError::MasterNeeded { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(keys)
    }

    /// The digest of the RSA identity and the Ed25519 identity, without making or changing anything: for a look at the
    /// directory of a running relay. `None` if either is missing.
    pub fn identities(&self) -> Result<Option<PeerIdentity>, KeyError> {
        let rsa = self.read_rsa(RSA_IDENTITY)?.map(|key| key.public().rsa_id());
        let ed = self.read_master()?.public;
        Ok(rsa.zip(ed).map(|(rsa_id, ed_id)| PeerIdentity { rsa_id, ed_id }))
    }

    /// Whether the signing key should be replaced soon. After [`load_or_create`](Self::load_or_create) it can only be if
    /// the master key is elsewhere; the operator must act before `signing_expires`.
    pub fn signing_is_due(&self, keys: &RelayKeys, now: Unix) -> bool {
        keys.signing_expires - self.options.signing_slop <= now
    }

    /// Replaces the signing key and its certificate: by what is on disk, if the operator has put there what lasts
    /// longer (which is how a relay with an offline master key lives on), or else by new ones.
    pub fn renew_signing(
        &self,
        keys: &mut RelayKeys,
        now: Unix,
        rng: &mut impl CryptoRng,
    ) -> Result<(), KeyError> {
        let master = self.read_master()?;
        if master.public.is_some_and(|public| public != keys.ed_identity) {
            return Err(self.mismatch(MASTER_PUBLIC, SIGNING_CERT));
        }
        let new = match self.read_signing(Some(keys.ed_identity), now)? {
            Signing::Good(there) if there.expires > keys.signing_expires => *there,
            _ => self.make_signing(master, "the present one expires soon", now, rng)?,
        };
        (keys.signing, keys.signing_cert, keys.signing_expires) = (new.key, new.cert, new.expires);
        Ok(())
    }

    /// Makes new onion keys and keeps the present ones as the previous ones. On an error the keys in memory are unchanged,
    /// and those on disk are the present ones, possibly also under `.old`.
    pub fn rotate_onion(
        &self,
        keys: &mut RelayKeys,
        now: Unix,
        rng: &mut impl CryptoRng,
    ) -> Result<(), KeyError> {
        let tap = RsaPrivate::generate(RSA_BITS, rng).map_err(KeyError::Generate)?;
        let onion = OnionKey::generate(rng);
        self.write_all(&[
            (TAP_OLD, keys.tap.to_pem().as_bytes()),
            (ONION_OLD, &format::encode_onion_key(&keys.onion)),
            (TAP, tap.to_pem().as_bytes()),
            (ONION, &format::encode_onion_key(&onion)),
        ])?;
        keys.previous_onion = Some(std::mem::replace(&mut keys.onion, onion));
        keys.onion_since = now;
        keys.tap = tap;
        Ok(())
    }

    /// Forgets the previous onion keys.
    pub fn forget_previous_onion(&self, keys: &mut RelayKeys) -> Result<(), KeyError> {
        keys.previous_onion = None;
        for name in [TAP_OLD, ONION_OLD] {
            match fs::remove_file(self.path(name)) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    return Err(KeyError::Write { path: self.path(name), source });
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Refuses to tear the known pair of identities apart; `None` is an identity that would be made now.
    fn check_pair(&self, rsa_id: Option<[u8; 20]>, ed_id: Option<[u8; 32]>) -> Result<(), KeyError> {
        let Some((known, data_directory)) = &self.known else { return Ok(()) };
        let data_directory = data_directory.clone();
        let keys = self.directory.clone();
        match (rsa_id == Some(known.rsa_id), ed_id == Some(known.ed_id)) {
            (true, false) => Err(KeyError::OtherEd25519 { keys, data_directory }),
            (false, true) => Err(KeyError::OtherRsa { keys, data_directory }),
            // The known relay, or all of another one.
            (true, true) | (false, false) => Ok(()),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn exists(&self, name: &str) -> bool {
        // A file that cannot be looked at is there as far as making a new one goes.
        self.path(name).try_exists().unwrap_or(true)
    }

    fn mismatch(&self, one: &str, other: &str) -> KeyError {
        KeyError::Mismatch { one: self.path(one), other: self.path(other) }
    }

    /// The content of a key file; `None` if there is no such file.
    fn read(&self, name: &str) -> Result<Option<Zeroizing<Vec<u8>>>, KeyError> {
        let path = self.path(name);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(KeyError::Read { path, source }),
        };
        // Reserved at once, so that no copy of a secret is left behind by growing.
        let mut content = Zeroizing::new(Vec::with_capacity(KEY_FILE_BYTES as usize + 1));
        if let Err(source) = file.take(KEY_FILE_BYTES + 1).read_to_end(&mut content) {
            return Err(KeyError::Read { path, source });
        }
        if content.is_empty() {
            return Err(KeyError::Empty(path));
        }
        if content.len() as u64 > KEY_FILE_BYTES {
            let what = format!("it is longer than {KEY_FILE_BYTES} bytes");
            return Err(KeyError::Malformed { path, what });
        }
        Ok(Some(content))
    }

    /// Reads a file and gives it to `parse`, which says what is wrong with it.
    fn read_as<T>(
        &self,
        name: &str,
        parse: impl FnOnce(&[u8]) -> Result<T, String>,
    ) -> Result<Option<T>, KeyError> {
        let Some(content) = self.read(name)? else { return Ok(None) };
        parse(&content).map(Some).map_err(|what| KeyError::Malformed { path: self.path(name), what })
    }

    fn read_rsa(&self, name: &str) -> Result<Option<RsaPrivate>, KeyError> {
        let Some(content) = self.read(name)? else { return Ok(None) };
        let path = self.path(name);
        // C tor writes the NUL at the end of its string, too.
        let pem = content.split(|&byte| byte == 0).next().unwrap_or(&[]);
        let Ok(pem) = std::str::from_utf8(pem) else {
            return Err(KeyError::Malformed { path, what: "it is not PEM".to_owned() });
        };
        let key = match RsaPrivate::from_pem(pem) {
            Ok(key) => key,
            Err(source) => return Err(KeyError::Rsa { path, source }),
        };
        let bits = key.public().bits();
        if bits != RSA_BITS {
            let what = format!("an RSA key of {bits} bits where relays have {RSA_BITS}");
            return Err(KeyError::Malformed { path, what });
        }
        Ok(Some(key))
    }

    fn read_onion(&self, name: &str) -> Result<Option<OnionKey>, KeyError> {
        self.read_as(name, format::onion_key)
    }

    fn read_master(&self) -> Result<Master, KeyError> {
        let public = self.read_as(MASTER_PUBLIC, |f| format::MASTER_PUBLIC.decode_exact(f).copied())?;
        if self.options.offline_master {
            return Ok(Master { public, secret: Err(MasterAway::Offline) });
        }
        match self.read_as(MASTER_SECRET, |f| format::ed25519_secret(format::MASTER_SECRET, f))? {
            Some(secret) if public.is_some_and(|public| public != secret.public()) => {
                Err(self.mismatch(MASTER_SECRET, MASTER_PUBLIC))
            }
            Some(secret) => Ok(Master { public: Some(secret.public()), secret: Ok(secret) }),
            None if self.exists(MASTER_ENCRYPTED) => {
                Ok(Master { public, secret: Err(MasterAway::Encrypted(self.path(MASTER_ENCRYPTED))) })
            }
            None => Ok(Master { public, secret: Err(MasterAway::Missing(self.path(MASTER_SECRET))) }),
        }
    }

    fn read_signing(&self, identity: Option<[u8; 32]>, now: Unix) -> Result<Signing, KeyError> {
        let key = self.read_as(SIGNING_SECRET, |f| format::ed25519_secret(format::SIGNING_SECRET, f))?;
        let cert = self.read_as(SIGNING_CERT, |f| format::SIGNING_CERT.decode(f).map(<[u8]>::to_vec))?;
        let Some(cert) = cert else { return Ok(Signing::Missing) };
        let bad = |source| KeyError::Cert { path: self.path(SIGNING_CERT), source };
        let parsed = UnverifiedCert::parse(&cert).map_err(bad)?;
        let signer = parsed.claimed_signing_key().map_err(bad)?;
        if identity.is_some_and(|identity| identity != signer) {
            return Err(self.mismatch(SIGNING_CERT, MASTER_PUBLIC));
        }
        let verified = match parsed.verify(CertType::IDENTITY_V_SIGNING, &signer, now) {
            Ok(verified) => verified,
            Err(CertError::Expired { .. }) => return Ok(Signing::Expired),
            Err(source) => return Err(bad(source)),
        };
        Ok(match key {
            None => Signing::Missing,
            // An interrupted renewal can leave this behind.
            Some(key) if verified.certified != Certified::Ed25519(key.public()) => Signing::Unrelated,
            Some(key) => {
                Signing::Good(Box::new(SigningKey { identity: signer, key, cert, expires: verified.expires }))
            }
        })
    }

    /// Makes a signing key for the identity, and the identity as well if there is none.
    fn make_signing(
        &self,
        master: Master,
        why: &'static str,
        now: Unix,
        rng: &mut impl CryptoRng,
    ) -> Result<SigningKey, KeyError> {
        let secret = match (master.secret, master.public) {
            (Ok(secret), _) => secret,
            (Err(MasterAway::Missing(_)), None) if !self.exists(SIGNING_CERT) => Ed25519Pair::generate(rng),
            (Err(master), _) => return Err(KeyError::MasterNeeded { why, master }),
        };
        let identity = secret.public();
        let key = Ed25519Pair::generate(rng);
        let end = now + self.options.signing_lifetime;
        let cert = cert::build(CertType::IDENTITY_V_SIGNING, Certified::Ed25519(key.public()), end, &secret);
        let expires = UnverifiedCert::parse(&cert)
            .and_then(|cert| cert.verify(CertType::IDENTITY_V_SIGNING, &identity, now))
            .map_err(|source| KeyError::Cert { path: self.path(SIGNING_CERT), source })?
            .expires;
        let files = [
            (MASTER_SECRET, format::MASTER_SECRET.encode(secret.expanded())),
            (MASTER_PUBLIC, format::MASTER_PUBLIC.encode(&identity)),
            (SIGNING_SECRET, format::SIGNING_SECRET.encode(key.expanded())),
            (SIGNING_CERT, format::SIGNING_CERT.encode(&cert)),
        ];
        let master_is_saved =
            |name: &str| [MASTER_SECRET, MASTER_PUBLIC].contains(&name) && self.exists(name);
        let missing: Vec<_> = files.iter().filter(|(name, _)| !master_is_saved(name)).collect();
        let contents: Vec<(&str, &[u8])> =
            missing.iter().map(|(name, file)| (*name, file.as_slice())).collect();
        self.write_all(&contents)?;
        Ok(SigningKey { identity, key, cert, expires })
    }

    fn make_rsa(&self, name: &str, rng: &mut impl CryptoRng) -> Result<RsaPrivate, KeyError> {
        let key = RsaPrivate::generate(RSA_BITS, rng).map_err(KeyError::Generate)?;
        self.write(name, key.to_pem().as_bytes())?;
        Ok(key)
    }

    fn make_onion(&self, rng: &mut impl CryptoRng) -> Result<OnionKey, KeyError> {
        let key = OnionKey::generate(rng);
        self.write(ONION, &format::encode_onion_key(&key))?;
        Ok(key)
    }

    fn write(&self, name: &str, content: &[u8]) -> Result<(), KeyError> {
        self.write_all(&[(name, content)])
    }

    /// Writes several files: all contents to disk first, then into place one by one, so that a full disk changes none.
    fn write_all(&self, files: &[(&str, &[u8])]) -> Result<(), KeyError> {
        let paths: Vec<_> = files.iter().map(|(name, _)| self.path(name)).collect();
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| KeyError::Write { path, source }
        };
        let mut prepared = Vec::new();
        for ((_, content), path) in files.iter().zip(&paths) {
            prepared.push((path, atomic_file::prepare(path, content, MODE).map_err(failed(path))?));
        }
        for (path, file) in prepared {
            file.commit().map_err(failed(path))?;
        }
        Ok(())
    }

    /// When a file was last written; `now` if that is unknown or in the future. This is how the age of the onion key
    /// survives a restart.
    fn modified(&self, name: &str, now: Unix) -> Unix {
        let since_epoch = fs::metadata(self.path(name))
            .and_then(|metadata| metadata.modified())
            .ok()
            .and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        since_epoch.map_or(now, |since| Unix(since.as_secs()).min(now))
    }
}

/// The Ed25519 master key, as far as it is here.
struct Master {
    public: Option<[u8; 32]>,
    secret: Result<Ed25519Pair, MasterAway>,
}

/// A signing key with its certificate.
struct SigningKey {
    identity: [u8; 32],
    key: Ed25519Pair,
    cert: Vec<u8>,
    expires: Unix,
}

/// The state of the signing key on disk.
enum Signing {
    /// It and its certificate are there and good.
    Good(Box<SigningKey>),
    /// At least one is not there.
    Missing,
    /// The certificate has expired.
    Expired,
    /// The certificate is the identity's, but for another key.
    Unrelated,
}
