//! What a program does when it is told to end: it says so, removes what it has begun to write, and ends by
//! that signal, as shells and schedulers expect (a shell's status is 130 after Ctrl-C). There is nothing else
//! to put in order, since files appear complete or not at all. A server finishes what it has begun, and ends
//! by itself ([`end_by`]).
#![allow(unsafe_code)]

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

/// Whether Ctrl-C ends something smaller than the program.
static IS_ENDABLE: AtomicBool = AtomicBool::new(false);

/// Whether that was told to end.
static IS_TOLD: AtomicBool = AtomicBool::new(false);

/// What is said when something is told to end that takes its time.
static ANNOUNCEMENT: Mutex<&str> = Mutex::new("");

/// Something that Ctrl-C ends in place of the program, as long as this value lives. A program has one at a
/// time. The second Ctrl-C ends the program.
pub struct Endable(());

impl Endable {
    /// Begins it.
    pub fn begin() -> Self {
        Self::announced("")
    }

    /// Begins something that takes its time to end, which `announcement` says as soon as it is told to.
    pub fn announced(announcement: &'static str) -> Self {
        *ANNOUNCEMENT.lock().unwrap_or_else(PoisonError::into_inner) = announcement;
        IS_TOLD.store(false, Ordering::SeqCst);
        IS_ENDABLE.store(true, Ordering::SeqCst);
        Endable(())
    }

    /// Whether it was told to end.
    pub fn is_told_to_end(&self) -> bool {
        IS_TOLD.load(Ordering::SeqCst)
    }
}

impl Drop for Endable {
    fn drop(&mut self) {
        IS_ENDABLE.store(false, Ordering::SeqCst);
    }
}

/// What a program does that ends by itself.
static ENDING: Mutex<Option<Box<dyn FnOnce() + Send>>> = Mutex::new(None);

/// Has the first signal call `end` in place of ending the program, which is to end by itself once it has
/// finished what it has begun. The second signal ends it at once.
pub fn end_by(end: impl FnOnce() + Send + 'static) {
    *ENDING.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(end));
}

/// What is said after `interrupted`.
static ADVICE: Mutex<&str> = Mutex::new("");

/// Says how to go on after an interruption, from now on: a clause such as `the same command goes on from
/// here`.
pub fn advise(advice: &'static str) {
    *ADVICE.lock().unwrap_or_else(PoisonError::into_inner) = advice;
}

/// The error of a program that Ctrl-C has ended once something was done: it ends as by the signal itself.
#[derive(Debug, thiserror::Error)]
#[error("interrupted")]
pub struct Interrupted;

/// Has this process end in order by SIGINT (Ctrl-C), SIGTERM and SIGHUP, unless it was started to ignore
/// them, as `nohup` and shells' background jobs are. The second signal ends it at once.
#[cfg(unix)]
pub(crate) fn end_in_order() -> std::io::Result<()> {
    use std::sync::Arc;

    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    use signal_hook::{flag, iterator::Signals};

    let heeded: Vec<i32> =
        [SIGINT, SIGTERM, SIGHUP].into_iter().filter(|&signal| !is_ignored(signal)).collect();
    let told = Arc::new(AtomicBool::new(false));
    for &signal in &heeded {
        flag::register_conditional_default(signal, Arc::clone(&told))?;
        flag::register(signal, Arc::clone(&told))?;
    }
    let mut signals = Signals::new(&heeded)?;
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        for signal in signals.forever() {
            let is_first = signal == SIGINT
                && IS_ENDABLE.load(Ordering::SeqCst)
                && !IS_TOLD.swap(true, Ordering::SeqCst);
            if is_first {
                // The next one is heeded here too, which removes what is unfinished.
                told.store(false, Ordering::SeqCst);
                announce();
                continue;
            }
            let ending = ENDING.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(end) = ending {
                end();
                continue;
            }
            end_now(signal);
        }
    })?;
    Ok(())
}

/// Elsewhere the system's own ways are left as they are.
#[cfg(not(unix))]
pub(crate) fn end_in_order() -> std::io::Result<()> {
    Ok(())
}

/// Ends this process as Ctrl-C does where nothing has to be finished before.
#[cfg(unix)]
pub(crate) fn end_as_interrupted() {
    end_now(signal_hook::consts::SIGINT);
}

/// Says how to go on; the program ends by itself.
#[cfg(not(unix))]
pub(crate) fn end_as_interrupted() {
    let advice = *ADVICE.lock().unwrap_or_else(PoisonError::into_inner);
    calm_files::tell(format_args!("interrupted; {advice}"));
}

#[cfg(unix)]
fn end_now(signal: i32) {
    calm_files::remove_unfinished();
    say(signal);
    let _ = signal_hook::low_level::emulate_default_handler(signal);
}

#[cfg(unix)]
fn announce() {
    let announcement = *ANNOUNCEMENT.lock().unwrap_or_else(PoisonError::into_inner);
    if !announcement.is_empty() {
        calm_files::tell(format_args!("{}{announcement}", line_break()));
    }
}

/// A terminal has a progress bar or ^C on its last line.
#[cfg(unix)]
fn line_break() -> &'static str {
    use std::io::IsTerminal;

    if std::io::stderr().is_terminal() { "\n" } else { "" }
}

#[cfg(unix)]
fn say(signal: i32) {
    let advice = *ADVICE.lock().unwrap_or_else(PoisonError::into_inner);
    let name = signal_hook::low_level::signal_name(signal).unwrap_or("a signal");
    let separator = if advice.is_empty() { "" } else { "; " };
    calm_files::tell(format_args!("{}interrupted by {name}{separator}{advice}", line_break()));
}

#[cfg(unix)]
fn is_ignored(signal: i32) -> bool {
    let mut action = std::mem::MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: without a new action the call only writes the present one, to memory of its type, and it is
    // read only if that was done.
    unsafe {
        libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr()) == 0
            && action.assume_init().sa_sigaction == libc::SIG_IGN
    }
}

#[cfg(all(test, unix))]
mod tests {
    use signal_hook::consts::SIGINT;
    use signal_hook::low_level::raise;

    use super::*;

    #[test]
    fn ctrl_c_ends_what_can_be_ended_as_often_as_it_is_heeded() {
        // Where tests run in the background of a shell nothing is to be heeded.
        if is_ignored(SIGINT) {
            return;
        }
        end_in_order().unwrap();
        for _ in 0..3 {
            let endable = Endable::begin();
            assert!(!endable.is_told_to_end());
            raise(SIGINT).unwrap();
            while !endable.is_told_to_end() {
                std::thread::yield_now();
            }
        }
    }
}
