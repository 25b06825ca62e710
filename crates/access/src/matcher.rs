//! Which of many Topic Filters is the first to match a Topic Name.

use std::collections::HashMap;

use crate::filter::Filter;

/// As many filters are asked one after the other; more are in a tree.
const LIST_FILTERS_MAX: usize = 16;

/// Topic Filters in order. Asking takes no memory.
#[derive(Debug, Clone)]
pub(crate) enum Matcher {
    List(Box<[Filter]>),
    Tree(Box<[Node]>),
}

/// A level of the tree. The ranks are places in the order; the lower comes first.
#[derive(Debug, Clone, Default)]
pub(crate) struct Node {
    children: HashMap<Box<str>, u32>,
    /// The child `+`.
    open: Option<u32>,
    /// The rank of the filter that ends here.
    here: Option<u32>,
    /// The rank of the filter that goes on with `#`.
    below: Option<u32>,
}

impl Matcher {
    pub(crate) fn new(filters: &[&str]) -> Self {
        if filters.len() <= LIST_FILTERS_MAX {
            return Self::List(filters.iter().map(|text| Filter::new(text)).collect());
        }
        let mut nodes = vec![Node::default()];
        for (rank, filter) in (0..).zip(filters) {
            insert(&mut nodes, filter, rank);
        }
        Self::Tree(nodes.into())
    }

    /// The place of the first filter that matches.
    #[inline]
    pub(crate) fn first(&self, topic_name: &str) -> Option<usize> {
        match self {
            Self::List(filters) => filters.iter().position(|filter| filter.matches(topic_name)),
            Self::Tree(nodes) => {
                let mut first = None;
                search(nodes, 0, Some(topic_name), topic_name.starts_with('$'), &mut first, &mut |()| {});
                first.map(|rank| rank as usize)
            }
        }
    }
}

fn insert(nodes: &mut Vec<Node>, filter: &str, rank: u32) {
    let mut at = 0;
    for level in filter.split('/') {
        if level == "#" {
            nodes[at].below.get_or_insert(rank);
            return;
        }
        let next = nodes.len() as u32;
        let child = if level == "+" {
            *nodes[at].open.get_or_insert(next)
        } else {
            *nodes[at].children.entry(level.into()).or_insert(next)
        };
        if child == next {
            nodes.push(Node::default());
        }
        at = child as usize;
    }
    nodes[at].here.get_or_insert(rank);
}

/// Looks below the node `at` for a filter that comes before `first`. `is_system` at the first level of a name that begins
/// with `$`: no wildcard there stands for it. `visit` is told of each node.
///
/// The depth is that of the filters, at most [`FILTER_LEVELS_MAX`](crate::FILTER_LEVELS_MAX).
fn search(
    nodes: &[Node],
    at: u32,
    name: Option<&str>,
    is_system: bool,
    first: &mut Option<u32>,
    visit: &mut impl FnMut(()),
) {
    visit(());
    let node = &nodes[at as usize];
    let mut found = |rank: Option<u32>| {
        if let Some(rank) = rank
            && first.is_none_or(|first| rank < first)
        {
            *first = Some(rank);
        }
    };
    if !is_system {
        found(node.below);
    }
    let Some(name) = name else {
        found(node.here);
        return;
    };
    let (level, rest) = match name.split_once('/') {
        Some((level, rest)) => (level, Some(rest)),
        None => (name, None),
    };
    if let Some(&child) = node.children.get(level) {
        search(nodes, child, rest, false, first, visit);
    }
    if let Some(child) = node.open.filter(|_| !is_system) {
        search(nodes, child, rest, false, first, visit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tree(filters: &[&str]) -> Matcher {
        let mut nodes = vec![Node::default()];
        for (rank, filter) in (0..).zip(filters) {
            insert(&mut nodes, filter, rank);
        }
        Matcher::Tree(nodes.into())
    }

    fn text(wildcards: &'static [&'static str]) -> impl Strategy<Value = String> {
        let mut levels = vec!["a", "b", "", "$c"];
        levels.extend(wildcards);
        (prop::collection::vec(prop::sample::select(levels), 1..5), any::<bool>()).prop_filter_map(
            "empty",
            move |(mut levels, all)| {
                if all && !wildcards.is_empty() {
                    levels.push("#");
                }
                let text = levels.join("/");
                (!text.is_empty()).then_some(text)
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn tree_and_list_agree(filters in prop::collection::vec(text(&["+", "+"]), 0..12), name in text(&[])) {
            let filters: Vec<&str> = filters.iter().map(String::as_str).collect();
            let list = Matcher::List(filters.iter().map(|text| Filter::new(text)).collect());
            prop_assert_eq!(tree(&filters).first(&name), list.first(&name), "{:?} {}", filters, name);
        }
    }

    #[test]
    fn ten_thousand_filters_cost_as_little_as_the_levels_of_the_name() {
        let filters: Vec<String> = (0..10_000).map(|number| format!("site/{number}/+/state")).collect();
        let filters: Vec<&str> = filters.iter().map(String::as_str).collect();
        let matcher = Matcher::new(&filters);
        let Matcher::Tree(nodes) = &matcher else { panic!("so many are in a tree") };
        let mut visited = 0;
        let mut first = None;
        search(nodes, 0, Some("site/9999/lamp/state"), false, &mut first, &mut |()| visited += 1);
        assert_eq!((first, visited), (Some(9_999), 5));
        assert_eq!(matcher.first("site/10000/lamp/state"), None);
    }
}
