//! A directory of manifests with its state, and the events of a source of it.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use kube_types::{Event, Source};
use manifests::{DirectoryConfig, LastGoodCopies};

const DEADLINE: Duration = Duration::from_secs(10);

pub(crate) struct Dir {
    root: tempfile::TempDir,
}

impl Dir {
    pub(crate) fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("manifests")).unwrap();
        Self { root }
    }

    pub(crate) fn manifests(&self) -> PathBuf {
        self.root.path().join("manifests")
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.root.path().join("state")
    }

    /// Replaces a manifest by renaming, as editors do.
    pub(crate) fn write(&self, name: &str, text: &str) {
        let path = self.manifests().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let temporary = self.root.path().join("next");
        fs::write(&temporary, text).unwrap();
        fs::rename(temporary, path).unwrap();
    }

    pub(crate) fn config(&self) -> DirectoryConfig {
        DirectoryConfig::new(vec![self.manifests()], self.state())
    }

    pub(crate) fn source(&self) -> Source {
        manifests::open(self.config()).unwrap()
    }

    /// The source that keeps copies of what is good.
    pub(crate) fn keeper(&self) -> Source {
        manifests::open(copying(vec![self.manifests()], self.state())).unwrap()
    }

    /// Another place on the same file system.
    pub(crate) fn aside(&self) -> PathBuf {
        self.root.path().join("aside")
    }
}

pub(crate) async fn next(source: &mut Source) -> Event {
    tokio::time::timeout(DEADLINE, source.next()).await.expect("an event in time").expect("the reader runs")
}

pub(crate) async fn until_in_sync(source: &mut Source) -> Vec<Event> {
    let mut events = Vec::new();
    loop {
        match next(source).await {
            Event::InSync { .. } => return events,
            event => events.push(event),
        }
    }
}

pub(crate) fn summary(event: &Event) -> String {
    match event {
        Event::Applied { resource, .. } => format!("+ {}", resource.key()),
        Event::Removed { key, .. } => format!("- {key}"),
        Event::InSync { .. } => "in sync".to_owned(),
        Event::Problem(problem) => {
            format!("! {}:{} {}", problem.file.file_name().unwrap().display(), problem.line, problem.field)
        }
        Event::Solved { file } => format!("ok {}", file.file_name().unwrap().display()),
    }
}

pub(crate) const POD: &str =
    "apiVersion: v1\nkind: Pod\nmetadata: {name: web, namespace: app}\nspec: {containers: [{name: c}]}\n";

/// A source that writes copies of good manifests.
pub(crate) fn copying(manifests: Vec<PathBuf>, state: PathBuf) -> DirectoryConfig {
    DirectoryConfig { last_good: LastGoodCopies::Write, ..DirectoryConfig::new(manifests, state) }
}
