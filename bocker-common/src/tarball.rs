//! Tar archives as a stream of entries. The `tar` crate knows the header block; this puts headers together.
//!
//! Where tar parsers are known to disagree, somebody can make an archive that means one thing to a scanner and another
//! to us. So: what GNU tar and Go's archive/tar agree on is read as they read it, what they do not is refused.
//! Every record has an upper bound before it is read.
//! (The crate's own iterator reads extended headers without a bound, and ends a PAX value at its first newline.)

use std::io::{self, BufRead, Read};

use tar::{EntryType, GnuExtSparseHeader, Header};

const BLOCK: usize = 512;
/// Bytes of one extended header or long name, at most.
const MAX_RECORD: u64 = 1 << 20;
/// Attributes of one entry, at most.
const MAX_XATTRS: usize = 1000;
/// Global extended headers of one archive, at most: they are no entries, and nobody would count them.
const MAX_GLOBALS: u32 = 1000;
/// Pieces of one sparse file, at most.
const MAX_SPARSE: usize = 1 << 18;

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// Another name of an entry.
    HardLink,
    /// A character device.
    Character,
    /// A block device.
    Block,
    /// A named pipe.
    Fifo,
}

/// Seconds and nanoseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Time {
    /// Seconds, negative before 1970.
    pub seconds: i64,
    /// 0..1,000,000,000, counted forward.
    pub nanos: u32,
}

/// One entry, its extended headers already put in place.
#[derive(Debug, Clone)]
pub struct Entry {
    /// As the archive has it: may begin with `/`, hold `..`, be no UTF-8. No NUL.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Target of a link, else empty. No NUL.
    pub link: Vec<u8>,
    /// The permission bits with setuid, setgid and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last modification.
    pub mtime: Time,
    /// Major and minor number of a device.
    pub device: (u32, u32),
    /// Extended attributes, name and value.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Bytes in the archive.
    pub stored: u64,
    /// Length of the file.
    pub size: u64,
    /// Where the stored bytes belong, offset and length, ascending. None: from 0 to the end.
    pub sparse: Option<Vec<(u64, u64)>>,
}

/// Reads entries in order; between two calls of [`Reader::next_entry`] it reads as the entry's stored bytes.
#[derive(Debug)]
pub struct Reader<R> {
    inner: R,
    /// Stored bytes of the entry not yet read.
    left: u64,
    /// Zeros that fill its last block.
    padding: u64,
    ended: bool,
    marked: bool,
    globals: u32,
}

/// The error for what the archive should not hold.
pub fn bad(reason: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason.into())
}

/// Extended headers seen before the entry that they are for.
#[derive(Default)]
struct Extended {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    mtime: Option<Time>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    sparse: Sparse,
    pax: bool,
    long_path: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
}

/// GNU tar's PAX records about sparse files.
#[derive(Default)]
struct Sparse {
    version: (Option<u64>, Option<u64>),
    name: Option<Vec<u8>>,
    size: Option<u64>,
    numbers: Vec<u64>,
    /// Pieces, as announced.
    pieces: Option<u64>,
    seen: bool,
}

impl<R: Read> Reader<R> {
    /// A reader from the first byte of an archive.
    pub fn new(inner: R) -> Self {
        Self { inner, left: 0, padding: 0, ended: false, marked: false, globals: 0 }
    }

    /// Whether the end was a mark, two blocks of zeros. Without it the archive may have been cut off at an entry's boundary.
    pub fn has_end_mark(&self) -> bool {
        self.marked
    }

    /// The underlying reader, at the place reached.
    pub fn into_inner(self) -> R {
        self.inner
    }

    /// The next entry; None after the end mark, or where the archive ends at an entry's boundary without one.
    ///
    /// # Errors
    /// An archive that ends early, is damaged, or is ambiguous; errors of the underlying reader.
    pub fn next_entry(&mut self) -> io::Result<Option<Entry>> {
        if self.ended {
            return Ok(None);
        }
        let mut extended = Extended::default();
        let mut announced = false;
        loop {
            let header = if self.skip_rest()? { self.header()? } else { None };
            let Some(header) = header else {
                self.ended = true;
                return if announced { Err(bad("an extended header with no entry after it")) } else { Ok(None) };
            };
            let kind = header.entry_type();
            match kind {
                EntryType::XGlobalHeader => {
                    self.globals += 1;
                    if self.globals > MAX_GLOBALS {
                        return Err(bad("more than 1,000 global extended headers"));
                    }
                    // git archive leaves a comment in one. What would change entries is read by GNU tar, not by Go.
                    let mut globals = Extended::default();
                    globals.records(&self.record(&header)?)?;
                    if globals.changes_entries() {
                        return Err(bad("a global extended header that changes entries"));
                    }
                    continue;
                }
                EntryType::XHeader => {
                    if extended.pax {
                        return Err(bad("two extended headers for one entry"));
                    }
                    extended.pax = true;
                    extended.records(&self.record(&header)?)?;
                }
                EntryType::GNULongName => extended.long_path = Some(once(&extended.long_path, self.record(&header)?)?),
                EntryType::GNULongLink => extended.long_link = Some(once(&extended.long_link, self.record(&header)?)?),
                _ => return self.entry(&header, extended).map(Some),
            }
            announced = true;
        }
    }

