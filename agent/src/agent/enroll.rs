//! Making an instance of a user, or taking over one that is there. Idempotent; never migrates anybody's data and never stops a
//! running server.

use std::time::Duration;

use super::Agent;
use super::own_unit::{self, Listens};
use super::runs::Run;
use super::unit_file;
use crate::api::types::{EnrollRequest, RunOutcome};
use crate::domain::{Account, Instance, Place, UserName, Verdict, Version};
use crate::engine::judge;
use crate::health;
use crate::host::{accounts, instances, ports};
use crate::systemd::UnitState;

/// Where a server listens when nothing is said.
const LOOPBACK: &str = "127.0.0.1";
/// A server that was started just now gets this long to answer before the run ends (it goes on by itself).
const START: Duration = Duration::from_secs(200);

impl Agent {
    /// Carries out an order to enroll a user.
    pub async fn enroll(&self, request: &EnrollRequest, run: &Run) {
        match self.enroll_user(request, run).await {
            Ok(message) => {
                tracing::info!(T3PIN_USER = %request.user, "{message}");
                run.end(RunOutcome::Done, message);
            }
            Err(refusal) => {
                tracing::warn!(T3PIN_USER = %request.user, "{} was not enrolled: {refusal}", request.user);
                run.end(RunOutcome::Refused, refusal);
            }
        }
    }

    async fn enroll_user(&self, request: &EnrollRequest, run: &Run) -> Result<String, String> {
        let user = &request.user;
        self.journal.set_released(user, false).map_err(text)?;
        self.board.set_doing("bumping", format!("enrolling {user}"));
        let account = accounts::lookup(user).map_err(text)?.ok_or_else(|| format!("this host has no user {user}"))?;
        if account.uid == 0 {
            return Err("t3pin runs no server as root".to_owned());
        }
        let place = Place::of(account.clone());
        let state = self.systemd.unit(&user.unit()).await.map_err(text)?;
        self.refuse_rivals(user, &place, &state).await?;
        let listens = self.listens(user, &place, &state).await?;
        let port = self.port_for(request, listens.port)?;
        let host = self.host_for(user, listens.host)?;
        let bound = self.store.binding(user).map_err(text)?;
        let instance = Instance { host: host.clone(), port, unit: user.unit(), place };
        self.refuse_strangers(&instance, &state).await?;
        let version = match &bound {
            Some(bound) => bound.clone(),
            None => self.version_for(request, &instance, run).await?,
        };
        let said = (host != LOOPBACK).then_some(host.as_str());
        self.env.write(user, port, said).map_err(text)?;
        if bound.is_none() {
            self.store.bind(user, &version).map_err(text)?;
            run.say(format!("{user}: bound to t3 {version}"));
        }
        let instance = instances::of(&self.env, user).map_err(text)?;
        self.bring_up(&instance, &account, &version, run).await
    }

    /// Where a unit of the host's own that is taken over now lets its server listen.
    async fn listens(&self, user: &UserName, place: &Place, state: &UnitState) -> Result<Listens, String> {
        if !unit_file::is_foreign(&state.fragment_path) || unit_file::is_adopted(&state.drop_in_paths) {
            return Ok(Listens::default());
        }
        let start = self.systemd.start_line(&user.unit()).await.map_err(text)?;
        let file = |name: &str| self.env.value(user, name).ok().flatten();
        own_unit::listens(&start, &place.base_dir, &file).map_err(|why| format!("{why} ({}). Nothing was changed", user.unit()))
    }

    /// The address in the environment file, which must be what a unit of the host's own says (`own`); loopback when nothing is said.
    fn host_for(&self, user: &UserName, own: Option<String>) -> Result<String, String> {
        match (self.env.read(user).map_err(text)?.and_then(|env| env.host), own) {
            (Some(has), Some(own)) if has != own => Err(format!(
                "{} says T3_HOST={has}, but {} listens on {own}; make them agree, then enroll again",
                self.env.path(user).display(),
                user.unit()
            )),
            (has, own) => Ok(has.or(own).unwrap_or_else(|| LOOPBACK.to_owned())),
        }
    }

