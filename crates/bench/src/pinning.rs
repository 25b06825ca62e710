//! Which core runs what: the broker on the first allowed core, the generator on the second.

use std::io;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Cores for broker and generator, or none when the machine has only one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pinning {
    cores: Option<Cores>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cores {
    broker: usize,
    generator: usize,
}

impl Pinning {
    /// Chooses the first two cores this process may use, and moves the calling thread to the second.
    pub fn establish() -> io::Result<Self> {
        let allowed = sched_getaffinity(None)?;
        let mut cores = (0..CpuSet::MAX_CPU).filter(|&core| allowed.is_set(core));
        let cores = cores.next().zip(cores.next()).map(|(broker, generator)| Cores { broker, generator });
        if let Some(Cores { generator, .. }) = cores {
            move_to(generator)?;
        }
        Ok(Self { cores })
    }

    /// Runs `start`, which starts a process, so that the process has the broker's core; it inherits it from this
    /// thread.
    pub fn on_broker_core<T>(&self, start: impl FnOnce() -> T) -> io::Result<T> {
        let Some(Cores { broker, generator }) = self.cores else { return Ok(start()) };
        move_to(broker)?;
        let started = start();
        move_to(generator)?;
        Ok(started)
    }

    /// For people and result files.
    pub fn describe(&self) -> String {
        match self.cores {
            Some(Cores { broker, generator }) => format!("broker core {broker}, generator core {generator}"),
            None => "none (one core)".to_owned(),
        }
    }
}

fn move_to(core: usize) -> io::Result<()> {
    let mut set = CpuSet::new();
    set.set(core);
    Ok(sched_setaffinity(None, &set)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_started_on_the_brokers_core_stays_there_and_the_caller_comes_back() {
        // A thread of its own: pinning is a property of the thread, and the test runner's are not ours to pin.
        std::thread::spawn(|| {
            let pinning = Pinning::establish().unwrap();
            let Some(cores) = pinning.cores else { return };
            let status =
                pinning.on_broker_core(|| std::fs::read_to_string("/proc/thread-self/status")).unwrap().unwrap();
            assert!(status.contains(&format!("Cpus_allowed_list:\t{}\n", cores.broker)));
            let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
            assert!(status.contains(&format!("Cpus_allowed_list:\t{}\n", cores.generator)));
        })
        .join()
        .unwrap();
    }
}
