//! Writing and signing our own descriptor.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV6};

use rand_core::CryptoRng;

use super::{Bandwidth, BuildError, DocumentKeys, ExtraInfoDigests, RouterDesc, tap_crosscert_message};
use crate::crypto::rsa::RsaPrivate;
use crate::crypto::x25519::Secret;
use crate::link::cert::build_onion_key_crosscert;
use crate::netdoc::family::FamilyMember;
use crate::netdoc::protover::Protocols;
use crate::netdoc::signed::{ED_CERT, one_line, sign};
use crate::netdoc::text::{self, Fingerprint, Nickname};
use crate::policy::{ExitPolicy, Family};
use crate::time::Unix;

/// The onion keys that a descriptor announces.
#[derive(Clone, Copy)]
pub struct OnionKeys<'a> {
    /// Secret half of the ntor key (Curve25519).
    pub ntor: &'a [u8; 32],
    /// When the ntor key's certificate over our identity should end: with the key.
    pub ntor_expires: Unix,
    /// The TAP key, if the parameter `publish-dummy-tap-key` asks for one. Rotate it together with the ntor key:
    /// authorities take a descriptor in which nothing else than the ntor key changed for the old one.
    pub tap: Option<&'a RsaPrivate>,
}

/// What our descriptor is to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewDescriptor {
    /// Nickname.
    pub nickname: Nickname,
    /// IPv4 address.
    pub ipv4: Ipv4Addr,
    /// ORPort there; not 0.
    pub or_port: u16,
    /// DirPort there, or 0 (what C relays always write).
    pub dir_port: u16,
    /// IPv6 ORPort.
    pub ipv6: Option<(Ipv6Addr, u16)>,
    /// Software and system. Beginning it with `Tor ` subjects the relay to the rules for Tor's versions.
    pub platform: String,
    /// Subprotocols.
    pub protocols: Protocols,
    /// When it was made: now.
    pub published: Unix,
    /// Seconds we have been up.
    pub uptime: u64,
    /// What we can carry.
    pub bandwidth: Bandwidth,
    /// Our extra-info.
    pub extra_info: Option<ExtraInfoDigests>,
    /// Whether we serve extra-infos.
    pub caches_extra_info: bool,
    /// Relays of the same operator.
    pub family: Vec<FamilyMember>,
    /// Certificates of family keys over our Ed25519 identity.
    pub family_certs: Vec<Vec<u8>>,
    /// Whether we take no circuits for now.
    pub hibernating: bool,
    /// Whether we keep onion-service descriptors.
    pub hidden_service_dir: bool,
    /// Operator.
    pub contact: Option<String>,
    /// Exit policy. Its IPv4 rules are written out, those of IPv6 as a summary.
    pub policy: ExitPolicy,
    /// Whether we serve our directory over BEGIN_DIR.
    pub tunnelled_dir_server: bool,
    /// When we were overloaded last, if that is to be told; written in whole hours (proposal 328).
    pub overloaded_since: Option<Unix>,
}

/// A descriptor of ours, ready to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedDescriptor {
    /// Its text.
    pub text: String,
    /// What others will read in it.
    pub parsed: RouterDesc,
}

impl NewDescriptor {
    /// Writes and signs the descriptor, in C tor's order of lines, and reads it back as an authority would.
    ///
    /// # Errors
    /// [`BuildError`]: a text of several lines, a key that does not sign, or contents that would be refused.
    pub fn sign(
        &self,
        keys: &DocumentKeys<'_>,
        onion: &OnionKeys<'_>,
        rng: &mut impl CryptoRng,
    ) -> Result<SignedDescriptor, BuildError> {
        self.check_texts()?;
        let mut doc = String::with_capacity(4096);
        self.write_head(&mut doc, keys);
        self.write_keys(&mut doc, keys, onion, rng)?;
        self.write_tail(&mut doc, onion);
        sign(&mut doc, keys, rng)?;
        let parsed = RouterDesc::parse(&doc)?;
        Ok(SignedDescriptor { text: doc, parsed })
    }

    fn check_texts(&self) -> Result<(), BuildError> {
        one_line("platform", &self.platform)?;
        self.contact.iter().try_for_each(|c| one_line("contact", c))
    }

