//! What a worker gives up once it knows its task: files elsewhere, network, programs.
//!
//! The user's ids keep a worker from what the user may not touch. This keeps it from what the task has no business with, so that
//! whatever a crafted database may make of it stays with the data that it came from: Landlock (landlock(7)) for files, seccomp
//! (seccomp(2)) for system calls. Both are inherited by what it starts, and nothing takes them back.
//!
//! Where the kernel has no Landlock, or one that forbids every rename between directories (before Linux 5.19), workers run without
//! it; what is missing is said once, by the broker ([`missing_here`]). The worker of a rehearsal is in a cage of systemd's
//! (systemd/sandbox_properties.rs) and needs none of this.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError,
};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};

use super::child::lower;
use super::protocol::{MintSpec, ProbeSpec, Task};

/// The first Landlock that lets files be moved between directories (LANDLOCK_ACCESS_FS_REFER).
const LEAST: ABI = ABI::V2;
/// The last one whose rights are known here; an older kernel enforces those that it knows.
const LATEST: ABI = ABI::V5;

/// Where a user's t3 and its node may be read and run from. Homes are not among it.
const PROGRAMS: [&str; 16] = [
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/etc",
    "/opt",
    "/srv",
    "/nix",
    "/snap",
    "/proc",
    "/sys",
    "/dev",
    "/run",
    "/var/lib/t3pin/versions",
];
/// What such a program may write besides the home.
const SCRATCH: [&str; 4] = ["/tmp", "/var/tmp", "/dev", "/dev/shm"];

/// Address space of a task that starts no program, in bytes. SQLite takes some MB; node alone reserves more.
const ADDRESS_SPACE: u64 = 2 << 30;

/// What a task has business with.
#[derive(Debug, PartialEq, Eq)]
struct Needs {
    /// Directories with all that is in them.
    data: Vec<PathBuf>,
    /// Connections to servers.
    network: bool,
    /// Starting the user's t3, with this node.
    programs: Option<PathBuf>,
}

/// Confines this process to what `task` needs, for good. Call with one thread only: others would stay free.
pub fn to(task: &Task) -> Result<(), io::Error> {
    let Some(needs) = needs(task) else { return Ok(()) };
    if needs.programs.is_none() {
        lower(rustix::process::Resource::As, ADDRESS_SPACE)?;
    }
    confine_files(&needs).map_err(io::Error::other)?;
    if let Some(filter) = filter(&needs)? {
        seccompiler::apply_filter(&filter).map_err(io::Error::other)?;
    }
    Ok(())
}

/// What this kernel lacks; `None` when everything here is enforced.
pub fn missing_here() -> Option<String> {
    let mut missing = Vec::new();
    if ruleset().is_err() {
        missing.push("this kernel has no Landlock that allows renames (Linux 5.19, lsm=landlock), so files elsewhere are kept from them by the user's ids only");
    }
    if arch().is_none() {
        missing.push("no filter of system calls is known for this kind of processor");
    }
    (!missing.is_empty()).then(|| missing.join("; "))
}

/// `None` for a rehearsal.
fn needs(task: &Task) -> Option<Needs> {
    let data = |paths: &[&PathBuf]| {
        Some(Needs { data: paths.iter().map(|path| root_of(path)).collect(), network: false, programs: None })
    };
    match task {
        Task::CopyLive { userdata, dest } | Task::SeedLive { userdata, dest } | Task::Seed { userdata, dest } => {
            data(&[userdata, dest])
        }
        Task::SwitchIn { seed, userdata } => data(&[seed, userdata]),
        Task::Discard { path } => data(&[path]),
        Task::Look { userdata } | Task::Lookout { userdata } | Task::Marks { userdata } | Task::Paired { userdata, .. } => {
            data(&[userdata])
        }
        Task::Merge { dir } => Some(Needs { data: vec![dir.clone()], network: false, programs: None }),
        Task::Finish => data(&[]),
        Task::Describe { .. } => Some(Needs { data: Vec::new(), network: true, programs: None }),
        Task::OwnService { home, base_dir } => {
            Some(Needs { data: vec![home.clone(), base_dir.clone()], network: false, programs: None })
        }
        Task::Probe(ProbeSpec { base_dir, node, .. }) | Task::Mint(MintSpec { base_dir, node, .. }) => {
            let home = std::env::var_os("HOME").map(PathBuf::from);
            Some(Needs {
                data: [base_dir.clone()].into_iter().chain(home).collect(),
                network: true,
                programs: Some(node.clone()),
            })
        }
        Task::Rehearse(_) => None,
    }
}

