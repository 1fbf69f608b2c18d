//! One decoding of a batch, step by step.

use std::time::Instant;

use crate::backbone::{BackboneShape, DecoderSession, Entry, Prompt, Token};
use crate::caches::Caches;
use crate::decode::{DecodeOptions, FinalToken, Propagation};
use crate::error::{DecodeError, EngineError, NotFinite};
use crate::finite;
use crate::generation::Generation;
use crate::layer::{Layer, expect_rows};
use crate::policy::{Decision, DeepToken, DeepTokens, Deferral, Left, Policy, Skipped, StepPolicy, Work};
use crate::profile::{self, Part};

/// One decoding of a batch.
pub(crate) struct Decoder<'a> {
    session: Box<dyn DecoderSession + 'a>,
    shape: &'a BackboneShape,
    policy: &'a dyn Policy,
    /// Layers that run at most.
    depth: usize,
    /// `None` where the layers above an exit never run for the token that left.
    deferral: Option<Deferral>,
    options: &'a DecodeOptions,
    caches: Caches,
    first_inputs: Vec<Token>,
    /// By row.
    generations: Vec<Generation>,
    /// How each row left in this step.
    exits: Vec<Exit>,
}

/// How one token of a row left the decoder.
#[derive(Debug, Clone, Default)]
struct Exit {
    layer: usize,
    /// Confidence of the last test, if there was one.
    confidence: Option<f32>,
    token: Token,
}

impl<'a> Decoder<'a> {
    /// Starts a decoding under a policy that runs `depth` layers at most.
    pub(crate) fn new(
        prompt: &'a dyn Prompt,
        policy: &'a dyn Policy,
        depth: usize,
        options: &'a DecodeOptions,
    ) -> Result<Self, EngineError> {
        let (shape, first_inputs) = (prompt.shape(), prompt.first_inputs());
        let rows = first_inputs.len();
        let skipped = policy.skipped();
        let deferral = match skipped {
            Skipped::Propagated | Skipped::Copied => None,
            // Layers that run in the step of their token run as soon as it waits.
            Skipped::Deferred(deferral) if options.propagation == Propagation::Eager => {
                Some(Deferral { cap: Some(1), ..deferral })
            }
            Skipped::Deferred(deferral) => Some(deferral),
        };
        Ok(Self {
            session: prompt.start(options.max_tokens)?,
            shape,
            policy,
            depth,
            deferral,
            options,
            caches: Caches::new(shape.num_layers, rows, skipped),
            first_inputs,
            generations: vec![Generation::default(); rows],
            exits: vec![Exit::default(); rows],
        })
    }

    /// The position and the input that `row` goes on with; `None` if its output has ended.
    pub(crate) fn next(&self, row: usize) -> Option<(usize, Token)> {
        let tokens = &self.generations[row].tokens;
        let last = *tokens.last()?;
        (!self.ends(tokens.len() - 1, last)).then_some((tokens.len(), last))
    }

    /// The token of `row` at `position`, if there is one that no later step takes back.
    pub(crate) fn final_token(&self, row: usize, position: usize) -> Option<FinalToken> {
        let takes_back = |deferral: Deferral| deferral.deep_tokens == DeepTokens::Decisive;
        // Once the last layer has run for a draft it was judged, in the same step.
        let is_draft = self.deferral.is_some_and(takes_back) && !self.caches.has(self.depth, row, position);
        let generation = &self.generations[row];
        let token = *generation.tokens.get(position).filter(|_| !is_draft)?;
        Some(FinalToken { token, exit_layer: generation.exit_layers[position] })
    }

    /// Whether an output ends with this token at this position.
    fn ends(&self, position: usize, token: Token) -> bool {
        let is_eos = !self.options.ignore_eos && self.shape.eos_tokens.contains(&token);
        is_eos || position + 1 >= self.options.max_tokens
    }

    /// What was decoded, in the order of the rows.
    pub(crate) fn into_generations(self, seconds: f64) -> Vec<Generation> {
        let Self { mut generations, caches, .. } = self;
        for (row, generation) in generations.iter_mut().enumerate() {
            (generation.propagated, generation.seconds) = (caches.propagated(row), seconds);
        }
        generations
    }