    fn write_head(&self, doc: &mut String, keys: &DocumentKeys<'_>) {
        let fingerprint = Fingerprint(keys.identity.public().rsa_id()).to_string();
        let (nick, ip, or, dir) = (self.nickname, self.ipv4, self.or_port, self.dir_port);
        // Writing to a String does not fail, here and below.
        let _ = writeln!(doc, "router {nick} {ip} {or} 0 {dir}");
        doc.push_str("identity-ed25519\n");
        text::push_object(doc, ED_CERT, keys.signing_cert);
        let _ = writeln!(doc, "master-key-ed25519 {}", text::base64_unpadded(&keys.ed_identity));
        if let Some((ip, port)) = self.ipv6 {
            let _ = writeln!(doc, "or-address {}", SocketAddrV6::new(ip, port, 0, 0));
        }
        let _ = writeln!(doc, "platform {}", self.platform);
        let _ = writeln!(doc, "proto {}", self.protocols);
        let _ = writeln!(doc, "published {}", text::format_time(self.published));
        doc.push_str("fingerprint");
        for group in fingerprint.as_bytes().chunks(4) {
            let _ = write!(doc, " {}", String::from_utf8_lossy(group));
        }
        let _ = writeln!(doc, "\nuptime {}", self.uptime);
        let Bandwidth { rate, burst, observed } = self.bandwidth;
        let _ = writeln!(doc, "bandwidth {rate} {burst} {observed}");
        if let Some(digests) = &self.extra_info {
            let _ = write!(doc, "extra-info-digest {}", digests.sha1);
            if let Some(sha256) = &digests.sha256 {
                let _ = write!(doc, " {}", text::base64_unpadded(sha256));
            }
            doc.push('\n');
        }
        if self.caches_extra_info {
            doc.push_str("caches-extra-info\n");
        }
    }

    fn write_keys(
        &self,
        doc: &mut String,
        keys: &DocumentKeys<'_>,
        onion: &OnionKeys<'_>,
        rng: &mut impl CryptoRng,
    ) -> Result<(), BuildError> {
        let identity = keys.identity.public();
        if let Some(tap) = onion.tap {
            doc.push_str("onion-key\n");
            text::push_object(doc, "RSA PUBLIC KEY", &tap.public().to_der());
        }
        doc.push_str("signing-key\n");
        text::push_object(doc, "RSA PUBLIC KEY", &identity.to_der());
        if let Some(tap) = onion.tap {
            let message = tap_crosscert_message(&Fingerprint(identity.rsa_id()), &keys.ed_identity);
            doc.push_str("onion-key-crosscert\n");
            text::push_object(doc, "CROSSCERT", &tap.sign_bare(&message, rng)?);
        }
        let (cert, sign) = build_onion_key_crosscert(onion.ntor, &keys.ed_identity, onion.ntor_expires);
        let _ = writeln!(doc, "ntor-onion-key-crosscert {sign}");
        text::push_object(doc, ED_CERT, &cert);
        Ok(())
    }

    fn write_tail(&self, doc: &mut String, onion: &OnionKeys<'_>) {
        // An empty `family` line is legal but Arti refuses it.
        if !self.family.is_empty() {
            doc.push_str("family");
            for member in &self.family {
                let _ = write!(doc, " {member}");
            }
            doc.push('\n');
        }
        if self.hibernating {
            doc.push_str("hibernating 1\n");
        }
        if self.hidden_service_dir {
            doc.push_str("hidden-service-dir\n");
        }
        for cert in &self.family_certs {
            doc.push_str("family-cert\n");
            text::push_object(doc, "FAMILY CERT", cert);
        }
        if let Some(contact) = &self.contact {
            let _ = writeln!(doc, "contact {contact}");
        }
        let ntor = Secret::new(onion.ntor);
        let _ = writeln!(doc, "ntor-onion-key {}", text::base64_unpadded(ntor.public()));
        for line in self.policy.descriptor_lines() {
            let _ = writeln!(doc, "{line}");
        }
        let summary = self.policy.summary(Family::V6);
        if !summary.rejects_all() {
            let _ = writeln!(doc, "ipv6-policy {summary}");
        }
        if self.tunnelled_dir_server {
            doc.push_str("tunnelled-dir-server\n");
        }
        if let Some(since) = self.overloaded_since {
            let hour = Unix(since.0 - since.0 % 3600);
            let _ = writeln!(doc, "overload-general 1 {}", text::format_time(hour));
        }
    }
}
