//! Who is let in before anything is read: counts by address, and how much memory the process has.

use std::collections::HashMap;
use std::fs;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::config::Config;
use crate::reload::{Commit, Reloadable};

/// Addresses that are counted at once; while there are more, new ones are not.
const ADDRESSES_MAX: usize = 65_536;
/// With fewer, none of them is forgotten.
const SWEEP_AT_MIN: usize = 1_024;
const SECOND: Duration = Duration::from_secs(1);

/// Counts connections by address, for all workers. Loopback addresses are not counted, nor are Unix sockets, which have none: load
/// tools, health checks, and proxies that say nothing of their clients come from there.
#[derive(Debug)]
pub(crate) struct Addresses {
    /// 0 is no limit.
    connections_max: AtomicU32,
    per_second_max: AtomicU32,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    counts: HashMap<IpAddr, Count>,
    /// With so many addresses it is looked through for those that nobody has any more: twice as many as there were then.
    sweep_at: usize,
    /// When that was.
    swept: Option<Instant>,
}

#[derive(Debug)]
struct Count {
    /// One for the table, and one for each open connection: so none can be let go twice, or forgotten.
    open: Arc<()>,
    second: Instant,
    in_second: u32,
}

impl Count {
    fn open(&self) -> u32 {
        u32::try_from(Arc::strong_count(&self.open) - 1).unwrap_or(u32::MAX)
    }
}

/// Why a connection is closed before it has said anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooMany {
    /// The key of the limit.
    pub(crate) limit: &'static str,
    pub(crate) max: u32,
}

/// A connection that is counted, for as long as it lives.
#[derive(Debug)]
pub(crate) struct Counted(#[expect(dead_code, reason = "it is there to be counted")] Arc<()>);

impl Addresses {
    pub(crate) fn new(connections_max: Option<NonZeroU32>, per_second_max: Option<NonZeroU32>) -> Arc<Self> {
        let addresses =
            Self { connections_max: AtomicU32::new(0), per_second_max: AtomicU32::new(0), table: Mutex::default() };
        addresses.limit(connections_max, per_second_max);
        Arc::new(addresses)
    }

    /// Other limits from now on. Connections that were there before the first one stay uncounted.
    fn limit(&self, connections_max: Option<NonZeroU32>, per_second_max: Option<NonZeroU32>) {
        self.connections_max.store(connections_max.map_or(0, NonZeroU32::get), Ordering::Relaxed);
        self.per_second_max.store(per_second_max.map_or(0, NonZeroU32::get), Ordering::Relaxed);
    }

    fn connections_max(&self) -> Option<u32> {
        Some(self.connections_max.load(Ordering::Relaxed)).filter(|max| *max > 0)
    }

    fn per_second_max(&self) -> Option<u32> {
        Some(self.per_second_max.load(Ordering::Relaxed)).filter(|max| *max > 0)
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a connection that comes now. None if there is nothing to count.
    pub(crate) fn admit(&self, now: Instant, address: IpAddr) -> Result<Option<Counted>, TooMany> {
        let (connections_max, per_second_max) = (self.connections_max(), self.per_second_max());
        let address = address.to_canonical();
        if address.is_loopback() || connections_max.is_none() && per_second_max.is_none() {
            return Ok(None);
        }
        let address = network(address);
        let mut table = self.table();
        if !table.counts.contains_key(&address) && !table.make_room(now) {
            return Ok(None);
        }
        let fresh = || Count { open: Arc::default(), second: now, in_second: 0 };
        let count = table.counts.entry(address).or_insert_with(fresh);
        if now.duration_since(count.second) >= SECOND {
            (count.second, count.in_second) = (now, 0);
        }
        count.in_second = count.in_second.saturating_add(1);
        if let Some(max) = per_second_max.filter(|max| count.in_second > *max) {
            return Err(TooMany { limit: "connections_per_address_per_second_max", max });
        }
        if let Some(max) = connections_max.filter(|max| count.open() >= *max) {
            return Err(TooMany { limit: "connections_per_address_max", max });
        }
        Ok(Some(Counted(Arc::clone(&count.open))))
    }
}

impl Table {
    /// Forgets addresses that nobody has any more, now and then; whether there is room for another one.
    fn make_room(&mut self, now: Instant) -> bool {
        let len = self.counts.len();
        // Where it is full of those who are there, once a second at the most, whoever comes.
        let rests = self.swept.is_some_and(|swept| now.duration_since(swept) < SECOND);
        if len < self.sweep_at.clamp(SWEEP_AT_MIN, ADDRESSES_MAX) || rests && len >= ADDRESSES_MAX {
            return len < ADDRESSES_MAX;
        }
        self.counts.retain(|_, count| count.open() > 0 || now.duration_since(count.second) < SECOND);
        let left = self.counts.len();
        self.counts.shrink_to(2 * left);
        (self.sweep_at, self.swept) = (2 * left, Some(now));
        left < ADDRESSES_MAX
    }
}

impl Reloadable for Arc<Addresses> {
    fn prepare(&mut self, _old: &Config, new: &Config) -> Result<Commit, String> {
        let addresses = Self::clone(self);
        let limits = (new.connections_per_address_max, new.connections_per_address_per_second_max);
        Ok(Box::new(move |_| {
            addresses.limit(limits.0, limits.1);
            // They are told of as changes of the configuration.
            Vec::new()
        }))
    }
}

/// What is counted as one address: of IPv6 the network, since its hosts choose their addresses themselves.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => IpAddr::V4(v4),
            None => IpAddr::V6((v6.to_bits() & !u128::from(u64::MAX)).into()),
        },
    }
}

