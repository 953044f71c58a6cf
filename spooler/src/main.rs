//! The spooler's daemon, and the check of its configuration.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use spooler::system::log;
use spooler::{config, daemon, init};

/// Store-and-forward message spooler.
#[derive(Parser)]
#[command(name = "spooler", version, about, after_help = EXAMPLES)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "Examples:
  spooler init --relay mail.example.net --user me --root admin@example.org
                                               write a configuration for this mail server, and try it
  spooler run                                  run with /etc/spooler/spooler.toml
  spooler run --config ./spooler.toml          run with another configuration
  spooler check --config ./spooler.toml        find every mistake in it
  spooler check --print                        show what is in effect, secrets left out
  spooler probe relay                          connect to the relay and log in, send nothing
  sudo spooler check                           find what the service's user cannot read as well

SIGTERM stops (a second one hurries), SIGHUP reads the configuration again.
SPOOLER_LOG sets what is logged besides the mail log: error, warn, info (default), debug.";

#[derive(Subcommand)]
enum Command {
    /// Run the supervisor in the foreground.
    Run {
        /// The configuration; without it /etc/spooler/spooler.toml, then $XDG_CONFIG_HOME/spooler/spooler.toml.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Check the configuration: every mistake with its line and what is allowed.
    Check {
        /// The configuration; found as by `run`.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Show the effective configuration, defaults included and secrets left out.
        #[arg(long)]
        print: bool,
        /// Check with the rights of this user [default: the user of the installed unit, else the owner of the spool].
        #[arg(long, value_name = "NAME")]
        user: Option<String>,
    },
    /// Write a configuration that hands all mail to one mail server, and try it.
    Init(init::Options),
    /// Try providers without sending mail: connect, TLS, AUTH, and say each step.
    Probe {
        /// The provider [default: every one that is enabled].
        provider: Option<String>,
        /// The configuration; found as by `run`.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Try with the rights of this user [default: as for `check`].
        #[arg(long, value_name = "NAME")]
        user: Option<String>,
    },
    /// Write the man page of this program into a folder.
    #[command(hide = true)]
    Man {
        /// Where to.
        folder: PathBuf,
    },
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Run { config } => run(config.as_deref()),
        Command::Check { config, print, user } => check(config.as_deref(), print, user.as_deref()),
        Command::Probe { provider, config, user } => probe(config.as_deref(), provider.as_deref(), user.as_deref()),
        Command::Init(options) => init::run(&options, &mut std::io::stdout())
            .map(|()| ExitCode::SUCCESS)
            .map_err(|error| (error.exit_code(), error.to_string())),
        Command::Man { folder } => man(&folder),
    };
    result.unwrap_or_else(|(code, error)| {
        log::complain(&format!("spooler: {error}"));
        ExitCode::from(code)
    })
}

fn check(config: Option<&std::path::Path>, print: bool, user: Option<&str>) -> Result<ExitCode, (u8, String)> {
    // 64: EX_USAGE.
    let eyes = config::Eyes::open(config, user).map_err(|error| (64, error.to_string()))?;
    let (code, text) = config::check_command(config, print, &eyes);
    write_out(&text).map(|()| ExitCode::from(code)).map_err(|error| (74, error.to_string()))
}

fn probe(
    config: Option<&std::path::Path>,
    provider: Option<&str>,
    user: Option<&str>,
) -> Result<ExitCode, (u8, String)> {
    let eyes = config::Eyes::open(config, user).map_err(|error| (64, error.to_string()))?;
    config::probe_command(config, provider, &eyes, &mut std::io::stdout()).map(ExitCode::from)
}

fn run(explicit: Option<&std::path::Path>) -> Result<ExitCode, (u8, String)> {
    let path = config::find(explicit).map_err(|error| (78, error.to_string()))?;
    daemon::run(&path).map_err(|error| (error.exit_code(), error.to_string()))?;
    Ok(ExitCode::SUCCESS)
}

fn man(folder: &std::path::Path) -> Result<ExitCode, (u8, String)> {
    let command = <Arguments as clap::CommandFactory>::command();
    let error = |error: std::io::Error| (73, format!("{}: {error}", folder.display()));
    std::fs::create_dir_all(folder).and_then(|()| clap_mangen::generate_to(command, folder)).map_err(error)?;
    Ok(ExitCode::SUCCESS)
}

fn write_out(text: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}
