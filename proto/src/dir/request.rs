//! Directory requests and the URLs they are made of (dir-spec 3.9, 4).

use crate::netdoc::consensus::Flavor;
use crate::netdoc::text::{self, Fingerprint};
use crate::time::Unix;

/// Descriptors and extra-infos in one request, at most (dir-spec 4.6).
pub const DESCRIPTORS_PER_REQUEST: usize = 96;
/// Microdescriptors in one request, at most (dir-spec 4.5).
pub const MICRODESCS_PER_REQUEST: usize = 92;
/// Certificates in one request, at most; networks have fewer authorities.
pub const CERTS_PER_REQUEST: usize = 32;

/// Bytes of a shortened authority identity in a consensus URL, as C tor writes it.
const SIGNER_PREFIX: usize = 3;

/// The header that names the consensuses from which a diff will do (dir-spec 4.5.2).
pub const DIFF_FROM_HEADER: &str = "X-Or-Diff-From-Consensus";

/// A consensus that need not be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AtHand {
    /// Its `valid-after`: a directory that has no newer one answers 304.
    pub valid_after: Unix,
    /// SHA3-256 of its signed part, if a directory that has a newer one may send the diff from it.
    pub diff_from: Option<[u8; 32]>,
}

/// A document to GET.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DirRequest {
    /// The current consensus.
    Consensus {
        /// Which one.
        flavor: Flavor,
        /// v3 identities of authorities of which more than half must have signed it.
        signers: Vec<Fingerprint>,
        /// The one at hand.
        at_hand: Option<AtHand>,
    },
    /// The newest certificates of these authorities.
    CertsById(Vec<Fingerprint>),
    /// Certificates for these pairs of authority and signing key.
    CertsBySigningKey(Vec<(Fingerprint, Fingerprint)>),
    /// Microdescriptors, by SHA-256.
    Microdescs(Vec<[u8; 32]>),
    /// Descriptors, by SHA-1.
    Descriptors(Vec<Fingerprint>),
    /// The newest descriptors of these relays, by identity.
    DescriptorsById(Vec<Fingerprint>),
    /// Extra-infos, by SHA-1.
    ExtraInfos(Vec<Fingerprint>),
}

impl DirRequest {
    /// The path to GET.
    pub fn path(&self) -> String {
        match self {
            DirRequest::Consensus { flavor, signers, .. } => {
                let name = match flavor {
                    Flavor::Ns => "consensus",
                    Flavor::Microdesc => "consensus-microdesc",
                };
                let mut signers: Vec<String> =
                    signers.iter().map(|s| text::hex_upper(&s.0[..SIGNER_PREFIX])).collect();
                signers.sort_unstable();
                let slash = if signers.is_empty() { "" } else { "/" };
                format!("/tor/status-vote/current/{name}{slash}{}", signers.join("+"))
            }
            DirRequest::CertsById(ids) => format!("/tor/keys/fp/{}", joined(ids)),
            DirRequest::CertsBySigningKey(pairs) => {
                let pairs: Vec<String> = pairs.iter().map(|(id, key)| format!("{id}-{key}")).collect();
                format!("/tor/keys/fp-sk/{}", pairs.join("+"))
            }
            DirRequest::Microdescs(digests) => {
                let digests: Vec<String> = digests.iter().map(|d| text::base64_unpadded(d)).collect();
                format!("/tor/micro/d/{}", digests.join("-"))
            }
            DirRequest::Descriptors(digests) => format!("/tor/server/d/{}", joined(digests)),
            DirRequest::DescriptorsById(ids) => format!("/tor/server/fp/{}", joined(ids)),
            DirRequest::ExtraInfos(digests) => format!("/tor/extra/d/{}", joined(digests)),
        }
    }

    /// What need not be sent again, if anything.
    pub fn at_hand(&self) -> Option<AtHand> {
        match self {
            DirRequest::Consensus { at_hand, .. } => *at_hand,
            _ => None,
        }
    }
}

fn joined(digests: &[Fingerprint]) -> String {
    digests.iter().map(Fingerprint::to_string).collect::<Vec<_>>().join("+")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_those_that_c_tor_asks_for() {
        let id = |n: u8| Fingerprint([n; 20]);
        let signers = vec![id(0xcc), id(0x0a)];
        let at_hand = Some(AtHand { valid_after: Unix(9), diff_from: None });
        let consensus = |flavor| DirRequest::Consensus { flavor, signers: signers.clone(), at_hand };
        assert_eq!(consensus(Flavor::Ns).path(), "/tor/status-vote/current/consensus/0A0A0A+CCCCCC");
        assert_eq!(
            consensus(Flavor::Microdesc).path(),
            "/tor/status-vote/current/consensus-microdesc/0A0A0A+CCCCCC"
        );
        assert_eq!(consensus(Flavor::Ns).at_hand(), at_hand);
        let (a, b) = ("01".repeat(20), "FF".repeat(20));
        let both = vec![id(1), id(0xff)];
        assert_eq!(DirRequest::CertsById(both.clone()).path(), format!("/tor/keys/fp/{a}+{b}"));
        let pairs = vec![(id(1), id(0xff)), (id(0xff), id(1))];
        assert_eq!(DirRequest::CertsBySigningKey(pairs).path(), format!("/tor/keys/fp-sk/{a}-{b}+{b}-{a}"));
        assert_eq!(DirRequest::Descriptors(both.clone()).path(), format!("/tor/server/d/{a}+{b}"));
        assert_eq!(DirRequest::DescriptorsById(both.clone()).path(), format!("/tor/server/fp/{a}+{b}"));
        assert_eq!(DirRequest::ExtraInfos(both).path(), format!("/tor/extra/d/{a}+{b}"));
        let zero = "A".repeat(43);
        assert_eq!(DirRequest::Microdescs(vec![[0; 32]; 2]).path(), format!("/tor/micro/d/{zero}-{zero}"));
    }
}
