//! Configurations of any kind: every mistake is a sentence, and what `--print` shows is the same configuration.

use std::path::Path;

use super::{parse, print_effective};

/// Input: the file.
pub(crate) fn configuration(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let source = Path::new("spooler.toml");
    match parse(&text, source) {
        Err(error) => {
            let lines = text.split('\n').count();
            for problem in &error.problems {
                assert!(!problem.message.trim().is_empty());
                assert!(problem.line.is_none_or(|line| (1..=lines).contains(&line)), "{problem:?}");
            }
            assert!(!error.problems.is_empty() && error.to_string().starts_with("spooler.toml"), "{error}");
        }
        Ok(config) => {
            let printed = print_effective(&config);
            let again = match parse(&printed, source) {
                Ok(again) => again,
                Err(error) => panic!("what is printed cannot be read: {error}\n{printed}"),
            };
            assert_eq!(print_effective(&again), printed);
            let names = |config: &super::Config| {
                config
                    .providers
                    .iter()
                    .map(|provider| (provider.name.clone(), provider.kind.clone()))
                    .collect::<Vec<_>>()
            };
            assert_eq!(
                (names(&again), &again.retry, &again.hostname),
                (names(&config), &config.retry, &config.hostname)
            );
        }
    }
}