    /// Reads past what is left of the current entry. False where the archive ends within the zeros after its data:
    /// umoci insert writes such layers, and Go's reader takes that for the end.
    fn skip_rest(&mut self) -> io::Result<bool> {
        let (left, padding) = (self.left, self.padding);
        (self.left, self.padding) = (0, 0);
        let mut skip = |bytes| io::copy(&mut (&mut self.inner).take(bytes), &mut io::sink());
        if skip(left)? < left {
            return Err(early());
        }
        Ok(skip(padding)? == padding)
    }

    /// The next header block, its checksum right; None at the end.
    fn header(&mut self) -> io::Result<Option<Header>> {
        let mut header = Header::new_old();
        if !self.block(header.as_mut_bytes())? {
            return Ok(None);
        }
        let bytes = header.as_bytes();
        if bytes.iter().all(|b| *b == 0) {
            let mut second = [0; BLOCK];
            // The end mark is two blocks of zeros; one alone at the end of the file is tolerated by everybody.
            self.marked = self.block(&mut second)?;
            if second.iter().any(|b| *b != 0) {
                return Err(bad("a block of zeros between entries"));
            }
            return Ok(None);
        }
        let sum: u32 = bytes.iter().map(|b| u32::from(*b)).sum();
        let field: u32 = bytes[148..156].iter().map(|b| u32::from(*b)).sum();
        if header.cksum().map_err(|_| bad("that is no tar archive"))? != sum - field + 8 * u32::from(b' ') {
            return Err(bad("a header's checksum is wrong"));
        }
        // star's own format puts two times where others keep the end of a long path.
        if header.as_ustar().is_some() && bytes[508..512] == *b"tar\0" {
            return Err(bad("star's tar format is not supported"));
        }
        Ok(Some(header))
    }

