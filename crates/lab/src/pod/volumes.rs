//! Volumes of a pod: which directory each of them is, and the files in those that Kubernetes fills. Where containers mount
//! them is in `mounts`.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::PermissionsExt as _,
    path::{Component, Path, PathBuf},
};

use kube_types::core::{DownwardApiFile, HostPathVolume, KeyToPath, Pod, ProjectedVolume, Volume};

use super::{
    catalogue::{Catalogue, Keys},
    facts::Facts,
};

/// Mode of a file when nothing is said.
const DEFAULT_MODE: u32 = 0o644;

/// Whoever the containers run as shares a scratch directory or claim, as kubelet has it.
const SHARED_MODE: u32 = 0o777;

/// Files of a volume: contents and mode by relative path.
type Files = BTreeMap<PathBuf, (Vec<u8>, u32)>;

/// Directories that volumes are made in.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    /// The pod's own.
    pub(crate) pod: PathBuf,
    /// Directory that pods of the node see as its file system.
    pub(crate) host: PathBuf,
    /// Claims of the pod's namespace.
    pub(crate) claims: PathBuf,
}

impl Places {
    /// The directory of a volume.
    ///
    /// # Errors
    /// When a lab cannot provide it.
    pub(crate) fn of(&self, volume: &Volume) -> Result<PathBuf, String> {
        if let Some(source) = volume.foreign() {
            return Err(format!("volume {:?}: {source} is not supported in the lab", volume.name));
        }
        match (&volume.persistent_volume_claim, &volume.host_path) {
            (Some(claim), _) => Ok(self.claims.join(&claim.claim_name)),
            (None, Some(path)) => Ok(self.host.join(relative(Path::new(path.path.trim_start_matches('/')))?)),
            (None, None) => Ok(self.pod.join("volumes").join(&volume.name)),
        }
    }
}

/// Returns true if kubelet fills the volume: containers cannot write into it.
pub(crate) const fn is_filled(volume: &Volume) -> bool {
    volume.config_map.is_some()
        || volume.secret.is_some()
        || volume.downward_api.is_some()
        || volume.projected.is_some()
}

/// Makes the pod's volumes and fills them. Files that are as they should be are not touched, so this also brings a
/// running pod up to date.
///
/// # Errors
/// The first volume that cannot be made, and why.
pub(crate) fn write(places: &Places, facts: &Facts<'_>, catalogue: &Catalogue) -> Result<(), String> {
    for volume in &facts.pod.spec.volumes {
        let of_volume = |reason: String| format!("volume {:?}: {reason}", volume.name);
        let target = places.of(volume)?;
        if let Some(claim) = &volume.persistent_volume_claim
            && !catalogue.has_claim(&facts.pod.metadata.namespace, &claim.claim_name)
        {
            return Err(of_volume(format!("PersistentVolumeClaim {:?} not found", claim.claim_name)));
        }
        if let Some(path) = &volume.host_path {
            make_host_path(&target, path).map_err(of_volume)?;
        } else if is_filled(volume) {
            let files = files(volume, facts, catalogue).map_err(of_volume)?;
            fill(&target, &files).map_err(|err| of_volume(err.to_string()))?;
        } else {
            make_shared(&target).map_err(|err| of_volume(err.to_string()))?;
        }
    }
    Ok(())
}

fn make_shared(target: &Path) -> io::Result<()> {
    // Its mode stays as it is: a program may have changed it.
    if target.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(target)?;
    fs::set_permissions(target, fs::Permissions::from_mode(SHARED_MODE))
}

/// A path of the node, which is a directory of the lab's own: nothing of this machine is behind it.
fn make_host_path(target: &Path, path: &HostPathVolume) -> Result<(), String> {
    let made = match path.r#type.as_deref().unwrap_or_default() {
        "" | "Directory" | "DirectoryOrCreate" => make_shared(target),
        "FileOrCreate" => {
            let parent = target.parent().map_or(Ok(()), fs::create_dir_all);
            parent.and_then(|()| fs::OpenOptions::new().create(true).append(true).open(target).map(drop))
        }
        other => {
            return Err(format!("hostPath {:?} of type {other} is not there: a lab's node has no files", path.path));
        }
    };
    made.map_err(|err| err.to_string())
}

