//! What the relay proves on links and answers with in handshakes, made from its keys, and when each is made anew.

use std::sync::Arc;
use std::time::Duration;

use crate::keys::{KeyError, KeyStore, RelayKeys};
use crate::tls::{Acceptor, TlsError, TlsVersions};
use onionring_proto::handshake::{OnionKeyRing, ServerIdentity};
use onionring_proto::link::x509::{TlsLeaf, X509Error};
use onionring_proto::link::{IdentityError, LinkIdentity};
use onionring_proto::netdoc::text::format_time;
use onionring_proto::time::Unix;
use rand_core::CryptoRng;
use thiserror::Error;

#[cfg(test)]
mod tests;

/// Life of a TLS key and its certificate. Links that are open when it is replaced live on: what was proved on them
/// stays proved.
const TLS_KEY_LIFETIME: Duration = Duration::from_secs(2 * 3600);

/// Why an identity could not be made.
#[derive(Debug, Error)]
pub enum IdentityFailure {
    /// A key file.
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// The TLS certificate.
    #[error("cannot make a TLS certificate: {0}")]
    Certificate(#[from] X509Error),
    /// The certificates of the link handshake.
    #[error("cannot make link certificates: {0}")]
    Link(#[from] IdentityError),
    /// The TLS configuration.
    #[error("cannot configure TLS: {0}")]
    Tls(#[from] TlsError),
}

/// How long onion keys live, from the consensus (`onion-key-rotation-days`, `onion-key-grace-period-days`).
#[derive(Clone, Copy, Debug)]
pub struct OnionKeyLife {
    /// From one rotation to the next.
    pub rotation: Duration,
    /// How long the key before the current one is still answered with.
    pub grace: Duration,
}

impl Default for OnionKeyLife {
    fn default() -> Self {
        let day = Duration::from_secs(24 * 3600);
        OnionKeyLife { rotation: 28 * day, grace: 7 * day }
    }
}

/// The relay's keys and what follows from them.
pub struct Identity {
    store: KeyStore,
    versions: TlsVersions,
    /// The keys as they are on disk.
    pub keys: RelayKeys,
    /// What is proved on links; made for the certificate that `acceptor` shows.
    pub link: Arc<LinkIdentity>,
    /// The TLS side of accepted connections.
    pub acceptor: Acceptor,
    /// The onion keys that handshakes are answered with.
    pub onion_keys: OnionKeyRing,
    tls_since: Unix,
    /// `link` was made with a signing key that has been replaced.
    link_is_stale: bool,
}

impl Identity {
    /// Loads the keys, or makes them on the first start.
    pub fn load(
        store: KeyStore,
        versions: TlsVersions,
        now: Unix,
        rng: &mut impl CryptoRng,
    ) -> Result<Identity, IdentityFailure> {
        let keys = store.load_or_create(now, rng)?;
        let (link, acceptor) = link_side(&keys, versions, now, rng)?;
        let onion_keys = ring(&keys, rng);
        Ok(Identity {
            store,
            versions,
            keys,
            link,
            acceptor,
            onion_keys,
            tls_since: now,
            link_is_stale: false,
        })
    }

    /// Who this relay is in circuit handshakes.
    pub fn server(&self) -> ServerIdentity {
        ServerIdentity { rsa_id: self.keys.rsa_identity.public().rsa_id(), ed_id: self.keys.ed_identity }
    }

    /// Makes anew what is due. Each part is tried whatever became of the others: a full disk or a master key that is
    /// away must not let the link certificates expire, which need neither.
    pub fn rotate(&mut self, life: OnionKeyLife, now: Unix, rng: &mut impl CryptoRng) -> Rotation {
        let mut rotation = Rotation::default();
        rotation.take(self.renew_signing(now, rng));
        rotation.take(self.rotate_onion(life, now, rng));
        rotation.take(self.renew_link(now, rng));
        rotation
    }

    fn renew_signing(&mut self, now: Unix, rng: &mut impl CryptoRng) -> Result<bool, IdentityFailure> {
        if !self.store.signing_is_due(&self.keys, now) {
            return Ok(false);
        }
        self.store.renew_signing(&mut self.keys, now, rng)?;
        self.link_is_stale = true;
        let until = format_time(self.keys.signing_expires);
        tracing::info!("there is a new signing key; its certificate is valid until {until}");
        Ok(true)
    }

    fn rotate_onion(
        &mut self,
        life: OnionKeyLife,
        now: Unix,
        rng: &mut impl CryptoRng,
    ) -> Result<bool, IdentityFailure> {
        let age = now.since(self.keys.onion_since);
        if age >= life.rotation {
            self.store.rotate_onion(&mut self.keys, now, rng)?;
            self.onion_keys = ring(&self.keys, rng);
            let hours = life.grace.as_secs() / 3600;
            tracing::info!("made a new onion key; the one before is answered with for {hours} h more");
            return Ok(true);
        }
        if age < life.grace || self.keys.previous_onion.is_none() {
            return Ok(false);
        }
        // Forgotten in memory whatever becomes of the files.
        let forgotten = self.store.forget_previous_onion(&mut self.keys);
        self.onion_keys = ring(&self.keys, rng);
        Ok(forgotten.map(|()| true)?)
    }

    fn renew_link(&mut self, now: Unix, rng: &mut impl CryptoRng) -> Result<bool, IdentityFailure> {
        let old = now.since(self.tls_since) >= TLS_KEY_LIFETIME || now >= self.link.valid_until();
        if !old && !self.link_is_stale {
            return Ok(false);
        }
        (self.link, self.acceptor) = link_side(&self.keys, self.versions, now, rng)?;
        (self.tls_since, self.link_is_stale) = (now, false);
        Ok(true)
    }
}

/// What became of the keys that were due.
#[derive(Debug, Default)]
pub struct Rotation {
    /// Whether anything was made anew, and has to be put in force; the descriptor follows by itself.
    pub changed: bool,
    /// What failed, first of all that did; it is tried again.
    pub failure: Option<IdentityFailure>,
}

impl Rotation {
    fn take(&mut self, part: Result<bool, IdentityFailure>) {
        match part {
            Ok(changed) => self.changed |= changed,
            Err(failure) => _ = self.failure.get_or_insert(failure),
        }
    }
}

fn link_side(
    keys: &RelayKeys,
    versions: TlsVersions,
    now: Unix,
    rng: &mut impl CryptoRng,
) -> Result<(Arc<LinkIdentity>, Acceptor), IdentityFailure> {
    let leaf = TlsLeaf::generate(now, rng)?;
    let link = LinkIdentity::new(
        &keys.rsa_identity,
        &keys.signing_cert,
        &keys.signing,
        &leaf.certificate,
        now,
        rng,
    )?;
    Ok((Arc::new(link), Acceptor::new(&leaf, versions)?))
}

fn ring(keys: &RelayKeys, rng: &mut impl CryptoRng) -> OnionKeyRing {
    OnionKeyRing::new(keys.onion.clone(), keys.previous_onion.clone(), rng)
}
