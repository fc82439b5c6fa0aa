//! Bandwidth weights (dir-spec 3.8.3): how clients should spread their load over guards, middles and exits so that
//! each position gets a third of the network.

use crate::netdoc::vote::VotedParams;

/// What weights are fractions of, unless a parameter says otherwise.
const DEFAULT_SCALE: i32 = 10_000;
/// How far sums of weights may be off, by rounding.
const MARGIN: i128 = 10;

/// Bandwidths of the relays by what they can be, in kilobytes (1000) a second.
///
/// Each is at least 1, so that all can be divided by. The type is wide enough for any votes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Totals {
    /// Guards that are no exits.
    guard: i128,
    /// Neither guards nor exits.
    middle: i128,
    /// Exits that are no guards.
    exit: i128,
    /// Both.
    both: i128,
    /// All, but for what guards are not guards for.
    total: i128,
}

impl Default for Totals {
    fn default() -> Self {
        Totals { guard: 1, middle: 1, exit: 1, both: 1, total: 4 }
    }
}

impl Totals {
    /// Adds a relay. A guard that has been one only for a percentage of the time counts as one only for that part.
    pub(super) fn add(&mut self, bandwidth: u32, is_exit: bool, is_guard: bool, guard_fraction: Option<u8>) {
        let all = i128::from(bandwidth);
        let part = match guard_fraction {
            Some(percent) => (f64::from(percent) / 100.0 * f64::from(bandwidth)).round() as i128,
            None => all,
        };
        let rest = all - part;
        self.total += part;
        match (is_exit, is_guard) {
            (true, true) => (self.both, self.exit) = (self.both + part, self.exit + rest),
            (true, false) => self.exit += part,
            (false, true) => (self.guard, self.middle) = (self.guard + part, self.middle + rest),
            (false, false) => self.middle += part,
        }
    }
}

/// The independent ones of the weights: the first letter after `W` is the position that a relay gets, the second one
/// what it could be (`d`: guard and exit).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Weights {
    gg: i128,
    gd: i128,
    mg: i128,
    me: i128,
    md: i128,
    ee: i128,
    ed: i128,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unbalanced {
    /// Weights that must make up a whole do not, or one is out of range.
    Range,
    /// Guards get another share than exits.
    Ends,
    /// Middles get another share than guards.
    Middle,
}

/// The end of the consensus, up to the first signature.
pub(super) fn footer(totals: &Totals, params: &VotedParams) -> String {
    let scale = i128::from(params.get("bwweightscale").unwrap_or(DEFAULT_SCALE).max(1));
    let line = Weights::of(totals, scale).map(|weights| weights.line(scale)).unwrap_or_default();
    format!("directory-footer\n{line}")
}

impl Weights {
    /// The weights; `None` if they cannot be balanced, in which case clients use bandwidths as they are.
    fn of(totals: &Totals, scale: i128) -> Option<Self> {
        let Totals { guard: g, exit: e, total: t, .. } = *totals;
        match (3 * g < t, 3 * e < t) {
            (false, false) => Self::nothing_scarce(totals, scale),
            (true, true) => Self::both_scarce(totals, scale),
            _ => Self::one_scarce(totals, scale),
        }
    }

    /// Case 1: guards and exits each have a third of the bandwidth.
    fn nothing_scarce(totals: &Totals, scale: i128) -> Option<Self> {
        let Totals { guard: g, middle: m, exit: e, .. } = *totals;
        let third = scale / 3;
        let ee = scale * (e + g + m) / (3 * e);
        let mg = scale * (2 * g - e - m) / (3 * g);
        let weights = Weights { gd: third, ed: third, md: third, ee, me: scale - ee, mg, gg: scale - mg };
        weights.check(totals, scale).is_ok().then_some(weights)
    }

