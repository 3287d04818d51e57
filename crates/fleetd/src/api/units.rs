//! `units`: submitting, reading, changing and destroying units.

use std::collections::BTreeMap;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::header::{ETAG, IF_MATCH};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use fleet_core::api::{Unit, UnitPage};
use fleet_core::keys;
use fleet_core::record::{CONTENT_MAX, Listed, Owner};
use fleet_core::submission::{Submission, may_become};
use fleet_core::unit::{
    Content, Note, Parsed, TargetState, UnitFile, UnitName, UnitOption, advice, needed, serialize,
};
use serde::Deserialize;

use super::error::{ApiError, Result};
use super::page::page;
use super::reports::{Report, every_report};
use super::view::{View, ViewedUnit};
use super::{Api, BY, Query, body};

/// The limits on notes in an answer, and on the characters of each. Clients read a hundred headers
/// at most, and every line of a file may have a note.
const NOTES_MAX: usize = 20;
const NOTE_MAX: usize = 200;

/// A header that is repeated for each note about an accepted file.
pub(super) const WARNING: HeaderName = HeaderName::from_static("x-fleet-warning");

pub(super) async fn list(State(api): State<Api>, query: Query) -> Result<Json<UnitPage>> {
    let view = View::read(&**api.registry.store(), &[keys::UNITS]).await?;
    let ready = match query.stateless {
        true => None,
        false => Some(every_report(&api, view.revision, note_ready).await?),
    };
    let state = |name: &UnitName, unit: &ViewedUnit| match &ready {
        Some(ready) => current_state(ready.get(name.as_str()).copied(), unit).to_string(),
        None => String::new(),
    };
    let units = view
        .units
        .iter()
        .map(|(name, unit)| Unit {
            current_state: state(name, unit),
            ..show(name, unit, query.content)
        })
        .collect();
    let (units, next_page_token) = page(
        units,
        &query.page_tokens,
        query.limit.unwrap_or(api.page_limit),
    )?;
    Ok(Json(UnitPage {
        next_page_token,
        units,
    }))
}

pub(super) async fn get(
    State(api): State<Api>,
    Path(name): Path<String>,
    query: Query,
) -> Result<Response> {
    let name = UnitName::parse(&name).map_err(|_| ApiError::no_unit())?;
    let key = keys::unit(&name);
    // The current state is left out, as in fleet 1.0: it would take the reports of every machine.
    let view = View::read(&**api.registry.store(), &[&key]).await?;
    if let Some(damaged) = view.damaged.iter().find(|damaged| damaged.subject == key) {
        let text = format!("unit {name} cannot be read: {}", damaged.text);
        return Err(ApiError::conflict(text));
    }
    let unit = view.units.get(&name).ok_or_else(ApiError::no_unit)?;
    let tag = format!("\"{}\"", unit.record.newest().number);
    let answer = Json(show(&name, unit, query.content));
    Ok(([(ETAG, tag)], answer).into_response())
}

fn show(name: &UnitName, unit: &ViewedUnit, content: bool) -> Unit {
    Unit {
        content: content.then(|| unit.record.newest().content.clone()),
        current_state: String::new(),
        desired_state: unit.record.target.to_string(),
        machine_id: String::new(),
        name: name.to_string(),
        options: unit.newest().file.options().to_vec(),
        revision: if content {
            unit.record.newest().number
        } else {
            0
        },
    }
}

/// The part of a unit's report that its current state depends on.
#[derive(Deserialize)]
struct Readiness {
    ready: bool,
}

/// Every reported unit, and whether it is ready on any machine.
type Ready = BTreeMap<String, bool>;

fn note_ready(all: &mut Ready, report: &Report) {
    // An unreadable report says nothing about any unit.
    let report = report.decode::<Listed<'_, Readiness>>();
    for (name, unit) in report.map(|report| report.units).unwrap_or_default() {
        match all.get_mut(&*name) {
            Some(ready) => *ready |= unit.ready,
            None => drop(all.insert(name.into_owned(), unit.ready)),
        }
    }
}

fn current_state(ready: Option<bool>, unit: &ViewedUnit) -> TargetState {
    match ready {
        None => TargetState::Inactive,
        _ if unit.record.target == TargetState::Inactive => TargetState::Inactive,
        Some(true) => unit.record.target,
        Some(false) => TargetState::Loaded,
    }
}

pub(super) async fn put(
    State(api): State<Api>,
    Path(path): Path<String>,
    headers: HeaderMap,
    bytes: Bytes,
) -> Result<Response> {
    body::require_json(&headers)?;
    let request: Unit = body::decode_any_case(&bytes)?;
    if !request.name.is_empty() && request.name != path {
        let text = format!(
            "name in URL {path:?} differs from unit name in request body {:?}",
            request.name
        );
        return Err(ApiError::bad(text));
    }
    let name = UnitName::parse(&path).map_err(|error| ApiError::bad(error.to_string()))?;
    let target = wanted_target(&request.desired_state)?;
    let replaces = replaced_revision(&headers)?;
    match (content_of(&request)?, target) {
        (Some(content), target) => submit(&api, &name, content, target, replaces).await,
        (None, Some(target)) => set_target(&api, &name, target).await,
        (None, None) => match api.registry.unit(&name).await? {
            Some(_) => {
                let text = "must provide DesiredState to update existing unit";
                Err(ApiError::conflict(text))
            }
            None => Err(nothing_to_create()),
        },
    }
}

