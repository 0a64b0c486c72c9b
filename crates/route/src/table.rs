//! The routes of one service port in order of precedence. The first one whose conditions a request meets decides.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use crate::action::Rule;
use crate::condition::Conditions;
use crate::index::Index;
use crate::request::Request;

/// Place in a user's object that a part of a route comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Origin {
    /// `VirtualService`, `HTTPRoute`, ...; empty for what no object asks for.
    pub kind: &'static str,
    pub namespace: String,
    pub name: String,
    /// Path of the field, as `spec.http[0].match[1]`; empty for the whole object.
    pub field: String,
}

impl Origin {
    /// The same object, with a field of it.
    pub fn at(&self, field: impl Into<String>) -> Self {
        Self { field: field.into(), ..self.clone() }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.kind.is_empty() {
            return f.write_str("default");
        }
        write!(f, "{} {}/{}", self.kind, self.namespace, self.name)?;
        if !self.field.is_empty() {
            write!(f, " {}", self.field)?;
        }
        Ok(())
    }
}

/// One way into a rule. A rule with several matches has a route for each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Route {
    /// The match of the user's object.
    pub origin: Origin,
    /// Name for logs and metrics; empty when the user gave none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    pub conditions: Conditions,
    pub rule: Arc<Rule>,
}

/// Routes in order of precedence. A request that meets none of them is answered with 404.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct RouteTable {
    routes: Vec<Route>,
    #[serde(skip)]
    index: Index,
}

impl RouteTable {
    /// Makes a table of routes that are in order of precedence.
    pub fn new(routes: Vec<Route>) -> Self {
        let index = Index::new(routes.iter().map(|route| &route.conditions.path));
        Self { routes, index }
    }

    /// First route whose conditions the request meets. Needs time for the routes whose path can match, not for all.
    pub fn find(&self, request: &Request<'_>) -> Option<&Route> {
        let is_met = |at: usize| self.routes.get(at).is_some_and(|route| route.conditions.is_met(request));
        self.routes.get(self.index.first(request.path(), is_met)?)
    }

    /// The routes in order of precedence.
    pub fn routes(&self) -> &[Route] {
        &self.routes
    }
}

/// The tables of one service port. Routes that a client's own namespace has made for a service of another one replace the
/// service's routes for those clients (consumer routes of the Gateway API).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PortRoutes {
    /// For clients without routes of their own.
    pub routes: RouteTable,
    /// By the namespace of the client.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub consumers: BTreeMap<String, RouteTable>,
}

impl PortRoutes {
    /// The table for a client of this namespace.
    pub fn table(&self, namespace: Option<&str>) -> &RouteTable {
        namespace.and_then(|namespace| self.consumers.get(namespace)).unwrap_or(&self.routes)
    }

    /// First route of the client's table whose conditions the request meets.
    pub fn find(&self, request: &Request<'_>) -> Option<&Route> {
        self.table(request.source.namespace).find(request)
    }
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
