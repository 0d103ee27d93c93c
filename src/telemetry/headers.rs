//! The headers that `OTEL_EXPORTER_OTLP_HEADERS` and its kin name.

use anyhow::bail;
use percent_encoding::percent_decode_str;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};

use super::collector::Signal;

/// Headers for everything; those of a signal take their place.
const FOR_ALL: &str = "OTEL_EXPORTER_OTLP_HEADERS";

/// Returns the headers for a signal, as `variable` has them.
///
/// # Errors
/// A text that is none; its value, which may be a secret, is not shown.
pub(super) fn headers_of(
    signal: Signal,
    variable: impl Fn(&str) -> Option<String>,
) -> anyhow::Result<HeaderMap> {
    for name in [signal.headers_variable(), FOR_ALL] {
        let Some(text) = variable(name).filter(|text| !text.trim().is_empty()) else {
            continue;
        };
        match parse(&text) {
            Some(headers) => return Ok(headers),
            None => bail!("{name}: must be name=value, comma separated, values percent-encoded"),
        }
    }
    Ok(HeaderMap::new())
}

fn parse(text: &str) -> Option<HeaderMap> {
    let pairs = text.split(',').filter(|pair| !pair.trim().is_empty());
    pairs
        .map(|pair| {
            let (name, value) = pair.split_once('=')?;
            let name = name.trim().parse::<HeaderName>().ok()?;
            let value = percent_decode_str(value.trim()).collect::<Vec<u8>>();
            let mut value = HeaderValue::from_bytes(&value).ok()?;
            value.set_sensitive(true);
            Some((name, value))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(signal: Signal, set: &[(&str, &str)]) -> Result<Vec<String>, String> {
        let variable = |name: &str| {
            let found = set.iter().find(|(known, _)| *known == name);
            found.map(|(_, text)| (*text).to_owned())
        };
        let headers = headers_of(signal, variable).map_err(|error| error.to_string())?;
        let text = |(name, value): (&HeaderName, &HeaderValue)| {
            format!("{name}: {}", value.to_str().expect("ASCII"))
        };
        Ok(headers.iter().map(text).collect())
    }

    #[test]
    fn a_signal_has_its_own_headers_or_those_for_all() {
        let all = (FOR_ALL, "Authorization=Bearer%20s3cret, x-tenant = a=b ,");
        let own = ("OTEL_EXPORTER_OTLP_METRICS_HEADERS", "api-key=k");
        let of_all = ["authorization: Bearer s3cret", "x-tenant: a=b"];
        assert_eq!(of(Signal::Traces, &[all, own]).expect("good"), of_all);
        assert_eq!(
            of(Signal::Metrics, &[all, own]).expect("good"),
            ["api-key: k"]
        );
        assert!(
            of(Signal::Metrics, &[(FOR_ALL, " ")])
                .expect("good")
                .is_empty()
        );
    }

    #[test]
    fn a_bad_header_is_refused_and_not_shown() {
        for text in ["s3cret", "a b=s3cret", "x=s3cret%0a"] {
            let error = of(Signal::Traces, &[(FOR_ALL, text)]).expect_err(text);
            assert!(
                error.starts_with(FOR_ALL) && !error.contains("s3cret"),
                "{error}"
            );
        }
    }
}