/// Returns the revision that `If-Match` names. `None` without the header, or for `*`.
fn replaced_revision(headers: &HeaderMap) -> Result<Option<u64>> {
    let Some(value) = headers.get(IF_MATCH) else {
        return Ok(None);
    };
    let text = value.to_str().unwrap_or_default().trim();
    if text == "*" {
        return Ok(None);
    }
    let number = text.trim_matches('"').parse();
    number.map(Some).map_err(|_no_number| {
        ApiError::bad("If-Match must be the number of a revision, such as \"3\", or *")
    })
}

fn nothing_to_create() -> ApiError {
    ApiError::conflict("unit does not exist and options field empty")
}

fn wanted_target(word: &str) -> Result<Option<TargetState>> {
    if word.is_empty() {
        return Ok(None);
    }
    let target = TargetState::parse(word).ok_or_else(|| {
        ApiError::bad(format!(
            "invalid desiredState {word:?}: expect inactive, loaded, or launched"
        ))
    })?;
    Ok(Some(target))
}

/// Returns options as a file, if the file means the same. A newline in a value, or a backslash at
/// its end, would mean something else, and root must run exactly what was submitted.
fn written(options: &[UnitOption]) -> Result<Content> {
    let content = serialize(options);
    let file = UnitFile::parse(content.as_bytes());
    let mut asked: Vec<&UnitOption> = options.iter().collect();
    let mut read: Vec<&UnitOption> = file.options().iter().collect();
    let mut seen: Vec<_> = file
        .assignments()
        .iter()
        .map(|assignment| (&assignment.section, &assignment.key))
        .collect();
    // Only the order between sections is lost.
    asked.sort_by_key(|option| &option.section);
    read.sort_by_key(|option| &option.section);
    seen.sort_by_key(|(section, _)| *section);
    // Two readings must agree: fleet 1.0's, which has the values as they were sent, and systemd's,
    // which also ends lines at CR.
    let survives = |(at, option): &(usize, &&UnitOption)| {
        read.get(*at) == Some(*option) && seen.get(*at) == Some(&(&option.section, &option.name))
    };
    let lost = asked.iter().enumerate().find(|found| !survives(found));
    let lost = match lost {
        Some((_, option)) => format!("[{}] {}=", option.section, option.name),
        None if seen.len() == asked.len() && read.len() == asked.len() => return Ok(content),
        None => "one of the options".to_owned(),
    };
    Err(ApiError::bad(format!(
        "{lost} cannot be written as a line of a unit file: names and values have no blanks around them, no newline but \
         behind a backslash, and no backslash at the end"
    )))
}

/// Returns the file in a request, `None` if it has none. Bytes win over options.
pub(super) fn content_of(request: &Unit) -> Result<Option<Content>> {
    let content = match &request.content {
        Some(content) => content.clone(),
        None if request.options.is_empty() => return Ok(None),
        None => written(&request.options)?,
    };
    let size = content.as_bytes().len();
    if size > CONTENT_MAX {
        let text = format!("unit file is {size} bytes long (max {CONTENT_MAX})");
        return Err(ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, text));
    }
    Ok(Some(content))
}

async fn submit(
    api: &Api,
    name: &UnitName,
    content: Content,
    target: Option<TargetState>,
    replaces: Option<u64>,
) -> Result<Response> {
    let parsed = Parsed::parse(name.clone(), &content);
    parsed
        .validate()
        .map_err(|error| ApiError::bad(error.for_unit(name)))?;
    // An update that keeps the target state must not also stop the unit on every machine.
    let effective = match target {
        None if !parsed.options.global => {
            let existing = api.registry.unit(name).await?;
            existing.map(|unit| unit.record.target)
        }
        target => target,
    };
    if let Some(effective) = effective {
        may_become(name, parsed.options.global, effective)?;
    }
    let there = api.registry.on_machines(needed(name, &parsed.file)).await?;
    let advice = advice(name, &content, &parsed.file, |unit| there.contains(unit));
    let submission = api
        .registry
        .submit_over(name, content, Owner::Api, target, replaces)
        .await?;
    if let Some(told) = told(name, &submission) {
        tracing::info!(unit = %name, by = BY, "{told}");
    }
    let status = match submission {
        Submission::Created(_) => StatusCode::CREATED,
        _ => StatusCode::NO_CONTENT,
    };
    let mut response = status.into_response();
    let notes: Vec<&Note> = parsed.notes().into_iter().chain(&advice).collect();
    for warning in warnings(name, &notes) {
        response.headers_mut().append(WARNING, warning);
    }
    Ok(response)
}

