//! Metrics of the process itself, as the Prometheus client libraries name them. Read from `/proc` when they are shown, so that
//! they are never old; a value that cannot be read is left out rather than shown as zero.

use std::fmt::Write as _;
use std::fs;
use std::io;

use super::{CATALOGUE, Kind, Metric};

/// Key of the clock ticks per second in `/proc/self/auxv` (`AT_CLKTCK`).
const CLOCK_TICKS_KEY: usize = 17;

/// A family of one sample: its name in the catalogue, and where the value comes from.
struct Family {
    name: &'static str,
    value: fn(&Files) -> Option<f64>,
}

const FAMILIES: [Family; 7] = [
    Family {
        // proc(5): `utime` and `stime`.
        name: "process_cpu_seconds_total",
        value: |files| Some((files.stat(14)? + files.stat(15)?) / files.ticks),
    },
    Family {
        // The first number of the line is the soft limit, which is the one in force.
        name: "process_max_fds",
        value: |files| files.limits.lines().find_map(|line| first_number(line.strip_prefix("Max open files")?)),
    },
    Family { name: "process_open_fds", value: |files| files.open_fds },
    // The `kB` of `/proc` are units of 1024 bytes.
    Family { name: "process_resident_memory_bytes", value: |files| Some(files.status("VmRSS:")? * 1024.0) },
    Family {
        name: "process_start_time_seconds",
        value: |files| {
            let boot = files.machine.lines().find_map(|line| first_number(line.strip_prefix("btime ")?))?;
            // proc(5): `starttime` counts ticks since boot.
            Some(boot + files.stat(22)? / files.ticks)
        },
    },
    Family { name: "process_threads", value: |files| files.status("Threads:") },
    Family { name: "process_virtual_memory_bytes", value: |files| Some(files.status("VmSize:")? * 1024.0) },
];

/// Appends the families to a text in the exporter's format.
pub(super) fn append(text: &mut String) {
    // Each file is read once for all values, so that they belong to the same moment.
    let files = Files::read();
    for Family { name, value } in FAMILIES {
        let described = CATALOGUE.iter().find(|metric| metric.name == name);
        let (Some(Metric { kind, help, .. }), Some(value)) = (described, value(&files)) else { continue };
        let kind = if *kind == Kind::Counter { "counter" } else { "gauge" };
        // Writing to a string never fails.
        let _: std::fmt::Result = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n\n");
    }
}

/// Values of `/proc`; empty where it cannot be read.
struct Files {
    status: String,
    stat: String,
    limits: String,
    machine: String,
    open_fds: Option<f64>,
    /// Clock ticks per second.
    ticks: f64,
}

impl Files {
    fn read() -> Self {
        let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
        Self {
            status: text("/proc/self/status"),
            stat: text("/proc/self/stat"),
            limits: text("/proc/self/limits"),
            machine: text("/proc/stat"),
            open_fds: open_fds().ok(),
            // 100 is what Linux uses on x86-64 and arm64.
            ticks: fs::read("/proc/self/auxv").ok().and_then(|auxv| clock_ticks(&auxv)).unwrap_or(100.0),
        }
    }

    fn status(&self, key: &str) -> Option<f64> {
        self.status.lines().find_map(|line| first_number(line.strip_prefix(key)?))
    }

    /// A field of `/proc/self/stat`, counted from 1. The name in field 2 may contain anything, also `) `.
    fn stat(&self, field: usize) -> Option<f64> {
        // The first field after the name is number 3.
        self.stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(field - 3)?.parse().ok()
    }
}

/// Without the descriptor of the directory that is being read.
fn open_fds() -> io::Result<f64> {
    Ok(fs::read_dir("/proc/self/fd")?.count().saturating_sub(1) as f64)
}

fn first_number(text: &str) -> Option<f64> {
    text.split_whitespace().next()?.parse().ok()
}

/// Pairs of machine words, key and value.
fn clock_ticks(auxv: &[u8]) -> Option<f64> {
    let words = auxv.chunks_exact(size_of::<usize>()).map(|word| word.try_into().map(usize::from_ne_bytes));
    let words: Vec<usize> = words.collect::<Result<_, _>>().ok()?;
    let ticks = words.chunks_exact(2).find(|pair| pair[0] == CLOCK_TICKS_KEY)?[1];
    (ticks > 0).then_some(ticks as f64)
}

#[cfg(test)]
mod tests {
    use std::time::{Instant, SystemTime};

    use super::*;

    fn value(name: &str) -> f64 {
        let mut text = String::new();
        append(&mut text);
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{name} is missing: {text}")).parse().unwrap()
    }

    #[test]
    fn every_family_has_help_type_and_a_value() {
        let mut text = String::new();

        append(&mut text);

        for Family { name, .. } in FAMILIES {
            let kind = if name.ends_with("_total") { "counter" } else { "gauge" };
            assert!(text.contains(&format!("# HELP {name} ")) && text.contains(&format!("# TYPE {name} {kind}\n")));
            // A process that has just started may have used no tick of a CPU.
            assert!(value(name) > 0.0 || name == "process_cpu_seconds_total", "{text}");
        }
    }

    #[test]
    fn memory_that_is_used_is_counted() {
        let before = value("process_resident_memory_bytes");

        let used = std::hint::black_box(vec![1_u8; 64 << 20]);

        // Other tests of this process may give some back meanwhile.
        assert!(value("process_resident_memory_bytes") > before + (32 << 20) as f64);
        drop(used);
    }

    #[test]
    fn time_on_the_cpu_is_counted_in_seconds() {
        let (before, begun) = (value("process_cpu_seconds_total"), Instant::now());

        while value("process_cpu_seconds_total") < before + 0.05 {
            assert!(begun.elapsed().as_secs() < 20, "{before}");
        }
    }

    #[test]
    fn descriptors_that_are_opened_are_counted() {
        let held: Vec<_> = (0..200).map(|_| fs::File::open("/proc/self/status").unwrap()).collect();

        assert!(value("process_open_fds") >= held.len() as f64);
        assert!(value("process_max_fds") >= value("process_open_fds"));
    }

    #[test]
    fn the_process_started_before_now_and_after_the_machine() {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64();

        let started = value("process_start_time_seconds");

        assert!(started <= now + 1.0 && started > now - 3600.0, "{started}, now {now}");
    }
}
