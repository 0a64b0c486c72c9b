//! Place of the plugin in a node's CNI configuration. A container runtime uses the file whose name sorts first; the plugin
//! gets a file that sorts before all others: a copy of the cluster's own configuration with the plugin at its end. The
//! cluster's file stays as it is, byte for byte. Reading and writing the files is the agent's business.

use std::ffi::OsStr;
use std::path::Path;

use serde_json::{Map, Value};

use crate::plugin_config::{PLUGIN_TYPE, PluginConfig};

/// Names of the file with the plugin, in the order in which they are tried: the first one that sorts before all others.
// `00` is enough for most clusters; the others are for files that begin with `00-` themselves, in ASCII order.
pub const OWN_NAMES: [&str; 3] = ["00-strake.conflist", "0-strake.conflist", "0-0-strake.conflist"];

/// Versions of the CNI specification that the plugin speaks. Chains of earlier ones have no previous result to pass on.
pub const VERSIONS: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// Plugins that choose a configuration of this directory themselves: with a copy of theirs they would call themselves.
const META_PLUGINS: [&str; 2] = ["multus", "multus-shim"];

/// Endings of the files that container runtimes read.
const EXTENSIONS: [&str; 3] = ["conf", "conflist", "json"];

/// A file of the directory of configurations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    pub name: String,
    pub bytes: Vec<u8>,
}

/// Configuration with the plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chained {
    /// Name of the file to write, one of [`OWN_NAMES`].
    pub name: &'static str,
    pub bytes: Vec<u8>,
    /// Name of the file that it was made from.
    pub primary: String,
    /// Files that sort before it and are no configurations, with the reason. Some container runtimes stop at them.
    pub skipped: Vec<(String, Invalid)>,
}

/// Reason why a file is not a configuration that the plugin can be added to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    #[error("it is not JSON: {0}")]
    Json(String),
    #[error("expected an object")]
    NotAnObject,
    #[error("expected a text as {0}")]
    Missing(&'static str),
    #[error("expected a list of at least one plugin as plugins")]
    NoPlugins,
    #[error("cniVersion {0}, expected one of 0.3.0 to 1.1.0")]
    Version(String),
    #[error(
        "its plugin {0} chooses among the configurations of this directory: name the cluster's own with CNI_CONF_NAME, and add strake-cni to it yourself"
    )]
    MetaPlugin(String),
}

/// Reason why there is nothing to add the plugin to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoConfiguration {
    #[error("no CNI configuration: expected a valid .conf, .conflist or .json file of the cluster's network plugin{}", listed(.0))]
    None(Vec<(String, Invalid)>),
    #[error("no CNI configuration {0}, which CNI_CONF_NAME names")]
    Unnamed(String),
    #[error("{0} cannot be used: {1}")]
    Unusable(String, Invalid),
    #[error("the name {0} sorts before every name that the plugin's file can have: rename it")]
    Order(String),
}

fn listed(skipped: &[(String, Invalid)]) -> String {
    skipped.iter().map(|(name, reason)| format!("; {name}: {reason}")).collect()
}

/// Returns true if a container runtime reads a file of this name as a configuration.
pub fn is_configuration(name: &str) -> bool {
    Path::new(name).extension().and_then(OsStr::to_str).is_some_and(|extension| EXTENSIONS.contains(&extension))
}

/// Returns true if a file of this name is the plugin's own.
pub fn is_own(name: &str) -> bool {
    OWN_NAMES.contains(&name)
}

/// Adds the plugin to the configuration that a container runtime would use without it, the first valid one by name, or to the
/// one that is `named` (with either ending). Fields that nobody here knows are kept.
///
/// # Errors
/// All of [`NoConfiguration`].
pub fn chain(mut files: Vec<File>, named: Option<&str>, plugin: &PluginConfig) -> Result<Chained, NoConfiguration> {
    files.retain(|file| is_configuration(&file.name) && !is_own(&file.name));
    files.sort_by(|one, other| one.name.cmp(&other.name));
    let (primary, list, skipped) = match named {
        Some(name) => {
            let file = find(&files, name).ok_or_else(|| NoConfiguration::Unnamed(name.to_owned()))?;
            let list = list(file).map_err(|reason| NoConfiguration::Unusable(file.name.clone(), reason))?;
            (file, list, Vec::new())
        }
        // As the container runtime chooses: the first by name.
        None => first_valid(&files)?,
    };
    // Before all files and not only the primary one: the runtime takes whatever sorts first.
    let first = files.first().map_or(primary.name.as_str(), |file| file.name.as_str());
    let order = || NoConfiguration::Order(first.to_owned());
    let name = OWN_NAMES.into_iter().find(|name| *name < first).ok_or_else(order)?;
    Ok(Chained { name, bytes: with_plugin(list, plugin), primary: primary.name.clone(), skipped })
}

