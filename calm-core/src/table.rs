//! Tables of what can be chosen by name: measures and policies here, models in the crate that loads them.

use std::sync::{PoisonError, RwLock};

use calm_names::UnknownName;

/// An entry of a [`Table`].
pub trait Named {
    /// What entries are called in messages, such as `policy`.
    const WHAT: &'static str;

    /// Name in flags, configurations, files and plots; unique in its table.
    fn name(&self) -> &'static str;

    /// One line of help.
    fn about(&self) -> &'static str;
}

/// Entries by name: the built-in ones, and those that a program adds when it starts.
pub struct Table<T: 'static> {
    built_in: &'static [&'static T],
    added: RwLock<Vec<&'static T>>,
}

impl<T: Named> Table<T> {
    /// A table of built-in entries.
    pub const fn new(built_in: &'static [&'static T]) -> Self {
        Self { built_in, added: RwLock::new(Vec::new()) }
    }

    /// Adds an entry for the rest of the program. This comes before anything looks a name up.
    ///
    /// # Panics
    /// There is another entry of that name, which is a mistake of the program and not of its user.
    pub fn add(&self, entry: &'static T) {
        let clash = self.all().into_iter().find(|other| other.name() == entry.name());
        assert!(clash.is_none(), "there already is a {} of the name {}", T::WHAT, entry.name());
        self.added.write().unwrap_or_else(PoisonError::into_inner).push(entry);
    }

    /// All entries in the order they were added, the built-in ones first.
    pub fn all(&self) -> Vec<&'static T> {
        let added = self.added.read().unwrap_or_else(PoisonError::into_inner);
        self.built_in.iter().chain(added.iter()).copied().collect()
    }

    /// The entry of this name.
    ///
    /// # Errors
    /// There is none; the message lists those there are.
    pub fn get(&self, name: &str) -> Result<&'static T, UnknownName> {
        let all = self.all();
        let found = all.iter().copied().find(|entry| entry.name() == name);
        found.ok_or_else(|| UnknownName::new(T::WHAT, name, all.iter().map(|entry| entry.name())))
    }

    /// The entry that a text of parts between hyphens begins with, and the parts behind it. Of two that fit,
    /// one of which begins with the other's name, the longer one.
    ///
    /// # Errors
    /// There is none; the message names the first part and lists the entries.
    pub fn split<'a>(&self, text: &'a str) -> Result<(&'static T, Option<&'a str>), UnknownName> {
        let fits = |entry: &&'static T| {
            let rest = text.strip_prefix(entry.name())?;
            let rest = if rest.is_empty() { None } else { Some(rest.strip_prefix('-')?) };
            Some((*entry, rest))
        };
        let found = self.all().iter().filter_map(fits).max_by_key(|(entry, _)| entry.name().len());
        found.map_or_else(|| self.get(text.split('-').next().unwrap_or(text)).map(|entry| (entry, None)), Ok)
    }

    /// Help on all entries, a line for each.
    pub fn help(&self) -> String {
        let all = self.all();
        let width = all.iter().map(|entry| entry.name().len()).max().unwrap_or(0);
        let lines = all.iter().map(|entry| format!("{:width$}  {}", entry.name(), entry.about()));
        lines.collect::<Vec<_>>().join("\n")
    }
}
