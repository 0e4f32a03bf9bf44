//! `have`: a filter between `bocker-pull manifest` and `bocker-pull fetch` that adds a record for each blob that need not
//! be fetched, because the store has what is in it.
//!
//! A layer is known by the blob that it came from and the layer below it. That was verified when it was made, and the chain
//! ids are compared once more when the image is.

use std::collections::HashMap;
use std::io::BufRead;

use bocker_common::{Error, Result};

use crate::oci::Digest;
use crate::store::Store;

/// Bytes of all records, at most, as `bocker-pull` has it.
const MAX_RECORDS: u64 = 8 << 20;

/// The records with what is added, and whether they were whole.
///
/// # Errors
/// They cannot be read.
pub(crate) fn filter(store: Option<&Store>, input: impl BufRead) -> Result<Vec<u8>> {
    let mut input = input.take(MAX_RECORDS);
    let (mut out, mut seen) = (Vec::new(), Vec::new());
    loop {
        let mut line = Vec::new();
        input.read_until(b'\n', &mut line).map_err(|e| Error::new("read", "records", e))?;
        match line.as_slice() {
            b"end\n" => {
                if let Some(store) = store {
                    for digest in known(store, &seen)? {
                        out.extend(format!("have\t{digest}\n").bytes());
                    }
                }
                out.extend(line);
                return Ok(out);
            }
            // Whoever reads on says what is missing, or says nothing where the stage before us has.
            [] => return Ok(out),
            _ => {}
        }
        let mut words = line.split(|byte| matches!(byte, b'\t' | b'\n'));
        let mut word = || words.next().and_then(|word| std::str::from_utf8(word).ok());
        if let (Some(kind), Some(_), Some(digest)) = (word(), word(), word())
            && let Ok(digest) = digest.parse()
        {
            seen.push((kind.to_owned(), digest));
        }
        out.extend(line);
    }
}

/// Of these records the blobs that the store has.
fn known(store: &Store, records: &[(String, Digest)]) -> Result<Vec<Digest>> {
    let of = |kind: &'static str| records.iter().filter(move |(word, _)| word == kind).map(|(_, digest)| digest);
    let mut known = Vec::new();
    if let (Some(manifest), Some(config)) = (of("manifest").next(), of("config").next())
        && !store.images_of(manifest)?.is_empty()
    {
        known.push(config.clone());
    }
    let origins = store.layers()?.map_or_else(|| Ok(HashMap::new()), |layers| layers.origins())?;
    let mut below = "-".to_owned();
    let mut layers = of("layer");
    for layer in layers.by_ref() {
        match origins.get(&(below, layer.to_string())) {
            Some(chain) => below = chain.clone(),
            None => {
                // The same bytes higher up are needed all the same.
                known.retain(|digest| digest != layer);
                break;
            }
        }
        known.push(layer.clone());
    }
    let rest: Vec<_> = layers.collect();
    known.retain(|digest| !rest.contains(&digest));
    Ok(known)
}
