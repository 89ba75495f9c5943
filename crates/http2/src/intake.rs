//! What a peer may still send on a stream, and what it said that it would.

use bytes::BytesMut;

use crate::frame::{self, kind};

#[derive(Debug)]
pub(crate) struct Intake {
    window: u32,
    /// Bytes that the peer may still send.
    credit: i64,
    /// Bytes that were read and not given back yet.
    read: i64,
    /// Bytes that lie between the connection and the reader.
    unread: usize,
    /// Bytes of the body that have come, and how many were declared.
    came: u64,
    declared: Option<u64>,
}

impl Intake {
    pub(crate) fn new(window: u32, declared: Option<u64>) -> Self {
        // Before it has read our settings, a peer goes by the protocol's own window.
        let credit = window.max(frame::WINDOW_DEFAULT).into();
        Self { window, credit, read: 0, unread: 0, came: 0, declared }
    }

    pub(crate) fn declare(&mut self, declared: Option<u64>) {
        self.declared = declared;
    }

    /// Counts a piece with its padding; false when it is more than the peer might send.
    pub(crate) fn take(&mut self, data: usize, flow: u32) -> bool {
        self.credit -= i64::from(flow);
        self.came += data as u64;
        self.unread += data;
        // Padding is read by nobody, and used the window all the same.
        self.read += i64::from(flow) - data as i64;
        self.credit >= 0
    }

    /// Counts what was read, and gives the window back where it is worth a frame.
    pub(crate) fn give_back(&mut self, stream: u32, read: usize, out: &mut BytesMut) {
        self.read += read as i64;
        if self.read > i64::from(self.window) / 4 {
            self.credit += self.read;
            frame::number(out, kind::WINDOW_UPDATE, stream, u32::try_from(self.read).unwrap_or(0));
            self.read = 0;
        }
    }

    /// So many of the bytes that lay here are read.
    pub(crate) fn taken(&mut self, read: usize) {
        self.unread -= read.min(self.unread);
    }

    /// What nobody has read.
    pub(crate) fn unread(&self) -> usize {
        self.unread
    }

    pub(crate) fn came(&self) -> u64 {
        self.came
    }

    /// Whether the body is as long as was declared.
    pub(crate) fn is_as_declared(&self) -> bool {
        self.declared.is_none_or(|declared| declared == self.came)
    }
}
