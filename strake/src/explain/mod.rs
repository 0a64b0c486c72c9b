//! `strake explain FROM TO[:PORT]`: the way that a connection would take now and every decision on it, by the proxies' own code
//! on what they know at this moment. Nothing is sent.

mod client;
mod path;
mod render;
pub(crate) mod subject;
mod verdict;
pub(crate) mod world;

use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};

use crate::{
    check::CHECK_FAILED,
    mesh::{Mesh, PodFacts},
};
use client::Client;
use path::Explanation;
pub(crate) use path::endpoints;
use subject::{Destination, Subject};
use world::World;

/// Explains what would happen to a connection now: its way, who decides, by which policies, rule by rule
#[derive(Debug, Args)]
#[command(
    after_help = "FROM is a pod, or the IP address of a client outside of the mesh; TO is a Service, a pod or an IP address. Of a Service and a
pod of one name the Service is meant; pod/NAME and svc/NAME say which. PORT is that of the Service, or of the pod.

Examples:
  strake explain shop/cart shop/db               by the only port of Service shop/db
  strake explain -n shop pod/cart-0 svc/db:80
  strake explain 192.0.2.7 shop/db:80            a client outside of the mesh

Exit code: 0; 1 when the mesh cannot be asked or a name does not exist; 2 for a wrong command line; 3 with --check when the
connection would be refused, or when that cannot be told"
)]
pub(crate) struct Explain {
    /// The client
    from: Subject,
    /// The server, with its port
    #[arg(value_name = "TO[:PORT]")]
    to: Destination,
    /// Namespace of names without one
    #[arg(short, long, default_value = "default")]
    namespace: String,
    /// Form of the output; default: text
    #[arg(short, long, value_enum)]
    output: Option<Output>,
    /// Exit with 3 if the connection would be refused, or if that cannot be told
    #[arg(long)]
    check: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Json,
    Yaml,
}

impl Explain {
    pub(crate) async fn run(&self, mesh: &Mesh) -> Result<ExitCode> {
        let world = World::ask(mesh).await?;
        let pods = mesh.pods().await?;
        let client = self.client(&world, &pods)?;
        let explanation = Explanation::new(&world, &pods, &client, &self.to, &self.namespace)?;
        match self.output {
            Some(Output::Json) => println!("{}", serde_json::to_string_pretty(&explanation)?),
            Some(Output::Yaml) => print!("{}", serde_saphyr::to_string(&explanation)?),
            None => print!("{}", render::text(&explanation)),
        }
        let failed = self.check && !explanation.is_allowed();
        Ok(if failed { ExitCode::from(CHECK_FAILED) } else { ExitCode::SUCCESS })
    }

    fn client(&self, world: &World, pods: &[PodFacts]) -> Result<Client> {
        match &self.from {
            Subject::Address(address) => Ok(Client::outside(*address)),
            Subject::Service(_) => bail!("a Service opens no connections: expected a pod or an IP address"),
            Subject::Pod(name) | Subject::Either(name) => {
                let (namespace, name) = name.within(&self.namespace);
                Client::of_pod(world, pod(pods, namespace, name)?)
            }
        }
    }
}

/// The pod of a name.
///
/// # Errors
/// When there is none, with those that are called alike.
pub(crate) fn pod<'a>(pods: &'a [PodFacts], namespace: &str, name: &str) -> Result<&'a PodFacts> {
    if let Some(pod) = pods.iter().find(|pod| pod.namespace == namespace && pod.name == name) {
        return Ok(pod);
    }
    let alike =
        pods.iter().filter(|pod| pod.name == name || (pod.namespace == namespace && pod.name.starts_with(name)));
    let alike: Vec<_> = alike.map(|pod| format!("{}/{}", pod.namespace, pod.name)).collect();
    match alike.as_slice() {
        [] => bail!("pod {namespace}/{name} not found"),
        alike => bail!("pod {namespace}/{name} not found; there is {}", alike.join(", ")),
    }
}

#[cfg(test)]
mod tests;
