//! ValidateSession: is this session good, and whose is it?
//!
//! The answer comes from memory: no allocation, no lock, no I/O. What memory does not know is read into it, and then it
//! is asked again from the start, lease first.

use std::sync::Arc;
use std::time::Duration;

use super::App;
use super::token_keys::verify;
use crate::domain::client::Client;
use crate::domain::id::SessionId;
use crate::domain::login_name::LoginName;
use crate::domain::refusal::Refusal;
use crate::domain::session::{BindingVerdict, EndReason, Session};
use crate::domain::time::UnixMillis;
use crate::domain::token::GenuineToken;
use crate::fleet::carried_time::Doubt;
pub use crate::fleet::look_up::Moment;
use crate::live::table::{GoodSession, LookUp};
use crate::store::{EndTarget, Ending, StoreError};

/// How often a session is read that changes again and again while it is.
const READS_MAX: u32 = 5;

/// A session that is good, and whose it is.
#[derive(Clone, Debug)]
pub struct Standing {
    /// The session.
    pub session: Session,
    /// The login of its user.
    pub login: LoginName,
}

/// The same in memory, for as long as an answer is made of it.
#[derive(Clone, Copy, Debug)]
pub struct Validated<'t> {
    /// The session and its user.
    pub good: &'t GoodSession<'t>,
    /// Whether the person proved who they are recently enough for sensitive acts.
    pub fresh: bool,
}

/// What else is asked of the session.
#[derive(Clone, Debug, Default)]
pub struct Demands {
    /// The device that presents it, if the caller says.
    pub client: Option<Client>,
    /// How long ago the person may have proved who they are, at most.
    pub max_auth_age: Option<Duration>,
}

/// When memory is asked.
#[derive(Clone, Copy)]
enum When<'q> {
    Now,
    /// At a moment by which the question had come; none where memory might not answer then.
    At(Option<Moment<'q>>),
}

/// What memory answers.
enum Asked<T> {
    /// The session is good, and meets what was demanded.
    Good(T),
    /// It was used from another device and has to end.
    Ends(SessionId),
    /// The session is good, and the use has to be written first.
    WriteFirst(SessionId),
    /// The database has to be asked.
    Miss,
}

