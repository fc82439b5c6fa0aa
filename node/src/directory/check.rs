//! Judging what directory servers send: nothing is kept that is malformed, not signed as it must be, or not asked for.
//!
//! Pure and, for the public network's documents, slow (seconds of signature checks): to be run off the threads that
//! must not wait.

use std::collections::{BTreeMap, BTreeSet};

use crate::compress::{EncodeError, Encoding};
use onionring_proto::netdoc::authcert::{AuthCert, CertStore};
use onionring_proto::netdoc::consensus::{Consensus, Flavor, Lifetime, Shortfall, UnverifiedConsensus};
use onionring_proto::netdoc::extrainfo::{ExtraInfo, ExtraInfoMismatch};
use onionring_proto::netdoc::microdesc::{Microdesc, MicrodescDigest};
use onionring_proto::netdoc::routerdesc::{RouterDesc, split_documents};
use onionring_proto::netdoc::text::Fingerprint;
use onionring_proto::netdoc::{self, DocError};
use onionring_proto::time::Unix;
use thiserror::Error;

use super::snapshot::StoredConsensus;
use super::spool::Blob;

/// Why a document was not kept.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Unfit {
    /// It does not parse, or a signature within it is wrong.
    #[error(transparent)]
    Malformed(#[from] DocError),
    /// Nobody asked for it: no consensus names it.
    #[error("it was not asked for")]
    Unasked,
    /// It is over.
    #[error("it has expired")]
    Expired,
    /// It does not go with the descriptor that names it.
    #[error(transparent)]
    Mismatch(#[from] ExtraInfoMismatch),
}

/// What became of an answer with several documents.
#[derive(Clone, Debug)]
pub struct Checked<T> {
    /// Those to keep, with their texts.
    pub fit: Vec<(T, Blob)>,
    /// How many others there were.
    pub unfit: usize,
    /// What is wrong with the first of the others.
    pub fault: Option<Unfit>,
}

impl<T> Checked<T> {
    fn gather<'a>(judged: impl Iterator<Item = (&'a str, Result<T, Unfit>)>) -> Self {
        let mut checked = Checked { fit: Vec::new(), unfit: 0, fault: None };
        for (text, result) in judged {
            match result {
                Ok(document) => checked.fit.push((document, Blob::from(text.as_bytes()))),
                Err(fault) => {
                    checked.unfit += 1;
                    checked.fault.get_or_insert(fault);
                }
            }
        }
        checked
    }
}

/// Certificates of the authorities in `authorities`.
pub fn certs(text: &str, authorities: &[Fingerprint], now: Unix) -> Checked<AuthCert> {
    Checked::gather(AuthCert::parse_all(text).map(|(text, cert)| {
        let cert = cert.map_err(Unfit::from).and_then(|cert| match () {
            () if !authorities.contains(&cert.identity) => Err(Unfit::Unasked),
            () if cert.expires < now => Err(Unfit::Expired),
            () => Ok(cert),
        });
        (text, cert)
    }))
}

/// Router descriptors with the digests in `wanted`.
pub fn descriptors(text: &str, wanted: &BTreeSet<Fingerprint>) -> Checked<RouterDesc> {
    Checked::gather(split_documents(text).map(|text| {
        let descriptor = RouterDesc::parse(text).map_err(Unfit::from);
        (text, descriptor.and_then(|d| if wanted.contains(&d.digest) { Ok(d) } else { Err(Unfit::Unasked) }))
    }))
}

/// Extra-infos with the digests in `wanted`, each of which comes with the text of the descriptor that names it.
pub fn extra_infos(text: &str, wanted: &BTreeMap<Fingerprint, Blob>) -> Checked<ExtraInfo> {
    Checked::gather(split_documents(text).map(|text| {
        let judge = || {
            let extra = ExtraInfo::parse(text)?;
            let descriptor = wanted.get(&extra.digests.sha1).ok_or(Unfit::Unasked)?;
            extra.check_with(&RouterDesc::parse(netdoc::text_of(descriptor)?)?)?;
            Ok(extra)
        };
        (text, judge())
    }))
}

/// Microdescriptors with the digests in `wanted`.
pub fn microdescs(text: &str, wanted: &BTreeSet<MicrodescDigest>) -> Checked<Microdesc> {
    Checked::gather(Microdesc::parse_all(text).map(|(text, microdesc)| {
        let microdesc = microdesc.map_err(Unfit::from);
        (text, microdesc.and_then(|m| if wanted.contains(&m.digest) { Ok(m) } else { Err(Unfit::Unasked) }))
    }))
}

/// Why a consensus was not taken.
#[derive(Debug, Error)]
pub enum ConsensusUnfit {
    /// It does not parse.
    #[error(transparent)]
    Malformed(#[from] DocError),
    /// It is of the other flavour.
    #[error("it is of another flavour than was asked for")]
    Flavor,
    /// It is too old or from the future. The clock of one of us is wrong.
    #[error("it is more than a day outside its time; check this machine's clock")]
    NotLive(Lifetime),
    /// What we have is as new or newer.
    #[error("it is no newer than the one at hand")]
    NotNewer,
    /// Too few authorities signed it, as far as our certificates tell.
    #[error(transparent)]
    Signatures(#[from] Shortfall),
    /// There is no memory to compress it.
    #[error(transparent)]
    Encode(#[from] EncodeError),
}

/// A consensus to keep.
#[derive(Clone, Debug)]
pub struct CheckedConsensus {
    /// What it says.
    pub consensus: Consensus,
    /// Its text, in the encodings in which it is kept.
    pub stored: StoredConsensus,
}

/// A consensus newer than `newer_than`, signed by more than half of `authorities`, ready to be served in `encodings`.
pub fn consensus(
    text: &str,
    flavor: Flavor,
    newer_than: Option<Unix>,
    authorities: &[Fingerprint],
    certs: &CertStore,
    encodings: &[Encoding],
    now: Unix,
) -> Result<CheckedConsensus, ConsensusUnfit> {
    let unverified = UnverifiedConsensus::parse(text)?;
    let claims = unverified.peek();
    if claims.flavor != flavor {
        return Err(ConsensusUnfit::Flavor);
    }
    if !claims.lifetime.is_reasonably_live(now) {
        return Err(ConsensusUnfit::NotLive(claims.lifetime));
    }
    if newer_than.is_some_and(|held| claims.lifetime.valid_after <= held) {
        return Err(ConsensusUnfit::NotNewer);
    }
    let consensus = unverified.verify(authorities, certs, now)?;
    let stored = StoredConsensus::new(text, &consensus, encodings)?;
    Ok(CheckedConsensus { consensus, stored })
}

#[cfg(test)]
mod tests;
