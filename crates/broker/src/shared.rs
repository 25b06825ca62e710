//! Shared Subscriptions (v5 section 4.8.2). Each group has a home, the worker that its filter belongs to, which chooses
//! the member for each message, wherever the members are.

use std::collections::HashMap;
use std::sync::Arc;

use pantala_proto::QoS;
use pantala_router::SharedGroup;
use pantala_store::SessionNumber;

use crate::WorkerId;
use crate::access::{self, Access};
use crate::message::Incoming;
use crate::session::{Grant, SessionKey};

/// A Session that shares a subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Member {
    pub(crate) worker: WorkerId,
    pub(crate) session: SessionKey,
    pub(crate) generation: u32,
    /// The store's name for the Session.
    pub(crate) number: Option<SessionNumber>,
}

impl Member {
    /// The Session, if the store has to know that it is to have this message.
    pub(crate) fn owed(&self, grant: Grant, incoming: &Incoming<'_>) -> Option<SessionNumber> {
        let kept = grant.qos != QoS::AtMostOnce && incoming.qos != QoS::AtMostOnce && incoming.id.is_some();
        self.number.filter(|_| kept)
    }
}

/// The groups that are at home in one worker.
#[derive(Default)]
pub(crate) struct Groups {
    groups: HashMap<u32, Group>,
    /// By the whole filter, `$share/{share_name}/{filter}`.
    numbers: HashMap<Arc<str>, u32>,
    next: u32,
}

struct Group {
    filter: Arc<str>,
    members: SharedGroup<Member, Grant>,
    /// Those who may not receive everything. The member's own worker knows best, and looks again.
    restricted: HashMap<Member, Access>,
}

impl Groups {
    /// Adds a member or replaces what it is granted. Returns the group's number, and whether the group is new.
    pub(crate) fn join(
        &mut self,
        whole_filter: &str,
        member: Member,
        grant: Grant,
        access: &Access,
        connected: bool,
    ) -> (u32, bool) {
        let (number, new) = match self.numbers.get(whole_filter) {
            Some(&number) => (number, false),
            None => {
                let number = self.next;
                self.next = self.next.wrapping_add(1);
                let filter: Arc<str> = whole_filter.into();
                self.numbers.insert(Arc::clone(&filter), number);
                let members = SharedGroup::new(u64::from(number));
                self.groups.insert(number, Group { filter, members, restricted: HashMap::new() });
                (number, true)
            }
        };
        if let Some(group) = self.groups.get_mut(&number) {
            group.members.add(member, grant, connected);
            if access.is_plain() {
                group.restricted.remove(&member);
            } else {
                group.restricted.insert(member, access.clone());
            }
        }
        (number, new)
    }

    /// Removes a member. Returns the number of the group if that was its last.
    pub(crate) fn leave(&mut self, whole_filter: &str, member: Member) -> Option<u32> {
        let &number = self.numbers.get(whole_filter)?;
        let group = self.groups.get_mut(&number)?;
        group.members.remove(member);
        group.restricted.remove(&member);
        if !group.members.is_empty() {
            return None;
        }
        self.groups.remove(&number);
        self.numbers.remove(whole_filter);
        Some(number)
    }

    /// A member's client has come or gone.
    pub(crate) fn set_connected(&mut self, whole_filter: &str, member: Member, connected: bool) {
        let group = self.numbers.get(whole_filter).and_then(|number| self.groups.get_mut(number));
        if let Some(group) = group {
            group.members.set_connected(member, connected);
        }
    }

    /// How many members a group has.
    pub(crate) fn members(&self, number: u32) -> u32 {
        self.groups.get(&number).map_or(0, |group| group.members.len() as u32)
    }

    /// The member whose turn it is, of those who may receive a message with this Topic Name.
    pub(crate) fn choose(&mut self, number: u32, topic_name: &str) -> Option<(Member, Grant)> {
        let Group { members, restricted, .. } = self.groups.get_mut(&number)?;
        if restricted.is_empty() {
            return members.choose();
        }
        let may =
            |member: &Member| restricted.get(member).is_none_or(|access| access::receive(access, topic_name).is_ok());
        for _ in 0..members.len() {
            let chosen = members.choose()?;
            if may(&chosen.0) {
                return Some(chosen);
            }
        }
        // Nobody who is there may.
        members.absent().iter().find(|(member, _)| may(member)).copied()
    }

    /// The whole filter of a group.
    pub(crate) fn filter(&self, number: u32) -> Option<Arc<str>> {
        self.groups.get(&number).map(|group| Arc::clone(&group.filter))
    }

    /// The group with this whole filter.
    pub(crate) fn find(&self, whole_filter: &str) -> Option<u32> {
        self.numbers.get(whole_filter).copied()
    }
}
