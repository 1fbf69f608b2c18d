use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::speculation::{LONGEST, Plan, Speculation};
use super::{
    Decision, DeepToken, DeepTokens, Deferral, Draft, Parameter, Parameters, Policy, PolicyKind, Skipped,
    StepPolicy, Work,
};
use crate::backbone::{Backbone, BackboneShape, Entry};
use crate::cost::Cost;
use crate::error::{DecodeError, PolicyError};
use crate::exit_heads::ExitHeads;
use crate::exits::Exits;
use crate::layer::Layer;
use crate::matrix::Top2;
use crate::measure::head_top2;

pub(super) static SELF_SPECULATIVE: PolicyKind = PolicyKind {
    name: "self-speculative",
    about: "the full model's outputs: lower layers draft tokens, the upper ones verify them at once",
    parameters: &[Parameter::Draft],
    make,
    is_full: |_, _| false,
    head_flops,
    defers: true,
};

/// Lower layers draft some tokens, one after the other. Then the upper layers run for all of them at once, on
/// the states that the lower ones left; tokens stay up to the first one that the last layer does not give,
/// which its own replaces. Outputs are those of the full model. (LayerSkip: Elhoushi et al., ACL 2024, whose
/// drafts have a fixed depth and length; AdaDecode: Wei et al., ICML 2025.)
///
/// Without a fixed [`Draft`] it finds out by itself how deep and how long drafts should be, from the
/// agreement and the times that it measures as it decodes, and drafts nothing where this is fastest. A
/// row that is decoded on its own also stops drafting at a token that the lower layers are not sure of
/// (Kangaroo: Liu et al., NeurIPS 2024). Times differ from run to run, and with them the exit layers of
/// tokens; outputs do not.
///
/// Where the model has exit heads that know a part of the vocabulary, these draft, and only their layers do:
/// they cost less than the shared head.
///
/// Products of one row and of several have to be equal to the last bit for this, as they are in the CPU
/// engine. Where they are not, a token may differ whose best two logits are closer than that difference.
struct SelfSpeculative {
    fixed: Option<Plan>,
    heads: Option<ExitHeads>,
    learned: Mutex<Learned>,
}

/// What was learned from all batches so far.
struct Learned {
    speculation: Speculation,
    /// By the number of rows: the fastest plan, and the step that it was found in.
    best: BTreeMap<usize, (Plan, u64)>,
    steps: u64,
    /// Tokens that were drafted, and those of them that stayed.
    drafted: u64,
    accepted: u64,
    /// Tokens of steps that drafted nothing since this was the fastest, and of all others.
    plain: u64,
    other: u64,
}

fn make(parameters: &Parameters, backbone: &dyn Backbone) -> Result<Box<dyn Policy>, PolicyError> {
    let num_layers = backbone.shape().num_layers;
    let fixed = parameters.draft.map(|Draft { layers, length }| Plan { layers, length, margin: 0.0 });
    if let Some(plan) = fixed.filter(|plan| plan.layers >= num_layers) {
        return Err(PolicyError::Exits { layer: plan.layers, num_layers });
    }
    let heads = backbone.exit_heads().filter(|heads| heads.vocabulary().is_some()).cloned();
    let below_last = Exits::all_below(num_layers);
    let drafting = heads.as_ref().map_or(below_last, |heads| heads.layers().up_to(num_layers - 1));
    if let Some(plan) = fixed.filter(|plan| !drafting.contains(plan.layers)) {
        let reason = format!("cannot draft after layer {}: the exit heads are of {drafting}", plan.layers);
        return Err(PolicyError::Form(reason));
    }
    let speculation = Speculation::new(num_layers, drafting);
    let best = BTreeMap::new();
    let learned = Learned { speculation, best, steps: 0, drafted: 0, accepted: 0, plain: 0, other: 0 };
    Ok(Box::new(SelfSpeculative { fixed, heads, learned: Mutex::new(learned) }))
}

/// A draft takes the head once more, or its exit head. Those that were wrong are not in the exits of an
/// output.
fn head_flops(_: &Parameters, shape: &BackboneShape, exit_layer: usize) -> f64 {
    let Cost { head, exit_head, .. } = shape.flops;
    let draft = if exit_head > 0.0 { head.min(exit_head) } else { head };
    if exit_layer < shape.num_layers { draft + head } else { head }
}