    /// One block; false where the archive ends before it.
    fn block(&mut self, into: &mut [u8; BLOCK]) -> io::Result<bool> {
        let mut read = 0;
        while read < BLOCK {
            match self.inner.read(&mut into[read..]) {
                Ok(0) if read == 0 => return Ok(false),
                Ok(0) => return Err(early()),
                Ok(n) => read += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(true)
    }

    /// The bytes of an extended header.
    fn record(&mut self, header: &Header) -> io::Result<Vec<u8>> {
        let size = number(&header.as_old().size)?;
        if size > i128::from(MAX_RECORD) || size < 0 {
            return Err(bad("an extended header of more than 1 MiB"));
        }
        self.begin(size as u64);
        let mut record = Vec::new();
        self.read_to_end(&mut record)?;
        Ok(record)
    }

    fn begin(&mut self, stored: u64) {
        self.left = stored;
        self.padding = stored.next_multiple_of(BLOCK as u64) - stored;
    }

    fn entry(&mut self, header: &Header, extended: Extended) -> io::Result<Entry> {
        let old = header.as_old();
        let Extended { path, link, size, uid, gid, mtime, xattrs, sparse, long_path, long_link, .. } = extended;
        if (path.is_some() && long_path.is_some()) || (link.is_some() && long_link.is_some()) {
            return Err(bad("two long names for one entry"));
        }
        let until_nul = |mut bytes: Vec<u8>| {
            bytes.truncate(bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len()));
            bytes
        };
        let in_block = name_of(header);
        let mut path = path.or(long_path.map(until_nul)).unwrap_or_else(|| in_block.clone());
        let link = link
            .or(long_link.map(until_nul))
            .unwrap_or_else(|| header.link_name_bytes().map(|name| name.into_owned()).unwrap_or_default());

        let in_header = u64::try_from(number(&old.size)?).map_err(|_| bad("a negative size"))?;
        let stored = size.unwrap_or(in_header);
        let slash = path.ends_with(b"/");
        if old.linkflag[0] == 0 && slash != in_block.ends_with(b"/") {
            return Err(bad(format!("'{}' is a file by one name and a directory by the other", shown(&path))));
        }
        let kind = match header.entry_type() {
            // Before ustar, a directory was a file whose name ends in a slash.
            EntryType::Regular if old.linkflag[0] == 0 && slash => Kind::Directory,
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse if slash => {
                return Err(bad(format!("'{}' is a file named like a directory", shown(&path))));
            }
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => Kind::File,
            EntryType::Directory => Kind::Directory,
            EntryType::Symlink => Kind::Symlink,
            EntryType::Link => Kind::HardLink,
            EntryType::Char => Kind::Character,
            EntryType::Block => Kind::Block,
            EntryType::Fifo => Kind::Fifo,
            other => {
                let byte = other.as_byte().escape_ascii();
                return Err(bad(format!("'{}' is of the unknown type '{byte}'", shown(&path))));
            }
        };
        let stored = match kind {
            Kind::File => stored,
            // Some archivers give a hard link its file's size; no data follows.
            Kind::HardLink if size.unwrap_or(0) == 0 => 0,
            // Whether data follows is where parsers part.
            _ if stored > 0 => return Err(bad(format!("'{}' has data but is no file", shown(&path)))),
            _ => 0,
        };
        self.begin(
            stored.checked_next_multiple_of(BLOCK as u64).map(|_| stored).ok_or_else(|| bad("a size overflows"))?,
        );
        let (mut real, mut map) = (stored, None);
        if sparse.seen && kind != Kind::File {
            return Err(bad(format!("'{}' is sparse but no file", shown(&path))));
        }
        if header.entry_type() == EntryType::GNUSparse {
            if sparse.seen {
                return Err(bad("a sparse file in two formats"));
            }
            (real, map) = self.old_sparse(header).map(|(size, map)| (size, Some(map)))?;
        } else if sparse.seen {
            if let Some(name) = &sparse.name {
                path.clone_from(name);
            }
            (real, map) = self.pax_sparse(sparse).map(|(size, map)| (size, Some(map)))?;
        }
        if let Some(map) = &map {
            check_sparse(map, self.left, real)?;
        }
        if path.contains(&0) || link.contains(&0) {
            return Err(bad("a name with a NUL byte"));
        }
        let narrow = |value: i128| u32::try_from(value).ok().filter(|v| *v != u32::MAX);
        let owner = |pax: Option<u64>, field: &[u8]| match pax {
            Some(value) => narrow(value.into()).ok_or_else(|| bad("an owner out of range")),
            None => narrow(number(field)?).ok_or_else(|| bad("an owner out of range")),
        };
        let mut device = (0, 0);
        if matches!(kind, Kind::Character | Kind::Block) {
            let part = |range, limit| {
                let value = number(&header.as_bytes()[range])?;
                u32::try_from(value).ok().filter(|v| *v < limit).ok_or_else(|| bad("a device number out of range"))
            };
            // As the kernel has them: 12 and 20 bits.
            device = (part(329..337, 1 << 12)?, part(337..345, 1 << 20)?);
        }
        Ok(Entry {
            kind,
            link,
            mode: (number(&old.mode)? & 0o7777) as u32,
            uid: owner(uid, &old.uid)?,
            gid: owner(gid, &old.gid)?,
            mtime: match mtime {
                Some(time) => time,
                None => Time {
                    seconds: i64::try_from(number(&old.mtime)?).map_err(|_| bad("a time out of range"))?,
                    nanos: 0,
                },
            },
            path,
            device,
            xattrs,
            stored: self.left,
            size: real,
            sparse: map,
        })
    }

    /// The map of GNU tar's oldest sparse format: four pieces in the header, 21 in each block after it.
    fn old_sparse(&mut self, header: &Header) -> io::Result<(u64, Vec<(u64, u64)>)> {
        let Some(gnu) = header.as_gnu() else { return Err(bad("a sparse file without a GNU header")) };
        let real = gnu.real_size()?;
        let mut map = Vec::new();
        let mut more = pieces(&gnu.sparse, gnu.is_extended(), &mut map)?;
        while more {
            let mut block = GnuExtSparseHeader::new();
            if !self.block(block.as_mut_bytes())? {
                return Err(early());
            }
            more = pieces(block.sparse(), block.is_extended(), &mut map)?;
            if map.len() > MAX_SPARSE {
                return Err(bad("a sparse file of too many pieces"));
            }
        }
        Ok((real, map))
    }

    /// The map of GNU tar's PAX formats 0.0, 0.1 (in the extended header) and 1.0 (before the data).
    fn pax_sparse(&mut self, sparse: Sparse) -> io::Result<(u64, Vec<(u64, u64)>)> {
        let real = sparse.size.ok_or_else(|| bad("a sparse file without its size"))?;
        let numbers = match sparse.version {
            (None | Some(0), None | Some(0 | 1)) => {
                if sparse.pieces.is_some_and(|pieces| Some(pieces) != u64::try_from(sparse.numbers.len() / 2).ok()) {
                    return Err(bad("a sparse file whose map has not as many pieces as it says"));
                }
                sparse.numbers
            }
            (Some(1), Some(0)) => self.sparse_numbers()?,
            _ => return Err(bad("a sparse file of an unknown format")),
        };
        if numbers.len() % 2 != 0 || numbers.len() / 2 > MAX_SPARSE {
            return Err(bad("a sparse file with a damaged map"));
        }
        Ok((real, numbers.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect()))
    }

    /// Decimal numbers, each with a newline: how many pairs, then the pairs; up to the end of a block.
    fn sparse_numbers(&mut self) -> io::Result<Vec<u64>> {
        let (mut numbers, mut digits, mut want) = (Vec::new(), Vec::new(), None);
        loop {
            let mut block = [0; BLOCK];
            self.read_exact(&mut block).map_err(|_| bad("a sparse file with a damaged map"))?;
            for byte in block {
                if want == Some(numbers.len()) {
                    return Ok(numbers);
                }
                match byte {
                    b'0'..=b'9' if digits.len() < 20 => digits.push(byte),
                    b'\n' => {
                        let value = decimal(&digits).ok_or_else(|| bad("a sparse file with a damaged map"))?;
                        digits.clear();
                        match want {
                            None if value <= MAX_SPARSE as u64 => want = Some(value as usize * 2),
                            Some(_) => numbers.push(value),
                            None => return Err(bad("a sparse file of too many pieces")),
                        }
                    }
                    _ => return Err(bad("a sparse file with a damaged map")),
                }
            }
            if want == Some(numbers.len()) {
                return Ok(numbers);
            }
        }
    }
}

impl<R: Read> Read for Reader<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(into.len());
        if most == 0 {
            return Ok(0);
        }
        let read = self.inner.read(&mut into[..most])?;
        if read == 0 {
            return Err(early());
        }
        self.left -= read as u64;
        Ok(read)
    }
}