/// The directory that `path` is used through: t3's base directory above `.t3pin/` or `userdata/`, or where that has to be
/// made, the one above it.
fn root_of(path: &Path) -> PathBuf {
    let work = path.ancestors().find(|part| part.file_name().is_some_and(|name| name == ".t3pin"));
    let root = work.unwrap_or(path).parent().unwrap_or(path);
    match (open(root), root.parent()) {
        (Err(Errno::NOENT), Some(above)) => above.to_owned(),
        _ => root.to_owned(),
    }
}

/// By what every rule begins. Fails where the kernel cannot.
fn ruleset() -> Result<Ruleset, RulesetError> {
    Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(LEAST))?
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(LATEST))
}

fn confine_files(needs: &Needs) -> Result<(), RulesetError> {
    let Ok(ruleset) = ruleset() else { return Ok(()) };
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let run = read | AccessFs::Execute;
    // No devices, no sockets, no FIFOs, no links: none of it is state.
    let keep = read
        | AccessFs::WriteFile
        | AccessFs::Truncate
        | AccessFs::RemoveFile
        | AccessFs::RemoveDir
        | AccessFs::MakeDir
        | AccessFs::MakeReg
        | AccessFs::Refer;
    let own = if needs.programs.is_some() { AccessFs::from_all(LATEST) } else { keep };
    let mut rules: Vec<(PathBuf, BitFlags<AccessFs>)> = needs.data.iter().map(|path| (path.clone(), own)).collect();
    if let Some(node) = &needs.programs {
        rules.extend(installed(node).map(|path| (path, run)));
        rules.extend(PROGRAMS.map(|path| (path.into(), run)));
        rules.extend(SCRATCH.map(|path| (path.into(), AccessFs::from_all(LATEST))));
    }
    let mut created = ruleset.create()?;
    for (path, access) in rules {
        // What is not there needs no permission; a link is not followed, and what it points to stays forbidden.
        if let Ok(directory) = if needs.programs.is_some() { follow(&path) } else { open(&path) } {
            created = created.add_rule(PathBeneath::new(directory, access))?;
        }
    }
    created.restrict_self()?;
    Ok(())
}

/// Where a node of the site's own lies with its libraries: what is above its `bin/`, or where there is none, its directory. Nothing
/// for one that lies in [`PROGRAMS`] anyway.
fn installed(node: &Path) -> Option<PathBuf> {
    let node = node.canonicalize().ok()?;
    if PROGRAMS.iter().any(|known| node.starts_with(known)) {
        return None;
    }
    let directory = node.parent()?;
    let prefix = if directory.ends_with("bin") { directory.parent()? } else { directory };
    prefix.parent().map(|_| prefix.to_owned())
}