impl SelfSpeculative {
    fn learned(&self) -> MutexGuard<'_, Learned> {
        self.learned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a step does that is made for so many rows.
    fn plan_step(&self, rows: usize) -> StepPlan {
        const FULL: Plan = Plan { layers: 0, length: 0, margin: 0.0 };
        if let Some(plan) = self.fixed {
            return StepPlan { plan, looks_at: LooksAt::Nothing, is_chosen: false };
        }
        let mut learned = self.learned();
        let (step, drafting) = (learned.steps, learned.speculation.drafting());
        learned.steps += 1;
        if drafting.is_empty() {
            return StepPlan { plan: FULL, looks_at: LooksAt::Nothing, is_chosen: true };
        }
        // First a look at all layers, then some drafts of all lengths, to see what wider calls cost.
        if step < LOOKS {
            return StepPlan { plan: FULL, looks_at: LooksAt::All, is_chosen: false };
        }
        let forced = |learned: &Learned, length| {
            let plan = learned.speculation.best_draft(rows);
            plan.map_or(FULL, |plan| Plan { length, margin: 0.0, ..plan })
        };
        if step < LOOKS + TRIES {
            let length = [1, 3, LONGEST - 1][((step - LOOKS) * 3 / TRIES) as usize];
            return StepPlan { plan: forced(&learned, length), looks_at: LooksAt::Nothing, is_chosen: false };
        }
        let plan = learned.best_plan(rows);
        // Now and then another layer, and drafts also where none are made otherwise: it may have changed what
        // is best.
        if plan.length == 0 && step % TRY_EVERY < TRY_STEPS {
            return StepPlan { plan: forced(&learned, 3), looks_at: LooksAt::Nothing, is_chosen: false };
        }
        let looks_at = match step.is_multiple_of(LOOK_EVERY) {
            true => drafting.layers().nth((step / LOOK_EVERY) as usize % drafting.len()),
            false => None,
        };
        let looks_at = looks_at.map_or(LooksAt::Nothing, LooksAt::One);
        StepPlan { plan, looks_at, is_chosen: true }
    }
}

impl Learned {
    /// The fastest plan for so many rows, which is found anew now and then: finding it takes as long as a
    /// layer.
    fn best_plan(&mut self, rows: usize) -> Plan {
        let Self { speculation, best, steps, .. } = self;
        match best.get(&rows) {
            Some((plan, step)) if *steps < step + KEPT_FOR => *plan,
            _ => {
                let plan = speculation.best(rows);
                best.insert(rows, (plan, *steps));
                plan
            }
        }
    }
}

/// Steps that a plan is kept for.
const KEPT_FOR: u64 = 64;
/// Steps that look at all layers, and that draft for a try, at the beginning.
const LOOKS: u64 = 12;
const TRIES: u64 = 48;
/// The number of steps of which one looks at another layer.
const LOOK_EVERY: u64 = 32;
/// The number of steps of which some draft for a try.
const TRY_EVERY: u64 = 512;
const TRY_STEPS: u64 = 5;

impl Policy for SelfSpeculative {
    fn skipped(&self) -> Skipped {
        Skipped::Deferred(Deferral { cap: None, deep_tokens: DeepTokens::Decisive })
    }

    fn begin_step(&self, _: usize) -> Box<dyn StepPolicy + '_> {
        Box::new(Step { policy: self, plan: None, looked: Vec::new(), spent: Vec::new() })
    }

    fn remark(&self) -> Option<String> {
        let Learned { drafted, accepted, plain, other, .. } = *self.learned();
        let percent = |part: u64, all: u64| 100.0 * part as f64 / all.max(1) as f64;
        Some(format!(
            "{:.0} % of the tokens came from drafts, and {:.0} % of the drafts were right; {:.0} % were decoded \
             without drafts, since these would have cost more than they save",
            percent(accepted, plain + other),
            percent(accepted, drafted),
            percent(plain, plain + other)
        ))
    }
}