/// Memory of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Memory {
    /// Bytes that are resident.
    pub(crate) resident: u64,
    /// The most there have been.
    pub(crate) peak: u64,
}

impl Memory {
    /// None where the system does not tell.
    pub(crate) fn now() -> Option<Self> {
        let status = fs::read_to_string("/proc/self/status").ok()?;
        Some(Self { resident: kib(&status, "VmRSS:")?, peak: kib(&status, "VmHWM:")? })
    }
}

/// The value of a line like `VmRSS:  1234 kB`, in bytes.
fn kib(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()?.checked_mul(1_024)
}

/// The limit of memory by the configuration: `written` bytes, none for 0, or what is to be had.
pub(crate) fn memory_max(written: Option<u64>) -> Option<u64> {
    match written {
        Some(0) => None,
        Some(bytes) => Some(bytes),
        None => Some(available()? / 100 * 80),
    }
}

/// What is to be said of a limit of memory that the broker is above before it serves anybody, and so will not get below.
pub(crate) fn too_little(max: Option<u64>, resident: Option<u64>) -> Option<String> {
    let (max, resident) = max.zip(resident).filter(|(max, resident)| max <= resident)?;
    Some(format!(
        "memory_bytes_max (memory_limit of a mosquitto.conf) is {max} bytes, but the broker itself has {resident} before anybody \
         connects: nobody will be let in. It has to be well above that; 0 is no limit"
    ))
}

/// What the control group may have, or the machine has.
fn available() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| kib(&text, "MemTotal:"));
    let group = group_limit(&groups, |path| fs::read_to_string(path).ok());
    [machine, group].into_iter().flatten().min()
}

