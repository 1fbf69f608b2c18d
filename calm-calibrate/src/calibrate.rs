use serde::{Deserialize, Serialize};

use crate::evidence::{Evidence, SampleDesign};
use crate::pareto::pareto_sequence;
use crate::table::check_thresholds;
use crate::{Error, ErrorProbability, LogP, LossKind, LossTable, PValue, Procedure, Tolerance};

/// The threshold that never exits: the full model, whose loss is 0 by definition.
pub(crate) const FULL_MODEL: f64 = 1.0;

/// How far from 0 the full model's loss may be.
///
/// Some metrics miss the perfect score of a text compared with itself by a rounding of `f32`.
const FULL_MODEL_ROUNDING: f64 = 1e-6;

/// How to calibrate. Everything must be fixed before seeing the losses.
#[derive(Debug, Clone, PartialEq)]
pub struct CalibrationOptions {
    /// The tolerated expected loss.
    pub delta: Tolerance,
    /// The probability that the guarantee fails.
    pub epsilon: ErrorProbability,
    /// The p-value of each threshold.
    pub p_value: PValue,
    /// The family-wise procedure.
    pub procedure: Procedure,
    /// The declared kind of the losses.
    pub loss_kind: LossKind,
}

impl CalibrationOptions {
    /// Chooses fixed-sequence testing with [`PValue::default_for`] this kind of loss, and epsilon 0.05.
    pub fn new(delta: Tolerance, loss_kind: LossKind) -> Self {
        let p_value = PValue::default_for(loss_kind);
        let (epsilon, procedure) = (ErrorProbability::PAPER, Procedure::FixedSequence);
        Self { delta, epsilon, p_value, procedure, loss_kind }
    }

    /// Chooses what the paper does: fixed-sequence testing with Hoeffding-Bentkus p-values on losses in
    /// `[0, 1]`, and epsilon 0.05.
    pub fn paper(delta: Tolerance) -> Self {
        Self { p_value: PValue::HoeffdingBentkus, ..Self::new(delta, LossKind::UnitInterval) }
    }
}

/// A certified threshold, and how it was found.
///
/// `thresholds`, `empirical_losses`, `p_values` and `log_p_values` have an entry for each threshold below 1,
/// descending. Threshold 1 is not among them even if the table has it: it needs no test and takes no share of
/// `epsilon`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// The least certified threshold, or 1 if none is.
    pub threshold: f64,
    /// Whether nothing was certified. Then `threshold` is 1, the full model, which holds the guarantee
    /// because it never exits.
    pub fallback: bool,
    /// The certified thresholds, descending.
    pub certified: Vec<f64>,
    /// All thresholds below 1, from 0 on, descending.
    pub thresholds: Vec<f64>,
    /// The thresholds that were tested, in the order of testing: all of them, except with
    /// [`Procedure::Pareto`].
    pub sequence: Vec<f64>,
    /// The mean loss at each of `thresholds`, in the range of the kind of loss.
    pub empirical_losses: Vec<f64>,
    /// The p-value of each threshold; 0 if it is below the smallest double.
    pub p_values: Vec<f64>,
    /// The natural logarithm of each p-value.
    ///
    /// Those after a fixed sequence's first failure are for information: they decided nothing.
    pub log_p_values: Vec<LogP>,
    /// Number of calibration examples that the p-values are computed from.
    ///
    /// With [`Procedure::Pareto`] it is that of one part.
    pub examples: usize,
    /// The family-wise procedure.
    #[serde(flatten)]
    pub procedure: Procedure,
    /// The kind of p-value.
    pub p_value: PValue,
    /// The declared kind of the losses.
    pub loss_kind: LossKind,
    /// The tolerated expected loss.
    pub delta: Tolerance,
    /// The probability that the guarantee fails.
    pub epsilon: ErrorProbability,
    /// The level that the bets of [`PValue::Betting`] were tuned for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bets_tuned_for: Option<ErrorProbability>,
    /// Thresholds whose losses ascend suspiciously although the p-value depends on their order.
    ///
    /// Losses hardly ascend with the examples like that by chance. If somebody sorted them, **nothing here is
    /// guaranteed**.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sorted_losses: Vec<f64>,
}

impl Calibration {
    /// The mean loss on the calibration examples at [`threshold`](Self::threshold); 0 for the full model.
    pub fn empirical_loss(&self) -> f64 {
        let selected = self.thresholds.iter().position(|&threshold| threshold == self.threshold);
        selected.map_or(0.0, |index| self.empirical_losses[index])
    }
}

