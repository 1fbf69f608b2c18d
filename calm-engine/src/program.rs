//! What the command lines of programs have in common.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::process::ExitCode;

use anyhow::bail;
use calm_checkpoint::{CacheType, EngineKind, WeightType, first_names};
use calm_cpu::all_cores;
use calm_files::{LogFormat, print, set_log_format, tell};
use calm_names::counted;
use clap::Parser;

use crate::engine::{Engine, EngineOptions};
use crate::limits::{Limit, check_flags};
use crate::signals::{self, Interrupted};

/// What shells call the end by Ctrl-C.
const INTERRUPTED: u8 = 130;

/// Runs a program: parses its command line, does what `run` does with it, and ends with what that came to.
/// Ctrl-C and SIGTERM end it in order; the error [`Interrupted`] is an end by Ctrl-C too.
///
/// An error has a line for each of its causes. A reader of standard output who has seen enough is no error.
pub fn main<A: Parser>(run: impl FnOnce(A) -> anyhow::Result<ExitCode>) -> ExitCode {
    report_libtorch_failures();
    if let Err(error) = signals::end_in_order() {
        tell(format_args!("warning: an interruption may leave unfinished files behind: {error}"));
    }
    match A::try_parse_from(with_negative_numbers(std::env::args_os())) {
        Ok(arguments) => finish(run(arguments)),
        Err(error) if error.use_stderr() => error.exit(),
        // What --help and --version ask for.
        Err(text) => {
            finish(print(|out| write!(out, "{text}")).map(|()| ExitCode::SUCCESS).map_err(Into::into))
        }
    }
}

/// How a program says what it does, a flag of every command.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct LogArguments {
    /// How notes, warnings and progress are written on standard error: text, or json for an object a line
    #[arg(long = "log", value_name = "FORMAT", default_value = "text", global = true)]
    format: LogFormat,
}

impl LogArguments {
    /// Begins to write in this way.
    pub fn begin(self) {
        set_log_format(self.format);
    }
}

/// The flags that choose an engine, the same for every command that decodes.
#[derive(Debug, Clone, clap::Args)]
pub struct EngineArguments {
    /// cpu or libtorch [default: libtorch where there is a CUDA device, else cpu]
    #[arg(long, value_name = "E")]
    pub engine: Option<EngineKind>,
    /// cpu, cuda or cuda:N [default: the first CUDA device if there is one, else the CPU]
    #[arg(long, value_name = "DEVICE")]
    pub device: Option<String>,
    /// How the cpu engine holds weights: f32, bf16 or int8 [default: as the checkpoint]
    #[arg(long, value_name = "TYPE")]
    pub dtype: Option<WeightType>,
    /// How the cpu engine keeps keys and values of attention, a T5's of its sources too: f32, f16 or bf16
    /// [default: f32]
    #[arg(long, value_name = "TYPE")]
    pub cache_dtype: Option<CacheType>,
    /// Threads on the CPU [default: all cores]. Batches are decoded side by side, one on each; fewer batches
    /// share them
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
}

impl EngineArguments {
    /// The first flag that was given, if any was.
    pub fn given(&self) -> Option<&'static str> {
        let flags = [
            ("--engine", self.engine.is_some()),
            ("--device", self.device.is_some()),
            ("--dtype", self.dtype.is_some()),
            ("--cache-dtype", self.cache_dtype.is_some()),
            ("--threads", self.threads.is_some()),
        ];
        flags.into_iter().find(|(_, given)| *given).map(|(flag, _)| flag)
    }

    /// Fails where a flag contradicts what has decoded, as [`Model::device`](calm_checkpoint::Model::device)
    /// names it.
    ///
    /// # Errors
    /// The flag, and what has decoded.
    pub fn check_decoded_by(&self, device: &str) -> anyhow::Result<()> {
        let on_cuda = |device: &str| device.starts_with("cuda");
        let (engine_and_weights, cache) = device.split_once(" cache-").unwrap_or((device, "f32"));
        let contradictions = [
            ("--engine", self.engine.map(|engine| (engine.to_string(), device.starts_with(engine.name())))),
            (
                "--dtype",
                self.dtype.map(|dtype| (dtype.to_string(), engine_and_weights == format!("cpu {dtype}"))),
            ),
            (
                "--cache-dtype",
                self.cache_dtype.map(|cache_type| (cache_type.to_string(), cache == cache_type.name())),
            ),
            (
                "--device",
                self.device.clone().map(|asked| {
                    let fits = device.split(' ').any(on_cuda) == on_cuda(&asked);
                    (asked, fits)
                }),
            ),
        ];
        for (flag, given) in contradictions {
            if let Some((value, false)) = given {
                bail!("{flag} {value} is not what has decoded: that was {device}");
            }
        }
        Ok(())
    }

    /// For decoding this many batches.
    ///
    /// # Errors
    /// There are to be no threads, or far more than cores.
    pub fn options(&self, batches: usize) -> anyhow::Result<EngineOptions> {
        check_flags([("--threads", self.threads, Limit::threads())])?;
        let threads = self.threads.unwrap_or_else(all_cores);
        let options = EngineOptions {
            kind: self.engine,
            device: self.device.clone(),
            weight_type: self.dtype,
            cache_type: self.cache_dtype.unwrap_or_default(),
            ..EngineOptions::default()
        };
        Ok(options.divide(threads, batches))
    }
}

