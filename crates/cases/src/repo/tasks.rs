//! Clerks' tasks: a row follows its case.

use contracts::ids::{CaseId, TaskId};
use runtime::Timestamp;
use store::{Read, Row, Tx, params};

use super::Code;
use super::row::{File, case_id, coded, coded_opt, count, task_id};
use crate::domain::{Actor, Case, Decision, OpenTask, Proposal, State, Step, Transition};
use crate::error::Error;

const OPEN: &str =
    "INSERT INTO tasks (task_id, case_id, profile, region, step, reason, created_at, task_due, escalations,
    resolved) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 0, $9)";
const CHANGE: &str = "UPDATE tasks SET task_due = $2, escalations = $3, proposed_decision = $4, proposed_by = $5,
    proposed_evidence = $6 WHERE task_id = $1 AND NOT resolved";
const RESOLVE: &str =
    "UPDATE tasks SET resolved = $2, resolved_at = $3, resolved_by = $4 WHERE task_id = $1 AND NOT resolved";
const OF_CASE: &str = "SELECT * FROM tasks WHERE case_id = $1 AND NOT resolved";
const ONE: &str = "SELECT * FROM tasks WHERE task_id = $1";
const PROFILES: &str = "SELECT DISTINCT profile FROM tasks ORDER BY profile LIMIT 1000";
const PAGE: &str = "SELECT * FROM tasks WHERE profile = $1 AND (NOT resolved OR $2)
    AND (task_due > $3 OR (task_due = $3 AND task_id > $4)) ORDER BY task_due, task_id LIMIT $5";

/// A task as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TaskRow {
    pub(crate) id: TaskId,
    pub(crate) case: CaseId,
    pub(crate) profile: String,
    pub(crate) region: String,
    pub(crate) step: Step,
    pub(crate) reason: String,
    pub(crate) created: Timestamp,
    pub(crate) due: Timestamp,
    pub(crate) escalations: u32,
    pub(crate) proposal: Option<Proposal>,
    pub(crate) resolved: bool,
}

/// Where a page of tasks begins: behind this time and id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TaskPage {
    pub(crate) after: Option<(Timestamp, TaskId)>,
    pub(crate) max: u32,
    pub(crate) include_resolved: bool,
}

/// Brings the task of a case in line with where the case went.
pub(super) async fn follow(tx: &mut Tx, file: &File, moved: &Transition, now: Timestamp) -> Result<(), Error> {
    let Case { id, step, .. } = moved.case;
    match (&file.case.task, &moved.case.task) {
        (None, None) => Ok(()),
        (None, Some(task)) => {
            let step = step.map(Code::code).unwrap_or_default();
            let (about, due) = (&file.about, task.due);
            let values =
                params![key(task)?, id.to_string(), about.profile, about.region, step, task.reason, now, due, false,];
            tx.execute(OPEN, values).await?;
            Ok(())
        }
        (Some(task), None) => {
            let clerk = moved.lines.iter().any(|line| line.actor == Actor::Clerk);
            let by = if clerk { Actor::Clerk } else { Actor::Cases };
            let values = params![key(task)?, true, now, by.as_str()];
            one(tx.execute(RESOLVE, values).await?)
        }
        (Some(before), Some(after)) if before == after => Ok(()),
        (Some(_), Some(task)) => {
            let proposal = task.proposal.as_ref();
            let values = params![
                key(task)?,
                task.due,
                task.escalations,
                proposal.map(|proposal| proposal.decision.code()),
                proposal.map(|proposal| proposal.clerk.as_str()),
                proposal.map(|proposal| proposal.evidence.as_str()),
            ];
            one(tx.execute(CHANGE, values).await?)
        }
    }
}

fn key(task: &OpenTask) -> Result<String, Error> {
    task.id.map(|id| id.to_string()).ok_or(Error::Corrupt("task_id"))
}

fn one(rows: u64) -> Result<(), Error> {
    if rows == 1 { Ok(()) } else { Err(Error::Raced) }
}

impl TaskRow {
    /// The task as it is once its case has moved.
    pub(crate) fn after(&self, moved: &Transition) -> Self {
        let task = moved.case.task.as_ref();
        let proposal = task.map_or_else(|| self.proposal.clone(), |task| task.proposal.clone());
        Self { proposal, resolved: task.is_none(), ..self.clone() }
    }
}

/// Loads the open task into a case that is with a clerk.
pub(crate) async fn attach(reader: &mut impl Read, file: &mut File) -> Result<(), Error> {
    if file.case.state != State::NeedsClerk {
        return Ok(());
    }
    let row = reader.fetch_opt(OF_CASE, params![file.case.id.to_string()]).await?;
    let task = row.as_ref().map(read).transpose()?.ok_or(Error::Corrupt("tasks"))?;
    file.case.task = Some(OpenTask {
        id: Some(task.id),
        reason: task.reason,
        due: task.due,
        escalations: task.escalations,
        proposal: task.proposal,
    });
    Ok(())
}

/// Loads a task.
pub(crate) async fn task(reader: &mut impl Read, id: TaskId) -> Result<Option<TaskRow>, Error> {
    reader.fetch_opt(ONE, params![id.to_string()]).await?.as_ref().map(read).transpose()
}

/// Lists the profiles that have tasks.
pub(crate) async fn profiles(reader: &mut impl Read) -> Result<Vec<String>, Error> {
    reader.fetch_all(PROFILES, &[]).await?.iter().map(|row| Ok(row.get("profile")?)).collect()
}

/// Loads a page of a profile's tasks, the most urgent first.
pub(crate) async fn tasks(reader: &mut impl Read, profile: &str, page: &TaskPage) -> Result<Vec<TaskRow>, Error> {
    let (due, id) = match page.after {
        Some((due, id)) => (due, id.to_string()),
        None => (Timestamp::from_micros(i64::MIN), String::new()),
    };
    let values = params![profile, page.include_resolved, due, id, page.max];
    reader.fetch_all(PAGE, values).await?.iter().map(read).collect()
}

fn read(row: &Row) -> Result<TaskRow, Error> {
    let decision: Option<Decision> = coded_opt(row, "proposed_decision")?;
    let clerk: Option<String> = row.get("proposed_by")?;
    let evidence: Option<String> = row.get("proposed_evidence")?;
    let proposal = match (decision, clerk, evidence) {
        (Some(decision), Some(clerk), Some(evidence)) => Some(Proposal { decision, clerk, evidence }),
        _ => None,
    };
    Ok(TaskRow {
        id: task_id(row)?,
        case: case_id(row, "case_id")?,
        profile: row.get("profile")?,
        region: row.get("region")?,
        step: coded(row, "step")?,
        reason: row.get("reason")?,
        created: row.get("created_at")?,
        due: row.get("task_due")?,
        escalations: count(row, "escalations")?,
        proposal,
        resolved: row.get("resolved")?,
    })
}
