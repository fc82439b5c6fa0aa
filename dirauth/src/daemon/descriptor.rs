//! What the authority says of itself as a relay, to itself and to the other authorities.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use onionring_node::directory::snapshot::{OwnDocs, RouterDoc};
use onionring_node::identity::{Identity, OnionKeyLife};
use onionring_proto::dir::publish::{Contents, Listing, Publisher, Step, Task};
use onionring_proto::dir::request::DirRequest;
use onionring_proto::limits::ROUTER_DESCRIPTOR;
use onionring_proto::netdoc;
use onionring_proto::netdoc::extrainfo::NewExtraInfo;
use onionring_proto::netdoc::params;
use onionring_proto::netdoc::protover::Protocols;
use onionring_proto::netdoc::routerdesc::{
    Bandwidth, BuildError, DocumentKeys, NewDescriptor, OnionKeys, RouterDesc, split_documents,
};
use onionring_proto::netdoc::text::{Fingerprint, Nickname};
use onionring_proto::policy::ExitPolicy;
use onionring_proto::time::{Mono, Unix};
use rand::rngs::SysRng;
use rand_core::UnwrapErr;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tracing::{debug, error, info, warn};

use super::authority::{Authority, lock};
use super::session::clock;

/// The subprotocols of an authority. It extends no circuits (Relay), so that nobody chooses it for one.
pub const PROTOCOLS: &str = "Cons=1-2 Desc=1-4 DirCache=2 FlowCtrl=1 Link=3-5 LinkAuth=3 Microdesc=1-3";
/// How often it is looked whether another descriptor is due.
const LOOK: Duration = Duration::from_secs(1);
/// How long to wait after a descriptor could not be made.
const SIGN_RETRY: Duration = Duration::from_secs(60);
/// What we offer for circuits: hardly anything, as none lead through us.
const OFFERED: Bandwidth = Bandwidth { rate: 1 << 20, burst: 1 << 20, observed: 0 };
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Where we are.
#[derive(Clone, Debug)]
pub struct Place {
    /// Our nickname.
    pub nickname: Nickname,
    /// Our address, with our ORPort and our DirPort.
    pub ipv4: (Ipv4Addr, u16, u16),
    /// Our IPv6 ORPort.
    pub ipv6: Option<(Ipv6Addr, u16)>,
}

/// A descriptor of ours, and its extra-info.
struct Current {
    parsed: RouterDesc,
    descriptor: String,
    extra_info: String,
    reason: String,
}

/// Publishes descriptors for ever.
pub async fn publish(authority: Arc<Authority>, identity: Arc<std::sync::Mutex<Identity>>, place: Place) {
    let testing = authority.config.load().authority.testing;
    let began = Instant::now();
    let mono = || Mono(u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX));
    let mut publisher = Publisher::new(authority.peers.len(), testing);
    let mut current: Option<Arc<Current>> = None;
    let mut not_before = Unix(0);
    let (sender, mut results) = mpsc::channel::<(Task, bool)>(authority.peers.len().max(1));
    loop {
        let now = clock();
        let contents = contents(&authority, &lock(&identity), &place, now);
        let listing = listing(&authority, current.as_deref(), now);
        if let Some(reason) = publisher.due(&contents, listing, now).filter(|_| now >= not_before) {
            let mut contents = contents;
            contents.descriptor.published = publisher.publication_time(now);
            let signed = sign(&contents, &lock(&identity), reason.to_string());
            match signed.map(Arc::new) {
                Ok(made) => {
                    info!("our descriptor is new: {reason}");
                    current = Some(made.clone());
                    take_ourselves(authority.clone(), made).await;
                    publisher.published(contents, reason);
                }
                Err(fault) => {
                    error!("our descriptor cannot be made and is not published: {fault}");
                    not_before = now + SIGN_RETRY;
                }
            }
        }
        while let (Some(current), Some(task)) = (&current, publisher.poll(mono())) {
            let (authority, current, sender) = (authority.clone(), current.clone(), sender.clone());
            tokio::spawn(async move {
                let done = step(&authority, &current, task).await;
                // Without a receiver the program is ending.
                let _ = sender.send((task, done)).await;
            });
        }
        if let Ok(Some((task, done))) = timeout(LOOK, results.recv()).await {
            publisher.finished(task, done, mono(), &mut rand::rng());
        }
    }
}

fn listing(authority: &Authority, current: Option<&Current>, now: Unix) -> Listing {
    let consensus = authority.press.consensus();
    current
        .map_or(Listing::Unknown, |current| Listing::of(&current.parsed.identity, consensus.as_deref(), now))
}

fn contents(authority: &Authority, identity: &Identity, place: &Place, now: Unix) -> Contents {
    let (ipv4, or_port, dir_port) = place.ipv4;
    let keys = &identity.keys;
    let descriptor = NewDescriptor {
        nickname: place.nickname,
        ipv4,
        or_port,
        dir_port,
        ipv6: place.ipv6,
        platform: format!("onionring {} on {}", env!("CARGO_PKG_VERSION"), std::env::consts::OS),
        protocols: Protocols::parse(PROTOCOLS).unwrap_or_default(),
        published: now,
        uptime: now.since(authority.started).as_secs(),
        bandwidth: OFFERED,
        extra_info: None,
        caches_extra_info: true,
        family: Vec::new(),
        family_certs: Vec::new(),
        hibernating: false,
        hidden_service_dir: false,
        contact: authority.config.load().authority.contact.clone(),
        policy: ExitPolicy::middleman(),
        tunnelled_dir_server: true,
        overloaded_since: None,
    };
    let wants_tap_key = authority.press.params().is_on(&params::PUBLISH_DUMMY_TAP_KEY);
    Contents {
        descriptor,
        ntor_key: *keys.onion.public(),
        tap_key: wants_tap_key.then(|| Fingerprint(keys.tap.public().rsa_id())),
        signing_cert: keys.signing_cert.clone().into(),
    }
}

