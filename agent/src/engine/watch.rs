//! The watch for the life of an instance: what is done about a server that is `active` and that nobody can reach.
//!
//! It is restarted, on the same version and the same data, when three looks in a row were bad, not within `grace` of its start,
//! and only while nothing is in flight: a turn may go on in a server that lost its listener, and "cannot tell" counts as
//! active (promise 4). Three restarts in half an hour did not help: a fourth would not either, so a person is told. The operator's
//! freeze is about changes of version and does not hold a restart up; a bump under way does, because its own phases look after
//! the server then. What the watch must remember is small, and is on the ledger: an agent that is restarted counts on.

use serde::{Deserialize, Serialize};

use crate::domain::UnixMs;

/// That many looks in a row must be bad: one slow answer is no fault.
pub const BAD_LOOKS: u32 = 3;
/// That many restarts...
pub const RESTARTS: usize = 3;
/// ...within this many ms; then a person has to look.
pub const WINDOW_MS: i64 = 30 * 60_000;
/// That many starts by systemd itself within [`WINDOW_MS`] are a crash loop.
pub const CRASHES: u32 = 3;

/// What one look at an instance saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Look {
    /// It answers.
    Well,
    /// It is not to be judged: it does not run, its data is held, a bump is under way, or it could not be told.
    Unclear,
    /// It runs, and nobody can reach it.
    Unreachable {
        /// What was seen.
        reason: String,
        /// For how long this run of it is known, in ms: no more than since its start.
        runs_ms: i64,
    },
    /// It runs, and somebody else listens on its port: a restart would only end it.
    Displaced {
        /// What was seen.
        reason: String,
    },
}

/// What is known of one instance. Only the restarts have to outlive the agent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Watched {
    /// Bad looks in a row.
    pub bad: u32,
    /// When it was restarted, the last [`WINDOW_MS`].
    pub restarts: Restarts,
    /// What is wrong, once that is sure, and why nothing is done about it.
    pub trouble: Option<Trouble>,
}

/// Times of restarts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restarts(Vec<UnixMs>);

/// What is wrong with an instance, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// What was seen.
    pub reason: String,
    /// Why it is not restarted.
    pub left_alone: LeftAlone,
}

/// Why a server that nobody can reach is not restarted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeftAlone {
    /// Something is in flight, or it cannot be told.
    Busy(String),
    /// It was restarted too often already.
    GivenUp,
    /// It would not help.
    Useless,
}

/// What is to be done after a look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Due {
    /// Nothing.
    Nothing,
    /// Look whether anything is in flight, and [`decide`].
    LookAtActivity,
}

/// What was decided about a server that nobody can reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Restart it. The restart has to be on the ledger before.
    Restart {
        /// Why.
        reason: String,
    },
    /// Leave it alone; [`Watched::trouble`] says why.
    Leave,
}

impl Restarts {
    /// How many there were within [`WINDOW_MS`] of `now_ms`, on either side: a clock that was set says nothing about them.
    pub fn recent(&self, now_ms: UnixMs) -> usize {
        self.0.iter().filter(|at| is_recent(**at, now_ms)).count()
    }

    /// Notes one.
    fn note(&mut self, now_ms: UnixMs) {
        self.0.retain(|at| is_recent(*at, now_ms));
        self.0.push(now_ms);
    }
}

fn is_recent(at_ms: UnixMs, now_ms: UnixMs) -> bool {
    now_ms.saturating_sub(at_ms).saturating_abs() <= WINDOW_MS
}

