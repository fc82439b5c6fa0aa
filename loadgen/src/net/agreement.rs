//! What the authorities of a network have agreed on, held against each other.

use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

use onionring_proto::netdoc::DocError;
use onionring_proto::netdoc::authcert::{AuthCert, CertStore};
use onionring_proto::netdoc::consensus::{Consensus, Flavor, Lifetime, RelayFlags, UnverifiedConsensus};
use onionring_proto::netdoc::text::Fingerprint;
use onionring_proto::time::Unix;
use thiserror::Error;

use super::Network;
use super::directory::Document;
use super::node::Node;
use super::progress::BootError;
use super::spec::Role;

/// The consensus in force, of both flavours, that several authorities serve to the byte.
#[derive(Clone, Debug)]
pub struct Agreement {
    /// When it holds.
    pub lifetime: Lifetime,
    /// The documents, in the order of [`Flavor::ALL`].
    pub texts: [String; 2],
    /// Whose votes it counts, by v3 identity.
    pub voters: BTreeSet<Fingerprint>,
    /// Whose signatures are right, by v3 identity and in the order of `texts`.
    pub signers: [BTreeSet<Fingerprint>; 2],
    consensuses: [Consensus; 2],
}

/// Why there is no [`Agreement`], or not the one that was expected.
#[derive(Debug, Error)]
pub enum Disagreement {
    /// An authority does not serve a document.
    #[error("{authority} does not serve it: {source}")]
    NotServed {
        /// The authority.
        authority: String,
        /// What it did instead.
        source: io::Error,
    },
    /// An authority serves something else than such a document.
    #[error("{authority} serves nonsense at {document}: {source}")]
    Nonsense {
        /// The authority.
        authority: String,
        /// What was asked for.
        document: Document,
        /// What is wrong with it.
        source: DocError,
    },
    /// Two authorities serve different documents.
    #[error("{document} differs in line {line}: {one} says `{ones}`, {other} says `{others}`")]
    Differs {
        /// What was asked for.
        document: Document,
        /// The first line that differs, from 1.
        line: usize,
        /// An authority.
        one: String,
        /// What its line says; nothing if the document ends before.
        ones: String,
        /// Another authority.
        other: String,
        /// What its line says.
        others: String,
    },
    /// The two flavours are of different times or votes.
    #[error("the flavours are of different periods, or of different votes")]
    Flavors,
    /// Signatures are missing, wrong, or not expected.
    #[error("{flavor:?} is rightly signed by {signers:?}; expected are {expected:?}")]
    Signers {
        /// The flavour.
        flavor: Flavor,
        /// Whose signatures are right.
        signers: BTreeSet<Fingerprint>,
        /// Whose should be.
        expected: BTreeSet<Fingerprint>,
    },
    /// A node is not listed, or lacks a flag.
    #[error("{flavor:?} does not list {node} as {flag}")]
    NotListed {
        /// The flavour.
        flavor: Flavor,
        /// The node.
        node: String,
        /// What it should be listed as.
        flag: &'static str,
    },
    /// There is nothing newer yet.
    #[error("the newest consensus is that of {}", onionring_proto::netdoc::text::format_time(*valid_after))]
    Old {
        /// When that came into force.
        valid_after: Unix,
    },
}

/// Flags without which a relay is of no use.
const LISTED_AS: [(RelayFlags, &str); 2] = [(RelayFlags::RUNNING, "Running"), (RelayFlags::VALID, "Valid")];

impl Agreement {
    /// What these authorities, at least one, serve alike, with the signatures that are right.
    pub fn of(authorities: &[&Node]) -> Result<Agreement, Disagreement> {
        let [ns, microdesc] =
            Flavor::ALL.map(|flavor| served_alike(authorities, Document::Consensus(flavor)));
        let texts = [ns?, microdesc?];
        let mut certs = CertStore::default();
        for authority in authorities {
            for (_, cert) in AuthCert::parse_all(&fetch(authority, Document::Keys)?) {
                certs.insert(cert.map_err(|source| nonsense(authority, Document::Keys, source))?);
            }
        }
        let read = |text: &str, flavor| {
            let read = UnverifiedConsensus::parse(text);
            read.map_err(|source| nonsense(authorities[0], Document::Consensus(flavor), source))
        };
        let read = [read(&texts[0], Flavor::Ns)?, read(&texts[1], Flavor::Microdesc)?];
        let consensuses = read.each_ref().map(|read| read.peek().clone());
        let [ns, microdesc] = &consensuses;
        if ns.lifetime != microdesc.lifetime || ns.voters != microdesc.voters {
            return Err(Disagreement::Flavors);
        }
        let lifetime = ns.lifetime;
        let voters: BTreeSet<_> = ns.voters.iter().map(|voter| voter.identity).collect();
        // Of one authority alone, more than half is that one.
        let signed =
            |read: &UnverifiedConsensus, voter| read.check(&[voter], &certs, lifetime.valid_after).is_ok();
        let signers =
            read.each_ref().map(|read| voters.iter().copied().filter(|voter| signed(read, *voter)).collect());
        Ok(Agreement { lifetime, texts, voters, signers, consensuses })
    }

