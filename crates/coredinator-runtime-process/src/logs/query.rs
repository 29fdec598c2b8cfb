//! Reading output back: the files of all replicas and both streams, merged by time.

use std::{
    collections::{HashSet, VecDeque},
    io,
    sync::Arc,
    time::Duration,
};

use coredinator_core::{LogLine, LogQuery, LogStream, OutputStream, RuntimeError, SharedClock, Timestamp};
use futures_util::{StreamExt, stream};

use super::{Logs, STREAMS, file::StreamFile, lines::Lines, marks::Mark};

/// How much is read at a time.
const CHUNK: usize = 64 * 1024;

/// How many lines are handed on at a time.
const BATCH: usize = 512;

/// How often a followed file is looked at.
const FOLLOW: Duration = Duration::from_millis(150);

/// Answers a query. Files are read a chunk at a time and only as fast as the stream is.
pub(crate) async fn read(logs: Arc<Logs>, clock: SharedClock, query: LogQuery) -> Result<LogStream, RuntimeError> {
    let follow = query.follow;
    let reader = blocking(move || Reader::new(logs, clock, query)).await?;
    let lines = stream::unfold((Some(reader), VecDeque::new()), move |(mut reader, mut ready)| async move {
        loop {
            if let Some(line) = ready.pop_front() {
                return Some((Ok(line), (reader, ready)));
            }
            let mut this = reader.take()?;
            match blocking(move || this.batch().map(|batch| (this, batch))).await {
                Ok((_, batch)) if batch.is_empty() && !follow => return None,
                Ok((this, batch)) => {
                    if batch.is_empty() {
                        tokio::time::sleep(FOLLOW).await;
                    }
                    ready = batch;
                    reader = Some(this);
                }
                // The last item: without a reader, the stream ends.
                Err(error) => return Some((Err(error), (None, ready))),
            }
        }
    });
    Ok(lines.boxed())
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> Result<T, RuntimeError> {
    let failed = |error| RuntimeError::internal("cannot read the logs", error);
    let outcome = tokio::task::spawn_blocking(work).await;
    outcome.map_err(|error| failed(io::Error::other(error)))?.map_err(failed)
}

/// Reads all the files that a query is about.
struct Reader {
    logs: Arc<Logs>,
    clock: SharedClock,
    query: LogQuery,
    replicas: HashSet<u32>,
    streams: Vec<Stream>,
}

/// Reads one stream of one replica.
struct Stream {
    file: Arc<StreamFile>,
    replica: u32,
    stream: OutputStream,
    position: u64,
    lines: Lines,
    marks: Vec<Mark>,
    ready: VecDeque<LogLine>,
    /// The end was reached; not looked at again within a batch.
    at_end: bool,
}

impl Reader {
    fn new(logs: Arc<Logs>, clock: SharedClock, query: LogQuery) -> io::Result<Self> {
        let mut reader = Self { logs, clock, query, replicas: HashSet::new(), streams: Vec::new() };
        for mut streams in reader.discover() {
            if let Some(tail) = reader.query.tail {
                reader.keep_tail(&mut streams, tail)?;
            }
            reader.streams.extend(streams);
        }
        Ok(reader)
    }

    /// The streams of replicas that were not there before, a pair for each.
    fn discover(&mut self) -> Vec<Vec<Stream>> {
        let replicas = match self.query.replica {
            Some(replica) => vec![replica],
            None => self.logs.replicas(&self.query.service),
        };
        let new: Vec<u32> = replicas.into_iter().filter(|&replica| self.replicas.insert(replica)).collect();
        let pair = |replica| STREAMS.map(|stream| self.stream(replica, stream)).into();
        new.into_iter().map(pair).collect()
    }

    fn stream(&self, replica: u32, stream: OutputStream) -> Stream {
        let file = self.logs.file(&self.query.service, replica, stream);
        let marks = file.marks();
        let mut position = file.range().0;
        if let Some(since) = self.query.since {
            let since = since.as_millisecond();
            let before = marks.iter().take_while(|mark| mark.millis <= since).last();
            position = position.max(before.map_or(0, |mark| mark.offset));
        }
        Stream {
            file,
            replica,
            stream,
            position,
            lines: Lines::default(),
            marks,
            ready: VecDeque::new(),
            at_end: false,
        }
    }

    /// Moves a replica's streams on to its newest `tail` lines, those of both streams counted together.
    fn keep_tail(&self, streams: &mut [Stream], tail: usize) -> io::Result<()> {
        let mut counted = 0;
        for stream in &mut *streams {
            stream.position = stream.tail_position(tail)?;
            counted += stream.count()?;
        }
        for _ in tail..counted {
            next(streams, &self.clock)?;
        }
        Ok(())
    }

    /// The next lines; none if there are none now.
    fn batch(&mut self) -> io::Result<VecDeque<LogLine>> {
        let mut batch = VecDeque::new();
        self.streams.iter_mut().for_each(|stream| stream.at_end = false);
        while batch.len() < BATCH {
            match next(&mut self.streams, &self.clock)? {
                Some(line) => batch.push_back(line),
                None => break,
            }
        }
        if batch.is_empty() {
            if self.query.follow {
                let new = self.discover();
                self.streams.extend(new.into_iter().flatten());
            } else {
                let now = self.clock.now();
                batch.extend(self.streams.iter_mut().filter_map(|stream| stream.finish(now)));
            }
        }
        Ok(batch)
    }
}

/// The oldest line that any of `streams` has not told yet.
fn next(streams: &mut [Stream], clock: &SharedClock) -> io::Result<Option<LogLine>> {
    for stream in &mut *streams {
        stream.fill(clock)?;
    }
    let oldest = streams.iter_mut().filter(|stream| !stream.ready.is_empty()).min_by_key(|stream| stream.ready[0].at);
    Ok(oldest.and_then(|stream| stream.ready.pop_front()))
}

impl Stream {
    /// Makes sure that a line is ready, if there is one.
    fn fill(&mut self, clock: &SharedClock) -> io::Result<()> {
        let mut buffer = Vec::new();
        while self.ready.is_empty() && !self.at_end {
            buffer.resize(CHUNK, 0);
            let (start, read) = self.file.read(self.position, &mut buffer)?;
            if read == 0 {
                self.at_end = true;
                return Ok(());
            }
            let now = clock.now();
            let Self { lines, ready, marks, replica, stream, .. } = self;
            lines.feed(start, &buffer[..read], |end, line| {
                let at = Some(time_of(marks, end, now));
                ready.push_back(LogLine { replica: *replica, stream: *stream, at, line });
            });
            self.position = start + read as u64;
        }
        Ok(())
    }

    /// The line at the end that nobody has ended.
    fn finish(&mut self, now: Timestamp) -> Option<LogLine> {
        let line = self.lines.finish()?;
        let at = Some(time_of(&self.marks, self.position, now));
        Some(LogLine { replica: self.replica, stream: self.stream, at, line })
    }

    /// How many lines follow.
    fn count(&self) -> io::Result<usize> {
        let (mut position, mut lines, mut count) = (self.position, Lines::default(), 0);
        let mut buffer = vec![0; CHUNK];
        loop {
            let (start, read) = self.file.read(position, &mut buffer)?;
            if read == 0 {
                return Ok(count + usize::from(lines.finish().is_some()));
            }
            lines.feed(start, &buffer[..read], |_, _| count += 1);
            position = start + read as u64;
        }
    }

    /// Where the newest `tail` lines begin, looking back from the end; not before the present position.
    fn tail_position(&self, tail: usize) -> io::Result<u64> {
        let first = self.position;
        let (_, end) = self.file.range();
        if tail == 0 {
            return Ok(end.max(first));
        }
        let mut buffer = vec![0; CHUNK];
        let (mut upper, mut found) = (end, 0);
        while upper > first {
            let lower = upper.saturating_sub(CHUNK as u64).max(first);
            let mut filled = 0;
            let wanted = usize::try_from(upper - lower).unwrap_or(CHUNK);
            while filled < wanted {
                let (start, read) = self.file.read(lower + filled as u64, &mut buffer[filled..wanted])?;
                if read == 0 || start != lower + filled as u64 {
                    // The oldest file went away meanwhile.
                    return Ok(upper);
                }
                filled += read;
            }
            for at in (0..wanted).rev().filter(|&at| buffer[at] == b'\n') {
                let after = lower + at as u64 + 1;
                // The last line's own end does not begin another.
                found += usize::from(after != end);
                if found == tail {
                    return Ok(after);
                }
            }
            upper = lower;
        }
        Ok(first)
    }
}

/// When the line that ends at `end` was written: by the first mark after it, or just now.
fn time_of(marks: &[Mark], end: u64, now: Timestamp) -> Timestamp {
    let at = marks.partition_point(|mark| mark.offset < end);
    marks.get(at).and_then(|mark| Timestamp::from_millisecond(mark.millis).ok()).unwrap_or(now)
}
