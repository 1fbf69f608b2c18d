//! `calm p-value`: one p-value, for scripts and for comparison with other tools.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use calm_calibrate::{ErrorProbability, LogP, LossKind, LossSum, PValue, Tolerance};
use calm_names::counted;

/// Compute one p-value
#[derive(clap::Args)]
#[command(
    after_help = "Example:\n  calm p-value --method hoeffding-bentkus --n 600 --sum-losses 41.5 --delta 0.1"
)]
pub(crate) struct Arguments {
    /// hoeffding, hoeffding-kl, binomial, bentkus, hoeffding-bentkus, betting or asymptotic
    #[arg(long, value_name = "P")]
    method: PValue,
    /// Number of examples
    #[arg(long, value_name = "N", required_unless_present = "losses")]
    n: Option<usize>,
    /// Sum of their losses (not the mean)
    #[arg(
        long,
        value_name = "SUM",
        requires = "n",
        required_unless_present = "losses",
        conflicts_with = "losses"
    )]
    sum_losses: Option<f64>,
    /// CSV with a column `loss`, in the order of the data, instead of their sum: betting and asymptotic need
    /// it
    #[arg(long, value_name = "FILE.csv")]
    losses: Option<PathBuf>,
    /// Tolerated expected loss
    #[arg(long, value_name = "D")]
    delta: Tolerance,
    /// Level that the bets of betting are tuned for
    #[arg(long, value_name = "E", default_value = "0.05")]
    epsilon: ErrorProbability,
    /// binary, unit or difference [default: binary for binomial, else unit]
    #[arg(long, value_name = "K")]
    loss_kind: Option<LossKind>,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let log_p = arguments.log_p()?;
    // 17 significant digits name a double.
    calm_files::print(|out| {
        writeln!(out, "p {:.16e}", log_p.p())?;
        writeln!(out, "log_p {:.16e}", log_p.ln())
    })?;
    Ok(())
}

impl Arguments {
    fn log_p(&self) -> anyhow::Result<LogP> {
        let kind = self.loss_kind.unwrap_or(match self.method {
            PValue::Binomial => LossKind::Binary,
            _ => LossKind::UnitInterval,
        });
        if let Some(path) = &self.losses {
            let losses = read_losses(path)?;
            if let Some(n) = self.n.filter(|&n| n != losses.len()) {
                anyhow::bail!("{} holds {}, but --n is {n}", path.display(), counted(losses.len(), "loss"));
            }
            let log_p = self.method.of_losses(&losses, kind, self.delta, self.epsilon);
            return log_p.with_context(|| path.display().to_string());
        }
        let (Some(n), Some(sum)) = (self.n, self.sum_losses) else {
            anyhow::bail!("expected --n and --sum-losses, or --losses");
        };
        let log_p = self.method.of_sum(LossSum::new(sum, n, kind)?, self.delta);
        log_p.context("--losses FILE is needed")
    }
}

fn read_losses(path: &Path) -> anyhow::Result<Vec<f64>> {
    let name = path.display();
    let mut reader = csv::Reader::from_path(path).with_context(|| format!("cannot read {name}"))?;
    let header = reader.headers().with_context(|| format!("cannot read {name}"))?;
    let mut columns = (0..header.len()).filter(|&index| header[index].trim() == "loss");
    let column = columns.next().with_context(|| format!("{name} has no column `loss`"))?;
    ensure!(columns.next().is_none(), "{name}: two columns are named `loss`: rename one of them");
    let mut losses = Vec::new();
    for record in reader.records() {
        let record = record.with_context(|| format!("cannot read {name}"))?;
        let line = record.position().map_or(0, csv::Position::line);
        let text = record[column].trim();
        let loss = text.parse().ok().filter(|loss: &f64| loss.is_finite());
        let loss = loss.with_context(|| format!("{name}:{line}: `{text}` is not a number"))?;
        losses.push(loss);
    }
    Ok(losses)
}
