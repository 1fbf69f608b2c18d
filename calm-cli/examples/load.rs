//! Puts load on `calm serve` and checks every answer: clients send lines in random order and compare what
//! comes back with the lines that `calm generate` wrote for them.
//!
//! ```text
//! calm generate --model MODEL --input lines.jsonl --output expected.jsonl
//! calm serve --model MODEL &
//! cargo run --release -p calm-cli --example load -- --url http://127.0.0.1:8080 --pid $! \
//!     --lines lines.jsonl --expected expected.jsonl --clients 100 --seconds 600
//! ```
//!
//! The exit code is 1 if an answer was lost, failed, or was another line's.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use calm_files::{print, tell};
use clap::Parser;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

/// Seconds between two looks at the server's memory.
const LOOK: u64 = 10;

#[derive(Parser)]
struct Arguments {
    /// Where the server is, such as http://127.0.0.1:8080
    #[arg(long)]
    url: String,
    /// Process of the server, whose memory is watched
    #[arg(long)]
    pid: Option<u32>,
    /// Lines to send
    #[arg(long, value_name = "FILE.jsonl")]
    lines: PathBuf,
    /// What `calm generate` wrote for these lines
    #[arg(long, value_name = "FILE.jsonl")]
    expected: PathBuf,
    #[arg(long, default_value_t = 100)]
    clients: usize,
    #[arg(long, default_value_t = 600)]
    seconds: u64,
    /// Lines of a request: more than one are sent as JSON Lines
    #[arg(long, default_value_t = 1)]
    lines_per_request: usize,
}

