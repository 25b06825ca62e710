//! Man pages and completions of all commands: those that clap parses, and those it is only told of.

use clap::{Command, CommandFactory as _};
use clap_complete::Shell;
use clap_mangen::Man;
use pantala_cli::clients::flags::Program;
use pantala_cli::clients::manual;

use crate::Pantala;

/// All commands. Those of the clients are here to be named and described: what follows them is never parsed by it.
pub fn all_commands() -> Command {
    Pantala::command().subcommands(Program::ALL.map(manual::command))
}

/// A script that completes arguments.
pub fn completions(shell: Shell) -> Vec<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut all_commands(), "pantala", &mut script);
    script
}

/// The man page of a command, or of `pantala`. None if there is no such command.
pub fn man(name: Option<&str>) -> Option<Vec<u8>> {
    let mut all = all_commands();
    // Fills in what subcommands take over from above.
    all.build();
    let Some(name) = name else { return render(titled(all, "pantala"), "") };
    let command = all.find_subcommand(name)?.clone();
    let sections = Program::ALL.into_iter().find(|program| program.name() == name).map(manual::man_sections);
    render(titled(command, &format!("pantala-{name}")), &sections.unwrap_or_default())
}

fn titled(command: Command, title: &str) -> Man {
    Man::new(command)
        .title(title.to_uppercase())
        .source(concat!("Pantala ", env!("CARGO_PKG_VERSION")))
        .manual("Pantala")
}

fn render(man: Man, sections: &str) -> Option<Vec<u8>> {
    let mut page = Vec::new();
    // Writing into a vector does not fail.
    man.render(&mut page).ok()?;
    page.extend_from_slice(sections.as_bytes());
    Some(page)
}
