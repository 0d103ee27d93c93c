//! Reading query strings: pairs, and the small values several routes share.

use actix_web::web::Query;

use super::problem::ApiError;

/// Most elements of a page, and their number unless the query says otherwise.
const PAGE_MAX: usize = 1000;
const PAGE_DEFAULT: usize = 100;

/// The pairs of a query string, percent-decoded, in their order.
///
/// Keys we do not know are ignored. An empty value counts as an absent one. Of
/// a key with a single value the last one counts; lists are joined.
#[derive(Debug)]
pub(super) struct Pairs(Vec<(String, String)>);

impl Pairs {
    /// Parses a query string; any text is one.
    pub(super) fn parse(query: &str) -> Self {
        let pairs = Query::<Vec<(String, String)>>::from_query(query);
        Self(pairs.map(Query::into_inner).unwrap_or_default())
    }

    /// Returns all pairs, those with an empty value, too.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// Returns the value of `key`.
    pub(super) fn get(&self, key: &'static str) -> Option<&str> {
        self.all(key).next_back()
    }

    /// Returns the elements of the comma-separated lists under `key`.
    pub(super) fn list(&self, key: &'static str) -> impl Iterator<Item = &str> {
        self.all(key)
            .flat_map(|value| value.split(','))
            .filter(|item| !item.is_empty())
    }

    /// Returns whether the switch `key` is on; absent is off.
    ///
    /// # Errors
    /// 400 for anything but `true`, `1`, `false` and `0`.
    pub(super) fn switch(&self, key: &'static str) -> Result<bool, ApiError> {
        match self.get(key) {
            None | Some("false" | "0") => Ok(false),
            Some("true" | "1") => Ok(true),
            Some(other) => Err(ApiError::bad_query(key, other, "true or false")),
        }
    }

    /// Returns the page size under `key`: 1 to [`PAGE_MAX`], absent
    /// [`PAGE_DEFAULT`].
    ///
    /// # Errors
    /// 400 for anything else.
    pub(super) fn page_size(&self, key: &'static str) -> Result<usize, ApiError> {
        let Some(text) = self.get(key) else {
            return Ok(PAGE_DEFAULT);
        };
        let number = text
            .parse()
            .ok()
            .filter(|size| (1..=PAGE_MAX).contains(size));
        number.ok_or_else(|| ApiError::bad_query(key, text, "a number from 1 to 1000"))
    }

    fn all(&self, key: &'static str) -> impl DoubleEndedIterator<Item = &str> {
        self.0
            .iter()
            .filter(move |(name, value)| name == key && !value.is_empty())
            .map(|(_, value)| value.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_value_counts_and_lists_are_joined() {
        let pairs = Pairs::parse("a=1&a=2&a=&kinds=x,,y&kinds=z%2Cw&b&=3&%ff=%ff&c=a+b");
        assert_eq!(pairs.get("a"), Some("2"));
        assert_eq!(pairs.get("b"), None);
        assert_eq!(pairs.get("c"), Some("a b"));
        assert_eq!(
            pairs.list("kinds").collect::<Vec<_>>(),
            ["x", "y", "z", "w"]
        );
        assert_eq!(Pairs::parse("").get("a"), None);
    }

    #[test]
    fn a_switch_is_true_or_false() {
        for (query, expected) in [
            ("", Some(false)),
            ("on=", Some(false)),
            ("on=true", Some(true)),
            ("on=1", Some(true)),
            ("on=0", Some(false)),
            ("on=yes", None),
        ] {
            assert_eq!(Pairs::parse(query).switch("on").ok(), expected, "{query}");
        }
    }
}
