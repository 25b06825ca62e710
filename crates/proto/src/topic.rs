//! Topic Names and Topic Filters (v5 section 4.7).

use core::fmt;

use crate::text::plain_topic_name;

/// Whether `name` may be published to: not empty, no wildcards, no U+0000 (v5 MQTT-4.7.0-1, MQTT-4.7.3-1, MQTT-4.7.3-2).
#[inline]
pub fn valid_topic_name(name: &str) -> bool {
    // Most names are short and ASCII, and known at once.
    !name.is_empty()
        && (plain_topic_name(name.as_bytes()).is_some() || memchr::memchr3(b'+', b'#', 0, name.as_bytes()).is_none())
}

/// How many levels a Topic Name or Topic Filter has: one more than it has separators.
pub fn topic_levels(topic: &str) -> usize {
    memchr::memchr_iter(b'/', topic.as_bytes()).count() + 1
}

/// A Topic Filter that is well-formed, with its share taken off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TopicFilter<'a> {
    /// An ordinary filter.
    Plain(&'a str),
    /// A Shared Subscription: `$share/{share_name}/{filter}`.
    Shared(SharedFilter<'a>),
}

/// The two parts of a Shared Subscription's filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SharedFilter<'a> {
    /// The Share Name: not empty, without `/`, `+` and `#` (v5 MQTT-4.8.2-1, MQTT-4.8.2-2).
    pub share_name: &'a str,
    /// The Topic Filter that follows it.
    pub filter: &'a str,
}

/// What is wrong with a Topic Filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FilterError {
    /// It has no character (v5 MQTT-4.7.3-1).
    Empty,
    /// A wildcard does not have its level for itself, or `#` is not the last (v5 MQTT-4.7.1-1, MQTT-4.7.1-2).
    Wildcard,
    /// `$share` without a Share Name or without a filter behind it (v5 MQTT-4.8.2-1, MQTT-4.8.2-2).
    Share,
}

impl<'a> TopicFilter<'a> {
    /// Checks a filter that came as a valid string.
    ///
    /// # Errors
    /// See [`FilterError`].
    pub fn parse(text: &'a str) -> Result<Self, FilterError> {
        if let Some(rest) = text.strip_prefix("$share/") {
            let (share_name, filter) = rest.split_once('/').ok_or(FilterError::Share)?;
            if share_name.is_empty() || share_name.contains(['+', '#']) || filter.is_empty() {
                return Err(FilterError::Share);
            }
            check_filter(filter)?;
            return Ok(Self::Shared(SharedFilter { share_name, filter }));
        }
        if text == "$share" {
            return Err(FilterError::Share);
        }
        check_filter(text)?;
        Ok(Self::Plain(text))
    }

    /// The filter that Topic Names are matched against, without the share.
    pub fn filter(self) -> &'a str {
        match self {
            Self::Plain(filter) | Self::Shared(SharedFilter { filter, .. }) => filter,
        }
    }

    /// Whether it holds a wildcard.
    pub fn has_wildcard(self) -> bool {
        memchr::memchr2(b'+', b'#', self.filter().as_bytes()).is_some()
    }

    /// Whether a message with this Topic Name is one that the filter asks for. A filter that begins with a wildcard does not
    /// ask for names that begin with `$` (v5 MQTT-4.7.2-1).
    ///
    /// Walks both level by level. For many filters at once there is `pantala-router`.
    pub fn matches(self, topic_name: &str) -> bool {
        let filter = self.filter();
        if topic_name.starts_with('$') && filter.starts_with(['+', '#']) {
            return false;
        }
        let mut names = topic_name.split('/');
        for level in filter.split('/') {
            match (level, names.next()) {
                // It stands for its parent too: `a/#` matches `a` (v5 section 4.7.1.2).
                ("#", _) => return true,
                (_, None) => return false,
                ("+", Some(_)) => {}
                (level, Some(name)) if level == name => {}
                _ => return false,
            }
        }
        names.next().is_none()
    }
}

