//! Compiling what a profile offers: items, their operations, the steps of each.

use std::collections::BTreeMap;
use std::path::Path;

use super::Compiler;
use super::known::{self, Known};
use crate::mapping::Mapping;
use crate::named::Named;
use crate::profile::{
    Applicant, Depth, Inquire, Item, ListBills, Lock, Node, OutcomeRule, Profile, ProofMap, Query, Refusal, Release,
    Rows, SchemaName, Settle, Step, Then, Verdict,
};
use crate::schema::Schema;
use crate::template::Scope;

/// Most steps of an operation.
const STEPS_MAX: usize = 8;

/// An item, ready to run.
pub struct ItemPlan {
    /// As it was written.
    pub item: Item,
    /// What inputs are held to.
    pub input: Schema,
    /// What a query's result is held to.
    pub result: Schema,
    /// What each record is held to.
    pub record: Schema,
    /// The operations.
    pub operations: OperationPlans,
}

/// The operations of an item, ready to run.
#[derive(Default)]
pub struct OperationPlans {
    /// Reads records.
    pub query: Option<QueryPlan>,
    /// Lists what can be paid.
    pub list_bills: Option<ListPlan>,
    /// Re-reads a bill and holds it.
    pub lock: Option<LockPlan>,
    /// Gives a held bill back.
    pub release: Option<Vec<StepPlan>>,
    /// Tells of a payment.
    pub settle: Option<SettlePlan>,
    /// Asks what became of a payment.
    pub inquire: Option<InquirePlan>,
}

/// One call of an operation.
#[derive(Debug)]
pub struct StepPlan {
    /// The exchange.
    pub call: String,
    /// The variable of its reply.
    pub name: String,
    /// The condition under which it is made.
    pub when: Option<Scope>,
    /// The list that it is made for, and the variable of the element.
    pub each: Option<(Scope, String)>,
    /// The values of the request.
    pub with: Scope,
    /// What some codes mean here.
    pub codes: Named<Verdict>,
}

/// Reads records.
pub struct QueryPlan {
    /// The calls.
    pub steps: Vec<StepPlan>,
    /// The records.
    pub rows: Option<RowsPlan>,
    /// How many there are in all.
    pub total: Option<Scope>,
    /// The result.
    pub result: Mapping,
}

/// Lists what can be paid.
pub struct ListPlan {
    /// The calls.
    pub steps: Vec<StepPlan>,
    /// The records.
    pub rows: RowsPlan,
    /// How many there are in all.
    pub total: Option<Scope>,
}

/// Re-reads a bill and holds it.
pub struct LockPlan {
    /// Reads it.
    pub read: ReadPlan,
    /// Holds it.
    pub steps: Vec<StepPlan>,
    /// The record as held.
    pub row: RowPlan,
    /// Until when.
    pub held_until: Scope,
}

/// Reads one bill.
pub struct ReadPlan {
    /// The calls.
    pub steps: Vec<StepPlan>,
    /// The record.
    pub row: RowPlan,
}

/// The records of a list.
pub struct RowsPlan {
    /// The list.
    pub each: Scope,
    /// The variable of one.
    pub element: String,
    /// What each becomes.
    pub row: RowPlan,
}

/// What one record becomes: an object with `owner`, `bill_no`, `amount_minor`, `late_fee_minor`, `payment_code`, `bill_state`, `require`,
/// `record`.
pub struct RowPlan(pub Mapping);

/// Tells of a payment.
pub struct SettlePlan {
    /// The calls.
    pub steps: Vec<StepPlan>,
    /// What the reply means.
    pub outcome: OutcomePlan,
    /// Serial, time and amount.
    pub proof: Scope,
}

/// Asks what became of a payment.
pub struct InquirePlan {
    /// The calls.
    pub steps: Vec<StepPlan>,
    /// What the reply means.
    pub outcome: OutcomePlan,
    /// Code and text of a refusal.
    pub refusal: Option<Scope>,
    /// Serial, time and amount.
    pub proof: Scope,
}

/// What a reply means.
pub struct OutcomePlan {
    /// The conditions, evaluated together.
    pub when: Scope,
    /// What each means.
    pub then: Vec<Then>,
}

impl ItemPlan {
    /// Hands an input to expressions: what was not given is none.
    #[must_use]
    pub fn input_value(&self, input: &serde_json::Value) -> minijinja::Value {
        let given = |field: &String| input.get(field).map_or(minijinja::Value::from(()), crate::mapping::from_json);
        minijinja::Value::from_pairs(self.input.properties().iter().map(|field| (field.clone(), given(field))))
    }
}

