//! CPU time and memory of a process, as the kernel accounts them.

use std::fs;
use std::io;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// Length of one tick in `/proc/PID/stat`; USER_HZ is 100 on every Linux architecture in use.
const TICK: Duration = Duration::from_millis(10);

/// CPU time a process has used since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cpu {
    /// User and system together, to the nanosecond, summed over its threads.
    pub total: Duration,
    /// User part; resolution 10 ms.
    pub user: Duration,
    /// System part; resolution 10 ms.
    pub system: Duration,
}

impl Cpu {
    /// The sum of both.
    pub fn and(self, other: Self) -> Self {
        Self { total: self.total + other.total, user: self.user + other.user, system: self.system + other.system }
    }

    /// What was used since `earlier`.
    pub fn since(self, earlier: Self) -> Self {
        Self {
            total: self.total.saturating_sub(earlier.total),
            user: self.user.saturating_sub(earlier.user),
            system: self.system.saturating_sub(earlier.system),
        }
    }
}

/// CPU time of process `pid`.
///
/// Ticks of 10 ms are too coarse for short runs, so the total is the scheduler's own count per thread where the kernel
/// shows it. Threads that ended are missing from that count; the brokers measured here start their threads once.
pub fn cpu(pid: u32) -> io::Result<Cpu> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (user, system) = parse_stat(&stat).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
    let mut total = Duration::ZERO;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        total += fs::read_to_string(thread?.path().join("schedstat"))
            .ok()
            .and_then(|text| parse_schedstat(&text))
            .unwrap_or_default();
    }
    Ok(Cpu { total: if total.is_zero() { user + system } else { total }, user, system })
}

/// CPU time of the calling thread; the generator has only one.
pub fn own_cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).expect("CPU time never runs backwards from zero")
}

/// CPU time of this process, user and system together, threads that have ended included.
pub fn process_cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::try_from(time).expect("CPU time never runs backwards from zero")
}

/// Bytes of anonymous memory of process `pid`: heap and stacks, without program text and files.
pub fn anonymous_bytes(pid: u32) -> io::Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    parse_anonymous(&text).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Bytes of process `pid` in memory: those now, and the most there ever were.
pub fn resident_bytes(pid: u32) -> io::Result<(u64, u64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let field = |name| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok().map(|kibibytes| kibibytes * 1024)
    };
    field("VmRSS:").zip(field("VmHWM:")).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Waits until process `pid` has used next to no CPU for a tenth of a second, at most ten seconds.
///
/// A broker that has sent its last answer may still tidy up.
pub fn wait_until_quiet(pid: u32) -> io::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut before = cpu(pid)?.total;
    while Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(100));
        let after = cpu(pid)?.total;
        if after.saturating_sub(before) < Duration::from_millis(1) {
            break;
        }
        before = after;
    }
    Ok(())
}

/// User and system time; fields 14 and 15, counted after the name, which may contain anything but a last `)`.
fn parse_stat(stat: &str) -> Option<(Duration, Duration)> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut ticks = fields.split_ascii_whitespace().skip(11).map(|field| field.parse::<u32>().ok());
    Some((TICK * ticks.next()??, TICK * ticks.next()??))
}

fn parse_schedstat(text: &str) -> Option<Duration> {
    text.split_ascii_whitespace().next()?.parse().ok().map(Duration::from_nanos)
}

fn parse_anonymous(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("Anonymous:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok().map(|kibibytes| kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_is_read_behind_a_name_with_parentheses_and_spaces() {
        let stat = "42 (a) b (c) S 1 42 42 0 -1 4194560 1 2 3 4 57 123 0 0 20 0 1 0 9 1 1 1";
        assert_eq!(parse_stat(stat), Some((Duration::from_millis(570), Duration::from_millis(1230))));
    }

    #[test]
    fn anonymous_memory_is_given_in_bytes() {
        let text = "Rss:      900 kB\nAnonymous:             404 kB\nKSM:   0 kB\n";
        assert_eq!(parse_anonymous(text), Some(404 * 1024));
        assert_eq!(parse_anonymous("Rss: 1 kB\n"), None);
    }

    #[test]
    fn own_memory_grows_by_what_is_touched() {
        let before = anonymous_bytes(std::process::id()).unwrap();
        let block = std::hint::black_box(vec![1_u8; 64 << 20]);
        let after = anonymous_bytes(std::process::id()).unwrap();
        assert!(after >= before + (60 << 20), "{before} {after} {}", block.len());
    }

    #[test]
    fn cpu_time_advances_with_work_for_the_thread_and_for_its_process() {
        let (own_before, process_before) = (own_cpu(), cpu(std::process::id()).unwrap().total);
        while own_cpu() - own_before < Duration::from_millis(50) {
            std::hint::black_box(0);
        }
        let deadline = Instant::now() + Duration::from_secs(20);
        // The kernel brings the count per thread up to date at its ticks.
        while cpu(std::process::id()).unwrap().total < process_before + Duration::from_millis(50) {
            assert!(Instant::now() < deadline, "the count for the process stands still");
        }
    }
}
