//! `strake get routes`: routes of waypoints in the order in which requests try them, and where each comes from.

use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Args;
use contract::admin::control::Route;
use serde::Serialize;

use super::{
    listing::{self, Item, Listing, Options},
    table::or_dash,
};
use crate::mesh::Mesh;

/// Lists routes of waypoints in order of precedence, and their origins
#[derive(Debug, Args)]
pub(crate) struct Routes {
    #[command(flatten)]
    options: Options,
}

/// A route of a service port.
#[derive(Debug, Serialize)]
#[serde(transparent)]
struct Row(Route);

impl Routes {
    pub(crate) async fn run(&self, mesh: &Mesh) -> Result<ExitCode> {
        let options = &self.options;
        if options.node.is_some() {
            bail!("--node has no meaning for routes: waypoints have them, and not the proxies of nodes");
        }
        let list = async || Ok(rows(options, mesh.routes().await?));
        let first = list().await?;
        options.reject_unknown(&first, |row| row.service().1)?;
        listing::show(first, options.output, options.watch, list).await
    }
}

fn rows(options: &Options, routes: Vec<Route>) -> Listing<Row> {
    let scope = options.scope(Some("default"));
    let wanted = |row: &Row| {
        let (namespace, name, host) = row.parts();
        scope.is_none_or(|wanted| namespace == wanted)
            && (options.names.is_empty() || options.names.iter().any(|wanted| wanted == name || wanted == host))
    };
    Listing::of(routes.into_iter().map(Row).filter(wanted).collect())
}

impl Row {
    /// Namespace, short name and host name of the service.
    fn parts(&self) -> (&str, &str, &str) {
        let (namespace, host) = self.0.service.split_once('/').unwrap_or(("", &self.0.service));
        // Of a Service the name that users know; of an entry the whole host.
        let name = host.split_once(".svc.").and_then(|(name, _)| name.strip_suffix(namespace)?.strip_suffix('.'));
        (namespace, name.unwrap_or(host), host)
    }

    fn service(&self) -> (&str, &str) {
        let (namespace, name, _) = self.parts();
        (namespace, name)
    }
}

impl Item for Row {
    const KIND: &'static str = "routes";
    const HEADER: &'static [&'static str] = &["NAMESPACE", "SERVICE", "PORT", "ORDER", "MATCH", "ACTION", "FROM"];
    const WIDE: &'static [&'static str] = &["PROTOCOL", "CLIENTS", "WAYPOINT"];

    fn key(&self) -> String {
        let Route { gateway, service, port, clients, order, .. } = &self.0;
        format!("{gateway} {service}:{port} {} {order}", clients.as_deref().unwrap_or_default())
    }

    fn cells(&self) -> Vec<String> {
        let (namespace, name) = self.service();
        let Route { port, order, r#match, action, from, .. } = &self.0;
        vec![
            namespace.to_owned(),
            name.to_owned(),
            port.to_string(),
            order.to_string(),
            r#match.clone(),
            action.clone(),
            from.clone(),
        ]
    }

    fn wide_cells(&self) -> Vec<String> {
        let Route { protocol, clients, gateway, .. } = &self.0;
        vec![protocol.clone(), or_dash(clients.as_deref().unwrap_or_default()), gateway.clone()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::get::testing;

    fn route(service: &str, order: usize, r#match: &str, from: &str) -> Route {
        Route {
            gateway: "shop/waypoint".to_owned(),
            service: service.to_owned(),
            port: 80,
            protocol: "HTTP".to_owned(),
            clients: None,
            order,
            r#match: r#match.to_owned(),
            action: "web.shop.svc.cluster.local:80".to_owned(),
            from: from.to_owned(),
        }
    }

    #[test]
    fn routes_are_in_order_with_their_origin() {
        let web = "shop/web.shop.svc.cluster.local";
        let routes = || {
            vec![
                route(web, 1, "/v2*", "VirtualService shop/canary spec.http[0].match[0]"),
                route(web, 2, "any", "VirtualService shop/canary spec.http[1]"),
                route("shop/api.example", 1, "any", "default"),
                route("other/web.other.svc.cluster.local", 1, "any", "default"),
            ]
        };

        let listing = rows(&testing::options(&["-n", "shop"]), routes());
        insta::assert_snapshot!(listing::render(&listing, listing::Format::Wide).unwrap(), @r"
        NAMESPACE   SERVICE       PORT   ORDER   MATCH   ACTION                          FROM                                               PROTOCOL   CLIENTS   WAYPOINT
        shop        web           80     1       /v2*    web.shop.svc.cluster.local:80   VirtualService shop/canary spec.http[0].match[0]   HTTP       -         shop/waypoint
        shop        web           80     2       any     web.shop.svc.cluster.local:80   VirtualService shop/canary spec.http[1]            HTTP       -         shop/waypoint
        shop        api.example   80     1       any     web.shop.svc.cluster.local:80   default                                            HTTP       -         shop/waypoint
        ");

        let named = |name: &str| rows(&testing::options(&["-n", "shop", name]), routes()).items.len();
        assert_eq!((named("web"), named("web.shop.svc.cluster.local"), named("api.example")), (2, 2, 1));
    }
}
