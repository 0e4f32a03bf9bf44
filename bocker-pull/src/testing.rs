//! Noise for the tests of the parsers: the same bytes in every run.

/// A small xorshift generator.
pub(crate) struct Noise(u64);

impl Noise {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % end.max(1)
    }

    /// Up to `max` characters of `alphabet`.
    pub(crate) fn text(&mut self, alphabet: &str, max: usize) -> String {
        let alphabet: Vec<char> = alphabet.chars().collect();
        (0..self.below(max + 1)).map(|_| alphabet[self.below(alphabet.len())]).collect()
    }

    /// The bytes with a few of them changed, removed or doubled.
    pub(crate) fn spoil(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len());
            match self.below(4) {
                0 if !bytes.is_empty() => drop(bytes.remove(at)),
                1 => bytes.insert(at, self.below(256) as u8),
                2 => bytes.truncate(at),
                _ if !bytes.is_empty() => bytes[at] = self.below(256) as u8,
                _ => {}
            }
        }
        bytes
    }
}
