//! Pods and Services for tests of this crate and of those that build on it.

use std::sync::Arc;

use kube_types::Resource;
use kube_types::core::{Pod, Service};

/// The pod `app/p<name>` of the application number `app`, with an address of its own.
#[must_use]
pub fn pod(name: usize, app: usize) -> Resource {
    let mut pod = Pod::default();
    pod.metadata.name = format!("p{name}");
    pod.metadata.namespace = "app".to_owned();
    pod.metadata.labels.insert("app".to_owned(), format!("a{app}"));
    pod.status.pod_ip = Some(format!("10.0.{}.{}", name / 256, name % 256));
    Resource::Pod(Arc::new(pod))
}

/// The Service `app/s<app>`, which selects the pods of an application.
#[must_use]
pub fn service(app: usize) -> Resource {
    let mut service = Service::default();
    service.metadata.name = format!("s{app}");
    service.metadata.namespace = "app".to_owned();
    service.spec.selector.insert("app".to_owned(), format!("a{app}"));
    Resource::Service(Arc::new(service))
}
