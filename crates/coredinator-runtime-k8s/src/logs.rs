//! Output: what the cluster keeps of a replica's lives, one after the other, and what was kept of those whose pods are gone.
//!
//! A pod's output goes with it. So before coredinator takes a pod away whose program ran, it reads what that printed, and keeps
//! the newest lines of each replica's last life in memory.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use coredinator_core::{LogLine, LogQuery, LogStream, OutputStream, RuntimeError, ServiceName, Timestamp};
use futures_util::{AsyncBufReadExt, FutureExt, StreamExt, future::BoxFuture, stream};
use kube::api::LogParams;
use tokio::{
    sync::{mpsc, oneshot},
    time,
};

use crate::{
    container::CONTAINER,
    engine::Trouble,
    shared::Shared,
    state::{Found, State},
};

/// How many lines may wait for a reader.
const WINDOW: usize = 256;
/// How many lines, and how many bytes of them, are kept of a life whose pod is taken away.
const KEPT_LINES: i64 = 50_000;
const KEPT_BYTES: usize = 2 * 1024 * 1024;
/// How long a pod is left alone until its output is being read: that of a silent one begins only with its first line.
const FIRST_WORD: Duration = Duration::from_secs(1);
/// How long the end of a pod's output may take once the pod has ended.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// The longest line, in bytes, that is handed on in one piece.
const LONGEST_LINE: usize = 1024 * 1024;

/// What one life printed, of a replica whose pod is gone.
#[derive(Debug, Default)]
struct Record {
    uid: String,
    created_at: Option<Timestamp>,
    lines: VecDeque<LogLine>,
    bytes: usize,
}

impl Record {
    fn push(&mut self, line: LogLine) {
        self.bytes += line.line.len();
        self.lines.push_back(line);
        while self.bytes > KEPT_BYTES
            && let Some(oldest) = self.lines.pop_front()
        {
            self.bytes -= oldest.line.len();
        }
    }
}

/// The last lives of replicas whose pods coredinator has taken away.
#[derive(Debug, Clone, Default)]
pub(crate) struct Archive(Arc<Mutex<Records>>);

/// By replica.
type Records = HashMap<(ServiceName, u32), Arc<Record>>;

impl Archive {
    fn records(&self) -> MutexGuard<'_, Records> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether something is kept of a replica.
    pub(crate) fn has(&self, service: &ServiceName, replica: u32) -> bool {
        self.records().contains_key(&(service.clone(), replica))
    }

    /// The services of which something is kept.
    pub(crate) fn services(&self) -> Vec<ServiceName> {
        self.records().keys().map(|(service, _)| service.clone()).collect()
    }

    pub(crate) fn forget(&self, service: &ServiceName) {
        self.records().retain(|(of, _), _| of != service);
    }

    /// Begins to read what a pod printed, before it is asked to go; the future is to be awaited when it has ended. Dropped
    /// before that, nothing is kept.
    pub(crate) async fn keep(&self, shared: &Arc<Shared>, found: &Found) -> BoxFuture<'static, ()> {
        if matches!(found.state, State::Waiting(_)) {
            return std::future::ready(()).boxed();
        }
        let (archive, shared, found) = (self.clone(), Arc::clone(shared), found.clone());
        let (opened, is_open) = oneshot::channel::<()>();
        let (enough, mut is_enough) = oneshot::channel::<()>();
        let mut reading = tokio::spawn(async move {
            let mut record = Record { uid: found.uid.clone(), created_at: found.created_at, ..Record::default() };
            let params = LogParams { follow: true, tail_lines: Some(KEPT_LINES), ..params() };
            let answer = tokio::select! {
                answer = lines(&shared, &found, &params) => answer,
                _ = &mut is_enough => return,
            };
            let _ = opened.send(());
            let mut lines = match answer {
                Ok(lines) => lines,
                Err(trouble) => {
                    tracing::debug!(pod = %found.tags.id, ?trouble, "cannot keep a pod's output");
                    return;
                }
            };
            loop {
                tokio::select! {
                    line = lines.next() => match line {
                        Some(Ok(line)) => record.push(line),
                        Some(Err(_)) | None => break,
                    },
                    told = &mut is_enough => match told {
                        Ok(()) => break,
                        Err(_) => return,
                    },
                }
            }
            let key = (found.tags.service.clone(), found.tags.replica);
            archive.records().insert(key, Arc::new(record));
        });
        // A pod that is gone before its output was asked for takes it along.
        let _ = time::timeout(FIRST_WORD, is_open).await;
        async move {
            if time::timeout(LAST_WORDS, &mut reading).await.is_err() {
                let _ = enough.send(());
                let _ = reading.await;
            }
        }
        .boxed()
    }
}

