//! What a program does when it is told to end: it says so, removes what it has begun to write, and ends by
//! that signal, as shells and schedulers expect. There is nothing else to put in order, since files appear
//! complete or not at all.
#![allow(unsafe_code)]

use std::sync::{Mutex, PoisonError};

/// What is said after `interrupted`.
static ADVICE: Mutex<&str> = Mutex::new("");

/// Says how to go on after an interruption, from now on: a clause such as `the same command goes on from
/// here`.
pub fn advise(advice: &'static str) {
    *ADVICE.lock().unwrap_or_else(PoisonError::into_inner) = advice;
}

/// Has this process end in order by SIGINT (Ctrl-C), SIGTERM and SIGHUP, unless it was started to ignore
/// them, as `nohup` and shells' background jobs are. The second signal ends it at once.
#[cfg(unix)]
pub(crate) fn end_in_order() -> std::io::Result<()> {
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;

    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    use signal_hook::{flag, iterator::Signals, low_level};

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
            calm_files::remove_unfinished();
            say(signal);
            let _ = low_level::emulate_default_handler(signal);
        }
    })?;
    Ok(())
}

/// Elsewhere the system's own ways are left as they are.
#[cfg(not(unix))]
pub(crate) fn end_in_order() -> std::io::Result<()> {
    Ok(())
}

#[cfg(unix)]
fn say(signal: i32) {
    use std::io::IsTerminal;

    let advice = *ADVICE.lock().unwrap_or_else(PoisonError::into_inner);
    let name = signal_hook::low_level::signal_name(signal).unwrap_or("a signal");
    let separator = if advice.is_empty() { "" } else { "; " };
    // A terminal has a progress bar or ^C on its last line.
    let line_break = if std::io::stderr().is_terminal() { "\n" } else { "" };
    calm_files::tell(format_args!("{line_break}interrupted by {name}{separator}{advice}"));
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