fn open(path: &Path) -> Result<OwnedFd, Errno> {
    rustix::fs::openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

/// As [`open`], for the system's own directories, some of which are links (`/bin`), and a home reached by one.
fn follow(path: &Path) -> Result<OwnedFd, Errno> {
    rustix::fs::openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

/// What no worker and no t3 has business with.
const NEVER: [i64; 46] = [
    libc::SYS_acct,
    libc::SYS_add_key,
    libc::SYS_bpf,
    libc::SYS_chroot,
    libc::SYS_clock_settime,
    libc::SYS_delete_module,
    libc::SYS_fanotify_init,
    libc::SYS_finit_module,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fsopen,
    libc::SYS_fspick,
    libc::SYS_init_module,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_io_uring_setup,
    libc::SYS_kcmp,
    libc::SYS_kexec_load,
    libc::SYS_keyctl,
    libc::SYS_lookup_dcookie,
    libc::SYS_mount,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    libc::SYS_open_tree,
    libc::SYS_perf_event_open,
    libc::SYS_personality,
    libc::SYS_pidfd_getfd,
    libc::SYS_pivot_root,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_ptrace,
    libc::SYS_quotactl,
    libc::SYS_reboot,
    libc::SYS_request_key,
    libc::SYS_setdomainname,
    libc::SYS_sethostname,
    libc::SYS_setns,
    libc::SYS_settimeofday,
    libc::SYS_swapoff,
    libc::SYS_swapon,
    libc::SYS_umount2,
    libc::SYS_unshare,
    libc::SYS_userfaultfd,
    libc::SYS_vhangup,
];

/// What only those need who start programs.
const STARTING: [i64; 2] = [libc::SYS_execve, libc::SYS_execveat];

/// Forbidden calls answer EPERM and not a signal: what merely tries one goes on without. `None` where there is no filter.
fn filter(needs: &Needs) -> io::Result<Option<BpfProgram>> {
    let Some(arch) = arch() else { return Ok(None) };
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = NEVER.map(|call| (call, Vec::new())).into();
    if needs.programs.is_none() {
        rules.extend(STARTING.map(|call| (call, Vec::new())));
        if !needs.network {
            // Two ends that nobody else has are no way out, and tokio hears of signals by them.
            rules.insert(libc::SYS_socketpair, Vec::new());
        }
        rules.insert(
            libc::SYS_socket,
            if needs.network { vec![other_than_internet().map_err(io::Error::other)?] } else { Vec::new() },
        );
    }
    let refuse = SeccompAction::Errno(Errno::PERM.raw_os_error().unsigned_abs());
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refuse, arch).map_err(io::Error::other)?;
    filter.try_into().map(Some).map_err(io::Error::other)
}

/// socket(2) for anything but IPv4 and IPv6.
fn other_than_internet() -> Result<SeccompRule, seccompiler::BackendError> {
    let not = |family: libc::c_int| {
        SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, u64::from(family.unsigned_abs()))
    };
    SeccompRule::new(vec![not(libc::AF_INET)?, not(libc::AF_INET6)?])
}

