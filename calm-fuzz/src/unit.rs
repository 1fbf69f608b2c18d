//! Files of generations.

use calm_core::PolicySpec;
use calm_data::Example;
use calm_experiments::dataset::{Dataset, Split};
use calm_experiments::outputs::SplitOutputs;
use calm_experiments::unit::{Store, UnitState};
use calm_files::hex;
use sha2::{Digest, Sha256};

use crate::scratch;

/// The file of the full model on the first shard of [`dataset`], without its hash. What does not begin as a
/// JSON object is read as it is.
pub(crate) fn read(input: &[u8]) -> anyhow::Result<()> {
    let text = match input.strip_prefix(b"{") {
        Some(rest) => {
            let rest = [b"\",", rest].concat();
            let hash = hex(&Sha256::digest(&rest));
            [format!("{{\"sha256\":\"{hash}").as_bytes(), &rest].concat()
        }
        None => input.to_owned(),
    };
    scratch::file("generations/test/full/shard-0000.jsonl", text);
    let store = Store::new(&scratch::folder());
    let header = store.any_header()?;
    let dataset = dataset();
    if store.state(&header.unit, &dataset.examples) == UnitState::Finished {
        store.read(&header.unit, &dataset.examples)?;
    }
    let num_layers = header.shape.num_layers;
    SplitOutputs::read(&store, &header.unit.common, &dataset, &[PolicySpec::full()], num_layers)?;
    Ok(())
}

fn dataset() -> Dataset {
    let example = |id: &str| Example {
        id: id.to_owned(),
        source: format!("the source of {id}"),
        target: id.to_owned(),
        references: vec![id.to_owned()],
        chat: false,
        group: None,
    };
    Dataset::new(Split::Test, vec![example("a"), example("b")], 2)
}
