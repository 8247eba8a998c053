//! One page of a list, as a message that every client can take.

/// Bytes of the entries of one page; clients take messages of 4 MiB unless they are told otherwise.
const PAGE_BYTES_MAX: usize = 3 * 1024 * 1024;

/// Makes a page of a list that was read one entry further than asked for: the entries as messages, and the word that
/// leads on, or nothing on the last page. A page of very large entries is cut shorter (AIP-158).
pub(super) fn page_of<T, M: prost::Message>(
    entries: &[T],
    size: u32,
    message: impl Fn(&T) -> M,
    token: impl FnOnce(&T) -> String,
) -> (Vec<M>, String) {
    let size = usize::try_from(size).unwrap_or(usize::MAX);
    let mut bytes = 0;
    let mut messages = Vec::new();
    for entry in entries.iter().take(size) {
        let message = message(entry);
        bytes += message.encoded_len();
        if bytes > PAGE_BYTES_MAX && !messages.is_empty() {
            break;
        }
        messages.push(message);
    }
    let leads_on = messages.len() < entries.len();
    let last = messages.len().checked_sub(1).map(|at| &entries[at]);
    let next_page_token = last.filter(|_| leads_on).map(token).unwrap_or_default();
    (messages, next_page_token)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(entries: &[usize], size: u32) -> (usize, String) {
        let message = |bytes: &usize| "x".repeat(*bytes);
        let (messages, token) = page_of(entries, size, message, ToString::to_string);
        (messages.len(), token)
    }

    #[test]
    fn a_page_is_cut_by_entries_and_by_bytes() {
        assert_eq!(cut(&[], 2), (0, String::new()));
        assert_eq!(cut(&[1, 2], 2), (2, String::new()), "the last page leads nowhere");
        assert_eq!(cut(&[1, 2, 3], 2), (2, "2".to_owned()));
        let large = PAGE_BYTES_MAX / 2 - 100;
        assert_eq!(cut(&[large, large, large], 9), (2, large.to_string()));
        assert_eq!(
            cut(&[PAGE_BYTES_MAX + 1, 1], 9),
            (1, (PAGE_BYTES_MAX + 1).to_string()),
            "at least one, to get on"
        );
    }
}
