//! What agent and operator say, as Protocol Buffers messages.
//!
//! Field numbers are the wire format: never reuse one, only add. Unknown fields are skipped by either side, so an old
//! agent and a new operator understand each other.

/// Agent → operator.
#[derive(Clone, PartialEq, prost::Message)]
pub struct FromAgent {
    /// What it is about.
    #[prost(oneof = "from_agent::Kind", tags = "1, 2, 3")]
    pub kind: Option<from_agent::Kind>,
}

/// The kinds of [`FromAgent`].
pub mod from_agent {
    /// One of these.
    #[derive(Clone, PartialEq, prost::Oneof)]
    pub enum Kind {
        /// The first message on a stream, and nowhere else.
        #[prost(message, tag = "1")]
        Hello(super::Hello),
        /// What has changed since.
        #[prost(message, tag = "2")]
        Progress(super::Progress),
        /// The node itself has changed.
        #[prost(message, tag = "3")]
        Facts(super::Facts),
    }
}

/// Who the agent is and all it has.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Hello {
    /// The node it says it runs on. The token decides; a difference is refused.
    #[prost(string, tag = "1")]
    pub node: String,
    /// Its version.
    #[prost(string, tag = "2")]
    pub version: String,
    /// The state of the node.
    #[prost(message, optional, tag = "3")]
    pub facts: Option<Facts>,
    /// The state of every image of every task it knows.
    #[prost(message, repeated, tag = "4")]
    pub reports: Vec<Report>,
}

/// Changed reports.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Progress {
    /// Only those that changed.
    #[prost(message, repeated, tag = "1")]
    pub reports: Vec<Report>,
}

/// The state of a node.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Facts {
    /// The container runtime with its version, such as `containerd 2.3.7`.
    #[prost(string, tag = "1")]
    pub runtime: String,
    /// Whether a pull by the runtime was seen to reach the agent.
    #[prost(bool, tag = "2")]
    pub mirror_verified: bool,
    /// What is wrong.
    #[prost(message, repeated, tag = "3")]
    pub problems: Vec<Problem>,
}

/// Something wrong on a node.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Problem {
    /// One word from a closed set.
    #[prost(string, tag = "1")]
    pub reason: String,
    /// What is wrong and what to do.
    #[prost(string, tag = "2")]
    pub message: String,
}

/// How far one image of one task is on this node.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Report {
    /// The task's [`Task::id`].
    #[prost(string, tag = "1")]
    pub task: String,
    /// The image, as [`TaskImage::image`] names it.
    #[prost(string, tag = "2")]
    pub image: String,
    /// The attempt this is about.
    #[prost(uint32, tag = "3")]
    pub attempt: u32,
    /// How far.
    #[prost(enumeration = "Phase", tag = "4")]
    pub phase: i32,
    /// With [`Phase::Failed`]: one word from a closed set, such as `ImageNotFound`.
    #[prost(string, tag = "5")]
    pub reason: String,
    /// With [`Phase::Failed`]: what happened.
    #[prost(string, tag = "6")]
    pub message: String,
    /// What the image was resolved to, as soon as that is known.
    #[prost(string, tag = "7")]
    pub digest: String,
    /// Bytes from other nodes so far.
    #[prost(uint64, tag = "8")]
    pub bytes_peers: u64,
    /// Bytes from seeders so far.
    #[prost(uint64, tag = "9")]
    pub bytes_seeders: u64,
    /// Bytes from the registry so far.
    #[prost(uint64, tag = "10")]
    pub bytes_origin: u64,
}

/// How far an image is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum Phase {
    /// Known, not begun.
    Waiting = 0,
    /// Under way.
    Active = 1,
    /// There, to the depth asked for.
    Ready = 2,
    /// This attempt has failed.
    Failed = 3,
}

/// Operator → agent.
#[derive(Clone, PartialEq, prost::Message)]
pub struct FromOperator {
    /// What it is about.
    #[prost(oneof = "from_operator::Kind", tags = "1, 2")]
    pub kind: Option<from_operator::Kind>,
}

/// The kinds of [`FromOperator`].
pub mod from_operator {
    /// One of these.
    #[derive(Clone, PartialEq, prost::Oneof)]
    pub enum Kind {
        /// The first message on a stream.
        #[prost(message, tag = "1")]
        Welcome(super::Welcome),
        /// All that the node is to have. It replaces what was sent before.
        #[prost(message, tag = "2")]
        Desired(super::Desired),
    }
}

/// What a node is told about itself.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Welcome {
    /// The node, as its token names it.
    #[prost(string, tag = "1")]
    pub node: String,
    /// The node's zone; empty when it has none.
    #[prost(string, tag = "2")]
    pub zone: String,
}

/// All that a node is to have.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Desired {
    /// Sorted by id. What is not here any more is to be forgotten, its pins removed, its work stopped.
    #[prost(message, repeated, tag = "1")]
    pub tasks: Vec<Task>,
}

/// Images that a node is to have.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Task {
    /// Names the task for as long as it exists. The same id always means the same images.
    #[prost(string, tag = "1")]
    pub id: String,
    /// The images.
    #[prost(message, repeated, tag = "2")]
    pub images: Vec<TaskImage>,
    /// How far to bring them.
    #[prost(enumeration = "Depth", tag = "3")]
    pub depth: i32,
    /// Whether the runtime must keep them.
    #[prost(bool, tag = "4")]
    pub pin: bool,
    /// Most images at once.
    #[prost(uint32, tag = "5")]
    pub pulls: u32,
    /// Most bytes a second; 0: no limit of its own.
    #[prost(uint64, tag = "6")]
    pub bandwidth: u64,
    /// An attempt that is not done after this time has failed.
    #[prost(uint32, tag = "7")]
    pub timeout_seconds: u32,
    /// Logins for registries. Kept in memory only, never logged.
    #[prost(message, repeated, tag = "8")]
    pub logins: Vec<Login>,
}

/// One image of a task.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TaskImage {
    /// As people write it; its name in reports.
    #[prost(string, tag = "1")]
    pub image: String,
    /// The digest to fetch; empty: resolve `image` and report the digest at once.
    #[prost(string, tag = "2")]
    pub digest: String,
    /// For which platforms; none: the node's own.
    #[prost(string, repeated, tag = "3")]
    pub platforms: Vec<String>,
    /// Counts from 1. A higher number than the one last tried means: try again.
    #[prost(uint32, tag = "4")]
    pub attempt: u32,
}

/// How far images are brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum Depth {
    /// Pulled and unpacked by the container runtime.
    Image = 0,
    /// Into the node's cache.
    NodeCache = 1,
    /// Into the seeders, by asking them; nothing stays on the node.
    Seeder = 2,
}

/// A login.
#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub struct Login {
    /// The registry, as image references name it.
    #[prost(string, tag = "1")]
    pub registry: String,
    /// The user.
    #[prost(string, tag = "2")]
    pub username: String,
    /// The password or token.
    #[prost(string, tag = "3")]
    pub password: String,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Login").field("registry", &self.registry).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_is_never_printed() {
        let login = Login { registry: "r".into(), username: "hush".into(), password: "hush".into() };
        let task = Task { logins: vec![login], ..Task::default() };
        assert!(!format!("{task:?}").contains("hush"));
    }
}
