//! Looks for a header among few.

use http::{HeaderMap, HeaderName, HeaderValue};

/// The first header of that name. A request has a handful: to look at each takes less time than to hash the name.
pub fn find<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h HeaderValue> {
    headers.iter().find(|(other, _)| *other == name).map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_that_name_is_found() {
        let mut headers = HeaderMap::new();
        let (name, other) = (HeaderName::from_static("x-name"), HeaderName::from_static("x-other"));
        assert_eq!(find(&headers, &name), None);
        headers.append(other.clone(), HeaderValue::from_static("0"));
        assert_eq!(find(&headers, &name), None);
        headers.append(name.clone(), HeaderValue::from_static("1"));
        headers.append(name.clone(), HeaderValue::from_static("2"));
        assert_eq!(find(&headers, &name), headers.get(&name));
        assert_eq!(find(&headers, &other), headers.get(&other));
    }
}