impl<R: BufRead> BufRead for Reader<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.left == 0 {
            return Ok(&[]);
        }
        let here = self.inner.fill_buf()?;
        if here.is_empty() {
            return Err(early());
        }
        Ok(&here[..usize::try_from(self.left).unwrap_or(usize::MAX).min(here.len())])
    }

    fn consume(&mut self, bytes: usize) {
        self.left -= bytes as u64;
        self.inner.consume(bytes);
    }
}

impl Extended {
    /// Takes `LENGTH KEY=VALUE\n` records, pax(1). The length decides, so a value may hold anything.
    fn records(&mut self, mut rest: &[u8]) -> io::Result<()> {
        let broken = || bad("a damaged extended header");
        while !rest.is_empty() {
            let space = rest.iter().take(8).position(|b| *b == b' ').ok_or_else(broken)?;
            let length = decimal(&rest[..space]).and_then(|n| usize::try_from(n).ok()).ok_or_else(broken)?;
            let record = rest.get(space + 1..length).ok_or_else(broken)?;
            rest = &rest[length..];
            let Some((b'\n', record)) = record.split_last() else { return Err(broken()) };
            let equals = record.iter().position(|b| *b == b'=').ok_or_else(broken)?;
            self.record(&record[..equals], &record[equals + 1..])?;
        }
        Ok(())
    }

    /// One record. The last of several with the same key counts; an empty value takes the key back.
    fn record(&mut self, key: &[u8], value: &[u8]) -> io::Result<()> {
        let broken = || bad(format!("a damaged extended header: {}={}", shown(key), shown(value)));
        let whole = || if value.is_empty() { Ok(None) } else { decimal(value).map(Some).ok_or_else(broken) };
        let name = || {
            if value.contains(&0) {
                return Err(broken());
            }
            Ok((!value.is_empty()).then(|| value.to_vec()))
        };
        match key {
            // For GNU tar, which takes it for C's text, it is another key.
            _ if key.is_empty() || key.contains(&0) => return Err(broken()),
            b"path" => self.path = name()?,
            b"linkpath" => self.link = name()?,
            b"size" => self.size = whole()?,
            b"uid" => self.uid = whole()?,
            b"gid" => self.gid = whole()?,
            b"mtime" if value.is_empty() => self.mtime = None,
            b"mtime" => self.mtime = Some(time(value).ok_or_else(broken)?),
            _ if key.starts_with(b"GNU.sparse.") => self.sparse.record(&key[11..], value).ok_or_else(broken)?,
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    if name.is_empty() || name.len() > 255 || name.contains(&0) {
                        return Err(broken());
                    }
                    self.xattrs.retain(|(known, _)| known != name);
                    self.xattrs.push((name.to_vec(), value.to_vec()));
                    if self.xattrs.len() > MAX_XATTRS {
                        return Err(bad("more than 1,000 attributes of one entry"));
                    }
                }
            }
        }
        Ok(())
    }

    fn changes_entries(&self) -> bool {
        self.path.is_some()
            || self.link.is_some()
            || self.size.is_some()
            || self.uid.is_some()
            || self.gid.is_some()
            || self.mtime.is_some()
            || !self.xattrs.is_empty()
            || self.sparse.seen
    }
}

impl Sparse {
    fn record(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        self.seen = true;
        match key {
            b"major" => self.version.0 = Some(decimal(value)?),
            b"minor" => self.version.1 = Some(decimal(value)?),
            b"name" if !value.contains(&0) => self.name = Some(value.to_vec()),
            b"size" | b"realsize" => self.size = Some(decimal(value)?),
            b"offset" | b"numbytes" => self.numbers.push(decimal(value)?),
            b"map" if value.is_empty() => self.numbers.clear(),
            b"map" => self.numbers = value.split(|b| *b == b',').map(decimal).collect::<Option<_>>()?,
            b"numblocks" => self.pieces = Some(decimal(value)?),
            _ => return None,
        }
        Some(())
    }
}