/// What a step does.
#[derive(Clone, Copy)]
struct StepPlan {
    plan: Plan,
    /// The layers that are asked for their tokens only to see whether they agree.
    looks_at: LooksAt,
    /// Whether the plan is the fastest one, and no try.
    is_chosen: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum LooksAt {
    Nothing,
    All,
    One(usize),
}

struct Step<'a> {
    policy: &'a SelfSpeculative,
    /// Made after the first layer, when the number of rows is known.
    plan: Option<StepPlan>,
    /// What layers said of entries that did not leave there.
    looked: Vec<(usize, Entry, Top2)>,
    /// What was spent, until all of it is counted at once.
    spent: Vec<(Work, usize, f64)>,
}

impl Step<'_> {
    /// What a draft after this layer would be; `None` if no drafts are made after it.
    fn top2(&mut self, layer: &mut Layer<'_>) -> Result<Option<Vec<Top2>>, DecodeError> {
        let started = Instant::now();
        let (top2, work) = match &self.policy.heads {
            Some(heads) if !heads.layers().contains(layer.number()) => return Ok(None),
            Some(heads) => {
                let states = layer.hidden()?;
                (head_top2(heads, layer, &states)?, Work::ExitHead)
            }
            None => (Some(layer.estimated_top2()?), Work::Head),
        };
        self.spent.push((work, layer.entries().len(), started.elapsed().as_secs_f64()));
        Ok(top2)
    }
}

impl StepPolicy for Step<'_> {
    fn decide(&mut self, layer: &mut Layer<'_>, decisions: &mut [Decision]) -> Result<(), DecodeError> {
        let rows = layer.entries().len();
        let StepPlan { plan, looks_at, .. } = *self.plan.get_or_insert_with(|| self.policy.plan_step(rows));
        if layer.is_last() {
            return Ok(());
        }
        let has_drafted = (0..rows).any(|index| layer.num_waiting(index) >= plan.length);
        let drafts = plan.length > 0 && layer.number() == plan.layers && !has_drafted;
        let looks = looks_at == LooksAt::All || looks_at == LooksAt::One(layer.number());
        if !drafts && !looks {
            return Ok(());
        }
        let Some(top2) = self.top2(layer)? else { return Ok(()) };
        if drafts {
            for ((&entry, top2), decision) in layer.entries().iter().zip(top2).zip(decisions.iter_mut()) {
                decision.confidence = Some(top2.margin);
                // The margin of a batch's plan is 0.
                if top2.margin >= plan.margin || top2.margin.is_nan() {
                    (decision.exit_layer, decision.token) = (Some(layer.number()), Some(top2.token));
                } else {
                    self.looked.push((layer.number(), entry, top2));
                }
            }
        } else {
            let looked = layer.entries().iter().zip(top2);
            self.looked.extend(looked.map(|(&entry, top2)| (layer.number(), entry, top2)));
        }
        Ok(())
    }

    fn hear(&mut self, deep: &[DeepToken]) {
        let is_chosen = self.plan.is_some_and(|plan| plan.is_chosen && plan.plan.length == 0);
        let mut learned = self.policy.learned();
        for DeepToken { entry, token, left } in deep {
            if let Some(left) = left {
                let is_right = left.token == *token;
                learned.drafted += 1;
                learned.accepted += u64::from(is_right);
                learned.other += 1;
                learned.speculation.observe(left.layer, left.confidence.unwrap_or(0.0), is_right);
            } else if is_chosen {
                learned.plain += 1;
            } else {
                learned.other += 1;
            }
            for (layer, _, top2) in self.looked.iter().filter(|(_, looked, _)| looked == entry) {
                learned.speculation.observe(*layer, top2.margin, top2.token == *token);
            }
        }
    }

    fn spent(&mut self, work: Work, entries: usize, seconds: f64) {
        self.spent.push((work, entries, seconds));
    }
}

impl Drop for Step<'_> {
    fn drop(&mut self) {
        if self.policy.fixed.is_some() {
            return;
        }
        let mut learned = self.policy.learned();
        for (work, entries, seconds) in self.spent.drain(..) {
            let of = match work {
                Work::Layer => &mut learned.speculation.layer,
                Work::Head => &mut learned.speculation.head,
                Work::ExitHead => &mut learned.speculation.exit_head,
            };
            of.observe(entries, seconds);
        }
    }
}
