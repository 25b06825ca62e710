//! Whether a Topic Filter matches a Topic Name (v5 section 4.7), in the plainest way.

/// `filter` is well-formed and without its share.
pub(super) fn matches(filter: &str, topic_name: &str) -> bool {
    // v5 MQTT-4.7.2-1.
    if topic_name.starts_with('$') && filter.starts_with(['#', '+']) {
        return false;
    }
    let mut levels = topic_name.split('/');
    for wanted in filter.split('/') {
        if wanted == "#" {
            return true;
        }
        match levels.next() {
            Some(level) if wanted == "+" || wanted == level => {}
            _ => return false,
        }
    }
    levels.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn wildcards_take_a_level_or_all_that_follow() {
        for (filter, topic_name) in [
            ("a/b", "a/b"),
            ("a/+", "a/b"),
            ("+/b", "a/b"),
            ("+", "a"),
            ("a/+/c", "a//c"),
            ("#", "a/b"),
            ("a/#", "a"),
            ("a/#", "a/b/c"),
            ("/+", "/a"),
            ("$SYS/#", "$SYS/x"),
        ] {
            assert!(matches(filter, topic_name), "{filter} {topic_name}");
        }
        for (filter, topic_name) in [
            ("a/b", "a"),
            ("a", "a/b"),
            ("+", "a/b"),
            ("a/+", "a"),
            ("a/#", "ab"),
            ("#", "$SYS/x"),
            ("+/x", "$SYS/x"),
            ("A", "a"),
        ] {
            assert!(!matches(filter, topic_name), "{filter} {topic_name}");
        }
    }
}
