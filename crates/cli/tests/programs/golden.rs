//! Help, man pages and completions of every command, whole: a change is seen, and meant. `INSTA_UPDATE=always` writes them anew.

use crate::{PANTALA, run, text};

/// The commands that a help names, without `help`.
fn commands_of(help: &str) -> Vec<String> {
    let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let names = lines.take_while(|line| line.starts_with("  ")).filter(|line| !line.starts_with("   "));
    let names = names.filter_map(|line| line.split_whitespace().next());
    names.filter(|name| *name != "help").map(str::to_owned).collect()
}

/// What `pantala` prints, which may change with its version.
fn printed(arguments: &[&str]) -> String {
    let output = run(PANTALA, arguments);
    assert!(output.status.success() && output.stderr.is_empty(), "{arguments:?}: {output:?}");
    text(&output.stdout).replace(env!("CARGO_PKG_VERSION"), "VERSION")
}

/// The help of a command, and of all commands below it.
fn help(command: &[&str]) -> String {
    let own = printed(&[command, &["--help"]].concat());
    let mut all =
        format!("$ pantala {}--help\n\n{own}", command.iter().map(|word| format!("{word} ")).collect::<String>());
    for below in commands_of(&own) {
        all += &format!("\n{}", help(&[command, &[below.as_str()]].concat()));
    }
    all
}

/// All commands.
pub fn commands() -> Vec<String> {
    commands_of(&printed(&["--help"]))
}

#[test]
fn there_is_no_command_without_help_and_a_man_page() {
    insta::assert_snapshot!("commands", commands().join("\n"));
    insta::assert_snapshot!("help", printed(&["--help"]));
    insta::assert_snapshot!("man", printed(&["man"]));
    // The page of all names each of them.
    let page = printed(&["man"]);
    for command in commands() {
        assert!(page.contains(&format!("pantala\\-{command}(1)")), "{command}");
        assert_eq!(printed(&["help", &command]), printed(&[&command, "--help"]));
        insta::assert_snapshot!(format!("help-{command}"), help(&[&command]));
        insta::assert_snapshot!(format!("man-{command}"), printed(&["man", &command]));
    }
}

/// Of one shell: the others are made of the same by the same library.
#[test]
fn completions_are_those_of_all_flags() {
    insta::assert_snapshot!("completions-fish", printed(&["completions", "fish"]));
}