/// The name in the header itself. Like GNU tar and Go, and unlike the tar crate, it does not ask for ustar's version.
fn name_of(header: &Header) -> Vec<u8> {
    let until_nul = |bytes: &[u8]| bytes.split(|b| *b == 0).next().unwrap_or_default().to_vec();
    let bytes = header.as_bytes();
    let (name, prefix) = (until_nul(&bytes[..100]), until_nul(&bytes[345..500]));
    if bytes[257..263] == *b"ustar\0" && !prefix.is_empty() { [&prefix[..], b"/", &name].concat() } else { name }
}

/// Takes the pieces of one block; whether there is another. An empty one is the last: GNU tar reads no further.
fn pieces(block: &[tar::GnuSparseHeader], more: bool, map: &mut Vec<(u64, u64)>) -> io::Result<bool> {
    let full = block.iter().position(tar::GnuSparseHeader::is_empty).unwrap_or(block.len());
    if block[full..].iter().any(|piece| !piece.is_empty()) || more && full < block.len() {
        return Err(bad("a sparse file with a gap in its map"));
    }
    for piece in &block[..full] {
        map.push((piece.offset()?, piece.length()?));
    }
    Ok(more)
}

/// Ascending, without overlap, up to the end of the file (GNU tar, which ends every map with an empty piece where a hole is last,
/// makes a shorter file of one that does not; Go and Python do not), and exactly what is stored.
fn check_sparse(map: &[(u64, u64)], stored: u64, real: u64) -> io::Result<()> {
    let (mut end, mut sum) = (0_u64, 0_u64);
    for (offset, length) in map {
        // GNU tar reads each piece from the start of a block, Go and Python from where the one before ended.
        if *length > 0 && sum % BLOCK as u64 != 0 {
            return Err(bad("a sparse file with a piece that is not whole blocks"));
        }
        let next = offset.checked_add(*length).filter(|next| *offset >= end && *next <= real);
        end = next.ok_or_else(|| bad("a sparse file with a damaged map"))?;
        sum += length;
    }
    if sum != stored || end != real || real > i64::MAX as u64 {
        return Err(bad("a sparse file whose size and map disagree"));
    }
    Ok(())
}

fn once(known: &Option<Vec<u8>>, record: Vec<u8>) -> io::Result<Vec<u8>> {
    if known.is_some() { Err(bad("two long names for one entry")) } else { Ok(record) }
}

fn early() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the archive ends early")
}

/// For messages: at most 200 bytes; control characters are escaped where the message is printed.
pub fn shown(bytes: &[u8]) -> String {
    let cut = String::from_utf8_lossy(&bytes[..bytes.len().min(200)]).into_owned();
    if bytes.len() > 200 { cut + "…" } else { cut }
}

/// Plain digits.
fn decimal(bytes: &[u8]) -> Option<u64> {
    if bytes.is_empty() || !bytes.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(bytes).ok()?.parse().ok()
}

/// A header's number: octal digits between spaces and NULs, or GNU tar's base 256, whose first bit is set.
fn number(field: &[u8]) -> io::Result<i128> {
    match field {
        [first, rest @ ..] if first & 0x80 != 0 => {
            // Two's complement; the bit after the mark is the sign.
            let start = i128::from(first & 0x3f) - if first & 0x40 != 0 { 0x40 } else { 0 };
            Ok(rest.iter().fold(start, |value, byte| value << 8 | i128::from(*byte)))
        }
        _ => {
            let end = field.iter().position(|b| *b == 0).unwrap_or(field.len());
            let digits = field[..end].trim_ascii();
            // GNU tar and Go read on after a NUL that comes first, Python does not.
            if digits.is_empty() && field[end..].iter().any(|b| !matches!(b, 0 | b' ')) {
                return Err(bad("a header's number is damaged"));
            }
            digits.iter().try_fold(0_i128, |value, byte| match byte {
                b'0'..=b'7' => Ok(value << 3 | i128::from(byte - b'0')),
                _ => Err(bad("a header's number is damaged")),
            })
        }
    }
}

/// `[-]SECONDS[.FRACTION]`; digits after the ninth are dropped.
fn time(text: &[u8]) -> Option<Time> {
    let (negative, text) = text.strip_prefix(b"-").map_or((false, text), |rest| (true, rest));
    let dot = text.iter().position(|b| *b == b'.');
    let seconds = i64::try_from(decimal(&text[..dot.unwrap_or(text.len())])?).ok()?;
    let mut nanos = 0_u32;
    if let Some(dot) = dot {
        let fraction = &text[dot + 1..];
        if !fraction.iter().all(u8::is_ascii_digit) {
            return None;
        }
        nanos = (0..9).fold(0, |value, i| value * 10 + fraction.get(i).map_or(0, |b| u32::from(b - b'0')));
    }
    Some(match (negative, nanos) {
        (false, _) => Time { seconds, nanos },
        (true, 0) => Time { seconds: -seconds, nanos },
        (true, _) => Time { seconds: -seconds - 1, nanos: 1_000_000_000 - nanos },
    })
}

