//! Making our vote: reading what was measured, forming the opinion, signing it.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use onionring_node::directory::spool::Blob;
use onionring_proto::netdoc::routerdesc::BuildError;
use onionring_proto::netdoc::vote::Vote;
use onionring_proto::time::Unix;
use rand::rngs::SysRng;
use rand_core::UnwrapErr;
use tracing::{info, warn};

use super::authority::{Authority, Bandwidths, lock};
use super::session::clock;
use super::tallies::Voted;
use crate::bandwidth_file::{self, BandwidthFile};
use crate::files;
use crate::opinion::{BandwidthSource, Grounds, Opinion, Us};
use crate::voting::Period;

impl Authority {
    /// Makes and signs our vote for a period. Takes a second or two for the public network.
    pub fn make_vote(&self, period: &Period) -> Result<String, BuildError> {
        let began = Instant::now();
        let now = clock();
        // Both of one moment: they may be replaced meanwhile.
        let keys = self.keys.load_full();
        let us = Us { certificate: keys.certificate.clone(), ..Us::clone(&self.us.load()) };
        let opinion = self.opinion(&us, period.valid_after, now);
        let (text, _) = opinion.vote.sign(&keys.signer.key, &mut UnwrapErr(SysRng))?;
        let relays = opinion.vote.relays.len();
        let seconds = began.elapsed().as_secs_f64();
        info!("voting on {relays} relays, which took {seconds:.1} s");
        self.tallies.voted(figures(&opinion.vote, seconds));
        let texts = opinion.microdesc_texts.iter().map(|text| Blob::from(text.as_bytes()));
        self.press.add_microdescs(opinion.microdescs.into_iter().zip(texts).collect(), now);
        Ok(text)
    }

    fn opinion(&self, us: &Us, valid_after: Unix, now: Unix) -> Opinion {
        let (config, approvals) = (self.config.load(), self.approvals.load());
        // Not under the lock, which uploads take.
        let relays = self.directory.uploads().store().newest().clone();
        let authorities: Vec<_> = config.authorities.iter().map(|authority| authority.rsa_id).collect();
        let mut bandwidths = lock(&self.bandwidths);
        bandwidths.read(config.authority.bandwidths_file.as_deref(), now);
        let file = bandwidths.file.clone();
        self.directory.change(|documents| documents.next.bandwidth.clone_from(&file));
        let grounds = Grounds {
            options: &config.authority,
            relays: &relays,
            approvals: &approvals,
            reached: &*self.reached,
            authorities: &authorities,
            params: &self.press.params(),
            measurements: &bandwidths.measurements,
            bandwidth_source: bandwidths.source.clone(),
            shared_random: self.session.shared_random_lines(),
            us,
            started: self.started,
            valid_after,
            now,
        };
        grounds.opinion(&mut self.stability())
    }
}

impl Bandwidths {
    /// Reads the bandwidth file. Its digest is voted whatever it holds.
    fn read(&mut self, path: Option<&Path>, now: Unix) {
        let Some(path) = path else { return *self = Bandwidths::default() };
        let content = match files::read(path) {
            Ok(content) => content.unwrap_or_default(),
            Err(error) => {
                warn!("there are no new bandwidths: {error}");
                Vec::new()
            }
        };
        let mut headers = Vec::new();
        match BandwidthFile::read(&content, now) {
            Ok(mut file) => {
                self.measurements.update(&file, now);
                headers = std::mem::take(&mut file.headers);
                if file.damaged > 0 {
                    warn!("{} lines of {} cannot be read", file.damaged, path.display());
                }
            }
            Err(error) => warn!("there are no new bandwidths in {}: {error}", path.display()),
        }
        self.source = Some(BandwidthSource { headers, digest: bandwidth_file::digest(&content) });
        self.file = Some(Blob::from(content)).filter(|file| !file.is_empty());
    }
}

fn figures(vote: &Vote, seconds: f64) -> Voted {
    let mut flags: BTreeMap<String, usize> =
        vote.known_flags.iter().map(|name| (name.to_string(), 0)).collect();
    for relay in &vote.relays {
        for name in vote.flag_names(relay.flags) {
            *flags.entry(name.to_owned()).or_default() += 1;
        }
    }
    let measured = vote.relays.iter().filter(|relay| relay.weight.measured.is_some()).count();
    Voted { relays: vote.relays.len(), flags, measured, seconds }
}
