//! Server-sent events, read from pieces of a stream.

/// One event.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SseEvent {
    /// Its `event` field; empty where it has none.
    pub name: String,
    /// Its `id` field, if it has one.
    pub id: Option<String>,
    /// Its `data` lines, joined by line ends.
    pub data: String,
}

/// Puts events together from pieces, wherever those are cut.
#[derive(Debug, Default)]
pub struct SseReader {
    pending: Vec<u8>,
    event: SseEvent,
    has_data: bool,
}

impl SseReader {
    /// Longer lines are given up: no event of ours is.
    const MAX_LINE: usize = 8 << 20;

    /// Takes a piece and answers the events that it completes. Comments and unknown fields are passed over.
    pub fn push(&mut self, piece: &[u8]) -> Vec<SseEvent> {
        let mut events = Vec::new();
        for part in piece.split_inclusive(|&byte| byte == b'\n') {
            if self.pending.len() + part.len() > Self::MAX_LINE {
                self.pending.clear();
            }
            self.pending.extend_from_slice(part);
            if part.ends_with(b"\n") {
                let line = std::mem::take(&mut self.pending);
                let line = String::from_utf8_lossy(&line);
                events.extend(self.line(line.trim_end_matches(['\n', '\r'])));
            }
        }
        events
    }

    fn line(&mut self, line: &str) -> Option<SseEvent> {
        if line.is_empty() {
            let event = std::mem::take(&mut self.event);
            return std::mem::take(&mut self.has_data).then_some(event);
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => self.event.name = value.to_owned(),
            "id" => self.event.id = Some(value.to_owned()),
            "data" => {
                if std::mem::replace(&mut self.has_data, true) {
                    self.event.data.push('\n');
                }
                self.event.data.push_str(value);
            }
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STREAM: &str =
        ": hello\n\nid: 7\nevent: Started\ndata: {\"a\":1}\n\ndata:é\r\ndata: two\r\n\r\nevent: empty\n\ndata\n\n";

    fn event(name: &str, id: Option<&str>, data: &str) -> SseEvent {
        SseEvent { name: name.into(), id: id.map(Into::into), data: data.into() }
    }

    proptest! {
        #[test]
        fn events_are_the_same_wherever_the_stream_is_cut(cuts in prop::collection::vec(0..STREAM.len(), 0..10)) {
            let mut cuts = cuts;
            cuts.sort_unstable();
            let (mut reader, mut events, mut from) = (SseReader::default(), Vec::new(), 0);
            for cut in cuts.into_iter().chain([STREAM.len()]) {
                events.extend(reader.push(&STREAM.as_bytes()[from..cut]));
                from = cut;
            }
            prop_assert_eq!(events, vec![event("Started", Some("7"), "{\"a\":1}"), event("", None, "é\ntwo"), event("", None, "")]);
        }
    }
}
