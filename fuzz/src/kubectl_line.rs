//! Checks of what reads `kubectl logs`.

use bytes::Bytes;

use crate::line::{LineSplitter, Piece, Walk, kind_of, since_time, split_stamp};

const LIMIT: usize = 48;
/// With its timestamp.
const LINE_MAX: usize = LIMIT + 36;

/// Lines come out the same however they are cut, none over the limit, and their
/// positions only grow. The first byte says how they are cut.
pub fn check(input: &[u8]) {
    let Some((cut, log)) = input.split_first() else {
        return;
    };
    let whole = split(&[log]);
    let cut: Vec<&[u8]> = log.chunks(usize::from(*cut) + 1).collect();
    // A long line may be told of before its end: then without its length.
    let lines = |pieces: &[Piece]| -> Vec<Piece> {
        let lines = pieces.iter().filter(|piece| matches!(piece, Piece::Line(_)));
        lines.cloned().collect()
    };
    let pieces = split(&cut);
    assert_eq!(lines(&whole), lines(&pieces));
    assert_eq!(whole.len(), pieces.len());
    let expected = log.split(|byte| *byte == b'\n').filter(|line| line.len() <= LINE_MAX);
    let expected: Vec<&[u8]> = expected.collect();
    let (mut walk, mut last) = (Walk::default(), None);
    for piece in lines(&whole) {
        let Piece::Line(line) = piece else { continue };
        assert!(expected.contains(&&line[..]));
        let Some((ns, text)) = split_stamp(&line) else {
            continue;
        };
        assert!(line.ends_with(&text));
        kind_of(&text);
        assert!(since_time(ns).to_string().ends_with('Z'));
        let position = Some(walk.step(ns));
        assert!(position > last, "{position:?} after {last:?}");
        last = position;
    }
}

fn split(chunks: &[&[u8]]) -> Vec<Piece> {
    let mut splitter = LineSplitter::new(LIMIT);
    let mut pieces = Vec::new();
    for chunk in chunks {
        splitter.feed(chunk, |piece| pieces.push(piece));
    }
    pieces.extend(splitter.finish());
    for piece in &pieces {
        let length = match piece {
            Piece::Line(line) => line.len(),
            Piece::TooLong { head, .. } => head.len(),
        };
        assert!(length <= LINE_MAX);
    }
    pieces
}
