//! `calm serve`: the lines of `calm generate` behind a port.
//!
//! Sources of all requests wait in one [`Queue`]. Each worker has a handle on the model, takes a batch of
//! what waits, and answers each source. HTTP is axum's and hyper's.

mod body;
mod connections;
mod metrics;
mod queue;
mod routes;

use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, ensure};
use calm_cpu::all_cores;
use calm_engine::engine::{Engine, TextCodec, load_codec};
use calm_engine::limits::{AT_LEAST_ONE, REQUEST_BYTES, WAITING, check_flags};
use calm_engine::program::introduce;
use calm_engine::signals;
use calm_files::tell;
use serde_json::{Value, json};

use self::metrics::Metrics;
use self::queue::Queue;
use crate::decoding::{DecodingArguments, Settings};
use crate::lines::{Fit, Source, Texts};

/// How long a client may say nothing in the middle of a request, take nothing of an answer, or leave its
/// connection idle.
const PATIENCE: Duration = Duration::from_secs(30);

/// Threads that read requests and write answers. Decoding has its own.
const HTTP_THREADS: usize = 2;

const EXAMPLES: &str = "\
Examples:
  calm serve --model models/debian-en-fr --calibration calibration.json
  calm serve --model models/debian-en-fr --policy calm-agreement-0.9 --port 8000 --max-source-tokens 256";

/// Answer HTTP requests with what `calm generate` writes for the same lines.
///
/// POST /generate takes one line as JSON, or many as JSON Lines (application/jsonl) and answers them in their
/// order. GET /health says what decodes, GET /metrics how much was decoded. Ctrl-C and SIGTERM end the server
/// once what was asked is answered; the second one ends it at once.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// Directory with config.json, model.safetensors and, for text, tokenizer.json; or a GGUF file
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// Address or name to listen at. The default is for this machine alone
    #[arg(long, value_name = "HOST", default_value = "127.0.0.1")]
    host: String,
    /// Port to listen at; 0 takes a free one
    #[arg(long, value_name = "N", default_value_t = 8080)]
    port: u16,
    /// Sources that may wait. Requests that come beyond them are refused (503)
    #[arg(long, value_name = "N", default_value_t = 1024)]
    queue: usize,
    /// Longest request for one source, and longest line of one for many
    #[arg(long, value_name = "BYTES", default_value_t = 65_536)]
    max_request: usize,
    /// Batches decoded side by side, which share the threads [default: one for each thread]
    #[arg(long, value_name = "N")]
    workers: Option<usize>,
    #[command(flatten)]
    decoding: DecodingArguments,
}

/// What requests and workers share.
struct Server {
    model: PathBuf,
    codec: Option<Box<dyn TextCodec>>,
    settings: Settings,
    fit: Fit,
    queue: Queue,
    metrics: Metrics,
    max_request: usize,
    /// Most lines of one request that are read and not yet answered.
    lines_on_their_way: usize,
    /// What `/health` answers.
    about: Value,
}

impl Server {
    /// The source of a line, as the model takes it.
    fn source(&self, line: &[u8]) -> anyhow::Result<Source> {
        let Settings { prefix, chat, .. } = &self.settings;
        let codec = self.codec.as_deref();
        let texts = Texts { model: &self.model, codec, prefix, chat: *chat, now: SystemTime::now() };
        let mut source = texts.source(serde_json::from_slice(line)?)?;
        self.fit.apply(&mut source)?;
        Ok(source)
    }
}

pub(crate) fn run(arguments: Arguments) -> anyhow::Result<()> {
    let settings = arguments.decoding.settings()?;
    check_flags([
        ("--queue", Some(arguments.queue), WAITING),
        ("--max-request", Some(arguments.max_request), REQUEST_BYTES),
        ("--workers", arguments.workers, AT_LEAST_ONE),
    ])?;
    let address = (arguments.host.as_str(), arguments.port);
    // Before the model, which may take long to load.
    let listener = TcpListener::bind(address)
        .with_context(|| format!("cannot listen at {}:{}", arguments.host, arguments.port))?;

    let model = arguments.model;
    let options = arguments.decoding.engine.options(arguments.workers.unwrap_or(usize::MAX))?;
    let engine = Engine::with_codec(&model, &options, load_codec(&model)?)?;
    introduce(&engine);
    settings.check_model(engine.model())?;
    let policy = settings.policy.make(engine.model())?;
    ensure!(
        !policy.learns_from_outputs(),
        "the policy {} learns from outputs in their order, which requests do not have",
        settings.policy
    );
    let (workers, threads) = (engine.models.len(), options.threads_per_worker);
    let about = json!({
        "status": "ok",
        "model": model,
        "engine": engine.model().device(),
        "workers": workers,
        "threads_per_worker": threads,
        "policy": settings.policy.to_string(),
        "certified": settings.certified,
        "batch_size": settings.batch_size,
        "max_tokens": settings.max_tokens,
        "max_source_tokens": settings.max_source_tokens,
    });
    settings.tell_certified();
    tell(format_args!(
        "note: {} on {}, {workers} workers of {threads} threads, batches of at most {}{}",
        settings.policy,
        engine.model().device(),
        settings.batch_size,
        if settings.certified.is_none() { "; nothing is certified" } else { "" }
    ));
    let fit = Fit::new(&engine, &model, &settings)?;
    let Engine { models, codec, .. } = engine;
    let lines_on_their_way = settings.batch_size.saturating_mul(2 * workers).min(arguments.queue);
    let server = Arc::new(Server {
        model,
        codec,
        settings,
        fit,
        queue: Queue::new(arguments.queue),
        metrics: Metrics::default(),
        max_request: arguments.max_request,
        lines_on_their_way,
        about,
    });
    std::thread::scope(|scope| {
        for model in models {
            let (server, policy) = (&server, &*policy);
            scope.spawn(move || queue::work(server, &*model, policy));
        }
        let served = serve(&server, listener);
        server.queue.close();
        served
    })?;
    if let Some(remark) = policy.remark() {
        tell(format_args!("note: {remark}"));
    }
    Ok(())
}

/// Serves until a signal, and then until all that was asked is answered.
fn serve(server: &Arc<Server>, listener: TcpListener) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(HTTP_THREADS)
        .max_blocking_threads(all_cores())
        .enable_all()
        .build()
        .context("cannot start the threads for HTTP")?;
    let (told, end) = tokio::sync::oneshot::channel::<()>();
    signals::end_by(move || {
        tell("note: ending when all that was asked is answered; a second signal ends at once");
        let _ = told.send(());
    });
    runtime.block_on(async {
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        tell(format_args!("serving {} at http://{}", server.model.display(), listener.local_addr()?));
        connections::serve(listener, routes::router(Arc::clone(server)), end).await;
        Ok(())
    })
}