/// Takes up one look. `grace_ms`: a server may take that long to answer after its start.
pub fn step(watched: &mut Watched, look: &Look, grace_ms: i64, now_ms: UnixMs) -> Due {
    match look {
        Look::Well => {
            (watched.bad, watched.trouble) = (0, None);
            Due::Nothing
        }
        // Three looks in a row: what could not be told is none of them.
        Look::Unclear => {
            (watched.bad, watched.trouble) = (0, None);
            Due::Nothing
        }
        Look::Displaced { reason } => {
            watched.bad = watched.bad.saturating_add(1);
            if watched.bad >= BAD_LOOKS {
                watched.trouble = Some(Trouble { reason: reason.clone(), left_alone: LeftAlone::Useless });
            }
            Due::Nothing
        }
        Look::Unreachable { reason, runs_ms } => {
            watched.bad = watched.bad.saturating_add(1);
            if watched.bad < BAD_LOOKS || *runs_ms < grace_ms {
                return Due::Nothing;
            }
            if watched.restarts.recent(now_ms) >= RESTARTS {
                watched.trouble = Some(Trouble { reason: reason.clone(), left_alone: LeftAlone::GivenUp });
                return Due::Nothing;
            }
            Due::LookAtActivity
        }
    }
}

/// After [`Due::LookAtActivity`]: `busy` is why it counts as active, `None` when nothing is in flight. A restart is noted here.
pub fn decide(watched: &mut Watched, look: &Look, busy: Option<String>, now_ms: UnixMs) -> Decision {
    let Look::Unreachable { reason, .. } = look else { return Decision::Leave };
    match busy {
        Some(busy) => {
            watched.trouble = Some(Trouble { reason: reason.clone(), left_alone: LeftAlone::Busy(busy) });
            Decision::Leave
        }
        None if watched.restarts.recent(now_ms) >= RESTARTS => {
            watched.trouble = Some(Trouble { reason: reason.clone(), left_alone: LeftAlone::GivenUp });
            Decision::Leave
        }
        None => {
            watched.restarts.note(now_ms);
            (watched.bad, watched.trouble) = (0, None);
            Decision::Restart { reason: reason.clone() }
        }
    }
}

