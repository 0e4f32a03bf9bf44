//! Ids: `img_NNNNN` and `ps_NNNNN`, and every kernel name that follows from one.

use std::fmt;
use std::fs::File;
use std::io::{BufRead, Write, stdout};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::str::FromStr;

use crate::diag::{Error, USAGE};

/// An id's number minus this is the host part of its address: `ps_42045` is 10.0.0.45.
pub const BASE: u32 = 42_000;
/// The original's first id; 42000 and 42001 would be the network's and the gateway's address.
pub const FIRST: u32 = 42_002;
/// The original's last id, the end of a /24.
pub const LAST: u32 = 42_254;
/// The last id of a /16. Six digits still fit an interface name (15 bytes): `veth0_ps_107534`.
pub const HIGHEST: u32 = BASE + 65_534;

/// What an id names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// `img_NNNNN`
    Image,
    /// `ps_NNNNN`
    Container,
}

impl Kind {
    /// The letters before the number.
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Image => "img_",
            Self::Container => "ps_",
        }
    }

    /// `image` or `container`, for messages.
    pub fn word(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Container => "container",
        }
    }
}

/// An image's or a container's id. Only well-formed ids exist, so an id is safe as a path component.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id {
    kind: Kind,
    number: u32,
}

impl Id {
    /// The id with this number, if it is in range.
    pub fn new(kind: Kind, number: u32) -> Option<Self> {
        (FIRST..=HIGHEST).contains(&number).then_some(Self { kind, number })
    }

    /// Image or container.
    pub fn kind(self) -> Kind {
        self.kind
    }

    /// The number, 42002 or more.
    pub fn number(self) -> u32 {
        self.number
    }

    /// The host part of the address, 2 or more.
    pub fn host(self) -> u32 {
        self.number - BASE
    }

    /// The host's end of the veth pair, `veth0_ps_42045`.
    pub fn veth(self) -> String {
        format!("veth0_{self}")
    }

    /// The alternative name of the container's end, `veth1_ps_42045` (its name inside is `eth0`).
    pub fn veth_peer(self) -> String {
        format!("veth1_{self}")
    }

    /// The network namespace's name below /run/netns, `netns_ps_42045`.
    pub fn netns(self) -> String {
        format!("netns_{self}")
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.kind.prefix(), self.number)
    }
}

impl FromStr for Id {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let parse = || {
            let (kind, digits) = [Kind::Image, Kind::Container]
                .into_iter()
                .find_map(|kind| Some((kind, text.strip_prefix(kind.prefix())?)))?;
            // Digits only, and no second spelling of the same number: +42045 and 042045 are refused.
            if !digits.bytes().all(|b| b.is_ascii_digit()) || digits.starts_with('0') {
                return None;
            }
            Self::new(kind, digits.parse().ok()?)
        };
        parse().ok_or_else(|| {
            let shown: String = text.chars().take(64).collect();
            Error::plain(format!("'{shown}' is not an id (they look like img_42150 or ps_42045)")).status(USAGE)
        })
    }
}

/// An id on the command line, or `-`: those on stdin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ids {
    /// This one.
    One(Id),
    /// The first word of each line, as the tools' `list` prints them.
    Stdin,
}

impl FromStr for Ids {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        if text == "-" { Ok(Self::Stdin) } else { text.parse().map(Self::One) }
    }
}

impl Ids {
    /// All of them.
    ///
    /// # Errors
    /// Stdin cannot be read, or holds something else. Silence if it ends with [`FAILED`].
    pub fn all(self) -> Result<Vec<Id>, Error> {
        match self {
            Self::One(id) => Ok(vec![id]),
            Self::Stdin => Ok(read(std::io::stdin().lock())?.iter().map(|listed| listed.id).collect()),
        }
    }
}

/// A word of a line: something runs there.
pub const BUSY: &str = "busy";
/// The last line of a tool that failed and has said why.
pub const FAILED: &str = "failed";

/// A line that one of the tools' `list` prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listed {
    /// The first word.
    pub id: Id,
    /// Whether one of the words after it is [`BUSY`].
    pub busy: bool,
}

