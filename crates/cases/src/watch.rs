//! Streams over histories. Any replica serves them by sequence number, so a stream that breaks is resumed anywhere.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use contracts::cases::v1 as pb;
use contracts::ids::CaseId;
use rpc::{BoxStream, status};
use runtime::Timestamp;
use tonic::Status;

use crate::convert;
use crate::engine::Engine;
use crate::error::Error;
use crate::repo;

/// Lines read at once.
const LINES_MAX: u32 = 100;

/// The part that all streams have in common: how far it is, what is read and not yet sent, and when it ends.
struct Stream<T> {
    engine: Arc<Engine>,
    after: i64,
    ready: VecDeque<T>,
    ends: Timestamp,
    /// Nothing more will come.
    over: bool,
}

impl<T> Stream<T> {
    fn new(engine: Arc<Engine>, after: i64) -> Self {
        // What began together does not end together.
        let age = engine.config.watch.age_max.get();
        let tenth = u64::try_from((age / 10).as_micros()).unwrap_or(0);
        let ends = engine.context.clock.now().plus(age - Duration::from_micros(engine.context.ids.below(tenth + 1)));
        Self { engine, after, ready: VecDeque::new(), ends, over: false }
    }

    /// How long to wait before looking again; None when the stream's time is over or the process stops.
    fn patience(&self) -> Option<Duration> {
        let left = self.ends.since(self.engine.context.clock.now());
        let stopping = self.engine.context.tasks.token().is_cancelled();
        (!left.is_zero() && !stopping).then(|| left.min(self.engine.config.watch.poll.get()))
    }
}

/// Streams the history of one case; ends after its last line once it has ended.
pub(crate) fn case(engine: Arc<Engine>, id: CaseId, after: i64) -> BoxStream<pb::WatchCaseResponse> {
    let stream = Stream::new(engine, after);
    Box::pin(futures::stream::try_unfold(stream, move |mut stream| async move {
        loop {
            if let Some(response) = stream.ready.pop_front() {
                return Ok(Some((response, stream)));
            }
            if stream.over {
                return Ok(None);
            }
            let waiting = stream.engine.hints.waiting(id);
            read_case(&mut stream, id).await.map_err(|error| status(&error))?;
            if !stream.ready.is_empty() || stream.over {
                continue;
            }
            let Some(patience) = stream.patience() else { return Ok(None) };
            let clock = &stream.engine.context.clock;
            match waiting {
                Some(mut waiting) => waiting.wait(clock, patience).await,
                None => clock.sleep(patience).await,
            }
        }
    }))
}

async fn read_case(stream: &mut Stream<pb::WatchCaseResponse>, id: CaseId) -> Result<(), Error> {
    let mut reader = stream.engine.db.read().await?;
    let lines = repo::events_after(&mut reader, id, stream.after, LINES_MAX).await?;
    // After the lines, so that the case is never older than a line that it is sent with.
    let file = repo::load(&mut reader, id).await?.ok_or(Error::CaseNotFound)?;
    drop(reader);
    let case = convert::case(&file);
    for line in &lines {
        stream.after = line.sequence;
        stream.ready.push_back(pb::WatchCaseResponse { event: Some(convert::event(line)), case: Some(case.clone()) });
    }
    stream.over = file.case.state.is_terminal() && stream.after >= file.case.sequence;
    Ok(())
}

/// Streams the steps of all cases of an entry point.
pub(crate) fn entry_point(engine: Arc<Engine>, name: String, after: i64) -> BoxStream<pb::WatchCasesResponse> {
    let stream = Stream::new(engine, after);
    Box::pin(futures::stream::try_unfold((stream, name), |(mut stream, name)| async move {
        loop {
            if let Some(response) = stream.ready.pop_front() {
                return Ok::<_, Status>(Some((response, (stream, name))));
            }
            let mut waiter = stream.engine.db.wake().waiter();
            read_entry_point(&mut stream, &name).await.map_err(|error| status(&error))?;
            if !stream.ready.is_empty() {
                continue;
            }
            let Some(patience) = stream.patience() else { return Ok(None) };
            waiter.wait(&stream.engine.context.clock, patience).await;
        }
    }))
}

async fn read_entry_point(stream: &mut Stream<pb::WatchCasesResponse>, name: &str) -> Result<(), Error> {
    let mut reader = stream.engine.db.read().await?;
    for (sequence, case, line) in repo::stream_after(&mut reader, name, stream.after, LINES_MAX).await? {
        stream.after = sequence;
        let event = Some(convert::event(&line));
        stream.ready.push_back(pb::WatchCasesResponse { sequence, case_id: case.to_string(), event });
    }
    Ok(())
}
