//! Writing and signing our own vote.

use std::fmt::{Display, Write as _};

use rand_core::CryptoRng;
use sha1::{Digest, Sha1};

use super::{Commit, Reveal, SharedRandomVote, SignedVote, Vote, entry};
use crate::crypto::rsa::RsaPrivate;
use crate::netdoc::consensus::SharedRandom;
use crate::netdoc::signed::{BuildError, one_line};
use crate::netdoc::text::{self, Fingerprint};

impl Vote {
    /// The text up to the signature: all that is signed but the words `directory-signature ` at its end. The order of
    /// the lines is C tor's.
    pub fn encode(&self) -> String {
        let mut out = String::with_capacity(4096 + 512 * self.relays.len());
        self.write_times(&mut out);
        self.write_recommendations(&mut out);
        self.write_knobs(&mut out);
        self.write_authority(&mut out);
        for relay in &self.relays {
            entry::write(&mut out, self, relay);
        }
        out.push_str("directory-footer\n");
        out
    }

    /// Writes and signs the vote, and reads it back as the others will. `key` is the one that the certificate names.
    ///
    /// # Errors
    /// [`BuildError`]: a text of several lines, a key that does not sign, or contents that would be refused.
    pub fn sign(
        &self,
        key: &RsaPrivate,
        rng: &mut impl CryptoRng,
    ) -> Result<(String, SignedVote), BuildError> {
        self.check_texts()?;
        let mut doc = self.encode();
        let digest = Sha1::digest(format!("{doc}directory-signature "));
        let signature = key.sign_bare(&digest, rng)?;
        let cert = self.certificate.cert();
        push_signature(&mut doc, "directory-signature", &cert.identity, &cert.signing_key_id, &signature);
        let parsed = SignedVote::parse(&doc)?;
        Ok((doc, parsed))
    }

    fn check_texts(&self) -> Result<(), BuildError> {
        one_line("contact", &self.authority.contact)?;
        one_line("nickname", &self.authority.nickname)?;
        one_line("host name", &self.authority.hostname)?;
        let texts = [&self.flag_thresholds, &self.bandwidth_file_headers];
        texts.into_iter().flatten().try_for_each(|text| one_line("statistics", text))?;
        let versions = [&self.client_versions, &self.server_versions].into_iter().flatten().flatten();
        versions.chain(&self.packages).try_for_each(|text| one_line("version", text))?;
        self.known_flags.iter().try_for_each(|flag| one_line("flag", flag))?;
        self.params.iter().try_for_each(|(name, _)| one_line("parameter", name))?;
        for relay in &self.relays {
            one_line("protocol list", &relay.protocols)?;
            relay.version.iter().try_for_each(|text| one_line("version", text))?;
            relay.policy.iter().try_for_each(|text| one_line("policy summary", text))?;
            relay.stats.iter().try_for_each(|text| one_line("statistics", text))?;
        }
        Ok(())
    }

    fn write_times(&self, out: &mut String) {
        let methods: Vec<String> = self.methods.iter().map(u32::to_string).collect();
        // Writing to a String does not fail, here and below.
        let _ = writeln!(out, "network-status-version 3\nvote-status vote");
        let _ = writeln!(out, "consensus-methods {}", methods.join(" "));
        let _ = writeln!(out, "published {}", text::format_time(self.published));
        self.lifetime.write(out);
        let _ = writeln!(out, "voting-delay {} {}", self.voting_delay.0, self.voting_delay.1);
    }

    fn write_recommendations(&self, out: &mut String) {
        line_if(out, "client-versions", self.client_versions.as_ref().map(|list| list.join(",")));
        line_if(out, "server-versions", self.server_versions.as_ref().map(|list| list.join(",")));
        for package in &self.packages {
            let _ = writeln!(out, "package {package}");
        }
        line_if(out, "recommended-relay-protocols", self.recommended_relay_protocols.as_ref());
        line_if(out, "recommended-client-protocols", self.recommended_client_protocols.as_ref());
        line_if(out, "required-relay-protocols", self.required_relay_protocols.as_ref());
        line_if(out, "required-client-protocols", self.required_client_protocols.as_ref());
    }

    fn write_knobs(&self, out: &mut String) {
        let _ = writeln!(out, "known-flags {}", self.known_flags.join(" "));
        line_if(out, "flag-thresholds", self.flag_thresholds.as_ref());
        let _ = writeln!(out, "params {}", self.params);
        line_if(out, "bandwidth-file-headers", self.bandwidth_file_headers.as_ref());
        let digest = self.bandwidth_file_digest.map(|digest| text::base64_unpadded(&digest));
        line_if(out, "bandwidth-file-digest", digest.map(|digest| format!("sha256={digest}")));
    }

    fn write_authority(&self, out: &mut String) {
        let a = &self.authority;
        let _ = writeln!(
            out,
            "dir-source {} {} {} {} {} {}",
            a.nickname, a.identity, a.hostname, a.address, a.dir_port, a.or_port
        );
        let _ = writeln!(out, "contact {}", a.contact);
        if let Some(shared_random) = &self.shared_random {
            write_shared_random(out, shared_random);
        }
        line_if(out, "legacy-dir-key", self.legacy_identity);
        out.push_str(self.certificate.text());
    }
}

fn write_shared_random(out: &mut String, vote: &SharedRandomVote) {
    out.push_str("shared-rand-participate\n");
    for Commit { authority, commit, reveal } in &vote.commits {
        let _ = write!(out, "shared-rand-commit 1 sha3-256 {authority} {}", text::base64_padded(commit));
        match reveal {
            Reveal::Withheld => {}
            Reveal::Missing => out.push(' '),
            Reveal::Known(reveal) => _ = write!(out, " {}", text::base64_padded(reveal)),
        }
        out.push('\n');
    }
    write_values(out, vote.previous, vote.current);
}

/// Writes the lines of shared random values, which votes and consensuses have alike.
pub(in crate::netdoc) fn write_values(
    out: &mut String,
    previous: Option<SharedRandom>,
    current: Option<SharedRandom>,
) {
    let values = [("previous", previous), ("current", current)];
    for (which, value) in values {
        if let Some(SharedRandom { reveals, value }) = value {
            let _ = writeln!(out, "shared-rand-{which}-value {reveals} {}", text::base64_padded(&value));
        }
    }
}

fn line_if(out: &mut String, keyword: &str, value: Option<impl Display>) {
    if let Some(value) = value {
        let _ = writeln!(out, "{keyword} {value}");
    }
}

/// Appends a signature item; `keyword` may carry the arguments that precede the identities.
pub(in crate::netdoc) fn push_signature(
    out: &mut String,
    keyword: &str,
    identity: &Fingerprint,
    signing_key_id: &Fingerprint,
    signature: &[u8],
) {
    out.extend([keyword, " ", &identity.to_string(), " ", &signing_key_id.to_string(), "\n"]);
    text::push_object(out, "SIGNATURE", signature);
}
