//! Looking at the host for the engine: which instances there are, what they run and want, and whether they are busy.

use std::collections::BTreeSet;
use std::time::Duration;

use super::sights::{Seen, Watch};
use super::{Agent, now_ms};
use crate::activity;
use crate::config::Pin;
use crate::domain::{Activity, BusyReason, DeferralOwner, Instance, Place, UnixMs, UserName, Wait};
use crate::engine::rollout::{Decision, HostView, InstanceView, decide};
use crate::engine::sight::Sight;
use crate::engine::waits::{Hurry, hurry, next_rule, waits};
use crate::engine::{Bump, Phase};
use crate::host::{accounts, instances};
use crate::journal::JournalError;
use crate::kill_point::{self, Point};
use crate::state::StateError;
use crate::systemd::UnitState;

/// One look may take this long; then the activity is unknown, which means busy.
const LOOK: Duration = Duration::from_secs(5);
/// Whether another manager of a server is gone is looked at again after this, in ms.
const RIVALS_AGAIN_MS: i64 = 15_000;

impl Agent {
    /// All users with an instance: known to systemd, or with an environment file.
    pub async fn users(&self) -> Vec<UserName> {
        let units = self.systemd.instances().await.unwrap_or_else(|error| {
            tracing::warn!("{error}; only instances with an environment file are seen");
            vec![]
        });
        let files = self.env.users().unwrap_or_else(|error| {
            tracing::warn!("the environment files could not be listed: {error}");
            vec![]
        });
        let known = units.iter().filter_map(|unit| UserName::from_unit(unit)).chain(files).collect::<BTreeSet<_>>();
        known.into_iter().filter(|user| self.is_held(user)).collect()
    }

    /// Neither let go of by order (`t3pin unenroll`) nor deleted from the host. A user database that cannot be asked deletes nobody.
    fn is_held(&self, user: &UserName) -> bool {
        let deleted = matches!(accounts::lookup(user), Ok(None));
        !deleted && !self.journal.is_released(user).unwrap_or(false)
    }

    /// What the engine needs to know. `pin` is what counts; users for whom the pin `enforced` by order said something else are
    /// marked, so that nothing new begins for them unasked (`None`: an order is being carried out, everything counts).
    pub async fn survey(&self, pin: &Pin, enforced: Option<&Pin>) -> Result<HostView, SurveyError> {
        let mut view = self.host_view()?;
        let mut waits = self.journal.waits()?;
        for user in self.users().await {
            let wait = waits.remove(&user).unwrap_or_default();
            let mut seen = self.instance_view(pin, enforced, &user, wait)?;
            self.look_closer(&view, &mut seen).await;
            view.instances.push(seen);
        }
        Ok(view)
    }

    /// As [`Agent::survey`] while an order to enforce is carried out, without a look at anybody.
    pub async fn foresee(&self, pin: &Pin) -> Result<HostView, SurveyError> {
        let mut view = self.host_view()?;
        view.enforced_ms = view.now_ms;
        let mut waits = self.journal.waits()?;
        for user in self.users().await {
            let wait = waits.remove(&user).unwrap_or_default();
            view.instances.push(self.instance_view(pin, None, &user, wait)?);
        }
        Ok(view)
    }

    /// The host without its instances.
    fn host_view(&self) -> Result<HostView, SurveyError> {
        let settings = self.settings();
        Ok(HostView {
            now_ms: now_ms(),
            frozen: self.journal.freeze()?.map(|freeze| freeze.reason.unwrap_or_else(|| "no reason given".to_owned())),
            installed: self.store.list()?.into_iter().map(|installed| installed.version).collect(),
            quarantine: self.journal.quarantine()?.into_iter().map(|q| (q.version, q.reason)).collect(),
            uninstallable: self.board.uninstallable(),
            cramped: self.board.cramped(),
            cleared: self.journal.cleared()?,
            attended: self.journal.attended()?,
            enforced_ms: self.tried_from_ms()?,
            rules: self.rules(),
            closed: settings.drain.window.closed(now_ms()),
            instances: vec![],
        })
    }