/// Finds the least threshold whose expected loss is at most `delta`, with probability at least `1 - epsilon`.
///
/// It is the minimum of the certified thresholds and 1 (Schuster et al. 2022, proposition 1).
///
/// # Errors
/// A loss lies outside the range of the declared kind, the full model (threshold 1) has a loss that is not 0,
/// the p-value does not hold for the kind of loss, or the procedure does not fit the number of thresholds or
/// examples. It is a result, not an error, if nothing is certified.
pub fn calibrate(table: &LossTable, options: &CalibrationOptions) -> Result<Calibration, Error> {
    Ok(calibrate_each(table, options, &[options.delta])?.swap_remove(0))
}

/// Calibrates like [`calibrate`] for each of `deltas`, with less work than one after the other.
///
/// Each result has its own guarantee; choosing among them by the outcome has none.
///
/// # Errors
/// What [`calibrate`] fails on.
pub fn calibrate_each(
    table: &LossTable,
    options: &CalibrationOptions,
    deltas: &[Tolerance],
) -> Result<Vec<Calibration>, Error> {
    let mut calibrator = Calibrator::new(table.thresholds(), table.examples(), options, deltas)?;
    for threshold_index in 0..table.thresholds().len() {
        calibrator.push(threshold_index, table.losses(threshold_index))?;
    }
    calibrator.finish()
}

/// A calibration whose losses arrive in pieces, none of which is kept, for tables larger than the memory.
#[derive(Debug, Clone)]
pub struct Calibrator {
    options: CalibrationOptions,
    deltas: Vec<Tolerance>,
    examples: usize,
    tuned_for: ErrorProbability,
    /// With [`Procedure::Pareto`], whether each example is one that the sequence is learnt on.
    is_selection: Option<Vec<bool>>,
    rows: Vec<Row>,
}

/// The state of one threshold.
#[derive(Debug, Clone)]
struct Row {
    threshold: f64,
    examples: usize,
    /// The evidence that is tested.
    evidence: Evidence,
    /// The evidence that the sequence is learnt from.
    selection: Option<Evidence>,
}

impl Calibrator {
    /// Starts a calibration on the losses of `examples` examples at each of `thresholds`.
    ///
    /// The thresholds lie in `[0, 1]` and strictly descend. There will be a result for each of `deltas`; the
    /// `delta` of `options` is ignored.
    ///
    /// # Errors
    /// There are no thresholds or examples, thresholds are not in order, the p-value does not hold for the
    /// kind of loss, or there are too few examples to be split.
    pub fn new(
        thresholds: &[f64],
        examples: usize,
        options: &CalibrationOptions,
        deltas: &[Tolerance],
    ) -> Result<Self, Error> {
        check_thresholds(thresholds)?;
        if examples == 0 {
            return Err(Error::NoExamples);
        }
        let is_selection = match options.procedure {
            Procedure::Pareto { split } => Some(split.first_part(examples)?),
            _ => None,
        };
        let hypotheses = thresholds.iter().filter(|&&threshold| threshold != FULL_MODEL).count();
        let tuned_for = options.procedure.first_level(hypotheses, options.epsilon);
        let evidence = |examples: usize| {
            let (p_value, loss_kind) = (options.p_value, options.loss_kind);
            Evidence::new(&SampleDesign { p_value, loss_kind, examples, tuned_for }, deltas)
        };
        let selected = is_selection.iter().flatten().filter(|&&is_selection| is_selection).count();
        let row = |&threshold: &f64| {
            let selection = is_selection.as_ref().map(|_| evidence(selected)).transpose()?;
            Ok(Row { threshold, examples: 0, evidence: evidence(examples - selected)?, selection })
        };
        let rows = thresholds.iter().map(row).collect::<Result<_, Error>>()?;
        Ok(Self {
            options: options.clone(),
            deltas: deltas.to_vec(),
            examples,
            tuned_for,
            is_selection,
            rows,
        })
    }

