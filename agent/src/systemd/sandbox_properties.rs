//! The cage: what a sandbox may not do, as properties of a transient unit.
//!
//! The set is the one in which a real `npm install` with its native build and a real `t3 serve` were seen to work
//! (T3-CONTRACT, "under a real systemd 252"). `MemoryDenyWriteExecute=` is not part of it: node compiles at run time.

use zbus::{Fd, Variant};

use super::Sandbox;

/// One property of `StartTransientUnit`.
pub(super) type Property = (&'static str, Variant<'static>);

/// `SystemCallErrorNumber=`: a forbidden call fails with EPERM, and node goes on without it; being killed by SIGSYS would
/// look like a bad build.
const EPERM: i32 = 1;
/// `BindPaths=` flag MS_REC (mount(2)): what is mounted below the source comes along.
const RECURSIVE: u64 = 16384;
/// Where every user of a host may write, each in memory, of its own and small: it counts as the sandbox's memory, is full for nobody
/// else, and is gone with the sandbox. `PrivateTmp=` would lie on the host's disk, and `PrivateDevices=` shares `/dev/shm`.
const OWN_ROOMS: [(&str, &str); 3] =
    [("/tmp", "mode=1777,size=512M"), ("/var/tmp", "mode=1777,size=512M"), ("/dev/shm", "mode=1777,size=256M")];
/// After SIGTERM the processes get this long (t3 needs 50-190 ms, T3-CONTRACT section 7), in microseconds.
const STOP_MICROSECONDS: u64 = 5_000_000;

/// All properties for `sandbox`; its file descriptors move into them.
pub(super) fn properties(sandbox: Sandbox) -> Vec<Property> {
    let program = sandbox.exec.first().cloned().unwrap_or_default();
    let deadline = u64::try_from(sandbox.deadline.as_micros()).unwrap_or(u64::MAX);
    let environment: Vec<String> = sandbox.environment.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let bind: Vec<(String, String, bool, u64)> =
        sandbox.bind.into_iter().map(|(from, to)| (from, to, false, RECURSIVE)).collect();
    // systemd replaces `$NAME` in arguments (systemd.service(5), "Command lines"); ours are meant literally. `ExecStartEx` could
    // say so, but systemd 252 writes it into the unit's file in a form that it refuses at the next daemon-reload.
    let exec: Vec<String> = sandbox.exec.iter().map(|argument| argument.replace('$', "$$")).collect();
    let mut all = cage();
    all.extend([
        ("Description", Variant::new(sandbox.description)),
        // `exec`: the start job fails when the cage or the program cannot be set up, so that is told from the program's own end.
        ("Type", Variant::new("exec")),
        ("ExecStart", Variant::new(vec![(program, exec, false)])),
        ("User", Variant::new(sandbox.user)),
        ("Environment", Variant::new(environment)),
        ("WorkingDirectory", Variant::new(sandbox.working_directory)),
        ("PrivateNetwork", Variant::new(sandbox.private_network)),
        ("ReadWritePaths", Variant::new(sandbox.read_write)),
        ("BindPaths", Variant::new(bind)),
        ("LoadCredential", Variant::new(sandbox.credentials)),
        ("MemoryMax", Variant::new(sandbox.memory_max)),
        // More than that is not had by driving the host's swap full either.
        ("MemorySwapMax", Variant::new(0_u64)),
        ("TasksMax", Variant::new(sandbox.tasks_max)),
        ("RuntimeMaxUSec", Variant::new(deadline)),
    ]);
    match sandbox.stdin {
        Some(fd) => all.push(("StandardInputFileDescriptor", Variant::Fd(Fd::from(fd)))),
        None => all.push(("StandardInput", Variant::new("null"))),
    }
    if let Some(fd) = sandbox.stdout {
        all.push(("StandardOutputFileDescriptor", Variant::Fd(Fd::from(fd))));
    }
    if let Some(fd) = sandbox.stderr {
        all.push(("StandardErrorFileDescriptor", Variant::Fd(Fd::from(fd))));
    }
    all
}

fn own_rooms() -> Vec<(String, String)> {
    OWN_ROOMS.into_iter().map(|(place, options)| (place.to_owned(), options.to_owned())).collect()
}

/// What is the same for every sandbox.
fn cage() -> Vec<Property> {
    let calls = vec!["@system-service".to_owned()];
    // AF_NETLINK: os.networkInterfaces() of node is getifaddrs(3), which asks over netlink.
    let families: Vec<String> = ["AF_INET", "AF_INET6", "AF_UNIX", "AF_NETLINK"].map(String::from).into();
    vec![
        // The caller's reference keeps the result readable after the end; when the agent dies, the reference goes with its
        // connection and the ended unit is collected, failed or not.
        ("AddRef", Variant::new(true)),
        ("CollectMode", Variant::new("inactive-or-failed")),
        ("KillMode", Variant::new("control-group")),
        ("TimeoutStopUSec", Variant::new(STOP_MICROSECONDS)),
        ("NoNewPrivileges", Variant::new(true)),
        ("CapabilityBoundingSet", Variant::new(0_u64)),
        ("AmbientCapabilities", Variant::new(0_u64)),
        ("TemporaryFileSystem", Variant::new(own_rooms())),
        ("PrivateIPC", Variant::new(true)),
        ("PrivateDevices", Variant::new(true)),
        ("ProtectSystem", Variant::new("strict")),
        ("ProtectHome", Variant::new("tmpfs")),
        ("ProtectKernelTunables", Variant::new(true)),
        ("ProtectKernelModules", Variant::new(true)),
        ("ProtectKernelLogs", Variant::new(true)),
        ("ProtectControlGroups", Variant::new(true)),
        ("ProtectClock", Variant::new(true)),
        // The agent's socket is open to every user; nothing in a sandbox has business there.
        ("InaccessiblePaths", Variant::new(vec!["-/run/t3pin".to_owned()])),
        ("RestrictSUIDSGID", Variant::new(true)),
        ("RestrictNamespaces", Variant::new(0_u64)),
        ("RestrictRealtime", Variant::new(true)),
        ("LockPersonality", Variant::new(true)),
        ("SystemCallArchitectures", Variant::new(vec!["native".to_owned()])),
        ("SystemCallFilter", Variant::new((true, calls))),
        ("SystemCallErrorNumber", Variant::new(EPERM)),
        ("RestrictAddressFamilies", Variant::new((true, families))),
        ("UMask", Variant::new(0o022_u32)),
        // People work on this host: an install or a rehearsal takes what is left over.
        ("CPUWeight", Variant::new(20_u64)),
        ("IOWeight", Variant::new(20_u64)),
    ]
}
