//! `calm man` and `calm completions`: manual pages and completions, made of the flags. Both are for packagers
//! and hidden from `calm --help`.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Command;
use clap_complete::Shell;

/// Write a manual page for `calm` and one for each of its commands.
#[derive(clap::Args)]
pub(crate) struct ManArguments {
    /// Directory that receives calm.1, calm-generate.1 and so on
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// Print completions for a shell.
#[derive(clap::Args)]
pub(crate) struct CompletionsArguments {
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

pub(crate) fn write_pages(arguments: &ManArguments, command: Command) -> anyhow::Result<()> {
    calm_files::check_output(&arguments.out.join("calm.1"), &[])?;
    let mut command = command.disable_help_subcommand(true);
    // Gives each command its name with those above it.
    command.build();
    write_page(&arguments.out, &command)
}

fn write_page(folder: &Path, command: &Command) -> anyhow::Result<()> {
    for subcommand in command.get_subcommands().filter(|subcommand| !subcommand.is_hide_set()) {
        write_page(folder, subcommand)?;
    }
    let page = clap_mangen::Man::new(command.clone());
    let mut text = Vec::new();
    page.render(&mut text).context("a page cannot be made")?;
    Ok(calm_files::write(&folder.join(page.get_filename()), text)?)
}

pub(crate) fn print_completions(
    arguments: &CompletionsArguments,
    mut command: Command,
) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut command, "calm", &mut script);
    Ok(calm_files::print(|out| out.write_all(&script))?)
}
