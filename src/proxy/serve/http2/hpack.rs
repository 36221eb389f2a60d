//! A connection's compressed fields (RFC 7541), decoded as bytes, whatever they are.
//!
//! h2 decodes them as well, and into types that not every field fits in: one that does not is an
//! error of the whole connection there. Here only what is wrong with the compression itself is.

use std::collections::VecDeque;

use super::huffman::{self, BadCode};

/// Size of the table as long as nobody has asked for another (RFC 9113, 6.5.2), which we do not.
const TABLE_MAX: usize = 4096;

/// What a field counts beyond its bytes (RFC 7541, 4.1).
pub(super) const OVERHEAD: usize = 32;

/// As much room is kept for the next text in Huffman's code.
const KEEP: usize = 1 << 10;

/// Most bytes of a number, as h2 has it: no number of a sane peer needs more.
const NUMBER_BYTES: usize = 5;

/// The fields that both sides know from the start (RFC 7541, appendix A).
const STATIC: [(&str, &str); 61] = [
    (":authority", ""),
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "200"),
    (":status", "204"),
    (":status", "206"),
    (":status", "304"),
    (":status", "400"),
    (":status", "404"),
    (":status", "500"),
    ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"),
    ("accept-language", ""),
    ("accept-ranges", ""),
    ("accept", ""),
    ("access-control-allow-origin", ""),
    ("age", ""),
    ("allow", ""),
    ("authorization", ""),
    ("cache-control", ""),
    ("content-disposition", ""),
    ("content-encoding", ""),
    ("content-language", ""),
    ("content-length", ""),
    ("content-location", ""),
    ("content-range", ""),
    ("content-type", ""),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("expect", ""),
    ("expires", ""),
    ("from", ""),
    ("host", ""),
    ("if-match", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("if-range", ""),
    ("if-unmodified-since", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("max-forwards", ""),
    ("proxy-authenticate", ""),
    ("proxy-authorization", ""),
    ("range", ""),
    ("referer", ""),
    ("refresh", ""),
    ("retry-after", ""),
    ("server", ""),
    ("set-cookie", ""),
    ("strict-transport-security", ""),
    ("transfer-encoding", ""),
    ("user-agent", ""),
    ("vary", ""),
    ("via", ""),
    ("www-authenticate", ""),
];

/// The block cannot be decoded, and so no later one of the connection can (COMPRESSION_ERROR).
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Broken;

/// Decodes one block of a connection after the other. `N` is what the caller thinks of a field. It
/// is kept with the field, so one that is pointed at again and again is thought about once.
#[derive(Debug)]
pub(super) struct Decoder<N> {
    judge: fn(&[u8], &[u8]) -> N,
    table: Table<N>,
    /// A name and a value that came in Huffman's code.
    name: Vec<u8>,
    value: Vec<u8>,
}

/// What was sent earlier, the latest first.
#[derive(Debug)]
struct Table<N> {
    entries: VecDeque<Entry<N>>,
    size: usize,
    max: usize,
}

#[derive(Debug)]
struct Entry<N> {
    /// Name and value.
    bytes: Box<[u8]>,
    name: usize,
    note: N,
}

/// A text of the block.
enum Text<'a> {
    Plain(&'a [u8]),
    /// It was decoded into the buffer for it.
    Decoded,
}

impl<N: Copy> Decoder<N> {
    pub(super) fn new(judge: fn(&[u8], &[u8]) -> N) -> Self {
        Self {
            judge,
            table: Table {
                entries: VecDeque::new(),
                size: 0,
                max: TABLE_MAX,
            },
            name: Vec::new(),
            value: Vec::new(),
        }
    }

    /// Hands each field of `block` to `take`: its name, its value, and what `judge` thinks of it.
    ///
    /// # Errors
    /// When the block is not one. Some of its fields were handed over by then.
    pub(super) fn decode(
        &mut self,
        mut block: &[u8],
        mut take: impl FnMut(&[u8], &[u8], N),
    ) -> Result<(), Broken> {
        let mut may_resize = true;
        while let Some(&first) = block.first() {
            match first {
                // A field that is known (6.1).
                0x80.. => {
                    let index = number(&mut block, 7)?;
                    if let Some((name, value)) = known(index) {
                        let (name, value) = (name.as_bytes(), value.as_bytes());
                        take(name, value, (self.judge)(name, value));
                    } else {
                        let entry = self.table.get(index)?;
                        let (name, value) = entry.bytes.split_at(entry.name);
                        take(name, value, entry.note);
                    }
                }
                // The table's size (6.3), which may change before the fields alone (4.2).
                0x20..0x40 => {
                    let size = number(&mut block, 5)?;
                    if !may_resize || size > TABLE_MAX {
                        return Err(Broken);
                    }
                    self.table.max = size;
                    self.table.evict(0);
                    continue;
                }
                // A field that is written out, its name perhaps known (6.2): to be remembered or not.
                _ => {
                    let remembered = first & 0x40 != 0;
                    let index = number(&mut block, if remembered { 6 } else { 4 })?;
                    let name = match index {
                        0 => Some(text(&mut block, &mut self.name)?),
                        _ => None,
                    };
                    let value = text(&mut block, &mut self.value)?;
                    let name = match (&name, known(index)) {
                        (Some(Text::Plain(name)), _) => name,
                        (Some(Text::Decoded), _) => &self.name[..],
                        (None, Some((name, _))) => name.as_bytes(),
                        (None, None) => {
                            let entry = self.table.get(index)?;
                            &entry.bytes[..entry.name]
                        }
                    };
                    let value = match value {
                        Text::Plain(value) => value,
                        Text::Decoded => &self.value[..],
                    };
                    let note = (self.judge)(name, value);
                    take(name, value, note);
                    if remembered {
                        let entry = Entry {
                            bytes: [name, value].concat().into(),
                            name: name.len(),
                            note,
                        };
                        self.table.insert(entry);
                    }
                }
            }
            may_resize = false;
        }
        for buffer in [&mut self.name, &mut self.value] {
            buffer.clear();
            buffer.shrink_to(KEEP);
        }
        Ok(())
    }
}

impl<N> Table<N> {
    /// The field that `index` means, counted on from the static ones.
    fn get(&self, index: usize) -> Result<&Entry<N>, Broken> {
        let at = index.checked_sub(STATIC.len() + 1);
        at.and_then(|at| self.entries.get(at)).ok_or(Broken)
    }

    /// Takes a field in; one that is larger than the table empties it (4.4).
    fn insert(&mut self, entry: Entry<N>) {
        let size = entry.size();
        self.evict(size);
        if size <= self.max {
            self.size += size;
            self.entries.push_front(entry);
        }
    }

    /// Drops the oldest until there is room for `more` bytes.
    fn evict(&mut self, more: usize) {
        while self.size + more > self.max {
            let Some(oldest) = self.entries.pop_back() else {
                return;
            };
            self.size -= oldest.size();
        }
    }
}

impl<N> Entry<N> {
    fn size(&self) -> usize {
        self.bytes.len() + OVERHEAD
    }
}

/// The field that both sides know from the start by `index`.
fn known(index: usize) -> Option<(&'static str, &'static str)> {
    STATIC.get(index.wrapping_sub(1)).copied()
}

/// A number that begins with the last `prefix` bits of a byte (5.1).
fn number(block: &mut &[u8], prefix: u8) -> Result<usize, Broken> {
    let (&first, mut rest) = block.split_first().ok_or(Broken)?;
    let mask = (1 << prefix) - 1;
    let mut number = usize::from(first & mask);
    if first & mask == mask {
        let mut shift = 0;
        loop {
            let (&byte, after) = rest.split_first().ok_or(Broken)?;
            rest = after;
            number += usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
            if shift == 7 * (NUMBER_BYTES - 1) {
                return Err(Broken);
            }
        }
    }
    *block = rest;
    Ok(number)
}

/// A text (5.2); in Huffman's code it is decoded into `buffer`.
fn text<'a>(block: &mut &'a [u8], buffer: &mut Vec<u8>) -> Result<Text<'a>, Broken> {
    let is_coded = block.first().ok_or(Broken)? & 0x80 != 0;
    let length = number(block, 7)?;
    let (text, rest) = block.split_at_checked(length).ok_or(Broken)?;
    *block = rest;
    if !is_coded {
        return Ok(Text::Plain(text));
    }
    buffer.clear();
    huffman::decode(text, buffer).map_err(|BadCode| Broken)?;
    Ok(Text::Decoded)
}