/// Answers a query.
pub(crate) async fn read(shared: Arc<Shared>, query: LogQuery) -> Result<LogStream, RuntimeError> {
    // An API server that is away is told now, not in the middle of the stream.
    for namespace in shared.engine.namespaces().await.map_err(Trouble::unknown)? {
        shared.events.cover(&namespace);
    }
    let replicas = replicas(&shared, &query).await.map_err(Trouble::failed)?;
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

/// One run of a replica's program.
#[derive(Debug, Clone)]
enum Life {
    /// In this pod; `previous`: before its kubelet started it again.
    Pod { found: Box<Found>, previous: bool },
    /// In a pod that is gone.
    Kept(Arc<Record>),
}

impl Life {
    /// What tells it from all others.
    fn key(&self) -> (String, u32) {
        match self {
            Self::Pod { found, previous } => (found.uid.clone(), found.restarts - u32::from(*previous)),
            Self::Kept(record) => (record.uid.clone(), 0),
        }
    }
}

/// All of a service's pods there are.
async fn pods(shared: &Shared, service: &ServiceName) -> Result<Vec<Found>, Trouble> {
    let mut all = Vec::new();
    for namespace in shared.engine.namespaces().await? {
        let pods = shared.engine.pods(&namespace).await;
        let pods = shared.engine.where_allowed(&namespace, pods).await?.unwrap_or_default();
        all.extend(pods.into_iter().filter(|found| found.tags.service == *service));
    }
    Ok(all)
}

/// A replica's lives, oldest first.
async fn lives(shared: &Shared, service: &ServiceName, replica: u32) -> Result<Vec<Life>, Trouble> {
    let mut pods = pods(shared, service).await?;
    pods.retain(|found| found.tags.replica == replica);
    // The API server stamps in whole seconds; of two pods of one second the one that has ended was there before.
    pods.sort_by_key(|found| (found.created_at, !matches!(found.state, State::Ended(_)), found.started_at));
    let kept = shared.archive.records().get(&(service.clone(), replica)).cloned();
    let mut lives = Vec::new();
    if let Some(record) = kept.filter(|record| !pods.iter().any(|found| found.uid == record.uid)) {
        let before = pods.iter().filter(|found| found.created_at < record.created_at).count();
        lives.extend(pods.drain(..before).flat_map(runs));
        lives.push(Life::Kept(record));
    }
    lives.extend(pods.into_iter().flat_map(runs));
    Ok(lives)
}

fn runs(found: Found) -> impl Iterator<Item = Life> {
    let found = Box::new(found);
    // While it waits to be started again its last run is the one that is read without `previous`.
    let runs_again = found.restarts > 0 && !matches!(found.state, State::Waiting(_));
    let previous = runs_again.then(|| Life::Pod { found: found.clone(), previous: true });
    previous.into_iter().chain([Life::Pod { found, previous: false }])
}

/// The replicas of which there is output.
async fn replicas(shared: &Shared, query: &LogQuery) -> Result<Vec<u32>, Trouble> {
    if let Some(replica) = query.replica {
        return Ok(vec![replica]);
    }
    let there = pods(shared, &query.service).await?;
    let kept = shared.archive.records();
    let kept = kept.keys().filter(|(service, _)| *service == query.service).map(|(_, replica)| *replica);
    let mut numbers: Vec<u32> = there.iter().map(|found| found.tags.replica).chain(kept).collect();
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
                let of: Vec<u32> = shared.events.all().into_iter()
                    .filter(|found| found.tags.service == query.service)
                    .filter(|found| query.replica.is_none_or(|replica| replica == found.tags.replica))
                    .map(|found| found.tags.replica)
                    .collect();
                for replica in of {
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
    let mut last: Option<(String, u32)> = None;
    loop {
        match lives(shared, &query.service, replica).await {
            Ok(lives) => {
                let seen = last.as_ref().and_then(|last| lives.iter().position(|life| life.key() == *last));
                let new = &lives[seen.map_or(0, |seen| seen + 1)..];
                let tails = match (query.tail, &last) {
                    (Some(tail), None) => tails(shared, query, new, tail).await,
                    _ => vec![None; new.len()],
                };
                for (life, tail) in new.iter().zip(tails) {
                    if !forward(shared, query, life, tail, sender).await {
                        // It has not begun.
                        break;
                    }
                    last = Some(life.key());
                }
            }
            Err(trouble) if !query.follow => {
                let _ = sender.send(Err(trouble.failed())).await;
            }
            // The API server is away; the stream goes on when it is back.
            Err(_) => {}
        }
        if !query.follow {
            return;
        }
        hints.next(|_, service| service == query.service.as_str()).await;
    }
}

/// How many of the newest lines each of a replica's lives is to tell, so that they are `tail` together.
async fn tails(shared: &Shared, query: &LogQuery, lives: &[Life], tail: usize) -> Vec<Option<usize>> {
    let (mut left, mut tails) = (tail, Vec::new());
    for (index, life) in lives.iter().enumerate().rev() {
        tails.push(Some(left));
        if index == 0 || left == 0 {
            continue;
        }
        let has = match life {
            Life::Kept(record) => record.lines.iter().filter(|line| is_wanted(query, line)).count(),
            Life::Pod { found, previous } => {
                let params = LogParams { previous: *previous, tail_lines: i64::try_from(left).ok(), ..since(query) };
                match lines(shared, found, &params).await {
                    Ok(lines) => lines.take_while(|line| std::future::ready(line.is_ok())).count().await,
                    Err(_) => 0,
                }
            }
        };
        left = left.saturating_sub(has);
    }
    tails.reverse();
    tails
}

fn params() -> LogParams {
    LogParams { container: Some(CONTAINER.to_owned()), timestamps: true, ..LogParams::default() }
}

fn since(query: &LogQuery) -> LogParams {
    LogParams { since_time: query.since.and_then(theirs), ..params() }
}

fn theirs(time: Timestamp) -> Option<k8s_openapi::jiff::Timestamp> {
    k8s_openapi::jiff::Timestamp::from_nanosecond(time.as_nanosecond()).ok()
}

fn is_wanted(query: &LogQuery, line: &LogLine) -> bool {
    query.since.is_none_or(|since| line.at.is_none_or(|at| at >= since))
}

/// Hands on the lines of one life; following, until it has ended. Whether it has begun.
async fn forward(shared: &Shared, query: &LogQuery, life: &Life, tail: Option<usize>, sender: &Sender) -> bool {
    let (found, previous) = match life {
        Life::Kept(record) => {
            let wanted: Vec<&LogLine> = record.lines.iter().filter(|line| is_wanted(query, line)).collect();
            for line in wanted.iter().skip(tail.map_or(0, |tail| wanted.len().saturating_sub(tail))) {
                if sender.send(Ok((*line).clone())).await.is_err() {
                    break;
                }
            }
            return true;
        }
        Life::Pod { found, previous } => (found, *previous),
    };
    let follow = query.follow && !previous;
    let tail_lines = tail.and_then(|tail| i64::try_from(tail).ok());
    let mut params = LogParams { follow, previous, tail_lines, ..since(query) };
    let mut last: Option<Timestamp> = None;
    loop {
        let mut printed = match lines(shared, found, &params).await {
            Ok(printed) => printed,
            // What was printed before its kubelet started it again is no longer kept.
            Err(Trouble::Refused("PodRefused", _)) if previous => return true,
            // Its program has not started; or its pod is gone.
            Err(Trouble::Refused("PodRefused", _)) => return false,
            Err(Trouble::NotFound(_)) => return true,
            Err(trouble) if !follow => {
                let _ = sender.send(Err(trouble.failed())).await;
                return true;
            }
            Err(_) => {
                time::sleep(Duration::from_secs(1)).await;
                continue;
            }
        };
        let mut broken = None;
        while let Some(line) = printed.next().await {
            let line = match line {
                Ok(line) => line,
                Err(error) => {
                    broken = Some(error);
                    break;
                }
            };
            // What was handed on before the connection broke is not told twice.
            if !is_wanted(query, &line) || last.is_some_and(|last| line.at.is_some_and(|at| at <= last)) {
                continue;
            }
            last = line.at.or(last);
            if sender.send(Ok(line)).await.is_err() {
                return true;
            }
        }
        match broken {
            None => return true,
            Some(error) if !follow => {
                let _ = sender.send(Err(RuntimeError::internal("cannot read a pod's output", error))).await;
                return true;
            }
            Some(error) => {
                tracing::debug!(%error, "following output was cut off");
                params.tail_lines = if last.is_some() { None } else { params.tail_lines };
                params.since_time = last.and_then(theirs).or(params.since_time);
                time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

type Lines = stream::BoxStream<'static, Result<LogLine, std::io::Error>>;

/// What a pod's program printed, line by line.
async fn lines(shared: &Shared, found: &Found, params: &LogParams) -> Result<Lines, Trouble> {
    let reader = shared.engine.log(&found.namespace, found.tags.id.as_str(), params).await?;
    let replica = found.tags.replica;
    Ok(stream::try_unfold(Box::pin(reader), move |mut reader| async move {
        let mut bytes = Vec::new();
        // Without an end a line is handed on in pieces.
        let mut limited = futures_util::AsyncReadExt::take(&mut reader, LONGEST_LINE as u64);
        if limited.read_until(b'\n', &mut bytes).await? == 0 {
            return Ok(None);
        }
        Ok(Some((line(replica, &bytes), reader)))
    })
    .boxed())
}

/// A line as the API server tells it: its time, a space, its text. Which stream it was written to is not told.
fn line(replica: u32, bytes: &[u8]) -> LogLine {
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    let bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
    let space = bytes.iter().position(|&byte| byte == b' ').unwrap_or(bytes.len());
    let at: Option<Timestamp> = std::str::from_utf8(&bytes[..space]).ok().and_then(|time| time.parse().ok());
    let text = if at.is_some() { bytes.get(space + 1..).unwrap_or_default() } else { bytes };
    LogLine { replica, stream: OutputStream::Stdout, at, line: String::from_utf8_lossy(text).into_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_its_time_and_its_text() {
        let time = "2020-01-01T00:00:00.500000001Z";
        let at: Timestamp = time.parse().unwrap();
        for (given, at, text) in [
            (format!("{time} one\n"), Some(at), "one"),
            (format!("{time} begun ended\r\n"), Some(at), "begun ended"),
            (format!("{time} \n"), Some(at), ""),
            (format!("{time}\n"), Some(at), ""),
            // A kubelet tells the time of its node's zone.
            ("2020-01-01T02:00:00.500000001+02:00 one\n".to_owned(), Some(at), "one"),
            ("no time\n".to_owned(), None, "no time"),
            (String::new(), None, ""),
        ] {
            let read = line(3, given.as_bytes());
            assert_eq!((read.at, read.line.as_str(), read.replica), (at, text, 3), "{given:?}");
        }
        assert_eq!(line(0, &[0xff, b'\n']).line, "\u{fffd}");
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut record = Record::default();
        for number in 0..100 {
            let text = format!("{number} {}", "x".repeat(KEPT_BYTES / 10));
            record.push(line(0, text.as_bytes()));
        }
        assert!(record.bytes <= KEPT_BYTES && record.lines.len() < 11);
        assert!(record.lines.back().unwrap().line.starts_with("99 "));
    }
}