    /// One instance, as [`Agent::survey`] would see it, in a view of its own.
    pub async fn survey_of(&self, pin: &Pin, enforced: Option<&Pin>, user: &UserName) -> Result<HostView, SurveyError> {
        let mut view = self.host_view()?;
        let mut seen = self.instance_view(pin, enforced, user, self.journal.wait(user)?)?;
        self.look_closer(&view, &mut seen).await;
        view.instances.push(seen);
        Ok(view)
    }

    /// What the journal and the store know of an instance.
    fn instance_view(&self, pin: &Pin, enforced: Option<&Pin>, user: &UserName, wait: Wait) -> Result<InstanceView, SurveyError> {
        let wanted = pin.wanted(user).clone();
        Ok(InstanceView {
            bound: self.store.binding(user)?,
            stopped: false,
            unenforced: enforced.is_some_and(|enforced| *enforced.wanted(user) != wanted),
            problem: None,
            rivals: None,
            activity: None,
            busy_until_ms: None,
            wait,
            calls: false,
            open: self.journal.open_bump(user)?.map(lean),
            last: self.journal.closed_bumps(Some(user), 1)?.into_iter().next().map(lean),
            tried: self.journal.last_closed_to(user, &wanted)?.map(lean),
            user: user.clone(),
            wanted,
        })
    }

    /// What only matters for an instance that is to change: its settings, its unit, its activity. Nobody is looked at before
    /// their next look is due.
    async fn look_closer(&self, view: &HostView, seen: &mut InstanceView) {
        let resting = seen.open.as_ref().is_none_or(|open| matches!(open.phase, Phase::Planned | Phase::Ready));
        if !resting || seen.bound.is_none() || seen.bound.as_ref() == Some(&seen.wanted) {
            return;
        }
        if self.sights.recall(seen, view.now_ms) {
            return;
        }
        let watch = self.look_afresh(view, seen).await;
        let now = now_ms();
        let waits = waits(view, seen);
        let earliest_ms = waits.as_ref().and_then(|waits| waits.until_ms);
        let waits = waits.filter(|waits| waits.owner != DeferralOwner::Activity).and_then(|waits| waits.until_ms);
        let gone = seen.rivals.is_some().then_some(now.saturating_add(RIVALS_AGAIN_MS));
        let activity = seen.activity.clone();
        self.sights.note(
            &seen.user,
            Seen {
                stopped: seen.stopped,
                problem: seen.problem.clone(),
                rivals: seen.rivals.clone(),
                sight: activity.map(|activity| Sight { at_ms: now, activity, moved_ms: None, busy_until_ms: None, tries: 0 }),
                watch,
                quiet_ms: if hurry(&seen.wait, now, &view.rules) == Hurry::None { view.rules.quiet_ms } else { 0 },
                at_ms: now,
                earliest_ms,
                until_ms: waits.into_iter().chain(gone).chain(next_rule(&seen.wait, now, &view.rules)).min(),
            },
        );
        // What was known before of jobs in terminals counts on.
        self.sights.recall(seen, UnixMs::MIN);
    }

