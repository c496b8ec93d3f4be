//! Messages survive the wire however they are cut up; malformed ones are refused.

use eagle_core::piece::Bitmap;
use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

use super::*;
use crate::wire;

#[derive(Default)]
struct Log {
    lines: Vec<String>,
    block: Vec<u8>,
    refuse: usize,
}

impl Sink for Log {
    type Error = WireError;

    fn message(&mut self, message: Message<'_>) -> Result<(), WireError> {
        self.lines.push(format!("{message:?}"));
        Ok(())
    }

    fn extended(&mut self, id: u8, payload: &[u8]) -> Result<(), WireError> {
        self.lines.push(format!("extended {id} {payload:?}"));
        Ok(())
    }

    fn block(&mut self, piece: u32, begin: u32, length: u32) -> Result<bool, WireError> {
        if self.refuse > 0 {
            self.refuse -= 1;
            return Ok(false);
        }
        self.lines.push(format!("block {piece} {begin} {length}"));
        Ok(true)
    }

    fn data(&mut self, bytes: &[u8]) {
        self.block.extend_from_slice(bytes);
    }

    fn block_end(&mut self) {
        self.lines.push(format!("{:?}", std::mem::take(&mut self.block)));
    }
}

fn stream() -> Vec<u8> {
    let mut out = Vec::new();
    wire::put_unchoke(&mut out);
    wire::put_keep_alive(&mut out);
    wire::put_bitfield(&mut out, &Bitmap::full(77));
    out.extend([0, 0, 0, 6, 99, 1, 2, 3, 4, 5]); // an unknown message
    out.extend([0, 0, 0, 5, EXTENDED, 1, 9, 8, 7]);
    wire::put_have(&mut out, 3);
    out.extend(wire::block_header(4, 16384, 9));
    out.extend(*b"ninebytes");
    out.extend(wire::block_header(5, 0, 1));
    out.push(7);
    wire::put_request(&mut out, 1, 2, 3);
    wire::put_cancel(&mut out, 1, 2, 3);
    out
}

proptest! {
    #[test]
    fn cuts_do_not_matter(cuts in proptest::collection::vec(1_usize..40, 0..60), refuse in 0_usize..4) {
        let bytes = stream();
        let mut whole = Log::default();
        prop_assert_eq!(Decoder::new().feed(&bytes, &mut whole).unwrap(), bytes.len());
        prop_assert_eq!(whole.lines.len(), 11);

        let (mut log, mut decoder) = (Log { refuse, ..Log::default() }, Decoder::new());
        let (mut rest, mut cuts) = (&bytes[..], cuts.into_iter());
        while !rest.is_empty() {
            let (mut part, behind) = rest.split_at(cuts.next().unwrap_or(usize::MAX).min(rest.len()));
            loop {
                let used = decoder.feed(part, &mut log).unwrap();
                part = &part[used..];
                if part.is_empty() { break }
            }
            rest = behind;
        }
        // A refusal of a block whose header ended a part is only taken back when fed again.
        for _ in 0..refuse { decoder.feed(&[], &mut log).unwrap(); }
        prop_assert_eq!(log.lines, whole.lines);
    }

    #[test]
    fn junk_never_holds_more_than_its_bounds(junk in proptest::collection::vec(any::<u8>(), 0..4000)) {
        let mut decoder = Decoder::new();
        for part in junk.chunks(100) {
            if decoder.feed(part, &mut Log::default()).is_err() { break }
            prop_assert!(decoder.carry.len() <= MAX_EXTENDED as usize + 4);
        }
    }
}

#[test]
fn impossible_lengths_end_the_connection() {
    let feed = |bytes: &[u8]| Decoder::new().feed(bytes, &mut Log::default());
    assert_eq!(feed(&[0xff; 4]), Err(WireError::Length { id: 255, length: u32::MAX }));
    assert_eq!(feed(&[0, 0, 0, 2, 4, 0]), Err(WireError::Length { id: 4, length: 2 }));
    assert!(matches!(feed(&[0, 1, 0, 0, PIECE]), Err(WireError::Length { id: PIECE, .. })));
    assert!(matches!(feed(&[0, 0, 0x30, 0, 5]), Err(WireError::Length { id: 5, .. })));
}