/// Pieces of archives, for tests.
#[cfg(any(test, feature = "samples"))]
#[allow(clippy::unwrap_used)]
pub mod samples {
    use super::{BLOCK, Header};

    /// A header block and the data after it.
    pub fn raw(name: &[u8], kind: u8, link: &[u8], data: &[u8]) -> Vec<u8> {
        let mut header = Header::new_ustar();
        let bytes = header.as_mut_bytes();
        bytes[..name.len()].copy_from_slice(name);
        bytes[157..157 + link.len()].copy_from_slice(link);
        header.as_mut_bytes()[156] = kind;
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1);
        header.set_size(data.len() as u64);
        header.set_device_major(0).unwrap();
        header.set_device_minor(0).unwrap();
        header.set_cksum();
        let mut out = header.as_bytes().to_vec();
        out.extend_from_slice(data);
        out.resize(out.len().next_multiple_of(BLOCK), 0);
        out
    }

    /// PAX records before an entry.
    pub fn pax(records: &[(&str, &[u8])]) -> Vec<u8> {
        let mut data = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let mut length = rest + 1;
            while length != rest + length.to_string().len() {
                length = rest + length.to_string().len();
            }
            data.extend_from_slice(format!("{length} {key}=").as_bytes());
            data.extend_from_slice(value);
            data.push(b'\n');
        }
        raw(b"pax", b'x', b"", &data)
    }
}

#[cfg(test)]
mod tests {
    use super::samples::{pax, raw};
    use super::*;

    #[test]
    fn an_end_without_its_mark_is_noticed() {
        let file = raw(b"f", b'0', b"", &[0; 2048]);
        for (zeros, marked) in [(0, false), (512, false), (1024, true), (10_240, true)] {
            let mut archive = file.clone();
            archive.resize(archive.len() + zeros, 0);
            let mut reader = Reader::new(&archive[..]);
            while reader.next_entry().unwrap().is_some() {}
            assert_eq!(reader.has_end_mark(), marked, "{zeros} zeros after a file of zeros");
        }
    }

    fn all(archive: &[u8]) -> io::Result<Vec<(Entry, Vec<u8>)>> {
        let mut reader = Reader::new(archive);
        let mut out = Vec::new();
        while let Some(entry) = reader.next_entry()? {
            let mut data = Vec::new();
            reader.read_to_end(&mut data)?;
            out.push((entry, data));
        }
        Ok(out)
    }

    fn refused(archive: &[u8], why: &str) {
        let error = all(archive).unwrap_err().to_string();
        assert!(error.contains(why), "{error} / {why}");
    }