    /// Decodes one token at each of `entries`, one of each row, from these inputs.
    pub(crate) fn step(&mut self, entries: &[Entry], inputs: &[Token]) -> Result<(), DecodeError> {
        self.take_step(entries, inputs).map_err(|error| self.with_first_layer(error))
    }

    fn take_step(&mut self, entries: &[Entry], inputs: &[Token]) -> Result<(), DecodeError> {
        self.session.embed(entries, inputs)?;
        let begin_step = || self.policy.begin_step(self.options.max_tokens);
        let mut policy = profile::within(Part::Confidence, begin_step);
        for entry in entries {
            self.exits[entry.row] = Exit::default();
        }
        let mut step = Step { remaining: entries.to_vec(), ..Step::default() };
        for number in 1..=self.depth {
            self.run_layer(number, &mut step, &mut *policy)?;
            step.layers = number;
            if !step.remaining.is_empty() {
                self.decide(number, &mut step, &mut *policy)?;
            }
            if step.remaining.is_empty() && step.carried.is_empty() {
                break;
            }
        }
        let judged = self
            .deferral
            .filter(|deferral| deferral.deep_tokens != DeepTokens::Unknown && step.layers == self.depth);
        match judged {
            None => self.choose_open(&mut step.open)?,
            Some(_) => self.choose_deep(&mut step, &mut *policy)?,
        }
        for entry in entries {
            let Exit { layer, confidence, token } = self.exits[entry.row];
            let generation = &mut self.generations[entry.row];
            generation.tokens.push(token);
            generation.exit_layers.push(layer);
            generation.confidence.push(confidence);
        }
        if let Some(deferral) = judged {
            self.judge(&step, deferral.deep_tokens, &mut *policy)?;
        }
        if self.deferral.is_none() && self.options.propagation == Propagation::Eager {
            let next = |&Entry { row, position }: &Entry| Entry { row, position: position + 1 };
            let next: Vec<Entry> = entries.iter().map(next).collect();
            for layer in 1..=self.shape.num_layers {
                self.caches.fill(&mut *self.session, layer, &next)?;
            }
        }
        Ok(())
    }

    /// Runs a layer for the entries that are in the decoder, and for what has to run before them or together
    /// with them.
    fn run_layer(
        &mut self,
        layer: usize,
        step: &mut Step,
        policy: &mut dyn StepPolicy,
    ) -> Result<(), DecodeError> {
        let entries = match self.deferral {
            None => {
                self.caches.fill(&mut *self.session, layer, &step.remaining)?;
                &step.remaining
            }
            Some(_) => {
                let mut running = [&step.remaining[..], &step.carried].concat();
                running.sort_unstable();
                step.ran = self.caches.waiting_for(layer, &running);
                &step.ran
            }
        };
        let started = Instant::now();
        self.session.run_layer(layer, entries)?;
        policy.spent(Work::Layer, entries.len(), started.elapsed().as_secs_f64());
        self.caches.ran(layer, entries);
        for entry in entries {
            self.generations[entry.row].executed_layers += 1;
        }
        Ok(())
    }

    /// Asks the policy which entries leave after layer `number`, which has just run for them.
    fn decide(
        &mut self,
        number: usize,
        step: &mut Step,
        policy: &mut dyn StepPolicy,
    ) -> Result<(), DecodeError> {
        let is_last = number == self.depth;
        let waiting: Vec<usize> = match self.deferral {
            Some(_) if !is_last => {
                step.remaining.iter().map(|&entry| self.caches.num_waiting(number + 1, entry)).collect()
            }
            _ => Vec::new(),
        };
        let mut decisions = std::mem::take(&mut step.decisions);
        decisions.clear();
        decisions.resize(step.remaining.len(), Decision::default());
        let layer = Layer::new(&mut *self.session, self.shape, number, &step.remaining);
        let mut layer = layer.up_to(self.depth).with_waiting(&waiting);
        profile::within(Part::Confidence, || policy.decide(&mut layer, &mut decisions))?;
        profile::count_exit_tests(|| {
            decisions.iter().filter(|decision| decision.confidence.is_some()).count()
        });
        if self.options.sampling.is_some() {
            decisions.iter_mut().for_each(|decision| decision.token = None);
        }
        if let Some(deferral) = self.deferral
            && !is_last
        {
            self.defer(number, step, &mut decisions, &waiting, deferral)?;
        }

        let mut decided = decisions.iter();
        let Self { exits, caches, generations, .. } = self;
        let (remaining, open) = (&mut step.remaining, &mut step.open);
        remaining.retain(|&entry| {
            let Some(decision) = decided.next() else { return false };
            let exit = &mut exits[entry.row];
            exit.confidence = decision.confidence.or(exit.confidence);
            if decision.exit_layer.is_none() && !is_last {
                return true;
            }
            if decision.exit_layer.is_none() && decision.confidence.is_some() {
                generations[entry.row].fallbacks += 1;
            }
            exit.layer = decision.exit_layer.unwrap_or(number);
            if exit.layer < number {
                caches.discard_above(exit.layer, entry);
            }
            match decision.token {
                Some(token) => exit.token = token,
                None => open.push(entry),
            }
            false
        });
        step.decisions = decisions;
        Ok(())
    }

