//! Batches of the client (MCP 2025-03-26 "Batching", JSON-RPC §6): split towards the server, collected for the client.

use std::collections::HashMap;

use bytes::{BufMut, Bytes, BytesMut};

/// Names a batch that is being answered.
pub(super) type BatchId = u64;

/// Batches that still miss responses.
#[derive(Debug, Default)]
pub(super) struct Batches {
    open: HashMap<BatchId, Open>,
    last: BatchId,
}

#[derive(Debug)]
struct Open {
    missing: usize,
    parts: Vec<Bytes>,
}

impl Batches {
    /// A batch that will have `missing` responses.
    pub(super) fn open(&mut self, missing: usize) -> BatchId {
        self.last += 1;
        self.open.insert(self.last, Open { missing, parts: Vec::with_capacity(missing) });
        self.last
    }

    /// No batch waits for responses.
    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// One of the responses, or `None` for a member that will have none (it was cancelled).
    /// Gives the array once it is whole; an array without members is not sent (JSON-RPC §6).
    pub(super) fn add(&mut self, batch: BatchId, part: Option<Bytes>) -> Option<Bytes> {
        let open = self.open.get_mut(&batch)?;
        open.missing = open.missing.saturating_sub(1);
        open.parts.extend(part);
        if open.missing > 0 {
            return None;
        }
        let parts = self.open.remove(&batch)?.parts;
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
}