impl Trouble {
    /// What is wrong and what to do, for people. `unit` is the instance's.
    pub fn in_words(&self, unit: &str) -> String {
        let reason = &self.reason;
        match &self.left_alone {
            LeftAlone::Busy(busy) => {
                format!("{reason}; it is not restarted, because {busy}. At that price: systemctl restart {unit}")
            }
            LeftAlone::GivenUp => format!(
                "{reason}; {RESTARTS} restarts within {} min have not helped, and it is left alone now. See journalctl -u {unit}",
                WINDOW_MS / 60_000
            ),
            LeftAlone::Useless => {
                format!("{reason}; a restart would not help. End what listens there, or give {unit} another port")
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GRACE: i64 = 120_000;

    fn unreachable(runs_ms: i64) -> Look {
        Look::Unreachable { reason: "nobody listens on port 3773".to_owned(), runs_ms }
    }

    fn looks() -> impl Strategy<Value = Look> {
        prop_oneof![
            6 => (0i64..600_000).prop_map(unreachable),
            1 => Just(Look::Well),
            1 => Just(Look::Unclear),
            1 => Just(Look::Displaced { reason: "x".to_owned() }),
        ]
    }

    fn busy() -> impl Strategy<Value = Option<String>> {
        prop_oneof![3 => Just(None), 1 => Just(Some("a turn is in flight".to_owned()))]
    }

    #[test]
    fn the_third_bad_look_in_a_row_restarts_an_idle_server() {
        let mut watched = Watched::default();
        let mut look = |now| step(&mut watched, &unreachable(GRACE), GRACE, now);
        assert_eq!([look(0), look(1), look(2)], [Due::Nothing, Due::Nothing, Due::LookAtActivity]);
        assert!(matches!(decide(&mut watched, &unreachable(GRACE), None, 2), Decision::Restart { .. }));
        assert_eq!(step(&mut watched, &unreachable(GRACE), GRACE, 3), Due::Nothing, "it counts anew");
    }

    #[test]
    fn a_busy_server_is_left_alone_and_told_of_until_it_is_idle() {
        let mut watched = Watched { bad: 9, ..Watched::default() };
        assert_eq!(step(&mut watched, &unreachable(GRACE), GRACE, 0), Due::LookAtActivity);
        assert_eq!(decide(&mut watched, &unreachable(GRACE), Some("a turn is in flight".to_owned()), 0), Decision::Leave);
        let told = watched.trouble.as_ref().unwrap().in_words("t3-serve@alice.service");
        assert!(told.contains("a turn is in flight") && told.contains("systemctl restart t3-serve@alice.service"), "{told}");
        assert_eq!(step(&mut watched, &unreachable(GRACE), GRACE, 1), Due::LookAtActivity, "and is looked at again");
        step(&mut watched, &Look::Well, GRACE, 2);
        assert_eq!(watched.trouble, None);
    }

    #[test]
    fn what_three_restarts_did_not_help_is_left_to_a_person_until_half_an_hour_is_over() {
        let mut watched = Watched { bad: BAD_LOOKS, restarts: Restarts(vec![0, 1, 2]), trouble: None };
        assert_eq!(step(&mut watched, &unreachable(GRACE), GRACE, WINDOW_MS), Due::Nothing);
        assert_eq!(watched.trouble.as_ref().unwrap().left_alone, LeftAlone::GivenUp);
        assert_eq!(step(&mut watched, &unreachable(GRACE), GRACE, WINDOW_MS + 1), Due::LookAtActivity);
    }

    #[test]
    fn a_port_that_somebody_else_has_is_told_of_and_nothing_is_restarted() {
        let mut watched = Watched::default();
        for _ in 0..10 {
            assert_eq!(step(&mut watched, &Look::Displaced { reason: "x".to_owned() }, GRACE, 0), Due::Nothing);
        }
        assert_eq!(watched.trouble.unwrap().left_alone, LeftAlone::Useless);
    }

    proptest! {
        /// Whatever is seen, whenever, on a clock that goes forward, also over restarts of the agent, which remembers the
        /// restarts and nothing else.
        #[test]
        fn restarts_keep_to_all_of_their_rules(
            seen in prop::collection::vec((looks(), busy(), 0i64..120_000, prop::bool::weighted(0.05)), 1..400)
        ) {
            let (mut watched, mut now, mut restarted, mut row) = (Watched::default(), 1_000_000_000_000i64, Vec::new(), 0);
            for (look, busy, later, forgets) in seen {
                now += later;
                if forgets {
                    watched = Watched { restarts: watched.restarts, ..Watched::default() };
                    row = 0;
                }
                row = if matches!(look, Look::Unreachable { .. } | Look::Displaced { .. }) { row + 1 } else { 0 };
                if step(&mut watched, &look, GRACE, now) == Due::LookAtActivity
                    && let Decision::Restart { .. } = decide(&mut watched, &look, busy.clone(), now)
                {
                    prop_assert_eq!(busy, None, "somebody works there");
                    let Look::Unreachable { runs_ms, .. } = look else { panic!("{look:?}") };
                    prop_assert!(runs_ms >= GRACE, "{runs_ms} ms after its start");
                    prop_assert!(row >= BAD_LOOKS, "after {row} bad looks in a row");
                    restarted.push(now);
                    row = 0;
                }
            }
            for at in &restarted {
                let within = restarted.iter().filter(|other| (0..=WINDOW_MS).contains(&(*other - at))).count();
                prop_assert!(within <= RESTARTS, "{within} restarts in half an hour");
            }
        }

        /// Also on a clock that is set: whatever happens, what was decided is never more than what the window around now allows.
        #[test]
        fn a_clock_that_is_set_allows_no_more_restarts_around_any_moment(times in prop::collection::vec(-4_000_000i64..4_000_000, 1..200)) {
            let mut watched = Watched::default();
            for now in times {
                watched.bad = BAD_LOOKS;
                let before = watched.restarts.recent(now);
                let restarts = step(&mut watched, &unreachable(GRACE), GRACE, now) == Due::LookAtActivity
                    && matches!(decide(&mut watched, &unreachable(GRACE), None, now), Decision::Restart { .. });
                prop_assert_eq!(restarts, before < RESTARTS);
                prop_assert!(watched.restarts.recent(now) <= RESTARTS);
            }
        }
    }
}