/// Makes an answer of the session at once, for whoever presents nothing but a token; counts as a use of it. None where memory
/// does not know, and [`validate_session`] has to be asked.
pub fn validate_at_once<T>(
    app: &App,
    token: &str,
    answer: impl FnOnce(Validated<'_>) -> T,
) -> Result<Option<T>, Refusal> {
    at_once(app, When::Now, token, answer)
}

/// As [`validate_at_once`], for one of the questions that had come at a moment of [`crate::fleet::Fleet::moment`].
pub fn validate_at<'q, T>(
    app: &App,
    moment: Option<Moment<'q>>,
    token: &'q str,
    answer: impl FnOnce(Validated<'_>) -> T,
) -> Result<Option<T>, Refusal> {
    at_once(app, When::At(moment), token, answer)
}

fn at_once<T>(
    app: &App,
    when: When<'_>,
    token: &str,
    answer: impl FnOnce(Validated<'_>) -> T,
) -> Result<Option<T>, Refusal> {
    let genuine = verify(app, token)?;
    match ask_memory(app, when, &genuine, &Demands::default(), answer)? {
        Asked::Good(answer) => Ok(Some(answer)),
        Asked::Ends(_) | Asked::WriteFirst(_) | Asked::Miss => Ok(None),
    }
}

/// Makes an answer of the session if it is good; counts as a use of it.
pub async fn validate_session<T>(
    app: &Arc<App>,
    token: &str,
    demands: &Demands,
    answer: impl Fn(Validated<'_>) -> T,
) -> Result<T, Refusal> {
    let genuine = verify(app, token)?;
    for _ in 0..READS_MAX {
        match ask_memory(app, When::Now, &genuine, demands, &answer)? {
            Asked::Good(answer) => return Ok(answer),
            Asked::Ends(session) => {
                end_elsewhere(app, session).await?;
                return Err(Refusal::SessionBindingMismatch);
            }
            Asked::WriteFirst(session) => write_use(app, session, &genuine).await?,
            Asked::Miss => {
                app.fleet.fill(genuine.digest).await?;
            }
        }
    }
    Err(super::overtaken())
}

/// The session and whose it is, for whoever goes on to work with them; counts as a use of it.
pub async fn standing(app: &Arc<App>, token: &str, demands: &Demands) -> Result<Standing, Refusal> {
    let copy = |validated: Validated<'_>| Standing {
        session: validated.good.to_session(),
        login: validated.good.user_encoded().login(),
    };
    validate_session(app, token, demands, copy).await
}

/// Asks memory. The expiry that the token itself bears comes before all that memory says, and needs no lease. The clock is
/// read once where the session is good: behind the lease and before the session.
fn ask_memory<T>(
    app: &App,
    when: When<'_>,
    genuine: &GenuineToken,
    demands: &Demands,
    answer: impl FnOnce(Validated<'_>) -> T,
) -> Result<Asked<T>, Refusal> {
    // Before the time is read.
    let doubt = match &when {
        When::Now => app.fleet.time().doubt(),
        When::At(moment) => moment.map_or_else(Doubt::default, |moment| moment.doubt()),
    };
    let meet = |good: &GoodSession<'_>, now: UnixMillis| {
        let other = doubt.other(now);
        if other.is_some_and(|other| is_in_doubt(genuine, good, demands, now, other)) {
            return Err(Refusal::LeaseLost);
        }
        if now >= genuine.expire_time {
            return Err(Refusal::SessionExpired);
        }
        meet(app, good, demands, (now, other), answer)
    };
    let found = match when {
        When::Now => app.fleet.look_up(&genuine.digest, meet),
        When::At(moment) => moment.map(|moment| app.fleet.look_up_at(moment, &genuine.digest, meet)),
    };
    let told = match found {
        Some(LookUp::Good(asked)) => return asked,
        Some(LookUp::Over(death)) => Err(death.into()),
        Some(LookUp::NotKnown) => Err(Refusal::SessionTokenInvalid),
        Some(LookUp::Miss) => Ok(Asked::Miss),
        None => Err(Refusal::LeaseLost),
    };
    let now = app.now();
    match doubt.other(now) {
        Some(other) => by_both_clocks(app, genuine, told, now, other),
        None if now >= genuine.expire_time => Err(Refusal::SessionExpired),
        None => told,
    }
}

/// Whether what memory holds to be good at `now` is to be answered differently if the time is `other`.
#[cold]
fn is_in_doubt(
    genuine: &GenuineToken,
    good: &GoodSession<'_>,
    demands: &Demands,
    now: UnixMillis,
    other: UnixMillis,
) -> bool {
    let is_expired = |at| at >= genuine.expire_time;
    let is_too_old =
        |at: UnixMillis| demands.max_auth_age.is_some_and(|max| at.since(good.authenticate_time()) > max);
    is_expired(now) != is_expired(other) || !good.is_good_at(other) || is_too_old(now) != is_too_old(other)
}

/// What is told of a session that is not good at `now`, where the time may be `other` as well: what holds by both.
#[cold]
fn by_both_clocks<T>(
    app: &App,
    genuine: &GenuineToken,
    told: Result<Asked<T>, Refusal>,
    now: UnixMillis,
    other: UnixMillis,
) -> Result<Asked<T>, Refusal> {
    let is_expired = |at| at >= genuine.expire_time;
    match (is_expired(now), is_expired(other), told) {
        (true, true, _) => Err(Refusal::SessionExpired),
        (_, by_token, Err(Refusal::SessionExpired)) => {
            let by_other = by_token || app.fleet.is_expired_at(&genuine.digest, other);
            Err(if by_other { Refusal::SessionExpired } else { Refusal::LeaseLost })
        }
        // Whatever else took the session away did so whatever the time is.
        (_, _, Err(refusal)) => Err(refusal),
        (false, false, told) => told,
        (true, false, Ok(_)) | (false, true, Ok(_)) => Err(Refusal::LeaseLost),
    }
}

/// What is demanded of a session that is good. It is fresh if it is by both clocks, where they differ.
fn meet<T>(
    app: &App,
    good: &GoodSession<'_>,
    demands: &Demands,
    (now, other): (UnixMillis, Option<UnixMillis>),
    answer: impl FnOnce(Validated<'_>) -> T,
) -> Result<Asked<T>, Refusal> {
    let policy = &app.session_policy;
    let verdict =
        demands.client.as_ref().map_or(BindingVerdict::Same, |client| good.bound_to(client, policy.binding));
    if verdict == BindingVerdict::Ends {
        return Ok(Asked::Ends(good.id()));
    }
    let age = now.since(good.authenticate_time());
    // Whoever asks for freshness gets none from another device, however lately the person proved who they are.
    let too_old = |max: Duration| verdict == BindingVerdict::NotFresh || age > max;
    if demands.max_auth_age.is_some_and(too_old) {
        return Err(Refusal::ReauthenticationRequired);
    }
    if good.is_to_be_written_first(now) {
        return Ok(Asked::WriteFirst(good.id()));
    }
    good.note_use(now);
    let is_fresh = |at: UnixMillis| at.since(good.authenticate_time()) < policy.fresh_window;
    let fresh = verdict == BindingVerdict::Same && is_fresh(now) && other.is_none_or(is_fresh);
    Ok(Asked::Good(answer(Validated { good, fresh })))
}

/// Writes a use down before it is answered. Where the row is locked it is tried again.
async fn write_use(app: &App, session: SessionId, genuine: &GenuineToken) -> Result<(), Refusal> {
    let now = app.now();
    let touched = app.store.touch_sessions(&[(session, now)]).await.map_err(|error| match error {
        // Whether it was written or not, nothing of the session changed.
        StoreError::OutcomeUnknown(_) => Refusal::StoreUnavailable,
        error => error.into(),
    });
    let locked = touched?;
    if locked.is_empty() {
        app.fleet.table().use_written(&genuine.digest, now);
    }
    Ok(())
}

/// Ends a session that was used from another device under strong binding.
async fn end_elsewhere(app: &Arc<App>, session: SessionId) -> Result<(), Refusal> {
    let (writer, stamp) = (Arc::clone(app), app.stamp());
    let ending = Ending { target: EndTarget::Session(session), reason: EndReason::BindingMismatch };
    app.tasks
        .run(async move {
            writer.fleet.end(ending, stamp).await?;
            Ok(())
        })
        .await
}