    #[test]
    fn pax_wins_over_the_header() {
        let mut archive = pax(&[
            ("path", b"long/\xff\nname"),
            ("size", b"3"),
            ("uid", b"4294967294"),
            ("mtime", b"-1.25"),
            // Holds a newline and a NUL, as security.capability does.
            ("SCHILY.xattr.user.x", b"a\nb\0c=d"),
        ]);
        let mut entry = raw(b"short", b'0', b"", b"abc");
        entry[124..136].copy_from_slice(b"00000000000\0");
        let sum: u32 = entry[..512].iter().map(|b| u32::from(*b)).sum::<u32>()
            - entry[148..156].iter().map(|b| u32::from(*b)).sum::<u32>()
            + 256;
        entry[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        archive.extend(entry);
        archive.extend(raw(b"next", b'0', b"", b""));
        let got = all(&archive).unwrap();
        let entry = &got[0].0;
        assert_eq!(entry.path, b"long/\xff\nname");
        assert_eq!(entry.uid, u32::MAX - 1);
        assert_eq!(entry.mtime, Time { seconds: -2, nanos: 750_000_000 });
        assert_eq!(entry.xattrs, [(b"user.x".to_vec(), b"a\nb\0c=d".to_vec())]);
        assert_eq!(got[0].1, b"abc");
        assert_eq!(got[1].0.path, b"next", "a header hidden in the data would show here");
    }

    #[test]
    fn ambiguous_archives_are_refused() {
        let file = raw(b"f", b'0', b"", b"");
        let with = |before: Vec<u8>| [before, file.clone()].concat();
        refused(&with([pax(&[("uid", b"1")]), pax(&[("gid", b"1")])].concat()), "two extended");
        refused(&pax(&[("uid", b"1")]), "no entry after");
        refused(&with([pax(&[("path", b"a")]), raw(b"l", b'L', b"", b"b\0")].concat()), "two long names");
        refused(&with([raw(b"l", b'L', b"", b"a\0"), raw(b"l", b'L', b"", b"b\0")].concat()), "two long names");
        refused(&with(pax(&[("uid", b"4294967295")])), "owner out of range");
        refused(&with(pax(&[("size", b"-1")])), "damaged");
        refused(&with(raw(b"p", b'x', b"", b"99 path=x\n")), "damaged");
        refused(&with(raw(b"p", b'x', b"", b"1 ")), "damaged");
        refused(&raw(b"d/", b'5', b"", b"data"), "no file");
        refused(&raw(b"l", b'2', b"x", b"data"), "no file");
        refused(&raw(b"d/", b'0', b"", b""), "named like a directory");
        refused(&raw(b"v", b'V', b"", b""), "unknown type");
        refused(&with(vec![0; 512]), "zeros between");
        let mut damaged = file.clone();
        damaged[0] = b'g';
        refused(&damaged, "checksum");
        let mut global = raw(b"g", b'g', b"", b"10 path=x\n");
        global.extend(&file);
        refused(&global, "global");
        let mut huge = raw(b"p", b'x', b"", b"");
        huge[124..136].copy_from_slice(b"77777777777\0");
        let sum: u32 = huge.iter().map(|b| u32::from(*b)).sum::<u32>()
            - huge[148..156].iter().map(|b| u32::from(*b)).sum::<u32>()
            + 256;
        huge[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        refused(&huge, "more than 1 MiB");
    }

    /// A header with some bytes changed, its checksum right.
    fn changed(mut block: Vec<u8>, at: usize, bytes: &[u8]) -> Vec<u8> {
        block[at..at + bytes.len()].copy_from_slice(bytes);
        let sum: u32 = block[..512].iter().map(|b| u32::from(*b)).sum::<u32>()
            - block[148..156].iter().map(|b| u32::from(*b)).sum::<u32>()
            + 256;
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        block
    }

    /// Check 22. What GNU tar and Go say of each was looked up in their sources.
    #[test]
    fn where_parsers_disagree() {
        let file = raw(b"f", b'0', b"", b"");
        // ustar's prefix whatever its version; not in the old GNU format, which has times there, nor without a magic.
        let named = changed(file.clone(), 345, b"dir");
        for (magic, name) in [
            (&b"ustar\x0000"[..], &b"dir/f"[..]),
            (b"ustar\0\0\0", b"dir/f"),
            (b"ustar\0xx", b"dir/f"),
            (b"ustar  \0", b"f"),
            (b"\0\0\0\0\0\0\0\0", b"f"),
        ] {
            assert_eq!(all(&changed(named.clone(), 257, magic)).unwrap()[0].0.path, name);
        }
        // A size after a NUL: 512 bytes for some, none for others.
        refused(&changed(raw(b"f", b'0', b"", &[b'x'; 512]), 124, b"\x000000001000\0"), "number is damaged");
        refused(&[pax(&[("path\0x", b"g")]), file.clone()].concat(), "damaged");
        refused(&[pax(&[("", b"g")]), file.clone()].concat(), "damaged");
        // A directory for those who look at the header's name, and then without data.
        refused(&[pax(&[("path", b"d")]), raw(b"d/", 0, b"", &[b'x'; 512])].concat(), "by the other");
        refused(&[pax(&[("path", b"d/")]), raw(b"d", 0, b"", b"")].concat(), "by the other");
        let long = raw(b"l", b'L', b"", b"d\0");
        refused(&[long, raw(b"d/", 0, b"", b"")].concat(), "by the other");
        let sparse_name = pax(&[("GNU.sparse.name", b"elsewhere")]);
        refused(&[sparse_name, raw(b"d/", b'5', b"", b"")].concat(), "sparse but no file");
        let map = |blocks: &'static [u8]| {
            let records: [(&str, &[u8]); 3] =
                [("GNU.sparse.numblocks", blocks), ("GNU.sparse.map", b"0,512,800,1"), ("GNU.sparse.size", b"801")];
            [pax(&records), raw(b"s", b'0', b"", &[b'x'; 513])].concat()
        };
        assert_eq!(all(&map(b"2")).unwrap()[0].0.sparse, Some(vec![(0, 512), (800, 1)]));
        refused(&map(b"1"), "as many pieces");
        // The old format: pieces of 12 and 12 bytes from 386 on, then whether more follow, then the size.
        let old = |first: usize, second: usize, more: u8| {
            let mut block = raw(b"s", b'S', b"", &[b'x'; 513]);
            block[257..265].copy_from_slice(b"ustar  \0");
            for (place, offset, length) in [(first, 0, 512), (second, 800, 1)] {
                block[386 + 24 * place..][..24].copy_from_slice(format!("{offset:011o}\0{length:011o}\0").as_bytes());
            }
            block[482] = more;
            changed(block, 483, b"00000001441\0")
        };
        assert_eq!(all(&old(0, 1, 0)).unwrap()[0].0.sparse, Some(vec![(0, 512), (800, 1)]));
        refused(&old(0, 2, 0), "gap");
        refused(&old(0, 1, 1), "gap");
    }

    /// Check 22: what an entry or an archive may make us hold or do has an end.
    #[test]
    fn many_attributes_and_global_headers_have_an_end() {
        let names: Vec<String> = (0..1001).map(|n| format!("SCHILY.xattr.user.{n}")).collect();
        let records: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), &b""[..])).collect();
        let file = raw(b"f", b'0', b"", b"");
        assert_eq!(all(&[pax(&records[..1000]), file.clone()].concat()).unwrap()[0].0.xattrs.len(), 1000);
        refused(&[pax(&records), file.clone()].concat(), "attributes");
        let global = raw(b"g", b'g', b"", b"19 comment=deadbee\n");
        assert_eq!(all(&[global.repeat(1000), file.clone()].concat()).unwrap().len(), 1);
        refused(&[global.repeat(1001), file].concat(), "global");
    }

    #[test]
    fn what_real_tools_write_is_read() {
        // git archive: a global comment. v7: a directory by its slash. Hard links with their file's size.
        let mut archive = raw(b"pax_global_header", b'g', b"", b"19 comment=deadbee\n");
        archive.extend(raw(b"dir/", 0, b"", b""));
        archive.extend(raw(b"dir/f", b'7', b"", b"abc"));
        archive.extend(vec![0; 1024]);
        archive.extend(b"what follows the end mark is nobody's");
        let got = all(&archive).unwrap();
        assert_eq!(got[0].0.kind, Kind::Directory);
        assert_eq!((got[1].0.kind, got[1].1.as_slice()), (Kind::File, &b"abc"[..]));
    }

    #[test]
    fn every_cut_is_an_error_or_a_boundary() {
        let mut archive = pax(&[("uid", b"7")]);
        archive.extend(raw(b"f", b'0', b"", &[7; 700]));
        archive.extend(raw(b"g", b'0', b"", b"x"));
        for cut in 0..archive.len() {
            let whole = all(&archive[..cut]).map(|entries| entries.len());
            // PAX header, its record, header, data of 700 bytes, zeros up to the next block; header, 1 byte, zeros.
            let data = 3 * 512 + 700;
            match cut {
                0 => assert_eq!(whole.unwrap(), 0),
                _ if (data..=data + 324).contains(&cut) => assert_eq!(whole.unwrap(), 1, "cut at {cut}"),
                _ if cut > data + 324 + 512 => assert_eq!(whole.unwrap(), 2, "cut at {cut}"),
                _ => assert!(whole.is_err(), "cut at {cut}"),
            }
        }
    }

    #[test]
    fn sparse_maps_are_checked() {
        let file = |records: &[(&str, &[u8])], data: &[u8]| [pax(records), raw(b"s", b'0', b"", data)].concat();
        let data = [&[b'x'; 512][..], b"c"].concat();
        let ok = file(&[("GNU.sparse.map", b"2,512,600,1"), ("GNU.sparse.size", b"601")], &data);
        let got = all(&ok).unwrap();
        assert_eq!((got[0].0.size, got[0].0.sparse.clone().unwrap()), (601, vec![(2, 512), (600, 1)]));
        let mut map = b"2\n2\n512\n600\n1\n".to_vec();
        map.resize(512, 0);
        map.extend(&data);
        let one = [
            ("GNU.sparse.major", &b"1"[..]),
            ("GNU.sparse.minor", b"0"),
            ("GNU.sparse.name", b"real"),
            ("GNU.sparse.realsize", b"601"),
        ];
        let got = all(&file(&one, &map)).unwrap();
        assert_eq!((got[0].0.path.as_slice(), got[0].1.as_slice()), (&b"real"[..], &data[..]));
        assert_eq!(got[0].0.sparse.clone().unwrap(), vec![(2, 512), (600, 1)]);
        for (map, size) in [
            ("2,2,1,1", "10"),
            ("0,3", "10"),
            ("0,1,8,2", "10"),
            ("2,2,8,3", "10"),
            ("2,2", "10"),
            ("2", "10"),
            ("18446744073709551615,3", "10"),
        ] {
            refused(
                &file(&[("GNU.sparse.map", map.as_bytes()), ("GNU.sparse.size", size.as_bytes())], b"abc"),
                "sparse file",
            );
        }
    }

    #[test]
    fn numbers_in_both_spellings() {
        assert_eq!(number(b"0000644\0").unwrap(), 0o644);
        assert_eq!(number(b"   644 \0").unwrap(), 0o644);
        assert_eq!(number(b"\0\0\0\0\0\0\0\0").unwrap(), 0);
        assert_eq!(number(b"\x80\0\0\0\0\0\x01\0").unwrap(), 256);
        assert_eq!(number(b"\xff\xff\xff\xff\xff\xff\xff\xff").unwrap(), -1);
        assert!(number(b"0x10\0").is_err() && number(b"-1\0").is_err() && number(b"8").is_err());
        assert_eq!(time(b"1.5").unwrap(), Time { seconds: 1, nanos: 500_000_000 });
        assert!(time(b"").is_none() && time(b"1.x").is_none() && time(b".5").is_none());
    }
}