    /// What has to be known of entries that leave while their other layers run later: their tokens, before
    /// these layers change their states, and whether they may leave. A draft that ends its row may not, and
    /// the layers of a row in which enough tokens wait run in this step.
    fn defer(
        &mut self,
        number: usize,
        step: &mut Step,
        decisions: &mut [Decision],
        waiting: &[usize],
        deferral: Deferral,
    ) -> Result<(), DecodeError> {
        let is_open = |decision: &Decision| decision.exit_layer.is_some() && decision.token.is_none();
        let with_entries = decisions.iter_mut().zip(&step.remaining);
        let (open, entries): (Vec<_>, Vec<Entry>) =
            with_entries.filter(|(decision, _)| is_open(decision)).unzip();
        let tokens = self.choose(&entries, Some(number))?;
        for (decision, token) in open.into_iter().zip(tokens) {
            decision.token = Some(token);
        }
        for ((decision, &entry), waiting) in decisions.iter_mut().zip(&step.remaining).zip(waiting) {
            let (Some(_), Some(token)) = (decision.exit_layer, decision.token) else { continue };
            if deferral.deep_tokens == DeepTokens::Decisive && self.ends(entry.position, token) {
                (decision.exit_layer, decision.token) = (None, None);
                continue;
            }
            if deferral.deep_tokens == DeepTokens::Decisive {
                self.generations[entry.row].drafted += 1;
            }
            if deferral.cap.is_some_and(|cap| waiting + 1 >= cap) {
                step.carried.push(entry);
            }
        }
        Ok(())
    }

    /// What the last layer makes of all entries that it ran for, and so of those that have just left there.
    fn choose_deep(&mut self, step: &mut Step, policy: &mut dyn StepPolicy) -> Result<(), DecodeError> {
        let started = Instant::now();
        step.deep_tokens = self.choose(&step.ran, Some(self.depth))?;
        policy.spent(Work::Head, step.ran.len(), started.elapsed().as_secs_f64());
        for (entry, &token) in step.ran.iter().zip(&step.deep_tokens) {
            if step.open.contains(entry) {
                self.exits[entry.row].token = token;
            }
        }
        Ok(())
    }

    /// Tells the policy what the last layer makes of the entries that it ran for, and takes back what the
    /// outputs have instead where the last layer decides.
    fn judge(
        &mut self,
        step: &Step,
        deep_tokens: DeepTokens,
        policy: &mut dyn StepPolicy,
    ) -> Result<(), DecodeError> {
        let mut heard = Vec::with_capacity(step.ran.len());
        let mut taken_back = None;
        for (&entry, &token) in step.ran.iter().zip(&step.deep_tokens) {
            let Entry { row, position } = entry;
            if taken_back == Some(row) {
                // It came after a wrong draft.
                continue;
            }
            let generation = &mut self.generations[row];
            let left = Left {
                layer: generation.exit_layers[position],
                token: generation.tokens[position],
                confidence: generation.confidence[position],
            };
            heard.push(DeepToken { entry, token, left: (left.layer < self.depth).then_some(left) });
            if deep_tokens == DeepTokens::Heard || left.token == token {
                continue;
            }
            generation.tokens.truncate(position);
            generation.tokens.push(token);
            generation.exit_layers.truncate(position);
            generation.exit_layers.push(self.depth);
            generation.confidence.truncate(position + 1);
            self.session.crop(row, position + 1)?;
            self.caches.discard_above(0, Entry { row, position: position + 1 });
            taken_back = Some(row);
        }
        profile::within(Part::Confidence, || policy.hear(&heard));
        Ok(())
    }