    /// Case 2: neither has.
    fn both_scarce(totals: &Totals, scale: i128) -> Option<Self> {
        let Totals { guard: g, middle: m, exit: e, both: d, .. } = *totals;
        if e.min(g) + d < e.max(g) {
            // 2a: all that can be both helps the scarcer.
            let (ed, gd) = if e < g { (scale, 0) } else { (0, scale) };
            return Some(Weights { gg: scale, ee: scale, ed, gd, ..Weights::default() });
        }
        // 2b: exits help out in the middle.
        let ed = scale * (d - 2 * e + 4 * g - 2 * m) / (3 * d);
        let md = (scale - ed) / 2;
        let (ee, me) = (scale * (e - g + m) / e, scale * (g - m) / e);
        let weights = Weights { gg: scale, mg: 0, ee, me, ed, md, gd: md };
        if weights.check(totals, scale).is_ok() {
            return Some(weights);
        }
        // They cannot; guards and exits stay where they are. With too much in the middle that may not balance.
        let ed = scale * (d - 2 * e + g + m) / (3 * d);
        let md = (scale * (d - 2 * m + g + e) / (3 * d)).max(0);
        let weights = Weights { gg: scale, ee: scale, ed, md, gd: scale - ed - md, ..Weights::default() };
        matches!(weights.check(totals, scale), Ok(()) | Err(Unbalanced::Middle)).then_some(weights)
    }

    /// Case 3: one has, the other has not.
    fn one_scarce(totals: &Totals, scale: i128) -> Option<Self> {
        let Totals { guard: g, middle: m, exit: e, both: d, total: t } = *totals;
        let guards_scarce = g < e;
        if 3 * (g.min(e) + d) < t {
            // 3a: not even all that can be both makes up for it.
            return Some(if guards_scarce {
                let me = if e < m { 0 } else { scale * (e - m) / (2 * e) };
                Weights { gg: scale, gd: scale, me, ee: scale - me, ..Weights::default() }
            } else {
                let mg = if g < m { 0 } else { scale * (g - m) / (2 * g) };
                Weights { ee: scale, ed: scale, mg, gg: scale - mg, ..Weights::default() }
            });
        }
        // 3b: it does.
        let weights = if guards_scarce {
            let gd = scale * (d - 2 * g + e + m) / (3 * d);
            let ee = scale * (e + m) / (2 * e);
            let md = (scale - gd) / 2;
            Weights { gg: scale, gd, mg: 0, ee, me: scale - ee, md, ed: md }
        } else {
            let ed = scale * (d - 2 * e + g + m) / (3 * d);
            let gg = scale * (g + m) / (2 * g);
            let md = (scale - ed) / 2;
            Weights { ee: scale, ed, me: 0, gg, mg: scale - gg, md, gd: md }
        };
        weights.check(totals, scale).is_ok().then_some(weights)
    }

    /// Whether the weights are fractions that make up wholes, and each position gets its share.
    fn check(&self, totals: &Totals, scale: i128) -> Result<(), Unbalanced> {
        let Weights { gg, gd, mg, me, md, ee, ed } = *self;
        let Totals { guard: g, middle: m, exit: e, both: d, total: t } = *totals;
        let about = |a: i128, b: i128, margin: i128| (a - b).abs() <= margin;
        let whole = [ed + md + gd, mg + gg, me + ee].into_iter().all(|sum| about(sum, scale, MARGIN));
        if !whole || [gg, gd, mg, me, md, ee, ed].into_iter().any(|w| w < 0 || w > scale) {
            return Err(Unbalanced::Range);
        }
        let margin = MARGIN * t / 3;
        let guards = gg * g + gd * d;
        if !about(guards, ee * e + ed * d, margin) {
            return Err(Unbalanced::Ends);
        }
        if !about(guards, m * scale + md * d + me * e + mg * g, margin) {
            return Err(Unbalanced::Middle);
        }
        Ok(())
    }

    /// The line: the weights above and those that follow from them, sorted by name.
    fn line(&self, scale: i128) -> String {
        let Weights { gg, gd, mg, me, md, ee, ed } = *self;
        format!(
            "bandwidth-weights Wbd={md} Wbe={me} Wbg={mg} Wbm={scale} Wdb={scale} Web={scale} Wed={ed} Wee={ee} \
             Weg={ed} Wem={ee} Wgb={scale} Wgd={gd} Wgg={gg} Wgm={gg} Wmb={scale} Wmd={md} Wme={me} Wmg={mg} \
             Wmm={scale}\n"
        )
    }
}

#[cfg(test)]
mod tests;
