//! Why a link failed.

use thiserror::Error;

use super::cert::CertError;
use super::crosscert::CrossCertError;
use super::x509::X509Error;
use crate::cell::{Command, FrameError};
use crate::crypto::ed25519::BadSignature;
use crate::limits;
use crate::time::Unix;

/// Why a link is closed: what the peer did wrong, except for the last two variants.
///
/// There is no way to tell the peer: every one of these just closes the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum LinkError {
    /// The bytes cannot be a cell.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The peer sent more than [`limits::HANDSHAKE_BYTES`] without coming to the end of the handshake.
    #[error("more than {} bytes before the end of the link handshake", limits::HANDSHAKE_BYTES)]
    HandshakeTooLong,
    /// A cell that does not belong here, by its kind or by its place in the order.
    #[error("unexpected {0} cell")]
    UnexpectedCell(Command),
    /// A second cell of a kind that comes once.
    #[error("second {0} cell")]
    RepeatedCell(Command),
    /// A cell of the link handshake that names a circuit.
    #[error("{0} cell with a circuit ID other than 0")]
    NonzeroCircId(Command),
    /// The body of this cell does not have the right form.
    #[error("malformed {0} cell")]
    MalformedCell(Command),
    /// The peer speaks none of the link protocols we offered.
    #[error("no link protocol in common with the peer")]
    NoCommonVersion,
    /// Two certificates of one type in CERTS.
    #[error("two certificates of type {0} in CERTS")]
    DuplicateCert(u8),
    /// A certificate of this type is needed and absent from CERTS.
    #[error("no certificate of type {0} in CERTS")]
    MissingCert(u8),
    /// An Ed25519 certificate in CERTS is bad.
    #[error("certificate of type {cert_type} in CERTS: {error}")]
    BadCert {
        /// Its type in CERTS.
        cert_type: u8,
        /// What is wrong with it.
        error: CertError,
    },
    /// The X.509 certificate of the RSA identity is bad.
    #[error("RSA identity certificate in CERTS: {0}")]
    BadRsaIdentity(X509Error),
    /// The RSA identity does not vouch for the Ed25519 identity.
    #[error("CERTS: {0}")]
    BadCrossCert(CrossCertError),
    /// CERTS vouch for another TLS certificate than the one TLS showed: someone is in between.
    #[error("CERTS vouch for another TLS certificate than the peer presented")]
    TlsCertMismatch,
    /// There is no time at which all certificates hold.
    #[error("the peer's certificates hold at no time together")]
    CertTimes,
    /// The peer has another RSA identity than the one we wanted to reach.
    #[error("the peer has another RSA identity than expected")]
    WrongRsaIdentity,
    /// The peer has another Ed25519 identity than the one we wanted to reach.
    #[error("the peer has another Ed25519 identity than expected")]
    WrongEdIdentity,
    /// AUTHENTICATE of a type we did not offer.
    #[error("AUTHENTICATE of a type that was not offered")]
    AuthenticateType,
    /// A field of AUTHENTICATE differs from what we computed.
    #[error("field {0} of AUTHENTICATE is not what it should be")]
    AuthenticateField(&'static str),
    /// The signature of AUTHENTICATE does not verify.
    #[error("AUTHENTICATE: {0}")]
    AuthenticateSignature(BadSignature),
    /// TLS would not export the secret that binds AUTHENTICATE to the connection.
    #[error("the TLS session does not export keying material")]
    Exporter,
    /// The handshake has already failed or ended; nothing more can be given to it.
    #[error("the link handshake is already over")]
    Over,
}

impl LinkError {
    /// By how many seconds our clock is ahead of the time in which the peer's certificates hold, negative if it is behind;
    /// `None` if the failure has nothing to do with the time. Either of the two clocks may be wrong.
    pub fn clock_ahead(&self) -> Option<i64> {
        let (now, then) = self.cert_time()?;
        i64::try_from(i128::from(now.0) - i128::from(then.0)).ok()
    }

    /// The nearest time at which the certificate held that does not hold now; `None` for all other failures.
    pub(super) fn certs_held_at(&self) -> Option<Unix> {
        self.cert_time().map(|(_, then)| then)
    }

    fn cert_time(&self) -> Option<(Unix, Unix)> {
        match *self {
            LinkError::BadCert { error: CertError::Expired { expires, now }, .. }
            | LinkError::BadCrossCert(CrossCertError::Expired { expires, now }) => Some((now, expires)),
            LinkError::BadRsaIdentity(X509Error::Time { from, to, now }) => {
                Some((now, if now < from { from } else { to }))
            }
            _ => None,
        }
    }

    /// A short stable name for metrics.
    pub const fn label(&self) -> &'static str {
        match self {
            LinkError::Frame(FrameError::TooLong { .. }) => "cell_too_long",
            LinkError::Frame(FrameError::BeforeVersions(_)) => "cell_before_versions",
            LinkError::HandshakeTooLong => "handshake_too_long",
            LinkError::UnexpectedCell(_) => "unexpected_cell",
            LinkError::RepeatedCell(_) => "repeated_cell",
            LinkError::NonzeroCircId(_) => "nonzero_circ_id",
            LinkError::MalformedCell(_) => "malformed_cell",
            LinkError::NoCommonVersion => "no_common_version",
            LinkError::DuplicateCert(_) => "duplicate_cert",
            LinkError::MissingCert(_) => "missing_cert",
            LinkError::BadCert { .. } => "bad_cert",
            LinkError::BadRsaIdentity(_) => "bad_rsa_identity",
            LinkError::BadCrossCert(_) => "bad_cross_cert",
            LinkError::TlsCertMismatch => "tls_cert_mismatch",
            LinkError::CertTimes => "cert_times",
            LinkError::WrongRsaIdentity => "wrong_rsa_identity",
            LinkError::WrongEdIdentity => "wrong_ed25519_identity",
            LinkError::AuthenticateType => "authenticate_type",
            LinkError::AuthenticateField(_) => "authenticate_field",
            LinkError::AuthenticateSignature(_) => "authenticate_signature",
            LinkError::Exporter => "exporter",
            LinkError::Over => "over",
        }
    }
}
