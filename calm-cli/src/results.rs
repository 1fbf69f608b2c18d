//! Results for programs, which a flag gives a file to, and the table for people beside them.

use std::io::{self, Write};
use std::path::Path;

/// Prints a table once the files of results are written. Where one of these is standard output, which a
/// program reads then, the table goes to standard error.
pub(crate) fn print_table(
    files: &[Option<&Path>],
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<(), calm_files::Error> {
    if files.iter().flatten().any(|file| calm_files::is_standard_output(file)) {
        calm_files::print_aside(write)
    } else {
        calm_files::print(write)
    }
}
