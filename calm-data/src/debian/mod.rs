//! Builds the bundled corpus: three tasks from Debian bookworm's package descriptions.
//!
//! The input is what apt distributes: the `Packages` index and the indices `Translation-en` and
//! `Translation-fr`. The same indices and seed give the same files, byte for byte, whatever the machine's
//! thread count.
//!
//! Texts of other origins are added to the training split of the translation task, and to nothing else:
//! documentation in both languages and the descriptions of other releases.
//!
//! A description takes this way: `apt` fetches the indices, `index` joins them, `description` cuts the texts
//! into units and aligns the languages, `tasks` makes examples, `split` removes duplicates and divides the
//! source packages, and [`crate::tokenizer`] learns its vocabulary from the training splits. `documentation`
//! reads and pairs pages, and `extra` chooses what is added. `data/README.md` has the rules and the numbers.

mod apt;
mod description;
mod documentation;
mod extra;
mod index;
mod split;
mod tasks;
mod text;

use crate::{Result, Row, tokenizer, write_rows};
use calm_files::tell;
use documentation::Documentation;
use extra::{Known, Origin};
use split::Splits;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// What [`build`] should make, and from what.
#[derive(Debug, Clone)]
pub struct BuildOptions {
    /// Folder that receives the datasets.
    pub out: PathBuf,
    /// A folder of lists (and, for documentation, packages) that apt has fetched before. `None` fetches them
    /// into `out/lists`.
    pub lists: Option<PathBuf>,
    /// Mirror of Debian to fetch from. `None` takes that of the machine's own bookworm source.
    pub mirror: Option<String>,
    /// Releases of Debian whose translated descriptions are added to the translation training split.
    ///
    /// They are added in this order.
    pub releases: Vec<String>,
    /// Origins of documentation that are added to the translation training split.
    ///
    /// They are some of [`documentation_names`], in the same order. The LibreOffice help is added before the
    /// releases, the others after them.
    pub documentation: Vec<String>,
    /// Seed of all random decisions.
    ///
    /// It decides which source packages go to which split, which examples are kept among duplicates, and the
    /// blanks.
    pub seed: u64,
    /// Number of examples in each task's calibration split, and as many in its test split.
    pub held_out: usize,
    /// Number of tokens of the tokenizer, special ones included.
    pub vocab_size: u32,
}

/// Lists the names of all origins of documentation, in the order in which they are added.
pub fn documentation_names() -> impl Iterator<Item = &'static str> {
    documentation::ALL.iter().map(|origin| origin.name)
}

/// The releases that add many pairs to bookworm's. Unstable (sid) would add only 630 more.
const RELEASES: [&str; 3] = ["trixie", "forky", "bullseye"];

impl BuildOptions {
    /// Returns the options of the committed corpus.
    pub fn new(out: impl Into<PathBuf>) -> BuildOptions {
        BuildOptions {
            out: out.into(),
            lists: None,
            mirror: None,
            releases: RELEASES.map(str::to_owned).to_vec(),
            documentation: documentation_names().map(str::to_owned).collect(),
            seed: 0,
            held_out: 2_000,
            vocab_size: 8_192,
        }
    }
}

/// Numbers of what [`build`] made, as in `data/README.md`.
#[derive(Debug, Clone)]
pub struct BuildReport {
    /// Names of the indices and packages, with SHA-256 sums in hexadecimal.
    ///
    /// The sum is that of the uncompressed index, or of the package.
    pub indices: Vec<(String, String)>,
    /// Number of distinct English descriptions.
    pub english_descriptions: usize,
    /// Number of English descriptions that have a French translation with the same number of paragraphs.
    pub aligned_descriptions: usize,
    /// Each task's numbers, by the name of its folder.
    pub tasks: BTreeMap<&'static str, TaskReport>,
    /// The numbers of each origin that was added to the translation training split, in the order of adding.
    pub added: Vec<OriginReport>,
}

/// What one origin adds to the translation training split.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OriginReport {
    /// Name of the documentation or release, with which the ids of its examples start.
    pub origin: String,
    /// Number of pairs by the rules of the task alone, without those of held-out packages.
    pub candidates: usize,
    /// Number of pairs that were added, which are those of which neither text was known before.
    pub added: usize,
    /// Number of whitespace-separated words in the added sources, task prefix included.
    pub source_words: usize,
    /// Number of whitespace-separated words in the added targets.
    pub target_words: usize,
}

/// The numbers of one task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskReport {
    /// Number of examples by the rules of the task alone, before duplicates are removed.
    pub candidates: usize,
    /// Number of examples without duplicates: those of the splits, and the surplus of held-out packages.
    pub distinct: usize,
    /// Number of examples in `train.parquet`.
    pub train: usize,
    /// Number of examples in `calibration.parquet`.
    pub calibration: usize,
    /// Number of examples in `test.parquet`.
    pub test: usize,
    /// Number of whitespace-separated words in the training split's sources, task prefix included.
    pub train_source_words: usize,
    /// Number of whitespace-separated words in the training split's targets.
    pub train_target_words: usize,
}

