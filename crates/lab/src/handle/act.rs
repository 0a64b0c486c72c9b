//! Actions in a running lab: commands, signals, captures, a look into its namespaces.

use std::os::fd::{BorrowedFd, OwnedFd};

use super::{Lab, expect_done, unexpected};
use crate::{
    command::{Capture, Output, Pipes, Process, Running},
    control::{Reply, Request, Target},
    error::LabError,
};

impl Lab {
    /// Runs a command in a pod to its end, with no input, and returns what it printed.
    ///
    /// # Errors
    /// When the pod is not there or the command cannot be started.
    pub async fn exec<A: AsRef<str>>(&self, pod: &str, argv: &[A]) -> Result<Output, LabError> {
        self.spawn(pod, argv).await?.output().await
    }

    /// Runs a command in a node's network namespace to its end.
    ///
    /// # Errors
    /// When there is no such node or the command cannot be started.
    pub async fn exec_on_node<A: AsRef<str>>(&self, node: &str, argv: &[A]) -> Result<Output, LabError> {
        self.spawn_at(Target::Node(node.to_owned()), argv).await?.output().await
    }

    /// Starts a command in a pod with pipes as its input and output. It is killed when the
    /// `Process` is dropped.
    ///
    /// # Errors
    /// When the pod is not there or the command cannot be started.
    pub async fn spawn<A: AsRef<str>>(&self, pod: &str, argv: &[A]) -> Result<Process, LabError> {
        self.spawn_at(Target::Pod { pod: pod.to_owned(), container: None }, argv).await
    }

    /// As `spawn`, anywhere.
    ///
    /// # Errors
    /// As `spawn`.
    pub async fn spawn_at<A: AsRef<str>>(&self, target: Target, argv: &[A]) -> Result<Process, LabError> {
        let pipes = Pipes::new()?;
        let running = self.exec_with(target, argv, pipes.theirs()).await?;
        Ok(pipes.around(running))
    }

    /// Starts a command with descriptors of the caller's choice as input, output and error.
    ///
    /// # Errors
    /// When the target is not there or the command cannot be started.
    pub async fn exec_with<A: AsRef<str>>(
        &self,
        target: Target,
        argv: &[A],
        stdio: [BorrowedFd<'_>; 3],
    ) -> Result<Running, LabError> {
        self.begin(target, argv, stdio, false).await
    }

    /// As `exec_with`, with the first descriptor as the terminal that the command is in charge of.
    ///
    /// # Errors
    /// As `exec_with`, and when the descriptor is no terminal that is free.
    pub async fn exec_on_terminal<A: AsRef<str>>(
        &self,
        target: Target,
        argv: &[A],
        stdio: [BorrowedFd<'_>; 3],
    ) -> Result<Running, LabError> {
        self.begin(target, argv, stdio, true).await
    }

    async fn begin<A: AsRef<str>>(
        &self,
        target: Target,
        argv: &[A],
        stdio: [BorrowedFd<'_>; 3],
        terminal: bool,
    ) -> Result<Running, LabError> {
        let argv = argv.iter().map(|arg| arg.as_ref().to_owned()).collect();
        // Programs on a terminal need to know which one it is; it is the user's and not the container's.
        let env = std::env::var("TERM").ok().filter(|_| terminal).map(|term| ("TERM".to_owned(), term));
        let env = env.into_iter().collect();
        let mut connection = self.connect().await?;
        connection.send(&Request::Exec { target, argv, env, terminal }, &stdio).await?;
        match connection.receive().await?.ok_or(LabError::Gone)? {
            Reply::Started => Ok(Running::new(connection)),
            other => Err(unexpected(&other)),
        }
    }

    /// Sends a signal to the main process of a pod's first container.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn kill(&self, pod: &str, signal: i32) -> Result<(), LabError> {
        let request = Request::Kill { pod: pod.to_owned(), container: None, signal };
        expect_done(Some(self.ask(&request).await?))
    }

    /// Keeps containers of a pod that exit from being started again (`true`), or starts them again.
    ///
    /// # Errors
    /// When there is no such pod.
    pub async fn pause_restarts(&self, pod: &str, paused: bool) -> Result<(), LabError> {
        expect_done(Some(self.ask(&Request::PauseRestarts { pod: pod.to_owned(), paused }).await?))
    }

    /// Records everything on a node's wire until `Capture::stop`.
    ///
    /// # Errors
    /// When there is no such node.
    pub async fn capture(&self, node: &str) -> Result<Capture, LabError> {
        let mut connection = self.connect().await?;
        connection.send(&Request::Capture { node: node.to_owned() }, &[]).await?;
        match connection.receive().await?.ok_or(LabError::Gone)? {
            Reply::Capturing(file) => Ok(Capture::new(connection, file)),
            other => Err(unexpected(&other)),
        }
    }

    /// The network namespace of a pod or node: for tests that look into the kernel.
    ///
    /// # Errors
    /// When there is no such target.
    pub async fn netns(&self, target: Target) -> Result<OwnedFd, LabError> {
        let mut connection = self.connect().await?;
        connection.send(&Request::Netns(target), &[]).await?;
        expect_done(connection.receive().await?)?;
        connection.take_descriptors().pop().ok_or(LabError::Gone)
    }
}
