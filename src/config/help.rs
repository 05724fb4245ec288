//! Help in other forms than `--help`: of all commands, as a manual page, and as completions in a shell. The flags that ask for them are
//! those of kingpin.

use std::fmt::Write as _;

use clap::{Arg, Command};

use super::EngineChoices;
use super::arguments::{Shell, takes_value};
use super::build::BUILD;
use super::{flags, program};

/// Asks the program, which knows the flags and their values. bash splits words at `=`.
const BASH: &str = r#"_sluicegate() {
    local current="${COMP_WORDS[COMP_CWORD]}"
    local words=("${COMP_WORDS[@]:1:COMP_CWORD}")
    [[ $current != '=' ]] || current=
    mapfile -t COMPREPLY < <(compgen -W "$("${COMP_WORDS[0]}" --completion-bash "${words[@]}")" -- "$current")
}
complete -o default -F _sluicegate sluicegate
"#;

const ZSH: &str = r#"#compdef sluicegate
_sluicegate() {
    local -a candidates
    candidates=("${(@f)$("${words[1]}" --completion-bash "${(@)words[2,CURRENT]}")}")
    if [[ -n $candidates ]]; then
        compadd -a candidates
    else
        _files
    fi
}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    _sluicegate "$@"
else
    compdef _sluicegate sluicegate
fi
"#;

/// The script that makes a shell complete arguments.
pub(super) fn script(shell: Shell) -> &'static str {
    match shell {
        Shell::Bash => BASH,
        Shell::Zsh => ZSH,
    }
}

/// The help of the gateway and of all commands.
pub(super) fn long(engines: &EngineChoices) -> String {
    let mut text = flags::command(engines).render_help().to_string();
    let mut storage = program::command(engines);
    storage.build();
    for command in storage.get_subcommands_mut().filter(|command| command.get_name() != "help") {
        let _ = write!(text, "\n{}", command.render_help());
    }
    text
}

/// A manual page, in the macros of man(7).
pub(super) fn manual(engines: &EngineChoices) -> String {
    let gateway = flags::command(engines);
    let mut page = format!(
        ".TH SLUICEGATE 1 \"\" \"sluicegate {}\"\n.SH NAME\nsluicegate \\- {}\n.SH SYNOPSIS\n\
         .B sluicegate\n[<flags>]\n.br\n.B sluicegate storage\ninspect|verify|migrate <flags>\n.SH OPTIONS\n",
        roff(BUILD.version),
        roff(&text_of(gateway.get_about())),
    );
    add_options(&mut page, &gateway);
    let _ = writeln!(page, ".SH NOTES\n{}", roff(&text_of(gateway.get_after_help())));
    let _ = writeln!(page, ".SH COMMANDS");
    for command in program::command(engines).get_subcommands() {
        let _ = writeln!(page, ".SS sluicegate storage {}", roff(command.get_name()));
        let _ = writeln!(page, "{}", roff(&text_of(command.get_about())));
        add_options(&mut page, command);
    }
    page
}

/// Adds the options by their headings. Those whose help was made by the program come last in a command.
fn add_options(page: &mut String, command: &Command) {
    let options = || command.get_arguments().filter(|option| !option.is_hide_set());
    let mut headings = Vec::new();
    for option in options() {
        if !headings.contains(&option.get_help_heading()) {
            headings.push(option.get_help_heading());
        }
    }
    for heading in headings {
        if let Some(heading) = heading {
            let _ = writeln!(page, ".SS {}", roff(heading));
        }
        for option in options().filter(|option| option.get_help_heading() == heading) {
            add_option(page, option);
        }
    }
}

fn add_option(page: &mut String, option: &Arg) {
    let Some(name) = option.get_long() else { return };
    page.push_str(".TP\n");
    if let Some(short) = option.get_short() {
        let _ = write!(page, "\\fB\\-{short}\\fR, ");
    }
    let _ = write!(page, "\\fB\\-\\-{}\\fR", roff(name));
    if takes_value(option) {
        let names = option.get_value_names().unwrap_or_default();
        let _ = write!(page, "=\\fI{}\\fR", names.first().map_or("VALUE", |name| name.as_str()));
    }
    let _ = writeln!(page, "\n{}", roff(&text_of(option.get_help())));
    if !takes_value(option) {
        return;
    }
    let values = values(option).join(", ");
    if !values.is_empty() {
        let _ = writeln!(page, ".br\nValues: {}.", roff(&values));
    }
    if let [default] = option.get_default_values()
        && !default.is_empty()
    {
        let _ = writeln!(page, ".br\nDefault: {}.", roff(&default.to_string_lossy()));
    }
}

fn text_of(text: Option<&clap::builder::StyledStr>) -> String {
    text.map(ToString::to_string).unwrap_or_default()
}

