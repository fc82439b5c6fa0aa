use onionring_node::link::Times;
use onionring_node::tls::{Connector, TlsVersions};
use onionring_proto::netdoc::protover::Protocols;
use onionring_proto::netdoc::routerdesc::NewDescriptor;

use super::super::puppet::{Puppet, Vice, rng};
use super::*;

/// Long enough for a busy machine; nothing waits for it to pass.
const LONG: Duration = Duration::from_secs(60);
/// What passes when a relay is silent.
const SHORT: Duration = Duration::from_secs(2);

pub(crate) fn client() -> Dialer {
    let connector = Connector::new(TlsVersions::Both).unwrap();
    let times = Times { dial: LONG, tls: LONG, handshake: LONG };
    Dialer { connector, identity: None, own_addresses: Vec::new(), service: None, times }
}

fn tools(step: Duration) -> Tools {
    Tools { dialer: client(), times: TestTimes { hop: step, stream: step }, exit: None }
}

/// A round of `relay` by way of `helpers`; each of `beyond` with whether it is proven.
fn round(
    step: Duration,
    relay: &Puppet,
    helpers: &[&Puppet],
    beyond: &[(&Puppet, bool)],
) -> impl Future<Output = Report> + use<> {
    let (tools, cast) = (tools(step), cast(relay, helpers, beyond));
    async move { run(&tools, &cast).await }
}

fn cast(relay: &Puppet, helpers: &[&Puppet], beyond: &[(&Puppet, bool)]) -> Cast {
    Cast {
        relay: relay.descriptor.clone(),
        helpers: helpers.iter().map(|helper| helper.descriptor.clone()).collect(),
        beyond: beyond
            .iter()
            .map(|(relay, is_proven)| Beyond { descriptor: relay.descriptor.clone(), is_proven: *is_proven })
            .collect(),
    }
}

async fn good() -> Puppet {
    Puppet::start(Vice::None).await
}

#[tokio::test]
async fn a_good_relay_passes_and_sees_no_more_than_another_relay() {
    let (relay, helper, beyond) = (good().await, good().await, good().await);
    let report = round(LONG, &relay, &[&helper], &[(&helper, true), (&beyond, true)]).await;
    assert_eq!(report.round, Round::Passed);
    for test in [Test::Handshake, Test::Extend, Test::Carry, Test::Directory, Test::Round] {
        assert!(report.found(test, Outcome::Passed), "{test:?} of {report:?}");
    }
    assert_eq!((relay.seen.circuits_of_clients(), relay.seen.circuits_of_relays()), (0, 2));
    let peers = relay.seen.peers.lock().unwrap().clone();
    assert!(peers.iter().all(|peer| peer.rsa_id == helper.id().0), "{peers:?}");
    // The helper sees a client.
    assert_eq!((helper.seen.circuits_of_clients(), helper.seen.circuits_of_relays()), (2, 0));
}

#[tokio::test]
async fn a_relay_that_drops_all_cells_after_the_link_handshake() {
    let bad = Puppet::start(Vice::DropsCells).await;
    let (one, two) = (good().await, good().await);
    let proven = [(&one, true), (&two, true)];
    // By two helpers, by one and directly, and directly alone.
    let (by_two, by_one, directly, through, through_all) = tokio::join!(
        round(SHORT, &bad, &[&one, &two], &proven),
        round(SHORT, &bad, &[&one], &proven),
        round(SHORT, &bad, &[], &proven),
        round(SHORT, &one, &[&bad], &[]),
        round(SHORT, &one, &[&bad, &bad, &bad], &[]),
    );
    for report in [by_two, by_one, directly] {
        assert_eq!(report.round, Round::Failed, "{report:?}");
        assert!(report.found(Test::Handshake, Outcome::Failed));
    }
    // It is no helper either: that is not the fault of those who are tested through it.
    assert_eq!(through.round, Round::Passed, "{through:?}");
    assert_eq!((through_all.round, through_all.tests.len()), (Round::Unclear, 1), "{through_all:?}");
}

