//! Words as lines of a file that a person can read: `\` as `\\` and a line break as `\n`, nothing else escaped.
//! So has `bocker-store` what a container was told, and `bocker-exec` reads it.

/// A word as a line, without its end.
pub fn escape(word: &[u8]) -> Vec<u8> {
    let mut line = Vec::with_capacity(word.len());
    for byte in word {
        match byte {
            b'\\' => line.extend(b"\\\\"),
            b'\n' => line.extend(b"\\n"),
            byte => line.push(*byte),
        }
    }
    line
}

/// A line as a word; `None` if no word is written so: nothing has two readings.
pub fn unescape(line: &[u8]) -> Option<Vec<u8>> {
    let (mut word, mut bytes) = (Vec::with_capacity(line.len()), line.iter());
    while let Some(byte) = bytes.next() {
        word.push(match byte {
            b'\\' => match bytes.next()? {
                b'\\' => b'\\',
                b'n' => b'\n',
                _ => return None,
            },
            byte => *byte,
        });
    }
    Some(word)
}
