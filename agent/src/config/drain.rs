//! `[drain]`: when bumps that were put off go on, and how long they may be put off.

use std::time::Duration;

use super::ConfigError;
use super::fragment::Value;
use super::inputs::Inputs;
use super::window::Window;

/// The keys of `[drain]`.
pub(super) const KEYS: [&str; 6] =
    ["window", "user_limit", "escalate_after", "force_after", "rehearse_again_after", "retry_after"];

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(24 * 3600);
const YEAR: Duration = Duration::from_secs(366 * 24 * 3600);

/// How draining is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drain {
    /// `window` (default always): when bumps may be done that nobody asked for by name.
    pub window: Window,
    /// `user_limit` (default 7 days): so long after it began to wait may users put off their own bump.
    pub user_limit: Duration,
    /// `escalate_after` (default 7 days): a bump that was put off for so long is escalated.
    pub escalate_after: Duration,
    /// `force_after` (default off): a bump that was put off for so long is done although somebody works.
    pub force_after: Option<Duration>,
    /// `rehearse_again_after` (default 3 days): a rehearsal older than this is repeated before its bump goes on.
    pub rehearse_again_after: Duration,
    /// `retry_after` (default 10 min): a rollout that a fault of the host's has stopped is tried again after this, and ever more rarely.
    pub retry_after: Duration,
}

impl Default for Drain {
    fn default() -> Self {
        Self {
            window: Window::default(),
            user_limit: 7 * DAY,
            escalate_after: 7 * DAY,
            force_after: None,
            // Data grows and projects change: what was true of a copy from the beginning of the week need not be at its end.
            rehearse_again_after: 3 * DAY,
            retry_after: 600 * SECOND,
        }
    }
}

/// What `inputs` say.
pub(super) fn validated(inputs: &Inputs) -> Result<Drain, ConfigError> {
    let default = Drain::default();
    let force_after = inputs.duration("drain", "force_after", SECOND..=YEAR)?;
    let user_limit = inputs.duration("drain", "user_limit", Duration::ZERO..=YEAR)?.unwrap_or(default.user_limit);
    if let (Some(force), Some(input)) = (force_after, inputs.get("drain", "force_after"))
        && force < user_limit
    {
        return Err(input.refuse("is less than drain.user_limit, for which users are promised that they may put a bump off"));
    }
    Ok(Drain {
        window: window(inputs)?.unwrap_or(default.window),
        user_limit,
        escalate_after: inputs.duration("drain", "escalate_after", SECOND..=YEAR)?.unwrap_or(default.escalate_after),
        force_after,
        rehearse_again_after: inputs
            .duration("drain", "rehearse_again_after", SECOND..=YEAR)?
            .unwrap_or(default.rehearse_again_after),
        retry_after: inputs.duration("drain", "retry_after", SECOND..=DAY)?.unwrap_or(default.retry_after),
    })
}

/// One span, or a list of them.
fn window(inputs: &Inputs) -> Result<Option<Window>, ConfigError> {
    let Some(input) = inputs.get("drain", "window") else { return Ok(None) };
    let texts = match &input.value {
        Value::Text(text) => vec![text.clone()],
        _ => input.texts()?.to_vec(),
    };
    Window::of(&texts).map(Some).map_err(|why| input.refuse(why))
}