#[tokio::test]
async fn relays_that_do_half_of_their_work() {
    let (one, two) = (good().await, good().await);
    let mut rounds = Vec::new();
    for (vice, test, passed) in [
        (Vice::CarriesNothing, Test::Carry, Test::Extend),
        (Vice::ExtendsNothing, Test::Extend, Test::Handshake),
        (Vice::ServesOther, Test::Directory, Test::Carry),
    ] {
        let bad = Puppet::start(vice).await;
        let round = round(SHORT, &bad, &[&one, &two], &[(&one, true), (&two, true)]);
        rounds.push((bad, tokio::spawn(round), test, passed));
    }
    for (_bad, round, test, passed) in rounds {
        let report = round.await.unwrap();
        assert_eq!(report.round, Round::Failed, "{report:?}");
        assert!(report.found(test, Outcome::Failed) && report.found(passed, Outcome::Passed), "{report:?}");
    }
    // Without anybody beyond, there is still its directory.
    let bad = Puppet::start(Vice::CarriesNothing).await;
    let report = round(SHORT, &bad, &[&one, &two], &[]).await;
    assert!(report.round == Round::Failed && report.found(Test::Directory, Outcome::Failed), "{report:?}");
}

#[tokio::test]
async fn who_else_may_be_to_blame() {
    let bad = Puppet::start(Vice::ExtendsNothing).await;
    let (relay, one, two) = (good().await, good().await, good().await);
    // One helper is bad, another is good.
    let report = round(SHORT, &relay, &[&bad, &one], &[(&two, true)]).await;
    assert_eq!(report.round, Round::Passed, "{report:?}");
    assert!(report.found(Test::Handshake, Outcome::Failed));
    // The only one is: what the relay shows us directly is no proof.
    let report = round(SHORT, &relay, &[&bad], &[(&two, true)]).await;
    assert_eq!(report.round, Round::Unclear, "{report:?}");
    // The relay beyond is, and nobody has said that it is good.
    let deaf = Puppet::start(Vice::DropsCells).await;
    for helpers in [&[&one][..], &[]] {
        let report = round(SHORT, &relay, helpers, &[(&deaf, false)]).await;
        assert_eq!(report.round, Round::Passed, "{report:?}");
        assert!(report.found(Test::Extend, Outcome::Unclear), "{report:?}");
    }
    // It was taken for good; the second way leads to another.
    let report = round(SHORT, &relay, &[&one, &two], &[(&deaf, true), (&two, true), (&one, true)]).await;
    assert_eq!(report.round, Round::Passed, "{report:?}");
    assert!(report.found(Test::Extend, Outcome::Failed), "{report:?}");
    // What the relay beyond serves is not the fault of who carries it.
    let other = Puppet::start(Vice::ServesOther).await;
    let report = round(LONG, &relay, &[&one], &[(&other, true)]).await;
    assert_eq!(report.round, Round::Passed, "{report:?}");
    assert!(report.found(Test::Carry, Outcome::Unclear), "{report:?}");
}

#[tokio::test]
async fn a_relay_that_is_not_there_is_the_business_of_links() {
    let (relay, helper) = (good().await, good().await);
    let gone = cast(&relay, &[], &[]);
    drop(relay);
    let report = run(&tools(LONG), &gone).await;
    assert_eq!((report.round, report.tests.len()), (Round::Unclear, 1), "{report:?}");
    // A helper says so, too.
    let gone = Cast { helpers: vec![helper.descriptor.clone(), helper.descriptor.clone()], ..gone };
    let report = run(&tools(LONG), &gone).await;
    assert_eq!(report.round, Round::Failed, "{report:?}");
}

