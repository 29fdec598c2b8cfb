//! Output: what the engine keeps of a replica's lives, one after the other.

use std::sync::Arc;

use bollard::{container::LogOutput, models::ContainerSummaryStateEnum, query_parameters::LogsOptionsBuilder};
use coredinator_core::{LogLine, LogQuery, LogStream, OutputStream, RuntimeError, Timestamp};
use futures_util::{StreamExt, stream};
use tokio::sync::mpsc;

use crate::{
    engine::{failed, status},
    labels,
    shared::Shared,
};

/// How many lines may wait for a reader.
const WINDOW: usize = 256;

/// Answers a query.
pub(crate) async fn read(shared: Arc<Shared>, query: LogQuery) -> Result<LogStream, RuntimeError> {
    // An engine that is away is told now, not in the middle of the stream.
    let replicas = replicas(&shared, &query).await?;
    let (sender, receiver) = mpsc::channel(WINDOW);
    tokio::spawn(async move {
        tokio::select! {
            () = sender.closed() => {}
            () = all(&shared, &query, replicas, &sender) => {}
        }
    });
    Ok(stream::unfold(receiver, |mut receiver| async { receiver.recv().await.map(|line| (line, receiver)) }).boxed())
}

type Sender = mpsc::Sender<Result<LogLine, RuntimeError>>;

/// The replicas of which there is output.
async fn replicas(shared: &Shared, query: &LogQuery) -> Result<Vec<u32>, RuntimeError> {
    let lives = shared.engine.lives(&query.service, query.replica).await?;
    let number = |life: bollard::models::ContainerSummary| life.labels?.get(labels::REPLICA)?.parse().ok();
    let mut numbers: Vec<u32> = lives.into_iter().filter_map(number).chain(query.replica).collect();
    numbers.sort_unstable();
    numbers.dedup();
    Ok(numbers)
}

async fn all(shared: &Shared, query: &LogQuery, mut known: Vec<u32>, sender: &Sender) {
    if !query.follow {
        for replica in known {
            one(shared, query, replica, sender).await;
        }
        return;
    }
    let mut hints = shared.events.hints();
    let mut following: stream::FuturesUnordered<_> =
        known.iter().map(|&replica| one(shared, query, replica, sender)).collect();
    loop {
        tokio::select! {
            Some(()) = following.next() => {}
            () = hints.next(|_, service| service == query.service.as_str()) => {
                for replica in replicas(shared, query).await.unwrap_or_default() {
                    if !known.contains(&replica) {
                        known.push(replica);
                        following.push(one(shared, query, replica, sender));
                    }
                }
            }
        }
    }
}

/// One replica: what is kept, and, following, what its lives print from now on. Whoever reads is told an error and the end.
async fn one(shared: &Shared, query: &LogQuery, replica: u32, sender: &Sender) {
    let mut hints = shared.events.hints();
    let mut last: Option<String> = None;
    loop {
        match shared.engine.lives(&query.service, Some(replica)).await {
            Ok(lives) => {
                // The output of one that has not started yet ends at once: its start is told, too.
                let begun = lives.into_iter().filter(|life| life.state != Some(ContainerSummaryStateEnum::CREATED));
                let ids: Vec<String> = begun.filter_map(|life| life.id).collect();
                let seen = last.as_ref().and_then(|last| ids.iter().position(|id| id == last));
                let new = &ids[seen.map_or(0, |seen| seen + 1)..];
                let tails = match (query.tail, &last) {
                    (Some(tail), None) => tails(shared, query, new, tail).await,
                    _ => vec![None; new.len()],
                };
                for (id, tail) in new.iter().zip(tails) {
                    forward(shared, query, replica, id, tail, sender).await;
                    last = Some(id.clone());
                }
            }
            Err(error) if !query.follow => {
                let _ = sender.send(Err(error)).await;
            }
            // The engine is away; the stream goes on when it is back.
            Err(_) => {}
        }
        if !query.follow {
            return;
        }
        hints.next(|_, service| service == query.service.as_str()).await;
    }
}

/// How many of the newest lines each of a replica's lives is to tell, so that they are `tail` together.
async fn tails(shared: &Shared, query: &LogQuery, lives: &[String], tail: usize) -> Vec<Option<usize>> {
    let (mut left, mut tails) = (tail, Vec::new());
    for (index, id) in lives.iter().enumerate().rev() {
        tails.push(Some(left));
        if index == 0 || left == 0 {
            continue;
        }
        let options = options(query).tail(&left.to_string()).build();
        let Ok(client) = shared.engine.client().await else { continue };
        let ends = |output: LogOutput| usize::from(output.into_bytes().ends_with(b"\n"));
        let lines = client.logs(id, Some(options)).filter_map(async |output| output.ok()).map(ends);
        left = left.saturating_sub(lines.fold(0, async |sum, line| sum + line).await);
    }
    tails.reverse();
    tails
}

