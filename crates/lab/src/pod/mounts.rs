//! Files and directories that are bound over the machine's for one container. The binds themselves are made by `process::enter`.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use kube_types::core::{Container, Pod, VolumeMount};

use super::{
    environment::{Environment, expand},
    volumes::{self, Places, relative},
};
use crate::process::enter::Bind;

/// The binds of a container: what every pod has, then its `volumeMounts`.
///
/// # Errors
/// When a mount names a volume or a path that is not there.
pub(crate) fn binds(places: &Places, pod: &Pod, container: &Container, env: &Environment) -> Result<Vec<Bind>, String> {
    let file =
        |name: &str, target: &str| Bind { source: places.pod.join(name), target: target.into(), read_only: false };
    let mut binds = vec![file("resolv.conf", "/etc/resolv.conf"), file("hosts", "/etc/hosts")];
    for mount in &container.volume_mounts {
        binds.push(bind(places, pod, mount, env).map_err(|reason| format!("mount {}: {reason}", mount.mount_path))?);
    }
    Ok(binds)
}

fn bind(places: &Places, pod: &Pod, mount: &VolumeMount, env: &Environment) -> Result<Bind, String> {
    let volume = volumes::find(pod, &mount.name).ok_or_else(|| format!("the pod has no volume {:?}", mount.name))?;
    let whole = places.of(volume)?;
    let source = match sub_path(mount, env)? {
        Some(path) => below(&whole, &path)?,
        None => whole,
    };
    let claim = volume.persistent_volume_claim.as_ref().is_some_and(|claim| claim.read_only);
    let read_only = mount.read_only || claim || volumes::is_filled(volume);
    Ok(Bind { source, target: PathBuf::from(&mount.mount_path), read_only })
}

fn sub_path(mount: &VolumeMount, env: &Environment) -> Result<Option<PathBuf>, String> {
    let text = match (&mount.sub_path, &mount.sub_path_expr) {
        (_, Some(expression)) if !expression.is_empty() => {
            let text = expand(expression, env);
            if text.contains("$(") {
                return Err(format!("subPathExpr {expression:?} has a variable that is not known"));
            }
            text
        }
        (Some(path), _) if !path.is_empty() => path.clone(),
        (_, _) => return Ok(None),
    };
    Ok(Some(relative(Path::new(&text)).map_err(|reason| format!("subPath {reason}"))?))
}

/// The path below a volume, made when nothing is there, as kubelet does. A link in the volume cannot lead out of it.
fn below(volume: &Path, path: &Path) -> Result<PathBuf, String> {
    let resolve = || -> io::Result<(PathBuf, PathBuf)> {
        let joined = volume.join(path);
        if fs::symlink_metadata(&joined).is_err() {
            fs::create_dir_all(&joined)?;
        }
        Ok((volume.canonicalize()?, joined.canonicalize()?))
    };
    let (volume, found) = resolve().map_err(|err| format!("subPath {}: {err}", path.display()))?;
    if found.starts_with(volume) { Ok(found) } else { Err(format!("subPath {} leaves the volume", path.display())) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(dir: &Path, volume: serde_json::Value, mount: serde_json::Value) -> Result<Bind, String> {
        let spec = json!({"volumes": [volume], "containers": [{"name": "c", "volumeMounts": [mount]}]});
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec})).unwrap();
        let places = Places { pod: dir.to_owned(), host: dir.join("host"), claims: dir.join("claims") };
        let env = vec![("NAME".to_owned(), "own".to_owned())];
        binds(&places, &pod, &pod.spec.containers[0], &env).map(|mut binds| binds.remove(2))
    }

    #[test]
    fn a_part_of_a_volume_is_mounted_and_made_when_it_is_not_there() {
        let dir = tempfile::tempdir().unwrap();
        let volume = || json!({"name": "v", "emptyDir": {}});

        let part = of(dir.path(), volume(), json!({"name": "v", "mountPath": "/x", "subPath": "a/b"})).unwrap();
        let named =
            of(dir.path(), volume(), json!({"name": "v", "mountPath": "/x", "subPathExpr": "$(NAME)"})).unwrap();

        assert!(part.source.ends_with("volumes/v/a/b") && part.source.is_dir());
        assert!(named.source.ends_with("volumes/v/own"));
        assert!(!part.read_only);
        for bad in [
            json!({"name": "v", "mountPath": "/x", "subPath": "../w"}),
            json!({"name": "v", "mountPath": "/x", "subPath": "/etc"}),
            json!({"name": "v", "mountPath": "/x", "subPathExpr": "$(OTHER)"}),
            json!({"name": "w", "mountPath": "/x"}),
        ] {
            assert!(of(dir.path(), volume(), bad.clone()).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_link_in_a_volume_cannot_lead_out_of_it() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("volumes/v")).unwrap();
        std::os::unix::fs::symlink("/etc", dir.path().join("volumes/v/out")).unwrap();

        let mount = json!({"name": "v", "mountPath": "/x", "subPath": "out"});
        let said = of(dir.path(), json!({"name": "v", "emptyDir": {}}), mount).unwrap_err();

        assert!(said.contains("leaves the volume"), "{said}");
    }

    #[test]
    fn what_kubernetes_fills_cannot_be_written() {
        let dir = tempfile::tempdir().unwrap();
        let mount = || json!({"name": "v", "mountPath": "/x"});

        for volume in [
            json!({"name": "v", "configMap": {"name": "m"}}),
            json!({"name": "v", "secret": {"secretName": "s"}}),
            json!({"name": "v", "downwardAPI": {}}),
            json!({"name": "v", "projected": {}}),
            json!({"name": "v", "persistentVolumeClaim": {"claimName": "c", "readOnly": true}}),
        ] {
            assert!(of(dir.path(), volume.clone(), mount()).unwrap().read_only, "{volume}");
        }
        assert!(!of(dir.path(), json!({"name": "v"}), mount()).unwrap().read_only);
    }
}
