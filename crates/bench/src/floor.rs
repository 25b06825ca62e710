//! What the machine charges for the least a broker can do. Results are worth most as a multiple of it.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};

use serde::Serialize;

use crate::usage;

/// Prices of this machine, in nanoseconds of CPU time of the calling thread.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Floor {
    /// A system call that does nothing.
    pub null_syscall_ns: f64,
    /// Writing 64 bytes to a loopback TCP connection and reading them at its other end, in one thread.
    pub tcp_write_read_64_ns: f64,
}

/// Probes of each kind; the median of so many rounds is taken.
const ROUNDS: usize = 5;
const SYSCALLS: u32 = 200_000;
const MESSAGES: u32 = 20_000;

/// Measures for about a second.
pub fn measure() -> io::Result<Floor> {
    let mut null_syscall = [0.0; ROUNDS];
    for round in &mut null_syscall {
        *round = nanoseconds_each(SYSCALLS, || {
            std::hint::black_box(rustix::process::getppid());
            Ok(())
        })?;
    }
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let mut near = TcpStream::connect(listener.local_addr()?)?;
    let (mut far, _) = listener.accept()?;
    near.set_nodelay(true)?;
    let message = [b'.'; 64];
    let mut received = [0; 64];
    let mut write_read = [0.0; ROUNDS];
    for round in &mut write_read {
        *round = nanoseconds_each(MESSAGES, || {
            near.write_all(&message)?;
            far.read_exact(&mut received)
        })?;
    }
    Ok(Floor { null_syscall_ns: median(null_syscall), tcp_write_read_64_ns: median(write_read) })
}

fn nanoseconds_each(count: u32, mut action: impl FnMut() -> io::Result<()>) -> io::Result<f64> {
    // Not the wall clock: other work on this core is no price of ours.
    let before = usage::own_cpu();
    for _ in 0..count {
        action()?;
    }
    Ok((usage::own_cpu() - before).as_nanos() as f64 / f64::from(count))
}

fn median(mut values: [f64; ROUNDS]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[ROUNDS / 2]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sending_costs_more_than_a_call_that_does_nothing() {
        let floor = measure().unwrap();
        assert!(floor.null_syscall_ns > 0.0);
        assert!(floor.tcp_write_read_64_ns > floor.null_syscall_ns, "{floor:?}");
    }
}