/// Compiles every item of a profile.
pub(super) fn compile(profile: &Profile, schemas: &Path, compiler: &mut Compiler<'_>) -> BTreeMap<String, ItemPlan> {
    let mut plans = BTreeMap::new();
    for (code, item) in profile.items.iter() {
        let is_code = (1..=64).contains(&code.len())
            && code.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-'));
        if !is_code {
            compiler.problem(&["items", code], "expected an item code such as `traffic.violation`");
        }
        let mut schema = |name: &SchemaName, field: &str| {
            let loaded = Schema::load(schemas, name);
            loaded.map_err(|error| compiler.problem(&["items", code, "schemas", field], error.to_string())).ok()
        };
        let named = &item.schemas;
        let input = schema(&named.input, "input");
        let (result, record) = (schema(&named.result, "result"), schema(&named.record, "record"));
        let (Some(input), Some(result), Some(record)) = (input, result, record) else { continue };
        let mut work = ItemCompiler { profile, code, item, input: &input, compiler };
        work.check_rules();
        let operations = work.operations();
        plans.insert(code.to_owned(), ItemPlan { item: item.clone(), input, result, record, operations });
    }
    plans
}

struct ItemCompiler<'w, 'a> {
    profile: &'w Profile,
    code: &'w str,
    item: &'w Item,
    input: &'w Schema,
    compiler: &'w mut Compiler<'a>,
}

impl ItemCompiler<'_, '_> {
    fn path(&self, below: &[&str]) -> Vec<String> {
        ["items", self.code].iter().chain(below).map(|part| (*part).to_owned()).collect()
    }

    fn name(&self, below: &str) -> String {
        format!("{}/{below}", self.code)
    }

    fn problem(&mut self, below: &[&str], what: impl Into<String>) {
        let path = self.path(below);
        self.compiler.problem(&path, what);
    }

    /// What the item promises must be there: operations for its depth, a rule for each bound field, an owner where it is needed.
    fn check_rules(&mut self) {
        let Item { operations, row, applicant, subjects, depth, .. } = self.item;
        let pays = *depth >= Depth::Pay;
        let needed = [
            ("query", operations.query.is_some(), *depth >= Depth::Query),
            ("list_bills", operations.list_bills.is_some(), pays),
            ("lock", operations.lock.is_some(), pays),
            ("release", operations.release.is_some(), pays),
            ("settle", operations.settle.is_some(), pays),
            ("inquire", operations.inquire.is_some(), pays),
        ];
        for (operation, is_there, is_needed) in needed {
            if is_needed && !is_there {
                self.problem(&["operations"], format!("depth {depth:?} needs the operation `{operation}`"));
            }
        }
        let bills = [
            ("bill_no", row.bill_no.is_some()),
            ("amount_minor", row.amount_minor.is_some()),
            ("late_fee_minor", row.late_fee_minor.is_some()),
            ("bill_state", row.bill_state.is_some()),
        ];
        for (field, is_there) in bills {
            if pays && !is_there {
                self.problem(&["row"], format!("a bill needs `{field}`"));
            }
        }
        if *applicant == Applicant::Own && row.owner.is_none() {
            self.problem(&["row"], "with `applicant: own` it needs `owner`, so that nobody reads another's record");
        }
        let bound: Vec<_> = self.input.subjects().to_vec();
        for (field, subject) in bound {
            if *applicant == Applicant::Own && subjects.get(&subject).is_none() {
                self.problem(&["subjects"], format!("expected `{subject}`: the input's `{field}` is bound to it"));
            }
        }
    }

    fn operations(&mut self) -> OperationPlans {
        let operations = &self.item.operations;
        OperationPlans {
            query: operations.query.as_ref().and_then(|query| self.query(query)),
            list_bills: operations.list_bills.as_ref().and_then(|list| self.list_bills(list)),
            lock: operations.lock.as_ref().and_then(|lock| self.lock(lock)),
            release: operations.release.as_ref().map(|release| self.release(release)),
            settle: operations.settle.as_ref().map(|settle| self.settle(settle)),
            inquire: operations.inquire.as_ref().map(|inquire| self.inquire(inquire)),
        }
    }

