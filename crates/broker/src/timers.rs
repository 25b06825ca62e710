//! Deadlines: Keep Alive, Will Delay, Session and message expiry.
//!
//! A hierarchical wheel: six levels of 64 slots each, a slot of the lowest one millisecond wide, of the next 64, and so
//! on up to a span of 2^36 milliseconds, a little over two years. What lies further ahead is parked until the wheel has
//! come round. A timer lies in the level of the highest group of six bits in which its deadline differs from the wheel's
//! present time, so every occupied slot is ahead of the present one and the first one of the lowest occupied level is
//! the next. When time reaches a slot above the lowest level, its timers move down.
//!
//! Slots are doubly linked lists through one vector of timers: a timer costs no allocation of its own, and 32 bytes with
//! a payload of eight.

use std::num::NonZeroU32;

const LEVELS: usize = 6;
const SLOT_BITS: u32 = 6;
const SLOTS: usize = 1 << SLOT_BITS;
const SPAN_BITS: u32 = LEVELS as u32 * SLOT_BITS;

/// The list of timers beyond the wheel's span.
const PARKED: u16 = (LEVELS * SLOTS) as u16;
/// The list of places for timers to come.
const VACANT: u16 = PARKED + 1;
const LISTS: usize = VACANT as usize + 1;
const NO_TIMER: u32 = u32::MAX;

/// Up to this many timers the vector doubles when it is full, then it grows by a quarter.
const DOUBLE_UNTIL: usize = 1024;

/// Timers that each carry a payload and fire once.
///
/// Time is a number of milliseconds on the caller's own clock, which has to be monotonic and may start anywhere. The wheel
/// never reads a clock: it learns the time from [`poll`](Self::poll).
///
/// All operations are O(1), counting that a timer moves down at most five times in its life, and parked ones once in two
/// years of the clock.
#[derive(Debug)]
pub struct Timers<T> {
    timers: Vec<Timer<T>>,
    /// The first timer of each list, or `NO_TIMER`.
    heads: Box<[u32; LISTS]>,
    /// A bit for each slot that has a timer.
    occupied: [u64; LEVELS],
    /// The time up to which everything has fired. No timer in a list is due before it.
    present: u64,
    /// The number of `schedule`s so far: the next timer's generation.
    generation: NonZeroU32,
    len: usize,
    /// What [`next_deadline`](Self::next_deadline) gives: it is asked for in every turn, and changes in few.
    next_deadline: Option<u64>,
}

/// Names a timer until it has fired or been cancelled; afterwards it names none, not even one in the same place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TimerId {
    index: u32,
    generation: NonZeroU32,
}

#[derive(Debug, Clone)]
struct Timer<T> {
    payload: T,
    /// Never before the slot the timer lies in. It may be later: see `reschedule`.
    deadline: u64,
    next: u32,
    prev: u32,
    /// Tells this timer from others in the same place.
    generation: NonZeroU32,
    list: u16,
}

impl<T: Copy> Default for Timers<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Copy> Timers<T> {
    /// No timers, at time zero.
    pub fn new() -> Self {
        Self {
            timers: Vec::new(),
            heads: Box::new([NO_TIMER; LISTS]),
            occupied: [0; LEVELS],
            present: 0,
            generation: NonZeroU32::MIN,
            len: 0,
            next_deadline: None,
        }
    }

    /// Has `payload` come out of [`poll`](Self::poll) at `deadline_ms`, or at the next call if that time is past.
    pub fn schedule(&mut self, deadline_ms: u64, payload: T) -> TimerId {
        let generation = self.generation;
        self.generation = generation.checked_add(1).unwrap_or(NonZeroU32::MIN);
        let index = self.heads[usize::from(VACANT)];
        let index = if index == NO_TIMER { self.grow(payload) } else { index };
        self.unlink(index);
        let timer = &mut self.timers[index as usize];
        (timer.payload, timer.deadline, timer.generation) = (payload, deadline_ms, generation);
        self.link(index);
        self.len += 1;
        self.look_ahead();
        TimerId { index, generation }
    }

