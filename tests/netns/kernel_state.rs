//! The kernel's state of a pod, read beside the agents: programs, map entries, rules, settings. It changes nothing.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use ebpf_common::{F_DNS, F_IN, F_OUT, names};
use ebpf_loader::observe;
use lab::Target;
use runtime::sys::Netns;
use testkit::TestLab;

/// Settings of a pod's network namespace that the agent changes while the pod is enrolled.
const SETTINGS: [&str; 3] = ["net/ipv4/tcp_fwmark_accept", "net/ipv4/fwmark_reflect", "net/ipv6/fwmark_reflect"];

/// Place of a pod's state: valid for as long as the pod lives, whatever agents and proxies do.
pub(crate) struct Place {
    pod: String,
    netns: Netns,
    cookie: u64,
    /// The node's bpffs, through the mount namespace of the lab.
    bpffs: PathBuf,
}

impl Place {
    pub(crate) async fn of(lab: &TestLab, pod: &str) -> Self {
        let netns = lab.lab().netns(Target::Pod { pod: pod.to_owned(), container: None }).await.unwrap();
        let netns = Netns::from_fd(netns).unwrap();
        let run = lab.lab().run_dir();
        let supervisor = fs::read_to_string(run.pid_file()).unwrap();
        let bpffs = run.node(&lab.pod(pod).await.node).join("bpffs");
        let bpffs = format!("/proc/{}/root{}", supervisor.trim(), bpffs.display()).into();
        Self { pod: pod.to_owned(), cookie: netns.cookie().unwrap(), netns, bpffs }
    }

    /// Fails unless the pod's program is attached and the pod's entry captures both directions and DNS.
    pub(crate) fn assert_steered(&self) {
        let links = observe::links_at(&self.netns).unwrap();
        let entry = observe::pod(&self.bpffs, self.cookie).unwrap();

        assert_eq!(links.len(), 1, "{}: {links:?}", self.pod);
        assert_eq!(entry.map(|entry| entry.flags), Some(F_IN | F_OUT | F_DNS), "{}: {entry:?}", self.pod);
    }

    /// Fails unless there is no rule, no route, no link and no map entry of ours, and the settings are those of `never`,
    /// a pod that was never in the mesh.
    pub(crate) async fn assert_forgotten(&self, lab: &TestLab, never: &Self) {
        for family in ["-4", "-6"] {
            let rules = lab.exec(&self.pod, &["ip", family, "rule", "show"]).await.text();
            assert!(!rules.is_empty() && !rules.contains("0x111"), "{}: {rules}", self.pod);
            let routes = lab.exec(&self.pod, &["ip", family, "route", "show", "table", "1500111"]).await.text();
            assert_eq!(routes, "", "{}", self.pod);
        }
        assert_eq!(self.settings(), never.settings(), "{}", self.pod);
        assert_eq!(observe::links_at(&self.netns).unwrap(), Vec::<String>::new(), "{}", self.pod);
        let known = observe::cookies(&self.bpffs).unwrap();
        for map in [names::PODS, names::SOCKS, names::PROBES, names::LOCALS, names::LOCALS_USED] {
            assert!(!known[map].contains(&self.cookie), "{}: cookie {} is in {map}: {known:?}", self.pod, self.cookie);
        }
    }

    /// State to look for when the pod has gone. Holds nothing of it, as `self` does its namespace.
    pub(crate) fn traces(self) -> Traces {
        Traces { cookie: self.cookie, bpffs: self.bpffs }
    }

    pub(crate) fn settings(&self) -> Vec<String> {
        let read = |name: &&str| Ok(fs::read_to_string(Path::new("/proc/sys").join(name))?.trim().to_owned());
        self.netns.run(|| SETTINGS.iter().map(read).collect::<io::Result<_>>()).unwrap()
    }

    /// Returns true if the node's maps hold a listener of the proxy for this pod.
    pub(crate) fn has_listeners(&self) -> bool {
        observe::cookies(&self.bpffs).unwrap()[names::SOCKS].contains(&self.cookie)
    }
}

/// A pod that has gone, as its node may still know it.
pub(crate) struct Traces {
    cookie: u64,
    bpffs: PathBuf,
}

impl Traces {
    /// Maps with an entry of the pod, and pins that are named after it.
    pub(crate) fn left(&self) -> Vec<String> {
        let known = observe::cookies(&self.bpffs).unwrap();
        let maps = known.iter().filter(|(_, cookies)| cookies.contains(&self.cookie)).map(|(map, _)| (*map).to_owned());
        let mut left: Vec<_> = maps.collect();
        let name = self.cookie.to_string();
        let mut folders = vec![self.bpffs.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).unwrap() {
                let entry = entry.unwrap();
                if entry.file_name() == name.as_str() {
                    left.push(entry.path().display().to_string());
                }
                if entry.file_type().unwrap().is_dir() {
                    folders.push(entry.path());
                }
            }
        }
        left
    }
}