/// The least limit of the control groups that `groups` (of `/proc/self/cgroup`) names and those they are in, of either version.
fn group_limit(groups: &str, read: impl Fn(&str) -> Option<String>) -> Option<u64> {
    let mut least: Option<u64> = None;
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let (root, file) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            _ if controllers.split(',').any(|controller| controller == "memory") => {
                ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => continue,
        };
        // In a container the path may be that of the host, and the limit stands at the root.
        let mut path = path.trim_end_matches('/');
        loop {
            let limit = read(&format!("{root}{path}/{file}")).and_then(|text| text.trim().parse::<u64>().ok());
            least = match (least, limit) {
                (Some(least), Some(limit)) => Some(least.min(limit)),
                (least, limit) => least.or(limit),
            };
            match path.rsplit_once('/') {
                Some((parent, _)) => path = parent,
                None => break,
            }
        }
    }
    least
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(max: u32) -> Option<NonZeroU32> {
        NonZeroU32::new(max)
    }

    #[test]
    fn connections_of_one_address_are_counted_while_they_live() {
        let addresses = Addresses::new(limit(2), None);
        let (now, one, other) = (Instant::now(), IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        let first = addresses.admit(now, one).unwrap();
        let mapped: IpAddr = "::ffff:192.0.2.1".parse().unwrap();
        let _second = addresses.admit(now, mapped).unwrap().unwrap();
        let refused = TooMany { limit: "connections_per_address_max", max: 2 };
        assert_eq!(addresses.admit(now, one).err(), Some(refused));
        assert!(addresses.admit(now, other).is_ok());
        drop(first);
        assert!(addresses.admit(now, one).is_ok());
    }

    #[test]
    fn connections_of_one_address_have_a_rate() {
        let addresses = Addresses::new(None, limit(2));
        let now = Instant::now();
        let [one, same_network, other]: [IpAddr; 3] =
            ["2001:db8::1", "2001:db8::ffff:2", "2001:db8:0:1::1"].map(|text| text.parse().unwrap());
        assert!(addresses.admit(now, one).is_ok() && addresses.admit(now, same_network).is_ok());
        let refused = TooMany { limit: "connections_per_address_per_second_max", max: 2 };
        assert_eq!(addresses.admit(now, one).err(), Some(refused));
        assert!(addresses.admit(now, other).is_ok());
        assert!(addresses.admit(now + SECOND, one).is_ok());
    }

    #[test]
    fn loopback_addresses_are_not_counted() {
        let addresses = Addresses::new(limit(1), limit(1));
        for text in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
            for _ in 0..3 {
                assert!(addresses.admit(Instant::now(), text.parse().unwrap()).unwrap().is_none(), "{text}");
            }
        }
        assert!(addresses.table().counts.is_empty());
    }

    #[test]
    fn the_table_of_addresses_does_not_grow_without_end() {
        let addresses = Addresses::new(limit(1), None);
        let now = Instant::now();
        let address = |number: u32| IpAddr::V4(number.into());
        let held: Vec<_> =
            (0..ADDRESSES_MAX as u32).map(|number| addresses.admit(now, address(number)).unwrap()).collect();
        assert!(addresses.admit(now, address(1 << 30)).unwrap().is_none());
        assert!(addresses.admit(now, address(7)).is_err());
        drop(held);
        // What has gone makes room.
        assert!(addresses.admit(now + SECOND, address(1 << 30)).unwrap().is_some());
        assert_eq!(addresses.table().counts.len(), 1);
    }

    /// Addresses that come once and never again are forgotten long before the table is full.
    #[test]
    fn addresses_that_nobody_has_are_forgotten() {
        let addresses = Addresses::new(limit(5), limit(5));
        let begin = Instant::now();
        for number in 0..100_000 {
            let now = begin + Duration::from_millis(number * 10);
            let address = IpAddr::V4(u32::try_from(number).unwrap().wrapping_add(1 << 28).into());
            assert!(addresses.admit(now, address).unwrap().is_some());
            let table = addresses.table();
            assert!(table.counts.len() <= SWEEP_AT_MIN && table.counts.capacity() <= 4 * SWEEP_AT_MIN);
        }
    }

    #[test]
    fn without_a_limit_nobody_is_counted() {
        let addresses = Addresses::new(None, None);
        assert!(addresses.admit(Instant::now(), IpAddr::from([192, 0, 2, 1])).unwrap().is_none());
        assert!(addresses.table().counts.is_empty());
    }

    /// Against a plain list of who is there: clients of a few addresses come and go in any order, and time goes on.
    #[test]
    fn counting_is_that_of_a_plain_list() {
        for seed in 1..=20_u64 {
            let mut state = seed;
            let mut random = move |below: u64| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state % below
            };
            let (open_max, rate_max) = (3, 8);
            let addresses = Addresses::new(limit(open_max), limit(rate_max));
            let mut now = Instant::now();
            let mut open: Vec<(IpAddr, Counted)> = Vec::new();
            // For each address, since when it is counted, and how many have come since.
            let mut seconds: HashMap<IpAddr, (Instant, u32)> = HashMap::new();
            for _ in 0..5_000 {
                match random(10) {
                    0 => now += Duration::from_millis(random(700)),
                    1..=4 if !open.is_empty() => drop(open.swap_remove(random(open.len() as u64) as usize)),
                    _ => {
                        let address = IpAddr::from([203, 0, 113, random(4) as u8]);
                        let (second, came) = seconds.entry(address).or_insert((now, 0));
                        if now.duration_since(*second) >= SECOND {
                            (*second, *came) = (now, 0);
                        }
                        *came += 1;
                        let here = open.iter().filter(|(other, _)| *other == address).count() as u32;
                        let expected = match () {
                            () if *came > rate_max => Some("connections_per_address_per_second_max"),
                            () if here >= open_max => Some("connections_per_address_max"),
                            () => None,
                        };
                        match addresses.admit(now, address) {
                            Ok(counted) => {
                                assert_eq!(expected, None, "seed {seed}");
                                open.push((address, counted.unwrap()));
                            }
                            Err(refused) => assert_eq!(Some(refused.limit), expected, "seed {seed}"),
                        }
                    }
                }
            }
            for (address, count) in &addresses.table().counts {
                let here = open.iter().filter(|(other, _)| other == address).count() as u32;
                assert_eq!(count.open(), here, "seed {seed}");
            }
            open.clear();
            assert!(addresses.table().counts.values().all(|count| count.open() == 0), "seed {seed}");
        }
    }

    #[test]
    fn the_least_limit_of_the_control_groups_counts() {
        let files = [
            ("/sys/fs/cgroup/a/b/memory.max", "max\n"),
            ("/sys/fs/cgroup/a/memory.max", "3000\n"),
            ("/sys/fs/cgroup/memory.max", "5000\n"),
            ("/sys/fs/cgroup/memory/x/memory.limit_in_bytes", "4000\n"),
        ];
        let read = |path: &str| files.iter().find(|(name, _)| *name == path).map(|(_, text)| (*text).to_owned());
        assert_eq!(group_limit("0::/a/b\n", read), Some(3_000));
        assert_eq!(group_limit("0::/elsewhere\n", read), Some(5_000));
        assert_eq!(group_limit("4:cpu,memory:/x\n1:name=systemd:/a\n", read), Some(4_000));
        assert_eq!(group_limit("0::/\n", |_| None), None);
        assert_eq!((memory_max(Some(0)), memory_max(Some(7))), (None, Some(7)));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_process_has_memory() {
        let Memory { resident, peak } = Memory::now().unwrap();
        assert_eq!(too_little(Some(resident + 1), Some(resident)), None);
        assert_eq!((too_little(None, Some(resident)), too_little(Some(1), None)), (None, None));
        let text = too_little(Some(1_000_000), Some(20_000_000)).unwrap();
        assert!(text.contains("is 1000000 bytes, but the broker itself has 20000000"), "{text}");
        assert!(resident > 0 && peak >= resident);
        assert!(memory_max(None).is_some_and(|max| max > 0));
    }
}
