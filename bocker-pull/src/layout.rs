//! An OCI image layout (image-spec, image-layout.md) written as a tar stream.

use std::fs::File;
use std::io::Write;

use bocker_common::{Error, Result};

/// Says that this is a layout.
pub const MARKER: (&str, &[u8]) = ("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#);
/// A tar archive is blocks of this many bytes.
const BLOCK: usize = 512;

/// A tar stream, entry by entry. The same entries make the same bytes: mode 0644, owner 0, time 0.
#[derive(Debug)]
pub struct Layout<W = File> {
    out: W,
    /// Bytes that the entry being written still owes.
    owed: u64,
    /// Zeros that fill the entry's last block.
    padding: usize,
}

impl<W: Write> Layout<W> {
    /// A stream to `out`, nothing written yet.
    pub fn new(out: W) -> Self {
        Self { out, owed: 0, padding: 0 }
    }

    /// Starts a file of `size` bytes; [`Layout::write`] must bring exactly these.
    ///
    /// # Errors
    /// `out` cannot be written to; silence if its reader is gone.
    pub fn begin(&mut self, name: &str, size: u64) -> Result<()> {
        let mut header = tar::Header::new_gnu();
        header.set_path(name).map_err(|e| Error::new("write", name, e))?;
        header.set_entry_type(tar::EntryType::Regular);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(size);
        header.set_cksum();
        // Six digits, NUL, space, as every tar but this crate writes it: so ours is GNU tar's stream, byte for byte.
        let sum = header.cksum().map_err(|e| Error::new("write", name, e))?;
        header.as_old_mut().cksum.copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.raw(header.as_bytes())?;
        self.owed = size;
        self.padding = (BLOCK - (size % BLOCK as u64) as usize) % BLOCK;
        self.pad()
    }

    /// Some bytes of the file that was begun.
    ///
    /// # Errors
    /// As [`Layout::begin`].
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.raw(bytes)?;
        self.owed = self.owed.saturating_sub(bytes.len() as u64);
        self.pad()
    }

    /// A whole file.
    ///
    /// # Errors
    /// As [`Layout::begin`].
    pub fn file(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        self.begin(name, bytes.len() as u64)?;
        if bytes.is_empty() { Ok(()) } else { self.write(bytes) }
    }

    /// Ends the archive: two blocks of zeros.
    ///
    /// # Errors
    /// As [`Layout::begin`].
    pub fn end(&mut self) -> Result<()> {
        self.raw(&[0; 2 * BLOCK])
    }

    /// Ends the archive with an entry that says that we failed and said why. What the entry before still owes is filled
    /// with zeros, so that this one can be found.
    pub fn fail(&mut self) {
        let zeros = [0; 64 << 10];
        while self.owed > 0 {
            let some = self.owed.min(zeros.len() as u64) as usize;
            if self.write(zeros.get(..some).unwrap_or(&zeros)).is_err() {
                return;
            }
        }
        if self.file("failed", b"").is_ok() {
            let _ = self.end();
        }
    }

    fn pad(&mut self) -> Result<()> {
        if self.owed > 0 {
            return Ok(());
        }
        let padding = std::mem::take(&mut self.padding);
        self.raw([0; BLOCK].get(..padding).unwrap_or_default())
    }

    fn raw(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes).map_err(|e| Error::stdout(&e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn read(stream: &[u8]) -> Vec<(String, Vec<u8>)> {
        tar::Archive::new(stream)
            .entries()
            .unwrap()
            .map(|entry| {
                let mut entry = entry.unwrap();
                let mut bytes = Vec::new();
                entry.read_to_end(&mut bytes).unwrap();
                (entry.path().unwrap().to_str().unwrap().to_owned(), bytes)
            })
            .collect()
    }

    #[test]
    fn what_goes_in_comes_out() {
        let mut out = Vec::new();
        let mut layout = Layout::new(&mut out);
        let files: Vec<Vec<u8>> = [0usize, 1, 511, 512, 513, 100_000].iter().map(|&n| vec![7; n]).collect();
        for bytes in &files {
            layout.file(&format!("blobs/{}", bytes.len()), bytes).unwrap();
        }
        layout.end().unwrap();
        assert_eq!(out.len() % BLOCK, 0);
        let entries = read(&out);
        assert_eq!(entries.len(), files.len());
        for ((name, read), bytes) in entries.iter().zip(&files) {
            assert_eq!((name, read), (&format!("blobs/{}", bytes.len()), bytes));
        }
    }

    #[test]
    fn a_failure_is_the_last_entry_wherever_it_happens() {
        for written in [0usize, 1, 700, 1000] {
            let mut out = Vec::new();
            let mut layout = Layout::new(&mut out);
            layout.begin("blob", 1000).unwrap();
            layout.write(&vec![7; written]).unwrap();
            layout.fail();
            let entries = read(&out);
            assert_eq!(entries.last().unwrap(), &("failed".to_owned(), vec![]), "after {written}");
            assert_eq!(entries.len(), 2);
        }
    }
}
