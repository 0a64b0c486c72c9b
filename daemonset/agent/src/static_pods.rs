//! Static pods: the kubelet starts them from files and tells the API server of a mirror, which has another uid. It knows only
//! how to tell the two apart.

use contract::labels::{CONFIG_HASH_ANNOTATION, CONFIG_MIRROR_ANNOTATION};
use kube_types::core::Pod;

/// The uid in the name of the pod's cgroup.
pub fn cgroup_uid(pod: &Pod) -> &str {
    let annotations = &pod.metadata.annotations;
    let hash = annotations.get(CONFIG_HASH_ANNOTATION).filter(|_| annotations.contains_key(CONFIG_MIRROR_ANNOTATION));
    hash.unwrap_or(&pod.metadata.uid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cgroup_of_a_static_pod_has_the_uid_of_the_file_and_nobody_else_may_choose_one() {
        let mut pod = Pod::default();
        pod.metadata.uid = "api".to_owned();
        assert_eq!(cgroup_uid(&pod), "api");

        pod.metadata.annotations.insert(CONFIG_HASH_ANNOTATION.to_owned(), "file".to_owned());
        assert_eq!(cgroup_uid(&pod), "api", "an annotation that everybody may write");
        pod.metadata.annotations.insert(CONFIG_MIRROR_ANNOTATION.to_owned(), "file".to_owned());

        assert_eq!(cgroup_uid(&pod), "file");
    }
}
