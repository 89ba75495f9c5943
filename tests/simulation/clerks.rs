//! Two clerks at their desks: what machines could not find out they decide, by what the department has in its books. The second one
//! confirms what the first one says where money moves.

use std::collections::BTreeMap;
use std::time::Duration;

use contracts::cases::v1::{CaseStep, Decision, ListTasksRequest, ResolveTaskRequest, Task};
use lastmile_tests::simulation::context;
use runtime::crash;
use serde_json::Value;

use crate::citizens::Times;
use crate::client::{App, Bearer, Stuck};
use crate::hosts::Ground;
use crate::record::Record;

const CLERKS: [&str; 2] = ["clerk-1", "clerk-2"];
const SYSTEMS: [&str; 2] = ["police-430100", "police-140100"];
/// Between two looks at the list.
const LOOK_EVERY: Duration = Duration::from_secs(5);
const PAGE: i32 = 100;

/// Works until the simulation ends.
pub(crate) async fn work(ground: Ground, times: Times, record: Record) -> turmoil::Result {
    let context = context(ground.seed ^ 0x000c_1e4c, &crash::Points::simulated(|_| {}));
    let mut desks = Vec::new();
    for id in CLERKS {
        desks.push((id, App::new(&context, &ground.client_keys(), id, times.until).await?, Bearer::own()));
    }
    loop {
        context.clock.sleep(LOOK_EVERY).await;
        for (id, app, bearer) in &desks {
            let asked = ListTasksRequest { page_size: PAGE, ..ListTasksRequest::default() };
            let listed = app.ask(bearer, &asked, async |asked| app.cases().list_tasks(asked).await).await;
            let tasks = match listed {
                Ok(listed) => listed.tasks,
                Err(stuck) => {
                    record.seen().breaches.push(format!("{id} gets no list: {stuck}"));
                    continue;
                }
            };
            for task in &tasks {
                let asked = decide(id, task, &posted(&ground));
                let decision = asked.decision().as_str_name();
                let resolved = app.ask(bearer, &asked, async |asked| app.cases().resolve_task(asked).await).await;
                match resolved {
                    Ok(_) => record.note(context.clock.now(), format!("{id} {} {decision}", task.case_id)),
                    // The case found its answer by itself in between, or the other clerk's word is still to come.
                    Err(Stuck::Refused(fault)) if ["TASK_NOT_OPEN", "SAME_CLERK"].contains(&fault.reason()) => {}
                    Err(stuck) => record.seen().breaches.push(format!("{id} cannot decide {}: {stuck}", task.case_id)),
                }
            }
        }
    }
}

fn decide(id: &str, task: &Task, posted: &BTreeMap<String, String>) -> ResolveTaskRequest {
    let letter = || "letter 2027-1".to_owned();
    let (decision, evidence) = match (task.step(), posted.get(&format!("{}-settle", task.case_id))) {
        (CaseStep::Settle, Some(serial)) => (Decision::DepartmentDidIt, serial.clone()),
        (CaseStep::Settle | CaseStep::Refund, _) => (Decision::Refund, letter()),
        _ => (Decision::SendAgain, letter()),
    };
    ResolveTaskRequest {
        request_id: format!("{id}-{}-{}", task.task_id, i32::from(decision)),
        task_id: task.task_id.clone(),
        decision: decision.into(),
        evidence,
    }
}

/// What the departments have taken for good: the serial by the order.
fn posted(ground: &Ground) -> BTreeMap<String, String> {
    let text = SYSTEMS.map(|system| ground.journals.text(system)).concat();
    let lines = text.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice::<Value>(line).ok());
    let word = |line: &Value, key: &str| line.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    lines
        .filter(|line| word(line, "event") == "payment" && word(line, "state") == "posted")
        .map(|line| (word(&line, "order"), word(&line, "serial")))
        .collect()
}