    /// Takes a timer out and returns its payload; `None` if it has fired or been cancelled.
    pub fn cancel(&mut self, id: TimerId) -> Option<T> {
        if !self.is_scheduled(id) {
            return None;
        }
        let payload = self.take(id.index);
        self.look_ahead();
        Some(payload)
    }

    /// Moves a timer to another deadline. Returns `false` if it has fired or been cancelled.
    ///
    /// To put a deadline off writes one number: the timer stays where it is and is looked at again when its slot's time
    /// comes. This is what Keep Alive does with every packet.
    pub fn reschedule(&mut self, id: TimerId, deadline_ms: u64) -> bool {
        if !self.is_scheduled(id) {
            return false;
        }
        let timer = &mut self.timers[id.index as usize];
        let sooner = deadline_ms < timer.deadline;
        timer.deadline = deadline_ms;
        if sooner {
            self.unlink(id.index);
            self.link(id.index);
            self.look_ahead();
        }
        true
    }

    /// When the timer is to fire, in milliseconds; `None` if it has fired or been cancelled.
    #[cfg(test)]
    pub fn deadline(&self, id: TimerId) -> Option<u64> {
        self.is_scheduled(id).then(|| self.timers[id.index as usize].deadline)
    }

    /// Sets the time and returns the payload of a timer that is due, the earliest first. Call it until it returns `None`.
    ///
    /// A timer never fires before its deadline, and fires at the first poll from then on. A time before that of an earlier
    /// call counts as that one, but lets nothing fire that is not due by itself.
    pub fn poll(&mut self, now_ms: u64) -> Option<T> {
        let due = self.turn(now_ms);
        self.look_ahead();
        due
    }

    /// Turns the wheel until a timer is due, or up to the present.
    fn turn(&mut self, now_ms: u64) -> Option<T> {
        loop {
            let (time, list) = match self.next_list() {
                Some((time, list)) if time <= now_ms => (time, list),
                _ => {
                    self.present = self.present.max(now_ms);
                    return None;
                }
            };
            if list == PARKED {
                self.unpark(now_ms);
                continue;
            }
            self.present = time;
            let mut index = self.heads[usize::from(list)];
            if usize::from(list) < SLOTS {
                if self.timers[index as usize].deadline <= time {
                    return Some(self.take(index));
                }
                self.unlink(index);
                self.link(index);
                continue;
            }
            self.clear(list);
            while index != NO_TIMER {
                let next = self.timers[index as usize].next;
                self.link(index);
                index = next;
            }
        }
    }

    /// When [`poll`](Self::poll) has something to do again, in milliseconds; `None` if there is no timer.
    ///
    /// Never later than the earliest deadline, or than now if that is past. It may be earlier, when timers have to move
    /// down or were put off; a call at that time returns `None` and this then gives a later time.
    #[inline]
    pub fn next_deadline(&self) -> Option<u64> {
        self.next_deadline
    }

    /// After each change of the lists or the time.
    fn look_ahead(&mut self) {
        self.next_deadline = self.next_list().map(|(time, _)| time);
    }

    /// The number of timers.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no timer.
    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn is_scheduled(&self, id: TimerId) -> bool {
        self.timers
            .get(id.index as usize)
            .is_some_and(|timer| timer.generation == id.generation && timer.list != VACANT)
    }

    /// The list that comes next and the time at which it does.
    fn next_list(&self) -> Option<(u64, u16)> {
        for (level, &occupied) in self.occupied.iter().enumerate() {
            if occupied != 0 {
                let slot = occupied.trailing_zeros();
                let shift = level as u32 * SLOT_BITS;
                let round = self.present >> (shift + SLOT_BITS) << (shift + SLOT_BITS);
                return Some((round | u64::from(slot) << shift, list_of(level, slot as usize)));
            }
        }
        (self.heads[usize::from(PARKED)] != NO_TIMER).then(|| (((self.present >> SPAN_BITS) + 1) << SPAN_BITS, PARKED))
    }