fn options(query: &LogQuery) -> LogsOptionsBuilder {
    let options = LogsOptionsBuilder::new().stdout(true).stderr(true).timestamps(true);
    // Whole seconds: what was written within the first is sorted out line by line.
    let second = query.since.map(|since| i32::try_from(since.as_second().max(0)).unwrap_or(i32::MAX));
    second.map_or(options.clone(), |second| options.since(second))
}

/// Hands on the lines of one container until it has no more; following, until it has ended.
async fn forward(shared: &Shared, query: &LogQuery, replica: u32, id: &str, tail: Option<usize>, sender: &Sender) {
    let mut options = options(query).follow(query.follow);
    if let Some(tail) = tail {
        options = options.tail(&tail.to_string());
    }
    let Ok(client) = shared.engine.client().await else { return };
    let mut output = std::pin::pin!(client.logs(id, Some(options.build())));
    let (mut out, mut err) = (Lines::default(), Lines::default());
    while let Some(chunk) = output.next().await {
        let (stream, lines, message) = match chunk {
            Ok(LogOutput::StdErr { message }) => (OutputStream::Stderr, &mut err, message),
            Ok(output) => (OutputStream::Stdout, &mut out, output.into_bytes()),
            // It was removed.
            Err(error) if status(&error) == Some(404) => return,
            Err(error) if query.follow => {
                tracing::debug!(%error, "following output ended");
                return;
            }
            Err(error) => {
                let _ = sender.send(Err(failed("cannot read a container's output", error))).await;
                return;
            }
        };
        let Some((at, line)) = lines.push(&message) else { continue };
        if query.since.is_some_and(|since| at.is_some_and(|at| at < since)) {
            continue;
        }
        if sender.send(Ok(LogLine { replica, stream, at, line })).await.is_err() {
            return;
        }
    }
    for (stream, lines) in [(OutputStream::Stdout, out), (OutputStream::Stderr, err)] {
        if let Some((at, line)) = lines.rest() {
            let _ = sender.send(Ok(LogLine { replica, stream, at, line })).await;
        }
    }
}

/// Puts together the pieces in which the engine keeps long lines.
#[derive(Debug, Default)]
struct Lines {
    at: Option<Timestamp>,
    text: Vec<u8>,
}

impl Lines {
    /// Takes a piece, which begins with its time; answers the line that it ends.
    fn push(&mut self, piece: &[u8]) -> Option<(Option<Timestamp>, String)> {
        let space = piece.iter().position(|&byte| byte == b' ');
        let time = space.and_then(|end| std::str::from_utf8(&piece[..end]).ok()?.parse().ok());
        let text = match (space, time) {
            (Some(end), Some(_)) => &piece[end + 1..],
            _ => piece,
        };
        self.at = self.at.or(time);
        let Some(text) = text.strip_suffix(b"\n") else {
            self.text.extend_from_slice(text);
            return None;
        };
        self.text.extend_from_slice(text);
        std::mem::take(self).rest_or_empty()
    }

    /// What is left without an end.
    fn rest(self) -> Option<(Option<Timestamp>, String)> {
        if self.text.is_empty() { None } else { self.rest_or_empty() }
    }

    fn rest_or_empty(self) -> Option<(Option<Timestamp>, String)> {
        let text = self.text.strip_suffix(b"\r").unwrap_or(&self.text);
        Some((self.at, String::from_utf8_lossy(text).into_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_become_lines() {
        let time = "2020-01-01T00:00:00.5Z";
        let at: Timestamp = time.parse().unwrap();
        let mut lines = Lines::default();
        assert_eq!(lines.push(format!("{time} one\n").as_bytes()), Some((Some(at), "one".into())));
        assert_eq!(lines.push(format!("{time} begun ").as_bytes()), None);
        assert_eq!(lines.push(format!("{time} ended\r\n").as_bytes()), Some((Some(at), "begun ended".into())));
        assert_eq!(lines.push(format!("{time} \n").as_bytes()), Some((Some(at), String::new())));
        assert_eq!(lines.push(b"no time\n"), Some((None, "no time".into())));
        assert_eq!(lines.push(&[0xff, b'\n']), Some((None, "\u{fffd}".into())));
        assert_eq!(lines.push(format!("{time} cut").as_bytes()), None);
        assert_eq!(lines.rest(), Some((Some(at), "cut".into())));
    }
}