/// What became of the requests of a client.
#[derive(Default)]
struct Tally {
    /// Milliseconds that each answered request took.
    latencies: Vec<f64>,
    answers: usize,
    /// Lines that had another answer than the expected one.
    mixed: usize,
    /// Requests with another status than 200.
    failed: usize,
    /// Requests without an answer, or with a part of one.
    lost: usize,
    first_problem: Option<String>,
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.latencies.extend(other.latencies);
        self.answers += other.answers;
        self.mixed += other.mixed;
        self.failed += other.failed;
        self.lost += other.lost;
        self.first_problem = self.first_problem.take().or(other.first_problem);
    }

    fn is_clean(&self) -> bool {
        self.answers > 0 && self.mixed + self.failed + self.lost == 0
    }
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let pairs = pairs(&arguments)?;
    let is_over = AtomicBool::new(false);
    let begin = Instant::now();
    let tally = std::thread::scope(|scope| {
        let (arguments, pairs, is_over) = (&arguments, &pairs, &is_over);
        scope.spawn(move || watch(arguments, begin, is_over));
        let clients: Vec<_> = (0..arguments.clients)
            .map(|client| scope.spawn(move || send(arguments, pairs, client as u64, begin)))
            .collect();
        let mut tally = Tally::default();
        for client in clients {
            match client.join() {
                Ok(of_client) => tally.add(of_client),
                Err(_) => tally.lost += 1,
            }
        }
        is_over.store(true, Ordering::Relaxed);
        tally
    });
    report(&tally, begin.elapsed().as_secs_f64())?;
    Ok(if tally.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Each line with its expected answer.
fn pairs(arguments: &Arguments) -> anyhow::Result<Vec<(String, String)>> {
    let read = |path: &Path| -> anyhow::Result<Vec<String>> {
        let text = calm_files::read_to_string(path)?;
        Ok(text.lines().map(str::to_owned).collect())
    };
    let (lines, expected) = (read(&arguments.lines)?, read(&arguments.expected)?);
    ensure!(!lines.is_empty() && lines.len() == expected.len(), "as many expected lines as lines are needed");
    Ok(lines.into_iter().zip(expected).collect())
}

/// Sends requests one after the other until the time is over.
fn send(arguments: &Arguments, pairs: &[(String, String)], client: u64, begin: Instant) -> Tally {
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let url = format!("{}/generate", arguments.url);
    let (mut random, mut tally) = (ChaCha8Rng::seed_from_u64(client), Tally::default());
    let mut order: Vec<usize> = (0..pairs.len()).collect();
    let content_type = if arguments.lines_per_request > 1 { "application/jsonl" } else { "application/json" };
    while begin.elapsed() < Duration::from_secs(arguments.seconds) {
        order.shuffle(&mut random);
        for chosen in order.chunks(arguments.lines_per_request.max(1)) {
            if begin.elapsed() >= Duration::from_secs(arguments.seconds) {
                break;
            }
            let body: String = chosen.iter().map(|&index| format!("{}\n", pairs[index].0)).collect();
            let sent = Instant::now();
            let response = agent.post(&url).header("content-type", content_type).send(&body);
            let answer = response.and_then(|mut response| {
                Ok((response.status().as_u16(), response.body_mut().read_to_string()?))
            });
            tally.latencies.push(sent.elapsed().as_secs_f64() * 1000.0);
            let problem = match answer {
                Ok((200, text)) => {
                    let answers: Vec<&str> = text.lines().collect();
                    tally.answers += answers.len();
                    tally.lost += chosen.len().abs_diff(answers.len());
                    let is_mixed = |&(&index, answer): &(&usize, &&str)| pairs[index].1 != **answer;
                    let mixed: Vec<_> = chosen.iter().zip(&answers).filter(is_mixed).collect();
                    tally.mixed += mixed.len();
                    mixed.first().map(|&(&index, answer)| format!("{}: {answer}", pairs[index].0))
                }
                Ok((status, text)) => {
                    tally.failed += 1;
                    Some(format!("status {status}: {text}"))
                }
                Err(error) => {
                    tally.lost += chosen.len();
                    Some(error.to_string())
                }
            };
            tally.first_problem = tally.first_problem.take().or(problem);
        }
    }
    tally
}

/// Says now and then how much memory the server has.
fn watch(arguments: &Arguments, begin: Instant, is_over: &AtomicBool) {
    let Some(pid) = arguments.pid else { return };
    while !is_over.load(Ordering::Relaxed) {
        let seconds = begin.elapsed().as_secs();
        match memory(pid) {
            Ok(memory) => tell(format_args!("{seconds:>5} s: {memory}")),
            Err(error) => tell(format_args!("{seconds:>5} s: {error:#}")),
        }
        let next = Duration::from_secs((seconds / LOOK + 1) * LOOK);
        while !is_over.load(Ordering::Relaxed) && begin.elapsed() < next {
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

/// The resident memory of a process, as Linux says it.
fn memory(pid: u32) -> anyhow::Result<String> {
    let status = calm_files::read_to_string(Path::new(&format!("/proc/{pid}/status")))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    Ok(line.context("the process has no memory any more")?.trim().to_owned())
}

fn report(tally: &Tally, seconds: f64) -> anyhow::Result<()> {
    let mut latencies = tally.latencies.clone();
    latencies.sort_by(f64::total_cmp);
    let quantile = |share: f64| {
        let index = (share * latencies.len() as f64) as usize;
        latencies.get(index.min(latencies.len().saturating_sub(1))).copied().unwrap_or_default()
    };
    let Tally { answers, mixed, failed, lost, first_problem, .. } = tally;
    print(|out| {
        writeln!(out, "{} requests in {seconds:.1} s", latencies.len())?;
        writeln!(out, "{answers} answers, {:.1} a second", *answers as f64 / seconds)?;
        writeln!(out, "{lost} lost, {mixed} mixed, {failed} failed")?;
        let quantiles = [0.5, 0.95, 0.99, 1.0].map(quantile);
        let [p50, p95, p99, most] = quantiles;
        writeln!(out, "latency in ms: p50 {p50:.1}, p95 {p95:.1}, p99 {p99:.1}, most {most:.1}")?;
        match first_problem {
            Some(problem) => writeln!(out, "first problem: {problem}"),
            None => Ok(()),
        }
    })?;
    Ok(())
}