    /// Adds the next losses of a threshold.
    ///
    /// The examples must come in the same order for every threshold, and that order must have been fixed
    /// without looking at the losses.
    ///
    /// # Errors
    /// A loss lies outside the range of the declared kind, the full model has a loss that is not 0, or there
    /// are more losses than examples; then none of `losses` counts.
    ///
    /// # Panics
    /// Panics if `threshold_index` is not below the number of thresholds.
    pub fn push(&mut self, threshold_index: usize, losses: &[f64]) -> Result<(), Error> {
        let row = &mut self.rows[threshold_index];
        let threshold = row.threshold;
        let first = row.examples;
        let (expected, found) = (self.examples, first + losses.len());
        if found > expected {
            return Err(Error::ExampleCount { threshold_index, threshold, expected, found });
        }
        if threshold == FULL_MODEL {
            check_full_model(losses, first)?;
            row.examples = found;
            return Ok(());
        }
        self.options.loss_kind.check(losses, first).map_err(|invalid| Error::InvalidLossInTable {
            threshold_index,
            threshold,
            invalid,
        })?;
        match (&self.is_selection, &mut row.selection) {
            (Some(is_selection), Some(selection)) => {
                for (loss, &is_selection) in losses.iter().zip(&is_selection[first..]) {
                    let part = if is_selection { &mut *selection } else { &mut row.evidence };
                    part.push(std::slice::from_ref(loss))?;
                }
            }
            _ => row.evidence.push(losses)?,
        }
        row.examples = found;
        Ok(())
    }

    /// Returns the result for each delta.
    ///
    /// # Errors
    /// [`Error::ExampleCount`] for a threshold that lacks losses, and [`Error::InvalidGraph`] for a graph
    /// that is for another number of thresholds.
    pub fn finish(self) -> Result<Vec<Calibration>, Error> {
        for (threshold_index, row) in self.rows.iter().enumerate() {
            if row.examples != self.examples {
                let (threshold, expected, found) = (row.threshold, self.examples, row.examples);
                return Err(Error::ExampleCount { threshold_index, threshold, expected, found });
            }
        }
        (0..self.deltas.len()).map(|delta_index| self.conclude(delta_index)).collect()
    }

    fn conclude(&self, delta_index: usize) -> Result<Calibration, Error> {
        let tested: Vec<&Row> = self.rows.iter().filter(|row| row.threshold != FULL_MODEL).collect();
        let log_p_of = |evidence: &Evidence| evidence.log_p(delta_index);
        let log_p_values = tested.iter().map(|row| log_p_of(&row.evidence)).collect::<Result<Vec<_>, _>>()?;
        let sequence: Vec<usize> = if self.is_selection.is_some() {
            let selections =
                || tested.iter().filter_map(|row| Some((row.threshold, row.selection.as_ref()?)));
            let objectives = selections().map(|(threshold, losses)| Ok(vec![losses.mean()?, threshold]));
            let log_p = selections().map(|(_, losses)| log_p_of(losses));
            pareto_sequence(
                &objectives.collect::<Result<Vec<_>, Error>>()?,
                &log_p.collect::<Result<Vec<_>, _>>()?,
            )
        } else {
            (0..tested.len()).collect()
        };

        let CalibrationOptions { epsilon, p_value, ref procedure, loss_kind, .. } = self.options;
        let in_sequence: Vec<LogP> = sequence.iter().map(|&index| log_p_values[index]).collect();
        let rejected = procedure.reject(&in_sequence, epsilon)?;
        let mut certified: Vec<f64> =
            rejected.into_iter().map(|place| tested[sequence[place]].threshold).collect();
        certified.sort_by(|a, b| b.total_cmp(a));
        let means = tested.iter().map(|row| row.evidence.mean());
        let looks_sorted = tested.iter().filter(|row| row.evidence.looks_sorted());
        Ok(Calibration {
            threshold: certified.last().copied().unwrap_or(FULL_MODEL),
            fallback: certified.is_empty(),
            certified,
            thresholds: tested.iter().map(|row| row.threshold).collect(),
            sequence: sequence.iter().map(|&index| tested[index].threshold).collect(),
            empirical_losses: means.collect::<Result<_, _>>()?,
            p_values: log_p_values.iter().map(|log_p| log_p.p()).collect(),
            log_p_values,
            examples: tested.first().map_or(self.examples, |row| row.evidence.examples()),
            procedure: procedure.clone(),
            p_value,
            loss_kind,
            delta: self.deltas[delta_index],
            epsilon,
            bets_tuned_for: (p_value == PValue::Betting).then_some(self.tuned_for),
            sorted_losses: looks_sorted.map(|row| row.threshold).collect(),
        })
    }
}

fn check_full_model(losses: &[f64], first_example: usize) -> Result<(), Error> {
    match losses.iter().position(|&loss| !is_full_model_loss(loss)) {
        Some(index) => Err(Error::FullModelLoss { example: first_example + index, loss: losses[index] }),
        None => Ok(()),
    }
}

/// Whether the full model may have this loss at threshold 1; it may not be NaN.
pub(crate) fn is_full_model_loss(loss: f64) -> bool {
    loss.abs() <= FULL_MODEL_ROUNDING
}