type Found<'a> = (&'a File, Map<String, Value>, Vec<(String, Invalid)>);

fn first_valid(files: &[File]) -> Result<Found<'_>, NoConfiguration> {
    let mut skipped = Vec::new();
    for file in files {
        match list(file) {
            Ok(list) => return Ok((file, list, skipped)),
            // The next configuration would be one that the container runtime does not use.
            Err(reason @ (Invalid::MetaPlugin(_) | Invalid::Version(_))) => {
                return Err(NoConfiguration::Unusable(file.name.clone(), reason));
            }
            Err(reason) => skipped.push((file.name.clone(), reason)),
        }
    }
    Err(NoConfiguration::None(skipped))
}

/// The file of this name; else the one whose name differs in the ending alone, as a plugin changes it in an upgrade.
fn find<'a>(files: &'a [File], name: &str) -> Option<&'a File> {
    let stem = Path::new(name).file_stem();
    let same = |file: &&File| Path::new(&file.name).file_stem() == stem;
    files.iter().find(|file| file.name == name).or_else(|| files.iter().find(same))
}

/// The configuration list of a file. A configuration of one plugin becomes a list of one, as container runtimes make it.
fn list(file: &File) -> Result<Map<String, Value>, Invalid> {
    let value: Value = serde_json::from_slice(&file.bytes).map_err(|error| Invalid::Json(error.to_string()))?;
    let Value::Object(object) = value else { return Err(Invalid::NotAnObject) };
    // By the ending, as libcni tells the two forms apart.
    let list = if file.name.ends_with(".conflist") { object } else { of_one(object)? };
    text(&list, "name")?;
    let plugins = list.get("plugins").and_then(Value::as_array).filter(|plugins| !plugins.is_empty());
    for plugin in plugins.ok_or(Invalid::NoPlugins)? {
        let kind = text(plugin.as_object().ok_or(Invalid::NotAnObject)?, "type")?;
        if META_PLUGINS.contains(&kind) {
            return Err(Invalid::MetaPlugin(kind.to_owned()));
        }
    }
    check_version(&list)?;
    Ok(list)
}

fn of_one(plugin: Map<String, Value>) -> Result<Map<String, Value>, Invalid> {
    text(&plugin, "type")?;
    let mut list = Map::new();
    for shared in ["cniVersion", "name"] {
        if let Some(value) = plugin.get(shared) {
            list.insert(shared.to_owned(), value.clone());
        }
    }
    list.insert("plugins".to_owned(), Value::Array(vec![Value::Object(plugin)]));
    Ok(list)
}

fn text<'a>(object: &'a Map<String, Value>, field: &'static str) -> Result<&'a str, Invalid> {
    object.get(field).and_then(Value::as_str).filter(|text| !text.is_empty()).ok_or(Invalid::Missing(field))
}

/// A list has one version, or (since 1.1.0) several of which the runtime takes the highest that it knows.
fn check_version(list: &Map<String, Value>) -> Result<(), Invalid> {
    let one = list.get("cniVersion").and_then(Value::as_str);
    let several = list.get("cniVersions").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    let is_known = one.into_iter().chain(several).any(|version| VERSIONS.contains(&version));
    if is_known { Ok(()) } else { Err(Invalid::Version(one.unwrap_or("is absent").to_owned())) }
}

fn with_plugin(mut list: Map<String, Value>, plugin: &PluginConfig) -> Vec<u8> {
    if let Some(Value::Array(plugins)) = list.get_mut("plugins") {
        // Somebody may have added the plugin to the cluster's own file: it must run once.
        plugins.retain(|plugin| plugin["type"] != PLUGIN_TYPE);
        // Of texts, lists and paths: there is nothing in it that JSON cannot say, but paths that are not UTF-8.
        plugins.push(serde_json::to_value(plugin).unwrap_or_default());
    }
    let mut bytes = serde_json::to_vec_pretty(&list).unwrap_or_default();
    bytes.push(b'\n');
    bytes
}

#[cfg(test)]
mod tests;
