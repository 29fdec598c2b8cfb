//! Bytes into lines.

/// Longer lines are told in pieces of this many bytes, so that a program which writes no line ends cannot fill the memory.
pub(super) const MAX_LINE: usize = 64 * 1024;

/// Cuts a run of bytes into lines.
#[derive(Debug, Default)]
pub(super) struct Lines {
    partial: Vec<u8>,
}

impl Lines {
    /// Takes the bytes that stand at `position`; `tell` gets each line that they complete and the position of its end.
    pub(super) fn feed(&mut self, position: u64, bytes: &[u8], mut tell: impl FnMut(u64, String)) {
        let mut consumed = 0;
        while consumed < bytes.len() {
            let rest = &bytes[consumed..];
            let room = MAX_LINE - self.partial.len();
            let end = rest.iter().take(room).position(|&byte| byte == b'\n');
            let taken = end.unwrap_or(rest.len().min(room));
            self.partial.extend_from_slice(&rest[..taken]);
            consumed += taken;
            if end.is_some() {
                consumed += 1;
            }
            if end.is_some() || self.partial.len() == MAX_LINE {
                tell(position + consumed as u64, self.take());
            }
        }
    }

    /// The line that has begun and not ended, if there is one.
    pub(super) fn finish(&mut self) -> Option<String> {
        (!self.partial.is_empty()).then(|| self.take())
    }

    fn take(&mut self) -> String {
        let line = self.partial.strip_suffix(b"\r").unwrap_or(&self.partial);
        let line = String::from_utf8_lossy(line).into_owned();
        self.partial.clear();
        line
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cut(chunks: &[&[u8]]) -> Vec<String> {
        let (mut lines, mut told, mut position) = (Lines::default(), Vec::new(), 0);
        for chunk in chunks {
            lines.feed(position, chunk, |_, line| told.push(line));
            position += chunk.len() as u64;
        }
        told.extend(lines.finish());
        told
    }

    #[test]
    fn long_lines_come_in_pieces_and_bad_bytes_are_replaced() {
        let long = vec![b'x'; MAX_LINE + 10];
        let told: Vec<usize> = cut(&[&long]).iter().map(String::len).collect();
        assert_eq!(told, [MAX_LINE, 10]);
        assert_eq!(cut(&[b"a\xff\r\n\nb"]), ["a\u{fffd}", "", "b"]);
    }

    proptest! {
        #[test]
        fn it_does_not_matter_how_the_bytes_arrive(text in "[a-c\n]{0,200}", at in 0usize..200) {
            let (first, second) = text.as_bytes().split_at(at.min(text.len()));
            let whole = cut(&[text.as_bytes()]);
            prop_assert_eq!(&cut(&[first, second]), &whole);
            prop_assert_eq!(whole, text.lines().map(str::to_owned).collect::<Vec<_>>());
        }
    }
}
