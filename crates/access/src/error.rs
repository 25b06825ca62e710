//! What can be wrong with rules.

use pantala_proto::{FilterError, TopicFilter, topic_levels};

use crate::FILTER_LEVELS_MAX;
use crate::layer::Share;

/// Why rules cannot be used. None of them then are; whoever has older ones keeps those.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A line of a Mosquitto ACL file.
    #[error("line {line}: {why}")]
    Line {
        /// Counted from one.
        line: usize,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A place in rules that are not lines: a role, a rule, what a token grants.
    #[error("{place}: {why}")]
    Place {
        /// As the user would look for it: `role "sensor", publish "a#"`.
        place: String,
        /// What is wrong with it.
        why: &'static str,
    },
}

/// Checks a Topic Filter of a rule, where a Share Name has no place.
pub(crate) fn check_filter(text: &str) -> Result<(), &'static str> {
    if text.contains('\0') {
        return Err("the Topic Filter has a character U+0000");
    }
    if text.len() > usize::from(u16::MAX) {
        return Err("the Topic Filter has more than 65535 bytes");
    }
    if topic_levels(text) > FILTER_LEVELS_MAX {
        return Err("the Topic Filter has more than 200 levels");
    }
    match TopicFilter::parse(text) {
        // What begins with `$share` is no topic anybody publishes to: such a rule says nothing, and does no harm.
        Ok(_) | Err(FilterError::Share) => Ok(()),
        Err(FilterError::Empty) => Err("the Topic Filter is empty"),
        Err(FilterError::Wildcard) => Err("a wildcard must have its level for itself, and # must be the last"),
    }
}

/// Takes apart `$share/{ShareName}/{filter}`, where the Share Name may be `+`: every group. Returns the Topic Filter.
pub(crate) fn split_share(text: &str) -> Result<(Share, &str), &'static str> {
    let Some(rest) = text.strip_prefix("$share/") else {
        return Ok((Share::Unnamed, text));
    };
    let (name, filter) = rest.split_once('/').ok_or("a Shared Subscription is written $share/NAME/FILTER")?;
    let share = match name {
        "+" => Share::Any,
        "" => return Err("a Shared Subscription is written $share/NAME/FILTER"),
        // Else a client could choose the name of the group it lets itself into.
        name if crate::filter::is_template(name) => return Err("a Share Name has no %c and no %u"),
        name if name.contains(['+', '#']) => return Err("a Share Name has no wildcard; + alone is every group"),
        name => Share::Named(name.into()),
    };
    Ok((share, filter))
}