/// Files that kubelet would put into the volume.
fn files(volume: &Volume, facts: &Facts<'_>, catalogue: &Catalogue) -> Result<Files, String> {
    let mut files = Files::new();
    if let Some(source) = &volume.config_map {
        let keys = lookup("ConfigMap", &source.name, source.optional, facts, catalogue)?;
        add_keys(&mut files, keys, &source.items, source.default_mode, source.optional)?;
    }
    if let Some(source) = &volume.secret {
        let keys = lookup("Secret", &source.secret_name, source.optional, facts, catalogue)?;
        add_keys(&mut files, keys, &source.items, source.default_mode, source.optional)?;
    }
    if let Some(source) = &volume.downward_api {
        add_downward(&mut files, &source.items, source.default_mode, facts)?;
    }
    if let Some(source) = &volume.projected {
        add_projected(&mut files, source, facts, catalogue)?;
    }
    Ok(files)
}

fn add_projected(
    files: &mut Files,
    volume: &ProjectedVolume,
    facts: &Facts<'_>,
    catalogue: &Catalogue,
) -> Result<(), String> {
    for source in &volume.sources {
        for (kind, keys) in [("ConfigMap", &source.config_map), ("Secret", &source.secret)] {
            if let Some(from) = keys {
                let keys = lookup(kind, &from.name, from.optional, facts, catalogue)?;
                add_keys(files, keys, &from.items, volume.default_mode, from.optional)?;
            }
        }
        if let Some(downward) = &source.downward_api {
            add_downward(files, &downward.items, volume.default_mode, facts)?;
        }
    }
    Ok(())
}

fn lookup<'a>(
    kind: &str,
    name: &str,
    optional: bool,
    facts: &Facts<'_>,
    catalogue: &'a Catalogue,
) -> Result<Keys<'a>, String> {
    let namespace = &facts.pod.metadata.namespace;
    let found =
        if kind == "Secret" { catalogue.secret(namespace, name) } else { catalogue.config_map(namespace, name) };
    match found {
        Some(keys) => keys.map_err(|reason| format!("{kind} {name:?}: {reason}")),
        None if optional => Ok(Keys::new()),
        None => Err(format!("{kind} {name:?} not found")),
    }
}

fn add_keys(
    files: &mut Files,
    keys: Keys<'_>,
    items: &[KeyToPath],
    mode: Option<u32>,
    optional: bool,
) -> Result<(), String> {
    let default = mode.unwrap_or(DEFAULT_MODE);
    if items.is_empty() {
        files.extend(keys.into_iter().map(|(key, value)| (key.into(), (value.into_owned(), default))));
        return Ok(());
    }
    for item in items {
        match keys.get(item.key.as_str()) {
            Some(value) => {
                let path = relative(Path::new(&item.path))?;
                files.insert(path, (value.clone().into_owned(), item.mode.unwrap_or(default)));
            }
            // `optional` is about the object and about its keys alike, as in Kubernetes.
            None if optional => {}
            None => return Err(format!("key {:?} not found", item.key)),
        }
    }
    Ok(())
}

fn add_downward(
    files: &mut Files,
    items: &[DownwardApiFile],
    mode: Option<u32>,
    facts: &Facts<'_>,
) -> Result<(), String> {
    for item in items {
        let text = match (&item.field_ref, &item.resource_field_ref) {
            (Some(field), _) => facts.field(&field.field_path)?,
            (None, Some(resource)) => facts.resource(resource, None)?,
            (None, None) => return Err(format!("{:?} has neither fieldRef nor resourceFieldRef", item.path)),
        };
        let mode = item.mode.or(mode).unwrap_or(DEFAULT_MODE);
        files.insert(relative(Path::new(&item.path))?, (text.into_bytes(), mode));
    }
    Ok(())
}

