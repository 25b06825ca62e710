//! Topic Aliases (v5 section 3.3.2.3.4). They live as long as the connection (v5 MQTT-3.3.2-7).

use std::collections::HashMap;
use std::num::NonZeroU16;

/// The aliases that the peer has set.
#[derive(Debug, Default)]
pub struct ReceivedAliases {
    topic_names: Vec<Option<Box<str>>>,
}

impl ReceivedAliases {
    /// Sets `alias`, in place of what it was. `maximum` is the Topic Alias Maximum that we announced; false if the
    /// alias is above it (v5 MQTT-3.3.2-9).
    #[must_use]
    pub fn set(&mut self, alias: NonZeroU16, maximum: u16, topic_name: &str) -> bool {
        if alias.get() > maximum {
            return false;
        }
        let at = usize::from(alias.get()) - 1;
        if self.topic_names.len() <= at {
            self.topic_names.resize(at + 1, None);
        }
        match &mut self.topic_names[at] {
            Some(known) if **known == *topic_name => {}
            slot => *slot = Some(topic_name.into()),
        }
        true
    }

    /// The Topic Name that `alias` stands for, if it has been set.
    pub fn resolve(&self, alias: NonZeroU16) -> Option<&str> {
        self.topic_names.get(usize::from(alias.get()) - 1)?.as_deref()
    }
}

/// The aliases that we have set towards the peer: the first Topic Names of the connection keep theirs.
#[derive(Debug)]
pub struct SentAliases {
    maximum: u16,
    /// Some have been chosen by the caller, so that the numbers in use are no row.
    chosen: bool,
    aliases: HashMap<Box<str>, NonZeroU16>,
}

/// How a Topic Name is to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SentAlias {
    /// The peer knows this alias: it goes without the name.
    Known(NonZeroU16),
    /// A new alias: it goes with the name.
    New(NonZeroU16),
}

impl SentAliases {
    /// At most `maximum` aliases: the lower of the peer's Topic Alias Maximum and our own wish.
    pub fn new(maximum: u16) -> Self {
        Self { maximum, chosen: false, aliases: HashMap::new() }
    }

    /// The alias for a Topic Name that is sent now; None if all are taken. An answer of [`SentAlias::New`] must be
    /// sent, since the alias counts as known from here.
    pub fn alias(&mut self, topic_name: &str) -> Option<SentAlias> {
        if let Some(&alias) = self.aliases.get(topic_name) {
            return Some(SentAlias::Known(alias));
        }
        if self.aliases.len() >= usize::from(self.maximum) {
            return None;
        }
        let next = u16::try_from(self.aliases.len() + 1).ok()?;
        let alias = if self.chosen {
            let in_use = |alias: &NonZeroU16| self.aliases.values().any(|used| used == alias);
            (1..=self.maximum).filter_map(NonZeroU16::new).find(|alias| !in_use(alias))?
        } else {
            NonZeroU16::new(next)?
        };
        self.aliases.insert(topic_name.into(), alias);
        Some(SentAlias::New(alias))
    }

    /// Has `alias` stand for a Topic Name that is sent now, whatever it stood for before. It may be above the maximum that was
    /// given, not above the peer's. As with [`SentAliases::alias`], an answer of [`SentAlias::New`] must be sent.
    pub fn choose(&mut self, alias: NonZeroU16, topic_name: &str) -> SentAlias {
        if self.aliases.get(topic_name) == Some(&alias) {
            return SentAlias::Known(alias);
        }
        self.chosen = true;
        self.aliases.retain(|_, used| *used != alias);
        self.aliases.insert(topic_name.into(), alias);
        SentAlias::New(alias)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alias(number: u16) -> NonZeroU16 {
        NonZeroU16::new(number).unwrap()
    }

    #[test]
    fn received_aliases_are_set_used_and_set_anew() {
        let mut aliases = ReceivedAliases::default();
        assert_eq!(aliases.resolve(alias(2)), None);
        assert!(aliases.set(alias(2), 2, "a"));
        assert_eq!((aliases.resolve(alias(1)), aliases.resolve(alias(2))), (None, Some("a")));
        assert!(aliases.set(alias(2), 2, "b"));
        assert_eq!(aliases.resolve(alias(2)), Some("b"));
        assert!(!aliases.set(alias(3), 2, "c"));
    }

    #[test]
    fn chosen_aliases_stand_for_the_last_name_and_no_other_takes_them() {
        let mut aliases = SentAliases::new(3);
        assert_eq!(aliases.alias("a"), Some(SentAlias::New(alias(1))));
        assert_eq!(aliases.choose(alias(2), "b"), SentAlias::New(alias(2)));
        assert_eq!(aliases.choose(alias(2), "b"), SentAlias::Known(alias(2)));
        assert_eq!(aliases.alias("c"), Some(SentAlias::New(alias(3))));
        // It takes the number of another, which has none any more.
        assert_eq!(aliases.choose(alias(1), "b"), SentAlias::New(alias(1)));
        assert_eq!(aliases.alias("b"), Some(SentAlias::Known(alias(1))));
        assert_eq!(aliases.alias("a"), Some(SentAlias::New(alias(2))));
        assert_eq!(aliases.alias("d"), None);
        assert_eq!(aliases.choose(alias(9), "e"), SentAlias::New(alias(9)));
    }

    #[test]
    fn sent_aliases_go_to_the_first_names() {
        let mut aliases = SentAliases::new(2);
        assert_eq!(aliases.alias("a"), Some(SentAlias::New(alias(1))));
        assert_eq!(aliases.alias("b"), Some(SentAlias::New(alias(2))));
        assert_eq!(aliases.alias("c"), None);
        assert_eq!(aliases.alias("a"), Some(SentAlias::Known(alias(1))));
    }
}
