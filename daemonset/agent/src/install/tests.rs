use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use clap::Parser as _;
use cni::KUBECONFIG_NAME;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::config::Config;

const CALICO: &str =
    "{ \"name\": \"k8s-pod-network\",\t\"cniVersion\": \"0.3.1\", \"plugins\": [{\"type\": \"calico\"}] }\n";
const OWN: &str = "00-strake.conflist";

/// Directories of a node.
struct Place {
    dir: TempDir,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["net.d", "bin"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        fs::write(dir.path().join("strake-cni"), b"program").unwrap();
        let place = Self { dir };
        place.write("10-calico.conflist", CALICO);
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("net.d").join(name)
    }

    /// Writes a configuration as a whole.
    fn write(&self, name: &str, text: &str) {
        let temporary = self.dir.path().join("writing");
        fs::write(&temporary, text).unwrap();
        fs::rename(&temporary, self.path(name)).unwrap();
    }

    fn read(&self, name: &str) -> Option<Value> {
        Some(serde_json::from_slice(&fs::read(self.path(name)).ok()?).expect("a whole file"))
    }

    fn installation(&self, flags: &[&str]) -> Installation {
        let dir = |name: &str| self.dir.path().join(name).display().to_string();
        let (net, bin, program) = (dir("net.d"), dir("bin"), dir("strake-cni"));
        let given = ["strake-agent", "--mounted-cni-net-dir", &net, "--cni-bin-dir", &bin, "--cni-plugin", &program];
        let config = Config::try_parse_from(given.iter().chain(flags)).unwrap();
        Installation::new(&config, true).unwrap()
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path("")).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn program_configuration_and_kubeconfig_are_installed_and_the_clusters_own_file_stays_as_it_is() {
    let place = Place::new();
    let installation = place.installation(&["--cni-agent-down", "refuse-all", "--exclude-namespaces", "a,b"]);
    installation.set_kubeconfig(b"{}".to_vec());

    let installed = installation.install().unwrap();

    assert_eq!((installed.name, installed.primary.as_str(), installed.written), (OWN, "10-calico.conflist", true));
    assert_eq!(fs::read_to_string(place.path("10-calico.conflist")).unwrap(), CALICO);
    let program = place.dir.path().join("bin/strake-cni");
    assert_eq!((fs::read(&program).unwrap(), mode(&program)), (b"program".to_vec(), 0o755));
    assert_eq!((mode(&place.path(OWN)), mode(&place.path(KUBECONFIG_NAME))), (0o600, 0o600));
    let plugin = &place.read(OWN).unwrap()["plugins"][1];
    assert_eq!(plugin["type"], "strake-cni");
    assert_eq!(plugin["agent_down"], "refuse-all");
    assert_eq!(plugin["exclude_namespaces"], json!(["a", "b"]));
    assert_eq!(plugin["kubeconfig"], "/etc/cni/net.d/strake-cni-kubeconfig");
    assert!(!installation.install().unwrap().written, "nothing to do");
}

#[test]
fn uninstalling_leaves_the_directory_as_it_was() {
    let place = Place::new();
    let installation = place.installation(&[]);
    installation.set_kubeconfig(b"{}".to_vec());
    installation.install().unwrap();

    installation.uninstall().unwrap();

    assert_eq!(place.names(), ["10-calico.conflist"]);
    assert_eq!(fs::read_to_string(place.path("10-calico.conflist")).unwrap(), CALICO);
    installation.uninstall().unwrap();
}

#[test]
fn a_configuration_that_is_half_written_changes_nothing_and_one_that_is_gone_takes_the_plugins_with_it() {
    let place = Place::new();
    let installation = place.installation(&[]);
    installation.install().unwrap();
    let before = place.read(OWN);

    place.write("10-calico.conflist", "{\"name\": \"k8s");
    assert!(matches!(installation.install(), Err(InstallError::None { .. })));
    assert_eq!(place.read(OWN), before);
    fs::remove_file(place.path("10-calico.conflist")).unwrap();
    let error = installation.install().unwrap_err();

    assert_eq!(error.result(), "CREATE_CNI_CONFIG_FAILURE");
    assert_eq!(place.names(), Vec::<String>::new());
}

#[test]
fn another_name_is_taken_where_the_first_one_does_not_sort_first() {
    let place = Place::new();
    let installation = place.installation(&[]);
    installation.install().unwrap();

    place.write("00-cilium.conflist", CALICO);
    installation.install().unwrap();

    assert_eq!(place.names(), ["0-strake.conflist", "00-cilium.conflist", "10-calico.conflist"]);
}

#[test]
fn what_cannot_be_read_or_copied_is_named_and_changes_nothing() {
    let place = Place::new();
    place.installation(&[]).install().unwrap();
    let missing = place.installation(&["--cni-conf-name", "20-x.conflist"]);
    fs::remove_file(place.dir.path().join("strake-cni")).unwrap();

    let error = missing.install().unwrap_err();

    assert_eq!(error.result(), "COPY_BINARIES_FAILURE");
    assert!(error.to_string().contains("strake-cni"), "{error}");
    assert!(place.read(OWN).is_some(), "the configuration is looked at when the program is there");
}

/// Waits, in real time, for what the kernel's notifications bring about.
async fn until(what: &str, reached: impl Fn() -> bool) {
    let waiting = async {
        while !reached() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), waiting).await.unwrap_or_else(|_| panic!("{what}"));
}