/// Escapes a text: hyphens are minus signs, and no line begins with a macro.
fn roff(text: &str) -> String {
    let lines = text.lines().map(|line| {
        let line = line.replace('\\', "\\e").replace('-', "\\-");
        if line.starts_with(['.', '\'']) { format!("\\&{line}") } else { line }
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn values(argument: &Arg) -> Vec<String> {
    let values = argument.get_possible_values().into_iter();
    values.filter(|value| !value.is_hide_set()).map(|value| value.get_name().to_owned()).collect()
}

/// What the last of these words may be, one in each line. Empty for a value that can be anything, for example a file.
pub(super) fn completions(words: &[String], engines: &EngineChoices) -> String {
    let is_value = words.last().is_some_and(|word| word == "=");
    let words = words.iter().map(String::as_str).filter(|word| *word != "=").chain(is_value.then_some(""));
    let words: Vec<&str> = words.collect();
    let storage = program::command(engines);
    let (command, words) = match &words[..] {
        [program::STORAGE, _] => {
            return lines(storage.get_subcommands().map(|command| command.get_name().to_owned()));
        }
        [program::STORAGE, name, words @ ..] => match storage.find_subcommand(name) {
            Some(command) => (command.clone(), words),
            None => return String::new(),
        },
        words => (flags::command(engines), words),
    };
    let [before @ .., last] = words else { return String::new() };
    let flag = before.last().and_then(|word| word.strip_prefix("--")).and_then(|name| {
        command.get_arguments().find(|argument| argument.get_long() == Some(name) && takes_value(argument))
    });
    if let Some(flag) = flag {
        return lines(values(flag).into_iter());
    }
    let wants_negation = last.starts_with("--no");
    let names = command
        .get_arguments()
        .filter(|argument| wants_negation || !argument.is_hide_set())
        .filter_map(|argument| Some(format!("--{}", argument.get_long()?)));
    let is_first = before.is_empty() && !last.starts_with('-') && command.get_name() == "sluicegate";
    lines(names.chain(is_first.then(|| program::STORAGE.to_owned())))
}

fn lines(words: impl Iterator<Item = String>) -> String {
    words.map(|word| word + "\n").collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::ENGINES;
    use super::*;

    /// Sorted, because shells sort them as well.
    fn completed(words: &[&str]) -> Vec<String> {
        let words: Vec<String> = words.iter().map(ToString::to_string).collect();
        let mut completed: Vec<_> = completions(&words, &ENGINES).lines().map(str::to_owned).collect();
        completed.sort();
        completed
    }

    #[test]
    fn flags_their_values_and_commands_are_completed() {
        let flags = completed(&["--web.l"]);
        assert!(flags.contains(&"--web.listen-address".to_owned()) && flags.contains(&"--help".to_owned()));
        assert!(!flags.iter().any(|flag| flag.starts_with("--no-") || flag == "storage"), "{flags:?}");
        assert!(completed(&["--no-w"]).contains(&"--no-web.enable-lifecycle".to_owned()));
        assert!(completed(&["s"]).contains(&"storage".to_owned()));
        assert_eq!(completed(&[]), [""; 0]);
        for words in [
            &["--log.level", ""][..],
            &["--log.level", "i"],
            &["--log.level", "="],
            &["--log.level", "=", "i"],
            &["--web.enable-lifecycle", "--log.level", "="],
        ] {
            assert_eq!(completed(words), ["debug", "error", "info", "warn"], "{words:?}");
        }
        assert_eq!(completed(&["--web.config.file", "="]), [""; 0], "the shell knows files");
        assert!(completed(&["--web.enable-lifecycle", ""]).contains(&"--log.level".to_owned()));
        assert_eq!(completed(&["storage", ""]), ["inspect", "migrate", "verify"]);
        assert_eq!(completed(&["storage", "verify", "--"]), ["--backend", "--path"]);
        assert_eq!(completed(&["storage", "verify", "--backend", "="]), ["sled", "snapshot"]);
        assert_eq!(completed(&["storage", "other", ""]), [""; 0]);
    }

    #[test]
    fn the_manual_and_the_long_help_have_all_flags() {
        let (page, help) = (manual(&ENGINES), long(&ENGINES));
        for argument in flags::command(&ENGINES).get_arguments().filter(|argument| !argument.is_hide_set()) {
            let name = argument.get_long().expect("all have one");
            assert!(page.contains(&format!("\\fB\\-\\-{}\\fR", roff(name))), "{name}");
            assert!(help.contains(&format!("--{name}")), "{name}");
        }
        for text in ["storage verify", "storage migrate"] {
            assert!(page.contains(text) && help.contains(text), "{text} in {help}");
        }
        assert!(page.contains("Default: :9091.\n") && page.contains("Values: debug, info, warn, error.\n"));
        assert!(page.lines().all(|line| !line.is_empty()), "{page}");
        assert_eq!(page.matches(".SS Storage").count(), 1, "{page}");
    }

    #[test]
    fn texts_are_escaped_for_roff() {
        assert_eq!(roff("a-b\\c\n.x\n'y\n:z"), "a\\-b\\ec\n\\&.x\n\\&'y\n:z");
    }
}
