//! Files that a pod finds in its mount namespace: `resolv.conf`, `hosts`, ConfigMaps, scratch directories. They lie in the
//! lab's run directory and are bound over the machine's.

use std::{
    fs, io,
    net::IpAddr,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use kube_api::core::{ConfigMap, ConfigMapVolume, Container, Pod, Volume};

use crate::{addresses::dns, dns::DOMAIN, process::enter::Bind};

/// Mode of a ConfigMap's file when nothing is said.
const DEFAULT_MODE: u32 = 0o644;

/// The name that a pod calls itself: `spec.hostname`, else the pod's.
pub(crate) fn hostname(pod: &Pod) -> &str {
    pod.spec.hostname.as_deref().unwrap_or(&pod.metadata.name)
}

/// Writes the files that every pod has.
pub(crate) fn write_common(dir: &Path, pod: &Pod, ips: &[IpAddr]) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    fs::write(dir.join("resolv.conf"), resolv_conf(&pod.metadata.namespace))?;
    fs::write(dir.join("hosts"), hosts(pod, ips))
}

fn resolv_conf(namespace: &str) -> String {
    let dns = dns();
    format!(
        "nameserver {}\nnameserver {}\nsearch {namespace}.svc.{DOMAIN} svc.{DOMAIN} {DOMAIN}\noptions ndots:5\n",
        dns.v4, dns.v6
    )
}

fn hosts(pod: &Pod, ips: &[IpAddr]) -> String {
    let mut text = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n".to_owned();
    let name = hostname(pod);
    for ip in ips {
        let full = pod.spec.subdomain.as_deref();
        let full = full.map(|sub| format!("{name}.{sub}.{}.svc.{DOMAIN}\t", pod.metadata.namespace));
        text.push_str(&format!("{ip}\t{}{name}\n", full.unwrap_or_default()));
    }
    text
}

/// Writes the pod's volumes; `config_map` looks a ConfigMap up by name. Files that are as they
/// should be are not touched, so this also brings a running pod up to date.
pub(crate) fn write_volumes<'a>(
    dir: &Path,
    pod: &Pod,
    config_map: impl Fn(&str) -> Option<&'a ConfigMap>,
) -> io::Result<()> {
    for volume in &pod.spec.volumes {
        let target = volume_dir(dir, &volume.name);
        fs::create_dir_all(&target)?;
        if volume.empty_dir.is_some() {
            // Whoever the containers run as shares it, as kubelet has it.
            fs::set_permissions(&target, fs::Permissions::from_mode(0o777))?;
        }
        if let Some(source) = &volume.config_map {
            match config_map(&source.name) {
                Some(map) => write_config_map(&target, source, map)?,
                None if source.optional => {}
                None => {
                    let message = format!("there is no ConfigMap {:?}", source.name);
                    return Err(io::Error::new(io::ErrorKind::NotFound, message));
                }
            }
        }
    }
    Ok(())
}

fn write_config_map(target: &Path, source: &ConfigMapVolume, map: &ConfigMap) -> io::Result<()> {
    let default = source.default_mode.unwrap_or(DEFAULT_MODE);
    let chosen: Vec<(PathBuf, &String, u32)> = if source.items.is_empty() {
        map.data.iter().map(|(key, text)| (target.join(key), text, default)).collect()
    } else {
        let item = |item: &'_ kube_api::core::KeyToPath| {
            Some((target.join(&item.path), map.data.get(&item.key)?, item.mode.unwrap_or(default)))
        };
        source.items.iter().filter_map(item).collect()
    };
    for (path, text, mode) in chosen {
        if !path.starts_with(target) || path.components().any(|part| part.as_os_str() == "..") {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{} leaves the volume", path.display())));
        }
        if fs::read_to_string(&path).is_ok_and(|old| old == *text) {
            continue;
        }
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        let temporary = path.with_extension("strake-new");
        fs::write(&temporary, text)?;
        fs::set_permissions(&temporary, fs::Permissions::from_mode(mode))?;
        fs::rename(&temporary, &path)?;
    }
    Ok(())
}

fn volume_dir(dir: &Path, name: &str) -> PathBuf {
    dir.join("volumes").join(name)
}