/// The path, when it stays below whatever it is joined to.
pub(crate) fn relative(path: &Path) -> Result<PathBuf, String> {
    let stays = path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    if stays { Ok(path.to_owned()) } else { Err(format!("{:?} leaves the volume", path.display().to_string())) }
}

/// Makes a directory hold these files and no others.
fn fill(target: &Path, files: &Files) -> io::Result<()> {
    fs::create_dir_all(target)?;
    // First, because a file that is no longer wanted may have the name of a directory that new files need.
    remove_others(target, Path::new(""), files)?;
    for (path, (text, mode)) in files {
        let path = target.join(path);
        if fs::read(&path).is_ok_and(|old| old == *text) {
            fs::set_permissions(&path, fs::Permissions::from_mode(*mode))?;
            continue;
        }
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        // Beside the volume, not in it: containers see whole files under their own names only.
        let temporary = target.with_extension("new");
        fs::write(&temporary, text)?;
        fs::set_permissions(&temporary, fs::Permissions::from_mode(*mode))?;
        fs::rename(&temporary, &path)?;
    }
    Ok(())
}

fn remove_others(target: &Path, below: &Path, files: &Files) -> io::Result<()> {
    for entry in fs::read_dir(target.join(below))? {
        let entry = entry?;
        let path = below.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            remove_others(target, &path, files)?;
        } else if !files.contains_key(&path) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Finds the pod's volume of that name.
pub(crate) fn find<'a>(pod: &'a Pod, name: &str) -> Option<&'a Volume> {
    pod.spec.volumes.iter().find(|volume| volume.name == name)
}

#[cfg(test)]
mod tests {
    use kube_types::Kind;
    use serde_json::{Value, json};

    use super::{super::catalogue::catalogue, *};

    struct Case {
        dir: tempfile::TempDir,
        objects: Vec<(Kind, Value)>,
    }

    impl Case {
        fn new(objects: &[(Kind, Value)]) -> Self {
            Self { dir: tempfile::tempdir().unwrap(), objects: objects.to_vec() }
        }

        fn write(&self, volume: Value) -> Result<PathBuf, String> {
            let root = self.dir.path();
            let places = Places { pod: root.join("pod"), host: root.join("host"), claims: root.join("claims") };
            let meta = json!({"name": "db-0", "namespace": "shop", "labels": {"app": "db"}});
            let limits = json!({"memory": "64Mi"});
            let pod: Pod = serde_json::from_value(json!({"metadata": meta, "spec": {
                "volumes": [volume], "containers": [{"name": "c", "resources": {"limits": limits}}]}}))
            .unwrap();
            let facts = Facts { pod: &pod, uid: "u", node: "n", ips: &[], host_ips: &[] };
            write(&places, &facts, &catalogue(&self.objects))?;
            places.of(&pod.spec.volumes[0])
        }
    }

    fn map(data: Value) -> (Kind, Value) {
        (Kind::ConfigMap, json!({"metadata": {"name": "m", "namespace": "shop"}, "data": data}))
    }