    /// Checks that both flavours are signed by these and by nobody else.
    pub fn check_signed_by(&self, authorities: &[&Node]) -> Result<(), Disagreement> {
        let expected: BTreeSet<_> = authorities.iter().filter_map(|node| node.v3_identity()).collect();
        match Flavor::ALL.into_iter().zip(&self.signers).find(|(_, signers)| **signers != expected) {
            None => Ok(()),
            Some((flavor, signers)) => {
                Err(Disagreement::Signers { flavor, signers: signers.clone(), expected })
            }
        }
    }

    /// Checks that both flavours list these nodes as running and valid.
    pub fn check_lists(&self, nodes: &[&Node]) -> Result<(), Disagreement> {
        for consensus in &self.consensuses {
            for node in nodes {
                let entry = Fingerprint::from_hex(node.fingerprint()).and_then(|id| consensus.relay(&id));
                let lacks = |flag| entry.is_none_or(|entry| !entry.flags.has(flag));
                if let Some((_, flag)) = LISTED_AS.into_iter().find(|(flag, _)| lacks(*flag)) {
                    let (flavor, node) = (consensus.flavor, node.nickname().to_owned());
                    return Err(Disagreement::NotListed { flavor, node, flag });
                }
            }
        }
        Ok(())
    }
}

impl Network {
    /// All authorities, in the order they were asked for.
    pub fn authorities(&self) -> Vec<&Node> {
        self.nodes.iter().filter(|node| node.role() == Role::Authority).collect()
    }

    /// What all authorities agree on: one consensus, signed by each of them, that lists every relay.
    pub fn agreement(&self) -> Result<Agreement, Disagreement> {
        let authorities = self.authorities();
        let agreement = Agreement::of(&authorities)?;
        agreement.check_signed_by(&authorities)?;
        agreement.check_lists(&self.relays().collect::<Vec<_>>())?;
        Ok(agreement)
    }

    /// Waits until there is an [`agreement`](Self::agreement) on a consensus that came into force after `after`.
    pub fn wait_agreement(&self, after: Unix, patience: Duration) -> Result<Agreement, BootError> {
        self.wait_ok("all authorities to agree on a consensus", patience, || {
            let agreement = self.agreement()?;
            match agreement.lifetime.valid_after {
                valid_after if valid_after <= after => Err(Disagreement::Old { valid_after }),
                _ => Ok(agreement),
            }
        })
    }
}

/// The document that all of these authorities serve alike.
fn served_alike(authorities: &[&Node], document: Document) -> Result<String, Disagreement> {
    let mut texts = authorities.iter().map(|authority| Ok((*authority, fetch(authority, document)?)));
    let (one, text) = texts.next().expect("there is an authority")?;
    for other in texts {
        let (other, others_text) = other?;
        if let Some((line, ones, others)) = first_difference(&text, &others_text) {
            return Err(Disagreement::Differs {
                document,
                line,
                one: one.nickname().to_owned(),
                ones: ones.to_owned(),
                other: other.nickname().to_owned(),
                others: others.to_owned(),
            });
        }
    }
    Ok(text)
}

/// The first line in which two texts differ: its number from 1, and what each has there.
fn first_difference<'t>(one: &'t str, other: &'t str) -> Option<(usize, &'t str, &'t str)> {
    if one == other {
        return None;
    }
    let (mut ones, mut others) = (one.split('\n'), other.split('\n'));
    (1..).zip(std::iter::from_fn(|| Some((ones.next(), others.next())))).find_map(|(line, pair)| match pair {
        (a, b) if a == b => None,
        (a, b) => Some((line, a.unwrap_or_default(), b.unwrap_or_default())),
    })
}

fn fetch(authority: &Node, document: Document) -> Result<String, Disagreement> {
    let text = authority.dir_addr().ok_or_else(|| io::Error::other("it has no DirPort"));
    text.and_then(|address| document.fetch(address))
        .map_err(|source| Disagreement::NotServed { authority: authority.nickname().to_owned(), source })
}

fn nonsense(authority: &Node, document: Document, source: DocError) -> Disagreement {
    Disagreement::Nonsense { authority: authority.nickname().to_owned(), document, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_difference_is_told() {
        assert_eq!(first_difference("a\nb\n", "a\nb\n"), None);
        assert_eq!(first_difference("a\nb\n", "a\nc\n"), Some((2, "b", "c")));
        assert_eq!(first_difference("a\n", "a\nc\n"), Some((2, "", "c")));
        assert_eq!(first_difference("a", "a\n"), Some((2, "", "")));
    }
}
