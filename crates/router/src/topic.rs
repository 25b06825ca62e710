//! The definition of matching, in its plainest form.

/// Whether the Topic Filter matches the Topic Name (v5 §4.7, v3.1.1 §4.7).
///
/// `+` stands for exactly one level, which may be empty; `#` for its parent and any number of levels below. A Topic
/// Filter that begins with a wildcard does not match a Topic Name that begins with `$` (v5 MQTT-4.7.2-1, v3.1.1
/// MQTT-4.7.2-1). Characters are compared as they are, without normalisation (v5 MQTT-4.7.3-4, v3.1.1 MQTT-4.7.3-4).
///
/// This is the definition the other structures are tested against, and good enough for a single question. Both
/// arguments have to be valid, and the Topic Filter without its `$share/{ShareName}/`.
///
/// ```
/// use pantala_router::topic_matches;
///
/// assert!(topic_matches("sport/#", "sport"));
/// assert!(topic_matches("sport/+/score", "sport//score"));
/// assert!(!topic_matches("+/monitor", "$SYS/monitor"));
/// ```
pub fn topic_matches(filter: &str, topic: &str) -> bool {
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let mut topic_levels = topic.split('/');
    for filter_level in filter.split('/') {
        if filter_level == "#" {
            return true;
        }
        match topic_levels.next() {
            Some(topic_level) if filter_level == "+" || filter_level == topic_level => {}
            _ => return false,
        }
    }
    topic_levels.next().is_none()
}

/// Whether the Topic Filter holds a wildcard. In a valid one, `+` and `#` are nothing else.
pub(crate) fn has_wildcard(filter: &str) -> bool {
    filter.bytes().any(|byte| byte == b'+' || byte == b'#')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn examples_of_the_standard() {
        for (filter, topic) in [
            ("sport/tennis/player1/#", "sport/tennis/player1"),
            ("sport/tennis/player1/#", "sport/tennis/player1/ranking"),
            ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon"),
            ("sport/#", "sport"),
            ("#", "a"),
            ("#", "/"),
            ("sport/tennis/+", "sport/tennis/player1"),
            ("sport/+", "sport/"),
            ("+/+", "/finance"),
            ("/+", "/finance"),
            ("$SYS/#", "$SYS/x"),
            ("$SYS/#", "$SYS"),
            ("$SYS/monitor/+", "$SYS/monitor/Clients"),
            ("a//b", "a//b"),
            ("/", "/"),
        ] {
            assert!(topic_matches(filter, topic), "{filter} should match {topic}");
        }
        for (filter, topic) in [
            ("sport/tennis/+", "sport/tennis/player1/ranking"),
            ("sport/+", "sport"),
            ("+", "/finance"),
            ("#", "$SYS/x"),
            ("+/monitor/Clients", "$SYS/monitor/Clients"),
            ("+", "$"),
            ("a", "A"),
            ("a", "a/"),
            ("a//b", "a/b"),
            ("a/b/#", "a"),
            ("\u{e9}", "e\u{301}"),
        ] {
            assert!(!topic_matches(filter, topic), "{filter} should not match {topic}");
        }
    }
}
