//! What is to be done with a message that came: printed, counted, cleared, or the end.

use pantala_proto::TopicFilter;

/// What is wanted, of `mosquitto_sub`'s flags.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Wanted {
    /// `-T`: Topic Filters whose messages are as if they had not come.
    pub filter_out: Vec<String>,
    /// Which messages by RETAIN.
    pub retained: Retained,
    /// `--remove-retained`: Retained Messages are cleared at the broker.
    pub remove_retained: bool,
    /// `--random-filter`: percentage that is printed; None is all.
    pub print_percent: Option<f64>,
    /// `-C`: the end after so many messages.
    pub count: Option<u64>,
}

/// Which messages by RETAIN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Retained {
    /// All.
    #[default]
    All,
    /// `-R`: those without.
    Hidden,
    /// `--retained-only`: those with; the first without is the end.
    Only,
}

/// What to do with a message, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    /// Publish an empty retained message to its topic.
    pub clear: bool,
    /// Print it.
    pub print: bool,
    /// It was the last.
    pub end: bool,
}

/// Decides message by message.
#[derive(Debug, Clone)]
pub struct Decider {
    wanted: Wanted,
    counted: u64,
    ended: bool,
    random: u64,
}

impl Decider {
    /// Begins. `seed` is of the choice that `--random-filter` makes.
    pub fn new(wanted: Wanted, seed: u64) -> Self {
        Self { wanted, counted: 0, ended: false, random: seed }
    }

    /// Decides about a message. After the last one nothing more is done.
    pub fn decide(&mut self, topic_name: &str, retain: bool) -> Decision {
        const NOTHING: Decision = Decision { clear: false, print: false, end: false };
        let wanted = &self.wanted;
        if self.ended {
            return NOTHING;
        }
        if wanted.retained == Retained::Only && !retain {
            self.ended = true;
            return Decision { end: true, ..NOTHING };
        }
        let hides = |filter: &String| TopicFilter::parse(filter).is_ok_and(|filter| filter.matches(topic_name));
        if wanted.filter_out.iter().any(hides) {
            return NOTHING;
        }
        let clear = retain && wanted.remove_retained;
        if wanted.retained == Retained::Hidden && retain {
            return Decision { clear, ..NOTHING };
        }
        let print = match wanted.print_percent {
            Some(percent) => percent > self.percent(),
            None => true,
        };
        // What chance hides is counted: it came.
        self.counted += 1;
        self.ended = self.wanted.count == Some(self.counted);
        Decision { clear, print, end: self.ended }
    }

    /// A number in 0.0..100.0, by SplitMix64.
    fn percent(&mut self) -> f64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.random;
        bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^= bits >> 31;
        // 53 bits are what a double holds.
        (bits >> 11) as f64 / (1_u64 << 53) as f64 * 100.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRINT: Decision = Decision { clear: false, print: true, end: false };
    const HIDE: Decision = Decision { clear: false, print: false, end: false };

    #[test]
    fn retained_messages_are_hidden_cleared_or_all_there_is() {
        let decide = |wanted: Wanted, messages: &[(&str, bool)]| {
            let mut decider = Decider::new(wanted, 1);
            messages.iter().map(|(topic, retain)| decider.decide(topic, *retain)).collect::<Vec<_>>()
        };
        let hidden = Wanted { retained: Retained::Hidden, count: Some(2), ..Wanted::default() };
        let last = Decision { end: true, ..PRINT };
        assert_eq!(
            decide(hidden, &[("t", true), ("t", false), ("t", true), ("t", false), ("t", false)]),
            [HIDE, PRINT, HIDE, last, HIDE]
        );
        let only = Wanted { retained: Retained::Only, ..Wanted::default() };
        let end = Decision { end: true, ..HIDE };
        assert_eq!(decide(only, &[("t", true), ("u", false), ("t", true)]), [PRINT, end, HIDE]);
        let cleared = Wanted {
            retained: Retained::Hidden,
            remove_retained: true,
            filter_out: vec!["keep/#".into()],
            ..Wanted::default()
        };
        let clear = Decision { clear: true, ..HIDE };
        assert_eq!(decide(cleared, &[("t", true), ("keep/a", true), ("t", false)]), [clear, HIDE, PRINT]);
    }

    #[test]
    fn what_is_filtered_out_is_not_counted_and_what_chance_hides_is() {
        let mut decider =
            Decider::new(Wanted { filter_out: vec!["+/b".into()], count: Some(2), ..Wanted::default() }, 1);
        assert_eq!(decider.decide("a/b", false), HIDE);
        assert_eq!(decider.decide("a/c", false), PRINT);
        assert_eq!(decider.decide("a/d", false), Decision { end: true, ..PRINT });
        let mut decider = Decider::new(Wanted { print_percent: Some(0.0), count: Some(1), ..Wanted::default() }, 1);
        assert_eq!(decider.decide("a", false), Decision { end: true, ..HIDE });
    }

    #[test]
    fn chance_prints_about_as_many_as_it_should() {
        let mut decider = Decider::new(Wanted { print_percent: Some(25.0), ..Wanted::default() }, 7);
        let printed = (0..10_000).filter(|_| decider.decide("t", false).print).count();
        assert!((2_300..2_700).contains(&printed), "{printed}");
        let mut decider = Decider::new(Wanted { print_percent: Some(100.0), ..Wanted::default() }, 7);
        assert!((0..10_000).all(|_| decider.decide("t", false).print));
    }
}