fn check_filter(filter: &str) -> Result<(), FilterError> {
    if filter.is_empty() {
        return Err(FilterError::Empty);
    }
    let bytes = filter.as_bytes();
    for at in memchr::memchr2_iter(b'+', b'#', bytes) {
        let begins_level = at == 0 || bytes[at - 1] == b'/';
        let ends_level = at + 1 == bytes.len() || (bytes[at] == b'+' && bytes[at + 1] == b'/');
        if !begins_level || !ends_level {
            return Err(FilterError::Wildcard);
        }
    }
    Ok(())
}

impl fmt::Display for FilterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "the Topic Filter is empty",
            Self::Wildcard => "a wildcard must have its level for itself, and # must be the last",
            Self::Share => "a Shared Subscription is written $share/NAME/FILTER",
        })
    }
}

impl core::error::Error for FilterError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_match_as_the_standard_says() {
        let matching = [
            ("a/b", "a/b"),
            ("a/#", "a"),
            ("a/#", "a/b/c"),
            ("#", "a"),
            ("#", "/"),
            ("+", "a"),
            ("+/+", "/"),
            ("/+", "/a"),
            ("+/b/#", "a/b"),
            ("a/+", "a/"),
            ("$SYS/#", "$SYS/x"),
            ("$share/g/a/+", "a/b"),
            ("$share/g/#", "a"),
        ];
        for (filter, name) in matching {
            assert!(TopicFilter::parse(filter).unwrap().matches(name), "{filter} {name}");
        }
        let others = [
            ("a/b", "a"),
            ("a", "a/b"),
            ("+", "/a"),
            ("+", "a/b"),
            ("#", "$SYS"),
            ("+/x", "$SYS/x"),
            ("a/+", "a"),
            ("a/#", "ab"),
            ("a/b", "a/b/"),
            ("$share/g/#", "$SYS/x"),
            ("A", "a"),
        ];
        for (filter, name) in others {
            assert!(!TopicFilter::parse(filter).unwrap().matches(name), "{filter} {name}");
        }
    }

    #[test]
    fn topic_names() {
        for name in ["a", "/", "//", "a//b", "a/", " ", "$SYS/x", "\u{feff}", "é"] {
            assert!(valid_topic_name(name), "{name:?}");
        }
        for name in ["", "+", "a/#", "a+", "a\0b"] {
            assert!(!valid_topic_name(name), "{name:?}");
        }
    }

    #[test]
    fn filters() {
        for filter in ["a", "#", "+", "/", "/#", "+/+", "a/+/b/#", "+/", "//+", "$SHARE/g/t", "$shared", "$SYS/#"] {
            assert_eq!(TopicFilter::parse(filter), Ok(TopicFilter::Plain(filter)));
        }
        for filter in ["a#", "a/#/b", "+a", "a+/b", "##", "#/", "++", "a/b+"] {
            assert_eq!(TopicFilter::parse(filter), Err(FilterError::Wildcard), "{filter}");
        }
        assert_eq!(TopicFilter::parse(""), Err(FilterError::Empty));
    }

    #[test]
    fn shared_filters() {
        let shared = |share_name, filter| Ok(TopicFilter::Shared(SharedFilter { share_name, filter }));
        assert_eq!(TopicFilter::parse("$share/g/t"), shared("g", "t"));
        assert_eq!(TopicFilter::parse("$share/g//t"), shared("g", "/t"));
        assert_eq!(TopicFilter::parse("$share/g/a/#"), shared("g", "a/#"));
        for filter in ["$share", "$share/", "$share/g", "$share//t", "$share/g/", "$share/g+/t", "$share/g#/t"] {
            assert_eq!(TopicFilter::parse(filter), Err(FilterError::Share), "{filter}");
        }
        assert_eq!(TopicFilter::parse("$share/g/a#"), Err(FilterError::Wildcard));
    }

    #[test]
    fn levels() {
        for (topic, levels) in [("a", 1), ("/", 2), ("a/b", 2), ("a//b/", 4)] {
            assert_eq!(topic_levels(topic), levels);
        }
    }
}
