//! Bytes that were read earlier than they are asked for.

use bytes::Buf;
use tokio::io::ReadBuf;

/// Hands on what was read earlier, as much as there is room for, and says how many bytes that was.
pub(crate) fn hand_on(unread: &mut impl Buf, buffer: &mut ReadBuf<'_>) -> usize {
    let count = unread.chunk().len().min(buffer.remaining());
    buffer.put_slice(&unread.chunk()[..count]);
    unread.advance(count);
    count
}