/// Returns the text for the journal about the change that a submission made.
fn told(name: &UnitName, submission: &Submission) -> Option<String> {
    let (record, how) = match submission {
        Submission::Unchanged => return None,
        Submission::Created(record) => (record, "is new"),
        Submission::Adopted(record) => (record, "stays"),
        Submission::Updated { record, .. } if record.candidate.is_some() => {
            (record, "is to be rolled out")
        }
        Submission::Updated { record, .. } => (record, "is stable at once"),
    };
    let number = record.newest().number;
    Some(format!(
        "{name} submitted over {BY}: revision {number} {how}; target state {}",
        record.target
    ))
}

/// Returns the first notes as header values, which are ASCII.
fn warnings(name: &UnitName, notes: &[&Note]) -> Vec<HeaderValue> {
    let mut texts: Vec<String> = notes
        .iter()
        .take(NOTES_MAX)
        .map(|note| shortened(&note.to_string()))
        .collect();
    if notes.len() > NOTES_MAX {
        texts.push(format!("and {} more notes", notes.len() - NOTES_MAX));
    }
    texts
        .iter()
        .filter_map(|text| HeaderValue::from_str(&format!("Unit {name}: {text}")).ok())
        .collect()
}

/// Returns the beginning of a text, with `\u{fc}` for characters that a header cannot have.
fn shortened(text: &str) -> String {
    let shown = shown(text);
    match shown.get(..NOTE_MAX) {
        Some(short) if short.len() < shown.len() => format!("{short}..."),
        _ => shown,
    }
}

/// Returns a text with `\u{fc}` for characters that a header cannot have.
pub(super) fn shown(text: &str) -> String {
    let mut shown = String::new();
    for c in text.chars() {
        match c {
            ' '..='~' => shown.push(c),
            c => shown.extend(c.escape_unicode()),
        }
    }
    shown
}

async fn set_target(api: &Api, name: &UnitName, target: TargetState) -> Result<Response> {
    if api.registry.set_target(name, target).await? {
        tracing::info!(unit = %name, by = BY, "{name} ordered over {BY} to be {target}");
        Ok(StatusCode::NO_CONTENT.into_response())
    } else {
        Err(nothing_to_create())
    }
}

pub(super) async fn delete(State(api): State<Api>, Path(name): Path<String>) -> Result<StatusCode> {
    let name = UnitName::parse(&name).map_err(|_| ApiError::no_unit())?;
    if api.registry.destroy(&name).await? {
        tracing::info!(unit = %name, by = BY, "{name} destroyed over {BY}");
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(ApiError::no_unit())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::registry::Registry;
    use crate::store::Embedded;

    fn option(name: &str, value: &str) -> UnitOption {
        UnitOption {
            section: "Service".to_owned(),
            name: name.to_owned(),
            value: value.to_owned(),
        }
    }

    #[test]
    fn options_that_a_file_would_change_are_refused_by_name() {
        let fine = [option("ExecStart", "/bin/a \\\n  b"), option("User", "")];
        assert!(written(&fine).is_ok());
        for bad in [
            option("ExecStart", "/bin/a\nUser=root"),
            option("ExecStart", "/bin/a \\"),
            option("ExecStart", " /bin/a"),
            option("#", "x"),
            option("", ""),
        ] {
            let named = format!("[Service] {}=", bad.name);
            let error = written(&[bad, option("User", "a")]).expect_err(&named);
            assert!(error.message.contains(&named), "{}", error.message);
        }
        // fleet 1.0 reads one line, systemd reads two.
        assert!(written(&[option("ExecStart", "/bin/a\rUser=root")]).is_err());
    }

    #[test]
    fn warnings_are_few_and_short_and_mark_what_is_left_out() {
        let name = UnitName::parse("a.service").expect("valid");
        let text =
            "[Unit]\n[X-Fleet]\nConflicts=Colour\n".to_owned() + "[Unit]\n" + &"=1\n".repeat(1000);
        let parsed = Parsed::parse(name.clone(), &Content::from(text.as_str()));
        let warnings = warnings(&name, &parsed.notes());
        assert_eq!(warnings.len(), NOTES_MAX + 1);
        let text = |at: usize| warnings[at].to_str().expect("ASCII").to_owned();
        assert!(text(0).contains("Colour"), "{}", text(0));
        assert_eq!(shortened("Col\u{f6}r"), "Col\\u{f6}r");
        assert_eq!(shortened(&"x".repeat(5000)).len(), NOTE_MAX + 3);
        assert!(text(1).len() < NOTE_MAX + 50);
        assert_eq!(text(NOTES_MAX), "Unit a.service: and 981 more notes");
    }

    #[tokio::test]
    async fn update_that_would_stop_a_launched_unit_is_refused() {
        let api = Api {
            registry: Registry::new(Arc::new(Embedded::in_memory())),
            page_limit: 100,
        };
        let name = UnitName::parse("a.service").expect("valid");
        let global = Content::from("[Service]\nExecStart=/x\n[X-Fleet]\nGlobal=true\n");
        let launched = Some(TargetState::Launched);
        submit(&api, &name, global, launched, None)
            .await
            .expect("taken");
        let single = Content::from("[Service]\nExecStart=/x\n");
        let refused = submit(&api, &name, single, None, None)
            .await
            .expect_err("refused");
        assert_eq!(refused.status, StatusCode::CONFLICT);
    }
}