/// The lines of `list`: words are parted by tabs, and the first one is the id.
///
/// # Errors
/// A line that begins with something else; more than 16 MiB. Silence if a line is [`FAILED`].
pub fn read(input: impl BufRead) -> Result<Vec<Listed>, Error> {
    let mut input = input.take(16 << 20);
    let mut all = Vec::new();
    let mut line = String::new();
    while input.read_line(&mut line).map_err(|e| Error::new("read", "ids", e))? > 0 {
        // The last line may have been cut off; 42 is no 42045.
        if !line.ends_with('\n') {
            return Err(Error::plain("read ids: the last line is not whole"));
        }
        let mut words = line.trim_end_matches('\n').split('\t');
        let id = match words.next().unwrap_or_default() {
            FAILED => return Err(Error::explained_elsewhere()),
            word => word.parse()?,
        };
        all.push(Listed { id, busy: words.any(|word| word == BUSY) });
        line.clear();
    }
    Ok(all)
}

/// For a tool whose lines another one reads with [`read`]: where it failed and its stdout is a pipe, the last line is
/// [`FAILED`]. The reader then stops in silence, and the failure is said once.
///
/// # Errors
/// As given.
pub fn end_lines(done: Result<(), Error>) -> Result<(), Error> {
    let is_pipe = |out: OwnedFd| File::from(out).metadata().is_ok_and(|meta| meta.file_type().is_fifo());
    if done.is_err() && stdout().as_fd().try_clone_to_owned().is_ok_and(is_pipe) {
        // A reader that has gone needs no word.
        let _ = writeln!(stdout(), "{FAILED}");
    }
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        for text in ["img_42002", "ps_42254", "ps_42255", "ps_107534"] {
            assert_eq!(text.parse::<Id>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn refuses_everything_else() {
        let long = "ps_".to_owned() + &"4".repeat(10_000);
        for text in [
            "",
            ".",
            "..",
            "/",
            "path",
            "level",
            "gen",
            "-x",
            "ps",
            "ps_",
            "ps_42001",
            "ps_107535",
            "ps_042045",
            "ps_+42045",
            "ps_42045\n",
            "ps_42045/..",
            "ps_42045/../img_42002",
            " ps_42045",
            "PS_42045",
            "vol_42045",
            "ps_4204٥",
            &long,
        ] {
            let error = text.parse::<Id>().unwrap_err();
            assert_eq!(error.exit_status(), USAGE, "{text:?}");
            assert!(error.to_string().len() < 200, "the message stays one short line");
        }
    }

    #[test]
    fn one_character_away_is_another_or_none() {
        let odd = ['é', 'о', '\u{ff14}', '٥', '\u{200b}', '\u{202e}', '\u{301}', '⁄'];
        let mut seen = 0;
        for good in ["img_42150", "ps_42045", "ps_107534"] {
            for at in 0..=good.len() {
                let (left, right) = good.split_at(at);
                let rest = right.get(1..).unwrap_or_default();
                let all = (0..128).map(char::from).chain(odd).flat_map(|c| [(c, right), (c, rest)]);
                let texts =
                    all.map(|(c, right)| format!("{left}{c}{right}")).chain([format!("{left}{rest}"), left.into()]);
                for text in texts {
                    seen += 1;
                    // There is one spelling of each.
                    assert!(text.parse::<Id>().map_or(true, |id| id.to_string() == text), "{text:?}");
                }
            }
        }
        assert!(seen > 5_000);
    }

    #[test]
    fn reads_what_list_prints() {
        let text = b"ps_42045\t10.0.0.45\t02:42:0a:00:00:2d\nimg_42002\nps_42046\t-\t-\tbusy\nps_42047\tbusy\tnew\n";
        let ids: Vec<_> = read(&text[..]).unwrap().iter().map(|one| (one.id.to_string(), one.busy)).collect();
        let expected = [("ps_42045", false), ("img_42002", false), ("ps_42046", true), ("ps_42047", true)];
        assert_eq!(ids, expected.map(|(id, busy)| (id.to_owned(), busy)));
        assert!(read(&b"ps_42045\nfailed\n"[..]).unwrap_err().is_explained_elsewhere());
        assert_eq!(read(&b""[..]).unwrap(), []);
        for text in
            [&b"ps_42045"[..], b"\n", b"ps_42045 x\n", b"\tps_42045\n", b"ps_42045\n\xff\n", b"busy\n", b"failed"]
        {
            assert!(read(text).is_err(), "{text:?}");
        }
        assert_eq!("-".parse(), Ok(Ids::Stdin));
        assert!("--".parse::<Ids>().is_err());
    }

    #[test]
    fn every_interface_name_fits() {
        let id = Id::new(Kind::Container, HIGHEST).unwrap();
        // IFNAMSIZ is 16 with the NUL.
        assert!(id.veth().len() <= 15);
        assert_eq!(Id::new(Kind::Container, 42_045).unwrap().host(), 45);
    }
}
