//! Shared Subscriptions (v5 section 4.8.2). Each group has a home, the worker that its filter belongs to, which chooses
//! the member for each message, wherever the members are.

use std::collections::HashMap;

use pantala_router::SharedGroup;

use crate::WorkerId;
use crate::session::{Grant, SessionKey};

/// A group, by its home and a number that its home never gives out again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct GroupId {
    pub(crate) home: WorkerId,
    pub(crate) number: u32,
}

/// A Session that shares a subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Member {
    pub(crate) worker: WorkerId,
    pub(crate) session: SessionKey,
    pub(crate) generation: u32,
}

/// The groups that are at home in one worker.
#[derive(Default)]
pub(crate) struct Groups {
    groups: HashMap<u32, SharedGroup<Member, Grant>>,
    /// By the whole filter, `$share/{share_name}/{filter}`.
    numbers: HashMap<Box<str>, u32>,
    next: u32,
}

impl Groups {
    /// Adds a member or replaces what it is granted. Returns the group's number, and whether the group is new.
    pub(crate) fn join(&mut self, whole_filter: &str, member: Member, grant: Grant, connected: bool) -> (u32, bool) {
        let (number, new) = match self.numbers.get(whole_filter) {
            Some(&number) => (number, false),
            None => {
                let number = self.next;
                self.next = self.next.wrapping_add(1);
                self.numbers.insert(whole_filter.into(), number);
                self.groups.insert(number, SharedGroup::new(u64::from(number)));
                (number, true)
            }
        };
        if let Some(group) = self.groups.get_mut(&number) {
            group.add(member, grant, connected);
        }
        (number, new)
    }

    /// Removes a member. Returns the number of the group if that was its last.
    pub(crate) fn leave(&mut self, whole_filter: &str, member: Member) -> Option<u32> {
        let &number = self.numbers.get(whole_filter)?;
        let group = self.groups.get_mut(&number)?;
        group.remove(member);
        if !group.is_empty() {
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
            group.set_connected(member, connected);
        }
    }

    /// How many members a group has.
    pub(crate) fn members(&self, number: u32) -> u32 {
        self.groups.get(&number).map_or(0, |group| group.len() as u32)
    }

    /// The member whose turn it is.
    pub(crate) fn choose(&mut self, number: u32) -> Option<(Member, Grant)> {
        self.groups.get_mut(&number)?.choose()
    }
}
