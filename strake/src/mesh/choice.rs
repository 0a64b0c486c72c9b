//! The choice of the mesh: as the command line says, else a lab that runs, else the cluster of the kubeconfig.

use std::env;

use anyhow::{Context as _, Result, bail};

use super::{ClusterMesh, LabMesh, Mesh};
use crate::{
    cluster::Cluster,
    target::{DEFAULT, Target, VARIABLE},
};

/// The options of the command line that name a mesh.
#[derive(Debug, Clone, Default)]
pub(crate) struct Choice {
    /// `--lab`.
    pub(crate) lab: Option<String>,
    /// `--kubeconfig` and `--context`.
    pub(crate) cluster: Cluster,
    /// Called as a plugin of kubectl: without an option it is kubectl's cluster that is meant.
    pub(crate) is_plugin: bool,
}

/// A mesh that is chosen, not yet connected to.
#[derive(Debug, PartialEq, Eq)]
enum Chosen {
    Lab(String),
    Cluster,
}

/// A lab or a cluster, not yet connected to.
#[derive(Debug)]
pub(crate) enum Place {
    Lab(Target),
    Cluster(Cluster),
}

impl Choice {
    /// Connects to the mesh.
    ///
    /// # Errors
    /// When there is none, with what was tried.
    pub(crate) async fn connect(&self) -> Result<Mesh> {
        let labs = lab::names().unwrap_or_default();
        match self.chosen(env::var(VARIABLE).ok().as_deref(), &labs)? {
            Chosen::Lab(name) => Ok(Mesh::Lab(LabMesh::attach(Target { lab: name }).await?)),
            Chosen::Cluster => {
                let tried = || match self.cluster.is_named() || self.is_plugin {
                    true => "no cluster to ask".to_owned(),
                    false => {
                        "no lab is running, and no cluster to ask; choose one with --lab, --kubeconfig or --context"
                            .to_owned()
                    }
                };
                Ok(Mesh::Cluster(ClusterMesh::connect(&self.cluster).await.with_context(tried)?))
            }
        }
    }

    /// The mesh that is chosen. Nothing is asked of it yet.
    ///
    /// # Errors
    /// When several labs run and none is named.
    pub(crate) fn place(&self) -> Result<Place> {
        let labs = lab::names().unwrap_or_default();
        Ok(match self.chosen(env::var(VARIABLE).ok().as_deref(), &labs)? {
            Chosen::Lab(lab) => Place::Lab(Target { lab }),
            Chosen::Cluster => Place::Cluster(self.cluster.clone()),
        })
    }

    /// The cluster, for commands that have no lab.
    ///
    /// # Errors
    /// When a lab is named.
    pub(crate) fn only_cluster(self) -> Result<Cluster> {
        match self.lab {
            Some(lab) => {
                bail!("--lab {lab}: expected a cluster (--kubeconfig, --context); this command is not for labs")
            }
            None => Ok(self.cluster),
        }
    }

    /// The lab, for commands that have no cluster.
    ///
    /// # Errors
    /// When a cluster is named.
    pub(crate) fn only_lab(&self) -> Result<Target> {
        if self.cluster.is_named() {
            bail!(
                "--kubeconfig and --context name a cluster: expected a lab (--lab); this command is not for clusters"
            );
        }
        Ok(Target::new(self.lab.clone()))
    }

    fn chosen(&self, variable: Option<&str>, running: &[String]) -> Result<Chosen> {
        if let Some(lab) = &self.lab {
            return Ok(Chosen::Lab(lab.clone()));
        }
        if self.cluster.is_named() || self.is_plugin {
            return Ok(Chosen::Cluster);
        }
        if let Some(lab) = variable.filter(|lab| !lab.is_empty()) {
            return Ok(Chosen::Lab(lab.to_owned()));
        }
        match running {
            [] => Ok(Chosen::Cluster),
            [only] => Ok(Chosen::Lab(only.clone())),
            several if several.iter().any(|name| name == DEFAULT) => Ok(Chosen::Lab(DEFAULT.to_owned())),
            several => bail!(
                "several labs are running: {}; choose one with --lab, or a cluster with --kubeconfig or --context",
                several.join(", ")
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lab(name: &str) -> Chosen {
        Chosen::Lab(name.to_owned())
    }

    #[test]
    fn an_option_comes_before_the_variable_and_a_running_lab_before_the_cluster() {
        let labs = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let none = Choice::default();
        let named = Choice { lab: Some("a".to_owned()), ..Choice::default() };
        let cluster = Choice { cluster: Cluster::of_context("kind"), ..Choice::default() };
        let plugin = Choice { is_plugin: true, ..Choice::default() };

        assert_eq!(named.chosen(Some("b"), &labs(&["c"])).unwrap(), lab("a"));
        assert_eq!(cluster.chosen(Some("b"), &labs(&["c"])).unwrap(), Chosen::Cluster);
        assert_eq!(plugin.chosen(Some("b"), &labs(&["c"])).unwrap(), Chosen::Cluster);
        assert_eq!(none.chosen(Some("b"), &labs(&["c"])).unwrap(), lab("b"));
        assert_eq!(none.chosen(Some(""), &labs(&["c"])).unwrap(), lab("c"));
        assert_eq!(none.chosen(None, &labs(&["c", "default"])).unwrap(), lab("default"));
        assert_eq!(none.chosen(None, &[]).unwrap(), Chosen::Cluster);
    }

    #[test]
    fn of_several_labs_one_has_to_be_named() {
        let error = Choice::default().chosen(None, &["a".to_owned(), "b".to_owned()]).unwrap_err();

        assert!(error.to_string().starts_with("several labs are running: a, b; choose"), "{error}");
    }

    #[test]
    fn a_command_of_the_other_target_is_refused() {
        let (lab, cluster) = (
            Choice { lab: Some("a".to_owned()), ..Choice::default() },
            Choice { cluster: Cluster::of_context("kind"), ..Choice::default() },
        );

        assert!(lab.clone().only_lab().is_ok() && cluster.clone().only_cluster().is_ok());
        assert!(cluster.only_lab().unwrap_err().to_string().contains("--lab"));
        assert!(lab.only_cluster().unwrap_err().to_string().contains("--kubeconfig"));
    }
}
