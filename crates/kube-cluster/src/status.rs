//! Writes what programs have to say about objects: see [`status`]. The requests are in `write`, their order in `writer`.

use std::time::Duration;

use kube_types::{Kind, ObjectRef, Patch, Status, WriteStatus, Writing};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::connect::ApiServer;
use crate::election::Leadership;
use crate::known::Versions;
use crate::write::checks_uid;
use crate::writer::{Command, Writer};

/// Writes that wait for the task; who writes waits when it is full.
const QUEUE: usize = 256;

/// Time after which a caller hears that its write has not succeeded yet.
const DEADLINE: Duration = Duration::from_secs(20);

/// Parts of objects that are a program's: clearing an object removes them, and nothing else is touched.
#[derive(Clone, Debug, Default)]
pub struct Owned {
    /// Annotations of pods.
    pub annotations: Vec<String>,
    /// Types of conditions.
    pub conditions: Vec<String>,
    /// Fields of a status beside its conditions.
    pub fields: Vec<String>,
}

/// A writer of statuses.
#[derive(Clone, Debug)]
pub struct StatusConfig {
    pub server: ApiServer,
    /// Name of the field manager, one for each program.
    pub manager: String,
    /// Kinds whose objects it writes about.
    pub kinds: Vec<Kind>,
    pub owned: Owned,
    /// Versions that the program's source has seen: a patch that the newest one has is not written again.
    pub versions: Versions,
    /// `None`: there is one writer. Else only the leader writes; the others keep what they would write until they lead.
    pub leadership: Option<Leadership>,
}

/// A status that was not written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    #[error("this program does not write about objects of kind {0}")]
    Kind(Kind),
    #[error("the API server does not compare uids of objects of kind {0}")]
    Uid(Kind),
    /// It is tried until it succeeds or another patch replaces it.
    #[error("{0}; trying again")]
    Late(String),
    #[error("{0}")]
    Refused(String),
    #[error("the writer has ended")]
    Ended,
}

/// Opens a writer of the subresource `status`: annotations of pods by a patch; conditions by reading the object and patching
/// what differs, so that conditions of other writers stay, and nothing is written that the object says already. Its task ends
/// with the last clone of the [`Status`].
///
/// An object that is gone needs no status: that is success. So is a write of a replica that does not lead.
///
/// # Panics
/// Outside of a tokio runtime.
pub fn status(config: StatusConfig) -> Status {
    let (commands, queue) = mpsc::channel(QUEUE);
    let kinds = config.kinds.clone();
    tokio::spawn(Writer::new(config).run(queue));
    Status::new(Handle { kinds, commands })
}

#[derive(Debug)]
struct Handle {
    kinds: Vec<Kind>,
    commands: mpsc::Sender<Command>,
}

impl WriteStatus for Handle {
    fn write(&self, key: &ObjectRef, patch: Option<Patch>) -> Writing {
        let (commands, key) = (self.commands.clone(), key.clone());
        let is_ours = self.kinds.contains(&key.kind);
        Box::pin(async move {
            if !is_ours {
                return Err(WriteError::Kind(key.kind).into());
            }
            // Of a custom resource the API server ignores the uid of a patch: what was meant for one object would be
            // written to its successor.
            if patch.as_ref().is_some_and(|patch| patch.uid.is_some()) && !checks_uid(key.kind) {
                return Err(WriteError::Uid(key.kind).into());
            }
            let (reply, written) = oneshot::channel();
            let write = async {
                commands.send(Command { key, patch, reply }).await.map_err(|_| WriteError::Ended)?;
                written.await.unwrap_or(Err(WriteError::Ended))
            };
            let late = || WriteError::Late(format!("no answer within {DEADLINE:?}"));
            // Only the caller stops waiting: a command that the writer has received is still tried.
            Ok(timeout(DEADLINE, write).await.unwrap_or_else(|_| Err(late()))?)
        })
    }
}