/// Says what decodes, and which tensors of its checkpoint are not used, which may be a sign that it is not
/// what it seems.
pub fn introduce(engine: &Engine) {
    let model = engine.model();
    let folder = model.folder().map_or("a model".into(), |folder| folder.display().to_string());
    let (layers, workers) = (counted(model.shape().num_layers, "decoder layer"), engine.models.len());
    let threads = counted(workers * engine.threads_per_worker, "thread");
    tell(format_args!("{folder}: {layers}, {} on {threads}", model.device()));
    if !model.unexpected().is_empty() {
        let names = first_names(model.unexpected());
        tell(format_args!("note: tensors of the checkpoint that are not used: {names}"));
    }
}

/// Joins a negative number to the flag before it, which clap would take for a flag of its own. What is wrong
/// with it is then said by its range.
fn with_negative_numbers(words: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let is_number = |word: &str| word.split(',').all(|part| part.parse::<f64>().is_ok());
    let is_negative =
        |word: &OsString| word.to_str().is_some_and(|word| word.starts_with('-') && is_number(word));
    let mut joined: Vec<OsString> = Vec::new();
    for word in words {
        match joined.last_mut() {
            Some(flag) if is_negative(&word) && is_flag(flag) => {
                flag.push("=");
                flag.push(word);
            }
            _ => joined.push(word),
        }
    }
    joined
}

/// Whether a word is a flag that has no value yet.
fn is_flag(word: &OsString) -> bool {
    word.to_str().is_some_and(|word| word.len() > 2 && word.starts_with("--") && !word.contains('='))
}

/// Ends a program with what its command came to. Of an error's causes those have no line of their own that
/// the lines before have told already, as the messages of most libraries do.
fn finish(result: anyhow::Result<ExitCode>) -> ExitCode {
    let error = match result {
        Ok(code) => return code,
        Err(error) => error,
    };
    if error.is::<Interrupted>() {
        signals::end_as_interrupted();
        return ExitCode::from(INTERRUPTED);
    }
    let io_errors = error.chain().filter_map(|cause| cause.downcast_ref::<std::io::Error>());
    if io_errors.into_iter().any(|error| error.kind() == ErrorKind::BrokenPipe) {
        return ExitCode::SUCCESS;
    }
    let mut said = String::new();
    for (index, cause) in error.chain().map(ToString::to_string).enumerate() {
        let line = cause.lines().next().unwrap_or_default().trim_end();
        if index == 0 {
            tell(format_args!("error: {line}"));
        } else if !said.contains(line) {
            tell(format_args!("  because: {line}"));
        }
        said.push_str(line);
    }
    ExitCode::FAILURE
}

/// tch panics where libtorch throws, above all when memory runs out. For the user that is an error like
/// others; every other panic is a bug and says so.
fn report_libtorch_failures() {
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        // The first line of libtorch's message, before its C++ backtrace.
        let text = panic.payload().downcast_ref::<String>().and_then(|text| text.split_once(": Torch(\""));
        match text.and_then(|(_, message)| message.split("\\n").next()) {
            Some(message) => {
                tell(format_args!("error: libtorch: {message}"));
                calm_files::remove_unfinished();
                std::process::exit(1);
            }
            None => default(panic),
        }
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn negative_numbers_are_values_of_flags() {
        for (words, expected) in [
            ("--delta -0 --n 5", "--delta=-0 --n 5"),
            ("--delta -1e-3 -inf", "--delta=-1e-3 -inf"),
            ("--thresholds -1,.5 x", "--thresholds=-1,.5 x"),
            ("--input - --delta=1 -2", "--input - --delta=1 -2"),
            ("-- -1 --output -5x", "-- -1 --output -5x"),
        ] {
            let found = with_negative_numbers(words.split(' ').map(OsString::from));
            assert_eq!(found, expected.split(' ').map(OsString::from).collect::<Vec<_>>());
        }
    }
}
