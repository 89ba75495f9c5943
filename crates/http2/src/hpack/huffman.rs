//! The Huffman code of HPACK (RFC 7541, appendix B), decoding.
//!
//! The code is canonical: the lengths alone say everything. Text is made of symbols of at most eight bits, which one look into a small
//! table resolves; what is longer is found by its length.

/// Bits of the code of each byte; the last is the end of a string, which may not stand in one.
const BITS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28,
    28, 28, 28, //
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, //
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, //
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, //
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22,
    23, 23, 24, //
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23,
    22, 22, 23, //
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28,
    27, 27, 27, //
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27,
    27, 27, 26, //
    30,
];
const LONGEST: usize = 30;
const END: u16 = 256;

/// A code: its symbol and its bits; no bits where there is none.
#[derive(Clone, Copy)]
struct Code {
    symbol: u16,
    bits: u8,
}

/// The codes by length.
struct Lengths {
    /// The first code of each length.
    first: [u32; LONGEST + 1],
    /// Where the symbols of each length begin in `symbols`.
    at: [usize; LONGEST + 2],
    symbols: [u16; 257],
}

const LENGTHS: Lengths = lengths();
/// Every code of at most eight bits, by all bytes that begin with it.
const SHORT: [Code; 256] = short();

const fn lengths() -> Lengths {
    let mut all = Lengths { first: [0; LONGEST + 1], at: [0; LONGEST + 2], symbols: [0; 257] };
    let (mut code, mut next, mut bits) = (0_u32, 0_usize, 1_usize);
    while bits <= LONGEST {
        code <<= 1;
        all.first[bits] = code;
        all.at[bits] = next;
        let mut symbol = 0_u16;
        while symbol <= END {
            if BITS[symbol as usize] as usize == bits {
                all.symbols[next] = symbol;
                next += 1;
                code += 1;
            }
            symbol += 1;
        }
        bits += 1;
    }
    all.at[LONGEST + 1] = next;
    all
}

const fn short() -> [Code; 256] {
    let mut all = [Code { symbol: 0, bits: 0 }; 256];
    let mut bits = 1;
    while bits <= 8 {
        let mut nth = LENGTHS.at[bits];
        while nth < LENGTHS.at[bits + 1] {
            let code = LENGTHS.first[bits] as usize + nth - LENGTHS.at[bits];
            let mut low = 0;
            while low < 1 << (8 - bits) {
                all[code << (8 - bits) | low] = Code { symbol: LENGTHS.symbols[nth], bits: bits as u8 };
                low += 1;
            }
            nth += 1;
        }
        bits += 1;
    }
    all
}

/// A string that no encoder makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Invalid;

/// Decodes a string.
///
/// Errors: the end of a string within one, or a padding that is not the shortest of ones.
pub(crate) fn decode(coded: &[u8]) -> Result<Vec<u8>, Invalid> {
    let mut text = Vec::with_capacity(coded.len() * 8 / 5 + 1);
    let mut rest = coded.iter();
    // The bits to come stand at the top of `window`, `held` of them.
    let (mut window, mut held) = (0_u64, 0_u32);
    loop {
        while held <= 56 {
            let Some(byte) = rest.next() else { break };
            window |= u64::from(*byte) << (56 - held);
            held += 8;
        }
        let code = match SHORT[(window >> 56) as usize] {
            Code { bits: 0, .. } => long(window)?,
            short => short,
        };
        let bits = u32::from(code.bits);
        if bits > held {
            // Less than one code is left: padding.
            let is_ones = held == 0 || window >> (64 - held) == (1 << held) - 1;
            return if held < 8 && is_ones { Ok(text) } else { Err(Invalid) };
        }
        text.push(u8::try_from(code.symbol).map_err(|_| Invalid)?);
        window <<= bits;
        held -= bits;
    }
}

fn long(window: u64) -> Result<Code, Invalid> {
    for bits in 9..=LONGEST {
        let code = (window >> (64 - bits)) as usize;
        let nth = LENGTHS.at[bits] + code.wrapping_sub(LENGTHS.first[bits] as usize);
        if code >= LENGTHS.first[bits] as usize && nth < LENGTHS.at[bits + 1] {
            return Ok(Code { symbol: LENGTHS.symbols[nth], bits: bits as u8 });
        }
    }
    Err(Invalid)
}

#[cfg(test)]
pub(crate) fn encode(text: &[u8]) -> Vec<u8> {
    let (mut coded, mut window, mut held) = (Vec::new(), 0_u64, 0_u32);
    for byte in text {
        let bits = usize::from(BITS[usize::from(*byte)]);
        let nth = (LENGTHS.at[bits]..LENGTHS.at[bits + 1]).find(|nth| LENGTHS.symbols[*nth] == u16::from(*byte));
        let code = LENGTHS.first[bits] + u32::try_from(nth.expect("has a code") - LENGTHS.at[bits]).expect("is small");
        window = window << bits | u64::from(code);
        held += u32::try_from(bits).expect("is small");
        while held >= 8 {
            coded.push((window >> (held - 8)) as u8);
            held -= 8;
        }
    }
    if held > 0 {
        coded.push((window << (8 - held)) as u8 | (0xff >> held));
    }
    coded
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_the_standard_gives_as_examples() {
        // RFC 7541, C.4 and C.6.
        for (text, coded) in [
            ("www.example.com", "f1e3c2e5f23a6ba0ab90f4ff"),
            ("no-cache", "a8eb10649cbf"),
            ("custom-value", "25a849e95bb8e8b4bf"),
            ("Mon, 21 Oct 2013 20:13:21 GMT", "d07abe941054d444a8200595040b8166e082a62d1bff"),
            (
                "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1",
                "94e7821dd7f2e6c7b335dfdfcd5b3960d5af27087f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007",
            ),
        ] {
            let coded = hex::decode(coded).expect("is hexadecimal");
            assert_eq!(decode(&coded), Ok(text.as_bytes().to_vec()), "{text}");
            assert_eq!(encode(text.as_bytes()), coded, "{text}");
        }
    }

    #[test]
    fn padding_is_the_shortest_of_ones() {
        assert_eq!(decode(&[]), Ok(Vec::new()));
        assert_eq!(decode(&[0b0000_0111]), Ok(b"0".to_vec()));
        assert_eq!(decode(&[0b0000_0110]), Err(Invalid), "not of ones");
        assert_eq!(decode(&[0b0000_0111, 0xff]), Err(Invalid), "longer than seven");
        assert_eq!(decode(&[0xff; 4]), Err(Invalid), "the end of a string");
    }

    proptest! {
        #[test]
        fn every_string_comes_back(text in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert_eq!(decode(&encode(&text)), Ok(text));
        }

        #[test]
        fn nothing_breaks_it(coded in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(text) = decode(&coded) {
                prop_assert_eq!(encode(&text), coded, "there is one way to write a string");
            }
        }
    }
}
