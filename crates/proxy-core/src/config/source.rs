//! Reader of settings, and collector of their mistakes.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use contract::Unsupported;
use runtime::Problems;

/// Istio's mesh configuration, if it is mounted.
const MESH_CONFIG: &str = "./etc/istio/config/mesh";

/// Variables of a process, and other inputs of defaults. Made once; tests make their own.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    /// Variables.
    pub variables: BTreeMap<String, String>,
    /// Text of the mesh configuration.
    pub mesh_config: Option<String>,
    /// Processors that this process may use.
    pub processors: usize,
}

impl Environment {
    /// Of this process.
    ///
    /// # Errors
    /// When the mesh configuration is there and cannot be read.
    pub fn of_process() -> Result<Self, Problems> {
        let mut problems = Problems::default();
        let mesh_config = match std::fs::read_to_string(Path::new(MESH_CONFIG)) {
            Ok(text) => Some(text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => {
                problems.push(MESH_CONFIG, error.to_string(), "a readable file, or none");
                None
            }
        };
        // Ends here: defaults that depend on a file which is there and unreadable would be a guess.
        problems.into_result()?;
        Ok(Self {
            variables: std::env::vars_os()
                .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)))
                .collect(),
            mesh_config,
            processors: std::thread::available_parallelism().map_or(1, usize::from),
        })
    }
}

/// Reads variables and notes mistakes and settings that are not supported.
pub struct Reader<'a> {
    pub environment: &'a Environment,
    pub problems: Problems,
    unsupported: Vec<Unsupported>,
}

impl<'a> Reader<'a> {
    pub fn new(environment: &'a Environment) -> Self {
        Self { environment, problems: Problems::default(), unsupported: Vec::new() }
    }

    pub fn finish(self) -> (Problems, Vec<Unsupported>) {
        (self.problems, self.unsupported)
    }

    /// As it is; none when unset. An empty value is a value.
    pub fn raw(&self, key: &str) -> Option<&'a str> {
        self.environment.variables.get(key).map(String::as_str)
    }

    /// As it is; none when unset or empty.
    pub fn text(&self, key: &str) -> Option<String> {
        self.raw(key).filter(|value| !value.is_empty()).map(str::to_owned)
    }

    pub fn path(&self, key: &str) -> Option<PathBuf> {
        self.text(key).map(PathBuf::from)
    }

    /// Parsed; none when unset, and also when it is wrong, which is noted.
    pub fn optional<T>(&mut self, key: &str, expected: &str, parse: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        let value = self.raw(key)?;
        let parsed = parse(value);
        if parsed.is_none() {
            let shown = if value.is_empty() { "(empty)" } else { value };
            self.problems.push(key, shown, expected);
        }
        parsed
    }

    pub fn flag(&mut self, key: &str, default: bool) -> bool {
        self.optional_flag(key).unwrap_or(default)
    }

    pub fn optional_flag(&mut self, key: &str) -> Option<bool> {
        self.optional(key, "true or false", |value| match value {
            "true" => Some(true),
            "false" => Some(false),
            _ => None,
        })
    }

    /// Variables whose name begins with `prefix`, without it.
    pub fn with_prefix<'b>(&self, prefix: &'b str) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a, 'b> {
        let all = self.environment.variables.iter();
        all.filter_map(move |(key, value)| Some((key.strip_prefix(prefix)?, value.as_str())))
            .filter(|(key, _)| !key.is_empty())
    }

    /// Notes a setting that is accepted and not supported.
    pub fn unsupported(&mut self, key: &str, instead: &str) {
        self.unsupported.push(Unsupported::new(key, instead));
    }

    /// Refuses `key` when it is set: to go on without what it asks for would be less safe than not to start.
    pub fn refuse(&mut self, key: &str, expected: &str) {
        if let Some(value) = self.text(key) {
            self.problems.push(key, &value, expected);
        }
    }

    /// Notes `key` as unsupported when it is set to anything but `harmless`.
    pub fn unless(&mut self, key: &str, harmless: &[&str], instead: &str) {
        if self.raw(key).is_some_and(|value| !value.is_empty() && !harmless.contains(&value)) {
            self.unsupported(key, instead);
        }
    }
}