fn sign(contents: &Contents, identity: &Identity, reason: String) -> Result<Current, BuildError> {
    let rng = &mut UnwrapErr(SysRng);
    let keys = &identity.keys;
    let document_keys = DocumentKeys {
        identity: &keys.rsa_identity,
        ed_identity: keys.ed_identity,
        signing: &keys.signing,
        signing_cert: &keys.signing_cert,
    };
    let (nickname, published) = (contents.descriptor.nickname, contents.descriptor.published);
    let extra_info = NewExtraInfo { nickname, published, statistics: Vec::new() };
    let extra_info = extra_info.sign(&document_keys, rng)?;
    let life = OnionKeyLife::default();
    let onion = OnionKeys {
        ntor: keys.onion.secret(),
        ntor_expires: keys.onion_since + life.rotation + life.grace + DAY,
        tap: contents.tap_key.is_some().then_some(&keys.tap),
    };
    let mut descriptor = contents.descriptor.clone();
    descriptor.extra_info = Some(extra_info.parsed.digests);
    let descriptor = descriptor.sign(&document_keys, &onion, rng)?;
    Ok(Current {
        parsed: descriptor.parsed,
        descriptor: descriptor.text,
        extra_info: extra_info.text,
        reason,
    })
}

impl Current {
    /// As it is posted.
    fn text(&self) -> String {
        format!("{}\n{}\n", self.descriptor, self.extra_info)
    }

    /// As it is served to those who ask what we say of ourselves.
    fn served(&self) -> OwnDocs {
        let doc = |text: &str| RouterDoc { text: text.as_bytes().into(), published: self.parsed.published };
        OwnDocs {
            identity: self.parsed.identity,
            descriptor: doc(&self.descriptor),
            extra_info: doc(&self.extra_info),
        }
    }
}

/// We are one of the authorities that have to know it, and serve it as our own, by which others test us.
async fn take_ourselves(authority: Arc<Authority>, made: Arc<Current>) {
    let own = made.served();
    authority.directory.change(|documents| documents.served.own = Some(own.clone()));
    let taken = spawn_blocking(move || authority.directory.receive(made.text().as_bytes(), clock())).await;
    match taken {
        Ok(answer) if answer.status == 200 => {}
        Ok(answer) => {
            error!("we refuse our own descriptor, so we vote for no relay of ours: {}", answer.reason)
        }
        Err(_) => {}
    }
}

/// Posts the descriptor, or looks whether it is there.
async fn step(authority: &Authority, current: &Current, task: Task) -> bool {
    let Some(peer) = authority.peers.get(task.authority) else { return false };
    let answer = match task.step {
        Step::Post => peer.post("/tor/", &current.reason, &current.text()).await,
        Step::Confirm => {
            let path = DirRequest::DescriptorsById(vec![current.parsed.identity]).path();
            peer.get(&path, None, ROUTER_DESCRIPTOR).await
        }
    };
    match (task.step, answer) {
        (_, Err(error)) => {
            debug!("cannot publish our descriptor at {}, trying again: {error}", peer.name);
            false
        }
        (Step::Post, Ok(answer)) if answer.status == 200 => true,
        (Step::Post, Ok(answer)) => {
            warn!("{} refuses our descriptor: {} {}", peer.name, answer.status, answer.reason);
            false
        }
        (Step::Confirm, Ok(answer)) => {
            let text = netdoc::text_of(&answer.body).unwrap_or_default();
            let mut found = split_documents(text).filter_map(|text| RouterDesc::parse(text).ok());
            let has_ours =
                found.any(|d| d.identity == current.parsed.identity && same_enough(&d, &current.parsed));
            if !has_ours {
                warn!("{} took our descriptor and does not have it; is our clock right?", peer.name);
            }
            has_ours
        }
    }
}

/// Whether a descriptor leads others to us as ours does. After a restart an authority may call ours no news, and keep the
/// one before.
fn same_enough(found: &RouterDesc, ours: &RouterDesc) -> bool {
    let way =
        |d: &RouterDesc| (d.identity, d.ed_identity, d.ntor_onion_key, d.ipv4, d.or_port, d.dir_port, d.ipv6);
    found.digest == ours.digest || found.published > ours.published || way(found) == way(ours)
}

/// Links and answers go by these keys; made anew when it is time. Says whether anything was.
pub fn rotate(identity: &mut Identity, now: Unix) -> bool {
    let rotation = identity.rotate(OnionKeyLife::default(), now, &mut UnwrapErr(SysRng));
    if let Some(failure) = rotation.failure {
        error!("keys are not renewed: {failure}");
    }
    rotation.changed
}
