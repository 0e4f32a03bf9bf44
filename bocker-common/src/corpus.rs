//! Bytes that a parser has to take or to refuse, as files of `tests/corpus` of the crate under test; and what is near them.

use std::path::PathBuf;

/// The files of `dir` by name, each with whether it is to be taken: names begin with `good-` or `bad-`.
#[must_use]
#[allow(clippy::unwrap_used)]
pub fn files(dir: PathBuf) -> Vec<(String, bool, Vec<u8>)> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let good = name.starts_with("good-");
        assert!(good || name.starts_with("bad-"), "{name}");
        all.push((name, good, std::fs::read(entry.path()).unwrap()));
    }
    assert!(!all.is_empty());
    all.sort();
    all
}

/// The bytes cut off, or with one of them changed or doubled, at some `count` places: the same ones in every run.
pub fn near(bytes: &[u8], count: usize) -> impl Iterator<Item = Vec<u8>> + use<'_> {
    let step = (bytes.len() / count.max(1)).max(1);
    (0..bytes.len()).step_by(step).enumerate().map(move |(turn, at)| {
        let mut near = bytes.to_vec();
        match turn % 4 {
            0 => near.truncate(at),
            1 => near[at] ^= 1 << (turn / 4 % 8),
            2 => near[at] = b'9',
            _ => near.insert(at, bytes[at]),
        }
        near
    })
}