#[tokio::test]
async fn the_plugin_is_put_back_whatever_others_do_to_the_directory() {
    let place = Place::new();
    let (state, installed) = watch::channel(State::default());
    let installer = Installer::start(place.installation(&[]), None, state);
    until("installed", || *installed.borrow() == State::Installed).await;
    let types = |name: &str| {
        let list = place.read(name)?;
        Some(
            list["plugins"]
                .as_array()?
                .iter()
                .map(|plugin| plugin["type"].as_str().unwrap().to_owned())
                .collect::<Vec<_>>(),
        )
    };
    let is_chained = |first: &str| types(OWN).is_some_and(|types| types == [first, "strake-cni"]);
    assert!(is_chained("calico"));

    fs::rename(place.path(OWN), place.path("00-strake.conflist.cilium_bak")).unwrap();
    until("put back after a rename", || is_chained("calico")).await;
    fs::write(place.path(OWN), CALICO).unwrap();
    until("put back after a change", || is_chained("calico")).await;
    place.write("10-calico.conflist", &CALICO.replace("\"calico\"", "\"newer\""));
    until("made anew from the cluster's own", || is_chained("newer")).await;
    place.write("05-flannel.conf", r#"{"cniVersion": "1.0.0", "name": "n", "type": "flannel"}"#);
    until("made from the one that is first now", || is_chained("flannel")).await;
    fs::remove_file(place.dir.path().join("bin/strake-cni")).unwrap();
    until("the program is back", || place.dir.path().join("bin/strake-cni").exists()).await;

    installer.stop().await;
    fs::remove_file(place.path(OWN)).unwrap();
    assert!(!place.path(OWN).exists(), "nobody puts it back any more");
}

#[tokio::test]
async fn the_state_says_what_is_missing_until_it_is_there() {
    let place = Place::new();
    fs::remove_file(place.path("10-calico.conflist")).unwrap();
    let (state, mut installed) = watch::channel(State::default());
    let installer = Installer::start(place.installation(&[]), None, state);

    let failed = installed.wait_for(|state| *state != State::Pending).await.unwrap().clone();
    let State::Failed { reason } = failed else { panic!("{failed:?}") };
    assert!(reason.contains("no CNI configuration"), "{reason}");
    place.write("10-calico.conflist", CALICO);
    until("installed", || *installed.borrow() == State::Installed).await;

    installer.stop().await;
}