fn arch() -> Option<TargetArch> {
    std::env::consts::ARCH.try_into().ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn a_task_reaches_the_base_directory_of_its_data_and_no_more() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().join(".t3");
        let (userdata, dest) = (base.join("userdata"), base.join(".t3pin/b000001/home/.t3/userdata"));
        let task = Task::CopyLive { userdata: userdata.clone(), dest };
        assert_eq!(needs(&task).unwrap().data, [dir.path(), dir.path()], "it has to be made");
        std::fs::create_dir(&base).unwrap();
        assert_eq!(needs(&task).unwrap(), Needs { data: vec![base.clone(), base.clone()], network: false, programs: None });
        assert_eq!(needs(&Task::Discard { path: base.join(".t3pin/b000001") }).unwrap().data, std::slice::from_ref(&base));
        assert_eq!(needs(&Task::Look { userdata }).unwrap().data, [base]);
    }

    #[test]
    fn a_look_at_a_server_has_no_files() {
        let needs = needs(&Task::Describe { address: "127.0.0.1:1".to_owned() }).unwrap();
        assert_eq!(needs, Needs { data: vec![], network: true, programs: None });
    }

    #[test]
    fn a_node_of_the_sites_own_can_be_run_and_never_opens_everything() {
        let dir = tempfile::tempdir().unwrap();
        let prefix = dir.path().canonicalize().unwrap().join("node-24");
        std::fs::create_dir_all(prefix.join("bin")).unwrap();
        std::fs::write(prefix.join("bin/node"), "").unwrap();
        assert_eq!(installed(&prefix.join("bin/node")), Some(prefix));
        assert_eq!(installed(Path::new("/bin/sh")), None, "is in reach anyway");
        assert_eq!(installed(Path::new("/nowhere/bin/node")), None);
    }

    /// Does `work` in a thread of its own, confined to `task`; both mechanisms hold for the thread that asks for them.
    fn confined<T: Send + 'static>(task: Task, work: impl FnOnce() -> T + Send + 'static) -> T {
        let thread = std::thread::spawn(move || {
            rustix::thread::set_no_new_privs(true).unwrap();
            to(&task).unwrap();
            work()
        });
        thread.join().unwrap()
    }

    fn denied<T>(result: io::Result<T>) -> bool {
        result.is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
    }

    /// A base directory with a file, a work copy's directory and a link to a secret beside it.
    fn base() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().join(".t3");
        std::fs::create_dir_all(base.join("userdata")).unwrap();
        std::fs::create_dir_all(base.join(".t3pin/b000001/seed")).unwrap();
        std::fs::write(base.join("userdata/state.sqlite"), "data").unwrap();
        std::fs::write(dir.path().join("secret"), "secret").unwrap();
        std::os::unix::fs::symlink(dir.path().join("secret"), base.join("userdata/link")).unwrap();
        (dir, base)
    }

    #[test]
    fn a_worker_opens_nothing_but_its_data() {
        if ruleset().is_err() {
            // Without Landlock there is nothing here that could forbid it, and that is said.
            assert!(missing_here().is_some());
            return;
        }
        let (dir, base) = base();
        let (userdata, seed) = (base.join("userdata"), base.join(".t3pin/b000001/seed"));
        let secret = dir.path().join("secret");
        confined(Task::Seed { userdata: userdata.clone(), dest: seed.clone() }, move || {
            use rustix::fs::{FileType, mknodat};
            assert_eq!(std::fs::read(userdata.join("state.sqlite")).unwrap(), b"data");
            std::fs::write(seed.join("new"), "copy").unwrap();
            std::fs::rename(seed.join("new"), userdata.join("new")).unwrap();
            std::fs::remove_file(userdata.join("new")).unwrap();
            for elsewhere in [secret.as_path(), &userdata.join("link"), Path::new("/etc/passwd"), Path::new("/proc/self/environ")]
            {
                assert!(denied(std::fs::read(elsewhere)), "{}", elsewhere.display());
            }
            assert!(denied(std::fs::write(secret.with_file_name("made"), "x")));
            assert!(denied(std::fs::remove_file(&secret)));
            assert!(std::fs::rename(&secret, userdata.join("taken")).is_err());
            let fifo = mknodat(CWD, userdata.join("fifo"), FileType::Fifo, Mode::RWXU, 0);
            assert!(denied(fifo.map_err(io::Error::from)));
        });
        assert_eq!(std::fs::read(dir.path().join("secret")).unwrap(), b"secret");
    }

    #[test]
    fn a_worker_opens_no_socket_and_starts_no_program() {
        let (_dir, base) = base();
        confined(Task::Look { userdata: base.join("userdata") }, || {
            assert!(denied(std::net::TcpListener::bind("127.0.0.1:0")));
            assert!(denied(std::os::unix::net::UnixStream::pair()));
            assert!(denied(std::net::UdpSocket::bind("127.0.0.1:0")));
            assert!(denied(std::process::Command::new("/bin/true").spawn()));
        });
    }

    #[test]
    fn a_look_at_a_server_has_the_internet_and_nothing_else() {
        confined(Task::Describe { address: "127.0.0.1:1".to_owned() }, || {
            std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            assert!(denied(std::os::unix::net::UnixDatagram::unbound()));
            assert!(denied(std::process::Command::new("/bin/true").spawn()));
            assert!(ruleset().is_err() || denied(std::fs::read("/etc/passwd")));
        });
    }

    #[test]
    fn a_probe_runs_the_users_t3_and_reads_no_other_home() {
        let (dir, base) = base();
        let elsewhere = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
        let spec = ProbeSpec {
            address: "127.0.0.1:1".to_owned(),
            cli: "/bin/true".into(),
            node: "/usr/bin/node".into(),
            base_dir: base.clone(),
            expect_version: "0.0.25".parse().unwrap(),
            expect_environment_id: None,
            pair_endpoints: vec![],
            dispatch: None,
            request_timeout_ms: 1,
            start_deadline_ms: 1,
            start_ceiling_ms: 1,
            control_group: None,
        };
        let home = std::env::var_os("HOME").map(PathBuf::from);
        confined(Task::Probe(spec), move || {
            assert!(std::process::Command::new("/bin/sh").args(["-c", ": >/dev/null"]).status().unwrap().success());
            std::fs::write(base.join("userdata/written"), "by t3").unwrap();
            assert!(std::fs::read("/etc/passwd").is_ok());
            let is_home = home.is_some_and(|home| elsewhere.starts_with(home));
            assert!(is_home || ruleset().is_err() || denied(std::fs::read(&elsewhere)));
        });
        drop(dir);
    }
}
