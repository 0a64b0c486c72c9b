//! Budgets of the process that the pods it serves share, and their owners. The numbers, and what happens beyond each, are
//! in `docs/design/0005-budgets.md`. It delays and closes nothing itself. A waypoint serves one pod, its own.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Number of times that an owner wanted more than its budget holds.
const EXCEEDED: &str = "strake_budget_exceeded_total";
/// Pause between two log lines about the same budget of one pod.
const REPORT_EVERY: Duration = Duration::from_secs(60);

/// Descriptors that are never given to connections: listeners (seven for a pod with DNS), discovery, admin.
const OWN_DESCRIPTORS: usize = 256;
/// Descriptors when the limit of the process is not known, or there is none.
const DEFAULT_DESCRIPTORS: usize = 1 << 20;
/// Bytes that the peers of all tunnels together may send before somebody has read them.
const WINDOW_BYTES: usize = 1 << 30;
/// Connection window that a tunnel gets in any case, bytes.
const LEAST_WINDOW_BYTES: usize = 256 << 10;

/// Things that are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resource {
    /// TLS handshakes of inbound tunnels under way.
    Handshakes,
    /// Open sockets.
    Descriptors,
    /// Inbound tunnels.
    Tunnels,
    /// Room for bytes of tunnels that nobody has read.
    Windows,
    /// Requests of one tunnel that are not answered.
    Requests,
    /// DNS questions that nameservers have not answered.
    Questions,
    /// Accepted connections with DNS questions.
    DnsConnections,
}

impl Resource {
    const COUNT: usize = 7;

    /// As a label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Handshakes => "handshakes",
            Self::Descriptors => "descriptors",
            Self::Tunnels => "tunnels",
            Self::Windows => "windows",
            Self::Requests => "requests",
            Self::Questions => "questions",
            Self::DnsConnections => "dns_connections",
        }
    }

    /// Consequence for an owner that wants more.
    const fn consequence(self) -> &'static str {
        match self {
            Self::Handshakes => "further handshakes wait",
            Self::Descriptors => "further connections wait, further requests are refused",
            Self::Tunnels => "further tunnels are closed",
            Self::Windows => "further tunnels get a small window",
            Self::Requests => "further requests are refused",
            Self::Questions => "further questions for nameservers are answered with SERVFAIL",
            Self::DnsConnections => "further connections wait",
        }
    }
}

/// Owner of a budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// One client address of one pod.
    Source(IpAddr),
    /// One pod.
    Pod,
    /// One tunnel, by its peer's address.
    Tunnel(IpAddr),
}

impl Owner {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Source(_) => "source",
            Self::Pod => "pod",
            Self::Tunnel(_) => "tunnel",
        }
    }
}

/// Counts that `owner` wanted more, and logs it once a minute for each pod and resource.
pub fn exceeded(pod: &Usage, resource: Resource, owner: Owner) {
    metrics::counter!(EXCEEDED, "budget" => resource.as_str(), "owner" => owner.as_str()).increment(1);
    if !pod.is_report_due(resource) {
        return;
    }
    let (budget, whose) = (resource.as_str(), owner.as_str());
    let peer = match owner {
        Owner::Source(peer) | Owner::Tunnel(peer) => Some(peer),
        Owner::Pod => None,
    };
    let peer = peer.map(tracing::field::display);
    let (name, namespace) = (&pod.name, &pod.namespace);
    tracing::warn!(
        name,
        namespace,
        budget,
        owner = whose,
        peer,
        code = "budget",
        "budget of the {whose} used up; {}",
        resource.consequence()
    );
}

/// Use that one pod makes of the budgets, on all workers.
#[derive(Debug)]
pub struct Usage {
    /// For the log.
    name: String,
    namespace: String,
    descriptors: AtomicUsize,
    window_bytes: AtomicUsize,
    begun: Instant,
    /// Seconds after `begun` at which a line about the resource is due.
    due: [AtomicU64; Resource::COUNT],
}

