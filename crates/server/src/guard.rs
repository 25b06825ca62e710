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
const SECOND: Duration = Duration::from_secs(1);

/// Counts connections by address, for all workers. Costs nothing where neither limit is set.
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
    /// When it was looked through last for addresses that nobody has any more.
    swept: Option<Instant>,
}

#[derive(Debug)]
struct Count {
    open: u32,
    second: Instant,
    in_second: u32,
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
pub(crate) struct Counted {
    addresses: Arc<Addresses>,
    address: IpAddr,
}

impl Drop for Counted {
    fn drop(&mut self) {
        let counts = &mut self.addresses.table().counts;
        if let Some(count) = counts.get_mut(&self.address) {
            count.open = count.open.saturating_sub(1);
            if count.open == 0 && count.second.elapsed() >= SECOND {
                counts.remove(&self.address);
            }
        }
    }
}

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

    /// Whether there is anything to count.
    pub(crate) fn counts_any(&self) -> bool {
        self.connections_max().is_some() || self.per_second_max().is_some()
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a connection that comes now. None if there is nothing to count.
    pub(crate) fn admit(self: &Arc<Self>, now: Instant, address: IpAddr) -> Result<Option<Counted>, TooMany> {
        if !self.counts_any() {
            return Ok(None);
        }
        let address = network(address);
        let mut table = self.table();
        let Table { counts, swept } = &mut *table;
        if counts.len() >= ADDRESSES_MAX && !counts.contains_key(&address) {
            // Once a second at the most, whoever comes.
            if swept.is_none_or(|swept| now.duration_since(swept) >= SECOND) {
                *swept = Some(now);
                counts.retain(|_, count| count.open > 0 || now.duration_since(count.second) < SECOND);
            }
            if counts.len() >= ADDRESSES_MAX {
                return Ok(None);
            }
        }
        let count = counts.entry(address).or_insert(Count { open: 0, second: now, in_second: 0 });
        if now.duration_since(count.second) >= SECOND {
            (count.second, count.in_second) = (now, 0);
        }
        count.in_second = count.in_second.saturating_add(1);
        if let Some(max) = self.per_second_max().filter(|max| count.in_second > *max) {
            return Err(TooMany { limit: "connections_per_address_per_second_max", max });
        }
        if let Some(max) = self.connections_max().filter(|max| count.open >= *max) {
            return Err(TooMany { limit: "connections_per_address_max", max });
        }
        count.open += 1;
        Ok(Some(Counted { addresses: Arc::clone(self), address }))
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
        let (now, one, other) = (Instant::now(), IpAddr::from([127, 0, 0, 1]), IpAddr::from([127, 0, 0, 2]));
        let first = addresses.admit(now, one).unwrap();
        let mapped: IpAddr = "::ffff:127.0.0.1".parse().unwrap();
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

    #[test]
    fn without_a_limit_nobody_is_counted() {
        let addresses = Addresses::new(None, None);
        assert!(addresses.admit(Instant::now(), IpAddr::from([127, 0, 0, 1])).unwrap().is_none());
        assert!(addresses.table().counts.is_empty());
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
        assert!(resident > 0 && peak >= resident);
        assert!(memory_max(None).is_some_and(|max| max > 0));
    }
}