    /// The variables that every operation has, and its own.
    fn vars(&self, own: &[&str]) -> known::Scope {
        let mut vars = known::Scope::new();
        let fields = self.input.properties().iter().map(|field| (field.clone(), Known::Anything)).collect();
        vars.insert("input".to_owned(), Known::Record(fields));
        if self.item.applicant == Applicant::Own {
            vars.insert("applicant".to_owned(), Known::values(["name", "document_number"]));
        }
        vars.insert("settings".to_owned(), Known::values(self.profile.settings.names()));
        vars.insert("now".to_owned(), Known::Value);
        for name in own {
            vars.insert((*name).to_owned(), Known::Value);
        }
        vars
    }

    fn list_vars(&self) -> known::Scope {
        let mut vars = self.vars(&[]);
        vars.insert("page".to_owned(), Known::values(["size", "offset", "number"]));
        vars
    }

    fn query(&mut self, query: &Query) -> Option<QueryPlan> {
        let mut vars = self.list_vars();
        let steps = self.steps("query", &["operations", "query", "steps"], &query.steps, &mut vars);
        let rows = match &query.rows {
            Some(rows) => Some(self.rows("query", rows, &vars)?),
            None => None,
        };
        let total = self.total("query", query.total.as_ref(), &vars);
        let (path, name) = (self.path(&["operations", "query", "result"]), self.name("query/result"));
        let result = self.compiler.mapping(&path, &name, &[], &query.result, &vars)?;
        Some(QueryPlan { steps, rows, total, result })
    }

    fn list_bills(&mut self, list: &ListBills) -> Option<ListPlan> {
        let mut vars = self.list_vars();
        let steps = self.steps("list_bills", &["operations", "list_bills", "steps"], &list.steps, &mut vars);
        let rows = self.rows("list_bills", &list.rows, &vars)?;
        let total = self.total("list_bills", list.total.as_ref(), &vars);
        Some(ListPlan { steps, rows, total })
    }

    fn lock(&mut self, lock: &Lock) -> Option<LockPlan> {
        let mut vars = self.vars(&["bill_no", "request_id", "hold_minutes"]);
        let read_steps = self.steps("lock/read", &["operations", "lock", "read", "steps"], &lock.read.steps, &mut vars);
        let read_row = self.row_of("lock/read", &["operations", "lock", "read", "row"], &lock.read.row, &vars)?;
        let steps = self.steps("lock", &["operations", "lock", "steps"], &lock.steps, &mut vars);
        let row = self.row_of("lock", &["operations", "lock", "row"], &lock.row, &vars)?;
        let held_until = self.expression("lock", &["operations", "lock", "held_until"], &lock.held_until, &vars);
        Some(LockPlan { read: ReadPlan { steps: read_steps, row: read_row }, steps, row, held_until })
    }

    fn release(&mut self, release: &Release) -> Vec<StepPlan> {
        let mut vars = self.vars(&["bill_no", "request_id", "lock_request_id"]);
        self.steps("release", &["operations", "release", "steps"], &release.steps, &mut vars)
    }

    fn settle(&mut self, settle: &Settle) -> SettlePlan {
        let mut vars = self.vars(&[
            "bill_no",
            "request_id",
            "lock_request_id",
            "amount_minor",
            "paid_time",
            "channel",
            "channel_transaction",
        ]);
        let steps = self.steps("settle", &["operations", "settle", "steps"], &settle.steps, &mut vars);
        if settle.outcome.iter().any(|rule| rule.then == Then::Refused) {
            let what = "`refused` is told by a code here; say `unknown`, so that the inquiry tells why";
            self.problem(&["operations", "settle", "outcome"], what);
        }
        let outcome = self.outcome("settle", &settle.outcome, &vars);
        let proof = self.proof("settle", &settle.proof, &vars);
        SettlePlan { steps, outcome, proof }
    }

    fn inquire(&mut self, inquire: &Inquire) -> InquirePlan {
        let mut vars = self.vars(&["bill_no", "request_id", "amount_minor"]);
        let steps = self.steps("inquire", &["operations", "inquire", "steps"], &inquire.steps, &mut vars);
        if inquire.refusal.is_none() && inquire.outcome.iter().any(|rule| rule.then == Then::Refused) {
            self.problem(&["operations", "inquire"], "`then: refused` needs `refusal`: where the reply says why");
        }
        let outcome = self.outcome("inquire", &inquire.outcome, &vars);
        let refusal = inquire.refusal.as_ref().map(|refusal| self.refusal(refusal, &vars));
        let proof = self.proof("inquire", &inquire.proof, &vars);
        InquirePlan { steps, outcome, refusal, proof }
    }

