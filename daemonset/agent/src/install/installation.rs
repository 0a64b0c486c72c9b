//! One look at the files of the installation, and what it takes to make them right.

use std::io;
use std::path::{Path, PathBuf};

use cni::conflist::{self, Invalid, NoConfiguration, OWN_NAMES};
use cni::{KUBECONFIG_NAME, PLUGIN_TYPE, PluginConfig};
use parking_lot::Mutex;

use super::files;
use crate::config::Config;

/// Modes of the files. The kubeconfig has a token; configurations are root's, as security benchmarks ask for.
const PROGRAM_MODE: u32 = 0o755;
const FILE_MODE: u32 = 0o600;

/// Name of the plugin's log, in the run directory.
const LOG_NAME: &str = "strake-cni.log";

/// Files of the plugin on a node.
pub struct Installation {
    /// Directory of the node's configurations.
    net_dir: PathBuf,
    /// Directory of the node's plugins.
    bin_dir: PathBuf,
    program: PathBuf,
    conf_name: Option<String>,
    plugin: PluginConfig,
    /// Text of the plugin's kubeconfig, once there is one.
    kubeconfig: Mutex<Option<Vec<u8>>>,
}

/// Result of a look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installed {
    /// Name of the configuration with the plugin.
    pub name: &'static str,
    /// Name of the cluster's own, which it is made from.
    pub primary: String,
    /// It was not there, or differed.
    pub written: bool,
    pub skipped: Vec<(String, Invalid)>,
}

/// Reason why the plugin is not installed.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    #[error("failed to copy {} to {}: {source}", .from.display(), .to.display())]
    Program { from: PathBuf, to: PathBuf, source: io::Error },
    #[error("failed to write {}: {source}", .path.display())]
    Kubeconfig { path: PathBuf, source: io::Error },
    #[error("failed to {action} {}: {source}", .path.display())]
    Configuration { action: &'static str, path: PathBuf, source: io::Error },
    #[error("{}: {source}", .directory.display())]
    None { directory: PathBuf, source: NoConfiguration },
}

impl InstallError {
    /// Value of the label `result`. Istio's.
    pub const fn result(&self) -> &'static str {
        match self {
            Self::Program { .. } => "COPY_BINARIES_FAILURE",
            Self::Kubeconfig { .. } => "CREATE_KUBECONFIG_FAILURE",
            Self::Configuration { .. } | Self::None { .. } => "CREATE_CNI_CONFIG_FAILURE",
        }
    }
}

impl Installation {
    /// The installation that the flags ask for, if any. `has_api`: the plugin gets a kubeconfig.
    pub fn new(config: &Config, has_api: bool) -> Option<Self> {
        let flags = &config.plugin;
        let plugin = PluginConfig {
            r#type: PLUGIN_TYPE.to_owned(),
            cni_agent_run_dir: config.cni_agent_run_dir.clone(),
            agent_down: flags.cni_agent_down,
            kubeconfig: has_api.then(|| flags.cni_net_dir.join(KUBECONFIG_NAME)),
            exclude_namespaces: config.exclude_namespaces.clone(),
            pod_namespace: config.system_namespace.clone(),
            log_file: Some(config.cni_agent_run_dir.join(LOG_NAME)),
        };
        Some(Self {
            net_dir: flags.mounted_cni_net_dir.clone()?,
            bin_dir: flags.cni_bin_dir.clone(),
            program: flags.cni_plugin.clone(),
            conf_name: flags.cni_conf_name.clone(),
            plugin,
            kubeconfig: Mutex::new(None),
        })
    }

    /// Directories in which others may change something.
    pub(super) fn directories(&self) -> [&Path; 2] {
        [&self.net_dir, &self.bin_dir]
    }

    /// Namespace of agent and node proxies.
    pub(super) fn namespace(&self) -> &str {
        &self.plugin.pod_namespace
    }

    /// Gives the plugin another kubeconfig, at the next look.
    pub(super) fn set_kubeconfig(&self, text: Vec<u8>) {
        *self.kubeconfig.lock() = Some(text);
    }

    /// Makes every file what it has to be. The configuration comes last: nothing names a program that is not there.
    ///
    /// # Errors
    /// All of [`InstallError`]. What is there stays, unless the cluster's own configuration is gone: then the node has no
    /// network, and the plugin's configuration goes as well.
    pub fn install(&self) -> Result<Installed, InstallError> {
        self.copy_program()?;
        if let Some(text) = self.kubeconfig.lock().as_deref() {
            let path = self.net_dir.join(KUBECONFIG_NAME);
            files::replace(&path, text, FILE_MODE).map_err(|source| InstallError::Kubeconfig { path, source })?;
        }
        let found = files::configurations(&self.net_dir);
        let found = found.map_err(|source| self.failed("read", &self.net_dir, source))?;
        let chained = match conflist::chain(found, self.conf_name.as_deref(), &self.plugin) {
            Ok(chained) => chained,
            Err(source) => {
                let is_gone = match &source {
                    NoConfiguration::None(invalid) => invalid.is_empty(),
                    NoConfiguration::Unnamed(_) => true,
                    // Somebody may be writing it.
                    NoConfiguration::Unusable(..) | NoConfiguration::Order(_) => false,
                };
                if is_gone {
                    self.remove_configurations("")?;
                }
                return Err(InstallError::None { directory: self.net_dir.clone(), source });
            }
        };
        let path = self.net_dir.join(chained.name);
        let written = files::replace(&path, &chained.bytes, FILE_MODE);
        let written = written.map_err(|source| self.failed("write", &path, source))?;
        self.remove_configurations(chained.name)?;
        Ok(Installed { name: chained.name, primary: chained.primary, written, skipped: chained.skipped })
    }

    fn copy_program(&self) -> Result<(), InstallError> {
        let to = self.bin_dir.join(PLUGIN_TYPE);
        let copied = std::fs::read(&self.program).and_then(|bytes| files::replace(&to, &bytes, PROGRAM_MODE));
        copied.map(drop).map_err(|source| InstallError::Program { from: self.program.clone(), to, source })
    }

    /// Removes configurations with the plugin, but the one of this name.
    fn remove_configurations(&self, kept: &str) -> Result<(), InstallError> {
        for name in OWN_NAMES.into_iter().filter(|name| *name != kept) {
            let path = self.net_dir.join(name);
            files::remove(&path).map_err(|source| self.failed("remove", &path, source))?;
        }
        Ok(())
    }

    /// Removes configuration and kubeconfig: pods start without asking from here on. The cluster's own configuration is as it
    /// always was. The program stays: container runtimes that keep the configuration of running pods call it for their end.
    ///
    /// # Errors
    /// When a file cannot be removed.
    pub fn uninstall(&self) -> Result<(), InstallError> {
        self.remove_configurations("")?;
        let path = self.net_dir.join(KUBECONFIG_NAME);
        files::remove(&path).map(drop).map_err(|source| self.failed("remove", &path, source))
    }

    fn failed(&self, action: &'static str, path: &Path, source: io::Error) -> InstallError {
        InstallError::Configuration { action, path: path.to_owned(), source }
    }
}

impl std::fmt::Debug for Installation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Not the kubeconfig.
        f.debug_struct("Installation")
            .field("net_dir", &self.net_dir)
            .field("bin_dir", &self.bin_dir)
            .finish_non_exhaustive()
    }
}
