//! What is on the dashboard of directory authorities.

use super::grafana::{Dashboard, Panel};

pub const AUTHORITY: Dashboard = Dashboard {
    file: "authority.json",
    title: "onionring: directory authority",
    anchor: "onionring_dirauth_authorities",
    second_row: "Consensus",
    stats: &[
        panel!("Up since", "dateTimeFromNow", ["process_start_time_seconds * 1000" => ""]),
        panel!("Version", "none", ["onionring_build_info" => "{{version}}"]),
        panel!("Consensus began", "dateTimeFromNow", [
            "onionring_dirauth_consensus_valid_after_timestamp_seconds * 1000" => "",
        ]; "The newest consensus at hand."),
        panel!("Next consensus", "dateTimeFromNow", [
            "onionring_dirauth_consensus_fresh_until_timestamp_seconds * 1000" => "",
        ]; "What lies in the past has not come."),
        panel!("Consensus ends", "dateTimeFromNow", [
            "onionring_dirauth_consensus_valid_until_timestamp_seconds * 1000" => "",
        ]; "Until then clients use the newest consensus at hand."),
        panel!("Votes missed", "short", [
            "max (onionring_dirauth_votes_missed_in_a_row)" => "",
        ]; "Periods in a row, of the authority that has missed most."),
        panel!("Alarms", "short", [
            "sum (onionring_dirauth_alarms_total)" => "",
        ]; "Since the start: the log says more, and has the names of files with the evidence."),
        panel!("Certificate ends", "dateTimeFromNow", [
            "onionring_dirauth_certificate_expiry_timestamp_seconds * 1000" => "",
        ]; "This authority cannot vote without one."),
    ],
    traffic: &[
        panel!("Relays in the consensus", "short", [
            "onionring_dirauth_consensus_relays" => "{{instance}}",
        ]),
        panel!("Relays in our last vote", "short", [
            "onionring_dirauth_vote_relays" => "{{instance}} voted on",
            "sum by (instance) (onionring_dirauth_vote_flag_relays{flag=\"Running\"})" => "{{instance}} Running",
            "onionring_dirauth_vote_measured_relays" => "{{instance}} measured",
        ]),
    ],
    topics: &[
        (
            "Authorities",
            &[
                panel!("Votes at hand", "short", [
                    "sum by (instance) (onionring_dirauth_vote_held)" => "{{instance}} has",
                    "max (onionring_dirauth_authorities)" => "authorities",
                ]; "Of the period under way."),
                panel!("Signatures at hand", "short", [
                    "sum by (instance) (onionring_dirauth_signature_held)" => "{{instance}} has",
                    "max (onionring_dirauth_authorities)" => "authorities",
                ]; "Of the period under way, on the consensus that we computed."),
                panel!("Votes missed in a row", "short", [
                    "max by (authority, identity) (onionring_dirauth_votes_missed_in_a_row)" => "{{authority}}",
                    "onionring_dirauth_own_votes_missed_in_a_row" => "{{instance}} its own",
                ]; "Periods that ended without the vote of an authority."),
                panel!("Signatures missed in a row", "short", [
                    "max by (authority, identity) (onionring_dirauth_signatures_missed_in_a_row)" => "{{authority}}",
                ]; "Periods that ended without its signature on the consensus that we computed."),
                panel!("Clocks, difference from ours", "s", [
                    "abs (onionring_dirauth_clock_ahead_seconds)" => "{{authority}}, of {{instance}}",
                ]; "Votes of an authority whose clock is wrong come too early or too late."),
                panel!("Exchanges that failed, by what they were about", "ops", [
                    "sum by (about, outcome) (rate(onionring_dirauth_exchanges_total{outcome!=\"ok\"}))" => "{{about}}: {{outcome}}",
                ]; "refused means that there is nothing to be had, or that our document is not taken."),
                panel!("Exchanges, by what they were about", "ops", [
                    "sum by (about) (rate(onionring_dirauth_exchanges_total))" => "{{about}}",
                ]),
            ],
        ),
        (
            "Alarms and work",
            &[
                panel!("Alarms", "ops", [
                    "sum by (alarm) (rate(onionring_dirauth_alarms_total))" => "{{alarm}}",
                ]),
                panel!("Consensuses published, and periods without", "ops", [
                    "sum (rate(onionring_dirauth_consensuses_published_total))" => "published",
                    "sum by (reason) (rate(onionring_dirauth_periods_without_consensus_total))" => "without: {{reason}}",
                ]),
                panel!("State that could not be written", "ops", [
                    "sum by (instance) (rate(onionring_dirauth_state_unsaved_total))" => "{{instance}}",
                ]),
                panel!("Time to make a vote, and to compute a consensus", "s", [
                    "onionring_dirauth_vote_making_seconds" => "{{instance}} vote",
                    "onionring_dirauth_consensus_computation_seconds" => "{{instance}} consensus",
                ]; "The last of each."),
            ],
        ),
        (
            "Relays",
            &[
                panel!("Flags in our last vote", "short", [
                    "sum by (flag) (onionring_dirauth_vote_flag_relays)" => "{{flag}}",
                ]),
                panel!("Relays that have published", "short", [
                    "onionring_dirauth_relays_stored" => "{{instance}} stored",
                    "onionring_dirauth_relays_pending" => "{{instance}} waiting for approval",
                ]),
                panel!("Documents received, by what became of them", "ops", [
                    "sum by (verdict) (rate(onionring_dirauth_documents_total))" => "{{verdict}}",
                ]),
                panel!("Documents refused, by reason", "ops", [
                    "sum by (reason) (rate(onionring_dirauth_documents_refused_total))" => "{{reason}}",
                ]),
            ],
        ),
        (
            "Tests of relays",
            &[
                panel!("Relays tested", "short", [
                    "sum by (instance) (onionring_dirauth_relays_tested)" => "{{instance}} tested",
                    "sum by (instance) (onionring_dirauth_relays_up)" => "{{instance}} reached",
                    "sum by (instance) (onionring_dirauth_relays_proven)" => "{{instance}} carry circuits",
                    "sum by (instance) (onionring_dirauth_relays_condemned)" => "{{instance}} carry none",
                ]),
                panel!("Tests under way", "short", [
                    "onionring_dirauth_tests_under_way" => "{{instance}}",
                ]),
                panel!("Tests, by what was tested", "ops", [
                    "sum by (test) (rate(onionring_dirauth_tests_total))" => "{{test}}",
                ]),
                panel!("Tests not passed, by what was tested", "ops", [
                    "sum by (test, outcome) (rate(onionring_dirauth_tests_total{outcome!=\"passed\"}))" => "{{test}} {{outcome}}",
                ]),
            ],
        ),
        (
            "Directory",
            &[
                panel!("Requests, by status", "ops", [
                    "sum by (way, status) (rate(onionring_dirauth_answers_total))" => "{{way}} {{status}}",
                ]),
                panel!("Documents served", "Bps", [
                    "sum by (way) (rate(onionring_dirauth_served_bytes_total))" => "{{way}}",
                ]),
                panel!("Links", "short", [
                    "sum by (instance) (onionring_dirauth_links)" => "{{instance}}",
                ]; "On the ORPort."),
            ],
        ),
    ],
};
