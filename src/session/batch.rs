//! Batches of the client (MCP 2025-03-26 "Batching", JSON-RPC §6): split towards the server, collected for the client.

use std::collections::HashMap;

use bytes::{BufMut, Bytes, BytesMut};

/// Names a batch that is being answered.
pub(crate) type BatchId = u64;

/// Batches that still miss responses.
#[derive(Debug, Default)]
pub(crate) struct Batches {
    open: HashMap<BatchId, Open>,
    last: BatchId,
}

/// Bytes of responses that one batch may hold back; beyond it the client gets them in several arrays.
const MAX_HELD: usize = 16 << 20;

#[derive(Debug)]
struct Open {
    missing: usize,
    bytes: usize,
    parts: Vec<Bytes>,
}

impl Batches {
    /// A batch that will have `missing` responses.
    pub(crate) fn open(&mut self, missing: usize) -> BatchId {
        self.last += 1;
        self.open.insert(self.last, Open { missing, bytes: 0, parts: Vec::with_capacity(missing) });
        self.last
    }

    /// No batch waits for responses.
    pub(crate) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// One of the responses, or `None` for a member that will have none (it was cancelled).
    /// Gives the array once it is whole; an array without members is not sent (JSON-RPC §6).
    pub(crate) fn add(&mut self, batch: BatchId, part: Option<Bytes>) -> Option<Bytes> {
        let open = self.open.get_mut(&batch)?;
        open.missing = open.missing.saturating_sub(1);
        open.bytes += part.as_ref().map_or(0, Bytes::len);
        open.parts.extend(part);
        if open.missing > 0 && open.bytes <= MAX_HELD {
            return None;
        }
        let parts = std::mem::take(&mut open.parts);
        open.bytes = 0;
        if open.missing == 0 {
            self.open.remove(&batch);
        }
        if parts.is_empty() {
            return None;
        }
        let mut line = BytesMut::with_capacity(parts.iter().map(|part| part.len() + 1).sum::<usize>() + 1);
        for (index, part) in parts.iter().enumerate() {
            line.put_u8(if index == 0 { b'[' } else { b',' });
            line.put_slice(part);
        }
        line.put_u8(b']');
        Some(line.freeze())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_answered_once_and_whole() {
        let mut batches = Batches::default();
        let batch = batches.open(3);
        assert_eq!(batches.add(batch, Some(Bytes::from("{\"id\":2}"))), None);
        assert_eq!(batches.add(batch, None), None);
        assert_eq!(batches.add(batch, Some(Bytes::from("{\"id\":1}"))).expect("whole"), "[{\"id\":2},{\"id\":1}]");
        assert_eq!(batches.add(batch, Some(Bytes::from("{}"))), None, "nothing is answered twice");
        let batch = batches.open(1);
        assert_eq!(batches.add(batch, None), None);
    }

    #[test]
    fn a_batch_does_not_hold_back_more_than_it_may() {
        let mut batches = Batches::default();
        let batch = batches.open(3);
        let large = Bytes::from(format!("\"{}\"", "x".repeat(MAX_HELD)));
        assert!(batches.add(batch, Some(large)).is_some(), "sent at once, in an array of its own");
        assert_eq!(batches.add(batch, Some(Bytes::from("1"))), None);
        assert_eq!(batches.add(batch, Some(Bytes::from("2"))).expect("whole"), "[1,2]");
        assert!(batches.is_empty());
    }
}
