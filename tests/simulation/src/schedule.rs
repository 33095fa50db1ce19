//! A schedule: a host, a release, and what goes wrong when. All of it is made from one number.

use crate::rng::Rng;
use crate::t3::Flaw;

/// One schedule.
#[derive(Debug, Clone)]
pub struct Schedule {
    /// Its number.
    pub seed: u64,
    /// The host.
    pub stage: Stage,
    /// What happens to it, in no order.
    pub faults: Vec<Fault>,
}

/// The host, and the release that its pin asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stage {
    /// How many users it has.
    pub users: usize,
    /// What is wrong with the new release.
    pub flaw: Flaw,
    /// Only where it is live: a rehearsal does not show it.
    pub only_live: bool,
    /// After the first bump there comes another one, to a release without fault.
    pub twice: bool,
    /// The site's proxy is down, for every version.
    pub proxy_down: bool,
    /// The users write down their last work in the log, and the server was killed: it is still there.
    pub with_log: bool,
    /// How many snapshots are kept.
    pub keep: usize,
    /// When the power comes back, servers start before the agent.
    pub servers_first: bool,
}

/// One thing that goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// When.
    pub at: At,
    /// What.
    pub what: What,
}

/// When something happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum At {
    /// At this call to the kernel, to systemd or to a server, counted from 1: a change or a look, a sync or a probe.
    Call(u64),
    /// Before this round of the agent's.
    Round(u32),
}

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// The agent is killed.
    Kill,
    /// The power is cut; the number decides what the disk had.
    PowerCut(u64),
    /// So many calls to the disk fail.
    Disk(DiskError, u32),
    /// So many calls to systemd, workers, probes and sandboxes fail.
    Host(HostError, u32),
    /// So many records cannot be written; of what fails, all or nothing was written.
    Ledger { times: u32, written: bool },
    /// No more than so many bytes are free from now on.
    Full(u64),
    /// There is room again.
    Room,
    /// This user begins to work.
    TurnBegins(usize),
    /// This user's work ends.
    TurnEnds(usize),
    /// This user writes something.
    Writes(usize),
    /// Whether this user works cannot be told for the next so many looks.
    Unreadable(usize, u32),
    /// This user logs out, and the home goes away.
    HomeGone(usize),
    /// The home is back.
    HomeBack(usize),
    /// The account is deleted; files stay.
    AccountDeleted(usize),
    /// A process of the user's opens the database, outside of the server.
    Opened(usize),
    /// And closes it.
    ClosedAgain(usize),
    /// The clock jumps by so many ms.
    Clock(i64),
    /// The user puts traps where the data lies.
    Trap(usize, Trap),
    /// Somebody restarts the server.
    Restarted(usize),
    /// Somebody gives an order.
    Order(usize, Order),
    /// The live server is found sick so many times.
    Sick(usize, u32),
    /// A look at the soak tells nothing, so many times.
    Dim(u32),
}

/// Errors of the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskError {
    /// ENOSPC.
    NoSpace,
    /// EIO.
    Io,
    /// EACCES.
    Access,
}

/// Errors of everything else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostError {
    /// No answer in time.
    Timeout,
    /// The job of the unit failed.
    UnitFailed,
    /// It could not be told.
    Unclear,
}

/// Traps of a user's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trap {
    /// The database becomes a link.
    LinkedDatabase,
    /// `userdata` becomes a link.
    LinkedUserdata,
    /// The database gets a second name.
    HardLink,
    /// The copy is removed.
    NoCopy,
}

/// Orders of operators.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// `t3pin rollback`.
    Rollback,
    /// `t3pin rollback --force`.
    ForcedRollback,
    /// `t3pin freeze`.
    Freeze,
    /// `t3pin thaw`.
    Thaw,
    /// Back to the old pin: what waits is called off.
    OldPin,
    /// The new pin again, enforced.
    NewPin,
    /// `t3pin now --force`.
    NowByForce,
    /// `t3pin versions clear`.
    Clear,
    /// `t3pin versions retry`.
    Retry,
}

const YEAR: i64 = 365 * 86_400_000;

