//! Content on its way: from the first place that has it, in as many stretches as it takes, hashed as it passes.

use std::cell::Cell;
use std::time::{Duration, Instant};

use bocker_common::{Error, Result};
use reqwest::{Response, Url};
use sha2::{Digest as _, Sha256};

use crate::config::Config;
use crate::digest::{Descriptor, Digest};
use crate::endpoint::Endpoint;
use crate::registry::{Failure, Patience, Registry};

/// A blob must bring this much in each period of patience.
const LEAST: u64 = 16 << 10;
/// A stretch that brought so much was no failure: the count of tries starts again.
const ENOUGH: u64 = 1 << 20;

/// The places of one repository's content: mirrors first, the registry itself last.
#[derive(Debug)]
pub(crate) struct Sources {
    registries: Vec<Registry>,
    /// Which did not answer: they are not asked again.
    lost: Vec<Cell<bool>>,
}

/// A blob, and how far it has come.
#[derive(Debug)]
pub(crate) struct Transfer {
    pub(crate) digest: Digest,
    /// Where nobody said it before, the registry's first answer does.
    pub(crate) size: Option<u64>,
    pub(crate) got: u64,
    pub(crate) hasher: Sha256,
}

impl Transfer {
    /// Nothing has come yet.
    pub(crate) fn new(digest: Digest, size: Option<u64>) -> Self {
        Self { digest, size, got: 0, hasher: Sha256::new() }
    }

    /// The blob that `descriptor` says.
    pub(crate) fn of(descriptor: &Descriptor) -> Self {
        Self::new(descriptor.digest, Some(descriptor.size))
    }

    /// The digest of all that came; `Err` if it is not the one that was asked for.
    pub(crate) fn verify(self) -> Result<(), Digest> {
        match Digest::from_hasher(self.hasher) {
            digest if digest == self.digest => Ok(()),
            other => Err(other),
        }
    }
}

/// What ends one stretch of a blob: the network, or somebody else with a line of their own.
enum Stop {
    Network(Failure),
    Other(Error),
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Network(failure)
    }
}

impl Sources {
    /// These places, with the machine's logins. Nothing is sent yet.
    pub(crate) fn new(endpoints: Vec<Endpoint>, config: &Config) -> Self {
        let patience = Patience::from_env();
        let lost = vec![Cell::new(false); endpoints.len()];
        let registry = |endpoint| Registry::new(endpoint, config.places.clone(), config.inside.clone(), patience);
        Self { registries: endpoints.into_iter().map(registry).collect(), lost }
    }

    /// What the first of them says. If each fails, the last one's reason, which is the registry's own.
    pub(crate) async fn first<T>(&self, ask: impl AsyncFn(&Registry) -> Result<T>) -> Result<T> {
        let mut before = Vec::new();
        for registry in &self.registries {
            match ask(registry).await {
                Ok(found) => return Ok(found),
                Err(error) => before.push(error),
            }
        }
        Err(after_mirrors(before))
    }

    /// Hands what is missing of the blob to `sink` piece by piece. Its size is right if this returns without error; whether
    /// the bytes are, [`Transfer::verify`] knows. Gives the URL that the last piece came from.
    pub(crate) async fn blob(
        &self,
        transfer: &mut Transfer,
        sink: &mut impl AsyncFnMut(&[u8], &Transfer) -> Result<()>,
    ) -> Result<Url> {
        let mut before = Vec::new();
        for (registry, lost) in self.registries.iter().zip(&self.lost).filter(|(_, lost)| !lost.get()) {
            let url = registry.url(&format!("blobs/{}", transfer.digest)).await?;
            match whole(registry, &url, transfer, sink).await {
                Ok(()) => return Ok(url),
                Err(Stop::Other(error)) => return Err(error),
                Err(Stop::Network(failure)) => {
                    lost.set(matches!(failure, Failure::Broken { .. }) && self.lost.iter().any(|other| !other.get()));
                    before.push(failure.at(&url));
                }
            }
        }
        Err(after_mirrors(before))
    }
}

/// The last failure, which is the registry's own, and that its mirrors had failed before.
fn after_mirrors(mut failures: Vec<Error>) -> Error {
    let last = failures.pop().unwrap_or_else(|| Error::plain("there is nowhere to ask"));
    if failures.is_empty() {
        return last;
    }
    let before: Vec<String> = failures.iter().map(ToString::to_string).collect();
    last.hint(format!("before that, its mirrors: {}", before.join("; ")))
}

/// What is missing of the blob, from one registry, in as many stretches as it takes.
async fn whole(
    registry: &Registry,
    url: &Url,
    transfer: &mut Transfer,
    sink: &mut impl AsyncFnMut(&[u8], &Transfer) -> Result<()>,
) -> Result<(), Stop> {
    let mut tries = 1;
    loop {
        let before = transfer.got;
        let failure = match stretch(registry, url, transfer, sink).await {
            Err(Stop::Network(failure)) => failure,
            end => return end,
        };
        if transfer.got - before >= ENOUGH {
            tries = 1;
        }
        match failure.pause(tries) {
            Some(pause) => tokio::time::sleep(pause).await,
            None => return Err(failure.into()),
        }
        tries += 1;
    }
}

/// One request's part of the blob: all of it, or what is missing after a connection broke.
async fn stretch(
    registry: &Registry,
    url: &Url,
    transfer: &mut Transfer,
    sink: &mut impl AsyncFnMut(&[u8], &Transfer) -> Result<()>,
) -> Result<(), Stop> {
    let (mut response, start): (Response, u64) = registry.blob(url, transfer.got, transfer.size).await?;
    match (transfer.size, response.content_length()) {
        (Some(size), Some(length)) if length != size - start => {
            let reason = format!("{length} bytes are announced, where the manifest says {}", size - start);
            return Err(Failure::Refused(reason).into());
        }
        (None, Some(length)) => transfer.size = Some(length),
        _ => {}
    }
    let size = transfer.size.unwrap_or(u64::MAX);
    // A registry that knows no ranges starts again: skip what we have.
    let mut skip = transfer.got - start;
    let mut at = start;
    // Only the time in which we wait for the registry counts: whoever reads what we write may be slow.
    let mut period = (Duration::ZERO, at);
    let of = transfer.size.map(|size| format!(" of {size}")).unwrap_or_default();
    let ends = |got: u64, why: &str| Failure::broken(format!("it ends after {got}{of} bytes{why}"));
    loop {
        let asked = Instant::now();
        let piece = match registry.chunk(&mut response).await {
            Ok(Some(piece)) => piece,
            Ok(None) => break,
            Err(Failure::Broken { reason, passing: true }) => return Err(ends(at, &format!(": {reason}")).into()),
            Err(failure) => return Err(failure.into()),
        };
        period.0 += asked.elapsed();
        let piece = piece.as_ref();
        at += piece.len() as u64;
        if at > size {
            let reason = format!("it has {at} bytes or more, where the manifest says {size}");
            return Err(Failure::Refused(reason).into());
        }
        let known = skip.min(piece.len() as u64);
        skip -= known;
        let fresh = piece.get(known as usize..).unwrap_or_default();
        transfer.hasher.update(fresh);
        transfer.got += fresh.len() as u64;
        sink(fresh, transfer).await.map_err(Stop::Other)?;
        if period.0 > registry.patience().idle {
            if at - period.1 < LEAST && at < size {
                return Err(registry.too_slow().into());
            }
            period = (Duration::ZERO, at);
        }
    }
    match transfer.size {
        Some(size) if transfer.got < size => Err(ends(transfer.got, "").into()),
        _ => Ok(()),
    }
}
