//! Where passwords and tokens come from: a prompt, or stdin. Never an argument or a variable, which other users of the
//! machine, the shell's history and crash reports get to see.

use std::io::{self, IsTerminal as _, Read};

use zeroize::Zeroizing;

use super::failure::{Exit, Failure};

/// Above the longest password that any server takes.
const BYTES_MAX: u64 = 8 * 1_024;

/// Reads a secret from stdin, or asks for it.
pub(super) fn read(what: &str, from_stdin: bool) -> Result<Zeroizing<String>, Failure> {
    if from_stdin { one_line(io::stdin().lock(), what) } else { ask(&format!("{what}: "), what) }
}

/// As [`read`], for a new password: asks twice, since nobody sees what is typed.
pub(super) fn read_new(what: &str, from_stdin: bool) -> Result<Zeroizing<String>, Failure> {
    let first = read(what, from_stdin)?;
    if !from_stdin && first != ask("The same again: ", what)? {
        return Err(Failure::new(Exit::Refused, "the two are not the same"));
    }
    Ok(first)
}

fn ask(prompt: &str, what: &str) -> Result<Zeroizing<String>, Failure> {
    let flag = format!("--{}-stdin", what.split(' ').next_back().unwrap_or(what).to_lowercase());
    if !io::stdin().is_terminal() {
        let message = format!("there is no terminal to ask for the {}", what.to_lowercase());
        return Err(Failure::new(Exit::Refused, message).hint(format!("give it on stdin with {flag}")));
    }
    rpassword::prompt_password(prompt).map(Zeroizing::new).map_err(|error| {
        Failure::new(Exit::Refused, format!("cannot ask: {error}"))
            .hint(format!("give it on stdin with {flag}"))
    })
}

/// The one line of `input`; only its line end is taken off, nothing else is trimmed.
fn one_line(input: impl Read, what: &str) -> Result<Zeroizing<String>, Failure> {
    let refuse = |why: &str| Failure::new(Exit::Refused, format!("{} on stdin {why}", what.to_lowercase()));
    // Room for everything at once, so that growing leaves no copy behind.
    let mut text = Zeroizing::new(String::with_capacity(usize::try_from(BYTES_MAX).unwrap_or(0) + 1));
    input.take(BYTES_MAX + 1).read_to_string(&mut text).map_err(|_| refuse("is not UTF-8"))?;
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    match text.as_str() {
        "" => Err(refuse("is empty")),
        line if line.contains('\n') => Err(refuse("has more than one line")),
        line if line.len() as u64 >= BYTES_MAX => Err(refuse("is too long")),
        _ => Ok(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<String, String> {
        let read = one_line(text.as_bytes(), "Password");
        read.map(|line| line.as_str().to_owned()).map_err(|failure| format!("{failure:?}"))
    }

    #[test]
    fn only_the_line_end_is_taken_off() {
        for text in [" spaced ", " spaced \n", " spaced \r\n"] {
            assert_eq!(read(text).as_deref(), Ok(" spaced "));
        }
    }

    #[test]
    fn what_is_not_one_line_is_refused_without_being_shown() {
        for text in ["", "\n", "marker\nmarker", "marker\n\n", &"marker".repeat(2_000)] {
            let refused = read(text).expect_err("refused");
            assert!(!refused.contains("marker"), "{refused}");
        }
        assert!(one_line(&[0xff, 0xfe][..], "Password").is_err());
    }
}
