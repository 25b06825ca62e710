//! Rules that apply together, compiled.

use std::collections::HashMap;
use std::sync::Arc;

use crate::Subject;
use crate::filter;
use crate::matcher::Matcher;

/// What a rule is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    Publish,
    Receive,
    /// Subscribing with exactly this Topic Filter.
    SubscribeLiteral,
    /// Subscribing with any Topic Filter that this one contains.
    SubscribePattern,
    UnsubscribeLiteral,
    UnsubscribePattern,
}

/// Which Share Names a rule about subscribing is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Share {
    /// None: ordinary subscriptions, and Shared Subscriptions of groups that no rule names.
    Unnamed,
    /// One group.
    Named(Box<str>),
    /// Every group.
    Any,
}

/// One rule.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) action: Action,
    pub(crate) allow: bool,
    pub(crate) filter: Box<str>,
    pub(crate) share: Share,
}

impl Entry {
    pub(crate) fn new(action: Action, allow: bool, filter: &str) -> Self {
        Self { action, allow, filter: filter.into(), share: Share::Unnamed }
    }
}

/// Rules for all actions, each list in its order.
#[derive(Debug, Default)]
pub(crate) struct Layer {
    publish: Topics,
    receive: Topics,
    subscribe: Filters,
    unsubscribe: Filters,
}

/// Rules about Topic Names.
#[derive(Debug)]
struct Topics {
    matcher: Matcher,
    /// What each filter of the matcher decides.
    allow: Box<[bool]>,
}

/// Rules about Topic Filters.
#[derive(Debug, Default)]
struct Filters {
    /// Whether a filter with a wildcard is denied, whatever the others say.
    deny_wildcards: bool,
    literal: HashMap<Box<str>, bool>,
    patterns: Box<[Entry]>,
}

impl Default for Topics {
    fn default() -> Self {
        Self { matcher: Matcher::new(&[]), allow: Box::default() }
    }
}

impl Layer {
    /// Compiles rules. What comes first decides.
    pub(crate) fn in_order(entries: &[Entry]) -> Self {
        Self {
            publish: Topics::new(entries, Action::Publish),
            receive: Topics::new(entries, Action::Receive),
            subscribe: Filters::new(entries, Action::SubscribeLiteral, Action::SubscribePattern),
            unsubscribe: Filters::new(entries, Action::UnsubscribeLiteral, Action::UnsubscribePattern),
        }
    }

    /// Denies every subscription with a wildcard.
    pub(crate) fn without_wildcards(mut self) -> Self {
        self.subscribe.deny_wildcards = true;
        self
    }

    /// Compiles rules of which those that deny come first.
    pub(crate) fn deny_first(mut entries: Vec<Entry>) -> Self {
        entries.sort_by_key(|entry| entry.allow);
        Self::in_order(&entries)
    }

    pub(crate) fn publish(&self, topic_name: &str) -> Option<bool> {
        self.publish.first(topic_name)
    }

    pub(crate) fn receive(&self, topic_name: &str) -> Option<bool> {
        self.receive.first(topic_name)
    }

    pub(crate) fn subscribe(&self, filter: &str) -> Option<bool> {
        self.subscribe.first(filter)
    }

    pub(crate) fn unsubscribe(&self, filter: &str) -> Option<bool> {
        self.unsubscribe.first(filter)
    }

    /// Whether a rule denies a part of what the filter asks for.
    pub(crate) fn denies_part(&self, filter: &str, share: Option<&str>) -> bool {
        let denies = |entry: &&Entry| {
            let concerns = match (&entry.share, share) {
                (Share::Unnamed, _) | (Share::Any, Some(_)) => true,
                (Share::Named(group), Some(share)) => **group == *share,
                (_, None) => false,
            };
            !entry.allow && concerns && filter::intersect(&entry.filter, filter)
        };
        self.subscribe.patterns.iter().any(|entry| denies(&entry))
    }

