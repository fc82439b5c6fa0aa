use proptest::prelude::*;

use super::*;

fn tag(n: u16) -> SendmeTag {
    let mut tag = [0; 20];
    tag[..2].copy_from_slice(&n.to_be_bytes());
    SendmeTag(tag)
}

fn v1(n: u16) -> Sendme {
    Sendme::V1 { tag: tag(n) }
}

#[test]
fn circuit_tags_are_those_of_every_hundredth_cell() {
    let mut send = CircuitSend::new(1000);
    for n in 1..=1000 {
        assert!(send.can_send());
        send.sent(498, tag(n));
    }
    assert!(!send.can_send());
    for n in (100..=1000).step_by(100) {
        assert_eq!(send.on_sendme(v1(n), false), Ok(()));
    }
    assert_eq!(send.window(), 1000);
    assert_eq!(send.on_sendme(v1(1000), false), Err(FlowError::UnexpectedCircuitSendme));
}

#[test]
fn circuit_sendme_must_match() {
    let full = || {
        let mut send = CircuitSend::new(1000);
        (1..=250).for_each(|n| send.sent(498, tag(n)));
        send
    };
    assert_eq!(full().on_sendme(v1(200), true), Err(FlowError::WrongTag), "oldest first");
    assert_eq!(full().on_sendme(Sendme::V0, false), Err(FlowError::NoTag));
    assert_eq!(full().on_sendme(Sendme::V0, true), Ok(()));
    assert_eq!(CircuitSend::new(1000).on_sendme(v1(0), true), Err(FlowError::UnexpectedCircuitSendme));
}

#[test]
fn circuit_window_is_clamped() {
    assert_eq!(CircuitSend::new(0).window(), 100);
    assert_eq!(CircuitSend::new(250).window(), 250);
    assert_eq!(CircuitSend::new(u16::MAX).window(), 1000);
}

#[test]
fn every_increment_has_an_unpredictable_cell() {
    let mut send = CircuitSend::new(1000);
    for n in 1..=200 {
        let expected = if n % 100 == 0 { MAX_UNPREDICTABLE_DATA_LEN } else { MAX_DATA_LEN };
        assert_eq!(send.data_limit(), expected, "cell {n}");
        send.sent(send.data_limit(), tag(n));
    }
    send.sent(10, tag(201));
    (202..=299).for_each(|n| send.sent(MAX_DATA_LEN, tag(n)));
    assert_eq!(send.data_limit(), MAX_DATA_LEN, "a short cell has already brought randomness");
}

#[test]
fn circuit_receiver_acknowledges_every_hundredth_cell_at_once() {
    let mut recv = CircuitRecv::default();
    for n in 1..=2000 {
        let due = recv.on_data(tag(n)).unwrap();
        assert_eq!(due, (n % 100 == 0).then(|| tag(n)), "cell {n}");
    }
}

#[test]
fn stream_sender_stops_at_zero_and_refuses_too_much() {
    let mut send = StreamSend::default();
    assert_eq!(send.on_sendme(), Err(FlowError::UnexpectedStreamSendme));
    (0..500).for_each(|_| send.sent());
    assert!(!send.can_send());
    (0..10).for_each(|_| send.on_sendme().unwrap());
    assert_eq!(send.on_sendme(), Err(FlowError::UnexpectedStreamSendme));
}

#[test]
fn stream_receiver_waits_for_the_flush() {
    let mut recv = StreamRecv::default();
    (0..49).for_each(|_| recv.on_data().unwrap());
    assert_eq!(recv.flushed(0), 0);
    (49..149).for_each(|_| recv.on_data().unwrap());
    assert_eq!(recv.flushed(10), 0, "ten cells wait");
    assert_eq!(recv.flushed(9), 2);
    assert_eq!(recv.flushed(0), 0);
    assert_eq!(recv.window(), 451);
}

#[test]
fn stream_overrun_is_an_error() {
    let mut recv = StreamRecv::default();
    (0..500).for_each(|_| recv.on_data().unwrap());
    assert_eq!(recv.on_data(), Err(FlowError::StreamOverrun));
}

proptest! {
    /// A sender and a receiver joined by queues never violate each other's windows, and nothing stalls.
    #[test]
    fn sender_and_receiver_agree(circwindow: u16, steps in prop::collection::vec(any::<bool>(), 0..5000)) {
        let mut send = CircuitSend::new(circwindow);
        let mut recv = CircuitRecv::default();
        let (mut cells, mut sendmes) = (VecDeque::new(), VecDeque::new());
        let mut n = 0u16;
        for forward in steps {
            if forward && send.can_send() {
                n += 1;
                send.sent(send.data_limit(), tag(n));
                cells.push_back(tag(n));
            } else if let Some(tag) = cells.pop_front() {
                sendmes.extend(recv.on_data(tag).unwrap());
            } else if let Some(tag) = sendmes.pop_front() {
                send.on_sendme(Sendme::V1 { tag }, false).unwrap();
            }
            prop_assert!(send.window() <= CIRCUIT_WINDOW);
            prop_assert!(send.tags.len() <= usize::from(CIRCUIT_WINDOW / CIRCUIT_INCREMENT));
        }
        for tag in cells.drain(..) {
            sendmes.extend(recv.on_data(tag).unwrap());
        }
        for tag in sendmes.drain(..) {
            send.on_sendme(Sendme::V1 { tag }, false).unwrap();
        }
        prop_assert!(send.can_send(), "all acknowledged, yet nothing may be sent");
    }

    /// Stream windows never overflow, whatever arrives.
    #[test]
    fn stream_windows_stay_in_bounds(steps in prop::collection::vec(any::<u8>(), 0..3000)) {
        let (mut send, mut recv) = (StreamSend::default(), StreamRecv::default());
        for step in steps {
            match step % 4 {
                0 if send.can_send() => send.sent(),
                1 => drop(send.on_sendme()),
                2 => drop(recv.on_data()),
                _ => drop(recv.flushed(usize::from(step) / 16)),
            }
            prop_assert!(send.window() <= STREAM_WINDOW && recv.window() <= STREAM_WINDOW);
        }
    }
}
