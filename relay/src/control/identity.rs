//! What the relay proves on links and answers with in handshakes, made from its keys, and when each is made anew.

use std::sync::Arc;
use std::time::Duration;

use onionring_node::keys::{KeyError, KeyStore, RelayKeys};
use onionring_node::tls::{Acceptor, TlsError, TlsVersions};
use onionring_proto::handshake::{OnionKeyRing, ServerIdentity};
use onionring_proto::link::x509::{TlsLeaf, X509Error};
use onionring_proto::link::{IdentityError, LinkIdentity};
use onionring_proto::time::Unix;
use rand_core::CryptoRng;
use thiserror::Error;

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
        Ok(Identity { store, versions, keys, link, acceptor, onion_keys, tls_since: now })
    }

    /// Who this relay is in circuit handshakes.
    pub fn server(&self) -> ServerIdentity {
        ServerIdentity { rsa_id: self.keys.rsa_identity.public().rsa_id(), ed_id: self.keys.ed_identity }
    }

    /// Makes anew what is due. Returns whether anything changed; if the onion or the signing key did, the descriptor
    /// has to follow.
    pub fn rotate(
        &mut self,
        life: OnionKeyLife,
        now: Unix,
        rng: &mut impl CryptoRng,
    ) -> Result<bool, IdentityFailure> {
        let mut changed = false;
        if self.store.signing_is_due(&self.keys, now) {
            self.store.renew_signing(&mut self.keys, now, rng)?;
            tracing::info!(
                "made a new signing key; its certificate is valid until {}",
                self.keys.signing_expires.0
            );
            changed = true;
        }
        let onion_age = now.since(self.keys.onion_since);
        if onion_age >= life.rotation {
            self.store.rotate_onion(&mut self.keys, now, rng)?;
            self.onion_keys = ring(&self.keys, rng);
            tracing::info!(
                "made a new onion key; the one before is answered with for {} h more",
                life.grace.as_secs() / 3600
            );
            changed = true;
        } else if onion_age >= life.grace && self.keys.previous_onion.is_some() {
            self.store.forget_previous_onion(&mut self.keys)?;
            self.onion_keys = ring(&self.keys, rng);
            changed = true;
        }
        let link_is_due = now.since(self.tls_since) >= TLS_KEY_LIFETIME || now >= self.link.valid_until();
        if changed || link_is_due {
            (self.link, self.acceptor) = link_side(&self.keys, self.versions, now, rng)?;
            self.tls_since = now;
            changed = true;
        }
        Ok(changed)
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