    /// Turns the wheel to the round in which the first of the parked timers is due, or to the one of `now`, whichever is
    /// first, and sorts in what belongs there. There is nothing but parked timers.
    fn unpark(&mut self, now: u64) {
        let mut earliest = now;
        let mut index = self.heads[usize::from(PARKED)];
        while let Some(timer) = self.timers.get(index as usize) {
            earliest = earliest.min(timer.deadline);
            index = timer.next;
        }
        self.present = earliest >> SPAN_BITS << SPAN_BITS;
        index = self.heads[usize::from(PARKED)];
        self.clear(PARKED);
        while index != NO_TIMER {
            let next = self.timers[index as usize].next;
            self.link(index);
            index = next;
        }
    }

    fn link(&mut self, index: u32) {
        let due = self.timers[index as usize].deadline.max(self.present);
        let difference = due ^ self.present;
        let list = if difference >> SPAN_BITS != 0 {
            PARKED
        } else {
            let level = (difference | 1).ilog2() / SLOT_BITS;
            let slot = due >> (level * SLOT_BITS) & (SLOTS as u64 - 1);
            self.occupied[level as usize] |= 1 << slot;
            list_of(level as usize, slot as usize)
        };
        self.push(list, index);
    }

    fn push(&mut self, list: u16, index: u32) {
        let next = self.heads[usize::from(list)];
        if let Some(timer) = self.timers.get_mut(next as usize) {
            timer.prev = index;
        }
        let timer = &mut self.timers[index as usize];
        (timer.next, timer.prev, timer.list) = (next, NO_TIMER, list);
        self.heads[usize::from(list)] = index;
    }

    fn unlink(&mut self, index: u32) {
        let Timer { next, prev, list, .. } = self.timers[index as usize];
        if let Some(timer) = self.timers.get_mut(next as usize) {
            timer.prev = prev;
        }
        if let Some(timer) = self.timers.get_mut(prev as usize) {
            timer.next = next;
        } else if next == NO_TIMER {
            self.clear(list);
        } else {
            self.heads[usize::from(list)] = next;
        }
    }

    fn clear(&mut self, list: u16) {
        self.heads[usize::from(list)] = NO_TIMER;
        if list < PARKED {
            self.occupied[usize::from(list) / SLOTS] &= !(1 << (usize::from(list) % SLOTS));
        }
    }

    /// Takes out a timer and makes its place vacant.
    fn take(&mut self, index: u32) -> T {
        self.unlink(index);
        self.push(VACANT, index);
        self.len -= 1;
        let payload = self.timers[index as usize].payload;
        if index as usize + 1 == self.timers.len() {
            self.cut_tail();
        }
        payload
    }

    /// Adds a vacant place. The payload stands there for want of a better one.
    #[cold]
    fn grow(&mut self, payload: T) -> u32 {
        let index = u32::try_from(self.timers.len()).ok().filter(|&index| index != NO_TIMER);
        let index = index.expect("four billion timers do not fit into memory");
        if self.timers.len() == self.timers.capacity() && self.timers.len() > DOUBLE_UNTIL {
            self.timers.reserve_exact(self.timers.len() / 4);
        }
        let (next, prev) = (NO_TIMER, NO_TIMER);
        self.timers.push(Timer { payload, deadline: 0, next, prev, generation: NonZeroU32::MIN, list: VACANT });
        self.push(VACANT, index);
        index
    }

    /// Gives back the memory of vacant places at the end.
    fn cut_tail(&mut self) {
        while let Some(timer) = self.timers.last()
            && timer.list == VACANT
        {
            self.unlink((self.timers.len() - 1) as u32);
            self.timers.pop();
        }
        if self.timers.capacity() > DOUBLE_UNTIL && self.timers.len() < self.timers.capacity() / 2 {
            self.timers.shrink_to(self.timers.len() + self.timers.len() / 4);
        }
    }
}

