//! Labs for tests: a directory of manifests that the test may edit, and what runs of it. They go down with their test
//! process. How tests come by one is in `shared`.

mod clients;
mod mesh;
mod shared;
mod wire;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use lab::{Lab, Options, PodInfo};

pub use self::{
    clients::Load,
    shared::{Shared, run, run_alone, run_alone_with},
};
use crate::{assert::eventually, prerequisites};

/// Start of a lab with mesh, everything ready. On two idle cores it takes some 3 s.
const UP: Duration = Duration::from_secs(90);

/// A change of a manifest until it shows everywhere. The promise is 2 s; machines that test are busy.
pub const TAKES_EFFECT: Duration = Duration::from_secs(15);

/// A lab with a directory of manifests that the test may edit.
#[derive(Debug)]
pub struct TestLab {
    lab: Lab,
    manifests: PathBuf,
}

impl TestLab {
    /// Starts a lab of these manifests and waits until all is ready.
    ///
    /// # Errors
    /// When it does not become ready, with what is missing.
    pub async fn up(name: &str, manifests: &str, mesh: bool) -> Result<Self> {
        Self::up_with(name, manifests, mesh, |_| ()).await
    }

    /// Starts a lab whose options the test changes first.
    ///
    /// # Errors
    /// When it does not become ready, with what is missing.
    pub async fn up_with(
        name: &str,
        manifests: &str,
        mesh: bool,
        configure: impl FnOnce(&mut Options),
    ) -> Result<Self> {
        let bin = prerequisites::bin_dir();
        // below the build folder, so that a killed test leaves nothing elsewhere
        let dir = bin.join("labs").join(name);
        // Left by a run that was killed; there is none the first time.
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir)?;
        fs::write(dir.join("base.yaml"), manifests)?;
        let mut options = Options::new(unique(name), &dir);
        options.program = bin.join("strake");
        options.bin_dir = bin;
        options.mesh = mesh;
        configure(&mut options);
        let lab = Lab::up(options, UP).await?;
        Ok(Self { lab, manifests: dir })
    }

    /// The lab.
    #[must_use]
    pub const fn lab(&self) -> &Lab {
        &self.lab
    }

    /// The directory of its manifests.
    #[must_use]
    pub fn manifests(&self) -> &Path {
        &self.manifests
    }

    /// Adds or replaces a manifest.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, file: &str, yaml: &str) -> Result<()> {
        let path = self.manifests.join(file);
        // Renamed into place, with an ending that the reader of manifests skips: it never sees half a file.
        let draft = path.with_extension("draft");
        fs::write(&draft, yaml)?;
        Ok(fs::rename(draft, path)?)
    }

    /// Removes a manifest.
    ///
    /// # Errors
    /// When there is none.
    pub fn remove(&self, file: &str) -> Result<()> {
        Ok(fs::remove_file(self.manifests.join(file))?)
    }

    /// Runs `strake` with arguments; its standard output.
    ///
    /// # Errors
    /// When it exits with anything but 0, with what it said.
    pub fn strake(&self, args: &[&str]) -> Result<String> {
        let output = Command::new(prerequisites::bin_dir().join("strake"))
            .args(args)
            .args(["--lab", self.lab.name()])
            .output()
            .context("strake does not start")?;
        if !output.status.success() {
            bail!("strake {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// A pod as the lab sees it.
    ///
    /// # Panics
    /// When there is none.
    pub async fn pod(&self, pod: &str) -> PodInfo {
        self.lab.pod(pod).await.unwrap_or_else(|err| panic!("{err}"))
    }

    /// Waits until the lab has a pod.
    ///
    /// # Panics
    /// When it does not come in time.
    pub async fn wait_pod(&self, pod: &str) {
        eventually(&format!("{pod} is there"), TAKES_EFFECT, async || self.lab.pod(pod).await.map(drop)).await;
    }

    /// Waits until the lab has a pod no more.
    ///
    /// # Panics
    /// When it does not go in time.
    pub async fn wait_gone(&self, pod: &str) {
        eventually(&format!("{pod} is gone"), TAKES_EFFECT, async || match self.lab.pod(pod).await {
            Ok(found) => Err(format!("{found:?}")),
            Err(_) => Ok(()),
        })
        .await;
    }

    /// A pod's address of a family.
    ///
    /// # Panics
    /// When it has none.
    pub async fn ip(&self, pod: &str, v6: bool) -> String {
        let info = self.pod(pod).await;
        let found = info.ips.iter().find(|ip| ip.is_ipv6() == v6);
        found.unwrap_or_else(|| panic!("{pod} has no such address: {:?}", info.ips)).to_string()
    }

    /// A container's output since the lab began.
    #[must_use]
    pub fn log(&self, pod: &str, container: &str) -> String {
        fs::read_to_string(self.lab.log(pod, container)).unwrap_or_default()
    }
}

/// A name no other test has at this time.
fn unique(name: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("t-{name}-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}