    /// The port asked for, else the one the instance has (`own`: from a unit of the host's own), else a free one.
    fn port_for(&self, request: &EnrollRequest, own: Option<u16>) -> Result<u16, String> {
        let user = &request.user;
        let has = self.env.read(user).map_err(text)?.and_then(|env| env.port).and_then(|port| port.parse::<u16>().ok());
        if let (Some(has), Some(own)) = (has, own)
            && has != own
        {
            return Err(format!(
                "{} says T3_PORT={has}, but {} listens on {own}; make them agree, then enroll again",
                self.env.path(user).display(),
                user.unit()
            ));
        }
        let has = has.or(own);
        match (has, request.port) {
            (Some(has), Some(wanted)) if has != wanted => Err(format!(
                "{user} has port {has}; to move the server to {wanted}, change T3_PORT in {} and restart {}",
                self.env.path(user).display(),
                user.unit()
            )),
            (Some(has), _) => Ok(has),
            (None, wanted) => {
                let taken = ports::taken(&self.env).map_err(text)?;
                match wanted {
                    Some(port) if taken.contains(&port) => Err(format!("port {port} belongs to another instance")),
                    Some(port) => Ok(port),
                    None => {
                        ports::free(self.settings().first_port, &taken).map_err(text)?.ok_or_else(|| "no port is free".to_owned())
                    }
                }
            }
        }
    }

    /// Whoever else manages the server has to be gone first.
    async fn refuse_rivals(&self, user: &UserName, place: &Place, state: &UnitState) -> Result<(), String> {
        match self.rivals(place, &state.control_group).await {
            Ok(None) => Ok(()),
            Ok(Some(rivals)) => Err(format!("{rivals}; then enroll {user} again. Nothing was changed")),
            Err(why) => {
                Err(format!("whether something else manages this server could not be looked at: {why}. Nothing was changed"))
            }
        }
    }

    /// A server that is to be started needs its port, and its data for itself: t3 does not lock it, and two servers on one
    /// database break it (T3-CONTRACT section 7).
    async fn refuse_strangers(&self, instance: &Instance, state: &UnitState) -> Result<(), String> {
        let (user, unit) = (instance.user(), &instance.unit);
        if !matches!(state.active_state.as_str(), "inactive" | "failed") && state.sub_state != "auto-restart" {
            let adopted = !unit_file::is_foreign(&state.fragment_path) || unit_file::is_adopted(&state.drop_in_paths);
            let address = instance.probe_address();
            if adopted || health::describe(&instance.place.account, &address).await.ok().flatten().is_some() {
                return Ok(());
            }
            return Err(format!(
                "{unit} runs, but nobody answers on {address}. Where it listens has to be known before it can be taken over: \
                 write T3_HOST and T3_PORT into {}. Nothing was changed",
                self.env.path(user).display()
            ));
        }
        if !ports::is_quiet(instance.port)
            .map_err(|error| format!("who listens on port {} cannot be told: {error}", instance.port))?
        {
            return Err(format!(
                "another program than {unit} listens on port {}; stop it, or give {user} another port (--port N)",
                instance.port
            ));
        }
        self.vault
            .refuse_held(&instance.place, "")
            .await
            .map_err(|error| format!("{error}. {unit} is not running, so this is not its server"))
    }