/// Appends an instruction that empties the table and leaves no room in it.
pub(super) fn write_no_table(block: &mut Vec<u8>) {
    block.push(0x20);
}

/// Appends a field that is written out, and not remembered by whoever reads it.
pub(super) fn write_literal(name: &[u8], value: &[u8], block: &mut Vec<u8>) {
    block.push(0);
    for text in [name, value] {
        write_length(text.len(), block);
        block.extend_from_slice(text);
    }
}

/// A length in a prefix of seven bits (5.1), of a text that is not in Huffman's code.
fn write_length(length: usize, block: &mut Vec<u8>) {
    if length < 0x7f {
        block.push(length as u8);
        return;
    }
    block.push(0x7f);
    let mut rest = length - 0x7f;
    while rest >= 0x80 {
        block.push((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    block.push(rest as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    type Field = (String, String);

    fn decoder() -> Decoder<usize> {
        Decoder::new(|name, value| name.len() + value.len())
    }

    fn decoded(decoder: &mut Decoder<usize>, block: &[u8]) -> Result<Vec<Field>, Broken> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let mut fields = Vec::new();
        decoder.decode(block, |name, value, note| {
            assert_eq!(note, name.len() + value.len());
            fields.push((text(name), text(value)));
        })?;
        Ok(fields)
    }

    fn fields(fields: &[(&str, &str)]) -> Vec<Field> {
        let fields = fields.iter();
        fields
            .map(|(n, v)| (n.to_string(), v.to_string()))
            .collect()
    }

    #[test]
    fn the_requests_of_the_rfc_are_read() {
        // RFC 7541, C.3 and C.4: the same three requests, plain and in Huffman's code.
        let plain: [&[u8]; 3] = [
            b"\x82\x86\x84\x41\x0fwww.example.com",
            b"\x82\x86\x84\xbe\x58\x08no-cache",
            b"\x82\x87\x85\xbf\x40\x0acustom-key\x0ccustom-value",
        ];
        let coded: [&[u8]; 3] = [
            b"\x82\x86\x84\x41\x8c\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff",
            b"\x82\x86\x84\xbe\x58\x86\xa8\xeb\x10\x64\x9c\xbf",
            b"\x82\x87\x85\xbf\x40\x88\x25\xa8\x49\xe9\x5b\xa9\x7d\x7f\x89\x25\xa8\x49\xe9\x5b\xb8\xe8\xb4\xbf",
        ];
        for blocks in [plain, coded] {
            let mut decoder = decoder();
            let mut read = blocks.map(|block| decoded(&mut decoder, block).unwrap());
            let host = (":authority", "www.example.com");
            let first = [
                (":method", "GET"),
                (":scheme", "http"),
                (":path", "/"),
                host,
            ];
            assert_eq!(read[0], fields(&first));
            assert_eq!(
                read[1].split_off(4),
                fields(&[("cache-control", "no-cache")])
            );
            assert_eq!(read[1], fields(&first));
            let third = [(":scheme", "https"), (":path", "/index.html"), host];
            assert_eq!(read[2][1..4], fields(&third));
            assert_eq!(read[2][4..], fields(&[("custom-key", "custom-value")]));
            assert_eq!(decoder.table.size, 164);
        }
    }

    #[test]
    fn a_field_that_does_not_fit_empties_the_table() {
        let mut decoder = decoder();
        decoded(&mut decoder, b"\x40\x01a\x01b").unwrap();
        assert!(decoded(&mut decoder, b"\xbe").is_ok());
        let mut block = Vec::new();
        write_literal(b"x", &[b'y'; 5000], &mut block);
        block[0] = 0x40;
        assert_eq!(decoded(&mut decoder, &block).unwrap()[0].1.len(), 5000);
        assert_eq!(decoded(&mut decoder, b"\xbe"), Err(Broken));
        assert_eq!(decoder.table.size, 0);
    }

    #[test]
    fn what_is_written_is_read_back() {
        for length in [0, 1, 126, 127, 128, 254, 255, 256, 16_510, 16_511, 70_000] {
            let mut block = Vec::new();
            write_no_table(&mut block);
            let value = "v".repeat(length);
            write_literal(b"name", value.as_bytes(), &mut block);
            let mut decoder = decoder();
            let read = decoded(&mut decoder, &block).unwrap();
            assert_eq!(read, fields(&[("name", &value)]));
            assert_eq!(decoder.table.max, 0);
        }
    }

    #[test]
    fn what_is_no_block_is_refused() {
        for block in [
            &b"\x80"[..],
            b"\xbe",
            b"\x7f\x00\x01x",
            b"\xff\x80",
            b"\xff\xff\xff\xff\xff\x0f",
            b"\x00\x01x\x05y",
            b"\x00",
            b"\x00\x01",
            b"\x00\x01x",
            b"\x82\x20",
            b"\x3f\xe2\x1f",
            b"\x00\x01x\x81\x18",
        ] {
            assert_eq!(decoded(&mut decoder(), block), Err(Broken), "{block:?}");
        }
        // The table may be made smaller and as large as it was.
        assert!(decoded(&mut decoder(), b"\x20\x3f\xe1\x1f\x82").is_ok());
    }
}
