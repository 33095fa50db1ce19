//! The connection: every call to systemd goes through here, with a deadline and a name for the error.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::time::Instant;
use zbus::{DynamicType, Message, OwnedObjectPath, OwnedVariant, Type};

use super::{Systemd, SystemdError};

/// Object path of the service manager (org.freedesktop.systemd1(5)).
pub(super) const MANAGER: &str = "/org/freedesktop/systemd1";
/// Interface of [`MANAGER`].
pub(super) const MANAGER_INTERFACE: &str = "org.freedesktop.systemd1.Manager";
/// Bus name of the service manager.
pub(super) const SERVICE: &str = "org.freedesktop.systemd1";

/// systemd answers most calls in milliseconds; `Reload` of a host with many units takes seconds. D-Bus's own default is 25 s.
const CALL_DEADLINE: Duration = Duration::from_secs(60);
/// Between two tries to connect.
const CONNECT_PAUSE: Duration = Duration::from_millis(250);

impl Systemd {
    /// Connects as soon as the system bus answers and systemd is on it, at boot or while the bus is restarted. Gives up only after
    /// `patience`, with what was wrong last.
    pub async fn connect_within(patience: Duration) -> Result<Self, SystemdError> {
        let until = Instant::now() + patience;
        let mut waits = false;
        loop {
            match Self::connect().await {
                Ok(systemd) => return Ok(systemd),
                Err(error) if Instant::now() >= until => return Err(error),
                Err(error) if !waits => {
                    waits = true;
                    tracing::warn!("systemd cannot be asked yet; waiting for up to {} s: {error}", patience.as_secs());
                }
                Err(_) => {}
            }
            tokio::time::sleep(CONNECT_PAUSE).await;
        }
    }

    /// Connects to the system bus, and asks systemd to send signals to this connection (`Subscribe`): without that
    /// neither `JobRemoved` nor unit changes arrive.
    pub async fn connect() -> Result<Self, SystemdError> {
        let what = "connecting to the system bus";
        let connection = within(what, CALL_DEADLINE, zbus::Connection::system()).await?;
        let systemd = Self { connection, lost: Arc::new(watch::Sender::new(false)), search_path: Arc::default() };
        systemd.manager::<_, ()>("subscribing to systemd's signals", "Subscribe", &()).await?;
        Ok(systemd)
    }

    /// Resolves when the connection is gone, as when the host shuts down or the bus is restarted. A call that finds it gone never
    /// returns: what systemd cannot be asked for has not failed, and nothing may be concluded from it. The process has to end, and
    /// the next one takes up what was under way.
    pub async fn lost(&self) {
        // An error would mean that the sender is gone, and that is held here.
        let _ = self.lost.subscribe().wait_for(|lost| *lost).await;
    }

    /// Calls a method of the manager.
    pub(super) async fn manager<B, R>(&self, what: &str, method: &'static str, body: &B) -> Result<R, SystemdError>
    where
        B: Serialize + DynamicType,
        R: DeserializeOwned + Type,
    {
        let reply = self.call(what, MANAGER, MANAGER_INTERFACE, method, body).await?;
        reply.body().deserialize_ignore_signature().map_err(|source| refused(what, source))
    }

    /// All properties of one interface of an object.
    pub(super) async fn properties(
        &self,
        what: &str,
        path: &OwnedObjectPath,
        interface: &str,
    ) -> Result<HashMap<String, OwnedVariant>, SystemdError> {
        let reply = self.call(what, path.as_str(), "org.freedesktop.DBus.Properties", "GetAll", &(interface,)).await?;
        reply.body().deserialize().map_err(|source| refused(what, source))
    }

    /// One property. Asking for the few that are wanted spares systemd and us the some hundred that a manager or a service has.
    pub(super) async fn property(
        &self,
        what: &str,
        path: &OwnedObjectPath,
        interface: &str,
        name: &str,
    ) -> Result<OwnedVariant, SystemdError> {
        let reply = self.call(what, path.as_str(), "org.freedesktop.DBus.Properties", "Get", &(interface, name)).await?;
        reply.body().deserialize().map_err(|source| refused(what, source))
    }

    async fn call<B>(
        &self,
        what: &str,
        path: &str,
        interface: &'static str,
        method: &'static str,
        body: &B,
    ) -> Result<Message, SystemdError>
    where
        B: Serialize + DynamicType,
    {
        let answer =
            within(what, CALL_DEADLINE, self.connection.call_method(Some(SERVICE), path, Some(interface), method, body)).await;
        if let Err(SystemdError::Bus { source, .. }) = &answer
            && matches!(**source, zbus::Error::InputOutput(_))
        {
            self.lost.send_replace(true);
            std::future::pending::<()>().await;
        }
        answer
    }
}

/// Waits for `future`, but no longer than `deadline`.
pub(super) async fn within<T>(
    what: &str,
    deadline: Duration,
    future: impl Future<Output = zbus::Result<T>>,
) -> Result<T, SystemdError> {
    match tokio::time::timeout(deadline, future).await {
        Ok(answer) => answer.map_err(|source| refused(what, source)),
        Err(_) => Err(late(what, deadline)),
    }
}

/// The bus or systemd said no.
pub(super) fn refused(what: &str, source: zbus::Error) -> SystemdError {
    SystemdError::Bus { what: what.to_owned(), source: Box::new(source) }
}

/// No answer in time.
pub(super) fn late(what: &str, deadline: Duration) -> SystemdError {
    SystemdError::Deadline { what: what.to_owned(), seconds: deadline.as_secs() }
}

/// Whether systemd answered with the D-Bus error `org.freedesktop.systemd1.NAME`.
pub(super) fn is_systemd_error(error: &SystemdError, name: &str) -> bool {
    named(error).and_then(|found| found.strip_prefix("org.freedesktop.systemd1.")) == Some(name)
}

/// Whether this is systemd's answer for a unit, or a host, that knows no freezing (NotSupported), or its own age (UnknownMethod).
pub(super) fn refuses_to_freeze(error: &SystemdError) -> bool {
    let name = named(error).and_then(|found| found.strip_prefix("org.freedesktop.DBus.Error."));
    matches!(name, Some("NotSupported" | "UnknownMethod"))
}

/// The name of the D-Bus error that was answered.
fn named(error: &SystemdError) -> Option<&str> {
    let SystemdError::Bus { source, .. } = error else { return None };
    let zbus::Error::MethodError(found, _, _) = source.as_ref() else { return None };
    Some(found.as_str())
}