    fn read(dir: &Path, name: &str) -> String {
        fs::read_to_string(dir.join(name)).unwrap()
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn keys_become_files_and_changes_arrive() {
        let mut case = Case::new(&[]);
        let volume = || json!({"name": "v", "configMap": {"name": "m"}});

        for (data, absent) in [(json!({"a.txt": "one", "b": "1"}), "c"), (json!({"a.txt": "two", "c": "3"}), "b")] {
            case.objects = vec![map(data.clone())];
            let dir = case.write(volume()).unwrap();
            assert_eq!(read(&dir, "a.txt"), data["a.txt"].as_str().unwrap());
            assert!(!dir.join(absent).exists());
        }

        case.objects.clear();
        assert_eq!(case.write(volume()).unwrap_err(), "volume \"v\": ConfigMap \"m\" not found");
        case.write(json!({"name": "v", "configMap": {"name": "m", "optional": true}})).unwrap();
    }

    #[test]
    fn items_choose_keys_paths_and_modes() {
        let secret = json!({"metadata": {"name": "s", "namespace": "shop"}, "stringData": {"key": "k", "cert": "c"}});
        let case = Case::new(&[(Kind::Secret, secret)]);
        let items = json!([{"key": "key", "path": "tls/key.pem", "mode": 0o400}, {"key": "cert", "path": "cert.pem"}]);

        let dir = case
            .write(json!({"name": "v", "secret": {"secretName": "s", "defaultMode": 0o440, "items": items}}))
            .unwrap();

        assert_eq!((read(&dir, "tls/key.pem").as_str(), read(&dir, "cert.pem").as_str()), ("k", "c"));
        assert_eq!((mode(&dir.join("tls/key.pem")), mode(&dir.join("cert.pem"))), (0o400, 0o440));
        let missing = json!({"name": "v", "secret": {"secretName": "s", "items": [{"key": "none", "path": "x"}]}});
        assert_eq!(case.write(missing).unwrap_err(), "volume \"v\": key \"none\" not found");
    }

    #[test]
    fn a_projected_volume_has_the_files_of_all_its_sources() {
        let case = Case::new(&[map(json!({"one": "1"}))]);
        let downward = json!([
            {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
            {"path": "memory", "resourceFieldRef": {"containerName": "c", "resource": "limits.memory", "divisor": "1Mi"}}]);
        let sources = json!([{"configMap": {"name": "m"}}, {"downwardAPI": {"items": downward}},
            {"secret": {"name": "none", "optional": true}}]);

        let dir = case.write(json!({"name": "v", "projected": {"defaultMode": 0o444, "sources": sources}})).unwrap();

        assert_eq!(read(&dir, "one"), "1");
        assert_eq!(read(&dir, "labels"), "app=\"db\"\n");
        assert_eq!(read(&dir, "memory"), "64");
        assert_eq!(mode(&dir.join("one")), 0o444);
    }

    #[test]
    fn an_item_cannot_leave_its_volume() {
        let case = Case::new(&[map(json!({"a": "text"}))]);

        for path in ["../../x", "/etc/x", "a/../../x"] {
            let items = json!([{"key": "a", "path": path}]);
            assert!(case.write(json!({"name": "v", "configMap": {"name": "m", "items": items}})).is_err(), "{path}");
        }
    }

    #[test]
    fn a_host_path_is_a_directory_of_the_lab() {
        let case = Case::new(&[]);
        let volume = |path: &str, kind: &str| json!({"name": "v", "hostPath": {"path": path, "type": kind}});

        let dir = case.write(volume("/var/lib/x", "DirectoryOrCreate")).unwrap();
        let file = case.write(volume("/var/log/y", "FileOrCreate")).unwrap();

        assert!(dir.starts_with(case.dir.path()) && dir.is_dir());
        assert!(file.starts_with(case.dir.path()) && file.is_file());
        assert!(case.write(volume("/run/containerd.sock", "Socket")).unwrap_err().contains("of type Socket"));
        assert!(case.write(volume("/../../etc", "")).is_err());
    }

    #[test]
    fn a_claim_has_to_be_there_and_keeps_what_is_written() {
        let claim = json!({"metadata": {"name": "data", "namespace": "shop"}});
        let volume = || json!({"name": "v", "persistentVolumeClaim": {"claimName": "data"}});
        let mut case = Case::new(&[(Kind::PersistentVolumeClaim, claim)]);

        let dir = case.write(volume()).unwrap();
        fs::write(dir.join("file"), "kept").unwrap();
        assert_eq!(read(&case.write(volume()).unwrap(), "file"), "kept");

        case.objects.clear();
        assert_eq!(case.write(volume()).unwrap_err(), "volume \"v\": PersistentVolumeClaim \"data\" not found");
    }

    #[test]
    fn a_source_that_a_lab_does_not_have_is_named() {
        let said = Case::new(&[]).write(json!({"name": "v", "nfs": {"server": "x"}})).unwrap_err();

        assert_eq!(said, "volume \"v\": nfs is not supported in the lab");
    }
}