    /// Which version to bind a new instance to: the one that answers, the one that is said, else the pinned one if the data
    /// there is (if any) is of that version already.
    async fn version_for(&self, request: &EnrollRequest, instance: &Instance, run: &Run) -> Result<Version, String> {
        let answers = health::describe(&instance.place.account, &instance.probe_address()).await.ok().flatten();
        let known = answers.and_then(|descriptor| descriptor.server_version).or_else(|| request.version.clone());
        let pin = self.pins.look(&self.journal);
        let version = match (known, &pin.good) {
            (Some(known), _) => known,
            (None, Some(good)) if pin.error.is_none() => good.wanted(&request.user).clone(),
            (None, _) => {
                let why = pin.error.map_or("nothing is pinned".to_owned(), |error| error.to_string());
                return Err(format!("{why}; write the version into {} first, or give --version", self.pins.path().display()));
            }
        };
        if self.store.get(&version).map_err(text)?.is_none() {
            let pin =
                pin.good.unwrap_or(crate::config::Pin { version: version.clone(), integrity: None, users: Default::default() });
            self.board.clear_uninstallable();
            self.install(&version, &pin, &|line| run.say(line)).await;
            if let Some(reason) = self.board.uninstallable().remove(&version) {
                return Err(reason);
            }
        }
        self.fits_data(instance, &version).await?;
        Ok(version)
    }

    /// Data that is there already must work with `version` and must not be migrated by it: enrolling is no bump.
    async fn fits_data(&self, instance: &Instance, version: &Version) -> Result<(), String> {
        let id = self.journal.new_bump_id().map_err(text)?;
        let (home, copied) = self.vault.copy_live(&instance.place, id, Duration::from_secs(3600)).await.map_err(text)?;
        let result = match copied.migration_level {
            None => Ok(()),
            Some(level) => {
                let spec = self.rehearsal_spec(instance, version);
                match health::rehearse(&self.systemd, &instance.place.account, id, &home, &copied, spec).await {
                    Err(error) => Err(error.to_string()),
                    Ok(report) if report.level_after != Some(level) => {
                        let after = report.level_after.map_or("nothing".to_owned(), |level| level.to_string());
                        Err(format!("there is data at migration level {level}, and {version} would migrate it to {after}"))
                    }
                    Ok(report) => match judge::rehearsal(&report, None) {
                        Verdict::Healthy => Ok(()),
                        Verdict::Unhealthy { reason } | Verdict::Inconclusive { reason } => {
                            Err(format!("there is data that {version} does not work with: {reason}"))
                        }
                    },
                }
            }
        };
        self.vault.discard_work(&instance.place, id).await.map_err(text)?;
        let user = instance.user();
        result.map_err(|why| {
            format!("{why}. Give the version that wrote it (t3pin enroll {user} --version V); the pin then moves it reversibly")
        })
    }

    async fn bring_up(&self, instance: &Instance, account: &Account, version: &Version, run: &Run) -> Result<String, String> {
        let user = instance.user();
        let state = self.systemd.unit(&instance.unit).await.map_err(text)?;
        if unit_file::adopt(user, &state.fragment_path).map_err(text)? {
            self.systemd.daemon_reload().await.map_err(text)?;
            run.say(format!("{user}: the host's own {} is kept; a drop-in makes it start the binding", instance.unit));
        }
        self.systemd.enable(&instance.unit).await.map_err(text)?;
        self.systemd.start(&instance.unit, START).await.map_err(text)?;
        run.say(format!("{user}: {} is started", instance.unit));
        let begun = std::time::Instant::now();
        while begun.elapsed() < self.settings().start_deadline {
            if let Ok(Some(descriptor)) = health::describe(account, &instance.probe_address()).await {
                let running = descriptor.server_version.clone();
                if let Ok(state) = self.systemd.unit(&instance.unit).await {
                    self.board.saw_running(user, &state.invocation_id, running.clone());
                }
                let running = running.map_or("something".to_owned(), |version| version.to_string());
                return Ok(format!("{user} is enrolled: t3 {running} answers on {}", instance.probe_address()));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Err(format!(
            "{user} is bound to {version} and {} is started, but nobody answers on {} yet; see journalctl -u {}",
            instance.unit,
            instance.probe_address(),
            instance.unit
        ))
    }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