    /// The tokens that are not known yet, with one product of the head for all layers they left at.
    fn choose_open(&mut self, open: &mut [Entry]) -> Result<(), DecodeError> {
        open.sort_unstable();
        let tokens = self.choose(open, None)?;
        for (entry, token) in open.iter().zip(tokens) {
            self.exits[entry.row].token = token;
        }
        Ok(())
    }

    /// The best tokens by the states of entries after `layer`, if not after that of each one's exit in this
    /// step, or those that are drawn.
    fn choose(&mut self, entries: &[Entry], layer: Option<usize>) -> Result<Vec<Token>, DecodeError> {
        if entries.is_empty() {
            return Ok(Vec::new());
        }
        let tokens = match &self.options.sampling {
            None => self.session.predict(entries)?,
            Some(sampling) => {
                let logits = self.session.logits(entries)?;
                entries
                    .iter()
                    .zip(logits.rows())
                    .map(|(&entry, logits)| sampling.draw(entry, logits))
                    .collect()
            }
        };
        expect_rows("the engine's predict", tokens.len(), entries)?;
        let with_tokens = entries.iter().zip(&tokens);
        let suspicious = with_tokens.filter(|(_, token)| **token == finite::LOWEST_TOKEN);
        let suspicious: Vec<Entry> = suspicious.map(|(&entry, _)| entry).collect();
        if !suspicious.is_empty()
            && let Some(entry) = finite::first_too_large(&mut *self.session, &suspicious)?
        {
            let layer = layer.unwrap_or(self.exits[entry.row].layer);
            return Err(finite::error(NotFinite::States, layer, entry));
        }
        Ok(tokens)
    }

    /// Names the layer that made a state too large, which was noticed where the state was made use of.
    fn with_first_layer(&mut self, error: DecodeError) -> DecodeError {
        let DecodeError::NotFinite { what: NotFinite::States, row, layer: last, step } = error else {
            return error;
        };
        let entry = Entry { row, position: step - 1 };
        let before = self.generations[row].tokens.iter();
        let input = self.first_inputs[row..=row].iter().chain(before).nth(entry.position).copied();
        input.and_then(|input| self.first_layer(entry, input, last).ok()?).unwrap_or(error)
    }

    /// Takes an entry through the layers again, up to the one that makes its state too large.
    fn first_layer(
        &mut self,
        entry: Entry,
        input: Token,
        last: usize,
    ) -> Result<Option<DecodeError>, DecodeError> {
        let entries = [entry];
        self.session.crop(entry.row, entry.position)?;
        self.caches.discard_above(0, entry);
        self.session.embed(&entries, &[input])?;
        for layer in 0..=last {
            if layer > 0 {
                self.caches.fill(&mut *self.session, layer, &entries)?;
                self.session.run_layer(layer, &entries)?;
                self.caches.ran(layer, &entries);
            }
            if finite::first_too_large(&mut *self.session, &entries)?.is_some() {
                return Ok(Some(finite::error(NotFinite::States, layer, entry)));
            }
        }
        Ok(None)
    }
}

/// Where the entries of a step are.
#[derive(Debug, Default)]
struct Step {
    /// Those that have not left.
    remaining: Vec<Entry>,
    /// Those that have left while their other layers run all the same, since enough tokens of their rows
    /// wait.
    carried: Vec<Entry>,
    /// Those that have left without a token.
    open: Vec<Entry>,
    /// Layers that have run so far.
    layers: usize,
    /// Where layers are deferred, those that the last of these ran for.
    ran: Vec<Entry>,
    /// What the decoder's last layer made of them, if that is asked for.
    deep_tokens: Vec<Token>,
    /// Kept for its allocation.
    decisions: Vec<Decision>,
}
