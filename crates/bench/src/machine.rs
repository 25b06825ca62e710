//! What a result has to say about the machine it was made on.

use std::fs;

use serde::Serialize;

/// Facts about the machine and its state.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// Kernel release.
    pub kernel: String,
    /// Processor model.
    pub cpu: String,
    /// Congestion control of TCP; some of them pace even loopback.
    pub congestion_control: String,
    /// Mitigation of Spectre v2, which sets the price of a system call.
    pub mitigation_spectre_v2: String,
    /// Load averages before the first run; near 0 on a machine fit for measuring.
    pub load_before: String,
}

impl Machine {
    /// Reads them; a fact the kernel does not show is empty.
    pub fn observe() -> Self {
        let line = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
        let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let cpu = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
        Self {
            kernel: line("/proc/sys/kernel/osrelease"),
            cpu: cpu.map(|(_, model)| model.trim().to_owned()).unwrap_or_default(),
            congestion_control: line("/proc/sys/net/ipv4/tcp_congestion_control"),
            mitigation_spectre_v2: line("/sys/devices/system/cpu/vulnerabilities/spectre_v2"),
            load_before: line("/proc/loadavg").split_ascii_whitespace().take(3).collect::<Vec<_>>().join(" "),
        }
    }
}