/// Whether containers can mount it. An optional Secret is one that is not there: an empty directory.
fn is_played(volume: &Volume) -> bool {
    let optional = volume.secret.as_ref().is_some_and(|secret| secret.optional);
    volume.config_map.is_some() || volume.empty_dir.is_some() || optional
}

/// What is bound over the machine's files for one container.
///
/// # Errors
/// When a mount names a volume that is not there or of a kind that is not known.
pub(crate) fn binds(dir: &Path, pod: &Pod, container: &Container) -> io::Result<Vec<Bind>> {
    let file = |name: &str, target: &str| Bind { source: dir.join(name), target: target.into(), read_only: false };
    let mut binds = vec![file("resolv.conf", "/etc/resolv.conf"), file("hosts", "/etc/hosts")];
    for mount in &container.volume_mounts {
        let known = |volume: &&Volume| volume.name == mount.name && is_played(volume);
        let Some(volume) = pod.spec.volumes.iter().find(known) else {
            let message = format!(
                "volume {:?} is neither a configMap nor an emptyDir of this pod: a lab has no others",
                mount.name
            );
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        };
        let whole = volume_dir(dir, &volume.name);
        let source = mount.sub_path.as_ref().map_or(whole.clone(), |path| whole.join(path));
        let read_only = mount.read_only || volume.config_map.is_some();
        binds.push(Bind { source, target: PathBuf::from(&mount.mount_path), read_only });
    }
    Ok(binds)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(spec: serde_json::Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "db-0", "namespace": "shop"}, "spec": spec})).unwrap()
    }

    #[test]
    fn a_pod_searches_its_namespace_first() {
        assert!(resolv_conf("shop").contains("search shop.svc.cluster.local svc.cluster.local cluster.local\n"));
        assert!(resolv_conf("shop").starts_with("nameserver 10.96.0.10\nnameserver fd00:10:96::a\n"));
    }

    #[test]
    fn a_pod_of_a_stateful_set_knows_its_whole_name() {
        let pod = pod(json!({"hostname": "db-0", "subdomain": "db", "containers": []}));

        let text = hosts(&pod, &["10.244.1.2".parse().unwrap()]);

        assert!(text.ends_with("10.244.1.2\tdb-0.db.shop.svc.cluster.local\tdb-0\n"));
    }

    #[test]
    fn keys_become_files_and_changes_arrive() {
        let dir = tempfile::tempdir().unwrap();
        let pod = pod(json!({"containers": [], "volumes": [{"name": "v", "configMap": {"name": "m"}}]}));
        let map = |text: &str| -> ConfigMap {
            serde_json::from_value(json!({"metadata": {"name": "m"}, "data": {"a.txt": text}})).unwrap()
        };

        for text in ["one", "two"] {
            let map = map(text);
            write_volumes(dir.path(), &pod, |_| Some(&map)).unwrap();
            assert_eq!(fs::read_to_string(dir.path().join("volumes/v/a.txt")).unwrap(), text);
        }

        let missing = write_volumes(dir.path(), &pod, |_| None).unwrap_err();
        assert_eq!(missing.to_string(), "there is no ConfigMap \"m\"");
    }

    #[test]
    fn a_secret_is_mounted_empty_when_it_is_optional_and_refused_when_not() {
        let dir = tempfile::tempdir().unwrap();
        let binds = |optional: bool| {
            let volume = json!({"name": "v", "secret": {"secretName": "s", "optional": optional}});
            let container = json!({"name": "c", "volumeMounts": [{"name": "v", "mountPath": "/keys"}]});
            let pod = pod(json!({"containers": [container], "volumes": [volume]}));
            binds(dir.path(), &pod, &pod.spec.containers[0])
        };

        assert_eq!(binds(true).unwrap().len(), 3);
        assert!(binds(false).unwrap_err().to_string().contains("volume \"v\""));
    }

    #[test]
    fn an_item_cannot_leave_its_volume() {
        let dir = tempfile::tempdir().unwrap();
        let volume = json!({"name": "v", "configMap": {"name": "m", "items": [{"key": "a", "path": "../../x"}]}});
        let pod = pod(json!({"containers": [], "volumes": [volume]}));
        let map: ConfigMap = serde_json::from_value(json!({"data": {"a": "text"}})).unwrap();

        assert!(write_volumes(dir.path(), &pod, |_| Some(&map)).is_err());
    }
}