impl Schedule {
    /// The schedule of this number. `calls` says how many calls a stage takes when nothing goes wrong.
    pub fn of(seed: u64, calls: impl Fn(Stage) -> u64) -> Self {
        let mut rng = Rng::new(seed);
        let stage = Stage {
            users: if rng.chance(70) { 1 } else { rng.pick(&[2, 3]) },
            flaw: if rng.chance(45) { Flaw::None } else { rng.pick(&Flaw::ALL) },
            only_live: rng.chance(80),
            twice: rng.chance(20),
            proxy_down: rng.chance(5),
            with_log: rng.chance(40),
            keep: rng.pick(&[1, 2]),
            servers_first: rng.chance(50),
        };
        let calls = calls(stage).max(1);
        let mut faults = Vec::new();
        let crash = |rng: &mut Rng| if rng.chance(40) { What::Kill } else { What::PowerCut(rng.next()) };
        let many = match rng.below(10) {
            0..4 => 1,
            4..7 => 2,
            7..9 => 3,
            _ => 6,
        };
        let story = rng.below(100);
        let order = match story {
            0..15 => Some(Order::Rollback),
            15..30 => Some(Order::ForcedRollback),
            30..40 => {
                let others =
                    [Order::Freeze, Order::Thaw, Order::OldPin, Order::NewPin, Order::NowByForce, Order::Clear, Order::Retry];
                Some(rng.pick(&others))
            }
            _ => None,
        };
        if let Some(order) = order {
            let user = rng.below(stage.users as u64) as usize;
            for _ in 0..rng.pick(&[1, 1, 1, 2, 3]) {
                let at = At::Round(rng.below(14) as u32);
                faults.push(Fault { at, what: What::Order(user, order) });
                // An order that is given while nothing answers.
                if rng.chance(15) {
                    let error = rng.pick(&[HostError::Timeout, HostError::UnitFailed]);
                    faults.push(Fault { at, what: What::Host(error, rng.pick(&[2, 4, 6, 8])) });
                }
            }
        }
        for _ in 0..many {
            let what = match rng.below(10) {
                0..4 => crash(&mut rng),
                4..7 => Self::failure(&mut rng),
                _ => Self::turmoil(&mut rng, stage.users),
            };
            // Some come while what an earlier one did is still being made good, which takes calls of its own.
            let at = match what {
                What::Order(..) => At::Round(rng.below(16) as u32),
                _ if rng.chance(5) => At::Round(rng.below(16) as u32),
                _ => At::Call(1 + rng.below(calls + calls / 2)),
            };
            faults.push(Fault { at, what });
            // Double faults: the second one soon after the first.
            if let (At::Call(call), true) = (at, rng.chance(35)) {
                let what = if rng.chance(60) { crash(&mut rng) } else { Self::failure(&mut rng) };
                faults.push(Fault { at: At::Call(call + 1 + rng.below(60)), what });
            }
        }
        Self { seed, stage, faults }
    }

    fn failure(rng: &mut Rng) -> What {
        let times = rng.pick(&[1, 1, 1, 2, 3, 5, 12]);
        match rng.below(10) {
            0..4 => What::Disk(rng.pick(&[DiskError::NoSpace, DiskError::Io, DiskError::Access]), times),
            4..8 => What::Host(rng.pick(&[HostError::Timeout, HostError::UnitFailed, HostError::Unclear]), times),
            8 => What::Ledger { times, written: rng.chance(50) },
            _ => What::Full(rng.pick(&[0, 100, 500, 2_000, 10_000, 64 << 20])),
        }
    }

    fn turmoil(rng: &mut Rng, users: usize) -> What {
        let user = rng.below(users as u64) as usize;
        match rng.below(24) {
            0..3 => What::TurnBegins(user),
            3 => What::TurnEnds(user),
            4..6 => What::Writes(user),
            6 => What::Unreadable(user, 3),
            7 => What::HomeGone(user),
            8 => What::HomeBack(user),
            9 => What::AccountDeleted(user),
            10 => What::Opened(user),
            11 => What::ClosedAgain(user),
            12..14 => What::Clock(rng.pick(&[-YEAR, -86_400_000, -60_000, 60_000, 86_400_000, YEAR])),
            14 => {
                let traps = [Trap::LinkedDatabase, Trap::LinkedUserdata, Trap::HardLink, Trap::NoCopy];
                What::Trap(user, rng.pick(&traps))
            }
            15 => What::Restarted(user),
            16 => What::Room,
            17..19 => What::Sick(user, rng.pick(&[1, 3, 4])),
            19 => What::Dim(rng.pick(&[1, 3])),
            _ => What::Order(
                user,
                rng.pick(&[
                    Order::Rollback,
                    Order::Rollback,
                    Order::ForcedRollback,
                    Order::ForcedRollback,
                    Order::Freeze,
                    Order::Thaw,
                    Order::OldPin,
                    Order::NewPin,
                    Order::NowByForce,
                    Order::Clear,
                    Order::Retry,
                    Order::Retry,
                ]),
            ),
        }
    }
}
