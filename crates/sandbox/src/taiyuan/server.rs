//! The socket: frames in, frames out, one after the other on each connection.

use std::sync::Arc;
use std::time::Duration;

use runtime::{Context, Io, Listener};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::Semaphore;

use super::columns;
use super::layout::REQUEST_HEAD;
use super::reply::Answer;
use super::service::Service;

const LENGTH_DIGITS: usize = 6;
const REQUEST_BYTES_MAX: usize = 4_096;
const CONNECTIONS_MAX: usize = 1_024;
/// A connection without a request is closed after this.
const IDLE: Duration = Duration::from_secs(60);
/// A frame that was begun must be whole after this, and an answer must be taken.
const WHOLE: Duration = Duration::from_secs(10);
/// How long `too_long` feeds a client that goes on reading.
const FEED: Duration = Duration::from_secs(30);
const FEED_CHUNK: [u8; 8_192] = [b'0'; 8_192];

/// Serves until the process stops.
pub(crate) async fn serve(listener: Listener, service: Arc<Service>, context: Context) -> std::io::Result<()> {
    let stop = context.tasks.token();
    let seats = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let (io, _) = tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            accepted = listener.accept() => accepted?,
        };
        let Ok(seat) = seats.clone().try_acquire_owned() else { continue };
        let (service, inner) = (service.clone(), context.clone());
        context.tasks.spawn("sandbox police connection", async move {
            let _seat = seat;
            converse(io, &service, &inner).await;
        });
    }
}

/// Answers frames until one side has enough.
async fn converse(mut io: Io, service: &Service, context: &Context) {
    let stop = context.tasks.token();
    loop {
        let frame = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            frame = read_frame(&mut io, context) => frame,
        };
        let Some(frame) = frame else { return };
        let goes_on = match service.answer(&frame).await {
            Answer::Bytes(bytes) => send(&mut io, &bytes, context).await,
            Answer::LastBytes(bytes) => {
                send(&mut io, &bytes, context).await;
                false
            }
            Answer::Endless(bytes) => {
                if send(&mut io, &bytes, context).await {
                    let _ = context.clock.timeout(FEED, feed(&mut io)).await;
                }
                false
            }
            Answer::HangUp => false,
        };
        if !goes_on {
            let _ = context.clock.timeout(WHOLE, io.shutdown()).await;
            return;
        }
    }
}

/// Reads one frame without its length; `None` when there is none, or none that is allowed.
async fn read_frame(io: &mut Io, context: &Context) -> Option<Vec<u8>> {
    let mut length = [0; LENGTH_DIGITS];
    context.clock.timeout(IDLE, io.read_exact(&mut length[..1])).await.ok()?.ok()?;
    let rest = async {
        io.read_exact(length.get_mut(1..)?).await.ok()?;
        let digits = length.iter().all(u8::is_ascii_digit).then(|| std::str::from_utf8(&length).ok()).flatten()?;
        let length: usize = digits.parse().ok()?;
        if !(columns::width(REQUEST_HEAD)..=REQUEST_BYTES_MAX).contains(&length) {
            return None;
        }
        let mut frame = vec![0; length];
        io.read_exact(&mut frame).await.ok()?;
        Some(frame)
    };
    context.clock.timeout(WHOLE, rest).await.ok()?
}

async fn send(io: &mut Io, bytes: &[u8], context: &Context) -> bool {
    let written = async {
        io.write_all(bytes).await?;
        io.flush().await
    };
    matches!(context.clock.timeout(WHOLE, written).await, Ok(Ok(())))
}

async fn feed(io: &mut Io) {
    while io.write_all(&FEED_CHUNK).await.is_ok() {}
}