#[tokio::test]
async fn exits_do_what_their_policy_says() {
    use Outcome::{Failed, Passed, Unclear};

    let listener = ExitListener::open("127.0.0.1:0".parse().unwrap(), [127, 0, 0, 1].into()).await.unwrap();
    let listener = Arc::new(listener);
    let (one, two) = (good().await, good().await);
    for (vice, policy, counts, found, expected) in [
        (Vice::None, "accept *:*", true, (Test::Exit, Passed), Round::Passed),
        (Vice::IgnoresPolicy, "accept *:*", true, (Test::Exit, Failed), Round::Failed),
        // It may not know the helper.
        (Vice::EndsWithMisc, "accept *:*", true, (Test::Exit, Unclear), Round::Passed),
        // The fault may be with our listener.
        (Vice::IgnoresPolicy, "accept *:*", false, (Test::Exit, Unclear), Round::Passed),
        (Vice::None, "reject *:*", true, (Test::ExitRefusal, Passed), Round::Passed),
        // That is not for us to punish.
        (Vice::IgnoresPolicy, "reject *:*", true, (Test::ExitRefusal, Failed), Round::Passed),
    ] {
        let relay = Puppet::with(vice, policy, |_| {}).await;
        let ticket = listener.ask(&mut rng());
        let exit = Some(ExitTest { listener: listener.clone(), ticket, counts });
        let report = run(&Tools { exit, ..tools(LONG) }, &cast(&relay, &[&one, &two], &[])).await;
        assert_eq!(report.round, expected, "{vice:?} {policy}: {report:?}");
        assert!(report.found(found.0, found.1), "{vice:?} {policy}: {report:?}");
    }
    // Nobody is let out who is connected directly, so that is not asked.
    let relay = Puppet::with(Vice::None, "accept *:*", |_| {}).await;
    let ticket = listener.ask(&mut rng());
    let exit = Some(ExitTest { listener, ticket, counts: true });
    let report = run(&Tools { exit, ..tools(LONG) }, &cast(&relay, &[], &[])).await;
    assert_eq!(report.round, Round::Passed);
    assert!(report.tests.iter().all(|(test, _)| *test != Test::Exit), "{report:?}");
}

#[tokio::test]
async fn a_relay_without_directory_is_not_asked_for_one() {
    let relay = Puppet::with(Vice::ServesOther, "reject *:*", |new| new.tunnelled_dir_server = false).await;
    let (one, two) = (good().await, good().await);
    let report = round(LONG, &relay, &[&one], &[(&two, true)]).await;
    assert!(report.round == Round::Passed && report.found(Test::Carry, Outcome::Passed), "{report:?}");
    // Nor is it when it is beyond; it is extended to.
    let report = round(LONG, &one, &[&two], &[(&relay, true)]).await;
    assert!(report.round == Round::Passed && report.found(Test::Extend, Outcome::Passed), "{report:?}");
    assert!(report.tests.iter().all(|(test, _)| *test != Test::Carry), "{report:?}");
}

/// An authority, as a rule.
#[tokio::test]
async fn a_relay_that_says_it_extends_nothing_need_not() {
    let edit = |new: &mut NewDescriptor| new.protocols = Protocols::parse("Link=3-5 LinkAuth=3").unwrap();
    let relay = Puppet::with(Vice::ExtendsNothing, "reject *:*", edit).await;
    let (one, two) = (good().await, good().await);
    let report = round(LONG, &relay, &[&one], &[(&two, true)]).await;
    assert_eq!(report.round, Round::Passed, "{report:?}");
    assert!(report.found(Test::Handshake, Outcome::Passed) && report.found(Test::Directory, Outcome::Passed));
    assert!(report.tests.iter().all(|(test, _)| *test != Test::Extend), "{report:?}");
    // What comes to it from others, it answers.
    let report = round(LONG, &one, &[&two], &[(&relay, true)]).await;
    assert!(report.round == Round::Passed && report.found(Test::Carry, Outcome::Passed), "{report:?}");
}
