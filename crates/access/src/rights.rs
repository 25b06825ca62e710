//! What one client may do.

use std::sync::{Arc, LazyLock};

use crate::layer::{Layer, Order};

/// What one client may do. Eight bytes, cheap to clone.
///
/// Topic Names and Topic Filters have to be well-formed; whoever asks has checked that before. No question takes memory
/// but [`may_subscribe`](Self::may_subscribe), and none reaches beyond this process.
#[derive(Debug, Clone)]
pub struct Rights(
    /// None is the right to everything, so that asking for it is one comparison.
    Option<Arc<Ruled>>,
);

/// Rights that rules limit.
#[derive(Debug, Default)]
pub(crate) struct Ruled {
    pub(crate) layers: Box<[Arc<Layer>]>,
    pub(crate) order: OrderOfLayers,
    /// What holds where no rule says anything.
    pub(crate) default: Defaults,
    /// The Share Names that rules name, sorted. A group with such a name is joined by whom a rule lets join it.
    pub(crate) share_names: Arc<[Box<str>]>,
}

/// How the layers stand to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum OrderOfLayers {
    /// The first layer with a rule decides.
    First,
    /// A rule that denies decides, in whatever layer it is.
    #[default]
    Deny,
}

impl From<Order> for OrderOfLayers {
    fn from(order: Order) -> Self {
        match order {
            Order::First => Self::First,
            Order::Deny => Self::Deny,
        }
    }
}

/// What is allowed where no rule says anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Defaults {
    pub(crate) publish: bool,
    pub(crate) receive: bool,
    pub(crate) subscribe: bool,
    pub(crate) unsubscribe: bool,
    /// Whether that holds for topics that begin with `$CONTROL` as well. Who may command the broker has to be named, so it
    /// must not where `publish` holds; leaving and listening in vain are nobody's loss.
    pub(crate) control: bool,
}

impl Defaults {
    pub(crate) const ALL: Self =
        Self { publish: true, receive: true, subscribe: true, unsubscribe: true, control: false };
}

impl Rights {
    /// The right to everything.
    pub fn everything() -> Self {
        Self(None)
    }

    /// The right to nothing.
    pub fn nothing() -> Self {
        static NOTHING: LazyLock<Arc<Ruled>> = LazyLock::new(Arc::default);
        Self(Some(NOTHING.clone()))
    }

    pub(crate) fn ruled(ruled: Ruled) -> Self {
        Self(Some(ruled.into()))
    }

    /// Whether nothing needs to be asked, whatever it is.
    #[inline]
    pub fn is_everything(&self) -> bool {
        self.0.is_none()
    }

    /// Whether a message with this Topic Name may be published.
    #[inline]
    pub fn may_publish(&self, topic_name: &str) -> bool {
        self.0.as_ref().is_none_or(|ruled| ruled.may_publish(topic_name))
    }

    /// Whether a message with this Topic Name may be delivered to the client, whatever it has subscribed to. Asked at
    /// delivery, so it holds for what is queued and retained as well.
    #[inline]
    pub fn may_receive(&self, topic_name: &str) -> bool {
        self.0.as_ref().is_none_or(|ruled| ruled.may_receive(topic_name))
    }

    /// Whether the client may subscribe. `filter` is the Topic Filter without `$share/{ShareName}/`, `share` the Share Name.
    pub fn may_subscribe(&self, filter: &str, share: Option<&str>) -> bool {
        self.0.as_ref().is_none_or(|ruled| ruled.may_subscribe(filter, share))
    }

    /// Whether the client may unsubscribe from the Topic Filter, given without `$share/{ShareName}/`.
    pub fn may_unsubscribe(&self, filter: &str) -> bool {
        self.0.as_ref().is_none_or(|ruled| ruled.may_unsubscribe(filter))
    }
}

impl Ruled {
    fn may_publish(&self, topic_name: &str) -> bool {
        let decided = self.decide(|layer| layer.publish(topic_name));
        decided.unwrap_or_else(|| self.by_default(self.default.publish, topic_name))
    }

    fn may_receive(&self, topic_name: &str) -> bool {
        let decided = self.decide(|layer| layer.receive(topic_name));
        decided.unwrap_or_else(|| self.by_default(self.default.receive, topic_name))
    }

    fn may_subscribe(&self, filter: &str, share: Option<&str>) -> bool {
        match self.order {
            OrderOfLayers::First => {
                let plain = self.decide(|layer| layer.subscribe(filter));
                // A rule may be about the whole text, `$share` included. Neither of both lets in what the other denies.
                let whole = share.and_then(|share| {
                    let whole = format!("$share/{share}/{filter}");
                    self.decide(|layer| layer.subscribe(&whole))
                });
                match (plain, whole) {
                    (Some(false), _) | (_, Some(false)) => false,
                    (Some(true), _) | (_, Some(true)) => true,
                    (None, None) => self.by_default(self.default.subscribe, filter),
                }
            }
            OrderOfLayers::Deny => {
                if self.layers.iter().any(|layer| layer.denies_part(filter, share)) {
                    return false;
                }
                let is_named = |share: &&str| self.share_names.binary_search_by(|name| (**name).cmp(share)).is_ok();
                let named = share.filter(is_named);
                if named.is_none() && self.by_default(self.default.subscribe, filter) {
                    return true;
                }
                let allowed = self.layers.iter().flat_map(|layer| layer.allowed(named));
                if crate::filter::is_contained(filter, allowed) {
                    return true;
                }
                // Whoever may be in every group may be in one that nobody named.
                let Some(share) = share.filter(|_| named.is_none()) else { return false };
                let allowed =
                    self.layers.iter().flat_map(|layer| layer.allowed(None).chain(layer.allowed(Some(share))));
                crate::filter::is_contained(filter, allowed)
            }
        }
    }

    fn may_unsubscribe(&self, filter: &str) -> bool {
        let decided = self.decide(|layer| layer.unsubscribe(filter));
        decided.unwrap_or_else(|| match self.order {
            OrderOfLayers::First => self.by_default(self.default.unsubscribe, filter),
            // Rules of the configuration say nothing about leaving.
            OrderOfLayers::Deny => self.default.unsubscribe,
        })
    }

    fn by_default(&self, allow: bool, topic: &str) -> bool {
        allow && (self.default.control || !topic.starts_with("$CONTROL"))
    }

    #[inline]
    fn decide(&self, ask: impl Fn(&Layer) -> Option<bool>) -> Option<bool> {
        let mut decided = None;
        for layer in &self.layers {
            match ask(layer) {
                None => {}
                Some(false) => return Some(false),
                Some(true) if self.order == OrderOfLayers::First => return Some(true),
                Some(true) => decided = Some(true),
            }
        }
        decided
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_and_nothing() {
        for (rights, all) in [(Rights::everything(), true), (Rights::nothing(), false)] {
            assert_eq!(rights.is_everything(), all);
            assert_eq!(rights.may_publish("a"), all);
            assert_eq!(rights.may_receive("$SYS/x"), all);
            assert_eq!(rights.may_subscribe("#", None), all);
            assert_eq!(rights.may_subscribe("a/+", Some("g")), all);
            assert_eq!(rights.may_unsubscribe("#"), all);
        }
        assert_eq!(size_of::<Rights>(), size_of::<usize>());
    }
}
