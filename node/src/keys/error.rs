//! What can be wrong with key files.

use std::io;
use std::path::PathBuf;

use onionring_proto::crypto::rsa::RsaError;
use onionring_proto::link::cert::CertError;
use thiserror::Error;

use crate::private_dir::PrivateDirError;

/// Why keys could not be loaded or saved. Whatever it is, no file has been changed that was there before.
#[derive(Debug, Error)]
pub enum KeyError {
    /// The directory.
    #[error(transparent)]
    Directory(#[from] PrivateDirError),
    /// A file cannot be read.
    #[error("cannot read key file {}: {source}; check who owns it and who may read it", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file cannot be written.
    #[error("cannot write key file {}: {source}; check the space on the disk and who owns the directory", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file is empty, as a full disk or a crash leaves it.
    #[error("key file {} is empty; restore it from a backup, or delete it to have a new key made", .0.display())]
    Empty(PathBuf),
    /// A file is not what its name says.
    #[error("key file {} is damaged or of another kind: {what}; restore it from a backup", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// An RSA key cannot be used.
    #[error("key file {} holds no RSA key that can be used: {source}; restore it from a backup", path.display())]
    Rsa {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: RsaError,
    },
    /// A certificate cannot be used.
    #[error("certificate {} cannot be used: {source}; restore it and the signing key from one backup, or delete \
             both if the master key is here", path.display())]
    Cert {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: CertError,
    },
    /// Two files belong to different relays.
    #[error(
        "{} and {} do not belong together; did a restore mix up two relays? Put back the files of one relay",
        one.display(), other.display()
    )]
    Mismatch {
        /// A file.
        one: PathBuf,
        /// The file that contradicts it.
        other: PathBuf,
    },
    /// One of the two identities is gone. A new one beside the other would be refused by the authorities for good.
    #[error(
        "{} is missing although the relay's other keys are there; restore it from a backup, or move the whole key \
         directory away to start as a new relay", .0.display()
    )]
    HalfIdentity(PathBuf),
    /// The RSA identity is the known one, and the Ed25519 identity is another or gone.
    #[error(
        "the RSA identity in {} is the one in {}/fingerprint, but the Ed25519 identity (ed25519_master_id_public_key, \
         ed25519_signing_cert) is not the one in {}/fingerprint-ed25519, and directory authorities refuse one without \
         the other; put back the ed25519_* files of this relay from a backup, or move the whole key directory and both \
         fingerprint files away to start as a new relay",
        keys.display(), data_directory.display(), data_directory.display()
    )]
    OtherEd25519 {
        /// The key directory.
        keys: PathBuf,
        /// The directory of the fingerprint files.
        data_directory: PathBuf,
    },
    /// The Ed25519 identity is the known one, and the RSA identity is another.
    #[error(
        "the Ed25519 identity in {} is the one in {}/fingerprint-ed25519, but the RSA identity (secret_id_key) is not \
         the one in {}/fingerprint, and directory authorities refuse one without the other; put back secret_id_key of \
         this relay from a backup, or move the whole key directory and both fingerprint files away to start as a new \
         relay",
        keys.display(), data_directory.display(), data_directory.display()
    )]
    OtherRsa {
        /// The key directory.
        keys: PathBuf,
        /// The directory of the fingerprint files.
        data_directory: PathBuf,
    },
    /// The signing key is missing or has expired, and the master key that could make one is not here.
    #[error(
        "a new signing key is needed ({why}), but {}; make one with `tor --keygen` where the master key is, and copy \
         ed25519_signing_secret_key and ed25519_signing_cert here", master.reason()
    )]
    MasterNeeded {
        /// Why a new signing key is needed.
        why: &'static str,
        /// Where the master key is.
        master: MasterAway,
    },
    /// No key could be made.
    #[error("cannot make a new RSA key: {0}")]
    Generate(RsaError),
}

/// Why the Ed25519 master key is not at hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MasterAway {
    /// `OfflineMasterKey` is set.
    Offline,
    /// It is encrypted with a passphrase.
    Encrypted(PathBuf),
    /// Its file is not there.
    Missing(PathBuf),
}

impl MasterAway {
    fn reason(&self) -> String {
        match self {
            MasterAway::Offline => "OfflineMasterKey keeps the master key elsewhere".to_owned(),
            MasterAway::Encrypted(path) => {
                format!("the master key {} is encrypted with a passphrase", path.display())
            }
            MasterAway::Missing(path) => format!("the master key {} is not here", path.display()),
        }
    }
}