    fn expression(&mut self, operation: &str, below: &[&str], source: &str, vars: &known::Scope) -> Scope {
        let path = self.path(below);
        let field = below.last().copied().unwrap_or_default();
        let name = self.name(&format!("{operation}/{field}"));
        self.compiler.expression(&path, &name, source, vars)
    }

    fn total(&mut self, operation: &str, total: Option<&String>, vars: &known::Scope) -> Option<Scope> {
        total.map(|source| self.expression(operation, &["operations", operation, "total"], source, vars))
    }

    fn outcome(&mut self, operation: &str, rules: &[OutcomeRule], vars: &known::Scope) -> OutcomePlan {
        let below = |position: usize| self.path(&["operations", operation, "outcome", &position.to_string(), "when"]);
        let paths: Vec<_> = (0..rules.len()).map(below).collect();
        let fields: Vec<_> = rules.iter().map(|rule| ("outcome".to_owned(), rule.when.clone())).collect();
        for (path, (_, source)) in paths.iter().zip(&fields) {
            self.compiler.check(path, source, vars);
        }
        let name = self.name(&format!("{operation}/outcome"));
        let when = self.compiler.scope(&name, &fields, &paths);
        OutcomePlan { when, then: rules.iter().map(|rule| rule.then).collect() }
    }

    fn proof(&mut self, operation: &str, proof: &ProofMap, vars: &known::Scope) -> Scope {
        let sources = [("serial", &proof.serial), ("time", &proof.time), ("amount_minor", &proof.amount_minor)];
        self.pairs(operation, "proof", &sources, vars)
    }

    fn refusal(&mut self, refusal: &Refusal, vars: &known::Scope) -> Scope {
        let sources = [("code", &refusal.code), ("text", &refusal.text)];
        self.pairs("inquire", "refusal", &sources, vars)
    }

    fn pairs(&mut self, operation: &str, part: &str, sources: &[(&str, &String)], vars: &known::Scope) -> Scope {
        let sources: Named<String> =
            sources.iter().map(|(field, source)| ((*field).to_owned(), (*source).clone())).collect();
        let (path, name) = (self.path(&["operations", operation, part]), self.name(&format!("{operation}/{part}")));
        self.compiler.named(&path, &name, &sources, vars)
    }

    fn rows(&mut self, operation: &str, rows: &Rows, vars: &known::Scope) -> Option<RowsPlan> {
        let below = ["operations", operation, "rows"];
        let each = self.expression(operation, &["operations", operation, "rows", "each"], &rows.each, vars);
        let mut vars = vars.clone();
        vars.insert(rows.element.clone(), known::of_path(&rows.each, &vars).element());
        vars.insert("index".to_owned(), Known::Value);
        let row = self.row(operation, &below, &rows.with, &rows.require, &vars)?;
        Some(RowsPlan { each, element: rows.element.clone(), row })
    }

    fn row_of(
        &mut self,
        operation: &str,
        below: &[&str],
        with: &Named<String>,
        vars: &known::Scope,
    ) -> Option<RowPlan> {
        let (parent, field) = below.split_at(below.len().saturating_sub(1));
        let path = self.path(parent);
        let lets = lets(&path, field.first().copied().unwrap_or_default(), with);
        self.compile_row(operation, lets, &[], &path, vars)
    }

    fn row(
        &mut self,
        operation: &str,
        below: &[&str],
        with: &Named<String>,
        require: &[String],
        vars: &known::Scope,
    ) -> Option<RowPlan> {
        let path = self.path(below);
        let lets = lets(&path, "with", with);
        self.compile_row(operation, lets, require, &path, vars)
    }

    /// One run makes a whole record: the operation's variables, the row's, its fields, and what must hold.
    fn compile_row(
        &mut self,
        operation: &str,
        mut lets: Vec<(Vec<String>, String, String)>,
        require: &[String],
        require_path: &[String],
        vars: &known::Scope,
    ) -> Option<RowPlan> {
        let row = &self.item.row;
        let row_path = self.path(&["row"]);
        lets.extend(self::lets(&row_path, "with", &row.with));
        let leaf = |name: &str, source: &Option<String>| {
            source.as_ref().map(|source| (name.to_owned(), Node::Leaf(source.clone())))
        };
        let mut fields: Vec<_> = [
            leaf("owner", &row.owner),
            leaf("bill_no", &row.bill_no),
            leaf("amount_minor", &row.amount_minor),
            leaf("late_fee_minor", &row.late_fee_minor),
            leaf("payment_code", &row.payment_code),
            leaf("bill_state", &row.bill_state),
        ]
        .into_iter()
        .flatten()
        .collect();
        for (position, source) in require.iter().enumerate() {
            let below = ["require".to_owned(), position.to_string()];
            let path: Vec<_> = require_path.iter().cloned().chain(below).collect();
            // Compiled with the rest; checked here, where its place is known.
            let mut scope = vars.clone();
            for (_, variable, source) in &lets {
                scope.insert(variable.clone(), known::of_path(source, &scope));
            }
            self.compiler.check(&path, source, &scope);
        }
        let required =
            require.iter().enumerate().map(|(position, source)| (position.to_string(), Node::Leaf(source.clone())));
        fields.push(("require".to_owned(), Node::Object(required.collect())));
        fields.push(("record".to_owned(), row.record.clone()));
        let name = self.name(&format!("{operation}/row"));
        self.compiler.mapping(&row_path, &name, &lets, &Node::Object(fields), vars).map(RowPlan)
    }

