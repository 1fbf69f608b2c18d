//! Certificates of thresholds.

use std::collections::BTreeMap;

use calm_experiments::certify::Certificate;
use calm_files::hex;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::scratch;

/// A certificate without its hash. What is no JSON object is read as it is.
pub(crate) fn read(input: &[u8]) -> anyhow::Result<()> {
    let path = match serde_json::from_slice::<Map<String, Value>>(input) {
        Ok(mut keys) => {
            keys.remove("sha256");
            let sorted: BTreeMap<_, _> = keys.iter().collect();
            let hash = hex(&Sha256::digest(serde_json::to_vec(&sorted)?));
            keys.insert("sha256".to_owned(), hash.into());
            scratch::file("certificate.json", serde_json::to_vec(&keys)?)
        }
        Err(_) => scratch::file("certificate.json", input),
    };
    let certificate = Certificate::read(&path)?;
    certificate.applied()?;
    let _ = certificate.check_model("0123", certificate.num_layers);
    let again = scratch::folder().join("again.json");
    certificate.write(&again)?;
    assert_eq!(Certificate::read(&again)?, certificate);
    Ok(())
}