/// Builds the corpus and the tokenizer under `options.out`.
///
/// There are `TASK/{calibration,test}.parquet` and `train/TASK.parquet` for each task, and `tokenizer.json`.
///
/// # Errors
/// An origin of documentation is not known, apt fetches nothing, a list, package or page cannot be read,
/// there are too few examples for the held-out splits or the tokenizer, or a file cannot be written.
pub fn build(options: &BuildOptions) -> Result<BuildReport> {
    let documentation = documentation::named(&options.documentation)?;
    let lists = match &options.lists {
        Some(folder) => folder.clone(),
        None => {
            let packages: Vec<&str> = documentation.iter().flat_map(|origin| origin.packages()).collect();
            let (folder, mirror) = (options.out.join("lists"), options.mirror.as_deref());
            tell("fetching package lists and documentation, some hundred MB");
            apt::fetch(&folder, mirror, &options.releases, &packages)?
        }
    };
    tell("reading the package descriptions of bookworm");
    let (indices, mut digests) = index::read(&lists, "bookworm")?;

    let candidates = tasks::all(&indices.descriptions, options.seed);
    let mut tasks = BTreeMap::new();
    let candidate_counts: Vec<usize> = candidates.iter().map(|task| task.examples.len()).collect();
    let (splits, division) = split::split(&candidates, options.seed, options.held_out)?;

    let scratch = options.out.join("lists");
    let mut added_rows = Vec::new();
    let mut added = Vec::new();
    let translation = candidates.iter().find(|task| task.task == tasks::TRANSLATION);
    let mut known = Known::new(translation.map_or(&[], |task| &task.examples), &indices, &division);
    let mut add = |Origin { name, candidates }| {
        let (origin, n_candidates) = (name, candidates.len());
        let rows = known.select(candidates, options.seed);
        let [source_words, target_words] = count_words(&rows);
        added.push(OriginReport {
            origin,
            candidates: n_candidates,
            added: rows.len(),
            source_words,
            target_words,
        });
        added_rows.extend(rows);
    };
    let read = |origin: &Documentation| {
        tell(format_args!("reading the documentation {}", origin.name));
        origin.read(&lists, &scratch, &indices, &division)
    };
    // What an origin adds depends on those added before it, so new origins have to come last.
    let (before, after) = documentation.split_at(usize::from(
        documentation.first().is_some_and(|first| first.name == documentation::LIBREOFFICE),
    ));
    for origin in before {
        let (origin, packages) = read(origin)?;
        digests.extend(packages);
        add(origin);
    }
    for release in &options.releases {
        tell(format_args!("reading the translations of {release}"));
        let (other, its_digests) = index::read(&lists, release)?;
        digests.extend(its_digests);
        add(extra::release(release, &other, &indices, &division));
    }
    for origin in after {
        let (origin, packages) = read(origin)?;
        digests.extend(packages);
        add(origin);
    }

    for (split, candidates) in splits.iter().zip(candidate_counts) {
        let Splits { task, distinct, train, calibration, test } = split;
        write_rows(&options.out.join(task).join("calibration.parquet"), calibration)?;
        write_rows(&options.out.join(task).join("test.parquet"), test)?;
        let train = match *task {
            tasks::TRANSLATION => &extra::merge(train.clone(), std::mem::take(&mut added_rows), options.seed),
            _ => train,
        };
        write_rows(&options.out.join("train").join(format!("{task}.parquet")), train)?;
        let [train_source_words, train_target_words] = count_words(train);
        let report = TaskReport {
            candidates,
            distinct: *distinct,
            train: train.len(),
            calibration: calibration.len(),
            test: test.len(),
            train_source_words,
            train_target_words,
        };
        tasks.insert(*task, report);
    }

    tell("training the tokenizer");
    let tokenizer = tokenizer::train(&training_texts(&splits), options.vocab_size)?;
    tokenizer::save(&tokenizer, &options.out.join("tokenizer.json"))?;
    Ok(BuildReport {
        indices: digests,
        english_descriptions: indices.descriptions.len(),
        aligned_descriptions: indices.descriptions.iter().filter(|d| d.aligned().is_some()).count(),
        tasks,
        added,
    })
}

/// Counts the words of all sources and of all targets.
fn count_words(rows: &[Row]) -> [usize; 2] {
    let words = |text: fn(&Row) -> &str| rows.iter().map(|row| text::words(text(row))).sum();
    [words(|row| &row.source), words(|row| &row.target)]
}

/// Collects all training texts. The French ones are repeated until they weigh about as much as the English
/// ones.
///
/// Two of the three tasks are in English alone, and French is what a translation model has to write.
fn training_texts(splits: &[Splits]) -> Vec<(&str, u32)> {
    let french = |task: &str| task == tasks::TRANSLATION;
    let size = |keep: &dyn Fn(&str) -> bool, text: fn(&Row) -> &str| -> usize {
        splits.iter().filter(|s| keep(s.task)).flat_map(|s| &s.train).map(|row| text(row).len()).sum()
    };
    let english = size(&|_| true, |row| &row.source) + size(&|task| !french(task), |row| &row.target);
    let weight = (english / size(&french, |row| &row.target).max(1)).max(1) as u32;
    let mut texts = Vec::new();
    for split in splits {
        let target_weight = if french(split.task) { weight } else { 1 };
        for row in &split.train {
            texts.push((row.source.as_str(), 1));
            texts.push((row.target.as_str(), target_weight));
        }
    }
    texts
}

/// File names and SHA-256 sums.
type Digests = Vec<(String, String)>;
