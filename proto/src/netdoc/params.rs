//! Consensus parameters: the network's knobs, each clamped to its legal range (param-spec).
//!
//! Names, defaults and ranges are those of C tor 0.4.9; where its source and param-spec differ, the source is
//! followed, because that is what the rest of the network does.

use std::collections::BTreeMap;

use crate::netdoc::Fault;
use crate::netdoc::tokenize::Item;

/// One parameter: its name on the `params` line, the value when it is absent, and its legal range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Param {
    /// Name on the `params` line.
    pub name: &'static str,
    /// Value when the consensus does not set it.
    pub default: i32,
    /// Least legal value; a lower one counts as this.
    pub min: i32,
    /// Greatest legal value; a higher one counts as this.
    pub max: i32,
}

macro_rules! params {
    ($($(#[$doc:meta])* $id:ident = $name:literal, $default:expr, $min:expr, $max:expr;)*) => {
        $($(#[$doc])* pub const $id: Param = Param { name: $name, default: $default, min: $min, max: $max };)*
        /// Every parameter of this table.
        pub const ALL: &[Param] = &[$($id),*];
    };
}

const MAX: i32 = i32::MAX;
/// Cells that fit one TLS record; the congestion-control defaults are multiples of it (proposal 324).
const RECORD_CELLS: i32 = 31;
/// Cells of the output buffer that those defaults assume.
const OUTBUF_CELLS: i32 = 2 * RECORD_CELLS;

params! {
    // Circuits and cells.
    /// Initial package window of a circuit, in cells.
    CIRCWINDOW = "circwindow", 1000, 100, 1000;
    /// Lowest SENDME version a sender may use.
    SENDME_EMIT_MIN_VERSION = "sendme_emit_min_version", 1, 0, 255;
    /// Lowest SENDME version a receiver takes; 1 refuses unauthenticated ones.
    SENDME_ACCEPT_MIN_VERSION = "sendme_accept_min_version", 0, 0, 255;
    /// Whether EXTEND2 may come in a RELAY cell instead of RELAY_EARLY.
    ALLOW_NONEARLY_EXTEND = "AllowNonearlyExtend", 0, 0, 1;
    /// Half-life of a circuit's activity in the EWMA scheduler, in milliseconds.
    CIRCUIT_PRIORITY_HALFLIFE_MSEC = "CircuitPriorityHalflifeMsec", 30_000, 1, MAX;
    /// Length of an EWMA tick, in seconds.
    CIRCUIT_PRIORITY_TICK_SECS = "CircuitPriorityTickSecs", 10, 1, 600;
    /// Cells a circuit's queue toward the client may hold; one more closes the circuit.
    CIRC_MAX_CELL_QUEUE_SIZE = "circ_max_cell_queue_size", 2500, 50, MAX;
    /// The same for the queue away from the client; the default is the value of [`CIRC_MAX_CELL_QUEUE_SIZE`],
    /// see [`ConsensusParams::circ_max_cell_queue_size_out`].
    CIRC_MAX_CELL_QUEUE_SIZE_OUT = "circ_max_cell_queue_size_out", 2500, 50, MAX;
    /// Milliseconds between runs of C tor's link scheduler.
    KIST_SCHED_RUN_INTERVAL = "KISTSchedRunInterval", 2, 2, 100;
    /// Bytes queued on a link at which cells are held back.
    ORCONN_HIGH = "orconn_high", 32 * 1024, 509, MAX;
    /// Bytes queued on a link at which cells flow again.
    ORCONN_LOW = "orconn_low", 16 * 1024, 509, MAX;
    /// Cells queued on a circuit at which its streams stop being read.
    CELLQ_HIGH = "cellq_high", 256, 1, 1000;
    /// Cells queued on a circuit at which its streams are read again.
    CELLQ_LOW = "cellq_low", 10, 1, 1000;

    // Handshakes.
    /// Estimated milliseconds of queueing at which create requests are refused.
    MAX_ONION_QUEUE_DELAY = "MaxOnionQueueDelay", 1750, 1, MAX;
    /// Seconds after which a queued create request is dropped.
    ONION_QUEUE_WAIT_CUTOFF = "onion_queue_wait_cutoff", 5, 0, MAX;
    /// Public-key jobs in flight per CPU.
    MAX_PENDING_TASKS_PER_CPU = "max_pending_tasks_per_cpu", 64, 1, MAX;
    /// Days that an onion key is current.
    ONION_KEY_ROTATION_DAYS = "onion-key-rotation-days", 28, 1, 90;
    /// Days that the previous onion key is still taken; see [`ConsensusParams::onion_key_grace_period_days`].
    ONION_KEY_GRACE_PERIOD_DAYS = "onion-key-grace-period-days", 7, 1, 90;
    /// Whether descriptors carry a TAP key that nobody uses, for old parsers.
    PUBLISH_DUMMY_TAP_KEY = "publish-dummy-tap-key", 1, 0, 1;

    // Link padding (padding-spec 2).
    /// Least milliseconds of silence before a padding cell.
    NF_ITO_LOW = "nf_ito_low", 1500, 0, 60_000;
    /// Most milliseconds of silence before a padding cell; see [`ConsensusParams::padding_interval_ms`].
    NF_ITO_HIGH = "nf_ito_high", 9500, 0, 60_000;
    /// As [`NF_ITO_LOW`], for reduced padding.
    NF_ITO_LOW_REDUCED = "nf_ito_low_reduced", 9000, 0, 60_000;
    /// As [`NF_ITO_HIGH`], for reduced padding.
    NF_ITO_HIGH_REDUCED = "nf_ito_high_reduced", 14_000, 0, 60_000;
    /// Seconds after which an idle link between relays is closed.
    NF_CONNTIMEOUT_RELAYS = "nf_conntimeout_relays", 3600, 60, 7 * 24 * 3600;
    /// Seconds that an unused client circuit is kept.
    NF_CONNTIMEOUT_CLIENTS = "nf_conntimeout_clients", 1800, 60, 24 * 3600;
    /// Whether links between relays are padded.
    NF_PAD_RELAYS = "nf_pad_relays", 0, 0, 1;
    /// Whether links are padded before they carry a circuit.
    NF_PAD_BEFORE_USAGE = "nf_pad_before_usage", 1, 0, 1;
    /// Whether links of single onion services are padded.
    NF_PAD_SINGLE_ONION = "nf_pad_single_onion", 1, 0, 1;

    // Circuit padding (padding-spec 3).
    /// Whether circuit padding is off.
    CIRCPAD_PADDING_DISABLED = "circpad_padding_disabled", 0, 0, 1;
    /// Whether only reduced circuit padding is used.
    CIRCPAD_PADDING_REDUCED = "circpad_padding_reduced", 0, 0, 1;
    /// Percentage of padding cells over which no more are sent.
    CIRCPAD_GLOBAL_MAX_PADDING_PCT = "circpad_global_max_padding_pct", 0, 0, 100;
    /// Padding cells that are always allowed.
    CIRCPAD_GLOBAL_ALLOWED_CELLS = "circpad_global_allowed_cells", 0, 0, 65_534;
    /// Cells in a circuit's queue over which no padding is sent.
    CIRCPAD_MAX_CIRC_QUEUED_CELLS = "circpad_max_circ_queued_cells", 1000, 0, 50_000;

    // Exits.
    /// Whether an exit refuses streams whose previous hop is not a known relay.
    REFUSE_UNKNOWN_EXITS = "refuseunknownexits", 1, 0, 1;
    /// Whether exits may connect back into the network.
    ALLOW_NETWORK_REENTRY = "allow-network-reentry", 0, 0, 1;
    /// Milliseconds that an exit waits for a DNS answer.
    EXIT_DNS_TIMEOUT = "exit_dns_timeout", 1000, 1, 120_000;
    /// Further tries after the first of a DNS question.
    EXIT_DNS_NUM_ATTEMPTS = "exit_dns_num_attempts", 2, 0, 255;

    // Reachability and overload.
    /// Whether relays publish without having seen their IPv4 port reached.
    ASSUME_REACHABLE = "assume-reachable", 0, 0, 1;
    /// The same for the IPv6 port.
    ASSUME_REACHABLE_IPV6 = "assume-reachable-ipv6", 0, 0, 1;
    /// Share of dropped ntor handshakes that counts as overload, in thousandths of a percent.
    OVERLOAD_ONIONSKIN_NTOR_SCALE_PERCENT = "overload_onionskin_ntor_scale_percent", 1000, 0, 100_000;
    /// Seconds over which that share is measured.
    OVERLOAD_ONIONSKIN_NTOR_PERIOD_SECS = "overload_onionskin_ntor_period_secs", 6 * 3600, 0, MAX;

    // Bandwidth.
    /// Bytes a second of a link with a peer that is no relay; what relays may do in all if the consensus says nothing.
    PER_CONN_BW_RATE = "perconnbwrate", MAX, 1, MAX;
    /// The burst of that rate.
    PER_CONN_BW_BURST = "perconnbwburst", MAX, 1, MAX;

    // Denial-of-service defences.
    /// Whether clients that create too many circuits are limited.
    DOS_CIRCUIT_CREATION_ENABLED = "DoSCircuitCreationEnabled", 0, 0, 1;
    /// Connections from one address at which the limit starts to apply.
    DOS_CIRCUIT_CREATION_MIN_CONNECTIONS = "DoSCircuitCreationMinConnections", 3, 1, MAX;
    /// Circuits a second that an address may create over time.
    DOS_CIRCUIT_CREATION_RATE = "DoSCircuitCreationRate", 3, 1, MAX;
    /// Circuits that an address may create at once.
    DOS_CIRCUIT_CREATION_BURST = "DoSCircuitCreationBurst", 90, 1, MAX;
    /// What happens to an address over the limit: 1 nothing, 2 its creates are refused.
    DOS_CIRCUIT_CREATION_DEFENSE_TYPE = "DoSCircuitCreationDefenseType", 2, 1, 2;
    /// Seconds for which an address over the limit is refused.
    DOS_CIRCUIT_CREATION_DEFENSE_TIME_PERIOD = "DoSCircuitCreationDefenseTimePeriod", 3600, 0, MAX;
    /// Whether the number of connections from one address is limited.
    DOS_CONNECTION_ENABLED = "DoSConnectionEnabled", 0, 0, 1;
    /// Connections one address may have.
    DOS_CONNECTION_MAX_CONCURRENT_COUNT = "DoSConnectionMaxConcurrentCount", 100, 1, MAX;
    /// What happens above: 1 nothing, 2 the new connection is closed.
    DOS_CONNECTION_DEFENSE_TYPE = "DoSConnectionDefenseType", 2, 1, 2;
    /// Connections a second that an address may open over time.
    DOS_CONNECTION_CONNECT_RATE = "DoSConnectionConnectRate", 20, 1, MAX;
    /// Connections that an address may open at once.
    DOS_CONNECTION_CONNECT_BURST = "DoSConnectionConnectBurst", 40, 1, MAX;
    /// Seconds for which an address that connects too often is refused.
    DOS_CONNECTION_CONNECT_DEFENSE_TIME_PERIOD = "DoSConnectionConnectDefenseTimePeriod", 24 * 3600, 10, MAX;
    /// Whether the rate of streams on a circuit is limited.
    DOS_STREAM_CREATION_ENABLED = "DoSStreamCreationEnabled", 0, 0, 1;
    /// Streams a second that a circuit may open over time.
    DOS_STREAM_CREATION_RATE = "DoSStreamCreationRate", 100, 1, MAX;
    /// Streams that a circuit may open at once.
    DOS_STREAM_CREATION_BURST = "DoSStreamCreationBurst", 300, 1, MAX;
    /// What happens above: 1 nothing, 2 the stream is refused, 3 the circuit is closed.
    DOS_STREAM_CREATION_DEFENSE_TYPE = "DoSStreamCreationDefenseType", 2, 1, 3;
    /// Whether rendezvous points refuse single-hop clients.
    DOS_REFUSE_SINGLE_HOP_CLIENT_RENDEZVOUS = "DoSRefuseSingleHopClientRendezvous", 0, 0, 1;
    /// Circuits of an address that fill their outbound queue until it is refused further ones; 0 is never.
    DOS_NUM_CIRC_MAX_OUTQ = "dos_num_circ_max_outq", 3, 0, MAX;

    // Congestion control (proposal 324).
    /// Algorithm: 0 fixed windows, 2 Vegas (1 and 3 were experiments).
    CC_ALG = "cc_alg", 2, 0, 3;
    /// Cells acknowledged by one SENDME.
    CC_SENDME_INC = "cc_sendme_inc", RECORD_CELLS, 1, 254;
    /// Initial congestion window, in cells.
    CC_CWND_INIT = "cc_cwnd_init", 4 * RECORD_CELLS, RECORD_CELLS, 10_000;
    /// Least congestion window.
    CC_CWND_MIN = "cc_cwnd_min", 4 * RECORD_CELLS, RECORD_CELLS, 1000;
    /// Greatest congestion window.
    CC_CWND_MAX = "cc_cwnd_max", MAX, 500, MAX;
    /// Cells by which the window grows at a time.
    CC_CWND_INC = "cc_cwnd_inc", 1, 1, 1000;
    /// Percentage of a SENDME's cells by which the window grows in slow start.
    CC_CWND_INC_PCT_SS = "cc_cwnd_inc_pct_ss", 100, 1, 500;
    /// How often per window the window is updated.
    CC_CWND_INC_RATE = "cc_cwnd_inc_rate", RECORD_CELLS, 1, 250;
    /// SENDMEs before the first estimate of the path.
    CC_BWE_MIN = "cc_bwe_min", 5, 2, 20;
    /// Share of a window over which the round-trip time is averaged, in percent.
    CC_EWMA_CWND_PCT = "cc_ewma_cwnd_pct", 50, 1, 255;
    /// Most SENDMEs in that average.
    CC_EWMA_MAX = "cc_ewma_max", 10, 2, MAX;
    /// The same in slow start.
    CC_EWMA_SS = "cc_ewma_ss", 2, 2, MAX;
    /// How far the least round-trip time is reset when the window is at its least, in percent.
    CC_RTT_RESET_PCT = "cc_rtt_reset_pct", 100, 0, 100;
    /// SENDMEs by which a window may be unfilled and still count as full.
    CC_CWND_FULL_GAP = "cc_cwnd_full_gap", 4, 0, 32_767;
    /// Percentage of a window that must be in use for it to count as full.
    CC_CWND_FULL_MINPCT = "cc_cwnd_full_minpct", 25, 0, 100;
    /// Whether fullness is judged once per window or once per update.
    CC_CWND_FULL_PER_CWND = "cc_cwnd_full_per_cwnd", 1, 0, 1;
    /// Window at which slow start ends in any case.
    CC_SS_MAX = "cc_ss_max", 5000, 500, MAX;
    /// Growth per round at which slow start ends, exit circuits.
    CC_SSCAP_EXIT = "cc_sscap_exit", 600, 100, MAX;
    /// Growth per round at which slow start ends, onion circuits.
    CC_SSCAP_ONION = "cc_sscap_onion", 475, 100, MAX;
    /// Vegas alpha for exit circuits, in cells.
    CC_VEGAS_ALPHA_EXIT = "cc_vegas_alpha_exit", 3 * OUTBUF_CELLS, 0, 1000;
    /// Vegas beta for exit circuits.
    CC_VEGAS_BETA_EXIT = "cc_vegas_beta_exit", 4 * OUTBUF_CELLS, 0, 1000;
    /// Vegas gamma for exit circuits.
    CC_VEGAS_GAMMA_EXIT = "cc_vegas_gamma_exit", 3 * OUTBUF_CELLS, 0, 1000;
    /// Vegas delta for exit circuits.
    CC_VEGAS_DELTA_EXIT = "cc_vegas_delta_exit", 5 * OUTBUF_CELLS, 0, MAX;
    /// Vegas alpha for onion circuits, in cells.
    CC_VEGAS_ALPHA_ONION = "cc_vegas_alpha_onion", 3 * OUTBUF_CELLS, 0, 1000;
    /// Vegas beta for onion circuits.
    CC_VEGAS_BETA_ONION = "cc_vegas_beta_onion", 6 * OUTBUF_CELLS, 0, 1000;
    /// Vegas gamma for onion circuits.
    CC_VEGAS_GAMMA_ONION = "cc_vegas_gamma_onion", 4 * OUTBUF_CELLS, 0, 1000;
    /// Vegas delta for onion circuits.
    CC_VEGAS_DELTA_ONION = "cc_vegas_delta_onion", 7 * OUTBUF_CELLS, 0, MAX;
    /// Cells buffered for a stream at which a client sends XOFF.
    CC_XOFF_CLIENT = "cc_xoff_client", 500, 1, 10_000;
    /// The same at an exit.
    CC_XOFF_EXIT = "cc_xoff_exit", 500, 1, 10_000;
    /// Cells drained between two measurements of a stream's rate.
    CC_XON_RATE = "cc_xon_rate", 500, 1, 5000;
    /// Change of that rate, in percent, that is worth an XON.
    CC_XON_CHANGE_PCT = "cc_xon_change_pct", 25, 1, 99;
    /// Measurements in the average of that rate.
    CC_XON_EWMA_CNT = "cc_xon_ewma_cnt", 2, 2, 100;

    // Conflux (proposal 329).
    /// Whether circuits may be linked.
    CFX_ENABLED = "cfx_enabled", 1, 0, 1;
    /// Most legs of a set.
    CFX_MAX_LEGS_SET = "cfx_max_legs_set", 8, 3, 255;

    // Onion services.
    /// Length of a time period, in minutes.
    HSDIR_INTERVAL = "hsdir_interval", 1440, 30, 14_400;
    /// Replicas of a descriptor.
    HSDIR_N_REPLICAS = "hsdir_n_replicas", 2, 1, 16;
    /// Directories per replica that a client asks.
    HSDIR_SPREAD_FETCH = "hsdir_spread_fetch", 3, 1, 128;
    /// Directories per replica that a service publishes to.
    HSDIR_SPREAD_STORE = "hsdir_spread_store", 4, 1, 128;
    /// Bytes of a descriptor.
    HS_V3_MAX_DESCRIPTOR_SIZE = "HSV3MaxDescriptorSize", 50_000, 1, MAX;
    /// Whether introduction points limit INTRODUCE2 by default.
    INTRO_DOS_DEFENSE = "HiddenServiceEnableIntroDoSDefense", 0, 0, 1;
    /// INTRODUCE2 a second when they do.
    INTRO_DOS_RATE_PER_SEC = "HiddenServiceEnableIntroDoSRatePerSec", 25, 0, MAX;
    /// INTRODUCE2 at once when they do.
    INTRO_DOS_BURST_PER_SEC = "HiddenServiceEnableIntroDoSBurstPerSec", 200, 0, MAX;

    // Directory.
    /// Hours of consensus history that caches keep for diffs.
    MAX_CONSENSUS_AGE_TO_CACHE_FOR_DIFF = "max-consensus-age-to-cache-for-diff", 8192, 0, 8192;
    /// Hours after which a held consensus is too old to ask a diff for.
    TRY_DIFF_FOR_CONSENSUS_NEWER_THAN = "try-diff-for-consensus-newer-than", 72, 0, 8192;

    // Paths.
    /// What the bandwidth weights are divided by.
    BWWEIGHTSCALE = "bwweightscale", 10_000, 1, MAX;
    /// Percentage of paths that must be known before circuits are built.
    MIN_PATHS_FOR_CIRCS_PCT = "min_paths_for_circs_pct", 60, 25, 95;
    /// Whether EXTEND2 names the Ed25519 identity.
    EXTEND_BY_ED25519_ID = "ExtendByEd25519ID", 0, 0, 1;
    /// Whether `GuardFraction` in the consensus counts.
    USE_GUARD_FRACTION = "UseGuardFraction", 0, 0, 1;
    /// Whether mutual `family` lists make a family.
    USE_FAMILY_LISTS = "use-family-lists", 1, 0, 1;
    /// Whether shared `family-ids` make a family (proposal 321).
    USE_FAMILY_IDS = "use-family-ids", 1, 0, 1;

    // Entry guards (guard-spec).
    /// Percentage of all possible guards that a sample may have.
    GUARD_MAX_SAMPLE_THRESHOLD_PERCENT = "guard-max-sample-threshold-percent", 20, 1, 100;
    /// Guards that a sample may have.
    GUARD_MAX_SAMPLE_SIZE = "guard-max-sample-size", 60, 1, MAX;
    /// Usable guards that a sample should have.
    GUARD_MIN_FILTERED_SAMPLE_SIZE = "guard-min-filtered-sample-size", 20, 1, MAX;
    /// Days after which a guard that is not listed leaves the sample.
    GUARD_REMOVE_UNLISTED_GUARDS_AFTER_DAYS = "guard-remove-unlisted-guards-after-days", 20, 1, 3650;
    /// Days after which a guard that was never used leaves the sample.
    GUARD_LIFETIME_DAYS = "guard-lifetime-days", 120, 1, 3650;
    /// Days after its first use at which a guard leaves the sample.
    GUARD_CONFIRMED_MIN_LIFETIME_DAYS = "guard-confirmed-min-lifetime-days", 60, 1, 3650;
    /// Primary guards.
    GUARD_N_PRIMARY_GUARDS = "guard-n-primary-guards", 3, 1, MAX;
    /// Primary guards that circuits are spread over.
    GUARD_N_PRIMARY_GUARDS_TO_USE = "guard-n-primary-guards-to-use", 1, 1, MAX;
    /// Primary guards that directory requests are spread over.
    GUARD_N_PRIMARY_DIR_GUARDS_TO_USE = "guard-n-primary-dir-guards-to-use", 3, 1, MAX;
    /// Seconds of silence after which our own connection to the network is thought to have been down.
    GUARD_INTERNET_LIKELY_DOWN_INTERVAL = "guard-internet-likely-down-interval", 600, 1, MAX;
    /// Seconds for which an attempt with a guard that is not primary holds up worse ones.
    GUARD_NONPRIMARY_GUARD_CONNECT_TIMEOUT = "guard-nonprimary-guard-connect-timeout", 15, 1, MAX;
    /// Seconds that a circuit waits for better guards to fail until it is given up.
    GUARD_NONPRIMARY_GUARD_IDLE_TIMEOUT = "guard-nonprimary-guard-idle-timeout", 600, 1, MAX;
    /// Percentage of possible guards below which a configuration has a sample of its own.
    GUARD_MEANINGFUL_RESTRICTION_PERCENT = "guard-meaningful-restriction-percent", 20, 1, MAX;
    /// Percentage of possible guards below which a configuration sets its user apart.
    GUARD_EXTREME_RESTRICTION_PERCENT = "guard-extreme-restriction-percent", 1, 1, 100;

    // Guards that make circuits fail (path-spec 7).
    /// Circuits through a guard before anything is said of how many fail.
    PB_MINCIRCS = "pb_mincircs", 150, 5, MAX;
    /// Percentage of circuits below which too few do not fail to let that pass,
    PB_NOTICEPCT = "pb_noticepct", 70, 0, 100;
    /// to call it bad,
    PB_WARNPCT = "pb_warnpct", 50, 0, 100;
    /// and to call it extreme.
    PB_EXTREMEPCT = "pb_extremepct", 30, 0, 100;
    /// Whether a guard is not used any more then.
    PB_DROPGUARDS = "pb_dropguards", 0, 0, 1;
    /// Circuits from which on old ones count less.
    PB_SCALECIRCS = "pb_scalecircs", 300, 10, MAX;
    /// Numerator of how much less.
    PB_MULTFACTOR = "pb_multfactor", 1, 1, MAX;
    /// Denominator of that.
    PB_SCALEFACTOR = "pb_scalefactor", 2, 2, MAX;
    /// Circuits that were used before anything is said of how many carry nothing.
    PB_MINUSE = "pb_minuse", 20, 3, MAX;
    /// Percentage of them below which too few carry something to let that pass,
    PB_NOTICEUSEPCT = "pb_noticeusepct", 80, 0, 100;
    /// and to call it extreme.
    PB_EXTREMEUSEPCT = "pb_extremeusepct", 60, 0, 100;
    /// Circuits that were used from which on old ones count less.
    PB_SCALEUSE = "pb_scaleuse", 100, 10, MAX;

    // Learning how long circuits take to build (path-spec 2.4).
    /// Whether nothing is learned.
    CBTDISABLED = "cbtdisabled", 0, 0, 1;
    /// Commonest bins of which the start of the Pareto curve is the average.
    CBTNUMMODES = "cbtnummodes", 10, 1, 20;
    /// Recent circuits that are looked at for time-outs.
    CBTRECENTCOUNT = "cbtrecentcount", 20, 3, 1000;
    /// Time-outs among them at which all that was learned is thrown away.
    CBTMAXTIMEOUTS = "cbtmaxtimeouts", 18, 3, 10_000;
    /// Circuits before the first estimate.
    CBTMINCIRCS = "cbtmincircs", 100, 1, 10_000;
    /// Percentage of circuits that are to be built before the time-out.
    CBTQUANTILE = "cbtquantile", 80, 10, 99;
    /// Percentage of circuits that are to be built before slow ones are closed.
    CBTCLOSEQUANTILE = "cbtclosequantile", 99, 10, 99;
    /// Seconds between two circuits that are built only to learn.
    CBTTESTFREQ = "cbttestfreq", 10, 1, MAX;
    /// Least time-out, in milliseconds.
    CBTMINTIMEOUT = "cbtmintimeout", 10, 10, MAX;
    /// Time-out before the first estimate, in milliseconds.
    CBTINITIALTIMEOUT = "cbtinitialtimeout", 60_000, 10, MAX;
    /// Seconds that an unused circuit is kept while there is no estimate.
    CBTLEARNTIMEOUT = "cbtlearntimeout", 180, 10, 60_000;
    /// Unused circuits at which none is built only to learn.
    CBTMAXOPENCIRCS = "cbtmaxopencircs", 10, 0, 14;
}

/// The `params` line of a consensus; empty before the first consensus, so that defaults apply.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConsensusParams {
    values: BTreeMap<Box<str>, i32>,
}

impl ConsensusParams {
    /// Reads `name=value ...`; each name once, each value an `i32` (dir-spec 3.4.1).
    pub(crate) fn from_item(item: &Item<'_>) -> Result<Self, crate::netdoc::DocError> {
        let mut values = BTreeMap::new();
        for entry in item.args() {
            let bad = || item.fault(Fault::value("consensus parameter", entry));
            let (name, value) = entry.split_once('=').ok_or_else(bad)?;
            let value = value.parse().map_err(|_| bad())?;
            if name.is_empty() || values.insert(Box::from(name), value).is_some() {
                return Err(bad());
            }
        }
        Ok(ConsensusParams { values })
    }

    /// The value of `param`: what the consensus says, clamped to its range, or its default.
    pub fn get(&self, param: &Param) -> i32 {
        self.raw(param.name).unwrap_or(param.default).clamp(param.min, param.max)
    }

    /// Whether the switch `param` is on.
    pub fn is_on(&self, param: &Param) -> bool {
        self.get(param) != 0
    }

    /// What the consensus says of any name, unclamped.
    pub fn raw(&self, name: &str) -> Option<i32> {
        self.values.get(name).copied()
    }

    /// Days that the previous onion key is still taken: never longer than the rotation itself.
    pub fn onion_key_grace_period_days(&self) -> i32 {
        self.get(&ONION_KEY_GRACE_PERIOD_DAYS).min(self.get(&ONION_KEY_ROTATION_DAYS))
    }

    /// Milliseconds of silence before link padding, least and most; the most is never below the least.
    pub fn padding_interval_ms(&self, reduced: bool) -> (i32, i32) {
        let (low, high) =
            if reduced { (NF_ITO_LOW_REDUCED, NF_ITO_HIGH_REDUCED) } else { (NF_ITO_LOW, NF_ITO_HIGH) };
        let low = self.get(&low);
        (low, self.get(&high).max(low))
    }

    /// Cells that a circuit's queue away from the client may hold; follows the other queue unless set itself.
    pub fn circ_max_cell_queue_size_out(&self) -> i32 {
        match self.raw(CIRC_MAX_CELL_QUEUE_SIZE_OUT.name) {
            Some(_) => self.get(&CIRC_MAX_CELL_QUEUE_SIZE_OUT),
            None => self.get(&CIRC_MAX_CELL_QUEUE_SIZE),
        }
    }
}

impl<'a> FromIterator<(&'a str, i32)> for ConsensusParams {
    fn from_iter<T: IntoIterator<Item = (&'a str, i32)>>(iter: T) -> Self {
        ConsensusParams { values: iter.into_iter().map(|(k, v)| (Box::from(k), v)).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netdoc::tokenize::Tokenizer;

    fn parse(line: &str) -> Result<ConsensusParams, crate::netdoc::DocError> {
        ConsensusParams::from_item(&Tokenizer::new(line).next().unwrap().unwrap())
    }

    #[test]
    fn defaults_lie_in_their_ranges_and_names_are_unique() {
        let mut names: Vec<_> = ALL.iter().map(|p| p.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ALL.len());
        for p in ALL {
            assert!(p.min <= p.default && p.default <= p.max, "{}", p.name);
            assert_eq!(ConsensusParams::default().get(p), p.default);
        }
    }

    #[test]
    fn values_are_clamped() {
        let p = parse("params circwindow=50 cc_alg=9 nf_ito_low=20000 some-future-param=-7").unwrap();
        assert_eq!(p.get(&CIRCWINDOW), 100);
        assert_eq!(p.get(&CC_ALG), 3);
        assert_eq!(p.padding_interval_ms(false), (20_000, 20_000));
        assert_eq!(p.padding_interval_ms(true), (9000, 14_000));
        assert_eq!(p.raw("some-future-param"), Some(-7));
    }

    #[test]
    fn values_that_depend_on_each_other() {
        let p = parse("params onion-key-rotation-days=3 circ_max_cell_queue_size=60").unwrap();
        assert_eq!(p.onion_key_grace_period_days(), 3);
        assert_eq!(p.circ_max_cell_queue_size_out(), 60);
        let p: ConsensusParams = [("circ_max_cell_queue_size_out", 70)].into_iter().collect();
        assert_eq!(p.circ_max_cell_queue_size_out(), 70);
    }

    #[test]
    fn malformed_lines_are_refused() {
        for bad in ["a", "a=", "a=x", "=1", "a=1 a=1", "a=2147483648"] {
            assert!(parse(&format!("params {bad}")).is_err(), "{bad}");
        }
        assert_eq!(parse("params ").unwrap(), ConsensusParams::default());
    }
}