const fn list_of(level: usize, slot: usize) -> u16 {
    (level * SLOTS + slot) as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    const YEAR: u64 = 365 * 24 * 3600 * 1000;

    fn due(timers: &mut Timers<u64>, now: u64) -> Vec<u64> {
        std::iter::from_fn(|| timers.poll(now)).collect()
    }

    #[test]
    fn a_timer_of_eight_bytes_takes_thirty_two() {
        assert_eq!(size_of::<Timer<u64>>(), 32);
    }

    #[test]
    fn fires_at_its_millisecond_and_once() {
        for start in [0, 1, 63, 64, 4095, 1 << 35, (1 << 36) - 1, u64::MAX - (1 << 37)] {
            for delay in [1, 2, 63, 64, 65, 4096, 262_144, 90_000, 1 << 35, 1 << 36, (1 << 36) + 1] {
                let mut timers = Timers::new();
                assert_eq!(timers.poll(start), None);
                timers.schedule(start + delay, 7);
                assert_eq!(timers.poll(start + delay - 1), None, "{delay} ms after {start}");
                assert!(timers.next_deadline().is_some_and(|time| time <= start + delay));
                assert_eq!(due(&mut timers, start + delay), [7]);
                assert_eq!(timers.next_deadline(), None);
                assert!(timers.is_empty());
            }
        }
    }

    #[test]
    fn a_deadline_in_the_past_fires_at_the_next_poll() {
        let mut timers = Timers::new();
        assert_eq!(timers.poll(1000), None);
        timers.schedule(10, 1);
        timers.schedule(1000, 2);
        assert_eq!(timers.next_deadline(), Some(1000));
        let mut fired = due(&mut timers, 1000);
        fired.sort_unstable();
        assert_eq!(fired, [1, 2]);
    }

    #[test]
    fn an_old_name_does_not_reach_the_next_timer_in_its_place() {
        let mut timers = Timers::new();
        let old = timers.schedule(5, 1);
        assert_eq!(timers.cancel(old), Some(1));
        let new = timers.schedule(5, 2);
        assert_eq!(old.index, new.index);
        assert_eq!(timers.cancel(old), None);
        assert!(!timers.reschedule(old, 1));
        assert_eq!(timers.deadline(old), None);
        assert_eq!(due(&mut timers, 5), [2]);
        assert_eq!(timers.cancel(new), None);
    }

    #[test]
    fn the_end_of_time_is_a_deadline_like_any_other() {
        let mut timers = Timers::new();
        timers.schedule(u64::MAX, 1);
        timers.schedule(u64::MAX - 1, 2);
        assert_eq!(timers.poll(u64::MAX - 2), None);
        assert_eq!(due(&mut timers, u64::MAX), [2, 1]);
        timers.schedule(u64::MAX, 3);
        assert_eq!(due(&mut timers, u64::MAX), [3]);
    }

    #[test]
    fn following_next_deadline_meets_every_timer_in_few_steps() {
        let mut timers = Timers::new();
        let deadlines: Vec<u64> = (0..42).map(|bit| (1 << bit) + bit).collect();
        for &deadline in &deadlines {
            timers.schedule(deadline, deadline);
        }
        let (mut fired, mut steps) = (Vec::new(), 0);
        while let Some(now) = timers.next_deadline() {
            fired.extend(due(&mut timers, now));
            steps += 1;
        }
        assert_eq!(fired, deadlines);
        // Each timer moves down at most five times, and the last one is parked for 32 rounds.
        assert!(steps <= deadlines.len() * 6 + 32, "{steps}");
    }

    #[test]
    fn memory_is_given_back_although_an_old_timer_stays() {
        let mut timers = Timers::new();
        timers.schedule(1 << 40, 0);
        let ids: Vec<TimerId> = (1..100_000).map(|payload| timers.schedule(payload, payload)).collect();
        assert!(timers.timers.capacity() <= 125_000);
        for id in ids.iter().take(50_000) {
            assert!(timers.cancel(*id).is_some());
        }
        assert_eq!(due(&mut timers, 100_000).len(), 49_999);
        assert_eq!(timers.len(), 1);
        assert!(timers.timers.capacity() <= DOUBLE_UNTIL, "{}", timers.timers.capacity());
    }

    #[derive(Debug, Clone)]
    enum Operation {
        Schedule { after: u64 },
        ScheduleAt { deadline: u64 },
        Cancel(prop::sample::Index),
        Reschedule(prop::sample::Index, u64),
        Advance(u64),
        AdvanceToNext,
        PollOnce,
    }

    fn delay() -> impl Strategy<Value = u64> {
        prop_oneof![
            0..4u64,
            0..200u64,
            0..100_000u64,
            Just(64u64),
            Just(4096u64),
            0..YEAR,
            0..200 * YEAR,
            (0..45u32).prop_map(|bits| 1 << bits),
            (0..45u32).prop_map(|bits| (1 << bits) - 1),
        ]
    }

    fn operation() -> impl Strategy<Value = Operation> {
        prop_oneof![
            6 => delay().prop_map(|after| Operation::Schedule { after }),
            1 => any::<u64>().prop_map(|deadline| Operation::ScheduleAt { deadline }),
            2 => any::<prop::sample::Index>().prop_map(Operation::Cancel),
            3 => (any::<prop::sample::Index>(), delay()).prop_map(|(index, after)| Operation::Reschedule(index, after)),
            2 => delay().prop_map(Operation::Advance),
            2 => Just(Operation::AdvanceToNext),
            1 => Just(Operation::PollOnce),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]

        #[test]
        fn behaves_as_a_sorted_map(
            start in prop_oneof![Just(0u64), 0..YEAR, 0..1000 * YEAR],
            operations in proptest::collection::vec(operation(), 1..150),
        ) {
            let mut timers: Timers<u64> = Timers::new();
            prop_assert_eq!(timers.poll(start), None);
            let mut now = start;
            // Payload to name and deadline.
            let mut model: BTreeMap<u64, (TimerId, u64)> = BTreeMap::new();
            let mut gone: Vec<TimerId> = Vec::new();
            let mut payload = 0;
            for operation in operations {
                let pick = |index: &prop::sample::Index| {
                    (!model.is_empty()).then(|| *model.iter().nth(index.index(model.len())).expect("within bounds").0)
                };
                match operation {
                    Operation::Schedule { .. } | Operation::ScheduleAt { .. } => {
                        let deadline = match operation {
                            Operation::Schedule { after } => now + after,
                            Operation::ScheduleAt { deadline } => deadline,
                            _ => now,
                        };
                        payload += 1;
                        model.insert(payload, (timers.schedule(deadline, payload), deadline));
                    }
                    Operation::Cancel(index) => if let Some(payload) = pick(&index) {
                        let (id, _) = model.remove(&payload).expect("just picked");
                        prop_assert_eq!(timers.cancel(id), Some(payload));
                        gone.push(id);
                    },
                    Operation::Reschedule(index, after) => if let Some(payload) = pick(&index) {
                        let (id, deadline) = model.get_mut(&payload).expect("just picked");
                        *deadline = now + after;
                        prop_assert!(timers.reschedule(*id, *deadline));
                    },
                    Operation::PollOnce => if let Some(payload) = timers.poll(now) {
                        let (id, deadline) = model.remove(&payload).expect("only scheduled timers fire");
                        prop_assert!(deadline <= now);
                        gone.push(id);
                    },
                    Operation::Advance(_) | Operation::AdvanceToNext => {
                        let before = now;
                        now = match operation {
                            Operation::Advance(by) => now.saturating_add(by),
                            _ => timers.next_deadline().unwrap_or(now).max(now),
                        };
                        let mut last = 0;
                        while let Some(payload) = timers.poll(now) {
                            let (id, deadline) = model.remove(&payload).expect("only scheduled timers fire");
                            prop_assert!(deadline <= now, "fired {} ms early", deadline - now);
                            prop_assert!(deadline.max(before) >= last, "out of order");
                            last = deadline.max(before);
                            gone.push(id);
                        }
                        for (_, deadline) in model.values() {
                            prop_assert!(*deadline > now, "{} ms late", now - deadline);
                        }
                    }
                }
                prop_assert_eq!(timers.len(), model.len());
                let earliest = model.values().map(|(_, deadline)| *deadline).min();
                prop_assert_eq!(timers.next_deadline().is_some(), earliest.is_some());
                if let (Some(next), Some(earliest)) = (timers.next_deadline(), earliest) {
                    prop_assert!(next <= earliest.max(now), "{} is after {}", next, earliest);
                }
                for (id, deadline) in model.values() {
                    prop_assert_eq!(timers.deadline(*id), Some(*deadline));
                }
                for id in &gone {
                    prop_assert_eq!(timers.cancel(*id), None);
                }
            }
        }
    }
}
