//! Tries targets without a fuzzer: the inputs that are kept, changed at random, for some seconds each. For machines without a nightly
//! toolchain; it sees no coverage, so it finds what lies near the corpus and no more.
//!
//! ```text
//!   spooler-fuzzing --list
//!   spooler-fuzzing --seconds N [--seed S] TARGET…
//!   spooler-fuzzing --replay TARGET FILE
//! ```

use std::fs;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use fastrand::Rng;
use spooler_fuzzing::{corpus, folder, run, targets};

/// Bytes of an input.
const INPUT_BYTES_MAX: usize = 4096;
/// Inputs that are remembered for each target besides those that are kept.
const POOL_MAX: usize = 2000;
/// Pieces that are more often the trouble than others.
const WORDS: &[&[u8]] = &[
    b"\r\n",
    b"\n",
    b"\r",
    b"\0",
    b".",
    b"\r\n.\r\n",
    b"\n%%\n",
    b"\n.\n",
    b"%",
    b"\xff",
    b"\xc3\xa4",
    b"\"",
    b"<",
    b">",
    b"@",
    b"{",
    b"}",
    b"\\",
    b" ",
    b"\t",
    b":",
    b"=",
    b"0",
    b"-1",
    b"18446744073709551615",
    b"9223372036854775807",
    b"\x02",
    b"\x03",
    b"\x10",
    b"--",
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["--list"] => list(),
        ["--replay", target, file] => replay(target, file),
        ["--seconds", seconds, "--seed", seed, names @ ..] => attempt(seconds, seed, names),
        ["--seconds", seconds, names @ ..] => attempt(seconds, "1", names),
        _ => Err("usage: spooler-fuzzing --list | --seconds N [--seed S] TARGET... | --replay TARGET FILE".to_owned()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

fn list() -> Result<(), String> {
    let names: Vec<&str> = targets().into_iter().map(|(name, _)| name).collect();
    writeln!(io::stdout().lock(), "{}", names.join("\n")).map_err(|error| error.to_string())
}

fn replay(name: &str, file: &str) -> Result<(), String> {
    let input = fs::read(file).map_err(|error| format!("{file}: {error}"))?;
    run(name, &input);
    eprintln!("{name} holds for {file}");
    Ok(())
}

fn attempt(seconds: &str, seed: &str, names: &[&str]) -> Result<(), String> {
    let number = |text: &str| text.parse::<u64>().map_err(|_| format!("\"{text}\" is not a number"));
    let (seconds, seed) = (number(seconds)?, number(seed)?);
    let mut broken = Vec::new();
    for name in names {
        if !mutate(name, Duration::from_secs(seconds), seed)? {
            broken.push(*name);
        }
    }
    if broken.is_empty() { Ok(()) } else { Err(format!("does not hold: {}", broken.join(", "))) }
}

/// Tries changed inputs until the time is over or something does not hold. That input is left in `fuzz/artifacts/NAME/`.
fn mutate(name: &str, limit: Duration, seed: u64) -> Result<bool, String> {
    let kept = corpus(name).map_err(|error| format!("fuzz/corpus/{name}: {error}"))?;
    let mut pool: Vec<Vec<u8>> = kept.into_iter().map(|(_, bytes)| bytes).collect();
    let mut random = Rng::with_seed(seed);
    let (begun, mut runs, first) = (Instant::now(), 0_u64, pool.len());
    while begun.elapsed() < limit {
        let input = changed(&pool, &mut random);
        runs += 1;
        if std::panic::catch_unwind(|| run(name, &input)).is_err() {
            let path = keep(name, &input).map_err(|error| error.to_string())?;
            eprintln!("{name:<18} {runs:>9} runs, seed {seed}: FAILED, see above; kept as {path}");
            eprintln!("{:18} replay with: scripts/fuzz --replay {name} {path}", "");
            return Ok(false);
        }
        // Changes go on from changes, so that several of them come together.
        if random.u8(..) < 16 {
            let place = random.usize(first..POOL_MAX.max(first + 1));
            if place < pool.len() {
                pool.swap_remove(place);
            }
            pool.push(input);
        }
    }
    eprintln!("{name:<18} {runs:>9} runs, {first} seeds: holds");
    Ok(true)
}

fn keep(name: &str, input: &[u8]) -> io::Result<String> {
    let place = folder().join("artifacts").join(name);
    fs::create_dir_all(&place)?;
    let sum = input
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3));
    let path = place.canonicalize()?.join(format!("crash-{sum:016x}"));
    fs::write(&path, input)?;
    Ok(path.display().to_string())
}

/// One of the inputs, changed in one to eight places.
fn changed(pool: &[Vec<u8>], random: &mut Rng) -> Vec<u8> {
    let any = |random: &mut Rng| random.choice(pool).cloned().unwrap_or_default();
    let mut input = any(random);
    for _ in 0..random.u8(1..=8) {
        let at = random.usize(0..=input.len());
        let end = (at + random.usize(0..=16)).min(input.len());
        match random.u8(0..7) {
            0 => drop(input.drain(at..end)),
            1 => drop(input.splice(at..at, random.choice(WORDS).copied().unwrap_or_default().iter().copied())),
            2 => drop(input.splice(at..end, random.choice(WORDS).copied().unwrap_or_default().iter().copied())),
            3 => {
                let byte = random.u8(..);
                input.get_mut(at..end).unwrap_or_default().iter_mut().take(1).for_each(|old| *old = byte);
            }
            4 => {
                let again = input.get(at..end).unwrap_or_default().to_vec();
                input.splice(at..at, again.repeat(random.usize(1..=20)));
            }
            5 => {
                let bit = 1 << random.u8(0..8);
                input.get_mut(at..end).unwrap_or_default().iter_mut().take(1).for_each(|old| *old ^= bit);
            }
            _ => {
                let other = any(random);
                let from = random.usize(0..=other.len());
                input.splice(at..end, other.get(from..).unwrap_or_default().iter().copied().take(64));
            }
        }
    }
    input.truncate(INPUT_BYTES_MAX);
    input
}
