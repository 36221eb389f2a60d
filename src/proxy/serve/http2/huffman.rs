//! The Huffman code of HPACK (RFC 7541, 5.2 and appendix B), decoded. Nothing is encoded with it here.

/// Symbols: all bytes, and the end of a text, which no text may contain.
const SYMBOLS: usize = 257;
const END: u16 = 256;

/// Longest code, in bits.
const BITS_MAX: usize = 30;

/// How many bits each symbol's code has (RFC 7541, appendix B). The code is canonical: codes of the
/// same length are consecutive numbers in the order of their symbols, and the next length goes on
/// where the one before ended. So the lengths say everything.
#[rustfmt::skip]
const LENGTHS: [u8; SYMBOLS] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28,
    28, 28, 28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7,
    7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20, 22, 22, 23, 23, 21,
    23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24,
    21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, 30,
];

static CODES: Codes = Codes::new();

/// The code, arranged for decoding. Codes are aligned to the top of 32 bits.
struct Codes {
    /// For codes of eight bits at most: the symbol and the length, by the first eight bits. Length
    /// 0: the code is longer.
    short: [(u8, u8); 256],
    /// The first code of each length.
    first: [u32; BITS_MAX + 1],
    /// What is beyond the last code of each length and all shorter ones.
    limit: [u64; BITS_MAX + 1],
    /// Where the symbols of each length begin in `symbols`.
    begin: [u16; BITS_MAX + 1],
    /// Symbols in the order of their codes.
    symbols: [u16; SYMBOLS],
}

/// The text is not one in this code.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BadCode;

impl Codes {
    const fn new() -> Self {
        let mut codes = Self {
            short: [(0, 0); 256],
            first: [0; BITS_MAX + 1],
            limit: [0; BITS_MAX + 1],
            begin: [0; BITS_MAX + 1],
            symbols: [0; SYMBOLS],
        };
        let mut next = 0_u64;
        let mut count = 0;
        let mut length = 1;
        while length <= BITS_MAX {
            codes.first[length] = next as u32;
            codes.begin[length] = count as u16;
            let mut symbol = 0;
            while symbol < SYMBOLS {
                if LENGTHS[symbol] as usize == length {
                    codes.symbols[count] = symbol as u16;
                    count += 1;
                    if length <= 8 {
                        let mut at = (next >> 24) as usize;
                        while at < ((next >> 24) as usize) + (1 << (8 - length)) {
                            codes.short[at] = (symbol as u8, length as u8);
                            at += 1;
                        }
                    }
                    next += 1 << (32 - length);
                }
                symbol += 1;
            }
            codes.limit[length] = next;
            length += 1;
        }
        codes
    }

    /// The symbol whose code of more than eight bits `bits` begins with, and the code's length.
    fn long(&self, bits: u32) -> (u16, usize) {
        let mut length = 9;
        while u64::from(bits) >= self.limit[length] && length < BITS_MAX {
            length += 1;
        }
        let place = (bits - self.first[length]) >> (32 - length);
        let at = usize::from(self.begin[length]) + place as usize;
        (self.symbols[at.min(SYMBOLS - 1)], length)
    }
}

/// Appends what `code` says to `text`.
///
/// # Errors
/// When it has the code of the end in it, or is filled up with anything but up to seven ones.
pub(super) fn decode(code: &[u8], text: &mut Vec<u8>) -> Result<(), BadCode> {
    text.reserve(code.len() * 8 / 5);
    // Bits that were read and not used, from the top down.
    let (mut bits, mut count) = (0_u64, 0);
    let mut rest = code.iter();
    loop {
        while count <= 56 {
            let Some(&byte) = rest.next() else {
                break;
            };
            bits |= u64::from(byte) << (56 - count);
            count += 8;
        }
        if count == 0 {
            return Ok(());
        }
        let (symbol, length) = match CODES.short[(bits >> 56) as usize] {
            (_, 0) => CODES.long((bits >> 32) as u32),
            (symbol, length) => (u16::from(symbol), usize::from(length)),
        };
        if length > count {
            // What is left is no symbol: the last byte filled up with the first bits of the end.
            let padding = bits >> (64 - count);
            return match count < 8 && padding == (1 << count) - 1 {
                true => Ok(()),
                false => Err(BadCode),
            };
        }
        match u8::try_from(symbol) {
            Ok(byte) => text.push(byte),
            Err(_) => {
                debug_assert_eq!(symbol, END);
                return Err(BadCode);
            }
        }
        bits <<= length;
        count -= length;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The code of a symbol, by the lengths alone.
    fn code_of(symbol: u16) -> (u32, usize) {
        let length = usize::from(LENGTHS[usize::from(symbol)]);
        let mut before = (0..symbol).filter(|&s| usize::from(LENGTHS[usize::from(s)]) == length);
        let place = before.by_ref().count() as u32;
        ((CODES.first[length] >> (32 - length)) + place, length)
    }

    fn encode(symbols: &[u16], padding: bool) -> Vec<u8> {
        let mut bits = String::new();
        for &symbol in symbols {
            let (code, length) = code_of(symbol);
            bits.push_str(&format!("{code:0length$b}"));
        }
        while !bits.len().is_multiple_of(8) {
            bits.push(if padding { '1' } else { '0' });
        }
        let bytes = bits.as_bytes().chunks(8);
        bytes
            .map(|byte| u8::from_str_radix(std::str::from_utf8(byte).unwrap(), 2).unwrap())
            .collect()
    }

    fn decoded(code: &[u8]) -> Result<Vec<u8>, BadCode> {
        let mut text = Vec::new();
        decode(code, &mut text).map(|()| text)
    }

    #[test]
    fn the_code_is_that_of_the_rfc() {
        // RFC 7541, C.4.1 and C.6.1, and the end of appendix B.
        let host = b"\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff";
        assert_eq!(decoded(host).unwrap(), b"www.example.com");
        assert_eq!(decoded(b"\xae\xc3\x77\x1a\x4b").unwrap(), b"private");
        assert_eq!(code_of(END), (0x3fff_ffff, 30));
        assert_eq!(code_of(249), (0xffffffe, 28));
    }

    #[test]
    fn every_byte_comes_back_alone_and_among_others() {
        for byte in 0..=255 {
            for symbols in [
                vec![byte],
                vec![byte; 9],
                vec![u16::from(b'a'), byte, 0, byte],
            ] {
                let text: Vec<u8> = symbols.iter().map(|&s| s as u8).collect();
                assert_eq!(decoded(&encode(&symbols, true)).unwrap(), text);
            }
        }
        assert_eq!(decoded(b"").unwrap(), b"");
    }

    #[test]
    fn a_text_ends_with_ones_and_fewer_than_eight() {
        assert_eq!(decoded(&encode(&[u16::from(b'a')], false)), Err(BadCode));
        assert_eq!(decoded(b"\x1f\xff"), Err(BadCode));
        assert_eq!(decoded(b"\xff"), Err(BadCode));
        assert_eq!(decoded(b"\xff\xff\xff\xff"), Err(BadCode));
        assert_eq!(
            decoded(&encode(&[END, u16::from(b'a')], true)),
            Err(BadCode)
        );
        // A code that breaks off.
        assert_eq!(decoded(&encode(&[0], true)[..1]), Err(BadCode));
    }
}