impl Usage {
    /// A pod that uses nothing yet.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            namespace: namespace.into(),
            descriptors: AtomicUsize::new(0),
            window_bytes: AtomicUsize::new(0),
            begun: Instant::now(),
            due: Default::default(),
        }
    }

    fn is_report_due(&self, resource: Resource) -> bool {
        // Whole seconds in an atomic: workers never wait for each other to find out whether a line is due.
        let now = self.begun.elapsed().as_secs();
        let due = &self.due[resource as usize];
        let at = due.load(Ordering::Relaxed);
        at <= now
            && due.compare_exchange(at, now + REPORT_EVERY.as_secs(), Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Descriptors that the pod's connections hold.
    pub fn descriptors(&self) -> usize {
        self.descriptors.load(Ordering::Relaxed)
    }
}

/// An amount that pods share. Three quarters are for whoever comes; of the last one each pod has its part, so that no
/// pod can take what others need to go on.
#[derive(Debug)]
struct Divided {
    limit: usize,
    used: AtomicUsize,
}

impl Divided {
    const fn new(limit: usize) -> Self {
        Self { limit, used: AtomicUsize::new(0) }
    }

    /// Takes `n` for a pod that holds `own`, one of `pods`; whether there was so much for it.
    fn take(&self, own: &AtomicUsize, pods: usize, n: usize) -> bool {
        // Taken first and given back if it was too much: two workers that ask at once can both be refused, never both
        // be served beyond the limit.
        let reserved = self.limit / 4;
        let used = self.used.fetch_add(n, Ordering::Relaxed) + n;
        let mine = own.fetch_add(n, Ordering::Relaxed) + n;
        let fits = used <= self.limit - reserved || used <= self.limit && mine <= reserved / pods.max(1);
        if !fits {
            self.give_back(own, n);
        }
        fits
    }

    /// Takes `n` whether there is so much or not.
    fn take_anyway(&self, own: &AtomicUsize, n: usize) {
        self.used.fetch_add(n, Ordering::Relaxed);
        own.fetch_add(n, Ordering::Relaxed);
    }

    fn give_back(&self, own: &AtomicUsize, n: usize) {
        self.used.fetch_sub(n, Ordering::Relaxed);
        own.fetch_sub(n, Ordering::Relaxed);
    }
}

/// Budgets that all pods of the process share.
#[derive(Debug)]
pub struct Budgets {
    descriptors: Divided,
    window_bytes: Divided,
    /// Pods that connections may come to, counted once for each worker that knows the pod.
    pods: AtomicUsize,
}

impl Budgets {
    /// For a process that may open `descriptors`; `None`: as many as it likes.
    pub fn new(descriptors: Option<u64>) -> Self {
        // 256 for the process itself; with a very small limit, half of it.
        let limit = descriptors.and_then(|n| usize::try_from(n).ok()).unwrap_or(DEFAULT_DESCRIPTORS);
        Self {
            descriptors: Divided::new(limit.saturating_sub(OWN_DESCRIPTORS).max(limit / 2)),
            window_bytes: Divided::new(WINDOW_BYTES),
            pods: AtomicUsize::new(0),
        }
    }

    /// Counts a pod until the result is dropped.
    pub fn enter(self: &Arc<Self>) -> Member {
        self.pods.fetch_add(1, Ordering::Relaxed);
        Member(self.clone())
    }

    /// `n` descriptors for a connection of `pod`, or none when it has to wait.
    pub fn descriptors(self: &Arc<Self>, pod: &Arc<Usage>, n: usize) -> Option<Descriptors> {
        let pods = self.pods.load(Ordering::Relaxed);
        let taken = self.descriptors.take(&pod.descriptors, pods, n);
        taken.then(|| Descriptors { budgets: self.clone(), pod: pod.clone(), n })
    }

    /// Descriptors for what is open already.
    pub fn descriptors_in_use(self: &Arc<Self>, pod: &Arc<Usage>, n: usize) -> Descriptors {
        self.descriptors.take_anyway(&pod.descriptors, n);
        Descriptors { budgets: self.clone(), pod: pod.clone(), n }
    }

    /// A connection window for a tunnel of `pod`: `wanted`, or what there is, down to [`LEAST_WINDOW_BYTES`].
    pub fn window(self: &Arc<Self>, pod: &Arc<Usage>, wanted: u32) -> Window {
        let (own, pods) = (&pod.window_bytes, self.pods.load(Ordering::Relaxed));
        let mut bytes = wanted;
        // 16 MiB, 8, 4, 2, 1, 512 KiB, and 256 KiB in any case: a tunnel with a small window is slow, one without is
        // useless.
        while !self.window_bytes.take(own, pods, bytes as usize) {
            bytes /= 2;
            if bytes as usize <= LEAST_WINDOW_BYTES {
                bytes = wanted.min(LEAST_WINDOW_BYTES as u32);
                self.window_bytes.take_anyway(own, bytes as usize);
                break;
            }
        }
        // The tunnel works, slowly: its pod's owner should hear why.
        if bytes < wanted {
            exceeded(pod, Resource::Windows, Owner::Pod);
        }
        Window { budgets: self.clone(), pod: pod.clone(), bytes }
    }
}

/// Counts a pod.
#[derive(Debug)]
pub struct Member(Arc<Budgets>);

impl Drop for Member {
    fn drop(&mut self) {
        self.0.pods.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Descriptors that a connection may use, given back when dropped.
pub struct Descriptors {
    budgets: Arc<Budgets>,
    pod: Arc<Usage>,
    n: usize,
}

impl Descriptors {
    /// Gives back what is more than `n`.
    pub fn keep(&mut self, n: usize) {
        let more = self.n.saturating_sub(n);
        self.n -= more;
        self.budgets.descriptors.give_back(&self.pod.descriptors, more);
    }
}

impl Drop for Descriptors {
    fn drop(&mut self) {
        self.budgets.descriptors.give_back(&self.pod.descriptors, self.n);
    }
}

impl fmt::Debug for Descriptors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Descriptors").field(&self.n).finish()
    }
}

/// Room that a tunnel's peer has for bytes that nobody has read, given back when dropped.
pub struct Window {
    budgets: Arc<Budgets>,
    pod: Arc<Usage>,
    bytes: u32,
}

impl Window {
    /// `settings` with this connection window, and a stream window of a part of it.
    pub fn apply(&self, settings: &hbone::Settings) -> hbone::Settings {
        hbone::Settings {
            connection_window_bytes: self.bytes,
            // As the defaults are to each other: one unread stream must not use up the window of all.
            stream_window_bytes: settings.stream_window_bytes.min((self.bytes / 4).max(1)),
            ..settings.clone()
        }
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        self.budgets.window_bytes.give_back(&self.pod.window_bytes, self.bytes as usize);
    }
}

impl fmt::Debug for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Window").field(&self.bytes).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str) -> Arc<Usage> {
        Arc::new(Usage::new("ns", name))
    }

    /// Takes one after the other until there is none; how many there were.
    fn hoard(budgets: &Arc<Budgets>, pod: &Arc<Usage>) -> Vec<Descriptors> {
        std::iter::from_fn(|| budgets.descriptors(pod, 1)).collect()
    }

    #[test]
    fn a_pod_that_takes_all_it_can_leaves_each_other_pod_its_part() {
        let budgets = Arc::new(Budgets::new(Some(1000)));
        let pods: Vec<_> = ["flood", "a", "b", "c"].map(pod).into();
        let _members: Vec<_> = pods.iter().map(|_| budgets.enter()).collect();

        let held: Vec<_> = pods.iter().map(|pod| hoard(&budgets, pod)).collect();

        let counts: Vec<_> = held.iter().map(Vec::len).collect();
        assert!(counts[0] >= 500, "{counts:?}");
        assert!(counts[1..].iter().all(|n| *n >= 40), "{counts:?}");
        assert!(counts.iter().sum::<usize>() <= 1000 - OWN_DESCRIPTORS, "{counts:?}");
        drop(held);
        assert_eq!(pods.iter().map(|p| p.descriptors()).sum::<usize>(), 0);
    }

    #[test]
    fn a_small_limit_of_the_process_leaves_half_of_it_to_connections() {
        let budgets = Arc::new(Budgets::new(Some(100)));
        let _member = budgets.enter();

        assert_eq!(
            hoard(&budgets, &pod("only")).len(),
            38,
            "three quarters of 50; the rest is for pods that hold less"
        );
    }

    #[test]
    fn tunnels_get_their_window_until_there_is_little_left_and_then_a_small_one() {
        let budgets = Arc::new(Budgets::new(None));
        let (flood, calm) = (pod("flood"), pod("calm"));
        let _members = [budgets.enter(), budgets.enter()];
        let wanted = hbone::Settings::default().connection_window_bytes;

        let held: Vec<_> = (0..1000).map(|_| budgets.window(&flood, wanted)).collect();
        let other = budgets.window(&calm, wanted);

        let total: usize = held.iter().map(|w| w.bytes as usize).sum();
        assert!(total <= WINDOW_BYTES + 1000 * LEAST_WINDOW_BYTES);
        assert!((held[0].bytes, held[40].bytes) == (wanted, wanted));
        assert_eq!(held[999].bytes as usize, LEAST_WINDOW_BYTES);
        assert_eq!(other.bytes, wanted, "the flood has taken what others need");
        let settings = held[999].apply(&hbone::Settings::default());
        assert!(settings.stream_window_bytes * 4 <= settings.connection_window_bytes);
    }

    #[test]
    fn a_pod_s_budget_is_logged_once_a_minute() {
        let usage = Usage::new("ns", "a");

        assert!(usage.is_report_due(Resource::Tunnels));
        assert!(!usage.is_report_due(Resource::Tunnels));
        assert!(usage.is_report_due(Resource::Windows));
    }
}