    fn steps(&mut self, operation: &str, below: &[&str], steps: &[Step], vars: &mut known::Scope) -> Vec<StepPlan> {
        if steps.is_empty() || steps.len() > STEPS_MAX {
            self.problem(below, format!("expected 1 to {STEPS_MAX} steps"));
        }
        let mut plans = Vec::with_capacity(steps.len());
        for (position, step) in steps.iter().enumerate() {
            let position = position.to_string();
            let path = self.path(below).into_iter().chain([position]).collect::<Vec<_>>();
            plans.push(self.step(operation, &path, step, vars));
        }
        plans
    }

    fn step(&mut self, operation: &str, path: &[String], step: &Step, vars: &mut known::Scope) -> StepPlan {
        let at = |field: &str| path.iter().cloned().chain([field.to_owned()]).collect::<Vec<_>>();
        let name = self.name(&format!("{operation}/{}", step.name));
        if self.profile.exchanges.get(&step.call).is_none() {
            let exchanges = self.profile.exchanges.names().collect::<Vec<_>>().join(", ");
            self.compiler
                .problem(&at("call"), format!("there is no exchange `{}`; expected one of {exchanges}", step.call));
        }
        if vars.contains_key(&step.name) {
            self.compiler.problem(&at("name"), format!("`{}` is taken by another variable", step.name));
        }
        let each = match (&step.each, &step.element) {
            (None, None) => None,
            (Some(each), Some(element)) => {
                Some((self.compiler.expression(&at("each"), &format!("{name}/each"), each, vars), element.clone()))
            }
            _ => {
                self.compiler.problem(path, "`each` and `element` belong together");
                None
            }
        };
        let when =
            step.when.as_ref().map(|when| self.compiler.expression(&at("when"), &format!("{name}/when"), when, vars));
        let mut inner = vars.clone();
        if let (Some(each), Some(element)) = (&step.each, &step.element) {
            inner.insert(element.clone(), known::of_path(each, vars).element());
        }
        let with = self.compiler.named(&at("with"), &format!("{name}/with"), &step.with, &inner);
        self.check_request(&at("with"), step);
        let reply = self.compiler.replies.get(&step.call).cloned().unwrap_or(Known::Anything);
        vars.insert(step.name.clone(), if each.is_some() { Known::List(Box::new(reply)) } else { reply });
        let (call, name, codes) = (step.call.clone(), step.name.clone(), step.codes.clone());
        StepPlan { call, name, when, each, with, codes }
    }

    /// Everything that the exchange's request and expectations use must be given by the step.
    fn check_request(&mut self, path: &[String], step: &Step) {
        let mut vars = known::Scope::new();
        vars.insert("settings".to_owned(), Known::Anything);
        for name in ["now", "serial", "transaction"] {
            vars.insert(name.to_owned(), Known::Value);
        }
        for name in step.with.names() {
            vars.insert(name.to_owned(), Known::Anything);
        }
        for template in self.compiler.requests.get(&step.call).cloned().unwrap_or_default() {
            let needs = self.compiler.templates.needs(&template);
            if let Err(what) = known::check(&needs, &vars) {
                self.compiler.problem(path, format!("the exchange `{}` needs it: {what}", step.call));
            }
        }
    }
}

/// Variables made first, each with its place.
fn lets(path: &[String], field: &str, sources: &Named<String>) -> Vec<(Vec<String>, String, String)> {
    let place = |name: &str| path.iter().cloned().chain([field.to_owned(), name.to_owned()]).collect();
    sources.iter().map(|(name, source)| (place(name), name.to_owned(), source.clone())).collect()
}
