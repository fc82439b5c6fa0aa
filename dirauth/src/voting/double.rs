//! Authorities that vote twice for one period.
//!
//! Stock authorities take no notice: the vote that was published later replaces the other, and who got which is left to
//! chance. Two votes with the signature of one authority are kept here as evidence, whichever way they came: posted,
//! fetched from the authority or from another that had it, or after the time.
//!
//! An authority that restarts within a period votes again, and honestly so. The rule:
//!
//! - It is a *restart* if one of the two votes says that it was published later than the other, and not before we
//!   first got the other. Restarting takes longer than sending a vote.
//! - Everything else is a *double vote*: the same `published` twice, or a second vote that was made before the first
//!   had gone out, or a first one that turns up at another authority after the second was made. A restart can look
//!   like the last, if the network lost the first vote on its way to us; but the authorities then count different
//!   votes of that authority, and people have to look at it in any case.
//!
//! Among more than two, one pair that is a double vote is enough. [`DoublePolicy`] is about double votes; restarts are
//! reported and their evidence is kept, but they count as with stock authorities.

use std::fmt;
use std::sync::Arc;

use onionring_proto::netdoc::authcert::AuthCert;
use onionring_proto::netdoc::text::{Fingerprint, format_time};
use onionring_proto::time::Unix;

use super::Whence;

/// What becomes of an authority that votes twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DoublePolicy {
    /// Its votes count as with stock authorities: of those that are posted in time, the one published last.
    #[default]
    Alert,
    /// None of its votes counts. Only sensible if most authorities do the same.
    Exclude,
    /// We sign and publish no consensus of this period: the paper's way, which lets one authority stop us.
    Stop,
}

/// What two votes of one authority are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Evidence {
    /// What a restart leads to.
    Restart,
    /// What nothing explains but two opinions.
    Double,
}

/// Two votes of one authority for one period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The authority.
    pub authority: Fingerprint,
    /// What they are.
    pub evidence: Evidence,
    /// Digests of the two votes, the one that counted so far first.
    pub votes: [Fingerprint; 2],
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Finding { authority, evidence, votes: [one, other] } = self;
        match evidence {
            Evidence::Restart => write!(
                f,
                "authority {authority} voted again, {other} after {one}: it seems to have restarted; both are kept"
            ),
            Evidence::Double => write!(
                f,
                "authority {authority} signed two votes for one consensus, {one} and {other}: both are kept as \
                 evidence; ask its operator whether its key is in other hands"
            ),
        }
    }
}

/// A vote as it was seen first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub text: Arc<str>,
    pub digest: Fingerprint,
    pub published: Unix,
    pub cert: AuthCert,
    pub whence: Whence,
    pub at: Unix,
}

impl Seen {
    /// What two different votes of one authority are.
    pub fn against(&self, other: &Seen) -> Evidence {
        let (earlier, later) = if self.published <= other.published { (self, other) } else { (other, self) };
        if later.published > earlier.published && later.published >= earlier.at {
            Evidence::Restart
        } else {
            Evidence::Double
        }
    }

    /// Name and contents of the file that keeps it: the vote, after where it came from and when.
    pub fn file(&self, authority: &Fingerprint, valid_after: Unix) -> (String, String) {
        let time = format_time(valid_after).replace([' ', ':'], "-");
        let name = format!("two-votes-{time}-{authority}-{}", self.digest);
        let contents = format!("@received {}\n@from {}\n{}", format_time(self.at), self.whence, self.text);
        (name, contents)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::voting::tests::maker::maker;

    fn seen(published: u64, at: u64) -> Seen {
        let digest = Fingerprint([published as u8; 20]);
        let cert = maker(0).signer.cert.clone();
        Seen { text: "".into(), digest, published: Unix(published), cert, whence: Whence::Own, at: Unix(at) }
    }

    #[test]
    fn a_restart_comes_after_the_first_vote_arrived() {
        let cases = [
            ((100, 101), (130, 131), Evidence::Restart),
            ((100, 101), (101, 102), Evidence::Restart),
            ((100, 103), (102, 104), Evidence::Double),
            ((100, 101), (100, 130), Evidence::Double),
            // The second came first, and the first was still around.
            ((100, 150), (130, 131), Evidence::Double),
            // The one who restarts is ahead of our clock.
            ((110, 101), (140, 131), Evidence::Restart),
        ];
        for ((published, at), (published2, at2), expected) in cases {
            let (one, two) = (seen(published, at), seen(published2, at2));
            assert_eq!(one.against(&two), expected, "{published} {at} {published2} {at2}");
            assert_eq!(two.against(&one), expected, "either way");
        }
    }

    #[test]
    fn the_file_says_where_the_vote_came_from() {
        let (name, contents) = seen(1, 2).file(&Fingerprint([0xab; 20]), Unix(1_795_345_200));
        let (id, digest) = ("AB".repeat(20), "01".repeat(20));
        assert_eq!(name, format!("two-votes-2026-11-22-11-00-00-{id}-{digest}"));
        assert_eq!(contents, "@received 1970-01-01 00:00:02\n@from own -\n");
    }
}