    async fn look_afresh(&self, view: &HostView, seen: &mut InstanceView) -> Option<Watch> {
        let user = &seen.user;
        let instance = match instances::of(&self.env, user) {
            Ok(instance) => instance,
            Err(error) => {
                seen.problem = Some(error.to_string());
                return None;
            }
        };
        match self.systemd.unit(&instance.unit).await {
            Ok(state) if unloadable(&state).is_some() => {
                seen.problem = unloadable(&state).map(|why| format!("{} {why}", instance.unit))
            }
            Ok(_) if !self.starts_binding(&instance).await => {
                seen.problem = Some(format!(
                    "{} does not start what t3pin binds {user} to (its ExecStart= was changed); t3pin enroll {user} puts that right",
                    instance.unit
                ));
            }
            Ok(state) => {
                seen.stopped = state.active_state == "inactive";
                match self.rivals(&instance.place, &state.control_group).await {
                    Ok(rivals) => seen.rivals = rivals.map(|rivals| rivals.to_string()),
                    Err(why) => {
                        let why = format!("whether something else manages this server could not be looked at: {why}");
                        seen.activity = Some(Activity::Unknown { why });
                        return None;
                    }
                }
                // What waits for something else, or must not be done at all, needs no look.
                if !matches!(decide(view, seen), Decision::Bump(_)) {
                    return None;
                }
                // Before the look, so that whatever moves meanwhile is a move.
                let watch = Watch::of(instance.place.clone(), &state.control_group).await;
                seen.activity = Some(self.activity(&instance.place, &state.control_group, LOOK).await);
                return Some(watch);
            }
            Err(error) => seen.problem = Some(error.to_string()),
        }
        None
    }

    /// Whether the unit starts the binding, in whatever way: one that starts a version of its own would run it on data that was
    /// made for another. When systemd does not answer, nothing is known against it.
    pub(super) async fn starts_binding(&self, instance: &Instance) -> bool {
        let binding = format!("/bindings/{}/", instance.user());
        match self.systemd.start_line(&instance.unit).await {
            Ok(start) => start.arguments.iter().any(|argument| argument.contains(&binding)),
            Err(_) => true,
        }
    }

    /// One look at an instance: is work in flight, or has somebody else the database open? Stopping the server for a bump that
    /// must then be undone because of them would only interrupt its user.
    pub async fn activity(&self, place: &Place, control_group: &str, deadline: Duration) -> Activity {
        // One after the other: the worker that looks has the database open itself.
        let stale_after = i64::try_from(self.settings().stale_after.as_millis()).unwrap_or(i64::MAX);
        let activity = activity::look(place, control_group, deadline).await.with_stale_marked(now_ms(), stale_after);
        let held = self.vault.refuse_held(place, control_group).await;
        match (activity, held) {
            (Activity::Busy { mut reasons }, Err(StateError::Held { holders, .. })) => {
                reasons.push(BusyReason::DatabaseOpen { holders });
                Activity::Busy { reasons }
            }
            (_, Err(StateError::Held { holders, .. })) => Activity::Busy { reasons: vec![BusyReason::DatabaseOpen { holders }] },
            // What else is wrong with the place, the bump's own steps find and say.
            (activity, _) => activity,
        }
    }

    /// A new planned bump, written to the journal.
    pub fn plan_bump(
        &self,
        instance: Instance,
        from: &crate::domain::Version,
        to: &crate::domain::Version,
        reason: String,
    ) -> Result<Bump, JournalError> {
        let soak_ms = i64::try_from(self.settings().soak.as_millis()).unwrap_or(i64::MAX);
        let bump = Bump::planned(self.journal.new_bump_id()?, instance, from.clone(), to.clone(), reason, soak_ms, now_ms());
        self.journal.record(&bump, None, now_ms())?;
        kill_point::reach(Some(bump.instance.user()), Point::Recorded(bump.phase));
        Ok(bump)
    }
}

/// A bump as far as the decisions about many need it: without its reports, which are most of it.
fn lean(bump: Bump) -> Bump {
    Bump { rehearsal: None, baseline: None, probe: None, paired: None, lost: None, snapshot: None, ..bump }
}

/// Why systemd would not start a unit at all. A bump of it could neither be finished nor undone.
pub fn unloadable(unit: &UnitState) -> Option<String> {
    match unit.load_state.as_str() {
        "loaded" => None,
        "masked" => Some("is masked, so that nothing can start it; systemctl unmask lifts that".to_owned()),
        other => Some(format!("cannot be loaded by systemd ({other}); see systemctl status")),
    }
}

/// Why the host could not be looked at.
#[derive(Debug, thiserror::Error)]
pub enum SurveyError {
    /// The journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The version store.
    #[error("the version store could not be read: {0}")]
    Store(#[from] std::io::Error),
}