    /// The Topic Filters that may be subscribed to, in a named group or outside of such.
    pub(crate) fn allowed<'a>(&'a self, named: Option<&'a str>) -> impl Iterator<Item = &'a str> + Clone {
        let concerns = move |entry: &&Entry| match (&entry.share, named) {
            (Share::Unnamed, None) => true,
            (Share::Any, _) => named.is_some(),
            (Share::Named(group), Some(named)) => **group == *named,
            _ => false,
        };
        self.subscribe.patterns.iter().filter(|entry| entry.allow).filter(concerns).map(|entry| &*entry.filter)
    }
}

impl Topics {
    fn new(entries: &[Entry], action: Action) -> Self {
        let entries = || entries.iter().filter(|entry| entry.action == action);
        let filters: Vec<&str> = entries().map(|entry| &*entry.filter).collect();
        Self { matcher: Matcher::new(&filters), allow: entries().map(|entry| entry.allow).collect() }
    }

    #[inline]
    fn first(&self, topic_name: &str) -> Option<bool> {
        self.matcher.first(topic_name).map(|place| self.allow[place])
    }
}

impl Filters {
    fn new(entries: &[Entry], literal: Action, pattern: Action) -> Self {
        let mut literals = HashMap::new();
        for entry in entries.iter().filter(|entry| entry.action == literal) {
            literals.entry(entry.filter.clone()).or_insert(entry.allow);
        }
        let patterns = entries.iter().filter(|entry| entry.action == pattern).cloned().collect();
        Self { deny_wildcards: false, literal: literals, patterns }
    }

    /// A rule with the very filter decides, or else the first that contains it.
    fn first(&self, filter: &str) -> Option<bool> {
        if self.deny_wildcards && filter.contains(['+', '#']) {
            return Some(false);
        }
        if let Some(&allow) = self.literal.get(filter) {
            return Some(allow);
        }
        self.patterns.iter().find(|entry| filter::covers(&entry.filter, filter)).map(|entry| entry.allow)
    }
}

/// Rules that apply together and of which some may have places for names of a client.
#[derive(Debug)]
pub(crate) struct Block {
    /// What is the same for every client, compiled once.
    fixed: Option<Arc<Layer>>,
    /// What has to be completed for each client.
    template: Box<[Entry]>,
    order: Order,
    deny_wildcards: bool,
}

/// What counts when several rules apply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// The first that does.
    First,
    /// One that denies.
    Deny,
}

impl Block {
    pub(crate) fn new(entries: Vec<Entry>, order: Order) -> Self {
        Self::with_wildcards(entries, order, true)
    }

    /// Rules in order in which `%c` and `%u` are nothing special.
    pub(crate) fn literal(entries: &[Entry]) -> Self {
        let fixed = Some(Layer::in_order(entries).into());
        Self { fixed, template: Box::default(), order: Order::First, deny_wildcards: false }
    }

    pub(crate) fn with_wildcards(entries: Vec<Entry>, order: Order, allowed: bool) -> Self {
        let is_template = |entry: &Entry| filter::is_template(&entry.filter);
        let (template, fixed) = match order {
            // Their order counts, so all are completed together.
            Order::First if entries.iter().any(is_template) => (entries, Vec::new()),
            Order::First => (Vec::new(), entries),
            Order::Deny => entries.into_iter().partition(is_template),
        };
        let mut block = Self { fixed: None, template: template.into(), order, deny_wildcards: !allowed };
        if !fixed.is_empty() || (block.deny_wildcards && block.template.is_empty()) {
            block.fixed = Some(block.compile(fixed).into());
        }
        block
    }

    /// The layers that apply to one client.
    pub(crate) fn layers(&self, subject: &Subject<'_>) -> impl Iterator<Item = Arc<Layer>> {
        let completed = (!self.template.is_empty()).then(|| {
            let entries = self.template.iter().filter_map(|entry| {
                let filter = filter::complete(&entry.filter, subject, entry.allow)?;
                Some(Entry { filter: filter.into(), ..entry.clone() })
            });
            self.compile(entries.collect()).into()
        });
        self.fixed.clone().into_iter().chain(completed)
    }

    fn compile(&self, entries: Vec<Entry>) -> Layer {
        let layer = match self.order {
            Order::First => Layer::in_order(&entries),
            Order::Deny => Layer::deny_first(entries),
        };
        if self.deny_wildcards { layer.without_wildcards() } else { layer }
    }
}
