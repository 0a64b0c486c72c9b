//! `command-line.md`: the commands and flags of the programs that have some.

use clap::{Command, CommandFactory};

use crate::page;

const INTRODUCTION: &str = "\
# Command line

Commands and flags of `strake`, `strake-agent` and `strake-control`, as their `--help` prints them. The node proxy `ztunnel` has no flags: it is configured by environment variables, as Istio's.
";

/// Columns of the help texts.
const WIDTH: usize = 110;

fn describe(command: &mut Command, path: &str, text: &mut String) {
    // Values of variables are those of whoever runs the test.
    let command_without_values = command.clone().mut_args(|arg| arg.hide_env_values(true));
    let help = command_without_values.bin_name(path).term_width(WIDTH).render_long_help().to_string();
    let help: Vec<&str> = help.lines().map(str::trim_end).collect();
    *text += &format!("\n## `{path}`\n\n```text\n{}\n```\n", help.join("\n").trim_end());
    for subcommand in command.get_subcommands_mut().filter(|command| !command.is_hide_set()) {
        if subcommand.get_name() != "help" {
            let path = format!("{path} {}", subcommand.get_name());
            describe(subcommand, &path, text);
        }
    }
}

fn program<C: CommandFactory>(text: &mut String) {
    let mut command = C::command();
    // Versions change with each release, the page with each flag.
    command = command.disable_version_flag(true);
    command.build();
    let name = command.get_name().to_owned();
    describe(&mut command, &name, text);
}

#[test]
fn every_command_and_flag_is_on_its_page() {
    let mut text = INTRODUCTION.to_owned();

    program::<strake::Cli>(&mut text);
    program::<strake_agent::config::Config>(&mut text);
    program::<strake_control::config::Flags>(&mut text);

    page::check("command-line.md", &text);
}
